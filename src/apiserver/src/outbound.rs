//! Calls that the server itself makes: to webhooks of admission and conversion, and the way to what a Service or a URL names.
//!
//! Models pkg/util/webhook/client.go and apiserver/pkg/util/proxy. HTTPS/1.1, to a ready endpoint of a Service or to the host of a URL, over
//! [`connections`] that are kept; an endpoint is chosen for each call anew, so none that is gone is asked again.
pub mod call;
pub mod connections;
pub mod get;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use pki::Identity;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cache::Cache;
use crate::endpoints;
use connections::{Connections, To, Trust};

/// An answer is an object's patch at most.
const ANSWER_BYTES_MAX: usize = 10 * 1024 * 1024;
const ERROR_BYTES_SHOWN: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Service {
        namespace: String,
        name: String,
        port: u16,
    },
    /// The host of a URL, without brackets.
    Host {
        name: String,
        port: u16,
    },
}

/// Whom a `clientConfig` names.
pub struct Destination {
    pub target: Option<Target>,
    /// As it is in the request and in errors: `https://name.namespace.svc:443`.
    pub origin: String,
    pub path: String,
    pub tls: Result<Arc<ClientConfig>, String>,
    connections: Connections,
}

impl Destination {
    pub fn of(client: &Tree) -> Self {
        let bundle = STANDARD.decode(client.str_at(&["caBundle"])).unwrap_or_default();
        let (target, origin, path) = target(client);
        Self { target, origin, path, tls: trusting(&bundle, None), connections: Connections::default() }
    }
}

/// Whom to call, and the URL in two parts.
fn target(client: &Tree) -> (Option<Target>, String, String) {
    if let Some(service) = client.get("service").filter(|s| s.as_object().is_some()) {
        let (namespace, name) = (service.str_at(&["namespace"]), service.str_at(&["name"]));
        let port = service.at(&["port"]).and_then(Tree::as_i64).and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
        let path = service.str_at(&["path"]);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let target = Target::Service { namespace: namespace.to_owned(), name: name.to_owned(), port };
        return (Some(target), format!("https://{name}.{namespace}.svc:{port}"), path);
    }
    let url = client.str_at(&["url"]);
    let Ok(uri) = url.parse::<http::Uri>() else { return (None, url.to_owned(), String::new()) };
    let Some(host) = uri.host() else { return (None, url.to_owned(), String::new()) };
    let target = Target::Host { name: host.trim_matches(['[', ']']).to_owned(), port: uri.port_u16().unwrap_or(443) };
    let authority = uri.authority().map_or_else(String::new, ToString::to_string);
    (Some(target), format!("https://{authority}"), uri.path().to_owned())
}

/// TLS that trusts the certificates of `bundle`, or those that everybody trusts where there is none, and shows `identity`.
pub fn trusting(bundle: &[u8], identity: Option<Arc<Identity>>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if bundle.trim_ascii().is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let added = certificate.map_err(|e| e.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
        added.map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The body of the answer; the error reads as client-go's does.
pub async fn post(cache: &Cache, to: &Destination, timeout: Duration, body: Vec<u8>) -> Result<Bytes, String> {
    let uri = format!("{}?timeout={}s", to.path, timeout.as_secs());
    let shown = format!("Post \"{}{uri}\"", to.origin);
    match tokio::time::timeout(timeout, Box::pin(exchange(cache, to, &uri, &shown, body))).await {
        Ok(result) => result,
        Err(_) => Err(format!("{shown}: context deadline exceeded")),
    }
}

async fn exchange(cache: &Cache, to: &Destination, uri: &str, shown: &str, body: Vec<u8>) -> Result<Bytes, String> {
    let failed = |error: String| format!("{shown}: {error}");
    let (way, name) = way(cache, to).map_err(failed)?;
    let tls = to.tls.as_ref().map_err(|error| failed(error.clone()))?;
    let host = to.origin.trim_start_matches("https://");
    let request = Request::post(uri)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| failed(e.to_string()))?;
    let answered = to.connections.call(way, Trust { name: &name, tls }, request, ANSWER_BYTES_MAX).await;
    let (answer, bytes) = answered.map_err(failed)?;
    if answer.status.is_success() { Ok(bytes) } else { Err(refusal(answer.status, &bytes)) }
}

/// A new connection; it ends with what is handed out beside it.
async fn connect(address: SocketAddr, name: String, tls: Arc<ClientConfig>) -> Result<(SendRequest<Full<Bytes>>, AbortOnDrop), String> {
    let tcp = TcpStream::connect(address).await.map_err(|e| format!("dial tcp {address}: connect: {}", go_text(&e)))?;
    let _ = tcp.set_nodelay(true); // fails only on a dead socket, which the request notices
    let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
    let tls = TlsConnector::from(tls).connect(name, tcp).await.map_err(|e| format!("tls: {e}"))?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| e.to_string())?;
    let task = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, AbortOnDrop(task.abort_handle())))
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// As Go words the errors that are met most.
pub fn go_text(error: &std::io::Error) -> String {
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
fn way<'t>(cache: &Cache, to: &'t Destination) -> Result<(To<'t>, Cow<'t, str>), String> {
    match &to.target {
        None => Err("webhook configuration must have either service or URL".into()),
        Some(Target::Service { namespace, name, port }) => {
            Ok((To::Address(service_endpoint(cache, namespace, name, *port)?), format!("{name}.{namespace}.svc").into()))
        }
        Some(Target::Host { name, port }) => Ok((To::Host(name, *port), name.into())),
    }
}

/// One of the ready endpoints behind a Service's port, each in turn.
pub fn service_endpoint(cache: &Cache, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let service = cache.get("", "services", namespace, name).ok_or_else(|| format!("service {name:?} not found"))?.tree();
    let ports = service.array_at(&["spec", "ports"]);
    let found = ports.iter().find(|p| p.get("port").and_then(Tree::as_i64) == Some(i64::from(port)));
    let found = found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let all = endpoints::ready(cache, namespace, name, found.str_at(&["name"]));
    if all.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    let (ip, port) = all[TURN.fetch_add(1, Ordering::Relaxed) % all.len()];
    Ok(SocketAddr::new(ip, port))
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
