//! Carries out what was planned: creates in growing batches, deletes, and takes finalizers.
use std::sync::Arc;

use client::k8s_openapi::api::batch::v1::Job;
use client::k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodTemplateSpec};
use client::{DeleteOptions, EventType, Named, ObjectKey, Patch};
use futures::future::join_all;
use serde_json::json;

use super::Context;
use super::facts::{FINALIZER, has_finalizer, is_indexed, spec};
use super::indexes::{INDEX, failure_annotations};
use super::plan::{Action, Assessment};
use super::settle::Done;
use crate::failure::{During, Failure, unless_gone};
use crate::ownership::controller_reference;
use crate::pods;

/// `generateName` longer than this leaves no room for the suffix.
const PREFIX_MAX: usize = 58;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

pub(super) async fn execute(cx: &Context, job: &Job, seen: &Assessment, action: &Action) -> (Done, Result<(), Failure>) {
    match action {
        Action::None | Action::Wait(_) => (Done::default(), Ok(())),
        Action::Create(indexes) => create(cx, job, seen, indexes).await,
        Action::Finish(pods) => summarize(pods, join_all(pods.iter().map(|pod| delete(cx, job, pod))).await),
        Action::Delete(pods) => {
            cx.expectations.expect_deletions(&job.key(), pods.iter().map(|p| p.uid().to_owned()));
            summarize(pods, join_all(pods.iter().map(|pod| discard(cx, job, pod))).await)
        }
    }
}

fn summarize(pods: &[Arc<Pod>], results: Vec<Result<(), Failure>>) -> (Done, Result<(), Failure>) {
    let deleted: Vec<_> = pods.iter().zip(&results).filter(|(_, r)| r.is_ok()).map(|(p, _)| p).collect();
    let deleted_ready = deleted.iter().filter(|p| pods::is_ready(p)).count();
    let done = Done { created: 0, deleted: deleted.len(), deleted_ready };
    (done, results.into_iter().find_map(Result::err).map_or(Ok(()), Err))
}

/// Deletes a pod that is not to be counted.
async fn discard(cx: &Context, job: &Job, pod: &Pod) -> Result<(), Failure> {
    let result = match release(cx, pod).await {
        Ok(()) => delete(cx, job, pod).await,
        failed => failed,
    };
    if result.is_err() {
        cx.expectations.deletion_observed(&job.key(), pod.uid());
    }
    result
}

