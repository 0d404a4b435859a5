//! Sets of paths through an object, kept in the form in which objects carry them (FieldsV1).
//!
//! Models structured-merge-diff/v6/fieldpath/set.go. A key of the tree is one step of a path: `f:NAME` a field, `k:{..}` the list item with these
//! keys, `v:VALUE` the item of that value, `i:N` the item at that place. An empty object is a path that ends there; `.` marks one that both ends
//! there and goes on. So nothing has to be decoded to be compared, and what an update leaves alone is never copied.
//! Invariant: keys are canonical (see [`super::element`]), and no node is without a path.
use super::element;
use super::types::Type;
use crate::tree::{Key, Object, Tree, zip};

type Entries = [(Key, Tree)];

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set(Object);

/// One step of a set under construction.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// A path ends here.
    pub member: bool,
    pub below: Vec<(Key, Tree)>,
}

impl Node {
    /// Adds what stands below `key`.
    pub fn attach(&mut self, key: impl FnOnce() -> Key, child: Node) {
        if let Some(tree) = child.into_tree() {
            self.below.push((key(), tree));
        }
    }

    /// Adds the path that ends at `key`.
    pub fn insert(&mut self, key: Key) {
        self.below.push((key, Tree::object()));
    }

    fn into_tree(mut self) -> Option<Tree> {
        if self.below.is_empty() {
            return self.member.then(Tree::object);
        }
        if self.member {
            self.below.insert(0, (MARK.into(), Tree::object()));
        }
        Some(Tree::Object(sorted(self.below)))
    }

    /// The set of all paths; one that ends at the root is none.
    pub fn into_set(self) -> Set {
        Set(sorted(self.below))
    }
}

/// Fields come sorted, items of lists need not.
fn sorted(entries: Vec<(Key, Tree)>) -> Object {
    match entries.is_sorted_by(|a, b| a.0 < b.0) {
        true => Object::from_sorted(entries),
        false => entries.into_iter().collect(),
    }
}

const MARK: &str = ".";

/// A node, taken apart: whether a path ends there, and what goes on.
fn open(node: &Tree) -> (bool, &Entries) {
    match node {
        Tree::Object(object) => match object.entries() {
            [] => (true, &[]),
            [(first, _), rest @ ..] if &**first == MARK => (true, rest),
            entries => (false, entries),
        },
        _ => (true, &[]),
    }
}

/// Starts a node whose membership is known; `close` ends it.
fn start(member: bool) -> Vec<(Key, Tree)> {
    if member { vec![(MARK.into(), Tree::object())] } else { Vec::new() }
}

fn close(member: bool, mut entries: Vec<(Key, Tree)>) -> Option<Tree> {
    if member && entries.len() == 1 {
        entries.clear();
    } else if entries.is_empty() {
        return None;
    }
    Some(Tree::Object(Object::from_sorted(entries)))
}

fn union(a: &Entries, b: &Entries, out: &mut Vec<(Key, Tree)>) {
    for (key, p, q) in zip(a, b) {
        let node = match (p, q) {
            (Some(p), Some(q)) => {
                let ((m, p), (n, q)) = (open(p), open(q));
                let mut entries = start(m || n);
                union(p, q, &mut entries);
                close(m || n, entries)
            }
            (one, other) => one.or(other).cloned(),
        };
        out.extend(node.map(|node| (key.clone(), node)));
    }
}

fn intersection(a: &Entries, b: &Entries, out: &mut Vec<(Key, Tree)>) {
    for (key, p, q) in zip(a, b) {
        let (Some(p), Some(q)) = (p, q) else { continue };
        let ((m, p), (n, q)) = (open(p), open(q));
        let mut entries = start(m && n);
        intersection(p, q, &mut entries);
        out.extend(close(m && n, entries).map(|node| (key.clone(), node)));
    }
}

fn meets(a: &Entries, b: &Entries) -> bool {
    zip(a, b).any(|(_, p, q)| {
        let (Some(p), Some(q)) = (p, q) else { return false };
        let ((m, p), (n, q)) = (open(p), open(q));
        (m && n) || meets(p, q)
    })
}

fn meets_below(a: &Entries, b: &Entries) -> bool {
    zip(a, b).any(|(_, p, q)| {
        let (Some(p), Some(q)) = (p, q) else { return false };
        let (ends, p) = open(p);
        ends || meets_below(p, open(q).1)
    })
}

