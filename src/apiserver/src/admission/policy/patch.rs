//! What the expression of a mutation makes of an object.
//!
//! Models pkg/admission/plugin/policy/mutating/patch/{json_patch,smd}.go.
use api::apply::{self, Type};
use api::tree::{Object, Tree};
use cel::Plain;

use super::mutating::{Kind, Mutation};
use crate::admission::changed;
use crate::admission::expression::{BUDGET, Scope, Seen};
use crate::admission::matching::Invocation;
use crate::rest::options::FieldValidation;
use crate::status::Status;

/// Why there is no changed object.
pub enum Failed {
    /// The policy's failure policy says what that means.
    Policy(String),
    /// It fails the request in any case.
    Answer(Status),
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Failed::Policy(why)
    }
}

/// The object after the mutation.
pub fn patched(mutation: &Mutation, invocation: &Invocation, seen: Seen) -> Result<Tree, Failed> {
    if let Some(error) = mutation.expression.error() {
        return Err(Failed::Policy(error.to_owned()));
    }
    let (scope, mut budget) = (Scope::new(seen), BUDGET);
    let value = scope.evaluate(&mutation.expression, &mut budget).map_err(|spent| spent.to_string())??;
    value.check_object_names().map_err(|error| format!("type mismatch: {error}"))?;
    let value = value.to_plain().map_err(|error| error.to_string());
    match mutation.kind {
        Kind::JsonPatch => {
            let value = value.map_err(|error| format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}"))?;
            by_json_patch(invocation, seen.object, &tree(value))
        }
        Kind::ApplyConfiguration => by_configuration(invocation, seen.object, tree(value?)),
    }
}

fn tree(value: Plain) -> Tree {
    match value {
        Plain::Null => Tree::Null,
        Plain::Bool(b) => b.into(),
        Plain::Int(i) => i.into(),
        Plain::Uint(u) => i64::try_from(u).map_or(Tree::Float(u as f64), Tree::Integer),
        Plain::Double(d) => Tree::Float(d),
        Plain::String(text) => text.into(),
        Plain::List(items) => Tree::Array(items.into_iter().map(tree).collect()),
        Plain::Object(fields) => Tree::Object(fields.into_iter().map(|(name, value)| (name, tree(value))).collect::<Object>()),
    }
}

fn by_json_patch(invocation: &Invocation, object: &Tree, patch: &Tree) -> Result<Tree, Failed> {
    let mut next = object.clone();
    match api::patch::json_patch(&mut next, patch) {
        Ok(()) => {}
        // What a test says no to is not to be done.
        Err(error) if error.is_failed_test() => return Ok(object.clone()),
        Err(error) => return Err(Failed::Policy(format!("JSON Patch: {error}"))),
    }
    changed::typed(invocation, next, FieldValidation::Strict).map_err(|error| Failed::Answer(Status::internal(error)))
}

fn by_configuration(invocation: &Invocation, object: &Tree, mut configuration: Tree) -> Result<Tree, Failed> {
    api::meta::set_type(&mut configuration, &invocation.kind.api_version(), &invocation.kind.kind);
    let ty = schema(invocation).ok_or_else(|| {
        let api::registry::GroupVersionKind { group, version, kind } = &invocation.kind;
        let text = format!(
            "Resource kind {group}/{version}, Kind={kind} not found. There can be a delay between when CustomResourceDefinitions are created \
             and when they are available."
        );
        Failed::Answer(Status::service_unavailable(text))
    })?;
    let failed = |why: String| Failed::Policy(format!("error applying patch: {why}"));
    apply::check(ty, &configuration).map_err(|error| failed(format!("failed to convert patch object to typed object: {error}")))?;
    let atomics = apply::atomics(ty, &configuration);
    if !atomics.is_empty() {
        let atomics = atomics.join(", ");
        return Err(failed(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomics}")));
    }
    let merged = apply::merge(ty, object, &configuration).map_err(|error| failed(format!("failed to merge patch: {error}")))?;
    changed::typed(invocation, merged, FieldValidation::Ignore).map_err(Failed::Policy)
}

/// The schema of what is merged; `None` where its kind has none.
fn schema(invocation: &Invocation) -> Option<Type<'_>> {
    let (kind, shape) = (&invocation.kind, invocation.resource());
    match &shape.custom {
        Some(custom) if *kind == shape.gvk() => Some(Type::custom(custom.structural())),
        _ => api::Registry::get().kind_schema(&kind.group, &kind.version, &kind.kind).map(Type::BuiltIn),
    }
}
