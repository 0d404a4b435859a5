//! pods/eviction: a delete that disruption budgets may refuse. Models pkg/registry/core/pod/storage/eviction.go.
mod budget;

use std::sync::Arc;
use std::time::Duration;

use api::field_error::FieldError;
use api::meta;
use api::registry::Registry;
use api::selector::LabelSelector;
use api::tree::Tree;
use axum::body::Body;
use http::{Request, Response, StatusCode};

use crate::admission::Operation;
use crate::negotiate;
use crate::rest::delete::decode_options;
use crate::rest::model::Expected;
use crate::rest::options::{DeleteOptions, FieldValidation, WriteOptions};
use crate::rest::storage::{Part, Target, now};
use crate::rest::{Call, body, model};
use crate::status::{self, Status};

/// A pod that keeps changing is tried again so often, as upstream's EvictionsRetry.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
const EVICTION: Expected<'static> = Expected::built_in("policy", "v1", "Eviction");

pub async fn create(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let media = negotiate::content_type(&call.headers).to_owned();
    let eviction = model::decode(EVICTION, &media, &bytes, FieldValidation::Ignore, &mut call.warnings)?;
    let name = meta::name(&eviction);
    if name != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let ignore = ["deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential"];
    if eviction.at(&ignore).and_then(Tree::as_bool) == Some(true) {
        let error = FieldError::invalid(ignore.join("."), true, "can not be set for pod eviction, try after removing the option");
        return Err(Status::invalid("policy", "Eviction", name, &[error]));
    }
    let target = call.target();
    let mut delete = match eviction.get("deleteOptions") {
        Some(tree) if tree.as_object().is_some() => DeleteOptions::parse(&call.query, Some(&decode_options(negotiate::JSON, &tree.to_json())?))?,
        _ => DeleteOptions::default(),
    };
    delete.dry_run |= options.dry_run;
    target.admission_validate(Operation::Create, Part::Other("eviction"), eviction, None, delete.dry_run, &mut call.warnings).await?;
    evict(&target, &delete).await?;
    let mut success = status::success(None);
    success.set(&["code"], 201i64);
    Ok(negotiate::answer_tree(&call.accept, StatusCode::CREATED, &success))
}

async fn evict(target: &Target, asked: &DeleteOptions) -> Result<(), Status> {
    let mut tries = 1;
    loop {
        let pod = target.tree(&target.current().ok_or_else(|| target.not_found())?).await?;
        let outcome = match budget::is_needed(&pod) {
            true => evict_within_budget(target, asked, &pod).await,
            // What has no budget to ask must not become healthy meanwhile; what has ended cannot.
            false => delete(target, asked, &pod, budget::may_become_ready(&pod)).await,
        };
        match outcome {
            Err(status) if status.is_conflict() && tries < TRIES && asked.precondition_version.is_none() && !budget::is_needed(&pod) => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn evict_within_budget(target: &Target, asked: &DeleteOptions, pod: &Tree) -> Result<(), Status> {
    let Some(budget) = budget_of(target, pod)? else { return delete(target, asked, pod, false).await };
    if !budget::spares(&budget, pod) {
        take_from(target, &budget, pod, asked.dry_run).await?;
        return delete(target, asked, pod, false).await;
    }
    // Not ready, so that it takes nothing from the budget: this must still be so when it is deleted.
    match delete(target, asked, pod, true).await {
        Err(status) if status.is_conflict() && asked.precondition_version.is_none() => Err(budget::busy(meta::name(&budget))),
        outcome => outcome,
    }
}

/// Deletes this very pod; `unchanged` since it was looked at, or as the request says.
async fn delete(target: &Target, asked: &DeleteOptions, pod: &Tree, unchanged: bool) -> Result<(), Status> {
    let mut options = asked.clone();
    options.precondition_uid.get_or_insert_with(|| meta::uid(pod).to_owned());
    if unchanged {
        options.precondition_version.get_or_insert_with(|| meta::resource_version(pod).to_owned());
    }
    if !options.dry_run {
        mark(target, &mut options).await?;
    }
    target.delete(&options, &mut Vec::new()).await.map(drop)
}

/// Says in the pod's conditions why it goes, so that its owner can tell an eviction from a failure.
async fn mark(target: &Target, options: &mut DeleteOptions) -> Result<(), Status> {
    let (uid, version) = (options.precondition_uid.clone(), options.precondition_version.clone());
    let change = |pod: &Tree| {
        let mut pod = pod.clone();
        if pod.is_null() || meta::deletion_timestamp(&pod).is_some() {
            return Ok(pod);
        }
        if uid.as_ref().is_some_and(|uid| uid != meta::uid(&pod)) {
            let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", uid.as_deref().unwrap_or_default(), meta::uid(&pod));
            return Err(Status::conflict("", "pods", meta::name(&pod), &why));
        }
        if version.as_ref().is_some_and(|version| version != meta::resource_version(&pod)) {
            return Err(target.modified());
        }
        let mut conditions = pod.array_at(&["status", "conditions"]).to_vec();
        conditions.retain(|c| c.str_at(&["type"]) != "DisruptionTarget");
        let mut condition = Tree::object();
        for (field, value) in [
            ("type", "DisruptionTarget"),
            ("status", "True"),
            ("reason", "EvictionByEvictionAPI"),
            ("message", "Eviction API: evicting"),
        ] {
            condition.set(&[field], value);
        }
        condition.set(&["lastProbeTime"], Tree::Null);
        condition.set(&["lastTransitionTime"], now());
        conditions.push(condition);
        pod.set(&["status", "conditions"], Tree::Array(conditions));
        Ok(pod)
    };
    let marked = target.update(Part::Deletion, true, false, &mut Vec::new(), &change).await?;
    if version.is_some() {
        let marked = Tree::from_json(&marked.bytes).map_err(Status::internal)?;
        options.precondition_version = Some(meta::resource_version(&marked).to_owned());
    }
    Ok(())
}

/// The one budget that covers the pod.
fn budget_of(target: &Target, pod: &Tree) -> Result<Option<Tree>, Status> {
    let labels = pod.at(&["metadata", "labels"]);
    let budgets = target.server.0.parts.cache.list("policy", "poddisruptionbudgets", Some(&target.namespace));
    let mut matching = budgets.iter().map(|cached| cached.tree()).filter(|budget| {
        LabelSelector::from_tree(budget.at(&["spec", "selector"])).is_ok_and(|selector| selector.matches_tree(labels))
    });
    let found = matching.next();
    if matching.next().is_some() {
        let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::unreasoned(500, text));
    }
    Ok(found)
}

async fn take_from(target: &Target, budget: &Tree, pod: &Tree, dry_run: bool) -> Result<(), Status> {
    let budgets = Target {
        resource: Registry::get().resource("policy", "v1", "poddisruptionbudgets").expect("policy/v1 is served").into(),
        name: meta::name(budget).to_owned(),
        user: Arc::new(crate::auth::UserInfo::new("system:apiserver", &["system:masters"])),
        manager: Some(crate::rest::managed::SERVER.into()),
        ..target.clone()
    };
    let pod_name = meta::name(pod).to_owned();
    let change = |old: &Tree| if old.is_null() { Ok(Tree::Null) } else { budget::decremented(old, &pod_name, now()) };
    budgets.update(Part::Status, true, dry_run, &mut Vec::new(), &change).await.map(drop)
}
