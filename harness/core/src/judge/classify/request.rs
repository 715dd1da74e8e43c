//! The request of an exchange: the thing it asks for, and whether the client itself is at fault.

use super::Exchange;
use crate::{
    asgi::scope::{ScopeType, keys},
    fault::{FaultKind, HeadChange, HeadEdit, ScopeEdit},
    record::transcript::EventKind,
    wire::head::{RequestHead, has_token, header},
};

/// Whether a request has the headers that make it an upgrade to WebSocket (RFC 6455 section 4.1).
fn is_upgrade(head: &RequestHead) -> bool {
    has_token(&head.headers, "upgrade", "websocket") && has_token(&head.headers, "connection", "upgrade")
}

impl<'a> Exchange<'a> {
    /// Whether the client asked for a WebSocket. A request that the server took for a plain one did not: a server may
    /// ignore an upgrade that is not asked for in full (RFC 9110 section 7.8).
    pub fn asked_for_upgrade(&self) -> bool {
        if let Some(head) = &self.passed_on {
            let is_whole =
                ["sec-websocket-key", "sec-websocket-version"].iter().all(|name| header(&head.headers, name).is_some());
            return is_whole && is_upgrade(head);
        }
        let asked = self.request.is_some_and(|head| has_token(&head.headers, "upgrade", "websocket"));
        asked && !self.is_called_with(ScopeType::Http)
    }

    /// Whether the server called the application with a scope of this type.
    fn is_called_with(&self, wanted: ScopeType) -> bool {
        self.has(|what| matches!(what, EventKind::Called { kind, .. } if *kind == wanted))
    }

    /// Whether the client sent the headers of an upgrade (RFC 6455 section 4.1), and the server was seen to be called
    /// without them, or our edge to pass the request on without them.
    pub fn has_lost_upgrade(&self) -> bool {
        if !self.request.is_some_and(is_upgrade) {
            return false;
        }
        match self.called.zip(self.delivered) {
            // Not every server shows these headers to the application.
            Some((kind, head)) => kind != ScopeType::Websocket && !is_upgrade(head),
            None => self.passed_on.as_ref().is_some_and(|head| !is_upgrade(head)),
        }
    }

    /// Whether an upgrade got an answer that a plain request may get too, so that it may not have arrived as an upgrade. The
    /// headers of an upgrade are for one hop only (RFC 9110 section 7.6.1): a proxy drops them unless it is told to pass them
    /// on.
    pub fn is_answered_as_plain(&self) -> bool {
        self.called.is_none()
            && self.request.is_some_and(is_upgrade)
            && self.response.is_some_and(|head| matches!(head.status, 200..=399 | 400 | 404 | 405 | 426 | 501))
    }

    /// Whether the server took the request for a WebSocket.
    fn is_websocket(&self) -> bool {
        self.is_called_with(ScopeType::Websocket) || (self.service.is_opaque() && self.asked_for_upgrade())
    }

    /// Whether the request reads a health route.
    pub fn asks_for_health(&self) -> bool {
        let Some(head) = self.request.filter(|head| matches!(head.method.as_str(), "GET" | "HEAD")) else {
            return false;
        };
        let (path, _) = head.path_and_query();
        self.service.health_paths.has(path)
    }

    /// Whether only a user may make this plain request.
    pub(super) fn is_protected(&self) -> bool {
        let is_plain = !self.is_websocket() && !self.is_scope_rewritten();
        let Some(head) = self.delivered.or(self.request).filter(|_| is_plain) else { return false };
        let (path, _) = head.path_and_query();
        self.service.protected.iter().any(|known| head.method == known.method && path == known.path.as_bytes())
    }

    /// Whether the client itself did something wrong: no valid credential where one is needed, or a request that deserves
    /// a finding.
    pub fn is_client_at_fault(&self) -> bool {
        let misses_credential = self.is_protected() && self.user.is_none();
        let is_malformed = self.is_scope_faulted() || (self.is_websocket() && !self.is_faultless());
        self.delivered.is_some() && (is_malformed || misses_credential)
    }

    /// Whether the application got a scope that the specification does not allow.
    fn is_scope_faulted(&self) -> bool {
        let kind = if self.is_websocket() { ScopeType::Websocket } else { ScopeType::Http };
        self.acted().any(|fault| matches!(fault, FaultKind::Scope(edit) if !edit.legality(kind).is_legal))
    }

    /// Whether the application got a scope that says something else than the request did.
    fn is_scope_rewritten(&self) -> bool {
        self.acted().any(|kind| match kind {
            FaultKind::Scope(ScopeEdit::Set { key, .. }) => keys::ALL.iter().any(|known| known.name == key),
            FaultKind::Scope(ScopeEdit::Headers { .. }) => true,
            // The check of the scope against the specification finds a key that is not there.
            FaultKind::Scope(ScopeEdit::Drop { .. }) | FaultKind::Head(_) => false,
            FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Event { .. }
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => false,
        })
    }

    /// Whether a fault changed the parts of the request that carry credentials and offers.
    pub fn may_have_lost_credential(&self) -> bool {
        self.acted().any(|kind| match kind {
            FaultKind::Head(edit) => match edit.change() {
                HeadChange::Value(header) => {
                    ["authorization", "sec-websocket-protocol"].iter().any(|name| header.eq_ignore_ascii_case(name))
                }
                // The head that arrives shows what became of the credential.
                HeadChange::Visible | HeadChange::MoreBytes => false,
            },
            FaultKind::Scope(ScopeEdit::Drop { key } | ScopeEdit::Set { key, .. }) => {
                matches!(key.as_str(), "headers" | "query_string" | "subprotocols")
            }
            FaultKind::Scope(ScopeEdit::Headers { .. }) => true,
            FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Event { .. }
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => false,
        })
    }

    /// Whether the request that arrived gives no reason for a finding: on a path that the target is known to serve, a plain
    /// GET, or an upgrade with everything it needs, a valid credential, and an offer that the target knows, if any.
    pub(super) fn is_faultless(&self) -> bool {
        // Where nothing is known of the inside, what was passed on has to stand for what arrived.
        let Some(head) = self.delivered.or(self.passed_on.as_ref()).filter(|head| head.method == "GET") else {
            return false;
        };
        if self.is_scope_faulted() || self.is_scope_rewritten() || self.is_crowded {
            return false;
        }
        // It is not known how a server takes a head that was changed on its way.
        if self.passed_on.is_some()
            && self.acted().any(|kind| matches!(kind, FaultKind::Head(edit) if *edit != (HeadEdit::Pass {})))
        {
            return false;
        }
        let (path, _) = head.path_and_query();
        if !self.is_websocket() {
            return self.service.http_paths.has(path);
        }
        let offers = head.offered_subprotocols();
        let is_spoken = offers.is_empty() || self.service.knows_any(&offers);
        self.service.websocket_paths.has(path) && self.user.is_some() && is_spoken
    }
}
