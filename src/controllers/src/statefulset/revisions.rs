//! A StatefulSet's revisions. Models getStatefulSetRevisions and truncateHistory of stateful_set_control.go.
use std::sync::Arc;

use api::selector::LabelSelector;
use client::Named;
use client::k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use client::k8s_openapi::api::core::v1::Pod;

use super::Context;
use super::identity::revision;
use crate::failure::Failure;
use crate::history::{self, number, remembers};
use crate::ownership::claim_if;

#[derive(Debug)]
pub(super) struct Revisions {
    /// Of the pods that an update has not reached yet.
    pub current: Arc<ControllerRevision>,
    /// Of the present template.
    pub update: Arc<ControllerRevision>,
    pub collision_count: i32,
}

/// The set's revisions, oldest first, orphans adopted.
pub(super) async fn adopt(
    cx: &Context,
    set: &StatefulSet,
    selector: &LabelSelector,
) -> Result<Vec<Arc<ControllerRevision>>, Failure> {
    let mut candidates = history::owned_and_orphans(&cx.revisions, set);
    candidates.retain(|r| selector.matches_map(r.metadata.labels.as_ref()));
    let mut all = claim_if(&cx.client, set, |_: &ControllerRevision| true, candidates, &[]).await?;
    history::sort(&mut all);
    Ok(all)
}

/// What the history says of the present template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The newest revision remembers it.
    Newest(Arc<str>),
    /// An older one does: the set goes back to it.
    Older(Arc<str>),
    Not,
}

pub(super) fn known(set: &StatefulSet, history: &[Arc<ControllerRevision>]) -> Known {
    let is_of = |r: &Arc<ControllerRevision>| remembers(r, &set.spec.template);
    match (history.last(), history.iter().rfind(|r| is_of(r))) {
        (Some(newest), _) if is_of(newest) => Known::Newest(newest.name().into()),
        (_, Some(older)) => Known::Older(older.name().into()),
        _ => Known::Not,
    }
}

pub(super) async fn current_and_update(
    cx: &Context,
    set: &StatefulSet,
    history: &[Arc<ControllerRevision>],
) -> Result<Revisions, Failure> {
    let mut collision_count = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let next = history.last().map_or(0, |r| number(r)) + 1;
    let named = |name: &str| history.iter().find(|r| r.name() == name).cloned();
    let update = match known(set, history) {
        Known::Newest(name) => named(&name),
        Known::Older(name) => match named(&name) {
            Some(older) => Some(Arc::new(history::renumber(&cx.client, &older, next).await?)),
            None => None,
        },
        Known::Not => None,
    };
    let update = match update {
        Some(update) => update,
        None => {
            let revision = history::new_revision(set, &set.spec.template, next, collision_count);
            Arc::new(history::create(&cx.client, set.name(), revision, &mut collision_count).await?)
        }
    };
    let current = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
    let current = current.and_then(named).unwrap_or_else(|| update.clone());
    Ok(Revisions { current, update, collision_count })
}

/// Deletes the oldest revisions beyond the limit that no pod is of.
pub(super) async fn truncate(
    cx: &Context,
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    history: &[Arc<ControllerRevision>],
    revisions: &Revisions,
) -> Result<(), Failure> {
    let is_live = |r: &ControllerRevision| {
        [&revisions.current, &revisions.update].iter().any(|live| live.name() == r.name())
            || pods.iter().any(|p| revision(p) == r.name())
    };
    let limit = usize::try_from(set.spec.revision_history_limit.unwrap_or(10)).unwrap_or(usize::MAX);
    for revision in history::surplus(history, is_live, limit) {
        history::delete(&cx.client, &revision).await?;
    }
    Ok(())
}
