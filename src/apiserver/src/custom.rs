//! Keeps the status of CustomResourceDefinitions, and takes the objects of those that are being deleted.
//!
//! Models apiextensions-apiserver/pkg/controller/{status,establish,nonstructuralschema,apiapproval,finalizer}. These run inside the server
//! upstream, too. One task does it all: definitions are few, and names are given out one after the other anyway.
//! Wakes on every change of a definition, and of the objects of a definition that is being deleted.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::crd::{self, Condition, Definition, FINALIZER};
use api::meta;
use api::registry::Registry;
use api::tree::Tree;
use futures::future::select_all;
use tokio::sync::watch;

use crate::bootstrap::own_target;
use crate::cache::{Cached, GONE_KEPT};
use crate::kinds::{Defined, Kinds};
use crate::rest::options::DeleteOptions;
use crate::rest::storage::{Part, Target, now};
use crate::server::ApiServer;
use crate::status::Status;

/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Of each definition: the version that was looked at last, and the names that others of its group held then.
type Settled = HashMap<String, (u64, u64)>;

pub async fn run(server: ApiServer) {
    let Some(mut changes) = server.0.parts.cache.changes(crd::GROUP, crd::PLURAL) else { return };
    let mut settled = Settled::new();
    let mut before = server.0.parts.cache.kinds();
    let mut leaves_some = false;
    loop {
        changes.borrow_and_update();
        let mut is_done = true;
        if let Err(error) = server.0.parts.cache.refresh(&server.0.parts.store).await {
            tracing::warn!(%error, "custom objects could not be read in their new form, tried again soon");
            is_done = false;
        }
        let waits = match settle(&server, &mut settled).await {
            Ok(waits) => waits,
            Err(status) => {
                tracing::warn!("a CustomResourceDefinition could not be brought up to date, tried again soon: {}", status.message);
                is_done = false;
                Vec::new()
            }
        };
        // Last: whoever waits for a new kind does not wait for this. Once more when kinds that went are dropped: a request that was under way when
        // its kind went is counted after it.
        let served = server.0.parts.cache.kinds();
        let had_some = std::mem::replace(&mut leaves_some, server.0.parts.cache.forget_gone(GONE_KEPT));
        if (had_some && !leaves_some) || before.custom().iter().any(|r| served.resource(&r.group, &r.version, &r.plural).is_none()) {
            server.0.metrics.forget_gone(&server.0.parts.cache);
            server.0.documents.forget(|name| name.split_once('/').is_some_and(|(group, version)| served.of_version(group, version).is_empty()));
        }
        before = served;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = any_changed(waits) => {}
            () = tokio::time::sleep(RETRY), if !is_done => {}
            () = tokio::time::sleep(GONE_KEPT), if leaves_some => {}
            () = server.0.shutdown.cancelled() => return,
        }
    }
}

/// Never returns where there is nothing to wait for.
async fn any_changed(mut waits: Vec<watch::Receiver<u64>>) {
    if waits.is_empty() {
        return std::future::pending().await;
    }
    let all = waits.iter_mut().map(|wait| Box::pin(wait.changed()));
    let _ = select_all(all).await; // a kind that has gone is a change, too
}

fn target(server: &ApiServer, name: &str) -> Target {
    own_target(server, crd::GROUP, "v1", crd::PLURAL, "", name)
}

/// Looks at every definition that has changed, or whose group has; the answer is what else to wait for. A change costs what it concerns, so
/// that the thousandth definition is as quick as the first.
async fn settle(server: &ApiServer, settled: &mut Settled) -> Result<Vec<watch::Receiver<u64>>, Status> {
    let cache = &server.0.parts.cache;
    let mut waits = Vec::new();
    let mut groups = names_by_group(&cache.kinds());
    let all: Vec<Arc<Cached>> = cache.list(crd::GROUP, crd::PLURAL, None);
    if settled.len() > all.len() {
        settled.retain(|name, _| cache.get(crd::GROUP, crd::PLURAL, "", name).is_some());
    }
    for listed in &all {
        let name = listed.name();
        let held = groups.get(group_of(name)).copied().unwrap_or_default();
        if settled.get(name) == Some(&(listed.revision, held)) {
            continue;
        }
        // Read anew: it may have changed while others were looked at, as have the names that are held.
        let Some(cached) = cache.get(crd::GROUP, crd::PLURAL, "", name) else { continue };
        let definition = cached.tree();
        let is_deleting = Definition(&definition).is_deleting() && meta::finalizers(&definition).any(|f| f == FINALIZER);
        let result = match is_deleting {
            true => finalize(server, &definition).await.map(|wait| waits.extend(wait)),
            false => name_and_establish(server, &definition).await.map(|is_settled| {
                if is_settled {
                    settled.insert(name.to_owned(), (cached.revision, held));
                } else {
                    groups = names_by_group(&cache.kinds());
                }
            }),
        };
        match result {
            // Changed or gone meanwhile: that wakes us.
            Err(status) if matches!(status.reason, "Conflict" | "NotFound") => {}
            result => result?,
        }
    }
    Ok(waits)
}

