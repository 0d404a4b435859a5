//! The schemas of a document: every struct that its paths reach.
use std::collections::{BTreeMap, BTreeSet};

use super::descriptions::{Descriptions, unescape};
use super::{Form, custom, object};
use crate::registry::{Registry, ResourceRef};
use crate::schema::{self, Field, ListType, Node, Schema};
use crate::tree::{Object, Tree};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const APIEXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";
/// Whose `apiVersion` and `kind` describe those of lists, which k8s-openapi has only in generic form.
const ANY_KIND: &str = "io.k8s.api.core.v1.Pod";

/// Calls `write` for every schema in `roots` and what they refer to, sorted by name. `only` limits the group versions that are named as
/// owners of a kind, as documents of one group version do.
pub(super) fn each(
    form: Form,
    mut roots: BTreeSet<String>,
    custom: &[ResourceRef],
    only: Option<(&str, &str)>,
    mut write: impl FnMut(&str, Tree),
) {
    let descriptions = Descriptions::unpack();
    let owners = owners(only);
    let custom = custom::definitions(form, custom, only, &descriptions);
    if !custom.is_empty() {
        roots.extend([format!("{META}ObjectMeta"), format!("{META}ListMeta")]);
    }
    let mut names = roots.clone();
    let mut open: Vec<String> = roots.into_iter().collect();
    while let Some(name) = open.pop() {
        let Some(fields) = schema::structure(&name) else { continue };
        for field in &fields.fields {
            if let Some(target) = target(&field.schema)
                && names.insert(target.clone())
            {
                open.push(target);
            }
        }
    }
    for name in &names {
        let definition = match custom.get(name) {
            Some(made) => made.clone(),
            None => definition(form, name, &descriptions, &owners),
        };
        write(name, definition);
    }
}

type Owners = BTreeMap<&'static str, Vec<(&'static str, &'static str, &'static str)>>;

fn owners(only: Option<(&str, &str)>) -> Owners {
    let mut owners = Owners::new();
    for (group, version, kind, type_name) in Registry::get().kind_types() {
        // Options and the like belong to every group version; a document names them for the core and for itself.
        if only.is_none_or(|own| own == (group, version) || (group, version) == ("", "v1") || !type_name.starts_with(META)) {
            owners.entry(type_name).or_default().push((group, kind, version));
        }
    }
    owners.values_mut().for_each(|gvks| gvks.sort_unstable());
    owners
}

/// The definition that a value's schema refers to, through lists and maps.
fn target(schema: &Schema) -> Option<String> {
    match &schema.node {
        Node::List(items) => target(items),
        Node::Map(values) => target(values),
        _ => reference(schema),
    }
}

fn reference(schema: &Schema) -> Option<String> {
    Some(match &schema.node {
        Node::Object(fields) => fields.name.to_string(),
        Node::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity".into(),
        Node::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
        Node::Time => format!("{META}Time"),
        Node::MicroTime => format!("{META}MicroTime"),
        Node::Duration => format!("{META}Duration"),
        Node::Any => match schema.go_type.as_ref() {
            "runtime.RawExtension" => "io.k8s.apimachinery.pkg.runtime.RawExtension".into(),
            "v1.FieldsV1" => format!("{META}FieldsV1"),
            go => format!("{APIEXTENSIONS}{}", go.strip_prefix("v1.")?),
        },
        _ => return None,
    })
}

fn definition(form: Form, name: &str, descriptions: &Descriptions, owners: &Owners) -> Tree {
    let mut out = special(form, name).unwrap_or_else(|| structure(form, name, descriptions));
    let description = descriptions.of(name);
    if !description.is_empty() {
        out.set(&["description"], description);
    } else if let Some(kind) = name.rsplit('.').next().and_then(|short| short.strip_suffix("List")) {
        out.set(&["description"], format!("{kind}List is a list of {kind} objects."));
    }
    if let Some(owners) = owners.get(name) {
        let gvks = owners
            .iter()
            .map(|(group, kind, version)| object([("group", (*group).into()), ("kind", (*kind).into()), ("version", (*version).into())]));
        out.set(&["x-kubernetes-group-version-kind"], Tree::Array(gvks.collect()));
    }
    out
}

/// Types that print themselves in another way than their struct.
fn special(form: Form, name: &str) -> Option<Tree> {
    let short = name.rsplit('.').next()?;
    let of_type = |name: &str| object([("type", name.into())]);
    let either = |a: &str, b: &str| ("oneOf", Tree::Array(vec![of_type(a), of_type(b)]));
    Some(match (short, form) {
        ("Quantity", Form::V3) => object([either("string", "number")]),
        ("IntOrString", Form::V3) => object([either("integer", "string"), ("format", "int-or-string".into())]),
        ("IntOrString", Form::V2) => object([("type", "string".into()), ("format", "int-or-string".into())]),
        ("Quantity" | "Duration", _) => of_type("string"),
        ("Time" | "MicroTime", _) => object([("type", "string".into()), ("format", "date-time".into())]),
        ("RawExtension" | "FieldsV1" | "Patch", _) => of_type("object"),
        ("JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray", _) => Tree::object(),
        _ => return None,
    })
}

