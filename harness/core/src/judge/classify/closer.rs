//! Decides which side ended an exchange.

use super::Exchange;
use crate::{
    asgi::event::Outbound,
    fault::{AnswerEdit, ConnectionFault, FaultKind, FrameFault, StreamFault},
    judge::{cause::Cause, outcome::Ending},
    record::transcript::{Actor, EventKind},
};

impl<'a> Exchange<'a> {
    pub(super) fn closed_by(&self, ending: &Ending, cause: Cause) -> Actor {
        match (ending, cause) {
            _ if self.is_ended_by_edge(ending) => Actor::Edge,
            (Ending::Parted { .. } | Ending::Left | Ending::BadHandshake { .. }, _) => Actor::Probe,
            (Ending::Hang { .. } | Ending::Silence { .. } | Ending::Refused | Ending::NotStarted { .. }, _) => {
                Actor::Neither
            }
            (
                _,
                Cause::KeepaliveTimeout
                | Cause::Shutdown
                | Cause::Server
                | Cause::CrashBeforeResponse
                | Cause::ReturnedWithoutResponse,
            ) => Actor::Front,
            (Ending::Drop, _) | (_, Cause::Unknown) => Actor::Front,
            (_, Cause::CrashAfterAccept) if !self.application_closed() => Actor::Front,
            (
                Ending::Http { .. } | Ending::Close { .. },
                Cause::Clean
                | Cause::AppDecision
                | Cause::AppSent1011
                | Cause::CrashAfterAccept
                | Cause::Protocol
                | Cause::Hang
                | Cause::NoListener
                | Cause::Injected,
            ) => Actor::Application,
        }
    }

    /// Whether a fault ended the exchange as the client saw it end: cut it off, or answered or closed in the server's place.
    fn is_ended_by_edge(&self, ending: &Ending) -> bool {
        let is_cut = matches!(ending, Ending::Drop | Ending::Http { complete: false, .. });
        self.acted().any(|kind| match kind {
            FaultKind::Stream { fault: StreamFault::Cut { .. } | StreamFault::Reset { .. }, .. }
            | FaultKind::Connection(ConnectionFault::Lifetime { .. } | ConnectionFault::Idle { .. }) => is_cut,
            FaultKind::Answer(AnswerEdit::Hijack { status, .. })
            | FaultKind::Connection(
                ConnectionFault::LateAnswer { status, .. } | ConnectionFault::MissingAnswer { status, .. },
            ) => matches!(ending, Ending::Http { status: seen, .. } if usize::from(*seen) == status.0),
            FaultKind::Frame { fault: FrameFault::Close { code, .. }, .. } => {
                matches!(ending, Ending::Close { code: Some(seen), .. } if usize::from(seen.0) == code.0)
            }
            // These only change what one side sees, so that the other side ends the exchange.
            FaultKind::Stream {
                fault:
                    StreamFault::Delay { .. }
                    | StreamFault::Jitter { .. }
                    | StreamFault::Throttle { .. }
                    | StreamFault::Slice { .. }
                    | StreamFault::Stall { .. }
                    | StreamFault::Silence {},
                ..
            }
            | FaultKind::Connection(ConnectionFault::Retry {})
            | FaultKind::Answer(
                AnswerEdit::Set { .. }
                | AnswerEdit::Strip { .. }
                | AnswerEdit::Follow { .. }
                | AnswerEdit::Hold {}
                | AnswerEdit::Buffer { .. }
                | AnswerEdit::KeepUpgrade {},
            )
            | FaultKind::Frame {
                fault:
                    FrameFault::Drop {}
                    | FrameFault::Delay { .. }
                    | FrameFault::Duplicate {}
                    | FrameFault::Swap {}
                    | FrameFault::Join {}
                    | FrameFault::Split {}
                    | FrameFault::Replace { .. }
                    | FrameFault::Inject { .. }
                    | FrameFault::Suppress {}
                    | FrameFault::Break { .. },
                ..
            }
            | FaultKind::Head(_)
            | FaultKind::Scope(_)
            | FaultKind::Event { .. }
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => false,
        })
    }

    fn application_closed(&self) -> bool {
        !self.has(|what| matches!(what, EventKind::CallRaised(_)))
            && self.has(|what| matches!(what, EventKind::Sent(Outbound::WebsocketClose { .. })))
    }
}
