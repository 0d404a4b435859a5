//! Whether a CustomResourceDefinition is valid.
//!
//! Models apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go, v1.37, on the form that upstream calls internal: what all
//! versions have in common stands at the top (`spec.validation`, `spec.subresources`, ...), and errors name it there. Left out: what was
//! tolerated of definitions stored by servers older than v1.22.
use super::check_rules::{self, Known};
use super::check_schema;
use super::definition::Definition;
use super::names::{Approval, approval_state, is_protected};
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;
use crate::validation::{NameRule, check_webhook_client, validate_meta, validate_new_meta};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const SELECTABLE_MAX: usize = 8;

type Errors = Vec<FieldError>;

fn text<'t>(tree: &'t Tree, key: &str) -> &'t str {
    tree.str_at(&[key])
}

fn set<'t>(tree: &'t Tree, path: &[&str]) -> Option<&'t Tree> {
    tree.at(path).filter(|v| !v.is_null())
}

/// Everything wrong with a definition, or with an update of one.
pub fn validate(new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let e = &mut errors;
    match old {
        None => {
            validate_new_meta(e, new, false, NameRule::DnsSubdomain);
            let definition = Definition(new);
            if definition.name() != format!("{}.{}", definition.plural(), definition.group()) {
                e.push(FieldError::invalid("metadata.name", definition.name(), "must be spec.names.plural+\".\"+spec.group"));
            }
        }
        Some(old) => validate_meta(e, new, Some(old), false),
    }
    let none = Tree::Null;
    let spec = new.get("spec").unwrap_or(&none);
    let mut known = Known::new();
    old.into_iter().flat_map(|old| old.array_at(&["spec", "versions"])).for_each(|version| check_rules::known(&mut known, version));
    check_spec(e, spec, old, &known);
    if let Some(old) = old {
        immutable(e, new, old);
    }
    check_status(e, new);
    stored_versions(e, new);
    approved(e, new, old);
    let preserved = |tree: &Tree| tree.at(&["spec", "preserveUnknownFields"]).and_then(Tree::as_bool) == Some(true);
    if preserved(new) && !old.is_some_and(preserved) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        e.push(FieldError::invalid("spec.preserveUnknownFields", true, detail));
    }
    errors
}

/// An update of the status.
pub fn validate_status(new: &Tree, old: &Tree) -> Vec<FieldError> {
    let mut errors = Errors::new();
    validate_meta(&mut errors, new, Some(old), false);
    check_status(&mut errors, new);
    errors
}

fn check_status(e: &mut Errors, new: &Tree) {
    if let Some(accepted) = set(new, &["status", "acceptedNames"]) {
        check_names(e, accepted, "status.acceptedNames");
    }
}

fn immutable(e: &mut Errors, new: &Tree, old: &Tree) {
    let mut paths: Vec<&[&str]> = vec![];
    if Definition(old).is_established() {
        paths.extend([&["spec", "scope"][..], &["spec", "names", "kind"][..]]);
    }
    paths.extend([&["spec", "group"][..], &["spec", "names", "plural"][..]]);
    for path in paths {
        if new.str_at(path) != old.str_at(path) {
            e.push(FieldError::invalid(path.join("."), new.str_at(path), "field is immutable"));
        }
    }
}

fn stored_versions(e: &mut Errors, new: &Tree) {
    let stored = new.at(&["status", "storedVersions"]).cloned().unwrap_or_else(|| Tree::Array(Vec::new()));
    let names: Vec<&str> = stored.as_array().unwrap_or(&[]).iter().filter_map(Tree::as_str).collect();
    if names.is_empty() {
        e.push(FieldError::invalid("status.storedVersions", &stored, "must have at least one stored version"));
        return;
    }
    let definition = Definition(new);
    let storage = definition.storage_version();
    if !storage.is_empty() && !names.contains(&storage) {
        e.push(FieldError::invalid("status.storedVersions", &stored, format!("must have the storage version {storage}")));
    }
    for (i, name) in names.iter().enumerate() {
        if !definition.versions().iter().any(|v| text(v, "name") == *name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage \
                 migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            e.push(FieldError::invalid(format!("status.storedVersions[{i}]"), *name, detail));
        }
    }
}

