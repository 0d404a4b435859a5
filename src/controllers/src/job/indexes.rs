//! Completion indexes: sets of them as the status writes them (`1,3-5`), and which are still to be done.
//!
//! Models pkg/controller/job/indexed_job_utils.go, v1.37.
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use client::Named;
use client::k8s_openapi::api::batch::v1::Job;
use client::k8s_openapi::api::core::v1::Pod;

use super::backoff::finished_at;
use super::facts::{completions, has_finalizer, is_failed, spec};
use super::policy::pod_failure;
use crate::pods;

pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// A set of indexes as ascending, disjoint, inclusive ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<(usize, usize)>);

impl Intervals {
    /// Reads `1,3-5`; what is not a number is skipped, and what is not below `completions` is cut off.
    pub fn parse(text: &str, completions: usize) -> Self {
        let mut result = Self::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { continue };
            if first >= completions {
                break;
            }
            if last < first {
                continue;
            }
            result.append(first, last.min(completions - 1));
        }
        result
    }

    /// Adds a range that begins no earlier than the last one.
    fn append(&mut self, first: usize, last: usize) {
        match self.0.last_mut() {
            Some(end) if first <= end.1 + 1 => end.1 = end.1.max(last),
            _ => self.0.push((first, last)),
        }
    }

    pub fn with(&self, indexes: impl IntoIterator<Item = usize>) -> Self {
        let sorted: BTreeSet<usize> = indexes.into_iter().collect();
        self.merge(&Self(sorted.into_iter().map(|i| (i, i)).collect()))
    }

    pub fn merge(&self, other: &Self) -> Self {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut result = Self::default();
        all.into_iter().for_each(|(first, last)| result.append(first, last));
        result
    }

    pub fn total(&self) -> usize {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, index: usize) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes are in both.
    pub fn overlap(&self, other: &Self) -> usize {
        let (mut a, mut b, mut count) = (0, 0, 0);
        while let (Some(x), Some(y)) = (self.0.get(a), other.0.get(b)) {
            count += (x.1.min(y.1) + 1).saturating_sub(x.0.max(y.0));
            if x.1 <= y.1 {
                a += 1;
            }
            if y.1 <= x.1 {
                b += 1;
            }
        }
        count
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub fn missing(&self, count: usize, completions: usize) -> Vec<usize> {
        let mut result = Vec::new();
        let mut candidate = 0;
        for &(first, last) in self.0.iter().chain([&(completions, completions)]) {
            while candidate < first.min(completions) && result.len() < count {
                result.push(candidate);
                candidate += 1;
            }
            candidate = candidate.max(last + 1);
        }
        result
    }
}

/// Two neighbours are written `3,4`, three `3-5`.
impl fmt::Display for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, &(first, last)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The pod's index, where it has a valid one.
pub(super) fn index_of(pod: &Pod) -> Option<usize> {
    let value: i32 = pod.annotation(INDEX)?.parse().ok()?;
    usize::try_from(value).ok()
}

/// The pod's index, where it is one of the job's.
pub(super) fn valid_index(job: &Job, pod: &Pod) -> Option<usize> {
    index_of(pod).filter(|i| *i < completions(job))
}

pub(super) fn indexes_of(pods: &[Arc<Pod>]) -> BTreeSet<usize> {
    pods.iter().filter_map(|p| index_of(p)).collect()
}

/// The succeeded indexes as the status has them, and with the pods that are not counted yet.
pub(super) fn succeeded(job: &Job, pods: &[Arc<Pod>]) -> (Intervals, Intervals) {
    let text = job.status.as_ref().and_then(|s| s.completed_indexes.as_deref()).unwrap_or_default();
    let previous = Intervals::parse(text, completions(job));
    let fresh = pods.iter().filter(|p| pods::phase(p) == "Succeeded" && has_finalizer(p));
    let now = previous.with(fresh.filter_map(|p| valid_index(job, p)));
    (previous, now)
}

/// The indexes given up, those of pods that are not counted yet included.
pub(super) fn failed(job: &Job, pods: &[Arc<Pod>]) -> Intervals {
    let text = job.status.as_ref().and_then(|s| s.failed_indexes.as_deref()).unwrap_or_default();
    let fresh = pods.iter().filter(|p| has_finalizer(p) && gives_up_index(job, p));
    Intervals::parse(text, completions(job)).with(fresh.filter_map(|p| valid_index(job, p)))
}

