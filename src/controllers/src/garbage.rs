//! Deletes what has lost all its owners, and deletes or orphans what a deletion in the foreground leaves behind.
//!
//! Models pkg/controller/garbagecollector/{garbagecollector,graph_builder,operations,patch}.go, v1.37. Different: owners that no watch has
//! shown are looked up when a dependent is looked at, where upstream puts virtual nodes into its graph; discovery is repeated when a
//! CustomResourceDefinition or APIService changes, not every 30 seconds.
//! Reads the metadata of every deletable kind but events. Writes metadata (owner references, finalizers) of any, deletes any.
//! Wakes on every change of metadata, with the uid of whatever the change concerns.
mod absent;
mod graph;
mod monitors;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::sync::Arc;

use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::{
    ApiResource, Client, Controller, DeleteOptions, EventRecorder, EventType, Named, Next, ObjectKey, PartialObject, Patch,
};
use serde_json::json;

use self::absent::Absent;
use self::graph::{Graph, Node};
use self::monitors::Monitors;
use self::plan::{Action, Owners, plan};
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "generic-garbage-collector";
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

pub(crate) struct Context {
    client: Client,
    recorder: EventRecorder,
    graph: Mutex<Graph>,
    absent: Mutex<Absent>,
    monitors: Monitors,
}

const POISON: &str = "nothing panics while it holds the graph";

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let cx = Arc::new(Context {
        recorder: cx.recorder(&client, "garbage-collector-controller"),
        monitors: Monitors::new(cx.informers.client().clone()),
        client,
        graph: Mutex::default(),
        absent: Mutex::default(),
    });
    // Keys are uids.
    let controller = Controller::new(NAME, cx.clone()).workers(20);
    let watching = monitors::keep(cx.clone(), controller.queue());
    let working = async {
        // Before all kinds are known every owner might seem to be missing.
        cx.monitors.synced().await;
        controller.run(|cx, key| async move { reconcile(&cx, &key.name).await }).await;
    };
    tokio::join!(watching, working);
}

async fn reconcile(cx: &Context, uid: &str) -> Result<Next, Failure> {
    let Some((node, has_dependents, calm)) = cx.graph.lock().expect(POISON).look(uid) else { return Ok(Next::Wait) };
    if node.orphaning {
        return orphan_dependents(cx, &node).await;
    }
    if node.deleting_dependents {
        return release_foreground(cx, &node).await;
    }
    // Being deleted anyway; or all its owners are there and stay.
    if node.being_deleted || calm {
        return Ok(Next::Wait);
    }
    let Some(latest) = read(cx, &node.resource, &node.key, uid).await? else {
        return Ok(Next::Wait);
    };
    let owners = classify(cx, &node, &latest).await?;
    let unseen = owners.solid.iter().any(|o| !cx.graph.lock().expect(POISON).contains(&o.uid));
    let blocked_by_circle = has_dependents && cx.graph.lock().expect(POISON).dependents(uid).any(|d| d.deleting_dependents);
    match plan(&latest, &owners, has_dependents, blocked_by_circle) {
        Action::Nothing => {}
        Action::Detach(uids) => detach(cx, &node, &latest, |o| !uids.contains(&o.uid)).await?,
        Action::Delete { propagation, unblock } => {
            if unblock {
                unblock_owners(cx, &node, &latest).await?;
            }
            // The version as well: an owner may have been given to it since it was read.
            let options = DeleteOptions {
                propagation: Some(propagation),
                uid: Some(uid.to_owned()),
                resource_version: (!unblock).then(|| latest.resource_version().to_owned()),
                ..Default::default()
            };
            let step = || format!("delete {} {}, whose owners are gone", node.resource.kind, node.key);
            unless_gone(cx.client.delete_at(&node.resource, &node.key, &options).await).during(step)?;
        }
    }
    match unseen {
        // Its owner exists, but no watch has shown it: look again, in case its deletion is not shown either.
        true => Err(Failure::Stale(format!("an owner of {} {} is not in the graph yet", node.resource.kind, node.key))),
        false => Ok(Next::Wait),
    }
}

/// The object itself, from the server; `None` if it is gone or another one by now.
async fn read(cx: &Context, resource: &ApiResource, key: &ObjectKey, uid: &str) -> Result<Option<PartialObject>, Failure> {
    let result = unless_gone(cx.client.get_at::<PartialObject>(resource, key).await);
    let found = result.during(|| format!("read {} {key}", resource.kind))?;
    Ok(found.filter(|o| o.uid() == uid))
}

