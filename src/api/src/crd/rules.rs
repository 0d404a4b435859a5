//! Rules of custom objects (`x-kubernetes-validations`): compiled once for each version, run on every write.
//!
//! Models apiextensions-apiserver/pkg/apiserver/schema/cel/{compilation,validation}.go, ratcheting included: an error at a place that an
//! update leaves as it was is not reported, unless the rule looks at the old value itself.
use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{CostLimit, Declared, Environment, EvaluationError, Fault, Program, Value, Version};

use super::declare::declare;
use super::field_path;
use super::list_type::ByKeys;
use super::place::Place;
use super::structural::{Additional, RuleText, Structural};
use crate::field_error::{BadValue, ErrorType, FieldError};
use crate::tree::{Object, Tree};

#[cfg(test)]
mod tests;

/// What all rules of one object may cost together.
const BUDGET: u64 = 10_000_000;
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const NO_BUDGET: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// The rules of one place of a schema, and of all below it.
#[derive(Debug)]
pub struct Rules {
    kind: Box<str>,
    declared: Declared,
    rules: Vec<Rule>,
    correlates: bool,
    list_map_keys: Option<Vec<Box<str>>>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    properties: BTreeMap<Box<str>, Rules>,
    all_of: Vec<Rules>,
}

#[derive(Debug)]
struct Rule {
    text: RuleText,
    /// Or why there is none.
    program: Result<Program, String>,
    uses_old: bool,
    message: Option<Program>,
    path: Option<String>,
}

/// Compiled by what a rule may speak of: `self` and `oldSelf`.
pub(super) struct Scope {
    plain: Environment,
    optional: Environment,
}

impl Scope {
    pub(super) fn new(version: Version, declared: &Declared) -> Self {
        let own = Arc::new(declared.clone());
        let base = Environment::base(version).with_shared_variable("self", own.clone());
        Self {
            plain: base.clone().with_shared_variable("oldSelf", own),
            optional: base.with_variable("oldSelf", Declared::optional(declared.clone())),
        }
    }

    pub(super) fn of(&self, rule: &RuleText) -> &Environment {
        if rule.optional_old_self == Some(true) { &self.optional } else { &self.plain }
    }
}

impl Rules {
    /// `None` where the schema has no rule.
    pub fn compile(schema: &Structural) -> Option<Rules> {
        if !schema.has_rules() {
            return None;
        }
        compile(schema, schema, declare(schema, true, "selfType")?)
    }
}

/// `rules` are the rules' schema, `schema` says what the data is: they differ inside `allOf`.
fn compile(rules: &Structural, schema: &Structural, declared: Declared) -> Option<Rules> {
    if !rules.has_rules() {
        return None;
    }
    let element = match &declared.shape {
        cel::Shape::List { element, .. } => Some((**element).clone()),
        cel::Shape::Map { value } => Some((**value).clone()),
        _ => None,
    };
    let further = |schema: &Structural| match &schema.additional {
        Some(Additional::Schema(further)) => Some(further.clone()),
        _ => None,
    };
    let inner = |rules: &Structural, schema: &Structural| element.clone().and_then(|element| compile(rules, schema, element).map(Box::new));
    let items = rules.items.as_ref().zip(schema.items.as_ref()).and_then(|(rules, schema)| inner(rules, schema));
    let additional = further(rules).zip(further(schema)).and_then(|(rules, schema)| inner(&rules, &schema));
    let mut properties = BTreeMap::new();
    for (name, property) in &rules.properties {
        let Some(of) = schema.properties.get(name) else { continue };
        let known = match &declared.shape {
            cel::Shape::Object(object) => cel::escape(name).and_then(|name| object.field(&name)).map(|field| field.of.clone()),
            _ => None,
        };
        let Some(known) = known.or_else(|| if cel::escape(name).is_none() { declare(of, of.embedded, "selfType") } else { None }) else {
            continue;
        };
        if let Some(found) = compile(property, of, known) {
            properties.insert(name.clone(), found);
        }
    }
    let all_of = rules.values.iter().flat_map(|values| &values.all_of).filter_map(|part| compile(part, schema, declared.clone())).collect();
    let scope = Scope::new(Version::CURRENT, &declared);
    let compiled = rules.rules.iter().map(|rule| Rule::compile(rule, &scope, schema)).collect();
    Some(Rules {
        kind: schema.kind.clone(),
        rules: compiled,
        correlates: matches!(&*schema.map_type, "" | "granular" | "atomic"),
        list_map_keys: (&*schema.list_type == "map").then(|| schema.list_map_keys.clone()),
        items,
        additional,
        properties,
        all_of,
        declared,
    })
}

impl Rule {
    fn compile(text: &RuleText, scope: &Scope, schema: &Structural) -> Rule {
        let program = match scope.of(text).compile(&text.rule) {
            Err(issues) => Err(format!("compilation failed: {issues}")),
            Ok(program) => match program.defect() {
                Some(defect) => Err(format!("program instantiation failed: {defect}")),
                None => Ok(program),
            },
        };
        let expression = Some(&text.message_expression).filter(|expression| !expression.is_empty());
        Rule {
            uses_old: program.as_ref().is_ok_and(|program| program.uses("oldSelf")),
            message: expression.and_then(|expression| scope.of(text).compile(expression).ok()).filter(|program| program.defect().is_none()),
            path: Some(&text.field_path).filter(|path| !path.is_empty()).and_then(|path| field_path::normalized(path, schema)),
            program,
            text: text.clone(),
        }
    }
}

