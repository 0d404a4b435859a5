//! Who owns whom, as the watches have shown it.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::{ApiResource, Named, ObjectKey, PartialObject, Room};

use super::plan::has_finalizer;
use super::{FOREGROUND, ORPHAN};

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub uid: Arc<str>,
    pub resource: Arc<ApiResource>,
    pub key: ObjectKey,
    /// Uid, and whether this reference blocks the owner's deletion in the foreground.
    owners: Box<[(Arc<str>, bool)]>,
    pub being_deleted: bool,
    /// Being deleted in the foreground.
    pub deleting_dependents: bool,
    /// Being deleted, its dependents to be left alone.
    pub orphaning: bool,
}

impl Node {
    fn of(resource: &Arc<ApiResource>, object: &PartialObject, shared: impl Fn(&str) -> Arc<str>) -> Self {
        let owners = object.metadata.owner_references.iter().flatten();
        Self {
            uid: shared(object.uid()),
            resource: resource.clone(),
            key: object.key(),
            owners: owners.map(|o| (shared(&o.uid), o.block_owner_deletion == Some(true))).collect(),
            being_deleted: object.is_deleting(),
            deleting_dependents: object.is_deleting() && has_finalizer(object, FOREGROUND),
            orphaning: object.is_deleting() && has_finalizer(object, ORPHAN),
        }
    }

    pub fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|(uid, blocks)| **uid == *owner && *blocks)
    }
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<Arc<str>, Node>,
    /// Dependents by the uid of their owner, which need not be a node itself.
    dependents: HashMap<Arc<str>, HashSet<Arc<str>>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The uid, in the one piece of memory that it has here.
    fn shared(&self, uid: &str) -> Arc<str> {
        let known = self.nodes.get_key_value(uid).map(|(uid, _)| uid).or_else(|| self.dependents.get_key_value(uid).map(|(uid, _)| uid));
        known.cloned().unwrap_or_else(|| uid.into())
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.nodes.contains_key(uid)
    }

    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.nodes.get(d))
    }

    /// The node, whether it has dependents, and whether all its owners are there, in reach, and not on their way out.
    pub fn look(&self, uid: &str) -> Option<(Node, bool, bool)> {
        let node = self.nodes.get(uid)?;
        let reach = |owner: &Node| owner.key.namespace.is_empty() || owner.key.namespace == node.key.namespace;
        let stays = |owner: &Node| reach(owner) && !owner.deleting_dependents;
        let calm = node.owners.iter().all(|(o, _)| self.nodes.get(o).is_some_and(stays));
        Some((node.clone(), self.dependents(uid).next().is_some(), calm))
    }

    /// Takes in a new state; returns the uids to look at.
    pub fn put(&mut self, resource: &Arc<ApiResource>, object: &PartialObject) -> Vec<Arc<str>> {
        let new = Node::of(resource, object, |uid| self.shared(uid));
        let uid = new.uid.clone();
        let mut wake = Vec::new();
        let old = self.nodes.insert(uid.clone(), new.clone());
        let old_owners = old.as_ref().map(|o| o.owners.clone()).unwrap_or_default();
        for (owner, _) in old_owners.iter().filter(|(o, _)| new.owners.iter().all(|(n, _)| n != o)) {
            self.unlink(owner, &uid);
        }
        for (owner, _) in &*new.owners {
            self.dependents.entry(owner.clone()).or_default().insert(uid.clone());
        }
        // An owner that waits may have been set free, by a reference that is gone or does not block any more.
        for (owner, blocked) in &*old_owners {
            if *blocked && !new.blocks(owner) && self.nodes.get(owner).is_some_and(|o| o.deleting_dependents) {
                wake.push(owner.clone());
            }
        }
        let owners_changed = old.as_ref().is_none_or(|o| o.owners != new.owners);
        if owners_changed && self.look(&uid).is_some_and(|(_, _, calm)| !calm) {
            wake.push(uid.clone());
        }
        let began = |f: fn(&Node) -> bool| f(&new) && !old.as_ref().is_some_and(f);
        if began(|n| n.orphaning) {
            wake.push(uid.clone());
        }
        if began(|n| n.deleting_dependents) {
            wake.extend(self.dependents(&uid).map(|d| d.uid.clone()));
            wake.push(uid);
        }
        wake
    }

    /// Takes an object out; returns the uids to look at.
    pub fn remove(&mut self, uid: &str) -> Vec<Arc<str>> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        for (owner, _) in &*node.owners {
            self.unlink(owner, uid);
        }
        let mut wake: Vec<Arc<str>> = self.dependents(uid).map(|d| d.uid.clone()).collect();
        let waits = |owner: &Arc<str>| self.nodes.get(owner).is_some_and(|o| o.deleting_dependents);
        wake.extend(node.owners.iter().map(|(o, _)| o.clone()).filter(waits));
        self.nodes.give_back();
        self.dependents.give_back();
        wake
    }

    /// Room that is more than small.
    #[cfg(test)]
    pub(super) fn tables(&self) -> (usize, usize) {
        let large = |room: usize| if room < 2000 { 0 } else { room };
        (large(self.nodes.capacity()), large(self.dependents.capacity()))
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            dependents.give_back();
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}
