//! A transcript as a sequence of messages, one line each.

use std::time::Duration;

use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        scope::ScopeType,
    },
    client::step::ClientName,
    fault::Fault,
    record::{
        redact::Redactor,
        transcript::{
            Actor, BodyEnd, BodyPart, BodyTiming, Event, EventKind, Level, NeverCame, PROCESS, ServerRefusal,
            Transcript,
        },
    },
    wire::{
        deflate::RSV1,
        frame::{Frame, Opcode},
        head::{Headers, RequestHead, ResponseHead, header, readable, reason_phrase},
    },
};

/// The longest message that is shown whole, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 400;

/// Headers every upgrade has; shown only where they are missing.
const HANDSHAKE: [&str; 5] = ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"];

/// Response headers that tell a client something.
const TELLING: [&str; 5] = ["sec-websocket-protocol", "retry-after", "www-authenticate", "upgrade", "content-length"];

/// The events that a sequence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceDetail {
    /// The client's view, the injected faults, and internal errors.
    Conversation,
    /// The same, with every ASGI event.
    Full,
    /// The client's view alone.
    Client,
    /// The events behind the client: those of the edge, the server, the app and its dependencies, with every ASGI event.
    Service,
}

impl SequenceDetail {
    /// Whether it shows the event at all.
    fn shows(self, event: &Event) -> bool {
        match self {
            SequenceDetail::Conversation | SequenceDetail::Full => true,
            SequenceDetail::Client => is_of_client(event),
            SequenceDetail::Service => !is_of_client(event),
        }
    }

    /// Whether it leaves out nothing of what it shows.
    fn is_full(self) -> bool {
        self != SequenceDetail::Conversation
    }
}

/// Whether the client causes the event or sees it.
fn is_of_client(event: &Event) -> bool {
    let is_left_out = matches!(event.what, EventKind::Omitted { .. });
    is_left_out && event.party == Actor::Probe
        || matches!(
            &event.what,
            EventKind::RequestSent { .. }
                | EventKind::ResponseSeen(_)
                | EventKind::BodySeen { .. }
                | EventKind::BodyCutShort { .. }
                | EventKind::BodyTimed(_)
                | EventKind::BodyLate { .. }
                | EventKind::MessageSeen(_)
                | EventKind::HandshakeRefused { .. }
                | EventKind::FrameSent(_)
                | EventKind::FrameSeen(_)
                | EventKind::BadFrameSeen(_)
                | EventKind::BadHeadSeen { .. }
                | EventKind::EndSeen
                | EventKind::DeadlinePassed { .. }
                | EventKind::AwaitedNeverCame { .. }
                | EventKind::NotPerformed { .. }
                | EventKind::OnConnectionOf { .. }
                | EventKind::LinkReset
                | EventKind::Left
                | EventKind::StoppedReading
                | EventKind::SeenEnough { .. }
                | EventKind::ConnectionRefused
                | EventKind::ExitAwaited { .. }
        )
}

/// One line of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceLine {
    /// When it happened.
    pub at: Duration,
    /// The event, with an arrow if it crossed the wire.
    pub text: String,
}

