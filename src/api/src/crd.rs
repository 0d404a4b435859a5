//! CustomResourceDefinitions: whether one is valid, which resources it makes, and what its schema does to objects.
//!
//! Models apiextensions-apiserver, v1.37. [`Definition`] reads a stored definition; [`Definition::resources`] gives one
//! [`Resource`] for each version it serves, which then goes the way of every built-in kind. A version's schema is compiled into a
//! [`Structural`] when its first object comes along, its rules (`x-kubernetes-validations`) into [`Rules`].
mod check;
mod check_rules;
mod check_schema;
mod coerce;
mod declare;
mod decode;
mod default;
mod definition;
mod field_path;
mod format;
mod json_path;
mod list_type;
mod names;
mod place;
mod publish;
mod rules;
mod scale;
mod settled;
mod structural;
#[cfg(test)]
mod tests;
mod value;
mod value_error;
mod warn;

use std::sync::{Arc, OnceLock};

use cel::pattern;

pub use check::{validate, validate_status};
pub(crate) use declare::declare;
pub use decode::{Coerced, coerce, coerce_applied, converted, from_stored};
pub use definition::{Definition, by_stability, stored_versions};
pub use json_path::Column;
pub use names::{Condition, NamePlan, apply_plan, plan_names, set_condition};
pub use publish::{Published, published};
pub use rules::Rules;
pub use scale::Scale;
pub use settled::is_settled;
pub use warn::definition_warnings;
pub use structural::{Additional, Structural};

use crate::field_error::FieldError;
use crate::registry::Resource;
use crate::schema::Name;
use crate::skim::Paths;
use crate::tree::Tree;

pub const GROUP: &str = "apiextensions.k8s.io";
pub const PLURAL: &str = "customresourcedefinitions";
/// Holds a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What one version of a CustomResourceDefinition says of its objects.
#[derive(Debug)]
pub struct Custom {
    /// The definition is being deleted: its objects go, and none may come.
    pub terminating: bool,
    /// Shown with every answer of a deprecated version.
    pub warning: Option<String>,
    pub scale: Option<Scale>,
    pub columns: Vec<Column>,
    /// The fields that the columns, and that of the name, are made of.
    pub shown: Paths,
    pub selectable: Vec<SelectableField>,
    /// Those fields, and the labels.
    pub selected: Paths,
    /// `None`: the strategy None, by which versions differ in nothing but their names and schemas.
    pub conversion: Option<Arc<Conversion>>,
    /// `openAPIV3Schema` as it stands in the definition.
    source: Tree,
    compiled: OnceLock<Structural>,
    /// `None` where the schema has no rule.
    rules: OnceLock<Option<Rules>>,
}

/// The versions of ConversionReview that are known, as a webhook may name them.
pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// The strategy Webhook: who converts objects from one version to another.
#[derive(Debug, PartialEq)]
pub struct Conversion {
    /// The definition's name.
    pub definition: String,
    /// `clientConfig` as it stands there.
    pub client: Tree,
    /// As the webhook prefers them.
    pub review_versions: Vec<String>,
    /// All versions of the definition, served or not.
    pub versions: Vec<String>,
}

/// `spec.versions[*].selectableFields`.
#[derive(Clone, Debug)]
pub struct SelectableField {
    /// The path without its leading dot.
    pub name: Name,
}

impl SelectableField {
    /// What selectors read of an object.
    pub fn selected(fields: &[SelectableField]) -> Paths {
        let mut selected = Paths::default();
        selected.insert(&["metadata", "labels"]);
        fields.iter().for_each(|field| selected.insert(&field.name.split('.').collect::<Vec<&str>>()));
        selected
    }
}

impl Custom {
    pub fn structural(&self) -> &Structural {
        self.compiled.get_or_init(|| Structural::compile(&self.source))
    }

    fn rules(&self) -> Option<&Rules> {
        self.rules.get_or_init(|| Rules::compile(self.structural())).as_ref()
    }

    /// The schema as the definition has it.
    pub fn source(&self) -> &Tree {
        &self.source
    }
}

/// What upstream warns of: finalizers that others could take for theirs. Models pkg/registry/customresource/validator.go.
pub fn finalizer_warnings(object: &Tree) -> Vec<String> {
    const STANDARD: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let mut warnings = Vec::new();
    for name in crate::meta::finalizers(object) {
        let place = || format!("metadata.finalizers: {}", crate::field_error::quote(name));
        warnings.extend(crate::names::qualified_name(name).into_iter().map(|text| format!("{}: {text}", place())));
        if !name.contains('/') && !STANDARD.contains(&name) {
            let path = if name.contains('.') { " including a path (/)" } else { "" };
            warnings.push(format!(
                "{}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers",
                place()
            ));
        }
    }
    warnings
}

/// Fills in what is absent, by the schema.
pub fn defaults(custom: &Custom, object: &mut Tree) {
    default::apply(object, custom.structural());
}

/// What is wrong with an object of a custom kind. Models pkg/registry/customresource/strategy.go Validate and ValidateUpdate.
pub fn validate_object(resource: &Resource, custom: &Custom, new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    crate::validation::validate_meta(&mut errors, new, old, resource.namespaced);
    let schema = custom.structural();
    value::object(&mut errors, schema, new, old);
    if let Some(scale) = &custom.scale {
        scale.check_spec(&mut errors, new);
        scale.check_status(&mut errors, new);
    }
    coerce::check_embedded(&mut errors, schema, new);
    let mut before = Vec::new();
    old.into_iter().for_each(|old| list_type::check(&mut before, schema, old));
    if before.is_empty() {
        list_type::check(&mut errors, schema, new);
    }
    rules::check(&mut errors, custom.rules(), new, old);
    errors
}

/// What is wrong with an update of the status. Models status_strategy.go ValidateUpdate.
pub fn validate_object_status(resource: &Resource, custom: &Custom, new: &Tree, old: &Tree) -> Vec<FieldError> {
    let mut errors = Vec::new();
    crate::validation::validate_meta(&mut errors, new, Some(old), resource.namespaced);
    let schema = custom.structural();
    if let (Some(status), Some(schema)) = (new.get("status"), schema.property("status")) {
        value::part(&mut errors, schema, status, old.get("status"), "status");
    }
    if let Some(scale) = &custom.scale {
        scale.check_status(&mut errors, new);
    }
    coerce::check_embedded(&mut errors, schema, new);
    let mut before = Vec::new();
    list_type::check(&mut before, schema, old);
    if before.is_empty() {
        list_type::check(&mut errors, schema, new);
    }
    rules::check(&mut errors, custom.rules(), new, Some(old));
    errors
}
