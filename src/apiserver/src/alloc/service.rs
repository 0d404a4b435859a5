//! Which addresses and ports a Service needs, and writing them into it.
//!
//! Models pkg/registry/core/service/storage/alloc.go. Single-stack IPv4: another family is refused as upstream does on such a cluster.
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use api::field_error::FieldError;
use api::meta;
use api::registry::Resource;
use api::tree::Tree;

use super::addresses::{self, AllocationError, Owner};
use super::pool::Pool;
use super::{Reservation, Services};
use crate::server::ApiServer;
use crate::status::Status;

fn kind(service: &Tree) -> &str {
    match service.str_at(&["spec", "type"]) {
        "" => "ClusterIP",
        kind => kind,
    }
}

fn is_headless(service: &Tree) -> bool {
    service.str_at(&["spec", "clusterIP"]) == "None"
}

/// Its addresses; none for headless and ExternalName Services.
pub fn cluster_ips(service: &Tree) -> Vec<String> {
    if kind(service) == "ExternalName" {
        return Vec::new();
    }
    let listed = service.array_at(&["spec", "clusterIPs"]).iter().filter_map(Tree::as_str);
    let mut ips: Vec<String> = listed.map(ToOwned::to_owned).collect();
    let first = service.str_at(&["spec", "clusterIP"]);
    if ips.is_empty() && !first.is_empty() {
        ips.push(first.to_owned());
    }
    ips.retain(|ip| ip != "None" && !ip.is_empty());
    ips
}

/// The same, without what is no address of ours.
pub fn addresses(service: &Tree) -> Vec<Ipv4Addr> {
    cluster_ips(service).iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn uses_node_ports(service: &Tree) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Tree::as_bool).unwrap_or(true),
        _ => false,
    }
}

fn needs_health_check_port(service: &Tree) -> bool {
    kind(service) == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

fn port_number(tree: Option<&Tree>) -> Option<u16> {
    tree.and_then(Tree::as_i64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

/// Node ports and the health check's, each once: one number may serve several protocols of one Service.
pub fn ports(service: &Tree) -> impl Iterator<Item = u16> {
    let listed = service.array_at(&["spec", "ports"]).iter().filter_map(|p| port_number(p.get("nodePort")));
    listed.chain(port_number(service.at(&["spec", "healthCheckNodePort"])))
}

/// Fills in `service`; `old` is what is stored, when it is an update.
pub async fn reserve(server: &ApiServer, resource: &Resource, service: &mut Tree, old: Option<&Tree>, dry_run: bool) -> Result<Reservation, Status> {
    let services = &server.0.services;
    let mut reservation = Reservation::default();
    reservation.services = Some(services.clone());
    if let Some(old) = old {
        carry_over(service, old);
    }
    drop_unused(service, old);
    if kind(service) != "ExternalName" {
        let name = meta::name(service).to_owned();
        let invalid = |errors: Vec<FieldError>| Status::invalid(&resource.group, &resource.kind, &name, &errors);
        families(service).map_err(invalid)?;
        reserve_addresses(server, service, old, dry_run, &mut reservation, invalid).await?;
        reserve_ports(services, service, old, &mut reservation).map_err(invalid)?;
    }
    if let Some(old) = old {
        let now = addresses(service);
        let owner = Owner::of(old);
        reservation.left = addresses(old).into_iter().filter(|ip| !now.contains(ip)).map(|ip| (ip, owner.clone())).collect();
    }
    Ok(reservation)
}

/// A client that leaves allocated fields out keeps them. Models patchAllocatedValues.
fn carry_over(new: &mut Tree, old: &Tree) {
    let has_ips = |service: &Tree| kind(service) != "ExternalName";
    if has_ips(old) && has_ips(new) && new.str_at(&["spec", "clusterIP"]).is_empty() && new.array_at(&["spec", "clusterIPs"]).is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            copy(new, old, &["spec", field]);
        }
    } else if !new.str_at(&["spec", "clusterIP"]).is_empty() && new.str_at(&["spec", "clusterIP"]) != old.str_at(&["spec", "clusterIP"]) {
        // The singular field changed alone: the plural one follows.
        if new.at(&["spec", "clusterIPs"]) == old.at(&["spec", "clusterIPs"]) {
            new.remove(&["spec", "clusterIPs"]);
        }
    }
    if uses_node_ports(new) && uses_node_ports(old) {
        let key = |port: &Tree| (port.str_at(&["protocol"]).to_owned(), port.get("port").and_then(Tree::as_i64));
        let taken: Vec<u16> = new.array_at(&["spec", "ports"]).iter().filter_map(|p| port_number(p.get("nodePort"))).collect();
        let before = old.array_at(&["spec", "ports"]);
        if let Some(ports) = new.at_mut(&["spec", "ports"]).and_then(Tree::as_array_mut) {
            for port in ports.iter_mut().filter(|p| port_number(p.get("nodePort")).is_none()) {
                let known = before.iter().find(|b| key(b) == key(port)).and_then(|b| port_number(b.get("nodePort")));
                if let Some(number) = known.filter(|n| !taken.contains(n)) {
                    port.set(&["nodePort"], i64::from(number));
                }
            }
        }
    }
    if needs_health_check_port(new) && needs_health_check_port(old) && port_number(new.at(&["spec", "healthCheckNodePort"])).is_none() {
        copy(new, old, &["spec", "healthCheckNodePort"]);
    }
}

fn copy(to: &mut Tree, from: &Tree, path: &[&str]) {
    if let Some(value) = from.at(path) {
        to.set(path, value.clone());
    }
}

/// Fields of a type that the Service no longer has, where the client did not touch them. Models dropTypeDependentFields.
fn drop_unused(new: &mut Tree, old: Option<&Tree>) {
    let Some(old) = old else { return };
    if kind(new) == "ExternalName" && kind(old) != "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if new.at(&["spec", field]) == old.at(&["spec", field]) {
                new.remove(&["spec", field]);
            }
        }
    }
    if uses_node_ports(old) && !uses_node_ports(new) && kind(new) != "LoadBalancer" {
        let before: Vec<u16> = ports(old).collect();
        if let Some(ports) = new.at_mut(&["spec", "ports"]).and_then(Tree::as_array_mut) {
            for port in ports {
                if port_number(port.get("nodePort")).is_some_and(|n| before.contains(&n)) {
                    port.remove(&["nodePort"]);
                }
            }
        }
    }
    if needs_health_check_port(old)
        && !needs_health_check_port(new)
        && new.at(&["spec", "healthCheckNodePort"]) == old.at(&["spec", "healthCheckNodePort"])
    {
        new.remove(&["spec", "healthCheckNodePort"]);
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if new.at(&["spec", field]) == old.at(&["spec", field]) {
                new.remove(&["spec", field]);
            }
        }
        new.set(&["status", "loadBalancer"], Tree::object());
    }
    let is_external = |service: &Tree| matches!(kind(service), "NodePort" | "LoadBalancer");
    if is_external(old) && !is_external(new) && new.at(&["spec", "externalTrafficPolicy"]) == old.at(&["spec", "externalTrafficPolicy"]) {
        new.remove(&["spec", "externalTrafficPolicy"]);
    }
}

