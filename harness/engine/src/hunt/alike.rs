//! Draws other values of the type of a good one. A route should take them: they reach its own code, where an odd value is
//! refused before.

use serde_json::{Value as Json, json};

use crate::route::{Parameter, Route, push_query};
use relapse_core::{
    choices::Choices,
    client::step::Request,
    wire::percent::{RESERVED, decoded_text, encoded},
};

/// Whole numbers, each with its weight: mistakes are made with the first ones most of all.
const NUMBERS: [(u32, &str); 14] = [
    (4, "0"),
    (3, "-1"),
    (2, "2"),
    (1, "3"),
    (1, "10"),
    (1, "100"),
    (1, "255"),
    (1, "1000"),
    (1, "65536"),
    (1, "2147483648"),
    (1, "-2147483649"),
    (1, "9223372036854775807"),
    (1, "9223372036854775808"),
    (1, "1000000000000000000000"),
];

/// Numbers with a fraction or an exponent.
const DECIMALS: [(u32, &str); 9] =
    [(3, "0"), (2, "-1"), (2, "0.5"), (1, "-0.0"), (1, "1e-320"), (1, "1e308"), (1, "nan"), (1, "inf"), (1, "0.1")];

/// Days, in the form of RFC 3339 section 5.6.
const DAYS: [(u32, &str); 6] =
    [(1, "0001-01-01"), (1, "1970-01-01"), (2, "2024-02-29"), (1, "2025-12-31"), (1, "2099-06-15"), (1, "9999-12-31")];

/// Points in time, with an offset and without one.
const TIMES: [(u32, &str); 7] = [
    (2, "2025-12-31T23:59:59"),
    (2, "2025-12-31T23:59:59Z"),
    (1, "2099-06-15T12:00:00+05:30"),
    (1, "1970-01-01T00:00:00Z"),
    (1, "0001-01-01T00:00:00+14:00"),
    (1, "9999-12-31T23:59:59-12:00"),
    (1, "2024-02-29T00:00:00.000001"),
];

/// UUIDs (RFC 9562): of zeros, of ones, and a random one.
const UUIDS: [(u32, &str); 3] = [
    (1, "00000000-0000-0000-0000-000000000000"),
    (1, "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    (2, "6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
];

/// Texts.
const TEXTS: [(u32, &str); 23] = [
    (2, "\u{e9}"),
    (1, "\u{65e5}\u{672c}"),
    (1, "\u{65e5} \u{1f4a5}"),
    (1, "\u{3a9}"),
    (3, ""),
    (1, " "),
    (1, "a/b"),
    (2, "0"),
    (1, "2026-01-02"),
    (1, "a\nb"),
    (1, "\"q\""),
    (1, "-1"),
    (2, "b"),
    (1, "a,b"),
    (1, "%"),
    (1, "'"),
    (1, "a b"),
    (1, "{"),
    (1, "{a}"),
    (1, "%s"),
    (1, "a@b"),
    (1, "a@b@c"),
    (1, "NaN"),
];

/// How many characters a long text has: fewer than most limits, or more. A pattern that tries too much hangs on either.
const LONG: [usize; 2] = [40, 300];

/// The type of a value, as far as it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueType {
    Truth,
    Number,
    Decimal,
    Day,
    Time,
    Uuid,
    Text,
}

impl ValueType {
    fn of(good: &str) -> ValueType {
        match good {
            "true" | "false" | "True" | "False" => ValueType::Truth,
            _ if good.parse::<i64>().is_ok() => ValueType::Number,
            _ if good.starts_with(|first: char| first.is_ascii_digit() || first == '-')
                && good.parse::<f64>().is_ok() =>
            {
                ValueType::Decimal
            }
            _ if has_form(good, "0000-00-00") => ValueType::Day,
            _ if good.get(..11).is_some_and(|day| has_form(day, "0000-00-00T")) => ValueType::Time,
            _ if has_form(&good.to_ascii_lowercase(), "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") => ValueType::Uuid,
            _ => ValueType::Text,
        }
    }
}

/// Whether a text has a form in which `0` stands for any digit, `x` for a hexadecimal one, and the rest for itself.
fn has_form(text: &str, form: &str) -> bool {
    let is_alike = |(byte, form): (u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'x' => byte.is_ascii_hexdigit(),
        _ => byte == form,
    };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(is_alike)
}

/// Another good value of a parameter: one that is named, or one of the same type.
pub(super) fn other_value(choices: Choices, route: &Route, parameter: &Parameter) -> String {
    let named = parameter.others.iter().map(|value| (1, value, value.clone()));
    let named = choices.fork("is named").happens(2, 3).then(|| choices.fork("named").pick(named)).flatten();
    named.unwrap_or_else(|| alike(choices, route, &parameter.good))
}

