//! The limits that servers put on the head of a request.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::head::RequestHead;

/// A part of a request's head that a server limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadPart {
    /// The bytes of the whole head, to the end of the empty line.
    Head,
    /// The bytes of the request line, with its CRLF.
    Line,
    /// The bytes of the request target.
    Target,
    /// The bytes of the longest field line, written `name: value`, with its CRLF.
    Field,
    /// The number of fields.
    Fields,
    /// The bytes of the request line and of all field lines, each without its CRLF.
    Lines,
}

/// The requests that a limit concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitedRequests {
    /// Upgrades to WebSocket.
    Upgrade,
    /// Every request.
    Any,
}

/// A limit of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimit {
    /// The part that is counted.
    pub of: HeadPart,
    /// The requests that are counted.
    pub on: LimitedRequests,
    /// The largest count that passes.
    pub most: usize,
}

/// A head that is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadExcess {
    /// The limit.
    pub limit: HeadLimit,
    /// The count of the part.
    pub count: usize,
}

impl HeadPart {
    /// Counts this part of a head: in bytes, or as a number of fields.
    pub fn count(self, head: &RequestHead) -> usize {
        const LINE_END: usize = "\r\n".len();
        let line = head.method.len() + " ".len() + head.target.len() + " HTTP/1.1".len();
        let fields = head.headers.iter().map(|(name, value)| name.len() + ": ".len() + value.len());
        let lines = line + fields.clone().sum::<usize>();
        match self {
            HeadPart::Head => lines + LINE_END * (head.headers.len() + 2),
            HeadPart::Line => line + LINE_END,
            HeadPart::Target => head.target.len(),
            HeadPart::Field => fields.max().map_or(0, |longest| longest + LINE_END),
            HeadPart::Fields => head.headers.len(),
            HeadPart::Lines => lines,
        }
    }
}

impl HeadLimit {
    /// How far a head is over the limit; `None` where it is not, or the limit does not concern it.
    pub fn excess(self, head: &RequestHead, is_upgrade: bool) -> Option<HeadExcess> {
        let count = self.of.count(head);
        let is_concerned = is_upgrade || self.on == LimitedRequests::Any;
        (is_concerned && count > self.most).then_some(HeadExcess { limit: self, count })
    }
}

impl fmt::Display for HeadExcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeadExcess { limit: HeadLimit { of, most, .. }, count } = self;
        match of {
            HeadPart::Head => write!(f, "the head has {count} bytes, and it takes {most}"),
            HeadPart::Line => write!(f, "the request line has {count} bytes, and it takes {most}"),
            HeadPart::Target => write!(f, "the target has {count} bytes, and it takes {most}"),
            HeadPart::Field => write!(f, "a header line has {count} bytes, and it takes {most}"),
            HeadPart::Fields => write!(f, "the head has {count} fields, and it takes {most}"),
            HeadPart::Lines => write!(f, "the lines of the head have {count} bytes, and it takes {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HeadLimit, HeadPart, LimitedRequests};
    use crate::wire::head::RequestHead;

    const HEAD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Long: 12345\r\n\r\n";

    fn head() -> RequestHead {
        let (head, length) = RequestHead::decode(HEAD).expect("it is well formed").expect("it is whole");
        assert_eq!(length, HEAD.len());
        head
    }

    #[test]
    fn each_part_is_counted_as_it_crossed_the_wire() {
        let counts = [
            (HeadPart::Head, HEAD.len()),
            (HeadPart::Line, "GET /a?b HTTP/1.1\r\n".len()),
            (HeadPart::Target, "/a?b".len()),
            (HeadPart::Field, "X-Long: 12345\r\n".len()),
            (HeadPart::Fields, 2),
            (HeadPart::Lines, "GET /a?b HTTP/1.1".len() + "Host: x".len() + "X-Long: 12345".len()),
        ];
        for (part, expected) in counts {
            assert_eq!(part.count(&head()), expected, "{part:?}");
        }
    }

    #[test]
    fn a_limit_lets_its_most_pass_and_concerns_its_requests() {
        let limit = |most, on| HeadLimit { of: HeadPart::Target, on, most };
        assert_eq!(limit(4, LimitedRequests::Any).excess(&head(), false), None);
        assert_eq!(limit(3, LimitedRequests::Any).excess(&head(), false).map(|excess| excess.count), Some(4));
        assert_eq!(limit(3, LimitedRequests::Upgrade).excess(&head(), false), None);
        assert!(limit(3, LimitedRequests::Upgrade).excess(&head(), true).is_some());
    }
}
