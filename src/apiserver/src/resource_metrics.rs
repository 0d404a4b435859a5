//! `metrics.k8s.io/v1beta1`: what nodes and pods use, answered from the kubelets.
//!
//! Models sigs.k8s.io/metrics-server, whose API this is; `kubectl top` and autoscaling read it. Whoever installs another server for the group
//! (an APIService with a Service) is asked instead. Nothing is read while nobody asks: [`collect`] takes samples on demand.
//! Left out: watches, and OpenAPI documents of the group.
mod collect;
mod parse;

use std::sync::LazyLock;
use std::time::Duration;

use api::meta;
use api::registry::{Resource, ResourceRef};
use api::tree::{Object, Tree};
use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};

pub use collect::Collector;
use collect::{NodeUsage, PodUsage, Usage};

use crate::cache::Cached;
use crate::rest::list::{self, Meta};
use crate::rest::model::Selection;
use crate::rest::options::ListOptions;
use crate::rest::{Call, read};
use crate::server::ApiServer;
use crate::status::Status;

pub const GROUP: &str = "metrics.k8s.io";
pub const VERSION: &str = "v1beta1";

static RESOURCES: LazyLock<[Resource; 2]> =
    LazyLock::new(|| [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)]);

fn resource(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource {
    Resource {
        group: GROUP.into(),
        version: VERSION.into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        plural: plural.into(),
        singular: "".into(),
        namespaced,
        served: true,
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: vec!["get", "list"],
        subresources: Vec::new(),
        storage_version: VERSION.into(),
        storage_version_hash: "".into(),
        custom: None,
    }
}

/// The resources of a group version, if it is this one and this server answers it.
pub fn resources(server: &ApiServer, group: &str, version: &str) -> Vec<ResourceRef> {
    if (group, version) != (GROUP, VERSION) || !server.0.config.serves_metrics {
        return Vec::new();
    }
    RESOURCES.iter().map(ResourceRef::from).collect()
}

pub fn is_it(resource: &Resource) -> bool {
    resource.group == GROUP && resource.custom.is_none()
}

pub async fn handle(call: &Call) -> Result<Response<Body>, Status> {
    let is_list = match call.info.verb {
        "get" => false,
        "list" => true,
        _ => return Err(Status::method_not_allowed_here()),
    };
    let server = &call.server;
    let usage = server.0.resource_metrics.read(server).await;
    if !is_list {
        let found = cached(call, &call.info.namespace).into_iter().find(|object| object.name() == call.info.name);
        let item = found.and_then(|object| item(&usage, &call.resource, &object)).ok_or_else(|| call.not_found())?;
        return read::answer(call, StatusCode::OK, item);
    }
    ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(&call.resource, &call.query)?;
    let selected = cached(call, &call.info.namespace).into_iter().filter(|object| selection.matches(object));
    let items: Vec<Bytes> = selected.filter_map(|object| item(&usage, &call.resource, &object)).collect();
    list::answer_items(call, items, &Meta::default())
}

/// The nodes or pods whose usage is asked for.
fn cached(call: &Call, namespace: &str) -> Vec<std::sync::Arc<Cached>> {
    let namespace = (!namespace.is_empty()).then_some(namespace);
    call.server.0.parts.cache.list("", &call.resource.plural, namespace)
}

/// `None` where there are no two samples yet.
fn item(usage: &Usage, resource: &Resource, object: &Cached) -> Option<Bytes> {
    let mut item = match resource.namespaced {
        false => node(usage.nodes.get(object.name())?),
        true => pod(usage.pods.get(&(object.namespace().to_owned(), object.name().to_owned()))?),
    };
    meta::set_type(&mut item, &resource.api_version(), &resource.kind);
    meta::set_name(&mut item, object.name());
    if resource.namespaced {
        meta::set_namespace(&mut item, object.namespace());
    }
    meta::set_creation_timestamp(&mut item, &crate::rest::storage::now());
    let tree = object.tree();
    if let Some(labels) = tree.at(&["metadata", "labels"]) {
        item.set(&["metadata", "labels"], labels.clone());
    }
    Some(item.to_json().into())
}

fn node(usage: &NodeUsage) -> Tree {
    let mut item = timed(usage.at, usage.window);
    item.set(&["usage"], amounts(usage.cpu_nanos, usage.memory_bytes));
    item
}

fn pod(usage: &PodUsage) -> Tree {
    let mut item = timed(usage.at, usage.window);
    let containers = usage.containers.iter().map(|container| {
        let mut out = Object::new();
        out.insert("name", container.name.as_str());
        out.insert("usage", amounts(container.cpu_nanos, container.memory_bytes));
        Tree::Object(out)
    });
    item.set(&["containers"], Tree::Array(containers.collect()));
    item
}

fn timed(at: jiff::Timestamp, window: Duration) -> Tree {
    let mut item = Tree::object();
    item.set(&["timestamp"], crate::rest::storage::timestamp(at));
    item.set(&["window"], seconds(window));
    item
}

/// As a Go duration prints itself.
fn seconds(window: Duration) -> String {
    let (whole, millis) = (window.as_secs(), window.subsec_millis());
    let (minutes, rest) = (whole / 60, whole % 60);
    let rest = if millis == 0 { rest.to_string() } else { format!("{rest}.{millis:03}").trim_end_matches('0').to_owned() };
    if minutes == 0 { format!("{rest}s") } else { format!("{minutes}m{rest}s") }
}

fn amounts(cpu_nanos: u64, memory_bytes: u64) -> Tree {
    let mut usage = Object::new();
    usage.insert("cpu", if cpu_nanos == 0 { "0".to_owned() } else { format!("{cpu_nanos}n") });
    usage.insert("memory", format!("{}Ki", memory_bytes >> 10));
    Tree::Object(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_windows_read_as_those_of_metrics_server() {
        assert_eq!(amounts(1_234_567, 3 << 20).to_json(), br#"{"cpu":"1234567n","memory":"3072Ki"}"#);
        let printed = [15_020, 2_000, 75_500].map(|millis| seconds(Duration::from_millis(millis)));
        assert_eq!(printed, ["15.02s", "2s", "1m15.5s"]);
    }
}
