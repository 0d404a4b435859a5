//! What a claim asks for.
use super::super::check::*;
use super::slice::{DOMAIN_BYTES_MAX, identifier};
use super::{LIST_MAX, bounded, configuration, declared_toleration, declared_unique, selectors, toleration};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SUBREQUESTS_MAX: usize = 8;
const MODES: &[&str] = &["All", "ExactCount"];
const NO_REQUEST: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
const ONE_KIND: &str = "exactly one of `exactly` or `firstAvailable` is required";

pub(super) fn spec(errors: &mut Errors, spec: &Tree, path: &Path) {
    let devices = at(spec, "devices");
    let path = path.child("devices");
    let requests_path = path.child("requests");
    let requests = bounded(errors, devices, "requests", LIST_MAX, &requests_path);
    for (i, one) in requests.iter().enumerate() {
        request(errors, one, &requests_path.index(i));
    }
    declared_unique(errors, requests, |request| text(request, "name").to_owned(), &requests_path);
    let known = RequestNames::of(spec);
    let constraints_path = path.child("constraints");
    for (i, one) in bounded(errors, devices, "constraints", LIST_MAX, &constraints_path).iter().enumerate() {
        constraint(errors, one, &known, &constraints_path.index(i));
    }
    let config_path = path.child("config");
    for (i, one) in bounded(errors, devices, "config", LIST_MAX, &config_path).iter().enumerate() {
        let path = config_path.index(i);
        request_refs(errors, one, &known, &path);
        configuration(errors, one, false, &path);
    }
}

/// The requests of a claim with those that each tries one after another.
pub(super) struct RequestNames<'t>(Vec<(&'t str, Vec<&'t str>)>);

impl<'t> RequestNames<'t> {
    pub(super) fn of(spec: &'t Tree) -> Self {
        let names = |request: &'t Tree| (text(request, "name"), list(request, "firstAvailable").iter().map(|sub| text(sub, "name")).collect());
        Self(list(at(spec, "devices"), "requests").iter().map(names).collect())
    }

    fn has(&self, name: &str) -> bool {
        let (request, sub) = name.split_once('/').map_or((name, None), |(request, sub)| (request, Some(sub)));
        let mut found = self.0.iter().rev().filter(|(known, _)| *known == request);
        found.next().is_some_and(|(_, subs)| sub.is_none_or(|sub| subs.contains(&sub)))
    }

    pub(super) fn check(&self, errors: &mut Errors, name: &str, path: &Path) {
        if name.matches('/').count() > 1 {
            errors.push(FieldError::invalid(path, name, NO_REQUEST));
            return;
        }
        name.split('/').for_each(|segment| dns_label(errors, segment, path));
        if !self.has(name) {
            errors.push(FieldError::invalid(path, name, NO_REQUEST));
        }
    }
}

/// The names in `requests` of a constraint or a configuration.
pub(super) fn request_refs(errors: &mut Errors, of: &Tree, known: &RequestNames, path: &Path) {
    let path = path.child("requests");
    let names = bounded(errors, of, "requests", LIST_MAX, &path);
    for (i, name) in names.iter().enumerate() {
        known.check(errors, name.as_str().unwrap_or(""), &path.index(i));
    }
    declared_unique(errors, names, Tree::to_json, &path);
}

