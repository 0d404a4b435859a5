//! The level `baseline`: no known privilege escalations.
//!
//! Models k8s.io/pod-security-admission/policy/check_*.go, in the order of the checks' ids.
use std::collections::BTreeSet;

use api::tree::Tree;

use super::{Violation, containers, name, named, plural, quote, setters, setting};

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
];
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// `restricted` says that the stricter checks of that level stand in for some of these.
pub fn check(pod: &Tree, restricted: bool) -> Vec<Violation> {
    let checks: [fn(&Tree) -> Option<Violation>; 9] = [
        app_armor,
        host_namespaces,
        host_ports,
        probe_hosts,
        privileged,
        proc_mount,
        selinux,
        sysctls,
        windows_host_process,
    ];
    let mut found: Vec<(usize, Violation)> =
        checks.iter().enumerate().filter_map(|(at, check)| Some((at * 2, check(pod)?))).collect();
    if !restricted {
        // Between app armor and host namespaces; host namespaces and ports; SELinux and sysctls.
        let overlapping: [(usize, fn(&Tree) -> Option<Violation>); 3] =
            [(1, capabilities), (3, host_paths), (13, seccomp)];
        found.extend(overlapping.iter().filter_map(|(at, check)| Some((*at, check(pod)?))));
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, violation)| violation).collect()
}

fn app_armor(pod: &Tree) -> Option<Violation> {
    let bad = setting(pod, &["appArmorProfile", "type"], |kind| {
        matches!(kind.as_str(), Some("RuntimeDefault" | "Localhost"))
    });
    let mut values: BTreeSet<String> = BTreeSet::new();
    let pod_type = pod.str_at(&["spec", "securityContext", "appArmorProfile", "type"]);
    if bad.pod_bad {
        values.insert(format!("{pod_type:?}"));
    }
    for container in containers(pod).filter(|c| bad.bad.contains(&name(c))) {
        values.insert(format!("{:?}", container.str_at(&["securityContext", "appArmorProfile", "type"])));
    }
    let mut setters_of = Vec::new();
    if !values.is_empty() {
        let values: Vec<String> = values.into_iter().collect();
        setters_of.push(format!(
            "{} must not set AppArmor profile type to {}",
            setters(bad.pod_bad, &bad.bad),
            values.join(", ")
        ));
    }
    let mut annotations: Vec<String> = api::meta::annotations(pod)
        .iter()
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .map(|(key, value)| (key, value.as_str().unwrap_or("")))
        .filter(|(_, value)| !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/"))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        let word = plural("annotation", "annotations", annotations.len());
        setters_of.push(format!("{word} {}", annotations.join(", ")));
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", setters_of.len());
    (!setters_of.is_empty()).then(|| Violation::new(reason, setters_of.join("; ")))
}

fn capabilities(pod: &Tree) -> Option<Violation> {
    let (mut bad, mut added) = (Vec::new(), BTreeSet::new());
    for container in containers(pod) {
        let extra = container.array_at(&["securityContext", "capabilities", "add"]).iter().filter_map(Tree::as_str);
        let extra: Vec<&str> = extra.filter(|capability| !CAPABILITIES.contains(capability)).collect();
        if !extra.is_empty() {
            bad.push(name(container));
            added.extend(extra);
        }
    }
    let added: Vec<&str> = added.into_iter().collect();
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must not include {} in securityContext.capabilities.add", named(&bad), quote(&added));
        Violation::new("non-default capabilities", detail)
    })
}

fn host_namespaces(pod: &Tree) -> Option<Violation> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| {
        pod.at(&["spec", field]).and_then(Tree::as_bool).unwrap_or(false)
    });
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    (!set.is_empty()).then(|| Violation::new("host namespaces", set.join(", ")))
}

fn host_paths(pod: &Tree) -> Option<Violation> {
    let volumes = pod.array_at(&["spec", "volumes"]).iter();
    let bad: Vec<&str> = volumes.filter(|volume| volume.get("hostPath").is_some()).map(name).collect();
    (!bad.is_empty()).then(|| {
        Violation::new("hostPath volumes", format!("{} {}", plural("volume", "volumes", bad.len()), quote(&bad)))
    })
}

