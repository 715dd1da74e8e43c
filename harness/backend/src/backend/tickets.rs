//! Tickets: an identifier given out for a token, good for one session and a short time, for clients whose headers do not
//! arrive.

use std::collections::BTreeMap;

use relapse_core::client::credential::Credential;

/// How long a ticket is good unless the request says otherwise, in seconds.
pub(super) const TTL_S: i64 = 300;
/// The shortest and the longest that a request may say, in seconds.
pub(super) const TTL_RANGE_S: std::ops::RangeInclusive<i64> = 30..=3600;

/// One ticket.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) user: String,
    /// Seconds since 1970.
    pub(super) expires: i64,
    pub(super) single_use: bool,
}

/// The tickets that were given out.
#[derive(Debug, Default)]
pub(super) struct Tickets(BTreeMap<String, Ticket>);

impl Tickets {
    /// Gives out a ticket at this time, and forgets those that are over.
    pub(super) fn issue(&mut self, ticket: Ticket, identifier: u64, now: i64) -> String {
        self.0.retain(|_, ticket| ticket.expires > now);
        let id = format!("ticket-{identifier:016x}{:016x}", identifier.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.0.insert(id.clone(), ticket);
        id
    }

    /// The ticket, if it is still good at this time.
    pub(super) fn find(&self, id: &str, now: i64) -> Option<&Ticket> {
        self.0.get(id).filter(|ticket| ticket.expires > now)
    }

    /// The user of a good ticket, which is spent by that unless it may be used again.
    pub(super) fn redeem(&mut self, id: &str, now: i64) -> Option<String> {
        let ticket = self.find(id, now)?.clone();
        if ticket.single_use {
            self.0.remove(id);
        }
        Some(ticket.user)
    }

    /// Takes a ticket back; whether there was one.
    pub(super) fn revoke(&mut self, id: &str, user: &str) -> bool {
        let is_own = self.0.get(id).is_some_and(|ticket| ticket.user == user);
        is_own && self.0.remove(id).is_some()
    }

    /// How many are good at this time.
    pub(super) fn count(&self, now: i64) -> usize {
        self.0.values().filter(|ticket| ticket.expires > now).count()
    }

    /// A ticket of this kind; `None` for a kind that only tokens have, of which any token will do.
    pub(super) fn mint(&mut self, kind: Credential, user: &str, identifier: u64, now: i64) -> Option<String> {
        let expires = match kind {
            Credential::Valid | Credential::Revoked => now + TTL_S,
            Credential::Expired => now - 1,
            _ => return None,
        };
        let id = self.issue(Ticket { user: user.to_owned(), expires, single_use: true }, identifier, now);
        if kind == Credential::Revoked {
            self.revoke(&id, user);
        }
        Some(id)
    }
}
