//! Probes, hooks and resize policies of containers.
//!
//! Models pkg/apis/core/validation/validation.go `validateProbe`, `validateHandler`, `validateResizePolicy`.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

pub(super) fn resize_policy(errors: &mut Errors, container: &Tree, pod_restart_policy: &str, path: &Path) {
    let mut seen: Seen<&str> = Seen::new();
    for (i, policy) in list(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if seen.contains(&resource) {
            errors.push(FieldError::duplicate(path.index(i), resource));
        }
        seen.push(resource);
        one_of(errors, resource, &["cpu", "memory"], path);
        one_of(errors, restart, &["NotRequired", "RestartContainer"], path);
        if pod_restart_policy == "Never" && restart != "NotRequired" {
            errors.push(FieldError::invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'"));
        }
    }
}

pub(super) fn probe(errors: &mut Errors, probe: &Tree, name: &str, grace_seconds: Option<i64>, path: &Path) {
    handler(errors, probe, grace_seconds, path);
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(errors, int(probe, key), &path.child(key));
    }
    let grace = int(probe, "terminationGracePeriodSeconds");
    let grace_path = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = grace.filter(|s| *s <= 0) {
        errors.push(FieldError::invalid(grace_path, seconds, "must be greater than 0"));
    }
    if name == "readinessProbe" {
        if let Some(seconds) = grace {
            errors.push(FieldError::invalid(grace_path, seconds, "must not be set for readinessProbes"));
        }
    } else {
        let threshold = int(probe, "successThreshold").unwrap_or(0);
        if threshold != 1 {
            errors.push(FieldError::invalid(path.child("successThreshold"), threshold, "must be 1"));
        }
    }
}

pub(super) fn handler(errors: &mut Errors, handler: &Tree, grace_seconds: Option<i64>, path: &Path) {
    let mut found = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = set(handler, kind) else { continue };
        let path = path.child(kind);
        if found {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match kind {
            "exec" => {
                if list(action, "command").is_empty() {
                    errors.push(FieldError::required(path.child("command"), ""));
                }
            }
            "httpGet" => {
                require(errors, action, "path", &path);
                port_number_or_name(errors, at(action, "port"), &path.child("port"));
                supported(errors, text(action, "scheme"), &["HTTP", "HTTPS"], &path.child("scheme"));
                for header in list(action, "httpHeaders") {
                    let name = text(header, "name");
                    invalid(errors, &path.child("httpHeaders"), name, names::http_header_name(name));
                }
            }
            "sleep" => {
                let seconds = int(action, "seconds").unwrap_or(0);
                if let Some(grace) = grace_seconds.filter(|g| seconds < 0 || seconds > *g) {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.push(FieldError::invalid(path, seconds, detail));
                }
            }
            _ => port_number_or_name(errors, at(action, "port"), &path.child("port")),
        }
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}
