//! Draws a case from a seed alone, without a report, and before it is known which target performs it. Each target
//! translates it once.

use std::time::Duration;

use crate::environment::Environment;
use relapse_core::{
    choices::{Choices, Named},
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Concurrency, DEFAULT_LIMIT, DEFAULT_USER, Request, Step},
    },
    fault::{Fault, FaultKind, FaultLimits, FaultNames, Kind, Place},
    wire::close_code::CloseCode,
};

/// Longer than anything that the service may take, all its attempts together. Virtual time.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// A drawn case in the words of its target: the steps of clients, and the faults on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedCase {
    /// The steps of each client, a visit at a time: an exchange with its session, or a pause.
    pub visits: Vec<Vec<Step>>,
    /// How many clients do it.
    pub crowd: Concurrency,
    /// The faults.
    pub faults: Vec<Fault>,
    /// In which environment.
    pub environment: Environment,
    /// Behind which server, by the name of its profile.
    pub server: String,
}

impl GeneratedCase {
    /// The steps of every client.
    pub fn steps(&self) -> Vec<Step> {
        self.visits.iter().flatten().cloned().collect()
    }
}

/// The limits of what may be drawn.
#[derive(Debug, Clone)]
pub struct GeneratorConfig {
    /// The names of the servers, the simplest first.
    pub servers: Vec<String>,
    /// The places that faults may act at.
    pub places: Vec<Place>,
    /// The kinds of fault that may be drawn there.
    pub kinds: Vec<&'static Kind>,
    /// Whether servers keep to the ASGI specification.
    pub legal_only: bool,
    /// The names that faults of dependencies and of the process may use.
    pub names: FaultNames<'static>,
}

impl GeneratorConfig {
    /// Everything that a built-in service with these names can have, behind these servers.
    pub fn everything(servers: Vec<String>, names: FaultNames<'static>) -> GeneratorConfig {
        let (places, kinds) = (Place::ALL.to_vec(), FaultKind::all().collect());
        GeneratorConfig { servers, places, kinds, legal_only: false, names }
    }
}

/// A case of which it is not known yet which target performs it.
#[derive(Debug, Clone)]
pub(super) struct AbstractCase {
    choices: Choices,
    visits: Vec<Visit>,
    crowd: Concurrency,
    places: Vec<Place>,
}

/// One thing after another that a client does.
#[derive(Debug, Clone)]
pub(super) enum Visit {
    /// A session on a WebSocket.
    Session(Box<Session>),
    /// A plain request.
    Request(PlainRequest),
    /// Nothing, for a time.
    Pause(Duration),
}

/// A session. `choices` decides on what only its target has words for.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) choices: Choices,
    pub(super) credential: Credential,
    pub(super) place: CredentialPlace,
    pub(super) user: &'static str,
    pub(super) header: Option<HeaderField>,
    /// After how long the client leaves when there is no answer yet.
    pub(super) give_up: Option<Duration>,
    pub(super) said: Vec<Said>,
    /// A step beside what is said.
    pub(super) aside: Option<Step>,
    pub(super) ending: Action,
}

/// Something that a client says in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// A request, and the wait for the last word of its answer.
    Request,
    /// A request whose answer the client does not wait for.
    Hasty,
    /// A sign of life.
    Ping,
    /// Something of a type that no service has.
    UnknownType,
    /// Something whose type is null.
    NullType,
    /// Something that is not JSON.
    NotJson,
    /// JSON that is no object.
    List,
    /// One byte more than a message may have.
    TooLong,
    /// Bytes.
    Binary,
    /// A goodbye.
    Goodbye,
}

