//! How many pods of each node match a selector: counted when first asked for, then kept in step.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::selector::LabelSelector;

use crate::pod::{AffinityTerm, PodInfo};

/// What is counted.
#[derive(Clone, Debug)]
pub struct Counted {
    namespaces: Vec<String>,
    selector: LabelSelector,
    /// Pods that are going away count too.
    with_deleting: bool,
}

impl Counted {
    /// Pods that spread with those of `namespace`.
    pub fn spread(namespace: &str, selector: &LabelSelector) -> Self {
        Self { namespaces: vec![namespace.to_owned()], selector: selector.clone(), with_deleting: false }
    }

    /// Pods that a term means; only where the term [`AffinityTerm::is_plain`].
    pub fn term(term: &AffinityTerm) -> Self {
        Self { namespaces: term.namespaces.clone(), selector: term.selector.clone(), with_deleting: true }
    }

    pub fn holds(&self, pod: &PodInfo) -> bool {
        (self.with_deleting || !pod.deleting)
            && self.namespaces.contains(&pod.key.namespace)
            && self.selector.matches_map(Some(&pod.labels))
    }
}

struct Entry {
    what: Counted,
    by_slot: Arc<Vec<u32>>,
    used: u64,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<String, Entry>,
    clock: u64,
}

/// Each kept count costs a look at every pod that comes or goes.
const KEPT_MAX: usize = 128;
const POISON: &str = "nothing panics while it holds the counts";

#[derive(Default)]
pub struct Counts(Mutex<Kept>);

impl Counts {
    pub fn get<'a, P: Iterator<Item = (usize, &'a [Arc<PodInfo>])>>(
        &self,
        what: &Counted,
        slots: usize,
        pods: impl Fn() -> P,
    ) -> Arc<Vec<u32>> {
        let key = format!("{}|{:?}|{}", what.with_deleting, what.namespaces, what.selector);
        let kept = &mut *self.0.lock().expect(POISON);
        kept.clock += 1;
        if let Some(entry) = kept.entries.get_mut(&key) {
            entry.used = kept.clock;
            if entry.by_slot.len() < slots {
                Arc::make_mut(&mut entry.by_slot).resize(slots, 0);
            }
            return entry.by_slot.clone();
        }
        if kept.entries.len() >= KEPT_MAX {
            let oldest = kept.entries.iter().min_by_key(|(_, e)| e.used).map(|(k, _)| k.clone());
            oldest.and_then(|k| kept.entries.remove(&k));
        }
        let mut by_slot = vec![0; slots];
        for (slot, pods) in pods() {
            by_slot[slot] = pods.iter().filter(|p| what.holds(p)).count() as u32;
        }
        let by_slot = Arc::new(by_slot);
        kept.entries.insert(key, Entry { what: what.clone(), by_slot: by_slot.clone(), used: kept.clock });
        by_slot
    }

    pub fn count(&mut self, pod: &PodInfo, slot: usize, added: bool) {
        for entry in self.0.get_mut().expect(POISON).entries.values_mut().filter(|e| e.what.holds(pod)) {
            let by_slot = Arc::make_mut(&mut entry.by_slot);
            if by_slot.len() <= slot {
                by_slot.resize(slot + 1, 0);
            }
            by_slot[slot] = if added { by_slot[slot] + 1 } else { by_slot[slot].saturating_sub(1) };
        }
    }
}
