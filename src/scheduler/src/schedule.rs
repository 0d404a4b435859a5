//! The decision: which node for this pod, or why none. Pure.
//!
//! Models pkg/scheduler/schedule_one.go `findNodesThatFitPod`, `prioritizeNodes`, and framework/types.go `FitError`.
use std::collections::BTreeMap;

use crate::cache::NodeState;
use crate::plugins::{FILTERS, SCORES, World};
use crate::pod::PodInfo;

#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    Node(String),
    /// Nothing fits now. `plugins` are indices into [`FILTERS`]: who turned nodes away.
    None { message: String, plugins: Vec<usize> },
}

pub fn decide(pod: &PodInfo, world: &World, tie_break: impl Fn(usize) -> usize) -> Decision {
    let nodes: Vec<&NodeState> = world.cache.nodes.values().filter(|n| n.present).collect();
    if nodes.is_empty() {
        return Decision::None { message: "no nodes available to schedule pods".into(), plugins: Vec::new() };
    }
    if let Some((i, why)) = FILTERS.iter().enumerate().find_map(|(i, f)| Some((i, f.refuses_all(pod, world)?))) {
        return Decision::None { message: format!("0/{} nodes are available: {why}.", nodes.len()), plugins: vec![i] };
    }
    let filters: Vec<_> = FILTERS.iter().enumerate().filter_map(|(i, f)| Some((i, f.prepare(pod, world)?))).collect();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut plugins = Vec::new();
    let mut fitting = Vec::new();
    'nodes: for node in &nodes {
        for (i, fits) in &filters {
            if let Err(why) = fits(node) {
                for reason in why {
                    *reasons.entry(reason).or_default() += 1;
                }
                if !plugins.contains(i) {
                    plugins.push(*i);
                }
                continue 'nodes;
            }
        }
        fitting.push(*node);
    }
    if fitting.is_empty() {
        return Decision::None { message: fit_error(nodes.len(), &reasons), plugins };
    }
    Decision::Node(best(pod, &fitting, world, tie_break))
}

fn best(pod: &PodInfo, fitting: &[&NodeState], world: &World, tie_break: impl Fn(usize) -> usize) -> String {
    if let [only] = fitting {
        return only.name.clone();
    }
    let mut totals = vec![0i64; fitting.len()];
    for plugin in SCORES {
        if let Some(scores) = plugin.score(pod, fitting, world) {
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * plugin.weight();
            }
        }
    }
    let most = totals.iter().max().copied().unwrap_or_default();
    let equal: Vec<_> = fitting.iter().zip(&totals).filter(|(_, t)| **t == most).map(|(n, _)| n).collect();
    equal[tie_break(equal.len()) % equal.len()].name.clone()
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn fit_error(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut parts: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::cache::Cache;
    use crate::volumes::VolumeView;

    struct NoVolumes;

    impl VolumeView for NoVolumes {
        fn claim(&self, _: &client::ObjectKey) -> Option<Arc<k8s_openapi::api::core::v1::PersistentVolumeClaim>> {
            None
        }
        fn volume(&self, _: &str) -> Option<Arc<k8s_openapi::api::core::v1::PersistentVolume>> {
            None
        }
        fn volumes(&self) -> Vec<Arc<k8s_openapi::api::core::v1::PersistentVolume>> {
            Vec::new()
        }
        fn class(&self, _: &str) -> Option<Arc<k8s_openapi::api::storage::v1::StorageClass>> {
            None
        }
        fn is_taken(&self, _: &str, _: &client::ObjectKey) -> bool {
            false
        }
    }

    fn node(name: &str, spec: Value) -> k8s_openapi::api::core::v1::Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": &name[..1]}}, "spec": spec,
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}
        })).unwrap()
    }

    fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
        let object = json!({"metadata": {"name": name, "namespace": "n", "labels": {"app": "x"}}, "spec": spec});
        Arc::new(PodInfo::new(&serde_json::from_value(object).unwrap()))
    }

    fn run(nodes: &[(&str, Value)], placed: &[(Arc<PodInfo>, &str)], wanted: &PodInfo) -> Decision {
        let mut cache = Cache::default();
        for (name, spec) in nodes {
            cache.set_node(&node(name, spec.clone()));
        }
        for (pod, on) in placed {
            cache.set_pod(pod.clone(), on);
        }
        decide(wanted, &World { cache: &cache, namespace_labels: &|_| None, volumes: &NoVolumes }, |_| 0)
    }

    fn cpu(amount: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
    }

    #[track_caller]
    fn check(decision: Decision, expected: &str) {
        let got = match decision {
            Decision::Node(name) => name,
            Decision::None { message, .. } => message,
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn the_emptier_node_wins() {
        let (a, b) = (("a1", json!({})), ("b1", json!({})));
        check(run(&[a, b], &[(pod("p", cpu("1")), "a1")], &pod("q", cpu("500m"))), "b1");
    }

    #[test]
    fn reasons_are_counted_and_worded_as_upstream() {
        let nodes = [("a1", json!({"unschedulable": true})), ("b1", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]})), ("c1", json!({}))];
        check(
            run(&nodes, &[], &pod("q", cpu("3"))),
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable.",
        );
        check(run(&[], &[], &pod("q", cpu("3"))), "no nodes available to schedule pods");
    }

    #[test]
    fn a_hard_spread_constraint_keeps_the_skew() {
        let mut spec = cpu("1m");
        spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]);
        let wanted = pod("q", spec);
        let nodes = [("a1", json!({})), ("b1", json!({"unschedulable": true}))];
        check(run(&nodes, &[(pod("p", cpu("1m")), "a1")], &wanted),
            "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable.");
        check(run(&[("a1", json!({})), ("b1", json!({}))], &[(pod("p", cpu("1m")), "a1")], &wanted), "b1");
    }

    #[test]
    fn anti_affinity_holds_both_ways() {
        let mut spec = cpu("1m");
        spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}]}});
        let shy = pod("shy", spec);
        check(run(&[("a1", json!({}))], &[(pod("p", cpu("1m")), "a1")], &shy), "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.");
        check(run(&[("a1", json!({}))], &[(shy, "a1")], &pod("p", cpu("1m"))), "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.");
    }
}
