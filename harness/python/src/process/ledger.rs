//! The calls of an application behind a real server, as its witness reports them: the caller, the events, and the
//! result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, poll};

use super::{
    interpreter::{ANSWER_BYTES_MAX, Entries, Unretrieved, blame_for, exception, left_to_runtime, text},
    marshal,
    printed::{Panic, Traceback},
};
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::ScopeType,
        value::Value,
    },
    error::AppError,
    judge::lifespan,
    record::transcript::{Actor, EventKind, Level},
    wire::head::RequestHead,
};
use relapse_simulate::recorder::ExchangeRecorder;

/// The longest message of a witness that is taken down, as long as the longest answer of an interpreter.
const MESSAGE_BYTES_MAX: usize = ANSWER_BYTES_MAX;

/// How often a witness is read at a time: 64 MiB. One that tells faster is read again when the others were.
const READS_MAX: usize = 4096;

/// How many events of a lifespan are kept. An app owes two.
const LIVED_MAX: usize = 1000;

/// Where an application stands with its lifespan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WitnessedLifespan {
    /// The server has not called it for that.
    Untold,
    /// It was called, and has not said that it is ready.
    Starting,
    /// It is ready, or does not speak the protocol.
    Started,
    /// It said that it cannot start.
    Failed(String),
}

/// Takes down what the witnesses of one server tell.
pub(super) struct WitnessLog {
    shared: Arc<WitnessShared>,
    path: PathBuf,
    /// The other end hangs up when the log is dropped, which ends the threads that listen.
    _open: PipeWriter,
}

struct WitnessShared {
    book: Mutex<WitnessState>,
}

/// The state of the event log.
struct WitnessState {
    witnesses: Vec<Witness>,
    /// The recorder of the connection from a port, and how many calls it has had.
    exchanges: BTreeMap<u16, (ExchangeRecorder, usize)>,
    /// The connection that was made last.
    latest: Option<ExchangeRecorder>,
    /// The calls that go on, by witness and number.
    calls: BTreeMap<(usize, i64), WitnessedCall>,
    lifespan: WitnessedLifespan,
    /// The events it received and sent there.
    lived: Vec<EventKind>,
    is_loaded: bool,
    trouble: Option<AppError>,
    /// The exceptions of calls, by text and place, so that what a server prints of them is not told again.
    told: BTreeSet<String>,
    /// The tracebacks that are being printed outside of calls, by witness.
    printing: BTreeMap<usize, Traceback>,
    /// The exceptions that nothing has asked for yet, by witness.
    unretrieved: BTreeMap<usize, Unretrieved>,
    /// Where the application's own code is.
    directory: PathBuf,
}

/// A process of the server.
struct Witness {
    stream: UnixStream,
    told: Told,
}

/// The bytes that a witness told and that are not taken down, in messages with their length in front.
#[derive(Default)]
struct Told {
    incoming: BytesMut,
    /// How many bytes are still to come of a message that is too long.
    skipped: usize,
}

/// A message of a witness.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Whole(Bytes),
    /// It has so many bytes, and is left out.
    TooLong(usize),
}

impl Told {
    /// Takes bytes as they come.
    fn take(&mut self, bytes: &[u8]) {
        let skipped = self.skipped.min(bytes.len());
        self.skipped -= skipped;
        self.incoming.extend_from_slice(&bytes[skipped..]);
    }

    /// The next message, once it is whole.
    fn next_message(&mut self) -> Option<Message> {
        let length = u32::from_le_bytes(*self.incoming.first_chunk::<4>()?) as usize;
        if length > MESSAGE_BYTES_MAX {
            self.incoming.advance(4);
            let here = length.min(self.incoming.len());
            self.incoming.advance(here);
            self.skipped = length - here;
            return Some(Message::TooLong(length));
        }
        if self.incoming.len() < 4 + length {
            return None;
        }
        self.incoming.advance(4);
        Some(Message::Whole(self.incoming.split_to(length).freeze()))
    }
}

/// A call of the application.
struct WitnessedCall {
    kind: ScopeType,
    scribe: Option<ExchangeRecorder>,
    /// Whether it ended. Tasks that it started may still tell something.
    is_over: bool,
}

