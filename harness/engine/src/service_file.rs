//! The service file, `relapse.toml`: how to speak to an external server.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Deserializer};

use crate::{case::WORDS, route::Route};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace, Presented},
        step::{Action, Awaited, ClientStrictness, DEFAULT_USER, Request, Step},
    },
    error::Error,
    record::{
        redact::{KnownSecret, Redactor},
        service::{Knowledge, MessageNames, Names, ProtectedRequest, Service, TargetKind},
    },
    wire::{close_code::CloseCode, message},
};

/// A server's own paths, credentials and messages.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceFile {
    /// Whether there is a service file.
    #[serde(skip)]
    pub knowledge: Knowledge,
    /// Where it is.
    pub paths: ServicePaths,
    /// How a client says who it is.
    pub credential: CredentialBinding,
    /// The messages of a session.
    pub messages: Messages,
    /// How much one client may have.
    pub limits: ServiceLimits,
    /// Users beside the one of `[credential]`, each with a token of their own.
    pub users: BTreeMap<String, User>,
    /// The valid tokens of these users, once they are read.
    #[serde(skip)]
    pub user_tokens: BTreeMap<String, String>,
    /// Parts of texts that are never shown, beside the known secrets and the usual shapes of unknown ones.
    pub redact: RedactionPatterns,
    /// Replaces the secrets of the service, once they are read, in every text that is shown.
    #[serde(skip)]
    pub redactor: Redactor,
}

/// Regular expressions of texts that are never shown. Of a match the group `value` is replaced, or all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedactionPatterns {
    /// The expressions, in the syntax of the `regex` crate.
    pub patterns: Vec<RedactionPattern>,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct RedactionPattern(pub Regex);

impl TryFrom<String> for RedactionPattern {
    type Error = String;

    fn try_from(text: String) -> Result<RedactionPattern, String> {
        Regex::new(&text).map(RedactionPattern).map_err(|error| error.to_string())
    }
}

impl PartialEq for RedactionPattern {
    fn eq(&self, other: &RedactionPattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for RedactionPattern {}

impl Default for ServiceFile {
    fn default() -> ServiceFile {
        ServiceFile {
            knowledge: Knowledge::File,
            paths: ServicePaths::default(),
            credential: CredentialBinding::default(),
            messages: Messages::default(),
            limits: ServiceLimits::default(),
            users: BTreeMap::new(),
            user_tokens: BTreeMap::new(),
            redact: RedactionPatterns::default(),
            redactor: Redactor::NONE,
        }
    }
}

/// A user with a token of their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawUser")]
pub struct User {
    /// Where the token comes from.
    pub source: TokenSource,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUser {
    literal: Option<String>,
    env: Option<String>,
    command: Option<String>,
}

impl TryFrom<RawUser> for User {
    type Error = String;

    fn try_from(raw: RawUser) -> Result<User, String> {
        let source = TokenSource::of(raw.literal, raw.env, raw.command)?;
        let source = source.ok_or("a user has a token: name one of `literal`, `env` and `command`")?;
        Ok(User { source })
    }
}

/// Where a valid token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// The service file holds it.
    Literal(String),
    /// An environment variable holds it.
    Env(String),
    /// A shell command prints it.
    Command(String),
    /// The target issues it itself.
    Issued,
}

impl TokenSource {
    fn of(
        literal: Option<String>,
        env: Option<String>,
        command: Option<String>,
    ) -> Result<Option<TokenSource>, String> {
        let literal = literal.map(TokenSource::Literal);
        let mut given = literal.into_iter().chain(env.map(TokenSource::Env)).chain(command.map(TokenSource::Command));
        match (given.next(), given.next()) {
            (_, Some(_)) => {
                Err("the credential is given more than once: name one of `literal`, `env` and `command`".to_owned())
            }
            (source, None) => Ok(source),
        }
    }
}

/// Reads a text; the empty one stands for none.
fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Some(String::deserialize(deserializer)?).filter(|text| !text.is_empty()))
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServicePaths {
    /// Where it speaks WebSocket; `None` where it does not.
    #[serde(deserialize_with = "text_or_none")]
    pub websocket: Option<String>,
    /// Where it says whether it can do its work.
    pub health: Vec<String>,
    /// The requests that only a user may make: `GET /path`.
    pub protected: Vec<Protected>,
}

/// A plain request that only a user may make.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Protected {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
}

