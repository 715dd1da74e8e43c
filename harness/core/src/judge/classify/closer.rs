//! Decides which side ended an exchange.

use super::Exchange;
use crate::{
    asgi::event::Outbound,
    fault::InjectedEnd,
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
                | Cause::HandshakeTimeout
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
        self.acted().any(|kind| match (kind.end(), ending) {
            (InjectedEnd::Cut, Ending::Drop | Ending::Http { complete: false, .. }) => true,
            (InjectedEnd::Answer(status), Ending::Http { status: seen, .. }) => usize::from(*seen) == status,
            (InjectedEnd::Close(code), Ending::Close { code: Some(seen), .. }) => usize::from(seen.0) == code,
            (InjectedEnd::None | InjectedEnd::Cut | InjectedEnd::Answer(_) | InjectedEnd::Close(_), _) => false,
        })
    }

    fn application_closed(&self) -> bool {
        !self.has(|what| matches!(what, EventKind::CallRaised(_)))
            && self.has(|what| matches!(what, EventKind::Sent(Outbound::WebsocketClose { .. })))
    }
}
