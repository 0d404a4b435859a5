//! What an expression may speak of.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::functions::Overload;
use crate::issue::Source;
use crate::parser::Syntax;
use crate::types::Type;
use crate::{Declared, Issues, ObjectType, Program, Shape, check, parser};

/// A version of Kubernetes: which functions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    /// What expressions that are stored already may use.
    pub const CURRENT: Version = Version { major: 1, minor: 37 };
    /// What new expressions may use: upstream's default compatibility version is one behind, so that a rollback finds no
    /// expression that it cannot compile.
    pub const COMPATIBLE: Version = Version { major: 1, minor: 36 };
}

/// Variables, object types and functions. Cheap to clone and to extend.
#[derive(Clone, Debug)]
pub struct Environment {
    version: Version,
    variables: BTreeMap<Arc<str>, Arc<Declared>>,
    objects: HashMap<Arc<str>, Arc<ObjectType>>,
    patches: bool,
}

/// Types that `with_patch_types` lets expressions make.
const PATCH: &str = "JSONPatch";
const OBJECT: &str = "Object";

impl Environment {
    /// All functions that Kubernetes had at `version`, and no variable.
    pub fn base(version: Version) -> Self {
        Self { version, variables: BTreeMap::new(), objects: HashMap::new(), patches: false }
    }

    /// Declares a variable; the object types that its declaration holds become known by their names.
    pub fn with_variable(self, name: &str, declared: Declared) -> Self {
        self.with_shared_variable(name, Arc::new(declared))
    }

    /// The same, of a declaration that is kept elsewhere too.
    pub fn with_shared_variable(mut self, name: &str, declared: Arc<Declared>) -> Self {
        self.learn(&declared);
        self.variables.insert(name.into(), declared);
        self
    }

    fn learn(&mut self, declared: &Declared) {
        match &declared.shape {
            Shape::List { element, .. } => self.learn(element),
            Shape::Map { value } => self.learn(value),
            Shape::Optional(of) => self.learn(of),
            Shape::Object(of) => {
                if self.objects.insert(of.name.clone(), of.clone()).is_none() {
                    of.fields().iter().for_each(|field| self.learn(&field.of));
                }
            }
            _ => {}
        }
    }

    /// Lets expressions make `Object{...}` with any fields (`Object.spec{...}` and so on) and `JSONPatch{op: ..., path: ...}`;
    /// adds `jsonpatch.escapeKey`.
    pub fn with_patch_types(mut self) -> Self {
        self.patches = true;
        self
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn variable(&self, name: &str) -> Option<&Arc<Declared>> {
        self.variables.get(name)
    }

    pub(crate) fn object_type(&self, name: &str) -> Option<Arc<ObjectType>> {
        self.objects.get(name).cloned()
    }

    /// Whether expressions may make objects of this type.
    pub(crate) fn is_made(&self, name: &str) -> bool {
        self.patches && (name == PATCH || name == OBJECT || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The type of a field of an object that expressions make.
    pub(crate) fn made_field(&self, object: &str, field: &str) -> Option<Type> {
        if !self.is_made(object) {
            return None;
        }
        match (object, field) {
            (PATCH, "op" | "path" | "from") => Some(Type::String),
            (PATCH, "value") => Some(Type::Dyn),
            (PATCH, _) => None,
            _ => Some(Type::Dyn),
        }
    }

    pub(crate) fn has_overload(&self, overload: &Overload) -> bool {
        overload.since <= self.version.minor
    }

    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.patches || name != "jsonpatch.escapeKey"
    }

    /// Parses and checks `text`. The caller bounds its length if it must be shorter than 100,000 characters.
    pub fn compile(&self, text: &str) -> Result<Program, Issues> {
        let source = Source { text };
        let syntax =
            Syntax { optionals: self.version.minor >= 28, two_variables: self.version.minor >= 32, sort_by: self.version.minor >= 34 };
        let ast = parser::parse(&source, syntax).map_err(|issues| Issues::new(text, issues))?;
        let checked = check::check(ast, &source, self).map_err(|issues| Issues::new(text, issues))?;
        Ok(Program::of(checked))
    }
}
