//! Draws clients whose acts belong together: requests that use the values of earlier answers, clients who meet on one
//! route, and clients who do the same one after the other, to the end or not.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{
    alike::{give_other_body, other_value},
    generate::{millis, step},
    repeats,
    values::{message, odd, spoilt_message},
};
use crate::route::{Route, push_query};
use relapse_core::{
    choices::Choices,
    client::step::{Action, ClientName, Request, Step},
    wire::{
        close_code::CloseCode,
        percent::{RESERVED, encoded},
    },
};

/// How many clients do the same: the fewest of which a target tells what is left behind.
const ROUNDS: usize = 3;

/// The names of clients who meet.
const NAMES: [&str; 3] = ["ann", "ben", "cat"];

/// The name of the one that only makes plain requests.
pub(super) const BYSTANDER: &str = "dan";

/// Under which names an answer may tell of what it is about, where it does not use the name that a later request needs.
const OTHER_NAMES: &str = "id|uuid|key|token|slug|name|code|location";

/// The visits of a story.
pub(super) struct Story {
    pub(super) visits: Vec<Vec<Step>>,
    /// Whether a check compares what its clients get.
    pub(super) is_compared: bool,
}

/// Draws a story; `None` where the routes allow none.
pub(super) fn draw(choices: Choices, routes: &[Route]) -> Option<Story> {
    let has_bodies = routes.iter().any(|route| !route.is_websocket && !route.messages.is_empty());
    let kinds = [
        (6, "chain"),
        (4, "meeting"),
        (1, "rounds"),
        (1, "successor"),
        (2, "in pieces"),
        (2, "at once"),
        (2, "twice"),
        (if has_bodies { 4 } else { 0 }, "twins"),
    ];
    let kinds = choices.fork("kind").ranked(kinds.map(|(weight, kind)| (weight, kind, kind)));
    let [first, second, _] = NAMES;
    kinds.into_iter().find_map(|kind| {
        let choices = choices.fork(kind);
        let visits = match kind {
            "chain" => chain(choices, routes),
            "meeting" => meeting(choices, routes),
            "successor" => successor(choices, routes),
            "rounds" => rounds(choices, routes),
            "in pieces" => repeats::in_pieces(choices, routes),
            "at once" => repeats::at_once(choices, routes, [first, second]),
            "twice" => repeats::twice(choices, routes, [first, second]),
            _ => repeats::twins(choices, routes),
        };
        visits
            .map(|visits| Story { visits, is_compared: !matches!(kind, "chain" | "meeting" | "rounds" | "successor") })
    })
}

/// Requests that make something, once or twice, and then requests and sessions that are about it.
fn chain(choices: Choices, routes: &[Route]) -> Option<Vec<Vec<Step>>> {
    let makers = routes.iter().filter(|route| making_method(route).is_some());
    let maker = choices.fork("maker").pick(makers.map(|route| (1, route.to_string(), route)))?;
    let made = choices.fork("made");
    let first = making_request(made.nth(0), maker)?;
    let mut visits = vec![vec![step(Action::Request(first.clone()))]];
    if made.fork("is again").happens(1, 3) {
        let again = made.fork("is the same").happens(1, 2).then_some(first);
        visits.push(vec![step(Action::Request(again.or_else(|| making_request(made.nth(1), maker))?))]);
    }
    let answered = visits.len();
    let followers = choices.fork("followers");
    for number in 0..followers.fork("count").count(1..=4) {
        let choices = followers.nth(number);
        let candidates = routes.iter().map(|route| (kinship(maker, route), route.to_string(), route));
        let route = choices.fork("route").pick(candidates)?;
        let source = choices.fork("source").count(1..=answered);
        visits.push(follow(choices.fork("follow"), route, source));
    }
    Some(visits)
}

/// The method with which a route makes something.
pub(super) fn making_method(route: &Route) -> Option<&str> {
    route.methods.iter().map(String::as_str).find(|method| route.has_body(method))
}

/// How likely one route is about what another one makes: their paths begin alike.
pub(super) fn kinship(maker: &Route, other: &Route) -> u32 {
    let start = |route: &Route| route.path.split('/').find(|part| !part.is_empty()).map(str::to_owned);
    match start(maker) == start(other) {
        true => 6,
        false if other.is_websocket => 2,
        false => 1,
    }
}

/// A request that should make something: with what it must have, with everything, or with other values of the same types.
pub(super) fn making_request(choices: Choices, route: &Route) -> Option<Request> {
    Some(request_with_body(choices, route, making_method(route)?))
}

/// A request with this method whose body is a good one: the least, everything, or with other values of the same types.
fn request_with_body(choices: Choices, route: &Route, method: &str) -> Request {
    let mut request = route.good_request(method);
    let full = if route.full_body.is_empty() { &route.body } else { &route.full_body };
    let variants = [full].into_iter().chain(&route.messages).map(|body| (1, body, body));
    let full = choices.fork("variant").pick(variants).unwrap_or(full);
    match choices.fork("body").weighed(&[(2, "least"), (2, "full"), (4, "other")]) {
        "full" => route.give_body(&mut request, full),
        "other" => {
            route.give_body(&mut request, full);
            give_other_body(choices.fork("other"), route, &mut request);
        }
        _ => {}
    }
    request
}

