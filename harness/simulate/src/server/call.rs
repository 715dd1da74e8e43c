//! One call of the application, and the two ends it holds: receive and send.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Sleep;

use crate::server::{Life, StopNotice};
use crate::{
    application::{Application, BoxFuture, Credit, Receive, SendEvent},
    link::{Progress, Wire},
    recorder::ExchangeRecorder,
};
use relapse_core::{
    asgi::{
        event::{Inbound, MessageKeys, Outbound},
        exception::Exception,
        scope::{Scope, ScopeType},
    },
    fault::Place,
    record::transcript::{Actor, EventKind, Level},
};

/// How many bytes `send` leaves unwritten before it waits for the client to read, as asyncio transports do.
const HIGH_WATER_BYTES: usize = 64 * 1024;

/// How many events wait for the application before the server reads no further (`websockets`' `max_queue`).
const INBOX_EVENTS_MAX: usize = 32;

/// A server's handling of the events an application sends.
pub(super) trait Protocol: Send + 'static {
    /// The kind of the connection.
    const KIND: ScopeType;

    /// Takes an event and appends what it puts on the wire; an error is raised in the application.
    fn take(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception>;

    /// Whether it would take a WebSocket message now.
    fn takes_messages(&self) -> bool {
        false
    }

    /// The event that `receive` gives now; `None` where it waits.
    fn give(&mut self, inbox: &mut VecDeque<Inbound>) -> Option<Inbound> {
        inbox.pop_front()
    }

    /// The keys that a message has in this server's words.
    fn message_keys(&self) -> MessageKeys {
        MessageKeys::Both
    }

    /// The application waits for something.
    fn rest(&mut self) {}

    /// The connection is gone, and what serves it.
    fn lose(&mut self) {}
}

/// How often an application is told that its client is gone. One that goes on asking waits from then on, so that a loop that
/// ignores the end of its client does not go on for ever at one moment.
const DISCONNECTS_MAX: usize = 1000;

/// The state that application and server share for the length of one call.
pub(super) struct CallState<P> {
    pub(super) protocol: P,
    outgoing: Vec<u8>,
    inbox: VecDeque<Inbound>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    /// Wakes the server for what another call does with this one's ends.
    server: Option<Waker>,
    has_moved: bool,
    /// Whether `send` told the application that its client is gone.
    told_gone: bool,
    /// How often `receive` told it that.
    disconnects: usize,
}

/// One call of the application.
pub(super) struct AppCall<P: Protocol> {
    future: BoxFuture<'static, Result<(), Exception>>,
    desk: Arc<Mutex<CallState<P>>>,
    scribe: ExchangeRecorder,
    running: bool,
}

/// The next event of a call.
pub(super) enum CallStep {
    /// The application sent something, or made room for more.
    Moved,
    /// The application's call ended.
    Ended(Result<(), Exception>),
    /// Bytes came from the client, or its end.
    Wire,
}

/// The next event that a connection handles.
pub(super) enum NextEvent {
    /// The call, or its client.
    Step(CallStep),
    /// The process of the server.
    Stop(Life),
    /// The connection's own timer.
    Timer,
}

impl<P: Protocol> AppCall<P> {
    pub(super) fn start(
        application: Arc<dyn Application>,
        scope: Scope,
        protocol: P,
        scribe: &ExchangeRecorder,
    ) -> AppCall<P> {
        let desk = CallState {
            protocol,
            outgoing: Vec::with_capacity(1024),
            inbox: VecDeque::new(),
            receiver: None,
            sender: None,
            server: None,
            has_moved: false,
            told_gone: false,
            disconnects: 0,
        };
        let desk = Arc::new(Mutex::new(desk));
        // The layer of event faults between here and the application keeps the event log of what it really gets and gives.
        let ledger = (!scribe.has_faults_at(Place::Event)).then(|| scribe.clone());
        let inlet = ReceiveChannel { desk: Arc::clone(&desk), ledger: ledger.clone() };
        let outlet = SendChannel { desk: Arc::clone(&desk), ledger };
        let log = scribe.clone();
        let call = application.call(scope, Box::new(inlet), Box::new(outlet));
        let future = Box::pin(async move { log.with_log(call).await });
        AppCall { future, desk, scribe: scribe.clone(), running: true }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Cancels the call: whatever it awaits is never heard of again.
    pub(super) fn cancel(&mut self) {
        if self.running {
            self.running = false;
            self.future = Box::pin(pending());
            self.scribe.record(Actor::Application, EventKind::Raised(Exception::cancelled()));
        }
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, CallState<P>> {
        lock(&self.desk)
    }

    /// Wakes a `receive` that waits, because there may be something for it.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.desk().receiver.take() {
            waker.wake();
        }
    }

