//! What a backend says it serves, for the documents that this server shows as one.
//!
//! Models kube-aggregator/pkg/apiserver/handler_discovery.go: the backend's aggregated discovery where it has that, else the list of its one
//! group version. Of OpenAPI v3 only the hash is kept; the document itself is fetched from the backend when a client asks for it.
use std::collections::BTreeMap;
use std::time::Duration;

use api::openapi::Foreign;
use api::tree::{Object, Tree};
use bytes::Bytes;
use futures::future::join_all;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::Backend;
use crate::auth::UserInfo;
use crate::cache::Cache;
use crate::server::ApiServer;

const ACCEPT_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// As they stand in a version of the aggregated form.
    pub resources: Vec<Tree>,
    /// Whether the backend answered when it was asked last.
    pub is_current: bool,
    /// Names the state of the OpenAPI v3 document.
    pub openapi_hash: Option<String>,
    /// The backend's list of resources that this was made of.
    list: Vec<u8>,
}

impl Document {
    /// Of a backend that does not answer.
    pub fn stale() -> Self {
        Self::default()
    }

    /// Asks the backend; `list` is its answer at `/apis/GROUP/VERSION`. `before` says what need not be asked again.
    pub async fn read(cache: &Cache, backend: &Backend, list: &[u8], before: Option<&Document>) -> Self {
        if let Some(before) = before.filter(|before| before.is_current && before.list == list) {
            return before.clone();
        }
        let resources = match aggregated(cache, backend).await {
            Some(resources) => resources,
            None => Tree::from_json(list).map(|list| converted(&list, &backend.group, &backend.version)).unwrap_or_default(),
        };
        Self { resources, is_current: true, openapi_hash: openapi_hash(cache, backend).await, list: list.to_vec() }
    }

    /// The backend's OpenAPI v3 document of its group version.
    pub async fn openapi(cache: &Cache, backend: &Backend) -> Option<Bytes> {
        let path = format!("/openapi/v3{}", backend.root());
        let answer = backend.get(cache, &path, "application/json", None, &aggregator(), TIMEOUT).await.ok()?;
        (answer.code == StatusCode::OK).then_some(answer.bytes)
    }
}

