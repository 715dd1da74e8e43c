//! Edge faults on requests and on their answers, one after the other as a connection carries them.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::{Carried, End, Journal, body};
use crate::{link::take, recorder::ExchangeRecorder};
use relapse_core::{
    fault::{AnswerEdit, AskedFor, FaultKind, HeadEdit},
    record::transcript::Actor,
    wire::{
        body::{AnsweredMethod, BodyDecoder, BodyFraming},
        deflate::{Coding, DeflateParameters},
        head::{RequestHead, ResponseHead, field, has_token},
    },
};

/// How many requests of a connection may wait for their answers.
const ASKED_MAX: usize = 1000;

/// The requests of a connection and their answers, until the server switches protocols.
pub(super) struct EdgeExchange {
    scribe: ExchangeRecorder,
    journal: Option<Journal>,
    edits_answers: bool,
    asks_again: bool,
    request: NextPart,
    answer: NextPart,
    /// The requests that are not answered yet, in order.
    asked: VecDeque<RequestFacts>,
    upgraded: bool,
    /// How the client and the server compress their messages, each as it knows the answer to the upgrade.
    codings: (Option<Coding>, Option<Coding>),
    /// The injected bytes that follow the request whose body is coming.
    following: Vec<u8>,
    /// How many requests were taken.
    requests: usize,
    /// How many answers have begun.
    answers: usize,
    /// The answer that a fault keeps back.
    held: Option<HeldHead>,
    /// The request that waits for its answer, as it was passed on, where it may be made again.
    again: Option<Vec<u8>>,
}

/// An answer that is kept back, as far as it came.
struct HeldHead {
    kept: Vec<u8>,
    /// How many bytes of its head are among them.
    head: usize,
    /// The size of the pieces that are handed on; `None` where only the whole is.
    piece: Option<usize>,
}

/// How much of an answer is kept back at most, in bytes; then everything is handed on as it comes.
const HELD_BYTES_MAX: usize = 16 << 20;

impl HeldHead {
    /// Hands on the pieces that are full.
    fn hand_on(&mut self, carried: &mut Vec<u8>) {
        let body = self.kept.len() - self.head;
        let full = match self.piece {
            _ if self.kept.len() > HELD_BYTES_MAX => body,
            Some(piece) => body - body % piece.max(1),
            None => 0,
        };
        if full > 0 {
            carried.extend(self.kept.drain(..self.head + full));
            self.head = 0;
        }
    }
}

/// The next part to read of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextPart {
    Head,
    Body(BodyDecoder),
    /// Whatever comes passes as it is: an upgrade is asked for and not answered.
    Undecided,
    /// Whatever comes passes as it is: frames, or what is no HTTP/1.
    Opaque,
}

/// The facts about a request that are needed to read its answer.
struct RequestFacts {
    method: AnsweredMethod,
    asked_for: AskedFor,
}

impl EdgeExchange {
    pub(super) fn new(scribe: ExchangeRecorder, journal: Option<Journal>) -> EdgeExchange {
        let edits_answers = scribe.plan().faults.iter().any(|fault| matches!(fault.kind, FaultKind::Answer(_)));
        let asks_again = super::asks_again(&scribe);
        EdgeExchange {
            scribe,
            journal,
            edits_answers,
            asks_again,
            request: NextPart::Head,
            answer: NextPart::Head,
            asked: VecDeque::new(),
            upgraded: false,
            codings: (None, None),
            following: Vec::new(),
            requests: 0,
            answers: 0,
            held: None,
            again: None,
        }
    }

    /// The only request that waits for its answer, as it was passed on, if it may be made again: a GET or HEAD (RFC 9110
    /// section 9.2.2) without a body that asks for no upgrade, of whose answer nothing has come.
    pub(super) fn again(&mut self) -> Option<Vec<u8>> {
        let is_alone = self.asked.len() == 1 && self.answer == NextPart::Head && self.request == NextPart::Head;
        self.again.take_if(|_| is_alone)
    }

    /// Whether what comes from the client is nothing that is read here.
    pub(super) fn is_request_opaque(&self) -> bool {
        matches!(self.request, NextPart::Opaque | NextPart::Undecided)
    }

    /// Whether what comes from the server is nothing that is read here.
    pub(super) fn is_answer_opaque(&self) -> bool {
        self.answer == NextPart::Opaque
    }

