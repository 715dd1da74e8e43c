//! Draws stories in which clients repeat a request or a message: with its body in pieces, at the same time as another
//! client, once more than another client, or to make two things of one kind. Checks compare the answers.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{
    generate::step,
    stories::{BYSTANDER, act, kinship, making_method, placeholder, placeholder_of, plain_request},
};
use crate::route::{Parameter, Route, push_query};
use relapse_core::{
    choices::Choices,
    client::step::{Action, AnswerReading, ClientName, Request, Slices, Step},
};

/// How often a request is made before and after the one that is to be compared. The check asks for two.
const TIMES: usize = 2;

/// How many bytes a body without a form of its own has at least, so that it can come in pieces.
const BODY_BYTES: usize = 64;

/// Between two pieces of a body. The app is called meanwhile.
const PIECE_PAUSE: Duration = Duration::from_millis(20);

/// The headers that every client of a kind sends alike.
const OF_ALL: [&str; 6] = ["accept", "content-type", "host", "origin", "user-agent", "accept-language"];

/// The value for which nothing is known about a text.
const FILLER: &str = "a";

type Visits = Vec<Vec<Step>>;

/// A body that comes whole, then in pieces, then whole again; each time with a look at what is there by then.
pub(super) fn in_pieces(choices: Choices, routes: &[Route]) -> Option<Visits> {
    let takers = routes.iter().filter(|route| making_method(route).is_some());
    let route = choices.fork("route").pick(takers.map(|route| (1, route.to_string(), route)))?;
    let methods = route.methods.iter().filter(|method| route.has_body(method));
    let method = choices.fork("method").pick(methods.map(|method| (1, method, method)))?;
    let mut request = route.good_request(method);
    if !route.full_body.is_empty() && choices.fork("is full").happens(1, 2) {
        route.give_body(&mut request, &route.full_body);
    }
    let is_plain = request.body.iter().all(|byte| FILLER.as_bytes().contains(byte));
    if is_plain && !request.body.is_empty() {
        request.body = FILLER.repeat(BODY_BYTES).into_bytes();
    }
    let is_cut = request.body.len() > 1;
    let look = routes.iter().find(|other| other.path == route.path && other.takes("GET"));
    let look = look.map(|route| Request { path: request.path.clone(), ..route.good_request("GET") });
    let slices = Slices { bytes: request.body.len() / 2, pause: PIECE_PAUSE };
    let visits = (0..=2 * TIMES).flat_map(|number| {
        let slices = (number == TIMES).then_some(slices);
        let whole = Step { slices, ..step(Action::Request(request.clone())) };
        [Some(vec![whole]), look.clone().map(|look| vec![step(Action::Request(look))])]
    });
    is_cut.then(|| visits.flatten().collect())
}

/// Two clients, each with a thing of its own, ask for it in turn, then at the same time, then in turn.
pub(super) fn at_once(choices: Choices, routes: &[Route], names: [&str; 2]) -> Option<Visits> {
    let makers = routes.iter().filter(|route| making_method(route).is_some());
    let maker = choices.fork("maker").pick(makers.map(|route| (1, route.to_string(), route)))?;
    let asked = routes.iter().filter(|route| !route.is_websocket && route.to_string() != maker.to_string());
    let asked = choices.fork("asked").pick(asked.map(|route| (kinship(maker, route), route.to_string(), route)))?;
    let made = choices.fork("made");
    let own = names.map(|name| {
        let mut request = maker.good_request(making_method(maker).unwrap_or("POST"));
        if let Ok(body) = serde_json::from_slice(&request.body) {
            maker.give_body(&mut request, &named(made.fork("body"), body, name).to_string());
        }
        request
    });
    let mut visits: Visits = names.iter().zip(own).map(|(name, own)| act(name, Action::Request(own))).collect();
    let requests = [1, 2].map(|source| of_own(choices.fork("own"), asked, source));
    let in_turn = |visits: &mut Visits| {
        for _ in 0..TIMES {
            for (name, request) in names.iter().zip(&requests) {
                visits.push(act(name, Action::Request(request.clone())));
            }
        }
    };
    in_turn(&mut visits);
    let [first, second] = names;
    let [one, other] = requests.clone();
    let one = Request { answer: AnswerReading::Later, ..one };
    let at_once = [Action::Request(one), Action::Request(other), Action::ReadAnswer];
    let by = |name: &str, act: Action| Step { client: Some(ClientName(name.to_owned())), ..step(act) };
    visits.push([first, second, first].into_iter().zip(at_once).map(|(name, act)| by(name, act)).collect());
    in_turn(&mut visits);
    Some(visits)
}

