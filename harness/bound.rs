//! Cases on servers that are not ours: each is said in the server's own words, as far as it can be.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    binding::Binding,
    case::{Accepted, Case},
    cause::Cause,
    classify::{self, Reading},
    clock::Clock,
    credential::{Credential, CredentialPlace, Form},
    error::Error,
    explain::{Explanation, Kind},
    fault::Place,
    message::message_type,
    outcome::{Class, Ending, Outcome},
    plan::Plan,
    profile::Profile,
    python::Note,
    redact::Redactor,
    route::Route,
    run::{self, control_steps},
    running::Running,
    step::{Act, Awaited, Client, DEFAULT_USER, Request, Step},
    target::{Python, Served, Url},
    transcript::{Party, Words},
    verdict::{Judged, Judgement, Verdict},
};

/// The longest that a case may pause, and any wait of it may last, where time is real.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The name of what has none.
const IN_MEMORY: &str = "relapse.test";

/// What the embedded backend sends behind the last event, and what it answers a ping with: for another server the last
/// event stands for both.
const LAST_WORDS: [&str; 2] = ["agent_response_complete", "pong"];

/// The servers that cases are judged on.
#[derive(Debug)]
pub struct Servers {
    /// How both are spoken to.
    pub binding: Binding,
    /// What should show the failure; nothing where only one server is looked at.
    pub before: Option<Server>,
    /// What should not.
    pub after: Server,
}

/// Something that is not ours, and what it is known to be.
#[derive(Debug)]
pub struct Server {
    /// How it is reached.
    pub reach: Reach,
    /// Which of the known servers it is like, so that its failures can be explained. Where its own ledger tells what
    /// happened, nobody needs to.
    pub kind: Kind,
    /// What it is, where it was put there for this; empty of a server that somebody else runs.
    pub setting: String,
    /// Where it is, as it tells itself or somebody told; none of a server behind a URL.
    pub routes: Vec<Route>,
}

/// How something that is not ours is reached.
#[derive(Debug)]
pub enum Reach {
    /// Over sockets, behind a URL.
    Url(Box<Url>),
    /// As an application in an interpreter, behind a front.
    Python(Box<Python>),
    /// Over sockets, as an application behind a real server.
    Served(Box<Served>),
}

/// How long a greeting may take, on the application's own clock.
const GREETING_LIMIT: Duration = Duration::from_secs(30);

/// How long an answer may take that only says who answers.
const RECOGNIZING_LIMIT: Duration = Duration::from_secs(3);

impl Server {
    /// An application in an interpreter.
    pub fn python(python: Python) -> Server {
        Server::of(Reach::Python(Box::new(python)))
    }

    /// An application behind a real server.
    pub fn served(served: Served) -> Server {
        Server::of(Reach::Served(Box::new(served)))
    }

    /// A server behind a URL, like none that is known until it is recognized.
    pub fn url(url: Url) -> Server {
        Server::of(Reach::Url(Box::new(url)))
    }

    fn of(reach: Reach) -> Server {
        Server { reach, kind: Kind::default(), setting: String::new(), routes: Vec::new() }
    }

    /// Finds out which known server answers behind a URL: by a plain request where the binding has a path for one, and by
    /// an upgrade that every server refuses in words of its own. One that does not answer, or may not be asked as often, is
    /// like none. What was put there for this is known already.
    pub async fn recognize(&mut self, binding: &Binding, known: &[Arc<Profile>]) {
        let Reach::Url(url) = &self.reach else { return };
        self.kind = Kind::default();
        let authority = url.authority();
        let standard = |path: &str| binding.request(&authority, path, Credential::None);
        let keyless = Request { without: vec!["Sec-WebSocket-Key".to_owned()], ..standard(&binding.paths.websocket) };
        let mut acts = vec![Act::Open(keyless)];
        acts.extend(binding.paths.health.first().map(|path| Act::Request(standard(path))));
        let mut transcripts = Vec::new();
        for act in acts {
            let step = Step { act, limit: RECOGNIZING_LIMIT };
            match run::converse(&[step], Plan { seed: 1, faults: Vec::new() }, url.as_ref()).await {
                Ok(transcript) => transcripts.push(transcript),
                Err(_) => return,
            }
        }
        let readings: Vec<Reading<'_>> = transcripts.iter().map(|transcript| Reading::of(transcript, 0)).collect();
        self.kind = Kind::of(known, &readings, readings.first());
    }

