//! A finding as a test in Python that needs only the application: it replays the events that the application received,
//! and asserts the property that does not hold.
//!
//! `test.py.j2` is the test; `connection` writes the replayed connections, and `literal` values as Python has them.

mod connection;
mod literal;

use minijinja::{Environment, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use relapse::Found;
use relapse_core::{
    judge::{
        cause::Cause,
        check::RunView,
        classify::Exchange,
        outcome::{Class, Ending},
        verdict::{HealthyClient, Rule},
    },
    record::redact::{holds_secret, password_in_url},
};
use relapse_simulate::profile::Profile;
use serde::Serialize;

use connection::ConnectionPart;
use literal::{Literals, quote};

/// The test.
const TEMPLATE: &str = include_str!("test.py.j2");

/// How long a connection may take beyond what it took when it was recorded, in seconds.
const LIMIT_S: u64 = 10;

/// How an application is loaded by a test.
#[derive(Debug)]
pub struct Loaded {
    /// The application, `module:attribute`.
    pub app: String,
    /// Whether the attribute is a function that makes it.
    pub factory: bool,
    /// Its directory, from the test's.
    pub directory: String,
    /// Environment variables that it is given.
    pub environment: Vec<(String, String)>,
    /// A token that is not to stand in a file, and the Python expression, a text, that gives it.
    pub secret: Option<(String, String)>,
}

/// A finding that is to become a test.
#[derive(Debug)]
pub struct Heading<'a> {
    /// The name of the test: letters, digits and `_`.
    pub name: &'a str,
    /// The finding.
    pub found: &'a Found,
    /// The command that shows it again.
    pub again: &'a str,
    /// How its application is loaded.
    pub loaded: &'a Loaded,
    /// The server that stood in front of the application.
    pub profile: &'a Profile,
}

/// A property that can be looked at without a server. The template asserts them in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum TestedProperty {
    Raises,
    Sends,
    Status,
    Internal,
    Close,
    Body,
    Leak,
    Errors,
    Time,
}

/// The template's variables. A field that is no Python expression is a text without quotes.
#[derive(Debug, Serialize)]
struct TestPage<'a> {
    title: String,
    seed: u64,
    server: &'a str,
    again: String,
    name: &'a str,
    app: &'a str,
    factory: bool,
    directory: &'a str,
    /// Whether its expressions call `secret`.
    has_secrets: bool,
    /// An expression.
    environment: String,
    /// An expression.
    token: Option<&'a str>,
    limit: u64,
    stays: bool,
    connections: Vec<ConnectionPart>,
    properties: Vec<TestedProperty>,
}

/// The test; `None` for a finding that the events of an application alone cannot show.
pub fn render(heading: &Heading<'_>) -> Option<String> {
    let evidence = RunView::gather(&heading.found.transcript, &HealthyClient::Absent);
    let properties = properties(heading.found, &evidence);
    if properties.is_empty() {
        return None;
    }
    Some(fill_in(&page(heading, &evidence, properties)).expect("the template has no other variables"))
}

fn fill_in(page: &TestPage<'_>) -> Result<String, minijinja::Error> {
    let mut environment = Environment::empty();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("literal", literal::of_template);
    environment.render_str(TEMPLATE, Serde(page))
}

fn page<'a>(heading: &Heading<'a>, evidence: &RunView<'_>, properties: Vec<TestedProperty>) -> TestPage<'a> {
    let Heading { name, found, again, loaded, profile } = heading;
    let literals = Literals { secret: loaded.secret.as_ref().map(|(token, _)| token.as_str()) };
    let stays = evidence.outcomes.iter().any(|outcome| matches!(outcome.ending, Ending::Hang { .. }));
    let took = evidence.transcript.events.last().map_or(0, |event| event.at.as_secs());
    let exchanges = evidence.readings.iter().enumerate();
    TestPage {
        title: docstring(&capitalized(&found.message)),
        seed: found.seed,
        server: &profile.name,
        again: docstring(again),
        name,
        app: &loaded.app,
        factory: loaded.factory,
        directory: &loaded.directory,
        has_secrets: loaded.secret.is_some() || loaded.environment.iter().any(is_kept_out),
        environment: literals.dict(loaded.environment.iter().map(variable)),
        token: loaded.secret.as_ref().map(|(_, expression)| expression.as_str()),
        limit: if stays { LIMIT_S } else { LIMIT_S + took },
        stays,
        connections: exchanges
            .filter_map(|(number, exchange)| ConnectionPart::of(exchange, number, profile, &literals))
            .collect(),
        properties,
    }
}

/// An environment variable and its value. Secrets are read from the environment, not written down.
fn variable(variable: &(String, String)) -> (&str, String) {
    let (name, value) = variable;
    (name, if is_kept_out(variable) { format!("secret({})", quote(name)) } else { quote(value) })
}

/// Whether the value of a variable is a secret, or has a password in it.
fn is_kept_out((name, value): &(String, String)) -> bool {
    holds_secret(name) || password_in_url(value).is_some()
}

/// The properties that do not hold, as far as the application's own events show it.
fn properties(found: &Found, evidence: &RunView<'_>) -> Vec<TestedProperty> {
    let has_escaped = evidence.readings.iter().any(escapes);
    let mut properties = if has_escaped { vec![TestedProperty::Raises] } else { Vec::new() };
    let has_hung = evidence.outcomes.iter().any(|outcome| outcome.class == Class::Hang);
    for key in std::iter::once(&found.key).chain(found.also.iter().map(|(key, _)| key)) {
        let subject = key.subject.as_deref().unwrap_or_default();
        properties.extend(match key.rule {
            Rule::Check("asgi_conformance") => Some(TestedProperty::Sends),
            Rule::Check("no_server_error") if !has_escaped && !is_abandoned(evidence) => Some(TestedProperty::Status),
            Rule::Check("no_internal_close") if !has_escaped => Some(TestedProperty::Internal),
            Rule::Check("legal_close") => Some(TestedProperty::Close),
            Rule::Check("body_complete") if !has_escaped => Some(TestedProperty::Body),
            Rule::Check("no_leak_in_answers") => Some(TestedProperty::Leak),
            Rule::Check("no_error_log" | "no_error_log_for_client_fault")
                if !subject.starts_with("Exception in ASGI") =>
            {
                Some(TestedProperty::Errors)
            }
            Rule::Check("bounded_wait" | "handler_ends" | "no_residue") => Some(TestedProperty::Time),
            Rule::Class(Class::Hang) if has_hung => Some(TestedProperty::Time),
            Rule::Class(_) | Rule::Check(_) if subject == Cause::ReturnedWithoutResponse.name() => {
                Some(TestedProperty::Sends)
            }
            Rule::Class(_) | Rule::Check(_) | Rule::NoPanic => None,
        });
    }
    properties.sort_unstable();
    properties.dedup();
    properties
}

/// Whether an exception of the application's own left its call.
fn escapes(exchange: &Exchange<'_>) -> bool {
    exchange.escaped().is_some() && !exchange.is_escape_injected() && exchange.machine().is_some()
}

fn is_abandoned(evidence: &RunView<'_>) -> bool {
    evidence.outcomes.iter().any(|outcome| outcome.cause == Cause::ReturnedWithoutResponse)
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

/// A text that may stand in a docstring.
fn docstring(text: &str) -> String {
    let text: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    text.replace('\\', "\\\\").replace("\"\"\"", "'''")
}
