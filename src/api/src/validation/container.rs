//! Containers of every sort: names, images, ports, environment, mounts, probes and hooks.
//!
//! Models pkg/apis/core/validation/validation.go `validateContainers`, `validateInitContainers`, `validateEphemeralContainers`,
//! `validateContainerCommon` and what they call.
use super::check::*;
use super::pod::PodContext;
use super::volume::{descending_path, no_backsteps};
use super::probe::{handler, probe, resize_policy};
use super::{resources, security};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const INIT_ONLY: &str = "may not be set for init containers without restartPolicy=Always";
const EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// `spec.containers`
pub(super) fn regular(errors: &mut Errors, cx: &PodContext, path: &Path) {
    let containers = list(cx.spec, "containers");
    if containers.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let mut names_seen: Seen<&str> = Seen::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(errors, cx, container, &path);
        let name = text(container, "name");
        if names_seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        } else {
            names_seen.push(name);
        }
        service_fields(errors, cx, container, &path);
        restart_policy(errors, container, &path);
    }
    host_port_conflicts(errors, containers, path);
}

/// `spec.initContainers`
pub(super) fn init(errors: &mut Errors, cx: &PodContext, path: &Path) {
    let mut names_seen: Seen<&str> = list(cx.spec, "containers").iter().map(|c| text(c, "name")).collect();
    for (i, container) in list(cx.spec, "initContainers").iter().enumerate() {
        let item = path.index(i);
        common(errors, cx, container, &item);
        // Rules are looked at where there is a policy that they could change.
        if set(container, "restartPolicy").is_some() {
            restart_policy(errors, container, &item);
        } else if !list(container, "restartPolicyRules").is_empty() {
            errors.push(FieldError::required(item.child("restartPolicy"), RULES_WITHOUT_POLICY));
        }
        let name = text(container, "name");
        if names_seen.contains(&name) {
            errors.push(FieldError::duplicate(item.child("name"), name));
        } else if !name.is_empty() {
            names_seen.push(name);
        }
        // They run one by one, so ports conflict within one only.
        host_port_conflicts(errors, std::slice::from_ref(container), path);
        if text(container, "restartPolicy") == "Always" {
            service_fields(errors, cx, container, &item);
        } else {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if set(container, key).is_some() {
                    errors.push(FieldError::forbidden(item.child(key), INIT_ONLY));
                }
            }
        }
    }
}

/// `spec.ephemeralContainers`
pub(super) fn ephemeral(errors: &mut Errors, cx: &PodContext, path: &Path) {
    let others: Seen<&str> =
        ["containers", "initContainers"].iter().flat_map(|l| list(cx.spec, l)).map(|c| text(c, "name")).collect();
    let mut names_seen = others.clone();
    for (i, container) in list(cx.spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        common(errors, cx, container, &path);
        image_space(errors, container, &path);
        let name = text(container, "name");
        if names_seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        } else {
            names_seen.push(name);
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            errors.push(FieldError::not_found(path.child("targetContainerName"), target));
        }
        let refused = ["ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"];
        for key in refused {
            // A pointer to nothing is something, a list of nothing is not.
            let is_given = set(container, key).is_some_and(|value| !matches!(value, Tree::Array(items) if items.is_empty()));
            if is_given && (key != "resources" || !same(at(container, key), &Tree::Null)) {
                errors.push(FieldError::forbidden(path.child(key), EPHEMERAL));
            }
        }
        let mounts = path.child("volumeMounts");
        for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !text(mount, key).is_empty() {
                    errors.push(FieldError::forbidden(mounts.index(i).child(key), EPHEMERAL));
                }
            }
        }
    }
}

/// Only pods refuse it, templates do not: some put a space there to mean "fill in later".
pub(super) fn image_space(errors: &mut Errors, container: &Tree, path: &Path) {
    let image = text(container, "image");
    if image.trim() != image {
        errors.push(FieldError::invalid(path.child("image"), image, "must not have leading or trailing whitespace"));
    }
}

