//! What a man in the middle can do to a request head.

use std::fmt;

use bytes::Bytes;

use crate::head::{RequestHead, readable};

/// One change of a request head. What reaches the server is a well-formed head again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadEdit {
    /// Removes every header with this name, as load balancers do on upgrades.
    Strip {
        /// The header's name, in any case.
        header: String,
    },
    /// Gives every header with this name another one, as proxies do that keep the original under a name of their own.
    Rename {
        /// The header's name, in any case.
        header: String,
        /// Its new name.
        to: String,
    },
    /// Repeats every header with this name (RFC 9110 section 5.3 allows that for lists only).
    Duplicate {
        /// The header's name, in any case.
        header: String,
    },
    /// Writes the header's name in capitals; names have no case (RFC 9110 section 5.1).
    Capitalize {
        /// The header's name, in any case.
        header: String,
    },
    /// Replaces every header with this name by one with this value, or adds it.
    Set {
        /// The header's name.
        header: String,
        /// Its value.
        value: Vec<u8>,
    },
    /// Replaces the query string, or removes it.
    Query {
        /// The new query string without `?`; empty for none.
        query: Vec<u8>,
    },
    /// Replaces the path.
    Path {
        /// The new path.
        path: Vec<u8>,
    },
    /// Replaces the method.
    Method {
        /// The new method.
        method: String,
    },
}

impl HeadEdit {
    /// The edit's name, as cases write it.
    pub fn name(&self) -> &'static str {
        match self {
            HeadEdit::Strip { .. } => "strip_header",
            HeadEdit::Rename { .. } => "rename_header",
            HeadEdit::Duplicate { .. } => "duplicate_header",
            HeadEdit::Capitalize { .. } => "capitalize_header",
            HeadEdit::Set { .. } => "set_header",
            HeadEdit::Query { .. } => "set_query",
            HeadEdit::Path { .. } => "set_path",
            HeadEdit::Method { .. } => "set_method",
        }
    }

    /// The header that must be there for the edit to act.
    pub fn needs(&self) -> Option<&str> {
        match self {
            HeadEdit::Strip { header }
            | HeadEdit::Rename { header, .. }
            | HeadEdit::Duplicate { header }
            | HeadEdit::Capitalize { header } => Some(header),
            HeadEdit::Set { .. } | HeadEdit::Query { .. } | HeadEdit::Path { .. } | HeadEdit::Method { .. } => None,
        }
    }

    /// Whether there is anything to act on.
    pub fn applies_to(&self, head: &RequestHead) -> bool {
        self.needs().is_none_or(|header| head.headers.iter().any(|(name, _)| is_name(name, header)))
    }

    /// Changes the head.
    pub fn apply(&self, head: &mut RequestHead) {
        match self {
            HeadEdit::Strip { header } => head.headers.retain(|(name, _)| !is_name(name, header)),
            HeadEdit::Rename { header, to } => {
                for (name, _) in head.headers.iter_mut().filter(|(name, _)| is_name(name, header)) {
                    *name = to.clone().into();
                }
            }
            HeadEdit::Duplicate { header } => {
                let again = head.headers.iter().filter(|(name, _)| is_name(name, header)).cloned().collect::<Vec<_>>();
                head.headers.extend(again);
            }
            HeadEdit::Capitalize { header } => {
                for (name, _) in head.headers.iter_mut().filter(|(name, _)| is_name(name, header)) {
                    *name = name.to_ascii_uppercase().into();
                }
            }
            HeadEdit::Set { header, value } => {
                head.headers.retain(|(name, _)| !is_name(name, header));
                head.headers.push((header.clone().into(), value.clone().into()));
            }
            HeadEdit::Query { query } => {
                let (path, _) = head.path_and_query();
                head.target = target(&path, query);
            }
            HeadEdit::Path { path } => {
                let (_, query) = head.path_and_query();
                head.target = target(path, &query);
            }
            HeadEdit::Method { method } => head.method.clone_from(method),
        }
    }
}

fn is_name(name: &[u8], header: &str) -> bool {
    name.eq_ignore_ascii_case(header.as_bytes())
}

fn target(path: &[u8], query: &[u8]) -> Bytes {
    let mut target = path.to_vec();
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    target.into()
}

impl fmt::Display for HeadEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadEdit::Strip { header } => write!(f, "strip {header}"),
            HeadEdit::Rename { header, to } => write!(f, "rename {header} to {to}"),
            HeadEdit::Duplicate { header } => write!(f, "send {header} twice"),
            HeadEdit::Capitalize { header } => write!(f, "write {header} in capitals"),
            HeadEdit::Set { header, value } => write!(f, "set {header} to {:?}", readable(value)),
            HeadEdit::Query { query } if query.is_empty() => f.write_str("remove the query"),
            HeadEdit::Query { query } => write!(f, "set the query to {:?}", readable(query)),
            HeadEdit::Path { path } => write!(f, "set the path to {:?}", readable(path)),
            HeadEdit::Method { method } => write!(f, "set the method to {method}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::HeadEdit;
    use crate::head::{RequestHead, field};

    fn head() -> RequestHead {
        RequestHead {
            method: "GET".to_owned(),
            target: "/ws?a=b".into(),
            minor_version: 1,
            headers: vec![field("Host", "x"), field("Cookie", "c=1"), field("cookie", "d=2")],
        }
    }

    fn cookie() -> String {
        "COOKIE".to_owned()
    }

    #[rstest]
    #[case(HeadEdit::Strip { header: cookie() }, "GET /ws?a=b HTTP/1.1\r\nHost: x\r\n\r\n")]
    #[case(
        HeadEdit::Rename { header: cookie(), to: "X-Cookie".to_owned() },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nX-Cookie: c=1\r\nX-Cookie: d=2\r\n\r\n"
    )]
    #[case(
        HeadEdit::Duplicate { header: "host".to_owned() },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\nHost: x\r\n\r\n"
    )]
    #[case(
        HeadEdit::Capitalize { header: "host".to_owned() },
        "GET /ws?a=b HTTP/1.1\r\nHOST: x\r\nCookie: c=1\r\ncookie: d=2\r\n\r\n"
    )]
    #[case(
        HeadEdit::Set { header: "Cookie".to_owned(), value: b"\xff".to_vec() },
        "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: \u{fffd}\r\n\r\n"
    )]
    #[case(
        HeadEdit::Query { query: Vec::new() },
        "GET /ws HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n\r\n"
    )]
    #[case(
        HeadEdit::Query { query: b"e=f".to_vec() },
        "GET /ws?e=f HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n\r\n"
    )]
    #[case(
        HeadEdit::Path { path: b"/other".to_vec() },
        "GET /other?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n\r\n"
    )]
    #[case(
        HeadEdit::Method { method: "POST".to_owned() },
        "POST /ws?a=b HTTP/1.1\r\nHost: x\r\nCookie: c=1\r\ncookie: d=2\r\n\r\n"
    )]
    fn an_edit_changes_what_it_says(#[case] edit: HeadEdit, #[case] expected: &str) {
        let mut head = head();
        assert!(edit.applies_to(&head));
        edit.apply(&mut head);
        let mut bytes = Vec::new();
        head.encode(&mut bytes);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    #[test]
    fn an_edit_needs_its_header() {
        let edit = HeadEdit::Strip { header: "Authorization".to_owned() };
        assert!(!edit.applies_to(&head()));
    }
}
