//! pods/proxy, services/proxy, nodes/proxy. Models pkg/registry/core/{pod,service,node}/strategy.go ResourceLocation.
//!
//! The name is `[scheme:]name[:port]`. Pods and Services are dialled directly, nodes through [`crate::NodeDialer`].
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::meta;
use api::tree::Tree;
use axum::body::Body;
use http::header::{LOCATION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;

use super::{connect, links, pods, relay, tls};
use crate::admission::Operation;
use crate::endpoints;
use crate::node::NodeStream;
use crate::rest::Call;
use crate::rest::storage::Part;
use crate::status::Status;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// `[scheme:]name[:port]`
fn split_name(text: &str) -> Option<(&str, &str, &str)> {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [name] => Some(("", name, "")),
        [name, port] => Some(("", name, port)),
        [scheme, name, port] if matches!(*scheme, "" | "http" | "https") => Some((scheme, name, port)),
        _ => None,
    }
}

pub async fn handle(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let plural = call.resource.plural.clone();
    let full = call.info.name.clone();
    let invalid = || Status::bad_request(format!("invalid {} request \"{full}\"", plural.trim_end_matches('s')));
    let (scheme, name, port) = split_name(&full).ok_or_else(invalid)?;
    call.info.name = name.to_owned();
    let object = call.current()?.tree();
    let options = connect::options(call, "proxy");
    call.target().admission_validate(Operation::Connect, Part::Other("proxy"), options, None, false, &mut call.warnings).await?;
    // Relative links of the page need the slash; only the bare path lacks one.
    if call.info.rest.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
        let query = request.uri().query().map_or(String::new(), |q| format!("?{q}"));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(to) = HeaderValue::from_str(&format!("{}/{query}", request.uri().path())) {
            response.headers_mut().insert(LOCATION, to);
        }
        return Ok(response);
    }
    let (stream, host) = match &*plural {
        "nodes" => (pods::dial(call, name).await?, name.to_owned()),
        "pods" => pod_backend(&object, port).await?,
        _ => service_backend(call, &object, port).await?,
    };
    let stream = match (scheme, host.parse::<SocketAddr>()) {
        ("https", Ok(backend)) => {
            let failed = |error| Status::service_unavailable(format!("error trying to reach service: {error}"));
            tls::connect(stream, backend.ip()).await.map_err(failed)?
        }
        // Nodes are reached inside of an encrypted tunnel already.
        _ => stream,
    };
    let path = if call.info.rest.is_empty() { "/" } else { call.info.rest.as_str() };
    let uri = request.uri().query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let outside = request.uri().path().to_owned();
    let answer = relay::relay(stream, &uri, &host, request, call.server.0.shutdown.clone()).await?;
    // The part of the path that named the backend.
    let prefix = outside.strip_suffix(path).unwrap_or(&outside).trim_end_matches('/');
    Ok(links::rewrite(answer, prefix, &host).await)
}

async fn dial(ip: &str, port: u16) -> Result<(Box<dyn NodeStream>, String), Status> {
    let failed = |why: String| Status::service_unavailable(format!("error trying to reach service: dial tcp {ip}:{port}: {why}"));
    let ip: IpAddr = ip.parse().map_err(|_| Status::service_unavailable(format!("address not allowed: {ip}")))?;
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Err(Status::bad_request("address not allowed"));
    }
    let stream = match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((ip, port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed("i/o timeout".to_owned())),
    };
    let _ = stream.set_nodelay(true); // fails only on a dead socket, which the request notices
    Ok((Box::new(stream), format!("{ip}:{port}")))
}

async fn pod_backend(pod: &Tree, port: &str) -> Result<(Box<dyn NodeStream>, String), Status> {
    let first = || {
        let ports = pod.array_at(&["spec", "containers"]).iter().flat_map(|c| c.array_at(&["ports"]));
        ports.filter_map(|p| p.get("containerPort")).find_map(Tree::as_i64)
    };
    let number = if port.is_empty() { first().unwrap_or(80) } else { port.parse().map_err(|_| Status::bad_request(format!("invalid pod request \"{port}\"")))? };
    let number = u16::try_from(number).map_err(|_| Status::bad_request(format!("invalid port {number}")))?;
    dial(pod.str_at(&["status", "podIP"]), number).await
}

async fn service_backend(call: &Call, service: &Tree, port: &str) -> Result<(Box<dyn NodeStream>, String), Status> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let name = meta::name(service);
    let ports = service.array_at(&["spec", "ports"]);
    let found = ports.iter().find(|p| {
        (port.is_empty() && ports.len() == 1)
            || p.str_at(&["name"]) == port
            || p.get("port").and_then(Tree::as_i64).is_some_and(|n| n.to_string() == port)
    });
    let none = || Status::service_unavailable(format!("no endpoints available for service \"{name}\""));
    let unknown = || Status::service_unavailable(format!("no service port \"{port}\" found for service \"{name}\""));
    let port_name = found.ok_or_else(unknown)?.str_at(&["name"]).to_owned();
    let backends = endpoints::ready(&call.server.0.parts.cache, &call.info.namespace, name, &port_name);
    if backends.is_empty() {
        return Err(none());
    }
    let (ip, number) = backends[TURN.fetch_add(1, Ordering::Relaxed) % backends.len()];
    dial(&ip.to_string(), number).await
}
