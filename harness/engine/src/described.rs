//! Routes of a service, as its OpenAPI document (2.0, 3.0, 3.1) or AsyncAPI document (2.x, 3.0) describes them.

use std::collections::BTreeSet;

use form_urlencoded::Serializer;
use serde_json::{Map, Value as Json, json};

use crate::route::{Parameter, Route};

/// How deep a value of a schema is made. What is below is left out.
const DEPTH_MAX: usize = 10;

/// How many further values of a parameter, and further bodies of a route, are taken.
const OTHERS_MAX: usize = 24;

/// How deep a value has everything that its schema allows. What is below has what it must have.
const FULL_DEPTH: usize = 5;

/// How many references are followed for one part of a document.
const REFERENCES_MAX: usize = 10;

/// How many words of a schema a route learns.
const WORDS_MAX: usize = 50;

/// The boundary of the parts of a form with files (RFC 7578).
const BOUNDARY: &str = "relapse-form-boundary";

/// The methods that an OpenAPI document can describe.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// The types of a body that a route is asked with, the best first.
const CONTENT_TYPES: [&str; 3] = ["application/json", "multipart/form-data", "application/x-www-form-urlencoded"];

/// The routes of a document.
///
/// # Errors
/// Says why it is none that is known.
pub fn routes(document: &Json) -> Result<Vec<Route>, String> {
    let version = |key: &str| document.get(key).and_then(Json::as_str);
    let document = Document(document);
    match (version("openapi"), version("swagger"), version("asyncapi")) {
        (Some(_), ..) | (_, Some(_), _) => Ok(document.operations()),
        (.., Some(version)) if version.starts_with("2.") => Ok(document.channels()),
        (.., Some(version)) if version.starts_with("3.") => Ok(document.addresses()),
        (.., Some(version)) => Err(format!("AsyncAPI {version} is not known; 2.x and 3.x are")),
        (None, None, None) => Err("it has neither `openapi` nor `swagger` nor `asyncapi` at its top".to_owned()),
    }
}

/// A document, by whose references its parts are found.
#[derive(Clone, Copy)]
struct Document<'d>(&'d Json);

/// The entries of an object; none of anything else.
fn entries(value: Option<&Json>) -> impl Iterator<Item = (&String, &Json)> {
    value.and_then(Json::as_object).into_iter().flatten()
}

/// The items of a list; none of anything else.
fn items(value: Option<&Json>) -> impl Iterator<Item = &Json> {
    value.and_then(Json::as_array).into_iter().flatten()
}

/// A text under a key; empty where there is none.
fn text<'j>(value: &'j Json, key: &str) -> &'j str {
    value.get(key).and_then(Json::as_str).unwrap_or_default()
}

fn is_true(value: &Json, key: &str) -> bool {
    value.get(key) == Some(&Json::Bool(true))
}

impl<'d> Document<'d> {
    /// The part that a value refers to, or the value itself.
    fn resolved(self, mut value: &'d Json) -> &'d Json {
        for _ in 0..REFERENCES_MAX {
            let Some(reference) = value.get("$ref").and_then(Json::as_str) else { return value };
            match reference.strip_prefix('#').and_then(|pointer| self.0.pointer(pointer)) {
                Some(part) => value = part,
                None => return &Json::Null,
            }
        }
        &Json::Null
    }

    /// The path below which an OpenAPI document's paths are.
    fn base(self) -> String {
        let server = self.0.pointer("/servers/0/url").and_then(Json::as_str).unwrap_or(text(self.0, "basePath"));
        let path = match server.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
            None => server,
        };
        path.trim_end_matches('/').to_owned()
    }

