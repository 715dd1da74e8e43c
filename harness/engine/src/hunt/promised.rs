//! Draws what a service file's own words make possible: clients that keep to what it promises, and clients that go beyond it.

use std::time::Duration;

use fastrand::Rng;

use super::generate::{LIMIT, header, one};
use crate::service_file::{Protected, ServiceFile};
use relapse_core::{
    client::{
        credential::Credential,
        step::{Action, Awaited, Concurrency, Request, Step},
    },
    judge::classify::{LARGE_BYTES, LARGE_PATIENCE},
    wire::close_code::CloseCode,
};

/// The sizes to which a request is padded with spaces behind it, in bytes: one byte more than a limit of many services.
const SIZES: [usize; 4] = [LARGE_BYTES + 1, LARGE_BYTES + 1, (64 << 10) + 1, (1 << 20) + 1];

/// How often a client is refused that comes again and again; most breakers have opened by then.
const REFUSALS: [usize; 3] = [3, 5, 10];

/// The visits of clients of a bound service, and how many clients there are.
pub(super) type Clients = (Vec<Vec<Step>>, Concurrency);

/// Draws one; `None` if the service file lacks what it takes. `has_room` is true if many clients at a time burden no real
/// server.
pub(super) fn draw(chance: &mut Rng, binding: &ServiceFile, has_room: bool) -> Option<Clients> {
    let alone = |visits: Option<Vec<Vec<Step>>>| Some((visits?, Concurrency::ONE));
    match chance.u8(..5) {
        0 => alone(elsewhere(chance, binding)),
        1 => alone(impostor(chance, binding)),
        2 => alone(lockout(chance, binding)),
        3 => alone(enlarged(chance, binding)),
        _ => crowd(binding).filter(|_| has_room),
    }
}

fn step(act: Action) -> Step {
    Step::new(act, LIMIT)
}

fn wait(name: &str) -> Step {
    step(Action::Wait(Awaited::Message(name.to_owned())))
}

/// The upgrade of a healthy client, on the service's own host; to `/` where the service file names no path for WebSockets.
fn upgrade(binding: &ServiceFile) -> Request {
    let upgrade = binding.upgrade("").unwrap_or_else(|| Request::standard("GET", "/"));
    Request { headers: Vec::new(), ..upgrade }
}

/// The upgrade, and the wait for the welcome.
fn opened(binding: &ServiceFile, request: Request) -> Vec<Step> {
    let welcome = binding.messages.welcome.iter().map(|welcome| wait(welcome));
    std::iter::once(step(Action::Open(request))).chain(welcome).collect()
}

/// The service file's request, and the wait for the last event of the answer.
fn asked(binding: &ServiceFile) -> Vec<Step> {
    let messages = &binding.messages;
    match (&messages.request, messages.events.last()) {
        (Some(request), Some(last)) => vec![step(Action::SendText(request.clone())), wait(last)],
        _ => Vec::new(),
    }
}

fn closed() -> Step {
    step(Action::Close(CloseCode::NORMAL))
}

/// A healthy client whose credential travels another way than most, or that offers a subprotocol.
fn elsewhere(chance: &mut Rng, binding: &ServiceFile) -> Option<Vec<Vec<Step>>> {
    let mut request = upgrade(binding);
    let spoken = &binding.messages.subprotocols;
    if binding.credential.is_needed() {
        request.places = vec![one(chance, &binding.credential.places().collect::<Vec<_>>())];
    }
    if !spoken.is_empty() && chance.bool() {
        request.offers = vec![one(chance, spoken)];
    }
    let visit = [opened(binding, request), asked(binding), vec![closed()]].concat();
    (binding.credential.is_needed() || !spoken.is_empty()).then_some(vec![visit])
}

/// A client without a valid credential, and with an unexpected header, where only a user may go.
fn impostor(chance: &mut Rng, binding: &ServiceFile) -> Option<Vec<Vec<Step>>> {
    const NONE: [Credential; 3] = [Credential::None, Credential::Empty, Credential::Garbage];
    let credential = if chance.bool() { one(chance, &Credential::FORGED) } else { one(chance, &NONE) };
    let mut request = upgrade(binding);
    let protected = Some(&binding.paths.protected).filter(|protected| !protected.is_empty() && chance.bool());
    let asks = protected.map(|protected| one(chance, protected));
    if let Some(Protected { method, path }) = &asks {
        request = Request { path: path.clone().into_bytes(), method: method.clone(), ..request };
    }
    request.credential = credential;
    request.places = vec![one(chance, &binding.credential.places().collect::<Vec<_>>())];
    header(chance, &mut request);
    let visit = match asks {
        Some(_) => vec![step(Action::Request(request))],
        None => [opened(binding, request), vec![closed()]].concat(),
    };
    binding.credential.is_needed().then_some(vec![visit])
}

