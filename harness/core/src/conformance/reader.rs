//! Reads a group of cases, strictly: whatever it says is either meant and possible, or refused where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use toml::Spanned;

use super::{BoundSide, Deflation, Expected, FrameCase, Masking, Payload, Sent, SentAction, Variant};
use crate::{
    asgi::value::unescape_bytes,
    error::{Error, did_you_mean},
    wire::{
        close_code::CloseCode,
        deflate::{DeflateParameters, PERMESSAGE_DEFLATE},
        frame::{Length, Opcode},
    },
};

/// How long a pause may be, in milliseconds: on sockets time is real.
const PAUSES_MS: RangeInclusive<u64> = 1..=10_000;

/// How often an entry may be sent, and, but for 0, how often its payload may be repeated.
const TIMES: RangeInclusive<usize> = 1..=1 << 20;

/// The names of the opcodes that have one.
const OPCODES: [(&str, Opcode); 6] = [
    ("continuation", Opcode::Continuation),
    ("text", Opcode::Text),
    ("binary", Opcode::Binary),
    ("close", Opcode::Close),
    ("ping", Opcode::Ping),
    ("pong", Opcode::Pong),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    case: Vec<RawFrameCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFrameCase {
    name: Spanned<String>,
    #[serde(default)]
    rfc: Rfc,
    section: Spanned<String>,
    #[serde(default)]
    extensions: Option<Spanned<String>>,
    tries: Spanned<String>,
    send: Spanned<Vec<Spanned<RawEntry>>>,
    piece_bytes: Option<Spanned<usize>>,
    expect: Spanned<RawFrameExpect>,
}

/// The RFC that a section is of.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(try_from = "u16")]
enum Rfc {
    /// RFC 6455.
    #[default]
    WebSocket,
    /// RFC 7692.
    Compression,
}

impl TryFrom<u16> for Rfc {
    type Error = &'static str;

    fn try_from(number: u16) -> Result<Rfc, &'static str> {
        match number {
            6455 => Ok(Rfc::WebSocket),
            7692 => Ok(Rfc::Compression),
            _ => Err("the rules are those of RFC 6455 and RFC 7692"),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawFrameExpect {
    answers: bool,
    or_close: Vec<u16>,
    echo: bool,
    fail: Vec<u16>,
    tolerable: bool,
}

/// An entry of `send`, as it is written. A list in it stands for as many conversations as it has values.
type RawEntry = BTreeMap<String, Spanned<toml::Value>>;

/// An entry of one conversation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConversation {
    pause_ms: Option<u64>,
    opcode: Option<toml::Value>,
    #[serde(default = "yes")]
    fin: bool,
    #[serde(default)]
    rsv: u8,
    #[serde(default)]
    mask: Masking,
    code: Option<u16>,
    text: Option<String>,
    bytes: Option<String>,
    #[serde(default = "once")]
    repeat: usize,
    request: Option<String>,
    deflate: Option<Deflation>,
    pad_to: Option<usize>,
    beside: Option<String>,
    #[serde(default = "yes")]
    owed: bool,
    fragment_bytes: Option<usize>,
    length: Option<String>,
    length_bytes: Option<u8>,
    #[serde(default = "once")]
    times: usize,
}

fn yes() -> bool {
    true
}

fn once() -> usize {
    1
}

/// The mistake in an entry, and the correction.
type EntryMistake = (String, Option<String>);

/// Reads the cases of a group.
pub(super) fn read(path: &str, text: &str) -> Result<Vec<FrameCase>, Error> {
    let raw: RawGroup = toml::from_str(text).map_err(|error| Error::toml(path, text, &error))?;
    let reader = FrameCaseReader { path, text };
    let mut names = BTreeSet::new();
    for case in &raw.case {
        if !names.insert(case.name.get_ref().as_str()) {
            return Err(reader.error(case.name.span(), "another case of this group has the name", None));
        }
    }
    raw.case.iter().map(|case| reader.case(case)).collect()
}

struct FrameCaseReader<'a> {
    path: &'a str,
    text: &'a str,
}

impl FrameCaseReader<'_> {
    fn error(&self, span: Range<usize>, message: impl Into<String>, help: Option<&str>) -> Error {
        Error::at(self.path, self.text, span, message, help.map(str::to_owned))
    }

    fn case(&self, raw: &RawFrameCase) -> Result<FrameCase, Error> {
        let group = Path::new(self.path).file_stem().unwrap_or_default().to_string_lossy();
        if !raw.tries.get_ref().ends_with('.') {
            return Err(self.error(raw.tries.span(), "this is no sentence", Some("say what is tried, with a period")));
        }
        if !raw.section.get_ref().split('.').all(is_number) {
            return Err(self.error(raw.section.span(), "this is no section of an RFC", Some("as in `5.5.2`")));
        }
        let extensions = raw.extensions.as_ref().map(Spanned::get_ref).cloned().unwrap_or_default();
        if let Some(offered) = &raw.extensions
            && !matches!(DeflateParameters::read(offered.get_ref()), Ok(Some(_)))
        {
            let help = format!("as in `{PERMESSAGE_DEFLATE}; client_max_window_bits`");
            return Err(self.error(offered.span(), "this offers no extension that the client speaks", Some(&help)));
        }
        if let Some(size) = raw.piece_bytes.as_ref().filter(|size| *size.get_ref() == 0) {
            return Err(self.error(size.span(), "nothing would ever be written", Some("leave the key out, or say 1")));
        }
        let variants = self.variants(&raw.send)?;
        let expected = expected(raw.expect.get_ref()).and_then(|expected| possible(expected, &variants));
        Ok(FrameCase {
            name: format!("{group}/{}", raw.name.get_ref()),
            section: match raw.rfc {
                Rfc::WebSocket => raw.section.get_ref().clone(),
                Rfc::Compression => format!("7692 {}", raw.section.get_ref()),
            },
            extensions,
            tries: raw.tries.get_ref().clone(),
            variants,
            piece_bytes: raw.piece_bytes.as_ref().map(|size| *size.get_ref()),
            expected: expected.map_err(|message| self.error(raw.expect.span(), message, None))?,
        })
    }

    /// The conversations of a case: one, or one for each value of its lists.
    fn variants(&self, send: &Spanned<Vec<Spanned<RawEntry>>>) -> Result<Vec<Variant>, Error> {
        let entries = send.get_ref();
        let values = entries.iter().flat_map(|entry| entry.get_ref().values());
        let lists: Vec<_> = values.filter_map(|value| Some((value.span(), value.get_ref().as_array()?))).collect();
        let count = lists.first().map_or(1, |(_, list)| list.len());
        if entries.is_empty() || count == 0 {
            return Err(self.error(send.span(), "nothing would be sent", None));
        }
        if let Some((span, _)) = lists.iter().find(|(_, list)| list.len() != count) {
            let help = format!("the first list has {count} value(s), and the others have as many");
            return Err(self.error(span.clone(), "this list is not as long as the first", Some(&help)));
        }
        let mut variants = Vec::with_capacity(count);
        for index in 0..count {
            let name = lists.first().map_or(String::new(), |(_, list)| label(&list[index]));
            let acts = entries.iter().map(|entry| self.act(entry, index)).collect::<Result<_, Error>>()?;
            variants.push(Variant { name, acts });
        }
        Ok(variants)
    }

    /// The act of an entry in one of the conversations.
    fn act(&self, raw: &Spanned<RawEntry>, index: usize) -> Result<SentAction, Error> {
        let mut table = toml::Table::new();
        for (key, value) in raw.get_ref() {
            let value = value.get_ref();
            table.insert(key.clone(), value.as_array().map_or(value, |list| &list[index]).clone());
        }
        let entry: RawConversation =
            table.try_into().map_err(|error| Error::toml_in(self.path, self.text, raw.span(), &error))?;
        let act = match entry.pause_ms {
            None => entry.sent().map(SentAction::Send),
            Some(pause) if raw.get_ref().len() == 1 && PAUSES_MS.contains(&pause) => {
                Ok(SentAction::Pause(Duration::from_millis(pause)))
            }
            Some(_) => Err(("a pause stands alone, and has 1 to 10000 milliseconds".to_owned(), None)),
        };
        act.map_err(|(message, help)| self.error(raw.span(), message, help.as_deref()))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The label of a conversation that differs from others in this value.
fn label(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl RawConversation {
    fn sent(&self) -> Result<Sent, EntryMistake> {
        if self.rsv > 7 {
            return Err((format!("there are three reserved bits, and {} is more", self.rsv), None));
        }
        if !TIMES.contains(&self.times) || self.repeat > *TIMES.end() || self.fragment_bytes == Some(0) {
            return Err(("a count is between 1 and 1048576".to_owned(), None));
        }
        Ok(Sent {
            opcode: self.opcode()?,
            is_final: self.fin,
            reserved_bits: self.rsv,
            masking: self.mask,
            payload: self.payload().map_err(|message| (message, None))?,
            deflate: self.deflate,
            fragment_bytes: self.fragment_bytes,
            length: self.length().map_err(|message| (message, None))?,
            times: self.times,
        })
    }

    fn opcode(&self) -> Result<Opcode, EntryMistake> {
        let help = "`text`, `binary`, `continuation`, `close`, `ping`, `pong`, or a number below 16".to_owned();
        match &self.opcode {
            Some(toml::Value::String(name)) => match OPCODES.iter().find(|(known, _)| known == name) {
                Some((_, opcode)) => Ok(*opcode),
                None => {
                    let nearest = did_you_mean(name, OPCODES.map(|(known, _)| known));
                    Err((format!("unknown opcode `{name}`"), nearest.or(Some(help))))
                }
            },
            Some(toml::Value::Integer(number @ 0..=15)) => Ok(Opcode::numbered(*number as u8)),
            Some(other) => Err((format!("there is no opcode {other}"), Some(help))),
            None => Err(("a frame has an `opcode`".to_owned(), Some(help))),
        }
    }

    fn payload(&self) -> Result<Payload, String> {
        let bytes = match (&self.text, &self.bytes, &self.request) {
            (None, None, None) => Vec::new(),
            (Some(text), None, None) => text.clone().into_bytes(),
            (None, Some(bytes), None) => unescape_bytes(bytes)?,
            (None, None, Some(part)) if self.code.is_none() && self.repeat == 1 => return self.request(part),
            _ => return Err("a payload is one of `text`, `bytes` and `request`".to_owned()),
        };
        if self.pad_to.is_some() || self.beside.is_some() || !self.owed {
            return Err("`pad_to`, `beside` and `owed` are for a `request`".to_owned());
        }
        let code = self.code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
        Ok(Payload::Bytes(Bytes::from([code, bytes.repeat(self.repeat)].concat())))
    }

    fn request(&self, part: &str) -> Result<Payload, String> {
        let parts: Option<(usize, usize)> = match part.split_once('/') {
            None if part == "whole" => Some((1, 1)),
            None => None,
            Some((part, parts)) => part.parse().ok().zip(parts.parse().ok()),
        };
        match parts {
            Some((part, parts)) if (1..=parts).contains(&part) => {
                let (pad_to, beside) = (self.pad_to, self.beside.clone());
                Ok(Payload::Request { part, parts, pad_to, beside, is_owed: self.owed })
            }
            _ => Err(format!("`{part}` is no part of a request: write `whole`, or `1/2` for its first half")),
        }
    }

    fn length(&self) -> Result<Length, String> {
        match (&self.length, self.length_bytes) {
            (None, None) => Ok(Length::Shortest),
            (None, Some(2)) => Ok(Length::InTwoBytes),
            (None, Some(8)) => Ok(Length::InEightBytes),
            (Some(claimed), None) => match claimed.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16)) {
                Some(Ok(claimed)) => Ok(Length::Claimed(claimed)),
                _ => Err(format!("`{claimed}` is no length: write it as `0x7fffffffffffffff`")),
            },
            _ => Err("a length is claimed in eight bytes, or true in 2 or 8".to_owned()),
        }
    }
}

/// The required result: answers, an echo, or the failure of the connection.
fn expected(raw: &RawFrameExpect) -> Result<Expected, &'static str> {
    match raw {
        RawFrameExpect { answers: true, echo: false, tolerable: false, fail, or_close } if fail.is_empty() => {
            Ok(Expected::Answers { or_close: close_codes(or_close) })
        }
        RawFrameExpect { answers: false, echo: true, tolerable: false, fail, or_close }
            if fail.is_empty() && or_close.is_empty() =>
        {
            Ok(Expected::Echo)
        }
        RawFrameExpect { answers: false, echo: false, tolerable, fail, or_close }
            if !fail.is_empty() && or_close.is_empty() =>
        {
            let bound = if *tolerable { BoundSide::Sender } else { BoundSide::Both };
            Ok(Expected::Failure { codes: close_codes(fail), bound })
        }
        _ => Err(
            "what is expected is one of `answers`, `answers` with `or_close`, `echo`, `fail`, and `fail` with `tolerable`",
        ),
    }
}

fn close_codes(codes: &[u16]) -> Vec<CloseCode> {
    codes.iter().map(|&code| CloseCode(code)).collect()
}

/// The required result, if it can come at all.
fn possible(expected: Expected, variants: &[Variant]) -> Result<Expected, &'static str> {
    let is_possible = match &expected {
        Expected::Answers { .. } => variants.iter().all(|variant| !variant.owed().replies.is_empty()),
        Expected::Echo => variants.iter().all(Variant::closes),
        Expected::Failure { .. } => true,
    };
    if is_possible { Ok(expected) } else { Err("nothing that is sent could be answered so") }
}
