//! Security contexts of pods and containers.
//!
//! Models pkg/apis/core/validation/validation.go `validatePodSpecSecurityContext`, `ValidateSecurityContext` and what they call.
//! Left out: the fields of Windows, which no node of this cluster runs.
use super::check::*;
use super::volume::descending_path;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

fn user_or_group(errors: &mut Errors, context: &Tree, key: &str, path: &Path) {
    if let Some(id) = int(context, key) {
        errors.extend(names::user_or_group_id(id).into_iter().map(|t| FieldError::invalid(path.child(key), id, t)));
    }
}

/// `spec.securityContext`
pub(super) fn pod(errors: &mut Errors, context: &Tree, spec: &Tree, path: &Path) {
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        user_or_group(errors, context, key, path);
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in list(context, "supplementalGroups").iter().filter_map(Tree::as_i64).enumerate() {
        let path = groups.index(i);
        errors.extend(names::user_or_group_id(group).into_iter().map(|t| FieldError::invalid(path, group, t)));
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(path.child("shareProcessNamespace"), true, detail));
    }
    sysctls(errors, context, spec, &path.child("sysctls"));
    if let Some(policy) = set(context, "fsGroupChangePolicy") {
        supported(errors, policy.as_str().unwrap_or(""), &["Always", "OnRootMismatch"], &path.child("fsGroupChangePolicy"));
    }
    seccomp(errors, context, path);
    app_armor(errors, context, path);
    if let Some(policy) = set(context, "supplementalGroupsPolicy") {
        supported(errors, policy.as_str().unwrap_or(""), &["Merge", "Strict"], &path.child("supplementalGroupsPolicy"));
    }
    if let Some(policy) = set(context, "seLinuxChangePolicy") {
        supported(errors, policy.as_str().unwrap_or(""), &["MountOption", "Recursive"], &path.child("seLinuxChangePolicy"));
    }
}

/// `securityContext` of a container.
pub(super) fn container(errors: &mut Errors, context: &Tree, host_users: bool, path: &Path) {
    for key in ["runAsUser", "runAsGroup"] {
        user_or_group(errors, context, key, path);
    }
    if let Some(mount) = set(context, "procMount") {
        let mount = mount.as_str().unwrap_or("");
        supported(errors, mount, &["Default", "Unmasked"], &path.child("procMount"));
        if host_users && mount == "Unmasked" {
            errors.push(FieldError::invalid(path.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    seccomp(errors, context, path);
    if at(context, "allowPrivilegeEscalation").as_bool() == Some(false) {
        if flag(context, "privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, context, detail));
        }
        if context.array_at(&["capabilities", "add"]).iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, context, detail));
        }
    }
    app_armor(errors, context, path);
}

fn seccomp(errors: &mut Errors, context: &Tree, path: &Path) {
    let Some(profile) = set(context, "seccompProfile") else { return };
    let path = path.child("seccompProfile");
    let kind = text(profile, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "type is required when seccompProfile is set"));
    } else {
        supported(errors, kind, &["Localhost", "RuntimeDefault", "Unconfined"], &path.child("type"));
    }
    let file_path = path.child("localhostProfile");
    match (kind, set(profile, "localhostProfile")) {
        ("Localhost", None) => errors.push(FieldError::required(file_path, "must be set when seccomp type is Localhost")),
        ("Localhost", Some(file)) => descending_path(errors, file.as_str().unwrap_or(""), &file_path),
        (_, Some(_)) => {
            errors.push(FieldError::invalid(file_path, profile, "can only be set when seccomp type is Localhost"));
        }
        (_, None) => {}
    }
}

pub(super) fn app_armor(errors: &mut Errors, context: &Tree, path: &Path) {
    const LENGTH_MAX: usize = 4095;
    let Some(profile) = set(context, "appArmorProfile") else { return };
    let path = path.child("appArmorProfile");
    let name_path = path.child("localhostProfile");
    let name = set(profile, "localhostProfile").map(|n| n.as_str().unwrap_or(""));
    match text(profile, "type") {
        "Localhost" => match name {
            None | Some("") => errors.push(FieldError::required(name_path, "must be set when AppArmor type is Localhost")),
            Some(name) if name.trim() != name => {
                errors.push(FieldError::invalid(name_path, name, "must not be padded with whitespace"));
            }
            Some(name) if name.len() > LENGTH_MAX => errors.push(FieldError::too_long(name_path, LENGTH_MAX)),
            Some(_) => {}
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = name {
                errors.push(FieldError::invalid(name_path, name, "can only be set when AppArmor type is Localhost"));
            }
        }
        "" => errors.push(FieldError::required(path.child("type"), "type is required when appArmorProfile is set")),
        other => {
            let types = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(FieldError::not_supported(path.child("type"), other, &types));
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_segment = |s: &str| match s.as_bytes() {
        [] => false,
        bytes => {
            alnum(bytes[0])
                && alnum(bytes[bytes.len() - 1])
                && bytes.iter().all(|b| alnum(*b) || *b == b'-' || *b == b'_')
        }
    };
    name.len() <= 253 && name.split(['.', '/']).all(is_segment)
}

fn sysctls(errors: &mut Errors, context: &Tree, spec: &Tree, path: &Path) {
    const SEGMENT: &str = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    let mut seen: Seen<&str> = Seen::new();
    for (i, sysctl) in list(context, "sysctls").iter().enumerate() {
        let item = path.index(i);
        let (path, name) = (item.child("name"), text(sysctl, "name"));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !is_sysctl_name(name) {
            let detail = format!("must have at most 253 characters and match regex ^({SEGMENT}[\\./])*{SEGMENT}$");
            errors.push(FieldError::invalid(path, name, detail));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(path, name));
        }
        let dotted = name.replace('/', ".");
        let is_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p)) || dotted == "kernel.sem";
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(path, name, "may not be specified when 'hostNetwork' is true"));
        } else if flag(spec, "hostIPC") && is_ipc {
            errors.push(FieldError::invalid(path, name, "may not be specified when 'hostIPC' is true"));
        }
        seen.push(name);
    }
}