/// Another value of the type of this one; some are near numbers that the route's code names, and some are words of it.
pub(super) fn alike(choices: Choices, route: &Route, good: &str) -> String {
    let drawn = |from: &[(u32, &'static str)]| choices.fork("value").weighed(from).to_owned();
    match ValueType::of(good) {
        ValueType::Truth => if good.eq_ignore_ascii_case("true") { "false" } else { "true" }.to_owned(),
        ValueType::Number => match choices.fork("is near").happens(1, 3).then(|| near(choices, route)).flatten() {
            Some(number) => number.to_string(),
            None => drawn(&NUMBERS),
        },
        ValueType::Decimal => drawn(&DECIMALS),
        ValueType::Day => drawn(&DAYS),
        ValueType::Time => drawn(&TIMES),
        ValueType::Uuid => drawn(&UUIDS),
        ValueType::Text if choices.fork("is long").happens(1, 16) => "a".repeat(choices.fork("length").one(&LONG)),
        ValueType::Text => match choices.fork("is word").happens(1, 4) && !route.words.is_empty() {
            true => choices.fork("word").one(&route.words),
            false => drawn(&TEXTS),
        },
    }
}

/// A number that the route's code names, or one beside it.
pub(super) fn near(choices: Choices, route: &Route) -> Option<i64> {
    let choices = choices.fork("near");
    let number = choices.fork("number").pick(route.numbers.iter().map(|number| (1, number.to_string(), *number)))?;
    Some(number.saturating_add(choices.fork("beside").weighed(&[(2, 0), (1, 1), (1, -1)])))
}

/// The same route, of which some parameters have other good values.
pub(super) fn with_other_parameters(choices: Choices, route: &Route) -> Route {
    let mut other = route.clone();
    other.params.extend(route.unknown_params());
    let places = [&mut other.params, &mut other.query, &mut other.headers, &mut other.cookies];
    for (parameters, place) in places.into_iter().zip(["path", "query", "header", "cookie"]) {
        let choices = choices.fork(place);
        for parameter in parameters {
            let choices = choices.fork(&parameter.name);
            if !choices.fork("is other").happens(1, 2) {
                continue;
            }
            let value = other_value(choices, route, parameter);
            // A header holds visible characters, and a segment of a path is not empty.
            let fits = match place {
                "header" => value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()),
                "cookie" => value.bytes().all(|byte| byte.is_ascii_graphic()),
                "path" => !value.is_empty(),
                _ => true,
            };
            if fits {
                parameter.good = value;
            }
        }
    }
    other
}

/// Gives a request a body like the one that it has, with other values of the same types: in JSON or in a form.
pub(super) fn give_other_body(choices: Choices, route: &Route, request: &mut Request) {
    if route.content_type.ends_with("urlencoded") {
        request.body = other_pairs(choices, route, &request.body);
    } else {
        for number in 0..choices.fork("changes").count(1..=2) {
            give_other_json(choices.fork("change").nth(number), route, request);
        }
    }
}

/// Gives a request whose body is JSON another value in it, or one that its body lacks and the route takes.
pub(super) fn give_other_json(choices: Choices, route: &Route, request: &mut Request) {
    let Ok(mut value) = serde_json::from_slice::<Json>(&request.body) else { return };
    match (lacking(choices.fork("lacking"), route, &value), value.as_object_mut()) {
        (Some((name, good)), Some(entries)) => drop(entries.insert(name, good)),
        _ => value = varied(choices, route, value),
    }
    request.body = value.to_string().into_bytes();
}

/// An entry that the route takes and this body lacks; now and then, where there is one.
fn lacking(choices: Choices, route: &Route, body: &Json) -> Option<(String, Json)> {
    if !choices.fork("is added").happens(1, 3) {
        return None;
    }
    let Ok(Json::Object(mut full)) = serde_json::from_str(&route.full_body) else { return None };
    full.retain(|name, _| body.get(name).is_none());
    let name = choices.fork("name").pick(full.keys().map(|name| (1, name, name.clone())))?;
    let good = full.remove(&name)?;
    Some((name, if choices.fork("is other").happens(1, 2) { varied(choices.fork("value"), route, good) } else { good }))
}

/// Gives a request other values in its query or its path, or a parameter that it lacks and the route takes.
pub(super) fn give_other_target(choices: Choices, route: &Route, request: &mut Request) {
    let has_name = |name: &str| form_urlencoded::parse(&request.query).any(|(known, _)| known == name);
    let lacking = route.query.iter().filter(|parameter| !has_name(&parameter.name));
    let lacking = choices.fork("lacking").pick(lacking.map(|parameter| (1, &parameter.name, parameter)));
    match lacking.filter(|_| choices.fork("is added").happens(1, 3)) {
        Some(parameter) => {
            let value = other_value(choices.fork("added"), route, parameter);
            push_query(&mut request.query, parameter.name.as_bytes(), &encoded(value.as_bytes(), RESERVED));
        }
        None if request.query.is_empty() || choices.fork("is path").happens(1, 2) => {
            request.path = with_other_parameters(choices, route).good_request(&request.method).path;
        }
        None => request.query = other_pairs(choices, route, &request.query),
    }
}

/// Pairs of names and values, some with another value of the same type.
pub(super) fn other_pairs(choices: Choices, route: &Route, pairs: &[u8]) -> Vec<u8> {
    let pairs = pairs.split(|&byte| byte == b'&').enumerate().map(|(number, pair)| {
        let choices = choices.nth(number);
        let (name, good) = name_and_value(pair);
        match !pair.is_empty() && choices.fork("is other").happens(1, 2) {
            true => [name, b"=", &encoded(alike(choices, route, &decoded_text(good)).as_bytes(), RESERVED)].concat(),
            false => pair.to_vec(),
        }
    });
    pairs.collect::<Vec<_>>().join(&b'&')
}

/// The name and the value of a pair as in a query, percent-encoded; the value is empty where there is none.
pub(super) fn name_and_value(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|&byte| byte == b'=') {
        Some(end) => (&pair[..end], &pair[end + 1..]),
        None => (pair, b""),
    }
}