/// Runs the rules on an object whose errors so far do not make them pointless.
pub fn check(errors: &mut Vec<FieldError>, rules: Option<&Rules>, new: &Tree, old: Option<&Tree>) {
    let Some(rules) = rules else { return };
    let blocks = |kind: ErrorType| {
        matches!(kind, ErrorType::NotSupported | ErrorType::Required | ErrorType::TooLong | ErrorType::TooMany | ErrorType::TypeInvalid)
    };
    if errors.iter().any(|error| blocks(error.kind)) {
        let detail =
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        errors.push(FieldError::invalid("<nil>", &Tree::Null, detail));
        return;
    }
    let mut run = Run { errors, left: BUDGET };
    let correlated = Correlated { here: old.map(|old| (new, old)), above: None, is_root: true };
    // Out of budget: the error says so.
    let _ = run.node(rules, &Place::Root, new, old, correlated);
}

/// No further rule is run.
struct Stop;

struct Run<'e> {
    errors: &'e mut Vec<FieldError>,
    left: u64,
}

/// Which old value a place has, to tell what an update changed.
#[derive(Clone, Copy)]
struct Correlated<'t> {
    /// The values, if there is an old one.
    here: Option<(&'t Tree, &'t Tree)>,
    /// Those of the nearest place above that has one.
    above: Option<(&'t Tree, &'t Tree)>,
    is_root: bool,
}

impl<'t> Correlated<'t> {
    fn is_unchanged(self) -> bool {
        self.here.or(self.above).is_some_and(|(new, old)| new == old)
    }

    /// Of a place below, with its values.
    fn below(self, new: &'t Tree, old: Option<&'t Tree>) -> Self {
        match self.here {
            None => Self { is_root: false, ..self },
            Some(_) => Self { here: old.map(|old| (new, old)), above: self.here, is_root: false },
        }
    }

    /// Of a field; the root's kind and version never count as unchanged.
    fn field(self, name: &str, new: &'t Tree, old: Option<&'t Tree>) -> Self {
        if self.is_root && matches!(name, "apiVersion" | "kind") {
            return Self { here: None, above: None, is_root: false };
        }
        self.below(new, old)
    }
}