fn common(errors: &mut Errors, cx: &PodContext, container: &Tree, path: &Path) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else {
        dns_label(errors, name, &path.child("name"));
    }
    require(errors, container, "image", path);
    let policies = ["File", "FallbackToLogsOnError"];
    one_of(errors, text(container, "terminationMessagePolicy"), &policies, &path.child("terminationMessagePolicy"));
    ports(errors, list(container, "ports"), &path.child("ports"));
    environment(errors, list(container, "env"), &path.child("env"));
    environment_from(errors, list(container, "envFrom"), &path.child("envFrom"));
    mounts(errors, cx, container, &path.child("volumeMounts"));
    devices(errors, cx, container, &path.child("volumeDevices"));
    one_of(errors, text(container, "imagePullPolicy"), &["Always", "IfNotPresent", "Never"], &path.child("imagePullPolicy"));
    resources::container(errors, at(container, "resources"), &cx.claims, &path.child("resources"));
    resize_policy(errors, container, text(cx.spec, "restartPolicy"), &path.child("resizePolicy"));
    if let Some(context) = set(container, "securityContext") {
        security::container(errors, context, cx.host_users, &path.child("securityContext"));
    }
}

/// What only containers have that run as long as the pod does.
fn service_fields(errors: &mut Errors, cx: &PodContext, container: &Tree, path: &Path) {
    if let Some(lifecycle) = set(container, "lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            if let Some(hook_) = set(lifecycle, hook) {
                handler(errors, hook_, cx.grace_seconds, &path.child(hook));
            }
        }
        if set(lifecycle, "stopSignal").is_some() && cx.spec.str_at(&["os", "name"]).is_empty() {
            errors.push(FieldError::forbidden(path.child("stopSignal"), "may not be set for containers with empty `spec.os.name`"));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe_) = set(container, name) {
            probe(errors, probe_, name, cx.grace_seconds, &path.child(name));
        }
    }
}

const RULES_WITHOUT_POLICY: &str = "must specify restartPolicy when restart rules are used";

fn restart_policy(errors: &mut Errors, container: &Tree, path: &Path) {
    let rules = list(container, "restartPolicyRules");
    if let Some(policy) = set(container, "restartPolicy") {
        let policy = policy.as_str().unwrap_or("");
        supported(errors, policy, &["Always", "Never", "OnFailure"], &path.child("restartPolicy"));
    } else if !rules.is_empty() {
        errors.push(FieldError::required(path.child("restartPolicy"), RULES_WITHOUT_POLICY));
    }
    let rules_path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(FieldError::too_many(rules_path, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = rules_path.index(i);
        supported(errors, text(rule, "action"), &["Restart", "RestartAllContainers"], &path.child("action"));
        match set(rule, "exitCodes") {
            None => errors.push(FieldError::required(path.child("exitCodes"), "must be specified")),
            Some(codes) => {
                let path = path.child("exitCodes");
                supported(errors, text(codes, "operator"), &["In", "NotIn"], &path.child("operator"));
                let values = list(codes, "values").len();
                if values > 255 {
                    errors.push(FieldError::too_many(path.child("values"), values, 255));
                }
            }
        }
    }
}

fn ports(errors: &mut Errors, ports: &[Tree], path: &Path) {
    let mut names_seen: Seen<&str> = Seen::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let texts = names::port_name(name);
            if !texts.is_empty() {
                invalid(errors, &path.child("name"), name, texts);
            } else if names_seen.contains(&name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            } else {
                names_seen.push(name);
            }
        }
        match int(port, "containerPort").unwrap_or(0) {
            0 => errors.push(FieldError::required(path.child("containerPort"), "")),
            number => port_number(errors, number, &path.child("containerPort")),
        }
        if let Some(number) = int(port, "hostPort").filter(|n| *n != 0) {
            port_number(errors, number, &path.child("hostPort"));
        }
        one_of(errors, text(port, "protocol"), PROTOCOLS, &path.child("protocol"));
    }
}

fn host_port_conflicts(errors: &mut Errors, containers: &[Tree], path: &Path) {
    let mut seen: Seen<String> = Seen::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = int(port, "hostPort").filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(path.index(i).child("ports").index(j).child("hostPort"), key));
            } else {
                seen.push(key);
            }
        }
    }
}

