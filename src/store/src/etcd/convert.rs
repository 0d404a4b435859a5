//! Between the store's words and etcd's; no I/O.
use std::sync::Arc;

use bytes::Bytes;

use super::claim::Claim;
use super::generated::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use super::generated::etcdserverpb::request_op::Request;
use super::generated::etcdserverpb::response_op::Response;
use super::generated::mvccpb;
use super::known::{Known, Version};
use super::pb;
use crate::{Event, EventKind, Expect, KeyValue, Operation, Revision, Write, Written};

/// What begins so is the store's own business: neither readers nor hooks see it.
const OWN: &str = "/~";
/// Written for its revision only.
const MARK: &str = "/~seen";
/// Says whose the state is.
const CLAIM: &str = "/~server";

pub fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

pub fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// How keys are called in etcd.
pub struct Keys {
    prefix: String,
    mark: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self { mark: format!("{prefix}{MARK}"), prefix }
    }

    pub fn full(&self, key: &str) -> Bytes {
        format!("{}{key}", self.prefix).into()
    }

    /// The first key below a prefix, and the first after it.
    pub fn below(&self, prefix: &str) -> (Bytes, Bytes) {
        // "/rk" must not find "/rk2".
        let first = self.full(if prefix.is_empty() { "/" } else { prefix });
        let mut end = first.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0), // everything
        }
        (first, end.into())
    }

    pub fn claim(&self) -> Bytes {
        self.full(CLAIM)
    }

    /// Whether it is the store's own business.
    pub fn is_internal(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_bytes()).is_some_and(|rest| rest.starts_with(OWN.as_bytes()))
    }

    /// The store's name of a key; `None` for what is not the store's.
    pub fn own<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix).filter(|_| !self.is_internal(key))
    }

    pub fn item(&self, item: mvccpb::KeyValue) -> Option<KeyValue> {
        Some(KeyValue {
            key: self.own(&item.key)?.into(),
            value: item.value,
            create_revision: revision(item.create_revision),
            mod_revision: revision(item.mod_revision),
        })
    }

    /// An event of the watch, which knows of a deleted key only what it was told beside it, and of others what `known` says.
    pub fn event(&self, event: mvccpb::Event, known: &Known) -> Option<Event> {
        let is_delete = event.r#type() == mvccpb::event::EventType::Delete;
        let kv = event.kv?;
        let name = self.own(&kv.key)?;
        let key: Arc<str> = known.key(name).unwrap_or_else(|| name.into());
        let same_key = |item: KeyValue| KeyValue { key: key.clone(), ..item };
        let previous = event.prev_kv.and_then(|previous| self.item(previous)).map(same_key);
        let at = revision(kv.mod_revision);
        let (kind, value, create_revision) = if is_delete {
            let created =
                previous.as_ref().map(|previous| previous.create_revision).or_else(|| known.version(name).map(|version| version.created));
            (EventKind::Delete, previous.as_ref().map(|previous| previous.value.clone()).unwrap_or_default(), created.unwrap_or(at))
        } else {
            (EventKind::Put { created: kv.create_revision == kv.mod_revision }, kv.value, revision(kv.create_revision))
        };
        Some(Event { kind, key, value, create_revision, revision: at, previous })
    }
}

/// One conditional write; a failed condition answers with the key as it is, then with the claim as it is.
pub fn transaction(key: &Bytes, write: &Write, claim: Option<&Claim>) -> pb::TxnRequest {
    let compare = |result: CompareResult, target: CompareTarget, union: TargetUnion| pb::Compare {
        result: result.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(union),
        ..pb::Compare::default()
    };
    let condition = match (&write.expect, &write.operation) {
        (Expect::Absent, _) => Some(compare(CompareResult::Equal, CompareTarget::Create, TargetUnion::CreateRevision(0))),
        (Expect::Revision(at) | Expect::Unchanged { revision: at, .. }, _) => {
            Some(compare(CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(number(*at))))
        }
        (Expect::Any, Operation::Delete) => Some(compare(CompareResult::Greater, CompareTarget::Create, TargetUnion::CreateRevision(0))),
        (Expect::Any, Operation::Put(_)) => None,
    };
    let operation = match &write.operation {
        Operation::Put(value) => {
            Request::RequestPut(pb::PutRequest { key: key.clone(), value: value.clone(), prev_kv: true, ..pb::PutRequest::default() })
        }
        Operation::Delete => {
            Request::RequestDeleteRange(pb::DeleteRangeRequest { key: key.clone(), prev_kv: true, ..pb::DeleteRangeRequest::default() })
        }
    };
    let read = Request::RequestRange(pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() });
    pb::TxnRequest {
        compare: condition.into_iter().chain(claim.map(Claim::condition)).collect(),
        success: vec![pb::RequestOp { request: Some(operation) }],
        failure: std::iter::once(pb::RequestOp { request: Some(read) }).chain(claim.map(Claim::read)).collect(),
    }
}

/// A write that only makes a revision.
pub fn mark(keys: &Keys) -> pb::TxnRequest {
    let put = pb::PutRequest { key: keys.mark.clone().into(), ..pb::PutRequest::default() };
    pb::TxnRequest { success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }], ..pb::TxnRequest::default() }
}

/// Why a [`transaction`] changed nothing.
pub enum Refusal {
    /// The key as it was when the condition did not hold, and the revision at that time.
    Conflict(Option<KeyValue>, Revision),
    /// The state is not this server's any more.
    Lost(Arc<str>),
}

/// What a [`transaction`] came to.
pub fn outcome(keys: &Keys, key: &Arc<str>, answer: pb::TxnResponse, claim: Option<&Claim>) -> Result<Written, Refusal> {
    let at = revision(answer.header.map_or(0, |header| header.revision));
    let named = |item: mvccpb::KeyValue| keys.item(item).map(|item| KeyValue { key: key.clone(), ..item });
    let mut responses = answer.responses.into_iter();
    let (previous, is_put) = match responses.next().and_then(|response| response.response) {
        Some(Response::ResponsePut(put)) => (put.prev_kv.and_then(named), true),
        Some(Response::ResponseDeleteRange(deleted)) => (deleted.prev_kvs.into_iter().next().and_then(named), false),
        Some(Response::ResponseRange(range)) => {
            return Err(match claim.and_then(|claim| claim.loss(responses.next())) {
                Some(reason) => Refusal::Lost(reason),
                None => Refusal::Conflict(range.kvs.into_iter().next().and_then(named), at),
            });
        }
        _ => return Err(Refusal::Conflict(None, at)),
    };
    if !is_put && previous.is_none() {
        return Err(Refusal::Conflict(None, at)); // nothing was there to be deleted
    }
    let create_revision = previous.as_ref().map_or(at, |previous| previous.create_revision);
    Ok(Written { revision: at, create_revision, previous })
}

pub fn version(item: &mvccpb::KeyValue) -> Version {
    Version { created: revision(item.create_revision), modified: revision(item.mod_revision) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_finds_what_is_below_it_only() {
        let keys = Keys::new("/rk/");
        assert_eq!(keys.below(""), ("/rk/".into(), "/rk0".into()));
        assert_eq!(keys.below("/registry/"), ("/rk/registry/".into(), "/rk/registry0".into()));
        assert_eq!(Keys::new("").below(""), ("/".into(), "0".into()));
        assert_eq!(keys.own(b"/rk/registry/x"), Some("/registry/x"));
        assert_eq!(keys.own(b"/other/registry/x"), None);
        assert_eq!((keys.own(b"/rk/~seen"), keys.own(&keys.claim()), keys.own(b"/rk/\xff")), (None, None, None));
    }
}