/// The run as lines, without credentials, secrets and volatile values. Connections that look alike are shown once.
pub fn lines(transcript: &Transcript, detail: SequenceDetail) -> Vec<SequenceLine> {
    let redactor = Redactor::of(transcript);
    let is_named = transcript.events.iter().any(|event| matches!(event.what, EventKind::OpenedBy { .. }));
    let writer = LineWriter { faults: &transcript.faults, detail, redactor: &redactor, is_named };
    let mut process: Vec<&Event> = Vec::new();
    let mut exchanges: Vec<Vec<&Event>> = vec![Vec::new(); transcript.exchanges()];
    for event in &transcript.events {
        match event.exchange {
            PROCESS => process.push(event),
            exchange => exchanges[exchange].push(event),
        }
    }
    let mut shown = writer.lines(&process);
    if !shown.is_empty() {
        shown.insert(0, SequenceLine { at: Duration::ZERO, text: "--- the process ---".to_owned() });
    }
    let exchanges: Vec<ExchangeLines<'_>> =
        exchanges.iter().map(|events| ExchangeLines::of(events, writer.lines(events))).collect();
    let mut rest = exchanges.as_slice();
    while let [ExchangeLines { client, lines, texts }, others @ ..] = rest {
        let first = exchanges.len() - rest.len();
        let alike = others.iter().take_while(|other| other.client == *client && other.texts == *texts).count();
        let at = lines.first().map_or(Duration::ZERO, |line| line.at);
        if alike > 0 {
            let text = format!("--- connections {} to {}, all like this ---", first + 1, first + 1 + alike);
            shown.push(SequenceLine { at, text });
        } else if exchanges.len() > 1 || !shown.is_empty() {
            let client = client.map(|name| format!(": {name}")).unwrap_or_default();
            shown.push(SequenceLine { at, text: format!("--- connection {}{client} ---", first + 1) });
        }
        shown.extend(lines.iter().cloned());
        rest = &others[alike..];
    }
    shown
}

/// Writes events of one run as lines.
struct LineWriter<'a> {
    faults: &'a [Fault],
    detail: SequenceDetail,
    redactor: &'a Redactor,
    /// Whether the case names its clients.
    is_named: bool,
}

impl LineWriter<'_> {
    /// A line for each event that is shown; equal ones in a row are one.
    fn lines(&self, events: &[&Event]) -> Vec<SequenceLine> {
        let mut lines: Vec<(SequenceLine, usize)> = Vec::new();
        for event in events.iter().filter(|event| self.detail.shows(event)) {
            let Some(text) = self.line(event) else { continue };
            match lines.last_mut() {
                Some((last, times)) if last.text == text => *times += 1,
                _ => lines.push((SequenceLine { at: event.at, text }, 1)),
            }
        }
        for (line, times) in lines.iter_mut().filter(|(_, times)| *times > 1) {
            line.text.push_str(&format!("  ({times} times)"));
        }
        lines.into_iter().map(|(line, _)| line).collect()
    }

    fn line(&self, event: &Event) -> Option<String> {
        let line = line(event, self.faults, self.detail, self.redactor);
        line.or_else(|| if self.is_named { unmet(event, self.redactor) } else { None })
    }
}

/// An exchange as lines.
#[derive(Debug)]
struct ExchangeLines<'a> {
    /// The name of its client, in a case that names them.
    client: Option<&'a ClientName>,
    lines: Vec<SequenceLine>,
    /// The lines without the name of the user, which is all that differs between clients of a crowd.
    texts: Vec<String>,
}

