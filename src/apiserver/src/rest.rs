//! One handler for every kind: finds the resource, checks verb and scope, and goes to the verb's file.
//!
//! Models k8s.io/apiserver/pkg/endpoints/{installer,handlers} and pkg/registry/generic/registry/store.go.
pub mod body;
pub mod create;
pub mod delete;
pub mod list;
pub mod managed;
pub mod model;
pub mod options;
pub mod patch;
mod pieces;
pub mod read;
pub mod storage;
mod unreadable;
pub mod update;

use std::sync::Arc;

use api::registry::ResourceRef;
use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode};

use crate::auth::UserInfo;
use crate::cache::{self, KindId};
use crate::negotiate::{self, Accept, Offer};
use crate::request::{Query, RequestInfo};
use crate::server::ApiServer;
use crate::status::Status;
use crate::{resource_metrics, review, subresource, watch};

/// One request for a resource, with what every verb needs.
pub struct Call {
    pub server: ApiServer,
    pub user: Arc<UserInfo>,
    pub info: RequestInfo,
    pub query: Query,
    pub headers: HeaderMap,
    pub resource: ResourceRef,
    pub accept: Accept,
    pub warnings: Vec<String>,
}

impl Call {
    /// The stored kind behind the resource.
    pub fn kind(&self) -> Result<KindId, Status> {
        self.server.0.parts.cache.kind(&self.resource).ok_or_else(Status::no_such_path)
    }

    pub fn key(&self) -> Arc<str> {
        cache::key(&self.resource, &self.info.namespace, &self.info.name)
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.resource.group, &self.resource.plural, &self.info.name)
    }

    /// The object the path names, as stored.
    pub fn current(&self) -> Result<Arc<cache::Cached>, Status> {
        let (cache, kind, key) = (&self.server.0.parts.cache, self.kind()?, self.key());
        let (found, _) = cache.get_key(kind, &key);
        found.ok_or_else(|| cache.unreadable(kind, &key).map_or_else(|| self.not_found(), |one| Status::unreadable(&one)))
    }
}

/// What a path names that nobody serves: plain text, as upstream's mux answers.
pub fn page_not_found() -> Response<Body> {
    negotiate::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

pub async fn handle(
    server: ApiServer,
    user: Arc<UserInfo>,
    info: RequestInfo,
    query: Query,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let known = server.0.parts.cache.resource(&info.group, &info.version, &info.resource);
    let metrics = || resource_metrics::resources(&server, &info.group, &info.version).into_iter().find(|r| r.plural == info.resource);
    let Some(resource) = known.or_else(metrics) else {
        // Who waits for a new kind asks again on the same connection.
        body::drain(request.body_mut()).await;
        return Ok(page_not_found());
    };
    // The namespace in the path of the kind `namespaces` is the object itself.
    let mut info = info;
    if resource.group.is_empty() && resource.plural == "namespaces" {
        info.namespace.clear();
    }
    if !resource.namespaced && !info.namespace.is_empty() {
        return Ok(page_not_found());
    }
    if resource.namespaced && info.namespace.is_empty() {
        match info.verb {
            "list" | "watch" => {}
            "create" | "deletecollection" | "update" | "patch" if info.name.is_empty() => return Err(Status::method_not_allowed_here()),
            _ => return Ok(page_not_found()),
        }
    }
    let offer = Offer {
        transforms: info.subresource.is_empty() && !review::is_review(&resource),
        protobuf: resource.custom.is_none() || subresource::has_own_kind(&info.subresource),
        stream: info.verb == "watch",
    };
    let accept = if subresource::is_stream(&info.subresource) {
        Accept::plain(request.headers(), &query)
    } else {
        Accept::parse(request.headers(), &query, offer)?
    };
    let headers = request.headers().clone();
    let mut call = Call { server, user, info, query, headers, resource, accept, warnings: Vec::new() };
    let result = dispatch(&mut call, request).await;
    match result {
        Ok(mut response) => {
            negotiate::add_warnings(&mut response, &call.warnings);
            Ok(response)
        }
        Err(status) => Err(Status { warnings: call.warnings, ..status }),
    }
}

async fn dispatch(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    if !call.info.subresource.is_empty() {
        let Some(sub) = call.resource.subresource(&call.info.subresource).cloned() else {
            // A custom kind has one handler for all that its path may name.
            if call.resource.custom.is_some() {
                return Err(call.not_found());
            }
            return Ok(page_not_found());
        };
        let asked = if call.info.verb == "watch" { "get" } else { call.info.verb };
        let is_stream = subresource::is_stream(sub.name);
        if !is_stream && !sub.verbs.contains(&asked) {
            return Err(Status::method_not_allowed_here());
        }
        if !is_stream && !call.info.rest.is_empty() {
            return Ok(page_not_found());
        }
        return subresource::handle(call, sub.name, request).await;
    }
    let verb = call.info.verb;
    if call.info.name.is_empty() && matches!(verb, "update" | "patch") {
        return Err(Status::method_not_allowed_here());
    }
    if let Some(custom) = &call.resource.custom {
        call.warnings.extend(custom.warning.clone());
        if custom.terminating && verb == "create" {
            return Err(Status::method_not_allowed_because("create not allowed while custom resource definition is terminating"));
        }
    }
    if call.resource.group.is_empty() && call.resource.plural == "endpoints" {
        call.warnings.push("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned());
    }
    if !call.resource.has_verb(verb) && !(verb == "watch" && call.resource.has_verb("list")) {
        return Err(Status::method_not_allowed_here());
    }
    if review::is_review(&call.resource) {
        return review::handle(call, request).await;
    }
    if call.resource.group.is_empty() && call.resource.plural == "componentstatuses" {
        return read::component_statuses(call);
    }
    if resource_metrics::is_it(&call.resource) {
        return resource_metrics::handle(call).await;
    }
    match verb {
        "get" => read::get(call).await,
        "list" => list::list(call).await,
        "watch" => watch::watch(call).await,
        "create" => create::create(call, request).await,
        "update" => update::update(call, request, storage::Part::Main).await,
        "patch" => patch::patch(call, request, storage::Part::Main).await,
        "delete" => delete::delete(call, request).await,
        "deletecollection" => delete::delete_collection(call, request).await,
        _ => Err(Status::method_not_allowed_here()),
    }
}
