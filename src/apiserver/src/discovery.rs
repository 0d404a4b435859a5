//! What is served: one list a group version (legacy), or all in one document (aggregated).
//!
//! Models k8s.io/apiserver/pkg/endpoints/discovery and discovery/aggregated.
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};

use api::registry::{Resource, ResourceRef, api_version};
use api::tree::{Object, Tree};

use crate::aggregation::{self, ServedGroup, Tie};
use crate::negotiate::{self, Accept, Media};
use crate::server::ApiServer;
use crate::{fixed, resource_metrics, rest};

fn strings<S: AsRef<str>>(items: &[S]) -> Tree {
    Tree::Array(items.iter().map(|s| Tree::from(s.as_ref())).collect())
}

fn object<const N: usize>(fields: [(&str, Tree); N]) -> Tree {
    Tree::Object(fields.into_iter().collect())
}

/// `/api`
pub fn legacy(server: &ApiServer, accept: &Accept, headers: &HeaderMap) -> Response<Body> {
    if let Some(media) = wants_aggregated(headers) {
        return aggregated(server, accept, headers, media, |group| group.name.is_empty());
    }
    let config = &server.0.config;
    let address = object([
        ("clientCIDR", "0.0.0.0/0".into()),
        ("serverAddress", format!("{}:{}", config.advertise_address, config.secure_port).into()),
    ]);
    let tree = object([
        ("kind", "APIVersions".into()),
        ("versions", strings(&["v1"])),
        ("serverAddressByClientCIDRs", Tree::Array(vec![address])),
    ]);
    negotiate::answer_tree(accept, StatusCode::OK, &tree)
}

fn group_tree(group: &ServedGroup) -> Tree {
    let version = |v: &str| object([("groupVersion", api_version(&group.name, v).into()), ("version", v.into())]);
    object([
        ("name", group.name.clone().into()),
        ("versions", Tree::Array(group.versions.iter().map(|v| version(v)).collect())),
        ("preferredVersion", group.versions.first().map_or(Tree::Null, |v| version(v))),
    ])
}

/// The resources of a group version that this server answers itself.
fn of_version(server: &ApiServer, group: &str, version: &str) -> Vec<ResourceRef> {
    let mut all = server.0.parts.cache.kinds().of_version(group, version);
    all.extend(resource_metrics::resources(server, group, version));
    all
}

/// `/apis`
pub fn groups(server: &ApiServer, accept: &Accept, headers: &HeaderMap) -> Response<Body> {
    if let Some(media) = wants_aggregated(headers) {
        return aggregated(server, accept, headers, media, |group| !group.name.is_empty());
    }
    let groups = aggregation::groups(server, Tie::ServiceName).iter().filter(|g| !g.name.is_empty()).map(group_tree).collect();
    let tree = object([("kind", "APIGroupList".into()), ("apiVersion", "v1".into()), ("groups", Tree::Array(groups))]);
    negotiate::answer_tree(accept, StatusCode::OK, &tree)
}

