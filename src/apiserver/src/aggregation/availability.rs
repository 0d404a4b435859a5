//! Whether the servers behind APIServices answer, as the condition `Available`.
//!
//! Models kube-aggregator/pkg/controllers/status/{remote,local}. One task for each APIService with a Service: it looks when the APIService, its
//! Service or the endpoints change, after a failure with a growing delay, and every 30 seconds, because a network can fail without an event.
//! Without such APIServices it does nothing. What a backend answers is also where its part of discovery comes from.
use std::collections::HashMap;
use std::time::Duration;

use api::tree::Tree;
use futures::future::join_all;
use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Backend, Document, GROUP, PLURAL, condition};
use crate::auth::UserInfo;
use crate::bootstrap::own_target;
use crate::cache::Cache;
use crate::rest::storage::{Part, now};
use crate::server::ApiServer;
use crate::status::Status;

const RECHECK: Duration = Duration::from_secs(30);
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// One endpoint that fails says little of the others.
const FURTHER_ATTEMPTS: usize = 4;

/// What the condition is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn failed(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".into() }
    }

    fn local() -> Self {
        Self { status: "True", reason: "Local", message: "Local APIServices are always available".into() }
    }
}

/// The condition of a new APIService without a Service, at once.
pub fn set_local(object: &mut Tree) {
    set_condition(object, &Verdict::local());
}

pub async fn run(server: ApiServer) {
    let cache = &server.0.parts.cache;
    let Some(mut changes) = cache.changes(GROUP, PLURAL) else { return };
    let mut tasks = JoinSet::new();
    let mut running = HashMap::new();
    loop {
        changes.borrow_and_update();
        let table = server.0.aggregation.table();
        running.retain(|name: &Box<str>, task: &mut tokio::task::AbortHandle| {
            let stays = !task.is_finished() && table.get(name).is_some_and(|registered| registered.backend.is_some());
            if !stays {
                task.abort();
                server.0.aggregation.set_document(name, None);
            }
            stays
        });
        for (name, registered) in table.iter() {
            match registered.backend {
                Some(_) if running.contains_key(name) => {}
                Some(_) => drop(running.insert(name.clone(), tasks.spawn(keep(server.clone(), name.to_string())))),
                None if registered.is_marked_local => {}
                // It had a Service before.
                None => write(&server, name, &Verdict::local()).await,
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(_) = tasks.join_next() => {}
            () = server.0.shutdown.cancelled() => return,
        }
    }
}

/// Looks after one APIService until it has gone, or has no Service any more.
async fn keep(server: ApiServer, name: String) {
    let cache = &server.0.parts.cache;
    let kinds = [(GROUP, PLURAL), ("", "services"), ("discovery.k8s.io", "endpointslices")];
    let mut changes: Vec<_> = kinds.iter().filter_map(|(group, plural)| cache.changes(group, plural)).collect();
    let mut backoff = BACKOFF_MIN;
    loop {
        changes.iter_mut().for_each(|changes| drop(changes.borrow_and_update()));
        let Some(seen) = inputs(cache, &name) else { return };
        let Some(backend) = server.0.aggregation.table().get(name.as_str()).and_then(|r| r.backend.clone()) else { return };
        let verdict = check(&server, &name, &backend).await;
        write(&server, &name, &verdict).await;
        let wait = match verdict.reason {
            "FailedDiscoveryCheck" => {
                backoff = (backoff * 2).min(BACKOFF_MAX);
                backoff
            }
            _ => {
                backoff = BACKOFF_MIN;
                RECHECK
            }
        };
        let due = Instant::now() + wait;
        loop {
            let any_change = futures::future::select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
            tokio::select! {
                _ = any_change => {
                    if inputs(cache, &name).as_ref() != Some(&seen) || !says(cache, &name, &verdict) {
                        break;
                    }
                }
                () = tokio::time::sleep_until(due) => break,
            }
        }
    }
}

/// What a verdict follows from, but for the network.
fn inputs(cache: &Cache, name: &str) -> Option<(Tree, Vec<u64>)> {
    let object = cache.get(GROUP, PLURAL, "", name)?.tree();
    let spec = object.get("spec").cloned().unwrap_or_default();
    let service = spec.get("service").filter(|service| !service.is_null())?;
    let (namespace, service) = (service.str_at(&["namespace"]), service.str_at(&["name"]));
    let mut revisions: Vec<u64> = cache.get("", "services", namespace, service).iter().map(|s| s.revision).collect();
    revisions.extend(slices(cache, namespace, service).map(|slice| slice.revision));
    Some((spec, revisions))
}

fn slices<'c>(cache: &Cache, namespace: &str, service: &'c str) -> impl Iterator<Item = std::sync::Arc<crate::cache::Cached>> + use<'c> {
    let all = cache.list("discovery.k8s.io", "endpointslices", Some(namespace));
    all.into_iter().filter(move |slice| slice.label("kubernetes.io/service-name") == Some(service))
}

