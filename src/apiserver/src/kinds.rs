//! Which kinds are served at this moment: the built-in ones, and those of CustomResourceDefinitions.
//!
//! A [`Kinds`] is a value: whoever reads it sees one consistent state, and a definition that comes or goes makes a new one.
use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::crd::Definition;
use api::registry::{Group, Registry, Resource, ResourceRef};
use api::tree::Tree;
use imbl::OrdMap;

/// The custom kinds that are served, by definition.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    by_definition: OrdMap<Box<str>, Arc<Defined>>,
    /// In the order of [`place`].
    custom: Arc<[ResourceRef]>,
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
    is_terminating: bool,
}

impl Defined {
    /// `before`: what was known of it; its resources stay as they are, with what was compiled of them, where they would be the same.
    pub fn new(definition: &Tree, before: Option<&Defined>) -> Option<Self> {
        let read = Definition(definition);
        let accepted = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (read.name(), accepted.to_json()).hash(&mut hasher);
        let (uid, generation) = (api::meta::uid(definition), api::meta::generation(definition));
        let is_terminating = read.is_condition_true("Terminating");
        let same = before.filter(|before| {
            (&*before.uid, before.generation, before.is_terminating) == (uid, generation, is_terminating)
                && before.accepted == accepted
                && before.resources.is_empty() != read.is_established()
        });
        let (resources, stored) = match same {
            Some(before) => (before.resources.clone(), before.stored.clone()),
            None => {
                let resources = read.resources();
                let stored = resources.iter().find(|resource| &*resource.version == read.storage_version()).cloned();
                (resources, stored.or_else(|| read.stored())?)
            }
        };
        Some(Self { uid: uid.into(), generation, accepted, names_hash: hasher.finish(), resources, stored, is_terminating })
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
        let mut by_definition = self.by_definition.clone();
        let now = defined.map(Arc::new);
        let before = match now.clone() {
            Some(defined) => by_definition.insert(name.into(), defined),
            None => by_definition.remove(name),
        };
        let is_of = |defined: &Option<Arc<Defined>>, one: &ResourceRef| {
            defined.iter().flat_map(|defined| &defined.resources).any(|resource| std::ptr::eq(&**resource, &**one))
        };
        let mut custom: Vec<ResourceRef> = self.custom.iter().filter(|one| !is_of(&before, one)).cloned().collect();
        // A built-in kind keeps its paths.
        let is_free = |r: &Resource| Registry::get().resource(&r.group, &r.version, &r.plural).is_none_or(|built_in| !built_in.served);
        for resource in now.iter().flat_map(|defined| &defined.resources).filter(|resource| is_free(resource)) {
            let at = custom.partition_point(|held| place(held, &resource.group, &resource.version, &resource.plural).is_lt());
            custom.insert(at, ResourceRef::Custom(resource.clone()));
        }
        Kinds { by_definition, custom: custom.into() }
    }

    pub fn custom(&self) -> &[ResourceRef] {
        &self.custom
    }

    /// A served resource.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<ResourceRef> {
        let built_in = Registry::get().resource(group, version, plural).filter(|r| r.served);
        let custom = || self.custom.binary_search_by(|held| place(held, group, version, plural)).ok().map(|at| self.custom[at].clone());
        built_in.map(ResourceRef::from).or_else(custom)
    }

    /// The served resource whose objects are of this kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<ResourceRef> {
        let built_in = Registry::get().by_kind(group, version, kind).filter(|r| r.served);
        built_in.map(ResourceRef::from).or_else(|| self.custom_of(group, version).iter().find(|r| &*r.kind == kind).cloned())
    }

    /// The custom resources of one group version.
    fn custom_of(&self, group: &str, version: &str) -> &[ResourceRef] {
        let before = self.custom.partition_point(|held| place_of_version(held, group, version).is_lt());
        let rest = &self.custom[before..];
        &rest[..rest.partition_point(|held| place_of_version(held, group, version).is_le())]
    }

    /// All resources of one group version; empty if it is not served.
    pub fn of_version(&self, group: &str, version: &str) -> Vec<ResourceRef> {
        let is_it = |r: &Resource| r.group == group && r.version == version;
        let built_in = Registry::get().served().filter(|r| is_it(r)).map(ResourceRef::from);
        built_in.chain(self.custom_of(group, version).iter().cloned()).collect()
    }

    /// Every served group, built-in ones first; custom versions are ordered by stability.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = Registry::get().groups().to_vec();
        let built_in = groups.len();
        for of_group in self.custom.chunk_by(|a, b| a.group == b.group) {
            let name = &of_group[0].group;
            let at = groups[..built_in].iter().position(|group| group.name == &**name).unwrap_or(groups.len());
            if at == groups.len() {
                groups.push(Group { name: name.clone(), versions: Vec::new(), preferred: of_group[0].version.clone() });
            }
            for resource in of_group {
                if !groups[at].versions.contains(&resource.version) {
                    groups[at].versions.push(resource.version.clone());
                }
            }
        }
        groups
    }
}

