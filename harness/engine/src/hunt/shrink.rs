//! Makes what was found smaller: whatever can be taken away is taken away while the same finding remains.

use super::{GeneratedCase, Hunt, Played, complains};
use crate::{case::Vocabulary, environment::Environment};
use relapse_core::{
    asgi::value::Value,
    client::{
        credential::Credential,
        step::{Action, ClientStrictness, Concurrency, DEFAULT_USER, Request, Step},
    },
    error::Error,
    fault::{Fault, FaultKind, ScopeEdit, Trigger},
    judge::verdict::FindingKey,
};

/// The smallest thing found that still shows the finding when it is played so, and the run that shows it. If an
/// external server may not be asked any more, or the time is over, the finding is small enough as it is.
pub(super) fn shrink(
    hunt: &Hunt,
    key: &FindingKey,
    (drawn, played): (GeneratedCase, Played),
    play: &dyn Fn(&GeneratedCase) -> Result<Played, Error>,
) -> Result<(GeneratedCase, Played), Error> {
    let vocabulary = hunt.ground.vocabulary();
    let mut smallest = (drawn, played);
    'again: loop {
        for candidate in
            smaller(&smallest.0, &hunt.servers[0].name, vocabulary).into_iter().filter(|drawn| may_be(hunt, drawn))
        {
            let played = match play(&candidate) {
                Err(Error::TooManyRequests | Error::TimeIsOver) => return Ok(smallest),
                played => played?,
            };
            if complains(&hunt.ground, &played, key) {
                smallest = (candidate, played);
                continue 'again;
            }
        }
        return Ok(smallest);
    }
}

/// Whether a hunt that lets servers do only what is legal may try it: what is simpler need not be.
fn may_be(hunt: &Hunt, drawn: &GeneratedCase) -> bool {
    !hunt.legal_only || drawn.faults.iter().all(|fault| fault.kind.is_legal())
}

/// Cases that are one step smaller or simpler than one.
struct Smaller<'a> {
    drawn: &'a GeneratedCase,
    candidates: Vec<GeneratedCase>,
}

impl Smaller<'_> {
    /// Adds the case with this change, unless it changes nothing.
    fn with(&mut self, change: impl FnOnce(&mut GeneratedCase)) {
        let mut candidate = self.drawn.clone();
        change(&mut candidate);
        let steps = candidate.visits.iter().map(Vec::len).sum();
        for fault in &mut candidate.faults {
            fault.trigger.step = fault.trigger.step.map(|step| step.min(steps));
        }
        if candidate != *self.drawn {
            self.candidates.push(candidate);
        }
    }

    /// Without a visit, without a fault, with fewer clients.
    fn fewer(&mut self) {
        if self.drawn.visits.len() > 1 {
            (0..self.drawn.visits.len()).for_each(|index| self.with(|drawn| drop(drawn.visits.remove(index))));
        }
        (0..self.drawn.faults.len()).for_each(|index| self.with(|drawn| drop(drawn.faults.remove(index))));
        self.with(|drawn| drawn.crowd = Concurrency::ONE);
        self.with(|drawn| drawn.crowd.connections = 1);
        self.with(|drawn| drawn.crowd.users = 1);
        self.with(|drawn| drawn.crowd.rounds = (drawn.crowd.rounds / 2).max(1));
        self.with(|drawn| drawn.crowd.rounds = (drawn.crowd.rounds - 1).max(1));
        self.with(|drawn| drawn.crowd.connections = (drawn.crowd.connections - 1).max(1));
    }

    /// A visit without some of its steps. The first step opens, without it the others mean nothing; a message goes with the
    /// wait for its answer.
    fn fewer_steps(&mut self, visit: usize, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate().skip(1) {
            let is_waited_for = steps.get(index + 1).is_some_and(|next| matches!(next.act, Action::Wait(_)));
            let end = match step.act {
                Action::SendText(_) | Action::SendBytes(_) => index + 1 + usize::from(is_waited_for),
                _ => index + 1,
            };
            self.with(|drawn| drop(drawn.visits[visit].drain(index..end)));
        }
    }

    /// A visit with simpler requests.
    fn simpler_requests(&mut self, visit: usize, steps: &[Step], vocabulary: Vocabulary) {
        for (index, step) in steps.iter().enumerate() {
            let Some(request) = step.opening() else { continue };
            let simpler = match vocabulary {
                Vocabulary::Own => simpler_of_its_own(request),
                Vocabulary::Backend => simpler_requests(request),
            };
            for simpler in simpler {
                self.with(|drawn| match &mut drawn.visits[visit][index].act {
                    Action::Open(request) | Action::Request(request) => *request = simpler,
                    _ => {}
                });
            }
        }
    }

    /// A visit with simpler messages. A client that waits for an answer keeps the message that is answered.
    fn simpler_messages(&mut self, visit: usize, steps: &[Step]) {
        let last_wait = steps.iter().rposition(|step| matches!(step.act, Action::Wait(_))).map_or(0, |last| last + 1);
        for (index, step) in steps.iter().enumerate().skip(last_wait) {
            let Action::SendText(text) = &step.act else { continue };
            for simpler in simpler_json(text.as_bytes()) {
                self.with(|drawn| drawn.visits[visit][index].act = Action::SendText(simpler));
            }
        }
    }

    /// A fault with a simpler trigger, or a simpler value.
    fn simpler_fault(&mut self, index: usize, fault: &Fault) {
        let ends = matches!(&fault.kind, FaultKind::Process(fault) if fault.ends());
        let lasting = Trigger { until: fault.trigger.until.filter(|_| ends), ..Trigger::default() };
        self.with(|drawn| drawn.faults[index].trigger = lasting);
        self.with(|drawn| drawn.faults[index].trigger.from = lasting.from);
        self.with(|drawn| drawn.faults[index].trigger.until = lasting.until);
        self.with(|drawn| drawn.faults[index].trigger.percent = 100);
        self.with(|drawn| drawn.faults[index].trigger.every = 1);
        self.with(|drawn| drawn.faults[index].trigger.times = None);
        if let FaultKind::Scope(ScopeEdit::Set { key, value }) = &fault.kind
            && *value != Value::None
        {
            let kind = FaultKind::Scope(ScopeEdit::Set { key: key.clone(), value: Value::None });
            self.with(|drawn| drawn.faults[index].kind = kind);
        }
    }
}

