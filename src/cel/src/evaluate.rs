//! Running a program.
use std::fmt;

use crate::Value;

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
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EvaluationError {}
