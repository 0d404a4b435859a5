//! What time alone changes: history is compacted, changes that weigh much are forgotten after a burst, Events expire.
//!
//! Upstream's etcd compacts every five minutes and expires Events by lease; here one timer does both, and it only runs while there is something
//! to do: a cluster in which nothing was written compacts nothing.
use std::time::Duration;

use store::{Durability, Expect, Operation, Revision, Write, WriteError};
use tokio::time::Instant;

use crate::cache;
use crate::server::ApiServer;

/// At least so long between two looks for expired Events.
const EXPIRY_STEP: Duration = Duration::from_secs(60);
/// At least so long between two looks for changes that may go.
const FORGET_STEP: Duration = Duration::from_secs(5);

pub async fn run(server: ApiServer) {
    let interval = server.0.config.compaction_interval;
    let mut compacted = 0;
    // What was current one interval ago is the oldest that anybody may still ask for.
    let mut keep_from = server.0.parts.cache.revision();
    let mut next_compaction = Instant::now() + interval;
    let mut next_expiry = Instant::now();
    let mut next_forgetting: Option<Instant> = None;
    loop {
        let next = next_compaction.min(next_expiry);
        tokio::select! {
            () = tokio::time::sleep_until(next_forgetting.map_or(next, |at| at.min(next))) => {}
            () = server.0.parts.cache.has_much() => {
                next_forgetting.get_or_insert(Instant::now() + FORGET_STEP);
                continue;
            }
            () = server.0.shutdown.cancelled() => return,
        }
        let now = Instant::now();
        if next_forgetting.is_some_and(|at| now >= at) {
            next_forgetting = server.0.parts.cache.forget_old().await.map(|wait| now + wait.max(FORGET_STEP));
        }
        if now >= next_compaction {
            if keep_from > compacted {
                match server.0.parts.store.compact(Revision(keep_from)).await {
                    Ok(()) => {
                        compacted = keep_from;
                        server.0.parts.cache.compact(keep_from);
                    }
                    Err(error) => tracing::warn!(%error, "compaction failed, tried again later"),
                }
            }
            server.0.parts.cache.forget_old().await;
            keep_from = server.0.parts.cache.revision();
            next_compaction = now + interval;
        }
        if now >= next_expiry {
            let wait = expire_events(&server).await;
            next_expiry = Instant::now() + wait.max(EXPIRY_STEP);
        }
    }
}

/// Removes Events older than their time to live; says how long the oldest that is left has.
async fn expire_events(server: &ApiServer) -> Duration {
    let ttl = server.0.config.event_ttl;
    let cache = &server.0.parts.cache;
    let now = jiff::Timestamp::now();
    let mut oldest_left = ttl;
    for event in cache.list("", "events", None) {
        let Some(age) = age(&event, now) else { continue };
        if age < ttl {
            oldest_left = oldest_left.min(ttl - age);
            continue;
        }
        let write = Write {
            key: event.key.clone(),
            operation: Operation::Delete,
            expect: Expect::Revision(Revision(event.revision)),
            durability: Durability::Relaxed,
        };
        match server.0.parts.store.write(write).await {
            // Somebody counted it up meanwhile: it lives on.
            Ok(_) | Err(WriteError::Conflict { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, "expired events could not be removed, tried again later");
                return EXPIRY_STEP;
            }
        }
    }
    oldest_left
}

/// Since its last write, as upstream's lease counts: the newest time the Event carries.
fn age(event: &cache::Cached, now: jiff::Timestamp) -> Option<Duration> {
    let tree = event.tree();
    let texts = [
        tree.str_at(&["metadata", "creationTimestamp"]),
        tree.str_at(&["lastTimestamp"]),
        tree.str_at(&["series", "lastObservedTime"]),
    ];
    let newest = texts.iter().filter_map(|t| t.parse::<jiff::Timestamp>().ok()).max()?;
    Duration::try_from(now.duration_since(newest)).ok().or(Some(Duration::ZERO))
}
