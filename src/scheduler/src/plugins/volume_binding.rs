//! VolumeBinding: a pod waits for its claims, and goes where their volumes are, or can be.
//!
//! Models pkg/scheduler/framework/plugins/volumebinding/{volume_binding,binder}.go, v1.37.
use std::sync::Arc;

use api::volume::{SELECTED_NODE, Search, best_match, class_of_claim};
use client::{Named, ObjectKey, controller_of};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::node_affinity::selector_matches;
use super::{ClusterEvent, Filter, Reason, World};
use crate::cache::NodeState;
use crate::pod::PodInfo;
use crate::volumes::{Choice, VolumeView, is_bound};

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

pub struct VolumeBinding;

/// The claims of a pod, by what has to be done about them.
#[derive(Default)]
struct Claims {
    bound: Vec<Arc<PersistentVolumeClaim>>,
    /// Wait for a node.
    delayed: Vec<Arc<PersistentVolumeClaim>>,
}

fn claims(pod: &PodInfo, volumes: &dyn VolumeView) -> Result<Claims, Reason> {
    let mut claims = Claims::default();
    let mut waits = false;
    for used in &pod.claims {
        let name = &used.name;
        let Some(claim) = volumes.claim(&ObjectKey::new(pod.key.namespace.clone(), name.clone())) else {
            return Err(match used.own {
                true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"),
                false => format!("persistentvolumeclaim {name:?} not found"),
            });
        };
        if used.own && controller_of(&claim.metadata).is_none_or(|owner| owner.uid != pod.uid) {
            return Err(format!("PVC {} was not created for pod {} (pod is not owner)", claim.key(), pod.key));
        }
        if claim.is_deleting() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
            return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
        }
        let class = volumes.class(class_of_claim(&claim));
        let is_named = claim.spec.as_ref().and_then(|s| s.volume_name.as_ref()).is_some_and(|v| !v.is_empty());
        let is_delayed = class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        match () {
            () if is_bound(&claim) => claims.bound.push(claim),
            () if is_delayed && !is_named => claims.delayed.push(claim),
            () => waits = true,
        }
    }
    match waits {
        true => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
        false => Ok(claims),
    }
}

fn reaches(volume: &PersistentVolume, node: &NodeState) -> bool {
    let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|selector| selector_matches(selector, node))
}

fn allows_topology(class: &StorageClass, node: &NodeState) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let holds = |label: &str, values: &[String]| node.labels.get(label).is_some_and(|v| values.contains(v));
    terms.is_empty() || terms.iter().any(|t| t.match_label_expressions.iter().flatten().all(|e| holds(&e.key, &e.values)))
}

/// What to do for the claims that wait for a node, if it is this one; `None` where it cannot be.
fn choose(claims: &[Arc<PersistentVolumeClaim>], node: &NodeState, volumes: &dyn VolumeView) -> Option<Vec<Choice>> {
    let all = if claims.is_empty() { Vec::new() } else { volumes.volumes() };
    let mut choices: Vec<Choice> = Vec::new();
    for claim in claims {
        if let Some(selected) = claim.annotation(SELECTED_NODE) {
            if selected != node.name {
                return None;
            }
            choices.push(Choice::Provision { claim: claim.clone() });
            continue;
        }
        let is_ours = |volume: &PersistentVolume| {
            choices.iter().any(|c| matches!(c, Choice::Bind { volume: taken, .. } if taken.name() == volume.name()))
        };
        let usable =
            |volume: &PersistentVolume| reaches(volume, node) && !is_ours(volume) && !volumes.is_taken(volume.name(), &claim.key());
        let found = best_match(claim, &all, &Search::OnNode { usable: &usable });
        let choice = match found {
            Some(volume) => Choice::Bind { claim: claim.clone(), volume },
            None => {
                let class = volumes.class(class_of_claim(claim))?;
                if class.provisioner == NO_PROVISIONER || !allows_topology(&class, node) {
                    return None;
                }
                Choice::Provision { claim: claim.clone() }
            }
        };
        choices.push(choice);
    }
    Some(choices)
}

/// What to do before the pod is bound to a node that the filter has let through.
pub fn choices(pod: &PodInfo, node: &NodeState, volumes: &dyn VolumeView) -> Vec<Choice> {
    let claims = claims(pod, volumes).unwrap_or_default();
    choose(&claims.delayed, node, volumes).unwrap_or_default()
}