/// A JSON value whose texts name a client.
fn named(choices: Choices, value: Json, name: &str) -> Json {
    match value {
        Json::Object(entries) => {
            let named = entries.into_iter().map(|(key, value)| {
                let choices = choices.fork(&key);
                (key, named(choices, value, name))
            });
            Json::Object(named.collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(|item| named(choices, item, name)).collect()),
        Json::String(text) if choices.fork("is named").happens(3, 4) => match text.split_once('@') {
            Some((_, domain)) => json!(format!("{name}@{domain}")),
            None => json!(name),
        },
        other => other,
    }
}

/// A request with values of an earlier answer wherever the route reads any: path, query, headers.
fn of_own(choices: Choices, route: &Route, source: usize) -> Request {
    let method = choices.fork("method").pick(route.methods.iter().map(|method| (1, method, method.as_str())));
    let mut request = route.good_request(method.unwrap_or("GET"));
    let path = choices.fork("path");
    if path.happens(4, 5) {
        request.path = route.filled(|name| placeholder(source, name).into_bytes());
    }
    let headers = route.headers.iter().filter(|parameter| !OF_ALL.contains(&&*parameter.name.to_ascii_lowercase()));
    let headers: Vec<&Parameter> = headers.collect();
    let (kept, is_bearer) = (choices.fork("headers"), choices.fork("is bearer").happens(1, 3));
    for Parameter { name, .. } in &headers {
        let is_authorization = name.eq_ignore_ascii_case("authorization");
        if is_authorization || !kept.fork(name).happens(3, 4) {
            continue;
        }
        request.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes()));
        request.headers.push((name.clone().into(), placeholder(source, name).into()));
    }
    if is_bearer {
        request.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(b"authorization"));
        let token = placeholder_of(source, "access_token|token|ticket|key");
        request.headers.push((b"authorization"[..].into(), format!("Bearer {token}").into()));
    }
    let query = choices.fork("query");
    for Parameter { name, .. } in route.query.iter().filter(|parameter| query.fork(&parameter.name).happens(1, 3)) {
        push_query(&mut request.query, name.as_bytes(), placeholder(source, name).as_bytes());
    }
    request.headers.sort();
    request
}

/// Two clients say the same, one of them twice; then a third one acts, in the same way each time.
pub(super) fn twice(choices: Choices, routes: &[Route], names: [&str; 2]) -> Option<Visits> {
    let sockets = routes.iter().filter(|route| route.is_websocket && !route.messages.is_empty());
    let route = choices.fork("route").pick(sockets.map(|route| (1, route.to_string(), route)))?;
    let opened = || Action::Open(route.good_request("GET"));
    let last = choices.fork("last").count(0..=route.messages.len() - 1);
    let before = if choices.fork("has before").happens(1, 2) { &route.messages[..last] } else { &[] };
    let [one, other] = names;
    let mut visits: Visits = names.iter().map(|name| act(name, opened())).collect();
    let say = |name: &str, text: &String| act(name, Action::SendText(text.clone()));
    for text in before.iter().chain([&route.messages[last]]) {
        visits.extend(names.iter().map(|name| say(name, text)));
    }
    visits.push(say(one, &route.messages[last]));
    if choices.fork("is other way").happens(1, 8) {
        visits.push(say(other, &route.messages[last]));
    }
    // Others are told of something that was made.
    let weight = |route: &Route| if making_method(route).is_some() { 6 } else { 1 };
    let plain = routes.iter().filter(|route| !route.is_websocket);
    let plain = plain.map(|route| (weight(route), route.to_string(), Some(route)));
    let third = choices.fork("third").pick(plain.chain([(3, route.to_string(), None)]))?;
    match third {
        Some(plain) => {
            let asked = Action::Request(plain_request(choices.fork("asked"), plain));
            visits.extend((0..TIMES).map(|_| act(BYSTANDER, asked.clone())));
        }
        None => {
            visits.push(act(BYSTANDER, opened()));
            visits.extend(before.iter().chain([&route.messages[last]]).map(|text| say(BYSTANDER, text)));
            let said = choices.fork("said").one(&route.messages);
            visits.extend((0..TIMES).map(|_| say(BYSTANDER, &said)));
        }
    }
    Some(visits)
}

/// Two things of one kind, and then requests about either, with the bodies that a route is known to take.
pub(super) fn twins(choices: Choices, routes: &[Route]) -> Option<Visits> {
    let talking = routes.iter().filter(|route| making_method(route).is_some() && !route.messages.is_empty());
    let route = choices.fork("route").pick(talking.map(|route| (1, route.to_string(), route)))?;
    let asked = |body: &str| {
        let mut request = route.good_request(making_method(route).unwrap_or("POST"));
        route.give_body(&mut request, body);
        vec![step(Action::Request(request))]
    };
    let (knowing, whole): (Vec<&String>, Vec<&String>) =
        route.messages.iter().partition(|text| text.contains(&json!(FILLER).to_string()));
    let or_all = |some: Vec<&String>| match some.is_empty() {
        true => route.messages.clone(),
        false => some.into_iter().cloned().collect(),
    };
    // A request that makes a thing need not know of one.
    let (makers, users) = (or_all(whole), or_all(knowing));
    let made = choices.fork("made").one(&makers);
    let mut visits = vec![asked(&made), asked(&made)];
    let about = choices.fork("about");
    for number in 0..about.fork("count").count(2..=6) {
        let choices = about.nth(number);
        let body = choices.fork("body").one(&users);
        let source = choices.fork("source").count(1..=2);
        let body = serde_json::from_str(&body).map_or(body, |value| of_earlier(value, source).to_string());
        visits.push(asked(&body));
    }
    Some(visits)
}

