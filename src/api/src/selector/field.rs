//! Field selectors and the fields each kind lets itself be selected by.
//!
//! Models apimachinery/pkg/fields/selector.go, the `AddFieldLabelConversionFunc` of pkg/apis/*/v1/conversion.go, and the
//! `ToSelectableFields` of pkg/registry.
use std::fmt;

use super::SelectorError;
use crate::field_error::quote;
use crate::registry::Resource;
use crate::schema::Name;
use crate::tree::Tree;

/// `field = value`, or `field != value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: Box<str>,
    pub value: Box<str>,
    pub negated: bool,
}

/// All of the terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub const fn everything() -> Self {
        Self { terms: Vec::new() }
    }

    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let Some((field, operator, value)) = split_term(part) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push(FieldTerm { field: field.into(), value: unescape(value)?.into(), negated: operator == "!=" });
        }
        Ok(Self { terms })
    }

    pub fn one(field: &str, value: &str) -> Self {
        Self { terms: vec![FieldTerm { field: field.into(), value: value.into(), negated: false }] }
    }

    /// Checks every label against what the kind supports, and converts old names.
    pub fn for_kind(mut self, group: &str, version: &str, kind: &str) -> Result<Self, SelectorError> {
        for term in &mut self.terms {
            term.field = convert_label(group, version, kind, &term.field)?.into();
        }
        Ok(self)
    }

    /// As [`FieldSelector::for_kind`]; custom kinds say themselves by which fields they can be selected.
    pub fn for_resource(self, resource: &Resource) -> Result<Self, SelectorError> {
        let Some(custom) = &resource.custom else { return self.for_kind(&resource.group, &resource.version, &resource.kind) };
        let known = |field: &str| {
            field == "metadata.name" || (field == "metadata.namespace" && resource.namespaced) || custom.selectable.iter().any(|own| own.name == field)
        };
        match self.terms.iter().find(|term| !known(&term.field)) {
            Some(term) => Err(SelectorError(format!("field label not supported: {}", term.field))),
            None => Ok(self),
        }
    }

    /// A field that the object does not have counts as empty.
    pub fn matches<'a>(&self, get: &impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (get(&t.field).unwrap_or("") == &*t.value) != t.negated)
    }

    pub fn matches_fields(&self, fields: &[(&str, String)]) -> bool {
        self.matches(&|name| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The one value that `field` must have, where the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| !t.negated && &*t.field == field).map(|t| &*t.value)
    }
}

impl FromIterator<FieldTerm> for FieldSelector {
    fn from_iter<I: IntoIterator<Item = FieldTerm>>(terms: I) -> Self {
        Self { terms: terms.into_iter().collect() }
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let operator = if term.negated { "!=" } else { "=" };
            write!(f, "{}{}{operator}", if i > 0 { "," } else { "" }, term.field)?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    term.char_indices().find_map(|(i, _)| {
        let rest = &term[i..];
        let operator = ["!=", "==", "="].into_iter().find(|op| rest.starts_with(op))?;
        Some((&term[..i], operator, &rest[operator.len()..]))
    })
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => {
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: \\{next}")));
                }
                None => return Err(SelectorError("invalid field selector: invalid escape sequence: \\".into())),
            },
            ',' | '=' => {
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: '{c}'")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The extra labels of a kind, and how upstream words an unknown one.
fn labels_of(group: &str, kind: &str) -> Option<(&'static [&'static str], Wording)> {
    const EVENT: &[&str] = &[
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "metadata.name",
        "metadata.namespace",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];
    const EVENTS_EVENT: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "reason",
        "regarding.apiVersion",
        "regarding.fieldPath",
        "regarding.kind",
        "regarding.name",
        "regarding.namespace",
        "regarding.resourceVersion",
        "regarding.uid",
        "reportingController",
        "type",
    ];
    Some(match (group, kind) {
        ("", "Pod") => (
            &[
                "metadata.name",
                "metadata.namespace",
                "spec.hostNetwork",
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "status.nominatedNodeName",
                "status.phase",
                "status.podIP",
                "status.podIPs",
            ],
            Wording::Plain,
        ),
        ("", "Node") => (&["metadata.name", "spec.unschedulable"], Wording::Plain),
        ("", "ReplicationController") => (&["metadata.name", "metadata.namespace", "status.replicas"], Wording::Plain),
        ("", "Namespace") => (&["metadata.name", "status.phase"], Wording::Plain),
        ("", "Secret") => (&["metadata.name", "metadata.namespace", "type"], Wording::Plain),
        ("", "Service") => (&["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"], Wording::Plain),
        ("", "Event") => (EVENT, Wording::Plain),
        ("events.k8s.io", "Event") => (EVENTS_EVENT, Wording::Plain),
        ("apps", "ReplicaSet") => (&["metadata.name", "metadata.namespace", "status.replicas"], Wording::Quoted("appsv1.ReplicaSet")),
        ("batch", "Job") => (&["metadata.name", "metadata.namespace", "status.successful"], Wording::Quoted("batchv1.Job")),
        ("certificates.k8s.io", "CertificateSigningRequest") => (&["metadata.name", "spec.signerName"], Wording::Plain),
        ("certificates.k8s.io", "ClusterTrustBundle") => (&["metadata.name", "spec.signerName"], Wording::Plain),
        ("certificates.k8s.io", "PodCertificateRequest") => {
            (&["metadata.name", "spec.nodeName", "spec.podName", "spec.signerName"], Wording::Plain)
        }
        ("resource.k8s.io", "ResourceSlice") => (&["metadata.name", "spec.driver", "spec.nodeName"], Wording::Plain),
        _ => return None,
    })
}

