//! IPAddress objects: one for each ClusterIP, written before the Service that has it.
//!
//! Models pkg/registry/core/service/ipallocator. The object need not be on disk before the Service is: the same log holds both in order, so a
//! crash loses the address with the Service or neither. What a crash leaves over (a Service gone, its address not) `repair` finds.
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use api::meta;
use api::registry::Registry;
use api::tree::Tree;
use store::{Durability, Expect, Operation, Revision, Write, WriteError};

use super::ranges;
use crate::cache;
use crate::server::ApiServer;
use crate::status::Status;

pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Of the addresses that are made here.
pub const MANAGER: &str = "ipallocator.k8s.io";
pub const GROUP: &str = "networking.k8s.io";
pub const PLURAL: &str = "ipaddresses";

#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    #[error("provided IP is already allocated")]
    Allocated,
    #[error("range is full")]
    Full,
    #[error("the provided network does not match the current range")]
    Mismatch,
    #[error("allocator not ready")]
    NotReady,
    #[error(transparent)]
    Store(#[from] WriteError),
}

impl AllocationError {
    /// The client's fault, for which a field can be named.
    pub fn status(self, as_invalid: impl FnOnce(String) -> Status) -> Status {
        match self {
            AllocationError::Store(error) => crate::rest::storage::store_failed(error),
            error => as_invalid(error.to_string()),
        }
    }
}

/// Whose an address is to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
}

impl Owner {
    pub fn of(service: &Tree) -> Owner {
        Owner { namespace: meta::namespace(service).to_owned(), name: meta::name(service).to_owned() }
    }
}

fn key(ip: Ipv4Addr) -> Arc<str> {
    let resource = Registry::get().resource(GROUP, "v1", PLURAL).expect("a built-in kind");
    cache::key(resource, "", &ip.to_string())
}

fn object(ip: Ipv4Addr, owner: &Owner) -> Tree {
    let mut object = Tree::object();
    meta::set_type(&mut object, "networking.k8s.io/v1", "IPAddress");
    meta::set_name(&mut object, &ip.to_string());
    meta::set_label(&mut object, FAMILY, "IPv4");
    meta::set_label(&mut object, MANAGED_BY, MANAGER);
    meta::set_uid(&mut object, &uuid::Uuid::new_v4().to_string());
    meta::set_creation_timestamp(&mut object, &crate::rest::storage::now());
    for (field, value) in [("namespace", &owner.namespace), ("name", &owner.name)] {
        object.set(&["spec", "parentRef", field], value.as_str());
    }
    object.set(&["spec", "parentRef", "resource"], "services");
    object
}

/// An address that a request took; given back when the request fails.
pub struct Taken {
    server: ApiServer,
    pub ip: Ipv4Addr,
    /// `None`: nothing was written (a dry run), or the Service has it for good.
    revision: Option<Revision>,
}

impl Taken {
    pub fn keep(&mut self) {
        self.revision = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(revision) = self.revision else { return };
        let (server, ip) = (self.server.clone(), self.ip);
        tokio::spawn(async move { delete(&server, ip, Expect::Revision(revision)).await });
    }
}

/// Writes the address; it must be free.
pub async fn create(server: &ApiServer, ip: Ipv4Addr, owner: &Owner) -> Result<Revision, AllocationError> {
    let operation = Operation::Put(object(ip, owner).to_json().into());
    let write = Write { key: key(ip), operation, expect: Expect::Absent, durability: Durability::Relaxed };
    match server.0.parts.store.write(write).await {
        Ok(written) => Ok(written.revision),
        Err(WriteError::Conflict { .. }) => Err(AllocationError::Allocated),
        Err(error) => Err(error.into()),
    }
}

async fn delete(server: &ApiServer, ip: Ipv4Addr, expect: Expect) {
    let write = Write { key: key(ip), operation: Operation::Delete, expect, durability: Durability::Relaxed };
    match server.0.parts.store.write(write).await {
        Ok(_) | Err(WriteError::Conflict { .. }) => {}
        Err(error) => tracing::warn!(%ip, %error, "a Service's address is not free yet"),
    }
}

/// Takes the address that is asked for.
pub async fn take(server: &ApiServer, ip: Ipv4Addr, owner: &Owner, dry_run: bool) -> Result<Taken, AllocationError> {
    let began = Instant::now();
    let ranges = ranges::all(&server.0.parts.cache);
    let Some(range) = ranges.iter().find(|range| range.is_ready && range.contains(ip)) else { return Err(AllocationError::Mismatch) };
    let revision = if dry_run {
        if is_taken(server, ip) {
            return Err(AllocationError::Allocated);
        }
        None
    } else {
        let revision = create(server, ip, owner).await?;
        server.0.metrics.allocations.given(range.prefix, true, began.elapsed());
        Some(revision)
    };
    Ok(Taken { server: server.clone(), ip, revision })
}

fn is_taken(server: &ApiServer, ip: Ipv4Addr) -> bool {
    server.0.parts.cache.get(GROUP, PLURAL, "", &ip.to_string()).is_some()
}

/// Takes one that is free.
pub async fn take_any(server: &ApiServer, owner: &Owner, dry_run: bool) -> Result<Taken, AllocationError> {
    let began = Instant::now();
    let cache = &server.0.parts.cache;
    let ranges = ranges::all(cache);
    let mut error = if ranges.iter().any(|range| range.is_ready) { AllocationError::Full } else { AllocationError::NotReady };
    let Some(kind) = Registry::get().resource(GROUP, "v1", PLURAL).and_then(|resource| cache.kind(resource)) else { return Err(error) };
    let known = cache.snapshot(kind).objects;
    for range in ranges.iter().filter(|range| range.is_ready) {
        let random = (uuid::Uuid::new_v4().as_u128() >> 96) as u32;
        for ip in range.candidates(random).filter(|ip| !known.contains_key(&*key(*ip))) {
            if dry_run {
                return Ok(Taken { server: server.clone(), ip, revision: None });
            }
            match create(server, ip, owner).await {
                Ok(revision) => {
                    server.0.metrics.allocations.given(range.prefix, false, began.elapsed());
                    return Ok(Taken { server: server.clone(), ip, revision: Some(revision) });
                }
                // Somebody took it meanwhile.
                Err(AllocationError::Allocated) => {}
                Err(failed) => return Err(failed),
            }
        }
        error = AllocationError::Full;
    }
    Err(error)
}

/// Gives an address back that a Service no longer has; one that is another's stays.
pub async fn give_back(server: &ApiServer, ip: Ipv4Addr, owner: &Owner) {
    let Some(cached) = server.0.parts.cache.get(GROUP, PLURAL, "", &ip.to_string()) else { return };
    if owner_of(&cached.tree()).as_ref() == Some(owner) {
        delete(server, ip, Expect::Revision(Revision(cached.revision))).await;
    }
}

/// Removes an address that nobody should have.
pub async fn remove(server: &ApiServer, ip: Ipv4Addr) {
    let Some(cached) = server.0.parts.cache.get(GROUP, PLURAL, "", &ip.to_string()) else { return };
    delete(server, ip, Expect::Revision(Revision(cached.revision))).await;
}

/// The Service that an IPAddress refers to; `None`: it refers to something else.
pub fn owner_of(address: &Tree) -> Option<Owner> {
    let parent = |field| address.str_at(&["spec", "parentRef", field]);
    let is_service = parent("group").is_empty() && parent("resource") == "services";
    is_service.then(|| Owner { namespace: parent("namespace").to_owned(), name: parent("name").to_owned() })
}
