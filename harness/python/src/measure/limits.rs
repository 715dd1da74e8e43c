//! The limits on the head of a request, each searched for between a head that passes and one that does not.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{RunningServer, rows::Rows};
use relapse_core::wire::{
    body::{AnsweredMethod, BodyFraming},
    head::{RequestHead, ResponseHead, field, header, readable},
    head_limit::{HeadPart, LimitedRequests},
};
use relapse_simulate::profile::{LimitRule, RefusalAnswer};

/// How long a server may take for an answer before it counts as none.
const HANG_AFTER: Duration = Duration::from_secs(2);
/// The largest head that is tried, in bytes.
const BYTES_TRIED_MAX: usize = 1 << 20;
/// The largest number of fields that is tried.
const FIELDS_TRIED_MAX: usize = 1000;
/// How many heads a step of a search tries at the same time.
const TRIED_AT_ONCE: usize = 8;
/// How often a search is repeated whose result does not hold, as on a machine that is too busy to answer in time.
const SEARCHES_MAX: usize = 3;
/// The size that a field of a large head has at most, in bytes: few limits on a field are lower, and a large head has few.
const FIELD_BYTES: usize = 8000;
/// The bytes of a field line besides its value, with the CRLF.
const FRAME: usize = "x-000: \r\n".len();

/// The part of a head that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// The field lines, by bytes; none is much longer than this.
    Bytes { field: usize },
    /// The target, by bytes.
    Target,
    /// One field, by bytes.
    Field,
    /// The number of fields.
    Fields,
}

/// A head that grows, of one kind of request.
#[derive(Debug, Clone, Copy)]
struct Growing {
    what: Growth,
    on: LimitedRequests,
    method: &'static str,
}

/// A head that was tried.
#[derive(Debug, Clone)]
struct TriedHead {
    head: RequestHead,
    /// The server's answer; `None` where the request came to the application.
    refused: Option<RefusalAnswer>,
}

/// The largest size that passes.
#[derive(Debug, Clone)]
struct Boundary {
    size: usize,
    within: RequestHead,
    /// The answer to the next size.
    over: RefusalAnswer,
}

/// Measures the limits. Those on whole heads and on all lines are looked for on plain requests.
pub(super) async fn limits(stage: &RunningServer) -> Rows {
    let growing = Growing { what: Growth::Bytes { field: FIELD_BYTES }, on: LimitedRequests::Any, method: "GET" };
    let whole = search(stage, growing, BYTES_TRIED_MAX, None).await;
    let is_of_lines = match &whole {
        Some(boundary) => is_of_lines(stage, boundary).await,
        None => false,
    };
    let (target, field, fields) = tokio::join!(
        of_part(stage, Growth::Target, whole.as_ref()),
        of_part(stage, Growth::Field, whole.as_ref()),
        of_part(stage, Growth::Fields, whole.as_ref()),
    );
    let is_of_target = match &target {
        Some((boundary, LimitedRequests::Any)) => is_of_target(stage, boundary).await,
        Some((_, LimitedRequests::Upgrade)) | None => false,
    };
    let whole = whole.map(|boundary| (boundary, LimitedRequests::Any));
    let rule = |found: &Option<(Boundary, LimitedRequests)>, part: HeadPart, is_of_it: bool| {
        let found = found.as_ref().filter(|_| is_of_it);
        found.map(|(boundary, on)| LimitRule {
            on: *on,
            most: part.count(&boundary.within),
            over: boundary.over.clone(),
        })
    };
    let mut rows = Rows::default();
    rows.put("limits", "head", &rule(&whole, HeadPart::Head, !is_of_lines));
    rows.put("limits", "lines", &rule(&whole, HeadPart::Lines, is_of_lines));
    rows.put("limits", "line", &rule(&target, HeadPart::Line, !is_of_target));
    rows.put("limits", "target", &rule(&target, HeadPart::Target, is_of_target));
    rows.put("limits", "field", &rule(&field, HeadPart::Field, true));
    rows.put("limits", "fields", &rule(&fields, HeadPart::Fields, true));
    rows
}