/// What the servers behind APIServices add to the OpenAPI v2 document. Who does not answer adds nothing.
pub async fn foreign_openapi(server: &ApiServer) -> Vec<Foreign> {
    let cache = &server.0.parts.cache;
    let table = server.0.aggregation.table();
    let backends = table.values().filter_map(|registered| registered.backend.clone()).filter(|backend| backend.is_available);
    let asked = backends.map(|backend| async move {
        let answer = backend.get(cache, "/openapi/v2", "application/json", None, &aggregator(), TIMEOUT).await.ok()?;
        let document = Tree::from_json(&answer.bytes).ok().filter(|_| answer.code == StatusCode::OK)?;
        Some(Foreign::below(document, &backend.root()))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn aggregated(cache: &Cache, backend: &Backend) -> Option<Vec<Tree>> {
    let user = UserInfo::new("system:kube-aggregator", &["system:masters"]);
    let answer = backend.get(cache, "/apis", ACCEPT_V2, None, &user, TIMEOUT).await.ok()?;
    let media = answer.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let has = |wanted: &str| media.split(';').any(|part| part.trim() == wanted);
    if answer.code != StatusCode::OK || !has("g=apidiscovery.k8s.io") || !has("v=v2") {
        return None;
    }
    let document = Tree::from_json(&answer.bytes).ok()?;
    let group = document.array_at(&["items"]).iter().find(|g| g.str_at(&["metadata", "name"]) == &*backend.group)?;
    let version = group.array_at(&["versions"]).iter().find(|v| v.str_at(&["version"]) == &*backend.version)?;
    let mut resources = version.array_at(&["resources"]).to_vec();
    // Clients of some age cannot read a resource without a kind.
    for resource in &mut resources {
        give_kind(resource);
        resource.at_mut(&["subresources"]).and_then(Tree::as_array_mut).into_iter().flatten().for_each(give_kind);
    }
    Some(resources)
}

fn give_kind(resource: &mut Tree) {
    if resource.get("responseKind").is_none_or(Tree::is_null) {
        let empty = ["group", "version", "kind"].map(|key| (key, ""));
        resource.set(&["responseKind"], Tree::Object(empty.into_iter().collect::<Object>()));
    }
}

/// The list of one version in the aggregated form. Models apiserver/pkg/endpoints/installer.go ConvertGroupVersionIntoToDiscovery.
fn converted(list: &Tree, group: &str, version: &str) -> Vec<Tree> {
    let mut found: Vec<(String, Tree)> = Vec::new();
    let mut subs: BTreeMap<String, Vec<Tree>> = BTreeMap::new();
    for resource in list.array_at(&["resources"]) {
        let text = |key: &str| resource.str_at(&[key]);
        let own = |key: &str, default: &str| if text(key).is_empty() { default.to_owned() } else { text(key).to_owned() };
        let mut kind = Tree::object();
        kind.set(&["group"], own("group", group));
        kind.set(&["version"], own("version", version));
        kind.set(&["kind"], text("kind"));
        let verbs = Tree::Array(resource.array_at(&["verbs"]).to_vec());
        let mut out = Tree::object();
        out.set(&["responseKind"], kind);
        out.set(&["verbs"], verbs);
        if let Some((parent, name)) = text("name").split_once('/') {
            out.set(&["subresource"], name);
            subs.entry(parent.to_owned()).or_default().push(out);
            continue;
        }
        out.set(&["resource"], text("name"));
        let is_namespaced = resource.get("namespaced").and_then(Tree::as_bool).unwrap_or(false);
        out.set(&["scope"], if is_namespaced { "Namespaced" } else { "Cluster" });
        out.set(&["singularResource"], text("singularName"));
        for key in ["shortNames", "categories"] {
            if !resource.array_at(&[key]).is_empty() {
                out.set(&[key], Tree::Array(resource.array_at(&[key]).to_vec()));
            }
        }
        found.push((text("name").to_owned(), out));
    }
    for (name, resource) in &mut found {
        if let Some(subs) = subs.remove(name) {
            resource.set(&["subresources"], Tree::Array(subs));
        }
    }
    found.into_iter().map(|(_, resource)| resource).collect()
}

async fn openapi_hash(cache: &Cache, backend: &Backend) -> Option<String> {
    let answer = backend.get(cache, "/openapi/v3", "application/json", None, &aggregator(), TIMEOUT).await.ok()?;
    let index = Tree::from_json(&answer.bytes).ok().filter(|_| answer.code == StatusCode::OK)?;
    let url = index.at(&["paths", &backend.root()[1..], "serverRelativeURL"])?.as_str()?;
    let hash = url.split_once("hash=").map_or("", |(_, hash)| hash);
    Some(hash.chars().filter(char::is_ascii_alphanumeric).take(128).collect())
}

/// As whom documents are fetched for everybody.
fn aggregator() -> UserInfo {
    UserInfo::new("system:aggregator", &["system:authenticated"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_resources_becomes_the_aggregated_form() {
        let list = r#"{"resources":[
            {"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["get"],"shortNames":["fl"]},
            {"name":"flunders/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["update"]}]}"#;
        let found = converted(&Tree::from_json(list.as_bytes()).expect("a test's JSON"), "g", "v1");
        let printed: Vec<String> = found.iter().map(|r| String::from_utf8_lossy(&r.to_json()).into_owned()).collect();
        assert_eq!(
            printed,
            [r#"{"resource":"flunders","responseKind":{"group":"g","kind":"Flunder","version":"v1"},"scope":"Namespaced","shortNames":["fl"],"singularResource":"flunder","subresources":[{"responseKind":{"group":"autoscaling","kind":"Scale","version":"v1"},"subresource":"scale","verbs":["update"]}],"verbs":["get"]}"#]
        );
    }
}
