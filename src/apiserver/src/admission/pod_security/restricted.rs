//! The level `restricted`: current hardening practice.
//!
//! Models k8s.io/pod-security-admission/policy/check_*.go, in the order of the checks' ids.
use std::collections::BTreeSet;

use api::tree::Tree;

use super::{Violation, baseline, containers, name, named, plural, quote, setters, setting};

const VOLUMES: &[&str] =
    &["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "image"];

pub fn check(pod: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    // Windows has neither.
    if pod.str_at(&["spec", "os", "name"]) != "windows" {
        found.extend(privilege_escalation(pod));
        found.extend(capabilities(pod));
    }
    found.extend(volumes(pod));
    // In a user namespace of its own root is nobody outside.
    if pod.at(&["spec", "hostUsers"]).and_then(Tree::as_bool) != Some(false) {
        found.extend(non_root(pod));
        found.extend(root_user(pod));
    }
    if pod.str_at(&["spec", "os", "name"]) != "windows" {
        found.extend(seccomp(pod));
    }
    found
}

fn privilege_escalation(pod: &Tree) -> Option<Violation> {
    let allows = |container: &&Tree| {
        container.at(&["securityContext", "allowPrivilegeEscalation"]).and_then(Tree::as_bool) != Some(false)
    };
    let bad: Vec<&str> = containers(pod).filter(allows).map(name).collect();
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
        Violation::new("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(pod: &Tree) -> Option<Violation> {
    let (mut keeping, mut adding, mut added) = (Vec::new(), Vec::new(), BTreeSet::new());
    for container in containers(pod) {
        let list = |which: &str| {
            container.array_at(&["securityContext", "capabilities", which]).iter().filter_map(Tree::as_str).collect::<Vec<_>>()
        };
        if !list("drop").contains(&"ALL") {
            keeping.push(name(container));
        }
        let extra: Vec<&str> = list("add").into_iter().filter(|capability| *capability != "NET_BIND_SERVICE").collect();
        if !extra.is_empty() {
            adding.push(name(container));
            added.extend(extra);
        }
    }
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        let added: Vec<&str> = added.into_iter().collect();
        details.push(format!("{} must not include {} in securityContext.capabilities.add", named(&adding), quote(&added)));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

fn volumes(pod: &Tree) -> Option<Violation> {
    let (mut bad, mut types) = (Vec::new(), BTreeSet::new());
    for volume in pod.array_at(&["spec", "volumes"]) {
        let Some(fields) = volume.as_object() else { continue };
        let kinds = fields.keys().filter(|key| *key != "name");
        let kinds: Vec<&str> = kinds.filter(|kind| !VOLUMES.contains(kind)).collect();
        if !kinds.is_empty() {
            bad.push(name(volume));
            types.extend(kinds);
        }
    }
    let types: Vec<&str> = types.into_iter().collect();
    (!bad.is_empty()).then(|| {
        let detail = format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", bad.len()),
            quote(&bad),
            plural("uses", "use", bad.len()),
            plural("restricted volume type", "restricted volume types", types.len()),
            quote(&types)
        );
        Violation::new("restricted volume types", detail)
    })
}

fn non_root(pod: &Tree) -> Option<Violation> {
    let found = setting(pod, &["runAsNonRoot"], |value| value.as_bool() == Some(true));
    let detail = if found.pod_bad || !found.bad.is_empty() {
        format!("{} must not set securityContext.runAsNonRoot=false", setters(found.pod_bad, &found.bad))
    } else if !found.missing.is_empty() {
        format!("pod or {} must set securityContext.runAsNonRoot=true", named(&found.missing))
    } else {
        return None;
    };
    Some(Violation::new("runAsNonRoot != true", detail))
}

fn root_user(pod: &Tree) -> Option<Violation> {
    let found = setting(pod, &["runAsUser"], |value| value.as_i64() != Some(0));
    if !found.pod_bad && found.bad.is_empty() {
        return None;
    }
    Some(Violation::new("runAsUser=0", format!("{} must not set runAsUser=0", setters(found.pod_bad, &found.bad))))
}

fn seccomp(pod: &Tree) -> Option<Violation> {
    if let Some(explicit) = baseline::seccomp(pod) {
        return Some(explicit);
    }
    let found = setting(pod, &["seccompProfile", "type"], baseline::is_good_seccomp);
    (!found.missing.is_empty()).then(|| {
        let who = named(&found.missing);
        let detail = format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
        Violation::new("seccompProfile", detail)
    })
}
