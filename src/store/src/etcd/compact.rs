//! History is given up by one of all servers that use an etcd.
//!
//! Models k8s.io/apiserver/pkg/storage/etcd3/compact.go, with its key: whoever counts the key's version up from where it saw it last
//! compacts; who is too late looks again next time.
use super::clients::Failure;
use super::convert::{number, revision};
use super::generated::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use super::generated::etcdserverpb::request_op::Request;
use super::generated::etcdserverpb::response_op::Response;
use super::pb;
use super::shared::Shared;
use crate::{Revision, StoreError};

const KEY: &str = "compact_rev_key";

#[derive(Default)]
pub struct Compactor {
    /// Of the key, as last seen.
    version: i64,
}

impl Compactor {
    pub async fn compact(&mut self, shared: &Shared, before: Revision) -> Result<(), StoreError> {
        let current = shared.revision();
        if before > current {
            return Err(StoreError::Future { requested: before, current });
        }
        let failed = |failure: Failure| StoreError::Unavailable(failure.to_string().into());
        let answer = shared.clients.transaction(claim(self.version, before)).await.map_err(failed)?;
        if answer.succeeded {
            self.version += 1;
            match shared.clients.compact(number(before)).await {
                Ok(()) | Err(Failure::Compacted) => shared.note_compacted(before),
                Err(failure) => return Err(failed(failure)),
            }
            return Ok(());
        }
        let item = answer.responses.into_iter().next().and_then(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        // A key that was removed counts from zero.
        self.version = item.as_ref().map_or(0, |item| item.version);
        let at = item.and_then(|item| std::str::from_utf8(&item.value).ok()?.parse().ok());
        shared.note_compacted(revision(at.unwrap_or(0)));
        Ok(())
    }
}

fn claim(version: i64, before: Revision) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Version.into(),
        key: KEY.into(),
        target_union: Some(TargetUnion::Version(version)),
        ..pb::Compare::default()
    };
    let put = pb::PutRequest { key: KEY.into(), value: before.to_string().into(), ..pb::PutRequest::default() };
    let read = pb::RangeRequest { key: KEY.into(), ..pb::RangeRequest::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: vec![pb::RequestOp { request: Some(Request::RequestRange(read)) }],
    }
}
