//! Tries the frame cases on a running target, one connection after the other, with a healthy client before and after.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use crate::{client, deadline::Deadline, run, service_file::ServiceFile, target::Target};
use relapse_core::{
    client::step::Request,
    conformance::{
        Behavior, BehaviorEvent, BehaviorReport, BehaviorResult, Conformance, Expected, FrameCase, Saw, Variant,
        WrittenPart, judge,
    },
    error::Error,
    judge::{classify::Exchange, outcome::Class},
    plan::Plan,
    record::{
        redact::Redactor,
        transcript::{EventKind, Transcript},
    },
    wire::{
        client::WebSocketClient,
        close_code::CloseCode,
        deflate::{DeflateParameters, PERMESSAGE_DEFLATE},
        frame::Frame,
    },
};
use relapse_simulate::{link::Wire, recorder::Recorder};

/// How long the client waits for what does not come, unless it is told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long an upgrade, a greeting, and each step of a healthy client may take.
const OPENING_LIMIT: Duration = Duration::from_secs(10);

/// How many bytes may wait to be written before a ping is not answered any more.
const UNWRITTEN_BYTES_MAX: usize = 1 << 20;

/// More than any rule brings about.
const EVENTS_MAX: usize = 1000;

/// A target whose framing is tried.
#[derive(Debug)]
pub struct FramingSubject<'a> {
    /// The target.
    pub target: &'a dyn Target,
    /// How it is spoken to.
    pub binding: &'a ServiceFile,
    /// Its name in reports.
    pub name: String,
    /// Host and port, as its clients name it.
    pub authority: String,
    /// How long the client waits for what does not come.
    pub patience: Duration,
    /// The only source of chance.
    pub seed: u64,
    /// When all of it ends at the latest.
    pub deadline: Deadline,
}

/// Tries cases on a target. `done` is called after each.
pub async fn conform(cases: &[Arc<FrameCase>], peer: &FramingSubject<'_>, done: impl Fn()) -> Conformance {
    let mut conformance = Conformance { server: peer.name.clone(), tried: Vec::new(), trouble: None };
    conformance.trouble = peer.control().await.err().map(|why| format!("before anything was tried {why}"));
    if conformance.trouble.is_some() {
        return conformance;
    }
    let mut connections = 0;
    let clock = peer.target.capabilities().clock;
    for (number, case) in cases.iter().enumerate() {
        let mut results = Vec::new();
        for variant in &case.variants {
            connections += 1;
            let conversation = async {
                let result = peer.converse(case, variant, connections).await;
                peer.clear().await.and(result)
            };
            match peer.deadline.bound(clock, conversation).await {
                Ok(result) => results.push(result),
                Err(_) => {
                    let why = peer.deadline.reason();
                    conformance.trouble = Some(format!("{why} after {number} of {} case(s)", cases.len()));
                    return conformance;
                }
            }
        }
        conformance.tried.push(BehaviorReport { case: Arc::clone(case), results });
        done();
    }
    conformance.trouble = peer.control().await.err().map(|why| format!("after everything was tried {why}"));
    conformance
}

impl FramingSubject<'_> {
    /// Lets a healthy client have a session.
    async fn control(&self) -> Result<(), String> {
        let steps = self.binding.session(&self.authority, OPENING_LIMIT);
        let steps = steps.ok_or("the service file names no path for WebSockets")?;
        let plan = Plan { seed: self.seed, faults: Vec::new() };
        let transcript = run::converse(&steps, plan, self.target).await.map_err(|error| failed(&error))?;
        self.clear().await?;
        match Exchange::of(&transcript, 0).outcome() {
            outcome if outcome.class == Class::Served => Ok(()),
            outcome => Err(format!("a healthy client gets {outcome}")),
        }
    }

    /// Ends what a conversation left behind, so that it is not taken for the next one's.
    async fn clear(&self) -> Result<(), String> {
        self.target.clear().await.map_err(|error| failed(&error))
    }

    /// Has one conversation of a case, on the so-many-th connection.
    async fn converse(&self, case: &FrameCase, variant: &Variant, number: usize) -> Result<BehaviorResult, String> {
        let messages = &self.binding.messages;
        let said = messages.request.as_ref().zip(messages.events.first());
        let (request, answer) = said.ok_or("the service file has no request, or nothing that answers it")?;
        let seed = self.seed.wrapping_add(number as u64);
        let mut chance = fastrand::Rng::with_seed(seed);
        // A user of its own, so that no user has too many connections or says too much.
        let (wire, agreed, recorder) = self.open(case, format!("user-{number}"), seed).await?;
        let written = variant.write(request, agreed, &mut chance)?;
        let mut session = FrameSession::new(wire, agreed, chance);
        session.be_greeted(messages.welcome.as_deref()).await?;
        session.awaited = answer.clone();
        if agreed.is_none() && !case.extensions.is_empty() {
            session.part(self.patience).await;
            let evidence = format!("declines {PERMESSAGE_DEFLATE}");
            return Ok(BehaviorResult { behavior: Behavior::Ok, evidence, at: None });
        }
        if variant.closes() {
            session.frames.leave_close_to_caller();
        }
        let owed = variant.owed();
        for written in written {
            match written {
                WrittenPart::Bytes(bytes) => session.write(&bytes, case.piece_bytes, self.patience).await,
                WrittenPart::Pause(pause) => {
                    session.read(pause, |_| false).await;
                    if session.is_over() {
                        break;
                    }
                    session.see(Saw::Resumed);
                }
            }
        }
        let has_answers = matches!(case.expected, Expected::Answers { .. });
        session.read(self.patience, |session| has_answers && session.replies() >= owed.replies.len()).await;
        let mut judged = judge(&case.expected, &owed, &session.events);
        if session.replies() > 0 {
            session.part(self.patience).await;
        }
        if let Some(raised) = self.raised(&recorder).filter(|_| judged.behavior > Behavior::NonStrict) {
            judged.evidence.push_str(&format!("; the application raised {raised}"));
        }
        Ok(judged)
    }

    /// The exception that left the application meanwhile, if its event log tells: that is not the server's doing.
    fn raised(&self, recorder: &Recorder) -> Option<String> {
        // Everything that was told until now is written down by then.
        self.target.residue();
        let transcript = recorder.transcript();
        let redactor = Redactor::of(&transcript);
        transcript.events.iter().find_map(|event| match &event.what {
            EventKind::Raised(exception)
                if !(exception.is_cancellation() || exception.is_disconnect() || exception.is_broken_off()) =>
            {
                Some(redactor.text(&exception.located()))
            }
            _ => None,
        })
    }

    /// Opens a session for a user, with the compression that was agreed on, and who writes down what happens in it.
    async fn open(
        &self,
        case: &FrameCase,
        user: String,
        seed: u64,
    ) -> Result<(Wire, Option<DeflateParameters>, Recorder), String> {
        let upgrade = self.binding.upgrade(&self.authority).ok_or("the service file names no path for WebSockets")?;
        let request = Request { user, extensions: case.extensions.clone(), ..upgrade };
        let recorder = Recorder::new(Plan { seed, faults: Vec::new() });
        let opened = client::open(&request, OPENING_LIMIT, &recorder, self.target).await;
        match opened.map_err(|error| failed(&error))? {
            Some((wire, agreed)) => Ok((wire, agreed, recorder)),
            None => {
                let transcript = Transcript { service: self.target.service(), ..recorder.transcript() };
                Err(format!("no session: {}", Exchange::of(&transcript, 0).outcome()))
            }
        }
    }
}

