//! Whether the steps of a case can be performed in their order.

use std::{collections::BTreeMap, ops::Range};

use relapse_core::client::step::{Action, AnswerReading, ClientName, Request, Step};

/// Why a step cannot be performed where it stands.
pub(super) struct StepRefusal {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl StepRefusal {
    fn new(span: &Range<usize>, message: String, help: Option<&str>) -> StepRefusal {
        StepRefusal { span: span.clone(), message, help: help.map(str::to_owned) }
    }
}

/// The connection that a client holds between two of its steps, as far as the steps alone tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ClientHolds {
    /// A WebSocket.
    Session,
    /// A WebSocket on which it has sent a close frame, and waited for the other one.
    ClosedSession,
    /// A connection whose last answer is read, or is read with the next one of a pipeline.
    Answered,
    /// A request of whose body a part is sent; where it stands.
    PartOfBody(Range<usize>),
    /// A request whose answer a later step reads; where it stands.
    Asked(Range<usize>),
    /// Nothing any more: it left.
    Nothing,
}

/// Follows the steps in their order, and refuses those that could never be performed.
#[derive(Default)]
pub(super) struct Order {
    clients: BTreeMap<Option<ClientName>, ClientHolds>,
}

impl Order {
    /// Takes the next step, which stands at this place of the file.
    pub(super) fn take(&mut self, step: &Step, span: &Range<usize>) -> Result<(), StepRefusal> {
        if !step.act.is_of_client() {
            return match &step.client {
                None => Ok(()),
                Some(name) => Err(StepRefusal::new(
                    span,
                    format!("`{name}` does not act here: the harness does"),
                    Some("leave `as` out"),
                )),
            };
        }
        if self.clients.keys().any(|client| client.is_some() != step.client.is_some()) {
            let message = "some steps name their client, and some do not".to_owned();
            return Err(StepRefusal::new(span, message, Some("write `as` in every step, or in none")));
        }
        let next = match (&step.act, self.clients.get(&step.client).cloned()) {
            (Action::Open(request) | Action::Request(request), before) => opened(step, request, before, span)?,
            // Time passes for all clients.
            (Action::Pause | Action::Freeze, None) => return Ok(()),
            (_, None) => return Err(nothing_opened(step, span)),
            (act, Some(before)) => acted(act, before)
                .map_err(|(why, help)| StepRefusal::new(span, format!("{} {why}", client_of(step)), help))?,
        };
        self.clients.insert(step.client.clone(), next);
        Ok(())
    }

    /// Refuses steps that leave something open.
    pub(super) fn end(self) -> Result<(), StepRefusal> {
        let left_open = self.clients.into_values().find_map(|holds| match holds {
            ClientHolds::PartOfBody(span) => Some(unfinished(span)),
            ClientHolds::Asked(span) => Some(unread(span)),
            ClientHolds::Session | ClientHolds::ClosedSession | ClientHolds::Answered | ClientHolds::Nothing => None,
        });
        left_open.map_or(Ok(()), Err)
    }
}

/// The client of a step, as a message names it.
fn client_of(step: &Step) -> String {
    step.client.as_ref().map_or_else(|| "the client".to_owned(), |name| format!("`{name}`"))
}

/// A step needs a connection, and its client has none.
fn nothing_opened(step: &Step, span: &Range<usize>) -> StepRefusal {
    match &step.client {
        None => StepRefusal::new(
            span,
            "there is no connection yet for this step".to_owned(),
            Some("begin with `open = \"/path\"` or `request = \"GET /path\"`"),
        ),
        Some(name) => StepRefusal::new(
            span,
            format!("`{name}` has opened nothing yet"),
            Some("let it begin with `open` or `request`"),
        ),
    }
}

