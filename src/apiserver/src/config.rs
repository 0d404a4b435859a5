//! What an API server is made of.
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use store::Store;

use crate::admission::Admission;
use crate::audit::Audit;
use crate::auth::{Authenticator, Authorizer, TokenIssuer};
use crate::cache::Cache;
use crate::extension::Extension;
use crate::node::NodeDialer;

/// Everything that can be set; [`Config::default`] holds rk's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    pub service_cidr: Ipv4Net,
    pub node_ports: RangeInclusive<u16>,
    /// What the Service `kubernetes` points to.
    pub advertise_address: Ipv4Addr,
    pub secure_port: u16,
    /// The certificates that the API is trusted by, in PEM; `/cacerts` shows them to everybody.
    pub server_ca: String,
    /// The authority of users' certificates, in PEM: aggregated API servers believe it, too.
    pub client_ca: String,
    /// How this server shows aggregated API servers that it speaks for a user; without it none of them can be reached.
    pub front_proxy: Option<FrontProxy>,
    /// Whether `metrics.k8s.io` is answered from the kubelets where nobody else serves it.
    pub serves_metrics: bool,
    /// With the next: the seats that [`crate::flow`] divides.
    pub max_reads_inflight: usize,
    pub max_writes_inflight: usize,
    pub request_timeout: Duration,
    /// A watch without timeoutSeconds ends after this and up to twice this.
    pub min_watch_timeout: Duration,
    pub body_bytes_max: usize,
    pub event_ttl: Duration,
    pub compaction_interval: Duration,
    pub bookmark_interval: Duration,
    /// What the process was started with, for `/flagz`: names and values.
    pub flags: Vec<(String, String)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_cidr: Ipv4Net::new(Ipv4Addr::new(10, 43, 0, 0), 16).expect("16 is a prefix length"),
            node_ports: 30000..=32767,
            advertise_address: Ipv4Addr::LOCALHOST,
            secure_port: 6443,
            server_ca: String::new(),
            client_ca: String::new(),
            front_proxy: None,
            serves_metrics: true,
            max_reads_inflight: 400,
            max_writes_inflight: 200,
            request_timeout: Duration::from_secs(60),
            min_watch_timeout: Duration::from_secs(1800),
            body_bytes_max: 3 << 20,
            event_ttl: Duration::from_secs(3600),
            compaction_interval: Duration::from_secs(300),
            bookmark_interval: Duration::from_secs(60),
            flags: Vec::new(),
        }
    }
}

/// The identity under which requests are passed on.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// The authority that signed it, in PEM.
    pub ca: String,
    pub identity: Arc<pki::Identity>,
}

/// The parts that others implement. `cache` comes from [`Cache::start`] on the same store: authenticator, authorizer and admission read it too.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub cache: Cache,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub admission: Arc<dyn Admission>,
    pub tokens: Arc<dyn TokenIssuer>,
    pub nodes: Arc<dyn NodeDialer>,
    pub extensions: Vec<Arc<dyn Extension>>,
    /// `None`: nothing is recorded.
    pub audit: Option<Arc<Audit>>,
}