fn gives_up_index(job: &Job, pod: &Pod) -> bool {
    if !is_failed(job, pod) {
        return false;
    }
    let verdict = pod_failure(job, pod);
    let limit = spec(job).backoff_limit_per_index.unwrap_or(i32::MAX);
    verdict.fails_index || verdict.counts && count(pod, FAILURES) >= limit
}

/// An unreadable or negative annotation counts as 0.
fn count(pod: &Pod, annotation: &str) -> i32 {
    pod.annotation(annotation).and_then(|v| v.parse().ok()).filter(|n| *n >= 0).unwrap_or(0)
}

/// Failures of the index up to this pod's creation, the ignored ones included.
pub(super) fn failures_before(pod: &Pod) -> i32 {
    count(pod, FAILURES).saturating_add(count(pod, IGNORED_FAILURES))
}

/// The annotations by which the next pod of an index knows how often the index has failed.
pub(super) fn failure_annotations(job: &Job, replaced: Option<&Pod>) -> Vec<(&'static str, String)> {
    let (mut failures, mut ignored) = (0, 0);
    if let Some(pod) = replaced {
        (failures, ignored) = (count(pod, FAILURES), count(pod, IGNORED_FAILURES));
        match pod_failure(job, pod).counts {
            true => failures += 1,
            false => ignored += 1,
        }
    }
    let mut annotations = vec![(FAILURES, failures.to_string())];
    if ignored > 0 {
        annotations.push((IGNORED_FAILURES, ignored.to_string()));
    }
    annotations
}

/// With `backoffLimitPerIndex`: the last failed pod of each index that waits for its next one. It stays until that one exists,
/// which takes its count of failures over.
pub(super) fn kept_for_replacement(
    job: &Job,
    candidates: &[Arc<Pod>],
    active: &[Arc<Pod>],
    succeeded: &Intervals,
    failed: &Intervals,
) -> HashMap<usize, Arc<Pod>> {
    let active = indexes_of(active);
    let mut kept: HashMap<usize, Arc<Pod>> = HashMap::new();
    for pod in candidates.iter().filter(|p| is_failed(job, p)) {
        let Some(index) = valid_index(job, pod) else { continue };
        if succeeded.has(index) || failed.has(index) || active.contains(&index) {
            continue;
        }
        let is_later =
            kept.get(&index).is_none_or(|known| failures_before(known) <= failures_before(pod) && finished_at(pod) >= finished_at(known));
        if is_later {
            kept.insert(index, pod.clone());
        }
    }
    kept
}

/// Of the active pods of an indexed job those that must go: without an index, beyond the last one, or doubled. The rest is second.
pub(super) fn superfluous(pods: &[Arc<Pod>], completions: usize) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let (mut remove, mut left) = (Vec::new(), Vec::new());
    let mut by_index: std::collections::BTreeMap<usize, Vec<Arc<Pod>>> = std::collections::BTreeMap::new();
    for pod in pods {
        match index_of(pod) {
            Some(index) if index < completions => by_index.entry(index).or_default().push(pod.clone()),
            _ => remove.push(pod.clone()),
        }
    }
    for mut same in by_index.into_values() {
        pods::sort_by_activity(&mut same);
        left.extend(same.pop());
        remove.append(&mut same);
    }
    (remove, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, completions: usize, written: &str, total: usize) {
        let set = Intervals::parse(text, completions);
        assert_eq!((set.to_string().as_str(), set.total()), (written, total));
    }

    #[test]
    fn a_set_of_indexes_is_read_cut_and_written() {
        check("", 5, "", 0);
        check("0", 5, "0", 1);
        check("0,1", 5, "0,1", 2);
        check("0-2,4", 5, "0-2,4", 4);
        check("0-2,3-9,12", 8, "0-7", 8);
        check("x,1-y,3", 5, "3", 1);
        check("7", 5, "", 0);
    }

    #[test]
    fn sets_merge_overlap_and_name_what_is_missing() {
        let set = Intervals::parse("1,3-5", 10);
        assert_eq!(set.with([0, 2, 7]).to_string(), "0-5,7");
        assert_eq!(set.merge(&Intervals::parse("4-8", 10)).to_string(), "1,3-8");
        assert_eq!(set.overlap(&Intervals::parse("0-4", 10)), 3);
        assert_eq!(set.missing(3, 10), [0, 2, 6]);
        assert_eq!(set.missing(9, 8), [0, 2, 6, 7]);
        assert_eq!(Intervals::parse("0-4", 5).missing(2, 5), [0usize; 0]);
        assert!(set.has(4) && !set.has(2) && !set.has(6));
    }
}
