//! The user's Python ASGI application: run in lockstep, where it moves only while we wait for it and its clock is ours,
//! or behind a real server, where a witness reports the events between the two.

mod confinement;
mod core;
mod descendants;
mod finished;
mod group;
mod installer;
mod interpreter;
mod laid_out;
mod ledger;
mod marshal;
mod printed;
mod program;
mod server;
mod starvation;
mod venv;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::coop::{consume_budget, unconstrained};
use tokio::time::{Duration, Instant, sleep, sleep_until};

pub use self::confinement::Confinement;
#[cfg(target_os = "linux")]
pub use self::descendants::adopt_descendants;
pub use self::descendants::{end_descendants, is_running};
pub use self::finished::{Finished, finish};
pub use self::group::{FREE_AT_ONCE, GUARD, Group, end_all};
pub use self::installer::Installer;
pub use self::interpreter::{
    BLOCKED_LIMIT, CodeCoverage, Epoch, FIXED_EPOCH, Interpreter, Introduction, LifespanMode, MEMORY_LIMIT,
    START_LIMIT, Site,
};
use self::interpreter::{Happening, command};
pub use self::server::{Installation, InterpreterOrigin, Server, ServerChoice, ServerSoftware};
pub use self::venv::{Requirements, cache, version, versions};
use relapse_core::{
    asgi::{
        event::Outbound,
        exception::Exception,
        scope::{Scope, ScopeType},
        value::Value,
    },
    record::transcript::{Actor, EventKind, Level},
};
use relapse_simulate::{
    application::{Application, BoxFuture, EventLoop, Receive, SendEvent},
    recorder::ExchangeRecorder,
};

/// An application in an interpreter.
#[derive(Debug)]
pub struct PythonApplication(Arc<Interpreter>);

impl PythonApplication {
    /// The application of an interpreter.
    pub fn new(interpreter: Arc<Interpreter>) -> Arc<PythonApplication> {
        Arc::new(PythonApplication(interpreter))
    }
}

impl Application for PythonApplication {
    fn call(
        self: Arc<Self>,
        scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> BoxFuture<'static, Result<(), Exception>> {
        Box::pin(async move {
            let first = receive.foreseen().map(|event| event.written(receive.message_keys()));
            let receives = Receives { waiting: AtomicIsize::new(0), has_first: AtomicBool::new(first.is_some()) };
            let (id, happenings) = self.0.call(Value::Dict(scope.0), first);
            let ends = Arc::new(Ends {
                id,
                happenings: Mutex::new(happenings),
                receives,
                receive: Mutex::new(receive),
                send: Mutex::new(send),
            });
            // Before what uses the ends, so that they are free when it is dropped.
            let mut call = CancelledCall { interpreter: Arc::clone(&self.0), ends: Arc::clone(&ends), is_over: false };
            let result = ends.serve(&|commands| self.0.tell(commands)).await;
            call.is_over = true;
            result
        })
    }

    fn event_loop(&self) -> Option<watch::Receiver<EventLoop>> {
        Some(self.0.event_loop())
    }
}

/// A call that is cancelled when nothing waits for it any more. What something of the application still holds of it is
/// served on.
struct CancelledCall {
    interpreter: Arc<Interpreter>,
    ends: Arc<Ends>,
    is_over: bool,
}

impl Drop for CancelledCall {
    fn drop(&mut self) {
        let id = self.ends.id;
        let is_held = if self.is_over { self.interpreter.forget(id) } else { self.interpreter.cancel(id) };
        if !is_held {
            return;
        }
        let (ends, interpreter) = (Arc::clone(&self.ends), Arc::downgrade(&self.interpreter));
        // Where the runtime ends, the interpreter is about to.
        let Ok(runtime) = Handle::try_current() else { return };
        let is_asked = ends.is_asked();
        let serve = async move {
            let tell = |commands| {
                if let Some(interpreter) = interpreter.upgrade() {
                    interpreter.tell(commands);
                }
            };
            while !matches!(ends.serve(&tell).await, Err(exception) if exception.is_cancellation()) {}
        };
        // When Python frees a call is left to its garbage collector: a task for each would make runs differ.
        match is_asked {
            true => drop(runtime.spawn(serve)),
            false => self.interpreter.when_asked(id, Box::new(move || drop(runtime.spawn(serve)))),
        }
    }
}