/// A JSON value with values of an earlier answer where nothing is known.
fn of_earlier(value: Json, source: usize) -> Json {
    let is_call = value.get("jsonrpc").is_some();
    put_earlier(value, source, is_call)
}

fn put_earlier(value: Json, source: usize, is_call: bool) -> Json {
    match value {
        Json::Object(entries) => {
            let put = entries.into_iter().map(|(key, value)| match value {
                Json::String(text) if text == FILLER => {
                    // The answer to a call has its value in `result` (JSON-RPC 2.0 section 5).
                    let own = if is_call { placeholder_of(source, "result|text") } else { placeholder(source, &key) };
                    (key, json!(own))
                }
                value => (key, put_earlier(value, source, is_call)),
            });
            Json::Object(put.collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(|item| put_earlier(item, source, is_call)).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(said: &str, messages: &[&str]) -> Route {
        let messages = messages.iter().map(|text| (*text).to_owned()).collect();
        Route { messages, content_type: "text/plain".to_owned(), body: "a".to_owned(), ..Route::parse(said).unwrap() }
    }

    fn requests(visits: &[Vec<Step>]) -> Vec<(&Request, bool)> {
        let steps = visits.iter().flatten();
        steps.filter_map(|step| Some((step.opening()?, step.slices.is_some()))).collect()
    }

    #[test]
    fn a_body_comes_whole_then_in_pieces_then_whole() {
        let routes = [route("PUT /blobs/{key}", &[]), route("GET /blobs/{key}", &[])];
        let visits = in_pieces(Choices::of(1), &routes).unwrap();
        let drawn = requests(&visits);
        let said: Vec<(&str, usize, bool)> =
            drawn.iter().map(|(asked, is_cut)| (&*asked.method, asked.body.len(), *is_cut)).collect();
        let (whole, look) = (("PUT", BODY_BYTES, false), ("GET", 0, false));
        let cut = ("PUT", BODY_BYTES, true);
        assert_eq!(said, [whole, look, whole, look, cut, look, whole, look, whole, look]);
        assert_eq!(in_pieces(Choices::of(1), &routes[1..]), None, "nothing takes a body");
    }

    #[test]
    fn two_clients_ask_with_what_each_was_given() {
        let token =
            Parameter { name: "x-token".to_owned(), is_required: false, good: "a".to_owned(), others: Vec::new() };
        let made = Route { body: "{\"name\":\"a\"}".to_owned(), ..route("POST /sessions", &[]) };
        let routes = [made, Route { headers: vec![token], ..route("GET /me", &[]) }];
        let drawn = (0..20).filter_map(|seed| at_once(Choices::of(seed), &routes, ["ann", "ben"]));
        let drawn: Vec<Vec<Vec<Step>>> = drawn.collect();
        let own = |visits: &Vec<Vec<Step>>| {
            let headers = requests(visits).into_iter().flat_map(|(asked, _)| asked.headers.clone());
            let sources = headers.filter(|(name, _)| name.as_ref() == b"x-token").map(|(_, value)| value[..3].to_vec());
            sources.collect::<Vec<_>>()
        };
        let expected: Vec<Vec<u8>> = [b"{1.", b"{2."].iter().cycle().take(10).map(|start| start.to_vec()).collect();
        assert!(drawn.iter().any(|visits| own(visits) == expected), "{drawn:?}");
        let named = |visits: &Vec<Vec<Step>>| {
            let bodies: Vec<_> = requests(visits).into_iter().take(2).map(|(asked, _)| asked.body.clone()).collect();
            bodies == [b"{\"name\":\"ann\"}", b"{\"name\":\"ben\"}"]
        };
        assert!(drawn.iter().any(named), "{drawn:?}");
    }

    #[test]
    fn what_is_made_twice_is_used_by_its_result() {
        let (make, put) =
            ("{\"jsonrpc\":\"2.0\",\"method\":\"make\"}", "{\"jsonrpc\":\"2.0\",\"params\":{\"id\":\"a\"}}");
        let visits = twins(Choices::of(1), &[route("POST /mcp", &[make, put])]).unwrap();
        let bodies: Vec<String> =
            requests(&visits).iter().map(|(asked, _)| String::from_utf8_lossy(&asked.body).into_owned()).collect();
        assert_eq!(bodies[..2], [make, make]);
        assert!(bodies[2..].iter().all(|body| body.contains("{1.result|text}") || body.contains("{2.result|text}")));
    }
}
