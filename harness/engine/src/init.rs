//! Finds out how to speak to an external server, as far as asking tells, and writes it down as a service file.

use std::fmt::{Display, Write as _};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::{
    deadline::Deadline,
    discover,
    external::External,
    note::Note,
    route::Route,
    run,
    service_file::{Messages, ServiceFile, TokenSource},
};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Request, Step},
    },
    error::Error,
    judge::{classify::Exchange, outcome::Ending},
    plan::Plan,
    record::transcript::{Actor, EventKind, Transcript},
    wire::{
        close_code::CloseCode,
        frame::Opcode,
        head::{header, readable},
        message::message_type,
    },
};
use relapse_simulate::clock::Clock;

/// Where servers commonly say how they are.
const HEALTH_PATHS: [&str; 10] = [
    "/health",
    "/healthz",
    "/health/ready",
    "/health/live",
    "/readyz",
    "/livez",
    "/ready",
    "/status",
    "/ping",
    "/ws/health",
];

/// Where they commonly speak WebSocket.
const WEBSOCKET_PATHS: [&str; 10] =
    ["/ws", "/ws/", "/websocket", "/api/v1/websocket", "/api/ws", "/socket", "/stream", "/chat", "/events", "/"];

/// Names for the last part of a path where an application reports its health.
const HEALTH_NAMES: [&str; 14] = [
    "health",
    "healthz",
    "healthy",
    "healthcheck",
    "ready",
    "readyz",
    "readiness",
    "live",
    "livez",
    "liveness",
    "alive",
    "status",
    "ping",
    "heartbeat",
];

/// A path that no application is expected to serve.
const NOWHERE: &str = "/relapse-asks-for-what-is-nowhere";

/// Where a token may travel, the commonest first.
const PLACES: [CredentialPlace; 4] =
    [CredentialPlace::Header, CredentialPlace::Query, CredentialPlace::Subprotocol, CredentialPlace::SubprotocolAlone];

/// First messages that a client may send: the built-in backend's own request, and a question that many servers answer.
fn requests_in_common() -> [String; 2] {
    let own = ServiceFile::default().messages.request.unwrap_or_default();
    [own, r#"{"type":"ping"}"#.to_owned()]
}

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a session is listened to before it is said to be quiet.
const QUIET: Duration = Duration::from_millis(700);
/// How long the answers to a request are listened to.
const ANSWERS: Duration = Duration::from_secs(2);
/// How many words of an application are tried as the `type` of a request.
const WORDS_MAX: usize = 40;

/// The results of asking a server.
#[derive(Debug)]
pub struct ServiceDiscovery {
    /// How it is spoken to, as far as that was found out.
    pub binding: ServiceFile,
    /// The server's own name for itself, and the description of it.
    pub server: String,
    /// Whether a session opened.
    pub opens: bool,
    /// The place where it takes the token; `None` where none was found.
    pub place: Option<CredentialPlace>,
    /// The remarks on its health routes, its path, its credential and its messages, a sentence each.
    pub remarks: [String; 4],
    /// Things of an app that virtual time does not wait for, each kind once.
    pub notes: Vec<Note>,
}

/// Whether the user named a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitToken {
    /// One is named.
    Given,
    /// None is named.
    None,
}