async fn check(server: &ApiServer, name: &str, backend: &Backend) -> Verdict {
    let cache = &server.0.parts.cache;
    let (namespace, service) = (backend.namespace(), backend.service());
    let Some(object) = cache.get("", "services", namespace, service) else {
        server.0.aggregation.set_document(name, Some(Document::stale()));
        return Verdict::failed("ServiceNotFound", format!("service/{service} in {namespace:?} is not present"));
    };
    let slices: Vec<Tree> = slices(cache, namespace, service).map(|slice| slice.tree()).collect();
    if let Some(verdict) = check_objects(backend, &object.tree(), &slices) {
        server.0.aggregation.set_document(name, Some(Document::stale()));
        return verdict;
    }
    match ask(cache, backend).await {
        Ok(list) => {
            let before = server.0.aggregation.document(&backend.group, &backend.version);
            let document = Document::read(cache, backend, &list, before.as_deref()).await;
            server.0.aggregation.set_document(name, Some(document));
            Verdict::passed()
        }
        Err(error) => {
            server.0.aggregation.set_document(name, Some(Document::stale()));
            Verdict::failed("FailedDiscoveryCheck", error)
        }
    }
}

/// What can be told without asking the backend.
fn check_objects(backend: &Backend, service: &Tree, slices: &[Tree]) -> Option<Verdict> {
    if !matches!(service.str_at(&["spec", "type"]), "ClusterIP" | "") {
        return None;
    }
    let (namespace, name, port) = (backend.namespace(), backend.service(), backend.port());
    let ports = service.array_at(&["spec", "ports"]);
    let Some(found) = ports.iter().find(|p| p.get("port").and_then(Tree::as_i64) == Some(i64::from(port))) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Verdict::failed("ServicePortError", message));
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Verdict::failed("EndpointsNotFound", message));
    }
    let port_name = found.str_at(&["name"]);
    let is_ready = |endpoint: &Tree| endpoint.at(&["conditions", "ready"]).and_then(Tree::as_bool) != Some(false);
    let is_it = |port: &Tree| port.str_at(&["name"]) == port_name && port.get("port").is_some_and(|p| !p.is_null());
    let serves = |slice: &&Tree| slice.array_at(&["endpoints"]).iter().any(is_ready) && slice.array_at(&["ports"]).iter().any(is_it);
    if !slices.iter().any(|slice| serves(&slice)) {
        let message = format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}");
        return Some(Verdict::failed("MissingEndpoints", message));
    }
    None
}

