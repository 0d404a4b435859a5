//! Flags, with the names that k3s' users know. A flag of `rk server` is a key of its configuration file too.
mod access;
mod audit_webhook;
mod datastore;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;

pub use access::AccessOptions;
pub use audit_webhook::AuditWebhookOptions;
pub use datastore::{Datastore, DatastoreOptions};

pub const DATA_DIR: &str = "/var/lib/rk";
pub const RUN_DIR: &str = "/run/rk";
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
pub const REGISTRIES: &str = "/etc/rk/registries.yaml";
pub const KUBECONFIG: &str = "/etc/rk/kubeconfig.yaml";

#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct ServerOptions {
    /// Configuration file with these flags as keys
    #[arg(long, short, value_name = "FILE", default_value = crate::config_file::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Folder for the cluster's state
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Log more
    #[arg(long)]
    pub debug: bool,

    #[command(flatten)]
    pub datastore: DatastoreOptions,

    /// Address that the API listens on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = "API")]
    pub bind_address: IpAddr,
    /// Port of the API
    #[arg(long, value_name = "PORT", default_value_t = 6443, help_heading = "API")]
    pub https_listen_port: u16,
    /// Address under which others reach the API [default: the node's]
    #[arg(long, value_name = "IP", help_heading = "API")]
    pub advertise_address: Option<Ipv4Addr>,
    /// Further name or address in the API's certificate (repeatable)
    #[arg(long, value_name = "NAME", help_heading = "API")]
    pub tls_san: Vec<String>,
    /// Admission plugin that is not asked by default: AlwaysPullImages, DenyServiceExternalIPs, EventRateLimit (repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "API")]
    pub enable_admission_plugins: Vec<String>,
    /// Configuration of such plugins, as kube-apiserver takes it
    #[arg(long, value_name = "FILE", help_heading = "API")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Where to write the administrator's kubeconfig
    #[arg(long, value_name = "FILE", default_value = KUBECONFIG, help_heading = "API")]
    pub write_kubeconfig: PathBuf,
    /// Mode of that file, in octal
    #[arg(long, value_name = "MODE", default_value = "0600", help_heading = "API")]
    pub write_kubeconfig_mode: String,
    /// What of the state is encrypted: an EncryptionConfiguration, read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "API")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Which requests the audit log records: a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE", requires = "audit", help_heading = "API")]
    pub audit_policy_file: Option<PathBuf>,
    /// The audit log; - is standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file", group = "audit", help_heading = "API")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept [0: for good]
    #[arg(long, value_name = "DAYS", default_value_t = 0, help_heading = "API")]
    pub audit_log_maxage: u64,
    /// Old audit logs that are kept [0: all]
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "API")]
    pub audit_log_maxbackup: usize,
    /// Megabytes of an audit log before a new one begins [0: no limit]
    #[arg(long, value_name = "MB", default_value_t = 0, help_heading = "API")]
    pub audit_log_maxsize: u64,

    #[command(flatten)]
    pub audit_webhook: AuditWebhookOptions,
    #[command(flatten)]
    pub access: AccessOptions,

    /// Addresses of pods
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16", help_heading = "Network")]
    pub cluster_cidr: Ipv4Net,
    /// Addresses of Services
    #[arg(long, value_name = "CIDR", default_value = "10.43.0.0/16", help_heading = "Network")]
    pub service_cidr: Ipv4Net,
    /// Ports for Services of type NodePort
    #[arg(long, value_name = "FROM-TO", default_value = "30000-32767", help_heading = "Network")]
    pub service_node_port_range: String,
    /// Address of the cluster DNS [default: the tenth of the service CIDR]
    #[arg(long, value_name = "IP", help_heading = "Network")]
    pub cluster_dns: Option<Ipv4Addr>,
    /// Domain of the cluster
    #[arg(long, value_name = "NAME", default_value = "cluster.local", help_heading = "Network")]
    pub cluster_domain: String,
    /// How pods of other nodes are reached: vxlan, host-gw (nodes on one link), wireguard
    #[arg(long, value_name = "BACKEND", default_value = "vxlan", help_heading = "Network")]
    pub network_backend: network::Backend,

    #[command(flatten)]
    pub node: NodeOptions,
    #[command(flatten)]
    pub autoscaler: AutoscalerOptions,

    /// KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): profiles, plugins and their weights, extenders
    #[arg(long, value_name = "FILE", help_heading = "Parts")]
    pub scheduler_config: Option<PathBuf>,
    /// Part to leave out: dns, ingress, local-storage, metrics-server (repeatable)
    #[arg(long, value_name = "PART", value_parser = ["dns", "ingress", "local-storage", "metrics-server"], value_delimiter = ',', help_heading = "Parts")]
    pub disable: Vec<String>,
}

#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct AgentOptions {
    /// Configuration file with these flags as keys
    #[arg(long, short, value_name = "FILE", default_value = crate::config_file::AGENT_PATH)]
    pub config: PathBuf,
    /// Folder for the node's state
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Log more
    #[arg(long)]
    pub debug: bool,

    /// Address of a server, https://HOST:6443 (repeatable)
    #[arg(long, short, value_name = "URL", help_heading = "Cluster")]
    pub server: Vec<String>,
    /// Token that `rk token` printed on the server; needed once
    #[arg(long, short, value_name = "TOKEN", env = "RK_TOKEN", hide_env_values = true, help_heading = "Cluster")]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, value_name = "FILE", conflicts_with = "token", help_heading = "Cluster")]
    pub token_file: Option<PathBuf>,

    #[command(flatten)]
    pub node: NodeOptions,
}

