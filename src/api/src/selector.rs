//! Which objects a request or a controller means: label selectors, field selectors, node selectors.
//!
//! Models apimachinery/pkg/labels, apimachinery/pkg/fields and metav1 `LabelSelectorAsSelector`.
mod field;
mod label;
mod lexer;
mod node;
mod skim;

pub use field::{FieldSelector, FieldTerm, convert_label, fields, fields_of};
pub use label::{LabelSelector, Operator, Requirement};
pub use node::{node_is_allowed, node_term_matches};
pub use skim::skim;

/// Why a selector does not parse; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

#[cfg(test)]
mod tests;
