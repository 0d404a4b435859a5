//! Calls that are macros, and what they become. Models cel-go parser/macro.go, ext/comprehensions.go and cel/library.go (optMap).
use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Expr, Fold, Id, Literal};
use crate::parser::Parser;

/// A call as written, or what it stands for.
pub(crate) fn call(parser: &mut Parser, at: u32, target: Option<Id>, function: Arc<str>, args: Vec<Id>) -> Id {
    let mut expand = Expand { parser, at };
    let expanded = match target {
        None => expand.global(&function, &args),
        Some(target) => expand.member(&function, target, &args),
    };
    match expanded {
        None => parser.ast.add(at, Expr::Call { target, function, args }),
        Some(Ok(id)) => id,
        Some(Err((arg, message))) => {
            let at = parser.ast.at(arg);
            parser.issue(at, message);
            parser.ast.add(at, Expr::Wrong)
        }
    }
}

/// Which argument is wrong, and how.
type Wrong = (Id, String);
type Expanded = Option<Result<Id, Wrong>>;

struct Expand<'p, 't> {
    parser: &'p mut Parser<'t>,
    at: u32,
}

/// The four parts of a comprehension that tell macros apart.
struct Parts {
    init: Id,
    condition: Id,
    step: Id,
    result: Id,
}

impl Expand<'_, '_> {
    fn global(&mut self, function: &str, args: &[Id]) -> Expanded {
        let &[arg] = args else { return None };
        if function != "has" {
            return None;
        }
        Some(match self.parser.ast.expr(arg).clone() {
            Expr::Select { operand, field, .. } => Ok(self.add(Expr::Select { operand, field, test: true })),
            _ => Err((arg, "invalid argument to has() macro".to_owned())),
        })
    }

    fn member(&mut self, function: &str, target: Id, args: &[Id]) -> Expanded {
        let two = self.parser.syntax.two_variables;
        let optionals = self.parser.syntax.optionals;
        Some(match (function, args) {
            ("all" | "exists" | "exists_one" | "existsOne", &[variable, predicate]) => {
                self.variable(variable, "argument must be a simple name").map(|variable| {
                    let parts = self.quantifier(function, predicate);
                    self.fold(target, variable, None, parts)
                })
            }
            ("all" | "exists" | "exists_one" | "existsOne", &[first, second, predicate]) if two => {
                self.variables(first, second).map(|(variable, variable2)| {
                    let parts = self.quantifier(function, predicate);
                    self.fold(target, variable, Some(variable2), parts)
                })
            }
            ("map", &[variable, ref rest @ ..]) if matches!(rest.len(), 1 | 2) => {
                self.variable(variable, "argument is not an identifier").map(|variable| {
                    let (filter, transform) = if let &[filter, transform] = rest { (Some(filter), transform) } else { (None, rest[0]) };
                    let parts = self.listing(filter, transform);
                    self.fold(target, variable, None, parts)
                })
            }
            ("filter", &[variable, predicate]) => self.variable(variable, "argument is not an identifier").map(|name| {
                let parts = self.listing(Some(predicate), variable);
                self.fold(target, name, None, parts)
            }),
            ("transformList" | "transformMap" | "transformMapEntry", &[first, second, ref rest @ ..])
                if two && matches!(rest.len(), 1 | 2) =>
            {
                self.variables(first, second).map(|(variable, variable2)| {
                    let (filter, transform) = if let &[filter, transform] = rest { (Some(filter), transform) } else { (None, rest[0]) };
                    let parts = match function {
                        "transformList" => self.listing(filter, transform),
                        "transformMap" => {
                            let key = self.add(Expr::Ident(variable.clone()));
                            self.mapping(filter, vec![key, transform])
                        }
                        _ => self.mapping(filter, vec![transform]),
                    };
                    self.fold(target, variable, Some(variable2), parts)
                })
            }
            ("sortBy", &[variable, key]) if self.parser.syntax.sort_by => self.sort_by(target, variable, key),
            ("optMap" | "optFlatMap", &[variable, transform]) if optionals => self.optional(function, target, variable, transform),
            _ => return None,
        })
    }

    fn variable(&self, arg: Id, message: &str) -> Result<Arc<str>, Wrong> {
        match self.parser.ast.expr(arg) {
            Expr::Ident(name) if &**name == "__result__" => Err((arg, "iteration variable overwrites accumulator variable".to_owned())),
            Expr::Ident(name) => Ok(name.clone()),
            _ => Err((arg, message.to_owned())),
        }
    }

    fn variables(&self, first: Id, second: Id) -> Result<(Arc<str>, Arc<str>), Wrong> {
        let name = |arg: Id| match self.parser.ast.expr(arg) {
            Expr::Ident(name) => Ok(name.clone()),
            _ => Err((arg, "argument must be a simple name".to_owned())),
        };
        let (one, two) = (name(first)?, name(second)?);
        if one == two {
            return Err((second, format!("duplicate variable name: {one}")));
        }
        for (name, arg) in [(&one, first), (&two, second)] {
            if &**name == "__result__" {
                return Err((arg, "iteration variable overwrites accumulator variable".to_owned()));
            }
        }
        Ok((one, two))
    }

    fn add(&mut self, expr: Expr) -> Id {
        self.parser.ast.add(self.at, expr)
    }

    fn literal(&mut self, literal: Literal) -> Id {
        self.add(Expr::Literal(literal))
    }

    fn call(&mut self, function: &str, args: Vec<Id>) -> Id {
        self.parser.call(self.at, function, args)
    }

    fn accumulated(&mut self) -> Id {
        self.add(Expr::Ident(ACCUMULATOR.into()))
    }

