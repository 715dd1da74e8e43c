//! Cases in a service's own words.

use std::time::Duration;

use super::External;
use crate::{
    case::{Accepted, Case, Origin, Symptom, Vocabulary, WORDS},
    service_file::{RequestKind, ServiceFile},
};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Awaited, ClientStrictness, DEFAULT_USER, Request, Step},
    },
    judge::verdict::Reason,
    record::service::Names,
    wire::message::message_type,
};

/// The longest pause and the longest wait of a case in the backend's words, where time is real.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The backend's last words: the message after the last event, and the answer to a ping. On another service the last event
/// stands for both.
const LAST_WORDS: [&str; 2] = ["agent_response_complete", "pong"];

/// A case in the words of a service.
///
/// # Errors
/// Says why it cannot be performed there.
pub fn translate(case: &Case, binding: &ServiceFile, external: &External) -> Result<Case, Reason> {
    if let Some(why) = obstacle(case, binding, external) {
        return Err(Reason::NotForThisTarget(why));
    }
    let authority = external.target.authority();
    match (case.vocabulary, case.origin) {
        (Vocabulary::Own, _) => {
            let steps = case.steps.iter().cloned().map(|step| as_written(binding, &authority, step)).collect();
            Ok(Case { steps, ..case.clone() })
        }
        // A reproducer is performed as the hunt found it.
        (Vocabulary::Backend, Origin::Hunt) => {
            let steps = case.steps.iter().cloned();
            let steps = steps.filter_map(|step| in_the_words_of(binding, &authority, step)).collect();
            Ok(Case { steps, ..case.clone() })
        }
        (Vocabulary::Backend, Origin::Report) => {
            // The texts, and which of several fitting codes, are the backend's own.
            let accepted = case.accepted.iter();
            let accepted =
                accepted.map(|accepted| Accepted { outcome: None, says: None, ..accepted.clone() }).collect();
            let steps = steps(&case.steps, binding, external).map_err(Reason::NotForThisTarget)?;
            let symptom = case.symptom_behind(external.like()).map(seen_from_outside);
            Ok(Case { steps, accepted, symptom, symptom_on: Default::default(), ..case.clone() })
        }
    }
}

/// The reason why a case cannot be performed on a target, whatever its steps say.
fn obstacle(case: &Case, binding: &ServiceFile, external: &External) -> Option<String> {
    let places = external.target.capabilities().places;
    if let Some(fault) = case.faults.iter().find(|fault| !places.contains(&fault.kind.place())) {
        let place = fault.kind.place().name();
        let reached = external.target.kind().reach();
        return Some(format!("`{fault}` needs the {place}, and {reached}"));
    }
    if let Some(why) = external.target.capabilities().process.refuses(case) {
        return Some(why);
    }
    if case.crowd.users > 1 && binding.credential.is_needed() {
        return Some("it needs several users, and the service file has a credential for one".to_owned());
    }
    match case.vocabulary {
        Vocabulary::Own => unknown_user(case, binding).map(|user| {
            let help = format!("write `[users.{user}]` with a token");
            format!("it names the user `{user}`, whom the service file does not have: {help}")
        }),
        Vocabulary::Backend => None,
    }
}

/// The part of the backend's symptom that any service with the same failure shows: how it ends. Log, exception, close reason
/// and checks are in the backend's own words.
fn seen_from_outside(symptom: &Symptom) -> Symptom {
    Symptom { class: symptom.class, outcome: symptom.outcome, ..Symptom::default() }
}

/// A user of a case that the service file does not have, where users matter.
fn unknown_user<'a>(case: &'a Case, binding: &ServiceFile) -> Option<&'a str> {
    let steps = case.steps.iter().chain(case.control.iter().flatten());
    let mut users = steps.filter_map(|step| step.act.request()).map(|request| request.user.as_str());
    users.find(|user| binding.credential.is_needed() && !binding.has_user(user))
}