impl<'a> ExchangeLines<'a> {
    fn of(events: &[&'a Event], lines: Vec<SequenceLine>) -> ExchangeLines<'a> {
        let client = events.iter().find_map(|event| match &event.what {
            EventKind::OpenedBy { client } => Some(client),
            _ => None,
        });
        let user = events.iter().find_map(|event| match &event.what {
            EventKind::RequestSent { credential, .. } => Some(credential.subject.as_str()),
            _ => None,
        });
        let user = user.unwrap_or("user-1");
        let texts = lines.iter().map(|line| line.text.replace(user, "<user>")).collect();
        ExchangeLines { client, lines, texts }
    }
}

/// One event of a server, as it happens. Where there is no client, the call tells what the client asked.
pub fn narrate(event: &Event, faults: &[Fault], redactor: &Redactor) -> Option<String> {
    match &event.what {
        EventKind::Called { head, .. } => {
            let upgrade = if header(&head.headers, "upgrade").is_some() { " upgrade" } else { "" };
            // The values of a query may be credentials.
            let (path, query) = head.path_and_query();
            let query = if query.is_empty() { "" } else { "?…" };
            Some(format!("--> {} {}{query}{upgrade}", head.method, shorten(&readable(&path))))
        }
        _ => line(event, faults, SequenceDetail::Full, redactor),
    }
}

// Long: a line for each kind of event.
fn line(event: &Event, faults: &[Fault], detail: SequenceDetail, redactor: &Redactor) -> Option<String> {
    let full = detail.is_full();
    let text = match &event.what {
        EventKind::RequestSent { head, .. } => format!("--> {}", request(head, redactor)),
        EventKind::ResponseSeen(head) => format!("<-- {}", redactor.text(&response(head))),
        EventKind::BodySeen { end: BodyEnd::None, .. } => return None,
        EventKind::BodySeen { body, end: BodyEnd::Complete } if body.is_empty() => return None,
        EventKind::BodySeen { body, end: BodyEnd::Truncated } if body.is_empty() => {
            "<-- no body, though one was announced".to_owned()
        }
        EventKind::BodySeen { body, end } => {
            let remark = match end {
                BodyEnd::Complete | BodyEnd::None => "",
                BodyEnd::Truncated => " (broken off)",
                BodyEnd::Surplus => " (and more than announced)",
                BodyEnd::Malformed => " (chunks or length cannot be read)",
            };
            format!("<-- {}{remark}", shorten(&redactor.message(body)))
        }
        EventKind::MessageSeen(frame) => format!("    the fragments say {}", message(frame, redactor)),
        EventKind::HandshakeRefused { why } => format!("x   the client gives the handshake up: {}", redactor.text(why)),
        EventKind::FrameSent(frame) => format!("--> {}{}", message(frame, redactor), compressed(frame)),
        EventKind::FrameSeen(frame) => format!("<-- {}{}", message(frame, redactor), compressed(frame)),
        EventKind::BadFrameSeen(error) => format!("<-- bytes that are no frame ({error:?})"),
        EventKind::BadHeadSeen { why } => format!("<-- bytes that are no answer ({why})"),
        EventKind::EndSeen => "<-- end of stream".to_owned(),
        EventKind::DeadlinePassed { waiting_for, limit } => {
            format!("... nothing for {}, waiting for {waiting_for}", seconds(*limit))
        }
        EventKind::OnConnectionOf { exchange } => format!("    on the same connection as {}", exchange + 1),
        EventKind::BodyCutShort { sent, whole } => format!("--> {sent} of {whole} bytes of the body"),
        EventKind::BodyTimed(timing) if full && is_noticeable(timing) => body_timing(timing),
        EventKind::BodyLate { part, limit, took } => body_late(*part, *limit, *took),
        EventKind::LinkReset => "x   the client breaks the connection".to_owned(),
        EventKind::Left => "--> end of stream".to_owned(),
        EventKind::SeenEnough { bytes, frames, waiting_for } => {
            let waiting = waiting_for.iter().map(|awaited| format!(", waiting for {awaited}")).collect::<String>();
            format!("x   the client has read {} in {frames} frames{waiting}, and reads no further", size(*bytes))
        }
        EventKind::StoppedReading => "x   the client stops reading".to_owned(),
        EventKind::FaultFired { index, detail, .. } => {
            format!("!   {}: {detail}", faults.get(*index).map_or("", |fault| fault.kind.place().name()))
        }
        EventKind::RequestRefused { refusal, excess } => {
            let answer = match refusal {
                ServerRefusal::Status(status) => status.to_string(),
                ServerRefusal::Closed => "closes without an answer".to_owned(),
                ServerRefusal::Silence => "no answer".to_owned(),
            };
            let reason = excess.iter().map(|excess| format!(" ({excess})")).collect::<String>();
            format!("    server refuses on its own account: {answer}{reason}")
        }
        EventKind::CutShort => "    server: stops, and does not wait for this".to_owned(),
        EventKind::KeepaliveExpired => "    server: ping unanswered for too long".to_owned(),
        EventKind::HandshakeExpired => "    server: the app took too long to answer the handshake".to_owned(),
        EventKind::Called { kind, .. } if full => format!("    app called ({})", kind.name()),
        EventKind::Received(event) if full => format!("    receive: {}", inbound(event, redactor)),
        EventKind::Sent(event) if full => format!("    send: {}", outbound(event, redactor)),
        EventKind::CallRaised(exception) if full => {
            format!("    send raised {}", redactor.text(&exception.to_string()))
        }
        EventKind::Returned if full => "    app returned".to_owned(),
        EventKind::Raised(exception) => {
            let place = exception.place.iter().map(|place| format!(" ({place})")).collect::<String>();
            format!("    app raised {}{place}", redactor.text(&exception.to_string()))
        }
        EventKind::Handled(exception) => {
            let place = exception.place.iter().map(|place| format!(" ({place})")).collect::<String>();
            format!("    app handled {}{place}", redactor.text(&exception.to_string()))
        }
        EventKind::Logged { level: Level::Error, message, .. } if !message.starts_with("Exception in ASGI") => {
            format!("    log: ERROR {}", redactor.text(message))
        }
        EventKind::Logged { level: Level::Warning, message, .. } => {
            format!("    log: WARNING {}", redactor.text(message))
        }
        EventKind::LeftBehind(leftover) => format!("    app: {leftover}"),
        EventKind::DependencyCalled { dependency, operation, error: Some(error) } => {
            format!("    {dependency}.{operation} failed: {}", redactor.text(error))
        }
        // Every upgrade asks them all, and every event is carried; only what else is called tells something.
        EventKind::DependencyCalled { operation: "ping" | "emit" | "check", error: None, .. } => return None,
        EventKind::DependencyCalled { dependency, operation, error: None } if full => {
            format!("    {dependency}.{operation} answered")
        }
        EventKind::ConnectionRefused => "--> connect: refused, nothing listens".to_owned(),
        EventKind::Starting => "    the process starts".to_owned(),
        EventKind::Listening => "    the process listens".to_owned(),
        EventKind::Stopping => "    the process is told to stop".to_owned(),
        EventKind::Signaled { signal } => format!("!   the harness sends {signal}"),
        EventKind::ExitAwaited { expected, exit: Some(exit), .. } if expected.fits(*exit) => return None,
        EventKind::ExitAwaited { expected, exit: Some(exit), .. } => format!("x   {expected} is expected: {exit}"),
        EventKind::ExitAwaited { expected, limit, exit: None } => {
            format!("x   nothing for {}, waiting for {expected}", seconds(*limit))
        }
        EventKind::Exited { why } => format!("    the process is gone: {}", redactor.text(why)),
        EventKind::Omitted { bytes, events } if full || event.party == Actor::Probe => {
            format!("... {} more omitted, in {events} events of the {}", size(*bytes), event.party)
        }
        _ => return None,
    };
    Some(match event.omitted_bytes {
        0 => text,
        bytes => format!("{text} ({} more omitted)", size(bytes)),
    })
}

fn request(head: &RequestHead, redactor: &Redactor) -> String {
    let upgrade = header(&head.headers, "upgrade").is_some();
    let mut text = format!("{} {}", head.method, shorten(&redactor.text(&readable(&head.target))));
    if upgrade {
        text.push_str(" upgrade");
        for name in HANDSHAKE.iter().filter(|name| header(&head.headers, name).is_none()) {
            text.push_str(&format!(", without {name}"));
        }
    }
    for (name, value) in &head.headers {
        if !HANDSHAKE.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
            text.push_str(&format!("; {}: {}", readable(name), shorten(&redactor.text(&readable(value)))));
        }
    }
    text
}

fn response(head: &ResponseHead) -> String {
    let mut text = format!("{} {}", head.status, reason_phrase(head.status));
    for name in TELLING {
        // The length is told by the body, and an upgrade's headers by the 101, unless something is wrong with them.
        let expected = (name == "upgrade" && head.status == 101) || name == "content-length";
        if let Some(value) = header(&head.headers, name).filter(|_| !expected) {
            text.push_str(&format!("; {name}: {}", readable(value)));
        }
    }
    text
}

/// A note that a message is compressed on the wire.
fn compressed(frame: &Frame) -> &'static str {
    if frame.is_message() && frame.reserved_bits == RSV1 { " (compressed)" } else { "" }
}

