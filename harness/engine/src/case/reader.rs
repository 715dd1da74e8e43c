//! Reads a case file, strictly: whatever it says is either meant and possible, or refused where it stands.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use super::{
    Accepted, Case, ClaimedFix, DEFAULT_PROFILE, ExceptionClaim, Known, ServerArguments, Symptom, Vocabulary,
    arguments,
    raw::{
        OneOrMany, RawCase, RawException, RawExceptionParts, RawExit, RawFault, RawFaults, RawSham, RawStep, RawSymptom,
    },
};
use crate::defects::Defects;
use relapse_core::{
    asgi::{
        event::{EVENT_NAMES, Inbound},
        scope::keys,
        value::unescape_bytes,
    },
    client::{
        credential::{Credential, CredentialPlace},
        signal::{ExitExpectation, Signal},
        step::{
            Action, AnswerReading, Awaited, BodyExpectation, Carrier, ClientName, Concurrency, DEFAULT_LIMIT,
            DEFAULT_USER, Pattern, Request, Slices, SourceLine, Step,
        },
    },
    error::{Error, did_you_mean, renamed},
    fault::{
        Calls, EventFault, Fault, FaultKind, Place, ProcessFault, ScopeEdit, Trigger,
        setting::{GivenSettings, SettingError, is_token},
    },
    judge::outcome::{Class, Ending, OutcomePattern},
    wire::close_code::CloseCode,
};

/// More frames than any case has in one connection.
const FRAMES_MAX: usize = 1 << 20;

/// The longest limit a step may ask for.
const STEP_LIMIT_MAX: Duration = Duration::from_secs(3600);

/// Reads one case.
pub(super) fn read(path: &str, name: &str, text: &str, known: &Known<'_>) -> Result<Case, Error> {
    let raw: RawCase = toml::from_str(text).map_err(|error| Error::toml(path, text, &error))?;
    CaseReader { path, text, known }.case(name, raw)
}

/// Reads the faults of a file, `[[fault]]` each. Where no dependency is known there is only an edge.
pub(super) fn read_faults(path: &str, text: &str, known: &Known<'_>) -> Result<Vec<Fault>, Error> {
    let raw: RawFaults = toml::from_str(text).map_err(|error| Error::toml(path, text, &error))?;
    let reader = CaseReader { path, text, known };
    raw.fault.into_iter().map(|fault| reader.free_fault(fault)).collect()
}

struct CaseReader<'a> {
    path: &'a str,
    text: &'a str,
    known: &'a Known<'a>,
}

