//! Groups, versions and resources of v1.37: names, scope, verbs, subresources; which of them are served.
//!
//! Built once from `facts/resources.tsv`; every text is a slice of that table. Its lines:
//!
//! ```text
//! version   group version served|known                                          in order of preference within a group
//! kind      group version kind type                                              `type` names a line of `types.tsv`
//! resource  group version plural kind list-kind singular namespaced|cluster served|known short-names categories verbs storage-version storage-hash
//! sub       group version plural name kind-group kind-version kind verbs         belongs to the resource line above
//! ```
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::crd::Custom;
use crate::facts;
use crate::schema::{self, Name, Schema};

/// A kind by its full name. The core group is `""`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    pub group: Name,
    pub version: Name,
    pub kind: Name,
}

impl GroupVersionKind {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

/// `v1` for the core group, else `group/version`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits `apps/v1` into (`apps`, `v1`), and `v1` into (``, `v1`).
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// One REST resource in one version.
#[derive(Debug)]
pub struct Resource {
    pub group: Name,
    pub version: Name,
    pub kind: Name,
    pub list_kind: Name,
    pub plural: Name,
    pub singular: Name,
    pub namespaced: bool,
    /// Served by default upstream; the rest is only known.
    pub served: bool,
    pub short_names: Vec<Name>,
    pub categories: Vec<Name>,
    /// As discovery lists them, sorted. Empty for a resource that only has subresources.
    pub verbs: Vec<&'static str>,
    pub subresources: Vec<Subresource>,
    /// The version objects are stored in; the same for all versions of a group's resource.
    pub storage_version: Name,
    /// What discovery shows as `storageVersionHash`; empty for what is never stored (TokenReviews and the like).
    pub storage_version_hash: Name,
    /// What its CustomResourceDefinition says beyond names; `None` for built-in kinds.
    pub custom: Option<Box<Custom>>,
}

/// `status`, `scale`, `log`, ...
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub kind: GroupVersionKind,
    pub verbs: Vec<&'static str>,
}

/// A resource that somebody holds on to: a built-in one, or one of a CustomResourceDefinition, which may go while it is held.
#[derive(Clone, Debug)]
pub enum ResourceRef {
    BuiltIn(&'static Resource),
    Custom(Arc<Resource>),
}

impl ResourceRef {
    /// Whether both are one and the same, not only alike.
    pub fn is(&self, other: &ResourceRef) -> bool {
        std::ptr::eq(&**self, &**other)
    }
}

impl Deref for ResourceRef {
    type Target = Resource;

    fn deref(&self) -> &Resource {
        match self {
            ResourceRef::BuiltIn(resource) => resource,
            ResourceRef::Custom(resource) => resource,
        }
    }
}

impl From<&'static Resource> for ResourceRef {
    fn from(resource: &'static Resource) -> Self {
        ResourceRef::BuiltIn(resource)
    }
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    /// `deployments.apps`, `pods`: what error messages call the resource.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The schema of a built-in kind, compiled at the first use. Custom kinds have a structural one instead: [`Resource::custom`].
    pub fn schema(&self) -> Option<&'static Schema> {
        if self.custom.is_some() { None } else { Registry::get().kind_schema(&self.group, &self.version, &self.kind) }
    }
}

/// One API group with the versions that are served, preferred first.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: Name,
    pub versions: Vec<Name>,
    pub preferred: Name,
}

#[derive(Debug)]
pub struct Registry {
    groups: Vec<Group>,
    resources: Vec<Resource>,
    by_plural: HashMap<(&'static str, &'static str, &'static str), usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
    /// Every kind, resources and options alike, with the name of its type.
    kinds: HashMap<(&'static str, &'static str, &'static str), &'static str>,
}

impl Registry {
    pub fn get() -> &'static Registry {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        REGISTRY.get_or_init(|| Registry::parse(facts::RESOURCES))
    }

    /// Also finds resources that are only known; see [`Resource::served`].
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.by_plural.get(&(group, version, plural)).map(|&i| &self.resources[i])
    }

