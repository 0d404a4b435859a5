//! Passes one request on to another HTTP/1.1 server and its answer back; upgrades (WebSocket, SPDY/3.1) become a pipe of bytes.
//!
//! An upgrade: the client's `Connection: Upgrade` goes on as it is; when the backend answers 101, that answer goes back and from then on both
//! sides speak their own protocol. Any other answer is an ordinary one, and the backend's connection is closed.
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::metrics::Long;
use crate::node::NodeStream;
use crate::status::Status;

/// Headers that belong to one connection (RFC 9110, 7.6.1), and what no backend may see.
const HOP: [&str; 8] = ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"];

/// How long a client may take to leave once everything has been said.
const LINGER: Duration = Duration::from_secs(10);

pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get(CONNECTION).and_then(|v| v.to_str().ok()).unwrap_or("");
    headers.contains_key(UPGRADE) && connection.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

pub fn strip(headers: &mut HeaderMap) {
    for name in HOP {
        headers.remove(name);
    }
}

/// Ends when the backend has said all and the client has heard it. That the backend no longer listens (it says its last words, and the
/// client still pings) is no reason to keep those words from the client; nor is a connection closed under a client that still speaks,
/// for that resets it, and what was not read yet is lost.
async fn pipe(client: impl AsyncRead + AsyncWrite, backend: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_backend, mut to_backend) = tokio::io::split(backend);
    let forth = async {
        let _broken_when_the_backend_leaves = tokio::io::copy(&mut from_client, &mut to_backend).await;
        let _ = to_backend.shutdown().await;
        let _ = tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await;
    };
    let back = async {
        let _broken_when_the_client_leaves = tokio::io::copy(&mut from_backend, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::pin!(forth, back);
    tokio::select! {
        () = &mut back => {
            let _bounded = tokio::time::timeout(LINGER, forth).await;
        }
        () = &mut forth => back.await,
    }
}

/// Sends `request` over `stream` under the path `uri` (origin form).
pub async fn relay(
    stream: Box<dyn NodeStream>,
    uri: &str,
    host: &str,
    request: Request<Body>,
    shutdown: CancellationToken,
) -> Result<Response<Body>, Status> {
    let failed = |error: &dyn std::fmt::Display| Status::service_unavailable(format!("error trying to reach service: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    let (mut parts, body) = request.into_parts();
    let wants_upgrade = is_upgrade(&parts.headers);
    let counted = parts.extensions.remove::<Arc<Long>>();
    let client_side = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let upgrade = parts.headers.get(UPGRADE).cloned();
    strip(&mut parts.headers);
    parts.headers.remove(http::header::AUTHORIZATION);
    if let (true, Some(protocol)) = (wants_upgrade, upgrade) {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(UPGRADE, protocol);
    }
    parts.headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| Status::bad_request("invalid host"))?);
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = uri.parse::<Uri>().map_err(|_| Status::bad_request("invalid path"))?;
    *outgoing.headers_mut() = parts.headers;
    let answer = sender.send_request(outgoing).await.map_err(|e| failed(&e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = answer.into_parts();
        strip(&mut parts.headers);
        return Ok(Response::from_parts(parts, Body::new(body)));
    }
    upgraded(answer, client_side.filter(|_| wants_upgrade), counted, shutdown)
}

/// Answers a backend's 101, and joins the two connections once the client has it.
pub fn upgraded(
    mut answer: Response<hyper::body::Incoming>,
    client_side: Option<hyper::upgrade::OnUpgrade>,
    counted: Option<Arc<Long>>,
    shutdown: CancellationToken,
) -> Result<Response<Body>, Status> {
    let Some(client_side) = client_side else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let backend_side = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let _counted = counted;
        let (client, backend) = match futures::future::try_join(client_side, backend_side).await {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "upgrade was not completed");
                return;
            }
        };
        shutdown.run_until_cancelled(pipe(TokioIo::new(client), TokioIo::new(backend))).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in answer.headers() {
        if name != HeaderName::from_static("transfer-encoding") {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn last_words_arrive_although_nobody_listens_to_the_client_any_more() {
        // So small that the words do not fit at once.
        let (mut client, client_side) = duplex(8);
        let (mut backend, backend_side) = duplex(64);
        let piped = tokio::spawn(pipe(client_side, backend_side));
        backend.write_all(b"all that was left to say").await.unwrap();
        drop(backend);
        client.write_all(b"ping").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.write_all(b"ping").await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all that was left to say");
        // It may still speak for a while; then it is left.
        assert!(!piped.is_finished());
        tokio::time::sleep(LINGER + Duration::from_secs(1)).await;
        assert!(piped.is_finished());
    }

    #[tokio::test]
    async fn a_client_that_has_no_more_to_say_still_hears() {
        let (mut client, client_side) = duplex(8);
        let (mut backend, backend_side) = duplex(8);
        tokio::spawn(pipe(client_side, backend_side));
        client.write_all(b"ask").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        backend.read_to_string(&mut asked).await.unwrap();
        backend.write_all(b"answer").await.unwrap();
        drop(backend);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!((asked.as_str(), heard.as_str()), ("ask", "answer"));
    }
}
