//! Draws values that an application does not expect: in parameters, in JSON, and as messages. Some are near numbers that its
//! code names.

use relapse_core::{
    choices::Choices,
    client::step::Action,
    wire::percent::{RESERVED, decoded_text, encoded},
};
use serde_json::{Value as Json, json};

use super::alike::{alike, name_and_value, near};
use crate::route::Route;

/// Values that no parameter takes: as they stand in a path or a query, percent-encoded.
const ODD: [&[u8]; 23] = [
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
    b"2026-01-02",
    b"2026-01-02T03:04:05",
    b"%C3%A9",
    b"a,b",
];

/// More bytes than any application wants in a parameter.
const LONG: usize = 9000;

/// One more digit than Python converts by default (`sys.int_info.default_max_str_digits`).
const TOO_MANY_DIGITS: usize = 4301;

/// Starts a text that stands for a value which `serde_json` does not hold; `written` puts the value in its place.
const STAND_IN: char = '\u{e0eb}';

/// Values that many readers of JSON take and `serde_json` does not hold: numbers that are none, one that is too long, and
/// text with half of a surrogate pair.
fn literals() -> [String; 5] {
    ["NaN", "-Infinity", "1e999", &"1".repeat(TOO_MANY_DIGITS), r#""\ud800""#].map(str::to_owned)
}

/// The text of a value, with the literals in the place of those texts that stand for them.
pub(super) fn written(value: &Json) -> String {
    let text = value.to_string();
    if !text.contains(STAND_IN) {
        return text;
    }
    literals().iter().enumerate().fold(text, |text, (number, literal)| text.replace(&stand_in(number), literal))
}

fn stand_in(number: usize) -> String {
    format!("\"{STAND_IN}{number}\"")
}

/// A value of a parameter that the route does not expect, percent-encoded.
pub(super) fn odd(choices: Choices, route: &Route) -> Vec<u8> {
    if choices.fork("is long").happens(1, 16) {
        return vec![b'a'; LONG];
    }
    match choices.fork("is near").happens(1, 4).then(|| near(choices, route)).flatten() {
        Some(number) => number.to_string().into_bytes(),
        None => choices.one(&ODD).to_vec(),
    }
}

/// Some pairs of names and values as in a query, with one left out, empty, doubled or changed, or with one that the code
/// names.
pub(super) fn spoilt_pairs(choices: Choices, route: &Route, pairs: &[u8]) -> Vec<u8> {
    let mut pairs: Vec<Vec<u8>> =
        pairs.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).map(<[u8]>::to_vec).collect();
    if pairs.is_empty() || choices.fork("is new").happens(1, 4) {
        pairs.push(new_pair(choices.fork("new"), route));
    } else {
        let at = choices.fork("at").count(0..=pairs.len() - 1);
        let (name, good) = name_and_value(&pairs[at]);
        let value = choices.fork("value");
        let value = match value.fork("is alike").happens(1, 3) {
            true => encoded(alike(value, route, &decoded_text(good)).as_bytes(), RESERVED),
            false => odd(value, route),
        };
        let changed = [name, b"=", &value].concat();
        match choices.fork("change").weighed(&[(1, "remove"), (1, "double"), (2, "change")]) {
            "remove" => drop(pairs.remove(at)),
            "double" => pairs.push(changed),
            _ => pairs[at] = changed,
        }
    }
    pairs.join(&b'&')
}

/// A parameter that the route knows, or that its code names, with an odd value or none.
fn new_pair(choices: Choices, route: &Route) -> Vec<u8> {
    let known = route.query.iter().map(|parameter| (1, &parameter.name, parameter.name.clone()));
    let named = choices.fork("name").pick(known).or_else(|| word(choices.fork("word"), route));
    let name = encoded(named.unwrap_or_else(|| "a".to_owned()).as_bytes(), RESERVED);
    if choices.fork("has no value").happens(1, 8) {
        return name;
    }
    [name, b"=".to_vec(), odd(choices.fork("value"), route)].concat()
}

/// A word of the route's code.
pub(super) fn word(choices: Choices, route: &Route) -> Option<String> {
    (!route.words.is_empty()).then(|| choices.one(&route.words))
}

/// A message with something in its JSON missing or of another type, or half of the message where it has none. The JSON may
/// stand in an envelope, as in `42["event",{}]`, which stays.
pub(super) fn spoilt_message(choices: Choices, route: &Route, text: &str) -> String {
    let (envelope, inside) = text.split_at(text.find(['{', '[']).unwrap_or(text.len()));
    match serde_json::from_str(inside) {
        Ok(_) if !envelope.is_empty() && choices.fork("is empty").happens(1, 4) => envelope.to_owned(),
        Ok(value) => format!("{envelope}{}", written(&spoilt(choices, route, value))),
        Err(_) => match serde_json::from_str(text) {
            Ok(value) => written(&spoilt(choices, route, value)),
            Err(_) => text.chars().take(text.len() / 2).collect(),
        },
    }
}

/// A body of JSON with something in it missing or of another type.
pub(super) fn spoilt_body(choices: Choices, route: &Route, body: &[u8]) -> Vec<u8> {
    let value = serde_json::from_slice(body).unwrap_or_else(|_| object(choices.fork("object"), route));
    written(&spoilt(choices, route, value)).into_bytes()
}

