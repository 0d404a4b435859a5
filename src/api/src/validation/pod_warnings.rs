//! What is legal in a pod and yet rarely meant.
//!
//! Models pkg/api/pod/warnings.go, v1.37.
use std::collections::HashMap;

use super::check::*;
use super::pod_annotations::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD, app_armor_profile};
use super::volume_paths;
use super::warnings::{address, claim_spec, node_label, node_term};
use crate::field_error::quote;
use crate::tree::Tree;

const ANNOTATIONS: [(&str, &str); 3] = [
    ("scheduler.alpha.kubernetes.io/critical-pod", r#"non-functional in v1.16+; use the "priorityClassName" field instead"#),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];

const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
pub const APP_ARMOR_WARNING: &str = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Of a Pod, where `base` is empty, or of the template at `base`.
pub fn pod_warnings(pod: &Tree, base: &str) -> Vec<String> {
    let (prefix, spec) = (if base.is_empty() { String::new() } else { format!("{base}.") }, at(pod, "spec"));
    let root = format!("{prefix}spec");
    let annotations = at(at(pod, "metadata"), "annotations");
    let annotated = |key: &str| annotations.get(key).is_some();
    let annotation = |key: &str, text: &str| format!("{prefix}metadata.annotations[{key}]: {text}");
    let mut warnings = Vec::new();

    node_labels(&mut warnings, spec, &root);
    warnings.extend(ANNOTATIONS.iter().filter(|(key, _)| annotated(key)).map(|(key, text)| annotation(key, text)));
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let old = VOLUMES.iter().filter(|(kind, _)| set(volume, kind).is_some());
        // Upstream shows one of them by its name in Go.
        let shown = |kind: &&'static str| if *kind == "storageos" { "storageOS" } else { *kind };
        warnings.extend(old.map(|(kind, text)| format!("{root}.volumes[{i}].{}: {text}", shown(kind))));
        if let Some(claim) = volume.at(&["ephemeral", "volumeClaimTemplate", "spec"]) {
            warnings.extend(claim_spec(claim, &format!("{root}.volumes[{i}].ephemeral.volumeClaimTemplate.spec")));
        }
    }
    volume_paths::overlapping(&mut warnings, spec);
    repeated(&mut warnings, spec, &root, "hostAliases", "ip");
    repeated(&mut warnings, spec, &root, "imagePullSecrets", "name");
    for (i, _) in list(spec, "imagePullSecrets").iter().enumerate().filter(|(_, secret)| text(secret, "name").is_empty()) {
        warnings.push(format!("{root}.imagePullSecrets[{i}].name: invalid empty name \"\""));
    }
    fractions(&mut warnings, at(spec, "overhead"), &format!("{root}.overhead"));

    let has_profile = |of: &Tree| set(at(of, "securityContext"), "seccompProfile").is_some();
    if !has_profile(spec) && annotated(SECCOMP_POD) {
        warnings.push(annotation(SECCOMP_POD, SECCOMP));
    }
    let containers = containers(spec, &root);
    for (container, path) in &containers {
        let key = format!("{SECCOMP_CONTAINER}{}", text(container, "name"));
        if !has_profile(container) && annotated(&key) {
            warnings.push(annotation(&key, SECCOMP));
        }
        if !base.is_empty() && set(at(container, "securityContext"), "appArmorProfile").is_none() {
            let key = format!("{APP_ARMOR}{}", text(container, "name"));
            let field = set(annotations, &key).and_then(Tree::as_str).map(app_armor_profile);
            if field.is_some_and(|field| field.is_none() || field.as_ref() != set(at(spec, "securityContext"), "appArmorProfile")) {
                warnings.push(annotation(&key, APP_ARMOR_WARNING));
            }
        }
        for part in ["limits", "requests"] {
            fractions(&mut warnings, at(at(container, "resources"), part), &format!("{path}.resources.{part}"));
        }
        environment(&mut warnings, container, path);
    }
    ports(&mut warnings, &containers);
    port_names(&mut warnings, &containers);
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        warnings.push(format!("{root}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    pod_affinity(&mut warnings, at(spec, "affinity"), &root);
    for (i, server) in list(at(spec, "dnsConfig"), "nameservers").iter().enumerate() {
        warnings.extend(address(&format!("{root}.dnsConfig.nameservers[{i}]"), server.as_str().unwrap_or("")));
    }
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        warnings.extend(address(&format!("{root}.hostAliases[{i}].ip"), text(alias, "ip")));
    }
    warnings
}

/// All kinds of containers with their paths, in upstream's order.
fn containers<'t>(spec: &'t Tree, root: &str) -> Vec<(&'t Tree, String)> {
    let kinds = ["initContainers", "containers", "ephemeralContainers"];
    kinds.iter().flat_map(|kind| list(spec, kind).iter().enumerate().map(move |(i, c)| (c, format!("{root}.{kind}[{i}]")))).collect()
}

fn node_labels(warnings: &mut Vec<String>, spec: &Tree, root: &str) {
    for (key, _) in entries(spec, "nodeSelector") {
        warnings.extend(node_label(key).map(|text| format!("{root}.nodeSelector[{key}]: {text}")));
    }
    let node = at(at(spec, "affinity"), "nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in list(at(node, required), "nodeSelectorTerms").iter().enumerate() {
        warnings.extend(node_term(term, &format!("{root}.affinity.nodeAffinity.{required}.nodeSelectorTerms[{i}]"), false));
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in list(node, preferred).iter().enumerate() {
        warnings.extend(node_term(at(term, "preference"), &format!("{root}.affinity.nodeAffinity.{preferred}[{i}].preference"), true));
    }
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let (path, key) = (format!("{root}.topologySpreadConstraints[{i}]"), text(constraint, "topologyKey"));
        warnings.extend(node_label(key).map(|text| format!("{path}.topologyKey: {key} is {text}")));
        if set(constraint, "labelSelector").is_none() {
            warnings.push(format!("{path}.labelSelector: {NO_SELECTOR}"));
        }
    }
}

/// Entries of a list that an earlier one has the key of.
fn repeated(warnings: &mut Vec<String>, spec: &Tree, root: &str, name: &str, key: &str) {
    let mut seen = Seen::new();
    for (i, item) in list(spec, name).iter().enumerate() {
        let value = text(item, key);
        if seen.contains(&value) {
            warnings.push(format!("{root}.{name}[{i}].{key}: duplicate {key} {}", quote(value)));
        }
        seen.push(value);
    }
}

/// Parts of a byte.
fn fractions(warnings: &mut Vec<String>, amounts: &Tree, path: &str) {
    for resource in ["memory", "ephemeral-storage"] {
        let Some(amount) = set(amounts, resource).and_then(crate::quantity::from_tree) else { continue };
        if !amount.is_whole() {
            warnings.push(format!("{path}[{resource}]: fractional byte value {} is invalid, must be an integer", quote(&amount.to_string())));
        }
    }
}

/// A variable that replaces one of the same name and does not refer to it.
fn environment(warnings: &mut Vec<String>, container: &Tree, path: &str) {
    let mut seen = Seen::new();
    for (i, variable) in list(container, "env").iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let earlier = format!("$({name})");
        if seen.contains(&name) && (set(variable, "valueFrom").is_some() || value == earlier || !value.contains(&earlier)) {
            let name = quote(name);
            warnings.push(format!("{path}.env[{i}]: hides previous definition of {name}, which may be dropped when using apply"));
        }
        seen.push(name);
    }
}

