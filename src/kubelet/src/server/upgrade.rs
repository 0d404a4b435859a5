//! exec, attach and port-forward: the handshake of either protocol, then [`crate::streaming`].

use std::future::Future;
use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use runtime::ExecSpec;
use tracing::debug;

use super::containers::{self, running};
use super::{Body, Query, Refusal};
use crate::images::chain;
use crate::kubelet::Context;
use crate::pod::record;
use crate::streaming::remote::{self, Client, Wanted};
use crate::streaming::websocket::{self, Channels, TUNNEL, Tunnel};
use crate::streaming::forward;

const SPDY: &str = "SPDY/3.1";
/// The newest first. v5 over SPDY does not exist.
const REMOTE_COMMAND: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const PORT_FORWARD: &str = "portforward.k8s.io";

type Io = TokioIo<Upgraded>;

/// How the client wants to speak.
enum Protocol {
    WebSocket { name: String, channels: Channels },
    Tunnel,
    Spdy { name: String },
}

fn header_values<'a>(request: &'a Request<Incoming>, name: &str) -> Vec<&'a str> {
    let all = request.headers().get_all(name).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect()
}

fn upgrade_wanted(request: &Request<Incoming>) -> String {
    header_values(request, "upgrade").join(",")
}

/// Answers 101 and runs `then` on the connection's bytes.
fn accept<F, T>(mut request: Request<Incoming>, protocol: &Protocol, then: F) -> Result<Response<Body>, Refusal>
where
    F: FnOnce(Io) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::CONNECTION, "Upgrade");
    response = match protocol {
        Protocol::Spdy { name } => response.header(header::UPGRADE, SPDY).header("X-Stream-Protocol-Version", name),
        Protocol::WebSocket { .. } | Protocol::Tunnel => {
            let key = request.headers().get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"))?;
            let name = if let Protocol::WebSocket { name, .. } = protocol { name.as_str() } else { TUNNEL };
            response
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, websocket::accept_key(key.as_bytes()))
                .header(header::SEC_WEBSOCKET_PROTOCOL, name)
        }
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => then(TokioIo::new(io)).await,
            Err(error) => debug!(%error, "upgrade"),
        }
    });
    response.body(Empty::new().boxed()).map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

fn remote_protocol(request: &Request<Incoming>) -> Result<Protocol, Refusal> {
    let wanted = upgrade_wanted(request);
    if wanted.eq_ignore_ascii_case("websocket") {
        let offered = header_values(request, "sec-websocket-protocol");
        let (name, channels) = match websocket::choose(offered.iter().copied()) {
            Some((name, channels)) => (name.to_owned(), channels),
            // A client that names no protocol gets the oldest.
            None if offered.is_empty() => ("channel.k8s.io".to_owned(), Channels { base64: false, status: false, closes: false }),
            None => return Err(Refusal::new(StatusCode::FORBIDDEN, format!("unable to upgrade: none of the protocols {offered:?} is supported"))),
        };
        return Ok(Protocol::WebSocket { name, channels });
    }
    if wanted.eq_ignore_ascii_case(SPDY) {
        let offered = header_values(request, "x-stream-protocol-version");
        let name = match REMOTE_COMMAND.iter().find(|known| offered.contains(known)) {
            Some(name) => *name,
            None if offered.is_empty() => "channel.k8s.io",
            None => {
                let known = REMOTE_COMMAND.join(" ");
                return Err(Refusal::new(StatusCode::FORBIDDEN, format!("unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts [{known}]")));
            }
        };
        return Ok(Protocol::Spdy { name: name.into() });
    }
    Err(Refusal::new(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"))
}

fn wanted(query: &Query) -> Result<Wanted, Refusal> {
    let tty = query.flag(&["tty"]);
    let wanted = Wanted {
        stdin: query.flag(&["input", "stdin"]),
        stdout: query.flag(&["output", "stdout"]),
        // With a terminal there is one output.
        stderr: query.flag(&["error", "stderr"]) && !tty,
        tty,
    };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(wanted)
}

async fn client(io: Io, protocol: &Protocol, wanted: Wanted) -> Option<Client> {
    match protocol {
        Protocol::WebSocket { channels, .. } => Some(remote::websocket_client(io, *channels, wanted).await),
        Protocol::Spdy { name } => match remote::spdy_client(io, wanted, name == REMOTE_COMMAND[0]).await {
            Ok(client) => Some(client),
            Err(error) => {
                debug!(%error, "streams of a SPDY client");
                None
            }
        },
        Protocol::Tunnel => None,
    }
}

pub async fn exec(cx: &Arc<Context>, request: Request<Incoming>, namespace: &str, pod: &str, container: &str, query: &Query) -> Result<Response<Body>, Refusal> {
    let wanted = wanted(query)?;
    let command = query.all("command").to_vec();
    if command.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "you must specify at least one command"));
    }
    let instance = running(cx, namespace, pod, container).await?;
    let protocol = Arc::new(remote_protocol(&request)?);
    let (runtime, id, spoken) = (cx.runtime.clone(), instance.id, protocol.clone());
    accept(request, &protocol, move |io| async move {
        let Some(client) = client(io, &spoken, wanted).await else { return };
        let spec = ExecSpec { argv: command, env: Vec::new(), tty: wanted.tty, stdin: wanted.stdin, size: None };
        match runtime.exec(&id, spec).await {
            Ok(session) => remote::exec(client, session).await,
            Err(runtime::Error::Start(error)) => match error.exit_code() {
                // As upstream: a program that cannot be run is an exit code.
                Some(_) => remote::refuse(client, &format!("failed to exec in container: failed to start exec: {error}")).await,
                None => remote::refuse(client, &format!("failed to exec in container: {error}")).await,
            },
            Err(error) => remote::refuse(client, &format!("failed to exec in container: {}", chain(&error))).await,
        }
    })
}

