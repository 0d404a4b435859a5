//! The one thread that changes anything.
//!
//! A round takes all waiting writes, decides each against the index and the round's own earlier writes, commits them
//! together, shows them, calls the hooks, and answers. Relaxed writes alone need no commit: they are shown and answered
//! at once, and wait in [`Index::pending`] for the next commit. Between rounds it compacts and checkpoints, in steps.
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::database::{Database, Start};
use super::index::{Index, Record, Version};
use super::{Options, closed};
use crate::{
    Durability, Event, Expect, Hook, KeyValue, Operation, Revision, StoreError, WatchError, Write, WriteError, Written,
};

/// A round's bounds: what one commit holds at most.
const ROUND_WRITES: usize = 1024;
const ROUND_BYTES: usize = 8 << 20;

/// Rows that one step of a compaction deletes: a few milliseconds.
const COMPACT_ROWS: usize = 256;

/// Relaxed writes that may wait for a commit that fails; more are refused.
const PENDING_MAX: usize = 10_000;

/// When a commit of relaxed writes failed, the next attempt.
const RETRY: Duration = Duration::from_secs(3);

/// Resolution of the history's age.
const MARK_EVERY: Duration = Duration::from_secs(5);

pub enum Message {
    Write {
        write: Write,
        answer: oneshot::Sender<Result<Written, WriteError>>,
        /// Its place among the waiting writes.
        permit: OwnedSemaphorePermit,
    },
    Compact {
        before: Revision,
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    Close {
        answer: oneshot::Sender<()>,
    },
    #[cfg(test)]
    LimitPages(u32),
}

/// What readers see. Only the writer changes it.
pub struct Shared {
    index: RwLock<Index>,
    revision: AtomicU64,
    hooks: Mutex<Vec<Hook>>,
    changed: watch::Receiver<()>,
}

impl Shared {
    pub fn new(index: Index, visible: Revision) -> (Arc<Self>, watch::Sender<()>) {
        let (sender, changed) = watch::channel(());
        let (index, revision) = (RwLock::new(index), AtomicU64::new(visible.0));
        (Arc::new(Self { index, revision, hooks: Mutex::default(), changed }), sender)
    }

    /// While it is held, the revision stands still.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }

    pub fn subscribe(&self, hook: Hook) -> Revision {
        let mut hooks = self.hooks();
        hooks.push(hook);
        self.revision() // the writer shows events only while it holds the hooks
    }

    pub fn check_watchable(&self, after: Revision) -> Result<(), WatchError> {
        match self.index().compacted {
            oldest if after < oldest => Err(WatchError::Compacted { requested: after, oldest }),
            _ => Ok(()),
        }
    }

    fn hooks(&self) -> MutexGuard<'_, Vec<Hook>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Writer {
    database: Database,
    shared: Arc<Shared>,
    changed: watch::Sender<()>,
    inbox: Receiver<Message>,
    options: Options,
    /// The last revision given to a write, shown or not. Failed commits leave gaps.
    given: Revision,
    /// When relaxed writes must be committed. `None` while there are none.
    flush_at: Option<Instant>,
    /// When to look for old history. `None` while there is none.
    compact_at: Option<Instant>,
    /// Which revision was current when, oldest first.
    marks: VecDeque<(Instant, Revision)>,
    /// A compaction in progress: up to which revision.
    compacting: Option<Revision>,
    compact_answers: Vec<(Revision, oneshot::Sender<Result<(), StoreError>>)>,
}

/// A write that was decided and waits for the commit.
struct Decided {
    answer: oneshot::Sender<Result<Written, WriteError>>,
    result: Result<Written, WriteError>,
    _permit: OwnedSemaphorePermit,
}

/// One round in the making.
#[derive(Default)]
struct Round {
    decided: Vec<Decided>,
    records: Vec<Record>,
    previous: Vec<Option<KeyValue>>,
    /// Keys that this round changed: index into `records`.
    changed: HashMap<Arc<str>, usize>,
    synced: bool,
    bytes: usize,
}

enum Wake {
    Message(Message),
    Timer,
    Ended,
}

impl Writer {
    pub fn new(
        database: Database,
        shared: Arc<Shared>,
        changed: watch::Sender<()>,
        inbox: Receiver<Message>,
        options: Options,
        start: Start,
    ) -> Self {
        let now = Instant::now();
        let compact_at = (shared.index().garbage_len() > 0).then(|| now + options.history);
        Self {
            database,
            shared,
            changed,
            inbox,
            options,
            given: start.visible,
            flush_at: None,
            compact_at,
            marks: VecDeque::from([(now, start.visible)]),
            compacting: None,
            compact_answers: Vec::new(),
        }
    }

