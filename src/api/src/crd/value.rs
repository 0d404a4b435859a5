//! Whether a value is what its schema says.
//!
//! Models kube-openapi/pkg/validation/validate (types, numbers, strings, lists, objects, junctors) and the ratcheting of
//! apiextensions-apiserver/pkg/apiserver/validation/ratcheting.go: what an update leaves as it was is not complained about.
use super::format;
use super::list_type::ByKeys;
use super::place::Place;
use super::structural::{Additional, Structural, Values};
use super::value_error::{self as errors, Outcome};
use crate::field_error::{FieldError, quote};
use crate::tree::{Object, Tree};

/// Checks a whole object.
pub fn object(found: &mut Vec<FieldError>, schema: &Structural, new: &Tree, old: Option<&Tree>) {
    found.extend(check(schema, new, old, &Place::Root).errors);
}

/// Checks the part of an object that stands at `path`.
pub fn part(found: &mut Vec<FieldError>, schema: &Structural, new: &Tree, old: Option<&Tree>, path: &str) {
    // Upstream's validator does not know where the part stands; its paths are put below it afterwards.
    let outcome = check(schema, new, old, &Place::Root);
    found.extend(outcome.errors.into_iter().map(|mut error| {
        error.path = match error.path.as_str() {
            "" | "<nil>" => path.to_owned(),
            inner => format!("{path}.{inner}"),
        };
        error
    }));
}

fn check(schema: &Structural, new: &Tree, old: Option<&Tree>, path: &Place<'_>) -> Outcome {
    let outcome = whole(schema, new, old, path);
    if !outcome.is_valid() && old == Some(new) {
        return Outcome::default();
    }
    outcome
}

/// The types a schema allows, joined as messages show them.
fn types(schema: &Structural) -> &str {
    if schema.int_or_string { "integer,string" } else { &schema.kind }
}

fn whole(schema: &Structural, value: &Tree, old: Option<&Tree>, path: &Place<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    static NONE: Values = Values::NONE;
    let values = schema.values.as_deref().unwrap_or(&NONE);
    if let Some(error) = wrong_type(schema, values, value, path) {
        outcome.add(error);
    }
    outcome.matched += 1;
    if value.is_null() {
        enumeration(&mut outcome, values, value, path);
        return outcome;
    }
    junctors(&mut outcome, values, value, old, path);
    match value {
        Tree::String(text) => string(&mut outcome, values, text, value, path),
        Tree::Integer(_) | Tree::Float(_) => number(&mut outcome, schema, values, value, path),
        Tree::Array(items) => list(&mut outcome, schema, values, items, old, path),
        Tree::Object(fields) => fields_of(&mut outcome, schema, values, fields, old, path),
        Tree::Null | Tree::Bool(_) => {}
    }
    enumeration(&mut outcome, values, value, path);
    outcome.matched += 1;
    outcome
}

fn wrong_type(schema: &Structural, values: &Values, value: &Tree, path: &Place<'_>) -> Option<FieldError> {
    let allowed = types(schema);
    if value.is_null() {
        return (!allowed.is_empty() && !schema.nullable).then(|| errors::wrong_type(path, allowed, "null"));
    }
    if allowed.is_empty() {
        return None;
    }
    let found = value.type_name();
    let has = |name: &str| allowed.split(',').any(|t| t == name);
    let is_whole = matches!(value, Tree::Float(f) if f.fract() == 0.0);
    let fits = has(found) || (is_whole && has("integer")) || (found == "integer" && has("number"));
    // A text with a format is judged by the format alone; anything else of a type with a format should have been of the format.
    let by_format = !values.format.is_empty() && matches!(value, Tree::String(_) | Tree::Array(_)) && !has("integer") && !has("number");
    let wrong = || match value {
        Tree::String(_) | Tree::Array(_) => errors::wrong_type(path, allowed, found),
        _ if values.format.is_empty() => errors::wrong_type(path, allowed, found),
        Tree::Integer(_) => errors::wrong_type(path, &values.format_text, "int64"),
        Tree::Float(_) => errors::wrong_type(path, &values.format_text, "double"),
        _ => errors::wrong_type(path, &values.format_text, ""),
    };
    (!fits && !by_format).then(wrong)
}

