//! A request that a client repeats word for word, and that is answered alike before and after, is answered alike too when
//! its body comes in pieces, or while another client asks for the same.
//!
//! Before and after it has to get one answer at least twice: what changes with time, with chance or with each request says
//! nothing.

use std::ops::Range;

use super::{Harm, Property, RunView, Violation};
use crate::{
    client::step::ClientName, judge::classify::Exchange, record::transcript::EventKind, wire::head::RequestHead,
};

pub(super) const CHECK: Property = Property {
    name: "answers_agree",
    property: "a request is answered alike in pieces, and beside the same request of another client",
    harm: Harm::Disguised,
    run: check,
};

/// How often a request has to be answered alike before, and as often after.
const TIMES: usize = 2;

/// How many requests of one run are compared at most.
const REQUESTS_MAX: usize = 64;

/// How many bytes of an answer a message shows at most.
const SHOWN_BYTES: usize = 60;

/// A plain request with its answer.
#[derive(Debug)]
struct Asked<'a> {
    reading: &'a Exchange<'a>,
    head: &'a RequestHead,
    client: Option<&'a ClientName>,
    /// Of its body, if it has one.
    digest: Option<u64>,
    is_in_pieces: bool,
    answer: Answer<'a>,
    /// Its events in the transcript, from the first byte that is written to the last that is read.
    span: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer<'a> {
    status: u16,
    body: &'a [u8],
}

impl Answer<'_> {
    fn is_success(self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether an app that misreads a body may say this: success, or that it is no good body.
    fn may_be_of_misread_body(self) -> bool {
        self.is_success() || matches!(self.status, 400 | 422)
    }

    fn shown(self) -> String {
        let start = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN_BYTES)]);
        let more = if self.body.len() > SHOWN_BYTES { " …" } else { "" };
        format!("{} {start:?}{more}", self.status)
    }
}

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    // The effect of a fault may last.
    if evidence.readings.len() <= 2 * TIMES || evidence.transcript.fired.iter().any(|fired| *fired > 0) {
        return Vec::new();
    }
    let asked = Asked::all(evidence);
    asked.iter().filter_map(|odd| in_pieces(odd, &asked).or_else(|| mixed_up(odd, &asked))).collect()
}