/// The connection that a client holds after a step that opens an exchange.
fn opened(
    step: &Step,
    request: &Request,
    before: Option<ClientHolds>,
    span: &Range<usize>,
) -> Result<ClientHolds, StepRefusal> {
    match &before {
        Some(ClientHolds::PartOfBody(request)) => return Err(unfinished(request.clone())),
        Some(ClientHolds::Asked(request)) => return Err(unread(request.clone())),
        Some(ClientHolds::Session | ClientHolds::ClosedSession | ClientHolds::Answered | ClientHolds::Nothing)
        | None => {}
    }
    if !request.on.is_new() && before != Some(ClientHolds::Answered) {
        let message = format!("{} has no connection here that carries another request", client_of(step));
        return Err(StepRefusal::new(span, message, Some("a connection goes on after a `request` that is answered")));
    }
    match (&step.act, request.body_sent, request.answer) {
        (_, Some(_), AnswerReading::Later) => {
            Err(StepRefusal::new(span, "a request that is not sent whole gets no answer".to_owned(), None))
        }
        (Action::Open(_), ..) => Ok(ClientHolds::Session),
        (_, Some(_), AnswerReading::AtOnce) => Ok(ClientHolds::PartOfBody(span.clone())),
        (_, None, AnswerReading::AtOnce) => Ok(ClientHolds::Answered),
        (_, None, AnswerReading::Later) => Ok(ClientHolds::Asked(span.clone())),
    }
}

/// The connection that a client holds after an act on it; otherwise why it cannot act so, and what to do.
fn acted(act: &Action, before: ClientHolds) -> Result<ClientHolds, (&'static str, Option<&'static str>)> {
    match (act, before) {
        (
            Action::Leave | Action::Reset,
            ClientHolds::Session | ClientHolds::ClosedSession | ClientHolds::PartOfBody(_) | ClientHolds::Asked(_),
        ) => Ok(ClientHolds::Nothing),
        (Action::ReadAnswer, ClientHolds::Asked(_)) => Ok(ClientHolds::Answered),
        (Action::ReadAnswer, _) => Err((
            "has no request here whose answer is not read",
            Some("write `answer = \"later\"` in the `request` before"),
        )),
        (Action::Close(_), ClientHolds::Session) => Ok(ClientHolds::ClosedSession),
        (Action::Wait(_), before @ (ClientHolds::Session | ClientHolds::ClosedSession)) => Ok(before),
        (
            Action::SendText(_) | Action::SendBytes(_) | Action::Ping | Action::Deafen | Action::StopReading,
            ClientHolds::Session,
        ) => Ok(ClientHolds::Session),
        // Time passes for all clients, and the harness itself acts on processes.
        (Action::Pause | Action::Freeze | Action::Signal(_) | Action::AwaitExit(_), before) => Ok(before),
        // `opened` tells what these leave.
        (Action::Open(_) | Action::Request(_), before) => Ok(before),
        (_, ClientHolds::Answered) => Err((
            "has read the answer to its request by then, and holds no session",
            Some("after a `request` only time passes, or another one follows"),
        )),
        (_, ClientHolds::Asked(_)) => Err((
            "has not read the answer to its request",
            Some("after `answer = \"later\"` the client pauses, reads with `read_answer`, or leaves"),
        )),
        (_, ClientHolds::PartOfBody(_)) => Err((
            "is in the middle of a body",
            Some("after `send_body_bytes` the client pauses, and then leaves with `leave` or `reset`"),
        )),
        (_, ClientHolds::ClosedSession) => Err(("has closed its session before", None)),
        (_, ClientHolds::Nothing) => Err(("has left before", Some("let it open another connection first"))),
    }
}

/// A client sends a part of a body, and does not go.
fn unfinished(span: Range<usize>) -> StepRefusal {
    let help = "write a step with `leave = true` or `reset = true` behind it".to_owned();
    StepRefusal { span, message: "a part of the body is sent, and the client never goes".to_owned(), help: Some(help) }
}

/// A client does not read the answer that it left for later.
fn unread(span: Range<usize>) -> StepRefusal {
    let help = "write a step with `read_answer = true` behind it".to_owned();
    StepRefusal { span, message: "the answer to this request is never read".to_owned(), help: Some(help) }
}