fn enumeration(outcome: &mut Outcome, values: &Values, value: &Tree, path: &Place<'_>) {
    let equal = |allowed: &Tree| match (allowed, value) {
        (Tree::Integer(a), Tree::Float(b)) | (Tree::Float(b), Tree::Integer(a)) => *a as f64 == *b,
        _ => allowed == value && !value.is_null(),
    };
    if !values.enumeration.is_empty() && !values.enumeration.iter().any(equal) {
        outcome.add(errors::not_in(path, value, &values.enumeration));
    }
}

fn string(outcome: &mut Outcome, values: &Values, text: &str, value: &Tree, path: &Place<'_>) {
    let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(max) = values.max_length.filter(|max| length() > *max) {
        outcome.add(errors::too_long(path, max));
    } else if let Some(min) = values.min_length.filter(|min| length() < *min) {
        outcome.add(errors::invalid(path, value, &format!("should be at least {min} chars long")));
    } else if let Some(pattern) = &values.pattern {
        match pattern.matches(text) {
            Ok(true) => {}
            Ok(false) => outcome.add(errors::invalid(path, value, &format!("should match '{}'", pattern.text))),
            Err(why) => {
                outcome.add(errors::invalid(path, value, &format!("should match '{}, but pattern is invalid: {why}'", pattern.text)))
            }
        }
    }
    if !values.format.is_empty() && !format::matches(&values.format, text) {
        outcome.add(errors::wrong_type(path, &values.format_text, text));
    }
}

fn number(outcome: &mut Outcome, schema: &Structural, values: &Values, value: &Tree, path: &Place<'_>) {
    let amount = match value {
        Tree::Integer(i) => *i as f64,
        Tree::Float(f) => *f,
        _ => return,
    };
    if &*schema.kind == "integer" && &*values.format == "int32" && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&amount) {
        outcome.add(errors::general(format!("Checked value must be of type integer with format int32 in {path}")));
    }
    if let Some(factor) = values.multiple_of {
        let parts = amount / factor;
        if factor <= 0.0 {
            let shown = errors::number(factor);
            let detail = format!("factor MultipleOf declared for {path} must be positive: {shown}");
            let value = if factor.fract() == 0.0 { Tree::Integer(factor as i64) } else { Tree::Float(factor) };
            outcome.add(errors::about(path, &value, detail));
        } else if parts.fract() != 0.0 {
            outcome.add(errors::invalid(path, value, &format!("should be a multiple of {}", errors::number(factor))));
        }
    }
    if let Some(max) = values.maximum.filter(|max| amount > *max || (values.exclusive_maximum && amount == *max)) {
        let than = if values.exclusive_maximum { "less than" } else { "less than or equal to" };
        outcome.add(errors::invalid(path, value, &format!("should be {than} {}", errors::number(max))));
    }
    if let Some(min) = values.minimum.filter(|min| amount < *min || (values.exclusive_minimum && amount == *min)) {
        let than = if values.exclusive_minimum { "greater than" } else { "greater than or equal to" };
        outcome.add(errors::invalid(path, value, &format!("should be {than} {}", errors::number(min))));
    }
}

fn list(outcome: &mut Outcome, schema: &Structural, values: &Values, items: &[Tree], old: Option<&Tree>, path: &Place<'_>) {
    if let Some(inner) = &schema.items {
        // Only lists of type map have items that can be told to be the same.
        let before = old.and_then(Tree::as_array).filter(|_| &*schema.list_type == "map").map(|old| ByKeys::of(&schema.list_map_keys, old));
        for (i, item) in items.iter().enumerate() {
            let before = before.as_ref().and_then(|before| before.get(item));
            outcome.merge(check(inner, item, before, &Place::Item(path, i)));
        }
    }
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(min) = values.min_items.filter(|min| size < *min) {
        outcome.add(errors::invalid(path, &Tree::Integer(size), &format!("should have at least {min} items")));
    }
    if let Some(max) = values.max_items.filter(|max| size > *max) {
        outcome.add(errors::too_many(path, items.len(), max));
    }
}

