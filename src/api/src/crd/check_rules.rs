//! Whether the rules of a schema may stand in a definition: they compile, and cannot cost too much.
//!
//! Models apiextensions-apiserver/pkg/apis/apiextensions/validation/{validation,cel_validation}.go.
use std::collections::HashSet;

use cel::{Declared, DeclaredSizes, Environment, Program, Type, Version};

use super::declare::declare;
use super::field_path;
use super::rules::Scope;
use super::structural::{Additional, RuleText, Structural};
use crate::field_error::{BadValue, ErrorType, FieldError};
use crate::tree::Tree;

const RULE_COST_MAX: u64 = 10_000_000;
const SCHEMA_COST_MAX: u64 = 100_000_000;
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Rules and message expressions that the stored definition has already: they may use all that its server knew.
pub type Known = HashSet<Box<str>>;

/// Collects what a schema's rules say.
pub fn known(known: &mut Known, schema: &Tree) {
    for rule in schema.array_at(&["x-kubernetes-validations"]) {
        for key in ["rule", "messageExpression"] {
            let text = rule.str_at(&[key]);
            if !text.is_empty() {
                known.insert(text.into());
            }
        }
    }
    match schema {
        Tree::Object(fields) => {
            for (name, value) in fields.iter() {
                if name != "x-kubernetes-validations" {
                    self::known(known, value);
                }
            }
        }
        Tree::Array(items) => items.iter().for_each(|item| self::known(known, item)),
        _ => {}
    }
}

/// What is wrong with the texts alone.
pub fn texts(e: &mut Vec<FieldError>, schema: &Tree, path: &str) {
    let compiled = Structural::compile(schema);
    let rules = schema.array_at(&["x-kubernetes-validations"]);
    for (i, (rule, text)) in rules.iter().zip(&compiled.rules).enumerate() {
        let at = |field: &str| format!("{path}.x-kubernetes-validations[{i}].{field}");
        let lines = |text: &str| text.contains(['\n', '\r']);
        let (trimmed, message) = (text.rule.trim(), text.message.trim());
        if trimmed.is_empty() {
            e.push(FieldError::required(at("rule"), "rule is not specified"));
        } else if !text.message.is_empty() && message.is_empty() {
            e.push(FieldError::invalid(at("message"), &*text.message, "must be non-empty if specified"));
        } else if lines(message) {
            e.push(FieldError::invalid(at("message"), &*text.message, "must not contain line breaks"));
        } else if lines(trimmed) && message.is_empty() {
            e.push(FieldError::required(at("message"), "message must be specified if rule contains line breaks"));
        }
        if !text.message_expression.is_empty() && text.message_expression.trim().is_empty() {
            e.push(FieldError::required(at("messageExpression"), "messageExpression must be non-empty if specified"));
        }
        if let Some(reason) = rule.get("reason").and_then(Tree::as_str).filter(|reason| !REASONS.contains(reason)) {
            e.push(FieldError::not_supported(at("reason"), reason, &REASONS));
        }
        if text.field_path.is_empty() {
            continue;
        }
        if text.field_path.trim().is_empty() {
            e.push(FieldError::invalid(at("fieldPath"), &*text.field_path, "must be non-empty if specified"));
        }
        if lines(&text.field_path) {
            e.push(FieldError::invalid(at("fieldPath"), &*text.field_path, "must not contain line breaks"));
        }
        if field_path::normalized(&text.field_path, &compiled).is_none() {
            e.push(FieldError::invalid(at("fieldPath"), &*text.field_path, "must be a valid path"));
        }
    }
}

/// What is wrong with the rules of a schema; those of a place where anything else is `wrong`, or below which it is, are not looked at.
pub fn programs(e: &mut Vec<FieldError>, schema: &Structural, known: &Known, path: &str, wrong: &[String]) {
    if !schema.has_rules() {
        return;
    }
    let Some(declared) = declare(schema, true, "selfType") else { return };
    let mut total = Total { errors: Vec::new(), known, wrong, cost: 0, dearest: Vec::new() };
    total.node(schema, &declared, path, Some(1), None);
    let Total { errors, cost, dearest, .. } = total;
    e.extend(errors);
    if cost > SCHEMA_COST_MAX {
        for (_, path) in dearest {
            e.push(FieldError::forbidden(
                path,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            ));
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        e.push(FieldError::forbidden(path, too_dear(name, cost, SCHEMA_COST_MAX)));
    }
}

struct Total<'k> {
    errors: Vec<FieldError>,
    known: &'k Known,
    /// Paths of what is wrong with the schema itself: messages about its rules would help nobody.
    wrong: &'k [String],
    cost: u64,
    /// Up to four, the dearest first.
    dearest: Vec<(u64, String)>,
}