fn message(frame: &Frame, redactor: &Redactor) -> String {
    match frame.opcode {
        Opcode::Text => shorten(&redactor.message(&frame.payload)),
        Opcode::Binary => format!("{} bytes", frame.payload.len()),
        Opcode::Close => match frame.close_parts() {
            (Some(code), reason) if reason.is_empty() => format!("close {code}"),
            (Some(code), reason) => format!("close {code} {:?}", redactor.text(&reason)),
            (None, _) => "close without code".to_owned(),
        },
        Opcode::Ping | Opcode::Pong | Opcode::Continuation | Opcode::Reserved(_) => frame.opcode.to_string(),
    }
}

fn inbound(event: &Inbound, redactor: &Redactor) -> String {
    let name = event.name();
    match event {
        Inbound::WebsocketReceive { text: Some(text), .. } => {
            format!("{name} {}", shorten(&redactor.message(text.as_bytes())))
        }
        Inbound::WebsocketReceive { text: None, bytes } => {
            format!("{name} {} bytes", bytes.as_ref().map_or(0, Vec::len))
        }
        Inbound::WebsocketDisconnect { code, reason } => {
            let code = code.map_or(String::new(), |code| format!(" {code}"));
            let reason = reason.as_ref().filter(|reason| !reason.is_empty());
            format!("{name}{code}{}", reason.map_or(String::new(), |reason| format!(" {reason:?}")))
        }
        Inbound::HttpRequest { body, .. } => format!("{name} {} bytes", body.len()),
        _ => name.to_owned(),
    }
}

