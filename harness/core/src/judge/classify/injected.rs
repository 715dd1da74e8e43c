//! Decides whether an injected fault explains a bad ending or an exception, so that the service is not blamed for it.

use super::{Exchange, PATIENCE};
use crate::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
    },
    fault::{EventFault, FaultKind, HeadEdit, InjectedEffect, NOTICED, ScopeEdit, StreamFault},
    judge::{cause::Cause, outcome::Ending},
    record::transcript::EventKind,
};

/// Whether a fault makes the application wait in `send`.
fn delays_send(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Event { fault, .. } if fault.delays_send())
}

/// Whether a fault makes `receive` or `send` raise.
pub(super) fn raises(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Event { fault, .. } if fault.raises())
}

/// Whether a fault changes what the answer to a handshake is made of.
fn rewrites_handshake(kind: &FaultKind) -> bool {
    let FaultKind::Head(edit) = kind else { return false };
    edit.header().is_some_and(|header| {
        let names = ["sec-websocket-key", "sec-websocket-protocol", "sec-websocket-extensions"];
        names.iter().any(|name| header.eq_ignore_ascii_case(name))
    })
}

impl<'a> Exchange<'a> {
    /// Whether what was injected between client and server, or between server and application, changed what either of
    /// them got to see, so that what the client saw is not the service's alone.
    pub fn is_distorted(&self) -> bool {
        self.acted().any(|kind| kind.effect() == InjectedEffect::Distorts)
    }

    /// Whether the server did to the application what the specification forbids.
    pub fn is_abused(&self) -> bool {
        self.acted().any(|kind| matches!(kind, FaultKind::Event { events, fault } if !fault.legality(events).is_legal))
    }

    /// Whether anything acted on what the application received and sent.
    pub fn has_event_faults(&self) -> bool {
        self.acted().any(|kind| matches!(kind, FaultKind::Event { .. }))
    }

    /// Whether the application is kept from ever learning that its client is gone, or learns it very late.
    pub fn is_held(&self) -> bool {
        self.acted().any(|kind| kind.holds_end_back(PATIENCE))
    }

    /// Whether a bad ending is the doing of what was injected, and not the service's.
    // Long: one table of causes and endings, read from top to bottom.
    pub(super) fn is_broken_by_fault(&self, ending: &Ending, cause: Cause) -> bool {
        let (mut on_wire, mut on_answer, mut on_events, mut slows, mut spoils) = (false, false, false, false, false);
        for kind in self.acted() {
            let effect = kind.effect();
            slows |= effect == InjectedEffect::Slows || self.is_too_long_for(kind);
            match kind {
                _ if effect != InjectedEffect::Distorts => {}
                FaultKind::Answer(_) | FaultKind::Connection(_) => (on_wire, on_answer) = (true, true),
                FaultKind::Event { .. } => on_events = true,
                FaultKind::Head(_)
                | FaultKind::Stream { .. }
                | FaultKind::Frame { .. }
                | FaultKind::Scope(_)
                | FaultKind::Call { .. }
                | FaultKind::Process(_) => on_wire = true,
            }
            // A head that ends early leaves the rest of it to be taken for another request.
            spoils |= matches!(kind, FaultKind::Head(HeadEdit::Fold { .. } | HeadEdit::Truncate { .. }));
        }
        // A client that leaves so soon has not waited for an answer that is only a little late.
        let is_impatient =
            self.response.is_none() && self.waited() <= NOTICED && self.acted().any(FaultKind::takes_time);
        // An upgrade is a GET (RFC 6455 section 4.1); another method may never be answered.
        let is_no_upgrade = self.asked_for_upgrade()
            && self.machine().is_none()
            && self.acted().any(|kind| matches!(kind, FaultKind::Head(HeadEdit::Method { .. })));
        match (cause, ending) {
            (_, Ending::Left) if is_impatient => true,
            (_, Ending::Hang { .. } | Ending::Left) if is_no_upgrade => true,
            // The server answered another key, or other offers.
            (_, Ending::BadHandshake { .. }) if self.acted().any(rewrites_handshake) => true,
            (Cause::CrashBeforeResponse | Cause::CrashAfterAccept, _) => self.is_escape_injected(),
            (Cause::AppSent1011 | Cause::ReturnedWithoutResponse, _) => self.is_abused(),
            // Time alone explains what came too late, or was not waited for.
            (Cause::KeepaliveTimeout | Cause::HandshakeTimeout, _)
            | (_, Ending::Hang { .. } | Ending::Silence { .. } | Ending::Left | Ending::Parted { .. }) => {
                on_wire || on_events || slows
            }
            // uvicorn's `websockets_impl.py` sends a denial response as far as it has come when the application waits.
            (_, Ending::Http { complete: false, .. }) if self.asked_for_upgrade() && self.acted().any(delays_send) => {
                true
            }
            (Cause::Server, _) => on_wire || spoils,
            (_, Ending::Http { complete: true, status }) => {
                on_answer || self.is_abused() || (on_events && !self.is_answered_by_app(*status))
            }
            (
                Cause::Clean
                | Cause::AppDecision
                | Cause::Protocol
                | Cause::Shutdown
                | Cause::Hang
                | Cause::NoListener
                | Cause::Injected
                | Cause::Unknown,
                Ending::Http { complete: false, .. }
                | Ending::Close { .. }
                | Ending::Drop
                | Ending::BadHandshake { .. }
                | Ending::Refused
                | Ending::NotStarted { .. },
            ) => on_wire || on_events,
        }
    }

