//! One attempt of a probe or of an httpGet hook: a command in the container, an HTTP request, a TCP connection.
//!
//! Models pkg/probe/{http,tcp,exec}, v1.37; gRPC is in [`super::grpc`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::Runtime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::state::Outcome;
use super::{grpc, tls};
use crate::fields::go_quote;

/// Of a response this much is read (upstream: 10 KiB).
const BODY_BYTES_MAX: usize = 10 * 1024;
const EXEC_BYTES_MAX: usize = 10 * 1024;
const REDIRECTS_MAX: usize = 10;

/// What a probe is aimed at.
pub struct Target {
    pub runtime: Runtime,
    pub container: String,
    pub container_id: String,
    pub pod_ip: String,
    pub spec: Container,
}

impl Target {
    pub async fn attempt(self: &Arc<Self>, probe: &Probe, timeout: Duration) -> Outcome {
        if let Some(exec) = &probe.exec {
            return self.exec(exec.command.clone().unwrap_or_default(), timeout).await;
        }
        if let Some(get) = &probe.http_get {
            return match tokio::time::timeout(timeout, http_get(get, &self.pod_ip, &self.spec, "kube-probe/1.37")).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Failure(format!(
                    "Get {}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                    go_quote(&url_of(get, &self.pod_ip, &self.spec).unwrap_or_default())
                )),
            };
        }
        if let Some(tcp) = &probe.tcp_socket {
            let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&self.pod_ip).to_owned();
            return match port_of(&tcp.port, &self.spec) {
                Ok(port) => self.tcp(&host, port, timeout).await,
                Err(error) => Outcome::Unknown(error),
            };
        }
        if let Some(action) = &probe.grpc {
            let service = action.service.as_deref().unwrap_or_default();
            return match u16::try_from(action.port) {
                Ok(port) if port > 0 => grpc::check(&self.pod_ip, port, service, timeout).await,
                _ => Outcome::Unknown(format!("invalid port number: {}", action.port)),
            };
        }
        Outcome::Unknown(format!("missing probe handler for container {}", self.container))
    }

    async fn exec(&self, command: Vec<String>, timeout: Duration) -> Outcome {
        match self.runtime.exec_sync(&self.container_id, command.clone(), Some(timeout), EXEC_BYTES_MAX).await {
            Ok(output) if output.exit.code == 0 => Outcome::Success,
            Ok(output) => {
                let mut text = output.stdout;
                text.extend(output.stderr);
                Outcome::Failure(String::from_utf8_lossy(&text).into_owned())
            }
            Err(runtime::Error::Timeout { seconds }) => Outcome::Failure(format!("command timed out: {} timed out after {seconds}s", go_quote(&command.join(" ")))),
            Err(runtime::Error::Start(error)) => Outcome::Failure(format!("failed to exec in container: {error}")),
            Err(error) => Outcome::Unknown(error.to_string()),
        }
    }

    async fn tcp(&self, host: &str, port: u16, timeout: Duration) -> Outcome {
        match tokio::time::timeout(timeout, connect(host, port)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => Outcome::Failure(error),
            Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", join(host, port))),
        }
    }
}

pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let at = join(host, port);
    // A name could be looked up by the host's resolver only, which the static binary avoids: addresses and localhost.
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    let ip: std::net::IpAddr = host.parse().map_err(|_| format!("dial tcp: lookup {host}: probes need an IP address as host"))?;
    match TcpStream::connect((ip, port)).await {
        Ok(stream) => {
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Err(error) => Err(format!("dial tcp {at}: connect: {}", cause(&error))),
    }
}

/// The error as Go's net package prints it.
fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::TimedOut => "connection timed out".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        _ => error.to_string(),
    }
}

/// A number, or the name of one of the container's ports.
pub fn port_of(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)) {
            Some(port) => port.container_port,
            None => name.parse().map_err(|_| format!("couldn't find port named {} in container {}", go_quote(name), container.name))?,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

pub fn url_of(get: &HTTPGetAction, pod_ip: &str, container: &Container) -> Result<String, String> {
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let port = port_of(&get.port, container)?;
    let path = get.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!("{scheme}://{}{slash}{path}", join(host, port)))
}

