//! A checked expression as steps to run: names resolved, constants computed, patterns compiled.
//!
//! Models cel-go interpreter/{planner,decorators}.go, because what is computed beforehand costs nothing at run time.
use std::collections::HashSet;
use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Entry, Expr, Fold, Id};
use crate::check::{Checked, Reference};
use crate::constant::Constant;
use crate::cost::Rule;
use crate::evaluate::EvaluationError;
use crate::functions::{self, Body};
use crate::map::Key;
use crate::value::Value;

#[derive(Debug)]
pub(crate) enum Step {
    Constant(Constant),
    Attribute(Box<Attribute>),
    /// Of a field: whether it is there.
    Test(Box<Attribute>),
    /// `&&` or `||`: the value that decides, and the terms.
    Logic(bool, Vec<Step>),
    Call(Box<Call>),
    List(Vec<(Step, bool)>),
    Map(Vec<(Step, Step, bool)>),
    Struct(Arc<str>, Vec<(Arc<str>, Step, bool)>),
    Fold(Box<Loop>),
    /// `accumulated + [element]`, in place. The flag says that the list is a constant and costs nothing.
    Append {
        local: usize,
        element: Box<Step>,
        constant: bool,
    },
    /// `cel.@mapInsert(accumulated, ...)`, in place.
    Insert {
        local: usize,
        args: Vec<Step>,
    },
    /// `in` a list of constants.
    Member(Box<Step>, Members),
    /// `a.or(b)`, and with the flag `a.orValue(b)`.
    OptionalOr(Box<(Step, Step)>, bool),
}

/// A variable or a value, and what is selected of it.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub base: Base,
    pub qualifiers: Vec<Qualifier>,
}

#[derive(Debug)]
pub(crate) enum Base {
    Variable(Arc<str>),
    Local(usize),
    Step(Step),
    Conditional(Box<(Step, Attribute, Attribute)>),
}

#[derive(Debug)]
pub(crate) struct Qualifier {
    pub by: By,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) enum By {
    Field(Arc<str>),
    Constant(Constant),
    Attribute(Attribute),
    Step(Step),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub function: &'static str,
    pub args: Vec<Step>,
    pub run: Run,
    pub rule: Rule,
}

pub(crate) enum Run {
    Equal,
    NotEqual,
    /// Takes errors for true.
    NotFalse,
    Body(Body),
    Pattern(regex::Regex, for<'a> fn(&regex::Regex, &[Value<'a>]) -> functions::Result<'a>),
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("run")
    }
}

#[derive(Debug)]
pub(crate) struct Loop {
    pub range: Step,
    pub init: Step,
    pub condition: Step,
    pub step: Step,
    pub result: Step,
    /// The accumulator's place; the variables' follow.
    pub local: usize,
    pub two: bool,
}

#[derive(Debug)]
pub(crate) enum Members {
    Few(Vec<Constant>),
    Many(HashSet<Key>),
}

impl Members {
    pub fn contain<'a>(&'a self, value: &Value<'a>) -> bool {
        match self {
            Members::Few(items) => items.iter().any(|item| item.value().equals(value).unwrap_or(false)),
            Members::Many(keys) => Key::of(value).is_some_and(|key| keys.contains(&key)),
        }
    }
}

/// Up to here, looking at each is quicker than hashing.
const FEW: usize = 6;

pub(crate) fn plan(checked: &Checked) -> Result<Step, EvaluationError> {
    Planner { checked, locals: Vec::new() }.step(checked.ast.root)
}

struct Planner<'c> {
    checked: &'c Checked,
    locals: Vec<Arc<str>>,
}

type Planned<T = Step> = Result<T, EvaluationError>;

