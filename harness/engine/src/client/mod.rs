//! The clients: perform steps and record what they see. They never judge.
//!
//! `line` is a connection that carries plain requests, `session` one that carries a WebSocket, `hearing` the messages
//! that a client has read and not waited for yet, `earlier` the values of answers that later requests use.

pub mod body;
pub(crate) mod earlier;
mod handshake;
mod hearing;
mod line;
mod session;

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{
    earlier::EarlierAnswers,
    hearing::Heard,
    line::{ClientConnection, ConnectionReuse, PendingAnswer},
    session::ClientSession,
};
use crate::target::Target;
use relapse_core::{
    client::{
        credential::{CredentialPlace, Form},
        step::{Action, AnswerReading, Awaited, Carrier, ClientName, Concurrency, Request, Slices, Step},
    },
    error::Error,
    record::transcript::{Actor, EventKind, NeverCame, PROCESS},
    wire::deflate::DeflateParameters,
};
use relapse_simulate::{
    link::{Link, Receiving, Wire},
    recorder::{ExchangeRecorder, Recorder},
};

/// How long the client waits for the end of a session that its steps left open.
const PARTING_LIMIT: Duration = Duration::from_secs(5);

/// The first pause of a client that was refused a connection; each further one is twice as long (the reported front
/// end's reconnect: 1 s, at most 30 s).
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a client that was refused a connection.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How many bytes a client reads that it does not look at yet, before the server has to wait: 1 MiB, as a system would keep
/// for it. A frame that is longer is read whole.
const READ_AHEAD_BYTES_MAX: usize = 1 << 20;

/// How many turns everything else gets between the steps of two clients, so that in memory a step has its effect before
/// the next one begins.
const SETTLING_TURNS: usize = 16;

/// The placeholder for the client's user in a message.
const USER_PLACEHOLDER: &str = "{user}";

/// The steps to perform, and the number of clients that perform them.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// The steps of every client.
    pub steps: &'a [Step],
    /// The clients.
    pub crowd: Concurrency,
}

impl<'a> Script<'a> {
    /// The steps of one client.
    pub fn of_one(steps: &'a [Step]) -> Script<'a> {
        Script { steps, crowd: Concurrency::ONE }
    }
}

/// Performs the steps against a running target: every client at the same time, each a step at a time.
///
/// # Errors
/// When no link to the target can be had. What the target does is never an error.
pub async fn perform(script: Script<'_>, recorder: &Recorder, target: &dyn Target) -> Result<(), Error> {
    let clients =
        (0..script.crowd.clients()).map(|number| ScriptClient::new(number, script, recorder, target).perform());
    try_join_all(clients).await.map(drop)
}

/// Opens a WebSocket, and hands its wire over to the caller, with the compression that was agreed on; `None` if it is not
/// opened, and the recorder knows why.
///
/// # Errors
/// When no link to the target can be had.
pub async fn open(
    request: &Request,
    limit: Duration,
    recorder: &Recorder,
    target: &dyn Target,
) -> Result<Option<(Wire, Option<DeflateParameters>)>, Error> {
    let step = Step::new(Action::Open(request.clone()), limit);
    let mut client = ScriptClient::new(0, Script::of_one(std::slice::from_ref(&step)), recorder, target);
    let mut seat = Seat::Fresh;
    client.open(&mut seat, request, 0, recorder.scribe(0)).await?;
    Ok(match seat {
        Seat::Open(session) => Some(session.into_wire()),
        Seat::Fresh | Seat::Kept(_) | Seat::Over(_) => None,
    })
}

/// One performer of a script: all of its named clients, or the only one.
struct ScriptClient<'a> {
    number: usize,
    script: Script<'a>,
    recorder: &'a Recorder,
    target: &'a dyn Target,
    chance: fastrand::Rng,
    /// The exchange of its first request.
    first: usize,
}

