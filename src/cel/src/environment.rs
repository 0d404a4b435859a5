//! What an expression may speak of.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Declared, Issue, Issues, Program};

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
    patches: bool,
}

impl Environment {
    /// All functions that Kubernetes had at `version`, and no variable.
    pub fn base(version: Version) -> Self {
        Self { version, variables: BTreeMap::new(), patches: false }
    }

    /// Declares a variable; the object types that its declaration holds become known by their names.
    pub fn with_variable(mut self, name: &str, declared: Declared) -> Self {
        self.variables.insert(name.into(), Arc::new(declared));
        self
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

    /// Parses and checks `text`. The caller bounds its length if it must be shorter than 100,000 characters.
    pub fn compile(&self, text: &str) -> Result<Program, Issues> {
        let message = "expressions are not compiled yet".to_owned();
        Err(Issues { source: text.to_owned(), issues: vec![Issue { line: 1, column: 0, message }] })
    }
}