impl Total<'_> {
    /// `most` is how often data of this schema can stand in one object, if lists and maps above are bounded; `uncorrelated` the path of
    /// the list or map above whose items have no old value.
    fn node(&mut self, schema: &Structural, declared: &Declared, path: &str, most: Option<u64>, uncorrelated: Option<&str>) {
        let inner = self.below(schema, most);
        let element = match &declared.shape {
            cel::Shape::List { element, .. } => Some(element.clone()),
            cel::Shape::Map { value } => Some(value.clone()),
            _ => None,
        };
        if let (Some(Additional::Schema(further)), Some(element)) = (&schema.additional, &element) {
            self.node(further, element, &format!("{path}.additionalProperties"), inner, uncorrelated);
        }
        let map_correlates = matches!(&*schema.map_type, "" | "granular" | "atomic");
        for (name, property) in &schema.properties {
            if !property.has_rules() {
                continue;
            }
            let place = format!("{path}.properties[{name}]");
            let of = match &declared.shape {
                cel::Shape::Object(object) => cel::escape(name).and_then(|name| object.field(&name)).map(|field| field.of.clone()),
                _ => None,
            };
            let Some(of) = of.or_else(|| declare(property, property.embedded, "selfType")) else {
                if !property.rules.is_empty() && !self.is_wrong(&place) {
                    let why = "internal error: failed to construct type information for x-kubernetes-validations rules: \
                               unable to convert structural schema to CEL declarations";
                    self.errors.push(FieldError::internal(format!("{place}.x-kubernetes-validations"), why));
                }
                continue;
            };
            let above = if map_correlates { uncorrelated } else { uncorrelated.or(Some(path)) };
            self.node(property, &of, &place, inner, above);
        }
        if let (Some(items), Some(element)) = (&schema.items, &element) {
            let above = if &*schema.list_type == "map" { uncorrelated } else { uncorrelated.or(Some(path)) };
            self.node(items, element, &format!("{path}.items"), inner, above);
        }
        self.rules(schema, declared, path, most, uncorrelated);
    }

    fn is_wrong(&self, path: &str) -> bool {
        self.wrong.iter().filter_map(|at| at.strip_prefix(path)).any(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }

    fn below(&self, schema: &Structural, most: Option<u64>) -> Option<u64> {
        let limit = |limit: Option<i64>| limit.map(|limit| u64::try_from(limit).unwrap_or(0));
        let values = schema.values.as_deref();
        let factor = match &*schema.kind {
            "object" if schema.additional.is_some() => limit(values.and_then(|values| values.max_properties))?,
            "array" => limit(values.and_then(|values| values.max_items))?,
            _ => 1,
        };
        Some(most?.saturating_mul(factor))
    }

    fn rules(&mut self, schema: &Structural, declared: &Declared, path: &str, most: Option<u64>, uncorrelated: Option<&str>) {
        if schema.rules.is_empty() || self.is_wrong(path) {
            return;
        }
        let (new, stored) = (Scope::new(Version::COMPATIBLE, declared), Scope::new(Version::CURRENT, declared));
        let by_size = REQUEST_BYTES_MAX / (declared.min_serialized_bytes + 1);
        for (i, rule) in schema.rules.iter().enumerate() {
            let at = |field: &str| format!("{path}.x-kubernetes-validations[{i}].{field}");
            let scope = |text: &str| if self.known.contains(text) { stored.of(rule) } else { new.of(rule) };
            let invalid = |field: &str, detail: String| FieldError {
                kind: ErrorType::Invalid,
                path: at(field),
                value: BadValue::Plain(rule.go_json().into()),
                detail,
            };
            let program = match compiled(scope(&rule.rule), &rule.rule, "compilation failed: ", "program instantiation failed: ") {
                Ok(program) if *program.output_type() != Type::Bool => {
                    self.errors.push(invalid("rule", "cel expression must evaluate to a bool".into()));
                    self.old_self(rule, false, &at, uncorrelated);
                    continue;
                }
                Ok(program) => program,
                Err(detail) => {
                    self.errors.push(invalid("rule", detail));
                    self.old_self(rule, false, &at, uncorrelated);
                    continue;
                }
            };
            let sizes = DeclaredSizes(declared);
            let cost = program.estimate(&sizes).max.saturating_mul(most.unwrap_or(by_size));
            if cost > RULE_COST_MAX {
                self.errors.push(FieldError::forbidden(at("rule"), too_dear("estimated rule cost", cost, RULE_COST_MAX)));
            }
            let mut found = vec![(at("rule"), cost)];
            if !rule.message_expression.is_empty() {
                let (failed, defect) = ("messageExpression compilation failed: ", "messageExpression instantiation failed: ");
                match compiled(scope(&rule.message_expression), &rule.message_expression, failed, defect) {
                    Ok(message) if *message.output_type() != Type::String => {
                        self.errors.push(invalid("messageExpression", "messageExpression must evaluate to a string".into()));
                    }
                    Ok(message) => {
                        let cost = message.estimate(&sizes).max;
                        if cost > RULE_COST_MAX {
                            let detail = too_dear("estimated messageExpression cost", cost, RULE_COST_MAX);
                            self.errors.push(FieldError::forbidden(at("messageExpression"), detail));
                        }
                        found.push((at("messageExpression"), cost));
                    }
                    Err(detail) => self.errors.push(invalid("messageExpression", detail)),
                }
            }
            self.old_self(rule, program.uses("oldSelf"), &at, uncorrelated);
            found.into_iter().for_each(|(path, cost)| self.observe(path, cost));
        }
    }

    fn old_self(&mut self, rule: &RuleText, uses: bool, at: &dyn Fn(&str) -> String, uncorrelated: Option<&str>) {
        match (uses, uncorrelated, rule.optional_old_self) {
            (true, Some(within), _) => {
                let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {within}");
                self.errors.push(FieldError::invalid(at("rule"), &*rule.rule, detail));
            }
            (false, _, Some(set)) => {
                self.errors.push(FieldError::invalid(at("optionalOldSelf"), set, "may not be set if oldSelf is not used in rule"));
            }
            _ => {}
        }
    }

    fn observe(&mut self, path: String, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost >= SCHEMA_COST_MAX / 100 {
            self.dearest.push((cost, path));
            self.dearest.sort_by(|a, b| b.0.cmp(&a.0));
            self.dearest.truncate(4);
        }
    }
}

fn compiled(environment: &Environment, text: &str, failed: &str, defect: &str) -> Result<Program, String> {
    let program = environment.compile(text).map_err(|issues| format!("{failed}{issues}"))?;
    match program.defect() {
        Some(why) => Err(format!("{defect}{why}")),
        None => Ok(program),
    }
}

fn too_dear(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where \
         arrays, maps, and strings are declared)"
    )
}