/// A step in the backend's words, as far as it can be performed on a service: with its path for WebSockets, its credential
/// and its messages. The step goes where only the backend answers. The client does not give up early, because how fast the
/// service answers is not known.
pub fn in_the_words_of(binding: &ServiceFile, authority: &str, step: Step) -> Option<Step> {
    let act = match step.act {
        Action::Open(asked) => {
            Action::Open(introduced(binding.at_websocket(patient(asked)), Asks::Upgrade, binding, authority))
        }
        Action::Request(asked) => Action::Request(introduced(patient(asked), Asks::Plain, binding, authority)),
        // Its own request, however long it was made.
        Action::SendText(text) if Some(text.trim_end_matches(' ')) == binding.messages.request.as_deref() => {
            Action::SendText(text)
        }
        Action::SendText(text)
            if is_of_type(&text, &WORDS.requests) || is_of_type(&text, &Names::Compiled(&["ping"])) =>
        {
            Action::SendText(binding.messages.request.clone()?)
        }
        Action::Wait(Awaited::Message(name)) => {
            let is_own = binding.messages.events.contains(&name) || binding.messages.welcome.as_ref() == Some(&name);
            let said = match name.as_str() {
                _ if is_own => Some(name),
                name if WORDS.welcomes.has(name) => binding.messages.welcome.clone(),
                name => event(name, binding).ok().flatten(),
            };
            Action::Wait(Awaited::Message(said?))
        }
        act => act,
    };
    Some(Step { act, ..step })
}

/// A step in the app's own words: only its credential is put where the service file has it.
pub fn as_written(binding: &ServiceFile, authority: &str, step: Step) -> Step {
    let act = match step.act {
        Action::Open(asked) => Action::Open(introduced(asked, Asks::Upgrade, binding, authority)),
        Action::Request(asked) => Action::Request(introduced(asked, Asks::Plain, binding, authority)),
        act => act,
    };
    Step { act, ..step }
}

fn patient(request: Request) -> Request {
    Request { give_up: None, ..request }
}

/// The thing that a request asks for.
#[derive(Debug, Clone, Copy)]
enum Asks {
    Upgrade,
    Plain,
}

/// A request with a credential as the service file has it, where the service file puts it.
fn introduced(request: Request, asks: Asks, binding: &ServiceFile, authority: &str) -> Request {
    let credential = match request.credential {
        _ if !binding.credential.is_needed() => Credential::None,
        kind @ (Credential::Valid | Credential::None | Credential::Empty | Credential::NoScheme) => kind,
        kind if Credential::FORGED.contains(&kind) => kind,
        // The other kinds need the secret of the built-in backend, so that they become garbage.
        Credential::Garbage
        | Credential::Expired
        | Credential::NotYetValid
        | Credential::WrongSignature
        | Credential::WrongIssuer
        | Credential::WrongAudience
        | Credential::MissingSubject
        | Credential::MissingExpiry
        | Credential::MissingIssueTime
        | Credential::MissingIssuer
        | Credential::MissingId
        | Credential::MissingAudience
        | Credential::TooOld
        | Credential::WrongType
        | Credential::WrongService
        | Credential::WrongEnvironment
        | Credential::WrongAlgorithm
        | Credential::OverLong
        | Credential::Revoked
        | Credential::Unsigned
        | Credential::TwoSegments => Credential::Garbage,
    };
    let kind = match asks {
        Asks::Upgrade => RequestKind::Upgrade,
        Asks::Plain => RequestKind::Plain(&request.method),
    };
    let on_route = binding.credential.place_on(kind, &request.path);
    let mut known = binding.credential.places().filter(|place| request.places.contains(place));
    let places = vec![on_route.or_else(|| known.next()).unwrap_or(binding.credential.place)];
    let user = if binding.has_user(&request.user) { request.user.clone() } else { DEFAULT_USER.to_owned() };
    addressed(Request { credential, places, user, client: ClientStrictness::Library, ..request }, authority)
}