/// The name of a definition is `PLURAL.GROUP`.
fn group_of(name: &str) -> &str {
    name.split_once('.').map_or("", |(_, group)| group)
}

/// A number for each group that differs when the names differ that its definitions hold.
fn names_by_group(kinds: &Kinds) -> HashMap<String, u64> {
    let mut groups: HashMap<String, u64> = HashMap::new();
    for (name, defined) in kinds.definitions() {
        match groups.get_mut(group_of(name)) {
            Some(sum) => *sum = sum.wrapping_add(defined.names_hash),
            None => drop(groups.insert(group_of(name).to_owned(), defined.names_hash)),
        }
    }
    groups
}

/// Whether there was nothing to do.
async fn name_and_establish(server: &ApiServer, definition: &Tree) -> Result<bool, Status> {
    let kinds = server.0.parts.cache.kinds();
    let group = Definition(definition).group();
    let of_group = kinds.definitions().filter(|(_, defined)| defined.stored.group == group);
    let others: Vec<Tree> = of_group.map(|(name, defined)| names_of(name, defined)).collect();
    let plan = crd::plan_names(definition, &others);
    let mut wanted = definition.clone();
    crd::apply_plan(&mut wanted, &plan, &now());
    if wanted == *definition {
        return Ok(true);
    }
    write_status(server, wanted).await.map(|()| false)
}

/// As much of a definition as says which names it holds.
fn names_of(name: &str, defined: &Defined) -> Tree {
    let mut definition = Tree::object();
    meta::set_name(&mut definition, name);
    definition.set(&["spec", "group"], defined.stored.group.clone());
    definition.set(&["status", "acceptedNames"], defined.accepted.clone());
    definition
}

/// On the version that was read.
async fn write_status(server: &ApiServer, definition: Tree) -> Result<(), Status> {
    let target = target(server, meta::name(&definition));
    let change = |old: &Tree| if old.is_null() { Ok(Tree::Null) } else { Ok(definition.clone()) };
    target.update(Part::Status, false, false, &mut Vec::new(), &change).await.map(drop)
}

/// Deletes the objects; once none is left, lets the definition go. The answer says what to wait for.
async fn finalize(server: &ApiServer, definition: &Tree) -> Result<Option<watch::Receiver<u64>>, Status> {
    let cache = &server.0.parts.cache;
    let read = Definition(definition);
    let mut next = definition.clone();
    let mut set = |status, reason, message: &str| {
        crd::set_condition(&mut next, &Condition::new("Terminating", status, reason, message), &now());
    };
    // In the version they are stored in, so that deleting them needs no webhook, which may be gone before them.
    let resource = cache.kinds().definition(read.name()).filter(|d| !d.resources.is_empty()).map(|d| d.stored.clone());
    // Objects of a built-in kind are none of its.
    let is_custom = resource.as_ref().is_some_and(|r| Registry::get().served().all(|b| b.group != r.group || b.plural != r.plural));
    match resource {
        Some(resource) if is_custom => {
            let wait = cache.changes(&resource.group, &resource.plural);
            for object in cache.list(&resource.group, &resource.plural, None) {
                let target = Target {
                    resource: api::ResourceRef::Custom(resource.clone()),
                    namespace: object.namespace().to_owned(),
                    name: object.name().to_owned(),
                    ..target(server, "")
                };
                match target.delete(&DeleteOptions::default(), &mut Vec::new()).await {
                    Ok(_) => {}
                    Err(status) if status.reason == "NotFound" => {}
                    Err(status) => {
                        let text = format!("could not issue all deletes: {}", status.message);
                        set("True", "InstanceDeletionFailed", &text);
                        if next != *definition {
                            write_status(server, next).await?;
                        }
                        return Err(status);
                    }
                }
            }
            if !cache.list(&resource.group, &resource.plural, None).is_empty() {
                set("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
                if next != *definition {
                    write_status(server, next).await?;
                }
                return Ok(wait);
            }
            set("False", "InstanceDeletionCompleted", "removed all instances");
        }
        Some(_) => set("False", "OverlappingBuiltInResource", "instances overlap with built-in resources in storage"),
        None => set("False", "NeverEstablished", "resource was never established"),
    }
    let finalizers: Vec<String> = meta::finalizers(definition).filter(|f| *f != FINALIZER).map(ToOwned::to_owned).collect();
    meta::set_finalizers(&mut next, &finalizers);
    write_status(server, next).await?;
    Ok(None)
}
