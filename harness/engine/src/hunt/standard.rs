//! Translates abstract cases into the words of the built-in service. A service file says them in its own words when they
//! are performed, so that a reproducer in these words runs on both.

use super::generate::{Oddity, OwnClients, PlainRequest, Said, Session, Translator, give_header, header, step};
use relapse_core::{
    choices::Choices,
    client::step::{Action, Awaited, ClientStrictness, Concurrency, Request, Step},
};

/// The words of the built-in service.
#[derive(Debug, Clone, Copy)]
pub(super) struct StandardWords;

/// The paths of sessions, each with its weight.
const SESSION_PATHS: [(u32, &str); 7] = [
    (4, "/ws"),
    (1, "/ws/factory"),
    (1, "/ws/isolated"),
    (1, "/websocket"),
    (1, "/ws/test"),
    (1, "/api/v1/websocket"),
    (1, "/v1/ws"),
];

/// The queries of sessions.
const QUERIES: [(u32, &[u8]); 7] = [
    (4, b""),
    (1, b"a=b&a=&c=%C3%A9%FF"),
    (1, b"mode=isolated"),
    (1, b"mode=legacy"),
    (1, b"mode=factory&mode=main"),
    (1, b"token"),
    (1, b"%zz&=&%"),
];

/// The paths of plain requests: those of the service, and those that servers and middleware trip over.
const PATHS: [(u32, &[u8]); 19] = [
    (2, b"/health"),
    (2, b"/health/ready"),
    (1, b"/health/live"),
    (2, b"/ws/health"),
    (1, b"/ws/config"),
    (1, b"/ws/beacon"),
    (2, b"/ws/stats"),
    (2, b"/api/threads/"),
    (1, b"/api/session"),
    (1, b"/api/v1/websocket"),
    (1, b"/api/v1/websocket/protected"),
    (1, b"/ws"),
    (1, b"/no/such/path"),
    (1, b"/%00"),
    (1, b"/%ff%fe/"),
    (1, b"/../../etc/passwd"),
    (1, b"/health/./live"),
    (1, b"//health"),
    (1, b"/*"),
];

const METHODS: [&str; 8] = ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PROPFIND", "get", "BREW"];

/// Bodies with their types.
const BODIES: [(&str, &[u8]); 9] = [
    ("application/json", b"{\"type\":\"ping\"}"),
    ("application/json", b"{\"type\":"),
    ("application/json", b"\xff\xfe{}"),
    ("application/json", b"{\"a\":NaN,\"b\":1e999}"),
    ("application/json", b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
    ("application/json; charset=\"", b"{}"),
    ("multipart/form-data", b"--x\r\n\r\n--x--"),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1"),
    ("text/plain", b""),
];

/// The paths that take a body.
const PATHS_WITH_BODY: [(u32, &[u8]); 3] = [(2, b"/ws/beacon"), (1, b"/api/session"), (1, b"/api/threads/")];

/// The paths whose answers take time.
const SLOW_PATHS: [&[u8]; 3] = [b"/ws/stats", b"/api/threads/", b"/health/ready"];

/// A request to an agent.
const AGENT: &str = r#"{"type":"chat","content":"hello","thread_id":"thread of {user}"}"#;

/// A message that asks whether the service is there.
const PING: &str = r#"{"type":"ping"}"#;
/// One byte more than a message may have.
const TOO_MANY_BYTES: usize = 8193;

impl Translator for StandardWords {
    fn session(&self, session: &Session) -> Vec<Step> {
        let choices = session.choices;
        let mut request = Request {
            credential: session.credential,
            places: vec![session.place],
            query: choices.fork("query").weighed(&QUERIES).to_vec(),
            user: session.user.to_owned(),
            // An offered subprotocol may be lost on the way; that is a browser's matter, not the service's.
            client: ClientStrictness::Library,
            give_up: session.give_up,
            ..Request::standard("GET", choices.fork("path").weighed(&SESSION_PATHS))
        };
        session.header.into_iter().for_each(|field| give_header(&mut request, field));
        let offers = choices.fork("offers");
        if offers.fork("is given").happens(1, 10) {
            request.offers = vec![offers.one(&["jwt-auth", "e2e-testing", "graphql-ws"]).to_owned()];
        }
        let opening = [step(Action::Open(request)), wait("connection_established")];
        let said = session.said.iter().flat_map(|said| say(*said));
        opening.into_iter().chain(said).chain(session.aside.clone()).chain([step(session.ending.clone())]).collect()
    }

    fn request(&self, asked: &PlainRequest) -> Vec<Step> {
        let choices = asked.choices;
        let mut request = Request::standard("GET", "/");
        request.path = choices.fork("path").weighed(&PATHS).to_vec();
        request.credential = asked.credential;
        match asked.oddity {
            Oddity::Plain => {}
            Oddity::LostUpgrade => {
                request.headers = vec![
                    (b"Connection"[..].into(), b"keep-alive"[..].into()),
                    (b"Upgrade"[..].into(), b"websocket"[..].into()),
                ];
            }
            Oddity::Method => request.method = choices.fork("method").one(&METHODS).to_owned(),
            Oddity::Body => {
                let (content_type, body) = choices.fork("body").one(&BODIES);
                request.method = "POST".to_owned();
                request.path = choices.fork("path with body").weighed(&PATHS_WITH_BODY).to_vec();
                request.headers = vec![(b"Content-Type"[..].into(), content_type.into())];
                request.body = body.to_vec();
            }
            Oddity::Header => give_header(&mut request, header(choices)),
            Oddity::GiveUp(time) => {
                request.path = choices.fork("slow path").one(&SLOW_PATHS).to_vec();
                request.give_up = Some(time);
            }
        }
        vec![step(Action::Request(request))]
    }

    fn own_clients(&self, _: Choices) -> Option<OwnClients> {
        None
    }

    fn room(&self, crowd: Concurrency) -> Concurrency {
        crowd
    }
}

fn wait(name: &str) -> Step {
    step(Action::Wait(Awaited::Message(name.to_owned())))
}

/// A message, and the wait for its answer.
fn say(said: Said) -> Vec<Step> {
    let (act, answer) = match said {
        Said::Request => (Action::SendText(AGENT.to_owned()), "agent_response_complete"),
        Said::Hasty => return vec![step(Action::SendText(AGENT.to_owned()))],
        Said::Ping => (Action::SendText(PING.to_owned()), "pong"),
        Said::UnknownType => (Action::SendText(r#"{"type":"no_such_type"}"#.to_owned()), "ack"),
        Said::NullType => (Action::SendText(r#"{"type":null}"#.to_owned()), "ack"),
        Said::NotJson => (Action::SendText("not json".to_owned()), "error_message"),
        Said::List => (Action::SendText("[1,2]".to_owned()), "error_message"),
        Said::TooLong => (Action::SendText([PING, &" ".repeat(TOO_MANY_BYTES - PING.len())].concat()), "error_message"),
        Said::Binary => (Action::SendBytes(b"\x00\xff".to_vec()), "error_message"),
        Said::Goodbye => (Action::SendText(r#"{"type":"disconnect"}"#.to_owned()), "disconnect_acknowledged"),
    };
    vec![step(act), wait(answer)]
}
