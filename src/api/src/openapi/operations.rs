//! One operation of a path: its parameters, body, answers and the marks that kubectl looks for.
use std::collections::BTreeSet;

use super::paths::capital;
use super::{Form, object};
use crate::registry::{GroupVersionKind, Registry, Resource};
use crate::schema::Name;
use crate::tree::Tree;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const OUTPUT: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LISTS: [&str; 5] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOGS: [&str; 4] = ["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCHES: [&str; 3] = ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
const WRITE: [(&str, &str); 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const LIST: [(&str, &str); 8] = [
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];
const WATCH: [(&str, &str); 2] = [("allowWatchBookmarks", "boolean"), ("watch", "boolean")];
const DELETE: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// `com.example.v1.Foo` of `example.com/v1`, Foo. Models controller/openapi/builder gvkToModelName.
pub(super) fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let group: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", group.join("."))
}

/// Parameters of a path beside name, namespace and pretty: name, type, whether it is part of the path.
#[derive(Default)]
pub(super) struct Parameters(pub Vec<(String, &'static str, bool)>);

/// Where an operation stands; makes its id.
#[derive(Clone)]
pub(super) struct Place {
    pub kind: Name,
    /// Of a CustomResourceDefinition.
    pub is_custom: bool,
    pub namespaced: bool,
    pub suffix: String,
}

impl Place {
    pub(super) fn of(resource: &Resource) -> Place {
        Place { kind: resource.kind.clone(), is_custom: resource.custom.is_some(), namespaced: resource.namespaced, suffix: String::new() }
    }

    fn id(&self, action: &str, group: &str, extra: &str) -> String {
        let namespaced = if self.namespaced { "Namespaced" } else { "" };
        format!("{action}{group}{extra}{namespaced}{}{}", self.kind, self.suffix)
    }
}

/// Writes the operations of one group version.
pub(super) struct Operations<'a> {
    form: Form,
    /// `AppsV1`.
    group_id: String,
    /// `apps_v1`.
    tag: String,
    used: &'a mut BTreeSet<String>,
}

/// What differs from operation to operation.
struct Operation<'o> {
    id: String,
    description: String,
    /// `list`, `post`, `connect` ...
    action: &'o str,
    gvk: Option<GroupVersionKind>,
    query: Vec<(&'static str, &'static str)>,
    /// Media types and type of the body, and whether it must be there.
    body: Option<(&'o [&'static str], String, bool)>,
    /// Status codes and the type of their bodies; text without one.
    answers: &'o [&'o str],
    answer: Option<String>,
}

impl<'a> Operations<'a> {
    pub(super) fn new(form: Form, group: &str, version: &str, used: &'a mut BTreeSet<String>) -> Self {
        let short = group.strip_suffix(".k8s.io").unwrap_or(if group.is_empty() { "core" } else { group });
        let mut parts = short.split('.');
        let first = parts.next().unwrap_or_default().to_owned();
        let name = parts.fold(first, |name, part| name + &capital(part));
        let (group_id, tag) = (format!("{}{}", capital(&name), capital(version)), format!("{name}_{version}"));
        Operations { form, group_id, tag, used }
    }

    fn type_of(&self, gvk: &GroupVersionKind) -> String {
        match Registry::get().type_name(&gvk.group, &gvk.version, &gvk.kind) {
            Some(name) => name.to_owned(),
            None => custom_name(&gvk.group, &gvk.version, &gvk.kind),
        }
    }

    pub(super) fn resource_list(&mut self) -> Tree {
        self.operation(Operation {
            id: format!("get{}APIResources", self.group_id),
            description: "get available resources".into(),
            action: "",
            gvk: None,
            query: Vec::new(),
            body: None,
            answers: &["200"],
            answer: Some(format!("{META}APIResourceList")),
        })
    }

    pub(super) fn list(&mut self, place: &Place, resource: &Resource) -> Tree {
        let list = self.type_of(&GroupVersionKind { kind: resource.list_kind.clone(), ..resource.gvk() });
        self.used.insert(format!("{META}WatchEvent"));
        let mut query = [&WATCH[..], &LIST[..]].concat();
        query.sort_unstable();
        self.operation(Operation {
            id: place.id("list", &self.group_id, ""),
            description: format!("list or watch objects of kind {}", place.kind),
            action: "list",
            gvk: Some(resource.gvk()),
            query,
            body: None,
            answers: &["200"],
            answer: Some(list),
        })
    }

