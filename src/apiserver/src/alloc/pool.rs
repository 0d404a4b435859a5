//! A set of numbers, each free, held by stored objects, or reserved by requests in flight.
use std::collections::BTreeMap;
use std::hash::Hash;

/// How often each number is held and reserved; absent is free.
#[derive(Debug)]
pub struct Pool<T> {
    held: BTreeMap<T, u32>,
    reserved: BTreeMap<T, u32>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), reserved: BTreeMap::new() }
    }
}

fn decrease<T: Ord>(map: &mut BTreeMap<T, u32>, number: T) {
    if let Some(count) = map.get_mut(&number) {
        *count -= 1;
        if *count == 0 {
            map.remove(&number);
        }
    }
}

impl<T: Ord + Copy + Hash> Pool<T> {
    pub fn hold(&mut self, number: T) {
        *self.held.entry(number).or_default() += 1;
    }

    pub fn release(&mut self, number: T) {
        decrease(&mut self.held, number);
    }

    /// How many are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    pub fn is_free(&self, number: T) -> bool {
        !self.held.contains_key(&number) && !self.reserved.contains_key(&number)
    }

    pub fn reserve(&mut self, number: T) {
        *self.reserved.entry(number).or_default() += 1;
    }

    pub fn end_reservation(&mut self, number: T) {
        decrease(&mut self.reserved, number);
    }
}
