//! The kinds of the core group that have no file of their own.
//!
//! Models pkg/apis/core/validation/validation.go.
use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::check::*;
use super::{affinity, apps, endpoints, meta, pod, resources, service, storage};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::quantity::{Format, Quantity};
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const META: Path<'static> = Path::new("metadata");
const DATA_BYTES_MAX: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    match kind {
        "PodTemplate" => pod::template(errors, at(new, "template"), &Path::new("template")),
        "ReplicationController" => apps::replication_controller(errors, at(new, "spec")),
        "Service" => service::service(errors, new, old),
        "Endpoints" => endpoints::endpoints(errors, new),
        "Node" => node(errors, new, old),
        "Namespace"
            if old.is_none() => {
                namespace_finalizers(errors, new, false);
            }
        "ConfigMap" => config_map(errors, new, old),
        "Secret" => secret(errors, new, old),
        "LimitRange" => limit_range(errors, new),
        "ResourceQuota" => resource_quota(errors, new, old),
        "PersistentVolume" => storage::persistent_volume(errors, new, old),
        "PersistentVolumeClaim" => storage::claim(errors, new, old),
        _ => {}
    }
}

pub(super) fn status(errors: &mut Errors, kind: &str, new: &Tree, old: &Tree) {
    let path = Path::new("status");
    match kind {
        "ReplicationController" => apps::status(errors, kind, new, old),
        "Service" => service::load_balancer_status(errors, new, true),
        "Node" => node(errors, new, Some(old)),
        "Namespace" => {
            let phase = text(at(new, "status"), "phase");
            let (wanted, is) = match set(at(new, "metadata"), "deletionTimestamp") {
                None => ("Active", "empty"),
                Some(_) => ("Terminating", "not empty"),
            };
            if phase != wanted {
                let detail = format!("may only be '{wanted}' if `deletionTimestamp` is {is}");
                errors.push(FieldError::invalid(path.child("Phase"), phase, detail));
            }
        }
        "ResourceQuota" => quota_lists(errors, at(new, "status"), &path, &["hard", "used"]),
        "PersistentVolumeClaim" => {
            let capacity = path.child("capacity");
            for (name, value) in entries(at(new, "status"), "capacity") {
                let value = quantity(value).value();
                if value < 0 {
                    errors.push(FieldError::invalid(capacity.key(name), value, "must be a valid resource quantity"));
                }
            }
        }
        _ => {}
    }
}

fn node(errors: &mut Errors, node: &Tree, old: Option<&Tree>) {
    let (spec, status) = (at(node, "spec"), at(node, "status"));
    // Upstream reports taints below metadata.
    affinity::taints(errors, list(spec, "taints"), &META.child("taints"));
    let status_path = Path::new("status");
    for key in ["capacity", "allocatable"] {
        let path = status_path.child(key);
        for (name, value) in entries(status, key) {
            resources::amount(errors, name, value, &path.child(name));
        }
    }
    let path = SPEC.child("podCIDRs");
    let ranges = strings(spec, "podCIDRs");
    for (i, range) in ranges.iter().enumerate() {
        cidr(errors, range, &path.index(i));
    }
    if ranges.len() > 1 {
        let bad = ranges.iter().enumerate().find(|(_, range)| names::parse_cidr_sloppy(range).is_none());
        if let Some((i, range)) = bad {
            let why = format!("invalid CIDR[{i}]: <nil> (invalid CIDR address: {range})");
            errors.push(FieldError::internal(path, format!("invalid PodCIDRs. failed to check with dual stack with error:{why}")));
        }
        let v6 = ranges.iter().filter(|range| range.contains(':')).count();
        if bad.is_some() || v6 == 0 || v6 == ranges.len() || ranges.len() > 2 {
            let detail = "may specify no more than one CIDR for each IP family";
            errors.push(FieldError::invalid(path, at(spec, "podCIDRs"), detail));
        }
    }
    let Some(old) = old else { return };
    let addresses = list(status, "addresses");
    for ((i, address), _) in addresses.iter().enumerate().zip(repeated(addresses.iter().map(Tree::to_json))).filter(|(_, again)| *again) {
        errors.push(FieldError::duplicate(status_path.child("addresses").index(i), address));
    }
    let old = at(old, "spec");
    let before = strings(old, "podCIDRs");
    if !before.is_empty() && before != ranges {
        errors.push(FieldError::forbidden(path, "node updates may not change podCIDR except from \"\" to valid"));
    }
    if !text(old, "providerID").is_empty() && !same_at(spec, old, "providerID") {
        let detail = if text(spec, "providerID").is_empty() { "field cannot be cleared once set" } else { "field cannot be modified once set" };
        errors.push(FieldError::invalid(SPEC.child("providerID"), &Tree::Null, detail));
    }
    if !same_at(spec, old, "externalID") {
        errors.push(FieldError::forbidden(SPEC.child("externalID"), "may not be updated"));
    }
}

