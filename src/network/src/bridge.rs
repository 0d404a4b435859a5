//! The node's own place in the pod network: a bridge without ports that holds the pods' gateway address, the way to the
//! Services, and the settings that routing needs. The pods' links are not in it; see [`crate::pod`].
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use rtnetlink::{LinkBridge, LinkUnspec};
use rustix::io::Errno;

use crate::error::StepError;
use crate::netlink::Error;
use crate::routes::{Link, Request, Routes, link_route, pod_link_address, unreachable_route};
use crate::types::{IfName, NodeConfig};

/// When the default link is unknown.
const MTU_FALLBACK: u32 = 1500;
/// What every host must take (RFC 791), and what most of those with jumbo frames do.
const MTU_MIN: u32 = 576;
const MTU_MAX: u32 = 9216;
/// Records the networks that were made unreachable, below the state directory: their routes belong to no link.
const UNREACHABLE: &str = "pod-cidr";
/// Records that forwarding was off before.
const FORWARDING_WAS_OFF: &str = "ip-forward-was-off";
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn step<T>(what: impl Into<String>, result: Result<T, Error>) -> Result<T, StepError> {
    result.map_err(|e| StepError::new(what)(e.into()))
}

/// Makes or completes the bridge and returns the pods' MTU. Pod links whose address is not `in_use` are remains, and go.
pub(crate) fn setup(config: &NodeConfig, in_use: impl Fn(Ipv4Addr) -> bool) -> Result<u32, StepError> {
    let mut routes = step("open a netlink socket", Routes::open())?;
    let name = config.bridge.as_str();
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => {
            let underlay = step("find the node's links", underlay_mtu(&mut routes, config))?;
            underlay.saturating_sub(config.backend.overhead_bytes()).max(MTU_MIN)
        }
    };
    let index = link(&mut routes, config, mtu)?;
    address(&mut routes, config, index)?;
    enable_forwarding(&config.state_dir)?;
    // Without a route to the Services a node that has no default route cannot reach them: "network is unreachable" comes before
    // any rule.
    let to_services = Request::put_route(link_route(config.service_cidr, index, config.gateway()));
    step(format!("route {} to {name}", config.service_cidr), routes.run(vec![to_services]))?;
    bar(&mut routes, config)?;
    remove_remains(&mut routes, in_use)?;
    Ok(mtu)
}

/// What is sent to a pod or a node that is gone must not leave by the default route.
fn bar(routes: &mut Routes, config: &NodeConfig) -> Result<(), StepError> {
    let wanted = [config.pod_cidr, config.cluster_cidr];
    // Of an earlier pod CIDR, which may be another node's by now.
    for old in barred(&config.state_dir).into_iter().filter(|old| !wanted.contains(old)) {
        step(format!("delete the route to {old}"), delete_unreachable(routes, old))?;
    }
    let record = wanted.map(|cidr| cidr.to_string()).join(" ");
    fs::write(config.state_dir.join(UNREACHABLE), record).map_err(StepError::new("record the pod CIDR"))?;
    let requests = wanted.into_iter().map(|cidr| Request::put_route(unreachable_route(cidr))).collect();
    step("make unknown pods unreachable", routes.run(requests))
}

fn barred(state_dir: &Path) -> Vec<Ipv4Net> {
    let recorded = fs::read_to_string(state_dir.join(UNREACHABLE)).unwrap_or_default();
    recorded.split_whitespace().filter_map(|text| text.parse().ok()).collect()
}

fn delete_unreachable(routes: &mut Routes, cidr: Ipv4Net) -> Result<(), Error> {
    match routes.run(vec![Request::delete_route(unreachable_route(cidr))]) {
        Err(e) if !e.is(Errno::SRCH) => Err(e),
        _ => Ok(()),
    }
}

/// The least of the link with the default route and the link that has the node's address: pods use both.
fn underlay_mtu(routes: &mut Routes, config: &NodeConfig) -> Result<u32, Error> {
    let addresses = routes.addresses()?;
    let own = addresses.into_iter().find(|a| a.address == config.node_ip).map(|a| a.index);
    let mut least = None;
    for index in [routes.default_route_link()?, own].into_iter().flatten() {
        let mtu = routes.link_by_index(index)?.map(|link| link.mtu);
        least = mtu.into_iter().chain(least).min();
    }
    // A loopback link's 65536 is no use on any other.
    Ok(least.unwrap_or(MTU_FALLBACK).clamp(MTU_MIN, MTU_MAX))
}