fn request(errors: &mut Errors, request: &Tree, path: &Path) {
    dns_label(errors, text(request, "name"), &path.child("name"));
    let (exactly, subs) = (set(request, "exactly"), list(request, "firstAvailable"));
    let (exactly_path, subs_path) = (path.child("exactly"), path.child("firstAvailable"));
    match (exactly, subs.is_empty()) {
        (None, true) => errors.push(FieldError::required(path, ONE_KIND)),
        (Some(exactly), true) => {
            match text(exactly, "deviceClassName") {
                "" => errors.push(FieldError::required(exactly_path.child("deviceClassName"), "")),
                class => dns_subdomain(errors, class, &exactly_path.child("deviceClassName")),
            }
            wanted(errors, exactly, &exactly_path);
        }
        (None, false) => {
            let subs = bounded(errors, request, "firstAvailable", SUBREQUESTS_MAX, &subs_path);
            for (i, sub) in subs.iter().enumerate() {
                let path = subs_path.index(i);
                dns_label(errors, text(sub, "name"), &path.child("name"));
                declared_class(errors, sub, &path);
                wanted(errors, sub, &path);
            }
            declared_unique(errors, subs, |sub| text(sub, "name").to_owned(), &subs_path);
        }
        (Some(exactly), false) => {
            errors.push(FieldError::invalid(path, &Tree::Null, format!("{ONE_KIND}, but multiple fields are set")));
            declared_wanted(errors, exactly, &exactly_path);
            let subs = bounded(errors, request, "firstAvailable", SUBREQUESTS_MAX, &subs_path);
            for (i, sub) in subs.iter().enumerate() {
                let path = subs_path.index(i);
                declared_class(errors, sub, &path);
                declared_wanted(errors, sub, &path);
            }
            declared_unique(errors, subs, |sub| text(sub, "name").to_owned(), &subs_path);
        }
    }
}

fn declared_class(errors: &mut Errors, sub: &Tree, path: &Path) {
    let path = path.child("deviceClassName");
    match text(sub, "deviceClassName") {
        "" => errors.push(FieldError::required(path, "")),
        class => invalid(errors, &path, class, names::long_name(class)),
    }
}

/// Which devices, and how many.
fn wanted(errors: &mut Errors, request: &Tree, path: &Path) {
    selectors(errors, request, false, path);
    let (mode, count) = (text(request, "allocationMode"), int(request, "count").unwrap_or(0));
    match mode {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(path.child("count"), count, detail));
        }
        "ExactCount" if count <= 0 => errors.push(FieldError::invalid(path.child("count"), count, "must be greater than zero")),
        _ => supported(errors, mode, MODES, &path.child("allocationMode")),
    }
    let path = path.child("tolerations");
    for (i, one) in list(request, "tolerations").iter().enumerate() {
        toleration(errors, one, &path.index(i));
    }
}

fn declared_wanted(errors: &mut Errors, request: &Tree, path: &Path) {
    bounded(errors, request, "selectors", LIST_MAX, &path.child("selectors"));
    one_of_or_empty(errors, text(request, "allocationMode"), MODES, &path.child("allocationMode"));
    let path = path.child("tolerations");
    for (i, one) in list(request, "tolerations").iter().enumerate() {
        declared_toleration(errors, one, &path.index(i));
    }
}

fn constraint(errors: &mut Errors, constraint: &Tree, known: &RequestNames, path: &Path) {
    request_refs(errors, constraint, known, path);
    let mut any = false;
    for key in ["matchAttribute", "distinctAttribute"] {
        if let Some(name) = set(constraint, key) {
            any = true;
            declared_attribute_name(errors, name.as_str().unwrap_or(""), &path.child(key));
        }
    }
    if !any {
        let detail = r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#;
        errors.push(FieldError::required(path, detail));
    }
}

/// Models apimachinery/pkg/api/validate/strfmt.go ResourceFullyQualifiedName; a name of three parts passes, as there.
fn declared_attribute_name(errors: &mut Errors, name: &str, path: &Path) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(errors, id, path),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "prefix must not be empty"));
            } else {
                if domain.len() > DOMAIN_BYTES_MAX {
                    errors.push(FieldError::too_long(path, DOMAIN_BYTES_MAX));
                }
                let texts = names::long_name(domain).into_iter().map(|text| format!("prefix: {text}"));
                invalid(errors, path, domain, texts.collect());
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(path, "", "name must not be empty"));
            } else {
                identifier(errors, id, path);
            }
        }
        _ => {}
    }
    if !name.contains('/') {
        errors.push(FieldError::invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash"));
    }
}
