//! Finds the type of every node, and which overloads a call may be. Models cel-go checker/checker.go.
use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Ast, Entry, Expr, Fold, Id, Literal};
use crate::environment::Environment;
use crate::functions::{self, DECLARED, Function};
use crate::issue::Source;
use crate::types::Type;
use crate::{Issue, ObjectType};

mod literals;
mod unify;
use unify::{Unifier, most_general};

/// What a name or a call means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reference {
    /// A variable of the environment or of a comprehension.
    Variable,
    /// The name of a type.
    Type(Type),
    Call {
        function: &'static Function,
        overloads: Vec<&'static str>,
    },
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The tree, and beside it what was found out of each node.
#[derive(Debug)]
pub(crate) struct Checked {
    pub ast: Ast,
    pub types: Vec<Type>,
    pub references: Vec<Option<Reference>>,
}

impl Checked {
    pub fn of(&self, id: Id) -> &Type {
        &self.types[id as usize]
    }

    pub fn reference(&self, id: Id) -> Option<&Reference> {
        self.references[id as usize].as_ref()
    }
}

pub(crate) fn check(ast: Ast, source: &Source, scope: &Environment) -> Result<Checked, Vec<Issue>> {
    let count = ast.nodes.len();
    let root = ast.root;
    let mut checker = Checker {
        checked: Checked { ast, types: vec![Type::Error; count], references: vec![None; count] },
        source,
        scope,
        locals: Vec::new(),
        unifier: Unifier::default(),
        issues: Vec::new(),
    };
    checker.check(root);
    let Checker { mut checked, unifier, mut issues, .. } = checker;
    if !issues.is_empty() {
        return Err(issues);
    }
    for of in &mut checked.types {
        *of = unifier.substitute(of, true);
    }
    literals::check(&checked, source, &mut issues);
    if issues.is_empty() { Ok(checked) } else { Err(issues) }
}

