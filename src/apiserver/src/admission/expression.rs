//! Runs the expressions of admission on one request.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/cel/{activation,composition}.go. A [`Scope`] is what expressions see; the variables of a
//! policy are evaluated when the first expression asks for them, and once for each scope. Nothing here waits.
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use api::admission::{Age, Compiler, Returns, Speaks};
use api::tree::Tree;
use cel::{CostLimit, Declared, EvaluationError, Lazy, Program, ResourceCheck, Value, Variables};

use super::asker::Asker;

/// What all expressions of one kind may cost for one object, binding and parameter: upstream's RuntimeCELCostBudget.
pub const BUDGET: u64 = 10_000_000;
/// The same for match conditions.
pub const BUDGET_OF_CONDITIONS: u64 = 2_500_000;

/// Read as it comes: the checker's types say no more than what an expression may ask for.
static ANYTHING: Declared = Declared::any();

/// An expression, compiled as what is stored already. One that does not compile fails when it is asked for.
#[derive(Debug)]
pub struct Expression {
    pub text: String,
    program: Result<Program, String>,
}

impl Expression {
    pub fn compile(compiler: &Compiler, text: &str, speaks: Speaks, returns: Returns) -> Self {
        Self { text: text.to_owned(), program: compiler.compile(text, speaks, returns, Age::Stored) }
    }

    pub fn uses(&self, variable: &str) -> bool {
        self.program.as_ref().is_ok_and(|program| program.uses(variable))
    }

    pub fn error(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }
}

/// A variable of a policy.
#[derive(Debug)]
struct Variable {
    name: String,
    expression: Expression,
}

/// The variables of a policy. There may be thousands, each of which asks for the one before.
#[derive(Debug, Default)]
pub struct Composed {
    variables: Vec<Variable>,
    /// The places of the variables by name; of the same name the first counts.
    places: HashMap<String, usize>,
}

impl Composed {
    /// All of a policy, in their order; `compiler` knows them from then on.
    pub fn compile(compiler: &mut Compiler, variables: &[Tree], speaks: Speaks) -> Self {
        let one = |variable: &Tree| {
            let (name, text) = (variable.str_at(&["name"]), variable.str_at(&["expression"]));
            let program = compiler.variable(name, text, speaks, Age::Stored);
            Variable { name: name.to_owned(), expression: Expression { text: text.to_owned(), program } }
        };
        let variables: Vec<Variable> = variables.iter().map(one).collect();
        let mut places = HashMap::with_capacity(variables.len());
        for (place, variable) in variables.iter().enumerate() {
            places.entry(variable.name.clone()).or_insert(place);
        }
        Self { variables, places }
    }

    /// What is compiled of them.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.variables.iter().map(|variable| &variable.expression)
    }
}

/// What expressions may cost together is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("validation failed due to running out of cost budget, no further validation rules will be run")]
pub struct OutOfBudget;

/// What a scope is made of.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub object: &'a Tree,
    pub old: &'a Tree,
    pub request: &'a Tree,
    pub params: &'a Tree,
    pub namespace: &'a Tree,
    /// `None`: such expressions may not ask.
    pub asker: Option<(&'a Asker<'a>, &'a ResourceCheck)>,
    pub variables: Option<&'a Composed>,
}

/// What the expressions of one kind see together.
pub struct Scope<'a> {
    seen: Seen<'a>,
    made: RefCell<HashMap<usize, Result<Value<'a>, EvaluationError>>>,
    /// By variables, since it was last asked.
    spent: Cell<u64>,
    /// Where the stack stood.
    began: usize,
    this: Weak<Scope<'a>>,
}

impl<'a> Scope<'a> {
    pub fn new(seen: Seen<'a>) -> Rc<Self> {
        Rc::new_cyclic(|this| Self { seen, made: RefCell::default(), spent: Cell::new(0), began: stack(), this: this.clone() })
    }

    /// The value, or why there is none; takes what that costs from `budget`.
    pub fn evaluate(&self, expression: &'a Expression, budget: &mut u64) -> Result<Result<Value<'a>, String>, OutOfBudget> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(error) => return Ok(Err(format!("compilation error: {error}"))),
        };
        let evaluation = program.evaluate(self, CostLimit::PER_CALL);
        let cost = self.spent.take().saturating_add(evaluation.cost);
        *budget = budget.checked_sub(cost).ok_or(OutOfBudget)?;
        Ok(evaluation.value.map_err(|error| format!("expression '{}' resulted in error: {error}", expression.text)))
    }

    fn make(&self, variable: &'a Variable) -> Result<Value<'a>, EvaluationError> {
        let name = &variable.name;
        if self.began.abs_diff(stack()) > STACK_BYTES_MAX {
            return Err(EvaluationError::new(format!("composited variable {name:?} fails to evaluate: variables ask for one another too deeply")));
        }
        let program = match &variable.expression.program {
            Ok(program) => program,
            Err(error) => return Err(EvaluationError::new(format!("composited variable {name:?} fails to compile: {error}"))),
        };
        let evaluation = program.evaluate(self, CostLimit::PER_CALL);
        self.spent.set(self.spent.get().saturating_add(evaluation.cost));
        evaluation.value.map_err(|error| EvaluationError::new(format!("composited variable {name:?} fails to evaluate: {error}")))
    }
}

/// What variables that ask for one another may take of the stack, which here does not grow as Go's does: a quarter of a worker's.
const STACK_BYTES_MAX: usize = 512 << 10;

/// Where the stack stands.
#[inline(never)]
fn stack() -> usize {
    let here = 0u8;
    std::ptr::from_ref(&here).addr()
}

fn read(tree: &Tree) -> Value<'_> {
    if tree.is_null() { Value::Null } else { Value::read(tree, &ANYTHING) }
}

impl<'a> Variables<'a> for Scope<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvaluationError>> {
        let seen = &self.seen;
        Some(Ok(match name {
            "object" => read(seen.object),
            "oldObject" => read(seen.old),
            "request" => read(seen.request),
            "params" => read(seen.params),
            "namespaceObject" => read(seen.namespace),
            "authorizer" => Value::Authorizer(seen.asker?.0),
            "authorizer.requestResource" => {
                let (asker, check) = seen.asker?;
                Value::ResourceCheck(asker, Rc::new(check.clone()))
            }
            "variables" => Value::Lazy(self.this.upgrade()?),
            _ => return None,
        }))
    }
}

impl<'a> Lazy<'a> for Scope<'a> {
    fn type_name(&self) -> &str {
        "kubernetes.variables"
    }

    fn get(&self, field: &str) -> Option<Result<Value<'a>, EvaluationError>> {
        let composed = self.seen.variables?;
        let place = *composed.places.get(field)?;
        if let Some(value) = self.made.borrow().get(&place) {
            return Some(value.clone());
        }
        let value = self.make(composed.variables.get(place)?);
        self.made.borrow_mut().insert(place, value.clone());
        Some(value)
    }
}
