//! What the status of a CustomResourceDefinition says: accepted names and conditions.
//!
//! Models apiextensions-apiserver/pkg/controller/{status/naming_controller,establish,nonstructuralschema,apiapproval}.go. One server: a
//! definition whose names are accepted is established at once, where upstream waits for its other servers to hear of it.
use std::collections::HashSet;

use super::check_schema;
use super::definition::Definition;
use crate::field_error::{aggregate, quote};
use crate::meta;
use crate::tree::{Object, Tree};

pub const APPROVAL: &str = "api-approved.kubernetes.io";

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn new(kind: &'static str, status: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// What the status should say.
#[derive(Clone, Debug, PartialEq)]
pub struct NamePlan {
    pub accepted: Tree,
    pub conditions: Vec<Condition>,
    /// Conditions that hold no longer.
    pub dropped: Vec<&'static str>,
}

/// Decides on names and conditions of `definition`; `others` are all definitions of the cluster.
pub fn plan_names<'t>(definition: &Tree, others: impl IntoIterator<Item = &'t Tree>) -> NamePlan {
    let own = Definition(definition);
    let (mut resources, mut kinds) = (HashSet::new(), HashSet::new());
    for other in others {
        let other = Definition(other);
        if other.group() != own.group() || other.name() == own.name() {
            continue;
        }
        let accepted = |key: &str| other.0.str_at(&["status", "acceptedNames", key]).to_owned();
        resources.extend([accepted("plural"), accepted("singular")]);
        resources
            .extend(other.0.array_at(&["status", "acceptedNames", "shortNames"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned));
        kinds.extend([accepted("kind"), accepted("listKind")]);
    }
    let mut plan = NamePlan { accepted: Tree::object(), conditions: Vec::new(), dropped: Vec::new() };
    let named = accept(definition, &resources, &kinds, &mut plan.accepted);
    let is_accepted = named.status == "True";
    plan.conditions.push(named);
    if !own.is_established() {
        plan.conditions.push(match is_accepted {
            true => Condition::new("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
            false => Condition::new("Established", "False", "NotAccepted", "not all names are accepted"),
        });
    }
    match non_structural(own) {
        Some(condition) => plan.conditions.push(condition),
        None => plan.dropped.push("NonStructuralSchema"),
    }
    match approval(own) {
        Some(condition) => plan.conditions.push(condition),
        None => plan.dropped.push("KubernetesAPIApprovalPolicyConformant"),
    }
    plan
}

/// Takes the names that are free or ours; the answer tells the last conflict.
fn accept(definition: &Tree, resources: &HashSet<String>, kinds: &HashSet<String>, accepted: &mut Tree) -> Condition {
    let none = Tree::object();
    let wanted = definition.at(&["spec", "names"]).unwrap_or(&none);
    let held = definition.at(&["status", "acceptedNames"]).unwrap_or(&none);
    *accepted = held.clone();
    let mut conflict = None;
    let in_use = |name: &str| format!("{} is already in use", quote(name));
    for (key, taken, reason) in [("plural", resources, "PluralConflict"), ("singular", resources, "SingularConflict")] {
        take(wanted, held, key, taken, reason, accepted, &mut conflict);
    }
    let short: Vec<&str> = wanted.array_at(&["shortNames"]).iter().filter_map(Tree::as_str).collect();
    let own: Vec<&str> = held.array_at(&["shortNames"]).iter().filter_map(Tree::as_str).collect();
    let refused: Vec<String> = short.iter().filter(|s| !own.contains(s) && resources.contains(**s)).map(|s| in_use(s)).collect();
    match refused.len() {
        0 => copy(accepted, wanted, "shortNames"),
        1 => conflict = Some(("ShortNamesConflict", refused[0].clone())),
        _ => conflict = Some(("ShortNamesConflict", format!("[{}]", refused.join(", ")))),
    }
    for (key, taken, reason) in [("kind", kinds, "KindConflict"), ("listKind", kinds, "ListKindConflict")] {
        take(wanted, held, key, taken, reason, accepted, &mut conflict);
    }
    copy(accepted, wanted, "categories");
    match conflict {
        Some((reason, message)) => Condition::new("NamesAccepted", "False", reason, message),
        None => Condition::new("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
    }
}

fn take(
    wanted: &Tree,
    held: &Tree,
    key: &str,
    taken: &HashSet<String>,
    reason: &'static str,
    accepted: &mut Tree,
    conflict: &mut Option<(&'static str, String)>,
) {
    let name = wanted.str_at(&[key]);
    if name != held.str_at(&[key]) && taken.contains(name) {
        *conflict = Some((reason, format!("{} is already in use", quote(name))));
    } else {
        copy(accepted, wanted, key);
    }
}

fn copy(to: &mut Tree, from: &Tree, key: &str) {
    match from.get(key) {
        Some(value) => to.set(&[key], value.clone()),
        None => drop(to.remove(&[key])),
    }
}

fn non_structural(definition: Definition) -> Option<Condition> {
    let mut errors = Vec::new();
    for (i, version) in definition.versions().iter().enumerate() {
        if let Some(schema) = version.at(&["schema", "openAPIV3Schema"]).filter(|s| !s.is_null()) {
            check_schema::structural(&mut errors, schema, &format!("spec.versions[{i}].schema.openAPIV3Schema"));
        }
    }
    (!errors.is_empty()).then(|| Condition::new("NonStructuralSchema", "True", "Violations", aggregate(&errors)))
}

/// Groups that belong to the community.
pub fn is_protected(group: &str) -> bool {
    group == "k8s.io" || group == "kubernetes.io" || group.ends_with(".k8s.io") || group.ends_with(".kubernetes.io")
}

/// How far a definition in a protected group is approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

pub fn approval_state(definition: &Tree) -> (Approval, String) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let annotation = meta::annotation(definition, APPROVAL).unwrap_or("");
    let is_url =
        annotation.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    match annotation {
        "" => (Approval::Missing, format!("protected groups must have approval annotation \"{APPROVAL}\", {SEE}")),
        text if text.starts_with("unapproved") => (Approval::Bypassed, format!("not approved: {}", quote(text))),
        text if is_url => (Approval::Approved, format!("approved in {text}")),
        _ => {
            let text = format!(
                "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting with \"unapproved\", {SEE}"
            );
            (Approval::Invalid, text)
        }
    }
}

fn approval(definition: Definition) -> Option<Condition> {
    if !is_protected(definition.group()) {
        return None;
    }
    let (state, message) = approval_state(definition.0);
    let (status, reason) = match state {
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    Some(Condition::new("KubernetesAPIApprovalPolicyConformant", status, reason, message))
}

/// Sets a condition in `status.conditions`; its time changes with its status only.
pub fn set_condition(definition: &mut Tree, condition: &Condition, now: &str) {
    let mut conditions: Vec<Tree> = definition.array_at(&["status", "conditions"]).to_vec();
    let mut wanted: Object = [("type", condition.kind), ("status", condition.status), ("reason", condition.reason)].into_iter().collect();
    wanted.insert("message", condition.message.as_str());
    match conditions.iter_mut().find(|c| c.str_at(&["type"]) == condition.kind) {
        Some(known) => {
            let keeps_time = known.str_at(&["status"]) == condition.status && !known.str_at(&["lastTransitionTime"]).is_empty();
            let at = if keeps_time { known.str_at(&["lastTransitionTime"]).to_owned() } else { now.to_owned() };
            wanted.insert("lastTransitionTime", at);
            *known = wanted.into();
        }
        None => {
            wanted.insert("lastTransitionTime", now);
            conditions.push(wanted.into());
        }
    }
    definition.set(&["status", "conditions"], Tree::Array(conditions));
}

/// Makes the status say what the plan says.
pub fn apply_plan(definition: &mut Tree, plan: &NamePlan, now: &str) {
    definition.set(&["status", "acceptedNames"], plan.accepted.clone());
    plan.conditions.iter().for_each(|condition| set_condition(definition, condition, now));
    let kept: Vec<Tree> =
        definition.array_at(&["status", "conditions"]).iter().filter(|c| !plan.dropped.contains(&c.str_at(&["type"]))).cloned().collect();
    definition.set(&["status", "conditions"], Tree::Array(kept));
}