    /// Whether the application gave an answer with this status, and the server took it.
    fn is_answered_by_app(&self, status: u16) -> bool {
        self.taken().any(|event| match event.what {
            EventKind::Sent(Outbound::ResponseStart { status: sent, .. }) => sent == status,
            _ => false,
        })
    }

    /// Whether what the client said takes so long at the rate of a fault that everything behind it comes too late.
    fn is_too_long_for(&self, kind: &FaultKind) -> bool {
        let FaultKind::Stream { fault: StreamFault::Throttle { rate }, .. } = kind else { return false };
        let sent = self.events.iter().filter_map(|event| match &event.what {
            EventKind::FrameSent(frame) => Some(frame.payload.len()),
            _ => None,
        });
        sent.max().is_some_and(|bytes| bytes as f64 / rate.0 as f64 >= PATIENCE.as_secs_f64())
    }

    /// Whether the exception that left the application follows from what the server did to it, or is one that the
    /// specification asks for.
    pub fn is_escape_injected(&self) -> bool {
        let Some((escaped, _)) = self.escaped() else { return false };
        self.is_raised_by_stop(escaped)
            || self.is_passed_on(escaped)
            || self.is_abused()
            || self.acted().any(|kind| self.makes_raise(kind, escaped))
    }

    /// Whether an exception of the application follows from a fault of this kind.
    fn makes_raise(&self, kind: &FaultKind, exception: &Exception) -> bool {
        match kind {
            // Frameworks make other exceptions of a cancellation (Starlette's `RuntimeError: No response returned.`).
            FaultKind::Event { fault: EventFault::Cancel {}, .. } => {
                exception.is_cancellation() || self.service.is_foreign()
            }
            // An application raises on a type of scope that it does not know (ASGI, Applications).
            FaultKind::Scope(ScopeEdit::Drop { key } | ScopeEdit::Set { key, .. }) => key == "type",
            FaultKind::Scope(_)
            | FaultKind::Event { .. }
            | FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => false,
        }
    }

    /// Whether an exception only passes on that the client is gone, which the server itself had told the application: as
    /// `send` raised it, or in the framework's own word for that. Servers are to catch it (ASGI, "Disconnected Client").
    fn is_passed_on(&self, exception: &Exception) -> bool {
        let is_word_for_it = exception.is_disconnect() || exception.is_broken_off();
        let is_told = is_word_for_it
            && self.has(|what| match what {
                EventKind::CallRaised(raised) => raised.is_disconnect(),
                // Of a request there is nothing left to answer.
                EventKind::Received(Inbound::HttpDisconnect) => exception.is_broken_off(),
                _ => false,
            });
        is_told || self.refused_as_gone().any(|raised| raised == exception)
    }

    /// Whether an exception is what a server that stops raises in the application: a cancellation, or from `send` what
    /// the specification does not provide for (it provides for an `OSError`, which an application can deal with).
    pub(super) fn is_raised_by_stop(&self, exception: &Exception) -> bool {
        let mut after = self.events.iter().skip_while(|event| !self.is_stop(event));
        after.next().is_some()
            && (exception.is_cancellation()
                || !exception.is_disconnect()
                    && after.any(|event| matches!(&event.what, EventKind::CallRaised(raised) if raised == exception)))
    }
}
