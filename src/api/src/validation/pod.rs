//! Pods and pod templates.
//!
//! Models pkg/apis/core/validation/validation.go `ValidatePodSpec`, `ValidatePodCreate`, `ValidatePodTemplateSpec`.
//! Left out: pods for Windows are not checked against the fields that only Linux has.
use std::collections::HashMap;

use super::check::*;
use super::{affinity, container, meta, pod_agreement, pod_annotations, resources, security, volume};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::quantity::Quantity;
use crate::tree::Tree;

/// What the checks of a container must know of its pod.
pub(super) struct PodContext<'t> {
    pub spec: &'t Tree,
    /// The valid volumes, by name.
    pub volumes: HashMap<&'t str, &'t Tree>,
    /// Names of `spec.resourceClaims`.
    pub claims: Vec<&'t str>,
    pub grace_seconds: Option<i64>,
    pub host_users: bool,
}

/// A new pod.
pub(super) fn create(errors: &mut Errors, pod: &Tree) {
    meta::create(errors, pod, true, meta::NameRule::DnsSubdomain);
    metadata_and_spec(errors, pod);
    let spec = at(pod, "spec");
    let path = Path::new("spec");
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        errors.push(FieldError::forbidden(path.child("nodeName"), "cannot be set until all schedulingGates have been cleared"));
    }
    pod_annotations::agree_with_fields(errors, at(pod, "metadata"), spec, &path);
}

/// What holds for new and updated pods alike, but for `ObjectMeta` proper.
pub(super) fn metadata_and_spec(errors: &mut Errors, pod: &Tree) {
    let spec = at(pod, "spec");
    pod_annotations::check(errors, at(pod, "metadata"), spec, &Path::new("metadata").child("annotations"));
    pod_spec(errors, spec, pod.str_at(&["metadata", "name"]), true, &Path::new("spec"));
    let path = Path::new("spec");
    if text(spec, "serviceAccountName").is_empty() {
        let volumes = path.child("volumes");
        for (i, volume) in list(spec, "volumes").iter().enumerate() {
            let item = volumes.index(i);
            let projected = item.child("projected");
            let sources = projected.child("sources");
            for (j, source) in volume.array_at(&["projected", "sources"]).iter().enumerate() {
                if set(source, "serviceAccountToken").is_none() {
                    continue;
                }
                let source = sources.index(j);
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(FieldError::forbidden(source.child("serviceAccountToken"), detail));
            }
        }
    }
    for key in ["containers", "initContainers"] {
        let path = path.child(key);
        for (i, container) in list(spec, key).iter().enumerate() {
            container::image_space(errors, container, &path.index(i));
        }
    }
}

/// A `PodTemplateSpec`.
pub(super) fn template(errors: &mut Errors, template: &Tree, path: &Path) {
    let metadata = at(template, "metadata");
    labels(errors, at(metadata, "labels"), &path.child("labels"));
    meta::annotations(errors, at(metadata, "annotations"), &path.child("annotations"));
    let spec = at(template, "spec");
    pod_annotations::check(errors, metadata, spec, &path.child("annotations"));
    let spec_path = path.child("spec");
    pod_spec(errors, spec, "", false, &spec_path);
    pod_annotations::agree_with_fields(errors, metadata, spec, &spec_path);
    if !list(spec, "ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(spec_path.child("ephemeralContainers"), detail));
    }
}

