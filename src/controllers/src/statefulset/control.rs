//! Does what a plan says to pods and claims, and tells of it by events. Models stateful_pod_control.go.
use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::StatefulSet;
use client::k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use client::{ApiError, DeleteOptions, EventType, Named, ObjectKey};

use super::plan::{Phase, Step};
use super::{Context, claims, identity};
use crate::failure::{During, Failure};
use crate::pod_control::slow_start;

/// Tries to repair a pod that somebody else keeps changing.
const TRIES: usize = 4;

pub(super) async fn execute(cx: &Context, key: &ObjectKey, set: &StatefulSet, phases: &[Phase]) -> Result<(), Failure> {
    for phase in phases {
        let steps = || phase.work.iter().flatten();
        let created = steps().filter(|s| matches!(s, Step::Create(_))).count();
        let deleted: Vec<String> = steps()
            .filter_map(|s| match s {
                Step::Delete(pod) => Some(pod.uid().to_owned()),
                _ => None,
            })
            .collect();
        if created == 0 && deleted.is_empty() && phase.work.is_empty() {
            continue;
        }
        // What an earlier phase expects is still open: this one adds to it.
        cx.expectations.raise(key, created, deleted);
        let control = Control { cx, key, set };
        let result = match phase.parallel {
            true => slow_start(phase.work.len(), |i| control.steps(&phase.work[i])).await.map_err(|(skipped, failure)| {
                control.forget(&phase.work[phase.work.len() - skipped..]);
                failure
            }),
            false => control.one_by_one(&phase.work).await,
        };
        result?;
    }
    Ok(())
}

struct Control<'a> {
    cx: &'a Context,
    key: &'a ObjectKey,
    set: &'a StatefulSet,
}

