//! Translates abstract cases into visits of an application by its own routes: requests that should be accepted, and
//! variants of them with a part that is missing, empty, doubled, too long, of another type, or no text.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::alike::{give_other_body, with_other_parameters};
use super::generate::{Oddity, PlainRequest, Session, give_header, header, millis, one_of, step};
use super::values::{message, odd, spoilt_body, spoilt_message, spoilt_pairs, word};
use crate::route::{Parameter, Route, push_query};
use relapse_core::{
    choices::Choices,
    client::{
        credential::Credential,
        step::{Action, Request, Step},
    },
    wire::percent::{RESERVED, encoded},
};

/// Values that no header takes.
const ODD_HEADERS: [&[u8]; 8] = [b"", b" ", b"abc", b"-1", b"\xff\xfe", b"caf\xc3\xa9", b"Bearer", b"a, b; c=\"d"];

/// More bytes than any application wants in a body.
const LONG_BODY: usize = 200_000;

/// A session on a route for WebSockets, or a plain request to any other.
pub(super) fn session(session: &Session, route: &Route) -> Vec<Step> {
    let choices = session.choices.fork("on route");
    if !route.is_websocket {
        return vec![step(Action::Request(request_with(choices, route, Oddity::Plain)))];
    }
    let mut request = asked(choices.fork("request"), route, "GET");
    let offers = choices.fork("offers");
    if offers.fork("is given").happens(1, 4) {
        let is_own = offers.fork("is own").happens(1, 2);
        let own = match route.subprotocols.as_slice() {
            [] => word(offers.fork("word"), route).filter(|_| is_own),
            known => Some(offers.fork("known").one(known)),
        };
        request.offers = vec![own.unwrap_or_else(|| offers.one(&["chat", "graphql-ws", "v1.json"]).to_owned())];
    }
    let mut steps = vec![step(Action::Open(request))];
    steps.extend(said(choices.fork("said"), route).into_iter().map(|text| step(Action::SendText(text))));
    let further = choices.fork("further");
    steps.extend((0..further.fork("count").count(0..=3)).map(|number| further_step(further.nth(number), route)));
    // So that it can be answered before the client goes.
    if choices.fork("waits").happens(1, 2) {
        steps.push(Step::new(Action::Pause, Duration::from_millis(100)));
    }
    steps.push(step(session.ending.clone()));
    steps
}

/// A plain request to a route.
pub(super) fn request(asked: &PlainRequest, route: &Route) -> Vec<Step> {
    vec![step(Action::Request(request_with(asked.choices.fork("on route"), route, asked.oddity)))]
}

fn further_step(choices: Choices, route: &Route) -> Step {
    if choices.fork("is pause").happens(1, 4) {
        return Step::new(Action::Pause, millis(choices.fork("pause"), &[1, 100, 1000, 35_000]));
    }
    step(message(choices.fork("message"), route))
}

/// A client's earlier messages there, from its first word on; in one message something may be missing or of another
/// type.
fn said(choices: Choices, route: &Route) -> Vec<String> {
    let messages = &route.messages;
    if messages.is_empty() || choices.fork("nothing").happens(1, 4) {
        return Vec::new();
    }
    let mut said = messages[..choices.fork("count").count(1..=messages.len())].to_vec();
    let spoilt_one = choices.fork("spoilt");
    if spoilt_one.fork("is one").happens(1, 2) {
        let at = spoilt_one.fork("at").count(0..=said.len() - 1);
        said[at] = spoilt_message(spoilt_one, route, &said[at]);
    }
    said
}

