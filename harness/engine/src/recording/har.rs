//! The parts of a HAR file that routes are learned from (HTTP Archive 1.2). Browsers and proxies leave out much that the
//! format asks for, so everything else may be missing; the `har` crate has no WebSocket messages and asks for all of it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The opcode of a text message.
const TEXT: i64 = 1;

/// An archive.
#[derive(Deserialize)]
pub(super) struct Har {
    log: HarLog,
}

/// Its log.
#[derive(Deserialize)]
struct HarLog {
    entries: Vec<HarEntry>,
}

/// A request with its answer, or a WebSocket.
#[derive(Deserialize)]
pub(super) struct HarEntry {
    pub(super) request: HarRequest,
    response: HarResponse,
    #[serde(default, rename = "_webSocketMessages")]
    messages: Vec<HarMessage>,
}

/// A request.
#[derive(Deserialize)]
pub(super) struct HarRequest {
    pub(super) method: String,
    url: String,
    #[serde(default)]
    pub(super) headers: Vec<HarHeader>,
    #[serde(rename = "postData")]
    pub(super) body: Option<HarBody>,
}

/// A header field.
#[derive(Deserialize)]
pub(super) struct HarHeader {
    name: String,
    value: String,
}

/// The body of a request.
#[derive(Deserialize)]
pub(super) struct HarBody {
    #[serde(default, rename = "mimeType")]
    pub(super) content_type: String,
    #[serde(default)]
    pub(super) text: String,
}

/// An answer.
#[derive(Deserialize)]
struct HarResponse {
    status: i64,
}

/// A message of a WebSocket.
#[derive(Deserialize)]
struct HarMessage {
    #[serde(rename = "type")]
    direction: String,
    opcode: i64,
    data: String,
}

impl HarEntry {
    /// Whether it was let in.
    fn is_good(&self) -> bool {
        matches!(self.response.status, 101 | 200..=299 | 304)
    }

    /// Host and port, and what follows them; nothing of a URL that is not HTTP's or WebSocket's.
    pub(super) fn place(&self) -> Option<(&str, &str)> {
        let (scheme, rest) = self.request.url.split_once("://")?;
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        matches!(scheme, "http" | "https" | "ws" | "wss").then(|| rest.split_at(at))
    }

    pub(super) fn is_websocket(&self) -> bool {
        self.response.status == 101 || self.request.url.starts_with("ws")
    }

    /// The value of the first header with this name, whatever its case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.request
            .headers
            .iter()
            .map(HarHeader::pair)
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The text messages that the client sent.
    pub(super) fn sent_texts(&self) -> impl Iterator<Item = &str> {
        let sent = self.messages.iter().filter(|message| message.direction == "send" && message.opcode == TEXT);
        sent.map(|message| message.data.as_str())
    }
}

impl HarHeader {
    /// The name and the value.
    pub(super) fn pair(&self) -> (&str, &str) {
        (&self.name, &self.value)
    }
}

impl Har {
    /// Reads an archive, which may begin with a byte order mark.
    pub(super) fn parse(text: &str) -> Result<Har, String> {
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| format!("it is no HAR file: {error}"))
    }

    /// The entries that were let in.
    pub(super) fn good(&self) -> impl Iterator<Item = &HarEntry> {
        self.log.entries.iter().filter(|entry| entry.is_good())
    }

    /// The host that WebSockets were opened on, or else the one with most requests.
    pub(super) fn main_host(&self) -> Option<&str> {
        let mut hosts: BTreeMap<&str, (bool, usize)> = BTreeMap::new();
        for entry in self.good() {
            let Some((host, _)) = entry.place() else { continue };
            let (has_sessions, count) = hosts.entry(host).or_default();
            *has_sessions |= entry.is_websocket();
            *count += 1;
        }
        hosts.into_iter().max_by_key(|(_, weight)| *weight).map(|(host, _)| host)
    }
}
