//! The faults by which a load balancer treats a whole connection: how long it may live, and the answer in the server's
//! place.

use super::{
    draw::{PAGE, among, counts, up_to_ms},
    effect::InjectedEnd,
    setting::{Count, Time, faults},
    stream::Direction,
};

faults! {
    /// One fault of a connection. An occasion is a connection.
    ConnectionFault at Edge;
    /// ends the connection so long after it began, whatever it carries
    Lifetime "lifetime", weight 1 {
        /// The time.
        after: Time as "after_ms" from up_to_ms(60_000),
    } "end the connection {after} after it began";
    /// ends the connection when nothing came in this direction, or in either, for so long
    Idle "idle", weight 1 {
        /// The direction that counts.
        direction: Direction as "direction",
        /// The time.
        after: Time as "after_ms" from up_to_ms(60_000),
    } "end the connection after {after} without a byte";
    /// answers in the server's place when it has not begun to answer a request for so long
    LateAnswer "late_answer", weight 2 {
        /// The time.
        after: Time as "after_ms" from up_to_ms(20_000),
        /// The status.
        status: Count as "status" from counts(&[504]),
        /// The page.
        body: String as "body" from among(PAGE),
    } "answer {status} in the server's place after {after}";
    /// answers in the server's place when it cannot be reached, or ends the connection without an answer
    MissingAnswer "missing_answer", weight 2 {
        /// The status.
        status: Count as "status" from counts(&[502]),
        /// The page.
        body: String as "body" from among(PAGE),
    } "answer {status} in the place of a server that is not there";
    /// asks once more, on another connection, when the server ends the connection without an answer to a GET or HEAD
    Retry "retry_request", weight 2 {} "ask once more where the server does not answer";
}

impl ConnectionFault {
    /// The end that it makes of an exchange.
    pub(super) fn end(&self) -> InjectedEnd {
        match self {
            ConnectionFault::Lifetime { .. } | ConnectionFault::Idle { .. } => InjectedEnd::Cut,
            ConnectionFault::LateAnswer { status, .. } | ConnectionFault::MissingAnswer { status, .. } => {
                InjectedEnd::Answer(status.0)
            }
            ConnectionFault::Retry {} => InjectedEnd::None,
        }
    }
}
