//! Draws what a service file's own words make possible: clients that keep to what it promises, and clients that go beyond it.

use std::time::Duration;

use super::generate::{Clients, LIMIT, give_header, header, one_of};
use crate::service_file::{Protected, ServiceFile};
use relapse_core::{
    choices::Choices,
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Awaited, Concurrency, Request, Step},
    },
    judge::classify::{LARGE_BYTES, LARGE_PATIENCE},
    wire::close_code::CloseCode,
};

/// The sizes to which a request is padded with spaces behind it, in bytes: one byte more than a limit of many services.
const SIZES: [(u32, usize); 3] = [(2, LARGE_BYTES + 1), (1, (64 << 10) + 1), (1, (1 << 20) + 1)];

/// How often a client is refused that comes again and again; most breakers have opened by then.
const REFUSALS: [usize; 3] = [3, 5, 10];

/// Draws clients of one kind.
type DrawClients = fn(Choices, &ServiceFile) -> Option<Clients>;

/// The kinds of clients, by their names.
const KINDS: [(&str, DrawClients); 5] =
    [("elsewhere", elsewhere), ("impostor", impostor), ("lockout", lockout), ("enlarged", enlarged), ("crowd", crowd)];

/// Draws clients of a service with a service file; `None` if the file lacks what any kind takes. Many clients at a time
/// burden a real server, so that there they are one.
pub(super) fn draw(choices: Choices, binding: &ServiceFile, room: Room) -> Option<Clients> {
    let kinds = choices.fork("kind").ranked(KINDS.map(|(name, draw)| (1, name, (name, draw))));
    kinds
        .into_iter()
        .find_map(|(name, draw)| draw(choices.fork(name), binding).filter(|(_, crowd)| room.is_for(*crowd)))
}

/// How many clients a target has room for at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// One.
    ForOne,
    /// Many.
    ForMany,
}

impl Room {
    fn is_for(self, crowd: Concurrency) -> bool {
        crowd == Concurrency::ONE || self == Room::ForMany
    }
}

