//! Whether an `openAPIV3Schema` is structural, and whether all in it makes sense.
//!
//! Models apiextensions-apiserver/pkg/apiserver/schema/validation.go, pkg/apis/apiextensions/validation/validation.go
//! (ValidateCustomResourceDefinitionOpenAPISchema) and pkg/apiserver/schema/defaulting/validation.go.
use super::coerce::{self, Malformed};
use super::structural::Structural;
use super::check_rules::{self, Known};
use super::{default, pattern, value};
use crate::field_error::FieldError;
use crate::tree::Tree;

type Errors = Vec<FieldError>;

const META: [&str; 3] = ["metadata", "kind", "apiVersion"];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const AT_ROOT: [&str; 22] = [
    "description",
    "type",
    "format",
    "title",
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
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

fn text<'t>(schema: &'t Tree, key: &str) -> &'t str {
    schema.str_at(&[key])
}

fn set<'t>(schema: &'t Tree, key: &str) -> Option<&'t Tree> {
    schema.get(key).filter(|v| !v.is_null())
}

fn flag(schema: &Tree, key: &str) -> bool {
    schema.get(key).and_then(Tree::as_bool).unwrap_or(false)
}

fn list<'t>(schema: &'t Tree, key: &str) -> &'t [Tree] {
    schema.array_at(&[key])
}

fn properties(schema: &Tree) -> impl Iterator<Item = (&str, &Tree)> {
    schema.get("properties").and_then(Tree::as_object).into_iter().flat_map(|o| o.iter())
}

/// `additionalProperties` where it is a schema.
fn further(schema: &Tree) -> Option<&Tree> {
    schema.get("additionalProperties").filter(|s| s.as_object().is_some())
}

/// `items` where it is one schema.
fn items(schema: &Tree) -> Option<&Tree> {
    schema.get("items").filter(|s| s.as_object().is_some())
}

/// Checks a `CustomResourceValidation` that stands at `path`.
/// `known` are the rules that the stored definition has already.
pub fn validation(e: &mut Errors, validation: &Tree, has_status: bool, known: &Known, path: &str) {
    let Some(schema) = set(validation, "openAPIV3Schema") else { return };
    let path = format!("{path}.openAPIV3Schema");
    if has_status {
        at_root(e, schema, &path);
    }
    if flag(schema, "nullable") {
        e.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let mut found = Errors::new();
    structural(&mut found, schema, &path);
    let compiled = found.is_empty().then(|| Structural::compile(schema));
    if let Some(compiled) = &compiled {
        defaults(&mut found, compiled, compiled, false, &path);
    }
    e.append(&mut found);
    let context = Context { defaults_forbidden: None, inside_meta: false };
    let before = e.len();
    node(e, schema, &path, true, context);
    if let Some(compiled) = compiled {
        let wrong: Vec<String> = e[before..].iter().map(|error| error.path.clone()).collect();
        check_rules::programs(e, &compiled, known, &path, &wrong);
    }
}

fn at_root(e: &mut Errors, schema: &Tree, path: &str) {
    if text(schema, "type") != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        e.push(FieldError::invalid(format!("{path}.type"), text(schema, "type"), detail));
        return;
    }
    let strange = schema.as_object().into_iter().flat_map(|o| o.iter()).find(|(key, value)| !value.is_null() && !AT_ROOT.contains(key));
    if strange.is_some() {
        let allowed = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems \
                       UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations]";
        let detail = format!("only {allowed} fields are allowed at the root of the schema if the status subresource is enabled");
        e.push(FieldError::invalid(path, schema, detail));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Whether the schema is structural; errors sorted by their text.
pub fn structural(e: &mut Errors, schema: &Tree, path: &str) {
    let mut found = Errors::new();
    invariants(&mut found, schema, Level::Root, path);
    complete(&mut found, schema, schema, path);
    found.sort_by_key(ToString::to_string);
    e.append(&mut found);
}

fn invariants(e: &mut Errors, schema: &Tree, level: Level, path: &str) {
    let kind = text(schema, "type");
    let (embedded, preserve, int_or_string) = (
        flag(schema, "x-kubernetes-embedded-resource"),
        flag(schema, "x-kubernetes-preserve-unknown-fields"),
        flag(schema, "x-kubernetes-int-or-string"),
    );
    let at = |field: &str| format!("{path}.{field}");
    match items(schema) {
        Some(inner) => invariants(e, inner, Level::Item, &at("items")),
        None if kind == "array" => e.push(FieldError::required(at("items"), "must be specified")),
        None => {}
    }
    for (name, property) in properties(schema) {
        invariants(e, property, Level::Field, &format!("{path}.properties[{name}]"));
    }
    if set(schema, "additionalProperties").is_some() {
        if level == Level::Root {
            e.push(FieldError::forbidden(at("additionalProperties"), "must not be used at the root"));
        }
        if let Some(inner) = further(schema) {
            invariants(e, inner, Level::Field, &at("additionalProperties"));
        }
        if embedded {
            e.push(FieldError::forbidden(at("additionalProperties"), "must not be used if x-kubernetes-embedded-resource is set"));
        }
    }
    if int_or_string {
        for (key, on) in [("x-kubernetes-preserve-unknown-fields", preserve), ("x-kubernetes-embedded-resource", embedded)] {
            if on {
                e.push(FieldError::invalid(at(key), true, "must be false if x-kubernetes-int-or-string is true"));
            }
        }
    }
    let any_of = is_int_or_string(list(schema, "anyOf"));
    let all_of = list(schema, "allOf").first().is_some_and(|first| is_int_or_string(list(first, "anyOf")));
    value_validation(e, schema, any_of, all_of, path);
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        let path = at("type");
        e.push(if kind.is_empty() { FieldError::required(path, detail) } else { FieldError::invalid(path, kind, detail) });
    } else if kind.is_empty() && !int_or_string && !preserve {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        e.push(FieldError::required(at("type"), detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        e.push(FieldError::invalid(at("type"), kind, "must be object at the root"));
    }
    let checks_meta = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(property) = schema.at(&["properties", name]).filter(|p| checks_meta && text(p, "type") != "string") {
            e.push(FieldError::invalid(format!("{path}.properties[{name}].type"), text(property, "type"), "must be string"));
        }
    }
    if let Some(metadata) = schema.at(&["properties", "metadata"]) {
        meta_invariants(e, metadata, checks_meta, level, &format!("{path}.properties[metadata]"));
    }
    if embedded && !preserve && properties(schema).next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        e.push(FieldError::required(at("properties"), detail));
    }
}

