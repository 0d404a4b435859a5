//! The decisions of the Deployment controller: changes are made to copies of the ReplicaSets, which the caller then writes.
use std::cmp::Reverse;
use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Named, Next, controller_of};
use jiff::Timestamp;

use super::numbers::{available, is_rolling, max_surge, max_unavailable, new_replicas, proportion, replicas, wanted};
use super::{revision, status};
use crate::ownership::controller_reference;
use crate::pods;
use crate::template::{HASH_LABEL, equal_ignoring_hash, hash};

/// A ReplicaSet as it shall be.
pub(super) struct Set {
    pub rs: ReplicaSet,
    /// As it is; `None`: to be created.
    pub original: Option<Arc<ReplicaSet>>,
    pub delete: bool,
}

impl Set {
    pub fn is_unchanged(&self, original: &ReplicaSet) -> bool {
        self.rs.spec.replicas == original.spec.replicas
            && self.rs.spec.min_ready_seconds == original.spec.min_ready_seconds
            && self.rs.metadata.annotations == original.metadata.annotations
    }
}

pub(super) struct Plan {
    pub sets: Vec<Set>,
    pub status: DeploymentStatus,
    /// The revision annotation of the Deployment.
    pub revision: Option<String>,
    pub next: Next,
}

struct Rollout<'a> {
    d: &'a Deployment,
    /// Oldest first.
    sets: Vec<Set>,
    /// Which of them has the Deployment's template.
    new: Option<usize>,
    status: DeploymentStatus,
    revision: Option<String>,
    now: Timestamp,
}

pub(super) fn plan(d: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut sets: Vec<_> =
        sets.iter().map(|rs| Set { rs: (**rs).clone(), original: Some(rs.clone()), delete: false }).collect();
    sets.sort_by_key(|s| (s.rs.metadata.creation_timestamp.clone(), s.rs.name().to_owned()));
    let new = sets
        .iter()
        .position(|s| s.rs.spec.template.as_ref().is_some_and(|t| equal_ignoring_hash(t, &d.spec.template)));
    let mut rollout =
        Rollout { d, sets, new, status: d.status.clone().unwrap_or_default(), revision: None, now };
    if d.is_deleting() {
        rollout.sync_new(false);
        return rollout.finish_counting();
    }
    status::note_pause(d, &mut rollout.status, now);
    if d.spec.paused == Some(true) || rollout.is_scaling_event() {
        rollout.sync_new(false);
        rollout.scale();
        if d.spec.paused == Some(true) {
            rollout.clean_up();
        }
        return rollout.finish_counting();
    }
    match is_rolling(d) {
        true => rollout.roll(),
        false => rollout.recreate(pods),
    }
    rollout.finish_rolling()
}