impl Run<'_> {
    fn node<'t>(&mut self, rules: &'t Rules, path: &Place<'_>, new: &'t Tree, old: Option<&'t Tree>, at: Correlated<'t>) -> Result<(), Stop> {
        if new.is_null() {
            return Ok(());
        }
        self.expressions(rules, path, new, old.filter(|old| !old.is_null()), at)?;
        for part in &rules.all_of {
            self.node(part, path, new, old, Correlated { here: None, above: at.above, is_root: false })?;
        }
        match new {
            Tree::Array(items) => self.items(rules, path, items, old, at),
            Tree::Object(fields) => self.fields(rules, path, fields, old, at),
            _ => Ok(()),
        }
    }

    fn items<'t>(
        &mut self,
        rules: &'t Rules,
        path: &Place<'_>,
        items: &'t [Tree],
        old: Option<&'t Tree>,
        at: Correlated<'t>,
    ) -> Result<(), Stop> {
        let Some(inner) = &rules.items else { return Ok(()) };
        let keys = rules.list_map_keys.as_deref().unwrap_or_default();
        let before = old.and_then(Tree::as_array).filter(|_| rules.list_map_keys.is_some()).map(|old| ByKeys::of(keys, old));
        for (i, item) in items.iter().enumerate() {
            let before = before.as_ref().filter(|_| has_keys(keys, item)).and_then(|before| before.get(item));
            self.node(inner, &Place::Item(path, i), item, before, at.below(item, before))?;
        }
        Ok(())
    }

    fn fields<'t>(
        &mut self,
        rules: &'t Rules,
        path: &Place<'_>,
        fields: &'t Object,
        old: Option<&'t Tree>,
        at: Correlated<'t>,
    ) -> Result<(), Stop> {
        let before = |name: &str| old.filter(|_| rules.correlates).and_then(|old| old.get(name));
        if let Some(inner) = &rules.additional {
            for (name, value) in fields.iter() {
                let old = before(name);
                self.node(inner, &Place::Key(path, name), value, old, at.field(name, value, old))?;
            }
        }
        for (name, inner) in &rules.properties {
            let Some(value) = fields.get(name) else { continue };
            let old = before(name);
            self.node(inner, &Place::Field(path, name), value, old, at.field(name, value, old))?;
        }
        Ok(())
    }

    fn report(&mut self, path: &Place<'_>, rules: &Rules, detail: impl Into<String>) {
        self.errors.push(FieldError::invalid(shown(&path.to_string()), &*rules.kind, detail));
    }

    fn expressions<'t>(
        &mut self,
        rules: &'t Rules,
        path: &Place<'_>,
        new: &'t Tree,
        old: Option<&'t Tree>,
        at: Correlated<'t>,
    ) -> Result<(), Stop> {
        if rules.rules.is_empty() {
            return Ok(());
        }
        if self.left == 0 {
            self.report(path, rules, NO_BUDGET);
            return Err(Stop);
        }
        let own = Value::read(new, &rules.declared);
        let before = old.map(|old| Value::read(old, &rules.declared));
        let mut plain = vec![("self", own.clone())];
        plain.extend(before.clone().map(|before| ("oldSelf", before)));
        let optional = [("self", own), ("oldSelf", Value::optional(before))];
        for rule in &rules.rules {
            let program = match &rule.program {
                _ if rule.text.rule.trim().is_empty() => continue,
                Ok(program) => program,
                Err(why) => {
                    self.report(path, rules, format!("rule compile error: {why}"));
                    continue;
                }
            };
            let is_optional = rule.text.optional_old_self == Some(true);
            // Transition rules need something to compare with.
            if rule.uses_old && old.is_none() && !is_optional {
                continue;
            }
            let variables: &[(&str, Value)] = if is_optional { &optional } else { &plain };
            let evaluation = program.evaluate(&variables, CostLimit::PER_CALL);
            if evaluation.cost > self.left {
                self.report(path, rules, NO_BUDGET);
                return Err(Stop);
            }
            self.left -= evaluation.cost;
            match evaluation.value {
                Ok(value) if value.as_bool() == Some(true) => {}
                Ok(_) => {
                    let message = self.message(rule, &plain);
                    let place = match &rule.path {
                        Some(inner) if inner.starts_with('[') => format!("{path}{inner}"),
                        Some(inner) if path.is_empty() => inner.clone(),
                        Some(inner) => format!("{path}.{inner}"),
                        None => path.to_string(),
                    };
                    let is_ratcheted = !rule.uses_old && at.is_unchanged();
                    let (error, outcome) = match message {
                        Ok(detail) => (error(rules, rule, shown(&place), new, detail), Ok(())),
                        Err(detail) => (FieldError::invalid(shown(&place), &*rules.kind, detail), Err(Stop)),
                    };
                    if !is_ratcheted {
                        self.errors.push(error);
                    }
                    outcome?;
                }
                Err(error) => self.failed(rules, rule, path, &error)?,
            }
        }
        Ok(())
    }

    fn failed(&mut self, rules: &Rules, rule: &Rule, path: &Place<'_>, error: &EvaluationError) -> Result<(), Stop> {
        let shown = rule.text.shown();
        if error.fault == Fault::CostLimit {
            let detail = format!("'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}");
            self.report(path, rules, detail);
            return Err(Stop);
        }
        self.report(
            path,
            rules,
            if error.message.starts_with("no such overload") {
                format!("'{error}': call arguments did not match a supported operator, function or macro signature for rule: {shown}")
            } else {
                format!("{error} evaluating rule: {shown}")
            },
        );
        Ok(())
    }

    /// What the rule says of its failure: its expression's text, if that makes one. `Err` ends everything.
    fn message<'t>(&mut self, rule: &'t Rule, variables: &[(&str, Value<'t>)]) -> Result<String, String> {
        let default = || match rule.text.message.is_empty() {
            true => format!("failed rule: {}", rule.text.shown()),
            false => rule.text.message.trim().to_owned(),
        };
        let Some(program) = &rule.message else { return Ok(default()) };
        let evaluation = program.evaluate(&variables, CostLimit::PER_CALL);
        if evaluation.cost > self.left {
            return Err(
                "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".into()
            );
        }
        match &evaluation.value {
            Err(error) if error.fault == Fault::CostLimit => {
                let expression = crate::field_error::quote(&rule.text.message_expression);
                return Err(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {expression}"
                ));
            }
            outcome => {
                self.left -= evaluation.cost;
                let text = outcome.as_ref().ok().and_then(|value| value.as_str()).map_or("", str::trim);
                let fits = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
                Ok(if fits { text.to_owned() } else { default() })
            }
        }
    }
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn error(rules: &Rules, rule: &Rule, path: &str, new: &Tree, detail: String) -> FieldError {
    let value = if matches!(&*rules.kind, "object" | "array") { BadValue::Omitted } else { BadValue::Tree(new.clone()) };
    match rule.text.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::forbidden(path, detail),
        Some("FieldValueRequired") => FieldError::required(path, detail),
        Some("FieldValueDuplicate") => FieldError { kind: ErrorType::Duplicate, path: path.to_owned(), value, detail: String::new() },
        _ => FieldError { kind: ErrorType::Invalid, path: path.to_owned(), value, detail },
    }
}

/// Whether an item says which one it is.
fn has_keys(keys: &[Box<str>], item: &Tree) -> bool {
    keys.iter().all(|key| matches!(item.get(key), Some(Tree::Bool(_) | Tree::Integer(_) | Tree::Float(_) | Tree::String(_))))
}