/// Everything that is one step smaller or simpler, the greatest savings first. Each is strictly simpler, so that this
/// ends.
///
/// Messages in an application's own words have further ones.
fn smaller(drawn: &GeneratedCase, simplest: &str, vocabulary: Vocabulary) -> Vec<GeneratedCase> {
    let mut smaller = Smaller { drawn, candidates: Vec::new() };
    // Behind which server comes first: with fewer steps it may show behind this one only.
    smaller.with(|drawn| simplest.clone_into(&mut drawn.server));
    smaller.fewer();
    for (visit, steps) in drawn.visits.iter().enumerate() {
        smaller.fewer_steps(visit, steps);
        smaller.simpler_requests(visit, steps, vocabulary);
        if vocabulary == Vocabulary::Own {
            smaller.simpler_messages(visit, steps);
        }
    }
    drawn.faults.iter().enumerate().for_each(|(index, fault)| smaller.simpler_fault(index, fault));
    smaller.with(|drawn| drawn.environment = Environment::Staging);
    smaller.candidates
}

/// The same request with one thing less to say.
fn simpler_requests(request: &Request) -> Vec<Request> {
    let plain = Request::standard(&request.method, "/ws");
    vec![
        changed(request, |simpler| simpler.headers.clear()),
        changed(request, |simpler| simpler.offers.clear()),
        changed(request, |simpler| simpler.query.clear()),
        changed(request, |simpler| simpler.body.clear()),
        changed(request, |simpler| simpler.give_up = None),
        changed(request, |simpler| simpler.user = DEFAULT_USER.to_owned()),
        changed(request, |simpler| simpler.credential = plain.credential),
        changed(request, |simpler| simpler.places.clone_from(&plain.places)),
        changed(request, |simpler| simpler.client = ClientStrictness::default()),
        changed(request, |simpler| {
            let path = &mut simpler.path;
            if path.starts_with(b"/ws") || path.starts_with(b"/v1") || path == b"/websocket" {
                path.clone_from(&plain.path);
            }
        }),
    ]
}

/// The same, where nothing is known of what the request says: any part of it may be one too many.
fn simpler_of_its_own(request: &Request) -> Vec<Request> {
    let mut simpler = simpler_requests(request);
    simpler.retain(|simpler| {
        let introduces = request.credential == Credential::None && simpler.credential != Credential::None;
        simpler.path == request.path && !introduces
    });
    for at in 0..request.headers.len() {
        simpler.push(changed(request, |simpler| drop(simpler.headers.remove(at))));
    }
    let pairs: Vec<&[u8]> = request.query.split(|&byte| byte == b'&').collect();
    for at in 0..pairs.len() {
        let query = [&pairs[..at], &pairs[at + 1..]].concat().join(&b'&');
        simpler.push(changed(request, |simpler| simpler.query = query));
    }
    for body in simpler_json(&request.body) {
        simpler.push(changed(request, |simpler| simpler.body = body.into_bytes()));
    }
    simpler
}

fn changed(request: &Request, change: impl FnOnce(&mut Request)) -> Request {
    let mut changed = request.clone();
    change(&mut changed);
    changed
}

/// A JSON object with one entry less.
fn simpler_json(text: &[u8]) -> Vec<String> {
    let Ok(serde_json::Value::Object(entries)) = serde_json::from_slice(text) else { return Vec::new() };
    let mut simpler = Vec::new();
    for name in entries.keys() {
        let mut less = entries.clone();
        less.remove(name);
        simpler.push(serde_json::Value::Object(less).to_string());
    }
    simpler
}