impl CaseReader<'_> {
    fn error(&self, span: Range<usize>, message: impl Into<String>, help: Option<String>) -> Error {
        Error::at(self.path, self.text, span, message, help)
    }

    fn unknown<'k>(
        &self,
        what: &str,
        name: &Spanned<String>,
        known: impl IntoIterator<Item = &'k str> + Clone,
    ) -> Error {
        let value = name.get_ref();
        let help = did_you_mean(value, known.clone()).unwrap_or_else(|| {
            format!("known are {}", known.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        });
        self.error(name.span(), format!("unknown {what} `{value}`"), Some(help))
    }

    fn one_of(&self, what: &str, name: &Spanned<String>, known: &[&str]) -> Result<String, Error> {
        if known.contains(&name.get_ref().as_str()) {
            Ok(name.get_ref().clone())
        } else {
            Err(self.unknown(what, name, known.iter().copied()))
        }
    }

    fn check(&self, name: &Spanned<String>) -> Result<String, Error> {
        let known: Vec<&str> = self.known.checks.iter().map(|check| check.name()).collect();
        self.one_of("check", name, &known)
    }

    fn case(&self, name: &str, raw: RawCase) -> Result<Case, Error> {
        for text in [Some(&raw.summary), raw.reported.as_ref(), raw.behind.as_ref(), raw.scenario.as_ref()]
            .into_iter()
            .flatten()
        {
            if text.get_ref().trim().is_empty() {
                return Err(self.error(text.span(), "this text is empty", Some("say it in one sentence".to_owned())));
            }
        }
        if let (Some(one), [_, ..]) = (&raw.defect, raw.defects.as_slice()) {
            let help = Some("name one with `defect`, or some with `defects`".to_owned());
            return Err(self.error(one.span(), "the version with the bug is named twice", help));
        }
        let twin = self.defects(raw.defect.iter().chain(&raw.defects))?;
        let vocabulary = raw.vocabulary.unwrap_or(match twin.is_empty() {
            true => Vocabulary::Own,
            false => Vocabulary::Backend,
        });
        let profiles = match raw.profiles {
            None => Some(vec![DEFAULT_PROFILE.to_owned()]),
            Some(names) if names.len() == 1 && names[0].get_ref() == "all" => None,
            Some(names) => Some(
                names
                    .iter()
                    .map(|name| self.one_of("server profile", name, self.known.profiles))
                    .collect::<Result<_, _>>()?,
            ),
        };
        if raw.environments.get_ref().is_empty() || profiles.as_ref().is_some_and(Vec::is_empty) {
            let help = Some("name at least one, or leave the key out".to_owned());
            return Err(self.error(raw.environments.span(), "this case would run nowhere", help));
        }
        let accept = self.accept(raw.expect.accept)?;
        let whole_steps = raw.step.span();
        let (steps, accepted) = self.steps(raw.step, &accept)?;
        let control = match raw.control {
            Some(control) => Some(self.control(control.step, &accept)?),
            None => None,
        };
        let server_arguments =
            raw.server_arguments.map_or(Ok(ServerArguments::default()), |all| self.arguments(all))?;
        let crowd = self.crowd([raw.users, raw.connections, raw.rounds])?;
        let at_least = self.at_least(raw.expect.at_least, &accepted, crowd)?;
        self.one_user_each(&steps, crowd, whole_steps.clone())?;
        self.no_crowd_of_names(&steps, crowd, whole_steps.clone())?;
        self.no_crowd_of_signals(&steps, crowd, whole_steps)?;
        let spans: Vec<Range<usize>> = raw.fault.iter().map(Spanned::span).collect();
        let faults =
            raw.fault.into_iter().map(|fault| self.fault(fault, &steps, crowd)).collect::<Result<Vec<_>, _>>()?;
        self.no_contradiction(&faults, &spans)?;
        let (symptom, symptom_on) = match raw.symptom {
            Some(symptom) => {
                let (symptom, on) = self.symptoms(symptom, profiles.as_ref(), &twin)?;
                (Some(symptom), on)
            }
            None if twin.is_empty() => (None, BTreeMap::new()),
            None => {
                let help = Some("say with `[symptom]` what the backend with the defect shows".to_owned());
                return Err(self.error(raw.summary.span(), "this case names a defect and claims no symptom", help));
            }
        };
        let shams = raw.sham.into_iter().map(|sham| self.sham(sham, profiles.as_ref())).collect::<Result<_, _>>()?;
        Ok(Case {
            name: name.to_owned(),
            summary: raw.summary.into_inner(),
            reported: raw.reported.map(Spanned::into_inner),
            behind: raw.behind.map(Spanned::into_inner),
            issues: raw.issues,
            scenario: raw.scenario.map(Spanned::into_inner),
            origin: raw.origin,
            vocabulary,
            twin,
            profiles,
            environments: raw.environments.into_inner(),
            steps,
            crowd,
            faults,
            seed: raw.seed.map(|seed| u64::from_ne_bytes(seed.to_ne_bytes())),
            is_alone: raw.alone,
            server_arguments,
            control,
            accepted,
            at_least,
            symptom,
            symptom_on,
            shams,
        })
    }

    /// The defects with these names, in the order of the service's own list.
    fn defects<'n>(&self, names: impl Iterator<Item = &'n Spanned<String>>) -> Result<Defects, Error> {
        let known: Vec<&str> = self.known.defects.iter().map(|entry| entry.name).collect();
        let names = names.map(|name| self.one_of("defect", name, &known)).collect::<Result<Vec<_>, _>>()?;
        Ok(Defects::of(known.into_iter().filter(|known| names.iter().any(|name| name == known))))
    }

    fn crowd(&self, given: [Option<Spanned<usize>>; 3]) -> Result<Concurrency, Error> {
        let mut span = 0..0;
        let [users, connections, rounds] = given.map(|count| {
            count.map_or(1, |count| {
                span = count.span();
                *count.get_ref()
            })
        });
        let crowd = Concurrency { users, connections, rounds };
        let all = users.checked_mul(connections).and_then(|clients| clients.checked_mul(rounds));
        match all {
            Some(1..=Concurrency::MAX) => Ok(crowd),
            _ => {
                let help = Some("users times connections times rounds is between 1 and 1000".to_owned());
                let what = if all == Some(0) {
                    "no client would perform the steps"
                } else {
                    "so many clients cannot be played"
                };
                Err(self.error(span, what, help))
            }
        }
    }

    /// How many exchanges of a class there must be: of one that is accepted, and no more than there can be.
    fn at_least(
        &self,
        given: BTreeMap<Class, Spanned<usize>>,
        accepted: &[Accepted],
        crowd: Concurrency,
    ) -> Result<BTreeMap<Class, usize>, Error> {
        let most = accepted.len() * crowd.clients() * crowd.rounds;
        let mut at_least = BTreeMap::new();
        for (class, count) in given {
            if !accepted.iter().any(|accepted| accepted.classes.contains(&class)) {
                return Err(self.error(count.span(), format!("`{class}` is accepted nowhere"), None));
            }
            if !(1..=most).contains(count.get_ref()) {
                let message = format!("the steps open {most} exchange(s); so many there can be, and at least 1");
                return Err(self.error(count.span(), message, None));
            }
            at_least.insert(class, count.into_inner());
        }
        Ok(at_least)
    }

    /// In a crowd each user has a number; a step cannot name another one.
    fn one_user_each(&self, steps: &[Step], crowd: Concurrency, span: Range<usize>) -> Result<(), Error> {
        let names_one = |step: &Step| matches!(&step.act, Action::Open(request) | Action::Request(request) if request.user != DEFAULT_USER);
        if crowd.users > 1 && steps.iter().any(names_one) {
            let help = Some("the users of a crowd are user-1, user-2 and so on".to_owned());
            return Err(self.error(span, "a step names a user, and `users` names all of them", help));
        }
        Ok(())
    }

    /// Refuses named clients in a crowd: each of its clients performs all the steps.
    fn no_crowd_of_names(&self, steps: &[Step], crowd: Concurrency, span: Range<usize>) -> Result<(), Error> {
        if crowd != Concurrency::ONE && steps.iter().any(|step| step.client.is_some()) {
            let help = Some("leave `users`, `connections` and `rounds` out, or every `as`".to_owned());
            return Err(self.error(span, "named clients cannot be a crowd", help));
        }
        Ok(())
    }

    /// Refuses signals in a crowd: each of its clients performs all the steps.
    fn no_crowd_of_signals(&self, steps: &[Step], crowd: Concurrency, span: Range<usize>) -> Result<(), Error> {
        if crowd != Concurrency::ONE && steps.iter().any(|step| !step.act.is_of_client()) {
            let help = Some("leave `users`, `connections` and `rounds` out, and name clients with `as`".to_owned());
            return Err(self.error(span, "every client of the crowd would send the signal", help));
        }
        Ok(())
    }

    /// The steps of the healthy client.
    fn control(&self, raw: Spanned<Vec<Spanned<RawStep>>>, accept: &Accepted) -> Result<Vec<Step>, Error> {
        let spans: Vec<Range<usize>> = raw.get_ref().iter().map(Spanned::span).collect();
        let steps = self.steps(raw, accept)?.0;
        match steps.iter().position(|step| !step.act.is_of_client()) {
            None => Ok(steps),
            Some(at) => {
                let message = "the healthy client finds the server as it is: it sends no signal, and waits for no end";
                Err(self.error(spans[at].clone(), message, Some("leave the step out".to_owned())))
            }
        }
    }

    /// Arguments for the server, none of which takes away what the harness relies on.
    fn arguments(&self, raw: Spanned<Vec<Spanned<String>>>) -> Result<ServerArguments, Error> {
        let span = raw.span();
        let line = self.line(&span);
        let mut given = Vec::new();
        for argument in raw.into_inner() {
            if let Some(why) = arguments::refusal(argument.get_ref()) {
                let message = format!("`{}` cannot be given to the server: {why}", argument.get_ref());
                return Err(self.error(argument.span(), message, Some("leave it out".to_owned())));
            }
            if argument.get_ref() == "--" || given.is_empty() && !argument.get_ref().starts_with('-') {
                let help = Some("write it as in `server_arguments = [\"--ws-ping-interval\", \"1\"]`".to_owned());
                let message = format!("`{}` is no option of a server", argument.get_ref());
                return Err(self.error(argument.span(), message, help));
            }
            given.push(argument.into_inner());
        }
        if given.is_empty() {
            return Err(self.error(span, "no argument is given", Some("leave the key out".to_owned())));
        }
        Ok(ServerArguments { arguments: given, line })
    }

    /// The line in which something begins.
    fn line(&self, span: &Range<usize>) -> SourceLine {
        let before = self.text.get(..span.start).unwrap_or_default();
        SourceLine(Some(before.matches('\n').count() + 1))
    }

    /// A signal by its name.
    fn signal(&self, name: &Spanned<String>) -> Result<Signal, Error> {
        let read = name.get_ref().parse();
        read.map_err(|help| self.error(name.span(), format!("unknown signal `{}`", name.get_ref()), Some(help)))
    }

    /// Refuses process faults that undo one another.
    fn no_contradiction(&self, faults: &[Fault], spans: &[Range<usize>]) -> Result<(), Error> {
        for (index, fault) in faults.iter().enumerate() {
            let undoes = |other: &&Fault| match (&fault.kind, &other.kind) {
                (FaultKind::Process(ProcessFault::Absent {}), FaultKind::Process(ProcessFault::Absent {})) => true,
                (FaultKind::Process(fault), FaultKind::Process(other)) => {
                    let name = |fault: &ProcessFault| fault.variable().map(|(name, _)| name.to_owned());
                    name(fault).is_some() && name(fault) == name(other)
                }
                _ => false,
            };
            if faults[..index].iter().any(|other| undoes(&other)) {
                let message = format!("this fault undoes another one: {fault}");
                return Err(self.error(spans[index].clone(), message, None));
            }
        }
        Ok(())
    }

    /// The classes and the outcomes that a list accepts.
    fn accept(&self, accept: Spanned<Vec<Spanned<String>>>) -> Result<Accepted, Error> {
        let mut accepted = Accepted { classes: Vec::new(), patterns: Vec::new(), outcome: None, says: None };
        for entry in accept.get_ref() {
            let name = entry.get_ref();
            let class = Class::ALL.into_iter().find(|class| class.name() == name);
            let pattern = name.parse::<OutcomePattern>().ok();
            let is_failure =
                class.is_some_and(|class| !class.is_good()) || pattern.is_some_and(OutcomePattern::is_failure);
            if is_failure {
                let good: Vec<&str> = Class::good().map(Class::name).collect();
                let help = Some(format!("a case accepts `{}`, and outcomes that are no failure", good.join("`, `")));
                return Err(self.error(entry.span(), format!("`{name}` can never be accepted"), help));
            }
            match (class, pattern) {
                (Some(class), _) => accepted.classes.push(class),
                (None, Some(pattern)) => accepted.patterns.push(pattern),
                (None, None) => {
                    let known: Vec<&str> =
                        Class::good().map(Class::name).chain(["http 401", "http 4xx", "close 1008"]).collect();
                    let help = renamed(name, Class::ALL.into_iter().map(Class::name))
                        .or_else(|| did_you_mean(name, known.iter().copied()))
                        .unwrap_or_else(|| format!("known are `{}`", known.join("`, `")));
                    return Err(self.error(entry.span(), format!("`{name}` is no class and no outcome"), Some(help)));
                }
            }
        }
        if accept.get_ref().is_empty() {
            return Err(self.error(accept.span(), "nothing is accepted, so the case could never pass", None));
        }
        Ok(accepted)
    }

    /// The steps, and what is accepted of those that open an exchange.
    fn steps(
        &self,
        raw: Spanned<Vec<Spanned<RawStep>>>,
        accept: &Accepted,
    ) -> Result<(Vec<Step>, Vec<Accepted>), Error> {
        let whole = raw.span();
        let (mut steps, mut accepted) = (Vec::new(), Vec::new());
        let mut order = Order::default();
        for mut step in raw.into_inner() {
            let span = step.span();
            let classes = step.get_mut().accept.take();
            let outcome = step.get_mut().outcome.take();
            let says = step.get_mut().says.take();
            let own = classes
                .as_ref()
                .map(Spanned::span)
                .or_else(|| [&outcome, &says].into_iter().flatten().next().map(Spanned::span));
            let step = self.step(step)?;
            if matches!(step.act, Action::Open(_) | Action::Request(_)) {
                let own = classes.map_or(Ok(accept.clone()), |classes| self.accept(classes))?;
                let outcome = outcome.map(|outcome| self.outcome(&outcome)).transpose()?;
                accepted.push(Accepted { outcome, says: says.map(Spanned::into_inner), ..own });
            } else if let Some(span) = own {
                return Err(self.error(span, "only `open` and `request` have an outcome of their own", None));
            }
            order.take(&step, &span).map_err(|refusal| self.error(refusal.span, refusal.message, refusal.help))?;
            steps.push(step);
        }
        order.end().map_err(|refusal| self.error(refusal.span, refusal.message, refusal.help))?;
        if accepted.is_empty() {
            return Err(self.error(whole, "a case needs at least one step that opens an exchange", None));
        }
        Ok((steps, accepted))
    }

    /// The servers that a key names, with spaces between, behind which a case runs.
    fn servers(&self, key: &Spanned<String>, profiles: Option<&Vec<String>>) -> Result<Vec<String>, Error> {
        let name_of = |name: &str| {
            let name = Spanned::new(key.span(), name.to_owned());
            let name = self.one_of("server profile", &name, self.known.profiles)?;
            if profiles.is_some_and(|names| !names.contains(&name)) {
                let help = Some("add it to `profiles`".to_owned());
                return Err(self.error(key.span(), format!("the case does not run behind `{name}`"), help));
            }
            Ok(name)
        };
        key.get_ref().split_whitespace().map(name_of).collect()
    }

    fn sham(&self, raw: RawSham, profiles: Option<&Vec<String>>) -> Result<ClaimedFix, Error> {
        if raw.claim.get_ref().trim().is_empty() || raw.defects.get_ref().is_empty() {
            let help = Some("say what was claimed, and name the defects of the tree it left".to_owned());
            return Err(self.error(raw.defects.span(), "this claimed fix says nothing", help));
        }
        let defects = self.defects(raw.defects.get_ref().iter())?;
        let outcome = self.outcome(&raw.outcome)?;
        let mut on = BTreeMap::new();
        for (profile, changes) in raw.on {
            let ending = changes.outcome.map_or(Ok(outcome), |outcome| self.outcome(&outcome))?;
            for name in self.servers(&profile, profiles)? {
                on.insert(name, (ending, changes.class.unwrap_or(raw.class)));
            }
        }
        Ok(ClaimedFix {
            claim: raw.claim.into_inner(),
            defects,
            outcome,
            class: raw.class,
            found_by: raw.found_by.iter().map(|name| self.check(name)).collect::<Result<_, _>>()?,
            on,
        })
    }

    fn step(&self, step: Spanned<RawStep>) -> Result<Step, Error> {
        let span = step.span();
        let mut raw = step.into_inner();
        let key = raw.signal.as_ref().map(Spanned::span).or_else(|| raw.wait_exit.as_ref().map(Spanned::span));
        let line = self.line(&key.unwrap_or_else(|| span.clone()));
        let limit = match &raw.within_ms {
            Some(limit) => self.limit(limit)?,
            None => DEFAULT_LIMIT,
        };
        let client = raw.client_name.take().map(|name| self.client_name(name)).transpose()?;
        let mut acts: Vec<(&str, Action)> = Vec::new();
        let give_up = raw.give_up_ms.as_ref().map(|give_up| (give_up.span(), *give_up.get_ref()));
        if let Some((span, _)) = give_up.filter(|(_, ms)| u128::from(*ms) >= limit.as_millis()) {
            let help = Some("let it be less than `within_ms`, which is 5000 unless it is said".to_owned());
            return Err(self.error(span, "the client would never get to giving up", help));
        }
        let bodies = [raw.body.as_ref().map(Spanned::span), raw.body_bytes.as_ref().map(Spanned::span)];
        match bodies {
            [Some(span), _] | [_, Some(span)] if raw.open.is_some() => {
                return Err(self.error(span, "an upgrade has no body", None));
            }
            [Some(_), Some(span)] => return Err(self.error(span, "a request has one body", None)),
            _ => {}
        }
        if raw.open.is_some() {
            let of_bodies = [
                ("answer", raw.answer.as_ref().map(Spanned::span)),
                ("send_body_bytes", raw.send_body_bytes.as_ref().map(Spanned::span)),
                ("first_byte_within_ms", raw.first_byte_within_ms.as_ref().map(Spanned::span)),
                ("gap_within_ms", raw.gap_within_ms.as_ref().map(Spanned::span)),
            ];
            if let Some((key, span)) = of_bodies.into_iter().find_map(|(key, span)| Some((key, span?))) {
                return Err(self.error(span, format!("`{key}` is about a body, and an upgrade has none"), None));
            }
            if let Some(on) = raw.on.as_ref().filter(|on| *on.get_ref() == Carrier::Pipeline) {
                let help =
                    Some("a client waits for the answers before it upgrades: `on = \"same-connection\"`".to_owned());
                return Err(self.error(on.span(), "an upgrade is not pipelined", help));
            }
        }
        if let Some(retry) = raw.retry_ms.as_ref().filter(|_| raw.on.as_ref().is_some_and(|on| !on.get_ref().is_new()))
        {
            let help = Some("leave `on` or `retry_ms` out".to_owned());
            let message = "`retry_ms` is about a new connection, and `on` names another";
            return Err(self.error(retry.span(), message, help));
        }
        if let Some(path) = raw.open.take() {
            acts.push(("open", Action::Open(self.request("GET", path, &mut raw, Credential::Valid)?)));
        }
        if let Some(line) = raw.request.take() {
            let line_span = line.span();
            let Some((method, path)) = line.get_ref().split_once(' ') else {
                let help = Some("write it as in `request = \"GET /health\"`".to_owned());
                return Err(self.error(line_span, "a request is a method and a path", help));
            };
            let (method, path) = (method.to_owned(), Spanned::new(line_span, path.to_owned()));
            acts.push(("request", Action::Request(self.request(&method, path, &mut raw, Credential::None)?)));
        }
        if let Some(text) = raw.send.take() {
            acts.push(("send", Action::SendText(self.message(text, raw.pad_to.take())?)));
        }
        if let Some(ping) = raw.ping.take() {
            self.only_true("ping", &ping)?;
            acts.push(("ping", Action::Ping));
        }
        if let Some(name) = raw.wait.take() {
            let awaited = match name.into_inner() {
                close if close == "close" => Awaited::Close,
                message => Awaited::Message(message),
            };
            acts.push(("wait", Action::Wait(awaited)));
        }
        if let Some(key) = raw.wait_key.take() {
            acts.push(("wait_key", Action::Wait(Awaited::Key(key.into_inner()))));
        }
        if let Some(text) = raw.wait_text.take() {
            if text.get_ref().is_empty() {
                let help = Some("`wait_any = true` waits for any message".to_owned());
                return Err(self.error(text.span(), "every text contains the empty one", help));
            }
            acts.push(("wait_text", Action::Wait(Awaited::Text(text.into_inner()))));
        }
        if let Some(pattern) = raw.wait_match.take() {
            let compiled = Pattern::new(pattern.get_ref()).map_err(|why| {
                let help = Some("it is a regular expression: `\\{` is a brace".to_owned());
                self.error(pattern.span(), format!("this is no pattern: {why}"), help)
            })?;
            acts.push(("wait_match", Action::Wait(Awaited::Match(compiled))));
        }
        if let Some(any) = raw.wait_any.take() {
            self.only_true("wait_any", &any)?;
            acts.push(("wait_any", Action::Wait(Awaited::Any)));
        }
        if let Some(answer) = raw.wait_answer.take() {
            self.only_true("wait_answer", &answer)?;
            acts.push(("wait_answer", Action::Wait(Awaited::Answer)));
        }
        if let Some(code) = raw.close.take() {
            acts.push(("close", Action::Close(CloseCode(code.into_inner()))));
        }
        if let Some(leave) = raw.leave.take() {
            self.only_true("leave", &leave)?;
            acts.push(("leave", Action::Leave));
        }
        if let Some(reset) = raw.reset.take() {
            self.only_true("reset", &reset)?;
            acts.push(("reset", Action::Reset));
        }
        if let Some(stop) = raw.stop_reading.take() {
            self.only_true("stop_reading", &stop)?;
            acts.push(("stop_reading", Action::StopReading));
        }
        if let Some(read) = raw.read_answer.take() {
            self.only_true("read_answer", &read)?;
            acts.push(("read_answer", Action::ReadAnswer));
        }
        if let Some(signal) = raw.signal.take() {
            acts.push(("signal", Action::Signal(self.signal(&signal)?)));
        }
        if let Some(exit) = raw.wait_exit.take() {
            let span = exit.span();
            let expected = match exit.into_inner() {
                RawExit::Any(is_awaited) => {
                    self.only_true("wait_exit", &Spanned::new(span, is_awaited))?;
                    ExitExpectation::Any
                }
                RawExit::Status(code) => ExitExpectation::Status(code),
                RawExit::Signal(name) => ExitExpectation::Signal(self.signal(&Spanned::new(span, name))?),
            };
            acts.push(("wait_exit", Action::AwaitExit(expected)));
        }
        let waits = |act: &Action| match act {
            Action::Open(_)
            | Action::Request(_)
            | Action::Ping
            | Action::Wait(_)
            | Action::Close(_)
            | Action::Leave
            | Action::Reset
            | Action::ReadAnswer
            | Action::AwaitExit(_) => true,
            Action::SendText(_)
            | Action::SendBytes(_)
            | Action::Pause
            | Action::Deafen
            | Action::Freeze
            | Action::StopReading
            | Action::Signal(_) => false,
        };
        let mut limit = limit;
        if let Some(pause) = raw.pause_ms.take() {
            limit = self.limit(&pause)?;
            acts.push(("pause_ms", Action::Pause));
        }
        if let Some(deaf) = raw.deaf_ms.take() {
            limit = self.limit(&deaf)?;
            acts.push(("deaf_ms", Action::Deafen));
        }
        if let Some(freeze) = raw.freeze_ms.take() {
            limit = self.limit(&freeze)?;
            acts.push(("freeze_ms", Action::Freeze));
        }
        if let Some(bytes) = raw.send_bytes.take() {
            acts.push(("send_bytes", Action::SendBytes(self.bytes(bytes)?)));
        }
        let slices = match acts.as_slice() {
            [(_, Action::Open(_) | Action::Request(_) | Action::SendText(_) | Action::SendBytes(_))] => {
                self.slices(&mut raw)?
            }
            _ => None,
        };
        self.no_left_over(&raw, acts.first().map(|(name, _)| *name))?;
        if let (Some(within), [(name, act)]) = (&raw.within_ms, acts.as_slice())
            && !waits(act)
        {
            return Err(self.error(within.span(), format!("a `{name}` step waits for nothing"), None));
        }
        match acts.len() {
            1 => Ok(Step { act: acts.remove(0).1, limit, client, slices, line }),
            0 => Err(self.error(
                span,
                "this step does nothing",
                Some("it needs one of `open`, `request`, `send`, `send_bytes`, `ping`, `wait`, `wait_key`, `wait_text`, `wait_match`, `wait_any`, `wait_answer`, `close`, `leave`, `reset`, `pause_ms`, `deaf_ms`, `freeze_ms`, `stop_reading`, `read_answer`, `signal`, `wait_exit`".to_owned()),
            )),
            _ => {
                let names: Vec<&str> = acts.iter().map(|(name, _)| *name).collect();
                let help = Some("write one step for each".to_owned());
                Err(self.error(span, format!("one step cannot both `{}`", names.join("` and `")), help))
            }
        }
    }

    fn client_name(&self, name: Spanned<String>) -> Result<ClientName, Error> {
        let is_plain = |text: &str| {
            let mut characters = text.chars();
            characters.next().is_some_and(char::is_alphanumeric)
                && characters.all(|character| character.is_alphanumeric() || matches!(character, '-' | '_' | ' '))
        };
        if !is_plain(name.get_ref()) {
            let help = Some("write it as in `as = \"ann\"`".to_owned());
            return Err(self.error(name.span(), format!("`{}` is no name of a client", name.get_ref()), help));
        }
        Ok(ClientName(name.into_inner()))
    }

    /// In which pieces a message or a request is written.
    fn slices(&self, raw: &mut RawStep) -> Result<Option<Slices>, Error> {
        let Some(bytes) = raw.slice_bytes.take() else { return Ok(None) };
        if *bytes.get_ref() == 0 {
            return Err(self.error(bytes.span(), "a slice has at least one byte", None));
        }
        let pause = raw.slice_pause_ms.take().map(|pause| self.limit(&pause)).transpose()?.unwrap_or_default();
        Ok(Some(Slices { bytes: bytes.into_inner(), pause }))
    }

    fn limit(&self, limit: &Spanned<u64>) -> Result<Duration, Error> {
        let duration = Duration::from_millis(*limit.get_ref());
        if duration.is_zero() || duration > STEP_LIMIT_MAX {
            return Err(self.error(limit.span(), "a limit is between 1 and 3600000 milliseconds", None));
        }
        Ok(duration)
    }

    fn only_true(&self, key: &str, value: &Spanned<bool>) -> Result<(), Error> {
        if *value.get_ref() {
            return Ok(());
        }
        Err(self.error(value.span(), format!("`{key} = false` does nothing"), Some("leave the step out".to_owned())))
    }

    /// Keys that the step's act did not take say something that would silently not happen.
    fn no_left_over(&self, raw: &RawStep, act: Option<&str>) -> Result<(), Error> {
        let left_over = [
            ("pad_to", raw.pad_to.as_ref().map(Spanned::span)),
            ("slice_bytes", raw.slice_bytes.as_ref().map(Spanned::span)),
            ("slice_pause_ms", raw.slice_pause_ms.as_ref().map(Spanned::span)),
            ("on", raw.on.as_ref().map(Spanned::span)),
            ("answer", raw.answer.as_ref().map(Spanned::span)),
            ("send_body_bytes", raw.send_body_bytes.as_ref().map(Spanned::span)),
            ("first_byte_within_ms", raw.first_byte_within_ms.as_ref().map(Spanned::span)),
            ("gap_within_ms", raw.gap_within_ms.as_ref().map(Spanned::span)),
            ("query", raw.query.as_ref().map(Spanned::span)),
            ("credential", raw.credential.as_ref().map(Spanned::span)),
            ("by", raw.by.as_ref().map(Spanned::span)),
            ("user", raw.user.as_ref().map(Spanned::span)),
            ("offers", raw.offers.as_ref().map(Spanned::span)),
            ("headers", raw.headers.as_ref().map(Spanned::span)),
            ("without", raw.without.as_ref().map(Spanned::span)),
            ("client", raw.client.as_ref().map(Spanned::span)),
            ("method", raw.method.as_ref().map(Spanned::span)),
            ("body", raw.body.as_ref().map(Spanned::span)),
            ("body_bytes", raw.body_bytes.as_ref().map(Spanned::span)),
            ("retry_ms", raw.retry_ms.as_ref().map(Spanned::span)),
            ("give_up_ms", raw.give_up_ms.as_ref().map(Spanned::span)),
        ];
        match left_over.into_iter().find_map(|(key, span)| Some((key, span?))) {
            None => Ok(()),
            Some((key, span)) => {
                let act = act.map_or("a step without an act".to_owned(), |act| format!("a `{act}` step"));
                Err(self.error(span, format!("`{key}` means nothing in {act}"), None))
            }
        }
    }

    fn request(
        &self,
        method: &str,
        path: Spanned<String>,
        raw: &mut RawStep,
        credential: Credential,
    ) -> Result<Request, Error> {
        if !path.get_ref().starts_with('/') {
            return Err(self.error(path.span(), "a path begins with `/`", None));
        }
        let span = path.span();
        let path = self.bytes(path)?;
        if path.iter().any(|byte| matches!(byte, b' ' | b'?' | b'#' | b'\r' | b'\n')) {
            let help = Some("percent-encode it; the query has a key of its own".to_owned());
            return Err(self.error(span, "a path holds no space, line end, `?` or `#`", help));
        }
        if let Some(method) = &raw.method {
            self.token("method", method.get_ref(), method.span())?;
        }
        self.token("method", method, span)?;
        let mut headers = Vec::new();
        if let Some(given) = raw.headers.take() {
            let span = given.span();
            for (name, value) in given.into_inner() {
                self.token("header name", &name, span.clone())?;
                let value = self.bytes(Spanned::new(span.clone(), value))?;
                if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0')) {
                    return Err(self.error(span, format!("the value of `{name}` holds a line end"), None));
                }
                headers.push((name.into(), value.into()));
            }
        }
        let credential = raw.credential.take().map_or(credential, Spanned::into_inner);
        let body = match raw.body_bytes.take() {
            Some(bytes) => self.bytes(bytes)?,
            None => raw.body.take().map_or(Ok(String::new()), |body| self.message(body, None))?.into_bytes(),
        };
        let body_sent = raw.send_body_bytes.take();
        if let Some(sent) = body_sent.as_ref().filter(|sent| *sent.get_ref() >= body.len()) {
            let message = format!("the body has {} byte(s), and a part of it is less", body.len());
            return Err(self.error(sent.span(), message, None));
        }
        let expects = BodyExpectation {
            first_byte: raw.first_byte_within_ms.take().map(|limit| self.limit(&limit)).transpose()?,
            gap: raw.gap_within_ms.take().map(|limit| self.limit(&limit)).transpose()?,
        };
        Ok(Request {
            method: raw.method.take().map_or(method.to_owned(), Spanned::into_inner),
            path,
            query: raw.query.take().map_or(Ok(Vec::new()), |query| self.bytes(query))?,
            credential,
            places: match raw.by.take().map(Spanned::into_inner) {
                None => vec![CredentialPlace::Header],
                Some(OneOrMany::One(place)) => vec![place],
                Some(OneOrMany::Many(places)) => places,
            },
            user: raw.user.take().map_or(DEFAULT_USER.to_owned(), Spanned::into_inner),
            offers: raw.offers.take().map(Spanned::into_inner).unwrap_or_default(),
            headers,
            without: raw.without.take().map(Spanned::into_inner).unwrap_or_default(),
            body,
            body_sent: body_sent.map(Spanned::into_inner),
            on: raw.on.take().map(Spanned::into_inner).unwrap_or_default(),
            answer: raw.answer.take().map_or(Ok(AnswerReading::AtOnce), |answer| self.answer(answer))?,
            expects,
            client: raw.client.take().map(Spanned::into_inner).unwrap_or_default(),
            retry: raw.retry_ms.take().map(|limit| self.limit(&limit)).transpose()?,
            give_up: raw.give_up_ms.take().map(|limit| self.limit(&limit)).transpose()?,
        })
    }

    /// When an answer is read.
    fn answer(&self, when: Spanned<String>) -> Result<AnswerReading, Error> {
        match when.get_ref().as_str() {
            "at-once" => Ok(AnswerReading::AtOnce),
            "later" => Ok(AnswerReading::Later),
            _ => Err(self.unknown("time of an answer", &when, ["at-once", "later"])),
        }
    }

    /// Refuses what is no token of HTTP (RFC 9110 section 5.6.2), and would end the line it stands in.
    fn token(&self, what: &str, text: &str, span: Range<usize>) -> Result<(), Error> {
        if is_token(text) {
            return Ok(());
        }
        Err(self.error(span, format!("`{text}` is no {what}"), Some("letters, digits and hyphens are safe".to_owned())))
    }

    fn bytes(&self, text: Spanned<String>) -> Result<Vec<u8>, Error> {
        unescape_bytes(text.get_ref()).map_err(|message| self.error(text.span(), message, None))
    }

    fn message(&self, value: Spanned<toml::Value>, pad_to: Option<Spanned<usize>>) -> Result<String, Error> {
        let span = value.span();
        let mut text = match value.into_inner() {
            toml::Value::String(text) => text,
            toml::Value::Table(table) => serde_json::to_string(&table)
                .map_err(|error| self.error(span.clone(), format!("this table is no JSON: {error}"), None))?,
            other => {
                let help = Some("write a string, or a table that is sent as JSON".to_owned());
                return Err(self.error(span, format!("a message is not a TOML {}", other.type_str()), help));
            }
        };
        if let Some(length) = pad_to {
            let wanted = *length.get_ref();
            if wanted < text.len() || wanted > 64 << 20 {
                return Err(self.error(
                    length.span(),
                    format!("the message already has {} bytes, and 64 MiB is the most", text.len()),
                    None,
                ));
            }
            text.extend(std::iter::repeat_n(' ', wanted - text.len()));
        }
        Ok(text)
    }

    /// A fault that belongs to no case.
    fn free_fault(&self, raw: Spanned<RawFault>) -> Result<Fault, Error> {
        let span = raw.span();
        let (mut given, kind) = self.given(raw)?;
        if given.settings.contains_key("step") {
            return Err(self.error(span, "`step` needs a script, and there is none here", None));
        }
        let known = FaultKind::all().find(|known| known.name == kind);
        let place = known.map_or(Place::Edge, |known| known.place);
        if place != Place::Edge && self.known.dependencies.is_empty() {
            let message = format!("`{kind}` acts at the {}, and there is only an edge here", place.name());
            return Err(self.error(span, message, None));
        }
        if given.settings.contains_key("at") {
            self.one_of("injection point", &given.text("at")?, &[place.name()])?;
        }
        let trigger = given.trigger(1)?;
        Ok(Fault { kind: given.kind(&kind)?, trigger })
    }

    /// The settings of a fault, and its kind.
    fn given(&self, raw: Spanned<RawFault>) -> Result<(GivenFault<'_>, String), Error> {
        let mut given = GivenFault { reader: self, whole: raw.span(), settings: BTreeMap::new() };
        for (key, value) in raw.into_inner() {
            given.settings.insert(key.get_ref().clone(), (key.span(), value));
        }
        if let (Some((key, _)), Some(help)) = (given.settings.get("place"), renamed("place", ["at"])) {
            return Err(self.error(key.clone(), "a fault has no key `place`", Some(help)));
        }
        let kinds: Vec<&str> = FaultKind::all().map(|kind| kind.name).collect();
        let kind = self.one_of("fault", &given.text("kind")?, &kinds)?;
        Ok((given, kind))
    }

    fn fault(&self, raw: Spanned<RawFault>, steps: &[Step], crowd: Concurrency) -> Result<Fault, Error> {
        let span = raw.span();
        let (mut given, kind) = self.given(raw)?;
        let places: Vec<&str> = Place::ALL.iter().map(|place| place.name()).collect();
        let given_place = given.text("at")?;
        let place = self.one_of("injection point", &given_place, &places)?;
        let right_place = FaultKind::all().find(|known| known.name == kind).map(|known| known.place.name());
        if right_place != Some(place.as_str()) {
            let help = right_place.map(|place| format!("write `at = \"{place}\"`"));
            return Err(self.error(given_place.span(), format!("`{kind}` does not act at the {place}"), help));
        }
        let trigger = given.trigger(steps.len())?;
        let fault_kind = given.kind(&kind)?;
        let (ends, is_process) = match &fault_kind {
            FaultKind::Process(fault) => (fault.ends(), true),
            _ => (false, false),
        };
        let is_timed = !trigger.is_steady() || !trigger.from.is_zero();
        if is_process && (is_timed || trigger.until.is_some() != ends) {
            let message = if ends {
                format!("`{kind}` needs `until_ms`, and nothing else says when it acts")
            } else {
                format!("`{kind}` acts as the case begins; nothing else says when")
            };
            return Err(self.error(span, message, None));
        }
        if let FaultKind::Event { events, fault: EventFault::StartupFails { .. } } = &fault_kind
            && !events.include("lifespan.startup.complete")
        {
            let help = Some("write `event = \"lifespan.startup.complete\"`".to_owned());
            return Err(self.error(span, format!("`{kind}` acts on the end of a start and on nothing else"), help));
        }
        self.can_act(&fault_kind, trigger, steps, crowd, span)?;
        Ok(Fault { kind: fault_kind, trigger })
    }

    /// Refuses a fault that no step of the case could ever meet.
    fn can_act(
        &self,
        kind: &FaultKind,
        trigger: Trigger,
        steps: &[Step],
        crowd: Concurrency,
        span: Range<usize>,
    ) -> Result<(), Error> {
        let requests = steps.iter().filter_map(|step| match &step.act {
            Action::Open(request) => Some((request, true)),
            Action::Request(request) => Some((request, false)),
            _ => None,
        });
        let occasions = match kind {
            FaultKind::Scope(_) | FaultKind::Answer(_) => requests.count(),
            FaultKind::Frame { .. } => requests.filter(|(_, upgrade)| *upgrade).count() * FRAMES_MAX,
            FaultKind::Head(edit) => {
                let can = |header| move |(request, upgrade): &(&Request, bool)| carries(request, *upgrade, header);
                edit.needs().map_or(requests.clone().count(), |header| requests.filter(can(header)).count())
            }
            _ => return Ok(()),
        };
        let occasions = occasions * crowd.clients() * crowd.rounds;
        if occasions < trigger.nth as usize {
            let message = format!(
                "this fault can never act: the steps give it {occasions} occasion(s), and it waits for number {}",
                trigger.nth
            );
            return Err(self.error(span, message, Some("check its settings against the steps".to_owned())));
        }
        Ok(())
    }

    /// An outcome as reports write it.
    fn outcome(&self, outcome: &Spanned<String>) -> Result<OutcomePattern, Error> {
        let text = outcome.get_ref();
        if let Ok(pattern) = text.parse() {
            return Ok(pattern);
        }
        let known = Ending::FIXED_TEXTS.iter().copied().chain(["http 500", "http 400 truncated", "close 1011"]);
        let number: String = text.chars().filter(char::is_ascii_digit).collect();
        let spaced = ["http", "close"].iter().find(|word| text.trim_start().starts_with(**word) && number.len() >= 3);
        let spaced = spaced.map(|word| format!("did you mean `{word} {number}`?")).filter(|_| !text.contains(' '));
        let help = spaced.or_else(|| did_you_mean(text, known.clone())).unwrap_or_else(|| {
            format!("write it as in {}", known.map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", "))
        });
        Err(self.error(outcome.span(), format!("unknown outcome `{text}`"), Some(help)))
    }

    /// The symptom, and what it is behind particular servers.
    fn symptoms(
        &self,
        raw: Spanned<RawSymptom>,
        profiles: Option<&Vec<String>>,
        twin: &Defects,
    ) -> Result<(Symptom, BTreeMap<String, Symptom>), Error> {
        let whole = raw.span();
        let raw = raw.into_inner();
        let is_on_backend = !twin.is_empty();
        let checks =
            |names: &[Spanned<String>]| names.iter().map(|name| self.check(name)).collect::<Result<Vec<_>, _>>();
        let symptom = Symptom {
            class: raw.class,
            outcome: raw.outcome.map(|outcome| self.outcome(&outcome)).transpose()?,
            cause: raw.cause,
            exception: raw.exception.map(|exception| self.exception(exception)).transpose()?,
            log: raw.log.map(|text| self.text_to_find(text)).transpose()?,
            reason: raw.reason.map(|text| self.text_to_find(text)).transpose()?,
            found_by: raw.found_by.as_ref().map_or(Ok(Vec::new()), |names| checks(names.get_ref()))?,
        };
        if symptom == Symptom::default() {
            let help = Some("name at least the outcome, as in `outcome = \"http 500\"`".to_owned());
            return Err(self.error(whole, "this symptom claims nothing", help));
        }
        let is_whole = symptom.class.is_some() && symptom.outcome.is_some() && symptom.cause.is_some();
        if is_on_backend && !is_whole {
            let help = Some("on the backend a symptom has `outcome`, `class`, `cause` and `found_by`".to_owned());
            return Err(self.error(whole, "this symptom is not whole", help));
        }
        // No check has a finding about a good class; there the case's own expectations tell the versions apart.
        let is_told_apart = !is_on_backend || symptom.class.is_some_and(Class::is_good);
        if symptom.found_by.is_empty() && !is_told_apart {
            let help = Some("a symptom that is no finding of any check proves nothing".to_owned());
            let span = raw.found_by.as_ref().map_or(whole, Spanned::span);
            return Err(self.error(span, "`found_by` names no check", help));
        }
        let mut symptom_on = BTreeMap::new();
        for (profile, changes) in raw.on {
            let exception = changes.exception.map(|exception| self.exception(exception)).transpose()?;
            let changed = Symptom {
                class: changes.class.or(symptom.class),
                outcome: changes.outcome.map(|outcome| self.outcome(&outcome)).transpose()?.or(symptom.outcome),
                cause: changes.cause.or(symptom.cause),
                exception: exception.or_else(|| symptom.exception.clone()),
                log: changes.log.or_else(|| symptom.log.clone()).filter(|log| !log.is_empty()),
                reason: changes.reason.or_else(|| symptom.reason.clone()).filter(|reason| !reason.is_empty()),
                found_by: changes.found_by.map_or(Ok(symptom.found_by.clone()), |names| checks(&names))?,
            };
            for name in self.servers(&profile, profiles)? {
                symptom_on.insert(name, changed.clone());
            }
        }
        Ok((symptom, symptom_on))
    }

    /// A text that something has to contain; an empty one is contained in everything.
    fn text_to_find(&self, text: Spanned<String>) -> Result<String, Error> {
        if text.get_ref().is_empty() {
            return Err(self.error(
                text.span(),
                "every text contains the empty one",
                Some("leave the key out".to_owned()),
            ));
        }
        Ok(text.into_inner())
    }

    fn exception(&self, raw: Spanned<RawException>) -> Result<ExceptionClaim, Error> {
        let span = raw.span();
        let refuse = |why: &str| self.error(span.clone(), why, None);
        match raw.into_inner() {
            RawException::Written(text) => text.parse().map_err(refuse),
            RawException::Parts(RawExceptionParts { type_name, text, place }) => {
                let place = place.map(|place| place.parse().map_err(refuse)).transpose()?;
                let claim: ExceptionClaim = type_name.parse().map_err(refuse)?;
                let text = text.or(claim.text).filter(|text| !text.is_empty());
                Ok(ExceptionClaim { text, place, ..claim })
            }
        }
    }
}