/// `/apis/GROUP`
pub fn group(server: &ApiServer, accept: &Accept, name: &str) -> Response<Body> {
    let groups = aggregation::groups(server, Tie::ServiceName);
    let Some(group) = groups.iter().find(|g| g.name == name && !name.is_empty()) else { return rest::page_not_found() };
    let mut tree = group_tree(group);
    tree.set(&["kind"], "APIGroup");
    tree.set(&["apiVersion"], "v1");
    negotiate::answer_tree(accept, StatusCode::OK, &tree)
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub fn version(server: &ApiServer, accept: &Accept, group: &str, version: &str) -> Response<Body> {
    let served = of_version(server, group, version);
    if served.is_empty() {
        return rest::page_not_found();
    }
    let mut resources: Vec<(String, Tree)> = Vec::new();
    for resource in &served {
        if !resource.verbs.is_empty() {
            resources.push((resource.plural.to_string(), resource_tree(resource)));
        }
        for sub in &resource.subresources {
            let name = format!("{}/{}", &resource.plural, sub.name);
            let mut o = Object::new();
            o.insert("name", name.as_str());
            o.insert("singularName", "");
            o.insert("namespaced", resource.namespaced);
            if (&*sub.kind.group, &*sub.kind.version) != (group, version) {
                if !sub.kind.group.is_empty() {
                    o.insert("group", sub.kind.group.clone());
                }
                o.insert("version", sub.kind.version.clone());
            }
            o.insert("kind", sub.kind.kind.clone());
            o.insert("verbs", strings(&sub.verbs));
            resources.push((name, o.into()));
        }
    }
    resources.sort_by(|a, b| a.0.cmp(&b.0));
    let mut tree = object([
        ("kind", "APIResourceList".into()),
        ("groupVersion", api_version(group, version).into()),
        ("resources", Tree::Array(resources.into_iter().map(|(_, tree)| tree).collect())),
    ]);
    if !group.is_empty() {
        tree.set(&["apiVersion"], "v1");
    }
    negotiate::answer_tree(accept, StatusCode::OK, &tree)
}

fn resource_tree(resource: &Resource) -> Tree {
    let mut o = Object::new();
    o.insert("name", resource.plural.clone());
    o.insert("singularName", resource.singular.clone());
    o.insert("namespaced", resource.namespaced);
    o.insert("kind", resource.kind.clone());
    o.insert("verbs", strings(&resource.verbs));
    if !resource.short_names.is_empty() {
        o.insert("shortNames", strings(&resource.short_names));
    }
    if !resource.categories.is_empty() {
        o.insert("categories", strings(&resource.categories));
    }
    if resource.custom.is_some() {
        o.insert("storageVersionHash", storage_version_hash(resource));
    } else if !resource.storage_version_hash.is_empty() {
        o.insert("storageVersionHash", resource.storage_version_hash.clone());
    }
    o.into()
}

/// Models k8s.io/apiserver/pkg/endpoints/discovery/storageversionhash.go; of built-in kinds it stands among the facts.
fn storage_version_hash(resource: &Resource) -> String {
    let name = format!("{}/{}/{}", resource.group, resource.storage_version, resource.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    STANDARD.encode(&digest.as_ref()[..8])
}

/// How the client takes all in one document, if it asks for that anywhere in its header. Its version v2beta1 is no longer served.
fn wants_aggregated(headers: &HeaderMap) -> Option<Media> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    negotiate::clauses(accept).iter().find_map(|clause| {
        let asked = ["g", "v", "as"].map(|name| clause.parameter(name));
        if asked != [Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")] {
            return None;
        }
        Media::ALL.into_iter().find(|media| clause.covers(media.name()))
    })
}

fn aggregated(server: &ApiServer, accept: &Accept, headers: &HeaderMap, media: Media, wanted: impl Fn(&ServedGroup) -> bool) -> Response<Body> {
    let groups = aggregation::groups(server, Tie::GroupName);
    let items: Vec<Tree> = groups.iter().filter(|g| wanted(g)).map(|group| aggregated_group(server, group)).collect();
    let tree = object([
        ("kind", "APIGroupDiscoveryList".into()),
        ("apiVersion", "apidiscovery.k8s.io/v2".into()),
        ("metadata", Tree::object()),
        ("items", Tree::Array(items)),
    ]);
    let accept = Accept { media, ..*accept };
    fixed::with_etag(headers, &fixed::etag(&tree.to_json()), || {
        let mut response = negotiate::answer_tree(&accept, StatusCode::OK, &tree);
        let named = format!("{};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", media.name());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::try_from(named).expect("a media type is a header's value"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
        response
    })
}

fn aggregated_group(server: &ApiServer, group: &ServedGroup) -> Tree {
    let versions = group.versions.iter().map(|version| {
        let (resources, freshness) = match server.0.aggregation.backend(&group.name, version) {
            None => {
                let own = of_version(server, &group.name, version);
                (own.iter().map(|resource| aggregated_resource(resource)).collect(), "Current")
            }
            // What the other server said last; nothing while it does not answer.
            Some(_) => match server.0.aggregation.document(&group.name, version) {
                Some(document) if document.is_current => (document.resources.clone(), "Current"),
                _ => (Vec::new(), "Stale"),
            },
        };
        object([("version", version.clone().into()), ("resources", Tree::Array(resources)), ("freshness", freshness.into())])
    });
    let metadata = object([("name", group.name.clone().into()), ("creationTimestamp", Tree::Null)]);
    object([("metadata", metadata), ("versions", Tree::Array(versions.collect()))])
}

fn response_kind(group: &str, version: &str, kind: &str) -> Tree {
    object([("group", group.into()), ("version", version.into()), ("kind", kind.into())])
}

fn aggregated_resource(resource: &Resource) -> Tree {
    let mut o = Object::new();
    o.insert("resource", resource.plural.clone());
    o.insert("responseKind", response_kind(&resource.group, &resource.version, &resource.kind));
    o.insert("scope", if resource.namespaced { "Namespaced" } else { "Cluster" });
    o.insert("singularResource", resource.singular.clone());
    o.insert("verbs", strings(&resource.verbs));
    if !resource.short_names.is_empty() {
        o.insert("shortNames", strings(&resource.short_names));
    }
    if !resource.categories.is_empty() {
        o.insert("categories", strings(&resource.categories));
    }
    if !resource.subresources.is_empty() {
        let subs = resource.subresources.iter().map(|sub| {
            object([
                ("subresource", sub.name.into()),
                ("responseKind", response_kind(&sub.kind.group, &sub.kind.version, &sub.kind.kind)),
                ("verbs", strings(&sub.verbs)),
            ])
        });
        o.insert("subresources", Tree::Array(subs.collect()));
    }
    o.into()
}
