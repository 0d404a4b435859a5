//! Unary gRPC calls over a Unix socket.
//!
//! A call is an HTTP/2 POST whose body is one frame (a flag byte, four bytes of length, the message); its verdict stands in the trailer
//! `grpc-status` (github.com/grpc/grpc PROTOCOL-HTTP2.md). One connection for each call: they are few, and a driver may restart between them.
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;

use crate::server::percent_decode;

/// Upstream's csiTimeout.
pub const TIMEOUT: Duration = Duration::from_secs(120);
/// gRPC's own default for what is received.
const ANSWER_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("rpc error: code = {} desc = {message}", name(.code))]
    Refused { code: u32, message: String },
    #[error("rpc error: code = DeadlineExceeded desc = context deadline exceeded")]
    Timeout,
    #[error("rpc error: code = Unavailable desc = {0}")]
    Unavailable(String),
}

impl CallError {
    /// The volume is not there (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 5, .. })
    }
}

/// google.golang.org/grpc/codes Code.String.
fn name(code: &u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(*code as usize).map_or_else(|| format!("Code({code})"), |name| (*name).to_owned())
}

/// Calls `/SERVICE/METHOD` with a message; the answer's message.
pub async fn call(socket: &Path, method: &str, message: &[u8]) -> Result<Bytes, CallError> {
    match tokio::time::timeout(TIMEOUT, call_now(socket, method, message)).await {
        Ok(result) => result,
        Err(_) => Err(CallError::Timeout),
    }
}

async fn call_now(socket: &Path, method: &str, message: &[u8]) -> Result<Bytes, CallError> {
    let unavailable = |error: String| CallError::Unavailable(error);
    let stream = UnixStream::connect(socket).await.map_err(|e| unavailable(format!("connect to {}: {e}", socket.display())))?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) =
        builder.timer(TokioTimer::new()).handshake(TokioIo::new(stream)).await.map_err(|e| unavailable(e.to_string()))?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://localhost{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "rk-kubelet")
        .body(Full::new(frame(message)))
        .map_err(|e| unavailable(e.to_string()))?;
    let result = async {
        let response = sender.send_request(request).await.map_err(|e| unavailable(e.to_string()))?;
        // An answer without a body carries its verdict in the headers.
        let headers = response.headers().clone();
        let collected = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| unavailable(e.to_string()))?;
        let trailers = collected.trailers().cloned().unwrap_or(headers);
        let text = |name: &str| trailers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        match text("grpc-status").parse() {
            Ok(0) => unframe(collected.to_bytes()).ok_or_else(|| unavailable("the answer is cut short".into())),
            Ok(code) => Err(CallError::Refused { code, message: percent_decode(&text("grpc-message")) }),
            Err(_) => Err(unavailable("the server sent no grpc-status".into())),
        }
    }
    .await;
    driver.abort();
    result
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put(message);
    frame.freeze()
}

/// The message of an answer; compressed ones are never sent to whoever offers no compression.
fn unframe(body: Bytes) -> Option<Bytes> {
    let (head, _) = body.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    (head[0] == 0 && body.len() >= 5 + length).then(|| body.slice(5..5 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_messages_are_as_grpc_writes_them() {
        assert_eq!(&frame(b"ab")[..], [0, 0, 0, 0, 2, b'a', b'b']);
        assert_eq!(unframe(frame(b"ab")).as_deref(), Some(&b"ab"[..]));
        assert_eq!((unframe(Bytes::from_static(&[0, 0, 0, 0, 3, 1])), unframe(Bytes::new())), (None, None));
        assert_eq!(percent_decode("no%20such %C3%A4 100%"), "no such \u{e4} 100%");
        let error = CallError::Refused { code: 5, message: "gone".into() };
        assert_eq!(error.to_string(), "rpc error: code = NotFound desc = gone");
    }
}