/// A `PodSpec`. `pod_name` is empty where it stands in a template.
fn pod_spec(errors: &mut Errors, spec: &Tree, pod_name: &str, is_pod: bool, path: &Path) {
    let grace_seconds = int(spec, "terminationGracePeriodSeconds");
    if grace_seconds.is_none() {
        errors.push(FieldError::required(path.child("terminationGracePeriodSeconds"), ""));
    }
    let cx = PodContext {
        spec,
        volumes: volume::volumes(errors, list(spec, "volumes"), pod_name, &path.child("volumes")),
        claims: list(spec, "resourceClaims").iter().map(|c| text(c, "name")).filter(|n| !n.is_empty()).collect(),
        grace_seconds,
        host_users: at(spec, "hostUsers").as_bool() != Some(false),
    };
    resource_claims(errors, spec, &path.child("resourceClaims"));
    container::regular(errors, &cx, &path.child("containers"));
    container::init(errors, &cx, &path.child("initContainers"));
    container::ephemeral(errors, &cx, &path.child("ephemeralContainers"));
    if let Some(pod_resources) = set(spec, "resources") {
        resources::pod(errors, pod_resources, &path.child("resources"));
        resource_consistency(errors, spec, pod_resources, &path.child("resources"));
    }
    host_network_ports(errors, spec, is_pod, &path.child("containers"));
    one_of(errors, text(spec, "restartPolicy"), &["Always", "OnFailure", "Never"], &path.child("restartPolicy"));
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(errors, text(spec, "dnsPolicy"), &dns_policies, &path.child("dnsPolicy"));
    labels(errors, at(spec, "nodeSelector"), &path.child("nodeSelector"));
    if let Some(context) = set(spec, "securityContext") {
        security::pod(errors, context, spec, &path.child("securityContext"));
    }
    affinity::affinity(errors, at(spec, "affinity"), &path.child("affinity"));
    dns_config(errors, spec, &path.child("dnsConfig"));
    let gates = path.child("readinessGates");
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        label_name(errors, text(gate, "conditionType"), &gates.index(i).child("conditionType"));
    }
    scheduling_gates(errors, spec, &path.child("schedulingGates"));
    let constraints = list(spec, "topologySpreadConstraints");
    affinity::spread_constraints(errors, constraints, &path.child("topologySpreadConstraints"));
    host_users(errors, &cx, path);
    pod_agreement::environment_files(errors, spec, path);
    pod_agreement::host_processes(errors, spec, path);
    for key in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        if let Some(name) = set(spec, key).and_then(Tree::as_str).filter(|n| !n.is_empty() || key == "runtimeClassName") {
            dns_subdomain(errors, name, &path.child(key));
        }
    }
    if let Some(seconds) = int(spec, "activeDeadlineSeconds") {
        let texts = names::in_range(seconds, 1, i32::MAX.into());
        errors.extend(texts.into_iter().map(|t| FieldError::invalid(path.child("activeDeadlineSeconds"), seconds, t)));
    }
    for key in ["hostname", "subdomain"] {
        if !text(spec, key).is_empty() {
            dns_label(errors, text(spec, key), &path.child(key));
        }
    }
    hostname_override(errors, spec, &path.child("hostnameOverride"));
    affinity::tolerations(errors, list(spec, "tolerations"), &path.child("tolerations"));
    let aliases = path.child("hostAliases");
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = aliases.index(i);
        ip(errors, text(alias, "ip"), &path.child("ip"));
        let hostnames = path.child("hostnames");
        for (j, name) in strings(alias, "hostnames").into_iter().enumerate() {
            dns_subdomain(errors, name, &hostnames.index(j));
        }
    }
    if let Some(policy) = set(spec, "preemptionPolicy") {
        one_of(errors, policy.as_str().unwrap_or(""), &["PreemptLowerPriority", "Never"], &path.child("preemptionPolicy"));
    }
    let overhead = path.child("overhead");
    let limits = overhead.child("limits");
    for (name, value) in entries(spec, "overhead") {
        let path = limits.key(name);
        resources::container_name(errors, name, &path);
        resources::amount(errors, name, value, &path);
    }
    if let Some(os) = set(spec, "os") {
        let path = path.child("os");
        match text(os, "name") {
            "" => errors.push(FieldError::required(path.child("name"), "")),
            name => supported(errors, name, &["linux", "windows"], &path),
        }
    }
}

fn resource_claims(errors: &mut Errors, spec: &Tree, path: &Path) {
    let mut seen: Seen<&str> = Seen::new();
    for (i, claim) in list(spec, "resourceClaims").iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        } else {
            dns_label(errors, name, &path.child("name"));
            seen.push(name);
        }
        let fields = [("Name", "name", "\"\""), ("ResourceClaimName", "resourceClaimName", "null"), ("ResourceClaimTemplateName", "resourceClaimTemplateName", "null")];
        let shown = || in_go(claim, &fields);
        match (set(claim, "resourceClaimName"), set(claim, "resourceClaimTemplateName")) {
            (Some(_), Some(_)) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(path, shown(), detail));
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(path, shown(), detail));
            }
            _ => {}
        }
        for key in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = set(claim, key) {
                dns_subdomain(errors, name.as_str().unwrap_or(""), &path.child(key));
            }
        }
    }
}

