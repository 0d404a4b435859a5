//! Which nodes share the value of a label: by number instead of by text, worked out once for all pods that ask.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The values of one label, numbered.
#[derive(Debug, Default)]
pub struct Topology {
    /// By slot of the node.
    domains: Vec<u32>,
    len: usize,
}

/// The node is not there, or has no such label.
const NONE: u32 = u32::MAX;

impl Topology {
    fn new<'a>(slots: usize, values: impl Iterator<Item = (usize, &'a str)>) -> Self {
        let mut domains = vec![NONE; slots];
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        for (slot, value) in values {
            let next = numbers.len() as u32; // fewer than there are slots
            domains[slot] = *numbers.entry(value).or_insert(next);
        }
        Self { domains, len: numbers.len() }
    }

    /// Which value the node has; `None` without one.
    pub fn domain(&self, slot: usize) -> Option<usize> {
        self.domains.get(slot).filter(|d| **d != NONE).map(|d| *d as usize)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// Pods choose the labels; what nobody asks for any more goes with the next change of nodes.
const KEPT_MAX: usize = 64;
const POISON: &str = "nothing panics while it holds the topologies";

#[derive(Debug, Default)]
pub struct Topologies(Mutex<HashMap<String, Arc<Topology>>>);

impl Topologies {
    /// `values`: slots and values of the nodes that have the label.
    pub fn get<'a, V: Iterator<Item = (usize, &'a str)>>(&self, key: &str, slots: usize, values: impl Fn() -> V) -> Arc<Topology> {
        let mut kept = self.0.lock().expect(POISON);
        if let Some(known) = kept.get(key) {
            return known.clone();
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        let new = Arc::new(Topology::new(slots, values()));
        kept.insert(key.to_owned(), new.clone());
        new
    }

    /// Nodes have come or gone, or have other labels.
    pub fn forget(&mut self) {
        self.0.get_mut().expect(POISON).clear();
    }
}

/// An amount for each value of a label.
#[derive(Clone, Debug)]
pub struct Domains {
    topology: Arc<Topology>,
    amounts: Vec<i64>,
}

impl Domains {
    pub fn new(topology: Arc<Topology>) -> Self {
        let amounts = vec![0; topology.len()];
        Self { topology, amounts }
    }

    /// Nothing where the node lacks the label.
    pub fn add(&mut self, slot: usize, by: i64) {
        if let Some(domain) = self.topology.domain(slot) {
            self.amounts[domain] += by;
        }
    }

    pub fn at(&self, slot: usize) -> Option<i64> {
        self.topology.domain(slot).map(|domain| self.amounts[domain])
    }

    pub fn is_zero(&self) -> bool {
        self.amounts.iter().all(|a| *a == 0)
    }
}