    /// The routes of an OpenAPI document.
    fn operations(self) -> Vec<Route> {
        let base = self.base();
        let mut routes = Vec::new();
        for (path, shared) in entries(self.0.get("paths")) {
            let shared = self.resolved(shared);
            for method in METHODS {
                let Some(operation) = shared.get(method) else { continue };
                let methods = vec![method.to_ascii_uppercase()];
                let mut route = Route { path: format!("{base}{path}"), methods, ..Route::default() };
                for parameter in items(operation.get("parameters")).chain(items(shared.get("parameters"))) {
                    self.add_parameter(&mut route, self.resolved(parameter));
                }
                let body = operation.get("requestBody").map(|body| self.resolved(body));
                self.add_body(&mut route, body.and_then(|body| body.get("content")));
                self.add_old_form(&mut route, operation);
                routes.push(route);
            }
        }
        routes
    }

    /// Adds a parameter of an OpenAPI document; a body of version 2.0 is one, too.
    fn add_parameter(self, route: &mut Route, parameter: &'d Json) {
        // Version 2.0 has the type in the parameter itself.
        let schema = parameter.get("schema").unwrap_or(parameter);
        let place = match text(parameter, "in") {
            "query" => &mut route.query,
            "header" => &mut route.headers,
            "path" => &mut route.params,
            "cookie" => &mut route.cookies,
            "body" => {
                let value = |extent| self.example(schema, extent);
                return put_json(route, &value(Extent::Least), &value(Extent::Full));
            }
            _ => return,
        };
        let name = text(parameter, "name").to_owned();
        if place.iter().any(|known| known.name == name) {
            return;
        }
        let example = parameter.get("example").cloned().unwrap_or_else(|| self.example(schema, Extent::Least));
        let is_required = is_true(parameter, "required") || text(parameter, "in") == "path";
        let good = as_text(&example);
        place.push(Parameter { name, is_required, others: self.other_texts(schema, &good), good });
        self.add_words(route, schema);
    }

    /// Adds the bodies that an OpenAPI document describes.
    fn add_body(self, route: &mut Route, content: Option<&'d Json>) {
        let Some((kind, media)) = CONTENT_TYPES.into_iter().find_map(|kind| Some((kind, content?.get(kind)?))) else {
            return;
        };
        let schema = self.resolved(media.get("schema").unwrap_or(&Json::Null));
        self.add_words(route, schema);
        let (least, most) = (self.example(schema, Extent::Least), self.example(schema, Extent::Full));
        if kind == CONTENT_TYPES[0] {
            route.messages.extend(self.variants(schema, &most).iter().map(Json::to_string));
            return put_json(route, media.get("example").unwrap_or(&least), &most);
        }
        let is_file = |name: &str| {
            let schema = schema.pointer(&format!("/properties/{}", name.replace('~', "~0").replace('/', "~1")));
            schema.is_some_and(|schema| self.is_file(schema))
        };
        let has_files = entries(Some(&most)).any(|(name, _)| is_file(name));
        let write = |value: &Json| if has_files { parts(value, &is_file) } else { pairs(value) };
        put_body(route, write(&least), write(&most));
        route.content_type =
            if has_files { format!("multipart/form-data; boundary={BOUNDARY}") } else { FORM.to_owned() };
    }

