//! Finds out how a server that is not ours is spoken to, as far as asking tells, and writes it down as a binding.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::{
    binding::Binding,
    bound::Server,
    classify::Reading,
    close_code::CloseCode,
    credential::{Credential, CredentialPlace},
    discover,
    error::Error,
    frame::Opcode,
    head::{header, readable},
    message::message_type,
    outcome::Ending,
    plan::Plan,
    run,
    step::{Act, Client, Request, Step},
    target::Url,
    transcript::{Party, Transcript, What},
    upstream::Upstream,
};

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

/// Where nobody has anything.
const NOWHERE: &str = "/relapse-asks-for-what-is-nowhere";

/// Where a token may travel, the commonest first.
const PLACES: [CredentialPlace; 4] =
    [CredentialPlace::Header, CredentialPlace::Query, CredentialPlace::Subprotocol, CredentialPlace::SubprotocolAlone];

/// What a client may say first: the embedded backend's own request, and a question that many servers answer.
fn requests() -> [String; 2] {
    [Binding::default().messages.request, r#"{"type":"ping"}"#.to_owned()]
}

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a session is listened to before it is said to be quiet.
const QUIET: Duration = Duration::from_millis(700);
/// How long the answers to a request are listened to.
const ANSWERS: Duration = Duration::from_secs(2);
/// More than is ever asked.
const REQUESTS_MAX: usize = 100;

/// What was found out about a server.
#[derive(Debug)]
pub struct Acquaintance {
    /// How it is spoken to, as far as that was found out.
    pub binding: Binding,
    /// What it says it is, and what it is like.
    pub server: String,
    /// Whether a session opened.
    pub opens: bool,
    /// What was found out about its paths, its credential and its messages, a sentence each.
    pub remarks: [String; 4],
}

/// Asks a server. With a token it is tried in every place where tokens travel; `paths` are tried before those where
/// servers commonly speak WebSocket.
///
/// # Errors
/// When nobody is there, or the harness could not do its work; what the server answers is never an error.
pub async fn init(upstream: &Upstream, token: &str, paths: &[String], pause: Duration) -> Result<Acquaintance, Error> {
    let mut binding = Binding::default();
    if !token.is_empty() {
        binding.credential.literal = Some(token.to_owned());
    }
    let url = Url::new(upstream.clone(), &binding, token.to_owned(), REQUESTS_MAX, pause);
    let known = discover::servers()?;
    let mut asked = Asked { authority: upstream.authority(), url, named: String::new() };
    let (health, about_health) = asked.health().await?;
    binding.paths.health = health;
    let (path, opens, about_path) = asked.websocket(paths, !token.is_empty()).await?;
    binding.paths.websocket = path;
    let (place, about_credential) = match opens {
        Opens::ToAnyone => (None, "It opens without a credential.".to_owned()),
        Opens::Refused if token.is_empty() => (
            None,
            "It refuses without a credential, and none was given: --token-env or --token-command names one.".to_owned(),
        ),
        Opens::Refused => asked.place(&binding.paths.websocket).await?,
        Opens::Nowhere => (None, "No session opened, so nothing is known of it.".to_owned()),
    };
    binding.credential.place = place.unwrap_or(binding.credential.place);
    if opens == Opens::ToAnyone {
        binding.credential.literal = None;
    }
    let opens = opens == Opens::ToAnyone || place.is_some();
    let about_messages = if opens {
        asked.messages(&mut binding).await?
    } else {
        "No session opened, so these are the embedded backend's.".to_owned()
    };
    let named = std::mem::take(&mut asked.named);
    let server = Server::recognize(asked.url, &binding, &known).await;
    let server = if named.is_empty() { server.kind.to_string() } else { format!("{named}, {}", server.kind) };
    Ok(Acquaintance { binding, server, opens, remarks: [about_health, about_path, about_credential, about_messages] })
}

impl Acquaintance {
    /// A `relapse.toml`, with what was found out beside each part. `token` is the line that says where the token comes
    /// from; empty for none.
    pub fn to_toml(&self, upstream: &Upstream, token: &str) -> String {
        let Binding { paths, credential, messages, .. } = &self.binding;
        let text = |text: &str| toml::Value::from(text).to_string();
        let list =
            |texts: &[String]| toml::Value::from(texts.iter().map(String::as_str).collect::<Vec<_>>()).to_string();
        let [about_health, about_path, about_credential, about_messages] = &self.remarks;
        let place = serde_json::to_value(credential.place).ok();
        let place = place.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        let mut file = format!("# How {upstream} is spoken to.\n# The server: {}.\n", self.server);
        let _ = write!(file, "\n[paths]\n# {about_path}\nwebsocket = {}\n", text(&paths.websocket));
        let _ = writeln!(file, "# {about_health}\nhealth = {}", list(&paths.health));
        let _ = write!(file, "\n[credential]\n# {about_credential}\n");
        if !token.is_empty() && credential.is_needed() {
            let _ = writeln!(file, "{token}");
        }
        let _ = writeln!(file, "place = {}\ninvalid = {}", text(place), text(&credential.invalid));
        let _ = write!(file, "\n[messages]\n# {about_messages}\nwelcome = {}\n", text(&messages.welcome));
        let _ = writeln!(file, "request = {}\nevents = {}", text(&messages.request), list(&messages.events));
        file
    }
}

/// Whom a server opens a session to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opens {
    ToAnyone,
    Refused,
    Nowhere,
}

