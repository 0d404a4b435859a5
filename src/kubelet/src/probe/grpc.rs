//! The gRPC health check: one unary call of `grpc.health.v1.Health/Check` over plain HTTP/2.
//!
//! Models pkg/probe/grpc/grpc.go, v1.37. A call is a POST whose body is one frame (a flag byte, four bytes of length, the message) and
//! whose verdict stands in the trailer `grpc-status` (github.com/grpc/grpc PROTOCOL-HTTP2.md). The two messages have one field each,
//! so they are read and written here by hand.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::attempt::{connect, join};
use super::state::Outcome;
use crate::fields::go_quote;
use crate::time;

/// An answer is a few bytes; whoever sends more is no health service.
const ANSWER_BYTES_MAX: usize = 4096;
const UNIMPLEMENTED: u32 = 12;
const DEADLINE_EXCEEDED: u32 = 4;

/// One attempt. Every failure counts as a failed probe, as with the tool grpc_health_probe.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let at = join(host, port);
    let ends = tokio::time::Instant::now() + timeout;
    let stream = match tokio::time::timeout_at(ends, connect_until(host, port, ends)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) | Err(_) => {
            let within = time::go_duration(timeout);
            return Outcome::Failure(format!("timeout: failed to connect service {} within {within}: context deadline exceeded", go_quote(&at)));
        }
    };
    match tokio::time::timeout_at(ends, call(stream, &at, service)).await {
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {}", time::go_duration(timeout))),
        Ok(Err(error)) => Outcome::Failure(format!("error: health rpc probe failed: rpc error: code = Unavailable desc = {error}")),
        Ok(Ok(answer)) => verdict(&answer, timeout),
    }
}

/// gRPC's dialler tries again until its time is up.
async fn connect_until(host: &str, port: u16, ends: tokio::time::Instant) -> Result<tokio::net::TcpStream, String> {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match connect(host, port).await {
            Err(_) if tokio::time::Instant::now() + PAUSE < ends => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: u32,
    message: String,
    body: Bytes,
}

async fn call(stream: tokio::net::TcpStream, authority: &str, service: &str) -> Result<Answer, String> {
    let builder = || http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder().timer(TokioTimer::new()).handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(request(service)))
        .map_err(|e| e.to_string())?;
    let result = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("unexpected HTTP status code received from server: {}", response.status()));
        }
        // An answer without a body carries its verdict in the headers.
        let headers = response.headers().clone();
        let collected = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| e.to_string())?;
        let trailers = collected.trailers().cloned().unwrap_or(headers);
        let text = |name: &str| trailers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let code = text("grpc-status").parse().map_err(|_| "the server sent no grpc-status".to_owned())?;
        Ok(Answer { code, message: text("grpc-message"), body: collected.to_bytes() })
    }
    .await;
    driver.abort();
    result
}

/// HealthCheckRequest { string service = 1; } in a frame.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put(message);
    frame.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn verdict(answer: &Answer, timeout: Duration) -> Outcome {
    match answer.code {
        0 => match serving_status(&answer.body) {
            1 => Outcome::Success,
            other => {
                let name = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"].get(other as usize).map_or_else(|| other.to_string(), |n| (*n).to_owned());
                Outcome::Failure(format!("service unhealthy (responded with {})", go_quote(&name)))
            }
        },
        UNIMPLEMENTED => Outcome::Failure(format!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}", answer.message)),
        DEADLINE_EXCEEDED => Outcome::Failure(format!("timeout: health rpc did not complete within {}", time::go_duration(timeout))),
        code => Outcome::Failure(format!("error: health rpc probe failed: rpc error: code = {} desc = {}", code_name(code), answer.message)),
    }
}

/// google.golang.org/grpc/codes Code.String.
fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied", "ResourceExhausted",
        "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
    ];
    NAMES.get(code as usize).map_or_else(|| format!("Code({code})"), |n| (*n).to_owned())
}

/// HealthCheckResponse { ServingStatus status = 1; }: anything unreadable is UNKNOWN.
fn serving_status(body: &[u8]) -> u64 {
    match body.get(5..) {
        Some([0x08, value, ..]) if *value < 0x80 => u64::from(*value),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_grpc_writes_them() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    #[test]
    fn answers_become_upstreams_words() {
        let check = |code: u32, body: &'static [u8]| {
            let answer = Answer { code, message: "m".into(), body: Bytes::from_static(body) };
            match verdict(&answer, Duration::from_secs(1)) {
                Outcome::Success => "healthy".to_owned(),
                Outcome::Failure(text) => text,
                _ => "other".to_owned(),
            }
        };
        assert_eq!(check(0, &[0, 0, 0, 0, 2, 8, 1]), "healthy");
        assert_eq!(check(0, &[0, 0, 0, 0, 2, 8, 2]), "service unhealthy (responded with \"NOT_SERVING\")");
        assert_eq!(check(0, &[0, 0, 0, 0, 0]), "service unhealthy (responded with \"UNKNOWN\")");
        assert_eq!(check(5, &[]), "error: health rpc probe failed: rpc error: code = NotFound desc = m");
        assert_eq!(check(12, &[]), "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): m");
    }
}