fn link(routes: &mut Routes, config: &NodeConfig, mtu: u32) -> Result<u32, StepError> {
    let name = config.bridge.as_str();
    let find = format!("find link {name}");
    let found = step(find.clone(), routes.link(name))?;
    // A bridge without an address of its own takes that of a port, and changes it as ports come and go.
    let mac = mac(config.gateway());
    let request = match &found {
        Some(Link { kind, .. }) if kind != "bridge" => {
            let taken = io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a link of this name exists and is no bridge: rename it, or choose another name",
            );
            return Err(StepError::new(format!("create bridge {name}"))(taken));
        }
        Some(link) => Request::change_link(LinkUnspec::new_with_index(link.index).mtu(mtu).address(mac).up().build()),
        None => Request::create_link(LinkBridge::new(name).mtu(mtu).address(mac).up().build()),
    };
    step(format!("create bridge {name}"), routes.run(vec![request]))?;
    match found {
        Some(link) => Ok(link.index),
        None => {
            step(find, routes.link(name))?.map(|link| link.index).ok_or_else(|| StepError::new("find the new bridge")(Errno::NODEV.into()))
        }
    }
}

/// Gives the bridge its one address; others are of an earlier pod CIDR.
fn address(routes: &mut Routes, config: &NodeConfig, index: u32) -> Result<(), StepError> {
    let (wanted, prefix_len) = (config.gateway(), 32);
    let what = format!("give {} the address {wanted}/{prefix_len}", config.bridge);
    let all = step(what.clone(), routes.addresses())?;
    let mut requests: Vec<Request> =
        all.iter().filter(|a| a.index == index && (a.address, a.prefix_len) != (wanted, prefix_len)).map(Request::delete_address).collect();
    requests.push(Request::put_address(index, wanted, prefix_len));
    step(what, routes.run(requests))
}

fn remove_remains(routes: &mut Routes, in_use: impl Fn(Ipv4Addr) -> bool) -> Result<(), StepError> {
    let links = step("list the links", routes.links())?;
    for link in links {
        let nobodys = |address| !in_use(address);
        if pod_link(&link).is_some_and(nobodys) {
            tracing::info!(link = link.name, "removing a pod link that belongs to nobody");
            let deleted = routes.run(vec![Request::delete_link(&link.name)]);
            step(format!("delete link {}", link.name), gone_is_fine(deleted))?;
        }
    }
    Ok(())
}

/// The address of the pod whose link this is.
fn pod_link(link: &Link) -> Option<Ipv4Addr> {
    let address = pod_link_address(&link.name)?;
    (link.kind == "veth").then_some(address)
}

pub(crate) fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(e) if e.is(Errno::NODEV) => Ok(()),
        other => other,
    }
}

/// Deletes the pods' links, the bridge and the routes that belong to no link; addresses and other routes go with the links.
pub(crate) fn remove(routes: &mut Routes, bridge: &IfName, state_dir: &Path, failed: &mut Vec<StepError>) {
    let links = match routes.links() {
        Ok(links) => links,
        Err(e) => return failed.push(StepError::new("list the links")(e.into())),
    };
    let is_ours = |link: &&Link| {
        let is_bridge = link.name == bridge.as_str() && link.kind == "bridge";
        is_bridge || pod_link(link).is_some()
    };
    for link in links.iter().filter(is_ours) {
        if let Err(e) = gone_is_fine(routes.run(vec![Request::delete_link(&link.name)])) {
            failed.push(StepError::new(format!("delete link {}", link.name))(e.into()));
        }
    }
    for cidr in barred(state_dir) {
        if let Err(e) = delete_unreachable(routes, cidr) {
            failed.push(StepError::new(format!("delete the route to {cidr}"))(e.into()));
        }
    }
    let record = state_dir.join(UNREACHABLE);
    match fs::remove_file(&record) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => failed.push(StepError::new(format!("remove {}", record.display()))(e)),
        _ => {}
    }
}

fn sysctl(path: &Path, value: &str) -> Result<(), StepError> {
    fs::write(path, value).map_err(StepError::new(format!("write {value} to {}", path.display())))
}

/// Writes only when it changes something: a write resets other settings of every link.
fn enable_forwarding(state_dir: &Path) -> Result<(), StepError> {
    let current = fs::read_to_string(IP_FORWARD).map_err(StepError::new("read ip_forward"))?;
    if current.trim() != "0" {
        return Ok(());
    }
    let record = state_dir.join(FORWARDING_WAS_OFF);
    fs::write(&record, "").map_err(StepError::new(format!("write {}", record.display())))?;
    sysctl(Path::new(IP_FORWARD), "1")
}

/// Switches forwarding off again where [`setup`] had switched it on.
pub(crate) fn restore_forwarding(state_dir: &Path) -> Result<(), StepError> {
    let record = state_dir.join(FORWARDING_WAS_OFF);
    if !record.exists() {
        return Ok(());
    }
    sysctl(Path::new(IP_FORWARD), "0")?;
    fs::remove_file(&record).map_err(StepError::new(format!("remove {}", record.display())))
}

/// A locally administered address made of the IP address, so that a neighbour's memory of a reused address stays right.
pub(crate) fn mac(address: Ipv4Addr) -> Vec<u8> {
    let mut mac = vec![0x0a, 0x58];
    mac.extend_from_slice(&address.octets());
    mac
}
