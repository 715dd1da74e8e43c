//! The life of the server's process: the application is told to start, and served only when it says that it may be.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::server::call::{AppCall, CallStep, Protocol};
use crate::{application::Application, profile::Profile, recorder::ExchangeRecorder};
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::{Scope, ScopeType},
    },
    record::transcript::{Actor, EventKind},
};

/// Where the process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The application has not said that it is ready.
    Starting,
    /// Connections are served.
    Listening,
    /// The process was told to stop, and ends what it still serves.
    Stopping,
    /// The process is gone.
    Exited,
}

/// An application's statements about its start and its end.
#[derive(Default)]
struct LifespanReport {
    start: Option<Result<(), String>>,
    has_shut_down: bool,
}

impl Protocol for LifespanReport {
    const KIND: ScopeType = ScopeType::Lifespan;

    fn take(&mut self, event: Outbound, _outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        match event {
            Outbound::StartupComplete => self.start = Some(Ok(())),
            Outbound::StartupFailed { message } => self.start = Some(Err(message)),
            Outbound::ShutdownComplete | Outbound::ShutdownFailed { .. } => self.has_shut_down = true,
            _ => return Err(Exception::new("AssertionError", "unexpected event in the lifespan protocol")),
        }
        Ok(())
    }
}

/// How long an application may take to stop (uvicorn waits for ever, the platform behind it for 10 s).
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Runs an application's life, from its start until it is told to stop, and tells where it stands.
pub async fn live(
    application: Arc<dyn Application>,
    profile: Arc<Profile>,
    scribe: ExchangeRecorder,
    life: watch::Sender<Life>,
    stop: oneshot::Receiver<()>,
) {
    scribe.record(Actor::Process, EventKind::Starting);
    let mut call = AppCall::start(
        application,
        Scope::lifespan(&profile.scope, &profile.lifespan.spec_version),
        LifespanReport::default(),
        &scribe,
    );
    call.deliver(Inbound::LifespanStartup);
    let lived = async {
        let failed = start(&mut call, profile.lifespan.startup_timeout_s).await;
        if let Err(why) = failed {
            return why;
        }
        listen(&scribe, &life);
        while call.is_running() {
            poll_fn(|cx| call.poll_step(None, cx)).await;
        }
        // The call is over, the process is not.
        pending().await
    };
    tokio::select! {
        biased;
        why = lived => return exit(&scribe, &life, why),
        // The sender of the stop signal may be gone; then nothing waits for the end either.
        _ = stop => {}
    }
    call.deliver(Inbound::LifespanShutdown);
    let stopped = async {
        // Servers do not wait for the end of a call that has said that it is done.
        while call.is_running() && !call.desk().protocol.has_shut_down {
            poll_fn(|cx| call.poll_step(None, cx)).await;
        }
    };
    let why = match timeout(SHUTDOWN_LIMIT, stopped).await {
        Ok(()) => "it was told to stop".to_owned(),
        Err(_) => format!("it was told to stop, and did not within {} s", SHUTDOWN_LIMIT.as_secs()),
    };
    exit(&scribe, &life, why);
}

/// The process is gone.
fn exit(scribe: &ExchangeRecorder, life: &watch::Sender<Life>, why: String) {
    scribe.record(Actor::Process, EventKind::Exited { why });
    life.send_replace(Life::Exited);
}

/// From now on connections are served, unless the process was told to stop by then.
pub fn listen(scribe: &ExchangeRecorder, life: &watch::Sender<Life>) {
    let has_begun = life.send_if_modified(|life| {
        let was_starting = *life == Life::Starting;
        if was_starting {
            *life = Life::Listening;
        }
        was_starting
    });
    if has_begun {
        scribe.record(Actor::Process, EventKind::Listening);
    }
}

/// Waits until the application says that it has started, or why it has not.
async fn start(call: &mut AppCall<LifespanReport>, timeout_s: u64) -> Result<(), String> {
    let started = async {
        loop {
            match poll_fn(|cx| call.poll_step(None, cx)).await {
                // The call ended without a word: the application does not speak the protocol, and is served.
                CallStep::Ended(_) => return call.desk().protocol.start.take().unwrap_or(Ok(())),
                CallStep::Moved | CallStep::Wire => {
                    if let Some(said) = call.desk().protocol.start.take() {
                        return said;
                    }
                }
            }
        }
    };
    let limit = if timeout_s == 0 { Duration::MAX } else { Duration::from_secs(timeout_s) };
    match timeout(limit, started).await {
        Err(_) => Err(format!("the application did not start within {timeout_s} s")),
        Ok(Err(message)) => Err(format!("the application failed to start: {message}")),
        Ok(Ok(())) => Ok(()),
    }
}