async fn delete(cx: &Context, job: &Job, pod: &Pod) -> Result<(), Failure> {
    match cx.client.delete::<Pod>(&pod.key(), &DeleteOptions::uid(pod.uid())).await {
        Ok(()) => {
            cx.recorder.record(job, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
            Ok(())
        }
        // Gone already, or another pod of that name: either way ours is no more.
        Err(error) if error.is_not_found() || error.is_conflict() => {
            cx.expectations.deletion_observed(&job.key(), pod.uid());
            Ok(())
        }
        Err(error) => {
            cx.recorder.record(job, EventType::Warning, "FailedDelete", format!("Error deleting: {error}"));
            Err(error).during(|| format!("delete the pod {} of Job {}", pod.key(), job.key()))
        }
    }
}

/// Takes the tracking finalizer; a pod that is gone is as good as done.
pub(super) async fn release(cx: &Context, pod: &Pod) -> Result<(), Failure> {
    if !has_finalizer(pod) {
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
    match unless_gone(cx.client.patch::<Pod>(&pod.key(), &Patch::Strategic(patch)).await) {
        // Another pod has the name by now.
        Err(error) if error.is_conflict() && cx.pods.get(&pod.key()).is_none_or(|p| p.uid() != pod.uid()) => Ok(()),
        result => result.map(|_| ()).during(|| format!("take the tracking finalizer of pod {}", pod.key())),
    }
}

/// Creates in batches of 1, 2, 4 .., and stops with the batch in which one fails: a quota or an admission that refuses one pod
/// refuses all.
async fn create(cx: &Context, job: &Job, seen: &Assessment, indexes: &[Option<usize>]) -> (Done, Result<(), Failure>) {
    let key = job.key();
    cx.expectations.expect_creations(&key, indexes.len());
    let (mut done, mut rest, mut batch) = (Done::default(), indexes, 1);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(batch.min(rest.len()));
        let results = join_all(now.iter().map(|index| create_one(cx, job, new_pod(job, seen, *index)))).await;
        done.created += results.iter().filter(|r| matches!(r, Ok(true))).count();
        if let Some(failure) = results.into_iter().find_map(Result::err) {
            cx.expectations.creations_observed(&key, later.len());
            return (done, Err(failure));
        }
        (rest, batch) = (later, batch * 2);
    }
    (done, Ok(()))
}

async fn create_one(cx: &Context, job: &Job, pod: Pod) -> Result<bool, Failure> {
    match cx.client.create(&pod).await {
        Ok(created) => {
            cx.recorder.record(job, EventType::Normal, "SuccessfulCreate", format!("Created pod: {}", created.name()));
            Ok(true)
        }
        Err(error) => {
            cx.expectations.creation_observed(&job.key());
            if error.is_namespace_terminating() {
                // Nothing can be created here any more, and nothing needs to be.
                return Ok(false);
            }
            cx.recorder.record(job, EventType::Warning, "FailedCreate", format!("Error creating: {error}"));
            Err(error).during(|| format!("create a pod for Job {}", job.key()))
        }
    }
}

fn new_pod(job: &Job, seen: &Assessment, index: Option<usize>) -> Pod {
    let mut template = spec(job).template.clone();
    if is_indexed(job) {
        add_index_variable(&mut template);
    }
    let mut pod = pods::from_template(&template, job.namespace(), job.name(), controller_reference(job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let (text, meta) = (index.to_string(), &mut pod.metadata);
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), text.clone());
    if spec(job).backoff_limit_per_index.is_some() {
        let replaced = seen.kept.get(&index).map(|p| &**p);
        annotations.extend(failure_annotations(job, replaced).into_iter().map(|(k, v)| (k.to_owned(), v)));
    }
    meta.labels.get_or_insert_default().insert(INDEX.to_owned(), text);
    meta.generate_name = Some(name_prefix(job.name(), index));
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{}-{index}", job.name()));
    }
    pod
}

fn name_prefix(job: &str, index: usize) -> String {
    let suffix = format!("-{index}-");
    let room = PREFIX_MAX.saturating_sub(suffix.len());
    format!("{}{suffix}", job.get(..room).unwrap_or(job))
}

/// Tells each container its index, unless the template does so itself.
fn add_index_variable(template: &mut PodTemplateSpec) {
    let Some(spec) = &mut template.spec else { return };
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|v| v.name == INDEX_VARIABLE) {
            continue;
        }
        let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
        env.push(EnvVar {
            name: INDEX_VARIABLE.to_owned(),
            value: None,
            value_from: Some(EnvVarSource { field_ref: Some(field), ..Default::default() }),
        });
    }
}

/// Takes the finalizers of all pods; returns the uids of those that have none left.
pub(super) async fn release_all(cx: &Context, key: &ObjectKey, pods: &[Arc<Pod>]) -> (Vec<String>, Result<(), Failure>) {
    cx.released.expect(key, pods.iter().map(|p| p.uid().to_owned()));
    let results = join_all(pods.iter().map(|pod| release(cx, pod))).await;
    let mut released = Vec::new();
    let mut first = Ok(());
    for (pod, result) in pods.iter().zip(results) {
        match result {
            Ok(()) => released.push(pod.uid().to_owned()),
            Err(failure) => {
                cx.released.observed(key, pod.uid());
                if first.is_ok() {
                    first = Err(failure);
                }
            }
        }
    }
    (released, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_indexed_pod_keeps_its_index() {
        assert_eq!(name_prefix("job", 3), "job-3-");
        let long = "x".repeat(60);
        assert_eq!(name_prefix(&long, 12), format!("{}-12-", "x".repeat(54)));
    }
}