impl Control<'_> {
    async fn one_by_one(&self, work: &[Vec<Step>]) -> Result<(), Failure> {
        for (i, steps) in work.iter().enumerate() {
            if let Err(failure) = self.steps(steps).await {
                self.forget(&work[i + 1..]);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// What was never tried is not expected.
    fn forget(&self, work: &[Vec<Step>]) {
        for step in work.iter().flatten() {
            self.forget_step(step);
        }
    }

    fn forget_step(&self, step: &Step) {
        match step {
            Step::Create(_) => self.cx.expectations.creation_observed(self.key),
            Step::Delete(pod) => self.cx.expectations.deletion_observed(self.key, pod.uid()),
            _ => {}
        }
    }

    async fn steps(&self, steps: &[Step]) -> Result<(), Failure> {
        for (i, step) in steps.iter().enumerate() {
            let done = match step {
                Step::Create(pod) => self.create(pod).await,
                Step::Delete(pod) => self.delete(pod).await,
                Step::MakeClaims(pod) => self.make_and_own_claims(pod).await,
                Step::Repair(pod) => self.repair(pod).await,
                Step::OwnClaims(pod) => self.own_claims(pod).await,
            };
            if done.is_err() {
                steps[i + 1..].iter().for_each(|s| self.forget_step(s));
                return done;
            }
        }
        Ok(())
    }

    async fn create(&self, pod: &Pod) -> Result<(), Failure> {
        if let Err(failure) = self.make_claims(pod).await {
            self.forget_step(&Step::Create(Arc::new(pod.clone())));
            self.record("Create", pod, Some(&failure.reason()));
            return Err(failure);
        }
        if let Err(error) = self.cx.client.create(pod).await {
            self.cx.expectations.creation_observed(self.key);
            if !error.is_already_exists() {
                self.record("Create", pod, Some(&error.to_string()));
            }
            return Err(error).during(|| format!("create pod {}", pod.key()));
        }
        if let Err(failure) = self.own_claims(pod).await {
            self.record("Update", pod, Some(&failure.reason()));
            return Err(failure);
        }
        self.record("Create", pod, None);
        Ok(())
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Failure> {
        if let Err(error) = self.cx.client.delete::<Pod>(&pod.key(), &DeleteOptions::uid(pod.uid())).await {
            self.cx.expectations.deletion_observed(self.key, pod.uid());
            // Otherwise it is gone already, or another pod has its name.
            if !error.is_not_found() && !error.is_conflict() {
                self.record("Delete", pod, Some(&error.to_string()));
                return Err(error).during(|| format!("delete pod {}", pod.key()));
            }
        }
        self.record("Delete", pod, None);
        Ok(())
    }

    async fn repair(&self, pod: &Pod) -> Result<(), Failure> {
        let done = self.try_repair(pod).await;
        let failure = done.as_ref().err().map(Failure::reason);
        self.record("Update", pod, failure.as_deref());
        done
    }

    async fn try_repair(&self, pod: &Pod) -> Result<(), Failure> {
        let mut update = pod.clone();
        for _ in 1..TRIES {
            if !identity::identity_matches(self.set, &update) {
                identity::update_identity(self.set, &mut update);
            }
            if !identity::storage_matches(self.set, &update) {
                identity::update_storage(self.set, &mut update);
                self.make_claims(&update).await?;
            }
            self.own_claims(&update).await?;
            match self.cx.client.update(&update).await {
                Err(error) if error.is_conflict() => {
                    update = self.cx.client.get(&pod.key()).await.during(|| format!("read pod {} again", pod.key()))?;
                }
                result => return result.map(drop).during(|| format!("update pod {}", pod.key())),
            }
        }
        Err(Failure::Stale(format!("pod {} keeps changing", pod.key())))
    }

    async fn make_and_own_claims(&self, pod: &Pod) -> Result<(), Failure> {
        self.make_claims(pod).await?;
        let done = self.own_claims(pod).await;
        if let Err(failure) = &done {
            self.record("Update", pod, Some(&failure.reason()));
        }
        done
    }

    /// Creates those that are missing; one that is on its way out must be gone first.
    async fn make_claims(&self, pod: &Pod) -> Result<(), Failure> {
        let mut first = None;
        for claim in claims::of_pod(self.set, pod) {
            let key = claim.key();
            let done = match self.cx.claims.get(&key) {
                Some(found) if found.is_deleting() => Err(Failure::Stale(format!("pvc {} is being deleted", key.name))),
                Some(_) => Ok(()),
                None => self.make_claim(pod, &claim).await,
            };
            first = first.or(done.err());
        }
        first.map_or(Ok(()), Err)
    }

    async fn make_claim(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), Failure> {
        let result = self.cx.client.create(claim).await;
        if !result.as_ref().is_err_and(ApiError::is_already_exists) {
            self.record_claim(pod, claim, result.as_ref().err());
        }
        result.map(drop).during(|| format!("create PersistentVolumeClaim {}", claim.key()))
    }

    /// Gives the pod's claims the owners that the retention policy wants.
    async fn own_claims(&self, pod: &Pod) -> Result<(), Failure> {
        for claim in claims::of_pod(self.set, pod) {
            // Just made: its owners are looked at when the watch has shown it.
            let Some(found) = self.cx.claims.get(&claim.key()) else { continue };
            if claims::has_unexpected_controller(&found, self.set, pod) {
                let text = format!(
                    "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim",
                    found.name()
                );
                self.cx.recorder.record(self.set, EventType::Warning, "ConflictingController", text);
            }
            if claims::is_up_to_date(&found, self.set, pod) {
                continue;
            }
            let mut update = (*found).clone();
            update.metadata.owner_references = Some(claims::owners(&found, self.set, pod));
            let step = || format!("give PersistentVolumeClaim {} its owners", found.key());
            self.cx.client.update(&update).await.during(step)?;
        }
        Ok(())
    }

    fn record(&self, verb: &str, pod: &Pod, failure: Option<&str>) {
        let subject = format!("{verb} Pod {} in StatefulSet {}", pod.name(), self.set.name());
        self.record_result(verb, failure, format!("{subject} successful"), &subject);
    }

    fn record_claim(&self, pod: &Pod, claim: &PersistentVolumeClaim, failure: Option<&ApiError>) {
        let (pod, set, claim) = (pod.name(), self.set.name(), claim.name());
        let failure = failure.map(ToString::to_string);
        let good = format!("Create Claim {claim} Pod {pod} in StatefulSet {set} success");
        let subject = format!("Create Claim {claim} for Pod {pod} in StatefulSet {set}");
        self.record_result("Create", failure.as_deref(), good, &subject);
    }

    fn record_result(&self, verb: &str, failure: Option<&str>, good: String, subject: &str) {
        match failure {
            None => self.cx.recorder.record(self.set, EventType::Normal, &format!("Successful{verb}"), good),
            Some(why) => {
                let text = format!("{subject} failed error: {why}");
                self.cx.recorder.record(self.set, EventType::Warning, &format!("Failed{verb}"), text);
            }
        }
    }
}
