//! A body that goes out as WebSocket messages, for clients that ask for a log that way.
//!
//! Models apimachinery/pkg/util/httpstream/wsstream Reader, v1.37: binary messages, or base64 text for `base64.binary.k8s.io`; what the
//! client sends is read only to notice that it went away.
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::status::Status;

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";
/// Nothing of the client's is wanted.
const INCOMING_BYTES_MAX: usize = 4096;
const BUFFER_BYTES: usize = 16 << 10;
/// How long a client may take to answer a close.
const PARTING: Duration = Duration::from_secs(5);

/// A client that asks for an upgrade to WebSocket; waits for the handshake.
pub struct Asked {
    upgrade: hyper::upgrade::OnUpgrade,
    key: HeaderValue,
    /// `None`: none was offered, and binary is meant.
    protocol: Option<&'static str>,
}

/// `Ok(None)`: an ordinary request.
pub fn asked(request: &mut Request<Body>) -> Result<Option<Asked>, Status> {
    let headers = request.headers();
    let is_websocket = headers.get(UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_websocket).cloned() else { return Ok(None) };
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let offered: Vec<&str> = offers.flat_map(|v| v.split(',')).map(str::trim).filter(|p| !p.is_empty()).collect();
    let protocol = [BINARY, BASE64].into_iter().find(|known| offered.contains(known));
    if protocol.is_none() && !offered.is_empty() {
        return Err(Status::bad_request(format!("requested protocols ({}) are not supported; supported: {BINARY}, {BASE64}", offered.join(", "))));
    }
    let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| Status::bad_request("this connection cannot be upgraded to WebSocket"))?;
    Ok(Some(Asked { upgrade, key, protocol }))
}

/// Accepts the upgrade and sends `body` over it, then closes.
pub fn send(asked: Asked, body: Body) -> Response<Body> {
    let Asked { upgrade, key, protocol } = asked;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => pump(TokioIo::new(upgraded), body, protocol == Some(BASE64)).await,
            Err(error) => tracing::debug!(%error, "upgrade to WebSocket"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 is a header's text");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

async fn pump(io: TokioIo<hyper::upgrade::Upgraded>, mut body: Body, base64: bool) {
    let config = WebSocketConfig::default()
        .read_buffer_size(INCOMING_BYTES_MAX)
        .write_buffer_size(0)
        .max_write_buffer_size(BUFFER_BYTES * 64)
        .max_message_size(Some(INCOMING_BYTES_MAX))
        .max_frame_size(Some(INCOMING_BYTES_MAX));
    let (mut out, mut incoming) = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await.split();
    loop {
        tokio::select! {
            frame = body.frame() => {
                let Some(Ok(frame)) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                for piece in data.chunks(BUFFER_BYTES) {
                    let message = if base64 { Message::text(STANDARD.encode(piece)) } else { Message::binary(data.slice_ref(piece)) };
                    if out.send(message).await.is_err() {
                        return;
                    }
                }
            }
            message = incoming.next() => match message {
                Some(Ok(message)) if !message.is_close() => {}
                _ => return,
            },
        }
    }
    // The client may be gone already. If not, its answer is waited for: what it has not read yet would be lost with the connection.
    if out.close().await.is_ok() {
        let _bounded = tokio::time::timeout(PARTING, async { while let Some(Ok(_)) = incoming.next().await {} }).await;
    }
}
