//! Match conditions: whether a webhook or policy that matches a request is asked after all.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions/matcher.go.
use std::sync::OnceLock;

use api::admission::{Compiler, Returns, Speaks};
use api::tree::Tree;

use super::expression::{BUDGET_OF_CONDITIONS, Expression, Scope, Seen};
use crate::status;

#[derive(Debug, PartialEq, Eq)]
pub enum Match {
    Yes,
    No,
    /// Upstream's text; only where failures count.
    Failed(String),
}

/// The match conditions of a webhook: compiled when the first request comes that they are about.
pub struct Conditions {
    sources: Vec<String>,
    compiled: OnceLock<Vec<Expression>>,
}

impl Conditions {
    pub fn of(conditions: &[Tree]) -> Self {
        let sources = conditions.iter().map(|condition| condition.str_at(&["expression"]).to_owned()).collect();
        Self { sources, compiled: OnceLock::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    pub fn expressions(&self) -> &[Expression] {
        self.compiled.get_or_init(|| {
            let (compiler, speaks) = (Compiler::plain(), Speaks { authorizer: true, ..Speaks::default() });
            self.sources.iter().map(|text| Expression::compile(&compiler, text, speaks, Returns::Bool)).collect()
        })
    }
}

/// Whether all conditions hold. One that does not decides, whatever fails beside it.
pub fn evaluate<'a>(conditions: &'a [Expression], seen: Seen<'a>, ignores_failure: bool) -> Match {
    let failed = |why: String| if ignores_failure { Match::No } else { Match::Failed(why) };
    let no_namespace = &Tree::Null;
    let scope = Scope::new(Seen { namespace: no_namespace, ..seen });
    let mut budget = BUDGET_OF_CONDITIONS;
    let mut errors = Vec::new();
    let mut is_excluded = false;
    // All run, as upstream runs them: what they cost together counts.
    for condition in conditions {
        match scope.evaluate(condition, &mut budget) {
            Err(spent) => return failed(spent.to_string()),
            Ok(Err(error)) => errors.push(error),
            Ok(Ok(value)) => is_excluded |= value.as_bool() == Some(false),
        }
    }
    match (is_excluded, errors.is_empty()) {
        (true, _) => Match::No,
        (false, true) => Match::Yes,
        (false, false) => failed(status::aggregate(&errors)),
    }
}