fn namespace_finalizers(errors: &mut Errors, namespace: &Tree, indexed: bool) {
    let all = SPEC.child("finalizers");
    for (i, finalizer) in strings(at(namespace, "spec"), "finalizers").into_iter().enumerate() {
        let path = if indexed { all.index(i) } else { all };
        label_name(errors, finalizer, &path);
        if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path, finalizer, detail));
        }
    }
}

pub(super) fn namespace_finalize(errors: &mut Errors, new: &Tree, old: &Tree) {
    meta::update(errors, new, old);
    namespace_finalizers(errors, new, true);
}

/// The bytes behind a base64 text, without decoding it.
fn decoded_len(text: &str) -> usize {
    (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|b| *b == b'=').count().min(2))
}

fn frozen(errors: &mut Errors, new: &Tree, old: &Tree, keys: &[&str]) {
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errors.push(FieldError::forbidden(Path::new("immutable"), FROZEN));
    }
    for key in keys.iter().filter(|k| !same_at(new, old, k)) {
        errors.push(FieldError::forbidden(Path::new(key), FROZEN));
    }
}

fn config_map(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    if let Some(old) = old {
        frozen(errors, new, old, &["data", "binaryData"]);
    }
    let mut bytes = 0;
    for (key, value) in entries(new, "data") {
        let data = Path::new("data");
        let path = data.key(key);
        invalid(errors, &path, key, names::config_map_key(key));
        if at(new, "binaryData").get(key).is_some() {
            errors.push(FieldError::invalid(path, key, "duplicate of key present in binaryData"));
        }
        bytes += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(new, "binaryData") {
        let data = Path::new("binaryData");
        invalid(errors, &data.key(key), key, names::config_map_key(key));
        bytes += value.as_str().map_or(0, decoded_len);
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long(Path::new(""), DATA_BYTES_MAX));
    }
}

fn secret(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    if let Some(old) = old {
        immutable(errors, at(new, "type"), at(old, "type"), &Path::new("type"));
        frozen(errors, new, old, &["data"]);
    }
    let path = Path::new("data");
    let mut bytes = 0;
    for (key, value) in entries(new, "data") {
        invalid(errors, &path.key(key), key, names::config_map_key(key));
        bytes += value.as_str().map_or(0, decoded_len);
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long(path, DATA_BYTES_MAX));
    }
    let value = |key: &str| at(new, "data").get(key).and_then(Tree::as_str);
    let needs = |errors: &mut Errors, key: &str| errors.push(FieldError::required(path.key(key), ""));
    match text(new, "type") {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            if new.str_at(&["metadata", "annotations", NAME]).is_empty() {
                errors.push(FieldError::required(META.child("annotations").key(NAME), ""));
            }
        }
        kind @ ("kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson") => {
            let key = if kind.ends_with("json") { ".dockerconfigjson" } else { ".dockercfg" };
            match value(key) {
                None => needs(errors, key),
                Some(value) => {
                    let json = STANDARD.decode(value).unwrap_or_default();
                    if let Err(text) = is_json_object(&json) {
                        errors.push(FieldError::invalid(path.key(key), "<secret contents redacted>", text));
                    }
                }
            }
        }
        "kubernetes.io/basic-auth"
            if value("username").is_none() && value("password").is_none() => {
                needs(errors, "username");
                needs(errors, "password");
            }
        "kubernetes.io/ssh-auth"
            if value("ssh-privatekey").unwrap_or("").is_empty() => {
                needs(errors, "ssh-privatekey");
            }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if value(key).is_none() {
                    needs(errors, key);
                }
            }
        }
        _ => {}
    }
}