fn outbound(event: &Outbound, redactor: &Redactor) -> String {
    let name = event.name(ScopeType::Websocket);
    match event {
        Outbound::WebsocketAccept { subprotocol: Some(subprotocol), .. } => {
            format!("{name} {}", redactor.text(subprotocol))
        }
        Outbound::WebsocketSend { text: Some(text), .. } => {
            format!("{name} {}", shorten(&redactor.message(text.as_bytes())))
        }
        Outbound::WebsocketSend { text: None, bytes } => {
            format!("{name} {} bytes", bytes.as_ref().map_or(0, Vec::len))
        }
        Outbound::Unencodable { event, .. } => outbound(event, redactor),
        Outbound::WebsocketClose { code, reason } if reason.is_empty() => format!("{name} {code}"),
        Outbound::WebsocketClose { code, reason } => format!("{name} {code} {:?}", redactor.text(reason)),
        Outbound::ResponseStart { status, headers } => format!("response.start {status}{}", told(headers)),
        Outbound::ResponseBody { body, more_body } => {
            format!("response.body {} bytes{}", body.len(), if *more_body { ", more follows" } else { "" })
        }
        Outbound::StartupFailed { message } | Outbound::ShutdownFailed { message } => {
            format!("{name} {:?}", redactor.text(message))
        }
        _ => name.to_owned(),
    }
}

/// A step that came to nothing. Where there is one client, the end of its connection says so already.
fn unmet(event: &Event, redactor: &Redactor) -> Option<String> {
    match &event.what {
        // The passed deadline says it.
        EventKind::AwaitedNeverCame { why: NeverCame::Deadline, .. } => None,
        EventKind::AwaitedNeverCame { waiting_for, why: NeverCame::SessionOver } => {
            let awaited = redactor.text(&waiting_for.to_string());
            Some(format!("x   the session is over, and the client waited for {awaited}"))
        }
        EventKind::AwaitedNeverCame { waiting_for, why: NeverCame::NotOpened } => {
            let awaited = redactor.text(&waiting_for.to_string());
            Some(format!("x   there is no session in which {awaited} could come"))
        }
        EventKind::NotPerformed { step } => Some(format!("x   step {step} is left out: its connection is over")),
        _ => None,
    }
}