/// The limit on a part, on all requests or on upgrades: one that a head meets well before that on whole heads, or one with
/// another answer behind it.
async fn of_part(stage: &RunningServer, what: Growth, whole: Option<&Boundary>) -> Option<(Boundary, LimitedRequests)> {
    let of_requests = [LimitedRequests::Any, LimitedRequests::Upgrade].map(async |on| {
        let growing = Growing { what, on, method: "GET" };
        if what == Growth::Fields {
            return search(stage, growing, FIELDS_TRIED_MAX, None).await;
        }
        let bytes = whole.map_or(BYTES_TRIED_MAX, |whole| whole.size);
        match (search(stage, growing, bytes / 4 * 3, None).await, whole) {
            (None, Some(whole)) => search(stage, growing, bytes / 4 * 5, Some(&whole.over)).await,
            (found, _) => found,
        }
    });
    let [any, upgrade] = of_requests;
    let (any, upgrade) = tokio::join!(any, upgrade);
    let any = any.map(|boundary| (boundary, LimitedRequests::Any));
    any.or(upgrade.map(|boundary| (boundary, LimitedRequests::Upgrade)))
}

/// Whether the limit on whole heads counts no line ends: it is at the same bytes without them where there are more lines.
async fn is_of_lines(stage: &RunningServer, whole: &Boundary) -> bool {
    let most = HeadPart::Lines.count(&whole.within);
    let what = Growth::Bytes { field: FIELD_BYTES / 4 };
    let growing = Growing { what, on: LimitedRequests::Any, method: "GET" };
    let mut size = whole.size;
    // One more field than before changes how many bytes are line ends.
    for _ in 0..SEARCHES_MAX {
        let tried = attempt(stage, growing, size).await;
        let lines = HeadPart::Lines.count(&tried.head);
        if lines == most {
            let next = attempt(stage, growing, size + 1).await;
            return tried.refused.is_none() && next.refused.is_some();
        }
        size = (size + most).saturating_sub(lines);
    }
    false
}

/// Whether a limit on a request line is one on its target: a longer method does not count.
async fn is_of_target(stage: &RunningServer, boundary: &Boundary) -> bool {
    let growing = Growing { what: Growth::Target, on: LimitedRequests::Any, method: "DELETE" };
    let tried = attempt(stage, growing, boundary.size).await;
    tried.refused.as_ref() != Some(&boundary.over)
}

/// Searches for the largest size that passes; `None` where `far` passes too. With an answer that is known, only another
/// one counts, and `far` has to have another.
async fn search(
    stage: &RunningServer,
    growing: Growing,
    far: usize,
    known: Option<&RefusalAnswer>,
) -> Option<Boundary> {
    let mut found = None;
    for _ in 0..SEARCHES_MAX {
        let beyond = attempt(stage, growing, far).await.refused.filter(|answer| Some(answer) != known)?;
        let is_over = |tried: &TriedHead| match (&tried.refused, known) {
            (refused, None) => refused.is_some(),
            (refused, Some(_)) => *refused == Some(beyond.clone()),
        };
        let (mut within, mut over) = (1, far);
        while over - within > 1 {
            let sizes = between(within, over);
            let tried = join_all(sizes.iter().map(|size| attempt(stage, growing, *size))).await;
            for (size, tried) in sizes.into_iter().zip(tried) {
                if is_over(&tried) {
                    over = size;
                    break;
                }
                within = size;
            }
        }
        let (last, next) = tokio::join!(attempt(stage, growing, within), attempt(stage, growing, over));
        let is_certain = !is_over(&last) && is_over(&next);
        let answer = next.refused.unwrap_or(beyond);
        found = Some(Boundary { size: within, within: last.head, over: answer });
        if is_certain {
            break;
        }
    }
    found
}