impl TryFrom<String> for Protected {
    type Error = String;

    fn try_from(text: String) -> Result<Protected, String> {
        match text.split_once(' ') {
            Some((method, path)) if method.bytes().all(|byte| byte.is_ascii_uppercase()) && path.starts_with('/') => {
                Ok(Protected { method: method.to_owned(), path: path.to_owned() })
            }
            _ => Err(format!("`{text}` is no request: write it as in `GET /path`")),
        }
    }
}

/// How much one client may have; 0 for what is not known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceLimits {
    /// How many connections a user may have at a time.
    pub connections: usize,
}

impl Default for ServicePaths {
    fn default() -> ServicePaths {
        ServicePaths { websocket: Some("/ws".to_owned()), health: vec!["/health".to_owned()], protected: Vec::new() }
    }
}

/// How a client says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawCredential")]
pub struct CredentialBinding {
    /// Where the valid token comes from; `None` where the service needs none.
    pub source: Option<TokenSource>,
    /// A token that must be refused.
    pub invalid: String,
    /// Where it travels.
    pub place: CredentialPlace,
    /// Where else it may travel.
    pub also: Vec<CredentialPlace>,
    /// Routes where it travels elsewhere.
    pub routes: Vec<RouteCredential>,
}

/// Where the credential travels on one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCredential {
    /// The route.
    pub route: Route,
    /// The place.
    pub place: CredentialPlace,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCredential {
    literal: Option<String>,
    env: Option<String>,
    command: Option<String>,
    invalid: String,
    place: CredentialPlace,
    also: Vec<CredentialPlace>,
    route: Vec<RawRouteCredential>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRouteCredential {
    route: String,
    place: CredentialPlace,
}

impl Default for RawCredential {
    fn default() -> RawCredential {
        let CredentialBinding { invalid, place, also, .. } = CredentialBinding::default();
        RawCredential { literal: None, env: None, command: None, invalid, place, also, route: Vec::new() }
    }
}

impl TryFrom<RawCredential> for CredentialBinding {
    type Error = String;

    fn try_from(raw: RawCredential) -> Result<CredentialBinding, String> {
        let source = TokenSource::of(raw.literal, raw.env, raw.command)?;
        if raw.also.contains(&CredentialPlace::Ticket) {
            return Err("a ticket is no other place for the token: the service gives it out".to_owned());
        }
        let routes = raw.route.into_iter().map(RouteCredential::try_from).collect::<Result<_, _>>()?;
        Ok(CredentialBinding { source, invalid: raw.invalid, place: raw.place, also: raw.also, routes })
    }
}

impl TryFrom<RawRouteCredential> for RouteCredential {
    type Error = String;

    fn try_from(raw: RawRouteCredential) -> Result<RouteCredential, String> {
        let route = Route::parse(&raw.route).map_err(|why| format!("`{}`: {why}", raw.route))?;
        Ok(RouteCredential { route, place: raw.place })
    }
}

impl Default for CredentialBinding {
    fn default() -> CredentialBinding {
        CredentialBinding {
            source: None,
            invalid: "invalid_token".to_owned(),
            place: CredentialPlace::Header,
            also: Vec::new(),
            routes: Vec::new(),
        }
    }
}

impl CredentialBinding {
    /// Whether there is a valid credential at all.
    pub fn is_needed(&self) -> bool {
        self.source.is_some()
    }

    /// Where it travels on a route that has a place of its own.
    pub fn place_on(&self, kind: RequestKind<'_>, path: &[u8]) -> Option<CredentialPlace> {
        let own = self.routes.iter().find(|own| kind.is_for(&own.route) && own.route.has_path(path));
        own.map(|own| own.place)
    }

    /// Everywhere it may travel, where it usually does first.
    pub fn places(&self) -> impl Iterator<Item = CredentialPlace> + '_ {
        std::iter::once(self.place).chain(self.also.iter().copied())
    }
}