/// One who is refused again and again, and then a healthy client.
fn lockout(chance: &mut Rng, binding: &ServiceFile) -> Option<Vec<Vec<Step>>> {
    let bad = Request { credential: Credential::Garbage, ..upgrade(binding) };
    let mut visits = vec![vec![step(Action::Open(bad))]; one(chance, &REFUSALS)];
    visits.push([opened(binding, upgrade(binding)), asked(binding), vec![closed()]].concat());
    binding.credential.is_needed().then_some(visits)
}

/// A session in which a request is longer than usual, with nothing but spaces behind it, and then one as usual.
fn enlarged(chance: &mut Rng, binding: &ServiceFile) -> Option<Vec<Vec<Step>>> {
    let request = binding.messages.request.as_ref()?;
    let spaces = one(chance, &SIZES).saturating_sub(request.len());
    // Spaces behind it do not change what JSON says.
    let is_json = serde_json::from_str::<serde_json::Value>(request).is_ok();
    let answered = asked(binding);
    (is_json && !answered.is_empty()).then(|| {
        let large = [request.as_str(), &" ".repeat(spaces)].concat();
        let sent = vec![step(Action::SendText(large)), Step::new(Action::Pause, LARGE_PATIENCE)];
        vec![[opened(binding, upgrade(binding)), sent, answered, vec![closed()]].concat()]
    })
}

/// One connection more at a time than a user may have.
fn crowd(binding: &ServiceFile) -> Option<Clients> {
    let most = binding.limits.connections;
    let pause = Step::new(Action::Pause, Duration::from_secs(1));
    let visit = [opened(binding, upgrade(binding)), vec![pause, closed()]].concat();
    let crowd = Concurrency { connections: most + 1, ..Concurrency::ONE };
    (1..Concurrency::MAX).contains(&most).then_some((vec![visit], crowd))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fastrand::Rng;

    use crate::hunt::promised::draw;
    use crate::service_file::ServiceFile;
    use relapse_core::client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Concurrency},
    };

    const BINDING: &str = "[paths]\nprotected = [\"GET /own\"]\n\
         [credential]\nliteral = \"x\"\nalso = [\"query\"]\n[limits]\nconnections = 3\n";

    fn drawn(binding: &str, has_room: bool) -> Vec<super::Clients> {
        let binding = ServiceFile::parse("relapse.toml", binding).unwrap();
        (0..1000).filter_map(|seed| draw(&mut Rng::with_seed(seed), &binding, has_room)).collect()
    }

    #[test]
    fn clients_go_to_the_edge_of_what_is_promised() {
        let drawn = drawn(BINDING, true);
        let acts = || drawn.iter().flat_map(|(visits, _)| visits.iter().flatten()).map(|step| &step.act);
        let long = acts().filter_map(|act| match act {
            Action::SendText(text) if text.ends_with(' ') => Some(text.len()),
            _ => None,
        });
        assert_eq!(long.collect::<BTreeSet<_>>(), [8193, 65_537, 1_048_577].into());
        assert!(drawn.iter().any(|(_, crowd)| *crowd == Concurrency { connections: 4, ..Concurrency::ONE }));
        let opened = |credential, place| {
            let is_it = |act: &Action| matches!(act, Action::Open(asked) if asked.credential == credential && asked.places == [place]);
            acts().any(is_it)
        };
        assert!(
            opened(Credential::Valid, CredentialPlace::Query) && opened(Credential::Valid, CredentialPlace::Header)
        );
        assert!(Credential::FORGED.iter().all(|kind| opened(*kind, CredentialPlace::Header)));
        assert!(drawn.iter().any(|(visits, _)| visits.len() == 11));
        // No valid user ever asks for a path that only a user may ask for.
        let own = acts().filter_map(|act| match act {
            Action::Request(asked) => Some((asked.path == b"/own", asked.credential == Credential::Valid)),
            _ => None,
        });
        assert_eq!(own.collect::<BTreeSet<_>>(), [(true, false)].into());
    }

    #[test]
    fn what_a_binding_does_not_say_is_not_tried() {
        // The service file has no credential, no limit and no request.
        assert_eq!(drawn("[messages]\nrequest = \"\"\nevents = []\n", true), []);
        assert!(drawn(BINDING, false).iter().all(|(_, crowd)| *crowd == Concurrency::ONE));
        // Spaces are not nothing in what is no JSON.
        let drawn = drawn("[messages]\nrequest = \"hello\"\n", true);
        assert_eq!(drawn, []);
    }
}
