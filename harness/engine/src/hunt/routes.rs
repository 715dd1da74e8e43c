//! Draws visits of an application by its own routes: requests that should be accepted, and variants of them with a part
//! that is missing, empty, doubled, too long, of another type, or no text.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::generate::{LIMIT, header, one};
use crate::route::{Parameter, Route, push_query};
use relapse_core::{
    client::{
        credential::Credential,
        step::{Action, DEFAULT_LIMIT, Request, Step},
    },
    wire::{
        close_code::CloseCode,
        percent::{RESERVED, encoded},
    },
};

/// Values that no parameter takes: as they stand in a path or a query, percent-encoded.
const ODD: [&[u8]; 20] = [
    b"",
    b"%20",
    b"abc",
    b"-1",
    b"0",
    b"99999999999999999999999",
    b"1e999",
    b"NaN",
    b"null",
    b"true",
    b"%5B%5D",
    b"%7B%22a%22:1%7D",
    b"%00",
    b"%ff%fe",
    b"%zz",
    b"%C3%A9%F0%9F%92%A5",
    b"%2E%2E%2F",
    b"%27%20OR%201=1",
    b"2026-13-45",
    b"a,b",
];

/// Values that no header takes.
const ODD_HEADERS: [&[u8]; 8] = [b"", b" ", b"abc", b"-1", b"\xff\xfe", b"caf\xc3\xa9", b"Bearer", b"a, b; c=\"d"];

/// More bytes than any application wants in a parameter, and in a body.
const LONG: usize = 9000;
const LONG_BODY: usize = 200_000;

/// A step, with the time that it may take.
fn step(act: Action) -> Step {
    let waits = !matches!(act, Action::SendText(_) | Action::SendBytes(_));
    Step::new(act, if waits { LIMIT } else { DEFAULT_LIMIT })
}

fn pause(time: Duration) -> Step {
    Step::new(Action::Pause, time)
}

/// A visit of a route.
pub(super) fn visit(chance: &mut Rng, route: &Route) -> Vec<Step> {
    if route.is_websocket { session(chance, route) } else { vec![step(Action::Request(request(chance, route)))] }
}

fn session(chance: &mut Rng, route: &Route) -> Vec<Step> {
    let mut request = asked(chance, route, "GET");
    if chance.u8(..4) == 0 {
        let offer = one(chance, &["chat", "graphql-ws", "v1.json"]);
        request.offers = vec![word(chance, route).filter(|_| chance.bool()).unwrap_or(offer.to_owned())];
    }
    let mut steps = vec![step(Action::Open(request))];
    steps.extend(said(chance, &route.messages).into_iter().map(|text| step(Action::SendText(text))));
    for _ in 0..chance.usize(..=3) {
        match chance.u8(..4) {
            0 => steps.push(pause(Duration::from_millis(one(chance, &[1, 100, 1000, 35_000])))),
            _ => steps.push(step(message(chance, &route.words))),
        }
    }
    // So that it can be answered before the client goes.
    if chance.bool() {
        steps.push(pause(Duration::from_millis(100)));
    }
    steps.push(step(match chance.u8(..8) {
        0..=3 => Action::Close(CloseCode::NORMAL),
        4 => Action::Close(one(chance, &[CloseCode::GOING_AWAY, CloseCode(3000), CloseCode(4999)])),
        _ => Action::Leave,
    }));
    steps
}

/// A client's earlier messages there, from its first word on; in one message something may be missing or of another
/// type.
fn said(chance: &mut Rng, messages: &[String]) -> Vec<String> {
    if messages.is_empty() || chance.u8(..4) == 0 {
        return Vec::new();
    }
    let mut said = messages[..chance.usize(1..=messages.len())].to_vec();
    if chance.bool() {
        let at = chance.usize(..said.len());
        said[at] = match serde_json::from_str(&said[at]) {
            Ok(value) => spoilt(chance, value).to_string(),
            Err(_) => said[at].chars().take(said[at].len() / 2).collect(),
        };
    }
    said
}

fn request(chance: &mut Rng, route: &Route) -> Request {
    let method = match (chance.u8(..16), route.methods.as_slice()) {
        (0, _) => one(chance, &["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PROPFIND"]).to_owned(),
        (_, []) => "GET".to_owned(),
        (_, methods) => one(chance, methods),
    };
    let mut request = asked(chance, route, &method);
    if route.has_body(&method) && !route.full_body.is_empty() && chance.u8(..3) == 0 {
        route.give_body(&mut request, &route.full_body);
    }
    if route.has_body(&method) && chance.bool() {
        spoil_body(chance, route, &mut request);
    }
    if chance.u8(..16) == 0 {
        request.give_up = Some(Duration::from_millis(one(chance, &[1, 100, 4000])));
    }
    request
}

