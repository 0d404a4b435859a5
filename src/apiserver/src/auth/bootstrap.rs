//! The roles and bindings that every cluster has, from the facts in `api`; also the system's PriorityClasses, and the
//! priority-and-fairness objects.
//!
//! Models pkg/registry/rbac/rest/storage_rbac.go and pkg/registry/rbac/reconciliation,
//! pkg/registry/scheduling/rest/storage_scheduling.go: what is missing is created; rules and
//! subjects that upstream has and the stored object lacks are added, unless the object says `autoupdate: "false"`.
//! Nothing is taken away. Also resolves aggregated ClusterRoles, as clusterrole-aggregation-controller does.
use std::sync::Arc;
use std::sync::OnceLock;

use api::registry::{Registry, Resource, split_api_version};
use api::selector::LabelSelector;
use api::tree::Tree;
use store::{Durability, Expect, Operation, Revision, Store, Write, WriteError};

use super::rbac::{GROUP, rules};
use crate::cache::{self, Cache};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("{kind} {name}: {source}")]
    Write { kind: String, name: String, source: WriteError },
}

/// Upstream's objects and, in `own.json`, ours: what joining takes, as kubeadm binds it, and what a node reads beside its own: the
/// facts about its cluster, and what its service proxy needs, which has no identity of its own. Parsed once.
pub fn policy() -> &'static [Tree] {
    static POLICY: OnceLock<Vec<Tree>> = OnceLock::new();
    POLICY.get_or_init(|| {
        let upstream = Tree::from_json(api::facts::bootstrap_policy()).expect("codegen writes JSON");
        let own = Tree::from_json(include_bytes!("bootstrap/own.json")).expect("the file is JSON");
        [upstream, own].iter().flat_map(|list| list.array_at(&["items"])).cloned().collect()
    })
}

/// Brings the stored policy up to the bootstrap policy, and creates the rest where it is missing. All writes share a few
/// commits.
pub async fn reconcile(store: &Arc<dyn Store>, cache: &Cache) -> Result<(), ReconcileError> {
    let mut desired = with_aggregates(policy());
    desired.extend(priority_classes());
    let flow_control = Tree::from_json(api::facts::flow_control()).expect("codegen writes JSON");
    desired.extend(flow_control.array_at(&["items"]).iter().cloned());
    let writes = desired.into_iter().filter_map(|object| {
        let resource = resource_of(&object)?;
        let found = cache.get(&resource.group, &resource.plural, api::meta::namespace(&object), api::meta::name(&object));
        let (object, expect) = match found {
            None => (complete(resource, object), Expect::Absent),
            Some(found) if resource.group == GROUP => {
                (merged(found.tree(), &object)?, Expect::Revision(Revision(found.revision)))
            }
            Some(_) => return None, // anybody may have changed it
        };
        Some(write(store, resource, object, expect))
    });
    futures::future::join_all(writes).await.into_iter().collect()
}

async fn write(
    store: &Arc<dyn Store>,
    resource: &Resource,
    mut object: Tree,
    expect: Expect,
) -> Result<(), ReconcileError> {
    let key = cache::key(resource, api::meta::namespace(&object), api::meta::name(&object));
    object.remove(&["metadata", "resourceVersion"]);
    let operation = Operation::Put(object.to_json().into());
    match store.write(Write { key, operation, expect, durability: Durability::Synced }).await {
        // Somebody was faster: his object stands, and the next start looks at it again.
        Ok(_) | Err(WriteError::Conflict { .. }) => Ok(()),
        Err(source) => {
            let (kind, name) = (api::meta::kind(&object).to_owned(), api::meta::name(&object).to_owned());
            Err(ReconcileError::Write { kind, name, source })
        }
    }
}

fn resource_of(object: &Tree) -> Option<&'static Resource> {
    let (group, version) = split_api_version(api::meta::api_version(object));
    Registry::get().by_kind(group, version, api::meta::kind(object))
}

/// Models pkg/apis/scheduling/helpers.go SystemPriorityClasses.
fn priority_classes() -> Vec<Tree> {
    let node = "Used for system critical pods that must not be moved from their current node.";
    let cluster =
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.";
    let classes = [("system-node-critical", 2_000_001_000i64, node), ("system-cluster-critical", 2_000_000_000, cluster)];
    let classes = classes.into_iter().map(|(name, value, description)| {
        let mut class = Tree::object();
        api::meta::set_type(&mut class, "scheduling.k8s.io/v1", "PriorityClass");
        api::meta::set_name(&mut class, name);
        class.set(&["value"], value);
        class.set(&["description"], description);
        class
    });
    classes.collect()
}