impl Planner<'_> {
    fn step(&mut self, id: Id) -> Planned {
        Ok(match self.checked.ast.expr(id) {
            Expr::Wrong => return Err(EvaluationError::new("expression is not complete")),
            Expr::Literal(literal) => Step::Constant(Constant::literal(literal)),
            Expr::Ident(name) => match self.checked.reference(id) {
                Some(Reference::Type(of)) => Step::Constant(Constant::Type(of.clone())),
                _ => self.name(name),
            },
            Expr::Select { operand, field, test } => {
                let mut attribute = self.attribute(*operand)?;
                attribute.qualifiers.push(Qualifier { by: By::Field(field.clone()), optional: false });
                if *test { Step::Test(attribute) } else { Step::Attribute(attribute) }
            }
            Expr::Call { target, function, args } => self.call(id, *target, function, args)?,
            Expr::List { elements, optional } => {
                let steps = elements.iter().zip(optional).map(|(id, optional)| Ok::<_, EvaluationError>((self.step(*id)?, *optional)));
                list(steps.collect::<Planned<Vec<_>>>()?)
            }
            Expr::Map { entries } => self.map(entries)?,
            Expr::Struct { name, fields } => {
                let field =
                    |(name, entry): &(Arc<str>, Entry)| Ok::<_, EvaluationError>((name.clone(), self.step(entry.value)?, entry.optional));
                let fields = fields.iter().map(field).collect::<Planned<Vec<_>>>()?;
                Step::Struct(name.strip_prefix('.').map_or_else(|| name.clone(), Arc::from), fields)
            }
            Expr::Fold(fold) => self.fold(fold)?,
        })
    }

    fn name(&self, name: &Arc<str>) -> Step {
        let base = match self.locals.iter().rposition(|known| known == name) {
            Some(place) => Base::Local(place),
            None => Base::Variable(name.strip_prefix('.').map_or_else(|| name.clone(), Arc::from)),
        };
        Step::Attribute(Box::new(Attribute { base, qualifiers: Vec::new() }))
    }

    /// The node as something to select from.
    fn attribute(&mut self, id: Id) -> Planned<Box<Attribute>> {
        Ok(as_attribute(self.step(id)?))
    }

    fn map(&mut self, entries: &[Entry]) -> Planned {
        let mut steps = Vec::with_capacity(entries.len());
        for entry in entries {
            steps.push((self.step(entry.key)?, self.step(entry.value)?, entry.optional));
        }
        let constant = |step: &Step| matches!(step, Step::Constant(_));
        if !steps.iter().all(|(key, value, optional)| constant(key) && constant(value) && !optional) {
            return Ok(Step::Map(steps));
        }
        let mut made: Vec<(Constant, Constant)> = Vec::new();
        for (key, value, _) in steps {
            let (Step::Constant(key), Step::Constant(value)) = (key, value) else { continue };
            made.retain(|(known, _)| !known.value().equals(&key.value()).unwrap_or(false));
            made.push((key, value));
        }
        Ok(Step::Constant(Constant::Map(made)))
    }

    fn call(&mut self, id: Id, target: Option<Id>, function: &str, args: &[Id]) -> Planned {
        let (name, overload) = match self.checked.reference(id) {
            Some(Reference::Call { function, overloads }) => (function.name, if let [one] = overloads[..] { one } else { "" }),
            _ => return Err(EvaluationError::new(format!("no such overload: {function}"))),
        };
        let steps = target.iter().chain(args).map(|id| self.step(*id)).collect::<Planned<Vec<_>>>()?;
        match name {
            "_&&_" => return Ok(Step::Logic(false, steps)),
            "_||_" => return Ok(Step::Logic(true, steps)),
            "_?_:_" => return Ok(conditional(steps)),
            "_[_]" => return index(steps, false),
            "_[?_]" | "_?._" => return index(steps, true),
            "or" | "orValue" if matches!(overload, "" | "optional_or_optional" | "optional_orValue_value") => {
                if let Ok([a, b]) = <[Step; 2]>::try_from(steps) {
                    return Ok(Step::OptionalOr(Box::new((a, b)), name == "orValue"));
                }
                return Err(EvaluationError::new(format!("no such overload: {name}")));
            }
            _ => {}
        }
        self.plain_call(name, overload, steps)
    }

    fn plain_call(&self, name: &'static str, overload: &'static str, steps: Vec<Step>) -> Planned {
        let is_conversion =
            matches!(name, "bool" | "bytes" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "type" | "uint");
        let rule = Rule::of(name, overload);
        let run = match name {
            "_==_" => Run::Equal,
            "_!=_" => Run::NotEqual,
            "@not_strictly_false" => Run::NotFalse,
            _ => match functions::overload_body(overload).or_else(|| functions::body(name)) {
                Some(body) => Run::Body(body),
                None => return Err(EvaluationError::new(format!("no such overload: {name}"))),
            },
        };
        if let (true, Run::Body(body), [Step::Constant(arg)]) = (is_conversion, &run, &steps[..])
            && let Some(constant) = Constant::of(&body(&[arg.value()])?)
        {
            return Ok(Step::Constant(constant));
        }
        if overload == "in_list"
            && let [_, Step::Constant(Constant::List(items))] = &steps[..]
        {
            if items.is_empty() {
                return Ok(Step::Constant(Constant::Bool(false)));
            }
            if let Some(members) = members(items) {
                let value = steps.into_iter().next().unwrap_or(Step::Constant(Constant::Null));
                return Ok(Step::Member(Box::new(value), members));
            }
        }
        if let (Some(run), Some(Step::Constant(Constant::String(pattern)))) = (functions::compiled(name), steps.get(1)) {
            let regex = crate::pattern::compile(pattern).map_err(EvaluationError::new)?;
            return Ok(Step::Call(Box::new(Call { function: name, args: steps, run: Run::Pattern(regex, run), rule })));
        }
        Ok(Step::Call(Box::new(Call { function: name, args: steps, run, rule })))
    }

    fn fold(&mut self, fold: &Fold) -> Planned {
        let init = self.step(fold.init)?;
        let range = self.step(fold.range)?;
        let local = self.locals.len();
        self.locals.push(fold.accumulator.clone());
        self.locals.push(fold.variable.clone());
        self.locals.extend(fold.variable2.clone());
        let condition = self.step(fold.condition)?;
        let mut step = self.step(fold.step)?;
        self.locals.truncate(local + 1);
        let result = self.step(fold.result)?;
        self.locals.truncate(local);
        if &*fold.accumulator == ACCUMULATOR {
            step = in_place(step, &init, local);
        }
        Ok(Step::Fold(Box::new(Loop { range, init, condition, step, result, local, two: fold.variable2.is_some() })))
    }
}