pub async fn attach(cx: &Arc<Context>, request: Request<Incoming>, namespace: &str, pod: &str, container: &str, query: &Query) -> Result<Response<Body>, Refusal> {
    let mut wanted = wanted(query)?;
    let instance = running(cx, namespace, pod, container).await?;
    let spec = containers::pod(cx, namespace, pod)?;
    let tty = spec.spec.as_ref().and_then(|s| record::container(s, container)).and_then(|c| c.tty) == Some(true);
    // The container decides whether there is a terminal.
    wanted.tty = tty;
    wanted.stderr &= !tty;
    let protocol = Arc::new(remote_protocol(&request)?);
    let (runtime, id, spoken) = (cx.runtime.clone(), instance.id, protocol.clone());
    accept(request, &protocol, move |io| async move {
        let Some(client) = client(io, &spoken, wanted).await else { return };
        match runtime.attach(&id).await {
            Ok(session) => remote::attach(client, session).await,
            Err(error) => remote::refuse(client, &format!("failed to attach to container: {}", chain(&error))).await,
        }
    })
}

pub async fn port_forward(cx: &Arc<Context>, request: Request<Incoming>, namespace: &str, pod: &str) -> Result<Response<Body>, Refusal> {
    let found = containers::pod(cx, namespace, pod)?;
    let uid = found.metadata.uid.as_deref().unwrap_or_default();
    let list = cx.runtime.list().await;
    let sandbox = list.into_iter().filter(|s| crate::kubelet::sandbox_uid(&s.id) == uid && s.state == runtime::SandboxState::Ready).max_by_key(|s| s.created_at);
    let sandbox = sandbox.ok_or_else(|| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to find sandbox of pod {pod:?}")))?.id;
    let wanted = upgrade_wanted(&request);
    let protocol = if wanted.eq_ignore_ascii_case("websocket") {
        if !header_values(&request, "sec-websocket-protocol").contains(&TUNNEL) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("port-forward over WebSocket needs the protocol {TUNNEL}")));
        }
        Protocol::Tunnel
    } else if wanted.eq_ignore_ascii_case(SPDY) {
        Protocol::Spdy { name: PORT_FORWARD.into() }
    } else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"));
    };
    let tunnel = matches!(protocol, Protocol::Tunnel);
    let (runtime, pod) = (cx.runtime.clone(), pod.to_owned());
    accept(request, &protocol, move |io| async move {
        if tunnel {
            forward::serve(Tunnel::new(websocket::server(io).await), runtime, sandbox, pod).await;
        } else {
            forward::serve(io, runtime, sandbox, pod).await;
        }
    })
}
