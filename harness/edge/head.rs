//! Edge faults on the first request of a connection and on its answer.

use bytes::BytesMut;

use super::End;
use crate::{
    fault::{AnswerEdit, FaultKind, HeadEdit},
    head::{RequestHead, ResponseHead, field},
    link::take,
    recorder::Scribe,
    transcript::Party,
};

/// The first request of a connection and its answer; everything after them passes as it is.
pub(super) struct Exchange {
    scribe: Scribe,
    edits_answers: bool,
    request: Progress,
    answer: Progress,
    upgraded: bool,
    /// The length of the request's body, and what is to follow it.
    following: Option<(usize, Vec<u8>)>,
}

/// How much of a head is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Coming,
    Through,
}

impl Exchange {
    pub(super) fn new(scribe: Scribe) -> Exchange {
        let edits_answers = scribe.plan().faults.iter().any(|fault| matches!(fault.kind, FaultKind::Answer(_)));
        let (request, answer) = (Progress::Coming, Progress::Coming);
        Exchange { scribe, edits_answers, request, answer, upgraded: false, following: None }
    }

    pub(super) fn is_request_through(&self) -> bool {
        self.request == Progress::Through
    }

    pub(super) fn is_answer_through(&self) -> bool {
        self.answer == Progress::Through
    }

    /// Whether the server switched protocols.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// Takes the request's head once it is whole.
    pub(super) fn request(&mut self, incoming: &mut BytesMut, carried: &mut Vec<u8>) {
        if self.request == Progress::Coming {
            match RequestHead::decode(incoming) {
                Ok(None) => return,
                Ok(Some((head, length))) => {
                    self.request = Progress::Through;
                    self.take_request(head, length, incoming, carried);
                }
                Err(_) => self.request = Progress::Through,
            }
        }
        // What follows a request follows its body.
        if let Some((body, _)) = &mut self.following {
            let count = incoming.len().min(*body);
            carried.extend_from_slice(&incoming[..count]);
            take(incoming, count);
            *body -= count;
        }
        if let Some((_, bytes)) = self.following.take_if(|(body, _)| *body == 0) {
            carried.extend_from_slice(&bytes);
        }
    }

    /// Lets each fault act on the head. An unchanged head passes byte for byte.
    fn take_request(&mut self, before: RequestHead, length: usize, incoming: &mut BytesMut, carried: &mut Vec<u8>) {
        let mut head = before.clone();
        for (index, fault) in self.scribe.plan().faults.iter().enumerate() {
            let FaultKind::Head(edit) = &fault.kind else { continue };
            if edit.applies_to(&head) && self.scribe.meets(index) {
                edit.apply(&mut head);
                if let HeadEdit::Follow { bytes } = edit {
                    let (body, following) = self.following.get_or_insert_default();
                    *body = body_length(&before);
                    following.extend_from_slice(bytes);
                }
                self.scribe.fired(index, Party::Edge, fault.kind.to_string());
            }
        }
        if head == before {
            carried.extend_from_slice(&incoming[..length]);
        } else {
            head.encode(carried);
        }
        take(incoming, length);
    }

    /// Takes the answer's head once it is whole; how that ends the connection, if it does.
    pub(super) fn answer(&mut self, incoming: &mut BytesMut, carried: &mut Vec<u8>) -> Option<End> {
        while self.answer == Progress::Coming {
            let (head, length) = match ResponseHead::decode(incoming) {
                Ok(None) => return None,
                Ok(Some(decoded)) => decoded,
                Err(_) => {
                    self.answer = Progress::Through;
                    return None;
                }
            };
            self.upgraded = head.status == 101;
            if head.status == 101 || head.status >= 200 {
                self.answer = Progress::Through;
            }
            if self.edits_answers && self.answer == Progress::Through {
                return self.take_answer(&head, length, incoming, carried);
            }
            carried.extend_from_slice(&incoming[..length]);
            take(incoming, length);
        }
        None
    }

    fn take_answer(
        &self,
        before: &ResponseHead,
        length: usize,
        incoming: &mut BytesMut,
        carried: &mut Vec<u8>,
    ) -> Option<End> {
        let mut head = before.clone();
        let mut following = Vec::new();
        for (index, fault) in self.scribe.plan().faults.iter().enumerate() {
            let FaultKind::Answer(edit) = &fault.kind else { continue };
            if !edit.applies_to(&head) || !self.scribe.meets(index) {
                continue;
            }
            self.scribe.fired(index, Party::Edge, fault.kind.to_string());
            match edit {
                AnswerEdit::Hijack { status, body } => {
                    let headers = vec![
                        field("content-type", "text/html"),
                        field("content-length", body.len().to_string()),
                        field("connection", "close"),
                    ];
                    let status = u16::try_from(status.0).unwrap_or(502);
                    ResponseHead { status, headers }.encode(carried);
                    carried.extend_from_slice(body.as_bytes());
                    return Some(End::Finished);
                }
                AnswerEdit::Follow { bytes } => following.extend_from_slice(bytes),
                AnswerEdit::Set { .. } | AnswerEdit::Strip { .. } => edit.apply(&mut head.headers),
            }
        }
        if head == *before {
            carried.extend_from_slice(&incoming[..length]);
        } else {
            head.encode(carried);
        }
        carried.extend_from_slice(&following);
        take(incoming, length);
        None
    }
}

/// How many bytes of body a request announces.
fn body_length(head: &RequestHead) -> usize {
    let announced = crate::head::header(&head.headers, "content-length");
    announced.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok()).unwrap_or(0)
}