struct Checker<'c> {
    checked: Checked,
    source: &'c Source<'c>,
    scope: &'c Environment,
    /// Variables of comprehensions, innermost last.
    locals: Vec<(Arc<str>, Type)>,
    unifier: Unifier,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn issue(&mut self, at: u32, message: String) {
        self.issues.push(self.source.issue(at, message));
    }

    fn at(&self, id: Id) -> u32 {
        self.checked.ast.at(id)
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.issue(self.at(id), format!("undeclared reference to '{name}' (in container '')"));
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.issue(self.at(id), format!("expected type '{expected}' but found '{found}'"));
    }

    fn of(&self, id: Id) -> Type {
        self.checked.of(id).clone()
    }

    fn set(&mut self, id: Id, of: Type) {
        self.checked.types[id as usize] = of;
    }

    fn refer(&mut self, id: Id, reference: Reference) {
        self.checked.references[id as usize] = Some(reference);
    }

    fn check(&mut self, id: Id) {
        // Taken out while it is checked: children are found by number.
        let expr = std::mem::replace(&mut self.checked.ast.nodes[id as usize].expr, Expr::Wrong);
        let rewritten = match &expr {
            Expr::Wrong => None,
            Expr::Literal(literal) => {
                self.set(id, literal_type(literal));
                None
            }
            Expr::Ident(name) => self.ident(id, name),
            Expr::Select { operand, field, test } => self.select(id, *operand, field, *test),
            Expr::Call { target, function, args } => self.call(id, *target, function, args),
            Expr::List { elements, optional } => {
                self.list(id, elements, optional);
                None
            }
            Expr::Map { entries } => {
                self.map(id, entries);
                None
            }
            Expr::Struct { name, fields } => {
                self.construct(id, name, fields);
                None
            }
            Expr::Fold(fold) => {
                self.fold(id, fold);
                None
            }
        };
        self.checked.ast.nodes[id as usize].expr = rewritten.unwrap_or(expr);
    }

    fn local(&self, name: &str) -> Option<&Type> {
        self.locals.iter().rev().find(|(known, _)| **known == *name).map(|(_, of)| of)
    }

    /// A variable of the environment, or the name of a type.
    fn global(&self, name: &str) -> Option<(Type, Reference)> {
        if let Some(declared) = self.scope.variable(name) {
            return Some((declared.of(), Reference::Variable));
        }
        if let Some(of) = Type::named(name) {
            return Some((Type::Type(Some(Arc::new(of.clone()))), Reference::Type(of)));
        }
        self.scope.object_type(name).map(|_| {
            let of = Type::object(name);
            (Type::Type(Some(Arc::new(of.clone()))), Reference::Type(of))
        })
    }

    fn ident(&mut self, id: Id, name: &Arc<str>) -> Option<Expr> {
        if let Some(of) = self.local(name).cloned() {
            self.set(id, of);
            self.refer(id, Reference::Variable);
            return None;
        }
        let bare = name.strip_prefix('.').unwrap_or(name);
        match self.global(bare) {
            Some((of, reference)) => {
                self.set(id, of);
                self.refer(id, reference);
                // The dot stays where a local variable hides the global one.
                (bare.len() < name.len() && self.local(bare).is_none()).then(|| Expr::Ident(bare.into()))
            }
            None => {
                self.set(id, Type::Error);
                self.undeclared(id, name);
                None
            }
        }
    }

    fn select(&mut self, id: Id, operand: Id, field: &Arc<str>, test: bool) -> Option<Expr> {
        if !test && let Some(mut name) = self.checked.ast.qualified_name(operand) {
            let first = name.split('.').next().unwrap_or_default().to_owned();
            name.push('.');
            name.push_str(field);
            let bare = name.strip_prefix('.').unwrap_or(&name);
            if (self.local(&first).is_none() || name.starts_with('.'))
                && let Some((of, reference)) = self.global(bare)
            {
                self.set(id, of);
                self.refer(id, reference);
                return Some(Expr::Ident(bare.into()));
            }
        }
        let of = self.select_field(id, operand, field, false);
        let of = if test { Type::Bool } else { self.unifier.substitute(&of, false) };
        self.set(id, of);
        None
    }

    fn select_field(&mut self, id: Id, operand: Id, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand = self.unifier.substitute(self.checked.of(operand), false);
        let (target, was_optional) = unwrap_optional(&operand);
        let found = match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            Type::Object(name) => self.field(self.at(id), name, field).unwrap_or(Type::Error),
            Type::Opaque(name) if target.is_struct() => {
                self.issue(self.at(id), format!("unexpected failed resolution of '{name}'"));
                Type::Error
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.issue(self.at(id), format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(found) } else { found }
    }

    fn object_type(&self, name: &str) -> Option<Arc<ObjectType>> {
        self.scope.object_type(name)
    }

    /// The type of a field of an object type.
    fn field(&mut self, at: u32, object: &str, field: &str) -> Option<Type> {
        if let Some(of) = self.scope.made_field(object, field) {
            return Some(of);
        }
        let Some(known) = self.object_type(object) else {
            self.issue(at, format!("unexpected failed resolution of '{object}'"));
            return None;
        };
        match known.field(field) {
            Some(field) => Some(field.of.of()),
            None => {
                self.issue(at, format!("undefined field '{field}'"));
                None
            }
        }
    }

    fn call(&mut self, id: Id, target: Option<Id>, name: &Arc<str>, args: &[Id]) -> Option<Expr> {
        if &**name == "_?._" {
            return self.optional_select(id, args);
        }
        for arg in args {
            self.check(*arg);
        }
        let Some(target) = target else {
            let bare = name.strip_prefix('.').unwrap_or(name);
            return match self.function(bare) {
                Some(function) => {
                    self.resolve(id, function, None, args);
                    (bare.len() < name.len()).then(|| Expr::Call { target: None, function: bare.into(), args: args.to_vec() })
                }
                None => {
                    self.set(id, Type::Error);
                    self.undeclared(id, name);
                    None
                }
            };
        };
        if let Some(prefix) = self.checked.ast.qualified_name(target) {
            let qualified = format!("{}.{name}", prefix.strip_prefix('.').unwrap_or(&prefix));
            if let Some(function) = self.function(&qualified) {
                self.resolve(id, function, None, args);
                return Some(Expr::Call { target: None, function: qualified.into(), args: args.to_vec() });
            }
        }
        self.check(target);
        match self.function(name) {
            Some(function) => self.resolve(id, function, Some(target), args),
            None => {
                self.set(id, Type::Error);
                self.undeclared(id, name);
            }
        }
        None
    }

    fn function(&self, name: &str) -> Option<&'static Function> {
        let function = functions::find(name)?;
        (function.overloads.iter().any(|overload| self.scope.has_overload(overload)) && self.scope.has_function(name)).then_some(function)
    }

    fn optional_select(&mut self, id: Id, args: &[Id]) -> Option<Expr> {
        let &[operand, field] = args else { return None };
        let Expr::Literal(Literal::String(name)) = self.checked.ast.expr(field).clone() else { return None };
        let of = self.select_field(id, operand, &name, true);
        let of = self.unifier.substitute(&of, false);
        self.set(id, of);
        self.set(field, Type::String);
        let Some(function) = functions::find("_?._") else { return None };
        self.refer(id, Reference::Call { function, overloads: vec!["select_optional_field"] });
        None
    }

    fn resolve(&mut self, id: Id, function: &'static Function, target: Option<Id>, args: &[Id]) {
        let mut types: Vec<Type> = target.iter().chain(args).map(|id| self.of(*id)).collect();
        if matches!(function.name, "_&&_" | "_||_") {
            let mut wrong = false;
            for (arg, of) in args.iter().zip(&types) {
                if !self.unifier.assignable(of, &Type::Bool) {
                    self.mismatch(*arg, &Type::Bool, of);
                    wrong = true;
                }
            }
            self.set(id, if wrong { Type::Error } else { Type::Bool });
            let overloads = vec![function.overloads[0].id];
            return self.refer(id, Reference::Call { function, overloads });
        }
        let mut found: Option<Type> = None;
        let mut overloads = Vec::new();
        for overload in &function.overloads {
            if overload.member != target.is_some() || overload.args.len() != types.len() || !self.scope.has_overload(overload) {
                continue;
            }
            let mut fresh = HashMap::new();
            let wanted: Vec<Type> = overload.args.iter().map(|of| instantiate(of, &mut fresh, &mut self.unifier)).collect();
            if !self.unifier.all_assignable(&types, &wanted) {
                continue;
            }
            overloads.push(overload.id);
            let result = instantiate(&overload.result, &mut fresh, &mut self.unifier);
            let result = self.unifier.substitute(&result, false);
            found = Some(match found {
                None => result,
                Some(before) if before.is_dyn() || before == result => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(found) = found else {
            for of in &mut types {
                *of = self.unifier.substitute(of, true);
            }
            let (on, rest) = if target.is_some() { (format!("{}.", types[0]), &types[1..]) } else { (String::new(), &types[..]) };
            let rest: Vec<String> = rest.iter().map(Type::to_string).collect();
            let message = format!("found no matching overload for '{}' applied to '{on}({})'", function.name, rest.join(", "));
            self.issue(self.at(id), message);
            return self.set(id, Type::Error);
        };
        self.set(id, found);
        self.refer(id, Reference::Call { function, overloads });
    }

    /// The type behind an element that is written with `?`.
    fn given(&mut self, id: Id, optional: bool) -> Type {
        let of = self.of(id);
        if !optional {
            return of;
        }
        let (inner, was) = unwrap_optional(&of);
        let inner = inner.clone();
        if !was && !inner.is_dyn() {
            self.mismatch(id, &Type::optional(inner.clone()), &inner);
        }
        inner
    }

    fn join(&mut self, so_far: Option<Type>, next: Type) -> Type {
        let Some(so_far) = so_far else { return next };
        if self.unifier.assignable(&so_far, &next) { most_general(&so_far, &next).clone() } else { Type::Dyn }
    }

    fn list(&mut self, id: Id, elements: &[Id], optional: &[bool]) {
        let mut joined = None;
        for (element, optional) in elements.iter().zip(optional) {
            self.check(*element);
            let of = self.given(*element, *optional);
            joined = Some(self.join(joined, of));
        }
        let element = joined.unwrap_or_else(|| self.unifier.fresh());
        self.set(id, Type::list(element));
    }

    fn map(&mut self, id: Id, entries: &[Entry]) {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(entry.key);
            let key = self.of(entry.key);
            keys = Some(self.join(keys, key));
            self.check(entry.value);
            let value = self.given(entry.value, entry.optional);
            values = Some(self.join(values, value));
        }
        let key = keys.unwrap_or_else(|| self.unifier.fresh());
        let value = values.unwrap_or_else(|| self.unifier.fresh());
        self.set(id, Type::map(key, value));
    }

    fn construct(&mut self, id: Id, name: &Arc<str>, fields: &[(Arc<str>, Entry)]) {
        let bare: Arc<str> = name.strip_prefix('.').unwrap_or(name).into();
        let known = self.scope.is_made(&bare) || self.object_type(&bare).is_some();
        if !known {
            if Type::named(&bare).is_some() {
                self.issue(self.at(id), format!("'{bare}' is not a message type"));
            } else {
                self.undeclared(id, name);
            }
            return self.set(id, Type::Error);
        }
        self.set(id, Type::Object(bare.clone()));
        for (field, entry) in fields {
            self.check(entry.value);
            let wanted = self.field(entry.at, &bare, field).unwrap_or(Type::Error);
            let given = self.given(entry.value, entry.optional);
            if !self.unifier.assignable(&wanted, &given) {
                self.issue(entry.at, format!("expected type of field '{field}' is '{wanted}' but provided type is '{given}'"));
            }
        }
    }

    fn fold(&mut self, id: Id, fold: &Fold) {
        self.check(fold.range);
        self.check(fold.init);
        let range = self.unifier.substitute(self.checked.of(fold.range), false);
        let accumulated = self.of(fold.init);
        let outer = self.locals.len();
        self.locals.push((fold.accumulator.clone(), accumulated.clone()));
        let two = fold.variable2.is_some();
        let (first, second) = match &range {
            Type::List(element) if two => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Any | Type::Error | Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)");
                self.issue(self.at(fold.range), message);
                (Type::Error, Type::Error)
            }
        };
        self.locals.push((fold.variable.clone(), first));
        if let Some(variable) = &fold.variable2 {
            self.locals.push((variable.clone(), second));
        }
        self.check(fold.condition);
        self.expect(fold.condition, &Type::Bool);
        self.check(fold.step);
        self.expect(fold.step, &accumulated);
        self.locals.truncate(outer + 1);
        self.check(fold.result);
        self.locals.truncate(outer);
        let of = self.unifier.substitute(self.checked.of(fold.result), false);
        self.set(id, of);
    }

    fn expect(&mut self, id: Id, wanted: &Type) {
        let of = self.of(id);
        if !self.unifier.assignable(wanted, &of) {
            self.mismatch(id, wanted, &of);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

fn unwrap_optional(of: &Type) -> (&Type, bool) {
    match of {
        Type::Optional(inner) => (inner, true),
        other => (other, false),
    }
}

/// A signature's type with its parameters made new.
fn instantiate(of: &Type, fresh: &mut HashMap<u32, Type>, unifier: &mut Unifier) -> Type {
    match of {
        Type::Param(declared) if *declared >= DECLARED => fresh.entry(*declared).or_insert_with(|| unifier.fresh()).clone(),
        Type::List(of) => Type::list(instantiate(of, fresh, unifier)),
        Type::Optional(of) => Type::optional(instantiate(of, fresh, unifier)),
        Type::Map(key, value) => Type::map(instantiate(key, fresh, unifier), instantiate(value, fresh, unifier)),
        Type::Type(Some(of)) => Type::Type(Some(Arc::new(instantiate(of, fresh, unifier)))),
        plain => plain.clone(),
    }
}
