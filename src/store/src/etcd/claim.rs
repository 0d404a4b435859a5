//! One live server for the keys below a prefix: the one that holds the key `~server`, which a lease keeps while its holder runs.
//!
//! Models go.etcd.io/etcd/client/v3/concurrency (session and mutex), but nobody queues. Every write carries the condition that the key is
//! still as this server wrote it: whoever lost it writes nothing more, whatever it believes. The watch, the next keep-alive or a refused
//! write tell it so, and the store ends. A server that comes back after a crash takes over from itself at once; another one waits until
//! the lease has run out.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::clients::{Clients, Failure};
use super::convert::Keys;
use super::generated::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use super::generated::etcdserverpb::request_op::Request;
use super::generated::etcdserverpb::response_op::Response;
use super::generated::mvccpb;
use super::pb;
use super::shared::Shared;

/// How long the claim of a server outlives it: a call to an endpoint that hangs and one to the next fit in.
pub const OUTLIVES: Duration = Duration::from_secs(20);
const KEPT_EVERY: Duration = Duration::from_secs(5);

/// Who a server is to others on the same etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Without white space; the same after a restart, and no other live server's.
    pub id: String,
    /// Which server it is, for people.
    pub name: String,
}

impl Holder {
    fn text(&self) -> Bytes {
        format!("{} {}", self.id, self.name).into()
    }
}

fn id_and_name(text: &[u8]) -> (&str, &str) {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.split_once(' ').unwrap_or((text, "of unknown name"))
}

/// The right to write.
pub struct Claim {
    key: Bytes,
    lease: i64,
    /// The key's revision as this server wrote it.
    at: i64,
}

impl Claim {
    /// Takes the key, if it is free or the same server's; `Err` names who else holds it.
    pub async fn take(clients: &Clients, keys: &Keys, holder: &Holder) -> Result<Result<Self, String>, Failure> {
        let key = keys.claim();
        let lease = clients.grant(OUTLIVES).await?;
        let mut seen = 0;
        loop {
            let put = pb::PutRequest { key: key.clone(), value: holder.text(), lease, ..pb::PutRequest::default() };
            let answer = clients
                .transaction(pb::TxnRequest {
                    compare: vec![is_at(&key, seen)],
                    success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
                    failure: vec![read(&key)],
                })
                .await?;
            if answer.succeeded {
                return Ok(Ok(Self { key, lease, at: answer.header.map_or(0, |header| header.revision) }));
            }
            let Some(other) = answer.responses.into_iter().next().and_then(found) else {
                seen = 0; // it ran out meanwhile
                continue;
            };
            let (id, name) = id_and_name(&other.value);
            if id != holder.id {
                // The lease runs out by itself where that fails.
                let _ = clients.revoke(lease).await;
                return Ok(Err(name.to_owned()));
            }
            seen = other.mod_revision;
        }
    }

    /// That the key is still this server's.
    pub fn condition(&self) -> pb::Compare {
        is_at(&self.key, self.at)
    }

    /// Reads the key, beside what else a refused write reads.
    pub fn read(&self) -> pb::RequestOp {
        read(&self.key)
    }

    /// Why the claim is lost, by what [`Claim::read`] found.
    pub fn loss(&self, response: Option<pb::ResponseOp>) -> Option<Arc<str>> {
        let other = response.and_then(found);
        if other.as_ref().is_some_and(|kv| kv.mod_revision == self.at) {
            return None;
        }
        Some(reason(other.as_ref()))
    }

    /// Why the claim is lost, by a change that the watch brings.
    pub fn loss_by(&self, event: &mvccpb::Event) -> Option<Arc<str>> {
        let kv = event.kv.as_ref().filter(|kv| kv.key == self.key && kv.mod_revision > self.at)?;
        Some(reason((event.r#type() == mvccpb::event::EventType::Put).then_some(kv)))
    }

    pub async fn check(&self, clients: &Clients) -> Result<Option<Arc<str>>, Failure> {
        let answer = clients.transaction(pb::TxnRequest { success: vec![self.read()], ..pb::TxnRequest::default() }).await?;
        Ok(self.loss(answer.responses.into_iter().next()))
    }

    /// Lets the next server in at once.
    pub async fn give_up(&self, clients: &Clients) {
        if let Err(failure) = clients.revoke(self.lease).await {
            tracing::debug!(reason = %failure, "the claim on the state in etcd runs out by itself");
        }
    }
}

/// Keeps the claim for as long as the store is open.
pub async fn keep(shared: Arc<Shared>) {
    let Some(claim) = &shared.claim else { return };
    loop {
        tokio::time::sleep(KEPT_EVERY).await;
        match shared.clients.keep_alive(claim.lease).await {
            Ok(seconds) if seconds > 0 => {}
            Ok(_) => match claim.check(&shared.clients).await {
                Ok(loss) => return shared.end(&loss.unwrap_or_else(|| reason(None))),
                Err(failure) => tracing::debug!(reason = %failure, "the claim on the state in etcd cannot be read"),
            },
            // Whether it still holds, etcd says when it answers again; until then nothing can be written by anybody.
            Err(failure) => tracing::debug!(reason = %failure, "the claim on the state in etcd cannot be renewed"),
        }
    }
}

fn reason(other: Option<&mvccpb::KeyValue>) -> Arc<str> {
    match other {
        Some(kv) => format!("rk server {} has taken over the state in etcd", id_and_name(&kv.value).1).into(),
        None => {
            let seconds = OUTLIVES.as_secs();
            format!("this server's claim to the state in etcd has run out: it was not heard of for {seconds} s; it must start anew").into()
        }
    }
}

fn is_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..pb::Compare::default()
    }
}

fn read(key: &Bytes) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestRange(pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() })) }
}

fn found(response: pb::ResponseOp) -> Option<mvccpb::KeyValue> {
    match response.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    }
}