impl WitnessLog {
    /// Listens for witnesses on a socket of this path. The application's own code is in this directory.
    pub(super) fn open(path: &Path, directory: &Path) -> io::Result<WitnessLog> {
        let listener = UnixListener::bind(path)?;
        let book = WitnessState {
            directory: directory.to_owned(),
            witnesses: Vec::new(),
            exchanges: BTreeMap::new(),
            latest: None,
            calls: BTreeMap::new(),
            lifespan: WitnessedLifespan::Untold,
            lived: Vec::new(),
            is_loaded: false,
            trouble: None,
            told: BTreeSet::new(),
            printing: BTreeMap::new(),
            unretrieved: BTreeMap::new(),
        };
        let shared = Arc::new(WitnessShared { book: Mutex::new(book) });
        let heard = Arc::clone(&shared);
        let (closed, open) = io::pipe()?;
        std::thread::spawn(move || {
            while is_ready(&listener, &closed) {
                let heard = listener.accept().and_then(|(stream, _)| hear(&heard, stream, closed.try_clone()?));
                if heard.is_err() {
                    return;
                }
            }
        });
        Ok(WitnessLog { shared, path: path.to_owned(), _open: open })
    }

    /// From now on this recorder records the connection from this port.
    pub(super) fn expect(&self, port: u16, scribe: &ExchangeRecorder) {
        let mut book = self.shared.book();
        book.exchanges.insert(port, (scribe.clone(), 0));
        book.latest = Some(scribe.of_connection());
    }

    /// Detaches connections from their exchanges: later reports belong to no exchange.
    pub(super) fn forget(&self) {
        let mut book = self.shared.book();
        book.exchanges.clear();
        book.latest = None;
        book.told.clear();
        book.calls.retain(|_, call| !call.is_over);
        book.calls.values_mut().for_each(|call| call.scribe = None);
    }

    /// Records the exceptions that nothing has asked for. Everything that was told until now is taken down first.
    pub(super) fn record_unretrieved(&self) {
        let mut book = self.shared.book();
        book.take_all();
        for (witness, unretrieved) in std::mem::take(&mut book.unretrieved) {
            for (number, exception) in unretrieved.into_values() {
                book.leave_to_runtime((witness, number), "unretrieved", exception);
            }
        }
    }

    /// How many calls of connections that are expected go on. Everything that was told until now is taken down first.
    pub(super) fn running(&self) -> usize {
        let mut book = self.shared.book();
        book.take_all();
        book.calls.values().filter(|call| call.scribe.is_some() && !call.is_over).count()
    }

    /// Whether the application is loaded, and where it stands with its lifespan.
    pub(super) fn standing(&self) -> (bool, WitnessedLifespan) {
        let mut book = self.shared.book();
        book.take_all();
        (book.is_loaded, book.lifespan.clone())
    }

    /// Returns the error of the application's shutdown, if any.
    pub(super) fn complaint_of_the_end(&self) -> Option<String> {
        let mut book = self.shared.book();
        book.take_all();
        lifespan::complaint(&book.lived)
    }

    /// Takes a line that the process printed past its witness: a panic of a library in Rust is told for the process.
    pub(super) fn take_line(&self, panic: &mut Panic, line: &str) {
        if let Some(exception) = panic.take(line) {
            self.shared.book().note(exception);
        }
    }

    /// Why the application cannot be loaded, if so.
    pub(super) fn trouble(&self) -> Option<AppError> {
        self.shared.book().trouble.clone()
    }
}