    pub fn run(mut self) {
        loop {
            let message = match self.wait() {
                Wake::Message(message) => message,
                Wake::Timer => {
                    self.on_timer();
                    continue;
                }
                Wake::Ended => break,
            };
            let mut round = Round::default();
            let mut close = None;
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Write { write, answer, permit } => self.decide(&mut round, write, answer, permit),
                    Message::Compact { before, answer } => self.start_compaction(before, answer),
                    Message::Close { answer } => close = Some(answer),
                    #[cfg(test)]
                    Message::LimitPages(pages) => self.database.limit_pages(pages).expect("a test's limit"),
                }
                let full = round.decided.len() >= ROUND_WRITES || round.bytes >= ROUND_BYTES;
                next = if full || close.is_some() { None } else { self.inbox.try_recv().ok() };
            }
            self.finish(round);
            if let Some(answer) = close {
                self.shut_down();
                let _ = answer.send(()); // whoever asked may be gone
                return;
            }
        }
        self.shut_down();
    }

    /// Sleeps until there is something to do; without a timer when nothing waits.
    fn wait(&self) -> Wake {
        if self.compacting.is_some() {
            return match self.inbox.try_recv() {
                Ok(message) => Wake::Message(message),
                Err(TryRecvError::Empty) => Wake::Timer,
                Err(TryRecvError::Disconnected) => Wake::Ended,
            };
        }
        let Some(at) = [self.flush_at, self.compact_at].into_iter().flatten().min() else {
            return self.inbox.recv().map_or(Wake::Ended, Wake::Message);
        };
        match self.inbox.recv_timeout(at.saturating_duration_since(Instant::now())) {
            Ok(message) => Wake::Message(message),
            Err(RecvTimeoutError::Timeout) => Wake::Timer,
            Err(RecvTimeoutError::Disconnected) => Wake::Ended,
        }
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        if self.compact_at.is_some_and(|at| at <= now) {
            let horizon = self.horizon(now);
            // The writes since the last mark; nothing may ever be written after them.
            if self.marks.back().is_none_or(|(_, revision)| *revision < self.given) {
                self.marks.push_back((now, self.given));
            }
            self.compacting = self.compacting.max(horizon);
            self.compact_at = None;
        }
        if self.compacting.is_some() {
            self.compact_step();
            if self.compacting.is_some() {
                return;
            }
        }
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        if self.compact_at.is_none() && self.shared.index().garbage_len() > 0 {
            self.compact_at = Some(now + self.options.history / 2);
        }
    }

    /// Decides one write and adds it to the round.
    fn decide(
        &mut self,
        round: &mut Round,
        write: Write,
        answer: oneshot::Sender<Result<Written, WriteError>>,
        permit: OwnedSemaphorePermit,
    ) {
        let synced = write.durability == Durability::Synced;
        let result = self.evaluate(round, write);
        round.synced |= synced && result.is_ok();
        round.decided.push(Decided { answer, result, _permit: permit });
    }

    fn evaluate(&mut self, round: &mut Round, write: Write) -> Result<Written, WriteError> {
        let (key, current) = self.current(round, &write)?;
        let holds = match write.expect {
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) | Expect::Unchanged { revision, .. } => current.as_ref().is_some_and(|kv| kv.mod_revision == revision),
            Expect::Any => true,
        };
        let value = match write.operation {
            Operation::Put(value) => Some(value),
            Operation::Delete => None,
        };
        if !holds || (value.is_none() && current.is_none()) {
            return Err(WriteError::Conflict { current });
        }
        if write.durability == Durability::Relaxed && self.shared.index().pending.len() >= PENDING_MAX {
            return Err(WriteError::Unavailable("too many writes wait for the disk".into()));
        }
        self.given = Revision(self.given.0 + 1);
        let revision = self.given;
        let record = Record {
            revision,
            key: Arc::clone(&key),
            create_revision: current.as_ref().map_or(revision, |kv| kv.create_revision),
            previous: current.as_ref().map_or(Revision(0), |kv| kv.mod_revision),
            value,
        };
        let written = Written { revision, create_revision: record.create_revision, previous: current.clone() };
        round.bytes += record.value.as_ref().map_or(0, |v| v.len()) + key.len();
        round.changed.insert(key, round.records.len());
        round.records.push(record);
        round.previous.push(current);
        Ok(written)
    }

    /// The key's shared name, and the key as this write finds it.
    fn current(&self, round: &Round, write: &Write) -> Result<(Arc<str>, Option<KeyValue>), WriteError> {
        let key = &write.key;
        if let Some(at) = round.changed.get(key) {
            let record = &round.records[*at];
            return Ok((Arc::clone(&record.key), record.key_value()));
        }
        let (key, version) = {
            let index = self.shared.index();
            match index.newest(key) {
                None => return Ok((Arc::clone(key), None)),
                Some((key, Version { deleted: true, .. })) => return Ok((key, None)),
                Some((key, version)) => match index.pending.get(&version.revision) {
                    Some(record) => return Ok((key, record.key_value())),
                    None => (key, version),
                },
            }
        };
        if let Expect::Unchanged { revision, value } = &write.expect
            && *revision == version.revision
        {
            debug_assert_eq!(self.row(version, &key).ok().and_then(|row| row.value).as_ref(), Some(value), "what the caller holds of {key}");
            let Version { revision, create_revision, .. } = version;
            return Ok((key.clone(), Some(KeyValue { key, value: value.clone(), create_revision, mod_revision: revision })));
        }
        let record = self.row(version, &key).map_err(unavailable)?;
        Ok((key, record.key_value()))
    }

    fn row(&self, version: Version, key: &Arc<str>) -> rusqlite::Result<Record> {
        self.database.fetch(version.revision, key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// Makes a round durable if it must be, visible, and known.
    fn finish(&mut self, round: Round) {
        if round.decided.is_empty() {
            return;
        }
        // A revision that is not reserved on disk must not be given out before a commit.
        let commit = round.synced || !self.database.is_reserved(self.given);
        let mut refused = None;
        if !round.records.is_empty() {
            if commit {
                refused = self.commit(&round.records).err().map(|error| {
                    tracing::error!(%error, writes = round.records.len(), "a commit failed; its writes are refused");
                    Arc::<str>::from(error.to_string())
                });
            } else {
                self.flush_at.get_or_insert_with(|| Instant::now() + self.options.relaxed_delay);
            }
            if refused.is_none() {
                self.show(round.records, round.previous, commit);
            }
        }
        for decided in round.decided {
            // Conflicts, too: they may be about what was not committed.
            let result = match &refused {
                Some(reason) => Err(WriteError::Unavailable(Arc::clone(reason))),
                None => decided.result,
            };
            let _ = decided.answer.send(result); // whoever asked may be gone
        }
        if commit && let Err(error) = self.database.checkpoint() {
            tracing::warn!(%error, "a checkpoint failed; the log grows until one succeeds");
        }
    }

    /// Commits `records` and everything pending.
    fn commit(&mut self, records: &[Record]) -> rusqlite::Result<()> {
        {
            let index = self.shared.index();
            self.database.commit(self.given, &index.pending, records, None)?;
        }
        self.committed_pending();
        Ok(())
    }

    fn committed_pending(&mut self) {
        self.flush_at = None;
        let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
        index.pending.clear();
    }

    /// Makes changes visible to readers, then to the hooks, then to watches.
    fn show(&mut self, records: Vec<Record>, previous: Vec<Option<KeyValue>>, committed: bool) {
        let hooks = self.shared.hooks();
        {
            let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
            for record in &records {
                index.apply(&record.key, record.version());
                if !committed {
                    index.pending.insert(record.revision, record.clone());
                }
            }
            self.shared.revision.store(self.given.0, Ordering::Release);
        }
        if !hooks.is_empty() {
            let events: Vec<Event> = records.into_iter().zip(previous).map(|(r, p)| r.event(p)).collect();
            for hook in hooks.iter() {
                hook(&events);
            }
        }
        drop(hooks);
        self.changed.send_replace(());
        self.mark();
    }

    /// Notes the time, and sees to it that history does not grow for ever.
    fn mark(&mut self) {
        let now = Instant::now();
        if self.marks.back().is_none_or(|(at, _)| now.duration_since(*at) >= MARK_EVERY.min(self.options.history)) {
            self.marks.push_back((now, self.given));
        }
        let index = self.shared.index();
        let excess = index.garbage_len().saturating_sub(self.options.history_rows_max);
        if excess > 0 {
            // A tenth at once: otherwise every round would compact a little.
            self.compacting = self.compacting.max(index.garbage_until(excess + self.options.history_rows_max / 10));
        } else if self.compact_at.is_none() && index.garbage_len() > 0 {
            self.compact_at = Some(now + self.options.history);
        }
    }

    /// The newest revision that is older than the history to keep.
    fn horizon(&mut self, now: Instant) -> Option<Revision> {
        let mut horizon = None;
        while let Some((at, revision)) = self.marks.front().copied()
            && now.duration_since(at) >= self.options.history
        {
            horizon = Some(revision);
            self.marks.pop_front();
        }
        horizon
    }

    fn start_compaction(&mut self, before: Revision, answer: oneshot::Sender<Result<(), StoreError>>) {
        let current = self.shared.revision();
        if before > current {
            let _ = answer.send(Err(StoreError::Future { requested: before, current }));
            return;
        }
        self.compacting = self.compacting.max(Some(before));
        self.compact_answers.push((before, answer));
    }

    /// Deletes some rows that the history up to the wanted revision does not need.
    fn compact_step(&mut self) {
        let Some(horizon) = self.compacting else { return };
        let rows = {
            let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
            index.compacted = index.compacted.max(horizon); // first said, then done
            index.compactable(horizon, COMPACT_ROWS)
        };
        if !rows.is_empty() {
            let deleted = {
                let index = self.shared.index();
                self.database.commit(self.given, &index.pending, &[], Some((&rows, horizon)))
            };
            if let Err(error) = deleted {
                tracing::warn!(%error, "a compaction failed; tried again later");
                self.end_compaction(Err(StoreError::Unavailable(error.to_string().into())));
                self.compact_at = Some(Instant::now() + self.options.history.min(Duration::from_secs(30)));
                return;
            }
            self.committed_pending();
            self.shared.index.write().unwrap_or_else(PoisonError::into_inner).forget(rows.len());
            if let Err(error) = self.database.checkpoint() {
                tracing::warn!(%error, "a checkpoint failed; the log grows until one succeeds");
            }
        }
        if rows.len() < COMPACT_ROWS {
            self.end_compaction(Ok(()));
        }
    }

    fn end_compaction(&mut self, result: Result<(), StoreError>) {
        self.compacting = None;
        for (_, answer) in self.compact_answers.drain(..) {
            let _ = answer.send(result.clone()); // whoever asked may be gone
        }
    }

    /// Commits what only memory holds.
    fn flush(&mut self) {
        if let Err(error) = self.commit(&[]) {
            tracing::error!(%error, "relaxed writes could not be committed; tried again soon");
            self.flush_at = Some(Instant::now() + RETRY);
        }
    }

    fn shut_down(mut self) {
        if self.flush_at.is_some() {
            self.flush();
        }
        if self.shared.index().pending.is_empty()
            && let Err(error) = self.database.finish(self.given)
        {
            tracing::warn!(%error, "the log was not emptied; the next start does it");
        }
        self.end_compaction(Err(StoreError::Unavailable(closed())));
    }
}

fn unavailable(error: rusqlite::Error) -> WriteError {
    WriteError::Unavailable(error.to_string().into())
}
