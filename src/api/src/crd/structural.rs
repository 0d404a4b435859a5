//! The compiled form of an `openAPIV3Schema`.
//!
//! Models apiextensions-apiserver/pkg/apiserver/schema/{structural,convert}.go, with value validations in the same node.
use std::collections::BTreeMap;

use super::pattern::Pattern;
use crate::schema::Name;
use crate::tree::Tree;

/// One place of a custom object.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    /// `object`, `string` ...; empty where the schema names none.
    pub kind: Box<str>,
    pub nullable: bool,
    pub default: Option<Tree>,
    pub properties: BTreeMap<Box<str>, Structural>,
    /// How many of them have a default.
    pub defaults: usize,
    pub additional: Option<Additional>,
    pub items: Option<Box<Structural>>,
    pub preserve: bool,
    pub embedded: bool,
    pub int_or_string: bool,
    pub list_type: Box<str>,
    pub map_type: Box<str>,
    pub list_map_keys: Vec<Box<str>>,
    /// `x-kubernetes-validations`.
    pub rules: Vec<RuleText>,
    /// Boxed: most places have none.
    pub values: Option<Box<Values>>,
}

/// `additionalProperties`.
#[derive(Clone, Debug)]
pub enum Additional {
    Allowed(bool),
    Schema(Box<Structural>),
}

/// What a value must be, beyond its type.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Without dashes; empty where it means nothing for the type.
    pub format: Name,
    /// The same as its author wrote it.
    pub format_text: Name,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub multiple_of: Option<f64>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<Box<str>>,
    pub enumeration: Vec<Tree>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

/// A validation rule as its author wrote it.
#[derive(Clone, Debug, Default)]
pub struct RuleText {
    pub rule: Box<str>,
    pub message: Box<str>,
    pub message_expression: Box<str>,
    pub reason: Option<Box<str>>,
    pub field_path: Box<str>,
    pub optional_old_self: Option<bool>,
}

impl RuleText {
    fn read(rule: &Tree) -> Self {
        let text = |key: &str| rule.str_at(&[key]).into();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: rule.get("reason").and_then(Tree::as_str).map(Box::from),
            field_path: text("fieldPath"),
            optional_old_self: rule.get("optionalOldSelf").and_then(Tree::as_bool),
        }
    }

    /// What messages call the rule.
    pub fn shown(&self) -> &str {
        if self.message.is_empty() { self.rule.trim() } else { self.message.trim() }
    }

    /// As upstream prints it: its Go struct as JSON.
    pub fn go_json(&self) -> String {
        let quoted = |text: &str| crate::field_error::shown(&Tree::from(text));
        let optional = self.optional_old_self.map_or("null".to_owned(), |b| b.to_string());
        format!(
            r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{},"FieldPath":{},"OptionalOldSelf":{optional}}}"#,
            quoted(&self.rule),
            quoted(&self.message),
            quoted(&self.message_expression),
            self.reason.as_deref().map_or("null".to_owned(), quoted),
            quoted(&self.field_path),
        )
    }
}