pub(super) fn structure(form: Form, name: &str, descriptions: &Descriptions) -> Tree {
    let mut out = object([("type", "object".into())]);
    let Some(structure) = schema::structure(name) else { return out };
    let texts = descriptions.of_fields(name);
    let common = descriptions.of_fields(ANY_KIND);
    let mut properties = Object::new();
    for field in &structure.fields {
        let inherited = || if field.embedded_in == "TypeMeta" { common.get(field.name.as_ref()) } else { None };
        let description = texts.get(field.name.as_ref()).or_else(inherited).copied();
        properties.insert(field.name.as_ref(), property(form, field, description));
    }
    if !properties.is_empty() {
        out.set(&["properties"], properties);
    }
    let required: Vec<Tree> = structure.fields.iter().filter(|f| f.required).map(|f| f.name.as_ref().into()).collect();
    if !required.is_empty() {
        out.set(&["required"], Tree::Array(required));
    }
    if structure.atomic {
        out.set(&["x-kubernetes-map-type"], "atomic");
    }
    out
}

fn property(form: Form, field: &Field, description: Option<&str>) -> Tree {
    let schema = &field.schema;
    let default = match (form, schema.default()) {
        (Form::V2, None) => None,
        (_, Some(default)) => Some(default.clone()),
        (Form::V3, None) => field.zero_default.then(|| zero(schema)),
    };
    let mut out = match reference(schema) {
        // Siblings of a reference are ignored in v3, so it is wrapped.
        Some(name) if form == Form::V3 => object([("allOf", Tree::Array(vec![form.reference(&name)]))]),
        Some(name) => form.reference(&name),
        None => value(form, schema, field.zero_item_default),
    };
    if let Some(description) = description {
        out.set(&["description"], unescape(description) + &possible_values(schema));
    }
    if let Some(default) = default {
        out.set(&["default"], default);
    }
    extensions(&mut out, schema);
    out
}

/// Upstream ends the description of an enumeration so; what each value means is not among the facts.
fn possible_values(schema: &Schema) -> String {
    if schema.enumeration().is_empty() {
        return String::new();
    }
    let values: Vec<String> = schema.enumeration().iter().map(|v| format!(" - `\"{v}\"`")).collect();
    format!("\n\nPossible enum values:\n{}", values.join("\n"))
}

fn zero(schema: &Schema) -> Tree {
    match schema.node {
        Node::String | Node::Bytes => "".into(),
        Node::Integer { .. } | Node::Number => 0.into(),
        Node::Boolean => false.into(),
        _ => Tree::object(),
    }
}

/// A value's schema where no struct of its own stands behind it, or a plain reference.
fn value(form: Form, schema: &Schema, item_default: bool) -> Tree {
    if let Some(name) = reference(schema) {
        if form == Form::V3 && item_default {
            return object([("allOf", Tree::Array(vec![form.reference(&name)])), ("default", Tree::object())]);
        }
        return form.reference(&name);
    }
    let inner = |schema: &Schema| {
        let mut inner = value(form, schema, item_default);
        if form == Form::V3 && item_default && reference(schema).is_none() {
            inner.set(&["default"], zero(schema));
        }
        inner
    };
    let scalar = |kind: &str, format: &str| {
        let mut out = object([("type", kind.into())]);
        if !format.is_empty() {
            out.set(&["format"], format);
        }
        out
    };
    let mut out = match &schema.node {
        Node::List(items) => object([("type", "array".into()), ("items", inner(items))]),
        Node::Map(values) => object([("type", "object".into()), ("additionalProperties", inner(values))]),
        Node::Bytes => scalar("string", "byte"),
        Node::Integer { bits: 64, .. } if schema.go_type != "int" => scalar("integer", "int64"),
        Node::Integer { .. } => scalar("integer", "int32"),
        Node::Number => scalar("number", "double"),
        Node::Boolean => scalar("boolean", ""),
        Node::Any => Tree::object(),
        _ => scalar("string", ""),
    };
    if !schema.enumeration().is_empty() {
        let values = Tree::Array(schema.enumeration().iter().map(|v| v.as_ref().into()).collect());
        let place: &[&str] = if schema.is_list() { &["items", "enum"] } else { &["enum"] };
        out.set(place, values);
    }
    out
}

fn extensions(out: &mut Tree, schema: &Schema) {
    if let Some(list_type) = schema.list_type() {
        let name = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        out.set(&["x-kubernetes-list-type"], name);
    }
    if !schema.map_keys().is_empty() {
        let keys = schema.map_keys().iter().map(|key| key.as_ref().into()).collect();
        out.set(&["x-kubernetes-list-map-keys"], Tree::Array(keys));
    }
    if schema.is_atomic_map() && matches!(schema.node, Node::Map(_)) {
        out.set(&["x-kubernetes-map-type"], "atomic");
    }
    if let Some(key) = schema.patch_merge_key() {
        out.set(&["x-kubernetes-patch-merge-key"], key);
    }
    let strategy = schema.patch_strategy();
    let words: Vec<&str> = [(strategy.merge, "merge"), (strategy.replace, "replace"), (strategy.retain_keys, "retainKeys")]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, word)| word)
        .collect();
    if !words.is_empty() {
        out.set(&["x-kubernetes-patch-strategy"], words.join(","));
    }
}
