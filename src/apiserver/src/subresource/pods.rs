//! log, exec, attach, portforward: to the kubelet of the pod's node.
//!
//! Models pkg/registry/core/pod/strategy.go LogLocation, ExecLocation, PortForwardLocation.
use api::meta;
use api::tree::Tree;
use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::{connect, relay, websocket};
use crate::admission::Operation;
use crate::node::NodeStream;
use crate::request::encode;
use crate::rest::Call;
use crate::rest::storage::Part;
use crate::status::Status;

const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

pub async fn dial(call: &Call, node: &str) -> Result<Box<dyn NodeStream>, Status> {
    call.server.0.parts.nodes.dial(node).await.map_err(|error| Status::internal(format!("error dialing backend: {error}")))
}

fn names<'a>(pod: &'a Tree, list: &str) -> Vec<&'a str> {
    pod.array_at(&["spec", list]).iter().map(|c| c.str_at(&["name"])).collect()
}

/// The container meant. Models podStrategy validateContainer.
fn container(pod: &Tree, asked: &str) -> Result<String, Status> {
    let containers = names(pod, "containers");
    let init = names(pod, "initContainers");
    let ephemeral = names(pod, "ephemeralContainers");
    let name = meta::name(pod);
    if !asked.is_empty() {
        let known = containers.iter().chain(&init).chain(&ephemeral).any(|c| *c == asked);
        return if known { Ok(asked.to_owned()) } else { Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))) };
    }
    let default = meta::annotation(pod, DEFAULT_CONTAINER).filter(|c| containers.contains(c));
    match (default, containers.as_slice()) {
        (Some(container), _) => Ok(container.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        (None, several) => {
            let mut text = format!("a container name must be specified for pod {name}, choose one of: [{}]", several.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                text.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(Status::bad_request(text))
        }
    }
}

pub async fn log(call: &Call, mut request: Request<Body>) -> Result<Response<Body>, Status> {
    let websocket = websocket::asked(&mut request)?;
    let pod = call.current()?.tree();
    check_log_options(call)?;
    let container = container(&pod, call.query.get("container").unwrap_or(""))?;
    let node = pod.str_at(&["spec", "nodeName"]);
    if node.is_empty() {
        // Not on any node yet: no log, and no error either.
        return Ok(crate::negotiate::text(StatusCode::OK, ""));
    }
    let mut query = Vec::new();
    for key in ["follow", "previous", "timestamps"] {
        if call.query.flag(key) {
            query.push(format!("{key}=true"));
        }
    }
    for key in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
        if let Some(value) = call.query.nonempty(key) {
            query.push(format!("{key}={}", encode(value)));
        }
    }
    let uri = format!("/containerLogs/{}/{}/{}?{}", encode(&call.info.namespace), encode(&call.info.name), encode(&container), query.join("&"));
    let stream = dial(call, node).await?;
    let request = Request::builder().method(Method::GET).body(Body::empty()).expect("constant request parts are valid");
    let answer = relay::relay(stream, &uri, node, request, call.server.0.shutdown.clone()).await?;
    if answer.status() == StatusCode::OK {
        if let Some(websocket) = websocket {
            return Ok(websocket::send(websocket, answer.into_body()));
        }
        let mut response = crate::negotiate::text(StatusCode::OK, "");
        *response.body_mut() = answer.into_body();
        return Ok(response);
    }
    // The kubelet's own words.
    let code = answer.status();
    let text = Limited::new(answer.into_body(), ERROR_BODY_BYTES_MAX).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    Err(match code {
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(text),
        code => Status::from_backend(code.as_u16(), text),
    })
}

fn check_log_options(call: &Call) -> Result<(), Status> {
    use api::field_error::FieldError;
    let mut errors = Vec::new();
    let mut number = |key: &'static str, min: i64, detail: &str| -> Result<(), Status> {
        let Some(text) = call.query.nonempty(key) else { return Ok(()) };
        let value: i64 = text.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))?;
        if value < min {
            errors.push(FieldError::invalid(key, value, detail));
        }
        Ok(())
    };
    number("tailLines", 0, "must be greater than or equal to 0")?;
    number("limitBytes", 1, "must be greater than 0")?;
    number("sinceSeconds", 1, "must be greater than 0")?;
    if call.query.nonempty("sinceSeconds").is_some() && call.query.nonempty("sinceTime").is_some() {
        errors.push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", &call.info.name, &errors)) }
}

/// exec, attach, portforward.
pub async fn stream(call: &mut Call, kind: &'static str, request: Request<Body>) -> Result<Response<Body>, Status> {
    let pod = call.current()?.tree();
    let target = call.target();
    let options = connect::options(call, kind);
    target.admission_validate(Operation::Connect, Part::Other(kind), options, None, false, &mut call.warnings).await?;
    let node = pod.str_at(&["spec", "nodeName"]);
    let name = &call.info.name;
    if kind != "portforward" {
        let phase = pod.str_at(&["status", "phase"]);
        if matches!(phase, "Succeeded" | "Failed") {
            return Err(Status::bad_request(format!("cannot {kind} into a container in a completed pod; current phase is {phase}")));
        }
    }
    let mut query: Vec<String> = Vec::new();
    let mut path = match kind {
        "portforward" => "portForward".to_owned(),
        other => other.to_owned(),
    };
    path = format!("/{path}/{}/{}", encode(&call.info.namespace), encode(name));
    if kind == "portforward" {
        query.extend(call.query.all("ports").flat_map(|p| p.split(',')).map(|p| format!("port={}", encode(p))));
    } else {
        let container = container(&pod, call.query.get("container").unwrap_or(""))?;
        path = format!("{path}/{}", encode(&container));
        for (flag, kubelet) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
            if call.query.flag(flag) {
                query.push(format!("{kubelet}=1"));
            }
        }
        if kind == "exec" {
            query.extend(call.query.all("command").map(|c| format!("command={}", encode(c))));
            if call.query.get("command").is_none() {
                return Err(Status::bad_request("you must specify at least 1 command for the container"));
            }
        }
        if query.is_empty() || !["stdin", "stdout", "stderr"].iter().any(|f| call.query.flag(f)) {
            return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
        }
    }
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let uri = format!("{path}?{}", query.join("&"));
    let backend = dial(call, node).await?;
    relay::relay(backend, &uri, node, request, call.server.0.shutdown.clone()).await
}
