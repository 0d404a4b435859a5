//! Keeps the status of CustomResourceDefinitions, and takes the objects of those that are being deleted.
//!
//! Models apiextensions-apiserver/pkg/controller/{status,establish,nonstructuralschema,apiapproval,finalizer}. These run inside the server
//! upstream, too. One task does it all: definitions are few, and names are given out one after the other anyway.
//! Wakes on every change of a definition, and of the objects of a definition that is being deleted.
use std::sync::Arc;
use std::time::Duration;

use api::crd::{self, Condition, Definition, FINALIZER};
use api::meta;
use api::registry::Registry;
use api::tree::Tree;
use futures::future::select_all;
use tokio::sync::watch;

use crate::bootstrap::own_target;
use crate::cache::Cached;
use crate::rest::options::DeleteOptions;
use crate::rest::storage::{Part, Target, now};
use crate::server::ApiServer;
use crate::status::Status;

/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

pub async fn run(server: ApiServer) {
    let Some(mut changes) = server.0.parts.cache.changes(crd::GROUP, crd::PLURAL) else { return };
    loop {
        changes.borrow_and_update();
        let mut is_done = true;
        if let Err(error) = server.0.parts.cache.refresh(&server.0.parts.store).await {
            tracing::warn!(%error, "custom objects could not be read in their new form, tried again soon");
            is_done = false;
        }
        server.0.metrics.forget_gone(&server.0.parts.cache);
        let waits = match settle(&server).await {
            Ok(waits) => waits,
            Err(status) => {
                tracing::warn!("a CustomResourceDefinition could not be brought up to date, tried again soon: {}", status.message);
                is_done = false;
                Vec::new()
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = any_changed(waits) => {}
            () = tokio::time::sleep(RETRY), if !is_done => {}
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

/// Looks at every definition once; the answer is what else to wait for.
async fn settle(server: &ApiServer) -> Result<Vec<watch::Receiver<u64>>, Status> {
    let cache = &server.0.parts.cache;
    let mut waits = Vec::new();
    let names: Vec<String> = cache.list(crd::GROUP, crd::PLURAL, None).iter().map(|d| d.name().to_owned()).collect();
    for name in names {
        // Read anew each time: names that were just given count for the next.
        let Some(cached) = cache.get(crd::GROUP, crd::PLURAL, "", &name) else { continue };
        let definition = cached.tree();
        let result = match Definition(&definition).is_deleting() && meta::finalizers(&definition).any(|f| f == FINALIZER) {
            true => finalize(server, &definition).await.map(|wait| waits.extend(wait)),
            false => name_and_establish(server, &definition).await,
        };
        match result {
            // Changed or gone meanwhile: that wakes us.
            Err(status) if matches!(status.reason, "Conflict" | "NotFound") => {}
            result => result?,
        }
    }
    Ok(waits)
}

async fn name_and_establish(server: &ApiServer, definition: &Tree) -> Result<(), Status> {
    let all: Vec<Arc<Cached>> = server.0.parts.cache.list(crd::GROUP, crd::PLURAL, None);
    let all: Vec<Tree> = all.iter().map(|d| d.tree()).collect();
    let plan = crd::plan_names(definition, &all);
    let mut wanted = definition.clone();
    crd::apply_plan(&mut wanted, &plan, &now());
    if wanted == *definition {
        return Ok(());
    }
    write_status(server, wanted).await
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