/// The thing that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind<'a> {
    /// A WebSocket.
    Upgrade,
    /// A plain answer, by this method.
    Plain(&'a str),
}

impl RequestKind<'_> {
    /// Whether a route takes such a request.
    fn is_for(self, route: &Route) -> bool {
        match self {
            RequestKind::Upgrade => route.is_websocket,
            RequestKind::Plain(method) => route.takes(method) || !route.is_websocket && route.methods.is_empty(),
        }
    }
}

/// The tokens of an external server: the harness cannot make others.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// One that it takes; empty where it needs none.
    valid: String,
    /// Those of its other users.
    by_user: BTreeMap<String, String>,
    /// One that it must refuse.
    invalid: String,
}

impl Tokens {
    /// The valid token obtained for a service file, and the service file's own invalid one.
    pub fn of(binding: &ServiceFile, valid: String) -> Tokens {
        let by_user = binding.user_tokens.clone();
        Tokens { valid, by_user, invalid: binding.credential.invalid.clone() }
    }

    /// The nearest there is to a credential of this kind: some can be made of a valid one.
    pub fn present(&self, kind: Credential, user: &str) -> Presented {
        let valid = self.by_user.get(user).unwrap_or(&self.valid);
        let text = match kind {
            Credential::Valid => valid.clone(),
            kind => kind.forged(valid).unwrap_or_else(|| self.invalid.clone()),
        };
        Presented { kind, text, subject: user.to_owned() }
    }
}

/// The messages of a session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Messages {
    /// The `type` of the message that greets, if one does.
    #[serde(deserialize_with = "text_or_none")]
    pub welcome: Option<String>,
    /// The client's whole message, if it sends one.
    #[serde(deserialize_with = "text_or_none")]
    pub request: Option<String>,
    /// The `type` of each message that answers, in order.
    pub events: Vec<String>,
    /// The subprotocols that it speaks, beside those that carry a credential.
    pub subprotocols: Vec<String>,
}

impl Default for Messages {
    fn default() -> Messages {
        Messages {
            welcome: WORDS.welcomes.first().map(str::to_owned),
            request: Some(r#"{"type":"user_message","content":"hello"}"#.to_owned()),
            events: WORDS.events.iter().map(str::to_owned).collect(),
            subprotocols: Vec::new(),
        }
    }
}

impl Messages {
    /// Nothing is said in a session, as far as is known.
    pub fn none() -> Messages {
        Messages { welcome: None, request: None, events: Vec::new(), subprotocols: Vec::new() }
    }
}

/// How long a command that prints a token may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(10);

impl ServiceFile {
    /// Reads a service file.
    ///
    /// # Errors
    /// Says where in the file and what is wrong.
    pub fn parse(path: &str, text: &str) -> Result<ServiceFile, Error> {
        let mut file: ServiceFile = toml::from_str(text).map_err(|error| Error::toml(path, text, &error))?;
        let messages = text.parse().ok().and_then(|mut table: toml::Table| table.remove("messages"));
        if messages.as_ref().and_then(toml::Value::as_table).is_some_and(toml::Table::is_empty) {
            file.messages = Messages::none();
        }
        Ok(file)
    }

    /// As a service is spoken to that has no service file: its own routes say where it is.
    pub fn unknown() -> ServiceFile {
        ServiceFile {
            knowledge: Knowledge::None,
            paths: ServicePaths { websocket: None, health: Vec::new(), protected: Vec::new() },
            messages: Messages::none(),
            ..ServiceFile::default()
        }
    }

