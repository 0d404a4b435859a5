//! A webhook as its configuration describes it, read once.
use std::sync::Arc;
use std::time::Duration;

use api::meta;
use api::tree::Tree;

use crate::admission::conditions::Conditions;
use crate::admission::matching::Criteria;
use crate::outbound::Destination;

/// Versions of AdmissionReview, in the order in which a webhook prefers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewVersion {
    V1,
    V1Beta1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideEffects {
    /// None at all, or none when told that nothing is to happen.
    None,
    /// Some, or unknown.
    Some,
}

pub struct Hook {
    pub configuration: String,
    pub name: String,
    /// Tells it from all others of its kind of configuration.
    pub uid: String,
    pub criteria: Criteria,
    pub conditions: Conditions,
    pub ignores_failure: bool,
    pub is_reinvoked: bool,
    pub side_effects: SideEffects,
    pub review_version: Option<ReviewVersion>,
    pub timeout: Duration,
    pub to: Destination,
}

/// The webhooks of a configuration, in their order.
pub fn compile(configuration: &Tree) -> Vec<Arc<Hook>> {
    let hooks = configuration.array_at(&["webhooks"]).iter().enumerate();
    hooks.map(|(i, hook)| Arc::new(one(meta::name(configuration), i, hook))).collect()
}

fn one(configuration: &str, index: usize, hook: &Tree) -> Hook {
    let text = |key: &str| hook.str_at(&[key]);
    let client = hook.get("clientConfig").unwrap_or(&Tree::Null);
    let version = hook.array_at(&["admissionReviewVersions"]).iter().find_map(|version| match version.as_str() {
        Some("v1") => Some(ReviewVersion::V1),
        Some("v1beta1") => Some(ReviewVersion::V1Beta1),
        _ => None,
    });
    let seconds = hook.at(&["timeoutSeconds"]).and_then(Tree::as_i64).and_then(|s| u64::try_from(s).ok()).unwrap_or(10);
    Hook {
        configuration: configuration.to_owned(),
        name: text("name").to_owned(),
        uid: format!("{configuration}/{}/{index}", text("name")),
        criteria: Criteria::of_webhook(hook),
        conditions: Conditions::of(hook.array_at(&["matchConditions"])),
        ignores_failure: text("failurePolicy") == "Ignore",
        is_reinvoked: text("reinvocationPolicy") == "IfNeeded",
        side_effects: if matches!(text("sideEffects"), "None" | "NoneOnDryRun") { SideEffects::None } else { SideEffects::Some },
        review_version: version,
        timeout: Duration::from_secs(seconds),
        to: Destination::of(client),
    }
}
