//! The nodes as scheduling sees them: what each has, and what its pods (assumed ones included) take.
//!
//! Models pkg/scheduler/backend/cache, v1.37: a pod is assumed on its node the moment it is decided, and confirmed when the
//! watch shows the binding; a failed binding takes it back. What upstream counts anew for every pod (who holds which affinity
//! term, how many pods of a node match a selector) is counted here once and kept in step ([`terms`], [`counts`]).
mod counts;
mod node;
mod terms;
mod topology;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use client::{Named, ObjectKey, Room};
use k8s_openapi::api::core::v1::Node;

pub use self::counts::{Counted, Counts};
pub use self::node::{NodeFacts, NodeState};
pub use self::terms::Terms;
use self::topology::Topologies;
pub use self::topology::{Domains, Topology};
use crate::pod::PodInfo;

struct Placed {
    slot: usize,
    pod: Arc<PodInfo>,
}

#[derive(Default)]
pub struct Cache {
    /// A node keeps its slot for as long as it is known.
    slots: Vec<Option<NodeState>>,
    free: Vec<usize>,
    by_name: HashMap<String, usize>,
    /// Slots of the nodes that exist, zones taking turns; arranged when next asked for, since nodes come by the thousand.
    order: OnceLock<Vec<usize>>,
    placed: HashMap<ObjectKey, Placed>,
    /// Decided, and not seen bound yet.
    assumed: HashSet<ObjectKey>,
    /// How many nodes have an image.
    images: HashMap<String, usize>,
    /// How many placed pods use a claim.
    claims: HashMap<ObjectKey, usize>,
    terms: Terms,
    counts: Counts,
    topologies: Topologies,
    /// By slot, when the node last changed: as its object says, or by its pods.
    generations: Vec<u64>,
    changes: u64,
    /// By slot, whether somebody is promised a place there.
    promised: Vec<bool>,
    /// How many nodes have taints.
    tainted: usize,
}

impl Cache {
    /// Takes the node as it is now; what was known of it before.
    pub fn set_node(&mut self, node: &Node) -> Option<Arc<NodeFacts>> {
        let facts = Arc::new(NodeFacts::new(node));
        let slot = self.slot(node.name());
        let state = self.slots[slot].as_mut().expect("a slot in use");
        let before = std::mem::replace(&mut state.facts, facts.clone());
        let was_present = std::mem::replace(&mut state.present, true);
        self.touch(slot);
        if was_present {
            self.count_images(&before, false);
            self.tainted -= usize::from(!before.taints.is_empty());
        }
        self.count_images(&facts, true);
        self.tainted += usize::from(!facts.taints.is_empty());
        if !was_present || before.labels != facts.labels {
            self.topologies.forget();
        }
        if !was_present || before.zone != facts.zone {
            self.order.take();
        }
        was_present.then_some(before)
    }

    pub fn remove_node(&mut self, name: &str) -> Option<Arc<NodeFacts>> {
        let slot = *self.by_name.get(name)?;
        let state = self.slots[slot].as_mut().expect("a slot in use");
        if !std::mem::replace(&mut state.present, false) {
            return None;
        }
        let facts = state.facts.clone();
        self.touch(slot);
        self.count_images(&facts, false);
        self.tainted -= usize::from(!facts.taints.is_empty());
        self.forget_if_empty(slot);
        self.topologies.forget();
        self.order.take();
        Some(facts)
    }