/// Asks a server. With a token it is tried in every place where tokens travel. The routes that the user named come
/// first, then those that an application tells itself, and then where servers commonly are.
///
/// # Errors
/// When no server is there, the time is over, or the harness could not do its work; the server's answers are never an error.
pub async fn init(
    mut server: External,
    named: &[Route],
    token: InitToken,
    deadline: Deadline,
) -> Result<ServiceDiscovery, Error> {
    let mut binding = ServiceFile::default();
    let told = std::mem::take(&mut server.routes);
    let told: Vec<Route> = told.into_iter().filter(|route| !named.contains(route)).collect();
    let mut asked = AskedServer { authority: server.target.authority(), server, named: String::new(), deadline };
    let (health, about_health) = asked.health(&health_paths(named, &told)).await?;
    binding.paths.health = health;
    let (path, opens, about_path) = asked.websocket(&CandidatePaths::of(named, &told), token).await?;
    let words = words_of(named.iter().chain(&told), &path);
    binding.paths.websocket = (opens != Opens::Nowhere).then(|| path.clone());
    let (place, about_credential) = match opens {
        Opens::ToAnyone => (None, "It opens without a credential.".to_owned()),
        Opens::Refused if token == InitToken::None => (
            None,
            "It refuses without a credential, and none was given: --token-env or --token-command names one.".to_owned(),
        ),
        Opens::Refused => asked.place(&path).await?,
        Opens::Nowhere => (None, "No session opened, so nothing is known of it.".to_owned()),
    };
    binding.credential.place = place.unwrap_or(binding.credential.place);
    if token == InitToken::Given && opens != Opens::ToAnyone {
        // The writer of the service file says where the token comes from.
        binding.credential.source = Some(TokenSource::Issued);
    }
    let opens = opens == Opens::ToAnyone || place.is_some();
    let about_messages = if opens {
        asked.messages(&mut binding, &path, &words).await?
    } else {
        binding.messages = Messages::none();
        "No session opened, so nothing is known of them.".to_owned()
    };
    let AskedServer { mut server, named, .. } = asked;
    let (clock, known) = (server.clock(), discover::servers()?);
    deadline.bound(clock, server.recognize(&binding, &known)).await?;
    let (described, notes) = (server.described(), server.target.notes());
    let server = if named.is_empty() { described } else { format!("{named}, {described}") };
    let remarks = [about_health, about_path, about_credential, about_messages];
    Ok(ServiceDiscovery { binding, server, opens, place, remarks, notes })
}

/// The paths where it may report its health: those that the user named, and the routes of an application that are
/// called so and ask for nothing.
fn health_paths(named: &[Route], told: &[Route]) -> Vec<String> {
    let told = told.iter().filter(|route| is_named_as_health(route));
    let routes = named.iter().chain(told).filter(|route| route.takes("GET"));
    unique(routes.map(plainest).chain(HEALTH_PATHS.map(str::to_owned)))
}

fn is_named_as_health(route: &Route) -> bool {
    let last = route.path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default().to_ascii_lowercase();
    let mut words = last.split(|character: char| !character.is_ascii_alphanumeric());
    words.any(|word| HEALTH_NAMES.contains(&word)) && !route.path.contains('{')
}

/// Each once, in order.
fn unique(paths: impl Iterator<Item = String>) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        if !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// The path of the plainest request to a route, with the query that it cannot do without.
fn plainest(route: &Route) -> String {
    let request = route.good_request("GET");
    let query = if request.query.is_empty() { Vec::new() } else { [b"?", request.query.as_slice()].concat() };
    String::from_utf8_lossy(&[request.path, query].concat()).into_owned()
}

/// The words in the code behind a path.
fn words_of<'a>(routes: impl Iterator<Item = &'a Route>, path: &str) -> Vec<String> {
    let behind = routes.filter(|route| route.is_websocket && plainest(route) == path);
    unique(behind.flat_map(|route| route.words.iter().cloned()))
}

/// Where a server may speak WebSocket.
struct CandidatePaths {
    /// Paths that the user named.
    named: Vec<String>,
    /// Where it says so itself.
    told: Vec<String>,
    /// Paths that its code names, for an unknown purpose.
    guessed: Vec<String>,
}

impl CandidatePaths {
    fn of(named: &[Route], told: &[Route]) -> CandidatePaths {
        let (guessed, told): (Vec<&Route>, Vec<&Route>) = told
            .iter()
            .filter(|route| route.is_websocket)
            .partition(|route| told.iter().any(|other| !other.is_websocket && other.path == route.path));
        let named = named.iter().filter(|route| route.is_websocket);
        CandidatePaths {
            named: unique(named.map(plainest)),
            told: unique(told.into_iter().map(plainest)),
            guessed: unique(guessed.into_iter().map(plainest)),
        }
    }

    /// Those that are known, the surest first.
    fn known(&self) -> Vec<String> {
        unique(self.named.iter().chain(&self.told).chain(&self.guessed).cloned())
    }

