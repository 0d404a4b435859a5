//! Writes of this process that the caches have yet to show: finalizers taken, statuses written, jobs finished.
//!
//! Models pkg/controller/job/tracking_utils.go and the consistency store of pkg/controller/util/consistency, v1.37.
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use client::k8s_openapi::api::batch::v1::Job;
use client::{Named, ObjectKey, Room};

const POISON: &str = "nothing panics while it holds the map";

/// Pods whose finalizer was taken, by job.
#[derive(Default)]
pub(super) struct Released(Mutex<HashMap<ObjectKey, HashSet<String>>>);

impl Released {
    pub fn expect(&self, job: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        self.0.lock().expect(POISON).entry(job.clone()).or_default().extend(uids);
    }

    pub fn observed(&self, job: &ObjectKey, uid: &str) {
        if let Some(uids) = self.0.lock().expect(POISON).get_mut(job) {
            uids.remove(uid);
        }
    }

    pub fn of(&self, job: &ObjectKey) -> HashSet<String> {
        self.0.lock().expect(POISON).get(job).cloned().unwrap_or_default()
    }

    pub fn forget(&self, job: &ObjectKey) {
        let mut all = self.0.lock().expect(POISON);
        all.remove(job);
        all.give_back();
    }
}

/// The version of each job that this process has written last.
#[derive(Default)]
pub(super) struct Written(Mutex<HashMap<ObjectKey, (String, u64)>>);

fn version(job: &Job) -> u64 {
    job.resource_version().parse().unwrap_or(0)
}

impl Written {
    pub fn wrote(&self, job: &Job) {
        self.0.lock().expect(POISON).insert(job.key(), (job.uid().to_owned(), version(job)));
    }

    /// Whether the cached state is as new as what was written; deciding on an older one would count and create twice.
    pub fn is_current(&self, job: &Job) -> bool {
        let written = self.0.lock().expect(POISON);
        written.get(&job.key()).is_none_or(|(uid, at)| uid != job.uid() || version(job) >= *at)
    }

    pub fn forget(&self, job: &ObjectKey) {
        let mut all = self.0.lock().expect(POISON);
        all.remove(job);
        all.give_back();
    }
}
