//! Terms of inter-pod affinity, their selectors compiled; equal terms of different pods are one object.
//!
//! Models k8s.io/kube-scheduler/framework `AffinityTerm`.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};

use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{PodAffinityTerm, WeightedPodAffinityTerm};

use super::{PodInfo, selector};

/// Labels of a namespace.
pub type NamespaceLabels<'a> = dyn Fn(&str) -> Option<Arc<BTreeMap<String, String>>> + Send + Sync + 'a;

#[derive(Debug)]
pub struct AffinityTerm {
    pub namespaces: Vec<String>,
    /// The term selects every namespace.
    pub all_namespaces: bool,
    pub namespace_selector: Option<LabelSelector>,
    pub selector: LabelSelector,
    pub topology_key: Arc<str>,
}

const POISON: &str = "nothing panics while it holds the terms";

/// Terms that are in use, by their text: pods of one template share them, and what is counted by term stays small.
static TERMS: Mutex<Option<HashMap<String, Weak<AffinityTerm>>>> = Mutex::new(None);
/// The table is swept when it has grown to this since the last sweep.
const SWEEP_MIN: usize = 1024;

impl AffinityTerm {
    fn new(term: &PodAffinityTerm, own_namespace: &str, labels: Option<&BTreeMap<String, String>>) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(own_namespace.to_owned());
        }
        let mut typed = term.label_selector.clone();
        for (keys, operator) in [(&term.match_label_keys, "In"), (&term.mismatch_label_keys, "NotIn")] {
            for key in keys.iter().flatten() {
                let expressions = typed.iter().flat_map(|s| s.match_expressions.iter().flatten());
                // The API server has merged them where it could.
                let merged = expressions.clone().any(|e| e.key == *key && e.operator == operator);
                if let (false, Some(value)) = (merged, labels.and_then(|l| l.get(key))) {
                    let requirement = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                        key: key.clone(),
                        operator: operator.to_owned(),
                        values: Some(vec![value.clone()]),
                    };
                    typed.get_or_insert_default().match_expressions.get_or_insert_default().push(requirement);
                }
            }
        }
        let namespace_selector = term.namespace_selector.as_ref().map(|s| selector(Some(s)));
        Self {
            namespaces,
            all_namespaces: namespace_selector.as_ref().is_some_and(LabelSelector::is_empty),
            namespace_selector: namespace_selector.filter(|s| !s.is_empty()),
            selector: selector(typed.as_ref()),
            topology_key: Arc::from(term.topology_key.as_str()),
        }
    }

    /// The one object that stands for this term.
    pub fn shared(term: &PodAffinityTerm, own_namespace: &str, labels: Option<&BTreeMap<String, String>>) -> Arc<Self> {
        let term = Self::new(term, own_namespace, labels);
        let text = format!("{term:?}");
        let mut guard = TERMS.lock().expect(POISON);
        let terms = guard.get_or_insert_default();
        if let Some(known) = terms.get(&text).and_then(Weak::upgrade) {
            return known;
        }
        if terms.len() >= SWEEP_MIN && terms.len() == terms.capacity() {
            terms.retain(|_, term| term.strong_count() > 0);
        }
        let new = Arc::new(term);
        terms.insert(text, Arc::downgrade(&new));
        new
    }

    /// Whether only the names of the namespaces and the pod's labels count, so that matches can be counted ahead.
    pub fn is_plain(&self) -> bool {
        !self.all_namespaces && self.namespace_selector.is_none()
    }

    pub fn matches(&self, pod: &PodInfo, labels: &NamespaceLabels) -> bool {
        let namespace = pod.key.namespace.as_str();
        let in_namespace = self.all_namespaces
            || self.namespaces.iter().any(|n| n == namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| s.matches_map(labels(namespace).as_deref()));
        in_namespace && self.selector.matches_map(Some(&pod.labels))
    }
}

/// Required terms.
pub fn required(list: Option<&Vec<PodAffinityTerm>>, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> Vec<Arc<AffinityTerm>> {
    list.into_iter().flatten().map(|t| AffinityTerm::shared(t, namespace, labels)).collect()
}

/// Preferred terms with their weights.
pub fn preferred(
    list: Option<&Vec<WeightedPodAffinityTerm>>,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
) -> Vec<(i32, Arc<AffinityTerm>)> {
    list.into_iter().flatten().map(|w| (w.weight, AffinityTerm::shared(&w.pod_affinity_term, namespace, labels))).collect()
}