    /// The nodes that exist; each zone in turn gives one.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.order().iter().map(|slot| self.at(*slot))
    }

    /// Their slots.
    pub fn order(&self) -> &[usize] {
        self.order.get_or_init(|| self.arranged())
    }

    /// The node in a slot of [`Self::order`].
    pub fn at(&self, slot: usize) -> &NodeState {
        self.slots[slot].as_ref().expect("a slot in use")
    }

    /// The node in a slot, where it exists.
    pub fn in_slot(&self, slot: usize) -> Option<&NodeState> {
        self.slots.get(slot)?.as_ref().filter(|n| n.present)
    }

    pub fn node(&self, name: &str) -> Option<&NodeState> {
        self.by_name.get(name).map(|slot| self.at(*slot)).filter(|n| n.present)
    }

    pub fn node_count(&self) -> usize {
        self.order().len()
    }

    /// Tells one state of a slot's node, and of whom a place is promised there, from all others, those of an earlier node in the same slot included.
    pub fn generation(&self, slot: usize) -> u64 {
        self.generations.get(slot).copied().unwrap_or_default()
    }

    fn touch(&mut self, slot: usize) {
        if self.generations.len() <= slot {
            self.generations.resize(slot + 1, 0);
        }
        self.changes += 1;
        self.generations[slot] = self.changes;
    }

    /// Somebody is promised a place on the node, or another one is, or nobody is any more.
    pub fn set_promised(&mut self, node: &str, promised: bool) {
        let Some(slot) = self.by_name.get(node).copied() else { return };
        self.promised.resize(self.slots.len().max(self.promised.len()), false);
        self.promised[slot] = promised;
        self.touch(slot);
    }

    pub fn is_promised(&self, slot: usize) -> bool {
        self.promised.get(slot).copied().unwrap_or_default()
    }

    pub fn has_taints(&self) -> bool {
        self.tainted > 0
    }

    /// Counts a pod on its node: bound or changed.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key);
        let slot = self.slot(node);
        for claim in &pod.claims {
            *self.claims.entry(ObjectKey::new(pod.key.namespace.clone(), claim.name.clone())).or_default() += 1;
        }
        self.terms.count(&pod, slot, 1);
        self.counts.count(&pod, slot, true);
        self.slots[slot].as_mut().expect("a slot in use").add_pod(pod.clone());
        self.touch(slot);
        self.placed.insert(pod.key.clone(), Placed { slot, pod });
    }

    /// Counts a pod where it has been decided to go.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        let key = pod.key.clone();
        self.set_pod(pod, node);
        self.assumed.insert(key);
    }

    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.assumed.contains(key)
    }

    /// The pod that was counted.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        self.assumed.remove(key);
        self.assumed.give_back();
        let Placed { slot, pod } = self.placed.remove(key)?;
        self.placed.give_back();
        for claim in &pod.claims {
            let key = ObjectKey::new(pod.key.namespace.clone(), claim.name.clone());
            if let std::collections::hash_map::Entry::Occupied(mut count) = self.claims.entry(key) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        self.claims.give_back();
        self.terms.count(&pod, slot, -1);
        self.counts.count(&pod, slot, false);
        self.slots[slot].as_mut().expect("a slot in use").remove_pod(key);
        self.touch(slot);
        self.forget_if_empty(slot);
        Some(pod)
    }

    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.placed.get(key).map(|p| &p.pod)
    }

    pub fn is_claim_used(&self, claim: &ObjectKey) -> bool {
        self.claims.contains_key(claim)
    }

    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or_default()
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// By slot, how many pods match; see [`Counted`].
    pub fn counts(&self, what: &Counted) -> Arc<Vec<u32>> {
        self.counts.get(what, self.slots.len(), || self.slots.iter().enumerate().filter_map(|(i, n)| Some((i, n.as_ref()?.pods.as_slice()))))
    }

    /// Which nodes have the same value of a label.
    pub fn topology(&self, key: &str) -> Arc<Topology> {
        let values = || self.nodes().filter_map(|n| Some((n.slot, n.labels.get(key)?.as_str())));
        self.topologies.get(key, self.slots.len(), values)
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(NodeState::unknown(name, slot));
        if let Some(promised) = self.promised.get_mut(slot) {
            *promised = false;
        }
        self.by_name.insert(name.to_owned(), slot);
        slot
    }

    fn forget_if_empty(&mut self, slot: usize) {
        let state = self.at(slot);
        if !state.present && state.pods.is_empty() {
            let facts = state.facts.clone();
            self.by_name.remove(&facts.name);
            self.slots[slot] = None;
            self.free.push(slot);
        }
    }

    fn count_images(&mut self, facts: &NodeFacts, has: bool) {
        for name in facts.images.keys() {
            let count = self.images.entry(name.clone()).or_default();
            *count = if has { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.images.remove(name);
            }
        }
    }

    /// As upstream's node tree: one node of each zone after the other.
    fn arranged(&self) -> Vec<usize> {
        let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (slot, state) in self.slots.iter().enumerate() {
            if let Some(state) = state.as_ref().filter(|n| n.present) {
                zones.entry(&state.facts.zone).or_default().push(slot);
            }
        }
        let most = zones.values().map(Vec::len).max().unwrap_or_default();
        (0..most).flat_map(|i| zones.values().filter_map(move |slots| slots.get(i)).copied()).collect()
    }
}
