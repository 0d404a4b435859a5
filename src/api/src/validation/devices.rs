//! Devices and claims to them: the objects of `resource.k8s.io`.
//!
//! Models pkg/apis/resource/validation/validation.go and, where the types declare a check themselves, what
//! pkg/apis/resource/v1/zz_generated.validations.go makes of it: of two findings about one field only the declared one is answered. The
//! functions named `declared_..` are those; an update of what is immutable as a whole is not looked into.
mod capacity;
mod claim;
mod claim_status;
mod slice;

use std::hash::Hash;

use super::check::*;
use super::meta::NameRule;
use super::{conditions, meta, volume};
use crate::admission::Age;
use crate::devices::{COST_MAX, Refused, compile_selector, cost};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const LIST_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const OPAQUE_BYTES_MAX: usize = 10 * 1024;
const POOL_BYTES_MAX: usize = 253;
const DRIVER_CHARS_MAX: usize = 63;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Most kinds are asked for all of it when they are updated, too.
pub(super) fn metadata(errors: &mut Errors, kind: &str, namespaced: bool, new: &Tree, old: Option<&Tree>) {
    match kind {
        // Its type declares what it is called.
        "DeviceClass" => meta::create_with(errors, new, namespaced, &|name, _| names::long_name(name)),
        "ResourceSlice" | "DeviceTaintRule" if old.is_some() => {}
        _ => meta::create(errors, new, namespaced, NameRule::DnsSubdomain),
    }
    if let Some(old) = old {
        meta::update(errors, new, old);
    }
}

pub(super) fn check(errors: &mut Errors, kind: &str, new: &Tree, old: Option<&Tree>) {
    let spec = at(new, "spec");
    match (kind, old) {
        ("DeviceClass", _) => class(errors, spec, old.map(|old| at(old, "spec"))),
        ("DeviceTaintRule", _) => taint_rule(errors, spec),
        ("ResourceClaim", None) => claim::spec(errors, spec, &SPEC),
        ("ResourceClaim", Some(old)) => declared_immutable(errors, new, old, "spec"),
        ("ResourceClaimTemplate", _) => {
            meta::of_template(errors, at(spec, "metadata"), &SPEC.child("metadata"));
            claim::spec(errors, at(spec, "spec"), &SPEC.child("spec"));
            if let Some(old) = old {
                immutable(errors, spec, at(old, "spec"), &SPEC);
            }
        }
        ("ResourceSlice", _) => slice::spec(errors, spec, old.map(|old| at(old, "spec"))),
        _ => {}
    }
}

pub(super) fn status(errors: &mut Errors, kind: &str, new: &Tree, old: &Tree) {
    match kind {
        "ResourceClaim" => claim_status::check(errors, new, old),
        "DeviceTaintRule" => {
            let (found, path) = (list(at(new, "status"), "conditions"), Path::new("status"));
            let path = path.child("conditions");
            conditions::check(errors, found, &path);
            if found.len() > 8 {
                errors.push(FieldError::too_many(path, found.len(), 8));
            }
        }
        _ => {}
    }
}

/// The items of a list, none of one that is too long: those are not looked at.
fn bounded<'t>(errors: &mut Errors, tree: &'t Tree, key: &str, most: usize, path: &Path) -> &'t [Tree] {
    let items = list(tree, key);
    if items.len() <= most {
        return items;
    }
    errors.push(FieldError::too_many(path, items.len(), most));
    &[]
}

/// Items that say the same as one before; shown whole.
fn declared_unique<K: Eq + Hash>(errors: &mut Errors, items: &[Tree], key: impl Fn(&Tree) -> K, path: &Path) {
    for (i, _) in repeated(items.iter().map(key)).into_iter().enumerate().filter(|(_, again)| *again) {
        errors.push(FieldError::duplicate(path.index(i), &items[i]));
    }
}

fn class(errors: &mut Errors, spec: &Tree, old: Option<&Tree>) {
    // What stays as it was compiled once.
    let is_kept = |key| old.is_some_and(|old| same_at(spec, old, key));
    selectors(errors, spec, is_kept("selectors"), &SPEC);
    let path = SPEC.child("config");
    for (i, config) in bounded(errors, spec, "config", LIST_MAX, &path).iter().enumerate() {
        configuration(errors, config, is_kept("config"), &path.index(i));
    }
    if let Some(name) = set(spec, "extendedResourceName") {
        declared_extended_name(errors, name.as_str().unwrap_or(""), &SPEC.child("extendedResourceName"));
    }
}

fn declared_extended_name(errors: &mut Errors, name: &str, path: &Path) {
    if !name.contains('/') {
        errors.push(FieldError::invalid(path, name, "a name must be a domain-prefixed path, such as 'example.com/my-prop'"));
    } else if name.contains("kubernetes.io/") {
        errors.push(FieldError::invalid(path, name, "must not have \"kubernetes.io/\" domain"));
    }
    if name.starts_with("requests.") {
        errors.push(FieldError::invalid(path, name, "must not have \"requests.\" prefix"));
    }
    invalid(errors, path, name, names::qualified_name(&format!("requests.{name}")));
}

fn selectors(errors: &mut Errors, of: &Tree, are_stored: bool, path: &Path) {
    let path = path.child("selectors");
    for (i, selector) in bounded(errors, of, "selectors", LIST_MAX, &path).iter().enumerate() {
        let (path, cel) = (path.index(i), set(selector, "cel"));
        let path = path.child("cel");
        match cel {
            None => errors.push(FieldError::required(path, "")),
            Some(_) if are_stored => {}
            Some(cel) => expression(errors, text(cel, "expression"), &path.child("expression")),
        }
    }
}

