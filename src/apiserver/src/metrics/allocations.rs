//! Addresses and ports of Services.
//!
//! Models pkg/registry/core/service/{ipallocator,portallocator}/metrics.go.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::text::{self, DEFAULT_LIMITS, Histogram};
use crate::alloc::{addresses, ranges};
use crate::server::ApiServer;

/// Of one range.
#[derive(Clone)]
struct Given {
    /// Those that were asked for, and those that were chosen here.
    counts: [u64; 2],
    durations: Histogram,
}

#[derive(Default)]
pub struct Allocations(Mutex<BTreeMap<Ipv4Net, Given>>);

impl Allocations {
    /// An address out of `range` was given; `is_asked`: that very one was wanted.
    pub fn given(&self, range: Ipv4Net, is_asked: bool, took: Duration) {
        let mut ranges = self.0.lock().expect("no panic under the lock");
        let given = ranges.entry(range).or_insert_with(|| Given { counts: [0; 2], durations: Histogram::new(DEFAULT_LIMITS) });
        given.counts[usize::from(!is_asked)] += 1;
        given.durations.observe(took.as_secs_f64());
    }

    pub fn render(&self, server: &ApiServer, out: &mut String) {
        let cache = &server.0.parts.cache;
        let taken = cache.list(addresses::GROUP, addresses::PLURAL, None);
        let taken: Vec<Ipv4Addr> = taken.iter().filter_map(|object| object.name().parse().ok()).collect();
        let ranges: Vec<(Ipv4Net, usize)> =
            ranges::all(cache).into_iter().map(|range| (range.prefix, taken.iter().filter(|ip| range.contains(**ip)).count())).collect();
        let name = "kube_apiserver_clusterip_allocator_allocated_ips";
        text::head(out, name, "gauge", "Gauge measuring the number of allocated IPs for Services");
        ranges.iter().for_each(|(range, taken)| text::sample(out, name, &format!("cidr=\"{range}\""), taken));
        let name = "kube_apiserver_clusterip_allocator_available_ips";
        text::head(out, name, "gauge", "Gauge measuring the number of available IPs for Services");
        for (range, taken) in &ranges {
            // Without those of the network and of broadcasts.
            let all = (1u64 << (32 - range.prefix_len())).saturating_sub(2);
            text::sample(out, name, &format!("cidr=\"{range}\""), all.saturating_sub(*taken as u64));
        }
        let given = self.0.lock().expect("no panic under the lock").clone();
        let name = "kube_apiserver_clusterip_allocator_allocation_total";
        text::head(out, name, "counter", "Number of Cluster IPs allocations");
        for (range, given) in &given {
            for (scope, count) in ["static", "dynamic"].into_iter().zip(given.counts).filter(|(_, count)| *count > 0) {
                text::sample(out, name, &format!("cidr=\"{range}\",scope=\"{scope}\""), count);
            }
        }
        let name = "kube_apiserver_clusterip_allocator_allocation_duration_seconds";
        text::head(out, name, "histogram", "Duration in seconds to allocate a Cluster IP by ServiceCIDR");
        given.iter().for_each(|(range, given)| given.durations.write(out, name, &format!("cidr=\"{range}\"")));

        let (allocated, available) = server.0.services.node_ports();
        let name = "kube_apiserver_nodeport_allocator_allocated_ports";
        text::single(out, name, "gauge", "Gauge measuring the number of allocated NodePorts for Services", allocated);
        let name = "kube_apiserver_nodeport_allocator_available_ports";
        text::single(out, name, "gauge", "Gauge measuring the number of available NodePorts for Services", available);
    }
}
