//! Taking victims away for a pod that is more important.
//!
//! Models pkg/scheduler/framework/preemption/executor.go, v1.37, with asynchronous preemption: the loop goes on meanwhile, and the pod is
//! not tried before all victims have been told.
use std::sync::Arc;

use client::{ApiError, Client, DeleteOptions, EventRecorder, EventType, ObjectKey, Patch};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::failure::write_status;
use super::{Done, Scheduler};
use crate::pod::PodInfo;
use crate::preemption::Candidate;

/// What is said of a victim.
#[derive(Clone)]
struct Sentence {
    condition: Value,
    message: String,
}

impl Scheduler {
    pub(super) fn remove_victims(&mut self, pod: &Arc<PodInfo>, profile: usize, candidate: &Candidate) {
        for lesser in self.nominator.on(&candidate.node) {
            // They will look for another place sooner than after the preemption.
            if lesser.priority < pod.priority && !lesser.nominated_node.is_empty() {
                let patch = json!({"metadata": {"uid": lesser.uid}, "status": {"nominatedNodeName": null}});
                write_status(&self.client, lesser.key.clone(), patch);
            }
        }
        let victims: Vec<_> = candidate.victims.iter().filter(|p| !p.deleting).cloned().collect();
        if victims.is_empty() {
            return;
        }
        tracing::info!(pod = %pod.key, node = candidate.node, victims = victims.len(), "preempting");
        let time = serde_json::to_value(self.clock.time()).unwrap_or_default();
        let sentence = Sentence {
            condition: json!({
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "lastTransitionTime": time,
                "message": format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name),
            }),
            message: format!("Preempted by pod {} on node {}", pod.uid, candidate.node),
        };
        self.queue.preempts(&pod.uid);
        let (client, events, pods) = (self.client.clone(), self.events[profile].clone(), self.pods.clone());
        let (done, key, uid) = (self.done.clone(), pod.key.clone(), pod.uid.clone());
        let cancelled: Vec<bool> = victims.iter().map(|v| self.binder.pre_bindings.cancel(&v.uid)).collect();
        tokio::spawn(async move {
            let all = victims
                .iter()
                .zip(&cancelled)
                .map(|(victim, in_memory)| remove(&client, &events, pods.get(&victim.key), victim, &sentence, *in_memory));
            let failed = join_all(all).await.into_iter().filter_map(Result::err).collect::<Vec<_>>();
            for error in &failed {
                tracing::warn!(pod = %key, error = error as &dyn std::error::Error, "a victim was not removed");
            }
            // No deletion will be seen of a victim that was only on its way; then the pod is tried again at once.
            let nothing_to_see = cancelled.iter().all(|c| *c);
            let _ = done.send(Done::Preempted { key, uid, failed: !failed.is_empty() || nothing_to_see });
        });
    }
}

async fn remove(
    client: &Client,
    events: &EventRecorder,
    object: Option<Arc<Pod>>,
    victim: &PodInfo,
    sentence: &Sentence,
    in_memory: bool,
) -> Result<(), ApiError> {
    let mut message = sentence.message.clone();
    if in_memory {
        message.push_str(" (in kube-scheduler memory).");
    } else if !delete(client, &victim.key, victim, sentence).await? {
        return Ok(());
    }
    if let Some(object) = object {
        events.record(&*object, EventType::Normal, "Preempted", message);
    }
    Ok(())
}

/// Whether the victim was there.
async fn delete(client: &Client, key: &ObjectKey, victim: &PodInfo, sentence: &Sentence) -> Result<bool, ApiError> {
    let mut condition = sentence.condition.clone();
    if victim.generation > 0 {
        condition["observedGeneration"] = victim.generation.into();
    }
    let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
    let gone = |error: &ApiError| error.is_not_found() || error.is_conflict();
    match client.patch_status_unread::<Pod>(key, &Patch::Strategic(patch)).await {
        Ok(_) => {}
        Err(error) if gone(&error) => return Ok(false),
        Err(error) => return Err(error),
    }
    match client.delete::<Pod>(key, &DeleteOptions::uid(&victim.uid)).await {
        Ok(()) => Ok(true),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
