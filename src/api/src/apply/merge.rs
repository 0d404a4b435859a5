//! Merges what somebody applies into an object. Models structured-merge-diff/v6/typed/merge.go.
use std::collections::{HashMap, HashSet, VecDeque};

use super::check::{self, Problems};
use super::element;
use super::types::{List, Map, Relation, Shape, Type};
use crate::tree::{Key, Object, Tree};

/// `live` with everything that `config` says. Nothing is removed; items stand as in `config` where it says anything about a list.
pub fn merge(ty: Type<'_>, live: &Tree, config: &Tree) -> Result<Tree, Problems> {
    let mut problems = Problems::default();
    let merged = value(ty, Some(live), Some(config), &mut problems);
    problems.result(merged.unwrap_or_default())
}

fn value(ty: Type<'_>, live: Option<&Tree>, config: Option<&Tree>, problems: &mut Problems) -> Option<Tree> {
    let atoms = ty.atoms();
    let mut out = None;
    if live.is_some() && config.is_some() && !atoms.agree(live, config) {
        // Only for what it finds wrong.
        shaped(ty, atoms.shape(live), live, config, &mut None, problems);
    }
    shaped(ty, atoms.shape(config.or(live)), live, config, &mut out, problems);
    out
}

fn shaped(
    ty: Type<'_>,
    shape: Option<Shape>,
    live: Option<&Tree>,
    config: Option<&Tree>,
    out: &mut Option<Tree>,
    problems: &mut Problems,
) {
    let atoms = ty.atoms();
    match (shape, atoms.map, atoms.list, atoms.scalar) {
        (Some(Shape::Map), Some(map), ..) => visit_map(&map, live, config, out, problems),
        (Some(Shape::List), _, Some(list), _) => visit_list(&list, live, config, out, problems),
        (Some(Shape::Scalar), .., Some(kind)) => {
            let (a, b) = (check::scalar(kind, live, "lhs: "), check::scalar(kind, config, "rhs: "));
            if !a.is_empty() && !b.is_empty() {
                problems.append(a);
                problems.append(b);
                return;
            }
            *out = config.or(live).cloned();
        }
        _ => problems.append(check::no_shape(&atoms)),
    }
}

fn visit_map(map: &Map<'_>, live: Option<&Tree>, config: Option<&Tree>, out: &mut Option<Tree>, problems: &mut Problems) {
    static NONE: Object = Object::new();
    let (a, b) = (live.and_then(Tree::as_object).unwrap_or(&NONE), config.and_then(Tree::as_object).unwrap_or(&NONE));
    if map.is_atomic || (a.is_empty() && b.is_empty()) {
        *out = config.or(live).cloned();
        return;
    }
    let mut entries = Vec::with_capacity(a.len().max(b.len()));
    for (name, x, y) in a.zip(b) {
        let mut found = Problems::default();
        let merged = value(map.at(name), x, y, &mut found);
        problems.append(found.below(|| format!(".{name}")));
        entries.extend(merged.map(|merged| (name.clone(), merged)));
    }
    *out = (!entries.is_empty()).then(|| Tree::Object(Object::from_sorted(entries)));
}

/// The items of one side: the key of each, and the item of each key (`None` where several have it).
struct Side<'t> {
    keys: Vec<Key>,
    places: Vec<&'t Tree>,
    observed: HashMap<Key, Option<&'t Tree>>,
}

impl<'t> Side<'t> {
    fn index(list: &List<'_>, value: Option<&'t Tree>, may_repeat: bool, problems: &mut Problems) -> Self {
        let items = value.and_then(Tree::as_array).unwrap_or(&[]);
        let mut side = Side { keys: Vec::with_capacity(items.len()), places: Vec::new(), observed: HashMap::with_capacity(items.len()) };
        for (i, item) in items.iter().enumerate() {
            let key = match element::item(list, item) {
                Ok(key) => key,
                Err(why) => {
                    problems.append(Problems::one(format!("element {i}: {why}")));
                    continue;
                }
            };
            if side.observed.contains_key(&key) && !may_repeat {
                problems.append(Problems::one(format!("duplicate entries for key {}", element::display(&key))));
                continue;
            }
            side.observed.entry(key.clone()).and_modify(|found| *found = None).or_insert(Some(item));
            side.keys.push(key);
            side.places.push(item);
        }
        side
    }

    /// Outer `None`: nothing has the key.
    fn get(&self, key: &str) -> Option<Option<&'t Tree>> {
        self.observed.get(key).copied()
    }
}

static NULL: Tree = Tree::Null;

fn visit_list(list: &List<'_>, live: Option<&Tree>, config: Option<&Tree>, out: &mut Option<Tree>, problems: &mut Problems) {
    let is_empty = |value: Option<&Tree>| value.and_then(Tree::as_array).is_none_or(<[Tree]>::is_empty);
    if matches!(list.relation, Relation::Atomic) || (is_empty(live) && is_empty(config)) {
        *out = config.or(live).cloned();
        return;
    }
    let mut found = Problems::default();
    let right = Side::index(list, config, false, &mut found);
    let left = Side::index(list, live, true, &mut found);
    if !found.is_empty() {
        problems.append(found);
        return;
    }
    // What is wrong inside of an item was found when the document was checked.
    let mut ignored = Problems::default();
    let mut merged = Vec::with_capacity(left.keys.len().max(right.keys.len()));
    // An item that stands several times is merged as null, as upstream does.
    let both = |key: &str| (left.get(key).map(|item| item.unwrap_or(&NULL)), right.get(key).map(|item| item.unwrap_or(&NULL)));
    let mut shared: VecDeque<&str> = right.keys.iter().map(|key| &**key).filter(|key| left.observed.contains_key(*key)).collect();
    let mut next = shared.pop_front();
    let mut done: HashSet<&str> = HashSet::new();
    let (mut l, mut r) = (0, 0);
    while l < left.keys.len() || r < right.keys.len() {
        if let (Some(x), Some(y)) = (left.keys.get(l), right.keys.get(r)) {
            if x == y {
                done.insert(x);
                let (a, b) = both(x);
                merged.extend(value(list.items, a, b, &mut ignored));
                (l, r) = (l + 1, r + 1);
                next = shared.pop_front();
                continue;
            }
            // Both have it, but it is not its turn.
            if right.observed.contains_key(x) && next.is_some_and(|next| next != &**x) {
                l += 1;
                continue;
            }
        }
        if let Some(x) = left.keys.get(l) {
            if !right.observed.contains_key(x) {
                merged.extend(value(list.items, Some(left.places[l]), None, &mut ignored));
                l += 1;
                continue;
            }
            if done.contains(&**x) {
                l += 1;
            }
        }
        if let Some(y) = right.keys.get(r) {
            done.insert(y);
            let (a, b) = both(y);
            merged.extend(value(list.items, a, b, &mut ignored));
            r += 1;
            if next == Some(&**y) {
                next = shared.pop_front();
            }
        }
    }
    *out = (!merged.is_empty()).then_some(Tree::Array(merged));
}