/// Sorts the owners into those that hold the object, those that are gone, and those that wait for it to go.
async fn classify(cx: &Context, node: &Node, latest: &PartialObject) -> Result<Owners, Failure> {
    let mut owners = Owners::default();
    for owner in latest.metadata.owner_references.iter().flatten() {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let Some(resource) = cx.monitors.by_kind(group, &owner.kind) else {
            return Err(Failure::Stale(format!("no resource is known for the owner kind {} {}", owner.api_version, owner.kind)));
        };
        if resource.namespaced && node.key.namespace.is_empty() {
            let message = format!("ownerRef [{}] must not refer to a namespaced kind", describe(owner, ""));
            return Err(Failure::Unusable(message));
        }
        let namespace = if resource.namespaced { node.key.namespace.clone() } else { String::new() };
        let key = ObjectKey::new(namespace, owner.name.clone());
        if cx.absent.lock().expect(POISON).has(&resource, &key, &owner.uid) {
            owners.gone.push(owner.clone());
            continue;
        }
        match read(cx, &resource, &key, &owner.uid).await? {
            None => {
                cx.absent.lock().expect(POISON).add(&resource, &key, &owner.uid);
                warn_if_elsewhere(cx, node, latest, owner, &key);
                owners.gone.push(owner.clone());
            }
            Some(found) if found.is_deleting() && plan::has_finalizer(&found, FOREGROUND) => owners.waiting.push(owner.clone()),
            Some(_) => owners.solid.push(owner.clone()),
        }
    }
    Ok(owners)
}

fn describe(owner: &OwnerReference, namespace: &str) -> String {
    format!("{}/{}, namespace: {namespace}, name: {}, uid: {}", owner.api_version, owner.kind, owner.name, owner.uid)
}

/// An owner in another namespace is no owner; whoever wrote that should hear of it.
fn warn_if_elsewhere(cx: &Context, node: &Node, latest: &PartialObject, owner: &OwnerReference, key: &ObjectKey) {
    let elsewhere = cx.graph.lock().expect(POISON).get(&owner.uid).is_some_and(|known| known.key != *key);
    if elsewhere {
        let message = format!("ownerRef [{}] does not exist in namespace {:?}", describe(owner, &key.namespace), key.namespace);
        let mut about = client::object_reference(latest);
        about.api_version = Some(node.resource.api_version());
        about.kind = Some(node.resource.kind.clone());
        cx.recorder.record_on(about, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }
}

/// Rewrites the owner references, on the version that was read.
async fn detach(
    cx: &Context,
    node: &Node,
    latest: &PartialObject,
    keep: impl Fn(&OwnerReference) -> bool,
) -> Result<(), Failure> {
    let owners: Vec<_> = latest.metadata.owner_references.iter().flatten().filter(|o| keep(o)).collect();
    patch(cx, node, latest, json!({"ownerReferences": owners})).await
}

async fn unblock_owners(cx: &Context, node: &Node, latest: &PartialObject) -> Result<(), Failure> {
    let mut owners = latest.metadata.owner_references.clone().unwrap_or_default();
    if owners.iter().all(|o| o.block_owner_deletion != Some(true)) {
        return Ok(());
    }
    owners.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
    patch(cx, node, latest, json!({"ownerReferences": owners})).await
}

async fn remove_finalizer(cx: &Context, node: &Node, finalizer: &str) -> Result<(), Failure> {
    let Some(latest) = read(cx, &node.resource, &node.key, &node.uid).await? else { return Ok(()) };
    if !plan::has_finalizer(&latest, finalizer) {
        return Ok(());
    }
    let finalizers: Vec<_> = latest.metadata.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    patch(cx, node, &latest, json!({"finalizers": finalizers})).await
}

/// A merge patch of the metadata, which all kinds take; refused if the object has changed since it was read.
async fn patch(cx: &Context, node: &Node, latest: &PartialObject, mut change: serde_json::Value) -> Result<(), Failure> {
    change["resourceVersion"] = latest.resource_version().into();
    change["uid"] = latest.uid().into();
    let patch = Patch::Merge(json!({"metadata": change}));
    let result = cx.client.patch_at::<PartialObject>(&node.resource, &node.key, &patch).await;
    unless_gone(result).during(|| format!("patch the metadata of {} {}", node.resource.kind, node.key))?;
    Ok(())
}

/// Lets the owner go once no dependent blocks it; the others are looked at first.
async fn release_foreground(cx: &Context, node: &Node) -> Result<Next, Failure> {
    let blocked = cx.graph.lock().expect(POISON).dependents(&node.uid).any(|d| d.blocks(&node.uid));
    if !blocked {
        remove_finalizer(cx, node, FOREGROUND).await?;
    }
    // The end of each dependent wakes the owner again.
    Ok(Next::Wait)
}

async fn orphan_dependents(cx: &Context, node: &Node) -> Result<Next, Failure> {
    let dependents: Vec<Node> = cx.graph.lock().expect(POISON).dependents(&node.uid).cloned().collect();
    for dependent in dependents {
        if let Some(latest) = read(cx, &dependent.resource, &dependent.key, &dependent.uid).await? {
            let refers = latest.metadata.owner_references.iter().flatten().any(|o| *o.uid == *node.uid);
            if refers {
                detach(cx, &dependent, &latest, |o| *o.uid != *node.uid).await?;
            }
        }
    }
    remove_finalizer(cx, node, ORPHAN).await?;
    Ok(Next::Wait)
}
