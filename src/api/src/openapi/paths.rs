//! Which paths a group version has, and which operations each of them.
use std::collections::BTreeSet;

use super::operations::{Operations, Parameters, Place};
use super::{Form, object, root};
use crate::registry::{Registry, Resource, Subresource};
use crate::schema::Node;
use crate::tree::{Object, Tree};

/// The paths of one group version, sorted as the resources are; the types they speak of are added to `used`.
pub(super) fn all(
    form: Form,
    group: &str,
    version: &str,
    resources: &[&Resource],
    used: &mut BTreeSet<String>,
) -> Vec<(String, Tree)> {
    let root = root(group, version);
    let mut writer = Operations::new(form, group, version, used);
    let mut paths = vec![(format!("{root}/"), object([("get", writer.resource_list())]))];
    for resource in resources {
        collection(&mut writer, &root, resource, &mut paths);
        single(&mut writer, &root, resource, &mut paths);
        for subresource in &resource.subresources {
            sub(&mut writer, &root, resource, subresource, &mut paths);
        }
    }
    paths
}

fn scope(root: &str, resource: &Resource) -> String {
    let namespace = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("{root}{namespace}/{}", resource.plural)
}

fn collection(writer: &mut Operations, root: &str, resource: &Resource, paths: &mut Vec<(String, Tree)>) {
    let place = Place::of(resource);
    let mut item = Object::new();
    if resource.has_verb("list") {
        item.insert("get", writer.list(&place, resource));
    }
    if resource.has_verb("create") {
        item.insert("post", writer.create(&place, &resource.gvk()));
    }
    if resource.has_verb("deletecollection") {
        item.insert("delete", writer.delete_collection(&place, resource));
    }
    if !item.is_empty() {
        item.insert("parameters", writer.path_parameters(&place, false, Parameters::default()));
        paths.push((scope(root, resource), item.into()));
    }
    if resource.namespaced && resource.has_verb("list") {
        let everywhere = Place { namespaced: false, suffix: "ForAllNamespaces".into(), ..place };
        let item = object([
            ("get", writer.list(&everywhere, resource)),
            ("parameters", writer.path_parameters(&everywhere, false, Parameters::default())),
        ]);
        paths.push((format!("{root}/{}", resource.plural), item));
    }
}

fn single(writer: &mut Operations, root: &str, resource: &Resource, paths: &mut Vec<(String, Tree)>) {
    let item = methods(writer, &Place::of(resource), &resource.gvk(), &resource.verbs, false);
    if !item.is_empty() {
        let mut item = item;
        item.insert("parameters", writer.path_parameters(&Place::of(resource), true, Parameters::default()));
        paths.push((format!("{}/{{name}}", scope(root, resource)), item.into()));
    }
}

fn methods(writer: &mut Operations, place: &Place, gvk: &crate::registry::GroupVersionKind, verbs: &[&str], create: bool) -> Object {
    let mut item = Object::new();
    for verb in verbs {
        match *verb {
            "get" => item.insert("get", writer.read(place, gvk)),
            "update" => item.insert("put", writer.replace(place, gvk)),
            "patch" => item.insert("patch", writer.patch(place, gvk)),
            "delete" => item.insert("delete", writer.delete(place, gvk)),
            "create" if create => item.insert("post", writer.create(place, gvk)),
            _ => None,
        };
    }
    item
}

fn sub(writer: &mut Operations, root: &str, resource: &Resource, subresource: &Subresource, paths: &mut Vec<(String, Tree)>) {
    let path = format!("{}/{{name}}/{}", scope(root, resource), subresource.name);
    let place = Place { suffix: capital(subresource.name), ..Place::of(resource) };
    if !subresource.kind.kind.ends_with("Options") {
        let mut item = methods(writer, &place, &subresource.kind, &subresource.verbs, true);
        let options = if subresource.name == "log" { options_of("PodLogOptions") } else { Parameters::default() };
        item.insert("parameters", writer.path_parameters(&place, true, options));
        paths.push((path, item.into()));
        return;
    }
    let methods: &[&str] =
        if subresource.name == "proxy" { &["get", "put", "post", "delete", "options", "head", "patch"] } else { &["get", "post"] };
    let mut item: Object = methods.iter().map(|method| (*method, writer.connect(&place, &subresource.kind, method))).collect();
    item.insert("parameters", writer.path_parameters(&place, true, options_of(&subresource.kind.kind)));
    paths.push((path.clone(), item.into()));
    if subresource.name == "proxy" {
        let place = Place { suffix: format!("{}WithPath", place.suffix), ..place };
        let mut item: Object = methods.iter().map(|method| (*method, writer.connect(&place, &subresource.kind, method))).collect();
        let mut options = options_of(&subresource.kind.kind);
        options.0.push(("path".into(), "string", true));
        item.insert("parameters", writer.path_parameters(&place, true, options));
        paths.push((format!("{path}/{{path}}"), item.into()));
    }
}

/// The fields of an options kind, as query parameters.
fn options_of(kind: &str) -> Parameters {
    let schema = Registry::get().kind_schema("", "v1", kind).expect("subresources name known kinds");
    let fields = schema.fields().iter().filter(|f| f.embedded_in != "TypeMeta");
    Parameters(
        fields
            .map(|field| {
                let kind = match field.schema.node {
                    Node::Boolean => "boolean",
                    Node::Integer { .. } => "integer",
                    _ => "string",
                };
                (field.name.to_string(), kind, false)
            })
            .collect(),
    )
}

pub(super) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
