//! Addresses and ports of Services.
//!
//! Models pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}. What is taken follows from the Services themselves: the pool
//! listens to the watch cache (every write passes there before it is acknowledged), and a request in flight holds a reservation that ends
//! with it. So nothing leaks, nothing needs repair, and a restart rebuilds it all.
mod pool;
mod service;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use api::field_error::FieldError;
use api::registry::{Registry, Resource};
use api::tree::Tree;

use crate::cache::{self, Cache};
use crate::config::Config;
use crate::rest::storage::Part;
use pool::Pool;

/// Of the service range, so many addresses at the start are given only by name: min(max(16, size/16), 256), as upstream.
fn static_band(size: u32) -> u32 {
    (size / 16).clamp(16, 256).min(size.saturating_sub(1))
}

struct State {
    /// Offsets into the service range.
    addresses: Pool<u32>,
    ports: Pool<u16>,
}

/// What Services hold; clones share it.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    config: Config,
    state: Mutex<State>,
}

/// Holds what a request chose, until it is over: by then the stored Service holds it, or nobody.
pub struct Reservation {
    services: Option<Services>,
    addresses: Vec<u32>,
    ports: Vec<u16>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(services) = &self.services else { return };
        let mut state = services.lock();
        self.addresses.iter().for_each(|a| state.addresses.end_reservation(*a));
        self.ports.iter().for_each(|p| state.ports.end_reservation(*p));
    }
}

impl Reservation {
    fn none() -> Self {
        Self { services: None, addresses: Vec::new(), ports: Vec::new() }
    }
}

/// What one Service holds.
fn held(services: &Services, service: &Tree) -> (HashSet<u32>, HashSet<u16>) {
    let addresses = service::cluster_ips(service).iter().filter_map(|ip| services.offset(ip.parse().ok()?)).collect();
    (addresses, service::ports(service).collect())
}

impl Services {
    /// Follows the cache's Services.
    pub fn new(config: &Config, cache: &Cache) -> Self {
        let state = State { addresses: Pool::default(), ports: Pool::default() };
        let services = Self(Arc::new(Inner { config: config.clone(), state: Mutex::new(state) }));
        let Some(kind) = Registry::get().resource("", "v1", "services").and_then(|r| cache.kind(r)) else { return services };
        let follower = services.clone();
        cache.listen(
            kind,
            Box::new(move |change: &cache::Change| {
                let before = change.previous.as_ref().map(|p| held(&follower, &p.tree())).unwrap_or_default();
                let after = if change.deleted { Default::default() } else { held(&follower, &change.object.tree()) };
                follower.replace(&before, &after);
            }),
        );
        for (_, cached) in cache.snapshot(kind).under(&cache::prefix(Registry::get().resource("", "v1", "services").expect("found above")), None) {
            services.replace(&Default::default(), &held(&services, &cached.tree()));
        }
        services
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic under the lock")
    }

    fn replace(&self, before: &(HashSet<u32>, HashSet<u16>), after: &(HashSet<u32>, HashSet<u16>)) {
        let mut state = self.lock();
        before.0.difference(&after.0).for_each(|a| state.addresses.release(*a));
        after.0.difference(&before.0).for_each(|a| state.addresses.hold(*a));
        before.1.difference(&after.1).for_each(|p| state.ports.release(*p));
        after.1.difference(&before.1).for_each(|p| state.ports.hold(*p));
    }

    /// Where an address stands in the service range; `None` outside of it, and for its first and last.
    fn offset(&self, ip: Ipv4Addr) -> Option<u32> {
        let range = self.0.config.service_cidr;
        if !range.contains(&ip) || ip == range.network() || ip == range.broadcast() {
            return None;
        }
        Some(u32::from(ip) - u32::from(range.network()))
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.config.service_cidr.network()) + offset)
    }

    fn size(&self) -> u32 {
        1u32.checked_shl(u32::from(32 - self.0.config.service_cidr.prefix_len())).unwrap_or(u32::MAX)
    }
}

/// Chooses what a new object needs.
pub fn reserve_create(services: &Services, resource: &Resource, object: &mut Tree) -> Result<Reservation, Vec<FieldError>> {
    if !is_service(resource) {
        return Ok(Reservation::none());
    }
    service::reserve(services, object, None)
}

/// Chooses what the changed object needs and did not have; what it no longer needs is free once it is stored.
pub fn reserve_update(services: &Services, resource: &Resource, part: Part, new: &mut Tree, old: &Tree) -> Result<Reservation, Vec<FieldError>> {
    if !is_service(resource) || part != Part::Main {
        return Ok(Reservation::none());
    }
    service::reserve(services, new, Some(old))
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}
