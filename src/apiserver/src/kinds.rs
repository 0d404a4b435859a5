//! Which kinds are served at this moment: the built-in ones, and those of CustomResourceDefinitions.
//!
//! A [`Kinds`] is a value: whoever reads it sees one consistent state, and a definition that comes or goes makes a new one.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::crd::Definition;
use api::registry::{Group, Registry, Resource, ResourceRef};
use api::tree::Tree;

/// The custom kinds that are served, by definition.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    by_definition: BTreeMap<Box<str>, Arc<Defined>>,
    /// Sorted by group, then most stable version, then plural name.
    custom: Arc<[ResourceRef]>,
    /// Differs from every earlier state of this process.
    pub generation: u64,
}

/// What is known of one definition.
#[derive(Clone, Debug)]
pub struct Defined {
    pub uid: Box<str>,
    /// Counts changes of `spec`.
    pub generation: i64,
    /// `status.acceptedNames`.
    pub accepted: Tree,
    /// Differs when these do.
    pub names_hash: u64,
    pub resources: Vec<Arc<Resource>>,
    /// The version objects are stored in.
    pub stored: Arc<Resource>,
}

impl Defined {
    pub fn new(definition: &Tree) -> Option<Self> {
        let read = Definition(definition);
        let accepted = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (read.name(), accepted.to_json()).hash(&mut hasher);
        Some(Self {
            uid: api::meta::uid(definition).into(),
            generation: api::meta::generation(definition),
            accepted,
            names_hash: hasher.finish(),
            resources: read.resources(),
            stored: read.stored()?,
        })
    }

    /// Whether clients see the same kinds, in the same form.
    pub fn serves_the_same_as(&self, other: &Defined) -> bool {
        self.uid == other.uid
            && self.generation == other.generation
            && self.accepted == other.accepted
            && self.resources.is_empty() == other.resources.is_empty()
    }
}

impl Kinds {
    pub fn definitions(&self) -> impl Iterator<Item = (&str, &Defined)> {
        self.by_definition.iter().map(|(name, defined)| (&**name, &**defined))
    }

    pub fn definition(&self, name: &str) -> Option<&Defined> {
        self.by_definition.get(name).map(|defined| &**defined)
    }

    /// The state with this definition as it is now; `None`: without it.
    pub fn with(&self, name: &str, defined: Option<Defined>) -> Kinds {
        let mut next = Kinds { generation: self.generation + 1, by_definition: self.by_definition.clone(), ..Kinds::default() };
        match defined {
            Some(defined) => drop(next.by_definition.insert(name.into(), Arc::new(defined))),
            None => drop(next.by_definition.remove(name)),
        }
        let all = next.by_definition.values().flat_map(|defined| &defined.resources);
        // A built-in kind keeps its paths.
        let served = all.filter(|r| Registry::get().resource(&r.group, &r.version, &r.plural).is_none_or(|built_in| !built_in.served));
        let mut custom: Vec<ResourceRef> = served.map(|resource| ResourceRef::Custom(resource.clone())).collect();
        custom.sort_by(|a, b| {
            let by_version = || api::crd::by_stability(&a.version, &b.version);
            a.group.cmp(&b.group).then_with(by_version).then_with(|| a.plural.cmp(&b.plural))
        });
        next.custom = custom.into();
        next
    }

    pub fn custom(&self) -> &[ResourceRef] {
        &self.custom
    }

    /// A served resource.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<ResourceRef> {
        let built_in = Registry::get().resource(group, version, plural).filter(|r| r.served);
        built_in.map(ResourceRef::from).or_else(|| self.find(|r| r.group == group && r.version == version && r.plural == plural))
    }

    /// The served resource whose objects are of this kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<ResourceRef> {
        let built_in = Registry::get().by_kind(group, version, kind).filter(|r| r.served);
        built_in.map(ResourceRef::from).or_else(|| self.find(|r| r.group == group && r.version == version && r.kind == kind))
    }

    fn find(&self, is_it: impl Fn(&Resource) -> bool) -> Option<ResourceRef> {
        self.custom.iter().find(|resource| is_it(resource)).cloned()
    }

    /// All resources of one group version; empty if it is not served.
    pub fn of_version(&self, group: &str, version: &str) -> Vec<ResourceRef> {
        let is_it = |r: &Resource| r.group == group && r.version == version;
        let built_in = Registry::get().served().filter(|r| is_it(r)).map(ResourceRef::from);
        built_in.chain(self.custom.iter().filter(|r| is_it(r)).cloned()).collect()
    }

    /// Every served group, built-in ones first; custom versions are ordered by stability.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = Registry::get().groups().to_vec();
        for resource in self.custom.iter() {
            match groups.iter_mut().find(|group| group.name == &*resource.group) {
                Some(group) if group.versions.contains(&resource.version) => {}
                Some(group) => group.versions.push(resource.version.clone()),
                None => groups.push(Group {
                    name: resource.group.clone(),
                    versions: vec![resource.version.clone()],
                    preferred: resource.version.clone(),
                }),
            }
        }
        groups
    }
}
