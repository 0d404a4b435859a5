//! The pods' bridge, its address, the settings it needs, and the way to the Services.
//!
//! The ports are isolated and the bridge answers for every pod's address (`proxy_arp_pvlan`, RFC 3069), so that traffic between two
//! pods of one node passes IP forwarding, where the rules for Services and policies apply; br_netfilter is not needed.
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{LinkBridge, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;

use crate::error::StepError;
use crate::netlink::Error;
use crate::routes::{Link, POD_LINK_PREFIX, Request, Routes, pod_link_address};
use crate::types::{IfName, NodeConfig};

/// When the default link is unknown.
const MTU_FALLBACK: u32 = 1500;
/// Records below the state directory that forwarding was off before.
const FORWARDING_WAS_OFF: &str = "ip-forward-was-off";
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bridge {
    pub index: u32,
    pub mtu: u32,
}

fn step<T>(what: impl Into<String>, result: Result<T, Error>) -> Result<T, StepError> {
    result.map_err(|e| StepError::new(what)(e.into()))
}

/// Makes or completes the bridge. Pod links whose address is not `in_use` are remains, and go.
pub(crate) fn setup(
    config: &NodeConfig,
    in_use: impl Fn(Ipv4Addr) -> bool,
) -> Result<Bridge, StepError> {
    let mut routes = step("open a netlink socket", Routes::open())?;
    let name = config.bridge.as_str();
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => step("find the default link", default_mtu(&mut routes, config))?,
    };
    let index = link(&mut routes, config, mtu)?;
    address(&mut routes, config, index)?;
    let conf = |key: &str, value: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/{key}");
        sysctl(Path::new(&path), value)
    };
    conf("proxy_arp_pvlan", "1")?;
    // Every packet between two pods leaves by the link it came from; that is meant.
    conf("send_redirects", "0")?;
    enable_forwarding(&config.state_dir)?;
    let to_services = service_route(config.service_cidr, config.gateway(), index);
    step(
        format!("route {} to {name}", config.service_cidr),
        routes.run(vec![Request::put_route(to_services)]),
    )?;
    remove_remains(&mut routes, index, in_use)?;
    Ok(Bridge { index, mtu })
}

fn default_mtu(routes: &mut Routes, config: &NodeConfig) -> Result<u32, Error> {
    let index = match routes.default_route_link()? {
        Some(index) => Some(index),
        // Without a default route, the link that has the node's address.
        None => {
            let all = routes.addresses()?;
            all.into_iter()
                .find(|a| a.address == config.node_ip)
                .map(|a| a.index)
        }
    };
    let link = match index {
        Some(index) => routes.link_by_index(index)?,
        None => None,
    };
    // A loopback link's 65536 is no use on any other.
    Ok(link.map_or(MTU_FALLBACK, |l| l.mtu).clamp(576, 9216))
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
        Some(link) => Request::change_link(
            LinkUnspec::new_with_index(link.index)
                .mtu(mtu)
                .address(mac)
                .up()
                .build(),
        ),
        None => Request::create_link(LinkBridge::new(name).mtu(mtu).address(mac).up().build()),
    };
    step(format!("create bridge {name}"), routes.run(vec![request]))?;
    match found {
        Some(link) => Ok(link.index),
        None => step(find, routes.link(name))?
            .map(|link| link.index)
            .ok_or_else(|| StepError::new("find the new bridge")(Errno::NODEV.into())),
    }
}

/// Gives the bridge its one address; others are of an earlier pod CIDR.
fn address(routes: &mut Routes, config: &NodeConfig, index: u32) -> Result<(), StepError> {
    let (wanted, prefix_len) = (config.gateway(), config.pod_cidr.prefix_len());
    let what = format!("give {} the address {wanted}/{prefix_len}", config.bridge);
    let all = step(what.clone(), routes.addresses())?;
    let mut requests: Vec<Request> = all
        .iter()
        .filter(|a| a.index == index && (a.address, a.prefix_len) != (wanted, prefix_len))
        .map(Request::delete_address)
        .collect();
    requests.push(Request::put_address(index, wanted, prefix_len));
    step(what, routes.run(requests))
}

/// Without this route a node that has no default route cannot reach ClusterIPs: "network is unreachable" comes before any rule.
fn service_route(cidr: Ipv4Net, source: Ipv4Addr, index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(cidr.network(), cidr.prefix_len())
        .output_interface(index)
        .pref_source(source)
        .scope(RouteScope::Link)
        .protocol(RouteProtocol::Static)
        .build()
}

fn remove_remains(
    routes: &mut Routes,
    index: u32,
    in_use: impl Fn(Ipv4Addr) -> bool,
) -> Result<(), StepError> {
    let links = step("list the links", routes.links())?;
    let known = |link: &Link| pod_link_address(&link.name).is_some_and(&in_use);
    for link in links {
        if link.master == Some(index) && link.name.starts_with(POD_LINK_PREFIX) && !known(&link) {
            tracing::info!(link = link.name, "removing a pod link that belongs to nobody");
            let deleted = routes.run(vec![Request::delete_link(&link.name)]);
            step(format!("delete link {}", link.name), gone_is_fine(deleted))?;
        }
    }
    Ok(())
}

pub(crate) fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(e) if e.is(Errno::NODEV) => Ok(()),
        other => other,
    }
}

/// Deletes the bridge and its pod links; the routes and addresses go with them.
pub(crate) fn remove(routes: &mut Routes, bridge: &IfName, failed: &mut Vec<StepError>) {
    let name = bridge.as_str();
    let found = match routes.link(name) {
        Ok(Some(link)) if link.kind == "bridge" => link,
        Ok(_) => return,
        Err(e) => return failed.push(StepError::new(format!("find link {name}"))(e.into())),
    };
    let ports = match routes.links() {
        Ok(links) => links,
        Err(e) => {
            failed.push(StepError::new("list the links")(e.into()));
            Vec::new()
        }
    };
    let ports = ports
        .into_iter()
        .filter(|l| l.master == Some(found.index) && l.name.starts_with(POD_LINK_PREFIX))
        .map(|l| l.name);
    for link in ports.chain([name.to_owned()]) {
        if let Err(e) = gone_is_fine(routes.run(vec![Request::delete_link(&link)])) {
            failed.push(StepError::new(format!("delete link {link}"))(e.into()));
        }
    }
}

fn sysctl(path: &Path, value: &str) -> Result<(), StepError> {
    fs::write(path, value).map_err(StepError::new(format!(
        "write {value} to {}",
        path.display()
    )))
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
