//! ServiceCIDRs and IPAddresses: where Services get their addresses from, and which are taken.
//!
//! Models pkg/apis/networking/validation/validation.go.
use std::net::IpAddr;

use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");

pub(super) fn address(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let path = SPEC.child("parentRef");
    let parent = at(at(new, "spec"), "parentRef");
    if old.is_some_and(|old| !same(parent, at(at(old, "spec"), "parentRef"))) {
        errors.push(FieldError::invalid(path, &Tree::Null, IMMUTABLE));
    }
    if parent.is_null() {
        return errors.push(FieldError::required(path, ""));
    }
    // The core group, which Services are of, is the empty text.
    let group = text(parent, "group");
    if !group.is_empty() {
        invalid(errors, &path.child("group"), group, names::dns1123_subdomain(group));
    }
    for (field, is_required) in [("resource", true), ("name", true), ("namespace", false)] {
        let value = text(parent, field);
        if !value.is_empty() {
            invalid(errors, &path.child(field), value, names::path_segment(value));
        } else if is_required {
            errors.push(FieldError::required(path.child(field), ""));
        }
    }
}

pub(super) fn range(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let path = SPEC.child("cidrs");
    let (spec, value) = (at(new, "spec"), at(at(new, "spec"), "cidrs"));
    let cidrs = strings(spec, "cidrs");
    let Some(old) = old else { return ranges(errors, spec, &cidrs, &path) };
    let before = strings(at(old, "spec"), "cidrs");
    let mut keeps = |count: usize| {
        for (i, (cidr, before)) in cidrs.iter().zip(&before).enumerate().take(count) {
            if cidr != before {
                errors.push(FieldError::invalid(path.index(i), *cidr, IMMUTABLE));
            }
        }
    };
    match (before.len(), cidrs.len()) {
        (before, now) if before == now => keeps(now),
        // A second family may be added.
        (1, 2) => {
            keeps(1);
            ranges(errors, spec, &cidrs, &path);
        }
        _ => errors.push(FieldError::invalid(path, value, IMMUTABLE)),
    }
}

fn ranges(errors: &mut Errors, spec: &Tree, cidrs: &[&str], path: &Path) {
    if cidrs.is_empty() {
        return errors.push(FieldError::required(path, "at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        return errors.push(FieldError::invalid(path, spec, "may only hold up to 2 values"));
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        invalid(errors, &path.index(i), cidr, names::canonical_cidr(cidr));
    }
    let families: Vec<bool> = cidrs.iter().filter_map(|cidr| names::parse_cidr_sloppy(cidr)).map(|(ip, _)| matches!(ip, IpAddr::V4(_))).collect();
    if matches!(families[..], [a, b] if a == b) {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(path, at(spec, "cidrs"), detail));
    }
}