/// Why a step cannot be performed where it stands.
struct StepRefusal {
    span: Range<usize>,
    message: String,
    help: Option<String>,
}

/// The connection that a client holds between two of its steps, as far as the steps alone tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holds {
    /// A WebSocket.
    Session,
    /// A WebSocket on which it has sent a close frame, and waited for the other one.
    ClosedSession,
    /// A connection whose last answer is read, or is read with the next one of a pipeline.
    Answered,
    /// A request of whose body a part is sent; where it stands.
    PartOfBody(Range<usize>),
    /// A request whose answer a later step reads; where it stands.
    Asked(Range<usize>),
    /// Nothing any more: it left.
    Nothing,
}

/// Follows the steps in their order, and refuses those that could never be performed.
#[derive(Default)]
struct Order {
    clients: BTreeMap<Option<ClientName>, Holds>,
}

impl Order {
    fn take(&mut self, step: &Step, span: &Range<usize>) -> Result<(), StepRefusal> {
        let refuse = |message: String, help: Option<&str>| {
            Err(StepRefusal { span: span.clone(), message, help: help.map(str::to_owned) })
        };
        if !step.act.is_of_client() {
            return match &step.client {
                None => Ok(()),
                Some(name) => refuse(format!("`{name}` does not act here: the harness does"), Some("leave `as` out")),
            };
        }
        let is_named = |client: &Option<ClientName>| client.is_some();
        if self.clients.keys().any(|client| is_named(client) != is_named(&step.client)) {
            return refuse(
                "some steps name their client, and some do not".to_owned(),
                Some("write `as` in every step, or in none"),
            );
        }
        let who = step.client.as_ref().map_or_else(|| "the client".to_owned(), |name| format!("`{name}`"));
        let before = self.clients.get(&step.client).cloned();
        if let (Some(Holds::PartOfBody(request)), Some(_)) = (&before, step.opening()) {
            return Err(unfinished(request.clone()));
        }
        if let (Some(Holds::Asked(request)), Some(_)) = (&before, step.opening()) {
            return Err(unread(request.clone()));
        }
        let next = match (&step.act, before) {
            (Action::Open(request) | Action::Request(request), before) => {
                if !request.on.is_new() && before != Some(Holds::Answered) {
                    let message = format!("{who} has no connection here that carries another request");
                    return refuse(message, Some("a connection goes on after a `request` that is answered"));
                }
                match (&step.act, request.body_sent, request.answer) {
                    (_, Some(_), AnswerReading::Later) => {
                        return refuse("a request that is not sent whole gets no answer".to_owned(), None);
                    }
                    (Action::Open(_), ..) => Holds::Session,
                    (_, Some(_), AnswerReading::AtOnce) => Holds::PartOfBody(span.clone()),
                    (_, None, AnswerReading::AtOnce) => Holds::Answered,
                    (_, None, AnswerReading::Later) => Holds::Asked(span.clone()),
                }
            }
            // Time passes for all clients.
            (Action::Pause | Action::Freeze, before) => match before {
                Some(before) => before,
                None => return Ok(()),
            },
            (_, None) if step.client.is_none() => {
                return refuse(
                    "there is no connection yet for this step".to_owned(),
                    Some("begin with `open = \"/path\"` or `request = \"GET /path\"`"),
                );
            }
            (_, None) => {
                return refuse(format!("{who} has opened nothing yet"), Some("let it begin with `open` or `request`"));
            }
            (
                Action::Leave | Action::Reset,
                Some(Holds::Session | Holds::ClosedSession | Holds::PartOfBody(_) | Holds::Asked(_)),
            ) => Holds::Nothing,
            (Action::ReadAnswer, Some(Holds::Asked(_))) => Holds::Answered,
            (Action::ReadAnswer, Some(_)) => {
                return refuse(
                    format!("{who} has no request here whose answer is not read"),
                    Some("write `answer = \"later\"` in the `request` before"),
                );
            }
            (Action::Close(_), Some(Holds::Session)) => Holds::ClosedSession,
            (Action::Wait(_), Some(before @ (Holds::Session | Holds::ClosedSession))) => before,
            (
                Action::SendText(_) | Action::SendBytes(_) | Action::Ping | Action::Deafen | Action::StopReading,
                Some(Holds::Session),
            ) => Holds::Session,
            // No client acts.
            (Action::Signal(_) | Action::AwaitExit(_), Some(before)) => before,
            (_, Some(Holds::Answered)) => {
                return refuse(
                    format!("{who} has read the answer to its request by then, and holds no session"),
                    Some("after a `request` only time passes, or another one follows"),
                );
            }
            (_, Some(Holds::Asked(_))) => {
                return refuse(
                    format!("{who} has not read the answer to its request"),
                    Some("after `answer = \"later\"` the client pauses, reads with `read_answer`, or leaves"),
                );
            }
            (_, Some(Holds::PartOfBody(_))) => {
                return refuse(
                    format!("{who} is in the middle of a body"),
                    Some("after `send_body_bytes` the client pauses, and then leaves with `leave` or `reset`"),
                );
            }
            (_, Some(Holds::ClosedSession)) => {
                return refuse(format!("{who} has closed its session before"), None);
            }
            (_, Some(Holds::Nothing)) => {
                return refuse(format!("{who} has left before"), Some("let it open another connection first"));
            }
        };
        self.clients.insert(step.client.clone(), next);
        Ok(())
    }