impl fmt::Debug for WitnessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Waits until there is something to read or to accept; false once the log is closed.
fn is_ready(on: &impl AsFd, closed: &PipeReader) -> bool {
    loop {
        let mut both = [PollFd::new(on, PollFlags::IN), PollFd::new(closed, PollFlags::IN)];
        match poll(&mut both, None) {
            Ok(_) => return both[1].revents().is_empty(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Takes down what a witness tells, until it is gone or the log is closed.
fn hear(shared: &Arc<WitnessShared>, stream: UnixStream, closed: PipeReader) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let watched = stream.try_clone()?;
    let number = {
        let mut book = shared.book();
        book.witnesses.push(Witness { stream, told: Told::default() });
        book.witnesses.len() - 1
    };
    let shared = Arc::clone(shared);
    std::thread::spawn(move || while is_ready(&watched, &closed) && shared.book().take_from(number) {});
    Ok(())
}

impl WitnessShared {
    fn book(&self) -> MutexGuard<'_, WitnessState> {
        // A panic falls between whole messages; the state is usable.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WitnessState {
    fn take_all(&mut self) {
        for number in 0..self.witnesses.len() {
            self.take_from(number);
        }
    }

    /// Takes what a witness has told; whether it may tell more.
    fn take_from(&mut self, number: usize) -> bool {
        let mut chunk = [0; 16 * 1024];
        for _ in 0..READS_MAX {
            let witness = &mut self.witnesses[number];
            match witness.stream.read(&mut chunk) {
                Ok(count @ 1..) => witness.told.take(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Ok(0) | Err(_) => {
                    // A witness that is gone reports no more about its calls.
                    self.calls.retain(|(witness, _), _| *witness != number);
                    return false;
                }
            }
            while let Some(message) = self.witnesses[number].told.next_message() {
                self.take_message(number, message);
            }
        }
        true
    }

    fn take_message(&mut self, number: usize, message: Message) {
        match message {
            Message::Whole(bytes) => {
                let read = marshal::read(&bytes);
                // A long message is not kept twice.
                drop(bytes);
                if let Ok(Value::List(parts)) = read {
                    self.take(number, parts);
                }
            }
            Message::TooLong(length) => {
                let (told, most) = (length >> 20, MESSAGE_BYTES_MAX >> 20);
                let message = format!("an event of {told} MiB of the app is left out: {most} MiB are the most");
                if let Some(scribe) = self.scribe_of((number, 0)) {
                    scribe
                        .record(Actor::Process, EventKind::Logged { level: Level::Warning, message, unhandled: None });
                }
            }
        }
    }

    /// Takes one message down.
    fn take(&mut self, witness: usize, parts: Vec<Value>) {
        let mut parts = parts.into_iter();
        let name = text(parts.next());
        match name.as_str() {
            "loaded" => return self.is_loaded = true,
            "trouble" => {
                let (message, details) = (text(parts.next()), text(parts.next()));
                let blame = blame_for(&text(parts.next()));
                return self.trouble = Some(AppError { message, details, blame });
            }
            _ => {}
        }
        let key = match parts.next() {
            Some(Value::Int(number)) => (witness, number),
            _ => (witness, 0),
        };
        match name.as_str() {
            "call" => {
                let Some(Value::Dict(scope)) = parts.next() else { return };
                let call = self.begin(&scope);
                self.calls.insert(key, call);
            }
            "log" => {
                let level = match parts.next() {
                    Some(Value::Int(40..)) => Level::Error,
                    Some(Value::Int(30..)) => Level::Warning,
                    _ => Level::Info,
                };
                if let Some(scribe) = self.scribe_of(key) {
                    let (message, unhandled) = (text(parts.next()), None);
                    scribe.record(Actor::Application, EventKind::Logged { level, message, unhandled });
                }
            }
            "printed" => self.take_printed(key, text(parts.next())),
            "unhandled" | "in_thread" | "ignored" => {
                let exception = exception(&mut parts, &self.directory);
                self.leave_to_runtime(key, &name, exception);
            }
            "unretrieved" => {
                let Some(Value::Int(call)) = parts.next() else { return };
                let exception = exception(&mut parts, &self.directory);
                self.unretrieved.entry(witness).or_default().insert(key.1, (call, exception));
            }
            "retrieved" => {
                let known = self.unretrieved.get_mut(&witness);
                known.into_iter().for_each(|known| drop(known.remove(&key.1)));
            }
            name => self.take_of_call(key, name, &mut parts),
        }
    }

    /// Takes an exception that the application leaves to its runtime. Work in the background of the lifespan fails for the
    /// client that came last.
    fn leave_to_runtime(&mut self, key: (usize, i64), kind: &str, exception: Exception) {
        let is_of_lifespan = self.calls.get(&key).is_some_and(|call| call.kind == ScopeType::Lifespan);
        let scribe = if is_of_lifespan { self.latest.clone() } else { self.scribe_of(key) };
        if let Some(scribe) = scribe {
            scribe.record(Actor::Application, left_to_runtime(kind, exception));
        }
    }

    /// Takes a line that the app printed, with the exception that it completes.
    fn take_printed(&mut self, key: (usize, i64), line: String) {
        let Some(scribe) = self.scribe_of(key) else { return };
        // An exception in the call's own code is recorded by itself.
        let printed = match self.calls.contains_key(&key) {
            true => None,
            false => self.printing.entry(key.0).or_default().take(&line, &self.directory),
        };
        if let Some(exception) = printed.filter(|printed| self.told.insert(printed.located())) {
            scribe.record(Actor::Application, EventKind::Handled(exception));
        }
        scribe.record(Actor::Application, EventKind::Logged { level: Level::Info, message: line, unhandled: None });
    }

    /// Takes an event of a call.
    fn take_of_call(&mut self, key: (usize, i64), name: &str, parts: &mut std::vec::IntoIter<Value>) {
        let Some(call) = self.calls.get(&key) else { return };
        let (kind, scribe) = (call.kind, call.scribe.clone());
        let what = happened(name, kind, parts, &self.directory);
        for what in &what {
            if let EventKind::Raised(exception) | EventKind::Handled(exception) = what {
                self.told.insert(exception.located());
            }
        }
        if kind == ScopeType::Lifespan {
            self.live(what);
        } else if let Some(scribe) = scribe {
            let omitted = match parts.next() {
                Some(Value::Int(bytes)) => u64::try_from(bytes).unwrap_or(0),
                _ => 0,
            };
            what.into_iter().for_each(|what| scribe.record_abridged(Actor::Application, what, omitted));
        }
        if name == "over"
            && let Some(call) = self.calls.get_mut(&key)
        {
            call.is_over = true;
        }
    }

    /// Whose an entry of the log is: that of the call that wrote it, or that of the only connection. With several
    /// connections what no call wrote is the process's.
    fn scribe_of(&self, key: (usize, i64)) -> Option<ExchangeRecorder> {
        match self.calls.get(&key) {
            Some(call) => call.scribe.clone(),
            None if self.exchanges.values().map(|(scribe, _)| scribe.exchange()).collect::<BTreeSet<_>>().len() > 1 => {
                self.latest.as_ref().map(ExchangeRecorder::of_process)
            }
            None => self.latest.clone(),
        }
    }

    /// An exception that no call tells of, for the process.
    fn note(&mut self, exception: Exception) {
        if let Some(scribe) = &self.latest
            && self.told.insert(exception.located())
        {
            scribe.of_process().record(Actor::Process, EventKind::Handled(exception));
        }
    }

    /// A call begins.
    fn begin(&mut self, scope: &Entries) -> WitnessedCall {
        let kind = match scope.get("type") {
            Some(Value::Str(name)) if name == ScopeType::Http.name() => ScopeType::Http,
            Some(Value::Str(name)) if name == ScopeType::Lifespan.name() => ScopeType::Lifespan,
            _ => ScopeType::Websocket,
        };
        if kind == ScopeType::Lifespan {
            self.lifespan = WitnessedLifespan::Starting;
            return WitnessedCall { kind, scribe: None, is_over: false };
        }
        let port = match scope.get("client") {
            Some(Value::List(client)) => match client.as_slice() {
                [_, Value::Int(port)] => u16::try_from(*port).ok().filter(|port| *port > 0),
                // Granian writes it as a text.
                [_, Value::Str(port)] => port.parse().ok(),
                _ => None,
            },
            _ => None,
        };
        // A server that believes a proxy's headers does not tell where a connection comes from.
        let scribe = match port {
            None => self.latest.clone(),
            // Each call is for the next request of its connection.
            Some(port) => self.exchanges.get_mut(&port).map(|(scribe, calls)| {
                *calls += 1;
                scribe.of_request(*calls - 1)
            }),
        };
        if let Some(scribe) = &scribe {
            scribe.record(Actor::Front, EventKind::Called { kind, head: request_head(scope) });
        }
        WitnessedCall { kind, scribe, is_over: false }
    }

    /// The lifespan goes on.
    fn live(&mut self, what: Vec<EventKind>) {
        for what in &what {
            match what {
                EventKind::Sent(Outbound::StartupComplete) => self.lifespan = WitnessedLifespan::Started,
                EventKind::Sent(Outbound::StartupFailed { message }) => {
                    self.lifespan = WitnessedLifespan::Failed(message.clone())
                }
                // It does not speak the protocol, and is served.
                EventKind::Returned | EventKind::Raised(_) if self.lifespan == WitnessedLifespan::Starting => {
                    self.lifespan = WitnessedLifespan::Started;
                }
                _ => {}
            }
        }
        self.lived.extend(what);
        if let Some(surplus) = self.lived.len().checked_sub(LIVED_MAX) {
            // The start and the end stay.
            self.lived.drain(LIVED_MAX / 2..LIVED_MAX / 2 + surplus);
        }
    }
}

/// Reads the events of a call from a witness's message.
fn happened(name: &str, kind: ScopeType, parts: &mut std::vec::IntoIter<Value>, directory: &Path) -> Vec<EventKind> {
    match name {
        "received" => vec![EventKind::Received(inbound(&parts.next().unwrap_or(Value::None)))],
        "sent" => vec![EventKind::Sent(Outbound::on(kind, &parts.next().unwrap_or(Value::None)))],
        "raised_in" => vec![EventKind::CallRaised(Exception::new(&text(parts.next()), text(parts.next())))],
        "returned" => vec![EventKind::Returned],
        "raised" => vec![EventKind::Raised(exception(parts, directory))],
        "handled" => vec![EventKind::Handled(exception(parts, directory))],
        _ => Vec::new(),
    }
}

/// The event that a server gave.
fn inbound(event: &Value) -> Inbound {
    let Value::Dict(entries) = event else { return Inbound::Invalid(event.clone()) };
    if entries.get("type") != Some(&Value::from("http.request")) {
        return Inbound::from_value(event);
    }
    let body = match entries.get("body") {
        Some(Value::Bytes(body)) => body.to_vec(),
        _ => Vec::new(),
    };
    Inbound::HttpRequest { body, more_body: entries.get("more_body") == Some(&Value::Bool(true)) }
}

/// The request as its scope tells it.
fn request_head(scope: &Entries) -> RequestHead {
    let path = bytes_at(scope, "raw_path").cloned().unwrap_or_else(|| text(scope.get("path").cloned()).into());
    let mut target = path.to_vec();
    if let Some(query) = bytes_at(scope, "query_string").filter(|query| !query.is_empty()) {
        // Some put the query there too.
        target.truncate(target.iter().position(|byte| *byte == b'?').unwrap_or(target.len()));
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let headers = match scope.get("headers") {
        Some(Value::List(headers)) => headers.iter().filter_map(header).collect(),
        _ => Vec::new(),
    };
    let method = match scope.get("method") {
        Some(Value::Str(method)) => method.clone(),
        _ => "GET".to_owned(),
    };
    let minor_version = u8::from(scope.get("http_version") != Some(&Value::from("1.0")));
    RequestHead { method, target: Bytes::from(target), minor_version, headers }
}

fn bytes_at<'a>(scope: &'a Entries, key: &str) -> Option<&'a Bytes> {
    match scope.get(key) {
        Some(Value::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

fn header(pair: &Value) -> Option<(Bytes, Bytes)> {
    let Value::List(pair) = pair else { return None };
    match pair.as_slice() {
        [Value::Bytes(name), Value::Bytes(value)] => Some((name.clone(), value.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{MESSAGE_BYTES_MAX, Message, Told};

    fn framed(message: &[u8]) -> Vec<u8> {
        [&(message.len() as u32).to_le_bytes()[..], message].concat()
    }

    /// A message that is too long is left out as it comes, and those around it are taken down.
    #[test]
    fn a_long_message_is_left_out() {
        let length = MESSAGE_BYTES_MAX + 1;
        let bytes = [framed(b"before"), framed(&vec![b'x'; length]), framed(b"behind")].concat();
        let (mut told, mut messages, mut most) = (Told::default(), Vec::new(), 0);
        for piece in bytes.chunks(16 * 1024) {
            told.take(piece);
            messages.extend(std::iter::from_fn(|| told.next_message()));
            most = most.max(told.incoming.len());
        }
        assert_eq!(
            messages,
            [Message::Whole("before".into()), Message::TooLong(length), Message::Whole("behind".into())]
        );
        assert!(most <= 16 * 1024, "{most} bytes were kept");
    }
}