/// One GET, redirects on the same host followed. 200 to 399 is success.
pub async fn http_get(get: &HTTPGetAction, pod_ip: &str, container: &Container, agent: &str) -> Outcome {
    let url = match url_of(get, pod_ip, container) {
        Ok(url) => url,
        Err(error) => return Outcome::Unknown(error),
    };
    let mut at = url.clone();
    let first_host = host_of(&url);
    for _ in 0..=REDIRECTS_MAX {
        let response = match request(&at, get, agent).await {
            Ok(response) => response,
            Err(error) => return Outcome::Failure(format!("Get {}: {error}", go_quote(&at))),
        };
        match response.status {
            300..=399 => match response.location.and_then(|l| resolve(&at, &l)) {
                Some(next) if host_of(&next) == first_host => at = next,
                Some(_) => return Outcome::Warning("Probe terminated redirects, Response body: ".to_owned() + &response.body),
                None => return Outcome::Success,
            },
            200..=299 => return Outcome::Success,
            status => return Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        }
    }
    Outcome::Failure(format!("Get {}: stopped after {REDIRECTS_MAX} redirects", go_quote(&at)))
}

fn host_of(url: &str) -> String {
    url.parse::<http::Uri>().ok().and_then(|u| u.host().map(str::to_owned)).unwrap_or_default()
}

fn resolve(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let base: http::Uri = base.parse().ok()?;
    let authority = base.authority()?.as_str();
    let scheme = base.scheme_str()?;
    let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
    Some(format!("{scheme}://{authority}{path}"))
}

struct Response {
    status: u16,
    location: Option<String>,
    body: String,
}

async fn request(url: &str, get: &HTTPGetAction, agent: &str) -> Result<Response, String> {
    let uri: http::Uri = url.parse().map_err(|e| format!("invalid URL: {e}"))?;
    let https = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let stream = connect(&host, port).await?;
    if https { exchange(tls::connect(stream, &host).await?, &uri, get, agent).await } else { exchange(stream, &uri, get, agent).await }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, uri: &http::Uri, get: &HTTPGetAction, agent: &str) -> Result<Response, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::builder().method("GET").uri(uri.path_and_query().map_or("/", |p| p.as_str()));
    let (mut has_host, mut has_agent, mut has_accept) = (false, false, false);
    for header in get.http_headers.iter().flatten() {
        let lower = header.name.to_ascii_lowercase();
        has_host |= lower == "host";
        has_agent |= lower == "user-agent";
        has_accept |= lower == "accept";
        request = request.header(&header.name, &header.value);
    }
    if !has_host {
        request = request.header("Host", uri.authority().map_or("", |a| a.as_str()));
    }
    if !has_agent {
        request = request.header("User-Agent", agent);
    }
    if !has_accept {
        request = request.header("Accept", "*/*");
    }
    let request = request.header("Connection", "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let result = async {
        let response = sender.send_request(request).await.map_err(|e| http_cause(&e))?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|l| l.to_str().ok()).map(str::to_owned);
        // The verdict stands with the status line; the body is only read for a redirect's message.
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        Ok(Response { status, location, body: String::from_utf8_lossy(&body).into_owned() })
    }
    .await;
    driver.abort();
    result
}

fn http_cause(error: &hyper::Error) -> String {
    if error.is_incomplete_message() { "EOF".into() } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_made_from_ports_by_number_and_by_name() {
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).expect("a container");
        let get = |port: serde_json::Value, path: &str| -> HTTPGetAction { serde_json::from_value(serde_json::json!({"port": port, "path": path})).expect("an action") };
        assert_eq!(url_of(&get(80.into(), "/x?y=1"), "10.0.0.1", &container).as_deref(), Ok("http://10.0.0.1:80/x?y=1"));
        assert_eq!(url_of(&get("web".into(), "ok"), "10.0.0.1", &container).as_deref(), Ok("http://10.0.0.1:8080/ok"));
        assert!(url_of(&get("none".into(), "/"), "10.0.0.1", &container).is_err());
        assert!(url_of(&get(70000.into(), "/"), "10.0.0.1", &container).is_err());
    }

    #[test]
    fn relative_redirects_stay_on_their_host() {
        assert_eq!(resolve("http://a:1/x", "/y").as_deref(), Some("http://a:1/y"));
        assert_eq!(resolve("http://a:1/x", "http://b/y").as_deref(), Some("http://b/y"));
        assert_eq!(host_of("http://a:1/x"), "a");
    }
}