    /// What it is, or which known server it is like.
    pub fn described(&self) -> String {
        if self.setting.is_empty() { self.kind.to_string() } else { self.setting.clone() }
    }

    /// What runs there.
    pub fn running(&self) -> &dyn Running {
        match &self.reach {
            Reach::Url(url) => url.as_ref(),
            Reach::Python(python) => python.as_ref(),
            Reach::Served(served) => served.as_ref(),
        }
    }

    /// Ends what a case left behind, so that it is not taken for the next one's.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn clear(&self) -> Result<(), Error> {
        match &self.reach {
            Reach::Url(_) => Ok(()),
            Reach::Python(python) => python.clear().await,
            Reach::Served(served) => {
                served.clear();
                Ok(())
            }
        }
    }

    /// Tells it to stop where its process is ours, and waits until it has; what was wrong with that.
    ///
    /// # Errors
    /// When something panicked.
    pub async fn shut_down(&self) -> Result<Vec<String>, Error> {
        let complaints = match &self.reach {
            Reach::Url(_) => Vec::new(),
            Reach::Python(python) => python.shut_down().await?,
            Reach::Served(served) => served.shut_down().await.into_iter().collect(),
        };
        let mut secrets = self.running().service().secrets;
        secrets.push(self.running().credential(Credential::Valid, DEFAULT_USER, Form::Token).text);
        secrets.retain(|secret| !secret.is_empty());
        let redactor = Redactor::of_secrets(&secrets);
        Ok(complaints.iter().map(|complaint| redactor.text(complaint)).collect())
    }

    /// What was noticed that virtual time does not wait for.
    pub fn notes(&self) -> Vec<Note> {
        match &self.reach {
            Reach::Url(_) | Reach::Served(_) => Vec::new(),
            Reach::Python(python) => python.notes(),
        }
    }

    /// The clock that it keeps.
    pub fn clock(&self) -> Clock {
        match &self.reach {
            Reach::Url(_) | Reach::Served(_) => Clock::Real,
            Reach::Python(python) => python.clock(),
        }
    }

    /// Its name in a `Host` header.
    pub fn authority(&self) -> String {
        match &self.reach {
            Reach::Url(url) => url.authority(),
            Reach::Python(_) => IN_MEMORY.to_owned(),
            Reach::Served(served) => served.authority(),
        }
    }

    /// Where faults can act.
    pub fn places(&self) -> &'static [Place] {
        match &self.reach {
            Reach::Url(_) | Reach::Served(_) => &[Place::Edge],
            Reach::Python(_) => &[Place::Edge, Place::Scope, Place::Event],
        }
    }

    /// The longest that a case may pause, and any wait of it may last, where time is real.
    fn patience(&self) -> Option<Duration> {
        (self.clock() == Clock::Real).then_some(PAUSE_MAX)
    }

    /// How a valid client fares, and what may have brought about that it fares badly.
    async fn perform_control(&self, binding: &Binding, seed: u64) -> Result<(Outcome, String), String> {
        if binding.is_unknown() {
            return Ok((self.greet_somewhere(binding, seed).await?, String::new()));
        }
        let control = steps(&control_steps(), binding, self)?;
        let plan = Plan { seed, faults: Vec::new() };
        let failed = |error: Error| format!("could not {error}");
        let transcript = run::converse(&control, plan, self.running()).await.map_err(failed)?;
        self.clear().await.map_err(failed)?;
        let reading = Reading::of(&transcript, 0);
        let outcome = reading.outcome();
        let explained = self.kind.explain(&reading, &outcome.ending).filter(|_| !outcome.class.is_good());
        Ok((outcome, explained.map_or(String::new(), |explanation| format!("; {explanation}"))))
    }

    /// How the plainest request fares that a route should let in.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub async fn greet(&self, route: &Route, binding: &Binding, seed: u64) -> Result<Outcome, String> {
        let failed = |error: Error| format!("could not {error}");
        let steps: Vec<Step> = route
            .greeting(GREETING_LIMIT)
            .into_iter()
            .filter_map(|step| as_said(binding, &self.authority(), step))
            .collect();
        let plan = Plan { seed, faults: Vec::new() };
        let transcript = run::converse(&steps, plan, self.running()).await.map_err(failed)?;
        self.clear().await.map_err(failed)?;
        Ok(Reading::of(&transcript, 0).outcome())
    }

    /// Forgets the routes where nobody is: those that refuse the plainest request as a path is refused that nobody has.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub async fn forget_unfound(&mut self, binding: &Binding, seed: u64) -> Result<(), String> {
        for route in std::mem::take(&mut self.routes) {
            let outcome = self.greet(&route, binding, seed).await?;
            if !matches!(outcome.ending, Ending::Http { status: 403..=405, .. }) {
                self.routes.push(route);
            }
        }
        Ok(())
    }

    /// How it fares where nobody has said how the application is spoken to: at the first route that lets it in.
    async fn greet_somewhere(&self, binding: &Binding, seed: u64) -> Result<Outcome, String> {
        let (sessions, requests): (Vec<&Route>, Vec<&Route>) = self.routes.iter().partition(|route| route.is_websocket);
        let mut worst: Option<Outcome> = None;
        for route in sessions.into_iter().chain(requests) {
            let outcome = self.greet(route, binding, seed).await?;
            if outcome.class == Class::GoodOpen {
                return Ok(outcome);
            }
            if worst.as_ref().is_none_or(|worst| worst.class.is_good() && !outcome.class.is_good()) {
                worst = Some(outcome);
            }
        }
        worst.ok_or_else(|| {
            "it tells no routes: `--path` names one, or a relapse.toml says how it is spoken to".to_owned()
        })
    }

    /// How a valid client fares.
    ///
    /// # Errors
    /// When it gets no say: nobody is there, nothing answers, it is refused, or the server has had enough of us. That it
    /// is met by a failure is no error: it may be the very one that was reported.
    pub async fn control(&self, binding: &Binding, seed: u64) -> Result<Outcome, String> {
        let (outcome, explained) = self.perform_control(binding, seed).await?;
        let is_mute = matches!(outcome.ending, Ending::Refused | Ending::Hang { .. });
        let is_refused = matches!(outcome.ending, Ending::Http { status: 401 | 403 | 429, .. });
        if outcome.class == Class::GoodOpen || !(outcome.class.is_good() || is_mute || is_refused) {
            return Ok(outcome);
        }
        if binding.is_unknown() {
            let asked: Vec<String> = self.routes.iter().map(ToString::to_string).collect();
            return Err(format!(
                "none of its routes lets the plainest request in ({}), the last word is {outcome}; `--path` names one \
                 with the query it needs, or a relapse.toml says how it is spoken to",
                asked.join("; ")
            ));
        }
        let authority = self.authority();
        Err(format!("before anything was tried the valid client of {authority} gets {outcome}{explained}"))
    }

    /// Says of each exchange what brought its end about, where the server's kind leaves no doubt.
    fn tell(&self, mut judged: Judged) -> Judged {
        let tell = |(reading, outcome): (&Reading<'_>, &Outcome)| {
            let explained = self.kind.explain(reading, &outcome.ending).filter(Explanation::is_certain);
            match explained.filter(|_| outcome.cause == Cause::Unknown) {
                None => outcome.clone(),
                Some(explanation) => {
                    let cause = explanation.causes[0];
                    let is_decided = matches!(cause, Cause::AppChose1011 | Cause::Policy);
                    let closed_by = if is_decided { Party::Application } else { outcome.closed_by };
                    Outcome { cause, closed_by, ..outcome.clone() }
                }
            }
        };
        let readings = classify::readings(&judged.transcript);
        let outcomes: Vec<Outcome> = readings.iter().zip(&judged.outcomes).map(tell).collect();
        if let Some(at) = judged.outcomes.iter().position(|outcome| *outcome == judged.outcome) {
            judged.outcome = outcomes[at].clone();
        }
        judged.outcomes = outcomes;
        judged
    }

    /// What may have brought about that a run ended as it did.
    fn explain(&self, judged: &Judged) -> Option<Explanation> {
        let readings = classify::readings(&judged.transcript);
        let at = judged.outcomes.iter().position(|outcome| *outcome == judged.outcome)?;
        self.kind.explain(readings.get(at)?, &judged.outcome.ending)
    }
}

