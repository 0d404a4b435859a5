//! One request: find its backend, pass it on, pass the answer back.
//!
//! RFC 9110 7.6 (message forwarding): hop-by-hop headers end here. A request goes to the next address when a connection
//! cannot be made, or when a kept connection turns out to be closed before anything of it was sent; so pods that come and
//! go cost no client an answer.
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use crate::backend::Backend;
use crate::routes::Routes;

/// From the request to the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

pub type AnswerBody = Either<Full<Bytes>, Streamed>;

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub ip: IpAddr,
    pub tls: bool,
}

pub async fn handle(routes: Arc<Routes>, peer: Peer, mut request: Request<Incoming>) -> Response<AnswerBody> {
    let host = match request.uri().authority() {
        Some(authority) => authority.to_string(), // HTTP/2
        None => request.headers().get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned(),
    };
    let Some(backend) = routes.find(&host, request.uri().path()) else {
        return plain(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    if prepare(&mut request, peer, &host).is_none() {
        return plain(StatusCode::BAD_REQUEST, "malformed request\n");
    }
    if backend.addresses.is_empty() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "no available server\n");
    }
    let client_upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    match tokio::time::timeout(ANSWER_TIMEOUT, send(backend, request)).await {
        Err(_) => plain(StatusCode::GATEWAY_TIMEOUT, "the backend did not answer in time\n"),
        Ok(Err(error)) => {
            tracing::debug!(host, error, "no answer from a backend");
            plain(StatusCode::BAD_GATEWAY, "the backend could not be reached\n")
        }
        Ok(Ok(answer)) => finish(answer, client_upgrade, backend.clone()),
    }
}

struct Answer {
    response: Response<Incoming>,
    address: std::net::SocketAddr,
    sender: SendRequest<Incoming>,
}

async fn send(backend: &Backend, mut request: Request<Incoming>) -> Result<Answer, String> {
    let mut last = String::new();
    for address in backend.in_turn() {
        loop {
            let (mut sender, fresh) = match backend.take_idle(address) {
                Some(sender) => (sender, false),
                None => match Backend::connect(address).await {
                    Ok(sender) => (sender, true),
                    Err(error) => {
                        last = format!("{address}: {error}");
                        break; // the next address
                    }
                },
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Answer { response, address, sender }),
                Err(mut error) => {
                    last = format!("{address}: {}", error.error());
                    match error.take_message() {
                        Some(unsent) => request = unsent,
                        None => return Err(last), // part of it is gone; only the client may try again
                    }
                    if fresh {
                        break;
                    }
                }
            }
        }
    }
    Err(last)
}

fn finish(answer: Answer, client_upgrade: Option<hyper::upgrade::OnUpgrade>, backend: Arc<Backend>) -> Response<AnswerBody> {
    let Answer { mut response, address, sender } = answer;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client_upgrade else {
            return plain(StatusCode::BAD_GATEWAY, "the backend switched protocols unasked\n");
        };
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
            // Either side may hang up at any time; that is the end, not an error.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
        });
        return response.map(|_| Either::Left(Full::default()));
    }
    remove_hop_by_hop(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    response.map(|body| Either::Right(Streamed { body, home: Some((backend, address, sender)) }))
}

/// Makes the client's request ours; `None` where it cannot be passed on.
fn prepare(request: &mut Request<Incoming>, peer: Peer, host: &str) -> Option<()> {
    let upgrade = request.headers().get(UPGRADE).cloned().filter(|_| lists(request.headers(), "upgrade"));
    remove_hop_by_hop(request.headers_mut());
    if let Some(upgrade) = upgrade {
        request.headers_mut().insert(UPGRADE, upgrade);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    *request.uri_mut() = path.parse::<Uri>().ok()?;
    *request.version_mut() = Version::HTTP_11;
    let host = HeaderValue::from_str(host).ok()?;
    let proto = if peer.tls { "https" } else { "http" };
    let ip = HeaderValue::from_str(&peer.ip.to_canonical().to_string()).ok()?;
    let headers = request.headers_mut();
    headers.insert(HOST, host.clone());
    headers.remove("forwarded");
    headers.insert(HeaderName::from_static("x-forwarded-for"), ip.clone());
    headers.insert(HeaderName::from_static("x-real-ip"), ip);
    headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static(proto));
    headers.insert(HeaderName::from_static("x-forwarded-port"), HeaderValue::from_static(if peer.tls { "443" } else { "80" }));
    Some(())
}

fn lists(headers: &HeaderMap, option: &str) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|o| o.trim().eq_ignore_ascii_case(option))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> =
        headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(|o| o.trim().to_ascii_lowercase()).collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

pub fn plain(status: StatusCode, text: &'static str) -> Response<AnswerBody> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The backend's body; its connection goes back to the idle ones when the body is through.
pub struct Streamed {
    body: Incoming,
    home: Option<(Arc<Backend>, std::net::SocketAddr, SendRequest<Incoming>)>,
}

impl Streamed {
    fn is_through(&mut self) {
        if let Some((backend, address, sender)) = self.home.take() {
            backend.put_idle(address, sender);
        }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None) = polled {
            self.is_through();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.is_through();
        }
    }
}
