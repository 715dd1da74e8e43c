//! Decides the class of an ending: whether the service behaved, and if not, in which way it failed.

use super::{Exchange, PATIENCE};
use crate::{
    asgi::event::Outbound,
    fault::FaultKind,
    judge::{
        cause::Cause,
        outcome::{Class, Ending},
    },
    record::transcript::EventKind,
    wire::{close_code::CloseCode, head::header},
};

impl<'a> Exchange<'a> {
    pub(super) fn class(&self, ending: &Ending, cause: Cause) -> Class {
        if self.welcome.is_some() && !self.is_welcomed_as_itself() || self.foreign_user.is_some() {
            return Class::WronglyAdmitted;
        }
        if cause == Cause::Server && self.is_refused_for_its_head() {
            return Class::RefusedRequest;
        }
        match ending {
            Ending::Hang { .. } => Class::Hang,
            Ending::Silence { .. } => Class::NoAnswer,
            Ending::Drop | Ending::BadHandshake { .. } | Ending::Http { complete: false, .. } => Class::Dropped,
            Ending::Http { status, .. } => self.class_of_status(*status, cause),
            Ending::Close { code: Some(code), reason } => self.class_of_close(*code, reason, cause),
            Ending::Close { code: None, .. } if cause.is_crash() => Class::DisguisedError,
            Ending::Close { code: None, .. } => self.class_of_session(),
            // A client that is impatient while something is slow has nothing against it.
            Ending::Left if self.response.is_none() && self.is_slowed_down() && self.waited() <= PATIENCE => {
                Class::RefusedUnavailable
            }
            // It is not known how long a user's own app may take.
            Ending::Left if self.response.is_none() && self.service.is_foreign() => Class::RefusedUnavailable,
            Ending::Left if self.response.is_none() => Class::Hang,
            Ending::Parted { .. } | Ending::Left => self.class_of_session(),
            Ending::Refused if self.absent || self.signaled.is_some() => Class::RefusedUnavailable,
            Ending::Refused | Ending::NotStarted { .. } => Class::ServerError,
        }
    }

    /// Whether the server refused the request because its head holds more than it takes.
    fn is_refused_for_its_head(&self) -> bool {
        self.has(|what| matches!(what, EventKind::RequestRefused { excess: Some(_), .. })) || self.is_over_limit
    }

    fn class_of_status(&self, status: u16, cause: Cause) -> Class {
        let crashed = cause.is_crash();
        // Without denial responses a server says 403 whatever is meant.
        let meant = if status == 403 { self.meant_status() } else { None };
        let status = meant.unwrap_or(status);
        // A close before the accept has no place for a header either.
        let retry_after =
            meant.is_some() || self.response.is_some_and(|head| header(&head.headers, "retry-after").is_some());
        match status {
            200..=299 if !self.asked_for_upgrade() && !crashed => self.class_of_success(),
            500 | 502 | 504 => Class::ServerError,
            503 if !retry_after => Class::ServerError,
            503 if self.outage => Class::RefusedUnavailable,
            // A refusal must have its reason in what the client did.
            401 | 403 if (self.user.is_none() || self.may_have_lost_credential()) && !crashed => Class::RefusedAuth,
            // ASGI servers answer 403 where an application that has no such path closes before it accepts.
            403 if self.service.is_foreign() && !crashed && !self.is_faultless() => Class::RefusedRequest,
            400 | 404 | 405 | 413 | 426 | 431 if !crashed && !self.is_faultless() => Class::RefusedRequest,
            429 if retry_after && !crashed => Class::RefusedRequest,
            // A user's own service refuses requests by its own rules, as with 507 (RFC 4918 section 11.5).
            300..=499 | 501 | 505..=511 if self.service.is_foreign() && !crashed && !self.is_faultless() => {
                Class::RefusedRequest
            }
            _ => Class::DisguisedError,
        }
    }

    /// The class of a plain request that is answered with success.
    fn class_of_success(&self) -> Class {
        if self.is_protected() && self.user.is_none() {
            Class::WronglyAdmitted
        } else if self.asks_for_health() && !self.down.is_empty() {
            Class::DisguisedError
        } else {
            Class::Served
        }
    }

    fn class_of_close(&self, code: CloseCode, reason: &str, cause: Cause) -> Class {
        if !code.is_sendable() || reason.len() > CloseCode::REASON_BYTES_MAX {
            return Class::Dropped;
        }
        match code {
            CloseCode::PRIVATE_INTERNAL if self.service.is_unknown() && !cause.is_crash() => Class::RefusedRequest,
            CloseCode::INTERNAL | CloseCode::PRIVATE_INTERNAL => Class::ServerError,
            _ if cause.is_crash() => Class::DisguisedError,
            CloseCode::TRY_AGAIN_LATER | CloseCode::PRIVATE_UNAVAILABLE if self.outage => Class::RefusedUnavailable,
            CloseCode::GOING_AWAY | CloseCode::SERVICE_RESTART if self.is_cut_short() || self.signaled.is_some() => {
                Class::RefusedUnavailable
            }
            CloseCode::POLICY | CloseCode::UNAUTHORIZED if self.user.is_none() && !reason.is_empty() => {
                Class::RefusedAuth
            }
            CloseCode::TOO_BIG if self.sent_too_much() => Class::RefusedRequest,
            CloseCode::NORMAL | CloseCode::GOING_AWAY => self.class_of_session(),
            // It may also close a session of which nothing is known, or in which the client says something odd.
            _ if self.service.is_unknown()
                || self.is_crowded
                || (self.service.is_foreign() && self.says_something_else()) =>
            {
                Class::RefusedRequest
            }
            _ => Class::DisguisedError,
        }
    }

    /// The class of a session that neither side ended with an error.
    fn class_of_session(&self) -> Class {
        let wanted = self.agent_runs_owed();
        if self.turned_away_at_once() {
            Class::Served
        } else if self.welcome.is_none() && !self.service.words.welcomes.is_empty() {
            Class::DisguisedError
        } else if self.agent_runs() >= wanted {
            Class::Served
        } else if self.messages.iter().any(|name| name.starts_with("error")) {
            // The service was healthy and said that it could not.
            Class::DisguisedError
        } else {
            Class::NoAnswer
        }
    }

    /// Whether anything behind the service kept it waiting.
    fn is_slowed_down(&self) -> bool {
        self.outage || self.acted().any(|kind| matches!(kind, FaultKind::Call { .. }))
    }

    /// The status that the application would have refused an upgrade with, had the server let it: the code of its
    /// close before the accept, less 4000. Only a client's own fault can be told so; an outage is not to look like one.
    fn meant_status(&self) -> Option<u16> {
        self.events.iter().find_map(|event| match event.what {
            EventKind::Sent(Outbound::WebsocketAccept { .. }) => Some(None),
            EventKind::Sent(Outbound::WebsocketClose { code: code @ 4400..=4499, .. }) => Some(Some(code - 4000)),
            _ => None,
        })?
    }
}
