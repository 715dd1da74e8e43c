//! Decides what caused the end of an exchange.

use super::Exchange;
use crate::{
    asgi::event::Outbound,
    fault::FaultKind,
    judge::{cause::Cause, outcome::Ending},
    record::transcript::{EventKind, outer_event, server_event, step_event, wire_event},
    wire::close_code::CloseCode,
};

impl<'a> Exchange<'a> {
    pub(super) fn cause(&self, ending: &Ending) -> Cause {
        if self.has(|what| matches!(what, EventKind::KeepaliveExpired)) {
            return Cause::KeepaliveTimeout;
        }
        if self.is_cut_short() || self.is_cut_off_by_signal(ending) {
            return Cause::Shutdown;
        }
        match self.escaped().filter(|_| !self.is_raised_too_late(ending)) {
            Some((_, false)) => return Cause::CrashBeforeResponse,
            Some((_, true)) => return Cause::CrashAfterAccept,
            None => {}
        }
        if self.has(|what| matches!(what, EventKind::RequestRefused { .. })) || self.is_refused_by_real_server() {
            return Cause::Server;
        }
        if self.has(|what| matches!(what, EventKind::Sent(Outbound::WebsocketClose { code: 1011, .. }))) {
            return Cause::AppSent1011;
        }
        if self.was_abandoned() {
            return Cause::ReturnedWithoutResponse;
        }
        if self.has(|what| matches!(what, EventKind::HandshakeExpired)) {
            return Cause::HandshakeTimeout;
        }
        match ending {
            Ending::BadHandshake { .. } | Ending::Http { complete: false, .. } => Cause::Protocol,
            Ending::Close { code: Some(code), .. } if !code.is_sendable() => Cause::Protocol,
            // The inside of a service is not seen that answers a request which may not have come as the upgrade it was.
            Ending::Http { .. } if self.service.is_opaque() && self.has_lost_upgrade() => Cause::Injected,
            Ending::Http { status: 300.., .. } if self.service.is_opaque() && self.is_answered_as_plain() => {
                Cause::Unknown
            }
            Ending::Http { status: 200..=299, .. } | Ending::Parted { .. } | Ending::Left => Cause::Clean,
            Ending::Close { code: Some(CloseCode::NORMAL), .. } if self.welcome.is_some() => Cause::Clean,
            // A failure inside cannot be seen from outside; the kind of the server may tell.
            Ending::Http { status: 500.., .. } | Ending::Close { code: Some(CloseCode::INTERNAL), .. }
                if self.service.is_opaque() =>
            {
                Cause::Unknown
            }
            // A server whose application lives on says so of its own accord in one place.
            Ending::Close { code: Some(CloseCode::INTERNAL), .. } if self.service.is_served() => {
                Cause::KeepaliveTimeout
            }
            Ending::Http { .. } | Ending::Close { .. } | Ending::Silence { .. } => Cause::AppDecision,
            Ending::Hang { .. } => Cause::Hang,
            Ending::Drop
                if self.has(|what| matches!(what, EventKind::BadFrameSeen(_) | EventKind::BadHeadSeen { .. })) =>
            {
                Cause::Protocol
            }
            Ending::Drop => Cause::Unknown,
            Ending::Refused | Ending::NotStarted { .. } => Cause::NoListener,
        }
    }

    /// Whether the client had already waited in vain when an exception left the application, so that the exception does not
    /// explain the wait.
    pub fn is_raised_too_late(&self, ending: &Ending) -> bool {
        let first = self.first(|what| matches!(what, EventKind::Raised(_) | EventKind::DeadlinePassed { .. }));
        let is_in_vain = matches!(ending, Ending::Hang { .. } | Ending::Silence { .. });
        is_in_vain && first.is_some_and(|event| matches!(event.what, EventKind::DeadlinePassed { .. }))
    }

    /// Whether a real server answered, or was asked for more than it takes, and neither called the application nor was
    /// spared the answer by the edge.
    fn is_refused_by_real_server(&self) -> bool {
        let is_answered = self.response.is_some_and(|head| head.status != 101);
        let is_spared = self.acted().any(|kind| matches!(kind, FaultKind::Answer(_) | FaultKind::Connection(_)));
        let is_refused = is_answered || (self.response.is_none() && self.is_over_limit);
        self.service.is_served() && is_refused && self.machine().is_none() && !is_spared
    }

    /// Whether the connection ended otherwise than by an answer or by the client, after the server had got a signal.
    fn is_cut_off_by_signal(&self, ending: &Ending) -> bool {
        let end = self.first(|what| match what {
            EventKind::EndSeen => true,
            EventKind::FrameSeen(frame) => frame.is_close(),
            _ => false,
        });
        let is_late = self.signaled.zip(end).is_some_and(|(at, end)| end.at >= at);
        match ending {
            Ending::Close { code: Some(CloseCode::GOING_AWAY | CloseCode::SERVICE_RESTART), .. } => is_late,
            // A server that goes on for a while shows the acts of its app meanwhile.
            Ending::Drop | Ending::Close { .. } | Ending::Http { complete: false, .. } => {
                is_late && self.escaped().is_none_or(|(exception, _)| self.is_raised_by_stop(exception))
            }
            // A request that the server gives up when it has waited long enough.
            Ending::Http { complete: true, status: 500.. } => {
                self.escaped().is_some_and(|(exception, _)| self.is_raised_by_stop(exception))
            }
            Ending::Http { complete: true, .. }
            | Ending::Parted { .. }
            | Ending::Left
            | Ending::BadHandshake { .. }
            | Ending::Hang { .. }
            | Ending::Silence { .. }
            | Ending::Refused
            | Ending::NotStarted { .. } => false,
        }
    }

    /// Whether the application returned and left the client waiting.
    fn was_abandoned(&self) -> bool {
        let Some(mut machine) = self.machine() else { return false };
        for event in self.taken() {
            match &event.what {
                EventKind::Sent(event) => drop(machine.on_send(event)),
                EventKind::Received(event) => drop(machine.on_receive(event)),
                EventKind::CallRaised(exception) if self.is_told_gone(exception) => machine.lose(),
                EventKind::Returned => return machine.on_return().is_err(),
                // An event after the client has given up is no reason for that.
                EventKind::DeadlinePassed { .. } => return false,
                EventKind::CallRaised(_)
                | EventKind::Called { .. }
                | EventKind::Raised(_)
                | EventKind::Handled(_)
                | EventKind::Logged { .. }
                | EventKind::LeftBehind(_)
                | EventKind::HandshakeRefused { .. }
                | EventKind::BadFrameSeen(_)
                | EventKind::BadHeadSeen { .. }
                | EventKind::EndSeen
                | EventKind::Left
                | step_event!()
                | wire_event!()
                | server_event!()
                | outer_event!() => {}
            }
        }
        false
    }
}