/// Sizes between two others, in order.
fn between(within: usize, over: usize) -> Vec<usize> {
    let parts = (over - within).min(TRIED_AT_ONCE + 1);
    (1..parts).map(|part| within + (over - within) * part / parts).collect()
}

/// Tries a head of this size, on a connection of its own: a server may answer and close before it has read the whole head.
async fn attempt(stage: &RunningServer, growing: Growing, size: usize) -> TriedHead {
    let head = growing.head(size);
    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    let mut said = Vec::new();
    let talk = async {
        let (mut reader, mut writer) = TcpStream::connect(stage.server().address()).await?.into_split();
        let read = async {
            while !is_whole(&said) && reader.read_buf(&mut said).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Its failure says nothing: what the server said before it is read all the same.
        let (read, _) = tokio::join!(read, writer.write_all(&bytes));
        read
    };
    let is_hang = timeout(HANG_AFTER, talk).await.is_err();
    let refused = match ResponseHead::decode(&said) {
        Ok(Some((ResponseHead { status: 101 | 200, .. }, _))) => None,
        Ok(Some((answer, length))) => Some(RefusalAnswer::Http {
            status: answer.status,
            content_type: header(&answer.headers, "content-type").map(readable).unwrap_or_default(),
            body: String::from_utf8_lossy(&said[length..]).into_owned(),
        }),
        Ok(None) | Err(_) if is_hang => Some(RefusalAnswer::Hang),
        Ok(None) | Err(_) => Some(RefusalAnswer::Drop),
    };
    TriedHead { head, refused }
}

/// Whether the head of an answer has come, and a body of the length that it announces. Without a length it ends with the
/// connection.
fn is_whole(said: &[u8]) -> bool {
    let Ok(Some((head, length))) = ResponseHead::decode(said) else { return false };
    match BodyFraming::of_answer(&head, AnsweredMethod::Other) {
        BodyFraming::Length(body) => (said.len() - length) as u64 >= body,
        _ => matches!(head.status, 101 | 200),
    }
}

impl Growing {
    /// The head of this size. An application that waits answers an upgrade, and any plain request.
    fn head(self, size: usize) -> RequestHead {
        let mut target = b"/ws/receive/accept/wait?".to_vec();
        let mut headers = match self.on {
            LimitedRequests::Any => vec![field("host", "measured"), field("connection", "close")],
            LimitedRequests::Upgrade => vec![
                field("host", "measured"),
                field("connection", "Upgrade"),
                field("upgrade", "websocket"),
                field("sec-websocket-version", "13"),
                field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ],
        };
        let grown =
            |number: usize, bytes: usize| (Bytes::from(format!("x-{number:03}")), Bytes::from(vec![b'a'; bytes]));
        match self.what {
            Growth::Target => target.resize(target.len() + size, b'q'),
            Growth::Field => headers.push(grown(0, size)),
            Growth::Fields => headers.extend((0..size).map(|number| grown(number, 1))),
            Growth::Bytes { field: most } => {
                let fields = size.div_ceil(most);
                let sizes = (0..fields).map(|number| size / fields + usize::from(number < size % fields));
                headers.extend(sizes.enumerate().map(|(number, bytes)| grown(number, bytes.saturating_sub(FRAME))));
            }
        }
        RequestHead { method: self.method.to_owned(), target: target.into(), minor_version: 1, headers }
    }
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn sizes_lie_between_and_end_the_search() {
        assert_eq!(between(1, 3), [2]);
        assert_eq!(between(0, 100), [11, 22, 33, 44, 55, 66, 77, 88]);
        let (mut within, mut over) = (1, 1 << 20);
        while over - within > 1 {
            let sizes = between(within, over);
            assert!(sizes.first() > Some(&within) && sizes.last() < Some(&over), "{sizes:?}");
            over = sizes.iter().copied().find(|size| *size > 8177).unwrap_or(over);
            within = sizes.into_iter().rev().find(|size| *size <= 8177).unwrap_or(within);
        }
        assert_eq!((within, over), (8177, 8178));
    }
}
