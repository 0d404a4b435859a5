//! Running a program. Models cel-go interpreter/{interpretable,attributes,runtimecost}.go: what costs when, above all.
use std::fmt;
use std::rc::Rc;

use crate::functions;
use crate::list::List;
use crate::map::{Entries, Map, Struct};
use crate::plan::{Attribute, Base, By, Call, Loop, Qualifier, Run, Step};
use crate::value::Value;

/// The values of an environment's variables. Implemented by slices of pairs.
pub trait Variables<'a> {
    /// `None` if there is no such variable: the evaluation fails with `no such attribute(s): NAME`.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvaluationError>>;
}

impl<'a> Variables<'a> for &[(&str, Value<'a>)] {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvaluationError>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// An object whose fields are made when they are first asked for: `variables` of admission policies. The implementor keeps what was
/// made, and counts what it cost.
pub trait Lazy<'a> {
    /// Its object type's name in the environment.
    fn type_name(&self) -> &str;
    /// `None` if there is no such field.
    fn get(&self, field: &str) -> Option<Result<Value<'a>, EvaluationError>>;
}

/// How much one evaluation may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostLimit(pub u64);

impl CostLimit {
    /// Upstream's PerCallLimit: a tenth of a second, roughly.
    pub const PER_CALL: CostLimit = CostLimit(1_000_000);
}

/// What came of an evaluation.
#[derive(Debug)]
pub struct Evaluation<'a> {
    pub value: Result<Value<'a>, EvaluationError>,
    /// Counted up to the end, or to the error.
    pub cost: u64,
}

/// Why there is no value, in upstream's words: `no such key: x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationError {
    pub fault: Fault,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The expression failed on this data.
    Data,
    /// `operation cancelled: actual cost limit exceeded`
    CostLimit,
}

impl EvaluationError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { fault: Fault::Data, message: message.into() }
    }

    fn cost_limit() -> Self {
        Self { fault: Fault::CostLimit, message: "operation cancelled: actual cost limit exceeded".to_owned() }
    }
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EvaluationError {}

pub(crate) fn evaluate<'a>(step: &'a Step, variables: &dyn Variables<'a>, limit: CostLimit) -> Evaluation<'a> {
    let mut run = Evaluator { variables, cost: 0, limit: limit.0, locals: Vec::new() };
    let value = run.step(step).and_then(Value::sound);
    Evaluation { value, cost: run.cost }
}

type Outcome<'a> = Result<Value<'a>, EvaluationError>;

