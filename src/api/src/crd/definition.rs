//! A CustomResourceDefinition as the server reads it.
//!
//! Models apiextensions-apiserver/pkg/apiserver/{customresource_handler,customresource_discovery_controller}.go.
use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use super::json_path::Column;
use super::scale::Scale;
use super::{Conversion, Custom, SelectableField};
use crate::meta;
use crate::registry::{GroupVersionKind, Resource, Subresource};
use crate::schema::Name;
use crate::tree::Tree;

/// A definition, decoded.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'t>(pub &'t Tree);

impl<'t> Definition<'t> {
    pub fn name(self) -> &'t str {
        meta::name(self.0)
    }

    pub fn group(self) -> &'t str {
        self.0.str_at(&["spec", "group"])
    }

    pub fn plural(self) -> &'t str {
        self.0.str_at(&["spec", "names", "plural"])
    }

    pub fn is_namespaced(self) -> bool {
        self.0.str_at(&["spec", "scope"]) == "Namespaced"
    }

    pub fn versions(self) -> &'t [Tree] {
        self.0.array_at(&["spec", "versions"])
    }

    pub fn storage_version(self) -> &'t str {
        self.versions().iter().find(|v| is_true(v, "storage")).map_or("", |v| v.str_at(&["name"]))
    }

    pub fn condition(self, kind: &str) -> Option<&'t Tree> {
        self.0.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == kind)
    }

    pub fn is_condition_true(self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|c| c.str_at(&["status"]) == "True")
    }

    pub fn is_established(self) -> bool {
        self.is_condition_true("Established")
    }

    pub fn is_deleting(self) -> bool {
        meta::deletion_timestamp(self.0).is_some()
    }

    /// The versions that are served now, most stable first; none before the definition is established.
    pub fn resources(self) -> Vec<Arc<Resource>> {
        if !self.is_established() {
            return Vec::new();
        }
        let mut versions: Vec<&Tree> = self.versions().iter().filter(|v| is_true(v, "served")).collect();
        versions.sort_by(|a, b| by_stability(a.str_at(&["name"]), b.str_at(&["name"])));
        let conversion = self.conversion();
        versions.into_iter().map(|version| Arc::new(self.resource(version, conversion.as_ref()))).collect()
    }

    /// The version objects are stored in, served or not; what the watch cache holds objects by.
    pub fn stored(self) -> Option<Arc<Resource>> {
        let version = self.versions().iter().find(|v| is_true(v, "storage"))?;
        Some(Arc::new(self.resource(version, self.conversion().as_ref())))
    }

    /// Who converts objects; `None` for the strategy None.
    pub fn conversion(self) -> Option<Arc<Conversion>> {
        let conversion = self.0.at(&["spec", "conversion"]).filter(|c| c.str_at(&["strategy"]) == "Webhook")?;
        let reviews = conversion.array_at(&["webhook", "conversionReviewVersions"]);
        Some(Arc::new(Conversion {
            definition: self.name().to_owned(),
            client: conversion.at(&["webhook", "clientConfig"]).cloned().unwrap_or_default(),
            review_versions: reviews.iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect(),
            versions: self.versions().iter().map(|v| v.str_at(&["name"]).to_owned()).collect(),
        }))
    }

    fn resource(self, version: &Tree, conversion: Option<&Arc<Conversion>>) -> Resource {
        // Until names are accepted the status has empty ones.
        let accepted = self.0.at(&["status", "acceptedNames"]).filter(|names| !names.str_at(&["plural"]).is_empty());
        let names = |key: &str| accepted.and_then(|names| names.get(key)).or_else(|| self.0.at(&["spec", "names", key]));
        let name = |key: &str| -> Name { names(key).and_then(Tree::as_str).unwrap_or("").to_owned().into() };
        let list = |key: &str| -> Vec<Name> {
            let items = self.0.array_at(&["status", "acceptedNames", key]);
            items.iter().filter_map(Tree::as_str).map(|s| s.to_owned().into()).collect()
        };
        let group: Name = self.group().to_owned().into();
        let version_name: Name = version.str_at(&["name"]).to_owned().into();
        let kind = name("kind");
        let terminating = self.is_condition_true("Terminating");
        let verbs = match terminating {
            true => vec!["delete", "deletecollection", "get", "list", "watch"],
            false => vec!["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
        };
        let has_status = version.at(&["subresources", "status"]).is_some_and(|s| !s.is_null());
        let scale = version.at(&["subresources", "scale"]).filter(|s| !s.is_null()).map(Scale::compile);
        let sub = |name, group: Name, version: Name, kind: Name| Subresource {
            name,
            kind: GroupVersionKind { group, version, kind },
            verbs: vec!["get", "patch", "update"],
        };
        let mut subresources = Vec::new();
        if has_status {
            subresources.push(sub("status", group.clone(), version_name.clone(), kind.clone()));
        }
        if scale.is_some() {
            subresources.push(sub("scale", "autoscaling".into(), "v1".into(), "Scale".into()));
        }
        let columns = version.array_at(&["additionalPrinterColumns"]);
        let columns: Vec<Column> = if columns.is_empty() { vec![Column::age()] } else { columns.iter().map(Column::compile).collect() };
        let selectable: Vec<SelectableField> = version
            .array_at(&["selectableFields"])
            .iter()
            .map(|field| SelectableField { name: field.str_at(&["jsonPath"]).trim_start_matches('.').to_owned().into() })
            .collect();
        let custom = Custom {
            terminating,
            warning: is_true(version, "deprecated").then(|| self.deprecation(version)),
            scale,
            shown: Column::shown(&columns),
            columns,
            selected: SelectableField::selected(&selectable),
            selectable,
            conversion: conversion.cloned(),
            source: version.at(&["schema", "openAPIV3Schema"]).cloned().unwrap_or_default(),
            compiled: OnceLock::new(),
            rules: OnceLock::new(),
        };
        Resource {
            storage_version_hash: String::new().into(),
            version: version_name,
            list_kind: name("listKind"),
            plural: name("plural"),
            singular: name("singular"),
            namespaced: self.is_namespaced(),
            served: true,
            short_names: list("shortNames"),
            categories: list("categories"),
            verbs,
            subresources,
            storage_version: self.storage_version().to_owned().into(),
            custom: Some(Box::new(custom)),
            kind,
            group,
        }
    }

    fn deprecation(self, version: &Tree) -> String {
        if let Some(text) = version.get("deprecationWarning").and_then(Tree::as_str) {
            return text.to_owned();
        }
        let (group, name, kind) = (self.group(), version.str_at(&["name"]), self.0.str_at(&["spec", "names", "kind"]));
        let text = format!("{group}/{name} {kind} is deprecated");
        let usable = |v: &&Tree| is_true(v, "served") && !is_true(v, "deprecated");
        let mut better: Vec<&str> = self.versions().iter().filter(usable).map(|v| v.str_at(&["name"])).collect();
        better.retain(|other| by_stability(other, name) == Ordering::Less);
        better.sort_by(|a, b| by_stability(a, b));
        match better.first() {
            Some(best) => format!("{text}; use {group}/{best} {kind}"),
            None => text,
        }
    }
}

/// `status.storedVersions` with the storage version of today; the list that validation wants to find.
pub fn stored_versions(definition: &Tree) -> Vec<String> {
    let mut stored: Vec<String> =
        definition.array_at(&["status", "storedVersions"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect();
    let now = Definition(definition).storage_version();
    if !now.is_empty() && !stored.iter().any(|v| v == now) {
        stored.push(now.to_owned());
    }
    stored
}

fn is_true(tree: &Tree, key: &str) -> bool {
    tree.get(key).and_then(Tree::as_bool).unwrap_or(false)
}

/// `v2`, `v1`, `v2beta1`, `v1alpha3`, then anything else by name. Models apimachinery/pkg/version CompareKubeAwareVersionStrings.
pub fn by_stability(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor version.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = |text: &str| if text.starts_with('0') { None } else { text.parse().ok() };
    let (major, rest) = rest.split_at(digits(rest));
    let major = number(major)?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, minor) = [("beta", 1), ("alpha", 0)].into_iter().find_map(|(word, rank)| Some((rank, rest.strip_prefix(word)?)))?;
    Some((stability, major, number(minor)?))
}
