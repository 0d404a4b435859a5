//! What a failed pod means for its job, and whether enough indexes have succeeded.
//!
//! Models pkg/controller/job/{pod_failure_policy.go, success_policy.go}, v1.37.
use client::Named;
use client::k8s_openapi::api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern};
use client::k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};

use super::facts::{completions, spec};
use super::indexes::Intervals;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The job fails, and says this.
    pub fails_job: Option<String>,
    pub fails_index: bool,
    /// Counts towards `backoffLimit` and `backoffLimitPerIndex`.
    pub counts: bool,
}

/// The verdict of the first rule that takes the pod; without one it just counts.
pub(super) fn pod_failure(job: &Job, pod: &Pod) -> Verdict {
    let rules = spec(job).pod_failure_policy.as_ref().map(|p| p.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let who = format!("{}/{}", pod.namespace(), pod.name());
        let action = rule.action.as_str();
        let message = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exit_code(pod, codes).map(|(container, ended)| {
                let (name, code) = (&container.name, ended.exit_code);
                format!("Container {name} for pod {who} failed with exit code {code} matching {action} rule at index {index}")
            }),
            (None, Some(patterns)) => {
                pod_condition(pod, patterns).map(|c| format!("Pod {who} has condition {} matching {action} rule at index {index}", c.type_))
            }
            (None, None) => None,
        };
        if let (Some(message), "Ignore" | "FailIndex" | "Count" | "FailJob") = (message, action) {
            return Verdict {
                fails_job: (action == "FailJob").then_some(message),
                fails_index: action == "FailIndex",
                counts: action != "Ignore",
            };
        }
    }
    Verdict { fails_job: None, fails_index: false, counts: true }
}

fn exit_code<'a>(
    pod: &'a Pod,
    wanted: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a ContainerStatus, &'a ContainerStateTerminated)> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let mut ended = containers.filter_map(|c| Some((c, c.state.as_ref()?.terminated.as_ref()?)));
    ended.find(|(container, ended)| {
        let listed = wanted.values.contains(&ended.exit_code);
        let matches = match wanted.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        ended.exit_code != 0 && matches && wanted.container_name.as_ref().is_none_or(|name| *name == container.name)
    })
}

fn pod_condition<'a>(pod: &'a Pod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a PodCondition> {
    let takes = |c: &&PodCondition| patterns.iter().any(|p| p.type_ == c.type_ && p.status.as_deref().unwrap_or("True") == c.status);
    pod.status.as_ref()?.conditions.iter().flatten().find(takes)
}

/// The message of the first rule of the success policy that is met.
pub(super) fn success(job: &Job, succeeded: &Intervals) -> Option<String> {
    let policy = spec(job).success_policy.as_ref()?;
    if succeeded.is_empty() {
        return None;
    }
    let reaches = |count: usize, wanted: Option<i32>| wanted.is_some_and(|w| usize::try_from(w).is_ok_and(|w| count >= w));
    let met = policy.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let required = Intervals::parse(text, completions(job));
            let have = required.overlap(succeeded);
            !required.is_empty() && (have == required.total() || reaches(have, rule.succeeded_count))
        }
        None => reaches(succeeded.total(), rule.succeeded_count),
    })?;
    Some(format!("Matched rules at index {met}"))
}
