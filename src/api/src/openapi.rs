//! OpenAPI documents v2 and v3, made on demand from the registry, the schemas and the descriptions.
//!
//! Nothing is kept: a document is a megabyte that is asked for once per client. It is written piece by piece, each piece (one path, one
//! schema) being a small tree, so that making it costs little more than its own bytes. Models what upstream's kube-openapi builders print;
//! left out: the deprecated `/watch/` paths, and the documents of single groups and of `/version`, which no client reads.
mod custom;
mod descriptions;
mod gnostic;
mod operations;
mod paths;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::registry::{Registry, Resource, ResourceRef, api_version};
use crate::tree::{Object, Tree};

/// Which of the two forms is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    V2,
    V3,
}

impl Form {
    fn reference(self, name: &str) -> Tree {
        let prefix = match self {
            Form::V2 => "#/definitions/",
            Form::V3 => "#/components/schemas/",
        };
        object([("$ref", format!("{prefix}{name}").into())])
    }
}

/// Changes when any document of the built-in kinds changes.
pub fn hash() -> &'static str {
    env!("OPENAPI_HASH")
}

/// The documents of a server that serves these custom kinds besides the built-in ones, in the order of groups and versions.
#[derive(Clone, Copy)]
pub struct Documents<'d> {
    pub custom: &'d [ResourceRef],
    /// What other servers add to the documents of version 2.
    pub foreign: &'d [Foreign],
}

/// A part of another server's OpenAPI v2 document.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    pub paths: Object,
    pub definitions: Object,
}

impl Foreign {
    /// The paths below `root` of a document, and its definitions.
    pub fn below(mut document: Tree, root: &str) -> Self {
        let mut part = |key: &str| match document.remove(&[key]) {
            Some(Tree::Object(object)) => object,
            _ => Object::new(),
        };
        let (mut paths, definitions) = (part("paths"), part("definitions"));
        paths.retain(|path, _| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        Self { paths, definitions }
    }
}

impl<'d> Documents<'d> {
    /// `/openapi/v3`: where the document of each group version is. `hash` names the state of one group version. `foreign`: group versions
    /// that other servers answer, with their hashes.
    pub fn v3_index(self, hash: impl Fn(&str, &str) -> String, foreign: &[(String, String, String)]) -> Vec<u8> {
        let entry = |group: &str, version: &str, hash: &str| {
            let path = root(group, version);
            let url = format!("/openapi/v3{path}?hash={hash}");
            (path[1..].to_owned(), object([("serverRelativeURL", url.into())]))
        };
        let own = self.group_versions().into_iter().map(|(group, version)| entry(group, version, &hash(group, version)));
        let foreign = foreign.iter().map(|(group, version, hash)| entry(group, version, hash));
        let paths: Object = own.chain(foreign).collect();
        object([("paths", paths.into())]).to_json()
    }

    /// `/openapi/v3/apis/GROUP/VERSION` (or `/openapi/v3/api/v1`); `None` if that is not served.
    pub fn v3(self, group: &str, version: &str) -> Option<Vec<u8>> {
        let resources = self.resources(group, version);
        resources.first()?;
        let mut out = br#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"1.37"},"paths":{"#.to_vec();
        let mut used = BTreeSet::new();
        let mut comma = Comma::default();
        for (path, item) in paths::all(Form::V3, group, version, &resources, &mut used) {
            comma.entry(&mut out, &path, &item);
        }
        out.extend_from_slice(br#"},"components":{"schemas":{"#);
        let mut comma = Comma::default();
        schemas::each(Form::V3, used, self.custom, Some((group, version)), |name, schema| comma.entry(&mut out, name, &schema));
        out.extend_from_slice(b"}}}");
        Some(out)
    }

    /// `/openapi/v2` as JSON.
    pub fn v2(self) -> Vec<u8> {
        let mut out = br#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"1.37"},"paths":{"#.to_vec();
        let mut comma = Comma::default();
        let used = self.v2_paths(|path, item| comma.entry(&mut out, path, &item));
        out.extend_from_slice(br#"},"definitions":{"#);
        let mut comma = Comma::default();
        self.v2_definitions(used, |name, schema| comma.entry(&mut out, name, schema));
        out.extend_from_slice(b"}}");
        out
    }

    /// `/openapi/v2` as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`, gnostic's form of the document.
    pub fn v2_protobuf(self) -> Vec<u8> {
        let mut document = gnostic::Document::new("Kubernetes", "1.37");
        let used = self.v2_paths(|path, item| document.path(path, &item));
        self.v2_definitions(used, |name, schema| document.definition(name, schema));
        document.finish()
    }

    /// A definition of a name that this server knows is taken to say the same elsewhere.
    fn v2_definitions(self, used: BTreeSet<String>, mut write: impl FnMut(&str, &Tree)) {
        let mut known = BTreeSet::new();
        schemas::each(Form::V2, used, self.custom, None, |name, schema| {
            write(name, &schema);
            if !self.foreign.is_empty() {
                known.insert(name.to_owned());
            }
        });
        for (name, schema) in self.foreign.iter().flat_map(|foreign| foreign.definitions.iter()) {
            if known.insert(name.to_owned()) {
                write(name, schema);
            }
        }
    }

    fn v2_paths(self, mut write: impl FnMut(&str, Tree)) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for (group, version) in self.group_versions() {
            for (path, item) in paths::all(Form::V2, group, version, &self.resources(group, version), &mut used) {
                write(&path, item);
            }
        }
        for (path, item) in self.foreign.iter().flat_map(|foreign| foreign.paths.iter()) {
            write(path, item.clone());
        }
        used
    }

    fn group_versions(self) -> Vec<(&'d str, &'d str)> {
        let built_in = Registry::get().groups().iter().flat_map(|g| g.versions.iter().map(|version| (&*g.name, &**version)));
        let mut all: Vec<(&str, &str)> = built_in.collect();
        for resource in self.custom {
            let own = (&*resource.group, &*resource.version);
            if !all.contains(&own) {
                all.push(own);
            }
        }
        all
    }

    fn resources(self, group: &str, version: &str) -> Vec<&'d Resource> {
        let built_in = Registry::get().served();
        built_in.chain(self.custom.iter().map(|r| &**r)).filter(|r| r.group == group && r.version == version).collect()
    }
}

/// `/api/v1`, `/apis/apps/v1`.
fn root(group: &str, version: &str) -> String {
    let prefix = if group.is_empty() { "/api" } else { "/apis" };
    format!("{prefix}/{}", api_version(group, version))
}

/// Writes the entries of a JSON object.
#[derive(Default)]
struct Comma(bool);

impl Comma {
    fn entry(&mut self, out: &mut Vec<u8>, key: &str, value: &Tree) {
        if std::mem::replace(&mut self.0, true) {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key).expect("writing to memory");
        out.push(b':');
        serde_json::to_writer(&mut *out, value).expect("writing to memory");
    }
}

fn object<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    Tree::Object(entries.into_iter().collect())
}
