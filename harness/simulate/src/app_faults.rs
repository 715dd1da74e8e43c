//! Lets the plan's scope and event faults act between a server and its application.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::{
    application::{Application, BoxFuture, EventLoop, Receive, SendEvent},
    recorder::ExchangeRecorder,
};
use relapse_core::{
    asgi::{
        event::{Inbound, MessageKeys, Outbound},
        exception::Exception,
        scope::{Scope, ScopeType},
        value::Value,
    },
    fault::{EventFault, FaultKind, Place},
    record::transcript::{Actor, EventKind},
};

/// An application behind scope and event faults.
#[derive(Debug)]
pub struct FaultyApp {
    application: Arc<dyn Application>,
    scribe: ExchangeRecorder,
}

impl FaultyApp {
    /// Puts the faults of the recorder's plan in front of an app.
    pub fn new(application: Arc<dyn Application>, scribe: ExchangeRecorder) -> Arc<FaultyApp> {
        Arc::new(FaultyApp { application, scribe })
    }
}

impl Application for FaultyApp {
    fn call(
        self: Arc<Self>,
        mut scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> BoxFuture<'static, Result<(), Exception>> {
        let on = match scope.0.get("type") {
            Some(Value::Str(name)) if name == ScopeType::Http.name() => ScopeType::Http,
            Some(Value::Str(name)) if name == ScopeType::Lifespan.name() => ScopeType::Lifespan,
            _ => ScopeType::Websocket,
        };
        for (index, fault) in self.scribe.plan().faults.iter().enumerate() {
            let FaultKind::Scope(edit) = &fault.kind else { continue };
            if on != ScopeType::Lifespan && edit.applies_to(&scope) && self.scribe.meets(index) {
                edit.apply(&mut scope);
                self.scribe.fired(index, Actor::Front, fault.kind.to_string());
            }
        }
        if !self.scribe.has_faults_at(Place::Event) {
            return Arc::clone(&self.application).call(scope, receive, send);
        }
        let scribe = self.scribe.clone();
        let inlet = FaultyReceive { receive, scribe: scribe.clone(), held: VecDeque::new(), hangs: false };
        let outlet = FaultySend { send, scribe, on };
        Arc::clone(&self.application).call(scope, Box::new(inlet), Box::new(outlet))
    }

    fn event_loop(&self) -> Option<watch::Receiver<EventLoop>> {
        self.application.event_loop()
    }
}

/// The plan's event faults that meet this event, by their place in the plan.
fn met(scribe: &ExchangeRecorder, event: &str, is_its_own: fn(&EventFault) -> bool) -> Vec<(usize, EventFault)> {
    let mut met = Vec::new();
    for (index, fault) in scribe.plan().faults.iter().enumerate() {
        let FaultKind::Event { events, fault: what } = &fault.kind else { continue };
        // A call can be cancelled wherever it waits.
        let is_meant = is_its_own(what) || *what == EventFault::Cancel {};
        if is_meant && events.include(event) && scribe.meets(index) {
            met.push((index, what.clone()));
        }
    }
    met
}

/// Counts a fault that acts now.
fn fired(scribe: &ExchangeRecorder, index: usize) {
    scribe.fired(index, Actor::Front, scribe.plan().faults[index].kind.to_string());
}

struct FaultyReceive {
    receive: Box<dyn Receive>,
    scribe: ExchangeRecorder,
    /// The events that are given before the server is asked again.
    held: VecDeque<Inbound>,
    /// `receive` never returns again.
    hangs: bool,
}

impl FaultyReceive {
    fn raise(&self, exception: Exception) -> Exception {
        self.scribe.record(Actor::Application, EventKind::CallRaised(exception.clone()));
        exception
    }

    async fn next(&mut self) -> Result<Inbound, Exception> {
        let mut last_dropped = None;
        'next: loop {
            if self.hangs {
                return pending().await;
            }
            if let Some(event) = self.held.pop_front() {
                return Ok(event);
            }
            let mut event = self.receive.receive().await?;
            for (index, fault) in met(&self.scribe, event.name(), |fault| !fault.is_on_send()) {
                fired(&self.scribe, index);
                match fault {
                    EventFault::Give { given } => self.held.push_back(Inbound::from_value(&given)),
                    EventFault::Drop {} => {
                        // Some servers give the end again whenever they are asked: dropped once more, it never comes.
                        self.hangs = last_dropped.as_ref() == Some(&event) && event.is_end();
                        last_dropped = Some(event);
                        continue 'next;
                    }
                    EventFault::OmitKey { key } => event = event.without(&key),
                    EventFault::Repeat {} => self.held.push_back(event.clone()),
                    EventFault::ReceiveRaises { error } => return Err(self.raise(Exception::parse(&error))),
                    EventFault::ReceiveHangs {} => {
                        self.hangs = true;
                        continue 'next;
                    }
                    EventFault::Cancel {} => return Err(self.raise(Exception::cancelled())),
                    EventFault::SendRaises { .. }
                    | EventFault::SendDelays { .. }
                    | EventFault::SendHangs {}
                    | EventFault::StartupFails { .. } => {}
                }
            }
            self.held.push_back(event);
        }
    }
}

impl Receive for FaultyReceive {
    fn receive(&mut self) -> BoxFuture<'_, Result<Inbound, Exception>> {
        Box::pin(async {
            let event = self.next().await?;
            self.scribe.record(Actor::Application, EventKind::Received(event.clone()));
            Ok(event)
        })
    }

    fn message_keys(&self) -> MessageKeys {
        self.receive.message_keys()
    }
}

struct FaultySend {
    send: Box<dyn SendEvent>,
    scribe: ExchangeRecorder,
    on: ScopeType,
}

impl SendEvent for FaultySend {
    fn send(&mut self, mut event: Outbound) -> BoxFuture<'_, Result<(), Exception>> {
        Box::pin(async move {
            self.scribe.record(Actor::Application, EventKind::Sent(event.clone()));
            for (index, fault) in met(&self.scribe, event.name(self.on), EventFault::is_on_send) {
                fired(&self.scribe, index);
                let exception = match fault {
                    EventFault::SendRaises { error } => Exception::parse(&error),
                    EventFault::Cancel {} => Exception::cancelled(),
                    EventFault::SendDelays { delay } => {
                        sleep(delay.0).await;
                        continue;
                    }
                    EventFault::SendHangs {} => pending().await,
                    EventFault::StartupFails { message } => {
                        event = Outbound::StartupFailed { message };
                        continue;
                    }
                    _ => continue,
                };
                self.scribe.record(Actor::Application, EventKind::CallRaised(exception.clone()));
                return Err(exception);
            }
            let sent = self.send.send(event).await;
            if let Err(exception) = &sent {
                self.scribe.record(Actor::Application, EventKind::CallRaised(exception.clone()));
            }
            sent
        })
    }

    fn kind(&self) -> Option<ScopeType> {
        self.send.kind()
    }
}