impl<'a> ScriptClient<'a> {
    fn new(number: usize, script: Script<'a>, recorder: &'a Recorder, target: &'a dyn Target) -> ScriptClient<'a> {
        let seed = recorder.plan().seed.wrapping_add(number as u64);
        ScriptClient { number, script, recorder, target, chance: fastrand::Rng::with_seed(seed), first: 0 }
    }

    async fn perform(mut self) -> Result<(), Error> {
        let openings = self.script.steps.iter().filter(|step| step.opening().is_some()).count();
        for round in 0..self.script.crowd.rounds {
            self.play((self.number * self.script.crowd.rounds + round) * openings).await?;
        }
        Ok(())
    }

    /// Performs the steps once, in their order; the exchanges they open are counted from `first` on. While one client
    /// acts, the others read on.
    async fn play(&mut self, first: usize) -> Result<(), Error> {
        let names = names(self.script.steps);
        let mut seats: Vec<Seat<'a>> = names.iter().map(|_| Seat::Fresh).collect();
        let mut exchanges = first;
        self.first = first;
        for (index, step) in self.script.steps.iter().enumerate() {
            match &step.act {
                Action::Signal(signal) => {
                    self.target.signal(*signal, index + 1, self.recorder.scribe(PROCESS)).await?;
                    continue;
                }
                Action::AwaitExit(expected) => {
                    let exit = self.target.await_exit(*expected, step.limit, self.recorder.scribe(PROCESS));
                    beside(exit, &mut seats).await?;
                    continue;
                }
                _ => {}
            }
            let at = names.iter().position(|name| *name == step.client.as_ref()).unwrap_or_default();
            // A step of one client may cause something to happen to another.
            seats.iter().filter_map(Seat::scribe).for_each(|scribe| scribe.at_step(index + 1));
            let mut seat = std::mem::take(&mut seats[at]);
            let act = async {
                self.act(&mut seat, index, &mut exchanges).await?;
                if names.len() > 1 {
                    seat.settle(step.limit).await;
                }
                Ok::<_, Error>(())
            };
            beside(act, &mut seats).await?;
            seats[at] = seat;
        }
        // One after the other they would see ends that are of our own making.
        join_all(seats.into_iter().map(Seat::part)).await;
        if self.script.steps.iter().any(|step| matches!(step.act, Action::Signal(_))) {
            self.target.look_for_exit(self.recorder.scribe(PROCESS));
        }
        Ok(())
    }

    async fn act(&mut self, seat: &mut Seat<'a>, index: usize, exchanges: &mut usize) -> Result<(), Error> {
        let script = self.script;
        let step = &script.steps[index];
        if let Some(request) = step.opening() {
            let scribe = self.recorder.scribe(*exchanges);
            scribe.at_step(index + 1);
            *exchanges += 1;
            return self.open(seat, request, index, scribe).await;
        }
        if let Seat::Open(session) = seat
            && session.is_parting()
        {
            session.finish_parting(step.limit).await;
            seat.sweep();
        }
        match seat {
            Seat::Open(session) => {
                session.perform(step, &EarlierAnswers::new(self.recorder, self.first)).await;
                if session.has_gone() {
                    let scribe = session.scribe.clone();
                    let Seat::Open(session) = std::mem::take(seat) else { return Ok(()) };
                    session.go(&step.act, step.limit).await;
                    let ended = scribe.elapsed();
                    *seat = Seat::Over(Over { scribe, heard: Heard::default(), was: Was::Session, ended });
                }
                seat.sweep();
            }
            Seat::Kept(_) if step.act == Action::ReadAnswer => {
                let next = self.next_carrier(index);
                let Seat::Kept(line) = std::mem::take(seat) else { return Ok(()) };
                *seat = line.within(step.limit).read_answers(ConnectionReuse::before(next)).await;
            }
            Seat::Kept(line) => match step.act {
                Action::Pause => line.dwell(step.limit).await,
                Action::Freeze => line.freeze(step.limit).await,
                Action::Leave | Action::Reset => {
                    let scribe = line.scribe.clone();
                    let Seat::Kept(line) = std::mem::take(seat) else { return Ok(()) };
                    line.go(&step.act, step.limit).await;
                    *seat = Seat::over(scribe);
                }
                _ => line.scribe.record(Actor::Probe, EventKind::NotPerformed { step: index + 1 }),
            },
            Seat::Over(over) => over.perform(step, index + 1).await,
            Seat::Fresh if matches!(step.act, Action::Pause | Action::Freeze) => sleep(step.limit).await,
            Seat::Fresh => {}
        }
        Ok(())
    }

    /// Sends the request of a step, and reads its answer unless a later step does.
    // Long: what a request needs before it is sent, in the order in which it is made.
    async fn open(
        &mut self,
        seat: &mut Seat<'a>,
        request: &'a Request,
        index: usize,
        scribe: ExchangeRecorder,
    ) -> Result<(), Error> {
        let script = self.script;
        let step = &script.steps[index];
        let request = EarlierAnswers::new(self.recorder, self.first).in_request(request);
        if let Some(client) = &step.client {
            scribe.record(Actor::Probe, EventKind::OpenedBy { client: client.clone() });
        }
        let mut line = match (request.on, std::mem::take(seat)) {
            (Carrier::NewConnection, before) => {
                before.part().await;
                let scribe = scribe.clone().receiving_as(self.receiving(index));
                let Some(link) = self.connect(&request, &scribe).await? else {
                    *seat = Seat::over(scribe);
                    return Ok(());
                };
                // The keys of the handshakes come from the client's own chance.
                let masks = fastrand::Rng::with_seed(self.recorder.plan().seed ^ scribe.exchange() as u64);
                Box::new(ClientConnection::new(link, scribe.clone(), self.attention(), masks))
            }
            (Carrier::SameConnection | Carrier::Pipeline, Seat::Kept(line)) => {
                self.recorder.follow(line.first, scribe.exchange());
                scribe.record(Actor::Probe, EventKind::OnConnectionOf { exchange: line.first });
                line
            }
            (Carrier::SameConnection | Carrier::Pipeline, before) => {
                // The connection that it was to go on is over.
                before.part().await;
                scribe.record(Actor::Probe, EventKind::NotPerformed { step: index + 1 });
                *seat = Seat::over(scribe);
                return Ok(());
            }
        };
        let user = match self.script.crowd.users {
            1 => request.user.clone(),
            users => format!("user-{}", self.number % users + 1),
        };
        let form = if request.places.contains(&CredentialPlace::Ticket) { Form::Ticket } else { Form::Token };
        let credential = self.target.credential(request.credential, &user, form);
        let key = matches!(step.act, Action::Open(_)).then(|| handshake::draw_key(&mut self.chance));
        let head = handshake::request_head(&request, key, &credential.text);
        let is_whole = request.body_sent.is_none_or(|sent| sent >= request.body.len());
        let is_read_later = request.answer == AnswerReading::Later;
        let asked = PendingAnswer::new(scribe, user, request, head, step.limit);
        line.ask(asked, credential, step.slices).await;
        let next = self.next_carrier(index);
        *seat = match next {
            _ if !is_whole => Seat::Kept(line),
            _ if is_read_later => {
                line.push(step.limit).await;
                Seat::Kept(line)
            }
            Some(Carrier::Pipeline) => Seat::Kept(line),
            next => line.read_answers(ConnectionReuse::before(next)).await,
        };
        Ok(())
    }

    /// The steps that the client of a step performs after it.
    fn later(&self, index: usize) -> impl Iterator<Item = &'a Step> {
        let steps = self.script.steps;
        steps[index + 1..].iter().filter(move |step| step.client == steps[index].client)
    }

