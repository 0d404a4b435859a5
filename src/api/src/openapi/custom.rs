//! The definitions of custom kinds and of their lists.
//!
//! Models apiextensions-apiserver/pkg/controller/openapi/builder/builder.go buildKubeNative and buildListSchema.
use std::collections::BTreeMap;

use super::descriptions::Descriptions;
use super::operations::custom_name;
use super::schemas::{META, structure};
use super::{Form, object};
use crate::crd::{Published, published};
use crate::registry::{Resource, ResourceRef};
use crate::tree::Tree;

const METADATA: &str =
    "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str =
    "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// By name; only those of one group version where given.
pub(super) fn definitions(
    form: Form,
    custom: &[ResourceRef],
    only: Option<(&str, &str)>,
    descriptions: &Descriptions,
) -> BTreeMap<String, Tree> {
    let mut all = BTreeMap::new();
    let custom = custom.iter().filter(|r| only.is_none_or(|own| own == (&*r.group, &*r.version)));
    // `apiVersion` and `kind`, with the descriptions that all kinds share.
    let common = structure(form, "io.k8s.api.core.v1.ConfigMap", descriptions);
    for resource in custom {
        let property = |name: &str| common.at(&["properties", name]).cloned().unwrap_or_default();
        let (api_version, kind) = (property("apiVersion"), property("kind"));
        let Some(definition) = &resource.custom else { continue };
        let metadata = described(form, "ObjectMeta", METADATA);
        let published_as = Published { is_v2: form == Form::V2, api_version: &api_version, kind: &kind, metadata: &metadata };
        let mut own = published(definition, &published_as);
        own.set(&["x-kubernetes-group-version-kind"], Tree::Array(vec![gvk(resource, &resource.kind)]));
        let selectable: Vec<Tree> = definition.selectable.iter().map(|field| object([("fieldPath", field.name.clone().into())])).collect();
        if !selectable.is_empty() && form == Form::V3 {
            own.set(&["x-kubernetes-selectable-fields"], Tree::Array(selectable));
        }
        let name = |kind: &str| custom_name(&resource.group, &resource.version, kind);
        all.insert(name(&resource.list_kind), list(form, resource, &name(&resource.kind), &api_version, &kind));
        all.insert(name(&resource.kind), own);
    }
    all
}

fn described(form: Form, name: &str, text: &str) -> Tree {
    let reference = form.reference(&format!("{META}{name}"));
    let mut out = match form {
        Form::V2 => reference,
        // Siblings of a reference are ignored in v3, so it is wrapped.
        Form::V3 => object([("allOf", Tree::Array(vec![reference]))]),
    };
    out.set(&["description"], text);
    out
}

fn gvk(resource: &Resource, kind: &str) -> Tree {
    object([("group", resource.group.clone().into()), ("version", resource.version.clone().into()), ("kind", kind.into())])
}

fn list(form: Form, resource: &Resource, of: &str, api_version: &Tree, kind: &Tree) -> Tree {
    let documentation = format!(
        "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
        resource.plural
    );
    let items = object([("type", "array".into()), ("items", form.reference(of)), ("description", documentation.into())]);
    let properties = object([
        ("apiVersion", api_version.clone()),
        ("kind", kind.clone()),
        ("items", items),
        ("metadata", described(form, "ListMeta", LIST_METADATA)),
    ]);
    object([
        ("description", format!("{} is a list of {}", resource.list_kind, resource.kind).into()),
        ("type", "object".into()),
        ("required", Tree::Array(vec!["items".into()])),
        ("properties", properties),
        ("x-kubernetes-group-version-kind", Tree::Array(vec![gvk(resource, &resource.list_kind)])),
    ])
}