/// A place for a value of the answer to an earlier request.
pub(super) fn placeholder(source: usize, name: &str) -> String {
    let name: String =
        name.chars().filter(|&character| character.is_ascii_alphanumeric() || character == '_').collect();
    match name.as_str() {
        "" => placeholder_of(source, OTHER_NAMES),
        name => placeholder_of(source, &format!("{name}|{OTHER_NAMES}")),
    }
}

/// A place for the value of the answer to an earlier request that has one of these names.
pub(super) fn placeholder_of(source: usize, names: &str) -> String {
    format!("{{{source}.{names}}}")
}

/// A visit to a route, with values of an earlier answer.
fn follow(choices: Choices, route: &Route, source: usize) -> Vec<Step> {
    let method = choices.fork("method").pick(route.methods.iter().map(|method| (1, method, method.as_str())));
    let mut request = route.good_request(method.unwrap_or("GET"));
    let good = |name: &str| {
        let known = route.params.iter().find(|parameter| parameter.name == name);
        encoded(known.map_or("1", |parameter| &parameter.good).as_bytes(), RESERVED)
    };
    let path = choices.fork("path");
    request.path = route.filled(|name| match path.fork(name).happens(4, 5) {
        true => placeholder(source, name).into_bytes(),
        false => good(name),
    });
    let query = choices.fork("query");
    for parameter in &route.query {
        let choices = query.fork(&parameter.name);
        let value = match choices.fork("value").weighed(&[(3, "none"), (2, "earlier"), (3, "other"), (1, "odd")]) {
            "earlier" => placeholder(source, &parameter.name).into_bytes(),
            "other" => encoded(other_value(choices.fork("other"), route, parameter).as_bytes(), RESERVED),
            "odd" => odd(choices.fork("odd"), route),
            _ => continue,
        };
        push_query(&mut request.query, parameter.name.as_bytes(), &value);
    }
    let variant = choices.fork("variant").pick(route.messages.iter().map(|body| (1, body, body)));
    if let Some(variant) = variant.filter(|_| !request.body.is_empty() && !route.is_websocket)
        && choices.fork("is variant").happens(2, 3)
    {
        route.give_body(&mut request, variant);
    }
    if !request.body.is_empty() && choices.fork("body").happens(1, 2) {
        let body = choices.fork("body value");
        if let Ok(Json::Object(mut entries)) = serde_json::from_slice(&request.body) {
            for (name, value) in &mut entries {
                if value.is_string() && body.fork(name).happens(1, 2) {
                    *value = json!(placeholder(source, name));
                }
            }
            route.give_body(&mut request, &Json::Object(entries).to_string());
        }
    }
    if choices.fork("is admitted").happens(1, 6) {
        let token = format!("Bearer {{{source}.access_token|token|ticket|key}}");
        request.headers.push((b"authorization"[..].into(), token.into()));
        request.headers.sort();
    }
    if !route.is_websocket {
        return vec![step(Action::Request(request))];
    }
    let mut steps = vec![step(Action::Open(request))];
    let said = choices.fork("said");
    steps.extend((0..said.fork("count").count(0..=2)).map(|number| step(speech(said.nth(number), route))));
    steps.push(Step::new(Action::Pause, Duration::from_millis(100)));
    steps.push(step(Action::Close(CloseCode::NORMAL)));
    steps
}

/// Something that a client says on a route: a message that clients sent there, or one of its words.
fn speech(choices: Choices, route: &Route) -> Action {
    let known = choices.fork("known");
    match known.fork("is one").happens(1, 2).then(|| known.pick(route.messages.iter().map(|text| (1, text, text)))) {
        Some(Some(text)) if known.fork("is spoilt").happens(1, 4) => {
            Action::SendText(spoilt_message(known.fork("spoilt"), route, text))
        }
        Some(Some(text)) => Action::SendText(text.clone()),
        _ => message(choices.fork("message"), route),
    }
}

