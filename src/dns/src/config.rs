//! What the server is told, and why it may not start.
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// How to serve; the default is what a cluster's own DNS pod uses.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The cluster's domain, without a dot at its end.
    pub domain: String,
    /// UDP and TCP.
    pub listen: SocketAddr,
    /// Names the servers for everything that is not the cluster's.
    pub resolv_conf: PathBuf,
    /// Answers `/health` as long as the process runs.
    pub health: SocketAddr,
    /// Answers `/ready` with 200 once all Services and EndpointSlices are known.
    pub ready: SocketAddr,
    /// Answers `/metrics`.
    pub metrics: SocketAddr,
    /// Threads that answer UDP questions.
    pub threads: usize,
}

impl Default for DnsConfig {
    fn default() -> Self {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        DnsConfig {
            domain: "cluster.local".to_owned(),
            listen: any(53),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            health: any(8080),
            ready: any(8181),
            metrics: any(9153),
            threads: cores.min(4),
        }
    }
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{domain:?} is not a domain name: {reason}")]
    Domain { domain: String, reason: String },
    #[error("listen on {address} ({purpose})")]
    Listen {
        address: SocketAddr,
        purpose: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("start a thread")]
    Thread(#[source] io::Error),
}