    /// A sentence about the other paths that it tells of; empty for none.
    fn others_than(&self, path: &str) -> String {
        let others: Vec<&str> = self.told.iter().map(String::as_str).filter(|other| *other != path).collect();
        match others.is_empty() {
            true => String::new(),
            false => format!(" It tells of {} too: put the one here that matters.", others.join(", ")),
        }
    }
}

impl ServiceDiscovery {
    /// A `relapse.toml`, with what was found out beside each part, and the rest as comments to be filled in. `token` is the
    /// line that says where the token comes from; empty for none.
    pub fn to_toml(&self, target: &dyn Display, token: &str) -> String {
        let ServiceFile { paths, credential, messages, .. } = &self.binding;
        let [about_health, about_path, about_credential, about_messages] = &self.remarks;
        let mut file = format!("# How {target} is spoken to.\n# The server: {}.\n", self.server);
        let _ = write!(file, "\n[paths]\n# {about_path}\n");
        // Without the key it would be the built-in backend's.
        let _ = writeln!(file, "websocket = {}", toml_text(paths.websocket.as_deref().unwrap_or_default()));
        if paths.websocket.is_none() {
            let _ = writeln!(file, "# websocket = {}", toml_text(WEBSOCKET_PATHS[0]));
        }
        let _ = writeln!(file, "# {about_health}\nhealth = {}", toml_list(&paths.health));
        let _ = write!(file, "\n[credential]\n# {about_credential}\n");
        if !token.is_empty() && credential.is_needed() {
            let _ = writeln!(file, "{token}");
        }
        let place = serde_json::to_value(self.place.unwrap_or(credential.place)).ok();
        let place = place.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        let comment = if self.place.is_some() { "" } else { "# " };
        let _ = writeln!(file, "{comment}place = {}\n# invalid = {}", toml_text(place), toml_text(&credential.invalid));
        let _ = write!(file, "\n[messages]\n# {about_messages}\n");
        let welcome = messages.welcome.as_deref().unwrap_or_default();
        let request = messages.request.as_deref().unwrap_or_default();
        let comment = if self.opens { "" } else { "# " };
        let _ = writeln!(file, "{comment}welcome = {}\n{comment}request = {}", toml_text(welcome), toml_text(request));
        let _ = writeln!(file, "{comment}events = {}", toml_list(&messages.events));
        file
    }
}

/// A text as a file has it.
fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn toml_list(texts: &[String]) -> String {
    toml::Value::from(texts.iter().map(String::as_str).collect::<Vec<_>>()).to_string()
}

/// Whom a server opens a session to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opens {
    ToAnyone,
    Refused,
    Nowhere,
}

/// A server that is being asked.
struct AskedServer {
    server: External,
    authority: String,
    /// Its own name for itself.
    named: String,
    /// When the questions end at the latest.
    deadline: Deadline,
}

impl AskedServer {
    async fn perform(&mut self, steps: &[Step]) -> Result<Transcript, Error> {
        let plan = Plan { seed: 1, faults: Vec::new() };
        let conversation = run::converse(steps, plan, self.server.target.as_ref());
        let transcript = self.deadline.bound(self.server.clock(), conversation).await??;
        self.server.target.clear().await?;
        let named =
            Exchange::of(&transcript, 0).response.and_then(|head| header(&head.headers, "server")).map(readable);
        if self.named.is_empty() {
            self.named = named.unwrap_or_default();
        }
        Ok(transcript)
    }

    fn request(&self, path: &str, place: Option<CredentialPlace>) -> Request {
        let credential = if place.is_some() { Credential::Valid } else { Credential::None };
        let request = ServiceFile::default().request(&self.authority, path, credential);
        Request { places: place.into_iter().collect(), ..request }
    }

    /// Opens a session, and listens where there is one.
    async fn open(&mut self, path: &str, place: Option<CredentialPlace>) -> Result<Transcript, Error> {
        let open = step(Action::Open(self.request(path, place)), LIMIT);
        let transcript = self.perform(std::slice::from_ref(&open)).await?;
        if transcript.sessions() == 0 {
            return Ok(transcript);
        }
        self.perform(&[open, step(Action::Pause, QUIET)]).await
    }