impl Servers {
    /// Judges a case. What cannot be said to these servers is INCONCLUSIVE. Without a server from before nothing shows
    /// that the case ever failed: FIXED then says only that it does not.
    pub async fn judge(&self, case: &Case, seed: u64) -> Judgement {
        let judged = async {
            let after = self.run(case, &self.after, seed).await?;
            let before = match &self.before {
                Some(before) => Some(self.run(case, before, seed).await?),
                None => None,
            };
            Ok::<_, String>((before, after))
        };
        match judged.await {
            Err(why) => Judgement { verdict: Verdict::Inconclusive, why, before: None, after: None, shams: Vec::new() },
            Ok((before, (bound, after))) => {
                let (verdict, mut why) = compare(&bound, before.as_ref().map(|(_, before)| before), &after);
                let explained = self.after.explain(&after).filter(|_| !after.outcome.class.is_good());
                if let Some(explanation) = explained.filter(|_| verdict != Verdict::Fixed) {
                    why.push_str(&format!("; {explanation}"));
                }
                Judgement {
                    verdict,
                    why,
                    before: before.map(|(_, before)| before),
                    after: Some(after),
                    shams: Vec::new(),
                }
            }
        }
    }

    async fn run(&self, case: &Case, server: &Server, seed: u64) -> Result<(Case, Judged), String> {
        let bound = bind(case, &self.binding, server)?;
        let failed = |error: Error| format!("could not {error}");
        let mut controls = Vec::new();
        if !case.is_alone {
            controls.push(server.control(&self.binding, seed).await?);
        }
        let plan = bound.plan(seed);
        let transcript = run::converse_as(bound.crowd, &bound.steps, plan, server.running()).await.map_err(failed)?;
        server.clear().await.map_err(failed)?;
        controls.push(server.perform_control(&self.binding, seed).await?.0);
        let worst = controls.into_iter().min_by_key(|outcome| outcome.class.is_good());
        Ok((bound, server.tell(run::judge(transcript, worst.expect("there is one behind every case")))))
    }
}