    fn end(self) -> Result<(), StepRefusal> {
        let left_open = self.clients.into_values().find_map(|holds| match holds {
            Holds::PartOfBody(span) => Some(unfinished(span)),
            Holds::Asked(span) => Some(unread(span)),
            Holds::Session | Holds::ClosedSession | Holds::Answered | Holds::Nothing => None,
        });
        left_open.map_or(Ok(()), Err)
    }
}

/// A client sends a part of a body, and does not go.
fn unfinished(span: Range<usize>) -> StepRefusal {
    let help = "write a step with `leave = true` or `reset = true` behind it".to_owned();
    StepRefusal { span, message: "a part of the body is sent, and the client never goes".to_owned(), help: Some(help) }
}

/// A client does not read the answer that it left for later.
fn unread(span: Range<usize>) -> StepRefusal {
    let help = "write a step with `read_answer = true` behind it".to_owned();
    StepRefusal { span, message: "the answer to this request is never read".to_owned(), help: Some(help) }
}

/// A fault as its file gives it, taken apart setting by setting.
struct GivenFault<'a> {
    reader: &'a CaseReader<'a>,
    /// Where the whole fault stands.
    whole: Range<usize>,
    /// Where each key stands, and its value.
    settings: BTreeMap<String, (Range<usize>, Spanned<toml::Value>)>,
}