fn families(service: &mut Tree) -> Result<(), Vec<FieldError>> {
    let policy = service.str_at(&["spec", "ipFamilyPolicy"]).to_owned();
    let wanted: Vec<String> = service.array_at(&["spec", "ipFamilies"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect();
    if policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(vec![FieldError::invalid("spec.ipFamilyPolicy", policy, detail)]);
    }
    let headless_without_selector = is_headless(service) && service.at(&["spec", "selector"]).and_then(Tree::as_object).is_none_or(|s| s.is_empty());
    for (i, family) in wanted.iter().enumerate() {
        if family != "IPv4" && !headless_without_selector {
            let detail = "not configured on this cluster";
            return Err(vec![FieldError::invalid(format!("spec.ipFamilies[{i}]"), family.as_str(), detail)]);
        }
    }
    if policy.is_empty() {
        service.set(&["spec", "ipFamilyPolicy"], "SingleStack");
    }
    if wanted.is_empty() {
        service.set(&["spec", "ipFamilies"], Tree::Array(vec!["IPv4".into()]));
    }
    Ok(())
}

async fn reserve_addresses(
    server: &ApiServer,
    service: &mut Tree,
    old: Option<&Tree>,
    dry_run: bool,
    reservation: &mut Reservation,
    invalid: impl Fn(Vec<FieldError>) -> Status,
) -> Result<(), Status> {
    if is_headless(service) || service.array_at(&["spec", "clusterIPs"]).first().and_then(Tree::as_str) == Some("None") {
        service.set(&["spec", "clusterIP"], "None");
        service.set(&["spec", "clusterIPs"], Tree::Array(vec!["None".into()]));
        return Ok(());
    }
    let asked = cluster_ips(service);
    if let Some(old) = old {
        let before = cluster_ips(old);
        if !asked.is_empty() && asked == before {
            sync_fields(service, &asked[0]);
            return Ok(());
        }
    }
    let owner = Owner::of(service);
    let failed = |why: String| {
        let value = Tree::Array(asked.iter().map(|ip| ip.as_str().into()).collect());
        invalid(vec![FieldError::invalid("spec.clusterIPs", &value, why)])
    };
    let taken = match asked.first() {
        Some(text) => {
            // What is no address at all is for validation to say.
            let Ok(ip) = text.parse::<IpAddr>() else { return Ok(()) };
            let taken = match ip {
                IpAddr::V4(ip) => addresses::take(server, ip, &owner, dry_run).await,
                IpAddr::V6(_) => Err(AllocationError::Mismatch),
            };
            taken.map_err(|error| error.status(|why| failed(format!("failed to allocate IP {text}: {why}"))))?
        }
        None => {
            let full = |why: String| Status::internal(format!("failed to allocate a serviceIP for Service \"{}\": {why}", owner.name));
            addresses::take_any(server, &owner, dry_run).await.map_err(|error| error.status(full))?
        }
    };
    let address = taken.ip.to_string();
    reservation.taken = Some(taken);
    sync_fields(service, &address);
    Ok(())
}

fn sync_fields(service: &mut Tree, address: &str) {
    service.set(&["spec", "clusterIP"], address);
    if service.array_at(&["spec", "clusterIPs"]).is_empty() {
        service.set(&["spec", "clusterIPs"], Tree::Array(vec![address.into()]));
    }
}

/// Where the search begins: the same Service begins at the same place.
fn hash(service: &Tree) -> u32 {
    let text = format!("{}/{}", meta::namespace(service), meta::name(service));
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn reserve_ports(services: &Services, service: &mut Tree, old: Option<&Tree>, reservation: &mut Reservation) -> Result<(), Vec<FieldError>> {
    let own: Vec<u16> = old.map(|old| ports(old).collect()).unwrap_or_default();
    let range = services.0.node_ports.clone();
    let start = hash(service);
    let needs_health = needs_health_check_port(service);
    let health = port_number(service.at(&["spec", "healthCheckNodePort"]));
    let wants_ports = uses_node_ports(service);
    let mut pool = services.lock();
    let mut errors = Vec::new();
    // Explicit numbers first, so that no other port of this Service takes one of them.
    let mut mine: Vec<u16> = own.clone();
    let mut claim = |pool: &mut Pool<u16>, number: u16, path: String, mine: &mut Vec<u16>| {
        if mine.contains(&number) {
            return;
        }
        if !range.contains(&number) {
            let detail = format!("provided port is not in the valid range. The range of valid ports is {}-{}", range.start(), range.end());
            errors.push(FieldError::invalid(path, i64::from(number), detail));
        } else if !pool.is_free(number) {
            errors.push(FieldError::invalid(path, i64::from(number), "provided port is already allocated"));
        } else {
            pool.reserve(number);
            reservation.ports.push(number);
            mine.push(number);
        }
    };
    let explicit: Vec<(usize, u16)> =
        service.array_at(&["spec", "ports"]).iter().enumerate().filter_map(|(i, p)| Some((i, port_number(p.get("nodePort"))?))).collect();
    let may_have_ports = wants_ports || kind(service) == "LoadBalancer";
    if may_have_ports {
        for (i, number) in explicit {
            claim(&mut pool, number, format!("spec.ports[{i}].nodePort"), &mut mine);
        }
    }
    if needs_health && let Some(number) = health {
        claim(&mut pool, number, "spec.healthCheckNodePort".to_owned(), &mut mine);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut find = |pool: &mut Pool<u16>, salt: u32| {
        let number = port_candidates(&range, start.wrapping_add(salt * 7919)).find(|number| pool.is_free(*number));
        if let Some(number) = number {
            pool.reserve(number);
            reservation.ports.push(number);
        }
        number
    };
    let full = |path: String| vec![FieldError::internal(path, "failed to allocate a nodePort: range is full")];
    if wants_ports && let Some(list) = service.at_mut(&["spec", "ports"]).and_then(Tree::as_array_mut) {
        for i in 0..list.len() {
            if port_number(list[i].get("nodePort")).is_some() {
                continue;
            }
            // The same port under another protocol shares the number.
            let port = list[i].get("port").cloned();
            let twin = (0..i).find(|j| list[*j].get("port") == port.as_ref() && list[*j].get("protocol") != list[i].get("protocol"));
            let number = match twin.and_then(|j| port_number(list[j].get("nodePort"))) {
                Some(number) => number,
                None => find(&mut pool, i as u32).ok_or_else(|| full(format!("spec.ports[{i}].nodePort")))?,
            };
            list[i].set(&["nodePort"], i64::from(number));
        }
    }
    if needs_health && health.is_none() {
        let number = find(&mut pool, 1000).ok_or_else(|| full("spec.healthCheckNodePort".to_owned()))?;
        service.set(&["spec", "healthCheckNodePort"], i64::from(number));
    }
    Ok(())
}

/// Every port once, those of the band for ports that are asked for by number last (KEP-3668): min(max(16, size/32), 128) at the start.
/// Models pkg/registry/core/service/portallocator/allocator.go.
fn port_candidates(range: &RangeInclusive<u16>, start: u32) -> impl Iterator<Item = u16> + use<> {
    let (first, size) = (*range.start(), u32::from(range.end() - range.start()) + 1);
    let band = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
    let turned = move |from: u32, count: u32| (0..count).map(move |i| first + (from + (start.wrapping_add(i)) % count) as u16);
    turned(band, size - band).chain(turned(0, band))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_static_band_come_last() {
        let found: Vec<u16> = port_candidates(&(30000..=32767), 5).collect();
        assert_eq!((found.len(), found[0], found[2681], found[2682]), (2768, 30091, 30090, 30005));
        assert_eq!(port_candidates(&(1..=10), 3).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9, 10, 1, 2, 3]);
        assert_eq!(port_candidates(&(1..=20), 0).next(), Some(17));
    }
}