    fn fold(&mut self, range: Id, variable: Arc<str>, variable2: Option<Arc<str>>, parts: Parts) -> Id {
        let Parts { init, condition, step, result } = parts;
        let accumulator = ACCUMULATOR.into();
        self.add(Expr::Fold(Box::new(Fold { range, variable, variable2, accumulator, init, condition, step, result })))
    }

    fn quantifier(&mut self, function: &str, predicate: Id) -> Parts {
        match function {
            "all" => {
                let init = self.literal(Literal::Bool(true));
                let so_far = self.accumulated();
                let condition = self.call("@not_strictly_false", vec![so_far]);
                let so_far = self.accumulated();
                let step = self.call("_&&_", vec![so_far, predicate]);
                Parts { init, condition, step, result: self.accumulated() }
            }
            "exists" => {
                let init = self.literal(Literal::Bool(false));
                let so_far = self.accumulated();
                let not = self.call("!_", vec![so_far]);
                let condition = self.call("@not_strictly_false", vec![not]);
                let so_far = self.accumulated();
                let step = self.call("_||_", vec![so_far, predicate]);
                Parts { init, condition, step, result: self.accumulated() }
            }
            _ => {
                let init = self.literal(Literal::Int(0));
                let condition = self.literal(Literal::Bool(true));
                let (so_far, one) = (self.accumulated(), self.literal(Literal::Int(1)));
                let more = self.call("_+_", vec![so_far, one]);
                let so_far = self.accumulated();
                let step = self.call("_?_:_", vec![predicate, more, so_far]);
                let (so_far, one) = (self.accumulated(), self.literal(Literal::Int(1)));
                Parts { init, condition, step, result: self.call("_==_", vec![so_far, one]) }
            }
        }
    }

    /// `accumulated + [transform]`, where the filter holds.
    fn listing(&mut self, filter: Option<Id>, transform: Id) -> Parts {
        let init = self.add(Expr::List { elements: Vec::new(), optional: Vec::new() });
        let condition = self.literal(Literal::Bool(true));
        let so_far = self.accumulated();
        let one = self.add(Expr::List { elements: vec![transform], optional: vec![false] });
        let step = self.call("_+_", vec![so_far, one]);
        let step = self.filtered(filter, step);
        Parts { init, condition, step, result: self.accumulated() }
    }

    fn mapping(&mut self, filter: Option<Id>, mut inserted: Vec<Id>) -> Parts {
        let init = self.add(Expr::Map { entries: Vec::new() });
        let condition = self.literal(Literal::Bool(true));
        let so_far = self.accumulated();
        inserted.insert(0, so_far);
        let step = self.call("cel.@mapInsert", inserted);
        let step = self.filtered(filter, step);
        Parts { init, condition, step, result: self.accumulated() }
    }

    fn filtered(&mut self, filter: Option<Id>, step: Id) -> Id {
        let Some(filter) = filter else { return step };
        let so_far = self.accumulated();
        self.call("_?_:_", vec![filter, step, so_far])
    }

    /// `bind(@__sortBy_input__, target, @__sortBy_input__.@sortByAssociatedKeys(@__sortBy_input__.map(variable, key)))`
    fn sort_by(&mut self, target: Id, variable: Id, key: Id) -> Result<Id, Wrong> {
        if !matches!(
            self.parser.ast.expr(target),
            Expr::List { .. } | Expr::Select { .. } | Expr::Ident(_) | Expr::Fold(_) | Expr::Call { .. }
        ) {
            let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err((target, message.to_owned()));
        }
        let input: Arc<str> = "@__sortBy_input__".into();
        let name = self.variable(variable, "argument is not an identifier")?;
        let range = self.add(Expr::Ident(input.clone()));
        let parts = self.listing(None, key);
        let keys = self.fold(range, name, None, parts);
        let sorted = self.add(Expr::Ident(input.clone()));
        let result = self.add(Expr::Call { target: Some(sorted), function: "@sortByAssociatedKeys".into(), args: vec![keys] });
        let range = self.add(Expr::List { elements: Vec::new(), optional: Vec::new() });
        let condition = self.literal(Literal::Bool(false));
        let step = self.add(Expr::Ident(input.clone()));
        let fold = Fold { range, variable: "#unused".into(), variable2: None, accumulator: input, init: target, condition, step, result };
        Ok(self.add(Expr::Fold(Box::new(fold))))
    }

    /// `target.hasValue() ? optional.of(bind(variable, target.value(), transform)) : optional.none()`
    fn optional(&mut self, function: &str, target: Id, variable: Id, transform: Id) -> Result<Id, Wrong> {
        let Expr::Ident(name) = self.parser.ast.expr(variable).clone() else {
            return Err((variable, format!("{function}() variable name must be a simple identifier")));
        };
        let has = self.add(Expr::Call { target: Some(target), function: "hasValue".into(), args: Vec::new() });
        let range = self.add(Expr::List { elements: Vec::new(), optional: Vec::new() });
        let copy = self.parser.ast.copy(target);
        let init = self.add(Expr::Call { target: Some(copy), function: "value".into(), args: Vec::new() });
        let condition = self.literal(Literal::Bool(false));
        let step = self.add(Expr::Ident(name.clone()));
        let bound = self.add(Expr::Fold(Box::new(Fold {
            range,
            variable: "#unused".into(),
            variable2: None,
            accumulator: name,
            init,
            condition,
            step,
            result: transform,
        })));
        let then = if function == "optMap" { self.call("optional.of", vec![bound]) } else { bound };
        let none = self.call("optional.none", Vec::new());
        Ok(self.call("_?_:_", vec![has, then, none]))
    }
}