fn meta_invariants(e: &mut Errors, metadata: &Tree, checks: bool, level: Level, path: &str) {
    if checks && text(metadata, "type") != "object" {
        e.push(FieldError::invalid(format!("{path}.type"), text(metadata, "type"), "must be object"));
    }
    if level != Level::Root {
        return;
    }
    let only_names = properties(metadata).all(|(name, _)| matches!(name, "name" | "generateName"));
    let says_more = metadata.as_object().into_iter().flat_map(|o| o.iter()).any(|(key, value)| {
        let counts = !value.is_null() && !matches!(key, "type" | "default") && (key != "properties" || !only_names);
        counts && !matches!(value, Tree::Bool(false)) && value.as_str() != Some("")
    });
    if says_more {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        e.push(FieldError::forbidden(path, detail));
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, the one place where types may stand in a junctor.
fn is_int_or_string(any_of: &[Tree]) -> bool {
    let is = |schema: &Tree, kind: &str| schema.as_object().is_some_and(|o| o.len() == 1) && text(schema, "type") == kind;
    any_of.len() == 2 && is(&any_of[0], "integer") && is(&any_of[1], "string")
}

fn value_validation(e: &mut Errors, schema: &Tree, skip_any_of: bool, skip_first_all_of: bool, path: &str) {
    if !skip_any_of {
        for (i, inner) in list(schema, "anyOf").iter().enumerate() {
            nested(e, inner, false, &format!("{path}.anyOf[{i}]"));
        }
    }
    for (i, inner) in list(schema, "allOf").iter().enumerate() {
        nested(e, inner, skip_first_all_of && i == 0, &format!("{path}.allOf[{i}]"));
    }
    for (i, inner) in list(schema, "oneOf").iter().enumerate() {
        nested(e, inner, false, &format!("{path}.oneOf[{i}]"));
    }
    if let Some(not) = set(schema, "not") {
        nested(e, not, false, &format!("{path}.not"));
    }
    let expression = text(schema, "pattern");
    if !expression.is_empty()
        && let Err(why) = pattern::compile(expression)
    {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        e.push(FieldError::invalid(format!("{path}.pattern"), expression, detail));
    }
}

/// A schema under a junctor, which may restrict values and nothing else.
fn nested(e: &mut Errors, schema: &Tree, skip_any_of: bool, path: &str) {
    value_validation(e, schema, skip_any_of, false, path);
    if let Some(inner) = items(schema) {
        nested(e, inner, false, &format!("{path}.items"));
    }
    for (name, property) in properties(schema) {
        nested(e, property, false, &format!("{path}.properties[{name}]"));
    }
    const FORBIDDEN: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    for (key, detail) in FORBIDDEN {
        let is_said = set(schema, key).is_some_and(|value| match value {
            Tree::Bool(on) => *on || key == "additionalProperties" || key == "default",
            Tree::String(text) => !text.is_empty() || key == "default",
            Tree::Array(items) => !items.is_empty() || key == "default",
            _ => true,
        });
        if is_said {
            e.push(FieldError::forbidden(format!("{path}.{key}"), detail));
        }
    }
    if schema.at(&["properties", "metadata"]).is_some() {
        e.push(FieldError::forbidden(format!("{path}.properties[metadata]"), "must not be specified in a nested context"));
    }
}

/// Whatever a junctor speaks of must also stand outside of it. Models complete.go, which looks at the junctors of the root only.
fn complete(e: &mut Errors, junctors: &Tree, schema: &Tree, path: &str) {
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, inner) in list(junctors, key).iter().enumerate() {
            complete_nested(e, inner, Some(schema), path, &format!("{path}.{key}[{i}]"));
        }
    }
    if let Some(not) = set(junctors, "not") {
        complete_nested(e, not, Some(schema), path, &format!("{path}.not"));
    }
}