    /// Adds the form of version 2.0.
    fn add_old_form(self, route: &mut Route, operation: &'d Json) {
        let fields = items(operation.get("parameters")).map(|parameter| self.resolved(parameter));
        let fields: Vec<&Json> = fields.filter(|parameter| text(parameter, "in") == "formData").collect();
        if fields.is_empty() {
            return;
        }
        let form = |fields: &mut dyn Iterator<Item = &&'d Json>| {
            let values = fields.map(|field| (text(field, "name").to_owned(), self.example(field, Extent::Least)));
            Json::Object(values.collect())
        };
        let least = form(&mut fields.iter().filter(|field| is_true(field, "required")));
        put_body(route, pairs(&least), pairs(&form(&mut fields.iter())));
        route.content_type = FORM.to_owned();
    }

    /// The routes of an AsyncAPI document 2.x, of which a client publishes messages to what it subscribes to.
    fn channels(self) -> Vec<Route> {
        let channels = entries(self.0.get("channels")).map(|(path, channel)| {
            let channel = self.resolved(channel);
            let mut route = self.websocket(path, channel);
            if let Some(message) = channel.pointer("/publish/message") {
                self.add_messages(&mut route, message);
            }
            route
        });
        channels.collect()
    }

    /// The routes of an AsyncAPI document 3.x, whose operations say which messages the app receives.
    fn addresses(self) -> Vec<Route> {
        let received: Vec<&Json> = entries(self.0.get("operations"))
            .map(|(_, operation)| self.resolved(operation))
            .filter(|operation| text(operation, "action") == "receive")
            .collect();
        let channels = entries(self.0.get("channels")).map(|(name, channel)| {
            let channel = self.resolved(channel);
            let address = channel.get("address").and_then(Json::as_str).unwrap_or(name);
            let mut route = self.websocket(address, channel);
            let is_here = |operation: &&&Json| {
                operation.get("channel").is_some_and(|own| std::ptr::eq(self.resolved(own), channel))
            };
            for operation in received.iter().filter(is_here) {
                let named: Vec<&Json> = items(operation.get("messages")).collect();
                let all = entries(channel.get("messages")).map(|(_, message)| message).filter(|_| named.is_empty());
                named.iter().copied().chain(all).for_each(|message| self.add_messages(&mut route, message));
            }
            route
        });
        channels.collect()
    }

    /// A WebSocket with the parameters of its channel, and those that its binding names.
    fn websocket(self, path: &str, channel: &'d Json) -> Route {
        let path = format!("/{}", path.trim_start_matches('/'));
        let mut route = Route { path, is_websocket: true, ..Route::default() };
        for (name, parameter) in entries(channel.get("parameters")) {
            let parameter = self.resolved(parameter);
            let schema = parameter.get("schema").unwrap_or(parameter);
            let good = as_text(&self.example(schema, Extent::Least));
            let others = self.other_texts(schema, &good);
            route.params.push(Parameter { name: name.clone(), is_required: true, good, others });
        }
        for (place, key) in [(&mut route.query, "query"), (&mut route.headers, "headers")] {
            let Some(schema) = channel.pointer(&format!("/bindings/ws/{key}")) else { continue };
            let schema = self.resolved(schema);
            let required: BTreeSet<&str> = items(schema.get("required")).filter_map(Json::as_str).collect();
            place.extend(entries(schema.get("properties")).map(|(name, value)| {
                let good = as_text(&self.example(value, Extent::Least));
                let is_required = required.contains(name.as_str());
                Parameter { name: name.clone(), is_required, others: self.other_texts(value, &good), good }
            }));
        }
        route
    }

    /// Adds the messages that a client may send.
    fn add_messages(self, route: &mut Route, message: &'d Json) {
        let message = self.resolved(message);
        for one in items(message.get("oneOf")) {
            self.add_messages(route, one);
        }
        let examples = items(message.get("examples")).filter_map(|example| example.get("payload"));
        route.messages.extend(examples.map(as_message));
        if let Some(payload) = message.get("payload") {
            let payload = self.resolved(payload);
            self.add_words(route, payload);
            let values = [Extent::Least, Extent::Full].map(|extent| as_message(&self.example(payload, extent)));
            route.messages.extend(values.into_iter().filter(|text| text != "null"));
        }
        route.messages.dedup();
    }

    /// Adds the names of properties and the values of enumerations.
    fn add_words(self, route: &mut Route, schema: &'d Json) {
        let mut todo = vec![(schema, 0)];
        while let Some((schema, depth)) = todo.pop() {
            let schema = self.resolved(schema);
            let names = entries(schema.get("properties")).map(|(name, _)| name.clone());
            let values = items(schema.get("enum")).chain(schema.get("const")).filter_map(Json::as_str);
            for word in names.chain(values.map(str::to_owned)) {
                if route.words.len() < WORDS_MAX && !route.words.contains(&word) {
                    route.words.push(word);
                }
            }
            if depth < FULL_DEPTH {
                let options = ["anyOf", "oneOf", "allOf"].into_iter().flat_map(|key| items(schema.get(key)));
                let below = entries(schema.get("properties")).map(|(_, value)| value).chain(schema.get("items"));
                todo.extend(below.chain(options).map(|below| (below, depth + 1)));
            }
        }
    }

    /// Other values that a schema names: members of an enumeration, limits of a number, null, an empty list.
    fn further_values(self, schema: &'d Json, depth: usize) -> Vec<Json> {
        let schema = self.resolved(schema);
        let mut values: Vec<Json> = items(schema.get("enum")).cloned().collect();
        for (key, step) in [("minimum", 0), ("maximum", 0), ("exclusiveMinimum", 1), ("exclusiveMaximum", -1)] {
            let limit = schema.get(key).and_then(Json::as_i64);
            values.extend(limit.map(|limit| json!(limit.saturating_add(step))));
        }
        let options = ["anyOf", "oneOf"].into_iter().flat_map(|key| items(schema.get(key)));
        for option in options.filter(|_| depth < FULL_DEPTH) {
            values.push(match text(option, "type") {
                "null" => Json::Null,
                _ => self.example(option, Extent::Least),
            });
            values.extend(self.further_values(option, depth + 1));
        }
        match text(schema, "type") {
            "boolean" => values.extend([json!(true), json!(false)]),
            "array" => values.push(json!([])),
            _ if is_true(schema, "nullable") => values.push(Json::Null),
            _ => {}
        }
        values
    }

    /// The further values of a parameter with this good one, as texts.
    fn other_texts(self, schema: &'d Json, good: &str) -> Vec<String> {
        let values = self.further_values(schema, 0).into_iter().filter(|value| !value.is_null());
        let texts: BTreeSet<String> = values.map(|value| as_text(&value)).filter(|text| text != good).collect();
        texts.into_iter().take(OTHERS_MAX).collect()
    }

    /// The first values of a schema that differ from this full one in one place.
    fn variants(self, schema: &'d Json, full: &Json) -> Vec<Json> {
        let schema = self.resolved(schema);
        let mut variants = self.further_values(schema, 0);
        variants.retain(|value| value != full);
        let parts = ["anyOf", "oneOf", "allOf"].into_iter().flat_map(|key| items(schema.get(key)));
        let parts = [schema].into_iter().chain(parts.map(|part| self.resolved(part)));
        match full {
            Json::Object(entries_of_full) => {
                for (name, inner) in parts.flat_map(|part| entries(part.get("properties"))) {
                    let Some(value) = entries_of_full.get(name).filter(|_| variants.len() < OTHERS_MAX) else {
                        continue;
                    };
                    variants.extend(self.variants(inner, value).into_iter().map(|other| {
                        let mut whole = entries_of_full.clone();
                        whole.insert(name.clone(), other);
                        Json::Object(whole)
                    }));
                }
            }
            Json::Array(values) => {
                if let (Some(inner), Some(first)) = (schema.get("items"), values.first()) {
                    variants.extend(self.variants(inner, first).into_iter().map(|other| json!([other])));
                }
            }
            _ => {}
        }
        variants.truncate(OTHERS_MAX);
        variants
    }

    fn is_file(self, schema: &'d Json) -> bool {
        let schema = self.resolved(schema);
        let schema = schema.get("items").map_or(schema, |items| self.resolved(items));
        text(schema, "format") == "binary" || schema.get("contentMediaType").is_some()
    }

    /// A value of a JSON schema.
    fn example(self, schema: &'d Json, extent: Extent) -> Json {
        self.example_at(schema, extent, 0)
    }

    // Long: an arm for each keyword of a schema.
    fn example_at(self, schema: &'d Json, extent: Extent, depth: usize) -> Json {
        let schema = self.resolved(schema);
        if depth > DEPTH_MAX || !schema.is_object() {
            return Json::Null;
        }
        let within = |schema: &'d Json| self.example_at(schema, extent, depth + 1);
        let given = ["const", "default", "example"].into_iter().filter_map(|key| schema.get(key));
        let listed = ["examples", "enum"].into_iter().filter_map(|key| schema.get(key)?.get(0));
        if let Some(value) = given.chain(listed).find(|value| !value.is_null()) {
            return value.clone();
        }
        if let Some(all) = schema.get("allOf").and_then(Json::as_array) {
            return merged(all.iter().map(within));
        }
        let options = ["anyOf", "oneOf"].into_iter().filter_map(|key| schema.get(key));
        if let Some(options) = options.filter_map(Json::as_array).next() {
            let option = options.iter().find(|option| text(self.resolved(option), "type") != "null");
            return option.map_or(Json::Null, within);
        }
        let types = items(schema.get("type")).filter_map(Json::as_str).find(|kind| *kind != "null");
        match types.unwrap_or(text(schema, "type")) {
            "integer" | "number" => number(schema),
            "boolean" => json!(true),
            "array" => {
                let count = schema.get("minItems").and_then(Json::as_u64).unwrap_or(1).clamp(1, 10);
                let item = schema.get("items").map_or(json!("a"), within);
                json!(vec![item; usize::try_from(count).unwrap_or(1)])
            }
            "object" => self.object(schema, extent, depth),
            _ if schema.get("properties").is_some() => self.object(schema, extent, depth),
            _ => json!(string(schema)),
        }
    }

    fn object(self, schema: &'d Json, extent: Extent, depth: usize) -> Json {
        let required: BTreeSet<&str> = items(schema.get("required")).filter_map(Json::as_str).collect();
        let is_full = extent == Extent::Full && depth < FULL_DEPTH;
        let named = entries(schema.get("properties"));
        let named = named.filter(|(name, _)| is_full || required.contains(name.as_str()));
        let mut object: Map<String, Json> =
            named.map(|(name, value)| (name.clone(), self.example_at(value, extent, depth + 1))).collect();
        if let Some(others) = schema.get("additionalProperties").filter(|others| is_full && others.is_object()) {
            object.insert("a".to_owned(), self.example_at(others, extent, depth + 1));
        }
        Json::Object(object)
    }
}