/// Clients that come alone.
fn alone(visits: Vec<Vec<Step>>) -> Clients {
    (visits, Concurrency::ONE)
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

/// A place where the credential may travel.
fn place(choices: Choices, binding: &ServiceFile) -> CredentialPlace {
    one_of(choices.fork("place"), &binding.credential.places().collect::<Vec<_>>())
}

/// A healthy client whose credential travels another way than most, or that offers a subprotocol.
fn elsewhere(choices: Choices, binding: &ServiceFile) -> Option<Clients> {
    let mut request = upgrade(binding);
    let spoken = &binding.messages.subprotocols;
    if binding.credential.is_needed() {
        request.places = vec![place(choices, binding)];
    }
    if !spoken.is_empty() && choices.fork("offers").happens(1, 2) {
        request.offers = vec![choices.fork("offer").one(spoken)];
    }
    let visit = [opened(binding, request), asked(binding), vec![closed()]].concat();
    (binding.credential.is_needed() || !spoken.is_empty()).then(|| alone(vec![visit]))
}

/// A client without a valid credential, and with an unexpected header, where only a user may go.
fn impostor(choices: Choices, binding: &ServiceFile) -> Option<Clients> {
    const NONE: [Credential; 3] = [Credential::None, Credential::Empty, Credential::Garbage];
    let is_forged = choices.fork("is forged").happens(1, 2);
    let credential = one_of(choices.fork("credential"), if is_forged { &Credential::FORGED } else { &NONE });
    let mut request = upgrade(binding);
    let protected = binding.paths.protected.iter().filter(|_| choices.fork("is protected").happens(1, 2));
    let protected = protected.map(|Protected { method, path }| (1, (method, path), (method, path)));
    let asks = choices.fork("protected").pick(protected);
    if let Some((method, path)) = asks {
        request = Request { path: path.clone().into_bytes(), method: method.clone(), ..request };
    }
    request.credential = credential;
    request.places = vec![place(choices, binding)];
    give_header(&mut request, header(choices));
    let visit = match asks {
        Some(_) => vec![step(Action::Request(request))],
        None => [opened(binding, request), vec![closed()]].concat(),
    };
    binding.credential.is_needed().then(|| alone(vec![visit]))
}

/// One who is refused again and again, and then a healthy client.
fn lockout(choices: Choices, binding: &ServiceFile) -> Option<Clients> {
    let bad = Request { credential: Credential::Garbage, ..upgrade(binding) };
    let mut visits = vec![vec![step(Action::Open(bad))]; choices.fork("refusals").one(&REFUSALS)];
    visits.push([opened(binding, upgrade(binding)), asked(binding), vec![closed()]].concat());
    binding.credential.is_needed().then(|| alone(visits))
}

/// A session in which a request is longer than usual, with nothing but spaces behind it, and then one as usual.
fn enlarged(choices: Choices, binding: &ServiceFile) -> Option<Clients> {
    let request = binding.messages.request.as_ref()?;
    let spaces = choices.fork("size").weighed(&SIZES).saturating_sub(request.len());
    // Spaces behind it do not change what JSON says.
    let is_json = serde_json::from_str::<serde_json::Value>(request).is_ok();
    let answered = asked(binding);
    (is_json && !answered.is_empty()).then(|| {
        let large = [request.as_str(), &" ".repeat(spaces)].concat();
        let sent = vec![step(Action::SendText(large)), Step::new(Action::Pause, LARGE_PATIENCE)];
        alone(vec![[opened(binding, upgrade(binding)), sent, answered, vec![closed()]].concat()])
    })
}

/// One connection more at a time than a user may have.
fn crowd(_: Choices, binding: &ServiceFile) -> Option<Clients> {
    let most = binding.limits.connections;
    let pause = Step::new(Action::Pause, Duration::from_secs(1));
    let visit = [opened(binding, upgrade(binding)), vec![pause, closed()]].concat();
    let crowd = Concurrency { connections: most + 1, ..Concurrency::ONE };
    (1..Concurrency::MAX).contains(&most).then_some((vec![visit], crowd))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Room, draw};
    use crate::service_file::ServiceFile;
    use relapse_core::{
        choices::Choices,
        client::{
            credential::{Credential, CredentialPlace},
            step::{Action, Concurrency},
        },
    };

    const BINDING: &str = "[paths]\nprotected = [\"GET /own\"]\n\
         [credential]\nliteral = \"x\"\nalso = [\"query\"]\n[limits]\nconnections = 3\n";

    fn drawn(binding: &str, room: Room) -> Vec<super::Clients> {
        let binding = ServiceFile::parse("relapse.toml", binding).unwrap();
        (0..1000).filter_map(|seed| draw(Choices::of(seed), &binding, room)).collect()
    }

    fn has_opening(acts: &[&Action], credential: Credential, place: CredentialPlace) -> bool {
        acts.iter()
            .any(|act| matches!(act, Action::Open(asked) if asked.credential == credential && asked.places == [place]))
    }

    #[test]
    fn clients_go_to_the_edge_of_what_is_promised() {
        let drawn = drawn(BINDING, Room::ForMany);
        let acts: Vec<&Action> =
            drawn.iter().flat_map(|(visits, _)| visits.iter().flatten()).map(|step| &step.act).collect();
        let long = acts.iter().filter_map(|act| match act {
            Action::SendText(text) if text.ends_with(' ') => Some(text.len()),
            _ => None,
        });
        assert_eq!(long.collect::<BTreeSet<_>>(), [8193, 65_537, 1_048_577].into());
        assert!(drawn.iter().any(|(_, crowd)| *crowd == Concurrency { connections: 4, ..Concurrency::ONE }));
        assert!(has_opening(&acts, Credential::Valid, CredentialPlace::Query));
        assert!(has_opening(&acts, Credential::Valid, CredentialPlace::Header));
        assert!(Credential::FORGED.iter().all(|kind| has_opening(&acts, *kind, CredentialPlace::Header)));
        assert!(drawn.iter().any(|(visits, _)| visits.len() == 11));
        // No valid user ever asks for a path that only a user may ask for.
        let own = acts.iter().filter_map(|act| match act {
            Action::Request(asked) => Some((asked.path == b"/own", asked.credential == Credential::Valid)),
            _ => None,
        });
        assert_eq!(own.collect::<BTreeSet<_>>(), [(true, false)].into());
    }

    #[test]
    fn what_a_binding_does_not_say_is_not_tried() {
        // The service file has no credential, no limit and no request.
        assert_eq!(drawn("[messages]\nrequest = \"\"\nevents = []\n", Room::ForMany), []);
        assert!(drawn(BINDING, Room::ForOne).iter().all(|(_, crowd)| *crowd == Concurrency::ONE));
        // Spaces are not nothing in what is no JSON.
        let drawn = drawn("[messages]\nrequest = \"hello\"\n", Room::ForMany);
        assert_eq!(drawn, []);
    }
}
