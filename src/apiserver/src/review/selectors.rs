//! What of a kind a review asks about: limits to fields and labels (KEP-4601).
//!
//! Models pkg/registry/authorization/util/helpers.go and pkg/apis/authorization/validation/validation.go. What cannot be read limits nothing, so that
//! more is asked about than was meant, and never less; the answer says so.
use api::field_error::FieldError;
use api::names;
use api::selector::{FieldSelector, FieldTerm, LabelSelector};
use api::tree::Tree;

#[derive(Default)]
pub struct Asked {
    pub fields: FieldSelector,
    pub labels: LabelSelector,
    /// For `status.evaluationError`.
    pub errors: Vec<&'static str>,
}

const PATH: &str = "spec.resourceAttributes";

pub fn asked(resource: Option<&Tree>) -> Asked {
    let mut asked = Asked::default();
    let Some(resource) = resource else { return asked };
    let of = |field: &str| resource.get(field).filter(|selector| selector.as_object().is_some());
    if let Some(selector) = of("fieldSelector") {
        let (fields, is_whole) = fields(selector);
        if !is_whole {
            let partly = "spec.resourceAttributes.fieldSelector partially ignored due to parse error";
            asked.errors.push(if fields.is_empty() { "spec.resourceAttributes.fieldSelector ignored due to parse error" } else { partly });
        }
        asked.fields = fields;
    }
    if let Some(selector) = of("labelSelector") {
        let (labels, is_whole) = labels(selector);
        if !is_whole {
            let partly = "spec.resourceAttributes.labelSelector partially ignored due to parse error";
            asked.errors.push(if labels.is_empty() { "spec.resourceAttributes.labelSelector ignored due to parse error" } else { partly });
        }
        asked.labels = labels;
    }
    asked
}

/// The selector, and whether all of it could be read.
fn fields(selector: &Tree) -> (FieldSelector, bool) {
    let requirements = selector.array_at(&["requirements"]);
    if requirements.is_empty() {
        let parsed = FieldSelector::parse(selector.str_at(&["rawSelector"]));
        return (parsed.clone().unwrap_or_default(), parsed.is_ok());
    }
    let term = |requirement: &Tree| {
        let [value] = requirement.array_at(&["values"]) else { return None };
        let negated = match requirement.str_at(&["operator"]) {
            "In" => false,
            "NotIn" => true,
            _ => return None,
        };
        Some(FieldTerm { field: requirement.str_at(&["key"]).into(), value: value.as_str()?.into(), negated })
    };
    let terms: Vec<FieldTerm> = requirements.iter().filter_map(term).collect();
    let is_whole = terms.len() == requirements.len();
    (terms.into_iter().collect(), is_whole)
}

fn labels(selector: &Tree) -> (LabelSelector, bool) {
    let requirements = selector.array_at(&["requirements"]);
    if requirements.is_empty() {
        let parsed = LabelSelector::parse(selector.str_at(&["rawSelector"]));
        return (parsed.clone().unwrap_or_default(), parsed.is_ok());
    }
    let selector_of = |requirements: Vec<Tree>| {
        LabelSelector::from_tree(Some(&Tree::Object([("matchExpressions", Tree::Array(requirements))].into_iter().collect())))
    };
    // One at a time, so that one that means nothing hides no other.
    let good: Vec<Tree> = requirements.iter().filter(|one| selector_of(vec![(*one).clone()]).is_ok()).cloned().collect();
    let is_whole = good.len() == requirements.len();
    if good.is_empty() {
        return (LabelSelector::everything(), is_whole);
    }
    (selector_of(good).unwrap_or_default(), is_whole)
}

pub fn validate(resource: &Tree) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["fieldSelector", "labelSelector"] {
        let Some(selector) = resource.get(field).filter(|selector| selector.as_object().is_some()) else { continue };
        let path = format!("{PATH}.{field}");
        let (raw, requirements) = (selector.str_at(&["rawSelector"]), selector.array_at(&["requirements"]));
        if !raw.is_empty() && !requirements.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.rawSelector"), raw, "may not specified at the same time as requirements"));
        }
        if raw.is_empty() && requirements.is_empty() {
            let detail = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(FieldError::required(format!("{path}.requirements"), detail));
        }
        for (i, requirement) in requirements.iter().enumerate() {
            one(requirement, &format!("{path}.requirements[{i}]"), field == "labelSelector", &mut errors);
        }
    }
    errors
}

/// Operators that are not known here may be known elsewhere.
fn one(requirement: &Tree, path: &str, is_label: bool, errors: &mut Vec<FieldError>) {
    let (key, values) = (requirement.str_at(&["key"]), requirement.array_at(&["values"]));
    match requirement.str_at(&["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(format!("{path}.values"), "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(FieldError::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ));
        }
        _ => {}
    }
    if is_label {
        let wrong = names::qualified_name(key);
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(format!("{path}.key"), key, why)));
    } else if key.is_empty() {
        errors.push(FieldError::required(format!("{path}.key"), "must be specified"));
    }
}
