//! A route of an application: where it is and what it takes, as far as the application or its user tells.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use relapse_core::{
    client::step::{Action, ClientStrictness, Request, Step},
    wire::{close_code::CloseCode, percent},
};

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// Its path, with parameters in braces.
    pub path: String,
    /// Whether it speaks WebSocket.
    pub is_websocket: bool,
    /// Its methods, for HTTP.
    pub methods: Vec<String>,
    /// The parameters it reads from the path.
    pub params: Vec<Parameter>,
    /// The parameters it reads from the query.
    pub query: Vec<Parameter>,
    /// The parameters it reads from headers.
    pub headers: Vec<Parameter>,
    /// The parameters it reads from cookies.
    pub cookies: Vec<Parameter>,
    /// The type of the body that it takes; empty for none.
    pub content_type: String,
    /// A body that it takes, with nothing that it can do without.
    pub body: String,
    /// One with everything that it takes; empty where that is no other.
    pub full_body: String,
    /// The subprotocols that a client offers there.
    pub offers: Vec<String>,
    /// The subprotocols that its code or its library knows.
    pub subprotocols: Vec<String>,
    /// Messages that a client sent there; of HTTP, further bodies that it takes.
    pub messages: Vec<String>,
    /// Words from its code: names of parameters, keys of messages, values.
    pub words: Vec<String>,
    /// Numbers from its code, other than -1, 0 and 1.
    pub numbers: Vec<i64>,
    /// Where it comes from.
    pub source: RouteSource,
}

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouteSource {
    /// The app or the user names it.
    #[default]
    Known,
    /// The code looks as if the app had it. A refusal there means nothing.
    Guessed,
}

/// A failure to learn the routes of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTrouble {
    /// The framework whose routes are not all known.
    pub framework: String,
    /// The path below which they are.
    pub place: String,
    /// The type of the exception.
    pub kind: String,
    /// The text of the exception.
    pub message: String,
}

impl fmt::Display for RouteTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteTrouble { framework, place, kind, message } = self;
        write!(f, "the routes of {framework} below {place} are not all known: {kind}: {message}")
    }
}

/// Something that a route reads from a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Whether the route cannot do without it.
    pub is_required: bool,
    /// A value that the route takes.
    pub good: String,
    /// Further ones that are named: the rest of an enumeration, the limits of a number.
    pub others: Vec<String>,
}

/// The form of a route that a user names.
const FORM: &str = "write it as in `ws:/path`, or as in `GET /path?name=value`";

/// The value of a parameter of a path of which nothing but the name is known.
const UNKNOWN_GOOD: &str = "1";

/// The methods whose requests have a body.
const WITH_BODY: [&str; 3] = ["POST", "PUT", "PATCH"];

/// Returns `true` if the text has the form of a method name.
fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

impl Parameter {
    /// A required parameter, as `name=value`.
    fn of_pair(pair: &str) -> Parameter {
        let (name, good) = pair.split_once('=').unwrap_or((pair, ""));
        Parameter { name: name.to_owned(), is_required: true, good: good.to_owned(), others: Vec::new() }
    }

    /// The parameter with its good value, as `name=value`.
    fn pair(&self) -> String {
        format!("{}={}", self.name, self.good)
    }
}