fn environment(errors: &mut Errors, variables: &[Tree], path: &Path) {
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            invalid(errors, &path.child("name"), name, names::env_var_name(name));
        }
        let Some(source) = set(variable, "valueFrom") else { continue };
        let path = path.child("valueFrom");
        let mut count = 0;
        if let Some(field) = set(source, "fieldRef") {
            count += 1;
            object_field(errors, field, ENV_FIELDS, &path.child("fieldRef"));
        }
        if let Some(field) = set(source, "resourceFieldRef") {
            count += 1;
            resource_field(errors, field, false, &path.child("resourceFieldRef"));
        }
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            let Some(selector) = set(source, kind) else { continue };
            count += 1;
            let path = path.child(kind);
            dns_subdomain(errors, text(selector, "name"), &path.child("name"));
            let key = text(selector, "key");
            if key.is_empty() {
                errors.push(FieldError::required(path.child("key"), ""));
            } else {
                invalid(errors, &path.child("key"), key, names::config_map_key(key));
            }
        }
        if let Some(file) = set(source, "fileKeyRef") {
            count += 1;
            let path = path.child("fileKeyRef");
            ["volumeName", "path", "key"].iter().for_each(|key| require(errors, file, key, &path));
            descending_path(errors, text(file, "path"), &path.child("path"));
        }
        let detail = match count {
            0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            _ if !text(variable, "value").is_empty() => "may not be specified when `value` is not empty",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(path, "", detail));
    }
}

fn environment_from(errors: &mut Errors, sources: &[Tree], path: &Path) {
    for (i, source) in sources.iter().enumerate() {
        let path_ = path.index(i);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            invalid(errors, &path_.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            let Some(reference) = set(source, kind) else { continue };
            count += 1;
            let name_path = path_.child(kind);
            match text(reference, "name") {
                "" => errors.push(FieldError::required(name_path.child("name"), "")),
                name => invalid(
                    errors,
                    &name_path.child("name"),
                    name,
                    names::dns1123_subdomain(&names::mask_trailing_dash(name)),
                ),
            }
        }
        match count {
            0 => errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
        }
    }
}

/// Models `validateObjectFieldSelector`.
pub(super) fn object_field(errors: &mut Errors, field: &Tree, expressions: &[&str], path: &Path) {
    let (version, target) = (text(field, "apiVersion"), text(field, "fieldPath"));
    for (key, value) in [("apiVersion", version), ("fieldPath", target)] {
        if value.is_empty() {
            errors.push(FieldError::required(path.child(key), ""));
            return;
        }
    }
    if version != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.push(FieldError::invalid(path.child("fieldPath"), target, detail));
        return;
    }
    let (base, subscript) = match target.strip_suffix("']").and_then(|t| t.split_once("['")) {
        Some((base, subscript)) => (base, Some(subscript)),
        None => (target, None),
    };
    let known = match subscript {
        Some(_) => matches!(base, "metadata.annotations" | "metadata.labels"),
        None => {
            ENV_FIELDS.contains(&base)
                || matches!(base, "metadata.annotations" | "metadata.labels" | "spec.restartPolicy" | "spec.schedulerName" | "status.phase")
        }
    };
    if !known {
        let detail = format!("error converting fieldPath: field label not supported: {target}");
        errors.push(FieldError::invalid(path.child("fieldPath"), target, detail));
        return;
    }
    match (base, subscript) {
        ("metadata.annotations", Some(key)) => {
            let key = key.to_lowercase();
            label_name(errors, &key, path);
        }
        (_, Some(key)) => label_name(errors, key, path),
        (_, None) => supported(errors, base, expressions, &path.child("fieldPath")),
    }
}