fn approved(e: &mut Errors, new: &Tree, old: Option<&Tree>) {
    if !is_protected(Definition(new).group()) {
        return;
    }
    let (state, reason) = approval_state(new);
    if old.is_some_and(|old| approval_state(old).0 == state) {
        return;
    }
    let path = format!("metadata.annotations[{}]", super::names::APPROVAL);
    match state {
        Approval::Missing => e.push(FieldError::required(path, reason)),
        Approval::Invalid => {
            let value = crate::meta::annotation(new, super::names::APPROVAL).unwrap_or("");
            e.push(FieldError::invalid(path, value, reason));
        }
        Approval::Approved | Approval::Bypassed => {}
    }
}

/// The value that all versions share, if they do.
fn common<'t>(versions: &'t [Tree], key: &str) -> Option<Option<&'t Tree>> {
    let of = |version: &'t Tree| set(version, &[key]).filter(|v| v.as_array().is_none_or(|a| !a.is_empty()));
    let first = of(versions.first()?);
    versions.iter().all(|version| of(version) == first).then_some(first)
}

fn check_spec(e: &mut Errors, spec: &Tree, old: Option<&Tree>, before: &Known) {
    let group = text(spec, "group");
    if group.is_empty() {
        e.push(FieldError::required("spec.group", ""));
    } else {
        let wrong = names::dns1123_subdomain(group);
        if !wrong.is_empty() {
            e.push(FieldError::invalid("spec.group", group, wrong.join(",")));
        } else if !group.contains('.') {
            e.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
        }
    }
    match text(spec, "scope") {
        "" => e.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => e.push(FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"])),
    }
    let versions = spec.array_at(&["versions"]);
    let shared = |key: &str| common(versions, key);
    let schema = shared("schema");
    if !matches!(schema, Some(Some(schema)) if set(schema, &["openAPIV3Schema"]).is_some()) {
        for (i, version) in versions.iter().enumerate() {
            let own = schema.is_none().then(|| set(version, &["schema", "openAPIV3Schema"])).flatten();
            if own.is_none() {
                e.push(FieldError::required(format!("spec.versions[{i}].schema.openAPIV3Schema"), ""));
            }
        }
    }
    let (subresources, columns, selectable) = (shared("subresources"), shared("additionalPrinterColumns"), shared("selectableFields"));
    for (i, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}]");
        let name = text(version, "name");
        let wrong = names::dns1035_label(name);
        if !wrong.is_empty() {
            e.push(FieldError::invalid(format!("{path}.name"), name, wrong.join(",")));
        }
        deprecation(e, version, &path);
        if schema.is_none()
            && let Some(schema) = set(version, &["schema"])
        {
            check_schema::validation(e, schema, has_status(version), before, &format!("{path}.schema"));
        }
        if subresources.is_none()
            && let Some(subresources) = set(version, &["subresources"])
        {
            check_subresources(e, subresources, &format!("{path}.subresources"));
        }
        if columns.is_none() {
            check_columns(e, version.array_at(&["additionalPrinterColumns"]), &format!("{path}.additionalPrinterColumns"));
        }
        if selectable.is_none() {
            let schema = set(version, &["schema", "openAPIV3Schema"]);
            check_selectable(e, version.array_at(&["selectableFields"]), schema, &format!("{path}.selectableFields"));
        }
    }
    let mut known: Vec<&str> = versions.iter().map(|v| text(v, "name")).collect();
    known.sort_unstable();
    let list = spec.get("versions");
    if known.windows(2).any(|pair| pair[0] == pair[1]) {
        e.push(FieldError::invalid("spec.versions", list, "must contain unique version names"));
    }
    if versions.iter().filter(|v| v.get("storage").and_then(Tree::as_bool) == Some(true)).count() != 1 {
        e.push(FieldError::invalid("spec.versions", list, "must have exactly one version marked as storage version"));
    }
    let first = versions.first().map_or("", |v| text(v, "name"));
    let wrong = names::dns1035_label(first);
    if !first.is_empty() && !wrong.is_empty() {
        e.push(FieldError::invalid("spec.version", first, wrong.join(",")));
    }
    let none = Tree::Null;
    let wanted = spec.get("names").unwrap_or(&none);
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(wanted, key).is_empty() {
            e.push(FieldError::required(format!("spec.names.{key}"), ""));
        }
    }
    check_names(e, wanted, "spec.names");
    if let Some(Some(schema)) = schema {
        check_schema::validation(e, schema, versions.iter().any(has_status), before, "spec.validation");
    }
    if let Some(Some(subresources)) = subresources {
        check_subresources(e, subresources, "spec.subresources");
    }
    if let Some(Some(columns)) = columns {
        check_columns(e, columns.as_array().unwrap_or(&[]), "spec.additionalPrinterColumns");
    }
    if let Some(Some(fields)) = selectable {
        let schema = versions.first().and_then(|v| set(v, &["schema", "openAPIV3Schema"]));
        check_selectable(e, fields.as_array().unwrap_or(&[]), schema, "spec.selectableFields");
    }
    if let Some(conversion) = set(spec, &["conversion"]) {
        check_conversion(e, spec, conversion, old);
    }
}