/// What every machine of the cluster is told about itself.
#[derive(Args, Clone, Debug)]
pub struct NodeOptions {
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pub node_name: Option<String>,
    /// Address of this node [default: that of the default route]
    #[arg(long, value_name = "IP", help_heading = "Node")]
    pub node_ip: Option<Ipv4Addr>,
    /// Label for this node, KEY=VALUE (repeatable)
    #[arg(long, value_name = "LABEL", help_heading = "Node")]
    pub node_label: Vec<String>,
    /// Taint for this node, KEY=VALUE:EFFECT (repeatable)
    #[arg(long, value_name = "TAINT", help_heading = "Node")]
    pub node_taint: Vec<String>,
    /// The resolver configuration for pods that use the node's, cluster DNS among them [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE", help_heading = "Node")]
    pub resolv_conf: Option<PathBuf>,
    /// Mirrors and logins of image registries [default: /etc/rk/registries.yaml]
    #[arg(long, value_name = "FILE", help_heading = "Node")]
    pub private_registry: Option<PathBuf>,
}

/// kube-controller-manager's flags for HorizontalPodAutoscalers, by their names.
#[derive(Args, Clone, Debug)]
pub struct AutoscalerOptions {
    /// How often metrics are looked at
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration, help_heading = "Autoscaling")]
    pub horizontal_pod_autoscaler_sync_period: Duration,
    /// How long no recommendation is undercut
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, help_heading = "Autoscaling")]
    pub horizontal_pod_autoscaler_downscale_stabilization: Duration,
    /// How far from the target nothing is done, as a share of it
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, help_heading = "Autoscaling")]
    pub horizontal_pod_autoscaler_tolerance: f64,
    /// How long after a pod's start its use of cpu may mean nothing
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, help_heading = "Autoscaling")]
    pub horizontal_pod_autoscaler_cpu_initialization_period: Duration,
    /// How long after a pod's start it may change between ready and not without having been ready
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = "Autoscaling")]
    pub horizontal_pod_autoscaler_initial_readiness_delay: Duration,
}

/// As Go writes one: `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("{text:?} is no time; numbers with h, m, s or ms are, e.g. 1m30s");
    let (mut total, mut rest) = (Duration::ZERO, text);
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let (digits, tail) = rest.split_at(number);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(malformed()),
        };
        let number: f64 = digits.parse().map_err(|_| malformed())?;
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| malformed())?;
        rest = tail;
    }
    Ok(total)
}

#[derive(Args, Clone, Debug)]
pub struct AgentRole {
    #[command(flatten)]
    pub options: AgentOptions,
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum AgentCommand {
    /// Join a cluster with a token, keep what was said, and run
    Join(JoinOptions),
}

#[derive(Args, Clone, Debug)]
pub struct JoinOptions {
    #[command(flatten)]
    pub options: AgentOptions,
    /// Leave the cluster that this machine belongs to, and remove its containers
    #[arg(long, help_heading = "Cluster")]
    pub leave_old_cluster: bool,
}

#[derive(Args, Clone, Debug)]
pub struct UninstallOptions {
    /// Folder of the cluster's state, where it is not the usual one
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Leave what pods have written to volumes of the class local-path
    #[arg(long)]
    pub keep_volumes: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ImageOptions {
    /// Folder of the cluster's state, where it is not the usual one
    #[arg(long, global = true, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Mirrors and logins of image registries
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/rk/registries.yaml")]
    pub private_registry: PathBuf,
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ImageCommand {
    /// Fetch an image from its registry
    Pull {
        image: String,
        /// Login, USER:PASSWORD
        #[arg(long, value_name = "LOGIN")]
        credentials: Option<String>,
    },
    /// Take images from archives: OCI layouts or `docker save`; `-` is standard input
    Import {
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
        /// Name for an image that the archive leaves unnamed
        #[arg(long)]
        name: Option<String>,
    },
    /// List images
    #[command(visible_alias = "ls")]
    List,
    /// Remove images by name or id
    #[command(visible_alias = "rm")]
    Remove {
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Args, Clone, Debug)]
pub struct TokenOptions {
    /// Kubeconfig of the administrator
    #[arg(long, global = true, value_name = "FILE", default_value = KUBECONFIG)]
    pub kubeconfig: PathBuf,
    #[command(subcommand)]
    pub command: Option<TokenCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print the command that joins another machine; what `rk token` alone does
    Create {
        /// How long it may be used: a number with s, m, h or d; 0 is for ever
        #[arg(long, value_name = "TIME", default_value = crate::token::TTL)]
        ttl: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List tokens, without their secrets
    #[command(visible_alias = "ls")]
    List,
    /// Delete tokens by their id; machines that have joined stay
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true, value_name = "ID")]
        tokens: Vec<String>,
    },
}

#[derive(Args, Clone, Debug)]
pub struct DnsOptions {
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    #[arg(long, default_value = "0.0.0.0:1053")]
    pub listen: SocketAddr,
}

#[derive(Args, Clone, Debug)]
pub struct IngressOptions {
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub https: SocketAddr,
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub health: SocketAddr,
    #[arg(long, default_value = "rk")]
    pub class: String,
    /// NAMESPACE/NAME of the Service in front
    #[arg(long, default_value = "kube-system/ingress")]
    pub service: String,
}

#[derive(Args, Clone, Debug)]
pub struct RemoveVolumeOptions {
    /// Where the node's local volumes are
    #[arg(long, default_value = "/storage")]
    pub folder: PathBuf,
    /// The volume's folder in it
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (text, millis) in [("15s", 15_000), ("1m30s", 90_000), ("500ms", 500), ("0s", 0), ("1.5h", 5_400_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "15", "s", "1d", "-1s", "1..5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