/// Of more ports nothing is said: each is compared with each, and clients are shown 4 kB of warnings.
const PORTS_MAX: usize = 200;

fn ports(warnings: &mut Vec<String>, containers: &[(&Tree, String)]) {
    let mut seen: Vec<(&Tree, String)> = Vec::new();
    let host = |port: &Tree| (int(port, "hostPort").unwrap_or(0), text(port, "hostIP").to_owned());
    for (container, path) in containers {
        for (i, port) in list(container, "ports").iter().enumerate() {
            if seen.len() > PORTS_MAX {
                return;
            }
            let place = format!("{path}.ports[{i}]");
            let (number, address) = host(port);
            if !address.is_empty() && number == 0 {
                let (name, own) = (text(port, "name"), int(port, "containerPort").unwrap_or(0));
                let shown = format!("{{Name:{name} HostPort:0 ContainerPort:{own} Protocol:{} HostIP:{address}}}", text(port, "protocol"));
                warnings.push(format!("{place}: hostIP set without hostPort: {shown}"));
            }
            let is_same = |other: &Tree| {
                int(other, "containerPort") == int(port, "containerPort") && text(other, "protocol") == text(port, "protocol")
            };
            for (other, there) in seen.iter().filter(|(other, _)| is_same(other)) {
                let (other_number, other_address) = host(other);
                let what = match () {
                    () if (number, &address) == (other_number, &other_address) => "duplicate",
                    () if number == 0 || other_number == 0 => "overlapping",
                    () if number == other_number && address.is_empty() != other_address.is_empty() => "dangerously ambiguous",
                    () => continue,
                };
                warnings.push(format!("{place}: {what} port definition with {there}"));
            }
            seen.push((port, place));
        }
    }
}

