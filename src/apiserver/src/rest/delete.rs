//! delete and deletecollection: preconditions, grace periods, finalizers.
//!
//! Models pkg/registry/rest/delete.go BeforeDelete and pkg/registry/generic/registry/store.go Delete, deletionFinalizersForGarbageCollection.
use std::sync::Arc;

use api::field_error::FieldError;
use api::meta;
use api::tree::Tree;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use http::{Request, Response, StatusCode};

use super::model::Expected;
use super::options::{DeleteOptions, FieldValidation, Propagation, UNREADABLE};
use super::storage::{Part, Target, now, timestamp};
use super::{Call, body, list, model, read, unreadable};
use crate::admission::Operation;
use crate::cache::Cached;
use crate::negotiate;
use crate::status::{self, Status};
use crate::strategy::{self, Dependents};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Objects of a collection that are deleted side by side: they share a commit, and so its wait for the disk.
const AT_ONCE: usize = 32;

/// What a delete came to.
pub enum Deleted {
    /// Gone; the last state.
    Now(Tree),
    /// Marked; what is left is up to kubelets and controllers.
    Later(Bytes),
}

pub async fn delete(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let options = read_options(call, request).await?;
    let target = call.target();
    if options.unreadable {
        return unreadable::delete(call, &target, options.dry_run).await;
    }
    let deleted = target.delete(&options, &mut call.warnings).await?;
    let (code, bytes) = match deleted {
        Deleted::Now(tree) if strategy::returns_deleted(&call.resource) => (StatusCode::OK, Bytes::from(tree.to_json())),
        Deleted::Now(tree) => {
            let success = status::deleted(&call.resource.group, &call.resource.plural, &call.info.name, meta::uid(&tree));
            return Ok(negotiate::answer_tree(&call.accept, StatusCode::OK, &success));
        }
        Deleted::Later(bytes) => {
            let is_cascade = options.orphan_dependents == Some(false) || options.propagation == Some(Propagation::Foreground);
            (if is_cascade { StatusCode::ACCEPTED } else { StatusCode::OK }, bytes)
        }
    };
    read::answer(call, code, bytes)
}

pub async fn delete_collection(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let options = read_options(call, request).await?;
    if options.unreadable {
        let error = FieldError::invalid(UNREADABLE, true, "is not allowed with DELETECOLLECTION, try again after removing the option");
        return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
    }
    let selected = list::select(call).await?;
    let target = call.target();
    let mut waiting = selected.into_iter();
    let mut deleting = FuturesOrdered::new();
    let mut items = Vec::with_capacity(waiting.len());
    let mut failure = None;
    loop {
        // Once one could not be deleted no other is begun, but what has begun is done.
        while deleting.len() < AT_ONCE && failure.is_none() {
            let Some(cached) = waiting.next() else { break };
            let one = Target { name: cached.name().to_owned(), ..target.clone() };
            let options = &options;
            deleting.push_back(async move {
                let mut warnings = Vec::new();
                (one.delete(options, &mut warnings).await, warnings)
            });
        }
        let Some((result, warnings)) = deleting.next().await else { break };
        call.warnings.extend(warnings);
        match result {
            Ok(Deleted::Now(tree)) => items.push(tree.to_json().into()),
            Ok(Deleted::Later(bytes)) => items.push(bytes),
            Err(status) if status.reason == "NotFound" => {}
            Err(status) => failure = failure.or(Some(status)),
        }
    }
    if let Some(status) = failure {
        return Err(status);
    }
    list::answer_items(call, items, &list::Meta { version: Some(call.server.0.parts.cache.revision()), ..Default::default() })
}

async fn read_options(call: &mut Call, request: Request<Body>) -> Result<DeleteOptions, Status> {
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(&call.query, None);
    }
    let media = negotiate::content_type(&call.headers).to_owned();
    DeleteOptions::parse(&call.query, Some(&decode_options(&media, &bytes)?))
}

