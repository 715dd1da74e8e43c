//! The clients of a program, and what they and the application see.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::program::{Deed, GeneratedApp, Move, NAMES, Offer, ProgramAction, ProgramRequest};
use relapse::{client::body, target::Target};
use relapse_core::{
    asgi::exception::Exception,
    error::Error,
    plan::Plan,
    record::transcript::{BodyEnd, EventKind, Transcript},
    wire::{
        client::WebSocketClient,
        close_code::CloseCode,
        frame::{Frame, Opcode},
        head::{RequestHead, ResponseHead, field, header, readable},
    },
};
use relapse_simulate::{
    link::{Wire, take},
    memory::RunMemory,
    recorder::{ExchangeRecorder, Recorder},
};

/// The largest payload of a frame that is read.
const PAYLOAD_BYTES_MAX: u64 = 1 << 20;

/// The seed of the masking keys, which nothing shows.
const MASK_SEED: u64 = 1;
/// How long it takes at most until what the client just did has reached a server whose threads are its own.
const SETTLING: Duration = Duration::from_millis(20);
/// How often it is looked whether a call has been told of.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How much longer the answer about a segment may take than the segment.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The headers of an answer that are compared.
const HEADERS: [&str; 3] = ["content-type", "sec-websocket-protocol", "x-program"];

/// One side of a comparison: what was seen of a program, line by line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed(pub Vec<String>);

/// Performs a program on a target; what was seen of it. Nothing is waited for longer than `patience`.
pub(super) async fn perform(
    program: &GeneratedApp,
    number: u64,
    target: &dyn Target,
    patience: Duration,
    catch_up: &(dyn Fn() + Sync),
) -> Result<Performance, Error> {
    let stage = ProgramStage { number, target, patience };
    let recorder = Recorder::new(Plan { seed: program.seed, faults: Vec::new() });
    let mut peers: Vec<Option<ProgramClient>> = program.connections.iter().map(|_| None).collect();
    let (mut performed, mut stands) = ([0; NAMES.len()], [Stands::Parked; NAMES.len()]);
    for step in &program.moves {
        match *step {
            Move::Open(at) => peers[at] = stage.open(program, at, recorder.scribe(at)).await?,
            Move::Go(at) => {
                stands[at] = stage.go(at, &mut peers).await?;
                let segment = &program.connections[at].segments[performed[at]];
                performed[at] += 1;
                stage.look(at, segment, stands[at], &mut peers).await;
            }
            Move::Text(at) => stage.send(&mut peers[at], Frame::new(Opcode::Text, "from the client")).await,
            Move::Bytes(at) => stage.send(&mut peers[at], Frame::new(Opcode::Binary, "raw")).await,
            Move::Close(at, code) => stage.close(&mut peers[at], code).await,
            Move::Rest(at) => {
                if let Some(peer) = &mut peers[at] {
                    peer.send_rest().await;
                    stage.settle().await;
                }
            }
            Move::Leave(at) => {
                if let Some(peer) = &mut peers[at] {
                    peer.glance().await;
                    peer.leave();
                    stage.settle().await;
                }
            }
        }
        // The last move may let a connection go on that waited.
        for (at, stands) in stands.iter_mut().enumerate() {
            if *stands == Stands::Stuck && !matches!(*step, Move::Go(moved) | Move::Open(moved) if moved == at) {
                *stands = stage.rest(at, &mut peers).await?;
            }
        }
    }
    for peer in peers.iter_mut().flatten() {
        peer.drain(patience).await;
    }
    for (at, stands) in stands.iter_mut().enumerate() {
        if *stands == Stands::Stuck {
            *stands = stage.rest(at, &mut peers).await?;
        }
    }
    let report = stage.ask(&format!("/report/{number}")).await?;
    let transcript = wait_for_calls(&recorder, &stands, patience, catch_up).await;
    let clients = peers.iter().zip(NAMES).flat_map(|(peer, name)| client_lines(name, peer.as_ref()));
    let names = NAMES.iter().enumerate().take(program.connections.len());
    let calls = names.flat_map(|(at, name)| call_lines(name, at, &transcript));
    let observed = Observed(clients.chain(report_lines(&report)).chain(calls).collect());
    Ok(Performance { observed, is_reached: is_reached(program, &peers) })
}

/// Whether each client that connected found something that listens.
fn is_reached(program: &GeneratedApp, peers: &[Option<ProgramClient>]) -> bool {
    program.moves.iter().all(|step| !matches!(step, Move::Open(at) if peers[*at].is_none()))
}

/// One performance of a program.
pub(super) struct Performance {
    pub(super) observed: Observed,
    /// Whether something listened whenever a client connected.
    pub(super) is_reached: bool,
}

/// Whether an act may make a server answer.
fn answers(deed: &Deed) -> bool {
    !matches!(deed, Deed::Receive | Deed::ReceiveSoon | Deed::Wait)
}

