//! The ASGI server's part, acted out by a named server profile.

mod call;
mod http;
mod lifespan;
mod stop;
mod upgrade;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

pub use lifespan::{Life, listen, live};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::server::stop::StopNotice;
use crate::{
    application::Application,
    link::{Link, Wire, take},
    profile::{Profile, Reception, RefusalAnswer, Reuse},
    recorder::ExchangeRecorder,
};
use relapse_core::{
    record::transcript::{Actor, EventKind, ServerRefusal},
    wire::{
        head::{HeadError, Headers, RequestHead, ResponseHead, field},
        head_limit::HeadExcess,
    },
};

/// Serves one connection to its end: any number of HTTP requests, and a WebSocket behind them. Where the life of the process is
/// given, the connection ends with it.
pub async fn serve(
    link: Link,
    application: Arc<dyn Application>,
    profile: Arc<Profile>,
    scribe: ExchangeRecorder,
    life: Option<watch::Receiver<Life>>,
) {
    let mut wire = Wire::new(link);
    let mut stop = StopNotice::watching(life);
    let mut requests = 0;
    loop {
        let head = tokio::select! {
            biased;
            head = read_head(&mut wire, &profile, &scribe, requests) => head,
            _ = stop.next() => {
                if requests == 0 {
                    scribe.record(Actor::Front, EventKind::CutShort);
                }
                None
            }
        };
        let Some(head) = head else { break };
        // Each request of the connection is an exchange of its own.
        let scribe = scribe.of_request(requests);
        requests += 1;
        let application = Arc::clone(&application);
        let reception = upgrade::receive(&head, &profile.handshake);
        if let Some((excess, over)) = profile.limits.exceeded(&head, reception != Reception::Http) {
            tokio::select! {
                biased;
                () = refuse(&mut wire, over, &profile, &scribe, Some(excess)) => {}
                () = stop.exit() => {}
            }
            break;
        }
        match reception {
            Reception::Accepted => {
                match websocket::serve(wire, head, application, Arc::clone(&profile), scribe, stop).await {
                    Some(kept) => (wire, stop) = kept,
                    None => return,
                }
            }
            Reception::Http => {
                if !http::serve(&mut wire, head, application, &profile, &scribe, &mut stop).await {
                    break;
                }
            }
            Reception::Refused(answer) => {
                refuse(&mut wire, &answer, &profile, &scribe, None).await;
                break;
            }
        }
    }
    let _ = timeout(FLUSH_LIMIT, wire.flush()).await;
}

/// How long a client may take to read the end of an answer.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Reads the head of the connection's request with this number.
async fn read_head(
    wire: &mut Wire,
    profile: &Profile,
    scribe: &ExchangeRecorder,
    number: usize,
) -> Option<RequestHead> {
    loop {
        match RequestHead::decode(&wire.incoming) {
            Ok(Some((head, length))) => {
                take(&mut wire.incoming, length);
                return Some(head);
            }
            Ok(None) if wire.has_ended() => return None,
            Ok(None) => match profile.limits.exceeded_by(wire.incoming.len()) {
                Some((excess, over)) => {
                    refuse(wire, over, profile, &scribe.of_request(number), Some(excess)).await;
                    return None;
                }
                None => {
                    wire.progress().await;
                }
            },
            Err(error) => {
                let status = if error == HeadError::TooLarge { 431 } else { 400 };
                let body = "Invalid HTTP request received.".to_owned();
                let answer = RefusalAnswer::Http { status, content_type: "text/plain; charset=utf-8".to_owned(), body };
                refuse(wire, &answer, profile, &scribe.of_request(number), None).await;
                return None;
            }
        }
    }
}

/// Answers a request on the server's own account; the limit that its head is over is told where that is the reason.
async fn refuse(
    wire: &mut Wire,
    answer: &RefusalAnswer,
    profile: &Profile,
    scribe: &ExchangeRecorder,
    excess: Option<HeadExcess>,
) {
    let refusal = match answer {
        RefusalAnswer::Http { status, .. } => ServerRefusal::Status(*status),
        RefusalAnswer::Hang => ServerRefusal::Silence,
        RefusalAnswer::Close { .. } | RefusalAnswer::Drop => ServerRefusal::Closed,
    };
    scribe.record(Actor::Front, EventKind::RequestRefused { refusal, excess });
    match refusal {
        ServerRefusal::Status(_) => write_answer(&mut wire.outgoing, answer, profile, Reuse::Closed),
        ServerRefusal::Silence => wait_for_end(wire).await,
        ServerRefusal::Closed => {}
    }
}

async fn wait_for_end(wire: &mut Wire) {
    while !wire.has_ended() {
        wire.progress().await;
        wire.incoming.clear();
    }
}

/// Writes an HTTP answer of the server's own, after which it closes.
fn write_answer(outgoing: &mut Vec<u8>, answer: &RefusalAnswer, profile: &Profile, connection: Reuse) {
    if let RefusalAnswer::Http { status, content_type, body } = answer {
        let mut headers = vec![field("content-length", body.len().to_string())];
        if !content_type.is_empty() {
            headers.push(field("content-type", content_type.clone()));
        }
        if connection == Reuse::Closed {
            headers.push(field("connection", "close"));
        }
        add_server(&mut headers, profile);
        ResponseHead { status: *status, headers }.encode(outgoing);
        outgoing.extend_from_slice(body.as_bytes());
    }
}

fn add_server(headers: &mut Headers, profile: &Profile) {
    if !profile.server_header.is_empty() {
        headers.push(field("server", profile.server_header.clone()));
    }
}
