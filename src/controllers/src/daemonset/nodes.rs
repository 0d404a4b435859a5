//! Which nodes a DaemonSet's pods belong on, and what makes a pod one of a given node.
//!
//! Models nodeShouldRunDaemonPod of daemon_controller.go and util/daemonset_util.go.
use api::selector::node_is_allowed;
use client::Named;
use client::k8s_openapi::api::apps::v1::DaemonSet;
use client::k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Taint, Toleration,
};

use crate::history::REVISION_LABEL;
use crate::node_lifecycle::tolerates;

const GENERATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eligibility {
    /// A pod belongs here.
    Runs,
    /// None is made here, but one that is here may stay.
    Stays,
    /// None may be here.
    Goes,
}

/// The demands of a DaemonSet's pods, the same for all nodes.
pub(super) struct Fit<'a> {
    spec: Option<&'a PodSpec>,
    tolerations: Vec<Toleration>,
}

impl<'a> Fit<'a> {
    pub fn new(ds: &'a DaemonSet) -> Self {
        let spec = ds.spec.template.spec.as_ref();
        let mut full = PodSpec {
            tolerations: spec.and_then(|s| s.tolerations.clone()),
            host_network: spec.and_then(|s| s.host_network),
            ..Default::default()
        };
        tolerate_node_troubles(&mut full);
        Self { spec, tolerations: full.tolerations.unwrap_or_default() }
    }

    pub fn judge(&self, node: &Node) -> Eligibility {
        let name = self.spec.and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        if !name.is_empty() && name != node.name() || !self.is_allowed(node) {
            return Eligibility::Goes;
        }
        if !self.is_kept_away(node, |effect| matches!(effect, "NoExecute" | "NoSchedule")) {
            return Eligibility::Runs;
        }
        match self.is_kept_away(node, |effect| effect == "NoExecute") {
            true => Eligibility::Goes,
            false => Eligibility::Stays,
        }
    }

    fn is_allowed(&self, node: &Node) -> bool {
        let affinity = self.spec.and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let selector = self.spec.and_then(|s| s.node_selector.as_ref());
        let labels = node.metadata.labels.clone().unwrap_or_default();
        node_is_allowed(selector, required, node.name(), &labels)
    }

    fn is_kept_away(&self, node: &Node, counts: impl Fn(&str) -> bool) -> bool {
        let taints: &[Taint] = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        taints.iter().filter(|t| counts(&t.effect)).any(|taint| !self.tolerations.iter().any(|t| tolerates(t, taint)))
    }
}

/// Daemon pods stay on nodes in trouble: AddOrUpdateDaemonPodTolerations.
fn tolerate_node_troubles(spec: &mut PodSpec) {
    let always = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    let on_host = spec.host_network == Some(true);
    let network = on_host.then_some(("network-unavailable", "NoSchedule"));
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in always.into_iter().chain(network) {
        let wanted = Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Default::default()
        };
        let same = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() } == wanted;
        match tolerations.iter_mut().find(|t| same(t)) {
            Some(found) => *found = wanted,
            None => tolerations.push(wanted),
        }
    }
}

/// The annotation that apps/v1 keeps of an older API's field.
pub(super) fn template_generation(ds: &DaemonSet) -> Option<i64> {
    ds.annotation(GENERATION)?.parse().ok()
}

/// Whether the pod is of the newest template.
pub(super) fn is_updated(ds: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let by_generation = template_generation(ds).is_some_and(|g| pod.label(GENERATION_LABEL) == Some(&g.to_string()));
    by_generation || !hash.is_empty() && pod.label(REVISION_LABEL) == Some(hash)
}

/// The template of new pods: tolerations and labels added.
pub(super) fn pod_template(ds: &DaemonSet, hash: &str) -> PodTemplateSpec {
    let mut template = ds.spec.template.clone();
    tolerate_node_troubles(template.spec.get_or_insert_default());
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if let Some(generation) = template_generation(ds) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_string());
    }
    labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
    template
}

/// Makes the pod one of this node; the template's own required terms are met there already, and are replaced.
pub(super) fn pin(pod: &mut Pod, node: &str) {
    let by_name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![by_name]), match_expressions: None };
    let affinity = pod.spec.get_or_insert_default().affinity.get_or_insert_default();
    affinity.node_affinity.get_or_insert_default().required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node a pod is on or was made for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let field = fields.find(|f| f.key == "metadata.name" && f.operator == "In")?;
    match field.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
}