/// The lines about a client.
fn client_lines(name: &str, client: Option<&ProgramClient>) -> Vec<String> {
    match client {
        Some(client) => client.lines().into_iter().map(|line| format!("client {name}: {line}")).collect(),
        None => vec![format!("client {name}: was not let in")],
    }
}

/// The lines about the ends of a connection's calls.
fn call_lines(name: &str, at: usize, transcript: &Transcript) -> Vec<String> {
    let ends = transcript.of(at).filter_map(|event| match &event.what {
        EventKind::Returned => Some("returned".to_owned()),
        EventKind::Raised(exception) => {
            // The witness names the module only where the call's own end raised it.
            let type_name = exception.type_name.rsplit('.').next().unwrap_or_default().to_owned();
            Some(format!("raised {}", Exception { type_name, ..exception.clone() }.located()))
        }
        _ => None,
    });
    ends.map(|end| format!("call   {name}: {end}")).collect()
}

/// The transcript, once every call that is over has been told of.
async fn wait_for_calls(
    recorder: &Recorder,
    stands: &[Stands],
    patience: Duration,
    catch_up: &(dyn Fn() + Sync),
) -> Transcript {
    let mut transcript = recorder.transcript();
    let end = Instant::now() + patience;
    loop {
        catch_up();
        transcript.events.extend(recorder.transcript().events);
        let all =
            stands.iter().enumerate().all(|(at, stands)| *stands != Stands::Over || has_call_ended(&transcript, at));
        if all || Instant::now() >= end {
            return transcript;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether a call of a connection is told to be over.
fn has_call_ended(transcript: &Transcript, at: usize) -> bool {
    transcript.of(at).any(|event| matches!(event.what, EventKind::Returned | EventKind::Raised(_)))
}

/// The application's own report, an act a line.
fn report_lines(report: &str) -> Vec<String> {
    let parsed: BTreeMap<String, Vec<(String, serde_json::Value)>> = match serde_json::from_str(report) {
        Ok(parsed) => parsed,
        Err(_) => return vec![format!("no report came: {report:?}")],
    };
    let mut lines = Vec::new();
    for (name, acts) in &parsed {
        for (act, outcome) in acts {
            lines.push(match outcome.as_str() {
                Some(text) => format!("app    {name}: {act}: {text}"),
                None => format!("app    {name}: {act}: {outcome}"),
            });
        }
    }
    lines
}

/// Where the application stands with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// Its segment is done.
    Parked,
    /// An act of it waits.
    Stuck,
    /// The call is over.
    Over,
}

/// Where a program is performed.
struct ProgramStage<'a> {
    number: u64,
    target: &'a dyn Target,
    patience: Duration,
}

impl ProgramStage<'_> {
    /// Lets the client of a connection ask.
    async fn open(
        &self,
        program: &GeneratedApp,
        at: usize,
        scribe: ExchangeRecorder,
    ) -> Result<Option<ProgramClient>, Error> {
        let Some(link) = self.target.connect(scribe).await? else { return Ok(None) };
        let mut headers = vec![field("Host", "relapse.test")];
        let target = format!("/run/{}/{}?{}", self.number, NAMES[at], program.query(at));
        let (mut method, mut rest) = ("GET", Vec::new());
        let mut body = Vec::new();
        match program.connections[at].kind {
            ProgramRequest::Websocket(offer) => {
                headers.push(field("Upgrade", "websocket"));
                headers.push(field("Connection", "Upgrade"));
                headers.push(field("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="));
                headers.push(field("Sec-WebSocket-Version", "13"));
                if offer == Offer::Chat {
                    headers.push(field("Sec-WebSocket-Protocol", "chat"));
                }
            }
            ProgramRequest::Http { body: None, .. } => {}
            ProgramRequest::Http { body: Some(length), at_once } => {
                method = "POST";
                headers.push(field("Content-Length", length.to_string()));
                body = vec![b'y'; at_once];
                rest = vec![b'z'; length - at_once];
            }
        }
        let head = RequestHead { method: method.to_owned(), target: target.into(), minor_version: 1, headers };
        let mut wire = Wire::new(link);
        head.encode(&mut wire.outgoing);
        wire.outgoing.extend_from_slice(&body);
        wire.flush().await;
        Ok(Some(ProgramClient::new(wire, rest)))
    }

    /// Lets the application go on with a connection; how far it came.
    async fn go(&self, at: usize, peers: &mut [Option<ProgramClient>]) -> Result<Stands, Error> {
        self.control("control", at, peers, self.patience).await
    }

    /// Waits until the application rests on a connection.
    async fn rest(&self, at: usize, peers: &mut [Option<ProgramClient>]) -> Result<Stands, Error> {
        self.control("rest", at, peers, self.patience / 2).await
    }

    async fn control(
        &self,
        what: &str,
        at: usize,
        peers: &mut [Option<ProgramClient>],
        limit: Duration,
    ) -> Result<Stands, Error> {
        let limit = limit.as_millis();
        let target = format!("/{what}/{}/{}?{limit}", self.number, NAMES[at]);
        // Meanwhile clients answer what has to be answered.
        let reading = async {
            join_all(peers.iter_mut().flatten().map(|peer| peer.go_on(Until::End))).await;
            pending::<()>().await;
        };
        let said = tokio::select! {
            biased;
            said = self.ask(&target) => said?,
            () = reading => unreachable!("it goes on"),
        };
        Ok(match said.as_str() {
            "over" => Stands::Over,
            "parked" => Stands::Parked,
            _ => Stands::Stuck,
        })
    }

    /// The body of the answer to a plain request on a connection of its own.
    async fn ask(&self, target: &str) -> Result<String, Error> {
        let recorder = Recorder::new(Plan { seed: 0, faults: Vec::new() });
        let Some(link) = self.target.connect(recorder.scribe(0)).await? else { return Ok(String::new()) };
        let headers = vec![field("Host", "relapse.test"), field("Connection", "close")];
        let head =
            RequestHead { method: "GET".to_owned(), target: target.to_owned().into(), minor_version: 1, headers };
        let mut peer = ProgramClient::new(Wire::new(link), Vec::new());
        if let Some(wire) = peer.wire.as_mut() {
            head.encode(&mut wire.outgoing);
        }
        peer.read(self.patience + ANSWER_LIMIT, Until::Whole).await;
        Ok(String::from_utf8_lossy(peer.reader.as_ref().map_or(&[], body::BodyReader::body)).into_owned())
    }

    /// Lets all clients read after a segment of one connection.
    async fn look(&self, at: usize, segment: &[ProgramAction], stands: Stands, peers: &mut [Option<ProgramClient>]) {
        let may_answer = stands == Stands::Over || segment.iter().any(|act| answers(&act.deed));
        for (other, peer) in peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            if other == at && may_answer {
                peer.read(self.patience, Until::Head).await;
            }
            peer.glance().await;
            if peer.is_closing() || (other == at && stands == Stands::Over) {
                peer.drain(self.patience).await;
            }
        }
    }

    async fn send(&self, peer: &mut Option<ProgramClient>, frame: Frame) {
        if let Some(peer) = peer.as_mut().filter(|peer| peer.may_send()) {
            peer.write(frame).await;
            self.settle().await;
        }
    }

    async fn close(&self, peer: &mut Option<ProgramClient>, code: Option<CloseCode>) {
        if let Some(peer) = peer.as_mut().filter(|peer| peer.may_send()) {
            peer.write(Frame::close(code, "")).await;
            peer.read(self.patience, Until::End).await;
        }
    }

    async fn settle(&self) {
        sleep(SETTLING).await;
    }
}