    async fn health(&mut self, paths: &[String]) -> Result<(Vec<String>, String), Error> {
        let mut found = Vec::new();
        let mut elsewhere = None;
        for path in std::iter::once(NOWHERE).chain(paths.iter().map(String::as_str)) {
            let transcript = self.perform(&[step(Action::Request(self.request(path, None)), LIMIT)]).await?;
            let reading = Exchange::of(&transcript, 0);
            if reading.outcome().ending == Ending::Refused {
                let source = io::Error::from(io::ErrorKind::ConnectionRefused);
                return Err(Error::Io { doing: "connect to", path: PathBuf::from(&self.authority), source });
            }
            let answer = answer(&transcript, path);
            let status = reading.response.map(|head| head.status);
            match &elsewhere {
                // A server that does not answer the first question does not answer the others.
                None if matches!(reading.outcome().ending, Ending::Hang { .. }) => {
                    return Ok((found, format!("It does not answer plain requests within {} s.", LIMIT.as_secs())));
                }
                None => elsewhere = Some(answer),
                // Some servers have a page for every path.
                Some(elsewhere) if *elsewhere == answer => {}
                Some(_) if matches!(status, Some(200..=299 | 503)) => found.push(path.to_owned()),
                Some(_) => {}
            }
        }
        let said = match found.is_empty() {
            false => "These answer with 2xx or 503, and other paths do not.".to_owned(),
            true => format!("None of {} answers with 2xx or 503.", paths.join(", ")),
        };
        Ok((found, said))
    }

    /// Where it speaks WebSocket: the first path that opens, or the first that is refused in another way than a path
    /// that does not exist.
    async fn websocket(&mut self, paths: &CandidatePaths, token: InitToken) -> Result<(String, Opens, String), Error> {
        let nowhere = self.open(NOWHERE, None).await?;
        let is_mute = matches!(Exchange::of(&nowhere, 0).outcome().ending, Ending::Hang { .. });
        let nowhere = answer(&nowhere, NOWHERE);
        let mut refused = None;
        let known = paths.known();
        let mut all = unique(known.iter().cloned().chain(WEBSOCKET_PATHS.map(str::to_owned)));
        if is_mute {
            // One more is tried, in case it knows that one.
            all.truncate(known.len().max(1));
        }
        for path in &all {
            let transcript = self.open(path, None).await?;
            if is_open(&transcript) {
                let said = format!("A session opens here.{}", paths.others_than(path));
                return Ok((path.clone(), Opens::ToAnyone, said));
            }
            let answer = answer(&transcript, path);
            if answer != nowhere && !answer.starts_with("http 404") {
                let opens =
                    if transcript.sessions() > 0 { "It opens here and ends with" } else { "It refuses here with" };
                refused.get_or_insert((path, format!("{opens} {}", answer.lines().next().unwrap_or_default())));
            }
        }
        if let Some((path, answer)) = refused {
            let said = format!("{answer}, as it does not elsewhere.{}", paths.others_than(path));
            return Ok((path.clone(), Opens::Refused, said));
        }
        // Where a refusal looks the same everywhere, the token tells where there is anything.
        for path in all.iter().filter(|_| token == InitToken::Given) {
            if self.place(path).await?.0.is_some() {
                let said = format!("A session opens here with the token.{}", paths.others_than(path));
                return Ok((path.clone(), Opens::Refused, said));
            }
        }
        if let Some(path) = paths.told.first().filter(|_| paths.named.is_empty()) {
            let said = format!("It tells of this path, and no session opens here.{}", paths.others_than(path));
            return Ok((path.clone(), Opens::Refused, said));
        }
        let given = paths.named.first().cloned();
        let opens = if given.is_some() { Opens::Refused } else { Opens::Nowhere };
        let said = format!("None of {} differs from a path that does not exist; --path names another.", all.join(", "));
        Ok((given.unwrap_or_else(|| WEBSOCKET_PATHS[0].to_owned()), opens, said))
    }