impl Structural {
    /// Compiles a schema that was checked; what cannot be understood restricts nothing.
    pub fn compile(schema: &Tree) -> Structural {
        let text = |key: &str| schema.str_at(&[key]).into();
        let flag = |key: &str| schema.get(key).and_then(Tree::as_bool).unwrap_or(false);
        let properties = schema.get("properties").and_then(Tree::as_object).into_iter().flat_map(|o| o.iter());
        let properties: BTreeMap<Box<str>, Structural> = properties.map(|(name, schema)| (name.into(), Structural::compile(schema))).collect();
        Structural {
            kind: text("type"),
            nullable: flag("nullable"),
            default: schema.get("default").filter(|d| !d.is_null()).cloned(),
            defaults: properties.values().filter(|property| property.default.is_some()).count(),
            properties,
            additional: match schema.get("additionalProperties") {
                Some(Tree::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
                Some(schema @ Tree::Object(_)) => Some(Additional::Schema(Box::new(Structural::compile(schema)))),
                _ => None,
            },
            items: schema.get("items").filter(|items| items.as_object().is_some()).map(|items| Box::new(Structural::compile(items))),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_type: text("x-kubernetes-list-type"),
            map_type: text("x-kubernetes-map-type"),
            list_map_keys: texts(schema, "x-kubernetes-list-map-keys"),
            rules: schema.array_at(&["x-kubernetes-validations"]).iter().map(RuleText::read).collect(),
            values: Values::compile(schema),
        }
    }

    pub fn property(&self, name: &str) -> Option<&Structural> {
        self.properties.get(name)
    }

    /// The schema of a field: its own, or that of all further ones.
    pub fn field(&self, name: &str) -> Option<&Structural> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        })
    }

    /// Whether there is a rule here or below.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.properties.values().any(Structural::has_rules)
            || self.items.as_ref().is_some_and(|items| items.has_rules())
            || matches!(&self.additional, Some(Additional::Schema(schema)) if schema.has_rules())
            || self.values.as_ref().is_some_and(|values| values.all_of.iter().any(Structural::has_rules))
    }

    pub fn has_defaults(&self) -> bool {
        self.default.is_some()
            || self.properties.values().any(Structural::has_defaults)
            || self.items.as_ref().is_some_and(|items| items.has_defaults())
            || matches!(&self.additional, Some(Additional::Schema(schema)) if schema.has_defaults())
    }
}

fn texts(schema: &Tree, key: &str) -> Vec<Box<str>> {
    schema.array_at(&[key]).iter().filter_map(Tree::as_str).map(Box::from).collect()
}

impl Values {
    /// Restricts nothing.
    pub const NONE: Values = Values {
        format: Name::Borrowed(""),
        format_text: Name::Borrowed(""),
        maximum: None,
        exclusive_maximum: false,
        minimum: None,
        exclusive_minimum: false,
        max_length: None,
        min_length: None,
        pattern: None,
        max_items: None,
        min_items: None,
        multiple_of: None,
        max_properties: None,
        min_properties: None,
        required: Vec::new(),
        enumeration: Vec::new(),
        all_of: Vec::new(),
        any_of: Vec::new(),
        one_of: Vec::new(),
        not: None,
    };

    fn compile(schema: &Tree) -> Option<Box<Values>> {
        const KEYS: [&str; 19] = [
            "format",
            "maximum",
            "minimum",
            "exclusiveMaximum",
            "exclusiveMinimum",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "multipleOf",
            "maxProperties",
            "minProperties",
            "required",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !KEYS.iter().any(|key| schema.get(key).is_some_and(|v| !v.is_null())) {
            return None;
        }
        let flag = |key: &str| schema.get(key).and_then(Tree::as_bool).unwrap_or(false);
        let integer = |key: &str| schema.get(key).and_then(Tree::as_i64);
        let number = |key: &str| match schema.get(key) {
            Some(Tree::Integer(i)) => Some(*i as f64),
            Some(Tree::Float(f)) => Some(*f),
            _ => None,
        };
        let schemas = |key: &str| schema.array_at(&[key]).iter().map(Structural::compile).collect();
        let pattern = schema.str_at(&["pattern"]);
        Some(Box::new(Values {
            format: super::format::normalized(schema.str_at(&["type"]), schema.str_at(&["format"])),
            format_text: schema.str_at(&["format"]).to_owned().into(),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            max_length: integer("maxLength"),
            min_length: integer("minLength"),
            pattern: (!pattern.is_empty()).then(|| Pattern::new(pattern)),
            max_items: integer("maxItems"),
            min_items: integer("minItems"),
            multiple_of: number("multipleOf"),
            max_properties: integer("maxProperties"),
            min_properties: integer("minProperties"),
            required: texts(schema, "required"),
            enumeration: schema.array_at(&["enum"]).to_vec(),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: schema.get("not").filter(|n| !n.is_null()).map(|not| Box::new(Structural::compile(not))),
        }))
    }
}
