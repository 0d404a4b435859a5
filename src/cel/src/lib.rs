//! The Common Expression Language as Kubernetes v1.37 speaks it: parser, checker, costs, evaluator, functions.
//!
//! Models cel-go 0.29 under `k8s.io/apiserver/pkg/cel/environment`: the same expressions compile, with the same error texts, the same
//! estimated and counted costs, the same values. No I/O, and no kind of Kubernetes: data is read through [`Json`], permission is asked for
//! through [`Authorize`].
//!
//! # Way in
//!
//! ```
//! use cel::{CostLimit, Declared, Environment, Value, Version};
//!
//! let environment = Environment::base(Version::CURRENT)      // Kubernetes' functions
//!     .with_variable("replicas", Declared::int());            // extended freely: an environment is a cheap value
//! let program = environment.compile("replicas < 5").unwrap(); // or `Issues`, printed as upstream prints them
//! let variables = [("replicas", Value::Int(3))];
//! let evaluation = program.evaluate(&variables.as_slice(), CostLimit::PER_CALL);
//! assert_eq!(evaluation.value.unwrap().as_bool(), Some(true));
//! assert_eq!(evaluation.cost, 2);
//! ```
//!
//! - [`Environment`] knows variables, object types and functions; [`Environment::compile`] gives a [`Program`] (`Send + Sync`: keep it).
//! - [`Declared`] says what data is (upstream's `DeclType`): what the checker sees, how JSON is read, how large it may be for the estimate.
//!   A [`Type`] is the checker's own view of it.
//! - [`Program::output_type`], [`Program::estimate`], [`Program::uses`], [`Program::evaluate`].
//! - [`Value`] borrows: [`Value::read`] makes one of any [`Json`] node and its [`Declared`] type without copying; strings, lists and maps are
//!   read when the expression asks for them. Values that are made on demand (a policy's `variables`) implement [`Lazy`].
//! - Results leave as [`Value::as_bool`], [`Value::as_str`] or [`Value::to_plain`].
//!
//! *Invariant:* no expression or data makes evaluation deeper or larger than its stated bounds: text 100 kB (the caller's to lower),
//! nesting 250, cost by [`CostLimit`].
mod ast;
mod authorize;
mod check;
mod constant;
mod cost;
mod declared;
mod environment;
mod evaluate;
mod functions;
mod issue;
mod json;
mod lexer;
mod list;
mod macros;
mod map;
pub mod names;
mod number;
mod parser;
pub mod pattern;
mod plan;
mod program;
pub mod quantity;
mod special;
mod time;
mod types;
mod unescape;
mod value;

pub use authorize::{Authorize, Check, Decision, PathCheck, ResourceCheck, What};
pub use cost::{CostEstimate, DeclaredSizes, Estimator, NoSizes, SizeEstimate};
pub use declared::{Declared, Field, ListKind, ObjectType, Shape, escape, unescape};
pub use environment::{Environment, Version};
pub use evaluate::{CostLimit, Evaluation, EvaluationError, Fault, Lazy, Variables};
pub use issue::{Issue, Issues};
pub use json::{Json, View};
pub use list::List;
pub use map::Map;
pub use program::Program;
pub use time::Timestamp;
pub use types::Type;
pub use value::{Octets, Plain, Text, Value};