impl Said {
    /// Each with its weight and name.
    const WEIGHED: [(u32, &'static str, Said); 10] = [
        (6, "request", Said::Request),
        (1, "hasty request", Said::Hasty),
        (2, "ping", Said::Ping),
        (1, "unknown type", Said::UnknownType),
        (1, "null type", Said::NullType),
        (1, "not JSON", Said::NotJson),
        (1, "list", Said::List),
        (1, "too long", Said::TooLong),
        (1, "binary", Said::Binary),
        (1, "goodbye", Said::Goodbye),
    ];
}

/// A plain request. `choices` decides on what only its target has words for.
#[derive(Debug, Clone)]
pub(super) struct PlainRequest {
    pub(super) choices: Choices,
    pub(super) credential: Credential,
    pub(super) oddity: Oddity,
}

/// The unusual part of a plain request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    /// It has none.
    Plain,
    /// An upgrade that was lost on the way.
    LostUpgrade,
    /// A method that the route may not have.
    Method,
    /// A body.
    Body,
    /// A header.
    Header,
    /// The client leaves when there is no answer after this time.
    GiveUp(Duration),
}

/// A header field.
pub(super) type HeaderField = (&'static str, &'static [u8]);

/// Header fields that clients, and what stands before them, send now and then.
const HEADERS: [HeaderField; 12] = [
    ("X-Latest-Thing", b"1"),
    ("X-Test-Run", b"1"),
    ("X-E2E-Test", b"true"),
    ("User-Agent", b"factory-client/1.0"),
    ("Origin", b"null"),
    ("Cookie", b"session=eyJhbGciOiJub25lIn0.tampered"),
    ("Cookie", b"caf\xe9=\xff; session"),
    ("X-Forwarded-For", b"203.0.113.7, , unknown"),
    ("X-Forwarded-Proto", b"https, gopher"),
    ("X-Forwarded-Host", b"["),
    ("Accept-Language", b"\xff\xfe"),
    ("Connection", b"close"),
];

/// One of these header fields.
pub(super) fn header(choices: Choices) -> HeaderField {
    choices.fork("header").one(&HEADERS)
}

/// Gives a request a header field, unless it would take its upgrade away.
pub(super) fn give_header(request: &mut Request, (name, value): HeaderField) {
    let is_upgrade = request.method == "GET" && name == "Connection";
    if !is_upgrade {
        request.headers.push((name.as_bytes().into(), value.into()));
    }
}

/// A candidate by the name of its variant, which has no values.
#[derive(Clone, Copy)]
struct NamedVariant<T>(T);

impl<T: std::fmt::Debug> Named for NamedVariant<T> {
    fn below(&self, stream: Choices) -> Choices {
        stream.fork(&format!("{:?}", self.0))
    }
}

/// One of these variants, each as likely as any other.
pub(super) fn one_of<T: std::fmt::Debug + Copy>(choices: Choices, from: &[T]) -> T {
    let candidates = from.iter().map(|candidate| (1, NamedVariant(*candidate), *candidate));
    choices.pick(candidates).expect("there is a variant")
}

/// A step, with the time that it may take.
pub(super) fn step(act: Action) -> Step {
    let waits = !matches!(act, Action::SendText(_) | Action::SendBytes(_));
    Step::new(act, if waits { LIMIT } else { DEFAULT_LIMIT })
}

/// One of these times, in milliseconds.
pub(super) fn millis(choices: Choices, from: &[u64]) -> Duration {
    Duration::from_millis(choices.one(from))
}

impl Visit {
    fn draw(choices: Choices) -> Visit {
        let kinds = [(6, "session"), (3, "request"), (1, "pause")];
        match choices.fork("kind").weighed(&kinds) {
            "session" => Visit::Session(Box::new(Session::draw(choices, &[]))),
            "request" => Visit::request(choices),
            _ => Visit::pause(choices),
        }
    }

    fn request(choices: Choices) -> Visit {
        let choices = choices.fork("request");
        let give_up = millis(choices.fork("give up"), &[1, 100, 4000]);
        let oddities = [
            (5, "plain", Oddity::Plain),
            (1, "lost upgrade", Oddity::LostUpgrade),
            (1, "method", Oddity::Method),
            (1, "body", Oddity::Body),
            (1, "header", Oddity::Header),
            (1, "give up", Oddity::GiveUp(give_up)),
        ];
        let oddity = choices.fork("oddity").pick(oddities).unwrap_or(Oddity::Plain);
        Visit::Request(PlainRequest { choices, credential: credential(choices.fork("credential")), oddity })
    }

