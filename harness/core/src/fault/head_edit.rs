//! The faults that a man in the middle can inject into a request, up to its first byte behind the head.

use bytes::Bytes;

use super::{
    draw::{FaultDraw, always, among, counts, up_to},
    effect::InjectedEffect,
    setting::{Count, Line, Path, Raw, Token, faults, names},
};
use crate::wire::head::{RequestHead, is_name};

names! {
    /// The minor version of HTTP/1.
    Version;
    /// HTTP/1.0.
    Old "1.0",
    /// HTTP/1.1.
    Current "1.1",
}

/// The headers that carry a credential; load balancers strip them most often.
const STRIPPED: &[(u32, &str)] = &[
    (11, "Authorization"),
    (9, "Sec-WebSocket-Protocol"),
    (1, "Sec-WebSocket-Key"),
    (1, "Sec-WebSocket-Version"),
    (1, "Host"),
    (1, "Connection"),
    (1, "Upgrade"),
    (1, "Cookie"),
];

/// The headers that something on the way may change.
const HEADERS: &[(u32, &str)] = &[
    (2, "Authorization"),
    (1, "Sec-WebSocket-Protocol"),
    (1, "Sec-WebSocket-Key"),
    (1, "Sec-WebSocket-Version"),
    (1, "Host"),
    (1, "Connection"),
    (1, "Upgrade"),
    (1, "Cookie"),
];

/// Header fields that something on the way sets.
const FIELDS: [(&str, &[u8]); 16] = [
    ("Host", b"["),
    ("Host", b"[::1"),
    ("Host", b""),
    ("Host", b"caf\xc3\xa9"),
    ("Host", b"a:b:c"),
    ("Origin", b"https://[bad"),
    ("Origin", b"\xff"),
    ("X-Forwarded-For", b"203.0.113.7"),
    ("X-Forwarded-Host", b"a\", b"),
    ("X-Forwarded-Proto", b""),
    ("Sec-WebSocket-Key", b"short"),
    ("Sec-WebSocket-Version", b"8"),
    ("Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits"),
    ("Authorization", b"{authorization}"),
    ("Sec-WebSocket-Protocol", b",,"),
    ("Cookie", b"session=\xff\xfe"),
];

/// One of these fields. Name and value are drawn together.
fn field(draw: &FaultDraw<'_>) -> (&'static str, &'static [u8]) {
    draw.choices.fork("field").one(&FIELDS)
}

fn field_name(draw: &FaultDraw<'_>, _: &str) -> Option<Token> {
    Some(field(draw).0.into())
}

fn field_value(draw: &FaultDraw<'_>, _: &str) -> Option<Line> {
    Some(field(draw).1.into())
}

const QUERIES: &[(u32, &[u8])] = &[
    (1, b""),
    (1, b"utm_source=x&utm_source=y"),
    (1, b"%"),
    (1, b"a=%ff%fe"),
    (1, b"caf\xc3\xa9=\xff"),
    (1, b"&&==&"),
];

const PATHS: &[(u32, &[u8])] = &[(1, b"/moved"), (1, b"/%2e%2e/ws"), (1, b"/ws/"), (1, b"//ws")];

/// Bytes behind a request: frames, another request, neither.
const FOLLOWING: &[(u32, &[u8])] = &[
    (1, b"\x81\x84\x00\x00\x00\x00ping"),
    (1, b"\x88\x82\x00\x00\x00\x00\x03\xe8"),
    (1, b"GET /health HTTP/1.1\r\nHost: relapse.test\r\n\r\n"),
    (1, b"\x00\x01garbage\r\n\r\n"),
];

