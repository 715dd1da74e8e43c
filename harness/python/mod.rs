//! Somebody's Python ASGI application, run in lockstep: it moves only while we wait for it, and its clock is ours.

mod group;
mod interpreter;
mod marshal;
mod venv;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::sleep_until;

pub use self::group::end_all;
pub use self::interpreter::{BLOCKED_LIMIT, Interpreter, Introduction, Route, Site};
use self::interpreter::{Happening, command};
pub use self::venv::{Requirements, cache};
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
            let result = tokio::select! {
                biased;
                result = attend(&self.0, id, happenings, send, wanted) => result,
                () = give(&self.0, id, wants, receive) => unreachable!("it gives for as long as it is asked"),
            };
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
) -> Result<(), Exception> {
    let log = |level, message| {
        Scribe::with_current(|scribe| scribe.record(Party::Application, What::Logged { level, message }));
    };
    while let Some(happening) = happenings.recv().await {
        match happening {
            Happening::Receive => drop(wanted.send(())),
            Happening::Send(event) => {
                let sent = send.send(Outbound::from_value(&event)).await;
                interpreter.tell(vec![match sent {
                    Ok(()) => command("sent", id, []),
                    Err(exception) => raise(id, "send", exception),
                }]);
            }
            Happening::Returned => return Ok(()),
            Happening::Raised(type_name, message, place) => {
                if !place.is_empty() {
                    log(Level::Info, format!("raised{place}"));
                }
                return Err(Exception { type_name, message });
            }
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

/// Gives the next event whenever one is asked for.
async fn give(
    interpreter: &Interpreter,
    id: i64,
    mut wants: mpsc::UnboundedReceiver<()>,
    mut receive: Box<dyn Receive>,
) {
    while wants.recv().await.is_some() {
        interpreter.tell(vec![match receive.receive().await {
            Ok(event) => command("give", id, [event.to_value()]),
            Err(exception) => raise(id, "receive", exception),
        }]);
    }
    std::future::pending().await
}

fn raise(id: i64, on: &'static str, exception: Exception) -> Value {
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
