//! Small programs: what an application does on one or two connections, and what its clients do meanwhile.

use std::fmt;

use relapse_core::wire::close_code::CloseCode;

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedApp {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// Its connections: one or two.
    pub connections: Vec<ProgramConnection>,
    /// The moves, in order. Nothing happens at the same time as something else.
    pub moves: Vec<Move>,
}

/// One connection of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramConnection {
    /// The request of its client.
    pub kind: ProgramRequest,
    /// The acts of the application on it. It waits before each segment until it is told to go on.
    pub segments: Vec<Vec<ProgramAction>>,
}

/// The request of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramRequest {
    /// A WebSocket.
    Websocket(Offer),
    /// An answer.
    Http {
        /// The length of the body that it announces, in bytes; a GET without one.
        body: Option<usize>,
        /// How much of the body goes out with the head.
        at_once: usize,
    },
}

/// Whether a client offers the subprotocol `chat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It offers nothing.
    Nothing,
    /// It offers `chat`.
    Chat,
}

/// One act of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramAction {
    /// The fate of an exception.
    pub exception: ExceptionFate,
    /// The call whose receive and send it uses.
    pub holder: Holder,
    /// The act itself.
    pub deed: Deed,
}

/// The fate of an exception that an act raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExceptionFate {
    /// It ends the call.
    Escapes,
    /// The application catches it and goes on.
    Caught,
}

/// The call whose receive and send an act uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Those of its own call.
    Own,
    /// Those of the call of the other connection, which may be over.
    Other,
}

/// The acts of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Await `receive`.
    Receive,
    /// The same for 100 ms, as an application does that sends heartbeats.
    ReceiveSoon,
    /// Raise an exception of its own.
    Raise,
    /// Return from the call.
    Return,
    /// Sleep for 5 ms.
    Wait,
    /// `websocket.accept`.
    Accept,
    /// The same with the subprotocol `chat`.
    AcceptNamed,
    /// The same with a header.
    AcceptHeaded,
    /// `websocket.send` with a text.
    Text,
    /// The same with bytes.
    Bytes,
    /// The same with both.
    Both,
    /// The same with neither.
    Neither,
    /// The same with a text that UTF-8 cannot encode.
    Surrogates,
    /// `websocket.close`, with a code or without one.
    Close(Option<u16>),
    /// The same with a reason of so many bytes.
    CloseSaying(u16, usize),
    /// The same with a reason that UTF-8 cannot encode.
    CloseSurrogates,
    /// `websocket.http.response.start` with a status.
    Deny(u16),
    /// `websocket.http.response.body` with so many bytes; more follow.
    DenyMore(usize),
    /// The same; nothing follows.
    DenyBody(usize),
    /// `http.response.start` with a status, and perhaps an announced length.
    Start(u16, Option<usize>),
    /// `http.response.body` with so many bytes; more follow.
    More(usize),
    /// The same; nothing follows.
    Body(usize),
}

/// Something that happens. The number says on which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// The client connects and asks.
    Open(usize),
    /// The application performs its next segment.
    Go(usize),
    /// The client sends a text message.
    Text(usize),
    /// The client sends a binary message.
    Bytes(usize),
    /// The client sends a close frame, with a code or without one, and waits for the end.
    Close(usize, Option<CloseCode>),
    /// The client sends the rest of its body.
    Rest(usize),
    /// The client is gone without a word.
    Leave(usize),
}

/// The names of the connections, in the application's paths.
pub(super) const NAMES: [&str; 2] = ["a", "b"];

/// The codes that an application closes with.
const CLOSE_CODES: [u16; 12] = [1000, 1001, 1003, 1005, 1006, 1008, 1011, 1012, 1015, 3000, 4000, 999];
/// The codes that a client closes with.
const CLIENT_CODES: [u16; 4] = [1000, 1001, 3000, 4321];

impl GeneratedApp {
    /// Draws a program. The same seed gives the same one.
    pub fn draw(seed: u64) -> GeneratedApp {
        let mut chance = fastrand::Rng::with_seed(seed);
        let count = if chance.u8(..100) < 25 { 2 } else { 1 };
        let connections: Vec<ProgramConnection> =
            (0..count).map(|number| ProgramConnection::draw(&mut chance, number, count)).collect();
        let moves = draw_moves(&mut chance, &connections);
        GeneratedApp { seed, connections, moves }
    }

    /// The query string that tells the application its acts on a connection.
    pub(super) fn query(&self, connection: usize) -> String {
        let segments = self.connections[connection].segments.iter().map(|acts| {
            let acts: Vec<String> = acts.iter().map(ProgramAction::to_string).collect();
            acts.join(",")
        });
        format!("a={}", segments.collect::<Vec<_>>().join("/"))
    }
}

impl ProgramRequest {
    pub(super) fn is_websocket(self) -> bool {
        matches!(self, ProgramRequest::Websocket(_))
    }
}