fn fields_of(outcome: &mut Outcome, schema: &Structural, values: &Values, fields: &Object, old: Option<&Tree>, path: &Place<'_>) {
    let size = i64::try_from(fields.len()).unwrap_or(i64::MAX);
    if let Some(min) = values.min_properties.filter(|min| size < *min) {
        outcome.add(errors::invalid(path, &Tree::Integer(size), &format!("should have at least {min} properties")));
    }
    if let Some(max) = values.max_properties.filter(|max| size > *max) {
        outcome.add(errors::too_many(path, fields.len(), max));
    }
    for (key, value) in fields.iter() {
        let before = old.and_then(|old| old.get(key)).filter(|_| !path.is_empty() || !matches!(key, "kind" | "apiVersion"));
        if let Some(property) = schema.properties.get(key) {
            outcome.merge(check(property, value, before, &Place::Field(path, key)));
            continue;
        }
        match &schema.additional {
            Some(Additional::Allowed(false)) => outcome.add(errors::forbidden_property(path, key)),
            Some(Additional::Schema(further)) => outcome.merge(check(further, value, before, &Place::Below(path, key))),
            Some(Additional::Allowed(true)) | None => {}
        }
    }
    for key in values.required.iter().filter(|key| !fields.contains_key(key)) {
        outcome.add(errors::required(path, key));
    }
}

fn junctors(outcome: &mut Outcome, values: &Values, value: &Tree, old: Option<&Tree>, path: &Place<'_>) {
    let quoted = || quote(&path.to_string());
    if !values.any_of.is_empty() {
        let (_, best) = alternatives(&values.any_of, value, old, path, true);
        if let Some(best) = best.filter(|best| !best.is_valid()) {
            outcome.add(errors::general(format!("{} must validate at least one schema (anyOf)", quoted())));
            outcome.merge(best);
        }
    }
    if !values.one_of.is_empty() {
        let (valid, best) = alternatives(&values.one_of, value, old, path, false);
        if valid != 1 {
            let found = if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            outcome.add(errors::general(format!("{} must validate one and only one schema (oneOf). {found}", quoted())));
            if valid == 0 {
                best.into_iter().for_each(|best| outcome.merge(best));
            }
        }
    }
    if !values.all_of.is_empty() {
        let results: Vec<Outcome> = values.all_of.iter().map(|schema| check(schema, value, old, path)).collect();
        let valid = results.iter().filter(|r| r.is_valid()).count();
        let is_complete = valid == results.len();
        results.into_iter().for_each(|result| outcome.merge(result));
        if !is_complete {
            let none = if valid == 0 { ". None validated" } else { "" };
            outcome.add(errors::general(format!("{} must validate all the schemas (allOf){none}", quoted())));
        }
    }
    if let Some(not) = &values.not
        && check(not, value, old, path).is_valid()
    {
        outcome.add(errors::general(format!("{} must not validate the schema (not)", quoted())));
    }
}

/// How many of the schemas the value fits, and the first that fits, or else the failure that came furthest.
fn alternatives(schemas: &[Structural], value: &Tree, old: Option<&Tree>, path: &Place<'_>, first_is_enough: bool) -> (usize, Option<Outcome>) {
    let (mut valid, mut best) = (0, None::<Outcome>);
    for schema in schemas {
        let outcome = check(schema, value, old, path);
        if outcome.is_valid() {
            valid += 1;
            if valid == 1 {
                best = Some(outcome);
            }
            if first_is_enough {
                break;
            }
        } else if valid == 0 && best.as_ref().is_none_or(|best| outcome.matched > best.matched) {
            best = Some(outcome);
        }
    }
    (valid, best)
}