    /// Whether the server switched protocols.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// How the client and the server compress their messages, where they do.
    pub(super) fn codings(&self) -> (Option<Coding>, Option<Coding>) {
        self.codings
    }

    /// Whether a request waits for its answer to begin.
    pub(super) fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether an answer is to come, or is coming.
    pub(super) fn is_busy(&self) -> bool {
        self.is_waiting() || matches!(self.answer, NextPart::Body(_))
    }

    /// Whether nothing was asked yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.request == NextPart::Head && self.answers == 0 && self.asked.is_empty()
    }

    /// How many answers have begun.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// Carries requests as far as they have come.
    pub(super) fn request(&mut self, incoming: &mut BytesMut, carried: &mut Vec<u8>) {
        loop {
            match &mut self.request {
                // A client with too many unanswered requests has to wait.
                NextPart::Head if self.asked.len() >= ASKED_MAX => return,
                NextPart::Head => match RequestHead::decode(incoming) {
                    Ok(None) => return,
                    Ok(Some((head, length))) => self.take_request(head, length, incoming, carried),
                    Err(_) => self.request = NextPart::Opaque,
                },
                NextPart::Body(body) => {
                    if !body::carry(body, incoming, carried) {
                        return;
                    }
                    carried.append(&mut self.following);
                    let is_upgrade = self.asked.back().is_some_and(|asked| asked.asked_for == AskedFor::Upgrade);
                    self.request = if is_upgrade { NextPart::Undecided } else { NextPart::Head };
                }
                NextPart::Undecided | NextPart::Opaque => return,
            }
        }
    }

    /// Lets each fault act on the head. An unchanged head passes byte for byte.
    fn take_request(&mut self, before: RequestHead, length: usize, incoming: &mut BytesMut, carried: &mut Vec<u8>) {
        if let Some(journal) = &self.journal {
            journal(Carried::Request(&before));
        }
        let mut head = before.clone();
        let scribe = self.scribe.of_request(self.requests);
        self.requests += 1;
        for (index, fault) in scribe.plan().faults.iter().enumerate() {
            let FaultKind::Head(edit) = &fault.kind else { continue };
            if edit.applies_to(&head) && scribe.meets(index) {
                edit.apply(&mut head);
                if let HeadEdit::Follow { bytes } = edit {
                    self.following.extend_from_slice(bytes);
                }
                scribe.fired(index, Actor::Edge, fault.kind.to_string());
            }
        }
        let start = carried.len();
        if head == before {
            carried.extend_from_slice(&incoming[..length]);
        } else {
            head.encode(carried);
        }
        take(incoming, length);
        let framing = BodyFraming::of_request(&before);
        self.request = NextPart::Body(body::decoder(framing));
        let asked_for = match has_token(&before.headers, "connection", "upgrade") {
            true => AskedFor::Upgrade,
            false => AskedFor::Resource,
        };
        let is_repeatable = self.asks_again
            && matches!(before.method.as_str(), "GET" | "HEAD")
            && framing == BodyFraming::Length(0)
            && asked_for == AskedFor::Resource;
        self.again = is_repeatable.then(|| carried[start..].to_vec());
        self.asked.push_back(RequestFacts { method: AnsweredMethod::of(&before.method), asked_for });
    }

    /// Carries answers as far as they have come; how that ends the connection, if it does.
    pub(super) fn answer(&mut self, incoming: &mut BytesMut, carried: &mut Vec<u8>) -> Option<(End, usize)> {
        loop {
            match &mut self.answer {
                NextPart::Head => match ResponseHead::decode(incoming) {
                    Ok(None) => return None,
                    Ok(Some((head, length))) => {
                        if let Some(end) = self.take_answer(&head, length, incoming, carried) {
                            return Some(end);
                        }
                    }
                    Err(_) => self.answer = NextPart::Opaque,
                },
                NextPart::Body(body) => {
                    let kept = self.held.as_mut().map_or(&mut *carried, |held| &mut held.kept);
                    if !body::carry(body, incoming, kept) {
                        self.held.iter_mut().for_each(|held| held.hand_on(carried));
                        return None;
                    }
                    self.release(carried);
                    self.answer = NextPart::Head;
                }
                NextPart::Undecided | NextPart::Opaque => return None,
            }
        }
    }

    /// Hands on what is kept back of an answer: it is over, or the server is gone.
    pub(super) fn release(&mut self, carried: &mut Vec<u8>) {
        carried.extend(self.held.take().into_iter().flat_map(|held| held.kept));
    }

    fn take_answer(
        &mut self,
        before: &ResponseHead,
        length: usize,
        incoming: &mut BytesMut,
        carried: &mut Vec<u8>,
    ) -> Option<(End, usize)> {
        if before.status < 200 && before.status != 101 {
            // There is another answer to come (RFC 9110 section 15.2).
            carried.extend_from_slice(&incoming[..length]);
            take(incoming, length);
            return None;
        }
        let asked = self.asked.pop_front();
        self.answers += 1;
        self.upgraded = before.status == 101;
        if self.upgraded {
            (self.request, self.answer) = (NextPart::Opaque, NextPart::Opaque);
            let selected = DeflateParameters::selected(&before.headers);
            self.codings = (selected.map(|agreed| agreed.of_client()), selected.map(|agreed| agreed.of_server()));
        } else {
            let method = asked.as_ref().map_or(AnsweredMethod::Other, |asked| asked.method);
            self.answer = NextPart::Body(body::decoder(BodyFraming::of_answer(before, method)));
            if self.request == NextPart::Undecided {
                // Refused: what the client says next is another request.
                self.request = NextPart::Head;
            }
        }
        if let Some(journal) = &self.journal {
            journal(Carried::Answer(before));
        }
        if self.edits_answers {
            let asked_for = asked.map_or(AskedFor::Resource, |asked| asked.asked_for);
            return self.edit_answer(before, asked_for, length, incoming, carried);
        }
        carried.extend_from_slice(&incoming[..length]);
        take(incoming, length);
        None
    }

    fn edit_answer(
        &mut self,
        before: &ResponseHead,
        asked_for: AskedFor,
        length: usize,
        incoming: &mut BytesMut,
        carried: &mut Vec<u8>,
    ) -> Option<(End, usize)> {
        let mut head = before.clone();
        let (mut following, mut held, start) = (Vec::new(), None, carried.len());
        // The answers come in the order of the requests, and this one is counted already.
        let scribe = self.scribe.of_request(self.answers.saturating_sub(1));
        for (index, fault) in scribe.plan().faults.iter().enumerate() {
            let FaultKind::Answer(edit) = &fault.kind else { continue };
            if !edit.applies_to(&head, asked_for) || !scribe.meets(index) {
                continue;
            }
            scribe.fired(index, Actor::Edge, fault.kind.to_string());
            match edit {
                AnswerEdit::Hijack { status, body } => {
                    write_page(u16::try_from(status.0).unwrap_or(502), body, carried);
                    return Some((End::Finished, index));
                }
                AnswerEdit::Follow { bytes } => following.extend_from_slice(bytes),
                AnswerEdit::Hold {} => held = Some(None),
                // One that waits for the whole waits longer.
                AnswerEdit::Buffer { bytes } => held = held.or(Some(Some(bytes.0))),
                AnswerEdit::Set { .. } | AnswerEdit::Strip { .. } | AnswerEdit::KeepUpgrade {} => {
                    edit.apply(&mut head.headers);
                }
            }
        }
        if head == *before {
            carried.extend_from_slice(&incoming[..length]);
        } else {
            head.encode(carried);
            // The client compresses as the answer says that it gets.
            let selected = DeflateParameters::selected(&head.headers).filter(|_| self.upgraded);
            self.codings.0 = selected.map(|agreed| agreed.of_client());
        }
        carried.extend_from_slice(&following);
        take(incoming, length);
        self.held = held.map(|piece| {
            let kept = carried.split_off(start);
            HeldHead { head: kept.len(), kept, piece }
        });
        None
    }
}

/// Writes a page of the edge's own, after which the connection ends.
pub(super) fn write_page(status: u16, body: &str, carried: &mut Vec<u8>) {
    let headers = vec![
        field("content-type", if body.starts_with('<') { "text/html" } else { "text/plain; charset=utf-8" }),
        field("content-length", body.len().to_string()),
        field("connection", "close"),
    ];
    ResponseHead { status, headers }.encode(carried);
    carried.extend_from_slice(body.as_bytes());
}
