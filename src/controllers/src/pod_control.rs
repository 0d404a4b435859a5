//! Creating and deleting the pods of a controller: expectations, slow start, events.
//!
//! Models RealPodControl of pkg/controller/controller_utils.go and slowStartBatch of replicaset/replica_set.go, v1.37.
use std::future::Future;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::Pod;
use client::{Client, DeleteOptions, EventRecorder, EventType, Expectations, Kind, Named, ObjectKey};
use futures::future::join_all;

use crate::failure::{During, Failure};

/// Who acts, and for whom.
pub(crate) struct PodControl<'a, O> {
    pub client: &'a Client,
    pub recorder: &'a EventRecorder,
    pub expectations: &'a Expectations,
    /// Events are about it.
    pub owner: &'a O,
}

impl<O: Kind> PodControl<'_, O> {
    /// Creates the pods, those in front first; `count` of them must be expected already.
    pub async fn create_slowly(&self, pods: &[Pod]) -> Result<(), Failure> {
        let key = ObjectKey::of(self.owner);
        slow_start(pods.len(), |i| self.create(&pods[i])).await.map_err(|(skipped, failure)| {
            self.expectations.creations_observed(&key, skipped);
            failure
        })
    }

    async fn create(&self, pod: &Pod) -> Result<(), Failure> {
        let key = ObjectKey::of(self.owner);
        match self.client.create(pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.name());
                self.recorder.record(self.owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.creation_observed(&key);
                if error.is_namespace_terminating() {
                    // Nothing can be created here any more, and nothing needs to be.
                    return Ok(());
                }
                let message = format!("Error creating: {error}");
                self.recorder.record(self.owner, EventType::Warning, "FailedCreate", message);
                Err(error).during(|| format!("create a pod for {} {key}", O::KIND))
            }
        }
    }

    /// Deletes the pods, whose uids must be expected already.
    pub async fn delete_all(&self, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        let results = join_all(pods.iter().map(|pod| self.delete(pod))).await;
        results.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Failure> {
        let key = ObjectKey::of(self.owner);
        match self.client.delete::<Pod>(&pod.key(), &DeleteOptions::uid(pod.uid())).await {
            Ok(()) => {
                let message = format!("Deleted pod: {}", pod.name());
                self.recorder.record(self.owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.deletion_observed(&key, pod.uid());
                // Gone already, or another pod of that name: either way ours is no more.
                if error.is_not_found() || error.is_conflict() {
                    return Ok(());
                }
                self.recorder.record(self.owner, EventType::Warning, "FailedDelete", format!("Error deleting: {error}"));
                Err(error).during(|| format!("delete the pod {} of {key}", pod.key()))
            }
        }
    }
}

/// Works in batches of 1, 2, 4 .., and stops with the batch in which one fails: a quota or an admission that refuses one
/// pod refuses all, and is not asked five hundred times. The failure comes with the number of those never tried.
pub(crate) async fn slow_start<F: Future<Output = Result<(), Failure>>>(
    count: usize,
    work: impl Fn(usize) -> F,
) -> Result<(), (usize, Failure)> {
    let (mut done, mut batch) = (0, 1);
    while done < count {
        let end = count.min(done + batch);
        let results = join_all((done..end).map(&work)).await;
        done = end;
        if let Some(failure) = results.into_iter().find_map(Result::err) {
            return Err((count - done, failure));
        }
        batch *= 2;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn batches_double_and_end_with_the_one_that_fails() {
        let tried = Cell::new(0);
        let work = |fails_at: usize| {
            let tried = &tried;
            move |i: usize| {
                tried.set(tried.get() + 1);
                async move { if i == fails_at { Err(Failure::Stale("no".to_owned())) } else { Ok(()) } }
            }
        };
        assert!(slow_start(9, work(99)).await.is_ok());
        assert_eq!(tried.replace(0), 9);
        // 1, then 2, and the batch of 4 fails: 7 tried, 3 not.
        let (skipped, _) = slow_start(10, work(4)).await.unwrap_err();
        assert_eq!((tried.get(), skipped), (7, 3));
    }
}