/// A server that is being asked.
struct Asked {
    url: Url,
    authority: String,
    /// What it calls itself.
    named: String,
}

impl Asked {
    async fn perform(&mut self, steps: &[Step]) -> Result<Transcript, Error> {
        let transcript = run::converse(steps, Plan { seed: 1, faults: Vec::new() }, &self.url).await?;
        let named = Reading::of(&transcript, 0).response.and_then(|head| header(&head.headers, "server")).map(readable);
        if self.named.is_empty() {
            self.named = named.unwrap_or_default();
        }
        Ok(transcript)
    }

    fn request(&self, path: &str, place: Option<CredentialPlace>) -> Request {
        Request {
            credential: if place.is_some() { Credential::Valid } else { Credential::None },
            places: place.into_iter().collect(),
            headers: vec![(b"Host"[..].into(), self.authority.clone().into())],
            client: Client::Library,
            ..Request::standard("GET", path)
        }
    }

    /// Opens a session, and listens where there is one.
    async fn open(&mut self, path: &str, place: Option<CredentialPlace>) -> Result<Transcript, Error> {
        let open = step(Act::Open(self.request(path, place)), LIMIT);
        let transcript = self.perform(std::slice::from_ref(&open)).await?;
        if transcript.sessions() == 0 {
            return Ok(transcript);
        }
        self.perform(&[open, step(Act::Pause, QUIET)]).await
    }