faults! {
    /// One change of a request. The head stays one that can be written; whether a server takes it is the server's matter.
    HeadEdit at Edge;
    /// passes everything on, on the same path as with any other edge fault
    Pass "pass", weight 2 {} "pass everything on";
    /// removes every header with this name, as load balancers do on upgrades
    Strip "strip_header", weight 10 {
        /// The header's name, in any case.
        header: Token as "header" from among(STRIPPED),
    } "strip {header}";
    /// gives every header with this name another one, as proxies do that keep the original under a name of their own
    Rename "rename_header", weight 2 {
        /// The header's name, in any case.
        header: Token as "header" from among(&[(1, "Authorization")]),
        /// Its new name.
        to: Token as "to" from among(&[(1, "X-Forwarded-Authorization")]),
    } "rename {header} to {to}";
    /// repeats every header with this name; RFC 9110 section 5.3 allows that for lists only
    Duplicate "duplicate_header", weight 2 {
        /// The header's name, in any case.
        header: Token as "header" from among(HEADERS),
    } "send {header} twice";
    /// writes a header's name in capitals; names have no case (RFC 9110 section 5.1)
    Capitalize "capitalize_header", weight 2 {
        /// The header's name, in any case.
        header: Token as "header" from among(HEADERS),
    } "write {header} in capitals";
    /// writes the name of every header in lower case
    Lower "lower_names", weight 2 {} "write every header's name in lower case";
    /// continues a header's value on the next line, which RFC 9112 section 5.2 tells senders not to do
    Fold "fold_header", weight 2 {
        /// The header's name, in any case.
        header: Token as "header" from among(HEADERS),
    } "fold {header}";
    /// moves a header in front of all others; their order means nothing (RFC 9110 section 5.3)
    Move "move_header", weight 2 {
        /// The header's name, in any case.
        header: Token as "header" from among(HEADERS),
    } "move {header} to the front";
    /// cuts a header's value to its first bytes, as middleboxes do that keep a table of fixed width
    Truncate "truncate_header", weight 2 {
        /// The header's name, in any case.
        header: Token as "header" from among(HEADERS),
        /// How many bytes are left.
        bytes: Count as "bytes" from up_to(24),
    } "cut {header} to {bytes} byte(s)";
    /// makes a header's value so many bytes long, or adds a header of that length
    Pad "pad_header", weight 2 {
        /// The header's name.
        header: Token as "header" from among(&[(1, "Cookie"), (1, "X-Pad"), (1, "User-Agent")]),
        /// How long the value is then.
        bytes: Count as "bytes" from counts(&[300, 9000, 70_000]),
    } "make {header} {bytes} bytes long";
    /// replaces every header with this name by one with this value, or adds it
    Set "set_header", weight 4 {
        /// The header's name.
        header: Token as "header" from field_name,
        /// Its value.
        value: Line as "value" from field_value,
    } "set {header} to {value}";
    /// adds a header beside those that are there, as proxies do that append
    Add "add_header", weight 2 {
        /// The header's name.
        header: Token as "header" from field_name,
        /// Its value.
        value: Line as "value" from field_value,
    } "add {header}: {value}";
    /// removes what is meant for one connection only, as a proxy must that does not upgrade (RFC 9110 section 7.6.1)
    HopByHop "drop_hop_by_hop", weight 2 {} "drop what is meant for one hop";
    /// replaces the query string, or removes it
    Query "set_query", weight 4 {
        /// The new query string without `?`; empty for none.
        query: Line as "query" from among(QUERIES),
    } "set the query to {query}";
    /// makes the query so many bytes longer
    PadQuery "pad_query", weight 2 {
        /// How many bytes are added.
        bytes: Count as "bytes" from counts(&[100, 9000]),
    } "make the query {bytes} byte(s) longer";
    /// replaces the path
    Path "set_path", weight 2 {
        /// The new path.
        path: Path as "path" from among(PATHS),
    } "set the path to {path}";
    /// replaces the method
    Method "set_method", weight 2 {
        /// The new method.
        method: Token as "method" from among(&[(1, "POST"), (1, "get"), (1, "BREW")]),
    } "set the method to {method}";
    /// says another version of HTTP/1
    Version "set_version", weight 2 {
        /// The version.
        version: Version as "version" from always(Version::Old),
    } "say HTTP/{version}";
    /// writes bytes right behind the request, in the same write: a first frame, or another request
    Follow "follow_request", weight 2 {
        /// The bytes.
        bytes: Raw as "bytes" from among(FOLLOWING),
    } "send {bytes} right behind the request";
}

/// How a request that arrives differs from the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadChange<'a> {
    /// Its head shows it.
    Visible,
    /// The header with this name has a value that the client did not send.
    Value(&'a str),
    /// More bytes follow its head.
    MoreBytes,
}

impl HeadChange<'_> {
    /// The change that client and app get to see.
    pub(super) fn effect(self) -> InjectedEffect {
        match self {
            HeadChange::MoreBytes => InjectedEffect::Distorts,
            HeadChange::Visible | HeadChange::Value(_) => InjectedEffect::None,
        }
    }
}

impl HeadEdit {
    /// The header it changes, if it changes one.
    pub fn header(&self) -> Option<&str> {
        match self {
            HeadEdit::Pad { header, .. } | HeadEdit::Set { header, .. } | HeadEdit::Add { header, .. } => Some(header),
            // The value stays as it is.
            HeadEdit::Capitalize { .. } | HeadEdit::Move { .. } => None,
            edit => edit.needs(),
        }
    }