enum Wording {
    Plain,
    Quoted(&'static str),
}

/// The canonical name of a field label, or upstream's refusal.
pub fn convert_label<'a>(group: &str, version: &str, kind: &str, label: &'a str) -> Result<&'a str, SelectorError> {
    match labels_of(group, kind) {
        // Compatibility upstream keeps for old clients.
        Some(_) if (group, kind, label) == ("", "Pod", "spec.host") => Ok("spec.nodeName"),
        Some((labels, _)) if labels.contains(&label) => Ok(label),
        Some((_, Wording::Plain)) => Err(SelectorError(format!("field label not supported: {label}"))),
        Some((_, Wording::Quoted(name))) => {
            Err(SelectorError(format!("field label {} not supported for {}", quote(label), name.replace("v1", version))))
        }
        None if matches!(label, "metadata.name" | "metadata.namespace") => Ok(label),
        None => Err(SelectorError(format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            quote(label)
        ))),
    }
}

/// The selectable fields of an object of the given kind with their values.
pub fn fields_of(group: &str, kind: &str, object: &Tree) -> Vec<(&'static str, String)> {
    let labels = labels_of(group, kind).map_or(&["metadata.name", "metadata.namespace"] as &'static [&'static str], |(l, _)| l);
    let mut fields: Vec<(&'static str, String)> = labels.iter().map(|label| (*label, value_of(label, group, kind, object))).collect();
    // Events are kept in the core group's form and asked for by both groups' names.
    if (group, kind) == ("", "Event") {
        let others = labels_of("events.k8s.io", "Event").map_or(&[] as &[_], |(l, _)| l);
        let renamed = others.iter().filter(|label| !labels.contains(label));
        fields.extend(renamed.map(|label| (*label, value_of(label, group, kind, object))));
    }
    fields
}

/// The selectable fields of an object of the given resource with their values.
pub fn fields(resource: &Resource, object: &Tree) -> Vec<(Name, String)> {
    let Some(custom) = &resource.custom else {
        return fields_of(&resource.group, &resource.kind, object).into_iter().map(|(name, value)| (name.into(), value)).collect();
    };
    custom.selectable.iter().map(|field| (field.name.clone(), value_of(&field.name, "", "", object))).collect()
}

fn value_of(label: &str, group: &str, kind: &str, object: &Tree) -> String {
    let text = |path: &str| {
        let path: Vec<&str> = path.split('.').collect();
        match object.at(&path) {
            Some(Tree::String(s)) => s.to_string(),
            Some(Tree::Bool(b)) => b.to_string(),
            Some(Tree::Integer(i)) => i.to_string(),
            _ => String::new(),
        }
    };
    let or = |value: String, default: &str| if value.is_empty() { default.to_owned() } else { value };
    match (group, kind, label) {
        ("", "Pod", "spec.hostNetwork") | ("", "Node", "spec.unschedulable") => or(text(label), "false"),
        ("", "Pod", "status.podIP") => or(text("status.podIP"), object.array_at(&["status", "podIPs"]).first().map_or("", |ip| ip.str_at(&["ip"]))),
        ("", "Pod", "status.podIPs") => {
            let ips: Vec<&str> = object.array_at(&["status", "podIPs"]).iter().map(|ip| ip.str_at(&["ip"])).collect();
            ips.join(",")
        }
        (_, "ReplicationController" | "ReplicaSet", "status.replicas") => or(text(label), "0"),
        ("batch", "Job", "status.successful") => or(text("status.succeeded"), "0"),
        ("", "Event", "source") => or(text("source.component"), &text("reportingComponent")),
        ("", "Event", "reportingController") => text("reportingComponent"),
        ("", "Event", label) if label.starts_with("regarding.") => text(&label.replacen("regarding", "involvedObject", 1)),
        _ => text(label),
    }
}