/// The backend's answer at the path that it must serve.
async fn ask(cache: &Cache, backend: &Backend) -> Result<Vec<u8>, String> {
    let mut last = match ask_once(cache, backend).await {
        Ok(list) => return Ok(list),
        Err(error) => error,
    };
    for result in join_all((0..FURTHER_ATTEMPTS).map(|_| ask_once(cache, backend))).await {
        match result {
            Ok(list) => return Ok(list),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask_once(cache: &Cache, backend: &Backend) -> Result<Vec<u8>, String> {
    let path = backend.root();
    let shown = match backend.endpoint(cache) {
        Ok(address) => format!("https://{address}{path}"),
        Err(error) => return Err(error),
    };
    let user = UserInfo::new("system:kube-aggregator", &["system:masters"]);
    let failed = |error: String| format!("failing or missing response from {shown}: {error}");
    let answer = backend.get(cache, &path, "application/json", None, &user, CHECK_TIMEOUT).await.map_err(failed)?;
    // A redirect would lead somewhere else.
    match answer.code {
        code if code.is_success() => Ok(answer.bytes.to_vec()),
        StatusCode::NOT_MODIFIED => Ok(Vec::new()),
        code => Err(failed(format!("bad status from {shown}: {}", code.as_u16()))),
    }
}

fn says(cache: &Cache, name: &str, verdict: &Verdict) -> bool {
    let Some(object) = cache.get(GROUP, PLURAL, "", name) else { return false };
    let object = object.tree();
    condition(&object).is_some_and(|c| {
        (c.str_at(&["status"]), c.str_at(&["reason"]), c.str_at(&["message"])) == (verdict.status, verdict.reason, verdict.message.as_str())
    })
}

async fn write(server: &ApiServer, name: &str, verdict: &Verdict) {
    if says(&server.0.parts.cache, name, verdict) {
        return;
    }
    let target = own_target(server, GROUP, "v1", PLURAL, "", name);
    let change = |old: &Tree| {
        if old.is_null() {
            return Ok(Tree::Null);
        }
        let mut new = old.clone();
        set_condition(&mut new, verdict);
        Ok(new)
    };
    let written: Result<_, Status> = target.update(Part::Status, true, false, &mut Vec::new(), &change).await;
    match written {
        Err(status) if status.reason != "NotFound" => {
            tracing::warn!(name, "the availability of an APIService could not be written: {}", status.message);
        }
        _ => tracing::info!(name, available = verdict.status, reason = verdict.reason, message = verdict.message, "APIService"),
    }
}

/// The time of the last transition moves only with the status.
fn set_condition(object: &mut Tree, verdict: &Verdict) {
    let before = condition(object);
    let since = before.filter(|c| c.str_at(&["status"]) == verdict.status).map(|c| c.str_at(&["lastTransitionTime"]).to_owned());
    let mut new = Tree::object();
    new.set(&["type"], "Available");
    new.set(&["status"], verdict.status);
    new.set(&["lastTransitionTime"], since.unwrap_or_else(now));
    new.set(&["reason"], verdict.reason);
    new.set(&["message"], verdict.message.as_str());
    let mut conditions = object.array_at(&["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|c| c.str_at(&["type"]) == "Available") {
        Some(held) => *held = new,
        None => conditions.push(new),
    }
    object.set(&["status", "conditions"], Tree::Array(conditions));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).expect("a test's JSON")
    }

    #[test]
    fn what_the_objects_say_is_said_first() {
        let service = r#"{"spec":{"group":"g","version":"v1","service":{"namespace":"n","name":"s","port":443}}}"#;
        let backend = Backend::of(&tree(service), None, None).expect("a service");
        let check = |service: &str, slices: &[&str], expected: Option<(&str, &str)>| {
            let slices: Vec<Tree> = slices.iter().map(|s| tree(s)).collect();
            let verdict = check_objects(&backend, &tree(service), &slices);
            assert_eq!(verdict.as_ref().map(|v| (v.reason, v.message.as_str())), expected);
        };
        const SERVICE: &str = r#"{"spec":{"type":"ClusterIP","ports":[{"name":"https","port":443}]}}"#;
        check(
            r#"{"spec":{"type":"ClusterIP","ports":[{"port":80}]}}"#,
            &[],
            Some(("ServicePortError", "service/s in \"n\" is not listening on port 443")),
        );
        check(SERVICE, &[], Some(("EndpointsNotFound", "cannot find endpointslices for service/s in \"n\"")));
        let missing = "endpointslices for service/s in \"n\" have no addresses with port name \"https\"";
        check(SERVICE, &[r#"{"endpoints":[],"ports":[{"name":"https","port":443}]}"#], Some(("MissingEndpoints", missing)));
        check(SERVICE, &[r#"{"endpoints":[{"addresses":["10.0.0.1"]}],"ports":[{"name":"https","port":443}]}"#], None);
        check(r#"{"spec":{"type":"NodePort","ports":[]}}"#, &[], None);
    }

    #[test]
    fn a_transition_has_a_time_of_its_own() {
        let mut object = tree(r#"{"metadata":{"name":"x"},"status":{"conditions":[{"type":"Other"},{"type":"Available","status":"True","lastTransitionTime":"then"}]}}"#);
        set_condition(&mut object, &Verdict::passed());
        assert_eq!(condition(&object).map(|c| c.str_at(&["lastTransitionTime"])), Some("then"));
        set_condition(&mut object, &Verdict::failed("ServiceNotFound", String::new()));
        assert_ne!(condition(&object).map(|c| c.str_at(&["lastTransitionTime"])), Some("then"));
        assert_eq!(object.array_at(&["status", "conditions"]).len(), 2);
    }
}
