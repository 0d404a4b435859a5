//! What the kubelet is told once, at start.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

/// Everything that the operator decides about this node. Validated by the caller.
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// Pod directories: volumes, /etc/hosts, termination messages. `/var/lib/rk/kubelet`.
    pub root_dir: PathBuf,
    /// Holds `pods/` and `containers/`. `/var/log`.
    pub log_dir: PathBuf,
    /// Volumes that must not reach a disk. `/run/rk/kubelet`.
    pub run_dir: PathBuf,
    /// Where the network keeps its records. `/var/lib/rk/network`.
    pub network_state_dir: PathBuf,
    /// Where volumes of the class `local-path` are. `/var/lib/rk/storage`.
    pub local_storage_dir: PathBuf,
    pub bridge: String,
    /// How pods of other nodes are reached.
    pub network_backend: network::Backend,
    /// Of the pods' links; 0: what fits the node's own links.
    pub mtu: u32,
    pub cluster_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The host's resolver configuration, for `dnsPolicy: Default`.
    pub host_resolv_conf: PathBuf,
    pub max_pods: u32,
    /// Added to the node's own labels at registration.
    pub node_labels: BTreeMap<String, String>,
    /// `key=value:Effect`, at registration only.
    pub node_taints: Vec<k8s_openapi::api::core::v1::Taint>,
    /// `v1.37.1+rk0`.
    pub kubelet_version: String,
    /// `rk://0.1.0`.
    pub runtime_version: String,
    /// Bytes after which a container's log is rotated, and how many files are kept.
    pub log_max_bytes: u64,
    pub log_max_files: u32,
}

impl KubeletConfig {
    /// The defaults for a node of this name and address.
    pub fn new(node_name: impl Into<String>, node_ip: Ipv4Addr) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            root_dir: "/var/lib/rk/kubelet".into(),
            log_dir: "/var/log".into(),
            run_dir: "/run/rk/kubelet".into(),
            network_state_dir: "/var/lib/rk/network".into(),
            local_storage_dir: "/var/lib/rk/storage".into(),
            bridge: "rk0".into(),
            network_backend: network::Backend::default(),
            mtu: 0,
            cluster_cidr: "10.42.0.0/16".parse().expect("a literal network"),
            service_cidr: "10.43.0.0/16".parse().expect("a literal network"),
            cluster_dns: vec![IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10))],
            cluster_domain: "cluster.local".into(),
            host_resolv_conf: "/etc/resolv.conf".into(),
            max_pods: 110,
            node_labels: BTreeMap::new(),
            node_taints: Vec::new(),
            kubelet_version: "v1.37.1+rk0".into(),
            runtime_version: "rk://0.1.0".into(),
            log_max_bytes: 10 * 1024 * 1024,
            log_max_files: 5,
        }
    }
}
