//! What a terminating namespace says about its end.
use std::collections::BTreeMap;

use client::k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What one round of deletion came upon.
#[derive(Default)]
pub(super) struct Findings {
    pub undiscovered: Vec<String>,
    pub failures: Vec<String>,
    /// Objects left, by `resource.group`.
    pub remaining: BTreeMap<String, usize>,
    pub finalizers: BTreeMap<String, usize>,
}

impl Findings {
    pub fn first_failure(&self) -> Option<String> {
        self.undiscovered.first().or(self.failures.first()).cloned()
    }
}

struct Verdict {
    kind: &'static str,
    bad: Option<(&'static str, String)>,
    good: (&'static str, &'static str),
}

fn verdicts(findings: &Findings) -> [Verdict; 5] {
    let list = |texts: Vec<String>| texts.join(", ");
    let failed = |reason, what: &str, all: &[String], counted: &str| {
        (!all.is_empty()).then(|| (reason, format!("{what}, {} {counted}: {}", all.len(), all.join(", "))))
    };
    let remaining = findings.remaining.iter().map(|(what, n)| format!("{what} has {n} resource instances")).collect();
    let finalizers = findings.finalizers.iter().map(|(what, n)| format!("{what} in {n} resource instances")).collect();
    [
        Verdict {
            kind: "NamespaceDeletionDiscoveryFailure",
            bad: failed("DiscoveryFailed", "Discovery failed for some groups", &findings.undiscovered, "failing"),
            good: ("ResourcesDiscovered", "All resources successfully discovered"),
        },
        Verdict {
            kind: "NamespaceDeletionGroupVersionParsingFailure",
            bad: None,
            good: ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        },
        Verdict {
            kind: "NamespaceDeletionContentFailure",
            bad: failed("ContentDeletionFailed", "Failed to delete all resource types", &findings.failures, "remaining"),
            good: ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        },
        Verdict {
            kind: "NamespaceContentRemaining",
            bad: (!findings.remaining.is_empty())
                .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", list(remaining)))),
            good: ("ContentRemoved", "All content successfully removed"),
        },
        Verdict {
            kind: "NamespaceFinalizersRemaining",
            bad: (!findings.finalizers.is_empty()).then(|| {
                ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {}", list(finalizers)))
            }),
            good: ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        },
    ]
}

/// The new status; transition times move only with the value.
pub(super) fn status(namespace: &Namespace, findings: &Findings, now: Time) -> NamespaceStatus {
    let mut status = namespace.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for Verdict { kind, bad, good } in verdicts(findings) {
        let value = if bad.is_some() { "True" } else { "False" };
        let (reason, message) = bad.unwrap_or_else(|| (good.0, good.1.to_owned()));
        let old = conditions.iter_mut().find(|c| c.type_ == kind);
        let transition = match &old {
            Some(old) if old.status == value => old.last_transition_time.clone(),
            _ => Some(now.clone()),
        };
        let new = NamespaceCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: transition,
        };
        match old {
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: &NamespaceStatus) -> Vec<String> {
        let word = |c: &NamespaceCondition| format!("{}={} {}", c.type_, c.status, c.message.as_deref().unwrap());
        status.conditions.iter().flatten().map(word).collect()
    }

    #[test]
    fn conditions_name_what_is_left_and_turn_good_again() {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let findings = Findings {
            remaining: BTreeMap::from([("pods.".to_owned(), 2), ("widgets.example.com".to_owned(), 1)]),
            finalizers: BTreeMap::from([("example.com/hold".to_owned(), 1)]),
            ..Default::default()
        };
        let mut namespace = Namespace { status: Some(status(&Namespace::default(), &findings, now.clone())), ..Default::default() };
        assert_eq!(told(namespace.status.as_ref().unwrap())[3..], [
            "NamespaceContentRemaining=True Some resources are remaining: pods. has 2 resource instances, widgets.example.com has 1 resource instances",
            "NamespaceFinalizersRemaining=True Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
        ]);
        namespace.status = Some(status(&namespace, &Findings::default(), now));
        assert_eq!(told(namespace.status.as_ref().unwrap()), [
            "NamespaceDeletionDiscoveryFailure=False All resources successfully discovered",
            "NamespaceDeletionGroupVersionParsingFailure=False All legacy kube types successfully parsed",
            "NamespaceDeletionContentFailure=False All content successfully deleted, may be waiting on finalization",
            "NamespaceContentRemaining=False All content successfully removed",
            "NamespaceFinalizersRemaining=False All content-preserving finalizers finished",
        ]);
    }
}
