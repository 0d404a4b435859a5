//! What this machine is called, where it is reached, and what it must have.
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, bail};

use crate::check;

/// File descriptors: watches, connections, pods' pipes.
const FILES: u64 = 1 << 20;

/// The host's name as a node's name: lower case, checked as the API will check it.
pub fn node_name(wanted: Option<&str>) -> anyhow::Result<String> {
    let name = match wanted {
        Some(name) => name.to_owned(),
        None => rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase(),
    };
    let label = |l: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        l.len() <= 63 && edge(l.as_bytes().first()) && edge(l.as_bytes().last()) && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        bail!(crate::cli::UsageError(format!("node name {name:?} is not a DNS name (lower case letters, digits, '-' and '.'); give one with --node-name")));
    }
    Ok(name)
}

/// The address that the default route uses; on a host without one, the first address that is not the loopback's.
pub fn node_address() -> anyhow::Result<Ipv4Addr> {
    // Connecting a UDP socket sends nothing; it only asks the kernel which source address it would use.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("open a socket")?;
    if socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).is_ok() {
        if let Ok(SocketAddr::V4(address)) = socket.local_addr() {
            if !address.ip().is_loopback() {
                return Ok(*address.ip());
            }
        }
    }
    let table = std::fs::read_to_string("/proc/net/fib_trie").context("read /proc/net/fib_trie")?;
    local_addresses(&table).into_iter().find(|a| !a.is_loopback() && !a.is_link_local()).context("no address found for this node; give one with --node-ip")
}

/// Lines `|-- 10.0.0.5` that are followed by `/32 host LOCAL`.
fn local_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut last = None;
    for line in fib_trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            addresses.extend(last.filter(|a| !addresses.contains(a)));
        }
    }
    addresses
}

/// Raises what may be raised; a nested machine may refuse, and smaller limits serve a small cluster.
pub fn raise_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(FILES), maximum: Some(now.maximum.unwrap_or(FILES).max(FILES)) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let possible = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
        tracing::debug!(?possible, "the limit of open files stays below the usual one");
    }
}

/// Why this machine cannot run a node, said before anything is made on it.
pub async fn require_machine(backend: Option<network::Backend>) -> anyhow::Result<()> {
    let missing = tokio::task::spawn_blocking(move || check::missing(backend)).await.context("check the machine")?;
    match missing.as_slice() {
        [] => Ok(()),
        all => bail!("this machine lacks something: {} (`rk check` shows everything)", all.join("; and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_read_from_the_routing_trie() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(local_addresses(trie), [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::LOCALHOST]);
    }

    #[test]
    fn a_bad_node_name_says_what_to_do() {
        assert!(node_name(Some("Bad_Name")).unwrap_err().to_string().contains("--node-name"));
        assert_eq!(node_name(Some("a-1.b")).unwrap(), "a-1.b");
    }
}