    /// The carrier of the client's next request.
    fn next_carrier(&self, index: usize) -> Option<Carrier> {
        self.later(index).find_map(Step::opening).map(|request| request.on)
    }

    /// How closely the clients listen.
    fn attention(&self) -> Attention {
        let mut steps = self.script.steps.iter();
        match steps.any(|step| step.client.is_some() || step.act == Action::Wait(Awaited::Answer)) {
            true => Attention::Always,
            false => Attention::WhileReading,
        }
    }

    /// How the client receives on the connection that a step opens: one that stops reading there is to be noticed.
    fn receiving(&self, index: usize) -> Receiving {
        if self
            .later(index)
            .take_while(|step: &&Step| step.opening().is_none_or(|request| !request.on.is_new()))
            .any(|step: &Step| matches!(step.act, Action::Freeze | Action::StopReading))
        {
            Receiving::Narrow
        } else {
            Receiving::Usual
        }
    }

    /// Connects, and tries again as long as the request says.
    async fn connect(&self, request: &Request, scribe: &ExchangeRecorder) -> Result<Option<Link>, Error> {
        let start = Instant::now();
        let mut pause = RETRY_PAUSE;
        loop {
            if let Some(link) = self.target.connect(scribe.clone()).await? {
                return Ok(Some(link));
            }
            scribe.record(Actor::Probe, EventKind::ConnectionRefused);
            if request.retry.is_none_or(|limit| start.elapsed() + pause > limit) {
                return Ok(None);
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }
}

/// When a client takes what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attention {
    /// While it performs a step that reads.
    WhileReading,
    /// Also before it says something, so that what came before is told apart from an answer.
    Always,
}

/// The clients that act, in the order in which they first do.
fn names(steps: &[Step]) -> Vec<Option<&ClientName>> {
    let mut names = Vec::new();
    for step in steps.iter().filter(|step| step.act.is_of_client()) {
        if !names.contains(&step.client.as_ref()) {
            names.push(step.client.as_ref());
        }
    }
    names
}

/// Lets one client act while the others read on.
async fn beside<'a, T>(act: impl Future<Output = T>, others: &mut [Seat<'a>]) -> T {
    let mut act = pin!(act);
    if others.iter().all(|seat| !seat.can_attend()) {
        return act.await;
    }
    let mut others = join_all(others.iter_mut().map(Seat::attend));
    poll_fn(|cx| {
        let acted = act.as_mut().poll(cx);
        if acted.is_pending() {
            // It never ends.
            let _ = pin!(&mut others).poll(cx);
        }
        acted
    })
    .await
}