pub(super) fn steps(steps: &[Step], binding: &ServiceFile, external: &External) -> Result<Vec<Step>, String> {
    let mut bound = Vec::new();
    for step in steps {
        let act = match &step.act {
            Action::Open(request) => Action::Open(open(request, binding, external)?),
            Action::Request(request) => Action::Request(plain(request, binding, external)?),
            Action::Wait(Awaited::Message(name)) if WORDS.welcomes.has(name) => match &binding.messages.welcome {
                Some(welcome) => Action::Wait(Awaited::Message(welcome.clone())),
                None => continue,
            },
            // Whatever asks for a sign of life asks in the server's own words.
            Action::SendText(text) if is_of_type(text, &Names::Compiled(&["ping"])) => {
                match &binding.messages.request {
                    Some(request) => Action::SendText(request.clone()),
                    None => continue,
                }
            }
            Action::Wait(Awaited::Message(name)) => match event(name, binding)? {
                Some(name) => Action::Wait(Awaited::Message(name)),
                None => continue,
            },
            Action::SendText(text) if is_of_type(text, &WORDS.requests) => {
                let request = binding.messages.request.clone();
                Action::SendText(request.ok_or("it asks for something, and the service file has no request")?)
            }
            Action::Pause | Action::Freeze if external.patience(step.limit) < step.limit => {
                return Err(format!("it pauses for {} s, and time is real here", step.limit.as_secs()));
            }
            act => act.clone(),
        };
        bound.push(Step { act, limit: external.patience(step.limit), ..step.clone() });
    }
    Ok(bound)
}

fn is_of_type(text: &str, names: &Names) -> bool {
    message_type(text.as_bytes()).is_some_and(|name| names.has(name.as_ref()))
}

/// The service's name for an event; `None` where the case waits for it already.
fn event(name: &str, binding: &ServiceFile) -> Result<Option<String>, String> {
    if LAST_WORDS.contains(&name) {
        return Ok(binding.messages.events.last().cloned());
    }
    match WORDS.events.iter().position(|event| event == name) {
        // The last one stands for the last one, however many there are.
        Some(at) if at + 1 == WORDS.events.len() => Ok(binding.messages.events.last().cloned()),
        Some(at) => Ok(binding.messages.events.get(at).cloned()),
        None => Err(format!("it waits for a `{name}` message, which only the built-in backend sends")),
    }
}

fn open(request: &Request, binding: &ServiceFile, external: &External) -> Result<Request, String> {
    let path = String::from_utf8_lossy(&request.path);
    if path != "/ws" {
        return Err(format!("it opens `{path}`, and the service file knows one path for WebSockets"));
    }
    if !binding.credential.is_needed() && request.credential != Credential::Valid {
        return Err("it is about a client without a valid credential, and the service file has none".to_owned());
    }
    bound(binding.at_websocket(request.clone()), binding, &external.target.authority())
}

fn plain(request: &Request, binding: &ServiceFile, external: &External) -> Result<Request, String> {
    let path = String::from_utf8_lossy(&request.path).into_owned();
    let health = &binding.paths.health;
    let path = match path.as_str() {
        known if health.iter().any(|path| path == known) => path,
        "/health" if !health.is_empty() => health[0].clone(),
        _ => return Err(format!("it requests `{path}`, which is none of the service file's health paths")),
    };
    bound(Request { path: path.into_bytes(), ..request.clone() }, binding, &external.target.authority())
}

/// With the server's own name, and a credential that the service file has, where the service file puts it.
fn bound(mut request: Request, binding: &ServiceFile, authority: &str) -> Result<Request, String> {
    use Credential::{Empty, Garbage, NoScheme, None, Valid};
    match request.credential {
        None => {}
        // A service that lets every client in lets a valid one in too.
        Valid if !binding.credential.is_needed() => request.credential = None,
        _ if !binding.credential.is_needed() => {
            return Err("it presents a credential, and the service file has none".to_owned());
        }
        Valid | Empty | Garbage | NoScheme => {
            if !request.places.iter().all(|place| binding.credential.places().any(|known| known == *place)) {
                if request.places != [CredentialPlace::Header] {
                    return Err("its credential travels where the service file's does not".to_owned());
                }
                request.places = vec![binding.credential.place];
            }
        }
        other => {
            let kind = serde_json::to_value(other).ok();
            let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
            return Err(format!("it needs a credential that is {kind}, which the harness cannot make for this target"));
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