/// A request that should be let in, or one with something odd about it.
fn asked(chance: &mut Rng, route: &Route, method: &str) -> Request {
    let mut request = route.good_request(method);
    for Parameter { name, good, .. } in route.query.iter().filter(|parameter| !parameter.is_required) {
        if chance.u8(..4) == 0 {
            push_query(&mut request.query, name.as_bytes(), &encoded(good.as_bytes(), RESERVED));
        }
    }
    if request.query.is_empty()
        && chance.u8(..4) == 0
        && let Some(name) = word(chance, route)
    {
        let value = word(chance, route).unwrap_or_default();
        push_query(&mut request.query, name.as_bytes(), &encoded(value.as_bytes(), RESERVED));
    }
    if chance.u8(..8) == 0 {
        request.credential = one(chance, &Credential::ALL);
    }
    for _ in 0..one(chance, &[0, 0, 1, 1, 1, 2]) {
        spoil(chance, route, &mut request);
    }
    request.headers.sort();
    request
}

fn word(chance: &mut Rng, route: &Route) -> Option<String> {
    (!route.words.is_empty()).then(|| one(chance, &route.words))
}

/// Makes something about a request odd.
fn spoil(chance: &mut Rng, route: &Route, request: &mut Request) {
    match chance.u8(..12) {
        0..=4 => spoil_query(chance, route, request),
        5..=6 if !route.params.is_empty() || route.path.contains('{') => {
            let odd = odd(chance);
            request.path = route.filled(|_| odd.clone());
        }
        5..=8 => spoil_header(chance, route, request),
        9 => request.path.push(b'/'),
        10 => {
            request.query = one(chance, &[&b"%"[..], b"%zz&=&%", b"caf\xc3\xa9=\xff", b"&&==&", b"a=%ff%fe"]).to_vec()
        }
        _ => header(chance, request),
    }
}

fn odd(chance: &mut Rng) -> Vec<u8> {
    if chance.u8(..16) == 0 { vec![b'a'; LONG] } else { one(chance, &ODD).to_vec() }
}

/// Leaves a parameter of the query out, empties, doubles or changes it; or adds one that the code names.
fn spoil_query(chance: &mut Rng, route: &Route, request: &mut Request) {
    let mut pairs: Vec<Vec<u8>> =
        request.query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).map(<[u8]>::to_vec).collect();
    let known = route.query.iter().map(|parameter| parameter.name.clone()).collect::<Vec<_>>();
    if pairs.is_empty() || chance.u8(..4) == 0 {
        let named = if known.is_empty() { word(chance, route) } else { Some(one(chance, &known)) };
        let name = encoded(named.unwrap_or_else(|| "a".to_owned()).as_bytes(), RESERVED);
        let mut pair = [name, b"=".to_vec(), odd(chance)].concat();
        if chance.u8(..8) == 0 {
            pair.truncate(pair.iter().position(|&byte| byte == b'=').unwrap_or_default());
        }
        pairs.push(pair);
    } else {
        let at = chance.usize(..pairs.len());
        let name = pairs[at].split(|&byte| byte == b'=').next().unwrap_or_default().to_vec();
        match chance.u8(..4) {
            0 => drop(pairs.remove(at)),
            1 => pairs.push([name, b"=".to_vec(), odd(chance)].concat()),
            _ => pairs[at] = [name, b"=".to_vec(), odd(chance)].concat(),
        }
    }
    request.query = pairs.join(&b'&');
}

/// Leaves a header that the route reads out, or changes it; or a cookie.
fn spoil_header(chance: &mut Rng, route: &Route, request: &mut Request) {
    let mut names: Vec<String> = route.headers.iter().map(|parameter| parameter.name.clone()).collect();
    if !route.cookies.is_empty() {
        names.push("cookie".to_owned());
    }
    if names.is_empty() {
        return header(chance, request);
    }
    let name = one(chance, &names);
    request.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes()));
    if chance.bool() {
        let value = match (name.as_str(), route.cookies.first()) {
            ("cookie", Some(cookie)) => [cookie.name.as_bytes(), b"=", one(chance, &ODD_HEADERS)].concat(),
            _ => one(chance, &ODD_HEADERS).to_vec(),
        };
        request.headers.push((Bytes::from(name), value.into()));
    }
}

/// Makes the body of a request odd.
fn spoil_body(chance: &mut Rng, route: &Route, request: &mut Request) {
    let good = request.body.clone();
    let kind = route.content_type.split(';').next().unwrap_or_default();
    let is_json = kind.is_empty() || kind == "application/json";
    if route.content_type.starts_with("multipart/") && chance.u8(..4) != 0 {
        return spoil_parts(chance, route, request);
    }
    request.body = match chance.u8(..12) {
        0 => Vec::new(),
        1 => good[..good.len() / 2].to_vec(),
        2 => [&good[..], b"\xff\xfe"].concat(),
        3 => b"[".repeat(2000),
        4 if is_json => serde_json::to_vec(&json!("a".repeat(LONG_BODY))).unwrap_or_default(),
        4 => vec![b'a'; LONG_BODY],
        5 => one(chance, &[&b"null"[..], b"[]", b"{}", b"\"\"", b"1e999", b"NaN", b"{\"a\":1,\"a\":2}"]).to_vec(),
        6 => b"a=1&a=%ff&=".to_vec(),
        _ if !is_json => [&good[..], b"&", one(chance, &ODD)].concat(),
        _ => {
            let value = serde_json::from_slice(&good).unwrap_or_else(|_| object(chance, &route.words));
            serde_json::to_vec(&spoilt(chance, value)).unwrap_or_default()
        }
    };
    if chance.u8(..8) == 0 {
        let odd = one(chance, &["", "text/plain", "application/json; charset=\"", "multipart/form-data", "a/b/c"]);
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-type"));
        request.headers.push((b"content-type"[..].into(), odd.into()));
        request.headers.sort();
    }
}

