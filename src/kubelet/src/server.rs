//! The kubelet's HTTP server, on byte streams that the API server has dialled.
//!
//! Models pkg/kubelet/server/server.go, v1.37. Who may call was decided by the API server; nothing listens on a socket here.

mod containers;
mod stats;
mod upgrade;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tracing::debug;

use crate::kubelet::Context;

pub type Body = BoxBody<Bytes, Infallible>;

/// A refusal: a status code and words, as upstream's kubelet answers.
#[derive(Debug)]
pub struct Refusal {
    pub code: StatusCode,
    pub message: String,
}

impl Refusal {
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

pub async fn serve(cx: Arc<Context>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request| {
        let cx = cx.clone();
        async move { Ok::<_, Infallible>(answer(&cx, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Err(error) = connection.await {
        debug!(%error, "kubelet connection");
    }
}

async fn answer(cx: &Arc<Context>, request: Request<Incoming>) -> Response<Body> {
    match route(cx, request).await {
        Ok(response) => response,
        Err(refusal) => text(refusal.code, refusal.message),
    }
}

async fn route(cx: &Arc<Context>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(percent_decode).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    let get = request.method() == Method::GET;
    let upgrades = get || request.method() == Method::POST;
    match names.as_slice() {
        ["healthz" | "livez" | "readyz", ..] if get => Ok(text(StatusCode::OK, "ok")),
        ["pods"] if get => stats::pods(cx),
        ["stats", "summary"] if get => stats::summary(cx).await,
        ["metrics"] if get => stats::metrics(cx).await,
        ["metrics", "resource"] if get => stats::resource_metrics(cx).await,
        ["containerLogs", namespace, pod, container] if get => containers::logs(cx, namespace, pod, container, &query).await,
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] if upgrades => {
            upgrade::exec(cx, request, namespace, pod, container, &query).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] if upgrades => {
            upgrade::attach(cx, request, namespace, pod, container, &query).await
        }
        ["run", namespace, pod, container] if upgrades => containers::run(cx, namespace, pod, container, &query).await,
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] if upgrades => upgrade::port_forward(cx, request, namespace, pod).await,
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "404 page not found")),
    }
}

pub fn text(code: StatusCode, message: impl Into<Bytes>) -> Response<Body> {
    typed(code, "text/plain; charset=utf-8", message)
}

pub fn typed(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// A body that goes on for as long as something is sent.
pub fn streamed(content_type: &'static str, receiver: mpsc::Receiver<Bytes>) -> Response<Body> {
    let mut response = Response::new(Streamed(receiver).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

struct Streamed(mpsc::Receiver<Bytes>);

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|data| data.map(|d| Ok(Frame::data(d))))
    }
}

/// The parameters of a request.
#[derive(Debug, Default)]
pub struct Query(HashMap<String, Vec<String>>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let mut out: HashMap<String, Vec<String>> = HashMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |t: &str| percent_decode(&t.replace('+', " "));
            out.entry(decode(name)).or_default().push(decode(value));
        }
        Self(out)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// True for `1`, `true` and the bare name.
    pub fn flag(&self, names: &[&str]) -> bool {
        names.iter().filter_map(|n| self.get(n)).any(|v| matches!(v, "1" | "true" | "True" | "t" | ""))
    }
}

/// Of a URL's part, or of a gRPC message (`grpc-message`); what is no escape stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok())).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_keep_order_and_repeat() {
        let query = Query::parse("command=sh&command=-c&command=echo%20a%2Bb+c&tty=1&input");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a+b c"]);
        assert!(query.flag(&["tty"]) && query.flag(&["stdin", "input"]) && !query.flag(&["output"]));
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
    }
}
