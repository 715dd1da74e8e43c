//! How a server that is not ours is spoken to: `relapse.toml`.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    close_code::CloseCode,
    credential::{Credential, CredentialPlace, Presented},
    error::Error,
    step::{Act, Awaited, Client, Request, Step},
    transcript::{Service, Words},
};

/// What a server calls things.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Binding {
    /// Where it is.
    pub paths: Paths,
    /// How a client says who it is.
    pub credential: CredentialBinding,
    /// What is said in a session.
    pub messages: Messages,
    /// How much one client may have.
    pub limits: Limits,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// Where it speaks WebSocket.
    pub websocket: String,
    /// Where it says whether it can do its work.
    pub health: Vec<String>,
    /// What only a user may ask for: `GET /path`.
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
pub struct Limits {
    /// How many connections a user may have at a time.
    pub connections: usize,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { websocket: "/ws".to_owned(), health: vec!["/health".to_owned()], protected: Vec::new() }
    }
}

/// How a client says who it is. Of `literal`, `env` and `command` there is one, or none where nobody needs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CredentialBinding {
    /// The valid token itself.
    pub literal: Option<String>,
    /// The environment variable that holds it.
    pub env: Option<String>,
    /// The shell command that prints it.
    pub command: Option<String>,
    /// A token that must be refused.
    pub invalid: String,
    /// Where it travels.
    pub place: CredentialPlace,
    /// Where else it may travel.
    pub also: Vec<CredentialPlace>,
}

impl Default for CredentialBinding {
    fn default() -> CredentialBinding {
        let (literal, env, command) = (None, None, None);
        let (invalid, place) = ("invalid_token".to_owned(), CredentialPlace::Header);
        CredentialBinding { literal, env, command, invalid, place, also: Vec::new() }
    }
}

impl CredentialBinding {
    /// Whether there is a valid credential at all.
    pub fn is_needed(&self) -> bool {
        self.literal.is_some() || self.env.is_some() || self.command.is_some()
    }

    /// Everywhere it may travel, where it usually does first.
    pub fn places(&self) -> impl Iterator<Item = CredentialPlace> + '_ {
        std::iter::once(self.place).chain(self.also.iter().copied())
    }
}

/// The tokens of a server that is not ours: nobody here can make others.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// One that it takes; empty where it needs none.
    valid: String,
    /// One that it must refuse.
    invalid: String,
}

impl Tokens {
    /// The token that somebody got for a binding, and the binding's own that is none.
    pub fn of(binding: &Binding, valid: String) -> Tokens {
        Tokens { valid, invalid: binding.credential.invalid.clone() }
    }

    /// The nearest there is to a credential of this kind: some can be made of a valid one.
    pub fn present(&self, kind: Credential, user: &str) -> Presented {
        let text = match kind {
            Credential::Valid => self.valid.clone(),
            kind => kind.forged(&self.valid).unwrap_or_else(|| self.invalid.clone()),
        };
        Presented { kind, text, subject: user.to_owned() }
    }
}

/// What is said in a session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Messages {
    /// The `type` of the message that greets; empty for none.
    pub welcome: String,
    /// What the client says, whole; empty for nothing.
    pub request: String,
    /// The `type` of each message that answers, in order.
    pub events: Vec<String>,
    /// The subprotocols that it speaks, beside those that carry a credential.
    pub subprotocols: Vec<String>,
}

impl Default for Messages {
    fn default() -> Messages {
        let words = Words::default();
        Messages {
            welcome: words.welcomes[0].to_owned(),
            request: r#"{"type":"user_message","content":"hello"}"#.to_owned(),
            events: words.events.iter().map(|&event| event.to_owned()).collect(),
            subprotocols: Vec::new(),
        }
    }
}

/// How long a command that prints a token may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(10);

