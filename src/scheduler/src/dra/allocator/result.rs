//! What a claim's status says of the devices that were chosen.
use std::sync::Arc;

use client::Named;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult, ResourceClaim,
};

use super::Wanted;
use super::search::Picked;
use crate::cache::NodeFacts;

pub fn results(
    claims: &[Arc<ResourceClaim>],
    wanted: &[Vec<Vec<Wanted>>],
    picked: Vec<Vec<Picked>>,
    node: &NodeFacts,
) -> Vec<AllocationResult> {
    let all = claims.iter().zip(wanted).zip(picked);
    all.map(|((claim, wanted), picked)| {
        let devices = picked.iter().map(|p| device(p, &wanted[p.request][p.alternative])).collect();
        AllocationResult {
            allocation_timestamp: None,
            devices: Some(DeviceAllocationResult { config: configuration(claim, wanted, &picked), results: Some(devices) }),
            node_selector: node_selector(&picked, node),
        }
    })
    .collect()
}

fn device(picked: &Picked, wanted: &Wanted) -> DeviceRequestAllocationResult {
    DeviceRequestAllocationResult {
        admin_access: wanted.has_admin.filter(|_| wanted.admin),
        binding_conditions: picked.device.binding_conditions.clone(),
        binding_failure_conditions: picked.device.binding_failure_conditions.clone(),
        consumed_capacity: picked.share.clone().filter(|s| !s.is_empty()),
        device: picked.device.name.clone(),
        driver: picked.slice.spec.driver.clone(),
        pool: picked.slice.spec.pool.name.clone(),
        request: wanted.name(),
        share_id: picked.share.is_some().then(new_share_id),
        skip_node_operations: None,
        tolerations: Some(wanted.tolerations.to_vec()).filter(|t| !t.is_empty()),
    }
}

/// A random uid (RFC 9562, version 4).
fn new_share_id() -> String {
    let (a, b) = (client::random(), client::random());
    let (a, b) = (a & !0xf000 | 0x4000, b & !(0b11 << 62) | 1 << 63);
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", a >> 32, a >> 16 & 0xffff, a & 0xffff, b >> 48, b & 0xffff_ffff_ffff)
}

/// Of the classes first, then of the claim; without names where it is for all requests.
fn configuration(claim: &ResourceClaim, wanted: &[Vec<Wanted>], picked: &[Picked]) -> Option<Vec<DeviceAllocationConfiguration>> {
    let chosen: Vec<&Wanted> = wanted
        .iter()
        .enumerate()
        .filter_map(|(i, alternatives)| {
            let alternative = picked.iter().find(|p| p.request == i).map_or(0, |p| p.alternative);
            alternatives.get(alternative)
        })
        .collect();
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut classes: Vec<(&str, std::ops::Range<usize>)> = Vec::new();
    for wanted in &chosen {
        let class = wanted.class.name();
        if let Some((_, range)) = classes.iter().find(|(name, _)| *name == class) {
            for config in &mut all[range.clone()] {
                config.requests.get_or_insert_default().push(wanted.name());
            }
            continue;
        }
        let start = all.len();
        for config in wanted.class.spec.as_ref().and_then(|s| s.config.as_ref()).into_iter().flatten() {
            all.push(DeviceAllocationConfiguration {
                source: "FromClass".to_owned(),
                requests: Some(vec![wanted.name()]),
                opaque: config.opaque.clone(),
            });
        }
        classes.push((class, start..all.len()));
    }
    let named = |requests: &[String], w: &Wanted| requests.iter().any(|r| r == w.request || *r == w.name());
    let configs = claim.spec.as_ref().and_then(|s| s.devices.as_ref()?.config.as_ref());
    for config in configs.into_iter().flatten() {
        let requests = config.requests.as_deref().unwrap_or_default();
        if requests.is_empty() || chosen.iter().any(|w| named(requests, w)) {
            all.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    for config in &mut all {
        if config.requests.as_ref().is_some_and(|requests| chosen.iter().all(|w| named(requests, w))) {
            config.requests = None;
        }
    }
    Some(all).filter(|a| !a.is_empty())
}

/// The nodes that can use all of the devices; `None` where that is every node.
fn node_selector(picked: &[Picked], node: &NodeFacts) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    let add = |list: &mut Option<Vec<NodeSelectorRequirement>>, more: &Option<Vec<NodeSelectorRequirement>>| {
        for requirement in more.iter().flatten() {
            let list = list.get_or_insert_default();
            if !list.contains(requirement) {
                list.push(requirement.clone());
            }
        }
    };
    for p in picked {
        let (name, selector) = match p.slice.spec.per_device_node_selection {
            Some(true) => (&p.device.node_name, &p.device.node_selector),
            _ => (&p.slice.spec.node_name, &p.slice.spec.node_selector),
        };
        if name.as_ref().is_some_and(|n| !n.is_empty()) || p.device.binds_to_node == Some(true) {
            let this =
                NodeSelectorRequirement { key: "metadata.name".into(), operator: "In".into(), values: Some(vec![node.name.clone()]) };
            let terms = vec![NodeSelectorTerm { match_fields: Some(vec![this]), match_expressions: None }];
            return Some(NodeSelector { node_selector_terms: terms });
        }
        if let Some([only]) = selector.as_ref().map(|s| s.node_selector_terms.as_slice()) {
            add(&mut term.match_fields, &only.match_fields);
            add(&mut term.match_expressions, &only.match_expressions);
        }
    }
    let some = term.match_fields.is_some() || term.match_expressions.is_some();
    some.then(|| NodeSelector { node_selector_terms: vec![term] })
}
