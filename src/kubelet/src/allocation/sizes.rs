//! The resources of a pod and of its containers, apart from everything else of it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::{Deserialize, Serialize};

use super::Part;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sizes {
    pub pod: Option<ResourceRequirements>,
    pub containers: BTreeMap<String, ResourceRequirements>,
}

impl Sizes {
    /// What the pod's spec says.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        Self {
            pod: spec.resources.clone(),
            containers: containers.map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect(),
        }
    }

    /// Whether the pod's spec says the same, in whatever words.
    pub fn matches(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return true };
        let none = ResourceRequirements::default();
        let pair = |own: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>| same(own.unwrap_or(&none), other.unwrap_or(&none));
        pair(self.pod.as_ref(), spec.resources.as_ref())
            && spec.containers.iter().chain(spec.init_containers.iter().flatten()).all(|c| {
                self.containers.get(&c.name).is_none_or(|own| pair(Some(own), c.resources.as_ref()))
            })
    }

    /// The pod with these sizes in place of its own.
    pub fn apply(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if self.matches(pod) {
            return pod.clone();
        }
        let mut pod = Pod::clone(pod);
        if let Some(spec) = &mut pod.spec {
            spec.resources.clone_from(&self.pod);
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                self.apply_to(container);
            }
        }
        Arc::new(pod)
    }

    fn apply_to(&self, container: &mut Container) {
        if let Some(own) = self.containers.get(&container.name) {
            container.resources = Some(own.clone());
        }
    }

    /// Takes one part of a container's sizes from `other`.
    pub fn take_container(&mut self, other: &Self, name: &str, part: Part) {
        if let Some(source) = other.containers.get(name) {
            take(self.containers.entry(name.to_owned()).or_default(), source, part.as_str());
        }
    }

    /// Takes one part of the pod's own sizes from `other`.
    pub fn take_pod(&mut self, other: &Self, part: Part) {
        if let Some(source) = &other.pod {
            take(self.pod.get_or_insert_default(), source, part.as_str());
        }
    }

    /// Whether cpu and memory of a container are the same in both.
    pub fn agree_on(&self, other: &Self, container: &str) -> bool {
        let pick = |sizes: &Self| sizes.containers.get(container).map(resizable).unwrap_or_default();
        same(&pick(self), &pick(other))
    }

    /// Whether cpu and memory of the pod itself are the same in both.
    pub fn agree_on_pod(&self, other: &Self) -> bool {
        let pick = |sizes: &Self| sizes.pod.as_ref().map(resizable).unwrap_or_default();
        same(&pick(self), &pick(other))
    }

    pub fn container(&self, name: &str) -> Option<&ResourceRequirements> {
        self.containers.get(name)
    }
}

/// Cpu and memory only.
fn resizable(all: &ResourceRequirements) -> ResourceRequirements {
    let mut out = ResourceRequirements::default();
    for part in [Part::Cpu, Part::Memory] {
        take(&mut out, all, part.as_str());
    }
    out
}

/// Amounts of one resource, of requests and limits, as `source` has them.
fn take(own: &mut ResourceRequirements, source: &ResourceRequirements, name: &str) {
    for (own, source) in [(&mut own.requests, &source.requests), (&mut own.limits, &source.limits)] {
        match source.as_ref().and_then(|s| s.get(name)) {
            Some(amount) => {
                own.get_or_insert_default().insert(name.to_owned(), amount.clone());
            }
            None => {
                own.as_mut().map(|o| o.remove(name));
            }
        }
    }
}

type List = Option<BTreeMap<String, ApiQuantity>>;

/// The same amounts. An empty list is none.
pub fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    same_list(&a.requests, &b.requests) && same_list(&a.limits, &b.limits)
}

fn same_list(a: &List, b: &List) -> bool {
    let len = |l: &List| l.as_ref().map_or(0, BTreeMap::len);
    len(a) == len(b) && a.iter().flatten().all(|(name, amount)| b.as_ref().and_then(|b| b.get(name)).is_some_and(|other| same_amount(amount, other)))
}

fn same_amount(a: &ApiQuantity, b: &ApiQuantity) -> bool {
    a == b || matches!((Quantity::parse(&a.0), Quantity::parse(&b.0)), (Ok(a), Ok(b)) if a == b)
}

/// What a status shows of a running container: of cpu and memory what is actuated, of all else what is allocated.
pub fn shown(allocated: &ResourceRequirements, actuated: &ResourceRequirements) -> ResourceRequirements {
    let mut out = ResourceRequirements { claims: None, ..allocated.clone() };
    for part in [Part::Cpu, Part::Memory] {
        take(&mut out, actuated, part.as_str());
    }
    for list in [&mut out.requests, &mut out.limits] {
        if list.as_ref().is_some_and(BTreeMap::is_empty) {
            *list = None;
        }
    }
    out
}