/// Until what a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The head of the answer.
    Head,
    /// The end of an answer that announced its length.
    Whole,
    /// The end of the stream.
    End,
}

/// One client.
struct ProgramClient {
    /// Nothing once it has left.
    wire: Option<Wire>,
    /// The bytes of its body that it has not sent.
    rest: Vec<u8>,
    head: Option<ResponseHead>,
    reader: Option<body::BodyReader>,
    body_end: Option<BodyEnd>,
    /// Whether something came behind the body.
    has_surplus: bool,
    frames: Vec<String>,
    /// Whether the stream ended.
    has_ended: bool,
    /// Whether a whole answer was followed to the end of the stream, which did not come.
    has_drained: bool,
    client: WebSocketClient,
    was_closed: bool,
    trouble: Option<String>,
}

impl ProgramClient {
    fn new(wire: Wire, rest: Vec<u8>) -> ProgramClient {
        ProgramClient {
            wire: Some(wire),
            rest,
            head: None,
            reader: None,
            body_end: None,
            has_surplus: false,
            frames: Vec::new(),
            has_ended: false,
            has_drained: false,
            client: WebSocketClient::limited(fastrand::Rng::with_seed(MASK_SEED), PAYLOAD_BYTES_MAX),
            was_closed: false,
            trouble: None,
        }
    }