    /// The header that must be there for the edit to act.
    pub fn needs(&self) -> Option<&str> {
        self.facts().0
    }

    /// How the request that arrives differs from the one that was sent.
    pub fn change(&self) -> HeadChange<'_> {
        self.facts().1
    }

    /// The header that must be there for the edit to act, and what the edit does to the request.
    fn facts(&self) -> (Option<&str>, HeadChange<'_>) {
        match self {
            HeadEdit::Strip { header }
            | HeadEdit::Rename { header, .. }
            | HeadEdit::Duplicate { header }
            | HeadEdit::Capitalize { header }
            | HeadEdit::Fold { header }
            | HeadEdit::Move { header }
            | HeadEdit::Truncate { header, .. } => (Some(header), HeadChange::Visible),
            HeadEdit::Set { header, .. } | HeadEdit::Add { header, .. } => (None, HeadChange::Value(header)),
            HeadEdit::Follow { .. } => (None, HeadChange::MoreBytes),
            HeadEdit::Pass {}
            | HeadEdit::Lower {}
            | HeadEdit::Pad { .. }
            | HeadEdit::HopByHop {}
            | HeadEdit::Query { .. }
            | HeadEdit::PadQuery { .. }
            | HeadEdit::Path { .. }
            | HeadEdit::Method { .. }
            | HeadEdit::Version { .. } => (None, HeadChange::Visible),
        }
    }

    /// Whether there is anything to act on.
    pub fn applies_to(&self, head: &RequestHead) -> bool {
        self.needs().is_none_or(|header| head.headers.iter().any(|(name, _)| is_name(name, header)))
    }

    /// Changes the head.
    // Long: an arm for each edit.
    pub fn apply(&self, head: &mut RequestHead) {
        match self {
            HeadEdit::Pass {} | HeadEdit::Follow { .. } => {}
            HeadEdit::Strip { header } => head.headers.retain(|(name, _)| !is_name(name, header)),
            HeadEdit::Rename { header, to } => {
                fields(head, header).for_each(|(name, _)| *name = to.0.clone().into());
            }
            HeadEdit::Duplicate { header } => {
                let again = head.headers.iter().filter(|(name, _)| is_name(name, header)).cloned().collect::<Vec<_>>();
                head.headers.extend(again);
            }
            HeadEdit::Capitalize { header } => {
                fields(head, header).for_each(|(name, _)| *name = name.to_ascii_uppercase().into());
            }
            HeadEdit::Lower {} => {
                head.headers.iter_mut().for_each(|(name, _)| *name = name.to_ascii_lowercase().into());
            }
            HeadEdit::Fold { header } => {
                fields(head, header).for_each(|(_, value)| *value = [b"\r\n ", value.as_ref()].concat().into());
            }
            HeadEdit::Move { header } => head.headers.sort_by_key(|(name, _)| !is_name(name, header)),
            HeadEdit::Truncate { header, bytes } => {
                fields(head, header).for_each(|(_, value)| value.truncate(bytes.0));
            }
            HeadEdit::Pad { header, bytes } => {
                let before = head.headers.iter().position(|(name, _)| is_name(name, header));
                let at = before.unwrap_or_else(|| {
                    head.headers.push((header.0.clone().into(), Bytes::new()));
                    head.headers.len() - 1
                });
                let value = &mut head.headers[at].1;
                let mut padded = value.to_vec();
                padded.resize(bytes.0.max(padded.len()), b'x');
                *value = padded.into();
            }
            HeadEdit::Set { header, value } => {
                head.headers.retain(|(name, _)| !is_name(name, header));
                head.headers.push((header.0.clone().into(), value.0.clone().into()));
            }
            HeadEdit::Add { header, value } => head.headers.push((header.0.clone().into(), value.0.clone().into())),
            HeadEdit::HopByHop {} => drop_hop_by_hop(head),
            HeadEdit::Query { query } => {
                let (path, _) = head.path_and_query();
                head.target = target(&path, query);
            }
            HeadEdit::PadQuery { bytes } => {
                let (path, query) = head.path_and_query();
                let mut query = query.to_vec();
                if !query.is_empty() {
                    query.push(b'&');
                }
                query.resize(query.len() + bytes.0, b'x');
                head.target = target(&path, &query);
            }
            HeadEdit::Path { path } => {
                let (_, query) = head.path_and_query();
                head.target = target(path, &query);
            }
            HeadEdit::Method { method } => head.method.clone_from(method),
            HeadEdit::Version { version } => head.minor_version = u8::from(*version == Version::Current),
        }
    }
}