/// `recursive`: what stands below a path of `b` goes with it.
fn difference(a: &Entries, b: &Entries, recursive: bool, out: &mut Vec<(Key, Tree)>) {
    for (key, p, q) in zip(a, b) {
        let node = match (p, q) {
            (Some(p), Some(q)) => {
                let ((m, p), (n, q)) = (open(p), open(q));
                if recursive && n {
                    continue;
                }
                let mut entries = start(m && !n);
                difference(p, q, recursive, &mut entries);
                close(m && !n, entries)
            }
            (one, _) => one.cloned(),
        };
        out.extend(node.map(|node| (key.clone(), node)));
    }
}

fn contains_all(a: &Entries, b: &Entries) -> bool {
    zip(a, b).all(|(_, p, q)| match (p, q) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(p), Some(q)) => {
            let ((m, p), (n, q)) = (open(p), open(q));
            (m || !n) && contains_all(p, q)
        }
    })
}

fn with_named_fields(entries: &Entries, ty: Type<'_>, out: &mut Vec<(Key, Tree)>) {
    let (map, list) = (ty.map(), ty.list());
    for (key, node) in entries {
        let (member, below) = open(node);
        let field = key.strip_prefix("f:");
        let declared = field.and_then(|name| map.as_ref()?.field(name));
        let inner = match (field, &map, &list) {
            (Some(_), Some(map), _) => declared.as_ref().map_or_else(|| map.rest(), |field| field.ty),
            (None, _, Some(list)) if key.starts_with("k:") => list.items,
            _ => Type::Nothing,
        };
        let member = member || declared.is_some();
        let mut entries = start(member);
        with_named_fields(below, inner, &mut entries);
        out.extend(close(member, entries).map(|node| (key.clone(), node)));
    }
}

/// Patterns of which a set keeps what they lead to; `*` is any step.
pub type Pattern = &'static [&'static str];

fn included(entries: &Entries, patterns: &[Pattern], depth: usize, out: &mut Vec<(Key, Tree)>) {
    for (key, node) in entries {
        let fits = |pattern: &&Pattern| pattern[depth] == "*" || key.strip_prefix("f:") == Some(pattern[depth]);
        let fitting: Vec<Pattern> = patterns.iter().filter(fits).copied().collect();
        if fitting.is_empty() {
            continue;
        }
        if fitting.iter().any(|pattern| pattern.len() == depth + 1) {
            out.push((key.clone(), node.clone()));
            continue;
        }
        let (member, below) = open(node);
        let mut kept = start(member);
        included(below, &fitting, depth + 1, &mut kept);
        out.extend(close(member, kept).map(|node| (key.clone(), node)));
    }
}

macro_rules! made {
    ($fill:expr) => {{
        let mut out = Vec::new();
        $fill(&mut out);
        Set(Object::from_sorted(out))
    }};
}

impl Set {
    /// The set of one path of field names.
    pub fn of_fields(path: &[&str]) -> Set {
        let mut set = Set::default();
        let keys: Vec<Key> = path.iter().map(|name| element::field(name)).collect();
        set.insert(keys.iter().map(|key| &**key));
        set
    }

    /// A stored set, which is canonical.
    pub fn from_stored(fields: Tree) -> Set {
        match fields {
            Tree::Object(object) => Set(object),
            _ => Set::default(),
        }
    }

    /// A set that somebody else wrote.
    pub fn from_client(fields: &Tree) -> Result<Set, String> {
        match fields {
            Tree::Null => Ok(Set::default()),
            Tree::Object(object) => Ok(Set(canonical(object)?.into_iter().filter(|(key, _)| &**key != MARK).collect())),
            other => Err(format!("expected an object, found {}", other.type_name())),
        }
    }