fn as_attribute(step: Step) -> Box<Attribute> {
    match step {
        Step::Attribute(attribute) => attribute,
        other => Box::new(Attribute { base: Base::Step(other), qualifiers: Vec::new() }),
    }
}

fn list(steps: Vec<(Step, bool)>) -> Step {
    if !steps.iter().all(|(step, optional)| matches!(step, Step::Constant(_)) && !optional) {
        return Step::List(steps);
    }
    let constant = |(step, _)| if let Step::Constant(constant) = step { Some(constant) } else { None };
    Step::Constant(Constant::List(steps.into_iter().filter_map(constant).collect()))
}

fn conditional(steps: Vec<Step>) -> Step {
    let mut steps = steps.into_iter();
    let mut next = || steps.next().unwrap_or(Step::Constant(Constant::Null));
    let condition = next();
    let (then, otherwise) = (as_attribute(next()), as_attribute(next()));
    let base = Base::Conditional(Box::new((condition, *then, *otherwise)));
    Step::Attribute(Box::new(Attribute { base, qualifiers: Vec::new() }))
}

fn index(steps: Vec<Step>, optional: bool) -> Planned {
    let mut steps = steps.into_iter();
    let mut next = || steps.next().unwrap_or(Step::Constant(Constant::Null));
    let mut attribute = as_attribute(next());
    let by = match next() {
        Step::Constant(Constant::String(name)) => By::Field(name),
        Step::Constant(constant @ (Constant::Bool(_) | Constant::Int(_) | Constant::Uint(_) | Constant::Double(_))) => By::Constant(constant),
        Step::Constant(other) => {
            return Err(EvaluationError::new(format!("invalid qualifier type: {}", other.value().go_type())));
        }
        Step::Attribute(attribute) => By::Attribute(*attribute),
        other => By::Step(other),
    };
    attribute.qualifiers.push(Qualifier { by, optional });
    Ok(Step::Attribute(attribute))
}

fn members(items: &[Constant]) -> Option<Members> {
    let primitive = |item: &Constant| {
        matches!(item, Constant::Bool(_) | Constant::Int(_) | Constant::Uint(_) | Constant::Double(_) | Constant::String(_))
    };
    if !items.iter().all(primitive) {
        return None;
    }
    if items.len() <= FEW {
        return Some(Members::Few(items.to_vec()));
    }
    items.iter().map(|item| Key::of(&item.value())).collect::<Option<HashSet<_>>>().map(Members::Many)
}

/// `map` and its kin, which only ever add to what was accumulated: done without copying it.
fn in_place(step: Step, init: &Step, local: usize) -> Step {
    let is_accumulator = |step: &Step| matches!(step, Step::Attribute(attribute) if attribute.qualifiers.is_empty() && matches!(attribute.base, Base::Local(place) if place == local));
    let empty_list = matches!(init, Step::Constant(Constant::List(items)) if items.is_empty());
    let empty_map = matches!(init, Step::Constant(Constant::Map(entries)) if entries.is_empty());
    match step {
        Step::Call(mut call) if empty_list && call.function == "_+_" && call.args.len() == 2 && is_accumulator(&call.args[0]) => {
            match call.args.pop() {
                Some(Step::List(mut elements)) if elements.len() == 1 && !elements[0].1 => match elements.pop() {
                    Some((element, _)) => Step::Append { local, element: Box::new(element), constant: false },
                    None => Step::Call(call),
                },
                Some(Step::Constant(Constant::List(mut items))) if items.len() == 1 => match items.pop() {
                    Some(item) => Step::Append { local, element: Box::new(Step::Constant(item)), constant: true },
                    None => Step::Call(call),
                },
                Some(other) => {
                    call.args.push(other);
                    Step::Call(call)
                }
                None => Step::Call(call),
            }
        }
        Step::Call(mut call) if empty_map && call.function == "cel.@mapInsert" && is_accumulator(&call.args[0]) => {
            call.args.remove(0);
            Step::Insert { local, args: call.args }
        }
        Step::Attribute(mut attribute) if attribute.qualifiers.is_empty() => {
            if let Base::Conditional(parts) = &mut attribute.base
                && let Base::Step(then) = &mut parts.1.base
                && parts.1.qualifiers.is_empty()
            {
                let taken = std::mem::replace(then, Step::Constant(Constant::Null));
                *then = in_place(taken, init, local);
            }
            Step::Attribute(attribute)
        }
        other => other,
    }
}