/// Whether a person notices that a body lags behind its head.
fn is_noticeable(timing: &BodyTiming) -> bool {
    let first = timing.first_byte.unwrap_or(timing.end).saturating_sub(timing.head);
    timing.longest_gap.max(first) >= Duration::from_secs(1)
}

fn body_timing(timing: &BodyTiming) -> String {
    let BodyTiming { head, first_byte, longest_gap, end } = timing;
    let first = first_byte.map_or_else(|| "no byte".to_owned(), |first| format!("first byte after {}", seconds(first)));
    let (head, gap, end) = (seconds(*head), seconds(*longest_gap), seconds(*end));
    format!("    body: head after {head}, {first}, longest gap {gap}, end after {end}")
}

fn body_late(part: BodyPart, limit: Duration, took: Option<Duration>) -> String {
    let limit = seconds(limit);
    match (part, took) {
        (BodyPart::FirstByte, Some(took)) => {
            format!("x   the first byte of the body came after {}, later than {limit}", seconds(took))
        }
        (BodyPart::FirstByte, None) => format!("x   no byte of the body came, and one was expected within {limit}"),
        (BodyPart::Next, Some(took)) => {
            format!("x   nothing of the body came for {}, longer than {limit}", seconds(took))
        }
        (BodyPart::Next, None) => format!("x   the body did not go on within {limit}"),
    }
}

fn told(headers: &Headers) -> String {
    match header(headers, "content-length") {
        Some(length) => format!(", {} bytes announced", readable(length)),
        None => String::new(),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()),
        None => text.to_owned(),
    }
}

/// A number of bytes as people say it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..=1023 => format!("{bytes} bytes"),
        1024..=0xf_ffff => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// A duration as people say it.
pub fn seconds(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SequenceDetail, lines};
    use relapse_core::{
        record::transcript::{Actor, Event, EventKind, Transcript},
        wire::frame::{Frame, Opcode},
    };

    fn event(party: Actor, what: EventKind, omitted_bytes: u64) -> Event {
        Event { at: Duration::ZERO, exchange: 0, party, what, omitted_bytes }
    }

    /// An omitted part of a conversation is shown at its actor, and a shortened message shows its length.
    #[test]
    fn whatever_is_left_out_is_told() {
        let events = vec![
            event(Actor::Probe, EventKind::FrameSeen(Frame::new(Opcode::Text, "head and tail")), 300 << 10),
            event(Actor::Probe, EventKind::Omitted { bytes: 48 << 20, events: 800 }, 0),
            event(Actor::Application, EventKind::Omitted { bytes: 1000, events: 10 }, 0),
            event(
                Actor::Probe,
                EventKind::SeenEnough { bytes: 64 << 20, frames: 1100, waiting_for: Some("the close".to_owned()) },
                0,
            ),
        ];
        let transcript = Transcript { events, ..Transcript::default() };
        let shown = |detail| lines(&transcript, detail).into_iter().map(|line| line.text).collect::<Vec<_>>();
        let client = [
            "<-- head and tail (300 KiB more omitted)",
            "... 48 MiB more omitted, in 800 events of the client",
            "x   the client has read 64 MiB in 1100 frames, waiting for the close, and reads no further",
        ];
        let app = "... 1000 bytes more omitted, in 10 events of the app";
        assert_eq!(shown(SequenceDetail::Client), client);
        assert_eq!(shown(SequenceDetail::Conversation), client);
        assert_eq!(shown(SequenceDetail::Service), [app]);
        assert_eq!(shown(SequenceDetail::Full), [client[0], client[1], app, client[2]]);
    }
}
