//! Does what a plan says to pods and claims, and tells of it by events. Models stateful_pod_control.go.
use client::k8s_openapi::api::apps::v1::StatefulSet;
use client::k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use client::{ApiError, DeleteOptions, EventType, Named};

use super::plan::{Phase, Step};
use super::{Context, claims, identity};
use crate::failure::{During, Failure};
use crate::pod_control::slow_start;

/// Tries to repair a pod that somebody else keeps changing.
const TRIES: usize = 4;

pub(super) async fn execute(cx: &Context, set: &StatefulSet, phases: &[Phase]) -> Result<(), Failure> {
    let control = Control { cx, set };
    for Phase { parallel, work } in phases {
        if *parallel {
            slow_start(work.len(), |i| control.steps(&work[i])).await.map_err(|(_, failure)| failure)?;
        } else {
            for steps in work {
                control.steps(steps).await?;
            }
        }
    }
    Ok(())
}

struct Control<'a> {
    cx: &'a Context,
    set: &'a StatefulSet,
}

impl Control<'_> {
    async fn steps(&self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            match step {
                Step::Create(pod) => self.create(pod).await,
                Step::Delete(pod) => self.delete(pod).await,
                Step::MakeClaims(pod) => self.make_and_own_claims(pod).await,
                Step::Repair(pod) => self.repair(pod).await,
                Step::OwnClaims(pod) => self.own_claims(pod).await,
            }?;
        }
        Ok(())
    }

    async fn create(&self, pod: &Pod) -> Result<(), Failure> {
        if let Err(failure) = self.make_claims(pod).await {
            self.record("Create", pod, Some(&failure.reason()));
            return Err(failure);
        }
        match self.cx.client.create(pod).await {
            Ok(created) => self.cx.writes.wrote(self.set, &created),
            Err(error) => {
                if !error.is_already_exists() {
                    self.record("Create", pod, Some(&error.to_string()));
                }
                return Err(error).during(|| format!("create pod {}", pod.key()));
            }
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
                result => {
                    let updated = result.during(|| format!("update pod {}", pod.key()))?;
                    self.cx.writes.wrote(self.set, &updated);
                    return Ok(());
                }
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
        let created = result.during(|| format!("create PersistentVolumeClaim {}", claim.key()))?;
        self.cx.writes.wrote(self.set, &created);
        Ok(())
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
            let updated = self.cx.client.update(&update).await.during(step)?;
            self.cx.writes.wrote(self.set, &updated);
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
