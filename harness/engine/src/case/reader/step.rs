//! Reads the steps of a case.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use relapse_core::{
    asgi::value::unescape_bytes,
    client::{
        credential::{Credential, CredentialPlace},
        signal::{ExitExpectation, Signal},
        step::{
            Action, AnswerReading, Awaited, BodyExpectation, Carrier, ClientName, DEFAULT_LIMIT, DEFAULT_USER, Pattern,
            Request, Slices, Step,
        },
    },
    error::Error,
    fault::setting::is_token,
    wire::{
        close_code::CloseCode,
        deflate::{DeflateParameters, PERMESSAGE_DEFLATE},
        head::Headers,
    },
};
use toml::Spanned;

use super::CaseReader;
use crate::case::keys::{OneOrMany, RawExit, RawStep};

/// The longest limit a step may ask for.
const STEP_LIMIT_MAX: Duration = Duration::from_secs(3600);

/// The longest message, with what pads it.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The keys of which a step has exactly one.
const ACTS: &str = "`open`, `request`, `send`, `send_bytes`, `ping`, `wait`, `wait_key`, `wait_text`, `wait_match`, \
    `wait_any`, `wait_answer`, `close`, `leave`, `reset`, `pause_ms`, `deaf_ms`, `freeze_ms`, `stop_reading`, \
    `read_answer`, `signal`, `wait_exit`";

/// An act that a key of a step names.
struct NamedAct {
    key: &'static str,
    act: Action,
    /// The time that the act itself takes, where its key states it.
    duration: Option<Duration>,
}

impl NamedAct {
    fn new(key: &'static str, act: Action) -> NamedAct {
        NamedAct { key, act, duration: None }
    }
}

