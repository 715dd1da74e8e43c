//! Reads a case file, strictly: whatever it says is either meant and possible, or refused where it stands.

mod crowd;
mod fault;
mod order;
mod step;
mod symptom;

use std::collections::BTreeMap;
use std::ops::Range;

use relapse_core::{
    client::step::{Action, SourceLine, Step},
    error::{Error, did_you_mean, renamed},
    fault::Fault,
    judge::outcome::{Class, OutcomePattern},
};
use toml::Spanned;

use self::order::Order;
use super::{
    Accepted, Case, DEFAULT_PROFILE, Known, KnownFinding, ServerArguments, Vocabulary, arguments,
    keys::{RawCase, RawFaults, RawStep},
};
use crate::defects::Defects;

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

/// Reads the parts of one file, and knows the names that it may use.
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

    fn checks(&self, names: &[Spanned<String>]) -> Result<Vec<String>, Error> {
        names.iter().map(|name| self.check(name)).collect()
    }

    fn case(&self, name: &str, raw: RawCase) -> Result<Case, Error> {
        self.no_empty_texts(&raw)?;
        let twin = self.version_with_the_bug(&raw)?;
        let profiles = self.profiles(&raw)?;
        let vocabulary = raw.vocabulary.unwrap_or(if twin.is_empty() { Vocabulary::Own } else { Vocabulary::Backend });
        let accept = self.accept(raw.expect.accept)?;
        let whole_steps = raw.step.span();
        let (steps, accepted) = self.steps(raw.step, &accept)?;
        let control = raw.control.map(|control| self.control(control.step, &accept)).transpose()?;
        let server_arguments = raw.server_arguments.map(|all| self.arguments(all)).transpose()?.unwrap_or_default();
        let crowd = self.crowd([raw.users, raw.connections, raw.rounds])?;
        let at_least = self.at_least(raw.expect.at_least, &accepted, crowd)?;
        self.refuse_lone_steps(&steps, crowd, whole_steps)?;
        let faults = self.faults(raw.fault, &steps, crowd)?;
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
            finding: raw.finding.map(|finding| KnownFinding { key: finding.key, routes: finding.routes }),
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

    /// Refuses a text for people that says nothing.
    fn no_empty_texts(&self, raw: &RawCase) -> Result<(), Error> {
        let texts = [Some(&raw.summary), raw.reported.as_ref(), raw.behind.as_ref(), raw.scenario.as_ref()];
        match texts.into_iter().flatten().find(|text| text.get_ref().trim().is_empty()) {
            None => Ok(()),
            Some(text) => Err(self.error(text.span(), "this text is empty", Some("say it in one sentence".to_owned()))),
        }
    }

    /// The defects of the version with the bug; empty where the case names none.
    fn version_with_the_bug(&self, raw: &RawCase) -> Result<Defects, Error> {
        if let (Some(one), [_, ..]) = (&raw.defect, raw.defects.as_slice()) {
            let help = Some("name one with `defect`, or some with `defects`".to_owned());
            return Err(self.error(one.span(), "the version with the bug is named twice", help));
        }
        self.defects(raw.defect.iter().chain(&raw.defects))
    }

    /// The server profiles behind which the case runs; `None` for all.
    fn profiles(&self, raw: &RawCase) -> Result<Option<Vec<String>>, Error> {
        let profiles = match &raw.profiles {
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
        Ok(profiles)
    }

    /// The defects with these names, in the order of the service's own list.
    fn defects<'n>(&self, names: impl Iterator<Item = &'n Spanned<String>>) -> Result<Defects, Error> {
        let known: Vec<&str> = self.known.defects.iter().map(|entry| entry.name).collect();
        let names = names.map(|name| self.one_of("defect", name, &known)).collect::<Result<Vec<_>, _>>()?;
        Ok(Defects::of(known.into_iter().filter(|known| names.iter().any(|name| name == known))))
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

    fn is_told(place: &str, old: &str, new: &str) -> bool {
        let case = "summary = \"x\"\nstep = [{ request = \"GET /\" }]\nexpect.accept = [\"ok\"]\n";
        let text = format!("{case}{}", place.replace("NAME", old));
        let Err(Error::File(located)) = Case::parse("case.toml", "case", &text, &Known::NOTHING) else {
            return false;
        };
        located.help == Some(format!("`{old}` is now `{new}`")) && text[located.span].contains(old)
    }

    #[test]
    fn an_old_name_is_refused_where_it_stands_and_the_new_one_is_told() {
        for (old, new) in RENAMED {
            assert!(PLACES.iter().any(|place| is_told(place, old, new)), "{old}");
        }
    }
}