fn host_ports(pod: &Tree) -> Option<Violation> {
    let (mut bad, mut ports) = (Vec::new(), BTreeSet::new());
    for container in containers(pod) {
        let of = container.array_at(&["ports"]).iter().filter_map(|port| port.get("hostPort")?.as_i64());
        let of: Vec<i64> = of.filter(|port| *port != 0).collect();
        if !of.is_empty() {
            bad.push(name(container));
            ports.extend(of.iter().map(ToString::to_string));
        }
    }
    let ports: Vec<String> = ports.into_iter().collect();
    (!bad.is_empty()).then(|| {
        let (verb, noun) = (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", ports.len()));
        Violation::new("hostPort", format!("{} {verb} {noun} {}", named(&bad), ports.join(", ")))
    })
}

fn probe_hosts(pod: &Tree) -> Option<Violation> {
    let (mut bad, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    let handlers: [&[&str]; 5] =
        [&["livenessProbe"], &["readinessProbe"], &["startupProbe"], &["lifecycle", "postStart"], &["lifecycle", "preStop"]];
    for container in containers(pod) {
        for handler in handlers.iter().filter_map(|path| container.at(path)) {
            let found = ["httpGet", "tcpSocket"].map(|kind| handler.str_at(&[kind, "host"]));
            for host in found.into_iter().filter(|host| !host.is_empty()) {
                bad.insert(name(container));
                hosts.insert(host);
            }
        }
    }
    let (bad, hosts): (Vec<&str>, Vec<&str>) = (bad.into_iter().collect(), hosts.into_iter().collect());
    (!bad.is_empty()).then(|| {
        let verb = plural("uses", "use", bad.len());
        let noun = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
        Violation::new("probe or lifecycle host", format!("{} {verb} {noun} {}", named(&bad), quote(&hosts)))
    })
}

fn privileged(pod: &Tree) -> Option<Violation> {
    let set = |container: &&Tree| container.at(&["securityContext", "privileged"]).and_then(Tree::as_bool) == Some(true);
    let bad: Vec<&str> = containers(pod).filter(set).map(name).collect();
    (!bad.is_empty())
        .then(|| Violation::new("privileged", format!("{} must not set securityContext.privileged=true", named(&bad))))
}

fn proc_mount(pod: &Tree) -> Option<Violation> {
    // In a user namespace of its own a pod may see all of its /proc.
    if pod.at(&["spec", "hostUsers"]).and_then(Tree::as_bool) == Some(false) {
        return None;
    }
    let (mut bad, mut values) = (Vec::new(), BTreeSet::new());
    for container in containers(pod) {
        let value = container.str_at(&["securityContext", "procMount"]);
        if !value.is_empty() && value != "Default" {
            bad.push(name(container));
            values.insert(value);
        }
    }
    let values: Vec<&str> = values.into_iter().collect();
    (!bad.is_empty()).then(|| {
        Violation::new("procMount", format!("{} must not set securityContext.procMount to {}", named(&bad), quote(&values)))
    })
}

fn selinux(pod: &Tree) -> Option<Violation> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |options: Option<&Tree>| {
        let Some(options) = options else { return false };
        let (kind, sets_user, sets_role) =
            (options.str_at(&["type"]), !options.str_at(&["user"]).is_empty(), !options.str_at(&["role"]).is_empty());
        let bad_type = !SELINUX_TYPES.contains(&kind);
        if bad_type {
            types.insert(kind.to_owned());
        }
        user |= sets_user;
        role |= sets_role;
        bad_type || sets_user || sets_role
    };
    let pod_bad = is_bad(pod.at(&["spec", "securityContext", "seLinuxOptions"]));
    let bad = containers(pod).filter(|container| is_bad(container.at(&["securityContext", "seLinuxOptions"])));
    let bad: Vec<&str> = bad.map(name).collect();
    if !pod_bad && bad.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !types.is_empty() {
        let types: Vec<String> = types.into_iter().collect();
        what.push(format!("{} {}", plural("type", "types", types.len()), quote(&types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    let who = setters(pod_bad, &bad);
    Some(Violation::new("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "))))
}

/// The explicit settings that both levels forbid.
pub fn seccomp(pod: &Tree) -> Option<Violation> {
    let found = setting(pod, &["seccompProfile", "type"], is_good_seccomp);
    if !found.pod_bad && found.bad.is_empty() {
        return None;
    }
    let mut values: BTreeSet<&str> = BTreeSet::new();
    if found.pod_bad {
        values.insert(pod.str_at(&["spec", "securityContext", "seccompProfile", "type"]));
    }
    for container in containers(pod).filter(|c| found.bad.contains(&name(c))) {
        values.insert(container.str_at(&["securityContext", "seccompProfile", "type"]));
    }
    let values: Vec<&str> = values.into_iter().collect();
    let who = setters(found.pod_bad, &found.bad);
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quote(&values));
    Some(Violation::new("seccompProfile", detail))
}

pub fn is_good_seccomp(kind: &Tree) -> bool {
    matches!(kind.as_str(), Some("RuntimeDefault" | "Localhost"))
}

fn sysctls(pod: &Tree) -> Option<Violation> {
    let set = pod.array_at(&["spec", "securityContext", "sysctls"]).iter().map(name);
    let bad: Vec<&str> = set.filter(|sysctl| !SYSCTLS.contains(sysctl)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn windows_host_process(pod: &Tree) -> Option<Violation> {
    let path = ["windowsOptions", "hostProcess"];
    let found = setting(pod, &path, |value| value.as_bool() != Some(true));
    if !found.pod_bad && found.bad.is_empty() {
        return None;
    }
    let who = setters(found.pod_bad, &found.bad);
    Some(Violation::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true")))
}