/// What the server fills in at a create.
fn complete(resource: &Resource, mut object: Tree) -> Tree {
    api::defaults::apply(resource, &mut object);
    if resource.group != GROUP {
        api::meta::set_generation(&mut object, 1);
    }
    api::meta::set_uid(&mut object, &uuid::Uuid::new_v4().to_string());
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).expect("now is in range");
    api::meta::set_creation_timestamp(&mut object, &now.to_string());
    object
}

/// The stored object with what it lacks; `None` when it lacks nothing.
fn merged(mut stored: Tree, desired: &Tree) -> Option<Tree> {
    if api::meta::annotation(&stored, AUTO_UPDATE) == Some("false") {
        return None;
    }
    let mut changed = false;
    for (key, value) in api::meta::labels(desired).iter() {
        if api::meta::label(&stored, key).is_none() {
            api::meta::set_label(&mut stored, key, value.as_str().unwrap_or(""));
            changed = true;
        }
    }
    // The rules of an aggregated role are the sum of others: `aggregate` keeps them.
    if desired.get("aggregationRule").is_none() {
        let held = rules::parse(stored.array_at(&["rules"]));
        for rule in desired.array_at(&["rules"]) {
            if !rules::uncovered(&held, &rules::parse(std::slice::from_ref(rule))).is_empty() {
                push(&mut stored, "rules", rule);
                changed = true;
            }
        }
    }
    for subject in desired.array_at(&["subjects"]) {
        let field = |tree: &Tree, name: &str| tree.str_at(&[name]).to_owned();
        let same = |other: &Tree| ["kind", "name", "namespace"].iter().all(|f| field(other, f) == field(subject, f));
        if !stored.array_at(&["subjects"]).iter().any(same) {
            push(&mut stored, "subjects", subject);
            changed = true;
        }
    }
    changed.then_some(stored)
}

fn push(object: &mut Tree, field: &str, item: &Tree) {
    let list = object.make_object().entry(field, || Tree::Array(Vec::new()));
    if !matches!(list, Tree::Array(_)) {
        *list = Tree::Array(Vec::new());
    }
    list.as_array_mut().expect("just made a list").push(item.clone());
}

/// Fills in the rules of aggregated roles. A role may be the sum of sums (admin of edit of view): so until nothing changes.
fn with_aggregates(objects: &[Tree]) -> Vec<Tree> {
    let mut objects = objects.to_vec();
    for _ in 0..8 {
        let mut changed = false;
        for at in 0..objects.len() {
            if let Some(rules) = aggregate(&objects[at], &objects) {
                objects[at].set(&["rules"], rules);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    objects
}

/// The rules that an aggregated role should have, when they are not those it has.
fn aggregate(role: &Tree, roles: &[Tree]) -> Option<Tree> {
    let selectors: Vec<LabelSelector> = role
        .array_at(&["aggregationRule", "clusterRoleSelectors"])
        .iter()
        .filter_map(|selector| LabelSelector::from_tree(Some(selector)).ok())
        .collect();
    if role.get("aggregationRule").is_none_or(Tree::is_null) || api::meta::kind(role) != "ClusterRole" {
        return None;
    }
    let mut sum: Vec<Tree> = Vec::new();
    let mut sources: Vec<&Tree> = roles
        .iter()
        .filter(|other| api::meta::kind(other) == "ClusterRole" && api::meta::name(other) != api::meta::name(role))
        .filter(|other| selectors.iter().any(|selector| selector.matches_tree(other.at(&["metadata", "labels"]))))
        .collect();
    sources.sort_by_key(|other| api::meta::name(other));
    for rule in sources.iter().flat_map(|other| other.array_at(&["rules"])) {
        if !sum.contains(rule) {
            sum.push(rule.clone());
        }
    }
    (role.array_at(&["rules"]) != sum).then_some(Tree::Array(sum))
}

/// Keeps aggregated ClusterRoles the sum of what they select, for as long as the server runs.
pub async fn aggregate_forever(store: Arc<dyn Store>, cache: Cache) {
    let Some(mut changes) = cache.changes(GROUP, "clusterroles") else { return };
    let Some(resource) = Registry::get().resource(GROUP, "v1", "clusterroles") else { return };
    loop {
        changes.borrow_and_update();
        let stored = cache.list(GROUP, "clusterroles", None);
        // Only labels and aggregation rules decide whether there is anything to do at all.
        let roles: Vec<Tree> = stored.iter().map(|object| object.tree()).collect();
        let mut written = Vec::new();
        for (object, role) in stored.iter().zip(&roles) {
            if let Some(rules) = aggregate(role, &roles) {
                let mut role = role.clone();
                role.set(&["rules"], rules);
                written.push(write(&store, resource, role, Expect::Revision(Revision(object.revision))));
            }
        }
        for result in futures::future::join_all(written).await {
            if let Err(error) = result {
                tracing::warn!(%error, "an aggregated role was not updated");
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
