//! How many requests may run at once. Models k8s.io/apiserver/pkg/server/filters/maxinflight.go. Watches and streams do not count.
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::status::Status;

pub struct Limits {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Limits {
    pub fn new(config: &Config) -> Self {
        Self { reads: Arc::new(Semaphore::new(config.max_reads_inflight)), writes: Arc::new(Semaphore::new(config.max_writes_inflight)) }
    }

    /// A place for the request, or 429.
    pub fn enter(&self, is_read: bool) -> Result<OwnedSemaphorePermit, Status> {
        let places = if is_read { &self.reads } else { &self.writes };
        places.clone().try_acquire_owned().map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))
    }
}