fn failed(error: &Error) -> String {
    format!("could not {error}")
}

/// An open WebSocket, from the client's side.
struct FrameSession {
    wire: Wire,
    frames: WebSocketClient,
    /// The `type` of the message that is waited for.
    awaited: String,
    began: Instant,
    events: Vec<BehaviorEvent>,
}

impl FrameSession {
    fn new(wire: Wire, agreed: Option<DeflateParameters>, masks: fastrand::Rng) -> FrameSession {
        FrameSession {
            wire,
            frames: WebSocketClient::new(masks).agreed(agreed),
            awaited: String::new(),
            began: Instant::now(),
            events: Vec::new(),
        }
    }

    /// Waits for the greeting, if there is one, and begins behind it.
    async fn be_greeted(&mut self, welcome: Option<&str>) -> Result<(), String> {
        if let Some(welcome) = welcome {
            welcome.clone_into(&mut self.awaited);
            self.read(OPENING_LIMIT, |session| session.replies() > 0).await;
            if self.replies() == 0 {
                return Err(format!("no session: no `{welcome}` came"));
            }
        }
        self.events.clear();
        self.began = Instant::now();
        Ok(())
    }

    fn see(&mut self, saw: Saw) {
        self.events.push(BehaviorEvent { at: self.began.elapsed(), saw });
    }

    fn replies(&self) -> usize {
        self.events.iter().filter(|event| matches!(event.saw, Saw::Reply(_))).count()
    }

    /// Whether nothing more can come that means anything.
    fn is_over(&self) -> bool {
        self.events.last().is_some_and(|event: &BehaviorEvent| matches!(event.saw, Saw::End | Saw::Illegal(_)))
            || self.events.len() >= EVENTS_MAX
    }

    /// Writes bytes in pieces of `piece_bytes`. A server that does not read has its limit.
    async fn write(&mut self, bytes: &[u8], piece_bytes: Option<usize>, limit: Duration) {
        let wire = &mut self.wire;
        let all = async {
            for piece in bytes.chunks(piece_bytes.unwrap_or(bytes.len()).max(1)) {
                wire.outgoing.extend_from_slice(piece);
                wire.flush().await;
                // In memory the server gets the piece alone only when it has its turn.
                yield_now().await;
            }
        };
        let _ = timeout(limit, all).await;
    }

    /// Reads until it is enough, or nothing more can come, for so long at most.
    async fn read(&mut self, limit: Duration, is_enough: impl Fn(&FrameSession) -> bool) {
        let reading = async {
            while !self.is_over() && !is_enough(self) {
                match self.frames.read(&mut self.wire.incoming) {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) if self.wire.has_ended() => self.see(Saw::End),
                    Ok(None) => {
                        self.wire.progress().await;
                    }
                    Err(error) => self.see(Saw::Illegal(error)),
                }
            }
        };
        let _ = timeout(limit, reading).await;
    }

    /// Takes a frame, and answers what a client has to answer.
    fn take(&mut self, frame: Frame) {
        match self.frames.assemble(frame) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                if let Some(saw) = Saw::of(&frame, &self.awaited) {
                    self.see(saw);
                }
                // A server that only pings, and does not read, gets no further pong (RFC 6455 section 5.5.3).
                let has_room = self.wire.outgoing.len() < UNWRITTEN_BYTES_MAX;
                if let Some(answer) = self.frames.answer(&frame).filter(|_| has_room) {
                    self.send(answer);
                }
            }
            Err(error) => self.see(Saw::Illegal(error)),
        }
    }

    fn send(&mut self, frame: Frame) {
        self.frames.write(frame, &mut self.wire.outgoing);
    }

    /// Closes a session that is still open, and reads until its end.
    async fn part(mut self, limit: Duration) {
        if !self.frames.has_closed() {
            self.send(Frame::close(Some(CloseCode::NORMAL), ""));
        }
        self.read(limit, |_| false).await;
    }
}
