//! What this kernel can do of all that the network asks of it: each tried for real, in a namespace that vanishes afterwards.
use std::error::Error as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rtnetlink::{LinkBridge, LinkVeth, LinkVxlan, LinkWireguard};

use crate::mesh::Backend;
use crate::netlink::{Error, Family, Socket};
use crate::nft::{Batch, Hook, Rule, commit};
use crate::node::Network;
use crate::routes::{Request, Routes};
use crate::types::NodeConfig;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    pub feature: &'static str,
    /// Has it, where the kernel comes in modules.
    pub module: &'static str,
    /// Builds it in.
    pub option: &'static str,
    /// Of use to one backend only.
    pub optional: bool,
    /// What the kernel said; nothing where all is well.
    pub fault: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no network namespace can be made: {0}")]
    Namespace(std::io::Error),
    #[error("no temporary folder: {0}")]
    Folder(std::io::Error),
}

const TABLE: &str = "rk-probe";

/// Makes one of everything in a throw-away network namespace. Blocks; touches nothing of the host's.
///
/// In haste (a backend is given) a network as that backend has it is tried first; if it stands, there is nothing to report.
pub fn probe(haste: Option<Backend>) -> Result<Vec<Probed>, ProbeError> {
    let worker = std::thread::Builder::new().name("rk-net-probe".to_owned()).spawn(move || probe_here(haste));
    worker.map_err(ProbeError::Namespace)?.join().expect("the probe does not panic")
}

fn probe_here(haste: Option<Backend>) -> Result<Vec<Probed>, ProbeError> {
    // SAFETY: a new network namespace closes no file and shares no memory; only this thread, which ends with the probe, enters it.
    // JUSTIFICATION: rustix has no safe form, because other flags of the same call would be unsound.
    #[expect(unsafe_code, reason = "unshare(2) has no safe wrapper")]
    let entered = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    entered.map_err(|e| ProbeError::Namespace(e.into()))?;
    if let Some(backend) = haste
        && whole(backend)?.is_none()
    {
        return Ok(Vec::new());
    }
    let mut out = links();
    out.extend(rules());
    // Only what has passed so far tells anything about the whole.
    if out.iter().all(|p| p.optional || p.fault.is_none()) {
        out.push(Probed { feature: "the pod network as a whole", module: "", option: "", optional: false, fault: whole(Backend::HostGw)? });
    }
    Ok(out)
}

fn links() -> Vec<Probed> {
    let mut routes = Routes::open();
    let mut tried = |feature, module, option, optional, message| {
        let fault = match &mut routes {
            Ok(routes) => routes.run(vec![Request::create_link(message)]).err().map(|e| e.to_string()),
            Err(error) => Some(error.to_string()),
        };
        Probed { feature, module, option, optional, fault }
    };
    vec![
        tried("bridge links", "bridge", "CONFIG_BRIDGE", false, LinkBridge::new("rk-bridge").build()),
        tried("veth links", "veth", "CONFIG_VETH", false, LinkVeth::new("rk-veth0", "rk-veth1").build()),
        tried("VXLAN links (--network-backend vxlan)", "vxlan", "CONFIG_VXLAN", true, LinkVxlan::new("rk-vxlan", 1).port(8472).build()),
        tried("WireGuard links (--network-backend wireguard)", "wireguard", "CONFIG_WIREGUARD", true, LinkWireguard::new("rk-wg").build()),
    ]
}

type Write = fn(&mut Batch);

/// Each part of nf_tables that the rules of Services use, by itself.
fn rules() -> Vec<Probed> {
    fn rule(batch: &mut Batch, kind: &'static str, hook: Hook, write: impl FnOnce(&mut Rule<'_>)) {
        batch.add_base_chain(TABLE, "probe", kind, hook, 0);
        batch.add_rule(TABLE, "probe", write);
    }
    let parts: [(&'static str, &'static str, &'static str, Write); 8] = [
        ("nf_tables", "nf_tables", "CONFIG_NF_TABLES", |_| {}),
        ("nf_tables for IPv4, filtering", "nf_tables", "CONFIG_NF_TABLES_IPV4", |b| b.add_base_chain(TABLE, "probe", "filter", Hook::Prerouting, 0)),
        ("nf_tables chains that translate addresses", "nft_chain_nat", "CONFIG_NFT_NAT", |b| b.add_base_chain(TABLE, "probe", "nat", Hook::Prerouting, -100)),
        ("nf_tables masquerade", "nft_masq", "CONFIG_NFT_MASQ", |b| rule(b, "nat", Hook::Postrouting, |r| r.masquerade())),
        ("nf_tables fib expressions", "nft_fib_ipv4", "CONFIG_NFT_FIB_IPV4", |b| rule(b, "filter", Hook::Prerouting, |r| r.if_destination_is_local())),
        ("nf_tables numgen expressions", "nft_numgen", "CONFIG_NFT_NUMGEN", |b| rule(b, "filter", Hook::Prerouting, |r| r.random(1, 2, 0))),
        ("connection tracking", "nft_ct", "CONFIG_NFT_CT", |b| rule(b, "filter", Hook::Prerouting, |r| r.if_new_connection())),
        ("nf_tables reject", "nft_reject_ipv4", "CONFIG_NFT_REJECT_IPV4", |b| rule(b, "filter", Hook::Input, |r| r.reject())),
    ];
    let mut out = Vec::new();
    for (feature, module, option, write) in parts {
        let fault = try_rules(write).err().map(|e| e.to_string());
        let ends = fault.is_some() && module == "nf_tables";
        out.push(Probed { feature, module, option, optional: false, fault });
        // Without it nothing below can be told apart.
        if ends {
            break;
        }
    }
    out
}

fn try_rules(write: Write) -> Result<(), Error> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let mut batch = Batch::new();
    batch.remove_table(TABLE);
    batch.add_table(TABLE);
    write(&mut batch);
    commit(&mut socket, batch)
}

/// A node's network, set up as it will be.
fn whole(backend: Backend) -> Result<Option<String>, ProbeError> {
    let folder = std::env::temp_dir().join(format!("rk-probe-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(ProbeError::Folder)?;
    let net = |a, b| Ipv4Net::new(Ipv4Addr::new(10, a, b, 0), 24).expect("24 is a prefix length");
    let config = NodeConfig {
        mtu: Some(1500),
        backend,
        ..NodeConfig::new(net(253, 0), net(253, 0), net(254, 0), Ipv4Addr::LOCALHOST, folder.clone())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ProbeError::Namespace)?;
    let result = runtime.block_on(Network::setup(config));
    // Left behind it would do no harm, so a failure to remove it is none of the probe.
    let _ = std::fs::remove_dir_all(&folder);
    Ok(result.err().map(|error| {
        let mut texts = vec![error.to_string()];
        let mut source = error.source();
        while let Some(inner) = source {
            texts.push(inner.to_string());
            source = inner.source();
        }
        texts.join(": ")
    }))
}
