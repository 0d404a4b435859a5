//! What is remembered from the first round of mutations to the second.
//!
//! Models k8s.io/apiserver/pkg/admission/reinvocation.go, with the contexts that mutating webhooks and mutating policies keep in it.
use std::collections::BTreeSet;

use api::tree::Tree;

/// Of one request.
#[derive(Default)]
pub struct Reinvocation {
    is_again: bool,
    is_wanted: bool,
    pub webhooks: Remembered,
    pub policies: Remembered,
}

/// What one of the two that may be asked again remembers.
#[derive(Default)]
pub struct Remembered {
    output: Option<Tree>,
    invoked: BTreeSet<String>,
    again: BTreeSet<String>,
}

impl Reinvocation {
    /// Whether somebody changed the object, so that everything is to be asked once more.
    pub fn begin_again(&mut self) -> bool {
        let begin = self.is_wanted && !self.is_again;
        self.is_again = true;
        begin
    }

    pub fn is_again(&self) -> bool {
        self.is_again
    }

    pub fn want(&mut self) {
        self.is_wanted = true;
    }
}

impl Remembered {
    /// At the beginning of a round: what others changed since is a reason to ask again.
    pub fn begin(&mut self, is_again: bool, object: &Tree) {
        if is_again && self.output.as_ref() != Some(object) {
            self.require();
        }
    }

    /// Whoever wants to be asked again, and was asked so far, is.
    pub fn require(&mut self) {
        self.again.append(&mut self.invoked);
    }

    pub fn is_required(&self, uid: &str) -> bool {
        self.again.contains(uid)
    }

    pub fn invoked(&mut self, uid: &str) {
        self.invoked.insert(uid.to_owned());
    }

    pub fn end(&mut self, object: &Tree) {
        self.output = Some(object.clone());
    }
}