fn has_status(version: &Tree) -> bool {
    set(version, &["subresources", "status"]).is_some()
}

fn deprecation(e: &mut Errors, version: &Tree, path: &str) {
    let Some(warning) = version.get("deprecationWarning").and_then(Tree::as_str) else { return };
    let mut wrong = |text: &str| e.push(FieldError::invalid(format!("{path}.deprecationWarning"), warning, text));
    if version.get("deprecated").and_then(Tree::as_bool) != Some(true) {
        return wrong("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        wrong("must be <= 256 characters long");
    }
    if warning.is_empty() {
        wrong("must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        wrong(&format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

fn check_names(e: &mut Errors, names_wanted: &Tree, path: &str) {
    let mut label = |key: String, value: &str, checked: &str, prefix: &str| {
        let wrong = names::dns1035_label(checked);
        if !value.is_empty() && !wrong.is_empty() {
            e.push(FieldError::invalid(format!("{path}.{key}"), value, format!("{prefix}{}", wrong.join(","))));
        }
    };
    for key in ["plural", "singular"] {
        let value = text(names_wanted, key);
        label(key.to_owned(), value, value, "");
    }
    for key in ["kind", "listKind"] {
        let value = text(names_wanted, key);
        label(key.to_owned(), value, &value.to_lowercase(), "may have mixed case, but should otherwise match: ");
    }
    for key in ["shortNames", "categories"] {
        for (i, value) in names_wanted.array_at(&[key]).iter().filter_map(Tree::as_str).enumerate() {
            let wrong = names::dns1035_label(value);
            if !wrong.is_empty() {
                e.push(FieldError::invalid(format!("{path}.{key}[{i}]"), value, wrong.join(",")));
            }
        }
    }
    let kind = text(names_wanted, "kind");
    if !kind.is_empty() && kind == text(names_wanted, "listKind") {
        e.push(FieldError::invalid(format!("{path}.listKind"), kind, "kind and listKind may not be the same"));
    }
}

fn simple_path(e: &mut Errors, value: &str, path: &str) -> bool {
    let is_simple = value.starts_with('.');
    if !is_simple {
        e.push(FieldError::invalid(path, value, "must be a simple json path starting with ."));
    }
    is_simple
}

fn check_columns(e: &mut Errors, columns: &[Tree], path: &str) {
    for (i, column) in columns.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if text(column, "name").is_empty() {
            e.push(FieldError::required(format!("{path}.name"), ""));
        }
        let one_of = |values: &[&str]| format!("must be one of {}", values.join(","));
        match text(column, "type") {
            "" => e.push(FieldError::required(format!("{path}.type"), one_of(&COLUMN_TYPES))),
            kind if COLUMN_TYPES.contains(&kind) => {}
            kind => e.push(FieldError::invalid(format!("{path}.type"), kind, one_of(&COLUMN_TYPES))),
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            e.push(FieldError::invalid(format!("{path}.format"), format, one_of(&COLUMN_FORMATS)));
        }
        match text(column, "jsonPath") {
            "" => e.push(FieldError::required(format!("{path}.JSONPath"), "")),
            json_path => {
                simple_path(e, json_path, &format!("{path}.JSONPath"));
            }
        }
    }
}

fn check_subresources(e: &mut Errors, subresources: &Tree, path: &str) {
    let Some(scale) = set(subresources, &["scale"]) else { return };
    for (key, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let (value, path) = (text(scale, key), format!("{path}.scale.{key}"));
        if value.is_empty() {
            e.push(FieldError::required(path, ""));
        } else if simple_path(e, value, &path) && !value.starts_with(prefix) {
            e.push(FieldError::invalid(path, value, format!("should be a json path under {}", prefix.trim_end_matches('.'))));
        }
    }
    let selector = text(scale, "labelSelectorPath");
    let path = format!("{path}.scale.labelSelectorPath");
    if !selector.is_empty() && simple_path(e, selector, &path) && !selector.starts_with(".spec.") && !selector.starts_with(".status.") {
        e.push(FieldError::invalid(path, selector, "should be a json path under either .spec or .status"));
    }
}

fn check_selectable(e: &mut Errors, fields: &[Tree], schema: Option<&Tree>, path: &str) {
    if fields.is_empty() {
        return;
    }
    let Some(schema) = schema else {
        let detail = match path {
            // The one schema that is all versions' stands there.
            "spec.selectableFields" => "may only be set when validations.schema is included",
            _ => "may only be set when `version.schema.openAPIV3Schema` is not included",
        };
        e.push(FieldError::invalid(path, "", detail));
        return;
    };
    let mut seen: Vec<&str> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let path = format!("{path}[{i}].jsonPath");
        let value = text(field, "jsonPath");
        if value.is_empty() {
            e.push(FieldError::required(path, ""));
            continue;
        }
        let Some(kind) = selected_type(schema, value) else {
            e.push(FieldError::invalid(path, value, "is an invalid path: does not refer to a valid field"));
            continue;
        };
        if value == ".metadata" || value.starts_with(".metadata.") {
            e.push(FieldError::invalid(&path, value, "must not point to fields in metadata"));
        }
        if !matches!(kind, "string" | "boolean" | "integer") {
            let detail =
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            e.push(FieldError::invalid(&path, value, detail));
        }
        if seen.contains(&value) {
            e.push(FieldError::duplicate(path, value));
        } else {
            seen.push(value);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        e.push(FieldError::too_many(path, seen.len(), SELECTABLE_MAX));
    }
}

/// The type of the field that a path of names leads to.
fn selected_type<'t>(schema: &'t Tree, path: &str) -> Option<&'t str> {
    let names = path.strip_prefix('.')?.split('.');
    let found = names.into_iter().try_fold(schema, |schema, name| schema.at(&["properties", name]));
    found.map(|schema| text(schema, "type"))
}

/// Models validateCustomResourceConversion.
fn check_conversion(e: &mut Errors, spec: &Tree, conversion: &Tree, old: Option<&Tree>) {
    let webhook = set(conversion, &["webhook"]);
    let client = webhook.and_then(|w| set(w, &["clientConfig"]));
    let versions: Vec<&str> =
        webhook.map_or(&[][..], |w| w.array_at(&["conversionReviewVersions"])).iter().filter_map(Tree::as_str).collect();
    match text(conversion, "strategy") {
        "" => e.push(FieldError::required("spec.conversion.strategy", "")),
        "Webhook" => {
            if spec.get("preserveUnknownFields").and_then(Tree::as_bool) == Some(true) {
                let detail = "must be None if spec.preserveUnknownFields is true";
                e.push(FieldError::invalid("spec.conversion.strategy", "Webhook", detail));
            }
            match client {
                None => e.push(FieldError::required("spec.conversion.webhookClientConfig", "required when strategy is set to Webhook")),
                Some(client) => check_webhook_client(e, client, &Path::new("spec.conversion.webhookClientConfig")),
            }
            check_review_versions(e, &versions, old);
        }
        "None" => {
            let detail = "should not be set when strategy is not set to Webhook";
            if client.is_some() {
                e.push(FieldError::forbidden("spec.conversion.webhookClientConfig", detail));
            }
            if !versions.is_empty() {
                e.push(FieldError::forbidden("spec.conversion.conversionReviewVersions", detail));
            }
        }
        other => e.push(FieldError::not_supported("spec.conversion.strategy", other, &["None", "Webhook"])),
    }
}

/// A definition that named no version that is known may go on without one.
fn check_review_versions(e: &mut Errors, versions: &[&str], old: Option<&Tree>) {
    const PATH: &str = "spec.conversion.conversionReviewVersions";
    if versions.is_empty() {
        e.push(FieldError::required(PATH, ""));
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            e.push(FieldError::invalid(format!("{PATH}[{i}]"), *version, "duplicate version"));
            continue;
        }
        e.extend(names::dns1035_label(version).into_iter().map(|why| FieldError::invalid(format!("{PATH}[{i}]"), *version, why)));
    }
    let is_known = |version: &str| super::REVIEW_VERSIONS.contains(&version);
    let before = old.map_or(&[][..], |old| old.array_at(&["spec", "conversion", "webhook", "conversionReviewVersions"]));
    let was_lenient = !before.is_empty() && !before.iter().filter_map(Tree::as_str).any(is_known);
    if !was_lenient && !versions.iter().any(|version| is_known(version)) {
        let all = Tree::Array(versions.iter().map(|v| Tree::from(*v)).collect());
        e.push(FieldError::invalid(PATH, &all, "must include at least one of v1, v1beta1"));
    }
}