/// A place for a comprehension's accumulator or variable.
enum Local<'a> {
    /// An accumulator that nothing has read yet.
    Pending(&'a Step),
    Value(Value<'a>),
    Failed(EvaluationError),
}

struct Evaluator<'a, 'v> {
    variables: &'v dyn Variables<'a>,
    cost: u64,
    limit: u64,
    locals: Vec<Local<'a>>,
}

/// What making things costs; common/cost.go.
const LIST: u64 = 10;
const MAP: u64 = 30;
const STRUCT: u64 = 40;

impl<'a> Evaluator<'a, '_> {
    /// Counts; beyond the limit nothing goes on.
    fn pay(&mut self, cost: u64) -> Result<(), EvaluationError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvaluationError::cost_limit()) } else { Ok(()) }
    }

    /// Passes an outcome on after paying for it; running out of budget goes first.
    fn paid(&mut self, cost: u64, outcome: Outcome<'a>) -> Outcome<'a> {
        if let Err(error) = &outcome
            && error.fault == Fault::CostLimit
        {
            return outcome;
        }
        self.pay(cost)?;
        outcome
    }

    fn step(&mut self, step: &'a Step) -> Outcome<'a> {
        match step {
            Step::Constant(constant) => Ok(constant.value()),
            Step::Attribute(attribute) => {
                let outcome = self.attribute(attribute);
                let cost = u64::from(!matches!(attribute.base, Base::Conditional(_)));
                self.paid(cost, outcome)
            }
            Step::Test(attribute) => self.test(attribute),
            Step::Logic(decides, terms) => self.logic(*decides, terms),
            Step::Call(call) => self.call(call),
            Step::List(elements) => {
                let outcome = self.list(elements);
                self.paid(LIST, outcome)
            }
            Step::Map(entries) => {
                let outcome = self.map(entries);
                self.paid(MAP, outcome)
            }
            Step::Struct(name, fields) => {
                let outcome = self.construct(name, fields);
                self.paid(STRUCT, outcome)
            }
            Step::Fold(fold) => self.fold(fold),
            Step::Append { local, element, constant } => self.append(*local, element, *constant),
            Step::Insert { local, args } => self.insert(*local, args),
            Step::Member(value, members) => {
                let value = self.step(value)?;
                Ok(Value::Bool(members.contain(&value)))
            }
            Step::OptionalOr(parts, value) => match self.step(&parts.0)? {
                Value::Optional(None) => self.step(&parts.1),
                Value::Optional(Some(of)) if *value => Ok((*of).clone()),
                some @ Value::Optional(_) => Ok(some),
                _ => functions::no_overload(),
            },
        }
    }

    fn local(&mut self, place: usize) -> Outcome<'a> {
        match &self.locals[place] {
            Local::Value(value) => value.clone().sound(),
            Local::Failed(error) => Err(error.clone()),
            Local::Pending(Step::Constant(constant)) => {
                let value = constant.value();
                self.locals[place] = Local::Value(value.clone());
                Ok(value)
            }
            Local::Pending(init) => {
                let init: &'a Step = init;
                // It was planned to stand where its comprehension begins: what stands above waits aside.
                let above = self.locals.split_off(place);
                let outcome = self.step(init);
                self.locals.truncate(place);
                self.locals.extend(above);
                self.locals[place] = match &outcome {
                    Ok(value) => Local::Value(value.clone()),
                    Err(error) => Local::Failed(error.clone()),
                };
                outcome
            }
        }
    }

    /// Resolves a base and what is selected of it; the caller pays for the base.
    fn attribute(&mut self, attribute: &'a Attribute) -> Outcome<'a> {
        let value = match &attribute.base {
            Base::Local(place) => self.local(*place)?,
            Base::Variable(name) => match self.variables.get(name) {
                Some(value) => value?.sound()?,
                None => return Err(EvaluationError::new(format!("no such attribute(s): {name}"))),
            },
            Base::Step(step) => self.step(step)?,
            Base::Conditional(parts) => {
                let condition = self.step(&parts.0)?;
                match condition {
                    Value::Bool(true) => self.attribute(&parts.1)?,
                    Value::Bool(false) => self.attribute(&parts.2)?,
                    _ => return functions::no_overload(),
                }
            }
        };
        if attribute.qualifiers.is_empty() {
            return Ok(value);
        }
        Ok(match self.qualify(value, &attribute.qualifiers)? {
            Some((value, true)) => Value::optional(Some(value)),
            Some((value, false)) => value,
            None => Value::Optional(None),
        })
    }

    /// What qualifiers select, and whether it is optional; `None` is an optional without value.
    fn qualify(&mut self, value: Value<'a>, qualifiers: &'a [Qualifier]) -> Result<Option<(Value<'a>, bool)>, EvaluationError> {
        let (mut value, mut optional) = match value {
            Value::Optional(None) => return Ok(None),
            Value::Optional(Some(of)) => ((*of).clone(), true),
            value => (value, false),
        };
        for qualifier in qualifiers {
            optional |= qualifier.optional;
            match self.select(&value, qualifier, optional) {
                Ok(Some(next)) => {
                    self.pay(1)?;
                    value = next;
                }
                // What is absent is not counted.
                Ok(None) => return Ok(None),
                Err(error) if error.fault == Fault::CostLimit => return Err(error),
                Err(error) => {
                    if !optional {
                        self.pay(1)?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(Some((value, optional)))
    }

    /// What a qualifier selects; where absence is allowed, `None` stands for it.
    fn select(&mut self, value: &Value<'a>, qualifier: &'a Qualifier, optional: bool) -> Result<Option<Value<'a>>, EvaluationError> {
        let key = match &qualifier.by {
            By::Field(name) => return select_field(value, name, optional),
            By::Constant(constant) => constant.value(),
            By::Attribute(attribute) => self.attribute(attribute)?,
            By::Step(step) => self.step(step)?,
        };
        if let Value::String(name) = &key {
            return select_field(value, name, optional);
        }
        select_key(value, &key, optional)
    }

    fn test(&mut self, attribute: &'a Attribute) -> Outcome<'a> {
        let Some((last, before)) = attribute.qualifiers.split_last() else { return functions::no_overload() };
        let base = match &attribute.base {
            Base::Conditional(parts) => match self.step(&parts.0)? {
                Value::Bool(true) => self.attribute(&parts.1)?,
                Value::Bool(false) => self.attribute(&parts.2)?,
                _ => return functions::no_overload(),
            },
            Base::Local(place) => self.local(*place)?,
            Base::Variable(name) => match self.variables.get(name) {
                Some(value) => value?.sound()?,
                None => return Err(EvaluationError::new(format!("no such attribute(s): {name}"))),
            },
            Base::Step(step) => self.step(step)?,
        };
        let Some((value, optional)) = self.qualify(base, before)? else { return Ok(Value::Bool(false)) };
        let found = self.select(&value, last, true);
        let counts = match &found {
            Ok(found) => !optional || found.is_some(),
            Err(error) => error.fault != Fault::CostLimit && !optional,
        };
        if counts {
            self.pay(1)?;
        }
        Ok(Value::Bool(found?.is_some()))
    }

    fn logic(&mut self, decides: bool, terms: &'a [Step]) -> Outcome<'a> {
        let mut failed = None;
        for term in terms {
            match self.step(term) {
                Ok(Value::Bool(b)) if b == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or_else(|| Some(EvaluationError::new("no such overload"))),
                Err(error) if error.fault == Fault::CostLimit => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn call(&mut self, call: &'a Call) -> Outcome<'a> {
        // Most calls have one or two arguments: no vector for these.
        match &call.args[..] {
            [a] => {
                let a = self.argument(a)?;
                self.run(call, &[a])
            }
            [a, b] => {
                let args = [self.argument(a)?, self.argument(b)?];
                self.run(call, &args)
            }
            many => {
                let mut args = Vec::with_capacity(many.len());
                for (i, step) in many.iter().enumerate() {
                    let arg = self.argument(step)?;
                    if let (Value::Wrong(error), true) = (&arg, i + 1 < many.len()) {
                        return Err((**error).clone());
                    }
                    args.push(arg);
                }
                self.run(call, &args)
            }
        }
    }

    /// An argument, with an error as a value: other arguments are evaluated all the same.
    fn argument(&mut self, step: &'a Step) -> Outcome<'a> {
        match self.step(step) {
            Err(error) if error.fault == Fault::Data => Ok(Value::Wrong(Rc::new(error))),
            outcome => outcome,
        }
    }

    fn run(&mut self, call: &'a Call, args: &[Value<'a>]) -> Outcome<'a> {
        let failed = args.iter().find_map(|arg| if let Value::Wrong(error) = arg { Some(error) } else { None });
        let outcome = match (&call.run, failed) {
            (Run::NotFalse, _) => Ok(Value::Bool(!matches!(args[0], Value::Bool(false)))),
            (_, Some(error)) => Err((**error).clone()),
            (Run::Equal, _) => args[0].equals(&args[1]).map(Value::Bool),
            (Run::NotEqual, _) => Ok(Value::Bool(!args[0].equals(&args[1]).unwrap_or(false))),
            (Run::Body(body), _) => body(args),
            (Run::Pattern(regex, run), _) => run(regex, args),
        };
        let cost = call.rule.cost(args, &outcome);
        self.paid(cost, outcome)
    }

    fn list(&mut self, elements: &'a [(Step, bool)]) -> Outcome<'a> {
        let mut items = Vec::with_capacity(elements.len());
        for (step, optional) in elements {
            let value = self.step(step)?;
            match (optional, value) {
                (false, value) => items.push(value),
                (true, Value::Optional(Some(of))) => items.push((*of).clone()),
                (true, Value::Optional(None)) => {}
                (true, value) => {
                    return functions::error(format!("cannot initialize optional list element from non-optional value {value}"));
                }
            }
        }
        Ok(Value::from(items))
    }

    fn map(&mut self, entries: &'a [(Step, Step, bool)]) -> Outcome<'a> {
        let mut made = Entries::default();
        for (key, value, optional) in entries {
            let (key, value) = (self.step(key)?, self.step(value)?);
            match (optional, value) {
                (false, value) => made.set(key, value),
                (true, Value::Optional(Some(of))) => made.set(key, (*of).clone()),
                (true, Value::Optional(None)) => made.remove(&key),
                (true, value) => {
                    return functions::error(format!("cannot initialize optional entry '{key}' from non-optional value {value}"));
                }
            }
        }
        Ok(Value::Map(Map::made(made)))
    }

    fn construct(&mut self, name: &std::sync::Arc<str>, fields: &'a [(std::sync::Arc<str>, Step, bool)]) -> Outcome<'a> {
        let mut made: Vec<(std::sync::Arc<str>, Value<'a>)> = Vec::with_capacity(fields.len());
        for (field, step, optional) in fields {
            let value = match (optional, self.step(step)?) {
                (false, value) => value,
                (true, Value::Optional(Some(of))) => (*of).clone(),
                (true, Value::Optional(None)) => continue,
                (true, value) => {
                    return functions::error(format!("cannot initialize optional entry '{field}' from non-optional value {value}"));
                }
            };
            if &**name == "JSONPatch" && &**field != "value" && value.as_str().is_none() {
                let found = value.go_type();
                return functions::error(format!("unexpected type {found} for JSONPatchType '{field}' field"));
            }
            made.retain(|(known, _)| known != field);
            made.push((field.clone(), value));
        }
        if &**name != "JSONPatch" && &**name != "Object" && !name.starts_with("Object.") {
            return functions::error(format!("unknown type '{name}'"));
        }
        Ok(Value::Map(Map::Struct(Rc::new(Struct { name: name.clone(), fields: made }))))
    }

    fn fold(&mut self, fold: &'a Loop) -> Outcome<'a> {
        let range = self.step(&fold.range)?;
        debug_assert_eq!(self.locals.len(), fold.local, "a comprehension's locals stand on those around it");
        let outer = self.locals.len();
        self.locals.push(Local::Pending(&fold.init));
        let outcome = self.turns(fold, &range).and_then(|()| {
            self.locals.truncate(outer + 1);
            self.step(&fold.result)
        });
        self.locals.truncate(outer);
        outcome
    }

    fn turns(&mut self, fold: &'a Loop, range: &Value<'a>) -> Result<(), EvaluationError> {
        match range {
            Value::List(list) => {
                for i in 0..list.len() {
                    let item = list.get(i).unwrap_or(Value::Null);
                    let go_on = if fold.two { self.turn(fold, Value::Int(i as i64), Some(item))? } else { self.turn(fold, item, None)? };
                    if !go_on {
                        break;
                    }
                }
            }
            Value::Map(map) if !matches!(map, Map::Struct(_)) => {
                for (key, value) in map.entries() {
                    if !self.turn(fold, key, fold.two.then_some(value))? {
                        break;
                    }
                }
            }
            other if fold.two => {
                return Err(EvaluationError::new(format!("unsupported comprehension range type: {}", other.go_type())));
            }
            other => return Err(EvaluationError::new(format!("got '{}', expected iterable type", other.go_type()))),
        }
        Ok(())
    }

    /// One element's turn; whether to go on.
    fn turn(&mut self, fold: &'a Loop, first: Value<'a>, second: Option<Value<'a>>) -> Result<bool, EvaluationError> {
        self.locals.truncate(fold.local + 1);
        self.locals.push(Local::Value(first));
        self.locals.extend(second.map(Local::Value));
        match self.step(&fold.condition) {
            Ok(Value::Bool(false)) => return Ok(false),
            Err(error) if error.fault == Fault::CostLimit => return Err(error),
            _ => {}
        }
        let next = match self.step(&fold.step) {
            Ok(value) => Local::Value(value),
            Err(error) if error.fault == Fault::CostLimit => return Err(error),
            Err(error) => Local::Failed(error),
        };
        self.locals[fold.local] = next;
        Ok(true)
    }

    fn append(&mut self, local: usize, element: &'a Step, constant: bool) -> Outcome<'a> {
        let so_far = self.local(local);
        let so_far = self.paid(1, so_far);
        if let Err(error) = &so_far
            && error.fault == Fault::CostLimit
        {
            return so_far;
        }
        drop(so_far);
        let element = self.step(element);
        let element = self.paid(if constant { 0 } else { LIST }, element);
        let outcome = match (&mut self.locals[local], element) {
            (_, Err(error)) if error.fault == Fault::CostLimit => return Err(error),
            (Local::Failed(error), _) => Err(error.clone()),
            (_, Err(error)) => Err(error),
            (slot, Ok(element)) => {
                let mut items = match std::mem::replace(slot, Local::Value(Value::Null)) {
                    Local::Value(Value::List(List::Made(items))) => items,
                    _ => Rc::new(Vec::new()),
                };
                Rc::make_mut(&mut items).push(element);
                let value = Value::List(List::Made(items));
                *slot = Local::Value(value.clone());
                Ok(value)
            }
        };
        self.paid(1, outcome)
    }

    fn insert(&mut self, local: usize, args: &'a [Step]) -> Outcome<'a> {
        let so_far = self.local(local);
        drop(self.paid(1, so_far)?);
        let mut values = Vec::with_capacity(args.len());
        for step in args {
            values.push(self.argument(step)?);
        }
        let outcome = match values.iter().find_map(|value| if let Value::Wrong(error) = value { Some(error) } else { None }) {
            Some(error) => Err((**error).clone()),
            None => {
                let mut made = match std::mem::replace(&mut self.locals[local], Local::Value(Value::Null)) {
                    Local::Value(Value::Map(Map::Made(made))) => made,
                    _ => Rc::default(),
                };
                functions::insert_into(Rc::make_mut(&mut made), &values).map(|()| {
                    let value = Value::Map(Map::Made(made));
                    self.locals[local] = Local::Value(value.clone());
                    value
                })
            }
        };
        self.paid(1, outcome)
    }
}

fn missing_key(key: &str) -> EvaluationError {
    EvaluationError::new(format!("no such key: {key}"))
}

fn select_field<'a>(value: &Value<'a>, name: &str, optional: bool) -> Result<Option<Value<'a>>, EvaluationError> {
    let found = match value {
        Value::Map(map) => map.field(name),
        Value::Lazy(of) => of.get(name).transpose()?,
        Value::List(_) => return Err(EvaluationError::new("unsupported index type 'string' in list")),
        _ => None,
    };
    match found {
        Some(found) => found.sound().map(Some),
        None if optional => Ok(None),
        None => Err(missing_key(name)),
    }
}

fn select_key<'a>(value: &Value<'a>, key: &Value<'a>, optional: bool) -> Result<Option<Value<'a>>, EvaluationError> {
    match value {
        Value::Map(map) => match map.find(key)? {
            Some(found) => found.sound().map(Some),
            None if optional => Ok(None),
            None => Err(missing_key(&key.to_string())),
        },
        Value::List(list) => {
            let index = match key {
                Value::Int(i) => *i,
                Value::Uint(u) => i64::try_from(*u).unwrap_or(i64::MAX),
                Value::Double(d) if d.fract() == 0.0 && d.abs() < 2f64.powi(63) => *d as i64,
                Value::Double(_) => return Err(EvaluationError::new(format!("unsupported index value {key} in list"))),
                other => {
                    return Err(EvaluationError::new(format!("unsupported index type '{}' in list", other.type_of().runtime_name())));
                }
            };
            match usize::try_from(index).ok().and_then(|i| list.get(i)) {
                Some(found) => found.sound().map(Some),
                None if optional => Ok(None),
                None => Err(EvaluationError::new(format!("index out of bounds: {key}"))),
            }
        }
        _ if optional => Ok(None),
        _ => Err(missing_key(&key.to_string())),
    }
}