    fn pause(choices: Choices) -> Visit {
        Visit::Pause(Duration::from_millis(choices.fork("pause").within(1..=40_000)))
    }
}

impl Session {
    /// Draws one in which this is said first of all.
    pub(super) fn draw(choices: Choices, first: &[Said]) -> Session {
        let choices = choices.fork("session");
        let said = choices.fork("said");
        let further = said.fork("count").count(0..=2);
        let further = (0..further).filter_map(|number| said.nth(number).pick(Said::WEIGHED));
        let gives_up = choices.fork("give up");
        Session {
            choices,
            credential: credential(choices.fork("credential")),
            place: one_of(choices.fork("place"), &CredentialPlace::ALL),
            user: choices.fork("user").one(&["user-1", "user-2", "u"]),
            header: choices.fork("has header").happens(1, 4).then(|| header(choices)),
            give_up: gives_up.fork("is given").happens(1, 16).then(|| millis(gives_up, &[1, 500, 4000])),
            said: first.iter().copied().chain(further).collect(),
            aside: aside(choices.fork("aside")),
            ending: ending(choices.fork("ending")),
        }
    }
}

fn credential(choices: Choices) -> Credential {
    if choices.fork("is valid").happens(7, 10) { Credential::Valid } else { one_of(choices, &Credential::ALL) }
}

/// A step that a client does now and then beside what it says.
fn aside(choices: Choices) -> Option<Step> {
    let kinds = [(13, "none"), (1, "freeze"), (1, "pause"), (1, "ping")];
    match choices.fork("kind").weighed(&kinds) {
        "freeze" => Some(Step::new(Action::Freeze, millis(choices, &[100, 15_000]))),
        "pause" => Some(Step::new(Action::Pause, millis(choices, &[1000, 70_000]))),
        "ping" => Some(step(Action::Ping)),
        _ => None,
    }
}

/// The end of a session by its client.
fn ending(choices: Choices) -> Action {
    let endings = [
        (4, "normal", Action::Close(CloseCode::NORMAL)),
        (1, "close", Action::Close(CloseCode(choices.fork("code").one(&[1001_u16, 3000, 4999])))),
        (3, "leave", Action::Leave),
    ];
    choices.fork("kind").pick(endings).unwrap_or(Action::Leave)
}

/// Some clients, with the visits of each.
pub(super) type Clients = (Vec<Vec<Step>>, Concurrency);

/// Clients that only one target has.
pub(super) struct OwnClients {
    pub(super) clients: Clients,
    /// Whether a check compares what they get, so that no fault may act on them.
    pub(super) are_compared: bool,
}

/// The words of a target, in which it performs abstract cases.
pub(super) trait Translator {
    /// A session in its words.
    fn session(&self, session: &Session) -> Vec<Step>;

    /// A plain request in its words.
    fn request(&self, request: &PlainRequest) -> Vec<Step>;

    /// Clients that only this target has, instead of those of the case; `None` for those of the case.
    fn own_clients(&self, choices: Choices) -> Option<OwnClients>;

    /// How many clients there is room for, of those that a case has.
    fn room(&self, crowd: Concurrency) -> Concurrency;
}

impl AbstractCase {
    /// Draws one. The same seed gives the same. Each choice has a stream of its own, named after what is chosen.
    pub(super) fn draw(seed: u64, places: &[Place]) -> AbstractCase {
        let choices = Choices::of(seed);
        // Swarm testing: each case leaves most kinds out, so that those it has meet one another.
        let count = match places {
            [] => 0,
            _ => choices.fork("faults").weighed(&[(3, 0_usize), (4, 1), (3, 2)]),
        };
        let mut places_of_faults: Vec<Place> =
            (0..count).filter_map(|number| place(fault_stream(choices, number), places)).collect();
        if let [Place::Process, others @ ..] = places_of_faults.as_mut_slice()
            && places.contains(&Place::Dependency)
        {
            // One process is enough; its dependencies may fail too.
            others.fill(Place::Dependency);
        }
        let crowd = crowd(choices.fork("crowd"));
        let visits = visits(choices.fork("visits"), &places_of_faults, crowd);
        AbstractCase { choices, visits, crowd, places: places_of_faults }
    }

