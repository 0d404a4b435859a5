//! How long a job waits before it replaces a failed pod: 10 seconds, doubled with each failure in a row, up to 10 minutes.
//!
//! Models pkg/controller/job/backoff_utils.go, v1.37.
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use jiff::{SignedDuration, Timestamp};

use super::indexes::failures_before;
use crate::pods;

const FIRST: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(600);

/// Failures since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    pub failures: u32,
    pub last_failure: Option<Timestamp>,
}

impl Backoff {
    /// With pods that have newly finished.
    pub fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let last_success = succeeded.iter().map(|p| finished_at(p)).max();
        let failures = failed.iter().map(|p| finished_at(p));
        match last_success {
            None if failed.is_empty() => self,
            None => Self {
                failures: self.failures.saturating_add(u32::try_from(failed.len()).unwrap_or(u32::MAX)),
                last_failure: failures.max(),
            },
            Some(success) => {
                let later: Vec<_> = failures.filter(|at| *at > success).collect();
                Self { failures: u32::try_from(later.len()).unwrap_or(u32::MAX), last_failure: later.into_iter().max() }
            }
        }
    }

    pub fn remaining(self, now: Timestamp) -> Duration {
        let (Some(last), 1..) = (self.last_failure, self.failures) else { return Duration::ZERO };
        let delay = FIRST.saturating_mul(2u32.saturating_pow(self.failures - 1)).min(LAST);
        pods::until(last.saturating_add(delay).unwrap_or(Timestamp::MAX), now)
    }
}

/// What is left of an index's back-off, counted on its last failed pod.
pub(super) fn remaining_of_index(last_failed: Option<&Arc<Pod>>, now: Timestamp) -> Duration {
    let Some(pod) = last_failed else { return Duration::ZERO };
    let failures = u32::try_from(failures_before(pod)).unwrap_or(0).saturating_add(1);
    Backoff { failures, last_failure: Some(finished_at(pod)) }.remaining(now)
}

/// When a pod finished: as its containers say, else as its Ready condition does, else when it was deleted, else its creation.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    from_containers(pod)
        .or_else(|| from_readiness(pod))
        .or_else(|| from_deletion(pod))
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

fn from_containers(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let init = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    // A sidecar outlives the containers proper.
    let is_sidecar = |c: &&ContainerStatus| init.iter().any(|i| i.name == c.name && i.restart_policy.as_deref() == Some("Always"));
    let sidecars = status.init_container_statuses.iter().flatten().filter(is_sidecar);
    let mut latest = None;
    for container in status.container_statuses.iter().flatten().chain(sidecars) {
        let ended = container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0;
        latest = latest.max(Some(ended));
    }
    latest
}

fn from_readiness(pod: &Pod) -> Option<Timestamp> {
    let ready = pods::condition(pod, "Ready").filter(|c| c.status == "False")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

fn from_deletion(pod: &Pod) -> Option<Timestamp> {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(at: i64) -> Arc<Pod> {
        let at = Timestamp::from_second(at).unwrap().to_string();
        let state = serde_json::json!({"terminated": {"exitCode": 1, "finishedAt": at}});
        let container = serde_json::json!({"name": "c", "state": state, "image": "", "imageID": "", "ready": false, "restartCount": 0});
        Arc::new(serde_json::from_value(serde_json::json!({"status": {"containerStatuses": [container]}})).unwrap())
    }

    #[track_caller]
    fn check(before: (u32, i64), succeeded: &[i64], failed: &[i64], after: (u32, i64), remaining_at_100: u64) {
        let record = |(failures, at): (u32, i64)| Backoff { failures, last_failure: (at > 0).then(|| Timestamp::from_second(at).unwrap()) };
        let pods = |times: &[i64]| times.iter().map(|t| ended(*t)).collect::<Vec<_>>();
        let new = record(before).after(&pods(succeeded), &pods(failed));
        assert_eq!(new, record(after));
        assert_eq!(new.remaining(Timestamp::from_second(100).unwrap()).as_secs(), remaining_at_100);
    }

    #[test]
    fn failures_since_the_last_success_double_the_wait() {
        check((0, 0), &[], &[], (0, 0), 0);
        check((0, 0), &[], &[95], (1, 95), 5);
        check((1, 80), &[], &[99, 95], (3, 99), 39);
        check((5, 80), &[], &[], (5, 80), 140);
        check((5, 80), &[90], &[], (0, 0), 0);
        check((5, 80), &[90], &[85, 95, 92], (2, 95), 15);
        check((30, 90), &[], &[], (30, 90), 590);
    }
}
