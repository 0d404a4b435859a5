//! Addresses and ports of Services.
//!
//! Models pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}. An address that is taken is an IPAddress object; which ports
//! are follows from the Services themselves: the pool listens to the watch cache (every write passes there before it is acknowledged), and a
//! request in flight holds a reservation that ends with it. So no port leaks, and a restart rebuilds the pool.
pub mod addresses;
mod families;
mod linked;
mod pool;
mod ports;
pub mod ranges;
pub mod repair;
mod service;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use api::registry::{Registry, Resource};
use api::tree::Tree;

use crate::cache::{self, Cache};
use crate::config::Config;
use crate::rest::storage::Part;
use crate::server::ApiServer;
use crate::status::Status;
use addresses::{Owner, Taken};
use pool::Pool;

/// The node ports that Services hold; clones share it.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    node_ports: RangeInclusive<u16>,
    ports: Mutex<Pool<u16>>,
}

/// Holds what a request chose, until it is over: by then the stored Service has it, or nobody.
#[derive(Default)]
pub struct Reservation {
    services: Option<Services>,
    ports: Vec<u16>,
    taken: Option<Taken>,
    /// What the Service had before and no longer has.
    left: Vec<(Ipv4Addr, Owner)>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(services) = &self.services else { return };
        let mut ports = services.lock();
        self.ports.iter().for_each(|p| ports.end_reservation(*p));
    }
}

impl Reservation {
    /// The Service is stored.
    pub async fn keep(mut self, server: &ApiServer) {
        if let Some(taken) = &mut self.taken {
            taken.keep();
        }
        for (ip, owner) in std::mem::take(&mut self.left) {
            addresses::give_back(server, ip, &owner).await;
        }
    }
}

impl Services {
    /// Follows the cache's Services.
    pub fn new(config: &Config, cache: &Cache) -> Self {
        let services = Self(Arc::new(Inner { node_ports: config.node_ports.clone(), ports: Mutex::default() }));
        let Some(kind) = Registry::get().resource("", "v1", "services").and_then(|r| cache.kind(r)) else { return services };
        let follower = services.clone();
        let held = |service: &Tree| service::ports(service).collect::<HashSet<u16>>();
        cache.listen(
            kind,
            Box::new(move |change: &cache::Change| {
                let before = change.previous.as_ref().map(|p| held(&p.tree())).unwrap_or_default();
                let after = if change.deleted { HashSet::new() } else { held(&change.object.tree()) };
                follower.replace(&before, &after);
            }),
        );
        for cached in cache.list("", "services", None) {
            services.replace(&HashSet::new(), &held(&cached.tree()));
        }
        services
    }

    /// How many node ports Services have, and how many are left.
    pub fn node_ports(&self) -> (usize, usize) {
        let held = self.lock().held();
        (held, self.0.node_ports.len().saturating_sub(held))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pool<u16>> {
        self.0.ports.lock().expect("no panic under the lock")
    }

    fn replace(&self, before: &HashSet<u16>, after: &HashSet<u16>) {
        let mut ports = self.lock();
        before.difference(after).for_each(|p| ports.release(*p));
        after.difference(before).for_each(|p| ports.hold(*p));
    }
}

/// Chooses what a new object needs.
pub async fn reserve_create(server: &ApiServer, resource: &Resource, object: &mut Tree, dry_run: bool) -> Result<Reservation, Status> {
    if !is_service(resource) {
        return Ok(Reservation::default());
    }
    service::reserve(server, resource, object, None, dry_run).await
}

/// Chooses what the changed object needs and did not have; what it no longer needs is free once it is stored.
pub async fn reserve_update(
    server: &ApiServer,
    resource: &Resource,
    part: Part,
    new: &mut Tree,
    old: &Tree,
    dry_run: bool,
) -> Result<Reservation, Status> {
    if !is_service(resource) || part != Part::Main {
        return Ok(Reservation::default());
    }
    service::reserve(server, resource, new, Some(old), dry_run).await
}

/// Gives back what an object had that is gone.
pub async fn release(server: &ApiServer, resource: &Resource, object: impl FnOnce() -> Tree) {
    if !is_service(resource) {
        return;
    }
    let object = object();
    let owner = Owner::of(&object);
    for ip in service::addresses(&object) {
        addresses::give_back(server, ip, &owner).await;
    }
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}