/// Containers must fit into what the pod as a whole asks for.
fn resource_consistency(errors: &mut Errors, spec: &Tree, pod_resources: &Tree, path: &Path) {
    let requests_path = path.child("requests");
    for (resource, asked) in entries(pod_resources, "requests") {
        let of = |container: &Tree| container.at(&["resources", "requests", resource]).map(quantity).unwrap_or_default();
        let mut total: Quantity = list(spec, "containers").iter().map(of).sum();
        let (mut sidecars, mut highest) = (Quantity::ZERO, Quantity::ZERO);
        for container in list(spec, "initContainers") {
            if text(container, "restartPolicy") == "Always" {
                total += of(container);
                sidecars += of(container);
                highest = highest.max(sidecars);
            } else {
                highest = highest.max(of(container) + sidecars);
            }
        }
        total = total.max(highest);
        let pod_request = quantity(asked);
        if total > pod_request {
            let detail = format!("must be greater than or equal to aggregate container requests of {total}");
            errors.push(FieldError::invalid(requests_path.key(resource), pod_request.to_string(), detail));
        }
    }
    let containers = path.child("containers");
    for (i, container) in list(spec, "containers").iter().enumerate() {
        for (resource, limit) in entries(at(container, "resources"), "limits") {
            let Some(pod_limit) = at(pod_resources, "limits").get(resource).map(quantity) else { continue };
            if quantity(limit) > pod_limit {
                let detail = format!("must be less than or equal to pod limits of {pod_limit}");
                let path = containers.index(i);
                errors.push(FieldError::invalid(path.key(resource).child("limits"), quantity(limit).to_string(), detail));
            }
        }
    }
}

fn host_network_ports(errors: &mut Errors, spec: &Tree, is_pod: bool, path: &Path) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for (i, container) in list(spec, "containers").iter().enumerate() {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let host_port = int(port, "hostPort").unwrap_or(0);
            if (is_pod || host_port != 0) && host_port != int(port, "containerPort").unwrap_or(0) {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(path.index(i).child("ports").index(j).child("hostPort"), host_port, detail));
            }
        }
    }
}

fn dns_config(errors: &mut Errors, spec: &Tree, path: &Path) {
    let config = at(spec, "dnsConfig");
    let servers = strings(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(path.child("nameservers"), detail));
            return;
        }
    }
    let servers_path = path.child("nameservers");
    if servers.len() > 3 {
        errors.push(FieldError::invalid(servers_path, at(config, "nameservers"), "must not have more than 3 nameservers"));
    }
    for (i, server) in servers.into_iter().enumerate() {
        ip(errors, server, &servers_path.index(i));
    }
    let searches = strings(config, "searches");
    let searches_path = path.child("searches");
    if searches.len() > 32 {
        errors.push(FieldError::invalid(searches_path, at(config, "searches"), "must not have more than 32 search paths"));
    }
    if searches.join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.push(FieldError::invalid(searches_path, at(config, "searches"), detail));
    }
    for (i, search) in searches.into_iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        invalid(errors, &searches_path.index(i), search, names::dns1123_subdomain_with_underscore(search));
    }
    let options = path.child("options");
    for (i, _) in list(config, "options").iter().enumerate().filter(|(_, o)| text(o, "name").is_empty()) {
        errors.push(FieldError::required(options.index(i), "must not be empty"));
    }
}

fn scheduling_gates(errors: &mut Errors, spec: &Tree, path: &Path) {
    let mut seen: Seen<&str> = Seen::new();
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        label_name(errors, name, &path.index(i));
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.index(i), name));
        }
        seen.push(name);
    }
}

fn host_users(errors: &mut Errors, cx: &PodContext, path: &Path) {
    if cx.host_users {
        return;
    }
    // The odd capitals are upstream's.
    for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(cx.spec, key) {
            errors.push(FieldError::forbidden(path.child(shown), "when `hostUsers` is false"));
        }
    }
    // Neither are they mounted with other owners, nor is theirs changed.
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let all = path.child(kind);
        for (i, _) in list(cx.spec, kind).iter().enumerate().filter(|(_, container)| !list(container, "volumeDevices").is_empty()) {
            errors.push(FieldError::forbidden(all.index(i).child("volumeDevices"), "when `hostUsers` is false"));
        }
    }
}

/// KEP-4762.
fn hostname_override(errors: &mut Errors, spec: &Tree, path: &Path) {
    let Some(name) = set(spec, "hostnameOverride").and_then(Tree::as_str) else { return };
    dns_subdomain(errors, name, path);
    if name.len() > 64 {
        errors.push(FieldError::too_long(path, 64));
    }
    for key in ["hostNetwork", "setHostnameAsFQDN"] {
        if flag(spec, key) {
            errors.push(FieldError::forbidden(path, format!("may not be specified when {key} is true")));
        }
    }
}