    pub fn into_tree(self) -> Tree {
        Tree::Object(self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn union(&self, other: &Set) -> Set {
        made!(|out: &mut _| union(self.0.entries(), other.0.entries(), out))
    }

    pub fn intersection(&self, other: &Set) -> Set {
        made!(|out: &mut _| intersection(self.0.entries(), other.0.entries(), out))
    }

    /// Whether the two have a path in common.
    pub fn meets(&self, other: &Set) -> bool {
        meets(self.0.entries(), other.0.entries())
    }

    /// Whether a path of `other` is in this set or below a path of it.
    pub fn meets_below(&self, other: &Set) -> bool {
        meets_below(self.0.entries(), other.0.entries())
    }

    pub fn contains_all(&self, other: &Set) -> bool {
        contains_all(self.0.entries(), other.0.entries())
    }

    /// What is not in `other`, path by path: what stands below a path of it stays.
    pub fn difference(&self, other: &Set) -> Set {
        made!(|out: &mut _| difference(self.0.entries(), other.0.entries(), false, out))
    }

    /// What is neither in `other` nor below a path of it.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        made!(|out: &mut _| difference(self.0.entries(), other.0.entries(), true, out))
    }

    /// With the declared fields on the way to each path as paths of their own.
    pub fn with_named_fields(&self, ty: Type<'_>) -> Set {
        made!(|out: &mut _| with_named_fields(self.0.entries(), ty, out))
    }

    /// Only what the patterns lead to.
    pub fn included(&self, patterns: &[Pattern]) -> Set {
        made!(|out: &mut _| included(self.0.entries(), patterns, 0, out))
    }

    pub fn has<'k>(&self, path: impl IntoIterator<Item = &'k str>) -> bool {
        let mut node = None;
        for key in path {
            let below = node.map_or(self.0.entries(), |node| open(node).1);
            match below.binary_search_by(|(k, _)| k.as_ref().cmp(key)) {
                Ok(at) => node = Some(&below[at].1),
                Err(_) => return false,
            }
        }
        node.is_some_and(|node| open(node).0)
    }

    pub fn insert<'k>(&mut self, path: impl IntoIterator<Item = &'k str>) {
        let mut path = path.into_iter().peekable();
        let mut object = &mut self.0;
        while let Some(key) = path.next() {
            let is_new = !object.contains_key(key);
            let node = object.entry(key, Tree::object);
            let below = node.make_object();
            let is_leaf = below.is_empty() && !is_new;
            if path.peek().is_none() {
                if !below.is_empty() {
                    below.insert(MARK, Tree::object());
                }
                return;
            }
            if is_leaf {
                below.insert(MARK, Tree::object());
            }
            object = below;
        }
    }

    pub(super) fn root(&self) -> Steps<'_> {
        Steps(self.0.entries())
    }

    /// Calls `each` with every path: at each step first those that end there, then those that go on.
    pub fn each_path(&self, each: &mut impl FnMut(&[&str])) {
        fn visit<'t>(entries: &'t Entries, path: &mut Vec<&'t str>, each: &mut impl FnMut(&[&str])) {
            for (key, node) in entries {
                if open(node).0 {
                    path.push(key);
                    each(path);
                    path.pop();
                }
            }
            for (key, node) in entries {
                path.push(key);
                visit(open(node).1, path, each);
                path.pop();
            }
        }
        visit(self.0.entries(), &mut Vec::new(), each);
    }
}

/// The steps at one place of a set.
#[derive(Clone, Copy)]
pub(super) struct Steps<'t>(&'t Entries);

impl<'t> Steps<'t> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The step, whether a path ends with it, and what goes on from there.
    pub fn iter(self) -> impl Iterator<Item = (&'t str, bool, Steps<'t>)> {
        self.0.iter().map(|(key, node)| {
            let (member, below) = open(node);
            (&**key, member, Steps(below))
        })
    }

    /// Whether a path ends with `key`, and what goes on from there.
    pub fn at(self, key: &str) -> (bool, Steps<'t>) {
        match self.0.binary_search_by(|(k, _)| k.as_ref().cmp(key)) {
            Ok(at) => {
                let (member, below) = open(&self.0[at].1);
                (member, Steps(below))
            }
            Err(_) => (false, Steps(&[])),
        }
    }
}

/// Keys in canonical form, unknown ones left out. Models fieldpath/serialize.go readIterV1.
fn canonical(object: &Object) -> Result<Object, String> {
    let mut out = Vec::with_capacity(object.len());
    for (key, node) in object.iter() {
        if key == MARK {
            out.push((MARK.into(), Tree::object()));
            continue;
        }
        let Some(key) = element::canonical(key)? else { continue };
        let below = match node {
            Tree::Null => Object::new(),
            Tree::Object(below) => canonical(below)?,
            other => return Err(format!("expected an object, found {}", other.type_name())),
        };
        // A mark alone says no more than nothing.
        let is_mark = below.len() == 1 && below.contains_key(MARK);
        out.push((key, Tree::Object(if is_mark { Object::new() } else { below })));
    }
    Ok(out.into_iter().collect())
}
