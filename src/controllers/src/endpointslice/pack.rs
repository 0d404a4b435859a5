//! Spreads endpoints over slices so that as few slices as possible are written.
//!
//! Models staging/src/k8s.io/endpointslice/reconciler.go reconcileByPortMapping and finalize, v1.37.
use std::collections::BTreeMap;
use std::sync::Arc;

use client::Named;
use client::k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::{port_key, sp};

pub(super) const SLICE_MAX: usize = 100;

pub(super) enum Change {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// Endpoints that share all their ports.
pub(super) struct Group {
    ports: Vec<EndpointPort>,
    pub desired: Vec<Endpoint>,
}

impl Group {
    pub fn new(ports: Vec<EndpointPort>) -> Self {
        Self { ports, desired: Vec::new() }
    }
}

/// The identity of an endpoint within a slice: the pod, else its addresses.
fn identity(endpoint: &Endpoint) -> String {
    match endpoint.target_ref.as_ref().and_then(|r| r.uid.clone()) {
        Some(uid) => uid,
        None => endpoint.addresses.join(","),
    }
}

struct Kept {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

pub(super) fn pack(
    family: &str,
    mut groups: BTreeMap<String, Group>,
    existing: &[Arc<EndpointSlice>],
    template: &dyn Fn(&str, &[EndpointPort]) -> EndpointSlice,
) -> Vec<Change> {
    let mut by_ports: BTreeMap<String, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        by_ports.entry(port_key(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice.clone());
    }
    let (mut changes, mut left_over) = (Vec::new(), Vec::new());
    let mut live = 0;
    for (key, group) in &mut groups {
        let slices = by_ports.remove(key).unwrap_or_default();
        live += pack_group(family, group, slices, template, &mut changes, &mut left_over);
    }
    left_over.extend(by_ports.into_values().flatten());
    // A Service without endpoints has one empty slice, so that its consumers can tell that it was looked at.
    if live == 0 {
        let placeholder = template(family, &[]);
        match left_over.iter().position(|s| is_placeholder(s, &placeholder)) {
            Some(i) => drop(left_over.swap_remove(i)),
            None => changes.push(Change::Create(Box::new(placeholder))),
        }
    }
    // What would be deleted is written anew instead: whoever watches sees one change, and the name stays.
    for change in &mut changes {
        let Change::Create(new) = change else { continue };
        // Not one of a Service of the same name that was deleted: garbage collection is after it.
        let Some(i) = left_over.iter().position(|old| old.metadata.owner_references == new.metadata.owner_references) else { continue };
        let endpoints = new.endpoints.take().unwrap_or_default();
        *change = Change::Update(Box::new(updated(&left_over.swap_remove(i), new, endpoints)));
    }
    // Deletes come last, so that nobody sees fewer endpoints than there are.
    changes.extend(left_over.into_iter().map(Change::Delete));
    changes
}

fn is_placeholder(slice: &EndpointSlice, placeholder: &EndpointSlice) -> bool {
    slice.endpoints.as_ref().is_none_or(Vec::is_empty)
        && slice.ports.as_ref().is_none_or(Vec::is_empty)
        && slice.metadata.labels == placeholder.metadata.labels
}

/// Returns how many slices hold the group afterwards.
fn pack_group(
    family: &str,
    group: &mut Group,
    slices: Vec<Arc<EndpointSlice>>,
    template: &dyn Fn(&str, &[EndpointPort]) -> EndpointSlice,
    changes: &mut Vec<Change>,
    unused: &mut Vec<Arc<EndpointSlice>>,
) -> usize {
    let fresh = template(family, &group.ports);
    let mut desired: BTreeMap<String, Endpoint> = group.desired.drain(..).map(|e| (identity(&e), e)).collect();
    // What is where it should be stays where it is.
    let mut kept = Vec::new();
    for slice in slices {
        let (mut endpoints, mut changed) = (Vec::new(), false);
        for old in slice.endpoints.iter().flatten() {
            match desired.remove(&identity(old)) {
                Some(new) => {
                    changed |= new != *old;
                    endpoints.push(new);
                }
                None => changed = true,
            }
        }
        changed |= slice.metadata.labels != fresh.metadata.labels
            || slice.metadata.owner_references != fresh.metadata.owner_references;
        match endpoints.is_empty() {
            true => unused.push(slice),
            false => kept.push(Kept { slice, endpoints, changed }),
        }
    }
    // The rest fills slices that are written anyway, then the one it fits best, then emptied ones, then new ones.
    let mut rest: Vec<Endpoint> = desired.into_values().collect();
    kept.sort_by_key(|k| std::cmp::Reverse(k.endpoints.len()));
    for slice in kept.iter_mut().filter(|k| k.changed) {
        fill(slice, &mut rest);
    }
    if !rest.is_empty() && rest.len() < SLICE_MAX {
        let fits = kept.iter_mut().filter(|k| k.endpoints.len() + rest.len() <= SLICE_MAX);
        if let Some(slice) = fits.max_by_key(|k| k.endpoints.len()) {
            fill(slice, &mut rest);
        }
    }
    let mut count = kept.len();
    while !rest.is_empty() {
        count += 1;
        match unused.iter().position(|s| port_key(s.ports.as_deref().unwrap_or_default()) == port_key(&group.ports)) {
            Some(i) => {
                let mut slice = Kept { slice: unused.swap_remove(i), endpoints: Vec::new(), changed: true };
                fill(&mut slice, &mut rest);
                kept.push(slice);
            }
            None => {
                let part = rest.split_off(rest.len().saturating_sub(SLICE_MAX));
                let slice = EndpointSlice { endpoints: Some(part), ..fresh.clone() };
                changes.push(Change::Create(Box::new(slice)));
            }
        }
    }
    for kept in kept.into_iter().filter(|k| k.changed) {
        changes.push(Change::Update(Box::new(updated(&kept.slice, &fresh, kept.endpoints))));
    }
    count
}

fn fill(kept: &mut Kept, rest: &mut Vec<Endpoint>) {
    let part = rest.split_off(rest.len().saturating_sub(SLICE_MAX.saturating_sub(kept.endpoints.len())));
    kept.changed |= !part.is_empty();
    kept.endpoints.extend(part);
}

fn updated(slice: &EndpointSlice, fresh: &EndpointSlice, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut new = slice.clone();
    new.metadata.labels = fresh.metadata.labels.clone();
    new.metadata.owner_references = fresh.metadata.owner_references.clone();
    let annotations = new.metadata.annotations.get_or_insert_default();
    annotations.remove(sp::TRIGGER_TIME);
    if let Some(at) = fresh.annotation(sp::TRIGGER_TIME) {
        annotations.insert(sp::TRIGGER_TIME.to_owned(), at.to_owned());
    }
    if annotations.is_empty() {
        new.metadata.annotations = None;
    }
    new.endpoints = Some(endpoints);
    new.ports = fresh.ports.clone();
    new
}