/// DeleteOptions come in `v1` and in every group's own version.
pub fn decode_options(media: &str, bytes: &[u8]) -> Result<Tree, Status> {
    let mut tree = model::parse(media, bytes)?.tree;
    match meta::kind(&tree) {
        "" | "DeleteOptions" => {}
        other => {
            let text = format!("no kind \"{other}\" is registered for version \"{}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"", meta::api_version(&tree));
            return Err(Status::bad_request(text));
        }
    }
    meta::set_type(&mut tree, "v1", "DeleteOptions");
    let expected = Expected::built_in("", "v1", "DeleteOptions");
    model::typed(expected, tree, Vec::new(), FieldValidation::Ignore, &mut Vec::new())
        .map_err(|e| match e {
            model::Untyped::Wrong(text) | model::Untyped::Strict(text) => Status::bad_request(text),
        })
}

/// What BeforeDelete decides; pure.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing to change: it is being deleted already.
    Pending,
    Remove,
    Mark(Tree),
}

fn plan(target: &Target, old: &Tree, options: &DeleteOptions) -> Plan {
    let mut new = old.clone();
    let finalizers = finalizers_for(target, old, options);
    let current: Vec<&str> = meta::finalizers(old).collect();
    let same = finalizers.len() == current.len() && finalizers.iter().all(|f| current.contains(&f.as_str()));
    if !same {
        meta::set_finalizers(&mut new, &finalizers);
    }
    let has_finalizers = !finalizers.is_empty() || strategy::has_own_finalizers(&target.resource, old);
    if let Some(deleted_at) = meta::deletion_timestamp(old) {
        let grace = meta::deletion_grace_period_seconds(old);
        let shorter = match (grace, options.grace_period_seconds) {
            (Some(grace), Some(asked)) if asked.max(0) < grace => Some((grace, asked.max(0))),
            _ => None,
        };
        let Some((grace, asked)) = shorter else {
            if grace.unwrap_or(0) == 0 && !has_finalizers {
                return Plan::Remove;
            }
            return if same { Plan::Pending } else { Plan::Mark(new) };
        };
        if asked == 0 && !has_finalizers {
            return Plan::Remove;
        }
        let moved = deleted_at.parse::<jiff::Timestamp>().ok().and_then(|at| at.checked_add(jiff::SignedDuration::from_secs(asked - grace)).ok());
        let moved = moved.map_or_else(now, timestamp);
        meta::set_deletion_timestamp(&mut new, Some(&moved));
        meta::set_deletion_grace_period_seconds(&mut new, Some(asked));
        return Plan::Mark(new);
    }
    let grace = strategy::grace_seconds(&target.resource, old, options.grace_period_seconds);
    if grace.unwrap_or(0) == 0 && !has_finalizers {
        return Plan::Remove;
    }
    let at = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(grace.unwrap_or(0))).map_or_else(|_| now(), timestamp);
    meta::set_deletion_timestamp(&mut new, Some(&at));
    // A namespace's deletion has no grace period, not even zero.
    if !strategy::is_namespace(&target.resource) {
        meta::set_deletion_grace_period_seconds(&mut new, Some(grace.unwrap_or(0)));
    }
    if meta::generation(&new) > 0 {
        let next = meta::generation(&new) + 1;
        meta::set_generation(&mut new, next);
    }
    strategy::mark_deleted(&target.resource, &mut new, &now());
    Plan::Mark(new)
}