    /// Makes a redactor of the tokens that were read, of other secrets, and of the file's own patterns.
    pub fn know_secrets(&mut self, token: &str, others: Vec<KnownSecret>) {
        let mut secrets = vec![match &self.credential.source {
            Some(TokenSource::Env(name)) => KnownSecret::named(name, token),
            Some(TokenSource::Literal(_) | TokenSource::Command(_) | TokenSource::Issued) | None => {
                KnownSecret::named("credential", token)
            }
        }];
        secrets.extend(self.user_tokens.iter().map(|(name, token)| KnownSecret::named(&format!("of {name}"), token)));
        secrets.extend(others);
        let patterns = self.redact.patterns.iter().map(|pattern| pattern.0.clone());
        self.redactor = Redactor::new(secrets, patterns.collect());
    }

    /// Whether there is no service file.
    pub fn is_unknown(&self) -> bool {
        self.knowledge == Knowledge::None
    }

    /// Whether the service file has a user by this name.
    pub fn has_user(&self, name: &str) -> bool {
        name == DEFAULT_USER || self.users.contains_key(name)
    }

    /// As the built-in backend is spoken to in as few words as can be. It issues its credentials itself.
    pub fn embedded() -> ServiceFile {
        ServiceFile {
            credential: CredentialBinding { source: Some(TokenSource::Issued), ..CredentialBinding::default() },
            messages: Messages {
                request: Some(r#"{"type":"ping"}"#.to_owned()),
                events: vec!["pong".to_owned()],
                ..Messages::default()
            },
            ..ServiceFile::default()
        }
    }

    /// A request with this credential, where it belongs, to the server with this host and port. The path may have a query
    /// behind it.
    pub fn request(&self, authority: &str, path: &str, credential: Credential) -> Request {
        let request = Request {
            credential,
            places: vec![self.credential.place],
            headers: vec![(b"Host"[..].into(), authority.to_owned().into_bytes().into())],
            client: ClientStrictness::Library,
            ..Request::standard("GET", "/")
        };
        at(request, path)
    }

    /// A request to where it speaks WebSocket; as it is where the service file names no such path.
    pub fn at_websocket(&self, request: Request) -> Request {
        match &self.paths.websocket {
            Some(path) => at(request, path),
            None => request,
        }
    }

    /// The upgrade of a healthy client; `None` where the service file names no path for it.
    pub fn upgrade(&self, authority: &str) -> Option<Request> {
        let path = self.paths.websocket.as_ref()?;
        let credential = if self.credential.is_needed() { Credential::Valid } else { Credential::None };
        let request = self.request(authority, path, credential);
        let place = self.credential.place_on(RequestKind::Upgrade, &request.path);
        Some(Request { places: vec![place.unwrap_or(self.credential.place)], ..request })
    }

    /// A whole session of a healthy client, each step of which has this limit; `None` where the service file names no path
    /// for it.
    pub fn session(&self, authority: &str, limit: Duration) -> Option<Vec<Step>> {
        let Messages { welcome, request, events, .. } = &self.messages;
        let mut acts = vec![Action::Open(self.upgrade(authority)?)];
        acts.extend(welcome.iter().cloned().map(Awaited::Message).map(Action::Wait));
        if let Some(request) = request {
            acts.push(Action::SendText(request.clone()));
            acts.extend(events.last().cloned().map(Awaited::Message).map(Action::Wait));
        }
        acts.push(Action::Close(CloseCode::NORMAL));
        Some(acts.into_iter().map(|act| Step::new(act, limit)).collect())
    }

    /// The facts about the server by which its answers are judged.
    pub fn service(&self) -> Service {
        if self.is_unknown() {
            return Service {
                is_public: !self.credential.is_needed(),
                redactor: self.redactor.clone(),
                ..Service::unknown(TargetKind::Url)
            };
        }
        let health: Names = self.paths.health.iter().map(|path| split(path).0).collect();
        let carrying = self.credential.places().flat_map(CredentialPlace::subprotocols).copied();
        let spoken = self.messages.subprotocols.iter().map(String::as_str);
        Service {
            websocket_paths: self.paths.websocket.iter().map(|path| split(path).0).collect(),
            http_paths: health.clone(),
            health_paths: health,
            protected: self.paths.protected.iter().map(Protected::without_query).collect(),
            subprotocols: carrying.map(Box::from).chain(spoken.map(Box::<str>::from)).collect(),
            connections_max: self.limits.connections,
            words: self.messages.names(),
            kind: TargetKind::Url,
            knowledge: self.knowledge,
            redactor: self.redactor.clone(),
            is_public: !self.credential.is_needed(),
            ..Service::default()
        }
    }
}

impl Protected {
    /// The request as it is judged: what the query says makes no difference.
    fn without_query(&self) -> ProtectedRequest {
        ProtectedRequest { method: self.method.clone().into(), path: split(&self.path).0.to_owned().into() }
    }
}

impl Messages {
    /// The names of the messages.
    fn names(&self) -> MessageNames {
        let request = self.request.as_ref().and_then(|request| message::message_type(request.as_bytes()));
        MessageNames {
            welcomes: self.welcome.iter().map(String::as_str).collect(),
            requests: request.iter().map(|name| name.as_ref()).collect(),
            events: self.events.iter().map(String::as_str).collect(),
            name_user: false,
        }
    }
}

/// A path, and the query behind it; empty for none.
fn split(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// A request to a path. What the path has for a query comes before the request's own.
fn at(request: Request, target: &str) -> Request {
    let (path, query) = split(target);
    let parts = [query.as_bytes(), &request.query];
    let query = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'&');
    Request { path: path.as_bytes().to_vec(), query, ..request }
}

#[cfg(test)]
mod tests {
    use crate::service_file::{Messages, ServiceFile};
    use relapse_core::{client::credential::CredentialPlace, error::Error};

