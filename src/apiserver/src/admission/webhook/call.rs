//! One POST to a webhook: HTTPS/1.1, to a ready endpoint of its Service or to the host of its URL.
//!
//! Models pkg/util/webhook/client.go. Each call has a connection of its own: no endpoint that is gone is asked again.
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::tree::Tree;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::hook::{Hook, Target};
use crate::cache::Cache;
use crate::endpoints;

/// An answer is an object's patch at most.
const ANSWER_BYTES_MAX: usize = 10 * 1024 * 1024;
const ERROR_BYTES_SHOWN: usize = 2048;

/// TLS that trusts the certificates of `bundle`, or those that everybody trusts where there is none.
pub fn trusting(bundle: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if bundle.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let added = certificate.map_err(|e| e.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
        added.map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The body of the answer; the error reads as client-go's does.
pub async fn post(cache: &Cache, hook: &Hook, body: Vec<u8>) -> Result<Bytes, String> {
    let seconds = hook.timeout.as_secs();
    let uri = format!("{}?timeout={seconds}s", hook.path);
    let shown = format!("Post \"{}{uri}\"", hook.origin);
    match tokio::time::timeout(hook.timeout, exchange(cache, hook, &uri, &shown, body)).await {
        Ok(result) => result,
        Err(_) => Err(format!("{shown}: context deadline exceeded")),
    }
}

async fn exchange(cache: &Cache, hook: &Hook, uri: &str, shown: &str, body: Vec<u8>) -> Result<Bytes, String> {
    let failed = |error: String| format!("{shown}: {error}");
    let (address, name) = address(cache, hook).await.map_err(failed)?;
    let tls = hook.tls.clone().map_err(failed)?;
    let tcp = TcpStream::connect(address).await.map_err(|e| failed(format!("dial tcp {address}: connect: {}", go_text(&e))))?;
    let _ = tcp.set_nodelay(true); // fails only on a dead socket, which the request notices
    let name = ServerName::try_from(name).map_err(|e| failed(e.to_string()))?;
    let tls = TlsConnector::from(tls).connect(name, tcp).await.map_err(|e| failed(format!("tls: {e}")))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| failed(e.to_string()))?;
    let connection = tokio::spawn(connection);
    let host = hook.origin.trim_start_matches("https://");
    let request = Request::post(uri)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| failed(e.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    let bytes = bytes.map_err(|e| failed(format!("unexpected error when reading response body: {e}")))?.to_bytes();
    if status.is_success() { Ok(bytes) } else { Err(refusal(status, &bytes)) }
}

/// As Go words the errors that are met most.
fn go_text(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::HostUnreachable => "no route to host".into(),
        ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        ErrorKind::TimedOut => "connection timed out".into(),
        _ => error.to_string(),
    }
}

/// Models client-go/rest/request.go newUnstructuredResponseError: a Status speaks for itself.
fn refusal(code: StatusCode, body: &[u8]) -> String {
    let status = Tree::from_json(body).ok().filter(|tree| tree.str_at(&["kind"]) == "Status");
    if let Some(message) = status.as_ref().map(|s| s.str_at(&["message"])).filter(|m| !m.is_empty()) {
        return message.to_owned();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_BYTES_SHOWN)]);
    let text = text.trim();
    match code {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".into(),
        StatusCode::UNAUTHORIZED => "the server has asked for the client to provide credentials".into(),
        StatusCode::FORBIDDEN if text.is_empty() => "unknown".into(),
        StatusCode::FORBIDDEN => text.to_owned(),
        code if code.is_server_error() => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        _ => "the server rejected our request for an unknown reason".into(),
    }
}

/// Where to, and the name that the certificate must have.
async fn address(cache: &Cache, hook: &Hook) -> Result<(SocketAddr, String), String> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    match &hook.target {
        None => Err("webhook configuration must have either service or URL".into()),
        Some(Target::Service { namespace, name, port }) => {
            let service = cache.get("", "services", namespace, name).ok_or_else(|| format!("service {name:?} not found"))?.tree();
            let ports = service.array_at(&["spec", "ports"]);
            let found = ports.iter().find(|p| p.get("port").and_then(Tree::as_i64) == Some(i64::from(*port)));
            let found = found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
            let all = endpoints::ready(cache, namespace, name, found.str_at(&["name"]));
            if all.is_empty() {
                return Err(format!("no endpoints available for service {name:?}"));
            }
            let (ip, port) = all[TURN.fetch_add(1, Ordering::Relaxed) % all.len()];
            Ok((SocketAddr::new(ip, port), format!("{name}.{namespace}.svc")))
        }
        Some(Target::Host { name, port }) => Ok((SocketAddr::new(resolve(name).await?, *port), name.clone())),
    }
}

/// Without the C library: /etc/resolv.conf is read anew each time, so a changed network is followed.
async fn resolve(host: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    let builder = hickory_resolver::TokioResolver::builder_tokio().map_err(|e| format!("read /etc/resolv.conf: {e}"))?;
    let resolver = builder.build().map_err(|e| e.to_string())?;
    let answer = resolver.lookup_ip(host).await.map_err(|e| format!("dial tcp: lookup {host}: {e}"))?;
    answer.iter().next().ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))
}
