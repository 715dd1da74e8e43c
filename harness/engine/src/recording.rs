//! A recorded good conversation, and the application's routes that it shows: a HAR file, as browsers and proxies save
//! one, or the steps of a case.

mod har;

use std::collections::BTreeSet;

use serde_json::Value as Json;

use self::har::{Har, HarEntry, HarHeader};
use crate::{
    route::{Parameter, Route},
    service_file::RequestKind,
};
use relapse_core::{
    client::{
        credential::CredentialPlace,
        step::{Action, Request, Step},
    },
    record::redact::{holds_secret, holds_secret_in_head},
    wire::percent,
};

/// The facts learned from a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Where requests and sessions were let in, each route once.
    pub routes: Vec<Route>,
    /// The names of headers, parameters and keys that carry credentials; their values are left out.
    pub left_out: BTreeSet<String>,
}

/// How many messages of a route are kept, and how long they may be.
const MESSAGES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// The longest word.
const WORD_BYTES_MAX: usize = 24;
/// How many words of a recording a route takes over.
const WORDS_MAX: usize = 48;

/// Headers that clients, proxies and browsers send by themselves: names, or prefixes that end in a dash.
const STANDARD: [&str; 29] = [
    "accept",
    "accept-",
    "access-control-",
    "cache-control",
    "connection",
    "content-",
    "dnt",
    "expect",
    "forwarded",
    "host",
    "if-",
    "keep-alive",
    "origin",
    "pragma",
    "priority",
    "proxy-connection",
    "range",
    "referer",
    "sec-",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-",
    "user-agent",
    "via",
    "x-forwarded-",
    "x-real-ip",
    ":",
];

/// From how many characters on a subprotocol is no name.
const OFFER_LENGTH_MAX: usize = 64;

/// The replacement for a credential.
const LEFT_OUT: &str = "left-out";

impl Recorded {
    /// Reads a HAR file (HTTP Archive 1.2, with the WebSocket messages that Chromium, Firefox and mitmproxy add). What was
    /// not let in is left out, and so is whatever is not on the host that WebSockets were opened on, or else on the one with
    /// most requests.
    ///
    /// # Errors
    /// When it is none, or nothing in it was let in.
    pub fn read_har(text: &str) -> Result<Recorded, String> {
        let archive = Har::parse(text)?;
        let own = archive.main_host().ok_or("nothing in it was let in")?;
        let mut recorded = Recorded::default();
        for entry in archive.good() {
            if let Some((_, target)) = entry.place().filter(|(host, _)| *host == own) {
                let route = recorded.entry(entry, target);
                recorded.add(route);
            }
        }
        Ok(recorded)
    }

    /// The route that an entry shows, which asked for this target.
    fn entry(&mut self, entry: &HarEntry, target: &str) -> Route {
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut route = Route {
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            is_websocket: entry.is_websocket(),
            methods: if entry.is_websocket() { Vec::new() } else { vec![entry.request.method.clone()] },
            query: self.query(query.as_bytes()),
            headers: self.headers(entry.request.headers.iter().map(HarHeader::pair)),
            ..Route::default()
        };
        if let Some(offered) = entry.header("sec-websocket-protocol") {
            route.offers = self.offers(offered.split(',').map(str::trim));
        }
        if let Some(body) = &entry.request.body {
            route.content_type.clone_from(&body.content_type);
            route.body = self.said(&body.text, &body.content_type);
        }
        for text in entry.sent_texts() {
            add_message(&mut route, &self.said(text, ""));
        }
        route
    }

    /// Learns routes from the steps of a case.
    pub fn of_steps(steps: &[Step]) -> Recorded {
        let mut recorded = Recorded::default();
        let mut current: Option<Route> = None;
        for step in steps {
            match &step.act {
                Action::Open(request) => {
                    recorded.routes.extend(current.take());
                    current = Some(recorded.route(request, RequestKind::Upgrade));
                }
                Action::Request(request) => {
                    recorded.routes.extend(current.take());
                    current = Some(recorded.route(request, RequestKind::Plain(&request.method)));
                }
                Action::SendText(text) => {
                    let text = recorded.said(text, "");
                    current.iter_mut().for_each(|route| add_message(route, &text));
                }
                _ => {}
            }
        }
        recorded.routes.extend(current);
        for route in std::mem::take(&mut recorded.routes) {
            recorded.add(route);
        }
        recorded
    }

