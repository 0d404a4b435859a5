//! Events: lenient through the core group, strict through `events.k8s.io`.
//!
//! Models pkg/apis/core/validation/events.go. The two groups name their fields differently; paths are those of the internal type,
//! as upstream reports them.
use super::check::*;
use super::meta::{self, NameRule};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

/// Field names of the group through which an event comes.
struct Names {
    involved: &'static str,
    controller: &'static str,
    instance: &'static str,
    message: &'static str,
    first: &'static str,
    last: &'static str,
    count: &'static str,
    source: &'static str,
}

const CORE: Names = Names {
    involved: "involvedObject",
    controller: "reportingComponent",
    instance: "reportingInstance",
    message: "message",
    first: "firstTimestamp",
    last: "lastTimestamp",
    count: "count",
    source: "source",
};
const EVENTS: Names = Names {
    involved: "regarding",
    controller: "reportingController",
    instance: "reportingInstance",
    message: "note",
    first: "deprecatedFirstTimestamp",
    last: "deprecatedLastTimestamp",
    count: "deprecatedCount",
    source: "deprecatedSource",
};

pub(super) fn event(errors: &mut Errors, group: &str, new: &Tree, old: Option<&Tree>) {
    let strict = !group.is_empty();
    let n = if strict { &EVENTS } else { &CORE };
    if !strict {
        legacy(errors, new, old, n);
        return;
    }
    lenient(errors, new, n);
    match old {
        None => {
            meta::create(errors, new, true, NameRule::DnsSubdomain);
            series(errors, new);
            if set(new, "eventTime").is_none() {
                errors.push(FieldError::required(Path::new("eventTime"), ""));
            }
            let kind = text(new, "type");
            if !matches!(kind, "Normal" | "Warning") {
                errors.push(FieldError::invalid(Path::new("type"), "", format!("has invalid value: {kind}")));
            }
            let unset = [(n.first, "firstTimestamp"), (n.last, "lastTimestamp"), (n.count, "count"), (n.source, "source")];
            for (key, shown) in unset {
                if !same(at(new, key), &Tree::Null) && at(new, key) != &Tree::Integer(0) {
                    errors.push(FieldError::invalid(Path::new(shown), "", "needs to be unset"));
                }
            }
        }
        Some(old) => {
            meta::update(errors, new, old);
            if !same_at(new, old, "series") {
                series(errors, new);
            }
            let fixed = [
                (n.involved, "involvedObject"),
                ("reason", "reason"),
                (n.message, "message"),
                (n.source, "source"),
                (n.first, "firstTimestamp"),
                (n.last, "lastTimestamp"),
                (n.count, "count"),
                ("type", "type"),
                ("eventTime", "eventTime"),
                ("action", "action"),
                ("related", "related"),
                (n.controller, "reportingController"),
                (n.instance, "reportingInstance"),
            ];
            let empty = Tree::from("");
            for (key, shown) in fixed {
                let is_text = matches!(shown, "reason" | "message" | "type" | "action" | "reportingController" | "reportingInstance");
                let value = |event| Some(at(event, key)).filter(|value: &&Tree| !(is_text && value.is_null())).unwrap_or(&empty);
                immutable(errors, value(new), value(old), &Path::new(shown));
            }
        }
    }
}

/// Metadata are looked at by what is common to all kinds alone: first of an update, last of a create, and then only where all else is right.
fn legacy(errors: &mut Errors, new: &Tree, old: Option<&Tree>, n: &Names) {
    if let Some(old) = old {
        meta::create(errors, new, true, NameRule::PathSegment);
        meta::update(errors, new, old);
    }
    lenient(errors, new, n);
    if old.is_none() && errors.is_empty() {
        meta::create(errors, new, true, NameRule::PathSegment);
    }
}

fn series(errors: &mut Errors, event: &Tree) {
    let Some(series) = set(event, "series") else { return };
    if int(series, "count").unwrap_or(0) < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if set(series, "lastObservedTime").is_none() {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
}

fn lenient(errors: &mut Errors, event: &Tree, n: &Names) {
    let namespace = event.str_at(&["metadata", "namespace"]);
    let involved = event.str_at(&[n.involved, "namespace"]);
    let object = Path::new("involvedObject");
    let mismatch = FieldError::invalid(object.child("namespace"), involved, "does not match event.namespace");
    if set(event, "eventTime").is_none() {
        let fits = if involved.is_empty() { matches!(namespace, "" | "default") } else { namespace == involved };
        if !fits {
            errors.push(mismatch);
        }
    } else {
        if involved.is_empty() && !matches!(namespace, "default" | "kube-system") {
            errors.push(mismatch);
        }
        let controller = text(event, n.controller);
        // Each group under its own name, and all else under those of the inner type.
        let path = Path::new(n.controller);
        if controller.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        label_name(errors, controller, &path);
        for (key, shown) in [(n.instance, "reportingInstance"), ("action", "action"), ("reason", "reason")] {
            let value = text(event, key);
            if value.is_empty() {
                errors.push(FieldError::required(Path::new(shown), ""));
            } else if value.len() > 128 {
                errors.push(FieldError::invalid(Path::new(shown), "", "can have at most 128 characters"));
            }
        }
        if text(event, n.message).len() > 1024 {
            errors.push(FieldError::invalid(Path::new("message"), "", "can have at most 1024 characters"));
        }
    }
    invalid(errors, &Path::new("namespace"), namespace, names::dns1123_subdomain(namespace));
}
