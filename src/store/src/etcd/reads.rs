//! Gets, ranges in pages, and watches of the history.
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};

use super::clients::Failure;
use super::convert::{number, revision};
use super::feed::{Lost, Step, Watching};
use super::known::Known;
use super::pb;
use super::shared::Shared;
use crate::{KeyValue, Range, RangeResult, Revision, StoreError, Watch, WatchError};

/// Of one answer; smaller when the objects are large.
const PAGE: usize = 500;

pub async fn get(shared: &Shared, key: &str) -> Result<Option<KeyValue>, StoreError> {
    let request = pb::RangeRequest { key: shared.keys.full(key), ..pb::RangeRequest::default() };
    let answer = shared.clients.range(&request).await.map_err(unavailable)?;
    shared.seen(answered_at(&answer)).await.map_err(unavailable)?;
    Ok(answer.kvs.into_iter().next().and_then(|item| shared.keys.item(item)))
}

pub async fn range(shared: &Shared, range: &Range) -> Result<RangeResult, StoreError> {
    let (first, end) = shared.keys.below(&range.prefix);
    let mut from = first.clone();
    if let Some(after) = range.start_after.as_deref().map(|key| shared.keys.full(key)).filter(|after| *after >= first) {
        from = just_after(&after);
    }
    let mut at = range.at.map_or(0, |at| number(at).max(1));
    let (mut items, mut page) = (Vec::new(), PAGE);
    let more = loop {
        let left = range.limit.map_or(usize::MAX, |limit| limit.max(1) - items.len());
        let asked = page.min(left);
        let request = pb::RangeRequest {
            key: from.clone(),
            range_end: end.clone(),
            limit: asked as i64,
            revision: at,
            ..pb::RangeRequest::default()
        };
        let answer = match shared.clients.range(&request).await {
            Err(Failure::AnswerTooLarge) if asked > 1 => {
                page = asked / 2;
                continue;
            }
            answer => answer.map_err(|failure| refused(shared, failure, revision(at)))?,
        };
        if at == 0 {
            at = number(answered_at(&answer));
        }
        if let Some(last) = answer.kvs.last() {
            from = just_after(&last.key);
        }
        items.extend(answer.kvs.into_iter().filter_map(|item| shared.keys.item(item)));
        if !answer.more || range.limit.is_some_and(|limit| items.len() >= limit) {
            break answer.more;
        }
    };
    let at = revision(at);
    if range.at.is_none() {
        shared.seen(at).await.map_err(unavailable)?;
    }
    Ok(RangeResult { items, more, revision: at })
}

/// A watch of its own, of the history and on; it begins when it is first read.
pub async fn watch(shared: Arc<Shared>, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
    check_watchable(&shared, after).await?;
    let below = shared.keys.below(prefix);
    let end = Arc::clone(&shared);
    let batches = stream::unfold(Some((None, after)), move |state| {
        let (shared, below) = (Arc::clone(&shared), below.clone());
        async move {
            let (watching, mut after) = state?;
            match next(&shared, &below, watching, &mut after).await {
                Ok((events, watching)) => Some((Ok(events.into()), Some((Some(watching), after)))),
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    Ok(Box::pin(batches.take_until(async move { end.ended().await })))
}

async fn next(
    shared: &Shared,
    below: &(Bytes, Bytes),
    watching: Option<Watching>,
    after: &mut Revision,
) -> Result<(Vec<crate::Event>, Watching), WatchError> {
    let lost = |lost: Lost, requested: Revision| match lost {
        Lost::Compacted => WatchError::Compacted { requested, oldest: oldest(shared, requested) },
        Lost::Connection(reason) => WatchError::Unavailable(reason),
    };
    let mut watching = match watching {
        Some(watching) => watching,
        None => {
            let (watching, _) = Watching::open(shared, below, *after).await.map_err(|reason| lost(reason, *after))?;
            check_watchable(shared, *after).await?;
            watching
        }
    };
    let nothing = Known::default();
    loop {
        if let Step::Events(events) = watching.next().await.map_err(|reason| lost(reason, *after))? {
            let events: Vec<_> = events.into_iter().filter_map(|event| shared.keys.event(event, &nothing)).collect();
            if let Some(last) = events.last() {
                *after = last.revision;
                return Ok((events, watching));
            }
        }
    }
}

/// etcd watches on from the compaction itself, but may not know any more what was deleted by it, nor what was there before.
async fn check_watchable(shared: &Shared, after: Revision) -> Result<(), WatchError> {
    match probe(shared, after).await {
        Ok(_) | Err(Failure::Future) => Ok(()),
        Err(Failure::Compacted) => Err(WatchError::Compacted { requested: after, oldest: oldest(shared, after) }),
        Err(failure) => Err(WatchError::Unavailable(failure.to_string().into())),
    }
}

/// Asks for nothing, at a revision: whether etcd still knows it, and which cluster it is.
pub async fn probe(shared: &Shared, at: Revision) -> Result<u64, Failure> {
    let (key, range_end) = shared.keys.below("");
    let request =
        pb::RangeRequest { key, range_end, revision: number(at).max(1), limit: 1, count_only: true, ..pb::RangeRequest::default() };
    Ok(shared.clients.range(&request).await?.header.map_or(0, |header| header.cluster_id))
}

pub fn answered_at(answer: &pb::RangeResponse) -> Revision {
    revision(answer.header.as_ref().map_or(0, |header| header.revision))
}

pub fn just_after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

fn oldest(shared: &Shared, requested: Revision) -> Revision {
    shared.compacted().max(Revision(requested.0 + 1))
}

fn refused(shared: &Shared, failure: Failure, requested: Revision) -> StoreError {
    match failure {
        Failure::Compacted => StoreError::Compacted { requested, oldest: oldest(shared, requested) },
        Failure::Future => StoreError::Future { requested, current: shared.revision() },
        failure => unavailable(failure),
    }
}

fn unavailable(failure: Failure) -> StoreError {
    StoreError::Unavailable(failure.to_string().into())
}
