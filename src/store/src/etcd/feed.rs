//! The one watch over all keys: what it brings, the hooks see, each change once and in order, whatever happens to the connection.
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::Streaming;

use super::CALL_TIME_MAX;
use super::clients::{Backoff, Clients, Failure};
use super::convert::{self, Keys, number, revision};
use super::generated::mvccpb;
use super::known::{Difference, Known};
use super::pb;
use super::reads::{answered_at, just_after, probe};
use super::shared::Shared;
use crate::{Event, Revision};

/// Keys of one answer while they are learnt.
const KEYS_PAGE: i64 = 5000;
/// Objects of one answer while what was missed is looked for; of the largest size, they just fit into one.
const OBJECTS_PAGE: i64 = 15;

/// Why a watch does not go on.
pub enum Lost {
    /// From where it should begin, history is not kept.
    Compacted,
    Connection(Arc<str>),
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Compacted => Self::Compacted,
            failure => Self::Connection(failure.to_string().into()),
        }
    }
}

pub enum Step {
    /// All changes of some revisions.
    Events(Vec<mvccpb::Event>),
    /// There are no others up to here.
    Progress(Revision),
}

/// A watch that etcd has begun.
pub struct Watching {
    stream: Streaming<pb::WatchResponse>,
    /// Of a batch that etcd sends in pieces.
    pieces: Vec<mvccpb::Event>,
}

impl Watching {
    /// Also says of which cluster it is.
    pub async fn open(shared: &Shared, below: &(Bytes, Bytes), after: Revision) -> Result<(Self, u64), Lost> {
        let request = pb::WatchCreateRequest {
            key: below.0.clone(),
            range_end: below.1.clone(),
            start_revision: number(after) + 1,
            progress_notify: true,
            prev_kv: true,
            fragment: true,
            ..pb::WatchCreateRequest::default()
        };
        let mut stream = shared.clients.watch(request).await?;
        let first = timeout(CALL_TIME_MAX, stream.message()).await;
        let first = first.map_err(|_| Lost::Connection("etcd did not begin the watch in time".into()))?;
        let first = first.map_err(|status| Lost::from(Failure::from(&status)))?.ok_or_else(ended)?;
        check(&first)?;
        let cluster = first.header.as_ref().map_or(0, |header| header.cluster_id);
        Ok((Self { stream, pieces: first.events }, cluster))
    }

    pub async fn next(&mut self) -> Result<Step, Lost> {
        loop {
            let response = self.stream.message().await.map_err(|status| Lost::from(Failure::from(&status)))?.ok_or_else(ended)?;
            check(&response)?;
            self.pieces.extend(response.events);
            if response.fragment {
                continue;
            }
            return Ok(match self.pieces.is_empty() {
                true => Step::Progress(revision(response.header.map_or(0, |header| header.revision))),
                false => Step::Events(std::mem::take(&mut self.pieces)),
            });
        }
    }
}

fn ended() -> Lost {
    Lost::Connection("etcd ended the watch".into())
}

fn check(response: &pb::WatchResponse) -> Result<(), Lost> {
    match response {
        response if response.compact_revision > 0 => Err(Lost::Compacted),
        response if response.canceled => Err(Lost::Connection(response.cancel_reason.as_str().into())),
        _ => Ok(()),
    }
}

/// Reads which keys there are: the cluster's id, the revision, and the keys at that revision.
pub async fn load(clients: &Clients, keys: &Keys) -> Result<(u64, Revision, Known), Failure> {
    let status = clients.status().await?;
    tracing::debug!(version = %status.version, database_bytes = status.db_size, "etcd answers");
    let mut known = Known::default();
    let (mut key, range_end) = keys.below("");
    let mut at = 0;
    loop {
        let request = pb::RangeRequest {
            key,
            range_end: range_end.clone(),
            revision: at,
            limit: KEYS_PAGE,
            keys_only: true,
            ..pb::RangeRequest::default()
        };
        let answer = clients.range(&request).await?;
        if at == 0 {
            at = number(answered_at(&answer));
        }
        for item in &answer.kvs {
            match keys.own(&item.key) {
                Some(own) => known.add(own.into(), convert::version(item)),
                None if keys.is_internal(&item.key) => {}
                None => tracing::warn!(key = %item.key.escape_ascii(), "a key that is no text is left alone"),
            }
        }
        match answer.kvs.last() {
            Some(last) if answer.more => key = just_after(&last.key),
            _ => return Ok((answer.header.map_or(0, |header| header.cluster_id), revision(at), known)),
        }
    }
}

/// Nothing may wait for a feed that is no more.
struct EndWithFeed(Arc<Shared>);

impl Drop for EndWithFeed {
    fn drop(&mut self) {
        self.0.end("the watch of etcd died");
    }
}

