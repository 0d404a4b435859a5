//! Documents that the server fetches by URL: what an issuer of tokens says of itself, and its keys.
//!
//! As Go's http.Client: up to ten redirects are followed, but to `https` alone.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use rustls::ClientConfig;

use super::{connect, resolve};

const REDIRECTS_MAX: usize = 10;

/// How much one fetch may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub timeout: Duration,
    pub bytes_max: usize,
}

/// The code and body of the answer. `bearer` is shown to the first host only.
pub async fn get(url: &str, tls: Arc<ClientConfig>, bearer: Option<&str>, limits: Limits) -> Result<(StatusCode, Bytes), String> {
    match tokio::time::timeout(limits.timeout, follow(url, tls, bearer, limits.bytes_max)).await {
        Ok(result) => result.map_err(|error| format!("Get {url:?}: {error}")),
        Err(_) => Err(format!("Get {url:?}: context deadline exceeded")),
    }
}

async fn follow(url: &str, tls: Arc<ClientConfig>, bearer: Option<&str>, bytes_max: usize) -> Result<(StatusCode, Bytes), String> {
    let mut uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    let first = uri.authority().cloned();
    for _ in 0..=REDIRECTS_MAX {
        if uri.scheme_str() != Some("https") {
            return Err(format!("unsupported protocol scheme {:?}", uri.scheme_str().unwrap_or_default()));
        }
        let Some(authority) = uri.authority().cloned() else { return Err("no Host in request URL".into()) };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let address = SocketAddr::new(resolve(&host).await?, authority.port_u16().unwrap_or(443));
        let (mut sender, _connection) = connect(address, host, tls.clone()).await?;
        let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, authority.as_str())
            .header(header::ACCEPT, "*/*")
            .header(header::USER_AGENT, "kube-apiserver");
        if let Some(bearer) = bearer.filter(|_| first.as_ref() == Some(&authority)) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let request = request.body(Full::new(Bytes::new())).map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let location = answer.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        if let Some(location) = location.filter(|_| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)) {
            uri = target(&authority, location)?;
            continue;
        }
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        let body = body.map_err(|error| format!("reading the body (at most {bytes_max} bytes): {error}"))?;
        return Ok((status, body.to_bytes()));
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects"))
}

fn target(from: &http::uri::Authority, location: &str) -> Result<Uri, String> {
    let text =
        if location.starts_with('/') && !location.starts_with("//") { format!("https://{from}{location}") } else { location.to_owned() };
    text.parse().map_err(|error| format!("failed to parse Location header {location:?}: {error}"))
}
