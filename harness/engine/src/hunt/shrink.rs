//! Makes what was found smaller: whatever can be taken away is taken away while the same finding remains.

use super::{GeneratedCase, Hunt, Played, complains};
use crate::environment::Environment;
use relapse_core::{
    asgi::{scope::ScopeType, value::Value},
    client::{
        credential::Credential,
        step::{Action, ClientStrictness, Concurrency, DEFAULT_USER, Request},
    },
    error::Error,
    fault::{Fault, FaultKind, ScopeEdit, Trigger},
    judge::verdict::FindingKey,
};

/// The smallest thing found that still shows the finding when it is played so, and the run that shows it. If an
/// external server may not be asked any more, the finding is small enough as it is.
pub(super) fn shrink(
    hunt: &Hunt,
    key: &FindingKey,
    (drawn, played): (GeneratedCase, Played),
    play: &dyn Fn(&GeneratedCase) -> Result<Played, Error>,
) -> Result<(GeneratedCase, Played), Error> {
    let is_by_route = hunt.ground.external().is_some_and(|foreign| foreign.is_by_route());
    let mut smallest = (drawn, played);
    'again: loop {
        for candidate in smaller(&smallest.0, is_by_route).into_iter().filter(|drawn| may_be(hunt, drawn)) {
            let played = match play(&candidate) {
                Err(Error::TooManyRequests) => return Ok(smallest),
                played => played?,
            };
            if complains(&played, key) {
                smallest = (candidate, played);
                continue 'again;
            }
        }
        return Ok(smallest);
    }
}

/// Whether a hunt that lets servers do only what is legal may try it: what is simpler need not be.
fn may_be(hunt: &Hunt, drawn: &GeneratedCase) -> bool {
    let is_legal = |fault: &Fault| match &fault.kind {
        FaultKind::Scope(edit) => [ScopeType::Http, ScopeType::Websocket].iter().all(|on| edit.legality(*on).is_legal),
        _ => true,
    };
    !hunt.legal_only || drawn.faults.iter().all(is_legal)
}

/// Everything that is one step smaller or simpler, the greatest savings first. Each is strictly simpler, so that this
/// ends.
///
/// Messages in an application's own words have further ones.
fn smaller(drawn: &GeneratedCase, is_by_route: bool) -> Vec<GeneratedCase> {
    let mut candidates = Vec::new();
    let mut with = |change: &dyn Fn(&mut GeneratedCase)| {
        let mut candidate = drawn.clone();
        change(&mut candidate);
        let steps = candidate.visits.iter().map(Vec::len).sum();
        for fault in &mut candidate.faults {
            fault.trigger.step = fault.trigger.step.map(|step| step.min(steps));
        }
        if candidate != *drawn {
            candidates.push(candidate);
        }
    };
    // Behind which server comes first: with fewer steps it may show behind this one only.
    with(&|drawn| drawn.server = 0);
    if drawn.visits.len() > 1 {
        (0..drawn.visits.len()).for_each(|index| with(&|drawn| drop(drawn.visits.remove(index))));
    }
    (0..drawn.faults.len()).for_each(|index| with(&|drawn| drop(drawn.faults.remove(index))));
    with(&|drawn| drawn.crowd = Concurrency::ONE);
    with(&|drawn| drawn.crowd.connections = 1);
    with(&|drawn| drawn.crowd.users = 1);
    with(&|drawn| drawn.crowd.rounds = (drawn.crowd.rounds / 2).max(1));
    with(&|drawn| drawn.crowd.rounds = (drawn.crowd.rounds - 1).max(1));
    with(&|drawn| drawn.crowd.connections = (drawn.crowd.connections - 1).max(1));
    for (visit, steps) in drawn.visits.iter().enumerate() {
        // The first step opens, without it the others mean nothing; a message goes with the wait for its answer.
        for (index, step) in steps.iter().enumerate().skip(1) {
            let is_waited_for = steps.get(index + 1).is_some_and(|next| matches!(next.act, Action::Wait(_)));
            let end = match step.act {
                Action::SendText(_) | Action::SendBytes(_) => index + 1 + usize::from(is_waited_for),
                _ => index + 1,
            };
            with(&|drawn| drop(drawn.visits[visit].drain(index..end)));
        }
        for (index, step) in steps.iter().enumerate() {
            let (Action::Open(request) | Action::Request(request)) = &step.act else { continue };
            let simpler = if is_by_route { simpler_of_its_own(request) } else { simpler_requests(request) };
            for simpler in simpler {
                with(&|drawn| match &mut drawn.visits[visit][index].act {
                    Action::Open(request) | Action::Request(request) => *request = simpler.clone(),
                    _ => {}
                });
            }
        }
        // A client that waits for an answer keeps the message that is answered.
        let is_waited_for = |index: usize| steps[index + 1..].iter().any(|later| matches!(later.act, Action::Wait(_)));
        for (index, step) in steps.iter().enumerate().filter(|(index, _)| is_by_route && !is_waited_for(*index)) {
            let Action::SendText(text) = &step.act else { continue };
            for simpler in simpler_json(text.as_bytes()) {
                with(&|drawn| drawn.visits[visit][index].act = Action::SendText(simpler.clone()));
            }
        }
    }
    for (index, fault) in drawn.faults.iter().enumerate() {
        let ends = matches!(&fault.kind, FaultKind::Process(fault) if fault.ends());
        let trigger = fault.trigger;
        let lasting = Trigger { until: trigger.until.filter(|_| ends), ..Trigger::default() };
        with(&|drawn| drawn.faults[index].trigger = lasting);
        with(&|drawn| drawn.faults[index].trigger.from = lasting.from);
        with(&|drawn| drawn.faults[index].trigger.until = lasting.until);
        with(&|drawn| drawn.faults[index].trigger.percent = 100);
        with(&|drawn| drawn.faults[index].trigger.every = 1);
        with(&|drawn| drawn.faults[index].trigger.times = None);
        if let FaultKind::Scope(ScopeEdit::Set { key, value }) = &fault.kind
            && *value != Value::None
        {
            let kind = FaultKind::Scope(ScopeEdit::Set { key: key.clone(), value: Value::None });
            with(&|drawn| drawn.faults[index].kind = kind.clone());
        }
    }
    with(&|drawn| drawn.environment = Environment::Staging);
    candidates
}