impl Filter for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }
    fn helped_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeLabels | ClusterEvent::Volumes)
    }
    fn refuses_all(&self, pod: &PodInfo, world: &World) -> Option<Reason> {
        claims(pod, world.volumes).err()
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &'a World<'a>) -> Option<Box<dyn Fn(&NodeState) -> Result<(), Vec<Reason>> + 'a>> {
        if pod.claims.is_empty() {
            return None;
        }
        let claims = claims(pod, world.volumes).ok()?;
        Some(Box::new(move |node| {
            let names = claims.bound.iter().filter_map(|c| c.spec.as_ref()?.volume_name.as_deref());
            let bound: Option<Vec<_>> = names.map(|name| world.volumes.volume(name)).collect();
            let Some(bound) = bound else {
                return Err(vec!["node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_owned()]);
            };
            let mut reasons = Vec::new();
            if !bound.iter().all(|volume| reaches(volume, node)) {
                reasons.push("node(s) didn't match PersistentVolume's node affinity".to_owned());
            }
            if choose(&claims.delayed, node, world.volumes).is_none() {
                reasons.push("node(s) didn't find available persistent volumes to bind".to_owned());
            }
            if reasons.is_empty() { Ok(()) } else { Err(reasons) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[derive(Default)]
    struct Fake {
        claims: Vec<Arc<PersistentVolumeClaim>>,
        volumes: Vec<Arc<PersistentVolume>>,
        taken: Option<&'static str>,
    }

    impl VolumeView for Fake {
        fn claim(&self, key: &ObjectKey) -> Option<Arc<PersistentVolumeClaim>> {
            self.claims.iter().find(|c| c.name() == key.name).cloned()
        }
        fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
            self.volumes.iter().find(|v| v.name() == name).cloned()
        }
        fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
            self.volumes.clone()
        }
        fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
            let (mode, provisioner) = match name {
                "later" => ("WaitForFirstConsumer", "example.com/p"),
                "local" => ("WaitForFirstConsumer", NO_PROVISIONER),
                _ => return None,
            };
            let class = json!({"metadata": {"name": name}, "volumeBindingMode": mode, "provisioner": provisioner});
            Some(Arc::new(serde_json::from_value(class).unwrap()))
        }
        fn is_taken(&self, volume: &str, _: &ObjectKey) -> bool {
            self.taken == Some(volume)
        }
    }

    fn claim(name: &str, class: &str, volume: &str) -> Arc<PersistentVolumeClaim> {
        let annotations = if volume.is_empty() { json!({}) } else { json!({"pv.kubernetes.io/bind-completed": "yes"}) };
        let spec = json!({"storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}});
        let meta = json!({"name": name, "namespace": "n", "uid": name, "annotations": annotations});
        Arc::new(serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap())
    }

    fn volume(name: &str, class: &str, node: &str) -> Arc<PersistentVolume> {
        let terms = json!([{"matchExpressions": [{"key": "host", "operator": "In", "values": [node]}]}]);
        let spec: Value = json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
        let object = json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": "Available"}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    /// What is done for a pod with these claims on node `a`.
    #[track_caller]
    fn check(fake: &Fake, names: &[&str], expect: &str) {
        let volumes: Vec<_> = names.iter().map(|n| json!({"name": n, "persistentVolumeClaim": {"claimName": n}})).collect();
        let object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [], "volumes": volumes}});
        let pod = PodInfo::new(&serde_json::from_value(object).unwrap());
        let node = NodeState { name: "a".into(), labels: [("host".to_owned(), "a".to_owned())].into(), ..Default::default() };
        let cache = crate::cache::Cache::default();
        let world = World { cache: &cache, namespace_labels: &|_| None, volumes: fake };
        let shown = match VolumeBinding.refuses_all(&pod, &world) {
            Some(reason) => reason,
            None => match VolumeBinding.prepare(&pod, &world).map(|fits| fits(&node)) {
                Some(Err(reasons)) => reasons.join("; "),
                _ => {
                    let done = choices(&pod, &node, fake).into_iter().map(|choice| match choice {
                        Choice::Bind { claim, volume } => format!("{}={}", claim.name(), volume.name()),
                        Choice::Provision { claim } => format!("{}=new", claim.name()),
                    });
                    done.collect::<Vec<_>>().join(" ")
                }
            },
        };
        assert_eq!(shown, expect);
    }

    #[test]
    fn a_pod_waits_for_its_claims_and_follows_their_volumes() {
        let fake = Fake {
            claims: vec![
                claim("here", "", "va"),
                claim("there", "", "vb"),
                claim("lost", "", "gone"),
                claim("now", "", ""),
                claim("later", "later", ""),
                claim("local", "local", ""),
                claim("local2", "local", ""),
            ],
            volumes: vec![volume("va", "", "a"), volume("vb", "", "b"), volume("l1", "local", "a"), volume("l2", "local", "b")],
            taken: None,
        };
        check(&fake, &["here"], "");
        check(&fake, &["missing"], "persistentvolumeclaim \"missing\" not found");
        check(&fake, &["now"], "pod has unbound immediate PersistentVolumeClaims");
        check(&fake, &["there"], "node(s) didn't match PersistentVolume's node affinity");
        check(&fake, &["lost"], "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
        check(&fake, &["later", "local"], "later=new local=l1");
        check(&fake, &["local", "local2"], "node(s) didn't find available persistent volumes to bind");
        let taken = Fake { taken: Some("l1"), ..fake };
        check(&taken, &["local"], "node(s) didn't find available persistent volumes to bind");
    }
}