/// Makes a form of parts odd: a part missing, doubled, without its name, or with a file without a name or content; the
/// end missing; another boundary, or none.
fn spoil_parts(chance: &mut Rng, route: &Route, request: &mut Request) {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let boundary = route.content_type.split_once("boundary=").map_or("", |(_, boundary)| boundary);
    let delimiter = format!("--{boundary}\r\n");
    let end = format!("--{boundary}--\r\n");
    let whole = text.strip_suffix(&end).unwrap_or(&text);
    let mut parts: Vec<String> = whole.split(&delimiter).skip(1).map(str::to_owned).collect();
    let at = if parts.is_empty() { 0 } else { chance.usize(..parts.len()) };
    let mut says = route.content_type.clone();
    let mut last = end.clone();
    match (chance.u8(..9), parts.get_mut(at)) {
        (0, Some(_)) => drop(parts.remove(at)),
        (1, Some(part)) => *part = part.replace("filename=\"a.txt\"", "filename=\"\""),
        (2, Some(part)) => {
            let content = part.find("\r\n\r\n").map_or(part.len(), |start| start + 4);
            *part = [&part[..content], "\r\n"].concat();
        }
        (3, Some(part)) => *part = part.replace("; name=", "; nome="),
        (4, Some(part)) => {
            let twice = part.clone();
            parts.push(twice);
        }
        (5, _) => last.clear(),
        (6, _) => last.truncate(end.len() / 2),
        (7, _) => says = "multipart/form-data; boundary=another".to_owned(),
        _ => says = one(chance, &["multipart/form-data", "application/x-www-form-urlencoded"]).to_owned(),
    }
    let body: String = parts.iter().map(|part| delimiter.clone() + part).collect();
    route.give_body(request, &(body + &last));
    for (name, value) in &mut request.headers {
        if name.eq_ignore_ascii_case(b"content-type") {
            *value = says.clone().into();
        }
    }
}

/// A value with something in it missing or of another type.
fn spoilt(chance: &mut Rng, value: Json) -> Json {
    match value {
        Json::Object(mut entries) if !entries.is_empty() => {
            let names: Vec<String> = entries.keys().cloned().collect();
            let name = one(chance, &names);
            match (chance.u8(..3), entries.remove(&name)) {
                (0, _) | (_, None) => {}
                (1, Some(inner)) if inner.is_object() || inner.is_array() => {
                    drop(entries.insert(name, spoilt(chance, inner)));
                }
                _ => drop(entries.insert(name, scalar(chance))),
            }
            Json::Object(entries)
        }
        Json::Array(mut items) if !items.is_empty() => {
            let at = chance.usize(..items.len());
            items[at] = spoilt(chance, items[at].take());
            Json::Array(items)
        }
        _ => scalar(chance),
    }
}

fn scalar(chance: &mut Rng) -> Json {
    let some = [
        Json::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(9_007_199_254_740_993_u64),
        json!(""),
        json!("a"),
        json!("1"),
        json!("\u{0}\u{2028}\u{1f4a5}"),
        json!([]),
        json!([null]),
        json!({}),
        json!({ "a": null }),
    ];
    one(chance, &some)
}

/// An object with the words of a route.
fn object(chance: &mut Rng, words: &[String]) -> Json {
    let mut entries = serde_json::Map::new();
    for number in 0..chance.usize(1..=3) {
        let key = match words {
            [] => "type".to_owned(),
            _ if number == 0 && words.iter().any(|word| word == "type") && chance.bool() => "type".to_owned(),
            words => one(chance, words),
        };
        let value = if words.is_empty() || chance.u8(..3) == 0 { scalar(chance) } else { json!(one(chance, words)) };
        entries.insert(key, value);
    }
    Json::Object(entries)
}

/// A message with an unknown effect on the application.
fn message(chance: &mut Rng, words: &[String]) -> Action {
    Action::SendText(match chance.u8(..16) {
        0..=6 => object(chance, words).to_string(),
        7 => words.get(chance.usize(..words.len().max(1))).cloned().unwrap_or_else(|| "hello".to_owned()),
        8 => String::new(),
        9 => "not json".to_owned(),
        10 => "[1,2]".to_owned(),
        11 => scalar(chance).to_string(),
        12 => format!("{{\"type\":\"{}\"}}", "a".repeat(LONG)),
        13 => "\"\\ud800\"".to_owned(),
        14 => return Action::SendBytes(object(chance, words).to_string().into_bytes()),
        _ => return Action::SendBytes(b"\x00\xff".to_vec()),
    })
}
