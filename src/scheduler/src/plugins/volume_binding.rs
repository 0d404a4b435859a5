//! VolumeBinding: a pod waits for its claims, and goes where their volumes are, or can be.
//!
//! Models pkg/scheduler/framework/plugins/volumebinding/{volume_binding,binder,scorer}.go, v1.37. Left out: in-tree volumes that are served
//! by CSI drivers (rk serves none).
use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use api::volume::{SELECTED_NODE, Search, best_match, class_of_claim};
use client::{Named, ObjectKey, controller_of};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};

use super::node_affinity::selector_matches;
use super::{Filter, NodeCheck, Prepared, Reasons, Refusal, Score, Verdict, World};
use crate::cache::{NodeFacts, NodeState};
use crate::events::{Change, ClusterEvent, bits};
use crate::pod::PodInfo;
use crate::volumes::{Choice, VolumeView, is_bound};

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

pub struct VolumeBinding {
    /// Points of utilization (percent) and score (0 to 100).
    pub shape: Vec<(i64, i64)>,
}

/// The claims of a pod, by what has to be done about them.
#[derive(Clone, Default)]
struct Claims {
    bound: Vec<Arc<PersistentVolumeClaim>>,
    /// Wait for a node.
    delayed: Vec<Arc<PersistentVolumeClaim>>,
}

fn claims(pod: &PodInfo, volumes: &dyn VolumeView) -> Result<Claims, String> {
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

fn reaches(volume: &PersistentVolume, node: &NodeFacts) -> bool {
    let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|selector| selector_matches(selector, node))
}

fn allows_topology(class: &StorageClass, node: &NodeFacts) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let holds = |label: &str, values: &[String]| node.labels.get(label).is_some_and(|v| values.contains(v));
    terms.is_empty() || terms.iter().any(|t| t.match_label_expressions.iter().flatten().all(|e| holds(&e.key, &e.values)))
}

/// Size of the largest volume that fits.
pub fn volume_limit(capacity: &CSIStorageCapacity) -> Option<i64> {
    let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref())?;
    Quantity::parse(&limit.0).ok().map(|q| q.value())
}

fn size_of(claim: &PersistentVolumeClaim) -> Option<i64> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Quantity::parse(&requests.get("storage")?.0).ok().map(|q| q.value())
}

/// What the driver has left for the node; `Ok(None)` where it does not say.
fn room(claim: &PersistentVolumeClaim, class: &StorageClass, node: &NodeFacts, volumes: &dyn VolumeView) -> Result<Option<i64>, Shortage> {
    let Some(size) = size_of(claim) else { return Ok(None) };
    let driver = volumes.csi_driver(&class.provisioner);
    if driver.is_none_or(|d| d.spec.storage_capacity != Some(true)) {
        return Ok(None);
    }
    let reachable = |capacity: &CSIStorageCapacity| {
        let topology = capacity.node_topology.as_ref();
        topology.is_some_and(|t| LabelSelector::from_typed(Some(t)).is_ok_and(|s| s.matches_map(Some(&node.labels))))
    };
    let all = volumes.capacities();
    let fits = |c: &&Arc<CSIStorageCapacity>| {
        c.storage_class_name == class.name() && volume_limit(c).is_some_and(|limit| limit >= size) && reachable(c)
    };
    let found = all.iter().find(fits).ok_or(Shortage::Room)?;
    Ok(found.capacity.as_ref().and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.value()))
}

/// Why the claims cannot be had on a node.
enum Shortage {
    Volume,
    Room,
}