fn request_with(choices: Choices, route: &Route, oddity: Oddity) -> Request {
    const METHODS: [&str; 6] = ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PROPFIND"];
    let method = choices.fork("method");
    let method = match (oddity, route.methods.as_slice()) {
        (Oddity::Method, _) => method.one(&METHODS).to_owned(),
        (_, []) => "GET".to_owned(),
        (_, methods) => method.one(methods),
    };
    let mut request = asked(choices.fork("request"), route, &method);
    if route.has_body(&method) {
        if !route.full_body.is_empty() && choices.fork("full body").happens(1, 2) {
            route.give_body(&mut request, &route.full_body);
        }
        if !route.messages.is_empty() && choices.fork("other body").happens(1, 2) {
            route.give_body(&mut request, &choices.fork("which body").one(&route.messages));
        }
        if choices.fork("other values").happens(1, 2) {
            give_other_body(choices.fork("alike"), route, &mut request);
        }
        if choices.fork("odd body").happens(1, 2) {
            spoil_body(choices.fork("body"), route, &mut request);
        }
    }
    if let Oddity::GiveUp(time) = oddity {
        request.give_up = Some(time);
    }
    request
}

/// A request that should be let in, or one with something odd about it.
fn asked(choices: Choices, route: &Route, method: &str) -> Request {
    let other = choices.fork("other values");
    let route = match other.fork("are given").happens(1, 2) && route.has_parameters() {
        true => &with_other_parameters(other, route),
        false => route,
    };
    let mut request = route.good_request(method);
    give_optional(choices.fork("optional"), route, &mut request);
    let guessed = choices.fork("guessed");
    if request.query.is_empty()
        && guessed.fork("is given").happens(1, 3)
        && let Some(name) = word(guessed.fork("name"), route)
    {
        let value = word(guessed.fork("value"), route).unwrap_or_default();
        let value = match guessed.fork("is odd").happens(1, 2) {
            true => odd(guessed.fork("odd"), route),
            false => encoded(value.as_bytes(), RESERVED),
        };
        push_query(&mut request.query, name.as_bytes(), &value);
    }
    let credential = choices.fork("credential");
    if credential.fork("is another").happens(1, 8) {
        request.credential = one_of(credential, &Credential::ALL);
    }
    let odd = choices.fork("odd");
    for number in 0..odd.fork("count").weighed(&[(2, 0_usize), (3, 1), (1, 2)]) {
        spoil(odd.nth(number), route, &mut request);
    }
    request.headers.sort();
    request
}

/// Gives a request some of the parameters that its route can do without.
fn give_optional(choices: Choices, route: &Route, request: &mut Request) {
    let given = |parameters: &'_ [Parameter], place: &str| {
        let choices = choices.fork(place);
        let optional = parameters.iter().filter(|parameter| !parameter.is_required);
        optional.filter(|parameter| choices.fork(&parameter.name).happens(1, 3)).cloned().collect::<Vec<Parameter>>()
    };
    for Parameter { name, good, .. } in given(&route.query, "query") {
        push_query(&mut request.query, name.as_bytes(), &encoded(good.as_bytes(), RESERVED));
    }
    for Parameter { name, good, .. } in given(&route.headers, "header") {
        request.headers.push((Bytes::from(name), Bytes::from(good)));
    }
    let has_cookies = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"cookie"));
    let cookies = given(&route.cookies, "cookie");
    if !has_cookies && !cookies.is_empty() {
        let pairs: Vec<String> = cookies.iter().map(|Parameter { name, good, .. }| format!("{name}={good}")).collect();
        request.headers.push((Bytes::from_static(b"cookie"), Bytes::from(pairs.join("; "))));
    }
}

/// Makes something about a request odd.
fn spoil(choices: Choices, route: &Route, request: &mut Request) {
    const QUERIES: [&[u8]; 5] = [b"%", b"%zz&=&%", b"caf\xc3\xa9=\xff", b"&&==&", b"a=%ff%fe"];
    let has_parameters = !route.params.is_empty() || route.path.contains('{');
    let parts = [
        (5, "query"),
        (if has_parameters { 2 } else { 0 }, "path"),
        (if has_parameters { 2 } else { 4 }, "route's header"),
        (1, "slash"),
        (1, "whole query"),
        (1, "header"),
    ];
    let part = choices.fork("part").weighed(&parts);
    let choices = choices.fork(part);
    match part {
        "query" => request.query = spoilt_pairs(choices, route, &request.query),
        "path" => {
            let odd = odd(choices, route);
            request.path = route.filled(|_| odd.clone());
        }
        "route's header" => spoil_header(choices, route, request),
        "slash" => request.path.push(b'/'),
        "whole query" => request.query = choices.one(&QUERIES).to_vec(),
        _ => give_header(request, header(choices)),
    }
}

