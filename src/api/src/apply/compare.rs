//! What differs between two states of an object, as sets of paths.
//!
//! Models structured-merge-diff/v6/typed/compare.go. Equal parts are passed over without a look at their schema, so the price of an update is that
//! of comparing two trees, and of walking down to what changed.
use std::collections::HashMap;

use super::check::{self, Problems};
use super::element;
use super::set::{Node, Set};
use super::types::{List, Map, Relation, Shape, Type};
use super::value::equal;
use crate::tree::{Key, Object, Tree};

/// No path is in more than one of the three.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    /// What the new state says otherwise than the old one.
    pub fn changed(&self) -> Set {
        match (self.modified.is_empty(), self.added.is_empty()) {
            (true, _) => self.added.clone(),
            (_, true) => self.modified.clone(),
            _ => self.modified.union(&self.added),
        }
    }
}

/// Compares two objects of one type. `metadata.managedFields` is passed over.
pub fn compare(ty: Type<'_>, old: &Tree, new: &Tree) -> Result<Comparison, Problems> {
    let mut walker = Walker { problems: Problems::default(), depth: 0 };
    let delta = walker.value(ty, Some(old), Some(new));
    let found = Comparison { removed: delta.removed.into_set(), modified: delta.modified.into_set(), added: delta.added.into_set() };
    walker.problems.result(found)
}

#[derive(Default)]
struct Delta {
    removed: Node,
    modified: Node,
    added: Node,
}

impl Delta {
    fn attach(&mut self, key: impl Fn() -> Key, child: Delta) {
        self.removed.attach(&key, child.removed);
        self.modified.attach(&key, child.modified);
        self.added.attach(&key, child.added);
    }
}

struct Walker {
    problems: Problems,
    /// How deep below the root the walker stands, as long as that is `metadata`.
    depth: usize,
}

impl Walker {
    fn value(&mut self, ty: Type<'_>, old: Option<&Tree>, new: Option<&Tree>) -> Delta {
        let mut delta = Delta::default();
        match (old, new) {
            (None, Some(new)) => delta.added = self.whole(ty, new),
            (Some(old), None) => delta.removed = self.whole(ty, old),
            _ => {
                let atoms = ty.atoms();
                if !atoms.agree(old, new) {
                    self.shaped(ty, atoms.shape(old), old, new, &mut delta);
                }
                self.shaped(ty, atoms.shape(new.or(old)), old, new, &mut delta);
            }
        }
        delta
    }

    /// Everything that is there on one side only: most of what a new object brings.
    fn whole(&mut self, ty: Type<'_>, value: &Tree) -> Node {
        let mut node = Node { member: true, below: Vec::new() };
        let atoms = ty.atoms();
        match (atoms.shape(Some(value)), atoms.map, atoms.list, value) {
            (Some(Shape::Map), Some(map), _, Tree::Object(fields)) if !map.is_atomic => {
                node.below.reserve(fields.len());
                for (name, value) in fields.iter() {
                    let child = self.whole(map.at(name), value);
                    node.attach(|| element::field(name), child);
                }
            }
            (Some(Shape::List), _, Some(list), Tree::Array(items)) if !matches!(list.relation, Relation::Atomic) && !items.is_empty() => {
                let index = self.index(&list, Some(value));
                for key in &index.order {
                    match index.places.get(key).map_or(&[] as &[usize], Vec::as_slice) {
                        [only] => {
                            let child = self.whole(list.items, &items[*only]);
                            node.attach(|| key.clone(), child);
                        }
                        _ => node.insert(key.clone()),
                    }
                }
            }
            (Some(_), ..) => {}
            (None, ..) => self.problems.append(check::no_shape(&atoms)),
        }
        node
    }

    fn shaped(&mut self, ty: Type<'_>, shape: Option<Shape>, old: Option<&Tree>, new: Option<&Tree>, delta: &mut Delta) {
        let atoms = ty.atoms();
        match (shape, atoms.map, atoms.list, atoms.scalar) {
            (Some(Shape::Map), Some(map), ..) => self.map(&map, old, new, delta),
            (Some(Shape::List), _, Some(list), _) => self.list(&list, old, new, delta),
            (Some(Shape::Scalar), .., Some(kind)) => {
                let (a, b) = (check::scalar(kind, old, "lhs: "), check::scalar(kind, new, "rhs: "));
                if !a.is_empty() && !b.is_empty() {
                    self.problems.append(a);
                    self.problems.append(b);
                    return;
                }
                leaf(old, new, delta);
            }
            _ => self.problems.append(check::no_shape(&atoms)),
        }
    }

