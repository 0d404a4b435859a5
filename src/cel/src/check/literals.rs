//! What is wrong with literals though their types fit. Models cel-go cel/validator.go: durations, timestamps, patterns, mixed lists.
use super::Checked;
use crate::Issue;
use crate::ast::{Ast, Expr, Id, Literal};
use crate::functions;
use crate::issue::Source;
use crate::types::Type;
use crate::value::Value;

pub(crate) fn check(checked: &Checked, source: &Source, issues: &mut Vec<Issue>) {
    let ast = &checked.ast;
    let mut mixed = Vec::new();
    walk(ast, ast.root, false, &mut |id, exempt| match ast.expr(id) {
        Expr::Call { target: Some(target), function, args } if &**function == "format" => {
            if let (Expr::Literal(Literal::String(text)), [arg]) = (ast.expr(*target), &args[..])
                && let Expr::List { elements, .. } = ast.expr(*arg)
                && let Err((at, message)) = format(checked, id, text, elements)
            {
                issues.push(source.issue(ast.at(at), message));
            }
        }
        Expr::Call { function, args, .. } => {
            let Some(arg) = args.first() else { return };
            let Expr::Literal(literal) = ast.expr(*arg) else { return };
            if !fits(function, literal) {
                issues.push(source.issue(ast.at(*arg), format!("invalid {function} argument")));
            }
        }
        Expr::List { elements, optional } if !exempt => {
            let of = |i: usize| given(checked.of(elements[i]), optional[i]);
            if let Some(i) = (1..elements.len()).find(|i| of(*i) != of(0)) {
                mixed.push((elements[i], of(0).clone(), of(i).clone()));
            }
        }
        Expr::Map { entries } if !exempt => {
            let Some((first, rest)) = entries.split_first() else { return };
            let value = given(checked.of(first.value), first.optional);
            for entry in rest {
                if checked.of(entry.key) != checked.of(first.key) {
                    mixed.push((entry.key, checked.of(first.key).clone(), checked.of(entry.key).clone()));
                }
                let other = given(checked.of(entry.value), entry.optional);
                if other != value {
                    mixed.push((entry.value, value.clone(), other.clone()));
                }
            }
        }
        _ => {}
    });
    for (id, expected, found) in mixed {
        issues.push(source.issue(ast.at(id), format!("expected type '{expected}' but found '{found}'")));
    }
}

fn given(of: &Type, optional: bool) -> &Type {
    match of {
        Type::Optional(inner) if optional => inner,
        other => other,
    }
}

fn fits(function: &str, literal: &Literal) -> bool {
    let value = match literal {
        Literal::String(text) => Value::str(text),
        Literal::Int(i) => Value::Int(*i),
        _ => return true,
    };
    match (function, literal) {
        ("duration" | "timestamp", _) => functions::body(function).is_none_or(|body| body(&[value]).is_ok()),
        ("matches", Literal::String(text)) => crate::pattern::compile(text).is_ok(),
        _ => true,
    }
}

/// Whether a format text and its arguments fit each other; or which node is wrong.
fn format(checked: &Checked, call: Id, text: &str, elements: &[Id]) -> Result<(), (Id, String)> {
    let mut wrong = call;
    let asked = functions::walk_format(text, elements.len(), |piece| match piece {
        functions::Piece::Text(_) => Ok(()),
        functions::Piece::Clause(index, clause) => match unprintable(checked, elements[index], clause) {
            Some(id) => {
                wrong = id;
                Err(format!("error during formatting: {}", clause.wrong_type(checked.of(id).runtime_name())))
            }
            None => Ok(()),
        },
    });
    match asked {
        Err(message) => Err((wrong, message)),
        Ok(asked) if elements.len() > asked => {
            let given = elements.len();
            Err((call, format!("too many arguments supplied to string.format (expected {asked}, got {given})")))
        }
        Ok(_) => Ok(()),
    }
}

fn unprintable(checked: &Checked, id: Id, clause: functions::Clause) -> Option<Id> {
    if !clause.takes(checked.of(id)) {
        return Some(id);
    }
    if !clause.is_string() {
        return None;
    }
    match checked.ast.expr(id) {
        Expr::List { elements, .. } => elements.iter().find_map(|element| unprintable(checked, *element, clause)),
        Expr::Map { entries } => {
            entries.iter().flat_map(|entry| [entry.key, entry.value]).find_map(|part| unprintable(checked, part, clause))
        }
        _ => None,
    }
}

/// Visits every node; `exempt` says whether it stands in a call of `format`, whose lists may be mixed.
fn walk(ast: &Ast, id: Id, exempt: bool, visit: &mut dyn FnMut(Id, bool)) {
    visit(id, exempt);
    match ast.expr(id) {
        Expr::Wrong | Expr::Literal(_) | Expr::Ident(_) => {}
        Expr::Select { operand, .. } => walk(ast, *operand, exempt, visit),
        Expr::Call { target, function, args } => {
            let exempt = exempt || &**function == "format";
            for id in target.iter().chain(args) {
                walk(ast, *id, exempt, visit);
            }
        }
        Expr::List { elements, .. } => elements.iter().for_each(|id| walk(ast, *id, exempt, visit)),
        Expr::Map { entries } => {
            for entry in entries {
                walk(ast, entry.key, exempt, visit);
                walk(ast, entry.value, exempt, visit);
            }
        }
        Expr::Struct { fields, .. } => fields.iter().for_each(|(_, entry)| walk(ast, entry.value, exempt, visit)),
        Expr::Fold(fold) => {
            for id in [fold.range, fold.init, fold.condition, fold.step, fold.result] {
                walk(ast, id, exempt, visit);
            }
        }
    }
}
