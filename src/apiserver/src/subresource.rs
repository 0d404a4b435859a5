//! Everything below an object: `status`, `scale`, `binding`, `eviction`, `token`, and the streams to kubelets and pods.
mod binding;
mod connect;
mod eviction;
mod links;
mod pods;
mod proxy;
pub(crate) mod relay;
pub(crate) mod scale;
mod tls;
mod token;
mod websocket;

use axum::body::Body;
use http::{Request, Response};

use crate::rest::storage::Part;
use crate::rest::{Call, patch, read, update};
use crate::status::Status;

/// Subresources that pass bytes through instead of answering an object.
pub fn is_stream(name: &str) -> bool {
    matches!(name, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Subresources that answer a built-in kind, whatever the object is.
pub fn has_own_kind(name: &str) -> bool {
    name == "scale"
}

pub async fn handle(call: &mut Call, name: &'static str, request: Request<Body>) -> Result<Response<Body>, Status> {
    let part = match name {
        "status" => Some(Part::Status),
        "finalize" => Some(Part::Finalize),
        "approval" => Some(Part::Approval),
        "ephemeralcontainers" => Some(Part::EphemeralContainers),
        "resize" => Some(Part::Resize),
        _ => None,
    };
    match (part, call.info.verb) {
        (Some(_), "get") => return read::get(call).await,
        (Some(part), "update") => return update::update(call, request, part).await,
        (Some(part), "patch") => return patch::patch(call, request, part).await,
        _ => {}
    }
    match (name, call.info.verb) {
        ("scale", _) => scale::handle(call, request).await,
        ("binding", "create") => binding::create(call, request).await,
        ("eviction", "create") => eviction::create(call, request).await,
        ("token", "create") => token::create(call, request).await,
        ("log", "get") => pods::log(call, request).await,
        ("exec" | "attach" | "portforward", "get" | "create") => pods::stream(call, name, request).await,
        ("proxy", _) => proxy::handle(call, request).await,
        _ => Err(Status::method_not_allowed_here()),
    }
}

pub use binding::create as create_binding;