/// Where a client stands between two of its steps.
#[derive(Default)]
enum Seat<'a> {
    /// It has opened nothing.
    #[default]
    Fresh,
    /// It holds a WebSocket.
    Open(Box<ClientSession>),
    /// It holds a plain connection: for another request, or with one that is not answered yet.
    Kept(Box<ClientConnection<'a>>),
    /// Its last connection is over.
    Over(Over),
}

/// A connection that is over.
struct Over {
    scribe: ExchangeRecorder,
    /// The messages that the client read on it and has not waited for.
    heard: Heard,
    was: Was,
    /// When it was over.
    ended: Duration,
}

/// The use of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    /// A WebSocket.
    Session,
    /// Plain requests, or nothing.
    Plain,
}

impl<'a> Seat<'a> {
    /// The connection of an exchange is over, and was no WebSocket.
    fn over(scribe: ExchangeRecorder) -> Seat<'a> {
        let ended = scribe.elapsed();
        Seat::Over(Over { scribe, heard: Heard::default(), was: Was::Plain, ended })
    }

    /// Writes for the exchange that its connection still carries.
    fn scribe(&self) -> Option<&ExchangeRecorder> {
        match self {
            Seat::Open(session) => Some(&session.scribe),
            Seat::Kept(line) => Some(&line.scribe),
            Seat::Fresh | Seat::Over(_) => None,
        }
    }

    /// Whether there is something to read while others act.
    fn can_attend(&self) -> bool {
        matches!(self, Seat::Open(_))
    }

    /// Reads what comes and answers pings, for as long as it is polled.
    async fn attend(&mut self) {
        match self {
            Seat::Open(session) => session.attend().await,
            Seat::Fresh | Seat::Kept(_) | Seat::Over(_) => pending().await,
        }
    }

    /// Gives what the client wrote the time to arrive, and everything else a turn.
    async fn settle(&mut self, limit: Duration) {
        match self {
            Seat::Open(session) => session.push(limit).await,
            Seat::Kept(line) => line.push(limit).await,
            Seat::Fresh | Seat::Over(_) => {}
        }
        for _ in 0..SETTLING_TURNS {
            yield_now().await;
        }
    }

    /// Lets go of a session that is over.
    fn sweep(&mut self) {
        if let Seat::Open(session) = self
            && session.is_parting()
        {
            let (scribe, heard) = (session.scribe.clone(), std::mem::take(&mut session.heard));
            let ended = session.ended();
            *self = Seat::Over(Over { scribe, heard, was: Was::Session, ended });
        }
    }

    /// Ends what the steps left open.
    async fn part(self) {
        match self {
            Seat::Open(session) => session.part().await,
            Seat::Kept(line) => line.go(&Action::Leave, PARTING_LIMIT).await,
            Seat::Fresh | Seat::Over(_) => {}
        }
    }
}

