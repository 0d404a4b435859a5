//! The ranges that ServiceCIDRs name, and which of their addresses are given first.
//!
//! Models pkg/api/servicecidr and pkg/registry/core/service/ipallocator/ipallocator.go. IPv4: the second family's ranges are kept by none.
use std::net::Ipv4Addr;

use api::meta;
use api::tree::Tree;
use ipnet::Ipv4Net;

use crate::cache::Cache;

pub const DEFAULT: &str = "kubernetes";

/// One range of a ServiceCIDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub prefix: Ipv4Net,
    /// Addresses may be given out of it.
    pub is_ready: bool,
}

impl Range {
    /// Those of a ServiceCIDR object.
    fn of(object: &Tree) -> impl Iterator<Item = Range> + '_ {
        let is = |condition: &&Tree| condition.str_at(&["type"]) == "Ready" && condition.str_at(&["status"]) == "True";
        let is_ready = object.array_at(&["status", "conditions"]).iter().any(|c| is(&c)) && meta::deletion_timestamp(object).is_none();
        let cidrs = object.array_at(&["spec", "cidrs"]).iter().filter_map(|cidr| cidr.as_str()?.parse().ok());
        cidrs.map(move |prefix| Range { prefix, is_ready })
    }

    /// Network and broadcast address are no Service's.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        self.prefix.contains(&ip) && ip != self.prefix.network() && ip != self.prefix.broadcast()
    }

    /// Every address once, those that are given by themselves first, and the band for those that are asked for by name last.
    pub fn candidates(&self, random: u32) -> impl Iterator<Item = Ipv4Addr> {
        let (first, last) = (u64::from(u32::from(self.prefix.network())) + 1, u64::from(u32::from(self.prefix.broadcast())));
        let size = last.saturating_sub(first);
        let band = u64::from(static_band(self.prefix)).min(size);
        let turned = move |from: u64, count: u64| (0..count).map(move |i| from + (i + u64::from(random)) % count);
        let addresses = turned(first + band, size - band).chain(turned(first, band));
        addresses.map(|address| Ipv4Addr::from(address as u32))
    }
}

/// So many addresses at the start are given last: min(max(16, size/16), 256) (KEP-3070).
fn static_band(prefix: Ipv4Net) -> u32 {
    match 1u64 << (32 - prefix.prefix_len()) {
        0..=16 => 0,
        size => (size / 16).clamp(16, 256) as u32,
    }
}

/// All ranges there are.
pub fn all(cache: &Cache) -> Vec<Range> {
    cache.list("networking.k8s.io", "servicecidrs", None).iter().flat_map(|object| Range::of(&object.tree()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(prefix: &str) -> Range {
        Range { prefix: prefix.parse().unwrap(), is_ready: true }
    }

    #[test]
    fn every_address_comes_once_and_the_band_for_chosen_ones_last() {
        let found: Vec<Ipv4Addr> = range("10.0.0.0/24").candidates(7).collect();
        assert_eq!(found.len(), 254);
        assert_eq!((found[0], found[237], found[238]), ([10, 0, 0, 24].into(), [10, 0, 0, 23].into(), [10, 0, 0, 8].into()));
        let mut sorted = found.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!((sorted.len(), sorted[0], sorted[253]), (254, [10, 0, 0, 1].into(), [10, 0, 0, 254].into()));
        assert_eq!(range("10.0.0.0/28").candidates(0).count(), 14);
        assert_eq!(range("10.0.0.0/31").candidates(3).count(), 0);
        assert_eq!(range("10.0.0.4/32").candidates(3).count(), 0);
        assert_eq!(range("10.0.0.0/16").candidates(0).next(), Some([10, 0, 1, 1].into()));
    }

    #[test]
    fn ranges_are_ready_until_they_are_deleted() {
        let object = |deleted: &str| {
            let text = format!(
                r#"{{"metadata":{{{deleted}"name":"a"}},"spec":{{"cidrs":["10.1.0.0/16","fd00::/112"]}},"status":{{"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
            );
            Range::of(&Tree::from_json(text.as_bytes()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(object(""), [range("10.1.0.0/16")]);
        assert!(!object(r#""deletionTimestamp":"2026-01-01T00:00:00Z","#)[0].is_ready);
    }
}
