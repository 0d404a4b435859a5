//! What the store's calls and its feed have in common.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::CALL_TIME_MAX;
use super::claim::Claim;
use super::clients::{Clients, Failure};
use super::convert::{self, Keys};
use crate::{Event, Hook, Revision};

/// So long a reader waits for the watch to bring what it read, before it looks for another way.
const DELIVERY_USUAL: Duration = Duration::from_millis(20);

pub struct Shared {
    pub clients: Clients,
    pub keys: Keys,
    /// `None`: whoever opened the store takes care of that.
    pub claim: Option<Claim>,
    hooks: Mutex<Vec<Hook>>,
    /// Up to here the hooks have seen everything.
    delivered: watch::Sender<Revision>,
    /// Why there will be nothing more.
    end: watch::Sender<Option<Arc<str>>>,
    /// The latest compaction that was heard of.
    compacted: Mutex<Revision>,
    marking: tokio::sync::Mutex<()>,
}

impl Shared {
    pub fn new(clients: Clients, keys: Keys, claim: Option<Claim>, revision: Revision) -> Self {
        Self {
            clients,
            keys,
            claim,
            hooks: Mutex::default(),
            delivered: watch::Sender::new(revision),
            end: watch::Sender::new(None),
            compacted: Mutex::default(),
            marking: tokio::sync::Mutex::default(),
        }
    }

    fn hooks(&self) -> MutexGuard<'_, Vec<Hook>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn revision(&self) -> Revision {
        *self.delivered.borrow()
    }

    pub fn subscribe(&self, hook: Hook) -> Revision {
        let mut hooks = self.hooks();
        hooks.push(hook);
        self.revision()
    }

    /// Tells the hooks, then whoever waits for `revision`.
    pub fn deliver(&self, events: &[Event], revision: Revision) {
        let hooks = self.hooks();
        if !events.is_empty() {
            hooks.iter().for_each(|hook| hook(events));
        }
        self.delivered.send_replace(revision);
    }

    pub fn end(&self, reason: &str) {
        self.end.send_if_modified(|end| end.is_none() && end.replace(reason.into()).is_none());
    }

    pub fn check_open(&self) -> Result<(), Arc<str>> {
        self.end.borrow().clone().map_or(Ok(()), Err)
    }

    pub async fn ended(&self) -> Arc<str> {
        let mut end = self.end.subscribe();
        let reason = end.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "it is closed".into())
    }

    pub fn compacted(&self) -> Revision {
        *self.compacted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note_compacted(&self, revision: Revision) {
        let mut compacted = self.compacted.lock().unwrap_or_else(PoisonError::into_inner);
        *compacted = revision.max(*compacted);
    }

    /// Returns once the hooks have seen everything up to `revision`.
    pub async fn delivered(&self, revision: Revision, time_max: Duration) -> Result<(), Failure> {
        let mut delivered = self.delivered.subscribe();
        let waited = timeout(time_max, delivered.wait_for(|at| *at >= revision)).await;
        if waited.is_ok() {
            return Ok(());
        }
        let seconds = time_max.as_secs();
        let reason = format!("the watch of etcd is at revision {} and did not reach {revision} within {seconds} s", self.revision());
        Err(Failure::Unavailable(reason.into()))
    }

    /// The same for a revision that may be no change of ours (another user of this etcd, a compaction): nothing would ever bring it. A
    /// write of our own does, for all that wait. etcd's own word for this, a progress notification on request, may overtake events
    /// before etcd 3.4.25 and 3.5.8 (etcd#15220).
    pub async fn seen(&self, revision: Revision) -> Result<(), Failure> {
        if self.delivered(revision, DELIVERY_USUAL).await.is_ok() {
            return Ok(());
        }
        let marking = self.marking.lock().await;
        if self.revision() < revision {
            let marked = self.clients.transaction(convert::mark(&self.keys)).await?;
            let marked = Revision(marked.header.map_or(0, |header| header.revision.unsigned_abs()));
            return self.delivered(marked.max(revision), CALL_TIME_MAX).await;
        }
        drop(marking);
        Ok(())
    }
}
