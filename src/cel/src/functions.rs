//! The functions of the environment: their signatures are a table of facts, their bodies are grouped by library below.
use std::collections::HashMap;
use std::sync::OnceLock;

use crate::evaluate::EvaluationError;
use crate::types::{Type, split};
use crate::value::Value;

mod authz;
mod cidr;
mod convert;
mod format;
mod ip;
mod lists;
mod named_format;
mod operators;
mod optional;
mod quantity;
mod regex;
mod semver;
mod strings;
mod time;
mod url;

pub(crate) use format::{Clause, Piece, walk as walk_format};
pub(crate) use lists::overload_body;
pub use named_format::NamedFormat;
pub(crate) use operators::insert_into;
pub(crate) use regex::compiled;
pub use semver::SemanticVersion;
pub(crate) use semver::parse as parse_semver;
pub(crate) use strings::decode_base64;
pub use url::Url;

/// Signatures of all functions: the minor version of Kubernetes that brought one, its overload's name, its signature; a leading dot
/// says that it is called on its first argument. The order of a function's overloads is the checker's. Taken from the environment of
/// k8s.io/apiserver v0.37.1.
const TABLE: &str = include_str!("functions/table.txt");

/// The numbers of type parameters in signatures start here; those that the checker makes up stay below.
pub(crate) const DECLARED: u32 = 1 << 24;

pub(crate) type Result<'a> = std::result::Result<Value<'a>, EvaluationError>;
/// Runs a function on arguments that are no errors; finds out by itself of which types they are.
pub(crate) type Body = for<'a> fn(&[Value<'a>]) -> Result<'a>;

#[derive(Debug)]
pub(crate) struct Overload {
    pub id: &'static str,
    pub since: u32,
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
}

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    static FUNCTIONS: OnceLock<HashMap<&'static str, Function>> = OnceLock::new();
    FUNCTIONS.get_or_init(read_table).get(name)
}

fn read_table() -> HashMap<&'static str, Function> {
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    for line in TABLE.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(since), Some(id), Some(signature)) = (words.next(), words.next(), words.next()) else { continue };
        let Some((head, result)) = signature.rsplit_once("): ") else { continue };
        let Some((name, args)) = head.split_once('(') else { continue };
        let (member, name) = name.strip_prefix('.').map_or((false, name), |name| (true, name));
        let args = split(args).into_iter().map(|arg| Type::parse(arg, DECLARED)).collect();
        let overload = Overload { id, since: since.parse().unwrap_or(0), member, args, result: Type::parse(result, DECLARED) };
        functions.entry(name).or_insert_with(|| Function { name, overloads: Vec::new() }).overloads.push(overload);
    }
    functions
}

/// What runs a function, if it is not part of the evaluator itself.
pub(crate) fn body(name: &str) -> Option<Body> {
    operators::body(name)
        .or_else(|| convert::body(name))
        .or_else(|| strings::body(name))
        .or_else(|| lists::body(name))
        .or_else(|| time::body(name))
        .or_else(|| optional::body(name))
        .or_else(|| regex::body(name))
        .or_else(|| quantity::body(name))
        .or_else(|| ip::body(name))
        .or_else(|| cidr::body(name))
        .or_else(|| url::body(name))
        .or_else(|| semver::body(name))
        .or_else(|| named_format::body(name))
        .or_else(|| authz::body(name))
        .or_else(|| format::body(name))
}

pub(crate) fn error<'a>(message: impl Into<String>) -> Result<'a> {
    Err(EvaluationError::new(message))
}

/// What upstream says of arguments that no overload takes.
pub(crate) fn no_overload<'a>() -> Result<'a> {
    error("no such overload")
}