    #[test]
    fn what_is_left_out_is_the_embedded_backends() {
        assert_eq!(ServiceFile::parse("relapse.toml", "").unwrap(), ServiceFile::default());
        let text = "[paths]\nwebsocket = \"/stream\"\n[credential]\nenv = \"TOKEN\"\nplace = \"query\"\n";
        let binding = ServiceFile::parse("relapse.toml", text).unwrap();
        assert_eq!(binding.paths.websocket.as_deref(), Some("/stream"));
        assert_eq!(binding.credential.place, CredentialPlace::Query);
        assert!(binding.credential.is_needed() && !ServiceFile::default().credential.is_needed());
    }

    #[test]
    fn messages_without_a_key_are_unknown() {
        let binding = ServiceFile::parse("relapse.toml", "[messages]\n# welcome = \"hello\"\n").unwrap();
        assert_eq!(binding.messages, Messages::none());
        let binding = ServiceFile::parse("relapse.toml", "[messages]\nwelcome = \"hello\"\n").unwrap();
        assert_eq!(binding.messages.request, Messages::default().request);
    }

    #[test]
    fn a_path_may_have_a_query() {
        let binding = ServiceFile::parse("relapse.toml", "[paths]\nwebsocket = \"/rooms/1?q=a\"\n").unwrap();
        let mut asked = binding.upgrade("host").unwrap();
        assert_eq!((asked.path.as_slice(), asked.query.as_slice()), (&b"/rooms/1"[..], &b"q=a"[..]));
        asked.query = b"size=3".to_vec();
        assert_eq!(binding.at_websocket(asked).query, b"q=a&size=3");
        assert!(binding.service().websocket_paths.iter().eq(["/rooms/1"]));
    }

    #[test]
    fn mistakes_are_located() {
        for (text, message) in [
            ("[paths]\nwebsockets = \"/ws\"\n", "unknown field `websockets`"),
            ("[credential]\nenv = \"A\"\nliteral = \"b\"\n", "more than once"),
            ("[credential]\nplace = \"body\"\n", "unknown variant `body`"),
            ("[credential]\nalso = [\"ticket\"]\n", "no other place"),
            ("[paths]\nprotected = [\"/api\"]\n", "write it as in `GET /path`"),
            ("[users.bob]\n", "name one of `literal`, `env` and `command`"),
            ("[[credential.route]]\nroute = \"rooms\"\nplace = \"query\"\n", "rooms"),
        ] {
            match ServiceFile::parse("relapse.toml", text) {
                Err(Error::File(located)) => assert!(located.message.contains(message), "{}", located.message),
                other => panic!("{other:?}"),
            }
        }
    }
}