/// The receive and the send of a call, and what the application asks of them.
struct Ends {
    id: i64,
    happenings: Mutex<mpsc::UnboundedReceiver<Happening>>,
    receives: Receives,
    receive: Mutex<Box<dyn Receive>>,
    send: Mutex<Box<dyn SendEvent>>,
}

/// The receives of a call.
struct Receives {
    /// How many wait, less the events that came after their receive was withdrawn.
    waiting: AtomicIsize,
    /// Whether the interpreter has the event for the first one, which the server has not given yet.
    has_first: AtomicBool,
}

impl Receives {
    fn are_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Counts one more, or one less.
    fn count(&self, more: isize) {
        self.waiting.fetch_add(more, Ordering::Relaxed);
    }
}

/// Gives commands to the interpreter.
type CommandSink<'a> = &'a (dyn Fn(Vec<Value>) + Send + Sync);

impl Ends {
    /// Whether something waits for an answer. The call is over, so that nothing holds a lock.
    fn is_asked(&self) -> bool {
        let has_asked = self.happenings.try_lock().is_ok_and(|happenings| !happenings.is_empty());
        has_asked || self.receives.are_waiting()
    }

    /// Does what the application asks for, until the call ends.
    async fn serve(&self, tell: CommandSink<'_>) -> Result<(), Exception> {
        let mut happenings = self.happenings.lock().await;
        let mut receive = self.receive.lock().await;
        let mut send = self.send.lock().await;
        let (credit, has_given, is_sending) = (send.credit(), AtomicBool::new(false), AtomicBool::new(false));
        // A message on credit must not overtake a send that waits.
        let credit_of_given = || if is_sending.load(Ordering::Relaxed) { 0 } else { credit() };
        let receives = &self.receives;
        let mut attends = pin!(attend(tell, self.id, &mut happenings, &mut **send, receives, &is_sending));
        let give_one = || {
            receives.count(-1);
            has_given.store(true, Ordering::Relaxed);
        };
        let mut gives = pin!(give(tell, self.id, receives, &mut **receive, &credit_of_given, &give_one));
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = attends.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                // An event may make the application send, and that comes before anything else moves.
                let _ = gives.as_mut().poll(cx);
                if !has_given.swap(false, Ordering::Relaxed) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

/// Does what a call asks for, until it ends.
async fn attend(
    tell: CommandSink<'_>,
    id: i64,
    happenings: &mut mpsc::UnboundedReceiver<Happening>,
    send: &mut dyn SendEvent,
    receives: &Receives,
    is_sending: &AtomicBool,
) -> Result<(), Exception> {
    let (credit, mut pace, kind) = (send.credit(), SendThrottle::new(), send.kind());
    // Handle every pending event at once, however many there are.
    while let Some(happening) = unconstrained(happenings.recv()).await {
        match happening {
            Happening::Receive => {
                receives.count(1);
                // The app has its first event already, and what it did with that follows.
                poll_fn(|_| if receives.has_first.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(()) })
                    .await;
            }
            Happening::Withdrawn => receives.count(-1),
            Happening::Send(event) => {
                is_sending.store(true, Ordering::Relaxed);
                pace.keep().await;
                let sent = send.send(outbound(kind, &event)).await;
                is_sending.store(false, Ordering::Relaxed);
                match sent {
                    Ok(()) => tell(with_credit(id, command("sent", id, []), &*credit)),
                    Err(exception) => tell(vec![raise(id, "send", exception)]),
                }
            }
            // Nothing moved between the promise that it would be taken and this.
            Happening::Sent(event) => send.send(outbound(kind, &event)).await?,
            Happening::Returned => return Ok(()),
            Happening::Raised(exception) => return Err(exception),
            Happening::Reached(blocks) => drop(ExchangeRecorder::with_current(|scribe| scribe.reach(blocks))),
            Happening::Handled(exception) => record(EventKind::Handled(exception)),
            Happening::Logged(level, message, unhandled) => {
                let level = match level {
                    40.. => Level::Error,
                    30..40 => Level::Warning,
                    _ => Level::Info,
                };
                record(EventKind::Logged { level, message, unhandled });
            }
            Happening::Left(what, Some(exchange)) => exchange.record(Actor::Application, what),
            Happening::Left(what, None) => record(what),
            Happening::Died(trouble) => {
                let message = format!("{}\n{}", trouble.message, trouble.details).trim_end().to_owned();
                record(EventKind::Logged { level: Level::Error, message, unhandled: None });
                return Err(Exception::new("SystemExit", trouble.message));
            }
        }
    }
    Err(Exception::cancelled())
}

/// The event that an application sends in a call of this kind.
fn outbound(kind: Option<ScopeType>, event: &Value) -> Outbound {
    kind.map_or_else(|| Outbound::from_value(event), |kind| Outbound::on(kind, event))
}

/// Records an event of the application in the exchange of the current task.
fn record(what: EventKind) {
    ExchangeRecorder::with_current(|scribe| scribe.record(Actor::Application, what));
}

/// The rate at which an application sends. One that sends without end at one moment would stop the virtual time, so
/// that no limit would ever expire: the more it sends, the longer each send takes.
struct SendThrottle {
    sends: u32,
    at: Instant,
    pause: Duration,
}

impl SendThrottle {
    /// How many sends take no time at one moment, and how long the next one after them takes. Each time it takes twice as
    /// long.
    const SENDS_AT_ONCE: u32 = 1000;
    const PAUSE: Duration = Duration::from_millis(1);