/// What one or two servers tell.
fn compare(case: &Case, before: Option<&Judged>, after: &Judged) -> (Verdict, String) {
    let acted =
        |judged: &Judged, which: &str| run::all_faults_acted(case, judged).map_err(|why| format!("{which} {why}"));
    let vacuous = before
        .map_or(Ok(()), |before| acted(before, "on the server from before"))
        .and_then(|()| acted(after, "on the server from after"));
    if let Err(why) = vacuous {
        return (Verdict::Vacuous, why);
    }
    if before.is_some_and(|before| run::holds(case, before).is_ok()) {
        let why = match run::holds(case, after) {
            Ok(()) => "the server from before is accepted as well".to_owned(),
            Err(why) => format!(
                "the server from before is accepted, and the one from after is not: {}",
                why.replace("the repaired twin", "it")
            ),
        };
        return (Verdict::CannotReproduce, why);
    }
    match run::holds(case, after) {
        Ok(()) => (Verdict::Fixed, String::new()),
        Err(why) => (Verdict::StillBroken, why.replace("the repaired twin", "this server")),
    }
}

/// The case in a server's own words.
///
/// # Errors
/// Says why it cannot be said to this server.
pub fn bind(case: &Case, binding: &Binding, server: &Server) -> Result<Case, String> {
    if let Some(fault) = case.faults.iter().find(|fault| !server.places().contains(&fault.kind.place())) {
        let place = fault.kind.place().name();
        let reached = match &server.reach {
            Reach::Url(_) => "of a server behind a URL only the edge is reached",
            Reach::Python(_) => "of a Python application only what is in front of it is reached",
            Reach::Served(_) => "of an application behind a real server only the edge is reached",
        };
        return Err(format!("`{fault}` needs the {place}, and {reached}"));
    }
    if case.crowd.users > 1 {
        return Err("it needs several users, and the binding has a credential for one".to_owned());
    }
    if case.is_by_route() {
        let steps = case.steps.iter().cloned().filter_map(|step| as_said(binding, &server.authority(), step)).collect();
        return Ok(Case { steps, ..case.clone() });
    }
    if case.is_capsule() {
        // What a hunt found is said as it was found.
        let steps =
            case.steps.iter().cloned().filter_map(|step| in_the_words_of(binding, &server.authority(), step)).collect();
        return Ok(Case { steps, ..case.clone() });
    }
    // What is said, and which of several fitting codes, is the embedded backend's own.
    let accepted = case.accepted.iter().map(|accepted| Accepted { outcome: None, says: None, ..accepted.clone() });
    Ok(Case { steps: steps(&case.steps, binding, server)?, accepted: accepted.collect(), ..case.clone() })
}