    /// Gives an event to the application.
    pub(super) fn deliver(&self, event: Inbound) {
        let mut desk = self.desk();
        desk.inbox.push_back(event);
        if let Some(waker) = desk.receiver.take() {
            waker.wake();
        }
    }

    /// Whether the application has to take something before it gets more.
    pub(super) fn is_inbox_full(&self) -> bool {
        self.desk().inbox.len() >= INBOX_EVENTS_MAX
    }

    /// Lets the application run and the wire move until one of them has something to say.
    pub(super) fn poll_step(&mut self, wire: Option<&mut Wire>, cx: &mut Context<'_>) -> Poll<CallStep> {
        if let Poll::Ready(step) = self.poll_application(cx) {
            return Poll::Ready(step);
        }
        let Some(wire) = wire else { return Poll::Pending };
        loop {
            self.move_outgoing(wire);
            match wire.poll_progress(cx) {
                Poll::Ready(Progress::Flushed) => {}
                Poll::Ready(Progress::Read | Progress::End) => return Poll::Ready(CallStep::Wire),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The same while the server cannot read: what goes out goes out, where there is a wire for it.
    pub(super) fn poll_writing(&mut self, wire: Option<&mut Wire>, cx: &mut Context<'_>) -> Poll<CallStep> {
        if let Poll::Ready(step) = self.poll_application(cx) {
            return Poll::Ready(step);
        }
        if let Some(wire) = wire {
            while self.move_outgoing(wire) && wire.poll_push(cx).is_ready() {}
        }
        Poll::Pending
    }

    fn poll_application(&mut self, cx: &mut Context<'_>) -> Poll<CallStep> {
        // The server is awake, and looks at what moved right after this.
        self.desk().server = None;
        if self.running
            && let Poll::Ready(result) = self.future.as_mut().poll(cx)
        {
            self.running = false;
            match &result {
                Ok(()) => self.scribe.record(Actor::Application, EventKind::Returned),
                Err(exception) => {
                    self.scribe.record(Actor::Application, EventKind::Raised(exception.clone()));
                    // Every server logs an exception that leaves the application, but for the one it raised itself to
                    // say that the client is gone (uvicorn's ClientDisconnected; ASGI, "Disconnected Client").
                    let is_others = P::KIND == ScopeType::Websocket && exception.is_client_disconnected();
                    if !(is_others || exception.is_disconnect() && self.desk().told_gone) {
                        let message = format!("Exception in ASGI application: {exception}");
                        self.scribe
                            .record(Actor::Front, EventKind::Logged { level: Level::Error, message, unhandled: None });
                    }
                }
            }
            return Poll::Ready(CallStep::Ended(result));
        }
        {
            let mut desk = self.desk();
            if std::mem::take(&mut desk.has_moved) {
                return Poll::Ready(CallStep::Moved);
            }
            desk.server = Some(cx.waker().clone());
            desk.protocol.rest();
        }
        Poll::Pending
    }

    /// The same, until the server is told to stop, or the timer fires.
    pub(super) async fn next(
        &mut self,
        mut wire: Option<&mut Wire>,
        stop: &mut StopNotice,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> NextEvent {
        poll_fn(|cx| {
            if let Poll::Ready(step) = self.poll_step(wire.as_deref_mut(), cx) {
                return Poll::Ready(NextEvent::Step(step));
            }
            if let Poll::Ready(life) = stop.poll_next(cx) {
                return Poll::Ready(NextEvent::Stop(life));
            }
            match timer {
                Some(timer) => timer.as_mut().poll(cx).map(|()| NextEvent::Timer),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Hands what the application sent to the wire, once the wire is empty; says whether the wire has anything.
    pub(super) fn move_outgoing(&self, wire: &mut Wire) -> bool {
        if wire.outgoing.is_empty() {
            let mut desk = self.desk();
            std::mem::swap(&mut wire.outgoing, &mut desk.outgoing);
            if let Some(waker) = desk.sender.take() {
                waker.wake();
            }
        }
        !wire.outgoing.is_empty()
    }
}

impl<P: Protocol> Drop for AppCall<P> {
    fn drop(&mut self) {
        // Something of the application may still hold what it received and sent with.
        let mut desk = self.desk();
        desk.protocol.lose();
        if let Some(waker) = desk.receiver.take() {
            waker.wake();
        }
    }
}

impl<P> CallState<P> {
    fn wake_server(&mut self) {
        if self.has_moved
            && let Some(server) = self.server.take()
        {
            server.wake();
        }
    }

    /// The bytes the server still has to write, for what it says on its own account.
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }
}

fn lock<P>(desk: &Mutex<CallState<P>>) -> MutexGuard<'_, CallState<P>> {
    // A panic with the lock held happens between whole events, so the data is consistent.
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

struct ReceiveChannel<P> {
    desk: Arc<Mutex<CallState<P>>>,
    ledger: Option<ExchangeRecorder>,
}

impl<P: Protocol> Receive for ReceiveChannel<P> {
    fn receive(&mut self) -> BoxFuture<'_, Result<Inbound, Exception>> {
        Box::pin(poll_fn(|cx| {
            let mut desk = lock(&self.desk);
            let desk = &mut *desk;
            let is_deaf = desk.disconnects >= DISCONNECTS_MAX;
            match (!is_deaf).then(|| desk.protocol.give(&mut desk.inbox)).flatten() {
                Some(event) => {
                    desk.disconnects +=
                        usize::from(matches!(event, Inbound::WebsocketDisconnect { .. } | Inbound::HttpDisconnect));
                    // There is room again for what the server did not read.
                    desk.has_moved |= desk.inbox.is_empty() || desk.inbox.len() + 1 >= INBOX_EVENTS_MAX;
                    desk.wake_server();
                    if let Some(ledger) = &self.ledger {
                        ledger.record(Actor::Application, EventKind::Received(event.clone()));
                    }
                    Poll::Ready(Ok(event))
                }
                None => {
                    desk.receiver = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    /// A WebSocket's first event is the same even if its client leaves.
    fn foreseen(&self) -> Option<Inbound> {
        lock(&self.desk).inbox.front().filter(|event| **event == Inbound::WebsocketConnect).cloned()
    }

    fn message_keys(&self) -> MessageKeys {
        lock(&self.desk).protocol.message_keys()
    }
}

struct SendChannel<P> {
    desk: Arc<Mutex<CallState<P>>>,
    ledger: Option<ExchangeRecorder>,
}

impl<P: Protocol> SendEvent for SendChannel<P> {
    fn send(&mut self, event: Outbound) -> BoxFuture<'_, Result<(), Exception>> {
        if let Some(ledger) = &self.ledger {
            ledger.record(Actor::Application, EventKind::Sent(event.clone()));
        }
        let mut event = Some(event);
        Box::pin(poll_fn(move |cx| {
            let mut desk = lock(&self.desk);
            let desk = &mut *desk;
            desk.has_moved |= event.is_some();
            desk.wake_server();
            if let Some(event) = event.take()
                && let Err(exception) = desk.protocol.take(event, &mut desk.outgoing)
            {
                desk.told_gone |= exception.is_disconnect();
                if let Some(ledger) = &self.ledger {
                    ledger.record(Actor::Application, EventKind::CallRaised(exception.clone()));
                }
                return Poll::Ready(Err(exception));
            }
            if desk.outgoing.len() < HIGH_WATER_BYTES {
                return Poll::Ready(Ok(()));
            }
            desk.sender = Some(cx.waker().clone());
            Poll::Pending
        }))
    }

    fn kind(&self) -> Option<ScopeType> {
        Some(P::KIND)
    }

    fn credit(&self) -> Credit {
        let desk = Arc::clone(&self.desk);
        Arc::new(move || {
            let desk = lock(&desk);
            // The message that reaches the mark waits.
            let room = (HIGH_WATER_BYTES - 1).saturating_sub(desk.outgoing.len());
            if desk.protocol.takes_messages() { room } else { 0 }
        })
    }
}
