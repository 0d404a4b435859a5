//! pods/eviction: a delete that disruption budgets may refuse. Models pkg/registry/core/pod/storage/eviction.go.
use std::sync::Arc;

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

/// Upstream's MaxDisruptedPodSize.
const DISRUPTED_PODS_MAX: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const EVICTION: Expected<'static> = Expected::built_in("policy", "v1", "Eviction");

pub async fn create(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let media = negotiate::content_type(&call.headers).to_owned();
    let eviction = model::decode(EVICTION, &media, &bytes, FieldValidation::Ignore, &mut call.warnings)?;
    let name = meta::name(&eviction);
    if !name.is_empty() && name != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let target = call.target();
    let mut delete = match eviction.get("deleteOptions") {
        Some(tree) if tree.as_object().is_some() => DeleteOptions::parse(&call.query, Some(&decode_options(negotiate::JSON, &tree.to_json())?))?,
        _ => DeleteOptions::default(),
    };
    delete.dry_run |= options.dry_run;
    target.admission_validate(Operation::Create, Part::Other("eviction"), eviction, None, delete.dry_run, &mut call.warnings).await?;
    evict(&target, &mut delete).await?;
    let mut success = status::success(None);
    success.set(&["code"], 201i64);
    Ok(negotiate::answer_tree(&call.accept, StatusCode::CREATED, &success))
}

async fn evict(target: &Target, delete: &mut DeleteOptions) -> Result<(), Status> {
    let pod = target.tree(&*target.current().ok_or_else(|| target.not_found())?);
    if !needs_no_budget(&pod)
        && let Some(budget) = budget_of(target, &pod)?
    {
        take_from(target, &budget, &pod, delete.dry_run).await?;
    }
    // The budget was asked about this very pod.
    delete.precondition_uid.get_or_insert_with(|| meta::uid(&pod).to_owned());
    if !delete.dry_run {
        mark(target, delete).await?;
    }
    target.delete(delete).await.map(drop)
}

/// Says in the pod's conditions why it goes, so that its owner can tell an eviction from a failure.
async fn mark(target: &Target, delete: &mut DeleteOptions) -> Result<(), Status> {
    let (uid, version) = (delete.precondition_uid.clone(), delete.precondition_version.take());
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
    target.update(Part::Deletion, true, false, &mut Vec::new(), &change).await.map(drop)
}

fn needs_no_budget(pod: &Tree) -> bool {
    matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed" | "Pending") || meta::deletion_timestamp(pod).is_some()
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
        return Err(Status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    Ok(found)
}

fn number(tree: &Tree, path: &[&str]) -> i64 {
    tree.at(path).and_then(Tree::as_i64).unwrap_or(0)
}

fn is_ready(pod: &Tree) -> bool {
    pod.array_at(&["status", "conditions"]).iter().any(|c| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True")
}

async fn take_from(target: &Target, budget: &Tree, pod: &Tree, dry_run: bool) -> Result<(), Status> {
    if !is_ready(pod) {
        let always = budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
        let healthy = number(budget, &["status", "currentHealthy"]);
        let desired = number(budget, &["status", "desiredHealthy"]);
        if always || (healthy >= desired && desired > 0) {
            return Ok(());
        }
    }
    let budgets = Target {
        resource: Registry::get().resource("policy", "v1", "poddisruptionbudgets").expect("policy/v1 is served").into(),
        name: meta::name(budget).to_owned(),
        user: Arc::new(crate::auth::UserInfo::new("system:apiserver", &["system:masters"])),
        ..target.clone()
    };
    let pod_name = meta::name(pod).to_owned();
    let change = |old: &Tree| if old.is_null() { Ok(Tree::Null) } else { decremented(old, &pod_name) };
    budgets.update(Part::Status, true, dry_run, &mut Vec::new(), &change).await.map(drop)
}

/// The budget with one disruption less. Models checkAndDecrement.
fn decremented(budget: &Tree, pod: &str) -> Result<Tree, Status> {
    let name = meta::name(budget);
    if number(budget, &["status", "observedGeneration"]) < meta::generation(budget) {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(Status::too_many_requests(REFUSED, 10).with_cause("DisruptionBudget", cause, ""));
    }
    let allowed = number(budget, &["status", "disruptionsAllowed"]);
    if allowed < 0 {
        return Err(Status::forbidden("policy", "poddisruptionbudget", name, "pdb disruptions allowed is negative"));
    }
    if budget.at(&["status", "disruptedPods"]).and_then(Tree::as_object).is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden("policy", "poddisruptionbudget", name, why));
    }
    if allowed == 0 {
        let cause = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number(budget, &["status", "desiredHealthy"]),
            number(budget, &["status", "currentHealthy"])
        );
        return Err(Status::too_many_requests(REFUSED, 0).with_cause("DisruptionBudget", cause, ""));
    }
    let mut budget = budget.clone();
    budget.set(&["status", "disruptionsAllowed"], allowed - 1);
    budget.set(&["status", "disruptedPods", pod], now());
    Ok(budget)
}
