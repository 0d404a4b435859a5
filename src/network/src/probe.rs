//! Whether this kernel can do what [`Network::setup`] asks of it: tried for real, in a namespace that vanishes afterwards.
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::SetupError;
use crate::node::Network;
use crate::types::NodeConfig;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no network namespace can be made: {0}")]
    Namespace(std::io::Error),
    #[error("no temporary folder: {0}")]
    Folder(std::io::Error),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(": "))]
    Setup(Vec<String>),
}

/// Sets up a node's network in a throw-away network namespace. Blocks; touches nothing of the host's.
pub fn probe() -> Result<(), ProbeError> {
    let worker = std::thread::Builder::new().name("rk-net-probe".to_owned()).spawn(probe_here);
    worker.map_err(ProbeError::Namespace)?.join().expect("the probe does not panic")
}

fn probe_here() -> Result<(), ProbeError> {
    // SAFETY: a new network namespace closes no file and shares no memory; only this thread, which ends with the probe, enters it.
    // JUSTIFICATION: rustix has no safe form, because other flags of the same call would be unsound.
    #[expect(unsafe_code, reason = "unshare(2) has no safe wrapper")]
    let entered = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    entered.map_err(|e| ProbeError::Namespace(e.into()))?;
    let folder = std::env::temp_dir().join(format!("rk-probe-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(ProbeError::Folder)?;
    let net = |a, b| Ipv4Net::new(Ipv4Addr::new(10, a, b, 0), 24).expect("24 is a prefix length");
    let config =
        NodeConfig { mtu: Some(1500), ..NodeConfig::new(net(253, 0), net(253, 0), net(254, 0), Ipv4Addr::LOCALHOST, folder.clone()) };
    let result =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ProbeError::Namespace)?.block_on(Network::setup(config));
    // Left behind it would do no harm, so a failure to remove it is none of the probe.
    let _ = std::fs::remove_dir_all(&folder);
    result.map(drop).map_err(|e: SetupError| {
        let mut texts = vec![e.to_string()];
        let mut source = std::error::Error::source(&e);
        while let Some(inner) = source {
            texts.push(inner.to_string());
            source = inner.source();
        }
        ProbeError::Setup(texts)
    })
}