    async fn health(&mut self) -> Result<(Vec<String>, String), Error> {
        let mut found = Vec::new();
        let mut elsewhere = None;
        for path in [NOWHERE].into_iter().chain(HEALTH_PATHS) {
            let transcript = self.perform(&[step(Act::Request(self.request(path, None)), LIMIT)]).await?;
            let reading = Reading::of(&transcript, 0);
            if reading.outcome().ending == Ending::Refused {
                let source = io::Error::from(io::ErrorKind::ConnectionRefused);
                return Err(Error::Io { doing: "connect to", path: PathBuf::from(&self.authority), source });
            }
            let answer = answer(&transcript, path);
            let status = reading.response.map(|head| head.status);
            match &elsewhere {
                // Who says nothing to the first question says nothing to the others.
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
            true => format!("None of {} answers with 2xx or 503.", HEALTH_PATHS.join(", ")),
        };
        Ok((found, said))
    }

    /// Where it speaks WebSocket: the first path that opens, or the first that is refused in another way than a path
    /// which nobody has.
    async fn websocket(&mut self, paths: &[String], has_token: bool) -> Result<(String, Opens, String), Error> {
        let nowhere = self.open(NOWHERE, None).await?;
        let is_mute = matches!(Reading::of(&nowhere, 0).outcome().ending, Ending::Hang { .. });
        let nowhere = answer(&nowhere, NOWHERE);
        let mut refused = None;
        let common = WEBSOCKET_PATHS.into_iter().filter(|path| !paths.iter().any(|given| given == path));
        let mut all: Vec<&str> = paths.iter().map(String::as_str).chain(common).collect();
        if is_mute {
            // One more is tried, in case it knows that one.
            all.truncate(paths.len().max(1));
        }
        for &path in &all {
            let transcript = self.open(path, None).await?;
            if is_open(&transcript) {
                return Ok((path.to_owned(), Opens::ToAnyone, "A session opens here.".to_owned()));
            }
            let answer = answer(&transcript, path);
            if answer != nowhere && !answer.starts_with("http 404") {
                let opens =
                    if transcript.sessions() > 0 { "It opens here and ends with" } else { "It refuses here with" };
                refused.get_or_insert((path, format!("{opens} {}", answer.lines().next().unwrap_or_default())));
            }
        }
        if let Some((path, answer)) = refused {
            let said = format!("{answer}, as it does not elsewhere.");
            return Ok((path.to_owned(), Opens::Refused, said));
        }
        // Where a refusal looks the same everywhere, the token tells where there is anything.
        for &path in all.iter().filter(|_| has_token) {
            if self.place(path).await?.0.is_some() {
                return Ok((path.to_owned(), Opens::Refused, "A session opens here with the token.".to_owned()));
            }
        }
        let given = paths.first().cloned();
        let opens = if given.is_some() { Opens::Refused } else { Opens::Nowhere };
        let said = format!("None of {} differs from a path that nobody has; --path names another.", all.join(", "));
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

    /// What greets, what may be said, and what is answered.
    async fn messages(&mut self, binding: &mut Binding) -> Result<String, Error> {
        let place = binding.credential.is_needed().then_some(binding.credential.place);
        let path = binding.paths.websocket.clone();
        let greeting = texts(&self.open(&path, place).await?);
        binding.messages.welcome = greeting.first().cloned().unwrap_or_default();
        for request in requests() {
            let steps = [
                step(Act::Open(self.request(&path, place)), LIMIT),
                step(Act::Pause, QUIET),
                step(Act::SendText(request.clone()), LIMIT),
                step(Act::Pause, ANSWERS),
                step(Act::Close(CloseCode::NORMAL), LIMIT),
            ];
            let seen = texts(&self.perform(&steps).await?);
            let answers: Vec<String> = seen.into_iter().skip(greeting.len()).collect();
            if !answers.is_empty() && answers.iter().all(String::is_empty) {
                binding.messages.request = request;
                binding.messages.events = Vec::new();
                return Ok("What was said; the answers have no `type`, so they are not waited for.".to_owned());
            }
            let is_answer = |name: &String| !name.is_empty() && !name.contains("error");
            if !answers.is_empty() && answers.iter().all(is_answer) {
                binding.messages.request = request;
                binding.messages.events = answers;
                return Ok("What greets, what was said, and the `type` of each answer.".to_owned());
            }
        }
        binding.messages.request = String::new();
        binding.messages.events = Vec::new();
        let tried = requests().join(" nor ");
        Ok(format!("Neither {tried} was answered; put a request of yours here, and the `type` of each answer."))
    }
}

fn step(act: Act, limit: Duration) -> Step {
    Step { act, limit }
}

/// Whether a session opened and stayed open.
fn is_open(transcript: &Transcript) -> bool {
    let reading = Reading::of(transcript, 0);
    let outcome = reading.outcome();
    transcript.sessions() > 0
        && outcome.closed_by == Party::Probe
        && !matches!(outcome.ending, Ending::BadHandshake { .. })
}

/// An answer as one compares it: how it ended, and its body without the path.
fn answer(transcript: &Transcript, path: &str) -> String {
    let reading = Reading::of(transcript, 0);
    let body = reading.events.iter().find_map(|event| match &event.what {
        What::BodySeen { body, .. } => Some(String::from_utf8_lossy(body).replace(path, "*")),
        _ => None,
    });
    format!("{}\n{}", reading.outcome().ending, body.unwrap_or_default())
}

/// The `type` of every text message; empty for one that has none.
fn texts(transcript: &Transcript) -> Vec<String> {
    let seen = transcript.events.iter().filter_map(|event| match &event.what {
        What::FrameSeen(frame) | What::MessageSeen(frame) if frame.opcode == Opcode::Text => Some(frame),
        _ => None,
    });
    seen.map(|frame| message_type(&frame.payload).unwrap_or_default().into_owned()).collect()
}