    fn map(&mut self, map: &Map<'_>, old: Option<&Tree>, new: Option<&Tree>, delta: &mut Delta) {
        static NONE: Object = Object::new();
        let (a, b) = (old.and_then(Tree::as_object).unwrap_or(&NONE), new.and_then(Tree::as_object).unwrap_or(&NONE));
        if map.is_atomic || (a.is_empty() && b.is_empty()) {
            return leaf(old, new, delta);
        }
        let depth = self.depth;
        for (name, x, y) in a.zip(b) {
            if x == y || (depth == 1 && name == "managedFields") {
                continue;
            }
            self.depth = if depth == 0 && name == "metadata" { 1 } else { 2 };
            let child = self.value(map.at(name), x, y);
            delta.attach(|| element::field(name), child);
        }
        self.depth = depth;
    }

    fn list(&mut self, list: &List<'_>, old: Option<&Tree>, new: Option<&Tree>, delta: &mut Delta) {
        let is_empty = |value: Option<&Tree>| value.and_then(Tree::as_array).is_none_or(<[Tree]>::is_empty);
        if matches!(list.relation, Relation::Atomic) || (is_empty(old) && is_empty(new)) {
            return leaf(old, new, delta);
        }
        self.depth = 2;
        let before = self.index(list, old);
        let after = self.index(list, new);
        let of = |index: &Index<'_>, key: &str| -> Vec<usize> { index.places.get(key).cloned().unwrap_or_default() };
        let all = before.order.iter().chain(after.order.iter().filter(|key| !before.places.contains_key(*key)));
        for key in all {
            let (x, y) = (of(&before, key), of(&after, key));
            let (first_x, first_y) = (x.first().map(|&i| &before.items[i]), y.first().map(|&i| &after.items[i]));
            match (x.len(), y.len()) {
                (0 | 1, 0 | 1) => {
                    if first_x != first_y {
                        let child = self.value(list.items, first_x, first_y);
                        delta.attach(|| key.clone(), child);
                    }
                }
                // Items that stand twice are one: they changed if any of them did.
                (2.., 2..) => {
                    let same = x.len() == y.len() && x.iter().zip(&y).all(|(&i, &j)| equal(&before.items[i], &after.items[j]));
                    if !same {
                        delta.modified.insert(key.clone());
                    }
                }
                (2.., _) => {
                    if first_y.is_some() {
                        let child = self.value(list.items, None, first_y);
                        delta.attach(|| key.clone(), child);
                    }
                    delta.removed.insert(key.clone());
                }
                (_, 2..) => {
                    if first_x.is_some() {
                        let child = self.value(list.items, first_x, None);
                        delta.attach(|| key.clone(), child);
                    }
                    delta.added.insert(key.clone());
                }
            }
        }
    }

    fn index<'t>(&mut self, list: &List<'_>, value: Option<&'t Tree>) -> Index<'t> {
        let items = value.and_then(Tree::as_array).unwrap_or(&[]);
        let mut index = Index { items, order: Vec::with_capacity(items.len()), places: HashMap::with_capacity(items.len()) };
        for (i, item) in items.iter().enumerate() {
            match element::item(list, item) {
                Ok(key) => {
                    let places = index.places.entry(key.clone()).or_default();
                    if places.is_empty() {
                        index.order.push(key);
                    }
                    places.push(i);
                }
                Err(why) => self.problems.append(Problems::one(format!("element {i}: {why}"))),
            }
        }
        index
    }
}

/// The items of a list by their keys.
struct Index<'t> {
    items: &'t [Tree],
    order: Vec<Key>,
    places: HashMap<Key, Vec<usize>>,
}

fn leaf(old: Option<&Tree>, new: Option<&Tree>, delta: &mut Delta) {
    if let (Some(old), Some(new)) = (old, new)
        && !equal(old, new)
    {
        delta.modified.member = true;
    }
}