    /// Where it takes the token.
    async fn place(&mut self, path: &str) -> Result<(Option<CredentialPlace>, String), Error> {
        let mut last = String::new();
        for place in PLACES {
            let transcript = self.open(path, Some(place)).await?;
            if is_open(&transcript) {
                return Ok((Some(place), "A session opens with the token here.".to_owned()));
            }
            last = answer(&transcript, path).lines().next().unwrap_or_default().to_owned();
        }
        Ok((None, format!("No session opens with the token, wherever it is put: {last}.")))
    }

    /// The welcome, the messages that it takes, and the answers.
    async fn messages(&mut self, binding: &mut ServiceFile, path: &str, words: &[String]) -> Result<String, Error> {
        let place = binding.credential.is_needed().then_some(binding.credential.place);
        let greeting = texts(&self.open(path, place).await?);
        binding.messages.welcome = greeting.first().cloned().filter(|welcome| !welcome.is_empty());
        let mut requests = requests_in_common().to_vec();
        if self.server.clock() == Clock::Virtual {
            // Where waiting costs nothing, what its code calls things is said too.
            requests.extend(
                words.iter().take(WORDS_MAX).map(|word: &String| serde_json::json!({ "type": word }).to_string()),
            );
        }
        let mut untyped = None;
        for request in &requests {
            let steps = [
                step(Action::Open(self.request(path, place)), LIMIT),
                step(Action::Pause, QUIET),
                step(Action::SendText(request.clone()), LIMIT),
                step(Action::Pause, ANSWERS),
                step(Action::Close(CloseCode::NORMAL), LIMIT),
            ];
            let seen = texts(&self.perform(&steps).await?);
            let answers: Vec<String> = seen.into_iter().skip(greeting.len()).collect();
            if !answers.is_empty() && answers.iter().all(String::is_empty) {
                untyped.get_or_insert(request);
            }
            if !answers.is_empty() && answers.iter().all(|name: &String| !name.is_empty() && !name.contains("error")) {
                binding.messages.request = Some(request.clone());
                binding.messages.events = answers;
                return Ok("What greets, what was said, and the `type` of each answer.".to_owned());
            }
        }
        binding.messages.events = Vec::new();
        if let Some(request) = untyped {
            binding.messages.request = Some(request.clone());
            return Ok("What was said; the answers have no `type`, so they are not waited for.".to_owned());
        }
        binding.messages.request = None;
        let tried: Vec<&str> = requests.iter().map(String::as_str).take(requests_in_common().len()).collect();
        let more = if requests.len() > tried.len() { ", nor a `type` that its code has a word for," } else { "" };
        let tried = tried.join(" nor ");
        let advice = match self.server.clock() {
            Clock::Real if !words.is_empty() => " Without --server its code's own words are tried too.",
            _ => "",
        };
        Ok(format!(
            "Neither {tried}{more} was answered; put a request of yours here, and the `type` of each answer.{advice}"
        ))
    }
}

fn step(act: Action, limit: Duration) -> Step {
    Step::new(act, limit)
}

/// Whether a session opened and stayed open.
fn is_open(transcript: &Transcript) -> bool {
    let reading = Exchange::of(transcript, 0);
    let outcome = reading.outcome();
    transcript.sessions() > 0
        && outcome.closed_by == Actor::Probe
        && !matches!(outcome.ending, Ending::BadHandshake { .. })
}

/// An answer as one compares it: how it ended, and its body without the path.
fn answer(transcript: &Transcript, path: &str) -> String {
    let reading = Exchange::of(transcript, 0);
    let body = reading.events.iter().find_map(|event| match &event.what {
        EventKind::BodySeen { body, .. } => Some(String::from_utf8_lossy(body).replace(path, "*")),
        _ => None,
    });
    format!("{}\n{}", reading.outcome().ending, body.unwrap_or_default())
}

/// The `type` of every text message; empty for one that has none.
fn texts(transcript: &Transcript) -> Vec<String> {
    let seen = transcript.events.iter().filter_map(|event| match &event.what {
        EventKind::FrameSeen(frame) | EventKind::MessageSeen(frame) if frame.opcode == Opcode::Text => Some(frame),
        _ => None,
    });
    seen.map(|frame| message_type(&frame.payload).unwrap_or_default().into_owned()).collect()
}
