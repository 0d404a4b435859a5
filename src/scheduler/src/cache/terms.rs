//! Which nodes have pods that hold an affinity term: pods of one template share their terms, so there are few.
use std::collections::HashMap;
use std::sync::Arc;

use crate::pod::{AffinityTerm, PodInfo};

/// Who holds one term.
#[derive(Debug)]
pub struct TermUse {
    pub term: Arc<AffinityTerm>,
    /// For a preferred term; negative where the pod wants to be away.
    pub weight: i64,
    /// Pods by slot of their node.
    pub nodes: HashMap<usize, i64>,
}

type Uses = HashMap<(usize, i64), TermUse>;

#[derive(Debug, Default)]
pub struct Terms {
    required: Uses,
    required_away: Uses,
    preferred: Uses,
}

fn count(uses: &mut Uses, term: &Arc<AffinityTerm>, weight: i64, slot: usize, by: i64) {
    let key = (Arc::as_ptr(term) as usize, weight);
    let used = uses.entry(key).or_insert_with(|| TermUse { term: term.clone(), weight, nodes: HashMap::new() });
    let pods = used.nodes.entry(slot).or_default();
    *pods += by;
    if *pods == 0 {
        used.nodes.remove(&slot);
        if used.nodes.is_empty() {
            uses.remove(&key);
        }
    }
}

impl Terms {
    pub fn count(&mut self, pod: &PodInfo, slot: usize, by: i64) {
        for term in &pod.affinity {
            count(&mut self.required, term, 0, slot, by);
        }
        for term in &pod.anti_affinity {
            count(&mut self.required_away, term, 0, slot, by);
        }
        for (weight, term) in &pod.preferred_affinity {
            count(&mut self.preferred, term, i64::from(*weight), slot, by);
        }
        for (weight, term) in &pod.preferred_anti_affinity {
            count(&mut self.preferred, term, -i64::from(*weight), slot, by);
        }
    }

    pub fn required(&self) -> impl Iterator<Item = &TermUse> {
        self.required.values()
    }

    pub fn required_away(&self) -> impl Iterator<Item = &TermUse> {
        self.required_away.values()
    }

    pub fn preferred(&self) -> impl Iterator<Item = &TermUse> {
        self.preferred.values()
    }
}