    /// The case in the words of a target.
    pub(super) fn translate(&self, target: &dyn Translator, config: &GeneratorConfig) -> GeneratedCase {
        let own = target.own_clients(self.choices.fork("own clients"));
        let are_compared = own.as_ref().is_some_and(|own| own.are_compared);
        let (visits, crowd) = own.map(|own| own.clients).unwrap_or_else(|| {
            let visits = self.visits.iter().map(|visit| match visit {
                Visit::Session(session) => target.session(session),
                Visit::Request(request) => target.request(request),
                Visit::Pause(time) => vec![Step::new(Action::Pause, *time)],
            });
            (visits.collect(), target.room(self.crowd))
        });
        let steps = visits.iter().map(Vec::len).sum();
        let limits = FaultLimits { kinds: &config.kinds, names: config.names, legal_only: config.legal_only, steps };
        let places = if are_compared { &[][..] } else { &self.places };
        let faults = places.iter().enumerate();
        let faults =
            faults.filter_map(|(number, place)| Fault::draw(fault_stream(self.choices, number), *place, &limits));
        GeneratedCase {
            visits,
            crowd,
            faults: faults.collect(),
            environment: one_of(self.choices.fork("environment"), &Environment::ALL),
            server: self.choices.fork("server").one(&config.servers),
        }
    }
}

/// One of these places.
fn place(choices: Choices, places: &[Place]) -> Option<Place> {
    choices.fork("place").pick(places.iter().map(|place| (place.weight(), place.name(), *place)))
}

/// The stream of a fault of a case.
fn fault_stream(choices: Choices, number: usize) -> Choices {
    choices.fork("fault").nth(number)
}

/// How many clients do what a case says.
fn crowd(choices: Choices) -> Concurrency {
    let kinds = [(115, "one"), (10, "users"), (2, "connections"), (1, "rounds")];
    match choices.fork("kind").weighed(&kinds) {
        "users" => Concurrency {
            users: choices.fork("users").count(2..=4),
            connections: choices.fork("connections").count(1..=2),
            rounds: 1,
        },
        "connections" => Concurrency { connections: 12, ..Concurrency::ONE },
        "rounds" => Concurrency { rounds: 22, ..Concurrency::ONE },
        _ => Concurrency::ONE,
    }
}

/// The visits of each client, where faults act at these places.
fn visits(choices: Choices, places: &[Place], crowd: Concurrency) -> Vec<Visit> {
    if crowd.users > 1 {
        // While several users act, the acts of one do not concern the other. Each has a name of its own.
        let session = Session::draw(choices.nth(0), &[Said::Request]);
        return vec![Visit::Session(Box::new(Session { user: DEFAULT_USER, ..session }))];
    }
    let first = Visit::draw(choices.nth(0));
    if crowd != Concurrency::ONE {
        // Many clients stay below what one user may send in a minute.
        return vec![first];
    }
    if let [Place::Process, ..] = places {
        // A client comes when the process should have started.
        let late = choices.fork("late");
        let pause = late.happens(1, 2).then(|| Visit::pause(late));
        let session = Session::draw(choices.nth(1), &[Said::Request]);
        return [Some(first), pause, Some(Visit::Session(Box::new(session)))].into_iter().flatten().collect();
    }
    // A failure is followed by a client that notices it.
    let most = if places.contains(&Place::Dependency) { 4 } else { 2 };
    let further = (1..most).take_while(|number| choices.nth(*number).fork("follows").happens(1, 2));
    std::iter::once(first).chain(further.map(|number| Visit::draw(choices.nth(number)))).collect()
}