/// The value with a part of it replaced by another of the same type, or without a part.
pub(super) fn varied(choices: Choices, route: &Route, value: Json) -> Json {
    match value {
        Json::Object(mut entries) if !entries.is_empty() => {
            let names: Vec<String> = entries.keys().cloned().collect();
            let name = choices.fork("entry").one(&names);
            let choices = choices.fork(&name);
            if let Some(inner) = entries.remove(&name)
                && !choices.fork("is left out").happens(1, 4)
            {
                entries.insert(name, varied(choices.fork("value"), route, inner));
            }
            Json::Object(entries)
        }
        Json::Array(mut items) => match choices.fork("items").weighed(&[(1, "none"), (1, "twice"), (2, "other")]) {
            "none" => json!([]),
            "twice" => {
                items.extend(items.clone());
                Json::Array(items)
            }
            _ => Json::Array(items.into_iter().map(|item| varied(choices.fork("item"), route, item)).collect()),
        },
        Json::String(good) => json!(alike(choices.fork("text"), route, &good)),
        Json::Number(good) => number(choices.fork("number"), route, &good.to_string()),
        Json::Bool(truth) => json!(!truth),
        Json::Null | Json::Object(_) => json!("a"),
    }
}

/// Another number; one that JSON does not hold is a large one instead.
fn number(choices: Choices, route: &Route, good: &str) -> Json {
    let drawn = alike(choices, route, good);
    serde_json::from_str(&drawn).ok().filter(Json::is_number).unwrap_or_else(|| json!(1_000_000))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use relapse_core::choices::Choices;
    use rstest::rstest;

    use super::{alike, other_value, with_other_parameters};
    use crate::route::{Parameter, Route};

    fn route() -> Route {
        let parameter = |name: &str, good: &str| Parameter {
            name: name.to_owned(),
            is_required: true,
            good: good.to_owned(),
            others: Vec::new(),
        };
        Route {
            path: "/rooms/{room}".to_owned(),
            params: vec![parameter("room", "a")],
            query: vec![parameter("n", "1")],
            headers: vec![parameter("x-note", "a")],
            numbers: vec![40],
            words: vec!["archive".to_owned()],
            ..Route::default()
        }
    }

    fn drawn(good: &str) -> BTreeSet<String> {
        (0..2000).map(|seed| alike(Choices::of(seed), &route(), good)).collect()
    }

    #[rstest]
    #[case::number("1", &["0", "-1", "39", "40", "41", "9223372036854775808"])]
    #[case::decimal("1.5", &["0", "0.5", "nan"])]
    #[case::truth("true", &["false"])]
    #[case::day("2026-01-01", &["0001-01-01", "2024-02-29"])]
    #[case::time("2026-01-01T00:00:00Z", &["2025-12-31T23:59:59", "2025-12-31T23:59:59Z"])]
    #[case::uuid("3fa85f64-5717-4562-b3fc-2c963f66afa6", &["00000000-0000-0000-0000-000000000000"])]
    #[case::text("a", &["", "archive", "0", "\u{e9}"])]
    fn another_value_has_the_type_of_the_good_one(#[case] good: &str, #[case] some: &[&str]) {
        let drawn = drawn(good);
        assert!(some.iter().all(|value| drawn.contains(*value)), "{drawn:?}");
    }

    #[rstest]
    #[case::number("1")]
    #[case::negative("-7")]
    fn another_number_is_a_whole_number(#[case] good: &str) {
        assert!(drawn(good).iter().all(|value| value.parse::<i128>().is_ok()));
    }

    #[test]
    fn named_values_are_drawn() {
        let parameter = Parameter { good: "1".to_owned(), others: vec!["31".to_owned()], ..Parameter::default() };
        let drawn: BTreeSet<_> = (0..100).map(|seed| other_value(Choices::of(seed), &route(), &parameter)).collect();
        assert!(drawn.contains("31") && drawn.contains("0"), "{drawn:?}");
    }

    #[test]
    fn headers_and_paths_keep_their_form() {
        for seed in 0..2000 {
            let other = with_other_parameters(Choices::of(seed), &route());
            assert!(!other.params[0].good.is_empty());
            assert!(other.headers[0].good.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{:?}", other.headers);
        }
    }
}
