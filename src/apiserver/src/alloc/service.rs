//! Which addresses and ports a Service needs, and writing them into it.
//!
//! Models pkg/registry/core/service/storage/{storage,alloc}.go, v1.37: an update first gets what its client left out, then families, address and
//! ports, then it loses what its type has no use for; only then it is validated.
use std::net::{IpAddr, Ipv4Addr};

use api::field_error::FieldError;
use api::meta;
use api::names::parse_ip_sloppy;
use api::registry::Resource;
use api::tree::Tree;

use super::addresses::{self, AllocationError, Owner};
use super::{Reservation, families, linked, ports};
use crate::server::ApiServer;
use crate::status::Status;

pub(super) fn kind(service: &Tree) -> &str {
    match service.str_at(&["spec", "type"]) {
        "" => "ClusterIP",
        kind => kind,
    }
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
    cluster_ips(service).iter().filter_map(|ip| ipv4(ip)).collect()
}

/// Also in old spellings: with leading zeros, or as an IPv6 address that stands for one.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    match parse_ip_sloppy(text)?.to_canonical() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

pub(super) fn may_have_node_ports(service: &Tree) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

/// Whether its ports get node ports without asking.
pub(super) fn needs_node_ports(service: &Tree) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Tree::as_bool).unwrap_or(true),
        _ => false,
    }
}

pub(super) fn needs_health_check_port(service: &Tree) -> bool {
    kind(service) == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

/// Zero where there is none.
pub(super) fn health_check_port(service: &Tree) -> i64 {
    service.at(&["spec", "healthCheckNodePort"]).and_then(Tree::as_i64).unwrap_or(0)
}

/// Zero where there is none.
pub(super) fn node_port(port: &Tree) -> i64 {
    port.get("nodePort").and_then(Tree::as_i64).unwrap_or(0)
}

/// Node ports and the health check's, each once: one number may serve several protocols of one Service.
pub fn ports(service: &Tree) -> impl Iterator<Item = u16> {
    let listed = service.array_at(&["spec", "ports"]).iter().map(node_port);
    listed.chain([health_check_port(service)]).filter_map(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

/// Fills in `service`; `old` is what is stored, when it is an update.
pub async fn reserve(
    server: &ApiServer,
    resource: &Resource,
    service: &mut Tree,
    old: Option<&Tree>,
    dry_run: bool,
) -> Result<Reservation, Status> {
    let services = &server.0.services;
    let mut reservation = Reservation::default();
    reservation.services = Some(services.clone());
    if let Some(old) = old {
        linked::carry_over(service, old);
    }
    linked::normalize(service, old);
    let name = meta::name(service).to_owned();
    let invalid = |errors: Vec<FieldError>| Status::invalid(&resource.group, &resource.kind, &name, &errors);
    families::settle(service, old).map_err(invalid)?;
    if needs_address(service, old) {
        reserve_address(server, service, dry_run, &mut reservation, invalid).await?;
    }
    ports::reserve(services, service, old, dry_run, &mut reservation, invalid)?;
    if let Some(old) = old {
        linked::drop_unused(service, old);
        let now = addresses(service);
        let owner = Owner::of(old);
        reservation.left = addresses(old).into_iter().filter(|ip| !now.contains(ip)).map(|ip| (ip, owner.clone())).collect();
    }
    Ok(reservation)
}

/// A Service has the address that it began with until it no longer has any: another one is for validation to refuse.
fn needs_address(service: &Tree, old: Option<&Tree>) -> bool {
    let is_headless = service.array_at(&["spec", "clusterIPs"]).first().and_then(Tree::as_str) == Some("None");
    kind(service) != "ExternalName" && !is_headless && old.is_none_or(|old| kind(old) == "ExternalName")
}

async fn reserve_address(
    server: &ApiServer,
    service: &mut Tree,
    dry_run: bool,
    reservation: &mut Reservation,
    invalid: impl Fn(Vec<FieldError>) -> Status,
) -> Result<(), Status> {
    let owner = Owner::of(service);
    let listed = service.at(&["spec", "clusterIPs"]).cloned().unwrap_or_default();
    let failed = |why: String| invalid(vec![FieldError::invalid("spec.clusterIPs", &listed, why)]);
    // There is at most one: families are settled.
    let asked = listed.as_array().and_then(<[Tree]>::first).and_then(Tree::as_str).unwrap_or_default().to_owned();
    let (taken, text) = if asked.is_empty() {
        let taken = addresses::take_any(server, &owner, dry_run).await.map_err(|error| match error {
            AllocationError::Full => Status::internal(format!("failed to allocate a serviceIP for Service {:?}: {error}", owner.name)),
            error => error.status(|why| failed(format!("failed to allocate IP: {why}"))),
        })?;
        let text = taken.ip.to_string();
        (taken, text)
    } else {
        let Some(ip) = ipv4(&asked) else { return Err(Status::internal(format!("failed to parse service IP {asked:?}"))) };
        let taken = addresses::take(server, ip, &owner, dry_run).await;
        (taken.map_err(|error| error.status(|why| failed(format!("failed to allocate IP {asked}: {why}"))))?, asked)
    };
    reservation.taken = Some(taken);
    service.set(&["spec", "clusterIP"], text.as_str());
    service.set(&["spec", "clusterIPs"], Tree::Array(vec![text.as_str().into()]));
    Ok(())
}

#[cfg(test)]
pub(super) fn with_spec(spec: &str) -> Tree {
    Tree::from_json(format!(r#"{{"spec":{spec}}}"#).as_bytes()).expect("a test writes JSON")
}
