//! Expressions of admission: what they may speak of, what they must evaluate to, and why one does not compile.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/cel/{compile,composition}.go, for match conditions of webhooks and for admission policies. The
//! API server evaluates what is compiled here; validation refuses what does not compile; [`type_check`] warns of what cannot be meant.
mod type_check;
mod types;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use cel::{Declared, Environment, Field, ObjectType, Program, Type, Version};

pub use type_check::{Warning, type_check, types_to_check};
pub use types::{namespace, request};

/// What of the rarer variables and types an expression has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speaks {
    pub params: bool,
    pub authorizer: bool,
    /// `Object{...}` and `JSONPatch{...}`.
    pub patches: bool,
}

/// What an expression must evaluate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    Bool,
    String,
    StringOrNull,
    Anything,
    /// An `Object` of patch types.
    Object,
    /// A list of `JSONPatch`.
    JsonPatches,
}

/// Who compiles: new expressions may use what a server that is rolled back still knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    New,
    Stored,
}

impl Age {
    pub(crate) fn version(self) -> Version {
        match self {
            Age::New => Version::COMPATIBLE,
            Age::Stored => Version::CURRENT,
        }
    }
}

/// The variables `object`, `oldObject`, `request` and `namespaceObject`.
fn plain(age: Age) -> &'static Environment {
    static NEW: OnceLock<Environment> = OnceLock::new();
    static STORED: OnceLock<Environment> = OnceLock::new();
    let cell = if age == Age::New { &NEW } else { &STORED };
    cell.get_or_init(|| {
        Environment::base(age.version())
            .with_variable("object", Declared::any())
            .with_variable("oldObject", Declared::any())
            .with_variable("namespaceObject", namespace().clone())
            .with_variable("request", request().clone())
    })
}

/// Compiles the expressions of one policy or webhook; a policy's variables in their order first.
pub struct Compiler {
    /// `None`: there is no `variables`.
    variables: Option<HashMap<Box<str>, Declared>>,
}

impl Compiler {
    /// Without `variables`.
    pub fn plain() -> Self {
        Self { variables: None }
    }

    /// With `variables`, which has no field yet.
    pub fn composing() -> Self {
        Self { variables: Some(HashMap::new()) }
    }

    fn environment(&self, text: &str, speaks: Speaks, age: Age) -> Environment {
        let mut environment = plain(age).clone();
        if speaks.params {
            environment = environment.with_variable("params", Declared::any());
        }
        if speaks.authorizer {
            environment = environment
                .with_variable("authorizer", Declared::authorizer())
                .with_variable("authorizer.requestResource", Declared::resource_check());
        }
        if speaks.patches {
            environment = environment.with_patch_types();
        }
        self.with_variables(environment, text)
    }

    /// With as much of `variables` as `text` can speak of: a policy may have thousands.
    fn with_variables(&self, environment: Environment, text: &str) -> Environment {
        match &self.variables {
            Some(variables) => environment.with_variable("variables", composed(variables, text)),
            None => environment,
        }
    }

    /// Why it does not compile is worded as upstream words the detail of its field error.
    pub fn compile(&self, text: &str, speaks: Speaks, returns: Returns, age: Age) -> Result<Program, String> {
        let program = self.environment(text, speaks, age).compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        returns.check(program.output_type())?;
        Ok(program)
    }

    /// Compiles a variable; later expressions know it, whether it compiles or not.
    pub fn variable(&mut self, name: &str, text: &str, speaks: Speaks, age: Age) -> Result<Program, String> {
        let program = self.compile(text, speaks, Returns::Anything, age);
        self.declare(name, program.as_ref().ok().map(Program::output_type));
        program
    }

    fn declare(&mut self, name: &str, of: Option<&Type>) {
        let variables = self.variables.get_or_insert_default();
        variables.insert(name.into(), of.map_or(Declared::any(), variable_type));
    }
}

/// The type of `variables`, with the fields whose names are words of `text`. A reserved word stands for its escaped form, too.
fn composed(variables: &HashMap<Box<str>, Declared>, text: &str) -> Declared {
    let words: BTreeSet<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    let escaped: Vec<String> = words.iter().map(|word| format!("__{word}__")).collect();
    let names: BTreeSet<&str> = words.into_iter().chain(escaped.iter().map(String::as_str)).collect();
    let known = names.into_iter().filter_map(|name| variables.get_key_value(name));
    let fields = known.map(|(name, of)| Field { name: name.clone(), json: name.clone(), of: of.clone(), required: true });
    Declared::object(Arc::new(ObjectType::with_fields("kubernetes.variables", fields)))
}

/// Models composition.go convertCelTypeToDeclType: what is no plain type, list or map is anything.
fn variable_type(of: &Type) -> Declared {
    match of {
        Type::Bool | Type::Bytes | Type::Double | Type::Duration | Type::Int | Type::Null | Type::String | Type::Timestamp | Type::Uint => {
            Declared::other(of.clone())
        }
        Type::List(element) => Declared::other(Type::list(variable_type(element).of())),
        Type::Map(key, value) => Declared::other(Type::map(variable_type(key).of(), variable_type(value).of())),
        _ => Declared::any(),
    }
}

impl Returns {
    fn types(self) -> Vec<Type> {
        match self {
            Returns::Bool => vec![Type::Bool],
            Returns::String => vec![Type::String],
            Returns::StringOrNull => vec![Type::String, Type::Null],
            Returns::Anything => Vec::new(),
            Returns::Object => vec![Type::object("Object")],
            Returns::JsonPatches => vec![Type::list(Type::object("JSONPatch"))],
        }
    }

    fn check(self, got: &Type) -> Result<(), String> {
        let allowed = self.types();
        if allowed.is_empty() || allowed.contains(got) {
            return Ok(());
        }
        let names: Vec<String> = allowed.iter().map(printed).collect();
        Err(match &names[..] {
            [only] => format!("must evaluate to {only} but got {}", printed(got)),
            many => format!("must evaluate to one of [{}] but got {}", many.join(" "), printed(got)),
        })
    }
}

/// A type's name as cel-go's `Type.String` has it, which differs from what its checker prints.
fn printed(of: &Type) -> String {
    match of {
        Type::Null => "null_type".to_owned(),
        Type::Duration => "google.protobuf.Duration".to_owned(),
        Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
        Type::Any => "google.protobuf.Any".to_owned(),
        Type::Error => "*error*".to_owned(),
        Type::List(element) => format!("list({})", printed(element)),
        Type::Map(key, value) => format!("map({}, {})", printed(key), printed(value)),
        Type::Optional(inner) => format!("optional_type({})", printed(inner)),
        Type::Type(inner) => inner.as_deref().map_or("type".to_owned(), |inner| format!("type({})", printed(inner))),
        other => other.to_string(),
    }
}