/// What to do for the claims that wait for a node, if it is this one.
fn choose(claims: &[Arc<PersistentVolumeClaim>], node: &NodeFacts, volumes: &dyn VolumeView) -> Result<Vec<Choice>, Shortage> {
    let all = if claims.is_empty() { Vec::new() } else { volumes.volumes() };
    let mut choices: Vec<Choice> = Vec::new();
    for claim in claims {
        let assumed = volumes.assumed_node(&claim.key());
        let selected = claim.annotation(SELECTED_NODE).or(assumed.as_deref());
        if selected.is_some_and(|selected| selected != node.name) {
            return Err(Shortage::Volume);
        }
        let is_ours = |volume: &PersistentVolume| {
            choices.iter().any(|c| matches!(c, Choice::Bind { volume: taken, .. } if taken.name() == volume.name()))
        };
        let usable =
            |volume: &PersistentVolume| reaches(volume, node) && !is_ours(volume) && !volumes.is_taken(volume.name(), &claim.key());
        let found = match selected {
            Some(_) => None,
            None => best_match(claim, &all, &Search::OnNode { usable: &usable }),
        };
        let choice = match found {
            Some(volume) => Choice::Bind { claim: claim.clone(), volume },
            None => {
                let class = volumes.class(class_of_claim(claim)).ok_or(Shortage::Volume)?;
                if class.provisioner == NO_PROVISIONER || !allows_topology(&class, node) {
                    return Err(Shortage::Volume);
                }
                Choice::Provision { claim: claim.clone(), room: room(claim, &class, node, volumes)? }
            }
        };
        choices.push(choice);
    }
    Ok(choices)
}

/// What to do before the pod is bound to a node that the filter has let through.
pub fn choices(pod: &PodInfo, node: &NodeFacts, volumes: &dyn VolumeView) -> Vec<Choice> {
    if pod.claims.is_empty() {
        return Vec::new();
    }
    let claims = claims(pod, volumes).unwrap_or_default();
    choose(&claims.delayed, node, volumes).unwrap_or_default()
}

#[derive(Clone)]
struct Check<'a> {
    claims: Claims,
    volumes: &'a dyn VolumeView,
}

impl<'a> NodeCheck<'a> for Check<'a> {
    fn check(&self, node: &NodeState) -> Verdict {
        let names = self.claims.bound.iter().filter_map(|c| c.spec.as_ref()?.volume_name.as_deref());
        let bound: Option<Vec<_>> = names.map(|name| self.volumes.volume(name)).collect();
        let mut reasons = Vec::new();
        if bound.as_ref().is_some_and(|bound| !bound.iter().all(|volume| reaches(volume, node))) {
            reasons.push("node(s) didn't match PersistentVolume's node affinity".into());
        }
        match choose(&self.claims.delayed, node, self.volumes) {
            Ok(_) => {}
            Err(Shortage::Volume) => reasons.push("node(s) didn't find available persistent volumes to bind".into()),
            Err(Shortage::Room) => reasons.push("node(s) did not have enough free storage".into()),
        }
        if bound.is_none() {
            reasons.push("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".into());
        }
        if reasons.is_empty() { Ok(()) } else { Err(Refusal { reasons: Reasons::Several(reasons), resolvable: false }) }
    }
    fn duplicate(&self) -> Box<dyn NodeCheck<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl Filter for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }
    fn events(&self) -> u32 {
        bits::CLASS_ADD
            | bits::CLASS_UPDATE
            | bits::CLAIM_ADD
            | bits::CLAIM_UPDATE
            | bits::VOLUME_ADD
            | bits::VOLUME_UPDATE
            | bits::NODE_ADD
            | bits::NODE_LABEL
            | bits::CSI_NODE_ADD
            | bits::CSI_DRIVER
            | bits::CSI_CAPACITY
    }
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.change {
            Change::Claim { new, .. } => new.namespace() == pod.key.namespace && pod.claims.iter().any(|c| c.name == new.name()),
            Change::Class { old, new } => old.is_none_or(|old| old.allowed_topologies != new.allowed_topologies),
            Change::CsiDriver { old, new } => {
                let tracks = |d: &k8s_openapi::api::storage::v1::CSIDriver| d.spec.storage_capacity == Some(true);
                old.is_some_and(tracks) && !tracks(new)
            }
            _ => true,
        }
    }
    fn prepare<'a>(&'a self, pod: &'a PodInfo, world: &World<'a>) -> Prepared<'a> {
        if pod.claims.is_empty() {
            return Prepared::Skip;
        }
        match claims(pod, world.volumes) {
            Ok(claims) => Prepared::Check(Box::new(Check { claims, volumes: world.volumes })),
            Err(why) => Prepared::Refused(Refusal::unresolvable(why)),
        }
    }
}