/// How much of what it may have a value has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The required parts only.
    Least,
    /// Everything.
    Full,
}

const FORM: &str = "application/x-www-form-urlencoded";

/// The values of all parts of a schema, as one.
fn merged(parts: impl Iterator<Item = Json>) -> Json {
    let mut whole = Json::Null;
    for part in parts {
        match (&mut whole, part) {
            (Json::Object(whole), Json::Object(part)) => whole.extend(part),
            (whole @ Json::Null, part) => *whole = part,
            _ => {}
        }
    }
    whole
}

/// A number between the limits of a schema.
fn number(schema: &Json) -> Json {
    let limit = |keys: &[&str]| keys.iter().find_map(|key| schema.get(key)?.as_f64());
    let least = limit(&["minimum", "exclusiveMinimum"]).unwrap_or(0.0);
    let most = limit(&["maximum", "exclusiveMaximum"]).unwrap_or(least + 2.0);
    let value = if least + 1.0 <= most { least + 1.0 } else { least };
    let value = match limit(&["multipleOf"]) {
        Some(step) if step > 0.0 => (value / step).ceil() * step,
        _ => value,
    };
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// A text by the format and the length of a schema.
fn string(schema: &Json) -> String {
    const FORMATS: [(&str, &str); 9] = [
        ("uuid", "12345678-1234-4234-8234-123456789abc"),
        ("date", "2026-01-02"),
        ("date-time", "2026-01-02T03:04:05Z"),
        ("time", "03:04:05"),
        ("email", "a@example.org"),
        ("uri", "http://127.0.0.1/"),
        ("duration", "PT1S"),
        ("ipv4", "127.0.0.1"),
        ("ipv6", "::1"),
    ];
    let known = FORMATS.iter().find(|(format, _)| *format == text(schema, "format"));
    let value = known.map_or("a", |(_, value)| value);
    let least = schema.get("minLength").and_then(Json::as_u64).unwrap_or(0).min(1000);
    let least = usize::try_from(least).unwrap_or(0);
    if value.len() < least { "a".repeat(least) } else { value.to_owned() }
}

/// A value as it stands in a query, a header or a path.
fn as_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        Json::Array(items) => items.first().map(as_text).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// A value as a message: a text as it is, anything else as JSON.
fn as_message(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn put_json(route: &mut Route, least: &Json, most: &Json) {
    route.content_type = CONTENT_TYPES[0].to_owned();
    put_body(route, least.to_string(), most.to_string());
}

fn put_body(route: &mut Route, least: String, most: String) {
    route.full_body = if most == least { String::new() } else { most };
    route.body = least;
}

/// The pairs of a form.
fn pairs(form: &Json) -> String {
    let mut pairs = Serializer::new(String::new());
    pairs.extend_pairs(entries(Some(form)).map(|(name, value)| (name, as_text(value))));
    pairs.finish()
}

/// The parts of a form with files.
fn parts(form: &Json, is_file: &dyn Fn(&str) -> bool) -> String {
    let mut parts = String::new();
    for (name, value) in entries(Some(form)) {
        let file = if is_file(name) { "; filename=\"a.txt\"\r\nContent-Type: text/plain" } else { "" };
        parts += &format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{}\r\n",
            as_text(value)
        );
    }
    parts + &format!("--{BOUNDARY}--\r\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::routes;

    #[test]
    fn operations_have_parameters_and_bodies() {
        let document = json!({
            "openapi": "3.1.0",
            "servers": [{"url": "https://api.example.org/v1"}],
            "paths": {"/orders/{id}": {
                "parameters": [{"name": "id", "in": "path", "schema": {"type": "integer", "minimum": 5}}],
                "put": {
                    "parameters": [
                        {"name": "dry", "in": "query", "schema": {"type": "boolean"}},
                        {"$ref": "#/components/parameters/Trace"},
                    ],
                    "requestBody": {"$ref": "#/components/requestBodies/Order"},
                },
                "get": {},
            }},
            "components": {
                "parameters": {"Trace": {"name": "X-Trace", "in": "header", "required": true,
                    "schema": {"type": "string", "format": "uuid"}}},
                "requestBodies": {"Order": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}}}},
                "schemas": {"Order": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "minLength": 3},
                    "state": {"enum": ["new", "paid"]},
                    "parent": {"$ref": "#/components/schemas/Order"},
                }}},
            },
        });
        let routes = routes(&document).unwrap();
        assert_eq!(
            routes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["GET /v1/orders/{id}", "PUT /v1/orders/{id}"]
        );
        let put = &routes[1];
        assert_eq!((put.params[0].good.as_str(), put.query[0].is_required), ("6", false));
        assert_eq!((put.headers[0].name.as_str(), put.headers[0].is_required), ("X-Trace", true));
        assert_eq!((put.body.as_str(), put.content_type.as_str()), (r#"{"name":"aaa"}"#, "application/json"));
        assert!(put.full_body.contains(r#""state":"new""#) && put.full_body.len() < 4000, "{}", put.full_body);
        assert!(put.words.iter().any(|word| word == "paid"));
        assert_eq!(
            (&put.params[0].others[..], &put.query[0].others[..]),
            (&["5".to_owned()][..], &["false".to_owned()][..])
        );
        assert!(put.messages.iter().all(|body| *body != put.full_body && body.len() < 4000));
        assert!(put.messages.iter().any(|body| body.contains(r#""state":"paid""#)), "{:?}", put.messages);
    }

    #[test]
    fn further_bodies_have_each_member_and_null_in_turn() {
        let bodies = |schema: Json| {
            let operation = json!({"requestBody": {"content": {"application/json": {"schema": schema}}}});
            routes(&json!({"openapi": "3.1.0", "paths": {"/": {"post": operation}}})).unwrap().remove(0).messages
        };
        let text = json!({"type": "string"});
        let schema = json!({"properties": {"kind": {"enum": ["a", "b"]}, "note": {"anyOf": [{"type": "null"}, text]}}});
        assert_eq!(bodies(schema), [r#"{"kind":"b","note":"a"}"#, r#"{"kind":"a","note":null}"#]);
        let many: serde_json::Map<_, _> =
            (0..100).map(|number| (number.to_string(), json!({"enum": [1, 2]}))).collect();
        assert_eq!(bodies(json!({ "properties": many })).len(), super::OTHERS_MAX);
    }

    /// A union with itself names no end of values.
    #[test]
    fn a_schema_that_is_a_part_of_itself_ends() {
        let part = json!({"$ref": "#/components/schemas/Value"});
        let value = json!({"anyOf": [part, {"type": "integer"}, part]});
        let parameter = json!({"name": "q", "in": "query", "schema": part});
        let document = json!({"openapi": "3.1.0", "paths": {"/": {"get": {"parameters": [parameter]}}},
            "components": {"schemas": {"Value": value}}});
        assert_eq!(routes(&document).unwrap()[0].query.len(), 1);
    }

    #[test]
    fn forms_have_fields_and_files() {
        let form = |kind: &str| {
            let schema =
                json!({"properties": {"a b": {"type": "string"}, "file": {"type": "string", "format": "binary"}}});
            let mut schema = schema;
            if kind.ends_with("urlencoded") {
                schema["properties"].as_object_mut().unwrap().remove("file");
            }
            json!({"openapi": "3.0.0", "paths": {"/": {"post": {"requestBody": {"content": {kind: {"schema": schema}}}}}}})
        };
        let pairs = &routes(&form("application/x-www-form-urlencoded")).unwrap()[0];
        assert_eq!((pairs.body.as_str(), pairs.full_body.as_str()), ("", "a+b=a"));
        let parts = &routes(&form("multipart/form-data")).unwrap()[0];
        assert!(parts.content_type.starts_with("multipart/form-data; boundary="));
        assert!(parts.full_body.contains("filename=\"a.txt\""), "{}", parts.full_body);
        let old = json!({"swagger": "2.0", "basePath": "/v2", "paths": {"/pets": {"post": {"parameters": [
            {"name": "name", "in": "formData", "type": "string", "required": true}]}}}});
        assert_eq!(routes(&old).unwrap()[0].body, "name=a");
    }

    #[test]
    fn channels_are_websockets() {
        let message =
            json!({"payload": {"type": "object", "required": ["type"], "properties": {"type": {"const": "join"}}}});
        let second = json!({"asyncapi": "2.6.0", "channels": {"/rooms/{room}": {
            "parameters": {"room": {"schema": {"type": "string"}}},
            "bindings": {"ws": {"query": {"required": ["token"], "properties": {"token": {"type": "string"}}}}},
            "publish": {"message": {"oneOf": [message]}},
            "subscribe": {"message": {"payload": {"const": "not from clients"}}},
        }}});
        let third = json!({"asyncapi": "3.0.0",
            "channels": {"rooms": {"address": "/rooms/{room}", "parameters": {"room": {}}, "messages": {"join": message},
                "bindings": {"ws": {"query": {"required": ["token"], "properties": {"token": {"type": "string"}}}}}}},
            "operations": {"join": {"action": "receive", "channel": {"$ref": "#/channels/rooms"}}},
        });
        for document in [second, third] {
            let routes = routes(&document).unwrap();
            let [room] = routes.as_slice() else { panic!("{routes:?}") };
            assert_eq!(
                (room.to_string().as_str(), room.messages.as_slice()),
                ("ws:/rooms/{room}", &[r#"{"type":"join"}"#.to_owned()][..])
            );
            assert!(room.query[0].is_required && room.params.len() == 1);
        }
    }

    #[test]
    fn others_are_refused() {
        for (document, why) in
            [(json!({"asyncapi": "1.2.0"}), "1.2.0"), (json!([]), "openapi"), (json!({"info": {}}), "openapi")]
        {
            assert!(routes(&document).unwrap_err().contains(why));
        }
        // A reference to itself has no end.
        let circle = json!({"openapi": "3.0.0", "paths": {"/a": {"$ref": "#/paths/~1a"}}});
        assert!(routes(&circle).unwrap().is_empty());
    }
}