/// A step of nobody's own, as it can be said to a server: its path for WebSockets, its credential, its messages. What
/// only the embedded backend understands is said as it stands, and what only that one answers is not waited for. There is
/// one user, and it is patient: how fast somebody else's server answers is not known.
pub fn in_the_words_of(binding: &Binding, authority: &str, step: Step) -> Option<Step> {
    let words = Words::default();
    let request = |request: Request| introduced(Request { give_up: None, ..request }, binding, authority);
    let act = match step.act {
        Act::Open(asked) => Act::Open(binding.at_websocket(request(asked)?)),
        Act::Request(asked) => Act::Request(request(asked)?),
        // Its own request, however long it was made.
        Act::SendText(text) if text.trim_end_matches(' ') == binding.messages.request => Act::SendText(text),
        Act::SendText(text) if is_of_type(&text, words.requests) || is_of_type(&text, &["ping"]) => {
            Act::SendText(Some(binding.messages.request.clone()).filter(|request| !request.is_empty())?)
        }
        Act::Wait(Awaited::Message(name)) => {
            let is_own = binding.messages.events.contains(&name) || binding.messages.welcome == name;
            let said = match name.as_str() {
                _ if is_own => Some(name),
                name if words.welcomes.contains(&name) => {
                    Some(binding.messages.welcome.clone()).filter(|welcome| !welcome.is_empty())
                }
                name => event(name, &words, binding).ok().flatten(),
            };
            Act::Wait(Awaited::Message(said?))
        }
        act => act,
    };
    Some(Step { act, ..step })
}

/// A step that is said in an application's own words: only its credential is put where the binding has it.
pub fn as_said(binding: &Binding, authority: &str, step: Step) -> Option<Step> {
    let act = match step.act {
        Act::Open(asked) => Act::Open(introduced(asked, binding, authority)?),
        Act::Request(asked) => Act::Request(introduced(asked, binding, authority)?),
        act => act,
    };
    Some(Step { act, ..step })
}

/// A request of one client, with a credential as the binding has it, where the binding puts it.
fn introduced(request: Request, binding: &Binding, authority: &str) -> Option<Request> {
    use Credential::{Empty, Garbage, NoScheme, None, Valid};
    let credential = match request.credential {
        _ if !binding.credential.is_needed() => None,
        kind @ (Valid | None | Empty | NoScheme) => kind,
        kind if Credential::FORGED.contains(&kind) => kind,
        _ => Garbage,
    };
    let mut known = binding.credential.places().filter(|place| request.places.contains(place));
    let places = vec![known.next().unwrap_or(binding.credential.place)];
    let (user, client) = (DEFAULT_USER.to_owned(), Client::Library);
    Some(addressed(Request { credential, places, user, client, ..request }, authority))
}

fn steps(steps: &[Step], binding: &Binding, server: &Server) -> Result<Vec<Step>, String> {
    let words = Words::default();
    let mut bound = Vec::new();
    for step in steps {
        let act = match &step.act {
            Act::Open(request) => Act::Open(open(request, binding, server)?),
            Act::Request(request) => Act::Request(plain(request, binding, server)?),
            Act::Wait(Awaited::Message(name)) if words.welcomes.contains(&name.as_str()) => {
                if binding.messages.welcome.is_empty() {
                    continue;
                }
                Act::Wait(Awaited::Message(binding.messages.welcome.clone()))
            }
            // Whatever asks for a sign of life asks in the server's own words.
            Act::SendText(text) if is_of_type(text, &["ping"]) => match binding.messages.request.as_str() {
                "" => continue,
                request => Act::SendText(request.to_owned()),
            },
            Act::Wait(Awaited::Message(name)) => match event(name, &words, binding)? {
                Some(name) => Act::Wait(Awaited::Message(name)),
                None => continue,
            },
            Act::SendText(text) if is_of_type(text, words.requests) => {
                if binding.messages.request.is_empty() {
                    return Err("it asks for something, and the binding has no request".to_owned());
                }
                Act::SendText(binding.messages.request.clone())
            }
            Act::Pause | Act::Freeze if server.patience().is_some_and(|patience| step.limit > patience) => {
                return Err(format!("it pauses for {} s, and time is real here", step.limit.as_secs()));
            }
            act => act.clone(),
        };
        bound.push(Step { act, limit: server.patience().map_or(step.limit, |patience| step.limit.min(patience)) });
    }
    Ok(bound)
}