impl<'a> Asked<'a> {
    /// The requests that were answered whole, in order.
    fn all(evidence: &'a RunView<'_>) -> Vec<Asked<'a>> {
        let mut spans: Vec<Option<Range<usize>>> = vec![None; evidence.readings.len()];
        for (position, event) in evidence.transcript.events.iter().enumerate() {
            let is_of_client = matches!(
                event.what,
                EventKind::RequestSent { .. } | EventKind::BodySent { .. } | EventKind::BodySeen { .. }
            );
            if let Some(span) = spans.get_mut(event.exchange).filter(|_| is_of_client) {
                *span = Some(span.as_ref().map_or(position, |span| span.start)..position + 1);
            }
        }
        let asked = evidence.readings.iter().zip(spans);
        asked.filter_map(|(reading, span)| Asked::of(reading, span?)).take(REQUESTS_MAX).collect()
    }

    fn of(reading: &'a Exchange<'a>, span: Range<usize>) -> Option<Asked<'a>> {
        let (head, response) = (reading.request?, reading.response?);
        let (mut client, mut digest, mut is_in_pieces, mut body) = (None, None, false, None);
        for event in &reading.events {
            match &event.what {
                EventKind::OpenedBy { client: name } => client = Some(name),
                EventKind::BodySent { digest: of_body, is_in_pieces: cut } => {
                    (digest, is_in_pieces) = (Some(of_body), *cut)
                }
                EventKind::BodySeen { body: seen, end } if end.is_whole() => body = Some(seen.as_ref()),
                EventKind::OnConnectionOf { .. } | EventKind::BodyCutShort { .. } => return None,
                _ => {}
            }
        }
        let answer = Answer { status: response.status, body: body? };
        Some(Asked { reading, head, client, digest: digest.copied(), is_in_pieces, answer, span })
    }

    /// Whether another one is the same request of the same client.
    fn repeats(&self, other: &Asked<'_>) -> bool {
        self.client == other.client && self.digest == other.digest && self.head == other.head
    }

    /// Whether another one was under way at the same time.
    fn overlaps(&self, other: &Asked<'_>) -> bool {
        self.span.start < other.span.end && other.span.start < self.span.end
    }

    /// Whether it came whole, and while no other was under way.
    fn is_undisturbed(&self, all: &[Asked<'_>]) -> bool {
        !self.is_in_pieces && !all.iter().any(|other| !std::ptr::eq(self, other) && self.overlaps(other))
    }

    /// The one answer that the same request got before this one and after it, each time that nothing disturbed it.
    fn steady_answer(&self, all: &[Asked<'a>]) -> Option<Answer<'a>> {
        let same = all.iter().filter(|other| !std::ptr::eq(self, *other) && self.repeats(other));
        let same: Vec<&Asked<'_>> = same.filter(|other| other.is_undisturbed(all)).collect();
        let first = same.first()?.answer;
        let before = same.iter().filter(|other| other.span.end <= self.span.start).count();
        let after = same.iter().filter(|other| other.span.start >= self.span.end).count();
        let is_steady = same.iter().all(|other| other.answer == first);
        (is_steady && before >= TIMES && after >= TIMES && first.is_success()).then_some(first)
    }
}

/// A request whose body came in pieces and that was answered otherwise than when it came whole; or after which another
/// request was.
fn in_pieces(odd: &Asked<'_>, all: &[Asked<'_>]) -> Option<Violation> {
    let cause = if odd.is_in_pieces { odd } else { cut_before(odd, all)? };
    let steady = odd.steady_answer(all)?;
    let is_other = odd.answer != steady && odd.answer.may_be_of_misread_body() && !is_later(odd.answer, steady);
    let is_alone = !all.iter().any(|other| !std::ptr::eq(odd, other) && odd.overlaps(other));
    (is_other && is_alone).then(|| {
        let later = if std::ptr::eq(cause, odd) { String::new() } else { format!(" {} later", told(odd.head)) };
        let message = format!(
            "{}{later} is answered {} when the body comes in pieces, and {} each time it comes whole",
            told(cause.head),
            odd.answer.shown(),
            steady.shown()
        );
        cause.reading.violation("in pieces", message)
    })
}

/// Whether an answer differs from another by greater numbers alone, which may tell how long a request took, or when it came.
fn is_later<'a>(answer: Answer<'a>, other: Answer<'a>) -> bool {
    let pieces = |answer: Answer<'a>| -> Vec<&'a [u8]> {
        answer.body.chunk_by(|one, next| one.is_ascii_digit() == next.is_ascii_digit()).collect()
    };
    let (own, others) = (pieces(answer), pieces(other));
    let number = |piece: &[u8]| -> Option<f64> { std::str::from_utf8(piece).ok()?.parse().ok() };
    let mut is_greater = false;
    let is_alike = own.iter().zip(&others).all(|(own, other)| {
        let numbers = number(own).zip(number(other)).filter(|_| own[0].is_ascii_digit());
        is_greater |= numbers.is_some_and(|(own, other)| own > other);
        own == other || numbers.is_some()
    });
    answer.status == other.status && own.len() == others.len() && is_alike && is_greater
}

/// The request in pieces since which alone the answers to a whole one may have changed: it came right before, as the same
/// request came whole before each other one.
fn cut_before<'l, 'a>(odd: &Asked<'_>, all: &'l [Asked<'a>]) -> Option<&'l Asked<'a>> {
    let right_before = |asked: &Asked<'_>| all.iter().rfind(|other| other.span.end <= asked.span.start);
    let cause = right_before(odd).filter(|cause| cause.is_in_pieces)?;
    let mut same = all.iter().filter(|other| !std::ptr::eq(odd, *other) && odd.repeats(other));
    let is_whole_elsewhere =
        same.all(|other| right_before(other).is_some_and(|before| !before.is_in_pieces && before.repeats(cause)));
    is_whole_elsewhere.then_some(cause)
}

/// A request that got the answer that another client gets to the same one, which was under way meanwhile.
fn mixed_up(odd: &Asked<'_>, all: &[Asked<'_>]) -> Option<Violation> {
    if odd.is_in_pieces || odd.client.is_none() {
        return None;
    }
    let steady = odd.steady_answer(all).filter(|steady| *steady != odd.answer)?;
    let path = odd.head.path_and_query().0;
    let others = all.iter().filter(|other| {
        let is_same_route = other.head.method == odd.head.method && other.head.path_and_query().0 == path;
        is_same_route && other.client.is_some() && other.client != odd.client && odd.overlaps(other)
    });
    let other = others.into_iter().find(|other| other.steady_answer(all) == Some(odd.answer))?;
    let (own, others) = (odd.client?, other.client?);
    let message = format!(
        "{} of {own} is answered {} while {others} asks for the same, which is the answer to {others}; alone it is {}",
        told(odd.head),
        odd.answer.shown(),
        steady.shown()
    );
    Some(odd.reading.violation("at the same time", message))
}

fn told(head: &RequestHead) -> String {
    format!("{} {}", head.method, String::from_utf8_lossy(&head.path_and_query().0))
}