/// Where custom resources stand: by group, then most stable version, then plural name.
fn place(held: &Resource, group: &str, version: &str, plural: &str) -> Ordering {
    place_of_version(held, group, version).then_with(|| (*held.plural).cmp(plural))
}

fn place_of_version(held: &Resource, group: &str, version: &str) -> Ordering {
    (*held.group).cmp(group).then_with(|| api::crd::by_stability(&held.version, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(group: &str, plural: &str, extra: &str) -> Tree {
        let json = format!(
            r#"{{"metadata":{{"name":"{plural}.{group}","uid":"u","generation":1{extra}}},"spec":{{"group":"{group}","names":{{"plural":"{plural}","kind":"{plural}"}},
            "versions":[{{"name":"v1beta1","served":true,"storage":false}},{{"name":"v1","served":true,"storage":true}},{{"name":"v2","served":false}}]}},
            "status":{{"acceptedNames":{{"plural":"{plural}","kind":"{plural}"}},"conditions":[{{"type":"Established","status":"True"}}]}}}}"#
        );
        Tree::from_json(json.as_bytes()).unwrap()
    }

    fn add(kinds: &Kinds, group: &str, plural: &str, extra: &str) -> Kinds {
        let name = format!("{plural}.{group}");
        let defined = Defined::new(&definition(group, plural, extra), kinds.definition(&name));
        kinds.with(&name, defined)
    }

    fn printed(kinds: &Kinds) -> Vec<String> {
        kinds.custom().iter().map(|r| format!("{} {} {}", r.group, r.version, r.plural)).collect()
    }

    #[test]
    fn resources_are_found_whatever_came_first() {
        let mut kinds = Kinds::default();
        for (group, plural) in [("b.io", "xs"), ("a.io", "zs"), ("b.io", "as"), ("apps", "deployments"), ("apps", "others")] {
            kinds = add(&kinds, group, plural, "");
        }
        let expected = [
            "a.io v1 zs", "a.io v1beta1 zs", "apps v1 others", "apps v1beta1 deployments", "apps v1beta1 others", "b.io v1 as", "b.io v1 xs", "b.io v1beta1 as", "b.io v1beta1 xs",
        ];
        assert_eq!(printed(&kinds), expected);
        let found = |group, version, plural| kinds.resource(group, version, plural).map(|r| r.kind.to_string());
        assert_eq!(found("b.io", "v1", "xs").as_deref(), Some("xs"));
        assert_eq!(found("apps", "v1", "deployments").as_deref(), Some("Deployment"));
        assert_eq!((found("b.io", "v2", "xs"), found("c.io", "v1", "xs"), found("b.io", "v1", "zs")), (None, None, None));
        assert_eq!(kinds.by_kind("a.io", "v1beta1", "zs").map(|r| r.version.to_string()).as_deref(), Some("v1beta1"));
        assert_eq!(kinds.of_version("b.io", "v1beta1").len(), 2);
        let groups = kinds.groups();
        let custom: Vec<_> = groups[Registry::get().groups().len()..].iter().map(|g| (&*g.name, g.versions.join(","))).collect();
        assert_eq!(custom, [("a.io", "v1,v1beta1".to_owned()), ("b.io", "v1,v1beta1".to_owned())]);
        let gone = kinds.with("xs.b.io", None);
        assert_eq!((printed(&gone).len(), gone.definitions().count()), (7, 4));
    }

    #[test]
    fn a_change_that_means_nothing_keeps_what_was_compiled() {
        let first = add(&Kinds::default(), "a.io", "xs", "");
        let labelled = add(&first, "a.io", "xs", r#","labels":{"a":"b"}"#);
        let stored = |kinds: &Kinds| kinds.definition("xs.a.io").map(|defined| defined.stored.clone()).unwrap();
        let served = |kinds: &Kinds| kinds.resource("a.io", "v1", "xs").unwrap();
        assert!(Arc::ptr_eq(&stored(&first), &stored(&labelled)));
        assert!(served(&first).is(&served(&labelled)) && served(&first).is(&ResourceRef::Custom(stored(&first))));
        let mut changed = definition("a.io", "xs", "");
        changed.set(&["metadata", "generation"], 2i64);
        let changed = first.with("xs.a.io", Defined::new(&changed, first.definition("xs.a.io")));
        assert!(!served(&first).is(&served(&changed)));
        assert_eq!(changed.custom().len(), 2);
    }
}