/// The header fields with this name.
fn fields<'a>(head: &'a mut RequestHead, wanted: &'a Token) -> impl Iterator<Item = &'a mut (Bytes, Bytes)> {
    head.headers.iter_mut().filter(move |(name, _)| is_name(name, wanted))
}

/// The headers that are always meant for one connection (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

fn drop_hop_by_hop(head: &mut RequestHead) {
    let connection = head.headers.iter().filter(|(name, _)| is_name(name, "connection"));
    let named: Vec<Vec<u8>> = connection
        .flat_map(|(_, value)| value.split(|&byte| byte == b',').map(|part| part.trim_ascii().to_ascii_lowercase()))
        .collect();
    head.headers.retain(|(name, _)| {
        let name = name.to_ascii_lowercase();
        !HOP_BY_HOP.iter().any(|known| name == known.as_bytes()) && !named.contains(&name)
    });
}

fn target(path: &[u8], query: &[u8]) -> Bytes {
    let mut target = path.to_vec();
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    target.into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Count, HeadEdit, Version};
    use crate::wire::head::{RequestHead, field};

    fn head() -> RequestHead {
        RequestHead {
            method: "GET".to_owned(),
            target: "/ws?a=b".into(),
            minor_version: 1,
            headers: vec![
                field("Host", "x"),
                field("Cookie", "c=1"),
                field("cookie", "d=2"),
                field("Connection", "close, X-Own"),
                field("X-Own", "1"),
            ],
        }
    }

    const REST: &str = "Connection: close, X-Own\r\nX-Own: 1\r\n";

    #[rstest]
    #[case(HeadEdit::Pass {}, "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n")]
    #[case(HeadEdit::Strip { header: "COOKIE".into() }, "GET /ws?a=b HTTP/1.1\r\nHost: x\r\n{rest}\r\n")]
    #[case(
        HeadEdit::Rename { header: "COOKIE".into(), to: "X-Cookie".into() },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nX-Cookie: c=1\r\nX-Cookie: d=2\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Duplicate { header: "host".into() },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}Host: x\r\n\r\n"
    )]
    #[case(
        HeadEdit::Capitalize { header: "host".into() },
        "GET /ws?a=b HTTP/1.1\r\nHOST: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Lower {},
        "GET /ws?a=b HTTP/1.1\r\nhost: x\r\ncookie: c=1\r\ncookie: d=2\r\nconnection: close, X-Own\r\nx-own: 1\r\n\r\n"
    )]
    #[case(
        HeadEdit::Fold { header: "host".into() },
        "GET /ws?a=b HTTP/1.1\r\nHost: \r\n x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Move { header: "cookie".into() },
        "GET /ws?a=b HTTP/1.1\r\nCookie: c=1\r\ncookie: d=2\r\nHost: x\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Truncate { header: "cookie".into(), bytes: Count(1) },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c\r\ncookie: d\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Pad { header: "host".into(), bytes: Count(4) },
        "GET /ws?a=b HTTP/1.1\r\nHost: xxxx\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Pad { header: "X-Pad".into(), bytes: Count(2) },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}X-Pad: xx\r\n\r\n"
    )]
    #[case(
        HeadEdit::Set { header: "Cookie".into(), value: b"\xff".to_vec().into() },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\n{rest}Cookie: \u{fffd}\r\n\r\n"
    )]
    #[case(
        HeadEdit::Add { header: "Host".into(), value: b"y".to_vec().into() },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}Host: y\r\n\r\n"
    )]
    #[case(HeadEdit::HopByHop {}, "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n\r\n")]
    #[case(
        HeadEdit::Query { query: Vec::new().into() },
        "GET /ws HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::PadQuery { bytes: Count(3) },
        "GET /ws?a=b&xxx HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Path { path: b"/other".to_vec().into() },
        "GET /other?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Method { method: "POST".into() },
        "POST /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n"
    )]
    #[case(
        HeadEdit::Version { version: Version::Old },
        "GET /ws?a=b HTTP/1.0\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n{rest}\r\n"
    )]
    fn an_edit_changes_what_it_says(#[case] edit: HeadEdit, #[case] expected: &str) {
        let mut head = head();
        assert!(edit.applies_to(&head));
        edit.apply(&mut head);
        let mut bytes = Vec::new();
        head.encode(&mut bytes);
        assert_eq!(String::from_utf8_lossy(&bytes), expected.replace("{rest}", REST));
    }

    #[test]
    fn an_edit_needs_its_header() {
        let edit = HeadEdit::Strip { header: "Authorization".into() };
        assert!(!edit.applies_to(&head()));
    }
}