    pub(super) fn create(&mut self, place: &Place, gvk: &GroupVersionKind) -> Tree {
        let name = self.type_of(gvk);
        self.operation(Operation {
            id: place.id("create", &self.group_id, ""),
            description: format!("create {}{}", article(place), place.kind),
            action: "post",
            gvk: Some(gvk.clone()),
            query: WRITE.to_vec(),
            body: Some((&["*/*"], name.clone(), true)),
            answers: &["200", "201", "202"],
            answer: Some(name),
        })
    }

    pub(super) fn delete_collection(&mut self, place: &Place, resource: &Resource) -> Tree {
        let mut query = [&DELETE[..], &LIST[..]].concat();
        query.sort_unstable();
        self.operation(Operation {
            id: place.id("delete", &self.group_id, "Collection"),
            description: format!("delete collection of {}", place.kind),
            action: "deletecollection",
            gvk: Some(resource.gvk()),
            query,
            body: Some((&["*/*"], format!("{META}DeleteOptions"), false)),
            answers: &["200"],
            answer: Some(format!("{META}Status")),
        })
    }

    pub(super) fn read(&mut self, place: &Place, gvk: &GroupVersionKind) -> Tree {
        let answer = (place.suffix != "Log").then(|| self.type_of(gvk));
        self.operation(Operation {
            id: place.id("read", &self.group_id, ""),
            description: format!("read {}the specified {}", part(place), place.kind),
            action: "get",
            gvk: Some(gvk.clone()),
            query: Vec::new(),
            body: None,
            answers: &["200"],
            answer,
        })
    }

    pub(super) fn replace(&mut self, place: &Place, gvk: &GroupVersionKind) -> Tree {
        let name = self.type_of(gvk);
        self.operation(Operation {
            id: place.id("replace", &self.group_id, ""),
            description: format!("replace {}the specified {}", part(place), place.kind),
            action: "put",
            gvk: Some(gvk.clone()),
            query: WRITE.to_vec(),
            body: Some((&["*/*"], name.clone(), true)),
            answers: &["200", "201"],
            answer: Some(name),
        })
    }

    pub(super) fn patch(&mut self, place: &Place, gvk: &GroupVersionKind) -> Tree {
        let name = self.type_of(gvk);
        self.operation(Operation {
            id: place.id("patch", &self.group_id, ""),
            description: format!("partially update {}the specified {}", part(place), place.kind),
            action: "patch",
            gvk: Some(gvk.clone()),
            query: [&WRITE[..], &[("force", "boolean")]].concat(),
            body: Some((if place.is_custom { &PATCHES[..2] } else { &PATCHES }, format!("{META}Patch"), true)),
            answers: &["200", "201"],
            answer: Some(name),
        })
    }

    pub(super) fn delete(&mut self, place: &Place, gvk: &GroupVersionKind) -> Tree {
        self.operation(Operation {
            id: place.id("delete", &self.group_id, ""),
            description: format!("delete {}{}", article(place), place.kind),
            action: "delete",
            gvk: Some(gvk.clone()),
            query: DELETE.to_vec(),
            body: Some((&["*/*"], format!("{META}DeleteOptions"), false)),
            answers: &["200", "202"],
            answer: Some(format!("{META}Status")),
        })
    }

    pub(super) fn connect(&mut self, place: &Place, gvk: &GroupVersionKind, method: &str) -> Tree {
        self.operation(Operation {
            id: place.id("connect", &self.group_id, &capital(method)),
            description: format!("connect {} requests to {}", method.to_uppercase(), place.kind),
            action: "connect",
            gvk: Some(gvk.clone()),
            query: Vec::new(),
            body: None,
            answers: &["200"],
            answer: None,
        })
    }

