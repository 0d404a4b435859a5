//! Small files that every container gets: /etc/hosts, /etc/resolv.conf, /etc/hostname. Pure text.
//!
//! Models pkg/kubelet/kubelet_pods.go (hosts file) and pkg/kubelet/network/dns/dns.go, v1.37.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

/// The C library reads no more (upstream: MaxDNSNameservers).
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;
const HOSTNAME_CHARS_MAX: usize = 63;

/// Host name and, with a subdomain, the domain below the cluster's.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(name) = spec.and_then(|s| s.hostname_override.as_deref()).filter(|n| !n.is_empty()) {
        return (name.to_owned(), None);
    }
    let own = spec.and_then(|s| s.hostname.as_deref()).filter(|h| !h.is_empty());
    let host = match own {
        Some(name) => name.to_owned(),
        None => {
            let mut name = pod.metadata.name.clone().unwrap_or_default();
            if name.len() > HOSTNAME_CHARS_MAX {
                name.truncate(HOSTNAME_CHARS_MAX);
                name = name.trim_end_matches(['-', '.']).to_owned();
            }
            name
        }
    };
    let domain = spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty()).map(|s| format!("{s}.{namespace}.svc.{cluster_domain}"));
    (host, domain)
}

/// The name that the kernel gets: the whole one when `setHostnameAsFQDN` asks for it.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> String {
    let (host, domain) = hostname(pod, cluster_domain);
    let whole = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn) == Some(true);
    match domain {
        Some(domain) if whole => format!("{host}.{domain}"),
        _ => host,
    }
}

pub fn hosts(pod: &Pod, pod_ips: &[String], cluster_domain: &str) -> String {
    let (host, domain) = hostname(pod, cluster_domain);
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in pod_ips {
        match &domain {
            Some(domain) => out.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n")),
            None => out.push_str(&format!("{ip}\t{host}\n")),
        }
    }
    out + &aliases(pod)
}

/// With the host's network: the host's own file, and the aliases.
pub fn host_network_hosts(pod: &Pod, host_file: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{host_file}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let list = pod.spec.as_ref().and_then(|s| s.host_aliases.as_ref());
    let Some(list) = list.filter(|l| !l.is_empty()) else { return String::new() };
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in list {
        out.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
    }
    out
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolv {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolv {
    pub fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            match fields.next() {
                Some("nameserver") => out.nameservers.extend(fields.next().map(Into::into)),
                Some("search") => out.searches = fields.map(|f| f.trim_end_matches('.').to_owned()).filter(|f| !f.is_empty()).collect(),
                Some("options") => out.options = fields.map(Into::into).collect(),
                _ => {}
            }
        }
        out
    }

    pub fn print(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }

    /// Cut to what resolvers read.
    fn limited(mut self) -> Self {
        let mut seen = Vec::new();
        self.nameservers.retain(|s| !seen.contains(s) && { seen.push(s.clone()); true });
        self.nameservers.truncate(NAMESERVERS_MAX);
        let mut length = 0;
        let mut kept = Vec::new();
        for search in self.searches {
            length += search.len() + usize::from(!kept.is_empty());
            if kept.len() == SEARCHES_MAX || length > SEARCH_CHARS_MAX {
                break;
            }
            if !kept.contains(&search) {
                kept.push(search);
            }
        }
        self.searches = kept;
        self
    }
}

pub fn resolv_conf(pod: &Pod, host: &Resolv, cluster_dns: &[IpAddr], cluster_domain: &str) -> Resolv {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let host_network = spec.and_then(|s| s.host_network) == Some(true);
    let policy = match spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst") {
        "ClusterFirst" if host_network => "Default",
        "ClusterFirstWithHostNet" => "ClusterFirst",
        other => other,
    };
    let mut out = match policy {
        "None" => Resolv::default(),
        "ClusterFirst" if !cluster_dns.is_empty() => {
            let mut searches = vec![format!("{namespace}.svc.{cluster_domain}"), format!("svc.{cluster_domain}"), cluster_domain.to_owned()];
            searches.extend(host.searches.iter().filter(|s| s.as_str() != ".").cloned());
            Resolv { nameservers: cluster_dns.iter().map(ToString::to_string).collect(), searches, options: vec!["ndots:5".into()] }
        }
        _ => host.clone(),
    };
    if let Some(config) = spec.and_then(|s| s.dns_config.as_ref()) {
        out.nameservers.extend(config.nameservers.iter().flatten().cloned());
        out.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            out.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            out.options.push(match option.value.as_deref().filter(|v| !v.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    out.limited()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = serde_json::json!([]);
        serde_json::from_value(serde_json::json!({"metadata": {"name": "web-0", "namespace": "n"}, "spec": spec})).expect("a pod")
    }

    #[test]
    fn names_come_from_hostname_and_subdomain() {
        assert_eq!(hostname(&pod(serde_json::json!({})), "cluster.local"), ("web-0".into(), None));
        let p = pod(serde_json::json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}));
        assert_eq!(hostname(&p, "cluster.local"), ("h".into(), Some("s.n.svc.cluster.local".into())));
        assert_eq!(kernel_hostname(&p, "cluster.local"), "h.s.n.svc.cluster.local");
        let text = hosts(&p, &["10.0.0.1".into()], "cluster.local");
        assert!(text.ends_with("fe00::2\tip6-allrouters\n10.0.0.1\th.s.n.svc.cluster.local\th\n"), "{text}");
    }

    #[test]
    fn aliases_follow_the_hosts() {
        let p = pod(serde_json::json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        assert!(hosts(&p, &[], "c").ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }

    #[test]
    fn resolvers_follow_the_policy() {
        let host = Resolv::parse("nameserver 8.8.8.8\nsearch lan\noptions edns0\n");
        let dns = ["10.43.0.10".parse().expect("an address")];
        let text = |spec| resolv_conf(&pod(spec), &host, &dns, "cluster.local").print();
        assert_eq!(text(serde_json::json!({})), "search n.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.43.0.10\noptions ndots:5\n");
        assert_eq!(text(serde_json::json!({"dnsPolicy": "Default"})), host.print());
        assert_eq!(text(serde_json::json!({"hostNetwork": true})), host.print());
        assert_eq!(
            text(serde_json::json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}})),
            "search x\nnameserver 1.1.1.1\noptions ndots:2 edns0\n"
        );
        assert!(text(serde_json::json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}})).ends_with("options ndots:1\n"));
    }
}
