//! Expressions in configurations of admission: match conditions, and the variables of policies.
//!
//! Models pkg/apis/admissionregistration/validation/validation.go validateMatchConditions and validateVariable.
use super::check::*;
use crate::admission::{Age, Compiler, Returns, Speaks};
use crate::field_error::{FieldError, Path};
use crate::tree::Tree;

const CONDITIONS_MAX: usize = 64;
/// Words of the language that name nothing.
const RESERVED: [&str; 21] = [
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
];

/// Expressions of the stored object: what compiled once may stay.
#[derive(Default)]
pub(super) struct Stored<'t>(Vec<&'t str>);

impl<'t> Stored<'t> {
    pub(super) fn of(expressions: impl IntoIterator<Item = &'t str>) -> Self {
        Self(expressions.into_iter().collect())
    }

    pub(super) fn age(&self, expression: &str) -> Age {
        if self.0.contains(&expression) { Age::Stored } else { Age::New }
    }
}

/// `Err` becomes the detail of an `Invalid`.
pub(super) fn compiled<T>(errors: &mut Errors, result: Result<T, String>, expression: &str, path: &Path) {
    if let Err(detail) = result {
        errors.push(FieldError::invalid(path, expression, detail));
    }
}

pub(super) fn match_conditions(errors: &mut Errors, conditions: &[Tree], has_params: bool, stored: &Stored, path: &Path) {
    if conditions.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, conditions.len(), CONDITIONS_MAX));
    }
    let compiler = Compiler::plain();
    let speaks = Speaks { params: has_params, authorizer: true, patches: false };
    let again = repeated(conditions.iter().map(|item| text(item, "name")));
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        let expression = text(condition, "expression").trim();
        if expression.is_empty() {
            errors.push(FieldError::required(path.child("expression"), ""));
        } else {
            let result = compiler.compile(expression, speaks, Returns::Bool, stored.age(expression));
            compiled(errors, result, expression, &path.child("expression"));
        }
        let name = text(condition, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
            continue;
        }
        label_name(errors, name, &path.child("name"));
        if again[i] {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
    }
}

pub(super) fn variable(errors: &mut Errors, compiler: &mut Compiler, variable: &Tree, has_params: bool, stored: &Stored, path: &Path) {
    let (name, expression) = (text(variable, "name"), text(variable, "expression"));
    if name.trim().is_empty() {
        errors.push(FieldError::required(path.child("name"), "name is not specified"));
    } else if !is_identifier(name) {
        errors.push(FieldError::invalid(path.child("name"), name, "must be a valid CEL identifier"));
    }
    if expression.trim().is_empty() {
        errors.push(FieldError::required(path.child("expression"), "expression is not specified"));
    } else {
        let speaks = Speaks { params: has_params, authorizer: true, patches: false };
        let result = compiler.variable(name, expression, speaks, stored.age(expression));
        compiled(errors, result, expression, &path.child("expression"));
    }
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !RESERVED.contains(&name)
}