fn complete_nested(e: &mut Errors, nested: &Tree, schema: Option<&Tree>, structural_path: &str, path: &str) {
    let Some(schema) = schema else {
        e.push(FieldError::required(structural_path, format!("because it is defined in {path}")));
        return;
    };
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, inner) in list(nested, key).iter().enumerate() {
            complete_nested(e, inner, Some(schema), structural_path, &format!("{path}.{key}[{i}]"));
        }
    }
    if let Some(not) = set(nested, "not") {
        complete_nested(e, not, Some(schema), structural_path, &format!("{path}.not"));
    }
    if let Some(inner) = items(nested) {
        complete_nested(e, inner, items(schema), &format!("{structural_path}.items"), &format!("{path}.items"));
    }
    for (name, inner) in properties(nested) {
        let place = format!("properties[{name}]");
        complete_nested(e, inner, schema.at(&["properties", name]), &format!("{structural_path}.{place}"), &format!("{path}.{place}"));
    }
}

/// Whether every default is an object of its schema.
fn defaults(e: &mut Errors, schema: &Structural, root: &Structural, inside_meta: bool, path: &str) {
    let (root, inside_meta) = if schema.embedded { (schema, false) } else { (root, inside_meta) };
    if let Some(set_to) = &schema.default {
        let path = format!("{path}.default");
        if !inside_meta {
            let mut pruned = set_to.clone();
            default::prune(&mut pruned, schema, schema.embedded, None);
            if pruned != *set_to {
                e.push(FieldError::invalid(&path, set_to, "must not have unknown fields"));
            }
            let mut coerced = set_to.clone();
            let mut found = Errors::new();
            match coerce::embedded(&mut coerced, schema, Malformed::Refused, &mut Vec::new()) {
                Err(error) => found.push(FieldError { path: below(&path, &error.path), ..error }),
                Ok(()) if schema.embedded => coerce::check_root(&mut found, schema, set_to, &path),
                Ok(()) => coerce::check_embedded(&mut found, schema, set_to),
            }
            if found.is_empty() {
                value::part(&mut found, schema, set_to, None, &path);
            }
            e.append(&mut found);
        } else {
            value::part(e, schema, set_to, None, &path);
        }
    }
    if let Some(inner) = &schema.items {
        defaults(e, inner, root, inside_meta, &format!("{path}.items"));
    }
    for (name, property) in &schema.properties {
        let inside = inside_meta || (schema.embedded && META.contains(&&**name));
        defaults(e, property, root, inside, &format!("{path}.properties[{name}]"));
    }
}

