//! What Pod Security Standards said of pods.
//!
//! Models k8s.io/pod-security-admission/metrics.
use std::collections::BTreeMap;
use std::sync::Mutex;

use super::text;

/// One look at a pod, or at what makes pods.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Evaluation {
    pub is_allowed: bool,
    pub level: &'static str,
    pub version: String,
    pub mode: &'static str,
    pub operation: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
}

#[derive(Default)]
pub struct Evaluations(Mutex<BTreeMap<Evaluation, u64>>);

impl Evaluations {
    pub fn evaluated(&self, evaluation: Evaluation) {
        *self.0.lock().expect("no panic under the lock").entry(evaluation).or_default() += 1;
    }

    pub fn render(&self, out: &mut String) {
        let name = "pod_security_evaluations_total";
        text::head(out, name, "counter", "Number of policy evaluations that occurred, not counting ignored or exempt requests.");
        for (evaluation, count) in self.0.lock().expect("no panic under the lock").iter() {
            let Evaluation { is_allowed, level, version, mode, operation, resource, subresource } = evaluation;
            let decision = if *is_allowed { "allow" } else { "deny" };
            let labels = format!(
                "decision=\"{decision}\",mode=\"{mode}\",policy_level=\"{level}\",policy_version=\"{version}\",request_operation=\"{operation}\",resource=\"{resource}\",subresource=\"{subresource}\""
            );
            text::sample(out, name, &labels, count);
        }
    }
}