fn finalizers_for(target: &Target, old: &Tree, options: &DeleteOptions) -> Vec<String> {
    let dependents = strategy::dependents(&target.resource);
    let has = |name: &str| meta::finalizers(old).any(|f| f == name);
    let orphan = match (dependents, options.orphan_dependents, options.propagation) {
        (Dependents::Unsupported, ..) => false,
        (_, Some(orphan), _) => orphan,
        (_, _, Some(policy)) => policy == Propagation::Orphan,
        _ if has(ORPHAN) => true,
        _ if has(FOREGROUND) => false,
        (policy, ..) => policy == Dependents::Orphan,
    };
    let foreground = match (dependents, options.orphan_dependents, options.propagation) {
        (Dependents::Unsupported, ..) | (_, Some(_), _) => false,
        (_, _, Some(policy)) => policy == Propagation::Foreground,
        _ => !has(ORPHAN) && has(FOREGROUND),
    };
    let mut finalizers: Vec<String> = meta::finalizers(old).filter(|f| *f != ORPHAN && *f != FOREGROUND).map(ToOwned::to_owned).collect();
    if orphan {
        finalizers.push(ORPHAN.to_owned());
    }
    if foreground {
        finalizers.push(FOREGROUND.to_owned());
    }
    // Its objects go first.
    if strategy::is_definition(&target.resource) && meta::deletion_timestamp(old).is_none() && !has(api::crd::FINALIZER) {
        finalizers.push(api::crd::FINALIZER.to_owned());
    }
    finalizers
}

impl Target {
    /// Deletes the object, or begins to.
    pub async fn delete(&self, options: &DeleteOptions, warnings: &mut Vec<String>) -> Result<Deleted, Status> {
        let before = warnings.len();
        loop {
            warnings.truncate(before);
            let cached = self.current().ok_or_else(|| self.not_found())?;
            let old = Arc::new(self.tree(&cached).await?);
            self.check_preconditions(&old, options)?;
            self.admission_validate(Operation::Delete, Part::Main, Tree::Null, Some(old.clone()), options.dry_run, warnings).await?;
            match plan(self, &old, options) {
                Plan::Pending => return Ok(Deleted::Later(old.to_json().into())),
                Plan::Remove if options.dry_run => return Ok(Deleted::Now(Arc::unwrap_or_clone(old))),
                Plan::Remove => {
                    if let Some(gone) = self.remove_shown(&cached, &old, options).await? {
                        return Ok(Deleted::Now(gone));
                    }
                }
                Plan::Mark(marked) => {
                    let uid_and_version = marked; // carries the version it was computed from: a race means computing again
                    let change = |_: &Tree| Ok(uid_and_version.clone());
                    match self.update(Part::Deletion, false, options.dry_run, &mut Vec::new(), &change).await {
                        Ok(outcome) => return Ok(Deleted::Later(outcome.bytes)),
                        Err(status) if status.reason == "Conflict" => {}
                        Err(status) => return Err(status),
                    }
                }
            }
        }
    }

    /// The object as it went, marked with its grace period of zero as upstream shows it.
    async fn remove_shown(&self, cached: &Cached, old: &Tree, options: &DeleteOptions) -> Result<Option<Tree>, Status> {
        let Some(revision) = self.remove(cached).await? else { return Ok(None) };
        let mut gone = old.clone();
        if strategy::grace_seconds(&self.resource, old, options.grace_period_seconds).is_some() {
            meta::set_deletion_timestamp(&mut gone, Some(&now()));
            meta::set_deletion_grace_period_seconds(&mut gone, Some(0));
        }
        meta::set_resource_version(&mut gone, &revision.to_string());
        Ok(Some(gone))
    }

    fn check_preconditions(&self, old: &Tree, options: &DeleteOptions) -> Result<(), Status> {
        // Upstream names the kind here, where everything else names the resource.
        let (group, kind) = (&self.resource.group, &self.resource.kind);
        if let Some(uid) = &options.precondition_uid
            && uid != meta::uid(old)
        {
            let why = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                meta::uid(old)
            );
            return Err(Status::conflict(group, kind, &self.name, &why));
        }
        if let Some(version) = &options.precondition_version
            && version != meta::resource_version(old)
        {
            let why = format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
                meta::resource_version(old)
            );
            return Err(Status::conflict(group, kind, &self.name, &why));
        }
        Ok(())
    }
}
