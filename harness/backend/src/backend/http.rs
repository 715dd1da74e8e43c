//! Plain HTTP: from ASGI events to an axum router and back, through what stands in front of it.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    response::Response,
};
use bytes::Bytes;
use http::{Request, header};
use tokio::sync::Mutex;
use tower::ServiceExt;

use super::{Backend, routes, routes::Raised, websocket::WebSocket};
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::Scope,
    },
    wire::head::{Headers, field, header as find},
};
use relapse_simulate::application::{BoxFuture, Receive, SendEvent};

/// The largest answer of a route, in bytes.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

impl Backend {
    /// Serves one HTTP request. What the framework has around everything answers an exception with 500, where nothing was
    /// answered yet, and lets it through all the same.
    pub(super) async fn serve_http(
        self: Arc<Self>,
        scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> Result<(), Exception> {
        let mut watched = Watched(Arc::new(Mutex::new((send, false))));
        let served = self.serve_inside(scope, receive, Box::new(watched.clone())).await;
        if let Err(exception) = &served
            && !exception.is_cancellation()
            && !watched.0.lock().await.1
        {
            let headers = vec![field("content-length", "21"), field("content-type", "text/plain; charset=utf-8")];
            watched.send(Outbound::ResponseStart { status: 500, headers }).await?;
            let body = b"Internal Server Error".to_vec();
            watched.send(Outbound::ResponseBody { body, more_body: false }).await?;
        }
        served
    }

    async fn serve_inside(
        self: Arc<Self>,
        scope: Scope,
        receive: Box<dyn Receive>,
        mut send: Box<dyn SendEvent>,
    ) -> Result<(), Exception> {
        if self.rewrites(&scope) {
            return self.serve_websocket(WebSocket::new(scope, receive, send)).await;
        }
        let served = async {
            if self.guard_http(&scope, &mut *send).await? {
                return Ok(());
            }
            match Arc::clone(&self).dispatch(&scope, receive, &mut *send).await {
                Ok(()) => Ok(()),
                Err(exception) => self.relabel(exception, &mut *send).await,
            }
        };
        match served.await {
            // The client is gone, so there is no one to answer.
            Err(exception) if exception.is_disconnect() => Ok(()),
            served => served,
        }
    }

    async fn dispatch(
        self: Arc<Self>,
        scope: &Scope,
        mut receive: Box<dyn Receive>,
        send: &mut dyn SendEvent,
    ) -> Result<(), Exception> {
        let mut body = Vec::new();
        while let Inbound::HttpRequest { body: piece, more_body } = receive.receive().await? {
            body.extend_from_slice(&piece);
            if !more_body {
                break;
            }
        }
        let Some(mut request) = to_request(scope, body)? else {
            let body = self.error_body("BAD_REQUEST", "Malformed request.");
            return send_json(send, 400, Vec::new(), body).await;
        };
        // The auth-context middleware, which stands on the platform only, hands bodies on as streams.
        let delivery = if self.environment().is_deployed() { Delivery::Streamed } else { Delivery::Whole };
        let session = self.session(request.headers());
        self.read_session(session.as_ref())?;
        request.extensions_mut().insert(session.unwrap_or_default());
        request.extensions_mut().insert(self);
        let mut response = match routes::router().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if let Some(Raised(exception)) = response.extensions_mut().remove() {
            return Err(exception);
        }
        send_response(send, response, delivery).await
    }
}

/// `send`, and whether an answer was begun with it.
#[derive(Clone)]
struct Watched(Arc<Mutex<(Box<dyn SendEvent>, bool)>>);

impl SendEvent for Watched {
    fn send(&mut self, event: Outbound) -> BoxFuture<'_, Result<(), Exception>> {
        Box::pin(async {
            let mut held = self.0.lock().await;
            held.1 |= matches!(event, Outbound::ResponseStart { .. });
            held.0.send(event).await
        })
    }
}

/// The router's request; `None` when the target is none that a router can read.
fn to_request(scope: &Scope, body: Vec<u8>) -> Result<Option<Request<Body>>, Exception> {
    let mut target = match scope.bytes("raw_path") {
        Ok(raw) => raw.to_vec(),
        Err(_) => scope.str("path")?.as_bytes().to_vec(),
    };
    let query = scope.bytes("query_string")?;
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let mut request = Request::builder().method(scope.str("method")?).uri(target.as_slice());
    for (name, value) in scope.headers()? {
        request = request.header(name, value);
    }
    Ok(request.body(Body::from(body)).ok())
}

/// How a body is handed to the server.
#[derive(Clone, Copy, PartialEq)]
enum Delivery {
    /// In one event.
    Whole,
    /// With an empty last event.
    Streamed,
}

async fn send_response(send: &mut dyn SendEvent, response: Response, delivery: Delivery) -> Result<(), Exception> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, RESPONSE_BYTES_MAX)
        .await
        .map_err(|error| Exception::runtime_error(format!("response body failed: {error}")))?;
    let mut headers: Headers = parts
        .headers
        .iter()
        .map(|(name, value)| (Bytes::copy_from_slice(name.as_ref()), Bytes::copy_from_slice(value.as_ref())))
        .collect();
    if !parts.headers.contains_key(header::CONTENT_LENGTH) {
        headers.push(field("content-length", body.len().to_string()));
    }
    send.send(Outbound::ResponseStart { status: parts.status.as_u16(), headers }).await?;
    if delivery == Delivery::Whole || body.is_empty() {
        return send.send(Outbound::ResponseBody { body: body.to_vec(), more_body: false }).await;
    }
    send.send(Outbound::ResponseBody { body: body.to_vec(), more_body: true }).await?;
    send.send(Outbound::ResponseBody { body: Vec::new(), more_body: false }).await
}

/// Sends a whole JSON answer; its length is among the headers, or added.
pub(super) async fn send_json(
    send: &mut dyn SendEvent,
    status: u16,
    mut headers: Headers,
    body: String,
) -> Result<(), Exception> {
    headers.push(field("content-type", "application/json"));
    if find(&headers, "content-length").is_none() {
        headers.push(field("content-length", body.len().to_string()));
    }
    send.send(Outbound::ResponseStart { status, headers }).await?;
    send.send(Outbound::ResponseBody { body: body.into_bytes(), more_body: false }).await
}