impl Rollout<'_> {
    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.sets.iter().map(|s| &s.rs)
    }

    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |i| Some(*i) != new)
    }

    fn new_rs(&self) -> Option<&ReplicaSet> {
        self.new.map(|i| &self.sets[i].rs)
    }

    fn total(&self) -> i32 {
        self.all().map(replicas).sum()
    }

    /// The size of the Deployment has changed since an active ReplicaSet was last scaled.
    fn is_scaling_event(&self) -> bool {
        self.all().any(|rs| replicas(rs) > 0 && revision::desired(rs).is_some_and(|n| n != wanted(self.d)))
    }

    fn resize(&mut self, i: usize, size: i32) -> bool {
        let rs = &mut self.sets[i].rs;
        let changes = replicas(rs) != size;
        rs.spec.replicas = Some(size);
        revision::note_size(rs, self.d);
        changes
    }

    /// Brings the newest ReplicaSet's annotations up to date, or makes it where it does not exist.
    fn sync_new(&mut self, create: bool) {
        let newest_old = self.old().map(|i| revision::revision(&self.sets[i].rs)).max().unwrap_or(0);
        let next_revision = newest_old + 1;
        let has_progress = status::find(&self.status, status::PROGRESSING).is_some();
        if let Some(i) = self.new {
            let rs = &mut self.sets[i].rs;
            revision::annotate_new(rs, self.d, next_revision);
            if rs.spec.min_ready_seconds.unwrap_or(0) != self.d.spec.min_ready_seconds.unwrap_or(0) {
                rs.spec.min_ready_seconds = self.d.spec.min_ready_seconds;
            }
            self.revision = rs.annotation(revision::REVISION).map(str::to_owned);
            if status::has_deadline(self.d) && !has_progress {
                let message = format!("Found new replica set {:?}", rs.name());
                status::progressing(&mut self.status, "True", "FoundNewReplicaSet", message, self.now);
            }
            return;
        }
        if !create {
            return;
        }
        let mut rs = self.fresh();
        revision::annotate_new(&mut rs, self.d, next_revision);
        revision::note_size(&mut rs, self.d);
        rs.spec.replicas = Some(new_replicas(self.d, self.total(), 0));
        self.revision = Some(next_revision.to_string());
        if status::has_deadline(self.d) {
            let message = format!("Created new replica set {:?}", rs.name());
            status::progressing(&mut self.status, "True", "NewReplicaSetCreated", message, self.now);
        }
        self.new = Some(self.sets.len());
        self.sets.push(Set { rs, original: None, delete: false });
    }

    fn fresh(&self) -> ReplicaSet {
        let d = self.d;
        let hash = hash(&d.spec.template, self.status.collision_count);
        let mut template = d.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = d.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", d.name())),
                namespace: d.metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![controller_reference(d)]),
                ..Default::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: d.spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        }
    }

    /// Follows a change of size while paused or in the middle of a rollout.
    fn scale(&mut self) {
        let wanted = wanted(self.d);
        let active: Vec<usize> = (0..self.sets.len()).filter(|i| replicas(&self.sets[*i].rs) > 0).collect();
        if let Some(only) = match active[..] {
            [] => self.new.or_else(|| self.old().last()),
            [one] => Some(one),
            _ => None,
        } {
            if replicas(&self.sets[only].rs) != wanted {
                self.resize(only, wanted);
            } else if self.sets[only].original.is_some() && revision::desired(&self.sets[only].rs) != Some(wanted) {
                // Already of the right size, but noted for another one: without this every sync would be a scaling event.
                self.resize(only, wanted);
            }
            return;
        }
        if active.is_empty() {
            return;
        }
        if self.new_rs().is_some_and(|rs| self.is_saturated(rs)) {
            for i in self.old().filter(|i| active.contains(i)).collect::<Vec<_>>() {
                self.resize(i, 0);
            }
            return;
        }
        if is_rolling(self.d) {
            self.scale_proportionally(active);
        }
    }

    fn is_saturated(&self, rs: &ReplicaSet) -> bool {
        let wanted = wanted(self.d);
        replicas(rs) == wanted && revision::desired(rs) == Some(wanted) && available(rs) == wanted
    }

    /// Shares the difference by size, the rest to the largest; growing favours the newest, shrinking the oldest.
    fn scale_proportionally(&mut self, mut active: Vec<usize>) {
        let d = self.d;
        let allowed = if wanted(d) > 0 { wanted(d) + max_surge(d) } else { 0 };
        let to_add = allowed - active.iter().map(|i| replicas(&self.sets[*i].rs)).sum::<i32>();
        // `sets` is ordered by age, and sorting is stable.
        if to_add > 0 {
            active.reverse();
        }
        active.sort_by_key(|i| Reverse(replicas(&self.sets[*i].rs)));
        let mut added = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for i in &active {
            let rs = &self.sets[*i].rs;
            let share = proportion(d, rs, revision::max(rs), to_add, added);
            added += share;
            sizes.push(replicas(rs) + share);
        }
        if let Some(first) = sizes.first_mut().filter(|_| to_add != 0) {
            *first = (*first + to_add - added).max(0);
        }
        for (i, size) in active.into_iter().zip(sizes) {
            self.resize(i, size);
        }
    }

    fn roll(&mut self) {
        self.sync_new(true);
        let _ = self.grow_new() || self.shrink_old() || {
            self.clean_up_if_complete();
            false
        };
    }

    /// Lets the newest ReplicaSet have its size, or as much of it as fits under the surge.
    fn grow_new(&mut self) -> bool {
        let Some(i) = self.new else { return false };
        let (have, wanted) = (replicas(&self.sets[i].rs), wanted(self.d));
        if have == wanted || self.sets[i].original.is_none() {
            // One that is being created has the right size already, and its creation is the step taken now.
            return self.sets[i].original.is_none();
        }
        if have > wanted {
            return self.resize(i, wanted);
        }
        let size = new_replicas(self.d, self.total(), have);
        size != have && self.resize(i, size)
    }

    /// Takes from the old ones what may be missing: first what is not available anyway.
    fn shrink_old(&mut self) -> bool {
        let old: Vec<usize> = self.old().filter(|i| replicas(&self.sets[*i].rs) > 0).collect();
        if old.is_empty() {
            return false;
        }
        let min_available = wanted(self.d) - max_unavailable(self.d);
        let new_unavailable = self.new_rs().map_or(0, |rs| replicas(rs) - available(rs));
        let mut spare = self.total() - min_available - new_unavailable;
        if spare <= 0 {
            return false;
        }
        let mut changed = false;
        for i in &old {
            let rs = &self.sets[*i].rs;
            let unhealthy = (replicas(rs) - available(rs)).clamp(0, spare);
            if unhealthy > 0 {
                let size = replicas(rs) - unhealthy;
                spare -= unhealthy;
                changed |= self.resize(*i, size);
            }
        }
        let mut surplus = self.all().map(available).sum::<i32>() - min_available;
        for i in &old {
            let have = replicas(&self.sets[*i].rs);
            let less = have.min(surplus);
            if less > 0 {
                surplus -= less;
                changed |= self.resize(*i, have - less);
            }
        }
        changed
    }

    /// All old pods go before the first new one comes.
    fn recreate(&mut self, pods: &[Arc<Pod>]) {
        self.sync_new(false);
        let mut shrunk = false;
        for i in self.old().filter(|i| replicas(&self.sets[*i].rs) > 0).collect::<Vec<_>>() {
            shrunk |= self.resize(i, 0);
        }
        if shrunk || self.old_pods_are_running(pods) {
            return;
        }
        if self.new.is_none() {
            return self.sync_new(true);
        }
        if let Some(i) = self.new.filter(|i| replicas(&self.sets[*i].rs) != wanted(self.d)) {
            self.resize(i, wanted(self.d));
        }
        self.clean_up_if_complete();
    }

    fn old_pods_are_running(&self, pods: &[Arc<Pod>]) -> bool {
        let actual = |i: usize| self.sets[i].rs.status.as_ref().map_or(0, |s| s.replicas);
        let new_uid = self.new_rs().map(|rs| rs.uid());
        self.old().any(|i| actual(i) > 0)
            || pods.iter().any(|pod| {
                controller_of(&pod.metadata).map(|c| c.uid.as_str()) != new_uid && !pods::is_terminated(pod)
            })
    }

    fn clean_up_if_complete(&mut self) {
        if status::is_complete(self.d, &self.d.status.clone().unwrap_or_default()) {
            self.clean_up();
        }
    }

    /// Deletes the oldest empty ReplicaSets beyond the history limit.
    fn clean_up(&mut self) {
        let Some(limit) = self.d.spec.revision_history_limit else { return };
        let mut old: Vec<usize> = self.old().filter(|i| !self.sets[*i].rs.is_deleting()).collect();
        let Some(excess) = old.len().checked_sub(usize::try_from(limit).unwrap_or(0)) else { return };
        old.sort_by_key(|i| revision::revision(&self.sets[*i].rs));
        for i in old.into_iter().take(excess) {
            let rs = &self.sets[i].rs;
            let seen = rs.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
            let empty = replicas(rs) == 0 && rs.status.as_ref().is_none_or(|s| s.replicas == 0);
            self.sets[i].delete = empty && rs.metadata.generation.unwrap_or(0) <= seen;
        }
    }

    fn finish_counting(self) -> Plan {
        let all: Vec<_> = self.all().collect();
        let status = status::count(self.d, &all, self.new_rs(), &self.status, self.now);
        Plan { status, revision: self.revision, next: Next::Wait, sets: self.sets }
    }

    fn finish_rolling(self) -> Plan {
        let all: Vec<_> = self.all().collect();
        let (status, next) = status::rollout(self.d, &all, self.new_rs(), &self.status, self.now);
        Plan { status, revision: self.revision, next, sets: self.sets }
    }
}