impl Over {
    /// Performs what can be performed without a connection. What cannot is settled since the connection ended: nothing
    /// happens on it any more.
    async fn perform(&mut self, step: &Step, number: usize) {
        let what = match &step.act {
            Action::Pause | Action::Freeze => return sleep(step.limit).await,
            Action::Wait(waiting_for) => {
                let has_come = match waiting_for {
                    Awaited::Close => self.was == Was::Session,
                    other => self.heard.find(other),
                };
                let waiting_for = waiting_for.clone();
                let why = match self.was {
                    Was::Session => NeverCame::SessionOver,
                    Was::Plain => NeverCame::NotOpened,
                };
                match has_come {
                    true => EventKind::AwaitedCame { waiting_for },
                    false => EventKind::AwaitedNeverCame { waiting_for, why },
                }
            }
            Action::SendText(_)
            | Action::SendBytes(_)
            | Action::Ping
            | Action::Close(_)
            | Action::Leave
            | Action::Reset
            | Action::Deafen
            | Action::StopReading
            | Action::ReadAnswer
            | Action::Signal(_)
            | Action::AwaitExit(_)
            | Action::Open(_)
            | Action::Request(_) => EventKind::NotPerformed { step: number },
        };
        self.scribe.record_as_of(self.ended, Actor::Probe, what);
    }
}

/// Writes bytes piece by piece, with a pause between two; what comes meanwhile is kept.
async fn write_slices(wire: &mut Wire, bytes: &[u8], slices: Slices, limit: Duration) {
    let _ = bounded(limit, wire.flush()).await;
    for (number, piece) in bytes.chunks(slices.bytes.max(1)).enumerate() {
        if number > 0 {
            dwell(wire, slices.pause).await;
        }
        if wire.has_ended() {
            return;
        }
        wire.outgoing.extend_from_slice(piece);
        let _ = bounded(limit, wire.flush()).await;
    }
}

/// Lets a time pass, and keeps what comes meanwhile.
async fn dwell(wire: &mut Wire, time: Duration) {
    let reading = async {
        loop {
            wire.progress().await;
        }
    };
    let _: Result<(), _> = timeout(time, reading).await;
}

/// Waits for a future, but not longer than the limit.
async fn bounded<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // Data that is already on its way needs no timer: let every other task run once, then look again.
    for _ in 0..2 {
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(output);
        }
        yield_now().await;
    }
    timeout(limit, future).await.ok()
}