/// Some clients on one route, who come, speak and leave in turn.
fn meeting(choices: Choices, routes: &[Route]) -> Option<Vec<Vec<Step>>> {
    let sockets = routes.iter().filter(|route| route.is_websocket).map(|route| (1, route.to_string(), route));
    let route = choices.fork("route").pick(sockets)?;
    let plain: Vec<&Route> = routes.iter().filter(|route| !route.is_websocket).collect();
    let names = &NAMES[..choices.fork("clients").count(2..=NAMES.len())];
    let apart = choices.fork("are apart").happens(1, 2);
    let own_path = |name: &str| {
        let path = route.filled(|_| name.as_bytes().to_vec());
        Request { path, ..route.good_request("GET") }
    };
    let opening = |name: &str| {
        let has_own = apart && !route.params.is_empty();
        Action::Open(if has_own { own_path(name) } else { route.good_request("GET") })
    };
    let mut visits = vec![act(names[0], opening(names[0])), act(names[1], opening(names[1]))];
    let acts = choices.fork("acts");
    for number in 0..acts.fork("count").count(3..=8) {
        let choices = acts.nth(number);
        let name = choices.fork("client").one(names);
        let kinds = [
            (5, "speaks"),
            (2, "leaves"),
            (1, "resets"),
            (1, "closes"),
            (2, "opens"),
            (2, "waits"),
            (if plain.is_empty() { 0 } else { 3 }, "asks"),
        ];
        visits.push(match choices.fork("kind").weighed(&kinds) {
            "speaks" => act(name, speech(choices.fork("speech"), route)),
            "leaves" => act(name, Action::Leave),
            "resets" => act(name, Action::Reset),
            "closes" => act(name, Action::Close(CloseCode::NORMAL)),
            "opens" => act(name, opening(name)),
            "waits" => {
                let time = millis(choices.fork("time"), &[100, 1500, 6000, 35_000]);
                vec![Step { client: Some(ClientName(name.to_owned())), ..Step::new(Action::Pause, time) }]
            }
            _ => {
                let asked = choices.fork("asked");
                let route = asked.pick(plain.iter().map(|route| (1, route.to_string(), *route)))?;
                act(BYSTANDER, Action::Request(plain_request(asked, route)))
            }
        });
    }
    Some(visits)
}

/// Clients who come to one route, do the same there, and leave, one after the other: what is left of each adds up.
fn rounds(choices: Choices, routes: &[Route]) -> Option<Vec<Vec<Step>>> {
    let can_be_left = |route: &&Route| route.is_websocket || route.takes("GET");
    let weighed = |route: &Route| if route.is_websocket { 4 } else { 1 };
    let candidates = routes.iter().filter(can_be_left).map(|route| (weighed(route), route.to_string(), route));
    let route = choices.fork("route").pick(candidates)?;
    let good = route.good_request("GET");
    if !route.is_websocket {
        let give_up = millis(choices.fork("give up"), &[100, 1000]);
        let request = Request { give_up: Some(give_up), ..good };
        return Some(vec![vec![step(Action::Request(request))]; ROUNDS]);
    }
    // Names that no earlier client had.
    let (are_apart, name) = (choices.fork("are apart").happens(2, 3), choices.fork("name").within(0..=0x00ff_ffff));
    let said = said(choices.fork("said"), route);
    let ending = choices.fork("ending").weighed(&[(2, "leave"), (1, "reset"), (1, "close")]);
    let ending = match ending {
        "leave" => Action::Leave,
        "reset" => Action::Reset,
        _ => Action::Close(CloseCode::NORMAL),
    };
    let round = |number: usize| {
        let path = match are_apart {
            true => route.filled(|_| format!("r{name:x}n{number}").into_bytes()),
            false => good.path.clone(),
        };
        let mut steps = vec![step(Action::Open(Request { path, ..good.clone() }))];
        steps.extend(said.iter().cloned().map(step));
        steps.push(Step::new(Action::Pause, Duration::from_millis(100)));
        steps.push(step(ending.clone()));
        steps
    };
    Some((0..ROUNDS).map(round).collect())
}

/// A client who leaves in the middle of a request, and another one who makes the same request: the first must not keep what
/// the second needs.
fn successor(choices: Choices, routes: &[Route]) -> Option<Vec<Vec<Step>>> {
    let plain = routes.iter().filter(|route| !route.is_websocket).map(|route| (1, route.to_string(), route));
    let route = choices.fork("route").pick(plain)?;
    let method = choices.fork("method").pick(route.methods.iter().map(|method| (1, method, method.as_str())))?;
    let whole = match route.has_body(method) {
        true => request_with_body(choices.fork("request"), route, method),
        false => route.good_request(method),
    };
    let give_up = millis(choices.fork("give up"), &[1, 10, 100, 1000]);
    let left = Request { give_up: Some(give_up), ..whole.clone() };
    Some([left, whole].map(|request| vec![step(Action::Request(request))]).to_vec())
}

/// The words of clients in each round: the messages that clients send there, from the first one on, or words.
fn said(choices: Choices, route: &Route) -> Vec<Action> {
    let known = choices.fork("known");
    let count = choices.fork("count");
    if route.messages.is_empty() || known.happens(1, 3) {
        return (0..count.count(0..=2)).map(|number| speech(choices.nth(number), route)).collect();
    }
    route.messages[..count.count(1..=route.messages.len())].iter().cloned().map(Action::SendText).collect()
}

/// A request that a route should serve, with everything that it takes or with as little as possible.
pub(super) fn plain_request(choices: Choices, route: &Route) -> Request {
    let method = choices.fork("method").pick(route.methods.iter().map(|method| (1, method, method.as_str())));
    let mut request = route.good_request(method.unwrap_or("GET"));
    if !request.body.is_empty() && !route.full_body.is_empty() && choices.fork("is full").happens(1, 2) {
        route.give_body(&mut request, &route.full_body);
    }
    request
}

/// A visit in which a client does one thing.
pub(super) fn act(name: &str, act: Action) -> Vec<Step> {
    vec![Step { client: Some(ClientName(name.to_owned())), ..step(act) }]
}