/// Leaves a header that the route reads out, or changes it; or a cookie.
fn spoil_header(choices: Choices, route: &Route, request: &mut Request) {
    let mut names: Vec<String> = route.headers.iter().map(|parameter| parameter.name.clone()).collect();
    if !route.cookies.is_empty() {
        names.push("cookie".to_owned());
    }
    if names.is_empty() {
        return give_header(request, header(choices));
    }
    let name = choices.fork("name").one(&names);
    request.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes()));
    if choices.fork("is there").happens(1, 2) {
        let odd = choices.fork("value").one(&ODD_HEADERS);
        let value = match (name.as_str(), route.cookies.first()) {
            ("cookie", Some(cookie)) => [cookie.name.as_bytes(), b"=", odd].concat(),
            _ => odd.to_vec(),
        };
        request.headers.push((Bytes::from(name), value.into()));
    }
}

/// Makes the body of a request odd.
fn spoil_body(choices: Choices, route: &Route, request: &mut Request) {
    if route.content_type.starts_with("multipart/") && choices.fork("parts").happens(3, 4) {
        return spoil_parts(choices.fork("part"), route, request);
    }
    if route.content_type.ends_with("urlencoded") && choices.fork("as parts").happens(1, 6) {
        return give_parts(request);
    }
    request.body = odd_body(choices, route, &request.body);
    let kind = choices.fork("type");
    if kind.fork("is another").happens(1, 8) {
        let odd = kind.one(&["", "text/plain", "application/json; charset=\"", "multipart/form-data", "a/b/c"]);
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-type"));
        request.headers.push((b"content-type"[..].into(), odd.into()));
        request.headers.sort();
    }
}

fn odd_body(choices: Choices, route: &Route, good: &[u8]) -> Vec<u8> {
    const JSON: [&[u8]; 7] = [b"null", b"[]", b"{}", b"\"\"", b"1e999", b"NaN", b"{\"a\":1,\"a\":2}"];
    let kind = route.content_type.split(';').next().unwrap_or_default();
    let is_json = kind.is_empty() || kind == "application/json";
    let forms =
        [(1, "none"), (1, "half"), (1, "not text"), (1, "deep"), (1, "long"), (1, "JSON"), (1, "form"), (5, "changed")];
    let form = choices.fork("form").weighed(&forms);
    let choices = choices.fork(form);
    match form {
        "none" => Vec::new(),
        "half" => good[..good.len() / 2].to_vec(),
        "not text" => [good, b"\xff\xfe"].concat(),
        "deep" => b"[".repeat(2000),
        "long" if is_json => serde_json::to_vec(&json!("a".repeat(LONG_BODY))).unwrap_or_default(),
        "long" => vec![b'a'; LONG_BODY],
        "JSON" => choices.one(&JSON).to_vec(),
        "form" => b"a=1&a=%ff&=".to_vec(),
        _ if is_json => spoilt_body(choices, route, good),
        _ if kind.ends_with("urlencoded") => spoilt_pairs(choices, route, good),
        _ => [good, b"&", &odd(choices, route)].concat(),
    }
}

/// Writes an urlencoded form as a form of parts (RFC 7578), which clients may send to the same route.
fn give_parts(request: &mut Request) {
    const BOUNDARY: &str = "relapse-form-boundary";
    let pairs = form_urlencoded::parse(&request.body);
    let parts = pairs.map(|(name, value)| {
        let name = name.replace('"', "%22");
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    });
    request.body = (parts.collect::<String>() + &format!("--{BOUNDARY}--\r\n")).into_bytes();
    request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-type"));
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    request.headers.push((b"content-type"[..].into(), kind.into()));
    request.headers.sort();
}

