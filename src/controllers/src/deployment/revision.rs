//! Annotations that tie ReplicaSets to revisions and to the size they were scaled for.
use client::Named;
use client::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::numbers::{max_surge, wanted};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Longest revision history kept, in characters.
const HISTORY_CHARS_MAX: usize = 2000;
/// Not copied from a Deployment to its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

pub(super) fn revision(rs: &ReplicaSet) -> i64 {
    rs.annotation(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

pub(super) fn desired(rs: &ReplicaSet) -> Option<i32> {
    rs.annotation(DESIRED)?.parse().ok()
}

pub(super) fn max(rs: &ReplicaSet) -> Option<i32> {
    rs.annotation(MAX)?.parse().ok()
}

fn set(rs: &mut ReplicaSet, key: &str, value: String) {
    rs.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value);
}

/// Notes for which size of the Deployment this ReplicaSet was scaled.
pub(super) fn note_size(rs: &mut ReplicaSet, d: &Deployment) {
    set(rs, DESIRED, wanted(d).to_string());
    set(rs, MAX, (wanted(d) + max_surge(d)).to_string());
}

/// SetNewReplicaSetAnnotations: copies the Deployment's annotations and makes `new_revision` the ReplicaSet's.
pub(super) fn annotate_new(rs: &mut ReplicaSet, d: &Deployment, new_revision: i64) {
    for (key, value) in d.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) && rs.annotation(key) != Some(value) {
            set(rs, key, value.clone());
        }
    }
    let old = rs.annotation(REVISION).map(str::to_owned);
    if revision(rs) >= new_revision {
        return;
    }
    set(rs, REVISION, new_revision.to_string());
    // It had a revision and gets a newer one: a rollback has come back to it.
    if let Some(old) = old {
        let history = history_with(rs.annotation(HISTORY).unwrap_or_default(), &old);
        set(rs, HISTORY, history);
    }
}

/// Appends, dropping the oldest where it would grow too long.
fn history_with(history: &str, revision: &str) -> String {
    let mut all: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).chain([revision]).collect();
    while all.len() > 1 && all.iter().map(|r| r.len() + 1).sum::<usize>() - 1 > HISTORY_CHARS_MAX {
        all.remove(0);
    }
    all.join(",")
}
