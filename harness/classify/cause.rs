//! Decides what caused the end of an exchange.

use super::Reading;
use crate::{
    cause::Cause,
    close_code::CloseCode,
    event::Outbound,
    fault::FaultKind,
    outcome::Ending,
    transcript::{What, outer_event, server_event, step_event, wire_event},
};

impl<'a> Reading<'a> {
    pub(super) fn cause(&self, ending: &Ending) -> Cause {
        let has = |wanted: fn(&What) -> bool| self.events.iter().any(|event| wanted(&event.what));
        if has(|what| matches!(what, What::KeepaliveExpired)) {
            return Cause::Keepalive;
        }
        if has(|what| matches!(what, What::CutShort)) {
            return Cause::Shutdown;
        }
        match self.escaped().filter(|_| !self.is_raised_too_late(ending)) {
            Some((_, false)) => return Cause::CrashBeforeAccept,
            Some((_, true)) => return Cause::CrashAfterAccept,
            None => {}
        }
        if has(|what| matches!(what, What::RequestRefused { .. })) || self.is_refused_by_real_server() {
            return Cause::Server;
        }
        if has(|what| matches!(what, What::Sent(Outbound::WebsocketClose { code: 1011, .. }))) {
            return Cause::AppChose1011;
        }
        if self.was_abandoned() {
            return Cause::Abandoned;
        }
        match ending {
            Ending::BadHandshake { .. } | Ending::Http { complete: false, .. } => Cause::Protocol,
            Ending::Close { code: Some(code), .. } if !code.is_sendable() => Cause::Protocol,
            Ending::Http { status: 200..=299, .. } | Ending::Parted { .. } | Ending::Left => Cause::Clean,
            Ending::Close { code: Some(CloseCode::NORMAL), .. } if self.welcome.is_some() => Cause::Clean,
            // A failure inside cannot be seen from outside; the kind of the server may tell.
            Ending::Http { status: 500.., .. } | Ending::Close { code: Some(CloseCode::INTERNAL), .. }
                if self.service.is_opaque() =>
            {
                Cause::Unknown
            }
            // A server whose application lives on says so of its own accord in one place.
            Ending::Close { code: Some(CloseCode::INTERNAL), .. } if self.service.is_served() => Cause::Keepalive,
            Ending::Http { .. } | Ending::Close { .. } | Ending::Silence { .. } => Cause::Policy,
            Ending::Hang { .. } => Cause::Hang,
            Ending::Drop if has(|what| matches!(what, What::BadFrameSeen(_) | What::BadHeadSeen { .. })) => {
                Cause::Protocol
            }
            Ending::Drop => Cause::Unknown,
            Ending::Refused | Ending::NotStarted { .. } => Cause::NoListener,
        }
    }

    /// Whether the client had already waited in vain when an exception left the application, so that the exception does not
    /// explain the wait.
    fn is_raised_too_late(&self, ending: &Ending) -> bool {
        let first =
            self.events.iter().find(|event| matches!(event.what, What::Raised(_) | What::DeadlinePassed { .. }));
        let is_in_vain = matches!(ending, Ending::Hang { .. } | Ending::Silence { .. });
        is_in_vain && first.is_some_and(|event| matches!(event.what, What::DeadlinePassed { .. }))
    }

    /// Whether a real server answered, and neither called the application nor was spared the answer by the edge.
    fn is_refused_by_real_server(&self) -> bool {
        let is_answered = self.response.is_some_and(|head| head.status != 101);
        let answers = |kind: &FaultKind| matches!(kind, FaultKind::Answer(_) | FaultKind::Connection(_));
        self.service.is_served() && is_answered && self.machine().is_none() && !self.acted().any(answers)
    }

    /// Whether the application returned and left the client waiting.
    fn was_abandoned(&self) -> bool {
        let Some(mut machine) = self.machine() else { return false };
        for event in self.taken() {
            match &event.what {
                What::Sent(event) => drop(machine.on_send(event)),
                What::Received(event) => drop(machine.on_receive(event)),
                What::CallRaised(exception) => machine.on_send_raised(exception),
                What::Returned => return machine.on_return().is_err(),
                // An event after the client has given up is no reason for that.
                What::DeadlinePassed { .. } => return false,
                What::Called { .. }
                | What::Raised(_)
                | What::Handled(_)
                | What::Logged { .. }
                | What::HandshakeRefused { .. }
                | What::BadFrameSeen(_)
                | What::BadHeadSeen { .. }
                | What::EndSeen
                | What::Left
                | step_event!()
                | wire_event!()
                | server_event!()
                | outer_event!() => {}
            }
        }
        false
    }
}