impl ProgramConnection {
    fn draw(chance: &mut fastrand::Rng, number: usize, count: usize) -> ProgramConnection {
        let kind = match chance.u8(..100) {
            0..50 => ProgramRequest::Websocket(Offer::Nothing),
            50..70 => ProgramRequest::Websocket(Offer::Chat),
            70..85 => ProgramRequest::Http { body: None, at_once: 0 },
            _ => {
                let body = 1 + chance.usize(..40);
                ProgramRequest::Http {
                    body: Some(body),
                    at_once: if chance.bool() { body } else { chance.usize(..body) },
                }
            }
        };
        // The second connection uses what the first one left.
        let reaches = number + 1 == count && count > 1;
        let mut segments: Vec<Vec<ProgramAction>> = Vec::new();
        for segment in 0..1 + chance.usize(..4) {
            let mut acts = Vec::new();
            for position in 0..1 + chance.usize(..3) {
                let deed = match (kind.is_websocket(), segment, position) {
                    // Most applications begin as they should.
                    (true, 0, 0) if chance.u8(..100) < 80 => Deed::Receive,
                    (true, 0, 1) if chance.u8(..100) < 60 => Deed::draw_accept(chance),
                    (false, 0, 0) if chance.u8(..100) < 40 => Deed::Start(200, draw_length(chance)),
                    _ => Deed::draw(chance, kind, position),
                };
                let holder = if reaches && chance.u8(..100) < 50 { Holder::Other } else { Holder::Own };
                let holder = if matches!(deed, Deed::Raise | Deed::Return | Deed::Wait) { Holder::Own } else { holder };
                let is_caught = deed != Deed::Return && chance.u8(..100) < 55;
                let exception = if is_caught { ExceptionFate::Caught } else { ExceptionFate::Escapes };
                acts.push(ProgramAction { exception, holder, deed });
                if matches!(deed, Deed::Return | Deed::Raise) {
                    break;
                }
            }
            segments.push(acts);
        }
        ProgramConnection { kind, segments }
    }
}

fn draw_length(chance: &mut fastrand::Rng) -> Option<usize> {
    (chance.u8(..100) < 40).then(|| chance.usize(..6))
}

impl Deed {
    fn draw_accept(chance: &mut fastrand::Rng) -> Deed {
        match chance.u8(..100) {
            0..70 => Deed::Accept,
            70..90 => Deed::AcceptNamed,
            _ => Deed::AcceptHeaded,
        }
    }

    /// Whether it waits for an event.
    pub(super) fn is_receive(self) -> bool {
        matches!(self, Deed::Receive | Deed::ReceiveSoon)
    }

    pub(super) fn is_accept(self) -> bool {
        matches!(self, Deed::Accept | Deed::AcceptNamed | Deed::AcceptHeaded)
    }

    pub(super) fn is_denial(self) -> bool {
        matches!(self, Deed::Deny(_) | Deed::DenyMore(_) | Deed::DenyBody(_))
    }

    /// Draws the deed at a position of a segment, counted from 0.
    fn draw(chance: &mut fastrand::Rng, kind: ProgramRequest, position: usize) -> Deed {
        // Now and then it takes its scope for one of the other kind.
        let is_websocket = kind.is_websocket() != (chance.u8(..100) < 8);
        match (is_websocket, chance.u8(..100)) {
            (_, 0..16) => Deed::Receive,
            (_, 16..20) => Deed::ReceiveSoon,
            (_, 20..24) => Deed::Raise,
            (_, 24..30) => Deed::Return,
            (_, 30..33) if position == 0 => Deed::Wait,
            (true, 0..46) => Deed::draw_accept(chance),
            (true, 46..57) => Deed::Text,
            (true, 57) => Deed::Surrogates,
            (true, 58..64) => Deed::Bytes,
            (true, 64..67) => Deed::Both,
            (true, 67..71) => Deed::Neither,
            (true, 71..74) => Deed::Close(None),
            (true, 74..82) => Deed::Close(Some(CLOSE_CODES[chance.usize(..CLOSE_CODES.len())])),
            (true, 82) => Deed::CloseSurrogates,
            (true, 83..86) => {
                let code = CLOSE_CODES[chance.usize(..CLOSE_CODES.len())];
                Deed::CloseSaying(code, [5, 123, 124, 200][chance.usize(..4)])
            }
            (true, 86..92) => Deed::Deny([401, 403, 200, 503][chance.usize(..4)]),
            (true, 92..95) => Deed::DenyMore(chance.usize(..5)),
            (true, _) => Deed::DenyBody(chance.usize(..5)),
            (false, 0..50) => Deed::Start([200, 200, 204, 404, 500][chance.usize(..5)], draw_length(chance)),
            (false, 50..70) => Deed::More(chance.usize(..5)),
            (false, _) => Deed::Body(chance.usize(..5)),
        }
    }
}