    fn new() -> SendThrottle {
        SendThrottle { sends: 0, at: Instant::now(), pause: SendThrottle::PAUSE }
    }

    /// Before each send. Others have their turn.
    async fn keep(&mut self) {
        consume_budget().await;
        if Instant::now() != self.at {
            *self = SendThrottle::new();
        }
        self.sends += 1;
        if self.sends > SendThrottle::SENDS_AT_ONCE {
            sleep(self.pause).await;
            *self = SendThrottle { sends: 0, at: Instant::now(), pause: 2 * self.pause };
        }
    }
}

/// Gives the next event whenever one is asked for.
async fn give(
    tell: CommandSink<'_>,
    id: i64,
    receives: &Receives,
    receive: &mut dyn Receive,
    credit: &(dyn Fn() -> usize + Sync),
    has_given: &(dyn Fn() + Sync),
) {
    loop {
        // `attend` changes this, and is polled before, in the same task.
        poll_fn(|_| if receives.are_waiting() { Poll::Ready(()) } else { Poll::Pending }).await;
        let mut next = receive.receive();
        let given = poll_fn(|cx| match receives.are_waiting() {
            true => next.as_mut().poll(cx).map(Some),
            false => Poll::Ready(None),
        });
        let given = given.await;
        drop(next);
        match given {
            None => continue,
            // The app had it with its scope.
            Some(Ok(_)) if receives.has_first.swap(false, Ordering::Relaxed) => {}
            Some(Ok(event)) => {
                let event = event.written(receive.message_keys());
                tell(with_credit(id, command("give", id, [event]), credit));
            }
            Some(Err(exception)) => tell(vec![raise(id, "receive", exception)]),
        }
        has_given();
    }
}

/// A command, and how much the call may send before it has to wait for us: a round trip for every message is saved.
fn with_credit(id: i64, command_of_call: Value, credit: &dyn Fn() -> usize) -> Vec<Value> {
    match i64::try_from(credit()) {
        Ok(bytes @ 1..) => vec![command_of_call, command("credit", id, [Value::Int(bytes)])],
        _ => vec![command_of_call],
    }
}

fn raise(id: i64, on: &'static str, exception: Exception) -> Value {
    if exception.is_cancellation() {
        // A server cancels the call, wherever in it the application waits.
        return command("cancel", id, []);
    }
    command("raise", id, [on.into(), Value::Str(exception.type_name), Value::Str(exception.message)])
}

/// Lets the application's timers fire when our clock comes to them.
pub async fn keep_time(interpreter: Arc<Interpreter>) {
    let mut timer = interpreter.timer();
    loop {
        let next = *timer.borrow_and_update();
        let fires = async {
            match next {
                Some(at) => sleep_until(interpreter.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = timer.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = fires => interpreter.tell(Vec::new()),
        }
    }
}