fn port_names(warnings: &mut Vec<String>, containers: &[(&Tree, String)]) {
    let mut seen: HashMap<&str, String> = HashMap::new();
    for (container, path) in containers {
        for (i, port) in list(container, "ports").iter().enumerate() {
            let (name, place) = (text(port, "name"), format!("{path}.ports[{i}]"));
            match seen.get(name) {
                _ if name.is_empty() => {}
                Some(other) => {
                    let name = quote(name);
                    warnings.push(format!("{place}: duplicate port name {name} with {other}, services and probes that select ports by name will use {other}"));
                }
                None => _ = seen.insert(name, place),
            }
        }
    }
}

fn pod_affinity(warnings: &mut Vec<String>, affinity: &Tree, root: &str) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = format!("{root}.affinity.{kind}");
        let terms = at(affinity, kind);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, _) in list(terms, required).iter().enumerate().filter(|(_, term)| set(term, "labelSelector").is_none()) {
            warnings.push(format!("{path}.{required}[{i}].labelSelector: {NO_SELECTOR}"));
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, _) in list(terms, preferred).iter().enumerate().filter(|(_, t)| set(at(t, "podAffinityTerm"), "labelSelector").is_none()) {
            warnings.push(format!("{path}.{preferred}[{i}].podAffinityTerm.labelSelector: {NO_SELECTOR}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn warned(spec: &str, expected: &[&str]) {
        let spec: Tree = serde_saphyr::from_str(spec).unwrap();
        let mut pod = Tree::object();
        pod.set(&["spec"], spec);
        assert_eq!(pod_warnings(&pod, ""), expected);
    }

    #[test]
    fn what_is_legal_and_rarely_meant_is_said() {
        warned("{containers: [{name: a, env: [{name: A, value: x}, {name: A, value: $(A)y}]}]}", &[]);
        warned(
            "{containers: [{name: a, env: [{name: A}, {name: A, value: b}]}]}",
            &[r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#],
        );
        warned(
            "{initContainers: [{name: i, ports: [{containerPort: 80, name: w}]}], containers: [{name: a, ports: [{containerPort: 80, name: w}]}]}",
            &[
                "spec.containers[0].ports[0]: duplicate port definition with spec.initContainers[0].ports[0]",
                "spec.containers[0].ports[0]: duplicate port name \"w\" with spec.initContainers[0].ports[0], \
                 services and probes that select ports by name will use spec.initContainers[0].ports[0]",
            ],
        );
        warned(
            "{nodeSelector: {beta.kubernetes.io/os: linux}, containers: [{name: a, resources: {limits: {memory: 100m}}}]}",
            &[
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            ],
        );
    }

    #[test]
    fn a_template_is_named_by_its_place() {
        let template: Tree = serde_saphyr::from_str("{spec: {imagePullSecrets: [{name: a}, {name: a}]}}").unwrap();
        assert_eq!(pod_warnings(&template, "spec.template"), [r#"spec.template.spec.imagePullSecrets[1].name: duplicate name "a""#]);
    }
}
