//! The schema of a custom kind as the OpenAPI documents show it.
//!
//! Models apiextensions-apiserver/pkg/controller/openapi/{builder,v2} and pkg/apiserver/schema/{kubeopenapi,unfold}.go.
use super::Custom;
use crate::tree::{Object, Tree};

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const GENERIC: [&str; 7] = ["type", "nullable", "description", "title", "default", "externalDocs", "example"];
const EXTENSIONS: [&str; 6] =
    [PRESERVE, EMBEDDED, "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type"];
const VALUES: [&str; 16] = [
    "format",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "enum",
    "maxProperties",
    "minProperties",
    "required",
];
const JUNCTORS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// What differs between the documents.
#[derive(Clone)]
pub struct Published<'p> {
    /// kubectl cannot cope with everything in the older form, so much is left out of it.
    pub is_v2: bool,
    /// The schemas of fields that every resource has: `apiVersion`, `kind`, and the reference to ObjectMeta.
    pub api_version: &'p Tree,
    pub kind: &'p Tree,
    pub metadata: &'p Tree,
}

/// The definition of the kind, without its group, version and kind.
pub fn published(custom: &Custom, form: &Published) -> Tree {
    let source = &custom.source;
    let is_open = flag(source, PRESERVE);
    if source.is_null() || (form.is_v2 && is_open) {
        // Fields would make kubectl refuse all others.
        return object([("type", "object".into())]);
    }
    let mut out = schema(source, form, true);
    out.set(&["properties", "metadata"], form.metadata.clone());
    out.set(&["properties", "apiVersion"], form.api_version.clone());
    out.set(&["properties", "kind"], form.kind.clone());
    out
}

fn object<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    Tree::Object(entries.into_iter().collect())
}

fn flag(schema: &Tree, key: &str) -> bool {
    schema.get(key).and_then(Tree::as_bool).unwrap_or(false)
}

fn is_said(value: &Tree) -> bool {
    match value {
        Tree::Null | Tree::Bool(false) => false,
        Tree::String(text) => !text.is_empty(),
        Tree::Array(items) => !items.is_empty(),
        _ => true,
    }
}

fn schema(source: &Tree, form: &Published, is_structural: bool) -> Tree {
    let mut out = Object::new();
    for key in GENERIC.into_iter().chain(EXTENSIONS).chain(VALUES) {
        let keeps_default = !form.is_v2 && key == "default";
        if let Some(value) = source.get(key).filter(|v| (is_said(v) && key != "default") || (keeps_default && !v.is_null())) {
            out.insert(key, value.clone());
        }
    }
    let items = source.get("items").filter(|s| s.as_object().is_some());
    let properties: Object = source
        .get("properties")
        .and_then(Tree::as_object)
        .into_iter()
        .flat_map(|o| o.iter())
        .map(|(name, property)| (name, schema(property, form, is_structural)))
        .collect();
    if let Some(items) = items {
        out.insert("items", schema(items, form, is_structural));
    }
    if !properties.is_empty() {
        out.insert("properties", properties);
    }
    match source.get("additionalProperties") {
        Some(Tree::Bool(allowed)) => drop(out.insert("additionalProperties", *allowed)),
        Some(further @ Tree::Object(_)) => drop(out.insert("additionalProperties", schema(further, form, is_structural))),
        _ => {}
    }
    if !form.is_v2 {
        junctors(&mut out, source, form);
    }
    let mut out = Tree::Object(out);
    if form.is_v2 {
        simplify(&mut out, source);
    } else if is_structural && flag(source, "x-kubernetes-int-or-string") {
        unfold(&mut out, source);
    }
    if is_structural && flag(source, EMBEDDED) && !(form.is_v2 && flag(source, PRESERVE)) {
        embed(&mut out, form);
    }
    out
}

fn junctors(out: &mut Object, source: &Tree, form: &Published) {
    for key in JUNCTORS {
        let inner: Vec<Tree> = source.array_at(&[key]).iter().map(|inner| schema(inner, form, false)).collect();
        if !inner.is_empty() {
            out.insert(key, inner);
        }
    }
    if let Some(not) = source.get("not").filter(|n| !n.is_null()) {
        out.insert("not", schema(not, form, false));
    }
}

fn int_or_string() -> Tree {
    Tree::Array(vec![object([("type", "integer".into())]), object([("type", "string".into())])])
}

/// What `x-kubernetes-int-or-string` means, spelled out.
fn unfold(out: &mut Tree, source: &Tree) {
    let either = int_or_string();
    let any_of = source.get("anyOf").filter(|a| is_said(a));
    let is_spelled_out =
        any_of == Some(&either) || source.array_at(&["allOf"]).first().is_some_and(|first| first.get("anyOf") == Some(&either));
    if is_spelled_out {
        return;
    }
    if any_of.is_none() {
        out.set(&["anyOf"], either);
        return;
    }
    let mut all_of = vec![object([("anyOf", either)])];
    all_of.extend(out.array_at(&["allOf"]).iter().cloned());
    out.set(&["allOf"], Tree::Array(all_of));
}

/// Takes out what kubectl's reader of the older documents stumbles over.
fn simplify(out: &mut Tree, source: &Tree) {
    let preserves = flag(source, PRESERVE);
    let forget = |out: &mut Tree, keys: &[&str]| keys.iter().for_each(|key| drop(out.remove(&[key])));
    if flag(source, "nullable") {
        forget(out, &["type", "nullable", "items", "properties"]);
    }
    if preserves {
        forget(out, &["items", "properties"]);
    }
    let kind = out.str_at(&["type"]).to_owned();
    if (kind == "array" && out.get("items").is_none()) || (kind == "object" && preserves) {
        forget(out, &["type"]);
    }
    let nullable = |name: &str| source.at(&["properties", name]).is_some_and(|p| flag(p, "nullable"));
    let required: Vec<Tree> = out.array_at(&["required"]).iter().filter(|name| !name.as_str().is_some_and(nullable)).cloned().collect();
    let is_nullable_map = source.get("additionalProperties").is_some_and(|further| flag(further, "nullable"));
    if required.is_empty() || is_nullable_map {
        forget(out, &["required"]);
    } else {
        out.set(&["required"], Tree::Array(required));
    }
}

fn embed(out: &mut Tree, form: &Published) {
    let described = |schema: &Tree, text: &str| {
        let mut schema = schema.clone();
        schema.set(&["description"], text);
        schema
    };
    const API_VERSION: &str = "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    const KIND: &str = "kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    out.set(&["properties", "apiVersion"], described(form.api_version, API_VERSION));
    out.set(&["properties", "kind"], described(form.kind, KIND));
    out.set(&["properties", "metadata"], form.metadata.clone());
    let mut required = out.array_at(&["required"]).to_vec();
    for name in ["kind", "apiVersion"] {
        if !required.iter().any(|r| r.as_str() == Some(name)) {
            required.push(name.into());
        }
    }
    out.set(&["required"], Tree::Array(required));
}