impl GivenFault<'_> {
    fn text(&mut self, key: &str) -> Result<Spanned<String>, Error> {
        let Some((_, value)) = self.settings.remove(key) else {
            return Err(self.reader.error(self.whole.clone(), format!("this fault has no `{key}`"), None));
        };
        let span = value.span();
        match value.into_inner() {
            toml::Value::String(text) => Ok(Spanned::new(span, text)),
            _ => Err(self.reader.error(span, format!("`{key}` is a text"), None)),
        }
    }

    /// A number within a range, if it is given.
    fn number(&mut self, key: &str, range: RangeInclusive<i64>, help: &str) -> Result<Option<u64>, Error> {
        let Some((_, value)) = self.settings.remove(key) else { return Ok(None) };
        let number = value.get_ref().as_integer().filter(|number| range.contains(number));
        let number = number.and_then(|number| u64::try_from(number).ok());
        number.map(Some).ok_or_else(|| {
            let message = format!("`{key}` is a number from {} to {}", range.start(), range.end());
            self.reader.error(value.span(), message, Some(help.to_owned()))
        })
    }

    fn trigger(&mut self, steps: usize) -> Result<Trigger, Error> {
        const COUNTS: &str = "occasions are counted from 1";
        const TIMES: &str = "a time is at most an hour";
        let most = i64::from(u32::MAX);
        let small = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        let default = Trigger::default();
        let (from, until) =
            (self.number("from_ms", 0..=3_600_000, TIMES)?, self.number("until_ms", 0..=3_600_000, TIMES)?);
        if until.is_some_and(|until| until <= from.unwrap_or(0)) {
            let help = Some("`until_ms` is later than `from_ms`".to_owned());
            return Err(self.reader.error(self.whole.clone(), "this fault is over before it begins", help));
        }
        Ok(Trigger {
            nth: small(self.number("nth", 1..=most, COUNTS)?).unwrap_or(default.nth),
            every: small(self.number("every", 1..=most, COUNTS)?).unwrap_or(default.every),
            times: small(self.number("times", 1..=most, COUNTS)?),
            percent: self
                .number("percent", 1..=100, "100 is always")?
                .and_then(|percent| u8::try_from(percent).ok())
                .unwrap_or(default.percent),
            from: Duration::from_millis(from.unwrap_or(0)),
            until: until.map(Duration::from_millis),
            step: self
                .number("step", 1..=steps, "steps are counted from 1")?
                .and_then(|step| usize::try_from(step).ok()),
        })
    }

    /// The kind with its settings, all of which it must know.
    fn kind(self, kind: &str) -> Result<FaultKind, Error> {
        let mut settings = GivenSettings::default();
        let mut spans = BTreeMap::new();
        for (key, (key_span, value)) in self.settings {
            spans.insert(key.clone(), (key_span, value.span()));
            settings.0.insert(key, value.into_inner());
        }
        let (reader, whole) = (self.reader, self.whole);
        let place_of = |key: &str| spans.get(key).map_or(whole.clone(), |(_, value)| value.clone());
        let read = FaultKind::read(kind, &mut settings).map_err(|SettingError { key, message }| match message {
            None => reader.error(whole.clone(), format!("`{kind}` needs `{key}`"), None),
            Some(message) => reader.error(place_of(key), format!("`{key}` must be {message}"), None),
        });
        let fault = read?.expect("the kind is known");
        if let Some(key) = settings.0.keys().next() {
            let own = FaultKind::all().filter(|known| known.name == kind).flat_map(|known| known.keys);
            let known = own.chain(FaultKind::selecting_keys(kind)).copied().chain(TRIGGER_KEYS);
            let span = spans.get(key).map_or(whole.clone(), |(key, _)| key.clone());
            return Err(reader.error(span, format!("`{key}` means nothing to `{kind}`"), did_you_mean(key, known)));
        }
        let known = |what: &str, key: &str, name: &str, names: &[&str]| {
            reader.one_of(what, &Spanned::new(place_of(key), name.to_owned()), names).map(drop)
        };
        match &fault {
            FaultKind::Call { calls: Calls { dependency, operation }, .. } => {
                let dependencies = reader.known.dependencies;
                let names: Vec<&str> = dependencies.iter().map(|(name, _)| *name).collect();
                known("dependency", "dependency", dependency, &names)?;
                let operations =
                    dependencies.iter().find(|(name, _)| name == dependency).map_or(&[][..], |(_, all)| all);
                if let Some(operation) = operation {
                    known("operation", "operation", operation, operations)?;
                }
            }
            FaultKind::Scope(ScopeEdit::Drop { key }) => {
                let names: Vec<&str> = keys::ALL.iter().map(|key| key.name).collect();
                known("scope key", "key", key, &names)?;
            }
            FaultKind::Event { events, fault } => {
                if let Some(name) = &events.0 {
                    known("event", "event", name, &EVENT_NAMES)?;
                }
                if let EventFault::OmitKey { key } = fault {
                    let event = events.0.as_deref().unwrap_or_default();
                    let Some(keys) = Inbound::keys(event) else {
                        let help = Some(
                            "write `event = \"websocket.disconnect\"`, or another one that is received".to_owned(),
                        );
                        let message = "`omit_key` acts on one kind of event that the application receives";
                        return Err(reader.error(whole.clone(), message, help));
                    };
                    known("key", "key", key, &[keys, &["type"]].concat())?;
                }
            }
            FaultKind::Process(ProcessFault::MissingModule { module }) => {
                known("module", "module", module, reader.known.modules)?;
            }
            FaultKind::Process(fault) => {
                if let Some((name, _)) = fault.variable() {
                    known("variable", "name", name, reader.known.variables)?;
                }
            }
            FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Scope(_) => {}
        }
        Ok(fault)
    }
}

