//! Policies with their bindings, as they are stored at this moment.
//!
//! Models pkg/admission/plugin/policy/generic/policy_source.go.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use api::meta;
use api::registry::{Registry, split_api_version};
use api::selector::LabelSelector;
use api::tree::Tree;
use arc_swap::ArcSwap;

use crate::admission::matching::Criteria;
use crate::cache::{Cache, Change};

const GROUP: &str = "admissionregistration.k8s.io";

/// What a policy does, compiled.
pub trait Compile: Send + Sync + 'static {
    fn compile(spec: &Tree) -> Self;
}

pub struct Policy<C> {
    pub name: String,
    pub criteria: Criteria,
    pub ignores_failure: bool,
    pub param_kind: Option<ParamKind>,
    spec: Tree,
    compiled: OnceLock<C>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

pub struct Binding {
    pub name: String,
    pub policy: String,
    pub criteria: Criteria,
    pub params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`; none of mutating policies.
    pub actions: Vec<String>,
}

/// Which objects of the policy's parameter kind.
pub struct ParamRef {
    pub name: String,
    pub namespace: String,
    /// `Err`: why it selects nothing.
    pub selector: Option<Result<LabelSelector, String>>,
    pub denies_without: bool,
}

/// A policy that is bound.
pub struct Active<C> {
    pub policy: Arc<Policy<C>>,
    /// By name.
    pub bindings: Vec<Arc<Binding>>,
}

impl<C: Compile> Policy<C> {
    pub fn read(object: &Tree) -> Self {
        let spec = object.get("spec").cloned().unwrap_or_default();
        let kind = spec.get("paramKind").filter(|kind| !kind.is_null()).map(|kind| {
            let (group, version) = split_api_version(kind.str_at(&["apiVersion"]));
            ParamKind { group: group.to_owned(), version: version.to_owned(), kind: kind.str_at(&["kind"]).to_owned() }
        });
        Self {
            name: meta::name(object).to_owned(),
            criteria: Criteria::of_resources(spec.get("matchConstraints")),
            ignores_failure: spec.str_at(&["failurePolicy"]) == "Ignore",
            param_kind: kind,
            spec,
            compiled: OnceLock::new(),
        }
    }

    pub fn compiled(&self) -> &C {
        self.compiled.get_or_init(|| C::compile(&self.spec))
    }
}

impl Binding {
    pub fn read(object: &Tree) -> Self {
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        let params = spec.get("paramRef").filter(|params| !params.is_null()).map(|params| {
            let selector = params.get("selector").filter(|selector| !selector.is_null());
            ParamRef {
                name: params.str_at(&["name"]).to_owned(),
                namespace: params.str_at(&["namespace"]).to_owned(),
                selector: selector.map(|selector| LabelSelector::from_tree(Some(selector)).map_err(|error| error.to_string())),
                denies_without: params.str_at(&["parameterNotFoundAction"]) == "Deny",
            }
        });
        Self {
            name: meta::name(object).to_owned(),
            policy: spec.str_at(&["policyName"]).to_owned(),
            criteria: Criteria::of_resources(spec.get("matchResources")),
            params,
            actions: spec.array_at(&["validationActions"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect(),
        }
    }
}

struct Stored<C> {
    policies: BTreeMap<String, Arc<Policy<C>>>,
    bindings: BTreeMap<String, Arc<Binding>>,
}

struct Shared<C> {
    stored: Mutex<Stored<C>>,
    active: ArcSwap<Vec<Active<C>>>,
}

/// Follows the policies of one kind.
pub struct Index<C>(Arc<Shared<C>>);

impl<C: Compile> Index<C> {
    /// Told of a change before its write is answered: the next request meets it.
    pub fn follow(cache: &Cache, policies: &'static str, bindings: &'static str) -> Self {
        let stored = Mutex::new(Stored { policies: BTreeMap::new(), bindings: BTreeMap::new() });
        let shared = Arc::new(Shared { stored, active: ArcSwap::default() });
        let listen = |plural: &str, listener: Box<dyn Fn(&Change) + Send>| {
            if let Some(id) = Registry::get().resource(GROUP, "v1", plural).and_then(|resource| cache.kind(resource)) {
                cache.listen(id, listener);
            }
        };
        let (of_policies, of_bindings) = (shared.clone(), shared.clone());
        listen(policies, Box::new(move |change: &Change| {
            let name = change.object.name();
            let policy = (!change.deleted).then(|| Arc::new(Policy::read(&change.object.tree())));
            of_policies.change(|stored| put(&mut stored.policies, name, policy));
        }));
        listen(bindings, Box::new(move |change: &Change| {
            let name = change.object.name();
            let binding = (!change.deleted).then(|| Arc::new(Binding::read(&change.object.tree())));
            of_bindings.change(|stored| put(&mut stored.bindings, name, binding));
        }));
        let (policies, bindings) = (cache.list(GROUP, policies, None), cache.list(GROUP, bindings, None));
        shared.change(|stored| {
            for object in policies {
                stored.policies.entry(object.name().to_owned()).or_insert_with(|| Arc::new(Policy::read(&object.tree())));
            }
            for object in bindings {
                stored.bindings.entry(object.name().to_owned()).or_insert_with(|| Arc::new(Binding::read(&object.tree())));
            }
        });
        Self(shared)
    }

    /// The policies that are bound, by name.
    pub fn active(&self) -> Arc<Vec<Active<C>>> {
        self.0.active.load_full()
    }
}

fn put<T>(all: &mut BTreeMap<String, T>, name: &str, object: Option<T>) {
    match object {
        Some(object) => drop(all.insert(name.to_owned(), object)),
        None => drop(all.remove(name)),
    }
}

impl<C> Shared<C> {
    fn change(&self, change: impl FnOnce(&mut Stored<C>)) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut stored);
        let active = |policy: &Arc<Policy<C>>| {
            let bindings: Vec<Arc<Binding>> = stored.bindings.values().filter(|binding| binding.policy == policy.name).cloned().collect();
            (!bindings.is_empty()).then(|| Active { policy: policy.clone(), bindings })
        };
        let next = stored.policies.values().filter_map(active).collect();
        self.active.store(Arc::new(next));
    }
}
