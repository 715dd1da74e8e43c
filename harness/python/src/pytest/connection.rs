//! The replay of one connection: the scope of the application's call, and the results of its receives and sends.

use std::collections::BTreeMap;
use std::time::Duration;

use relapse_core::{
    asgi::{
        event::Inbound,
        exception::Exception,
        scope::{Scope, ScopeType},
    },
    fault::{EventFault, FaultKind},
    judge::classify::Exchange,
    record::transcript::EventKind,
};
use relapse_simulate::profile::Profile;
use serde::Serialize;

use super::literal::{Literals, quote, raised};

/// From which time on an event is waited for, in seconds.
const NOTICED_S: f64 = 0.05;

/// A connection as its part of the file has it: Python expressions.
#[derive(Debug, Serialize)]
pub(super) struct ConnectionPart {
    scope: Vec<ScopeEntry>,
    receives: Vec<ReceivePart>,
    /// A dictionary: the number of a send, its seconds and its exception.
    sends: String,
}

/// A key of the scope.
#[derive(Debug, Serialize)]
struct ScopeEntry {
    key: String,
    value: String,
}

/// The result of a `receive()`.
#[derive(Debug, Serialize)]
struct ReceivePart {
    second: String,
    /// The number of sends before it.
    sends: usize,
    /// An event, or an exception.
    event: String,
}

impl ConnectionPart {
    /// The connection of an exchange; `None` if it did not call the application.
    pub(super) fn of(
        exchange: &Exchange<'_>,
        number: usize,
        profile: &Profile,
        literals: &Literals<'_>,
    ) -> Option<ConnectionPart> {
        let (kind, head, start) = exchange.events.iter().find_map(|event| match &event.what {
            EventKind::Called { kind, head } => Some((*kind, head, event.at)),
            _ => None,
        })?;
        let mut scope = Scope::build(kind, head, &profile.scope, number);
        for fault in exchange.acted() {
            if let FaultKind::Scope(edit) = fault {
                edit.apply(&mut scope);
            }
        }
        let mut entries: Vec<_> = scope.0.iter().collect();
        entries.sort_by_key(|(key, _)| *key != "type");
        let (receives, sends) = plays(exchange, kind, start.as_secs_f64());
        let entries = entries.into_iter();
        Some(ConnectionPart {
            scope: entries
                .map(|(key, value)| ScopeEntry { key: quote(key), value: literals.scope_value(key, value) })
                .collect(),
            receives: receives.into_iter().map(|received| receive_part(received, literals)).collect(),
            sends: sends_part(sends),
        })
    }
}

fn receive_part((second, sends, received): Received<'_>, literals: &Literals<'_>) -> ReceivePart {
    let event = match received {
        Ok(event) => literals.value(&event.to_value()),
        Err(exception) => raised(exception),
    };
    ReceivePart { second: seconds(second), sends, event }
}

fn sends_part(sends: Sends<'_>) -> String {
    let entries = sends.into_iter().map(|(number, (second, error))| {
        let error = error.map_or("None".to_owned(), raised);
        format!("{number}: ({}, {error})", seconds(second))
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}

/// At which second, after how many sends, the application receives an event or an exception.
type Received<'a> = (f64, usize, Result<&'a Inbound, &'a Exception>);

/// For the number of a send, how many seconds it takes, and what it raises.
type Sends<'a> = BTreeMap<usize, (f64, Option<&'a Exception>)>;

/// The events that an application received, and the results of its sends, from its own event log.
fn plays<'a>(reading: &Exchange<'a>, kind: ScopeType, start: f64) -> (Vec<Received<'a>>, Sends<'a>) {
    let (mut receives, mut sends, mut count) = (Vec::new(), BTreeMap::new(), 0);
    let mut is_on_send = true;
    for event in &reading.events {
        let at = event.at.as_secs_f64() - start;
        match &event.what {
            // Events after the client's deadline are not part of it.
            EventKind::DeadlinePassed { .. } => break,
            EventKind::FaultFired { index, .. } => match reading.faults.get(*index).map(|fault| &fault.kind) {
                Some(FaultKind::Event { fault: EventFault::SendDelays { delay }, .. }) => {
                    sends.entry(count).or_insert((0.0, None)).0 += delay.0.as_secs_f64();
                }
                Some(FaultKind::Event { fault: EventFault::ReceiveRaises { .. }, .. }) => is_on_send = false,
                Some(FaultKind::Event { fault: EventFault::Cancel {}, .. }) => {
                    is_on_send = matches!(last_act(reading, event.at), Some(EventKind::Sent(_)));
                }
                _ => {}
            },
            EventKind::Received(received) => receives.push((at, count, Ok(received))),
            EventKind::Sent(_) => count += 1,
            EventKind::CallRaised(exception) if is_on_send => {
                sends.entry(count).or_insert((0.0, None)).1 = Some(exception)
            }
            EventKind::CallRaised(exception) => {
                is_on_send = true;
                receives.push((at, count, Err(exception)));
            }
            _ => {}
        }
    }
    let injected =
        reading.acted().any(|fault| matches!(fault, FaultKind::Event { fault: EventFault::SendRaises { .. }, .. }));
    if kind == ScopeType::Http || !injected {
        sends.retain(|_, (delay, error)| *delay > 0.0 || !error.is_some_and(is_answer));
    }
    (receives, sends)
}

/// Whether an exception is a server's answer to a wrong event, which is not replayed.
fn is_answer(exception: &Exception) -> bool {
    !exception.is_disconnect() && !exception.is_cancellation()
}

/// The last thing that the application did until some time.
fn last_act<'a>(reading: &Exchange<'a>, until: Duration) -> Option<&'a EventKind> {
    let mut before = reading.events.iter().filter(|event| event.at <= until).map(|event| &event.what);
    before.rfind(|what| matches!(what, EventKind::Sent(_) | EventKind::Received(_)))
}

/// A time in seconds; 0 if it is too short to matter.
fn seconds(second: f64) -> String {
    if second < NOTICED_S { "0".to_owned() } else { format!("{second:.3}") }
}