/// The keys that say when a fault acts.
const TRIGGER_KEYS: [&str; 7] = ["nth", "every", "times", "percent", "from_ms", "until_ms", "step"];

/// Whether a request has a header with this name.
fn carries(request: &Request, upgrade: bool, header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    if request.without.iter().any(|name| name.eq_ignore_ascii_case(&header)) {
        return false;
    }
    let presents = request.credential != Credential::None;
    match header.as_str() {
        "host" => true,
        "connection" | "upgrade" | "sec-websocket-key" | "sec-websocket-version" if upgrade => true,
        "authorization" if presents && request.places.contains(&CredentialPlace::Header) => true,
        "sec-websocket-protocol" if !request.offers.is_empty() => true,
        "sec-websocket-protocol" => {
            let carriers =
                [CredentialPlace::Subprotocol, CredentialPlace::SubprotocolAlone, CredentialPlace::StagingSubprotocol];
            presents && request.places.iter().any(|place| carriers.contains(place))
        }
        other => request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(other.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use relapse_core::error::{Error, RENAMED};

    use crate::case::{Case, Known};

    /// Places of a name in a case file.
    const PLACES: [&str; 6] = [
        "[symptom]\nclass = \"NAME\"\n",
        "[symptom]\ncause = \"NAME\"\n",
        "NAME = \"x\"\n",
        "[[NAME]]\n",
        "[NAME]\n",
        "[[fault]]\nkind = \"strip_header\"\nNAME = \"edge\"\n",
    ];

    #[test]
    fn an_old_name_is_refused_where_it_stands_and_the_new_one_is_told() {
        let is_told = |place: &str, old: &str, new: &str| {
            let case = "summary = \"x\"\nstep = [{ request = \"GET /\" }]\nexpect.accept = [\"ok\"]\n";
            let text = format!("{case}{}", place.replace("NAME", old));
            let Err(Error::File(located)) = Case::parse("case.toml", "case", &text, &Known::NOTHING) else {
                return false;
            };
            located.help == Some(format!("`{old}` is now `{new}`")) && text[located.span].contains(old)
        };
        for (old, new) in RENAMED {
            assert!(PLACES.iter().any(|place| is_told(place, old, new)), "{old}");
        }
    }
}
