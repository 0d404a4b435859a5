//! Entries and items of values that are being read: they pile up in one place, and each value takes its own away in a piece that is as large
//! as it must be. A list that grew by itself would be made three times.
use std::cell::RefCell;

use super::{Key, Tree};

/// More room than this is given back when a document has been read.
const ROOM: usize = 1024;

thread_local! {
    static ENTRIES: RefCell<Vec<(Key, Tree)>> = const { RefCell::new(Vec::new()) };
    static ITEMS: RefCell<Vec<Tree>> = const { RefCell::new(Vec::new()) };
}

/// What can be piled up.
pub(crate) trait Piled: Sized + 'static {
    fn with<T>(work: impl FnOnce(&mut Vec<Self>) -> T) -> T;
}

impl Piled for (Key, Tree) {
    fn with<T>(work: impl FnOnce(&mut Vec<Self>) -> T) -> T {
        ENTRIES.with_borrow_mut(work)
    }
}

impl Piled for Tree {
    fn with<T>(work: impl FnOnce(&mut Vec<Self>) -> T) -> T {
        ITEMS.with_borrow_mut(work)
    }
}

/// What belongs to one value, on top of what its holders have so far. What is not taken goes with it.
pub(crate) struct Pile<P: Piled> {
    start: usize,
    of: std::marker::PhantomData<P>,
}

impl<P: Piled> Pile<P> {
    pub fn new() -> Self {
        Self { start: P::with(|all| all.len()), of: std::marker::PhantomData }
    }

    pub fn push(&mut self, one: P) {
        P::with(|all| all.push(one));
    }

    pub fn len(&self) -> usize {
        P::with(|all| all.len()) - self.start
    }

    pub fn take(self) -> Vec<P> {
        P::with(|all| {
            let taken = all.drain(self.start..).collect();
            if self.start == 0 && all.capacity() > ROOM {
                *all = Vec::new();
            }
            taken
        })
    }
}

impl<P: Piled> Drop for Pile<P> {
    fn drop(&mut self) {
        P::with(|all| all.truncate(self.start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_takes_its_own_and_what_fails_leaves_nothing() {
        let mut outer = Pile::<Tree>::new();
        outer.push(Tree::Bool(true));
        let mut inner = Pile::<Tree>::new();
        inner.push(Tree::Null);
        inner.push(Tree::Bool(false));
        assert_eq!((inner.len(), outer.start, inner.start), (2, 0, 1));
        let taken = inner.take();
        assert_eq!((taken.as_slice(), taken.capacity()), (&[Tree::Null, Tree::Bool(false)][..], 2));
        let mut failed = Pile::<Tree>::new();
        failed.push(Tree::Null);
        drop(failed);
        outer.push(Tree::Null);
        assert_eq!(outer.take(), [Tree::Bool(true), Tree::Null]);
        assert!(Tree::from_json(b"{\"a\":[1,{\"b\":2}").is_err());
        assert_eq!((ENTRIES.with_borrow(Vec::len), ITEMS.with_borrow(Vec::len)), (0, 0));
        let long = format!("[{}]", ["1"; 5000].join(","));
        assert_eq!(Tree::from_json(long.as_bytes()).unwrap().as_array().map(<[Tree]>::len), Some(5000));
        assert!(ITEMS.with_borrow(Vec::capacity) <= ROOM);
    }
}