impl Route {
    /// Reads what a user says: `ws:/path` or `GET /path`, with a query where there is one.
    ///
    /// # Errors
    /// Says how it is written.
    pub fn parse(text: &str) -> Result<Route, String> {
        let (methods, target) = match (text.strip_prefix("ws:"), text.split_once(' ')) {
            (Some(target), _) => (Vec::new(), target),
            (None, Some((method, target))) if is_method(method) => (vec![method.to_owned()], target),
            _ => return Err(FORM.to_owned()),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_target = path.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_target {
            return Err(FORM.to_owned());
        }
        let query = query.split('&').filter(|pair| !pair.is_empty()).map(Parameter::of_pair).collect();
        Ok(Route { path: path.to_owned(), is_websocket: methods.is_empty(), methods, query, ..Route::default() })
    }

    /// The root path, for both protocols: where nothing is known of a service, a client begins there.
    pub fn root() -> Vec<Route> {
        let (path, methods) = ("/".to_owned(), vec!["GET".to_owned(), "POST".to_owned()]);
        let plain = Route { path: path.clone(), methods, ..Route::default() };
        vec![plain, Route { path, is_websocket: true, ..Route::default() }]
    }

    /// The text by which a user names it.
    pub fn said(&self) -> String {
        let pairs: Vec<String> = self.query.iter().map(Parameter::pair).collect();
        if pairs.is_empty() { self.to_string() } else { format!("{self}?{}", pairs.join("&")) }
    }

    /// Whether it takes plain requests with this method.
    pub fn takes(&self, method: &str) -> bool {
        !self.is_websocket && self.methods.iter().any(|known| known == method)
    }

    /// Whether a request with this method has a body.
    pub fn has_body(&self, method: &str) -> bool {
        WITH_BODY.contains(&method)
    }

    /// Its path with a value for each parameter, percent-encoded.
    pub fn filled(&self, mut value: impl FnMut(&str) -> Vec<u8>) -> Vec<u8> {
        let mut filled = Vec::new();
        let mut rest = self.path.as_str();
        while let Some((before, (name, after))) =
            rest.split_once('{').and_then(|(before, inside)| Some((before, inside.split_once('}')?)))
        {
            filled.extend_from_slice(&percent::encoded(before.as_bytes(), percent::RESERVED_IN_ENCODED_PATH));
            filled.extend(value(name.split(':').next().unwrap_or(name)));
            rest = after;
        }
        filled.extend_from_slice(&percent::encoded(rest.as_bytes(), percent::RESERVED_IN_ENCODED_PATH));
        filled
    }

    /// Whether a path, percent-encoded, is one of its paths.
    pub fn has_path(&self, path: &[u8]) -> bool {
        let Some((before, rest)) = self.path.split_once('{') else { return path == self.path.as_bytes() };
        let after = rest.rsplit_once('}').map_or("", |(_, after)| after);
        let is_as_deep = rest.contains(":path") || depth(path) == depth(self.path.as_bytes());
        path.starts_with(before.as_bytes()) && path.ends_with(after.as_bytes()) && is_as_deep
    }

    /// A request that it should let in, as far as is known, with nothing that it can do without.
    pub fn good_request(&self, method: &str) -> Request {
        let path = self.filled(|name| {
            let known = self.params.iter().find(|parameter| parameter.name == name);
            percent::encoded(
                known.map_or(UNKNOWN_GOOD, |parameter| &parameter.good).as_bytes(),
                percent::RESERVED_IN_PATH,
            )
        });
        let mut request = Request { path, client: ClientStrictness::Library, ..Request::standard(method, "/") };
        request.offers.clone_from(&self.offers);
        for Parameter { name, good, .. } in required(&self.query) {
            push_query(&mut request.query, name.as_bytes(), &percent::encoded(good.as_bytes(), percent::RESERVED));
        }
        for Parameter { name, good, .. } in required(&self.headers) {
            request.headers.push((Bytes::from(name.clone()), Bytes::from(good.clone())));
        }
        let cookies: Vec<String> = required(&self.cookies).map(Parameter::pair).collect();
        if !cookies.is_empty() {
            request.headers.push((Bytes::from_static(b"cookie"), Bytes::from(cookies.join("; "))));
        }
        if self.has_body(method) && !self.body.is_empty() {
            self.give_body(&mut request, &self.body);
        }
        // As the table of a file has them.
        request.headers.sort();
        request
    }

    /// Whether it reads anything from the path, the query, headers or cookies.
    pub fn has_parameters(&self) -> bool {
        let places = [&self.params, &self.query, &self.headers, &self.cookies];
        self.path.contains('{') || places.iter().any(|parameters| !parameters.is_empty())
    }

    /// The parameters of its path of which nothing but the name is known.
    pub fn unknown_params(&self) -> Vec<Parameter> {
        let mut unknown = Vec::new();
        self.filled(|name| {
            if !self.params.iter().any(|parameter| parameter.name == name) {
                let (name, good) = (name.to_owned(), UNKNOWN_GOOD.to_owned());
                unknown.push(Parameter { name, is_required: true, good, others: Vec::new() });
            }
            Vec::new()
        });
        unknown
    }

    /// Whether something in a visit can be varied there: a session, a parameter, a body, or what its code names.
    pub fn takes_something(&self) -> bool {
        let texts = [&self.words, &self.messages];
        self.is_websocket
            || self.has_parameters()
            || texts.iter().any(|texts| !texts.is_empty())
            || !self.numbers.is_empty()
            || !self.content_type.is_empty()
    }

    /// Gives a request this body, of the type that the route takes.
    pub fn give_body(&self, request: &mut Request, body: &str) {
        request.body = body.as_bytes().to_vec();
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-type"));
        request.headers.push((b"content-type"[..].into(), self.content_type.clone().into()));
        request.headers.sort();
    }

    /// The steps of a healthy client there: one request, or a session in which it only listens for a moment.
    pub fn greeting(&self, limit: Duration) -> Vec<Step> {
        if !self.is_websocket {
            let method = self.methods.first().map_or("GET", String::as_str);
            return vec![Step::new(Action::Request(self.good_request(method)), limit)];
        }
        vec![
            Step::new(Action::Open(self.good_request("GET")), limit),
            Step::new(Action::Pause, Duration::from_millis(100)),
            Step::new(Action::Close(CloseCode::NORMAL), limit),
        ]
    }
}

/// How many slashes a path has.
fn depth(path: &[u8]) -> usize {
    path.iter().filter(|&&byte| byte == b'/').count()
}

fn required(parameters: &[Parameter]) -> impl Iterator<Item = &Parameter> {
    parameters.iter().filter(|parameter| parameter.is_required)
}

/// Appends a parameter to a query.
pub fn push_query(query: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !query.is_empty() {
        query.push(b'&');
    }
    query.extend_from_slice(name);
    query.push(b'=');
    query.extend_from_slice(value);
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_websocket {
            return write!(f, "ws:{}", self.path);
        }
        write!(f, "{} {}", self.methods.join(","), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::{Parameter, Route};

    #[test]
    fn a_user_names_a_route() {
        let route = Route::parse("GET /a/{b}?size=3").unwrap();
        assert_eq!((route.to_string(), route.query[0].good.as_str()), ("GET /a/{b}".to_owned(), "3"));
        assert_eq!(route.said(), "GET /a/{b}?size=3");
        assert_eq!(Route::parse("ws:/chat").unwrap().to_string(), "ws:/chat");
        for wrong in ["/ws", "get /a", "ws:chat", "GET a", "GET /a b", ""] {
            assert!(Route::parse(wrong).unwrap_err().contains("GET /path"), "{wrong}");
        }
    }

    #[test]
    fn a_good_request_has_what_is_required() {
        let route = Route {
            path: "/rooms/{room:path}/x".to_owned(),
            params: vec![Parameter::of_pair("room=a/b c")],
            query: vec![Parameter::of_pair("q=ä&"), Parameter { is_required: false, ..Parameter::of_pair("page=1") }],
            cookies: vec![Parameter::of_pair("visit=7")],
            ..Route::parse("POST /").unwrap()
        };
        let request = route.good_request("POST");
        assert_eq!(String::from_utf8(request.path).unwrap(), "/rooms/a/b%20c/x");
        assert_eq!(String::from_utf8(request.query).unwrap(), "q=%C3%A4%26");
        assert_eq!(request.headers, [(b"cookie"[..].into(), b"visit=7"[..].into())]);
    }
}