/// A value with something in it missing or of another type.
fn spoilt(choices: Choices, route: &Route, value: Json) -> Json {
    match value {
        Json::Object(mut entries) if !entries.is_empty() => {
            let names: Vec<String> = entries.keys().cloned().collect();
            let name = choices.fork("entry").one(&names);
            let choices = choices.fork(&name);
            let new = match (choices.fork("change").one(&["missing", "inside", "type"]), entries.remove(&name)) {
                ("missing", _) | (_, None) => None,
                ("inside", Some(inner)) if inner.is_object() || inner.is_array() => Some(spoilt(choices, route, inner)),
                _ => Some(scalar(choices.fork("value"), route)),
            };
            entries.extend(new.map(|value| (name, value)));
            Json::Object(entries)
        }
        Json::Array(mut items) if !items.is_empty() => {
            let at = choices.fork("item").count(0..=items.len() - 1);
            items[at] = spoilt(choices.nth(at), route, items[at].take());
            Json::Array(items)
        }
        _ => scalar(choices.fork("value"), route),
    }
}

fn scalar(choices: Choices, route: &Route) -> Json {
    if let Some(number) = choices.fork("is near").happens(1, 5).then(|| near(choices, route)).flatten() {
        return json!(number);
    }
    if choices.fork("is literal").happens(1, 4) {
        let number = choices.fork("literal").count(0..=literals().len() - 1);
        return json!(format!("{STAND_IN}{number}"));
    }
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
    choices.pick(some.into_iter().map(|value| (1, value.to_string(), value))).unwrap_or_default()
}

/// An object with the words of a route.
fn object(choices: Choices, route: &Route) -> Json {
    let words = &route.words;
    let mut entries = serde_json::Map::new();
    for number in 0..choices.fork("count").count(1..=3) {
        let choices = choices.nth(number);
        let is_typed = number == 0 && words.iter().any(|word| word == "type");
        let key = match words.as_slice() {
            [] => "type".to_owned(),
            _ if is_typed && choices.fork("is typed").happens(1, 2) => "type".to_owned(),
            words => choices.fork("key").one(words),
        };
        let value = if words.is_empty() || choices.fork("is other").happens(1, 3) {
            scalar(choices.fork("value"), route)
        } else {
            json!(choices.fork("word").one(words))
        };
        entries.insert(key, value);
    }
    Json::Object(entries)
}

/// A message with an unknown effect on the application.
pub(super) fn message(choices: Choices, route: &Route) -> Action {
    const KINDS: [(u32, &str); 10] = [
        (7, "object"),
        (1, "word"),
        (1, "empty"),
        (1, "not JSON"),
        (1, "list"),
        (1, "scalar"),
        (1, "long type"),
        (1, "half a character"),
        (1, "object in bytes"),
        (1, "bytes"),
    ];
    let kind = choices.fork("kind").weighed(&KINDS);
    let choices = choices.fork(kind);
    Action::SendText(match kind {
        "object" => written(&object(choices, route)),
        "word" => word(choices, route).unwrap_or_else(|| "hello".to_owned()),
        "empty" => String::new(),
        "not JSON" => "not json".to_owned(),
        "list" => "[1,2]".to_owned(),
        "scalar" => written(&scalar(choices, route)),
        "long type" => format!("{{\"type\":\"{}\"}}", "a".repeat(LONG)),
        "half a character" => "\"\\ud800\"".to_owned(),
        "object in bytes" => return Action::SendBytes(written(&object(choices, route)).into_bytes()),
        _ => return Action::SendBytes(b"\x00\xff".to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use relapse_core::choices::Choices;

    use super::{TOO_MANY_DIGITS, odd, spoilt_body, spoilt_message};
    use crate::route::Route;

    fn route() -> Route {
        Route { numbers: vec![6, i64::MAX], ..Route::default() }
    }

    #[test]
    fn parameters_come_near_the_numbers_of_the_code() {
        let drawn: BTreeSet<_> = (0..2000).map(|seed| odd(Choices::of(seed), &route())).collect();
        for number in ["5", "6", "7", "9223372036854775806", "9223372036854775807"] {
            assert!(drawn.contains(number.as_bytes()), "{number}");
        }
        assert!(!drawn.contains(&b"8"[..]));
    }

    #[test]
    fn json_has_values_that_only_some_readers_take() {
        let drawn: BTreeSet<_> = (0..4000)
            .map(|seed| String::from_utf8(spoilt_body(Choices::of(seed), &route(), b"{\"a\":1}")).unwrap())
            .collect();
        for value in ["NaN", "-Infinity", "1e999", "6", "\"\\ud800\"", &"1".repeat(TOO_MANY_DIGITS)] {
            assert!(drawn.contains(&format!("{{\"a\":{value}}}")), "{value}");
        }
        assert!(drawn.iter().all(|text| !text.contains(super::STAND_IN)));
    }

    #[test]
    fn a_spoilt_message_keeps_its_envelope() {
        let drawn = (0..200).map(|seed| spoilt_message(Choices::of(seed), &route(), "42[\"move\",{\"x\":1}]"));
        let drawn: BTreeSet<String> = drawn.collect();
        assert!(drawn.iter().all(|text| text.starts_with("42")) && drawn.len() > 10, "{drawn:?}");
    }
}