/// The same request with one thing less to say.
fn simpler_requests(request: &Request) -> Vec<Request> {
    let plain = Request::standard(&request.method, "/ws");
    let with = |change: &dyn Fn(&mut Request)| {
        let mut simpler = request.clone();
        change(&mut simpler);
        simpler
    };
    vec![
        with(&|request| request.headers.clear()),
        with(&|request| request.offers.clear()),
        with(&|request| request.query.clear()),
        with(&|request| request.body.clear()),
        with(&|request| request.give_up = None),
        with(&|request| request.user = DEFAULT_USER.to_owned()),
        with(&|request| request.credential = plain.credential),
        with(&|request| request.places.clone_from(&plain.places)),
        with(&|request| request.client = ClientStrictness::default()),
        with(&|request| {
            if request.path.starts_with(b"/ws") || request.path.starts_with(b"/v1") || request.path == b"/websocket" {
                request.path.clone_from(&plain.path);
            }
        }),
    ]
}

/// The same, where nothing is known of what the request says: any part of it may be one too many.
fn simpler_of_its_own(request: &Request) -> Vec<Request> {
    let with = |change: &dyn Fn(&mut Request)| {
        let mut simpler = request.clone();
        change(&mut simpler);
        simpler
    };
    let is_less = |simpler: &Request| {
        let introduces = request.credential == Credential::None && simpler.credential != Credential::None;
        simpler.path == request.path && !introduces
    };
    let mut simpler: Vec<Request> = simpler_requests(request).into_iter().filter(is_less).collect();
    simpler.extend((0..request.headers.len()).map(|at| with(&|request| drop(request.headers.remove(at)))));
    let pairs: Vec<&[u8]> = request.query.split(|&byte| byte == b'&').collect();
    simpler.extend(
        (0..pairs.len())
            .map(|at| with(&|request| request.query = [&pairs[..at], &pairs[at + 1..]].concat().join(&b'&'))),
    );
    simpler.extend(
        simpler_json(&request.body).into_iter().map(|body| with(&|request| request.body = body.clone().into_bytes())),
    );
    simpler
}

/// A JSON object with one entry less.
fn simpler_json(text: &[u8]) -> Vec<String> {
    let Ok(serde_json::Value::Object(entries)) = serde_json::from_slice(text) else { return Vec::new() };
    let without = |name: &String| {
        let mut less = entries.clone();
        less.remove(name);
        serde_json::Value::Object(less).to_string()
    };
    entries.keys().map(without).collect()
}
