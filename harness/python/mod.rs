//! Somebody's Python ASGI application: run in lockstep, where it moves only while we wait for it and its clock is ours, or
//! behind a real server, where a witness tells what the two say to one another.

mod core;
mod group;
mod interpreter;
mod ledger;
mod marshal;
mod note;
mod server;
mod venv;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::mpsc;
use tokio::task::coop::{consume_budget, unconstrained};
use tokio::time::{Duration, Instant, sleep, sleep_until};

pub use self::group::end_all;
pub use self::interpreter::{BLOCKED_LIMIT, Interpreter, Introduction, MEMORY_LIMIT, Site};
use self::interpreter::{Happening, command};
pub use self::note::Note;
pub use self::server::{Installation, START_LIMIT, Server, ServerChoice, Software};
pub use self::venv::{Requirements, cache, version, versions};
use crate::{
    application::{Application, Promise, Receive, SendEvent},
    event::Outbound,
    exception::Exception,
    recorder::Scribe,
    scope::Scope,
    transcript::{Level, Party, What},
    value::Value,
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
    ) -> Promise<'static, Result<(), Exception>> {
        Box::pin(async move {
            let (id, happenings) = self.0.call(Value::Dict(scope.0));
            let mut call = Call { interpreter: Arc::clone(&self.0), id, is_over: false };
            let (wanted, wants) = mpsc::unbounded_channel();
            let (credit, has_given, is_sending) = (send.credit(), AtomicBool::new(false), AtomicBool::new(false));
            // What is sent on credit must not come before what waits.
            let credit_of_given = || if is_sending.load(Ordering::Relaxed) { 0 } else { credit() };
            let mut attends = pin!(attend(&self.0, id, happenings, send, wanted, &is_sending));
            let mut gives = pin!(give(&self.0, id, wants, receive, &credit_of_given, &has_given));
            let result = poll_fn(|cx| {
                loop {
                    if let Poll::Ready(result) = attends.as_mut().poll(cx) {
                        return Poll::Ready(result);
                    }
                    // What it gets may make it send, and that is attended to before anything else moves.
                    let _ = gives.as_mut().poll(cx);
                    if !has_given.swap(false, Ordering::Relaxed) {
                        return Poll::Pending;
                    }
                }
            });
            let result = result.await;
            call.is_over = true;
            result
        })
    }
}

/// A call that is cancelled when nobody waits for it any more.
struct Call {
    interpreter: Arc<Interpreter>,
    id: i64,
    is_over: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.interpreter.forget(self.id, self.is_over);
    }
}

/// Does what a call asks for, until it ends.
async fn attend(
    interpreter: &Interpreter,
    id: i64,
    mut happenings: mpsc::UnboundedReceiver<Happening>,
    mut send: Box<dyn SendEvent>,
    wanted: mpsc::UnboundedSender<()>,
    is_sending: &AtomicBool,
) -> Result<(), Exception> {
    let (credit, mut pace) = (send.credit(), Pace::new());
    let log = |level, message| {
        Scribe::with_current(|scribe| scribe.record(Party::Application, What::Logged { level, message }));
    };
    // What has happened is attended to at once, however much it is.
    while let Some(happening) = unconstrained(happenings.recv()).await {
        match happening {
            Happening::Receive => drop(wanted.send(())),
            Happening::Send(event) => {
                is_sending.store(true, Ordering::Relaxed);
                pace.keep().await;
                let sent = send.send(Outbound::from_value(&event)).await;
                is_sending.store(false, Ordering::Relaxed);
                match sent {
                    Ok(()) => interpreter.tell(with_credit(id, command("sent", id, []), &*credit)),
                    Err(exception) => interpreter.tell(vec![raise(id, "send", exception)]),
                }
            }
            // Nothing moved between the promise that it would be taken and this.
            Happening::Sent(event) => send.send(Outbound::from_value(&event)).await?,
            Happening::Returned => return Ok(()),
            Happening::Raised(exception) => return Err(exception),
            Happening::Logged(level, message) => {
                let level = match level {
                    40.. => Level::Error,
                    30..40 => Level::Warning,
                    _ => Level::Info,
                };
                log(level, message);
            }
            Happening::Died(trouble) => {
                log(Level::Error, format!("{}\n{}", trouble.message, trouble.details).trim_end().to_owned());
                return Err(Exception::new("SystemExit", trouble.message));
            }
        }
    }
    Err(Exception::cancelled())
}

/// How fast an application sends. One that sends without end at one moment would never let time go on, so that no limit
/// of anybody would come: the more it sends, the longer that takes.
struct Pace {
    sends: u32,
    at: Instant,
    pause: Duration,
}

impl Pace {
    /// How many sends take no time at one moment, and how long the next one after them takes. Each time it takes twice as
    /// long.
    const SENDS_AT_ONCE: u32 = 1000;
    const PAUSE: Duration = Duration::from_millis(1);

    fn new() -> Pace {
        Pace { sends: 0, at: Instant::now(), pause: Pace::PAUSE }
    }

    /// Before each send. Others have their turn.
    async fn keep(&mut self) {
        consume_budget().await;
        if Instant::now() != self.at {
            *self = Pace::new();
        }
        self.sends += 1;
        if self.sends > Pace::SENDS_AT_ONCE {
            sleep(self.pause).await;
            *self = Pace { sends: 0, at: Instant::now(), pause: 2 * self.pause };
        }
    }
}

/// Gives the next event whenever one is asked for.
async fn give(
    interpreter: &Interpreter,
    id: i64,
    mut wants: mpsc::UnboundedReceiver<()>,
    mut receive: Box<dyn Receive>,
    credit: &(dyn Fn() -> usize + Sync),
    has_given: &AtomicBool,
) {
    while wants.recv().await.is_some() {
        match receive.receive().await {
            Ok(event) => interpreter.tell(with_credit(id, command("give", id, [event.to_value()]), credit)),
            Err(exception) => interpreter.tell(vec![raise(id, "receive", exception)]),
        }
        has_given.store(true, Ordering::Relaxed);
    }
    std::future::pending().await
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
        // A server cancels the call, wherever in it somebody waits.
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
            changed = timer.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = fires => interpreter.tell(Vec::new()),
        }
    }
}
