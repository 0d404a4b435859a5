//! The configuration files that say who is believed and who may: read strictly, followed while the server runs.
//!
//! Models k8s.io/apiserver/pkg/apis/apiserver (the shapes) and the strict decoder of its scheme: an unknown field or a value of another type is an
//! error with its path.
mod authentication;
mod authorization;
mod shape;

use api::codec;
use api::field_error::{FieldError, aggregate};
use api::tree::Tree;

pub use authentication::{Anonymous, AuthenticationConfiguration, ClaimRule, Issuer, JwtAuthenticator, Mapping, OidcFlags, UserRule};
pub use authorization::{AuthorizationConfiguration, AuthorizerConfiguration, WebhookConfiguration};
use shape::Shape;

/// More is no configuration.
const FILE_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Unreadable(String),
    #[error("{}", aggregate(.0))]
    Invalid(Vec<FieldError>),
}

/// The document, if it is a `kind` of `apiserver.config.k8s.io` in one of `versions`, and has fields of this shape and no others.
fn read(text: &str, kind: &str, versions: &[&str], shape: &Shape) -> Result<Tree, ConfigError> {
    let unreadable = |text: String| Err(ConfigError::Unreadable(text));
    if text.is_empty() {
        return unreadable("empty config data".into());
    }
    if text.len() > FILE_BYTES_MAX {
        return unreadable(format!("config data of more than {FILE_BYTES_MAX} bytes"));
    }
    let parsed = codec::parse_yaml(text.as_bytes()).map_err(|error| ConfigError::Unreadable(error.to_string()))?;
    let tree = parsed.tree;
    if tree.as_object().is_none() {
        return unreadable(format!("expected a {kind}, got {}", tree.type_name()));
    }
    let (named, version) = (tree.str_at(&["kind"]), tree.str_at(&["apiVersion"]));
    for (field, value) in [("Kind", named), ("apiVersion", version)] {
        if value.is_empty() {
            return unreadable(format!("Object '{field}' is missing"));
        }
    }
    let known = version.strip_prefix("apiserver.config.k8s.io/").is_some_and(|version| versions.contains(&version));
    if named != kind || !known {
        return unreadable(format!(
            "no kind {named:?} is registered for version {version:?}: expected {kind} of apiserver.config.k8s.io/{}",
            versions[0]
        ));
    }
    let (mut unknown, mut errors) = (Vec::new(), Vec::new());
    shape::check(&tree, shape, "", &mut unknown, &mut errors);
    let strict = codec::strict_errors(parsed.duplicates, unknown);
    if !strict.is_empty() {
        return unreadable(codec::strict_error(&strict));
    }
    if errors.is_empty() { Ok(tree) } else { Err(ConfigError::Invalid(errors)) }
}

#[cfg(test)]
mod tests;