fn expression(errors: &mut Errors, text: &str, path: &Path) {
    if text.len() > EXPRESSION_BYTES_MAX {
        errors.push(FieldError::too_long(path, EXPRESSION_BYTES_MAX));
        return;
    }
    match compile_selector(text, Age::New) {
        Ok(program) if cost(&program) > COST_MAX => errors.push(FieldError::forbidden(path, "too complex, exceeds cost limit")),
        Ok(_) => {}
        Err(Refused::Invalid(why)) => errors.push(FieldError::invalid(path, text, why)),
        Err(Refused::Internal(why)) => errors.push(FieldError::internal(path, why)),
    }
}

/// What a driver is told.
fn configuration(errors: &mut Errors, config: &Tree, is_stored: bool, path: &Path) {
    let path = path.child("opaque");
    match set(config, "opaque") {
        None => errors.push(FieldError::required(path, "")),
        Some(opaque) => {
            declared_driver(errors, text(opaque, "driver"), &path.child("driver"));
            let bytes_max = if is_stored { usize::MAX } else { OPAQUE_BYTES_MAX };
            raw_object(errors, at(opaque, "parameters"), bytes_max, &path.child("parameters"));
        }
    }
}

fn declared_driver(errors: &mut Errors, driver: &str, path: &Path) {
    if driver.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    invalid(errors, path, driver, names::long_name_caseless(driver));
    if driver.chars().count() > DRIVER_CHARS_MAX {
        errors.push(FieldError::too_long_characters(path, DRIVER_CHARS_MAX));
    }
}

/// An object of which only its driver knows what it means.
fn raw_object(errors: &mut Errors, raw: &Tree, bytes_max: usize, path: &Path) {
    match raw {
        Tree::Null => errors.push(FieldError::required(path, "")),
        raw if raw.to_json().len() > bytes_max => errors.push(FieldError::too_long(path, bytes_max)),
        Tree::Object(_) => {}
        _ => errors.push(FieldError::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}

fn pool_name(errors: &mut Errors, name: &str, path: &Path) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > POOL_BYTES_MAX {
        errors.push(FieldError::too_long(path, POOL_BYTES_MAX));
    }
    name.split('/').for_each(|part| dns_subdomain(errors, part, path));
}

fn taint_rule(errors: &mut Errors, spec: &Tree) {
    if let Some(selector) = set(spec, "deviceSelector") {
        let path = SPEC.child("deviceSelector");
        if let Some(driver) = set(selector, "driver") {
            volume::driver_name(errors, driver.as_str().unwrap_or(""), &path.child("driver"));
        }
        if let Some(pool) = set(selector, "pool") {
            pool_name(errors, pool.as_str().unwrap_or(""), &path.child("pool"));
        }
        if let Some(device) = set(selector, "device") {
            dns_label(errors, device.as_str().unwrap_or(""), &path.child("device"));
        }
    }
    taint(errors, at(spec, "taint"), &SPEC.child("taint"));
}

fn taint(errors: &mut Errors, taint: &Tree, path: &Path) {
    label_name(errors, text(taint, "key"), &path.child("key"));
    let value = text(taint, "value");
    invalid(errors, &path.child("value"), value, names::label_value(value));
    one_of(errors, text(taint, "effect"), EFFECTS, &path.child("effect"));
}

fn toleration(errors: &mut Errors, toleration: &Tree, path: &Path) {
    let value = text(toleration, "value");
    match text(toleration, "operator") {
        "Exists" if !value.is_empty() => {
            errors.push(FieldError::invalid(path.child("value"), value, "must be empty for operator `Exists`"));
        }
        "Equal" => invalid(errors, &path.child("value"), value, names::label_value(value)),
        _ => {}
    }
    declared_toleration(errors, toleration, path);
}

fn declared_toleration(errors: &mut Errors, toleration: &Tree, path: &Path) {
    let key = text(toleration, "key");
    if !key.is_empty() {
        label_name(errors, key, &path.child("key"));
    }
    one_of(errors, text(toleration, "operator"), &["Equal", "Exists"], &path.child("operator"));
    one_of_or_empty(errors, text(toleration, "effect"), EFFECTS, &path.child("effect"));
}

/// What must hold on a device before a pod is bound, and what tells that it never will.
fn binding_conditions(errors: &mut Errors, of: &Tree, path: &Path) {
    const KEYS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    for key in KEYS {
        let path = path.child(key);
        for (i, condition) in bounded(errors, of, key, 4, &path).iter().enumerate() {
            label_name(errors, condition.as_str().unwrap_or(""), &path.index(i));
        }
    }
    let found = KEYS.map(|key| strings(of, key));
    for (key, conditions) in KEYS.iter().zip(&found) {
        let path = path.child(key);
        let again = repeated(conditions);
        for (i, condition) in conditions.iter().enumerate() {
            if again[i] {
                errors.push(FieldError::duplicate(path.index(i), *condition));
            }
            if *key == KEYS[1] && found[0].contains(condition) {
                let detail = "bindingFailureConditions must not overlap with bindingConditions";
                errors.push(FieldError::invalid(path.index(i), *condition, detail));
            }
        }
    }
    for (this, other) in [(0, 1), (1, 0)] {
        if found[this].is_empty() && !found[other].is_empty() {
            let detail = format!("{} are required to use {}", KEYS[this], KEYS[other]);
            errors.push(FieldError::invalid(path.child(KEYS[this]), at(of, KEYS[this]), detail));
        }
    }
}