fn below(path: &str, inner: &str) -> String {
    if inner.is_empty() { path.to_owned() } else { format!("{path}.{inner}") }
}

#[derive(Clone, Copy)]
struct Context<'c> {
    /// Why defaults may not stand here.
    defaults_forbidden: Option<&'c str>,
    inside_meta: bool,
}

/// One node of the schema and all below it.
fn node(e: &mut Errors, schema: &Tree, path: &str, is_root: bool, context: Context) {
    standard(e, schema, path, context);
    let at = |field: &str| format!("{path}.{field}");
    if flag(schema, "uniqueItems") {
        e.push(FieldError::forbidden(
            at("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    let has_properties = properties(schema).next().is_some();
    if let Some(additional) = set(schema, "additionalProperties") {
        if has_properties && additional.as_bool() != Some(true) {
            e.push(FieldError::forbidden(at("additionalProperties"), "additionalProperties and properties are mutual exclusive"));
        }
        if let Some(inner) = further(schema) {
            let forbidden = if context.inside_meta {
                Some("inside additionalProperties applying to object metadata")
            } else {
                context.defaults_forbidden
            };
            node(e, inner, &at("additionalProperties"), false, Context { defaults_forbidden: forbidden, ..context });
        }
    }
    for (name, property) in properties(schema) {
        let is_meta = (is_root || flag(schema, "x-kubernetes-embedded-resource")) && META.contains(&name);
        let reason = format!("in top-level {name}");
        let inner = Context {
            defaults_forbidden: if is_meta && is_root { Some(&reason) } else { context.defaults_forbidden },
            inside_meta: context.inside_meta || is_meta,
        };
        node(e, property, &format!("{path}.properties[{name}]"), false, inner);
    }
    if let Some(not) = set(schema, "not") {
        node(e, not, &at("not"), false, context);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (i, inner) in list(schema, key).iter().enumerate() {
            node(e, inner, &format!("{path}.{key}[{i}]"), false, context);
        }
    }
    match set(schema, "items") {
        Some(Tree::Array(several)) => {
            several.iter().enumerate().for_each(|(i, inner)| node(e, inner, &format!("{path}.items[{i}]"), false, context))
        }
        Some(inner) => node(e, inner, &at("items"), false, context),
        None => {}
    }
    extensions(e, schema, path);
    list_map(e, schema, path);
    if !list(schema, "x-kubernetes-validations").is_empty() {
        check_rules::texts(e, schema, path);
    }
}

fn standard(e: &mut Errors, schema: &Tree, path: &str, context: Context) {
    let at = |field: &str| format!("{path}.{field}");
    let kind = text(schema, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        e.push(FieldError::not_supported(at("type"), kind, &TYPES));
    }
    if let (Some(_), Some(reason)) = (set(schema, "default"), context.defaults_forbidden) {
        e.push(FieldError::forbidden(at("default"), format!("must not be set {reason}")));
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let is_said = set(schema, key).is_some_and(|v| v.as_str() != Some("") && v.as_object().is_none_or(|o| !o.is_empty()));
        if is_said {
            e.push(FieldError::forbidden(at(key), format!("{key} is not supported")));
        }
    }
    if kind == "null" {
        e.push(FieldError::forbidden(at("type"), "type cannot be set to null, use nullable as an alternative"));
    }
    if matches!(schema.get("items"), Some(Tree::Array(several)) if !several.is_empty()) {
        e.push(FieldError::forbidden(at("items"), "items must be a schema object and not an array"));
    }
    if context.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
        e.push(FieldError::forbidden(at("x-kubernetes-embedded-resource"), "must not be used inside of resource meta"));
    }
}

fn extensions(e: &mut Errors, schema: &Tree, path: &str) {
    let at = |field: &str| format!("{path}.{field}");
    let kind = text(schema, "type");
    if schema.get("x-kubernetes-preserve-unknown-fields").and_then(Tree::as_bool) == Some(false) {
        e.push(FieldError::invalid(at("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined"));
    }
    let mut needs = |key: &str, wanted: &str| {
        if set(schema, key).is_none() || kind == wanted {
            return false;
        }
        let detail = format!("must be {wanted} if {key} is specified");
        e.push(if kind.is_empty() { FieldError::required(at("type"), detail) } else { FieldError::invalid(at("type"), kind, detail) });
        true
    };
    needs("x-kubernetes-map-type", "object");
    let is_wrong_list = needs("x-kubernetes-list-type", "array");
    let map_type = set(schema, "x-kubernetes-map-type").and_then(Tree::as_str);
    if let Some(map_type) = map_type.filter(|t| !matches!(*t, "atomic" | "granular")) {
        e.push(FieldError::not_supported(at("x-kubernetes-map-type"), map_type, &["atomic", "granular"]));
    }
    let list_type = set(schema, "x-kubernetes-list-type").and_then(Tree::as_str);
    if !is_wrong_list
        && list_type == Some("set")
        && let Some(inner) = items(schema)
    {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let of = |key: &str| set(inner, key).and_then(Tree::as_str);
        match text(inner, "type") {
            "array" if of("x-kubernetes-list-type").is_some_and(|t| t != "atomic") => {
                e.push(FieldError::invalid(at("items.x-kubernetes-list-type"), inner.get("x-kubernetes-list-type"), detail));
            }
            "object" if of("x-kubernetes-map-type") != Some("atomic") => {
                e.push(FieldError::invalid(at("items.x-kubernetes-map-type"), inner.get("x-kubernetes-list-type"), detail));
            }
            _ => {}
        }
    }
    if let Some(list_type) = list_type.filter(|t| !matches!(*t, "atomic" | "set" | "map")) {
        e.push(FieldError::not_supported(at("x-kubernetes-list-type"), list_type, &["atomic", "set", "map"]));
    }
}

fn list_map(e: &mut Errors, schema: &Tree, path: &str) {
    let at = |field: &str| format!("{path}.{field}");
    let list_type = set(schema, "x-kubernetes-list-type").and_then(Tree::as_str);
    let keys = list(schema, "x-kubernetes-list-map-keys");
    if !keys.is_empty() && list_type != Some("map") {
        let (path, detail) = (at("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty");
        e.push(list_type.map_or_else(|| FieldError::required(&path, detail), |t| FieldError::invalid(&path, t, detail)));
    }
    let inner = items(schema);
    if matches!(list_type, Some("map" | "set"))
        && let (Some(list_type), Some(inner)) = (list_type, inner)
        && flag(inner, "nullable")
    {
        e.push(FieldError::forbidden(at("items.nullable"), format!("cannot be nullable when x-kubernetes-list-type is {list_type}")));
    }
    if list_type != Some("map") {
        return;
    }
    if keys.is_empty() {
        e.push(FieldError::required(at("x-kubernetes-list-map-keys"), "must not be empty if x-kubernetes-list-type is map"));
    }
    let Some(inner) = inner else {
        e.push(FieldError::required(at("items"), "must have a schema if x-kubernetes-list-type is map"));
        return;
    };
    if text(inner, "type") != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        e.push(FieldError::invalid(at("items.type"), text(inner, "type"), detail));
        return;
    }
    let all = schema.get("x-kubernetes-list-map-keys");
    let required: Vec<&str> = list(inner, "required").iter().filter_map(Tree::as_str).collect();
    for (i, key) in keys.iter().filter_map(Tree::as_str).enumerate() {
        let place = format!("{path}.items.properties[{key}]");
        match inner.at(&["properties", key]) {
            Some(property) => {
                if matches!(text(property, "type"), "array" | "object") {
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    e.push(FieldError::invalid(format!("{place}.type"), "object", detail));
                }
                if !required.contains(&key) && set(property, "default").is_none() {
                    let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                    e.push(FieldError::required(format!("{place}.default"), detail));
                }
                if flag(property, "nullable") {
                    let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                    e.push(FieldError::forbidden(format!("{place}.nullable"), detail));
                }
            }
            None => e.push(FieldError::invalid(at("x-kubernetes-list-map-keys"), all, "entries must all be names of item properties")),
        }
        if keys[..i].iter().any(|other| other.as_str() == Some(key)) {
            e.push(FieldError::invalid(at("x-kubernetes-list-map-keys"), all, "must not contain duplicate entries"));
        }
    }
}
