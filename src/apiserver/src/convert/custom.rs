//! Custom objects in another version than they are stored in.
//!
//! Models apiextensions-apiserver/pkg/apiserver/{conversion/converter.go,customresource_handler.go}. By the strategy None a version is another
//! name for the same content, without what its schema does not know; by Webhook somebody else makes it. What was made of a stored object is
//! kept with it, so each state of an object is converted once for each version, however many read it. (Upstream keeps a watch cache for each
//! version.)
use std::sync::Arc;

use api::crd;
use api::meta;
use api::registry::{Resource, ResourceRef};
use api::tree::Tree;

use super::webhook;
use crate::cache::{Cache, Cached};
use crate::status::Status;

/// Objects in one question to a webhook.
const BATCH: usize = 200;

/// Whether objects of `resource` are read through [`views`].
pub fn is_viewed(resource: &Resource) -> bool {
    resource.custom.as_ref().is_some_and(|custom| custom.conversion.is_some() || resource.version != resource.storage_version)
}

/// Stored objects as `resource` shows them, in the same order. Objects of other kinds come back as they are.
pub async fn views(cache: &Cache, resource: &ResourceRef, objects: Vec<Arc<Cached>>) -> Result<Vec<Arc<Cached>>, Status> {
    if !is_viewed(resource) {
        return Ok(objects);
    }
    let wanted = resource.api_version();
    let at_hand = |object: &Arc<Cached>| if object.is_of_version(&wanted) { Some(object.clone()) } else { object.view(resource) };
    let mut views: Vec<Option<Arc<Cached>>> = objects.iter().map(at_hand).collect();
    let missing: Vec<usize> = (0..objects.len()).filter(|i| views[*i].is_none()).collect();
    for batch in missing.chunks(BATCH) {
        let trees = batch.iter().map(|i| without_version(objects[*i].tree())).collect();
        for (i, tree) in batch.iter().zip(converted(cache, resource, trees).await?) {
            let unreadable = || Status::internal(format!("{} cannot be shown in version {}", objects[*i].name(), resource.version));
            views[*i] = Some(objects[*i].add_view(resource, tree).ok_or_else(unreadable)?);
        }
    }
    Ok(views.into_iter().flatten().collect())
}

pub async fn view(cache: &Cache, resource: &ResourceRef, object: Arc<Cached>) -> Result<Arc<Cached>, Status> {
    if !is_viewed(resource) {
        return Ok(object);
    }
    let gone = || Status::internal("a conversion answered nothing");
    views(cache, resource, vec![object]).await?.pop().ok_or_else(gone)
}

/// What is stored does not know its version yet, and a webhook sees it so.
fn without_version(mut tree: Tree) -> Tree {
    tree.remove(&["metadata", "resourceVersion"]);
    tree
}

/// An object of any version of the kind as `resource` has it.
pub async fn to_version(cache: &Cache, resource: &Resource, tree: Tree) -> Result<Tree, Status> {
    let gone = || Status::internal("a conversion answered nothing");
    converted(cache, resource, vec![tree]).await?.pop().ok_or_else(gone)
}

/// An object of `resource` as it is stored.
pub async fn to_stored(cache: &Cache, resource: &Resource, tree: Tree) -> Result<Tree, Status> {
    if resource.version == resource.storage_version {
        return Ok(tree);
    }
    let kinds = cache.kinds();
    let stored = kinds.definition(&format!("{}.{}", resource.plural, resource.group)).map(|defined| defined.stored.clone());
    let stored = stored.ok_or_else(Status::no_such_path)?;
    to_version(cache, &stored, tree).await
}

async fn converted(cache: &Cache, resource: &Resource, trees: Vec<Tree>) -> Result<Vec<Tree>, Status> {
    let Some(custom) = &resource.custom else { return Ok(trees) };
    let wanted = resource.api_version();
    let mut trees = trees;
    if let Some(conversion) = &custom.conversion {
        let others: Vec<usize> = (0..trees.len()).filter(|i| meta::api_version(&trees[*i]) != wanted).collect();
        let asked: Vec<Tree> = others.iter().map(|i| trees[*i].clone()).collect();
        if !asked.is_empty() {
            // As upstream says it: an error that is no Status. Boxed, as nearly no write waits for a webhook, and all would have to hold its state.
            let answer = Box::pin(webhook::convert(cache, conversion, &asked, &resource.group, &resource.version)).await;
            let answer = answer.map_err(|error| Status::unreasoned(500, error))?;
            others.into_iter().zip(answer).for_each(|(i, tree)| trees[i] = tree);
        }
    }
    for tree in &mut trees {
        meta::set_type(tree, &wanted, &resource.kind);
        crd::converted(custom, tree);
    }
    Ok(trees)
}
