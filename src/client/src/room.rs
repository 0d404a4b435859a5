//! Tables that give back the room which a burst has left them.
//!
//! A hash table keeps the room of its greatest size for good: ten thousand Jobs that came and went would leave megabytes of empty places in
//! each table that knew of them.
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

/// So much is nobody's concern.
const ROOM: usize = 1024;

/// What is left of a table when most of its entries have gone.
pub trait Room {
    /// Gives back what is eight times more than it needs. For where entries are taken out: what it costs is little beside the removals that
    /// made it due.
    fn give_back(&mut self);
}

fn is_due(len: usize, capacity: usize) -> bool {
    capacity > ROOM && len < capacity / 8
}

impl<K: Eq + Hash, V, S: BuildHasher> Room for HashMap<K, V, S> {
    fn give_back(&mut self) {
        if is_due(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<K: Eq + Hash, S: BuildHasher> Room for HashSet<K, S> {
    fn give_back(&mut self) {
        if is_due(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_leaves_is_no_more_than_what_is_needed() {
        let mut map: HashMap<u32, u32> = (0..10_000).map(|i| (i, i)).collect();
        let mut shrunk = 0;
        for i in 0..10_000 {
            let before = map.capacity();
            map.remove(&i);
            map.give_back();
            shrunk += usize::from(map.capacity() < before / 2);
            assert!(map.capacity() <= ROOM || map.len() >= map.capacity() / 8);
        }
        assert!(map.capacity() <= ROOM && shrunk < 5, "{} places, {shrunk} times", map.capacity());
    }
}