fn is_of_type(text: &str, names: &[&str]) -> bool {
    message_type(text.as_bytes()).is_some_and(|name| names.contains(&name.as_ref()))
}

/// What the server calls an event; nothing where it is waited for already.
fn event(name: &str, words: &Words, binding: &Binding) -> Result<Option<String>, String> {
    if LAST_WORDS.contains(&name) {
        return Ok(binding.messages.events.last().cloned());
    }
    match words.events.iter().position(|event| *event == name) {
        // The last one stands for the last one, however many there are.
        Some(at) if at + 1 == words.events.len() => Ok(binding.messages.events.last().cloned()),
        Some(at) => Ok(binding.messages.events.get(at).cloned()),
        None => Err(format!("it waits for a `{name}` message, which only the embedded backend sends")),
    }
}

fn open(request: &Request, binding: &Binding, server: &Server) -> Result<Request, String> {
    let path = String::from_utf8_lossy(&request.path);
    if path != "/ws" {
        return Err(format!("it opens `{path}`, and the binding knows one path for WebSockets"));
    }
    if !binding.credential.is_needed() && request.credential != Credential::Valid {
        return Err("it is about a client without a valid credential, and the binding has none".to_owned());
    }
    bound(binding.at_websocket(request.clone()), binding, &server.authority())
}

fn plain(request: &Request, binding: &Binding, server: &Server) -> Result<Request, String> {
    let path = String::from_utf8_lossy(&request.path).into_owned();
    let health = &binding.paths.health;
    let path = match path.as_str() {
        known if health.iter().any(|path| path == known) => path,
        "/health" if !health.is_empty() => health[0].clone(),
        _ => return Err(format!("it requests `{path}`, which is none of the binding's health paths")),
    };
    bound(Request { path: path.into_bytes(), ..request.clone() }, binding, &server.authority())
}

/// With the server's own name, and a credential that the binding has, where the binding puts it.
fn bound(mut request: Request, binding: &Binding, authority: &str) -> Result<Request, String> {
    use Credential::{Empty, Garbage, NoScheme, None, Valid};
    match request.credential {
        None => {}
        // Who lets anybody in lets in a valid client too.
        Valid if !binding.credential.is_needed() => request.credential = None,
        _ if !binding.credential.is_needed() => {
            return Err("it presents a credential, and the binding has none".to_owned());
        }
        Valid | Empty | Garbage | NoScheme => {
            let is_known = |place: &CredentialPlace| binding.credential.places().any(|known| known == *place);
            if !request.places.iter().all(is_known) {
                if request.places != [CredentialPlace::Header] {
                    return Err("its credential travels where the binding's does not".to_owned());
                }
                request.places = vec![binding.credential.place];
            }
        }
        other => {
            let kind = serde_json::to_value(other).ok();
            let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
            return Err(format!("it needs a credential that is {kind}, and nobody here can make one"));
        }
    }
    Ok(addressed(request, authority))
}

/// A request that names the server.
fn addressed(mut request: Request, authority: &str) -> Request {
    if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"host")) {
        request.headers.push((b"Host"[..].into(), authority.to_owned().into()));
    }
    request
}

/// Judges cases one after the other. `done` is called after each.
pub async fn judge_bound(cases: &[Arc<Case>], servers: &Servers, seed: u64, done: impl Fn()) -> Vec<Judgement> {
    let mut judged = Vec::new();
    for case in cases {
        judged.push(servers.judge(case, seed).await);
        done();
    }
    judged
}