impl Score for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }
    fn has_a_say(&self, pod: &PodInfo, _: &World) -> bool {
        !pod.claims.is_empty()
    }
    fn score(&self, pod: &PodInfo, nodes: &[&NodeState], world: &World) -> Option<Vec<i64>> {
        let claims = claims(pod, world.volumes).ok().filter(|c| !c.delayed.is_empty())?;
        let one = |node: &NodeState| {
            let choices = choose(&claims.delayed, node, world.volumes).unwrap_or_default();
            let is_static = choices.iter().any(|c| matches!(c, Choice::Bind { .. }));
            let mut classes: BTreeMap<String, (i64, i64)> = BTreeMap::new();
            for choice in &choices {
                let size = size_of(choice.claim()).unwrap_or_default();
                match choice {
                    Choice::Bind { claim, volume } => {
                        let capacity = volume.spec.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
                        let capacity = capacity.and_then(|q| Quantity::parse(&q.0).ok()).map_or(0, |q| q.value());
                        let class = classes.entry(class_of_claim(claim).to_owned()).or_default();
                        *class = (class.0 + size, class.1 + capacity);
                    }
                    Choice::Provision { claim, room: Some(room) } if !is_static => {
                        let class = classes.entry(class_of_claim(claim).to_owned()).or_default();
                        *class = (class.0 + size, *room);
                    }
                    Choice::Provision { .. } => {}
                }
            }
            let used = |(requested, capacity): &(i64, i64)| if *capacity == 0 || requested > capacity { 100 } else { requested * 100 / capacity };
            let total: i64 = classes.values().map(|class| super::fit::along(&self.shape, used(class))).sum();
            if classes.is_empty() { 0 } else { (total as f64 / classes.len() as f64).round() as i64 }
        };
        Some(nodes.iter().map(|n| one(n)).collect())
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
        fn csi_driver(&self, _: &str) -> Option<Arc<k8s_openapi::api::storage::v1::CSIDriver>> {
            None
        }
        fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>> {
            Vec::new()
        }
        fn csi_node(&self, _: &str) -> Option<Arc<k8s_openapi::api::storage::v1::CSINode>> {
            None
        }
        fn attachments(&self, _: &str) -> Vec<Arc<k8s_openapi::api::storage::v1::VolumeAttachment>> {
            Vec::new()
        }
        fn assumed_node(&self, _: &ObjectKey) -> Option<String> {
            None
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
        let facts = NodeFacts { name: "a".into(), labels: [("host".to_owned(), "a".to_owned())].into(), ..NodeFacts::default() };
        let node = NodeState { facts: Arc::new(facts), ..NodeState::unknown("a", 0) };
        let cache = crate::cache::Cache::default();
        let world = World { cache: &cache, namespace_labels: &|_| None, volumes: fake, owners: &crate::owners::Nobody, devices: &crate::dra::NoDevices };
        let plugin = VolumeBinding { shape: Vec::new() };
        let shown = match plugin.prepare(&pod, &world) {
            Prepared::Refused(refusal) => refusal.reasons.joined(),
            Prepared::Check(answers) if answers.check(&node).is_err() => answers.check(&node).unwrap_err().reasons.joined(),
            _ => {
                let done = choices(&pod, &node, fake).into_iter().map(|choice| match choice {
                    Choice::Bind { claim, volume } => format!("{}={}", claim.name(), volume.name()),
                    Choice::Provision { claim, .. } => format!("{}=new", claim.name()),
                });
                done.collect::<Vec<_>>().join(" ")
            }
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