fn is_json_object(json: &[u8]) -> Result<(), String> {
    if json.is_empty() {
        return Err("unexpected end of JSON input".to_owned());
    }
    match Tree::from_json(json) {
        Ok(Tree::Object(_) | Tree::Null) => Ok(()),
        Ok(other) => {
            let found = match other.type_name() {
                "integer" => "number",
                "boolean" => "bool",
                name => name,
            };
            Err(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"))
        }
        Err(error) if error.is_eof() => Err("unexpected end of JSON input".to_owned()),
        Err(error) => Err(format!("invalid JSON: {error}")),
    }
}

fn limit_range(errors: &mut Errors, limit_range: &Tree) {
    let limits = SPEC.child("limits");
    let mut seen: Seen<&str> = Seen::new();
    for (i, limit) in list(at(limit_range, "spec"), "limits").iter().enumerate() {
        let path = limits.index(i);
        let kind = text(limit, "type");
        let texts = names::qualified_name(kind);
        if texts.is_empty() && !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(path.child("type"), kind, detail));
        }
        invalid(errors, &path.child("type"), kind, texts);
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
        seen.push(kind);
        limit_range_item(errors, limit, kind, &path);
    }
}

fn limit_range_item(errors: &mut Errors, limit: &Tree, kind: &str, path: &Path) {
    let is_pod = kind == "Pod";
    let mut names_seen: Vec<&str> = Vec::new();
    for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let list_path = path.child(key);
        if is_pod && key.starts_with("default") {
            if entries(limit, key).next().is_some() {
                errors.push(FieldError::forbidden(list_path, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        if key == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let has = |key: &str| at(limit, key).get("storage").is_some();
            if !has("min") && !has("max") {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                errors.push(FieldError::required(path.child("limits"), detail));
            }
        }
        for (name, _) in entries(limit, key) {
            match kind {
                "Pod" | "Container" => resources::container_name(errors, name, &list_path.key(name)),
                _ => {
                    resources::name(errors, name, &list_path.key(name));
                }
            }
            names_seen.push(name);
        }
    }
    names_seen.sort_unstable();
    names_seen.dedup();
    for name in names_seen {
        let amount = |key: &str| at(limit, key).get(name).filter(|_| !(is_pod && key.starts_with("default"))).map(quantity);
        let (min, max) = (amount("min"), amount("max"));
        let (default, request) = (amount("default"), amount("defaultRequest"));
        // lower, its name, upper, its name, the field to report, the value to show
        let pairs = [
            (min, "min", max, "max", "min", min),
            (min, "min", request, "default request", "defaultRequest", request),
            (request, "default request", max, "max", "defaultRequest", request),
            (request, "default request", default, "default limit", "defaultRequest", request),
            (min, "min", default, "default", "default", min),
            (default, "default", max, "max", "default", max),
        ];
        for (low, low_name, high, high_name, field, shown) in pairs {
            if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
                && low > high {
                    let detail = format!("{low_name} value {low} is greater than {high_name} value {high}");
                    errors.push(FieldError::invalid(path.child(field).key(name), &shown, detail));
                }
        }
        if let Some(ratio) = amount("maxLimitRequestRatio") {
            let field = path.child("maxLimitRequestRatio");
            if ratio < Quantity::from_whole(1, Format::DecimalSi) {
                errors.push(FieldError::invalid(field.key(name), &ratio, format!("ratio {ratio} is less than 1")));
            }
            if let (Some(min), Some(max)) = (min, max) {
                let bound = max.as_f64() / min.as_f64();
                if ratio.as_f64() > bound {
                    let detail = format!("ratio {ratio} is greater than max/min = {bound:.6}");
                    errors.push(FieldError::invalid(field.key(name), &ratio, detail));
                }
            }
        }
        if let (Some(default), Some(request)) = (default, request)
            && !resources::is_overcommit_allowed(name) && default != request {
                let detail = format!("default value {default} must equal to defaultRequest value {request} in {name}");
                errors.push(FieldError::invalid(path.child("defaultRequest").key(name), &request, detail));
            }
    }
}

fn quota_lists(errors: &mut Errors, holder: &Tree, path: &Path, keys: &[&str]) {
    for key in keys {
        let list_path = path.child(key);
        for (name, value) in entries(holder, key) {
            let path = list_path.key(name);
            resources::quota_name(errors, name, &path);
            resources::amount(errors, name, value, &path);
        }
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn scope_fits(scope: &str, resource: &str) -> bool {
    let compute = matches!(resource, "pods" | "cpu" | "memory" | "ephemeral-storage" | "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory" | "requests.ephemeral-storage" | "limits.ephemeral-storage");
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => compute || !SCOPES.contains(&scope),
    }
}

/// What is wrong with the scopes of a quota is said for each of them, or for each with each resource; upstream goes on for as long as it takes.
const SCOPES_SHOWN_BYTES_MAX: usize = 1 << 20;

fn resource_quota(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    quota_lists(errors, spec, &SPEC, &["hard"]);
    let scopes = strings(spec, "scopes");
    let path = SPEC.child("scopes");
    let hard: Vec<&str> = entries(spec, "hard").map(|(name, _)| name).collect();
    let wrong = scopes.iter().flat_map(|scope| {
        let unsupported = (!SCOPES.contains(scope)).then_some("unsupported scope");
        let unfit = hard.iter().filter(move |r| resources::is_quota_resource(r) && !scope_fits(scope, r));
        unsupported.into_iter().chain(unfit.map(|_| "unsupported scope applied to resource"))
    });
    // Each shows all scopes.
    let most = |shown: &str| SCOPES_SHOWN_BYTES_MAX / at(spec, shown).to_json().len().max(1) + 1;
    for detail in wrong.take(most("scopes")) {
        errors.push(FieldError::invalid(path, at(spec, "scopes"), detail));
    }
    for (a, b) in [("BestEffort", "NotBestEffort"), ("NotTerminating", "Terminating")] {
        if scopes.contains(&a) && scopes.contains(&b) {
            errors.push(FieldError::invalid(path, at(spec, "scopes"), "conflicting scopes"));
        }
    }
    let selector = SPEC.child("scopeSelector");
    let expressions = selector.child("matchExpressions");
    let mut most = most("scopeSelector");
    for requirement in spec.array_at(&["scopeSelector", "matchExpressions"]) {
        let (scope, operator) = (text(requirement, "scopeName"), text(requirement, "operator"));
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(expressions.child("scopeName"), scope, "unsupported scope"));
        }
        let unfit = hard.iter().filter(|resource| resources::is_quota_resource(resource) && !scope_fits(scope, resource)).count().min(most);
        most -= unfit;
        for _ in 0..unfit {
            errors.push(FieldError::invalid(expressions, at(spec, "scopeSelector"), "unsupported scope applied to resource"));
        }
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && SCOPES.contains(&scope) && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(expressions.child("operator"), operator, detail));
        }
        let is_empty = list(requirement, "values").is_empty();
        match operator {
            "In" | "NotIn" if is_empty => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(expressions.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !is_empty => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(expressions.child("values"), at(requirement, "values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(expressions.child("operator"), other, "not a valid selector operator")),
        }
    }
    if let Some(old) = old {
        let before: BTreeSet<&str> = strings(at(old, "spec"), "scopes").into_iter().collect();
        if before != scopes.into_iter().collect() {
            errors.push(FieldError::invalid(path, at(spec, "scopes"), IMMUTABLE));
        }
    }
}