    fn route(&mut self, request: &Request, kind: RequestKind<'_>) -> Route {
        let methods = match kind {
            RequestKind::Upgrade => Vec::new(),
            RequestKind::Plain(method) => vec![method.to_owned()],
        };
        let headers: Vec<(String, String)> =
            request.headers.iter().map(|(name, value)| (text(name), text(value))).collect();
        let content_type = match headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            _ if request.body.is_empty() => String::new(),
            Some((_, value)) => value.clone(),
            None => "application/json".to_owned(),
        };
        Route {
            path: text(&request.path),
            is_websocket: kind == RequestKind::Upgrade,
            methods,
            query: self.query(&request.query),
            headers: self.headers(headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
            offers: self.offers(request.offers.iter().map(String::as_str)),
            body: self.said(&text(&request.body), &content_type),
            content_type,
            ..Route::default()
        }
    }

    /// The parameters of a query, without credentials.
    fn query(&mut self, query: &[u8]) -> Vec<Parameter> {
        self.parameters(form_urlencoded::parse(query).into_owned())
    }

    /// The headers that are the application's own, without credentials.
    fn headers<'a>(&mut self, headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Parameter> {
        let named = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        let own = named.filter(|(name, _)| !is_standard(name));
        self.parameters(own)
    }

    /// Subprotocols without those that carry a credential.
    fn offers<'a>(&mut self, offers: impl Iterator<Item = &'a str>) -> Vec<String> {
        let (carrying, names): (Vec<&str>, Vec<&str>) = offers.partition(|offer| may_carry_credential(offer));
        if !carrying.is_empty() {
            self.left_out.insert("Sec-WebSocket-Protocol".to_owned());
        }
        names.into_iter().map(str::to_owned).collect()
    }

    /// The text of a message or body, JSON or a form, without credentials.
    fn said(&mut self, text: &str, content_type: &str) -> String {
        if content_type.starts_with("application/x-www-form-urlencoded") {
            return self.form(text);
        }
        let Ok(whole) = serde_json::from_str::<Json>(text) else { return text.to_owned() };
        let mut cleaned = whole.clone();
        leave_out(&mut cleaned, &mut self.left_out);
        // Whatever has none stays as it was written.
        if cleaned == whole { text.to_owned() } else { cleaned.to_string() }
    }

    /// A form without credentials. Every other field stays as it was written.
    fn form(&mut self, text: &str) -> String {
        let fields = text.split('&').map(|field| {
            let name = form_urlencoded::parse(field.as_bytes()).next().map(|(name, _)| name.into_owned());
            match (field.split_once('='), name) {
                (Some((written, _)), Some(name)) if holds_secret(&name) => {
                    self.left_out.insert(name);
                    format!("{written}={LEFT_OUT}")
                }
                _ => field.to_owned(),
            }
        });
        fields.collect::<Vec<_>>().join("&")
    }

    fn parameters(&mut self, pairs: impl Iterator<Item = (String, String)>) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        for (name, good) in pairs {
            if holds_secret_in_head(&name) {
                self.left_out.insert(name);
            } else {
                parameters.push(Parameter { name, is_required: true, good, others: Vec::new() });
            }
        }
        parameters
    }

    /// Adds a route, or what it says to the same one.
    fn add(&mut self, mut route: Route) {
        for text in [&route.body].into_iter().chain(&route.messages) {
            words_of(text, &mut route.words);
        }
        learn(&mut self.routes, &[route]);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a header, in small letters, is none of the application's own.
fn is_standard(name: &str) -> bool {
    STANDARD.iter().any(|standard| match standard.ends_with(['-', ':']) {
        true => name.starts_with(standard),
        false => name == *standard,
    })
}

/// Whether an offered subprotocol has the form of one that carries a credential, or is long enough for one.
fn may_carry_credential(offer: &str) -> bool {
    let known = [CredentialPlace::Subprotocol, CredentialPlace::StagingSubprotocol];
    let mut forms = known.iter().flat_map(|place| place.subprotocols()).filter(|form| form.ends_with('.'));
    forms.any(|form| offer.starts_with(form)) || offer.len() > OFFER_LENGTH_MAX
}

/// Puts something else in the place of every credential; the names that they stood under are kept.
fn leave_out(value: &mut Json, names: &mut BTreeSet<String>) {
    match value {
        Json::Object(entries) => {
            for (key, value) in entries {
                if holds_secret(key) && !value.is_object() && !value.is_array() {
                    names.insert(key.clone());
                    *value = LEFT_OUT.into();
                } else {
                    leave_out(value, names);
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| leave_out(item, names)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// Lets routes learn from recorded ones: values that were let in, and what is said there. What is none of them joins them.
pub fn learn(routes: &mut Vec<Route>, recorded: &[Route]) {
    for known in recorded {
        let same = routes.iter_mut().find(|route| {
            route.is_websocket == known.is_websocket
                && (route.is_websocket || known.methods.iter().all(|method| route.methods.contains(method)))
                && route.has_path(known.path.as_bytes())
        });
        match same {
            Some(route) => learn_one(route, known),
            None => routes.push(known.clone()),
        }
    }
}

fn learn_one(route: &mut Route, known: &Route) {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (route.path.split('/').collect(), known.path.split('/').collect());
    if pattern.len() == path.len() {
        for (segment, good) in pattern.iter().zip(path) {
            let Some(name) = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) else { continue };
            let name = name.split(':').next().unwrap_or(name).to_owned();
            let good = percent::decoded_text(good.as_bytes());
            take_over(&mut route.params, &[Parameter { name, is_required: true, good, others: Vec::new() }]);
        }
    }
    take_over(&mut route.query, &known.query);
    take_over(&mut route.headers, &known.headers);
    if !known.body.is_empty() {
        route.body.clone_from(&known.body);
        route.content_type.clone_from(&known.content_type);
    }
    if !known.offers.is_empty() {
        route.offers.clone_from(&known.offers);
    }
    known.messages.iter().for_each(|message| add_message(route, message));
    for word in &known.words {
        add_word(word, &mut route.words);
    }
}

/// Values that were let in, for what is known, and what is not.
fn take_over(parameters: &mut Vec<Parameter>, recorded: &[Parameter]) {
    for known in recorded {
        match parameters.iter_mut().find(|parameter| parameter.name.eq_ignore_ascii_case(&known.name)) {
            Some(parameter) => parameter.good.clone_from(&known.good),
            None => parameters.push(known.clone()),
        }
    }
}

fn add_message(route: &mut Route, message: &str) {
    let has_room = route.messages.len() < MESSAGES_MAX && message.len() <= MESSAGE_BYTES_MAX;
    if has_room && !route.messages.iter().any(|known| known == message) {
        route.messages.push(message.to_owned());
    }
}

/// The keys of a JSON text, and its texts that are single words.
fn words_of(text: &str, words: &mut Vec<String>) {
    fn visit(value: &Json, words: &mut Vec<String>) {
        match value {
            Json::Object(entries) => entries.iter().for_each(|(key, value)| {
                add_word(key, words);
                visit(value, words);
            }),
            Json::Array(items) => items.iter().for_each(|item| visit(item, words)),
            Json::String(text) => add_word(text, words),
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
    if let Ok(value) = serde_json::from_str(text) {
        visit(&value, words);
    }
}

fn add_word(word: &str, words: &mut Vec<String>) {
    let is_word = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let fits = (1..=WORD_BYTES_MAX).contains(&word.len()) && words.len() < WORDS_MAX;
    if is_word && fits && !words.iter().any(|known| known == word) {
        words.push(word.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use crate::recording::{Recorded, learn};
    use crate::route::Route;

    const HAR: &str = r#"{"log": {"entries": [
        {"request": {"method": "GET", "url": "https://cdn.test/a.js", "headers": []}, "response": {"status": 200}},
        {"request": {"method": "GET", "url": "https://cdn.test/b.js", "headers": []}, "response": {"status": 200}},
        {"request": {"method": "GET", "url": "https://shop.test/nobody", "headers": []}, "response": {"status": 404}},
        {"request": {"method": "POST", "url": "https://shop.test/orders/7%20b?page=2&q=a+b&token=abc", "headers": [
            {"name": "User-Agent", "value": "x"}, {"name": "Authorization", "value": "Bearer abc"},
            {"name": "Tenant", "value": "blue"}],
            "postData": {"mimeType": "application/json", "text": "{\"name\": \"pen\"}"}}, "response": {"status": 201}},
        {"request": {"method": "GET", "url": "wss://shop.test/chat?room=1", "headers": [
            {"name": "Sec-WebSocket-Protocol", "value": "graphql-ws, v1, jwt.abc"}]},
         "response": {"status": 101},
         "_webSocketMessages": [
            {"type": "send", "time": 1, "opcode": 1, "data": "{\"type\": \"join\"}"},
            {"type": "receive", "time": 1, "opcode": 1, "data": "{\"type\": \"joined\"}"},
            {"type": "error", "time": 1, "opcode": -1, "data": "gone"}, {"type": "send", "time": 1, "opcode": 2, "data": "AAA="}]}
    ]}}"#;

    #[test]
    fn an_archive_tells_what_was_let_in_where_sessions_were() {
        let Recorded { routes, left_out } = Recorded::read_har(&format!("\u{feff}{HAR}")).unwrap();
        let told: Vec<String> = routes.iter().map(Route::said).collect();
        assert_eq!(told, ["POST /orders/7%20b?page=2&q=a b", "ws:/chat?room=1"]);
        assert_eq!(left_out.into_iter().collect::<Vec<_>>(), ["Sec-WebSocket-Protocol", "authorization", "token"]);
        assert_eq!((routes[0].headers.len(), routes[0].headers[0].good.as_str()), (1, "blue"));
        assert_eq!(
            (routes[0].body.as_str(), &routes[0].words[..]),
            ("{\"name\": \"pen\"}", &["name", "pen"].map(String::from)[..])
        );
        assert_eq!(
            (&routes[1].messages[..], &routes[1].offers[..]),
            (&["{\"type\": \"join\"}".to_owned()][..], &["graphql-ws", "v1"].map(String::from)[..])
        );
    }

    #[test]
    fn what_is_said_has_no_credentials() {
        let mut recorded = Recorded::default();
        for (said, content_type, expected) in [
            (r#"{"user": {"Password": "x"}, "n": 1}"#, "", r#"{"n":1,"user":{"Password":"left-out"}}"#),
            (r#"[{"access_token": 7}]"#, "application/json", r#"[{"access_token":"left-out"}]"#),
            ("name=ann&password=x", "application/x-www-form-urlencoded", "name=ann&password=left-out"),
            ("a+b=%20&p%61ssword=x&c", "application/x-www-form-urlencoded", "a+b=%20&p%61ssword=left-out&c"),
            (r#"{ "key": "ArrowUp" }"#, "", r#"{ "key": "ArrowUp" }"#),
            ("no json", "", "no json"),
        ] {
            assert_eq!(recorded.said(said, content_type), expected);
        }
        assert_eq!(recorded.left_out.into_iter().collect::<Vec<_>>(), ["Password", "access_token", "password"]);
    }

    #[test]
    fn an_application_s_own_routes_learn() {
        let mut routes = vec![
            Route::parse("GET /orders/{number}").unwrap(),
            Route { path: "/orders/{number:int}".to_owned(), ..Route::parse("POST /orders?page=1").unwrap() },
            Route::parse("ws:/chat").unwrap(),
        ];
        learn(&mut routes, &Recorded::read_har(HAR).unwrap().routes);
        assert_eq!(routes.len(), 3, "{routes:#?}");
        assert!(routes[0].params.is_empty(), "it has another method");
        let request = routes[1].good_request("POST");
        assert_eq!(String::from_utf8_lossy(&request.path), "/orders/7%20b");
        assert_eq!(String::from_utf8_lossy(&request.query), "page=2&q=a%20b");
        assert_eq!(request.body, b"{\"name\": \"pen\"}");
        assert_eq!(routes[2].good_request("GET").offers, ["graphql-ws", "v1"]);
        learn(&mut routes, &[Route::parse("ws:/other").unwrap()]);
        assert_eq!(routes.len(), 4);
    }

    #[test]
    fn what_is_no_recording_is_told() {
        for (text, expected) in
            [("{", "it is no HAR file: "), ("{\"log\": {\"entries\": []}}", "nothing in it was let in")]
        {
            assert!(Recorded::read_har(text).unwrap_err().starts_with(expected));
        }
    }
}