/// The moves of every connection in its order, and those of two connections mixed.
fn draw_moves(chance: &mut fastrand::Rng, connections: &[ProgramConnection]) -> Vec<Move> {
    let mut queues: Vec<std::collections::VecDeque<Move>> = Vec::new();
    for (number, connection) in connections.iter().enumerate() {
        let mut moves = std::collections::VecDeque::from([Move::Open(number)]);
        for segment in 0..connection.segments.len() {
            if segment > 0 || chance.u8(..100) < 5 {
                moves.extend(draw_client(chance, number, connection.kind));
            }
            moves.push_back(Move::Go(number));
        }
        moves.extend(draw_client(chance, number, connection.kind));
        queues.push(moves);
    }
    let mut moves = Vec::new();
    while queues.iter().any(|queue| !queue.is_empty()) {
        let number = chance.usize(..queues.len());
        // The second uses what the first left, so the first goes ahead.
        let number = if number == 1 && queues[0].len() > 2 && chance.u8(..100) < 50 { 0 } else { number };
        moves.extend(queues[number].pop_front());
    }
    moves
}

fn draw_client(chance: &mut fastrand::Rng, number: usize, kind: ProgramRequest) -> Option<Move> {
    match (kind, chance.u8(..100)) {
        (ProgramRequest::Websocket(_), 0..25) => Some(Move::Text(number)),
        (ProgramRequest::Websocket(_), 25..35) => Some(Move::Bytes(number)),
        (ProgramRequest::Websocket(_), 35..50) => {
            let code = (chance.u8(..100) < 70).then(|| CloseCode(CLIENT_CODES[chance.usize(..CLIENT_CODES.len())]));
            Some(Move::Close(number, code))
        }
        (ProgramRequest::Websocket(_), 50..62) => Some(Move::Leave(number)),
        (ProgramRequest::Http { .. }, 0..45) => Some(Move::Rest(number)),
        (ProgramRequest::Http { .. }, 45..70) => Some(Move::Leave(number)),
        _ => None,
    }
}

impl fmt::Display for ProgramAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exception == ExceptionFate::Caught {
            f.write_str("try.")?;
        }
        if self.holder == Holder::Other {
            f.write_str("other.")?;
        }
        match self.deed {
            Deed::Receive => f.write_str("receive"),
            Deed::ReceiveSoon => f.write_str("receive_soon"),
            Deed::Raise => f.write_str("raise"),
            Deed::Return => f.write_str("return"),
            Deed::Wait => f.write_str("wait"),
            Deed::Accept => f.write_str("accept"),
            Deed::AcceptNamed => f.write_str("accept_named:chat"),
            Deed::AcceptHeaded => f.write_str("accept_headed:yes"),
            Deed::Text => f.write_str("text:hi"),
            Deed::Bytes => f.write_str("bytes:raw"),
            Deed::Both => f.write_str("both"),
            Deed::Neither => f.write_str("neither"),
            Deed::Surrogates => f.write_str("surrogates"),
            Deed::Close(None) => f.write_str("close"),
            Deed::Close(Some(code)) => write!(f, "close:{code}"),
            Deed::CloseSurrogates => f.write_str("close_surrogates"),
            Deed::CloseSaying(code, length) => write!(f, "close_saying:{code}:{length}"),
            Deed::Deny(status) => write!(f, "deny:{status}"),
            Deed::DenyMore(length) => write!(f, "deny_more:{length}"),
            Deed::DenyBody(length) => write!(f, "deny_body:{length}"),
            Deed::Start(status, None) => write!(f, "start:{status}"),
            Deed::Start(status, Some(length)) => write!(f, "start:{status}:{length}"),
            Deed::More(length) => write!(f, "more:{length}"),
            Deed::Body(length) => write!(f, "body:{length}"),
        }
    }
}

impl fmt::Display for GeneratedApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, connection) in self.connections.iter().enumerate() {
            let kind = match connection.kind {
                ProgramRequest::Websocket(Offer::Nothing) => "a WebSocket".to_owned(),
                ProgramRequest::Websocket(Offer::Chat) => "a WebSocket that offers `chat`".to_owned(),
                ProgramRequest::Http { body: None, .. } => "GET".to_owned(),
                ProgramRequest::Http { body: Some(body), at_once } => {
                    format!("POST of {body} bytes, {at_once} with the head")
                }
            };
            writeln!(f, "connection {}: {kind}", NAMES[number])?;
        }
        let mut done = [0; 2];
        for step in &self.moves {
            match step {
                Move::Open(at) => writeln!(f, "  client {} asks", NAMES[*at])?,
                Move::Text(at) => writeln!(f, "  client {} sends text", NAMES[*at])?,
                Move::Bytes(at) => writeln!(f, "  client {} sends bytes", NAMES[*at])?,
                Move::Close(at, Some(code)) => writeln!(f, "  client {} closes with {code}", NAMES[*at])?,
                Move::Close(at, None) => writeln!(f, "  client {} closes without a code", NAMES[*at])?,
                Move::Rest(at) => writeln!(f, "  client {} sends the rest of its body", NAMES[*at])?,
                Move::Leave(at) => writeln!(f, "  client {} leaves", NAMES[*at])?,
                Move::Go(at) => {
                    let acts = &self.connections[*at].segments[done[*at]];
                    done[*at] += 1;
                    let acts: Vec<String> = acts.iter().map(ProgramAction::to_string).collect();
                    writeln!(f, "  app    {}: {}", NAMES[*at], acts.join(", "))?;
                }
            }
        }
        Ok(())
    }
}