pub struct Feed {
    shared: Arc<Shared>,
    known: Known,
    /// The id of the cluster that the revisions are of.
    cluster: u64,
}

impl Feed {
    pub fn new(shared: Arc<Shared>, known: Known, cluster: u64) -> Self {
        Self { shared, known, cluster }
    }

    /// Until the store ends.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // A hook may panic.
        let _guard = EndWithFeed(Arc::clone(&self.shared));
        tokio::select! {
            _ = shared.ended() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let mut backoff = Backoff::default();
        let mut is_lost = false;
        loop {
            let before = self.shared.revision();
            let lost = match self.watch(&mut is_lost).await {
                Ok(()) => return,
                Err(Lost::Compacted) => self.catch_up().await.err().map(|failure| failure.to_string().into()),
                Err(Lost::Connection(reason)) => Some(reason),
            };
            if self.shared.revision() > before {
                backoff = Backoff::default();
            }
            let Some(reason) = lost else { continue };
            if !is_lost {
                tracing::warn!(%reason, revision = %self.shared.revision(), "the watch of etcd is interrupted");
                is_lost = true;
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Ends well only when the store has ended.
    async fn watch(&mut self, is_lost: &mut bool) -> Result<(), Lost> {
        let after = self.shared.revision();
        let (mut watching, cluster) = Watching::open(&self.shared, &self.shared.keys.below(""), after).await?;
        // After the watch has begun: what is still known now, it will bring. The revision is asked of the cluster, not of a member
        // that may lag.
        let wrong = match probe(&self.shared, after).await {
            Ok(probed) if [probed, cluster].iter().all(|id| *id == self.cluster) => None,
            Ok(_) => Some("etcd is another cluster than before; rk must start anew"),
            Err(Failure::Future) => Some("etcd has gone back to an earlier state (restored from a backup?); rk must start anew"),
            Err(failure) => return Err(failure.into()),
        };
        if let Some(reason) = wrong {
            tracing::error!(reason, "the state cannot be followed");
            self.shared.end(reason);
            return Ok(());
        }
        if std::mem::take(is_lost) {
            tracing::info!(revision = %after, "the watch of etcd goes on");
        }
        loop {
            match watching.next().await? {
                Step::Progress(revision) => {
                    if revision > self.shared.revision() {
                        self.shared.deliver(&[], revision);
                    }
                }
                Step::Events(events) => {
                    if let Some(reason) = self.shared.claim.as_ref().and_then(|claim| events.iter().find_map(|event| claim.loss_by(event))) {
                        return Ok(self.lose(&reason));
                    }
                    self.deliver(events);
                }
            }
        }
    }

    fn lose(&self, reason: &str) {
        tracing::error!(reason, "the state is another server's");
        self.shared.end(reason);
    }

    fn deliver(&mut self, events: Vec<mvccpb::Event>) {
        let after = self.shared.revision();
        let at = |event: &mvccpb::Event| revision(event.kv.as_ref().map_or(0, |kv| kv.mod_revision));
        let Some(last) = events.last().map(at).filter(|last| *last > after) else { return };
        let mut own: Vec<Event> = Vec::with_capacity(events.len());
        for event in events.into_iter().filter(|event| at(event) > after) {
            if let Some(event) = self.shared.keys.event(event, &self.known) {
                self.known.note(&event);
                own.push(event);
            }
        }
        self.shared.deliver(&own, last);
    }

    /// Tells the hooks what is different from what they know, where history does not say it any more.
    async fn catch_up(&mut self) -> Result<(), Failure> {
        // The change that says so may be among those that are forgotten.
        if let Some(claim) = &self.shared.claim
            && let Some(reason) = claim.check(&self.shared.clients).await?
        {
            return Ok(self.lose(&reason));
        }
        let (mut key, range_end) = self.shared.keys.below("");
        let mut at = 0;
        let mut difference = Difference::new(&self.known);
        loop {
            let request =
                pb::RangeRequest { key, range_end: range_end.clone(), revision: at, limit: OBJECTS_PAGE, ..pb::RangeRequest::default() };
            let answer = self.shared.clients.range(&request).await?;
            if at == 0 {
                at = number(answered_at(&answer));
            }
            let next = answer.kvs.last().filter(|_| answer.more).map(|last| just_after(&last.key));
            answer.kvs.into_iter().filter_map(|item| self.shared.keys.item(item)).for_each(|item| difference.see(item));
            match next {
                Some(next) => key = next,
                None => break,
            }
        }
        let events = difference.finish(revision(at));
        tracing::warn!(
            from = %self.shared.revision(), to = at, changes = events.len(),
            "etcd has compacted what the watch had not seen; what differs is told instead"
        );
        events.iter().for_each(|event| self.known.note(event));
        self.shared.deliver(&events, revision(at));
        Ok(())
    }
}