impl CaseReader<'_> {
    /// One step.
    pub(super) fn step(&self, step: Spanned<RawStep>) -> Result<Step, Error> {
        let span = step.span();
        let mut raw = step.into_inner();
        let key = raw.signal.as_ref().map(Spanned::span).or_else(|| raw.wait_exit.as_ref().map(Spanned::span));
        let line = self.line(&key.unwrap_or_else(|| span.clone()));
        let limit = raw.within_ms.as_ref().map_or(Ok(DEFAULT_LIMIT), |limit| self.limit(limit))?;
        let client = raw.client_name.take().map(|name| self.client_name(name)).transpose()?;
        self.refuse_contrary_keys(&raw, limit)?;
        let mut acts = self.exchanges(&mut raw)?;
        acts.extend(self.messages(&mut raw)?);
        acts.extend(self.waits(&mut raw)?);
        acts.extend(self.ends(&mut raw)?);
        acts.extend(self.process_acts(&mut raw)?);
        acts.extend(self.lasting_acts(&mut raw)?);
        let slices = match acts.as_slice() {
            [
                NamedAct {
                    act: Action::Open(_) | Action::Request(_) | Action::SendText(_) | Action::SendBytes(_), ..
                },
            ] => self.slices(&mut raw)?,
            _ => None,
        };
        self.no_left_over(&raw, acts.first().map(|named| named.key))?;
        let NamedAct { key, act, duration } = self.the_only(acts, span)?;
        if let Some(within) = raw.within_ms.filter(|_| !has_limit(&act)) {
            return Err(self.error(within.span(), format!("a `{key}` step waits for nothing"), None));
        }
        Ok(Step { act, limit: duration.unwrap_or(limit), client, slices, line })
    }

    /// The only act of a step.
    fn the_only(&self, mut acts: Vec<NamedAct>, span: Range<usize>) -> Result<NamedAct, Error> {
        match acts.len() {
            1 => Ok(acts.remove(0)),
            0 => Err(self.error(span, "this step does nothing", Some(format!("it needs one of {ACTS}")))),
            _ => {
                let names: Vec<&str> = acts.iter().map(|named| named.key).collect();
                let help = Some("write one step for each".to_owned());
                Err(self.error(span, format!("one step cannot both `{}`", names.join("` and `")), help))
            }
        }
    }

    /// Refuses keys that exclude one another.
    fn refuse_contrary_keys(&self, raw: &RawStep, limit: Duration) -> Result<(), Error> {
        if let Some(give_up) = raw.give_up_ms.as_ref().filter(|ms| u128::from(*ms.get_ref()) >= limit.as_millis()) {
            let help = Some("let it be less than `within_ms`, which is 5000 unless it is said".to_owned());
            return Err(self.error(give_up.span(), "the client would never get to giving up", help));
        }
        if raw.open.is_some() {
            self.no_body_of_an_upgrade(raw)?;
        }
        if let (Some(_), Some(second)) = (&raw.body, &raw.body_bytes) {
            return Err(self.error(second.span(), "a request has one body", None));
        }
        match (&raw.retry_ms, &raw.on) {
            (Some(retry), Some(on)) if !on.get_ref().is_new() => {
                let help = Some("leave `on` or `retry_ms` out".to_owned());
                let message = "`retry_ms` is about a new connection, and `on` names another";
                Err(self.error(retry.span(), message, help))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what only a plain request can have.
    fn no_body_of_an_upgrade(&self, raw: &RawStep) -> Result<(), Error> {
        if let Some(span) = raw.body.as_ref().map(Spanned::span).or(raw.body_bytes.as_ref().map(Spanned::span)) {
            return Err(self.error(span, "an upgrade has no body", None));
        }
        let of_bodies = [
            ("answer", raw.answer.as_ref().map(Spanned::span)),
            ("send_body_bytes", raw.send_body_bytes.as_ref().map(Spanned::span)),
            ("first_byte_within_ms", raw.first_byte_within_ms.as_ref().map(Spanned::span)),
            ("gap_within_ms", raw.gap_within_ms.as_ref().map(Spanned::span)),
        ];
        if let Some((key, span)) = of_bodies.into_iter().find_map(|(key, span)| Some((key, span?))) {
            return Err(self.error(span, format!("`{key}` is about a body, and an upgrade has none"), None));
        }
        if let Some(on) = raw.on.as_ref().filter(|on| *on.get_ref() == Carrier::Pipeline) {
            let help = Some("a client waits for the answers before it upgrades: `on = \"same-connection\"`".to_owned());
            return Err(self.error(on.span(), "an upgrade is not pipelined", help));
        }
        Ok(())
    }

    /// Acts that open an exchange.
    fn exchanges(&self, raw: &mut RawStep) -> Result<Vec<NamedAct>, Error> {
        let mut acts = Vec::new();
        if let Some(path) = raw.open.take() {
            let extensions = raw.extensions.take().map_or(Ok(String::new()), |offered| self.extensions(offered))?;
            let request = Request { extensions, ..self.request("GET", path, raw, Credential::Valid)? };
            acts.push(NamedAct::new("open", Action::Open(request)));
        }
        if let Some(line) = raw.request.take() {
            let span = line.span();
            let Some((method, path)) = line.get_ref().split_once(' ') else {
                let help = Some("write it as in `request = \"GET /health\"`".to_owned());
                return Err(self.error(span, "a request is a method and a path", help));
            };
            let (method, path) = (method.to_owned(), Spanned::new(span, path.to_owned()));
            acts.push(NamedAct::new("request", Action::Request(self.request(&method, path, raw, Credential::None)?)));
        }
        Ok(acts)
    }

    /// Acts that send something in a session.
    fn messages(&self, raw: &mut RawStep) -> Result<Vec<NamedAct>, Error> {
        let mut acts = Vec::new();
        if let Some(text) = raw.send.take() {
            acts.push(NamedAct::new("send", Action::SendText(self.message(text, raw.pad_to.take())?)));
        }
        if let Some(bytes) = raw.send_bytes.take() {
            acts.push(NamedAct::new("send_bytes", Action::SendBytes(self.bytes(bytes)?)));
        }
        if let Some(ping) = raw.ping.take() {
            acts.push(self.only_true("ping", &ping, Action::Ping)?);
        }
        Ok(acts)
    }

    /// Acts that wait for something in a session.
    fn waits(&self, raw: &mut RawStep) -> Result<Vec<NamedAct>, Error> {
        let mut acts = Vec::new();
        if let Some(name) = raw.wait.take() {
            let awaited = match name.into_inner() {
                close if close == "close" => Awaited::Close,
                message => Awaited::Message(message),
            };
            acts.push(NamedAct::new("wait", Action::Wait(awaited)));
        }
        if let Some(key) = raw.wait_key.take() {
            acts.push(NamedAct::new("wait_key", Action::Wait(Awaited::Key(key.into_inner()))));
        }
        if let Some(text) = raw.wait_text.take() {
            if text.get_ref().is_empty() {
                let help = Some("`wait_any = true` waits for any message".to_owned());
                return Err(self.error(text.span(), "every text contains the empty one", help));
            }
            acts.push(NamedAct::new("wait_text", Action::Wait(Awaited::Text(text.into_inner()))));
        }
        if let Some(pattern) = raw.wait_match.take() {
            let compiled = Pattern::new(pattern.get_ref()).map_err(|why| {
                let help = Some("it is a regular expression: `\\{` is a brace".to_owned());
                self.error(pattern.span(), format!("this is no pattern: {why}"), help)
            })?;
            acts.push(NamedAct::new("wait_match", Action::Wait(Awaited::Match(compiled))));
        }
        if let Some(any) = raw.wait_any.take() {
            acts.push(self.only_true("wait_any", &any, Action::Wait(Awaited::Any))?);
        }
        if let Some(answer) = raw.wait_answer.take() {
            acts.push(self.only_true("wait_answer", &answer, Action::Wait(Awaited::Answer))?);
        }
        Ok(acts)
    }

    /// Acts that end a session or a request, or what the client reads of it.
    fn ends(&self, raw: &mut RawStep) -> Result<Vec<NamedAct>, Error> {
        let mut acts = Vec::new();
        if let Some(code) = raw.close.take() {
            acts.push(NamedAct::new("close", Action::Close(CloseCode(code.into_inner()))));
        }
        if let Some(leave) = raw.leave.take() {
            acts.push(self.only_true("leave", &leave, Action::Leave)?);
        }
        if let Some(reset) = raw.reset.take() {
            acts.push(self.only_true("reset", &reset, Action::Reset)?);
        }
        if let Some(stop) = raw.stop_reading.take() {
            acts.push(self.only_true("stop_reading", &stop, Action::StopReading)?);
        }
        if let Some(read) = raw.read_answer.take() {
            acts.push(self.only_true("read_answer", &read, Action::ReadAnswer)?);
        }
        Ok(acts)
    }

    /// Acts on the server's process.
    fn process_acts(&self, raw: &mut RawStep) -> Result<Vec<NamedAct>, Error> {
        let mut acts = Vec::new();
        if let Some(signal) = raw.signal.take() {
            acts.push(NamedAct::new("signal", Action::Signal(self.signal(&signal)?)));
        }
        if let Some(exit) = raw.wait_exit.take() {
            let span = exit.span();
            acts.push(match exit.into_inner() {
                RawExit::Any(any) => {
                    let any = Spanned::new(span, any);
                    self.only_true("wait_exit", &any, Action::AwaitExit(ExitExpectation::Any))?
                }
                RawExit::Status(code) => NamedAct::new("wait_exit", Action::AwaitExit(ExitExpectation::Status(code))),
                RawExit::Signal(name) => {
                    let signal = self.signal(&Spanned::new(span, name))?;
                    NamedAct::new("wait_exit", Action::AwaitExit(ExitExpectation::Signal(signal)))
                }
            });
        }
        Ok(acts)
    }

    /// Acts that last as long as they say.
    fn lasting_acts(&self, raw: &mut RawStep) -> Result<Vec<NamedAct>, Error> {
        let acts = [
            ("pause_ms", raw.pause_ms.take(), Action::Pause),
            ("deaf_ms", raw.deaf_ms.take(), Action::Deafen),
            ("freeze_ms", raw.freeze_ms.take(), Action::Freeze),
        ];
        let given = acts.into_iter().filter_map(|(key, duration, act)| Some((key, duration?, act)));
        given.map(|(key, duration, act)| Ok(NamedAct { key, act, duration: Some(self.limit(&duration)?) })).collect()
    }

    /// A signal by its name.
    fn signal(&self, name: &Spanned<String>) -> Result<Signal, Error> {
        let read = name.get_ref().parse();
        read.map_err(|help| self.error(name.span(), format!("unknown signal `{}`", name.get_ref()), Some(help)))
    }

    fn client_name(&self, name: Spanned<String>) -> Result<ClientName, Error> {
        let has_plain_characters =
            name.get_ref().chars().all(|character| character.is_alphanumeric() || matches!(character, '-' | '_' | ' '));
        if !name.get_ref().starts_with(char::is_alphanumeric) || !has_plain_characters {
            let help = Some("write it as in `as = \"ann\"`".to_owned());
            return Err(self.error(name.span(), format!("`{}` is no name of a client", name.get_ref()), help));
        }
        Ok(ClientName(name.into_inner()))
    }

    /// In which pieces a message or a request is written.
    fn slices(&self, raw: &mut RawStep) -> Result<Option<Slices>, Error> {
        let Some(bytes) = raw.slice_bytes.take() else { return Ok(None) };
        if *bytes.get_ref() == 0 {
            return Err(self.error(bytes.span(), "a slice has at least one byte", None));
        }
        let pause = raw.slice_pause_ms.take().map(|pause| self.limit(&pause)).transpose()?.unwrap_or_default();
        Ok(Some(Slices { bytes: bytes.into_inner(), pause }))
    }

    fn limit(&self, limit: &Spanned<u64>) -> Result<Duration, Error> {
        let duration = Duration::from_millis(*limit.get_ref());
        if duration.is_zero() || duration > STEP_LIMIT_MAX {
            return Err(self.error(limit.span(), "a limit is between 1 and 3600000 milliseconds", None));
        }
        Ok(duration)
    }

    /// The act of a key that says only `true`.
    fn only_true(&self, key: &'static str, value: &Spanned<bool>, act: Action) -> Result<NamedAct, Error> {
        if *value.get_ref() {
            return Ok(NamedAct::new(key, act));
        }
        Err(self.error(value.span(), format!("`{key} = false` does nothing"), Some("leave the step out".to_owned())))
    }

    /// Keys that the step's act did not take say something that would silently not happen.
    fn no_left_over(&self, raw: &RawStep, act: Option<&str>) -> Result<(), Error> {
        let left_over = [
            ("pad_to", raw.pad_to.as_ref().map(Spanned::span)),
            ("slice_bytes", raw.slice_bytes.as_ref().map(Spanned::span)),
            ("slice_pause_ms", raw.slice_pause_ms.as_ref().map(Spanned::span)),
            ("on", raw.on.as_ref().map(Spanned::span)),
            ("answer", raw.answer.as_ref().map(Spanned::span)),
            ("send_body_bytes", raw.send_body_bytes.as_ref().map(Spanned::span)),
            ("first_byte_within_ms", raw.first_byte_within_ms.as_ref().map(Spanned::span)),
            ("gap_within_ms", raw.gap_within_ms.as_ref().map(Spanned::span)),
            ("query", raw.query.as_ref().map(Spanned::span)),
            ("credential", raw.credential.as_ref().map(Spanned::span)),
            ("by", raw.by.as_ref().map(Spanned::span)),
            ("user", raw.user.as_ref().map(Spanned::span)),
            ("offers", raw.offers.as_ref().map(Spanned::span)),
            ("extensions", raw.extensions.as_ref().map(Spanned::span)),
            ("headers", raw.headers.as_ref().map(Spanned::span)),
            ("without", raw.without.as_ref().map(Spanned::span)),
            ("client", raw.client.as_ref().map(Spanned::span)),
            ("method", raw.method.as_ref().map(Spanned::span)),
            ("body", raw.body.as_ref().map(Spanned::span)),
            ("body_bytes", raw.body_bytes.as_ref().map(Spanned::span)),
            ("retry_ms", raw.retry_ms.as_ref().map(Spanned::span)),
            ("give_up_ms", raw.give_up_ms.as_ref().map(Spanned::span)),
        ];
        match left_over.into_iter().find_map(|(key, span)| Some((key, span?))) {
            None => Ok(()),
            Some((key, span)) => {
                let act = act.map_or("a step without an act".to_owned(), |act| format!("a `{act}` step"));
                Err(self.error(span, format!("`{key}` means nothing in {act}"), None))
            }
        }
    }

    /// A request with the keys of its step, which it takes.
    fn request(
        &self,
        method: &str,
        path: Spanned<String>,
        raw: &mut RawStep,
        credential: Credential,
    ) -> Result<Request, Error> {
        let method_span = path.span();
        let path = self.request_path(path)?;
        if let Some(method) = &raw.method {
            self.token("method", method.get_ref(), method.span())?;
        }
        self.token("method", method, method_span)?;
        let headers = raw.headers.take().map(|headers| self.headers(headers)).transpose()?.unwrap_or_default();
        let body = match raw.body_bytes.take() {
            Some(bytes) => self.bytes(bytes)?,
            None => raw.body.take().map_or(Ok(String::new()), |body| self.message(body, None))?.into_bytes(),
        };
        let body_sent = raw.send_body_bytes.take();
        if let Some(sent) = body_sent.as_ref().filter(|sent| *sent.get_ref() >= body.len()) {
            let message = format!("the body has {} byte(s), and a part of it is less", body.len());
            return Err(self.error(sent.span(), message, None));
        }
        Ok(Request {
            method: raw.method.take().map_or(method.to_owned(), Spanned::into_inner),
            path,
            query: raw.query.take().map_or(Ok(Vec::new()), |query| self.bytes(query))?,
            credential: raw.credential.take().map_or(credential, Spanned::into_inner),
            places: match raw.by.take().map(Spanned::into_inner) {
                None => vec![CredentialPlace::Header],
                Some(OneOrMany::One(place)) => vec![place],
                Some(OneOrMany::Many(places)) => places,
            },
            user: raw.user.take().map_or(DEFAULT_USER.to_owned(), Spanned::into_inner),
            offers: raw.offers.take().map(Spanned::into_inner).unwrap_or_default(),
            extensions: String::new(),
            headers,
            without: raw.without.take().map(Spanned::into_inner).unwrap_or_default(),
            body,
            body_sent: body_sent.map(Spanned::into_inner),
            on: raw.on.take().map(Spanned::into_inner).unwrap_or_default(),
            answer: raw.answer.take().map_or(Ok(AnswerReading::AtOnce), |answer| self.answer(answer))?,
            expects: BodyExpectation {
                first_byte: raw.first_byte_within_ms.take().map(|limit| self.limit(&limit)).transpose()?,
                gap: raw.gap_within_ms.take().map(|limit| self.limit(&limit)).transpose()?,
            },
            client: raw.client.take().map(Spanned::into_inner).unwrap_or_default(),
            retry: raw.retry_ms.take().map(|limit| self.limit(&limit)).transpose()?,
            give_up: raw.give_up_ms.take().map(|limit| self.limit(&limit)).transpose()?,
        })
    }

    /// A path, percent-encoded, without a query.
    fn request_path(&self, path: Spanned<String>) -> Result<Vec<u8>, Error> {
        if !path.get_ref().starts_with('/') {
            return Err(self.error(path.span(), "a path begins with `/`", None));
        }
        let span = path.span();
        let path = self.bytes(path)?;
        if path.iter().any(|byte| matches!(byte, b' ' | b'?' | b'#' | b'\r' | b'\n')) {
            let help = Some("percent-encode it; the query has a key of its own".to_owned());
            return Err(self.error(span, "a path holds no space, line end, `?` or `#`", help));
        }
        Ok(path)
    }

    /// Header lines, none of which ends before its value does.
    fn headers(&self, given: Spanned<BTreeMap<String, String>>) -> Result<Headers, Error> {
        let span = given.span();
        let mut headers = Vec::new();
        for (name, value) in given.into_inner() {
            self.token("header name", &name, span.clone())?;
            let value = self.bytes(Spanned::new(span.clone(), value))?;
            if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0')) {
                return Err(self.error(span, format!("the value of `{name}` holds a line end"), None));
            }
            headers.push((name.into(), value.into()));
        }
        Ok(headers)
    }

    /// The offer of the only extension that a client speaks, with alternatives behind commas.
    fn extensions(&self, offered: Spanned<String>) -> Result<String, Error> {
        for element in offered.get_ref().split(',') {
            let why = match DeflateParameters::read(element.trim()) {
                Ok(Some(_)) => continue,
                Ok(None) => format!("`{}` is no extension that the client speaks", element.trim()),
                Err(why) => why,
            };
            let help = format!("write it as in `extensions = \"{PERMESSAGE_DEFLATE}; client_max_window_bits\"`");
            return Err(self.error(offered.span(), why, Some(help)));
        }
        Ok(offered.into_inner())
    }

    /// When an answer is read.
    fn answer(&self, when: Spanned<String>) -> Result<AnswerReading, Error> {
        match when.get_ref().as_str() {
            "at-once" => Ok(AnswerReading::AtOnce),
            "later" => Ok(AnswerReading::Later),
            _ => Err(self.unknown("time of an answer", &when, ["at-once", "later"])),
        }
    }

    /// Refuses what is no token of HTTP (RFC 9110 section 5.6.2), and would end the line it stands in.
    fn token(&self, what: &str, text: &str, span: Range<usize>) -> Result<(), Error> {
        if is_token(text) {
            return Ok(());
        }
        Err(self.error(span, format!("`{text}` is no {what}"), Some("letters, digits and hyphens are safe".to_owned())))
    }

    fn bytes(&self, text: Spanned<String>) -> Result<Vec<u8>, Error> {
        unescape_bytes(text.get_ref()).map_err(|message| self.error(text.span(), message, None))
    }

    fn message(&self, value: Spanned<toml::Value>, pad_to: Option<Spanned<usize>>) -> Result<String, Error> {
        let span = value.span();
        let mut text = match value.into_inner() {
            toml::Value::String(text) => text,
            toml::Value::Table(table) => serde_json::to_string(&table)
                .map_err(|error| self.error(span.clone(), format!("this table is no JSON: {error}"), None))?,
            other => {
                let help = Some("write a string, or a table that is sent as JSON".to_owned());
                return Err(self.error(span, format!("a message is not a TOML {}", other.type_str()), help));
            }
        };
        if let Some(length) = pad_to {
            let wanted = *length.get_ref();
            if wanted < text.len() || wanted > MESSAGE_BYTES_MAX {
                return Err(self.error(
                    length.span(),
                    format!("the message already has {} bytes, and 64 MiB is the most", text.len()),
                    None,
                ));
            }
            text.extend(std::iter::repeat_n(' ', wanted - text.len()));
        }
        Ok(text)
    }
}

/// Whether a step with this act has a limit: it ends when something comes.
fn has_limit(act: &Action) -> bool {
    match act {
        Action::Open(_)
        | Action::Request(_)
        | Action::Ping
        | Action::Wait(_)
        | Action::Close(_)
        | Action::Leave
        | Action::Reset
        | Action::ReadAnswer
        | Action::AwaitExit(_) => true,
        Action::SendText(_)
        | Action::SendBytes(_)
        | Action::Pause
        | Action::Deafen
        | Action::Freeze
        | Action::StopReading
        | Action::Signal(_) => false,
    }
}