    fn is_websocket(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.status == 101)
    }

    fn may_send(&self) -> bool {
        let is_there = self.wire.as_ref().is_some_and(|wire| !wire.has_ended());
        is_there && self.is_websocket() && !self.client.has_closed()
    }

    fn is_closing(&self) -> bool {
        self.client.has_closed() || self.was_closed
    }

    async fn write(&mut self, frame: Frame) {
        if let Some(wire) = self.wire.as_mut() {
            self.client.write(frame, &mut wire.outgoing);
            wire.flush().await;
        }
    }

    async fn send_rest(&mut self) {
        if let Some(wire) = self.wire.as_mut() {
            wire.outgoing.append(&mut self.rest);
            wire.flush().await;
        }
    }

    fn leave(&mut self) {
        self.wire = None;
    }

    /// Reads what is there.
    async fn glance(&mut self) {
        self.take();
        let _ = timeout(Duration::from_millis(1), self.go_on(Until::End)).await;
    }

    /// Reads until the end, once it may come. A server closes what it keeps for another request only after a while.
    async fn drain(&mut self, limit: Duration) {
        let is_answered = matches!(self.body_end, Some(BodyEnd::Complete | BodyEnd::None));
        if !(is_answered && self.has_drained) {
            self.read(limit, Until::End).await;
            self.has_drained = matches!(self.body_end, Some(BodyEnd::Complete | BodyEnd::None));
        } else {
            self.glance().await;
        }
    }

    /// Reads until something, but no longer than the limit.
    async fn read(&mut self, limit: Duration, until: Until) {
        let _ = timeout(limit, self.go_on(until)).await;
    }

    async fn go_on(&mut self, until: Until) {
        loop {
            self.take();
            let is_met = match until {
                Until::Head => self.head.is_some(),
                Until::Whole => self.body_end.is_some(),
                Until::End => false,
            };
            let Some(wire) = self.wire.as_mut().filter(|_| !is_met) else { return };
            if wire.has_ended() && wire.outgoing.is_empty() {
                // A server may wait for the same of its client.
                self.wire = None;
                self.has_ended = true;
                return;
            }
            wire.progress().await;
        }
    }

    /// Takes what has come.
    fn take(&mut self) {
        let Some(wire) = self.wire.as_mut() else { return };
        if self.head.is_none() {
            match ResponseHead::decode(&wire.incoming) {
                Ok(Some((head, length))) => {
                    take(&mut wire.incoming, length);
                    let (behind, memory) = (body::AfterBody::Nothing, RunMemory::default());
                    self.reader = (head.status != 101).then(|| body::BodyReader::new("GET", &head, behind, memory));
                    self.head = Some(head);
                }
                Ok(None) => return,
                Err(error) => {
                    self.trouble = Some(format!("no answer, but {error:?}"));
                    wire.incoming.clear();
                    return;
                }
            }
        }
        if self.head.as_ref().is_some_and(|head| head.status != 101) {
            if let (Some(reader), None) = (&mut self.reader, self.body_end) {
                let stream = body::BodyStream::of(wire);
                self.body_end = reader.read(&mut wire.incoming, stream).map(|end| match end {
                    // When that is noticed depends on how much was read at once.
                    BodyEnd::Surplus => BodyEnd::Complete,
                    end => end,
                });
            }
            if self.body_end.is_some() && !wire.incoming.is_empty() {
                self.has_surplus = true;
                wire.incoming.clear();
            }
            return;
        }
        self.take_frames();
    }

    fn take_frames(&mut self) {
        let Some(wire) = self.wire.as_mut() else { return };
        loop {
            match self.client.read(&mut wire.incoming) {
                Ok(Some(frame)) => {
                    let payload = readable(&frame.payload);
                    if let Some(answer) = self.client.answer(&frame) {
                        self.client.write(answer, &mut wire.outgoing);
                    }
                    match frame.opcode {
                        Opcode::Ping | Opcode::Pong => {}
                        Opcode::Close => {
                            let (code, reason) = frame.close_parts();
                            let code = code.map_or("no code".to_owned(), |code| code.0.to_string());
                            self.frames.push(format!("close frame with {code}, {:?}", reason));
                            self.was_closed = true;
                        }
                        opcode => self.frames.push(format!("{opcode:?} frame {payload}")),
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.trouble = Some(format!("no frame, but {error:?}"));
                    wire.incoming.clear();
                    return;
                }
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.head {
            None => lines.push("no answer".to_owned()),
            Some(head) => {
                let known = HEADERS.iter().filter_map(|name| {
                    header(&head.headers, name).map(|value| format!("; {name}: {}", readable(value)))
                });
                lines.push(format!("answer {}{}", head.status, known.collect::<String>()));
            }
        }
        if let Some(reader) = &self.reader {
            let end = self.body_end.map_or("goes on".to_owned(), |end| format!("{end:?}").to_lowercase());
            let more = if self.has_surplus { ", and more behind it" } else { "" };
            lines.push(format!("body {:?}, {end}{more}", readable(reader.body())));
        }
        lines.extend(self.frames.iter().cloned());
        lines.extend(self.trouble.clone());
        lines.push(match &self.wire {
            None if self.has_ended => "end of stream".to_owned(),
            None => "left".to_owned(),
            Some(_) => "still open".to_owned(),
        });
        lines
    }
}