impl Binding {
    /// Reads a binding.
    ///
    /// # Errors
    /// Says where in the file and what is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Binding, Error> {
        let binding: Binding = toml::from_str(text).map_err(|error| Error::toml(path, text, &error))?;
        let refuse = |message: &str| {
            let span = text.find("credential").map_or(0..0, |at| at..at + "credential".len());
            Err(Error::at(path, text, span, message.to_owned(), None))
        };
        let CredentialBinding { literal, env, command, .. } = &binding.credential;
        if [literal.is_some(), env.is_some(), command.is_some()].into_iter().filter(|given| *given).count() > 1 {
            return refuse("the credential is given more than once: name one of `literal`, `env` and `command`");
        }
        if binding.credential.also.contains(&CredentialPlace::Ticket) {
            return refuse("a ticket is no other place for the token: the service gives it out");
        }
        Ok(binding)
    }

    /// Of an application that nobody has described: its own routes say where it is, and nobody knows what it says.
    pub fn unknown() -> Binding {
        Binding {
            paths: Paths { websocket: String::new(), health: Vec::new(), protected: Vec::new() },
            messages: Messages {
                welcome: String::new(),
                request: String::new(),
                events: Vec::new(),
                subprotocols: Vec::new(),
            },
            ..Binding::default()
        }
    }

    /// Whether nobody has described it.
    pub fn is_unknown(&self) -> bool {
        self.paths.websocket.is_empty()
    }

    /// As the embedded backend is spoken to in as few words as can be. It issues its credentials itself.
    pub fn embedded() -> Binding {
        Binding {
            credential: CredentialBinding { literal: Some(String::new()), ..CredentialBinding::default() },
            messages: Messages {
                request: r#"{"type":"ping"}"#.to_owned(),
                events: vec!["pong".to_owned()],
                ..Messages::default()
            },
            ..Binding::default()
        }
    }

    /// A request with this credential, where it belongs, to the server with this host and port. The path may have a query
    /// behind it.
    pub fn request(&self, authority: &str, path: &str, credential: Credential) -> Request {
        let request = Request {
            credential,
            places: vec![self.credential.place],
            headers: vec![(b"Host"[..].into(), authority.to_owned().into_bytes().into())],
            client: Client::Library,
            ..Request::standard("GET", "/")
        };
        at(request, path)
    }

    /// A request to where it speaks WebSocket.
    pub fn at_websocket(&self, request: Request) -> Request {
        at(request, &self.paths.websocket)
    }

    /// The upgrade of a valid client.
    pub fn upgrade(&self, authority: &str) -> Request {
        let credential = if self.credential.is_needed() { Credential::Valid } else { Credential::None };
        self.request(authority, &self.paths.websocket, credential)
    }

    /// A whole session of a valid client, each step of which has this limit.
    pub fn session(&self, authority: &str, limit: Duration) -> Vec<Step> {
        let step = |act| Step::new(act, limit);
        let wait = |name: &String| step(Act::Wait(Awaited::Message(name.clone())));
        let mut steps = vec![step(Act::Open(self.upgrade(authority)))];
        if !self.messages.welcome.is_empty() {
            steps.push(wait(&self.messages.welcome));
        }
        if !self.messages.request.is_empty() {
            steps.push(step(Act::SendText(self.messages.request.clone())));
            steps.extend(self.messages.events.last().map(wait));
        }
        steps.push(step(Act::Close(CloseCode::NORMAL)));
        steps
    }

    /// What is known of the server, so that its answers can be judged. A binding is read once and lives as long as the
    /// process.
    pub fn service(&self) -> Service {
        let forever = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        let all = |texts: Vec<&str>| -> &'static [&'static str] {
            Box::leak(texts.into_iter().map(forever).collect::<Vec<_>>().into_boxed_slice())
        };
        if self.is_unknown() {
            return Service { is_public: !self.credential.is_needed(), ..Service::unknown(true, false) };
        }
        let health = all(self.paths.health.iter().map(|path| split(path).0).collect());
        let protected =
            self.paths.protected.iter().map(|request| (forever(&request.method), forever(split(&request.path).0)));
        let protected: Vec<(&'static str, &'static str)> = protected.collect();
        let spoken = self.messages.subprotocols.iter().map(|name| forever(name));
        let carrying = self.credential.places().flat_map(CredentialPlace::subprotocols).copied();
        let subprotocols: Vec<&'static str> = carrying.chain(spoken).collect();
        let request_type = crate::message::message_type(self.messages.request.as_bytes());
        let words = Words {
            welcomes: all([self.messages.welcome.as_str()].into_iter().filter(|name| !name.is_empty()).collect()),
            requests: all(request_type.iter().map(|name| name.as_ref()).collect()),
            events: all(self.messages.events.iter().map(String::as_str).collect()),
            name_user: false,
        };
        Service {
            websocket_paths: all(vec![split(&self.paths.websocket).0]),
            http_paths: health,
            health_paths: health,
            protected: Box::leak(protected.into_boxed_slice()),
            subprotocols: Box::leak(subprotocols.into_boxed_slice()),
            connections_max: self.limits.connections,
            words,
            is_opaque: true,
            is_foreign: true,
            is_public: !self.credential.is_needed(),
            ..Service::default()
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
    use super::Binding;
    use crate::{credential::CredentialPlace, error::Error};

    #[test]
    fn what_is_left_out_is_the_embedded_backends() {
        assert_eq!(Binding::parse("relapse.toml", "").unwrap(), Binding::default());
        let text = "[paths]\nwebsocket = \"/stream\"\n[credential]\nenv = \"TOKEN\"\nplace = \"query\"\n";
        let binding = Binding::parse("relapse.toml", text).unwrap();
        assert_eq!((binding.paths.websocket.as_str(), binding.credential.place), ("/stream", CredentialPlace::Query));
        assert!(binding.credential.is_needed() && !Binding::default().credential.is_needed());
    }

    #[test]
    fn a_path_may_have_a_query() {
        let binding = Binding::parse("relapse.toml", "[paths]\nwebsocket = \"/rooms/1?q=a\"\n").unwrap();
        let mut asked = binding.upgrade("host");
        assert_eq!((asked.path.as_slice(), asked.query.as_slice()), (&b"/rooms/1"[..], &b"q=a"[..]));
        asked.query = b"size=3".to_vec();
        assert_eq!(binding.at_websocket(asked).query, b"q=a&size=3");
        assert_eq!(binding.service().websocket_paths, ["/rooms/1"]);
    }

    #[test]
    fn mistakes_are_located() {
        for (text, message) in [
            ("[paths]\nwebsockets = \"/ws\"\n", "unknown field `websockets`"),
            ("[credential]\nenv = \"A\"\nliteral = \"b\"\n", "more than once"),
            ("[credential]\nplace = \"body\"\n", "unknown variant `body`"),
            ("[credential]\nalso = [\"ticket\"]\n", "no other place"),
            ("[paths]\nprotected = [\"/api\"]\n", "write it as in `GET /path`"),
        ] {
            match Binding::parse("relapse.toml", text) {
                Err(Error::File(located)) => assert!(located.message.contains(message), "{}", located.message),
                other => panic!("{other:?}"),
            }
        }
    }
}