/// Stands for a letter of Latin-1 that is no UTF-8, while a body is text.
const LATIN_LETTER: char = '\u{e0e9}';

/// The body with that letter as its byte.
fn with_latin_letter(body: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(body) {
        Ok(text) => text.split(LATIN_LETTER).map(str::as_bytes).collect::<Vec<_>>().join(&0xe9),
        Err(error) => error.into_bytes(),
    }
}

/// Names of files: without an end, without a beginning, with several ends, with a path, and none.
const FILE_NAMES: [(u32, &str); 8] =
    [(2, ""), (2, "README"), (1, ".txt"), (1, "a."), (1, "a.b.c"), (1, "\u{e9}.txt"), (1, "../a.txt"), (1, "a b.TXT")];

/// Makes a form of parts odd: a part missing, doubled, changed, without its name, or with a file without a name or content;
/// the end missing; another boundary, or none.
fn spoil_parts(choices: Choices, route: &Route, request: &mut Request) {
    const CHANGES: [(u32, &str); 11] = [
        (2, "missing"),
        (1, "odd content"),
        (4, "file name"),
        (3, "no content"),
        (1, "not UTF-8"),
        (1, "no name"),
        (1, "doubled"),
        (1, "no end"),
        (1, "half an end"),
        (1, "boundary"),
        (1, "type"),
    ];
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let boundary = route.content_type.split_once("boundary=").map_or("", |(_, boundary)| boundary);
    let delimiter = format!("--{boundary}\r\n");
    let end = format!("--{boundary}--\r\n");
    let whole = text.strip_suffix(&end).unwrap_or(&text);
    let mut parts: Vec<String> = whole.split(&delimiter).skip(1).map(str::to_owned).collect();
    let at = choices.fork("at").count(0..=parts.len().saturating_sub(1));
    let mut says = route.content_type.clone();
    let mut last = end.clone();
    match (choices.fork("change").weighed(&CHANGES), parts.get_mut(at)) {
        ("missing", Some(_)) => drop(parts.remove(at)),
        ("file name", Some(part)) => {
            let name = choices.fork("file name").weighed(&FILE_NAMES);
            *part = part.replace("filename=\"a.txt\"", &format!("filename=\"{name}\""));
        }
        ("odd content", Some(part)) => {
            let odd = odd(choices.fork("content"), route);
            *part = [&part[..content_of(part)], &String::from_utf8_lossy(&odd), "\r\n"].concat();
        }
        ("no content", Some(part)) => *part = [&part[..content_of(part)], "\r\n"].concat(),
        ("not UTF-8", Some(part)) => part.insert(content_of(part), LATIN_LETTER),
        ("no name", Some(part)) => *part = part.replace("; name=", "; nome="),
        ("doubled", Some(part)) => {
            let twice = part.clone();
            parts.push(twice);
        }
        ("no end", _) => last.clear(),
        ("half an end", _) => last.truncate(end.len() / 2),
        ("boundary", _) => says = "multipart/form-data; boundary=another".to_owned(),
        _ => {
            let types = ["multipart/form-data", "application/x-www-form-urlencoded"];
            says = choices.fork("type").one(&types).to_owned();
        }
    }
    let body: String = parts.iter().map(|part| delimiter.clone() + part).collect();
    route.give_body(request, &(body + &last));
    request.body = with_latin_letter(std::mem::take(&mut request.body));
    for (name, value) in &mut request.headers {
        if name.eq_ignore_ascii_case(b"content-type") {
            *value = says.clone().into();
        }
    }
}

/// Where the content of a part of a form begins.
fn content_of(part: &str) -> usize {
    part.find("\r\n\r\n").map_or(part.len(), |start| start + 4)
}