    /// The resource whose objects are of this kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        self.by_kind.get(&(group, version, kind)).map(|&i| &self.resources[i])
    }

    /// The schema of any kind: resources, lists, options (`DeleteOptions`), subresource kinds (`Scale`, `Eviction`).
    pub fn kind_schema(&self, group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
        self.kinds.get(&(group, version, kind)).map(|name| schema::of_type(name))
    }

    /// Every version of every resource that is served, in the order of groups, versions and plural names.
    pub fn served(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter().filter(|r| r.served)
    }

    /// Every known resource, served or not.
    pub fn all(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter()
    }

    /// Groups with a served version, in discovery's order; the core group comes first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Every known kind, as (group, version, kind).
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        self.kinds.keys().copied()
    }

    /// Every known kind with the name of its type, as (group, version, kind, type).
    pub(crate) fn kind_types(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
        self.kinds.iter().map(|(&(group, version, kind), &name)| (group, version, kind, name))
    }

    /// The name of a kind's type: `io.k8s.api.core.v1.Pod`.
    pub(crate) fn type_name(&self, group: &str, version: &str, kind: &str) -> Option<&'static str> {
        self.kinds.get(&(group, version, kind)).copied()
    }

    fn parse(table: &'static str) -> Registry {
        let mut registry = Registry {
            groups: Vec::new(),
            resources: Vec::new(),
            by_plural: HashMap::new(),
            by_kind: HashMap::new(),
            kinds: HashMap::new(),
        };
        for line in table.lines() {
            let columns: Vec<&'static str> = line.split('\t').collect();
            match columns[..] {
                ["version", group, version, served] => registry.add_version(group, version, served == "served"),
                ["kind", group, version, kind, name] => {
                    registry.kinds.insert((group, version, kind), name);
                }
                ["resource", group, version, plural, kind, list_kind, singular, scope, served, short, categories, verbs, storage, hash] => {
                    let index = registry.resources.len();
                    registry.by_plural.insert((group, version, plural), index);
                    // Where two resources share a kind, the first with verbs of its own is the one that stores it.
                    registry.by_kind.entry((group, version, kind)).or_insert(index);
                    registry.resources.push(Resource {
                        group: group.into(),
                        version: version.into(),
                        kind: kind.into(),
                        list_kind: list_kind.into(),
                        plural: plural.into(),
                        singular: singular.into(),
                        namespaced: scope == "namespaced",
                        served: served == "served",
                        short_names: words(short).into_iter().map(Name::from).collect(),
                        categories: words(categories).into_iter().map(Name::from).collect(),
                        verbs: words(verbs),
                        subresources: Vec::new(),
                        storage_version: storage.into(),
                        storage_version_hash: hash.into(),
                        custom: None,
                    });
                }
                ["sub", _, _, _, name, group, version, kind, verbs] => {
                    let owner = registry.resources.last_mut().expect("a sub line follows its resource line");
                    owner.subresources.push(Subresource { name, kind: GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() }, verbs: words(verbs) });
                }
                _ => unreachable!("codegen wrote a line of another shape: {line}"),
            }
        }
        registry
    }

    fn add_version(&mut self, group: &'static str, version: &'static str, served: bool) {
        if !served {
            return;
        }
        match self.groups.iter_mut().find(|g| g.name == group) {
            Some(known) => known.versions.push(version.into()),
            None => self.groups.push(Group { name: group.into(), versions: vec![version.into()], preferred: version.into() }),
        }
    }
}

fn words(column: &'static str) -> Vec<&'static str> {
    column.split(',').filter(|w| !w.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_asks_first_is_there() {
        let registry = Registry::get();
        let deployments = registry.resource("apps", "v1", "deployments").unwrap();
        assert_eq!((&*deployments.kind, &*deployments.singular, deployments.namespaced), ("Deployment", "deployment", true));
        assert_eq!((&deployments.short_names[..], &deployments.categories[..]), (&["deploy".into()][..], &["all".into()][..]));
        assert_eq!(deployments.subresource("scale").unwrap().kind.api_version(), "autoscaling/v1");
        assert_eq!(deployments.group_resource(), "deployments.apps");
        assert_eq!(registry.by_kind("", "v1", "Pod").unwrap().plural, "pods");
        assert_eq!(registry.resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap().storage_version, "v2");
        assert_eq!(registry.groups()[0].name, "");
        assert!(registry.groups().iter().all(|g| g.name != "internal.apiserver.k8s.io"));
        assert!(registry.served().all(|r| !r.version.contains("alpha")));
        assert!(registry.served().count() > 60);
    }
}