/// Models `validateContainerResourceFieldSelector`.
pub(super) fn resource_field(errors: &mut Errors, field: &Tree, is_volume: bool, path: &Path) {
    let resource = text(field, "resource");
    let is_huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if is_volume && text(field, "containerName").is_empty() {
        errors.push(FieldError::required(path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(path.child("resource"), ""));
    } else if !is_huge {
        supported(errors, resource, RESOURCE_FIELDS, &path.child("resource"));
    }
    let divisor = quantity(at(field, "divisor"));
    if divisor.is_zero() {
        return;
    }
    let divisor = divisor.to_string();
    let of_cpu = ["1m", "1"];
    let of_bytes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (allowed, name): (&[&str], &str) = match resource.split_once('.').map_or("", |(_, r)| r) {
        "cpu" => (&of_cpu, "cpu"),
        "memory" => (&of_bytes, "memory"),
        "ephemeral-storage" => (&of_bytes, "local ephemeral storage"),
        _ if is_huge => (&of_bytes, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor.as_str()) {
        let values = if name == "cpu" { "1m and 1".to_owned() } else { of_bytes.join(", ") };
        let detail = format!("only divisor's values {values} are supported with the {name} resource");
        errors.push(FieldError::invalid(path.child("divisor"), resource, detail));
    }
}

fn mounts(errors: &mut Errors, cx: &PodContext, container: &Tree, all: &Path) {
    let devices = list(container, "volumeDevices");
    let device_names: Seen<&str> = devices.iter().map(|d| text(d, "name")).collect();
    let device_paths: Seen<&str> = devices.iter().map(|d| text(d, "devicePath")).collect();
    let mut paths: Seen<&str> = Seen::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = all.index(i);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        require(errors, mount, "name", &path);
        let volume = cx.volumes.get(name);
        if volume.is_none() {
            errors.push(FieldError::not_found(path.child("name"), name));
        }
        require(errors, mount, "mountPath", &path);
        if paths.contains(&target) {
            errors.push(FieldError::invalid(path.child("mountPath"), target, "must be unique"));
        }
        paths.push(target);
        if device_names.contains(&name) {
            errors.push(FieldError::invalid(path.child("name"), name, "must not already exist in volumeDevices"));
        }
        if device_paths.contains(&target) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(path.child("mountPath"), target, detail));
        }
        // Upstream reports sub-paths and propagation at the list, not at the mount.
        let (sub_path, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub_path.is_empty() {
            descending_path(errors, sub_path, &all.child("subPath"));
        }
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(path.child("subPathExpr"), expression, detail));
            }
            descending_path(errors, expression, &all.child("subPathExpr"));
        }
        propagation(errors, container, mount, all);
    }
}

fn propagation(errors: &mut Errors, container: &Tree, mount: &Tree, all: &Path) {
    let mode = text(mount, "mountPropagation");
    if set(mount, "mountPropagation").is_some() {
        let path = all.child("mountPropagation");
        supported(errors, mode, &["Bidirectional", "HostToContainer", "None"], &path);
        let privileged = set(container, "securityContext").is_some_and(|c| flag(c, "privileged"));
        if mode == "Bidirectional" && !privileged {
            errors.push(FieldError::forbidden(path, "Bidirectional mount propagation is available only to privileged containers"));
        }
    }
    let path = all.child("recursiveReadOnly");
    let Some(recursive) = set(mount, "recursiveReadOnly") else { return };
    match recursive.as_str().unwrap_or("") {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !flag(mount, "readOnly") {
                errors.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
            }
            if !matches!(mode, "" | "None") {
                errors.push(FieldError::forbidden(path, "may only be specified when mountPropagation is None or not specified"));
            }
        }
        other => errors.push(FieldError::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

fn devices(errors: &mut Errors, cx: &PodContext, container: &Tree, all: &Path) {
    let mounts = list(container, "volumeMounts");
    let mount_names: Seen<&str> = mounts.iter().map(|m| text(m, "name")).collect();
    let mount_paths: Seen<&str> = mounts.iter().map(|m| text(m, "mountPath")).collect();
    let (mut names_seen, mut paths): (Seen<&str>, Seen<&str>) = (Seen::new(), Seen::new());
    for (i, device) in list(container, "volumeDevices").iter().enumerate() {
        let path = all.index(i);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        require(errors, device, "name", &path);
        if names_seen.contains(&name) {
            errors.push(FieldError::invalid(path.child("name"), name, "must be unique"));
        }
        match cx.volumes.get(name) {
            None => errors.push(FieldError::not_found(path.child("name"), name)),
            Some(volume) if set(volume, "persistentVolumeClaim").or(set(volume, "ephemeral")).is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(path.child("name"), name, detail));
            }
            Some(_) => {}
        }
        require(errors, device, "devicePath", &path);
        if paths.contains(&target) {
            errors.push(FieldError::invalid(path.child("devicePath"), target, "must be unique"));
        }
        let mut backsteps = Errors::new();
        no_backsteps(&mut backsteps, target, &path);
        if backsteps.is_empty() {
            paths.push(target);
        } else {
            errors.push(FieldError::invalid(path.child("devicePath"), target, "can not contain backsteps ('..')"));
        }
        if mount_names.contains(&name) {
            errors.push(FieldError::invalid(path.child("name"), name, "must not already exist in volumeMounts"));
        }
        if mount_paths.contains(&target) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(path.child("devicePath"), target, detail));
        }
        names_seen.push(name);
    }
}