    fn operation(&mut self, operation: Operation) -> Tree {
        let mut out = object([
            ("tags", vec![self.tag.as_str()].into()),
            ("description", operation.description.into()),
            ("operationId", operation.id.into()),
        ]);
        let mut parameters: Vec<Tree> = operation.query.iter().map(|(name, kind)| self.parameter(name, kind, false)).collect();
        if let Some((media, name, required)) = operation.body {
            let schema = self.form.reference(&name);
            self.used.insert(name);
            match self.form {
                Form::V3 => {
                    let content = media.iter().map(|m| (*m, object([("schema", schema.clone())]))).collect();
                    let mut body = object([("content", Tree::Object(content))]);
                    if required {
                        body.set(&["required"], true);
                    }
                    out.set(&["requestBody"], body);
                }
                Form::V2 => {
                    let mut body = object([("name", "body".into()), ("in", "body".into()), ("schema", schema)]);
                    if required {
                        body.set(&["required"], true);
                    }
                    parameters.insert(0, body);
                    out.set(&["consumes"], media.to_vec());
                }
            }
        }
        if !parameters.is_empty() {
            out.set(&["parameters"], Tree::Array(parameters));
        }
        let schema = match &operation.answer {
            Some(name) => self.form.reference(name),
            None => object([("type", "string".into())]),
        };
        let media: &[&str] = match (&operation.answer, operation.action) {
            (Some(_), "list") => &LISTS,
            (Some(_), _) => &OUTPUT,
            (None, "get") => &LOGS,
            (None, _) => &["*/*"],
        };
        if self.form == Form::V2 {
            out.set(&["produces"], media.to_vec());
            out.set(&["schemes"], vec!["https"]);
        }
        for code in operation.answers {
            let description = ["OK", "Created", "Accepted"][usize::from(code.as_bytes()[2] - b'0')];
            out.set(&["responses", code, "description"], description);
            match self.form {
                Form::V2 => out.set(&["responses", code, "schema"], schema.clone()),
                Form::V3 => {
                    let content = media.iter().map(|m| (*m, object([("schema", schema.clone())]))).collect();
                    out.set(&["responses", code, "content"], Tree::Object(content));
                }
            }
        }
        out.set(&["responses", "401", "description"], "Unauthorized");
        self.used.extend(operation.answer);
        if let Some(gvk) = operation.gvk {
            out.set(&["x-kubernetes-action"], operation.action);
            let gvk = object([("group", gvk.group.into()), ("version", gvk.version.into()), ("kind", gvk.kind.into())]);
            out.set(&["x-kubernetes-group-version-kind"], gvk);
        }
        out
    }

    fn parameter(&self, name: &str, kind: &str, in_path: bool) -> Tree {
        let place = if in_path { "path" } else { "query" };
        let mut out = object([("name", name.into()), ("in", place.into())]);
        if in_path {
            out.set(&["required"], true);
        }
        let prefix: &[&str] = match self.form {
            Form::V2 => &[],
            Form::V3 => &["schema"],
        };
        out.set(&[prefix, &["type"]].concat(), kind);
        out.set(&[prefix, &["uniqueItems"]].concat(), true);
        out
    }

    pub(super) fn path_parameters(&self, place: &Place, named: bool, more: Parameters) -> Tree {
        let mut all: Vec<(String, &str, bool)> = more.0;
        if named {
            all.push(("name".into(), "string", true));
        }
        if place.namespaced {
            all.push(("namespace".into(), "string", true));
        }
        all.push(("pretty".into(), "string", false));
        all.sort();
        Tree::Array(all.iter().map(|(name, kind, in_path)| self.parameter(name, kind, *in_path)).collect())
    }
}

/// `status of `, `scale of `, or nothing.
fn part(place: &Place) -> String {
    let suffix = place.suffix.trim_end_matches("ForAllNamespaces");
    if suffix.is_empty() { String::new() } else { format!("{} of ", suffix.to_lowercase()) }
}

fn article(place: &Place) -> String {
    if !place.suffix.is_empty() {
        return part(place) + if starts_with_vowel(&place.kind) { "an " } else { "a " };
    }
    if starts_with_vowel(&place.kind) { "an ".into() } else { "a ".into() }
}

fn starts_with_vowel(word: &str) -> bool {
    word.starts_with(['A', 'E', 'I', 'O', 'U'])
}
