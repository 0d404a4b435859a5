//! Requests to a server that a kubeconfig names: one POST, one JSON answer.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use rustls::ClientConfig;

use super::connections::{Connections, To, Trust};
use super::refusal;

const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    pub text: String,
    /// 0: there was no answer.
    pub code: u16,
    /// Another attempt may go well. Models k8s.io/apiserver/pkg/util/webhook DefaultShouldRetry.
    pub may_pass: bool,
    pub timed_out: bool,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whom a request goes to beside its URL: headers that prove who asks, and the name that the certificate must have.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    pub authorization: Option<String>,
    pub server_name: Option<String>,
}

/// How its server is spoken to.
#[derive(Debug)]
pub struct Line {
    pub tls: Arc<ClientConfig>,
    connections: Connections,
}

impl Line {
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls, connections: Connections::default() }
    }
}

pub async fn post(url: &str, line: &Line, with: &Headers, timeout: Duration, body: Vec<u8>) -> Result<Bytes, CallError> {
    let shown = format!("Post \"{url}\"");
    match tokio::time::timeout(timeout, Box::pin(exchange(url, line, with, &shown, body))).await {
        Ok(result) => result,
        Err(_) => Err(CallError { text: format!("{shown}: context deadline exceeded"), code: 0, may_pass: false, timed_out: true }),
    }
}

async fn exchange(url: &str, line: &Line, with: &Headers, shown: &str, body: Vec<u8>) -> Result<Bytes, CallError> {
    let failed = |error: String| {
        let may_pass = error.contains("reset") || error.contains("connection closed");
        CallError { text: format!("{shown}: {error}"), code: 0, may_pass, timed_out: false }
    };
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| failed(error.to_string()))?;
    let Some(authority) = uri.authority() else { return Err(failed("no Host in request URL".into())) };
    let host = authority.host().trim_matches(['[', ']']);
    let to = To::Host(host, authority.port_u16().unwrap_or(443));
    let trust = Trust { name: with.server_name.as_deref().unwrap_or(host), tls: &line.tls };
    let mut request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver");
    if let Some(authorization) = &with.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| failed(error.to_string()))?;
    let (answer, bytes) = line.connections.call(to, trust, request, ANSWER_BYTES_MAX).await.map_err(failed)?;
    let status = answer.status;
    let asks_for_delay = answer.headers.contains_key(header::RETRY_AFTER);
    if status.is_success() {
        return Ok(bytes);
    }
    let may_pass =
        asks_for_delay || matches!(status, StatusCode::INTERNAL_SERVER_ERROR | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    Err(CallError { text: refusal(status, &bytes), code: status.as_u16(), may_pass, timed_out: status == StatusCode::GATEWAY_TIMEOUT })
}
