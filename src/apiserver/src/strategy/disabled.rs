//! Fields of features that are off by default are dropped before an object is looked at, as upstream's strategies drop them.
//!
//! Models pkg/api/pod/util.go `dropDisabledFields` and the `dropDisabled*` of pkg/registry. Objects here never have such a field already, so
//! none is kept for the sake of an old one.
use api::registry::Resource;
use api::tree::Tree;

/// `*` stands for every item of a list or every value of a map; gates are those of `facts/feature-gates.tsv`.
const OF_PODS: &[&[&str]] = &[
    // EvictionRequestAPI, GenericWorkload
    &["evictionResponders"],
    &["schedulingGroup"],
    // ContainerStopSignals
    &["containers", "*", "lifecycle", "stopSignal"],
    &["initContainers", "*", "lifecycle", "stopSignal"],
    // VolumeBindMountOptions
    &["containers", "*", "volumeMounts", "*", "bindMountOptions"],
    &["initContainers", "*", "volumeMounts", "*", "bindMountOptions"],
    // EmptyDirVolumeMode
    &["volumes", "*", "emptyDir", "mode"],
    // AtomicWriteVolumeUserFields
    &["volumes", "*", "configMap", "defaultUser"],
    &["volumes", "*", "secret", "defaultUser"],
    &["volumes", "*", "downwardAPI", "defaultUser"],
    &["volumes", "*", "projected", "defaultUser"],
    &["volumes", "*", "configMap", "items", "*", "user"],
    &["volumes", "*", "secret", "items", "*", "user"],
    &["volumes", "*", "downwardAPI", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "configMap", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "secret", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "downwardAPI", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "serviceAccountToken", "user"],
    &["volumes", "*", "projected", "sources", "*", "clusterTrustBundle", "user"],
    &["volumes", "*", "projected", "sources", "*", "podCertificate", "user"],
];

const CLAIM: &[&[&str]] = &[
    // DRADerivedAttributes
    &["spec", "devices", "requests", "*", "exactly", "derivedAttributes"],
    &["spec", "devices", "requests", "*", "firstAvailable", "*", "derivedAttributes"],
];
const CLAIM_TEMPLATE: &[&[&str]] = &[
    &["spec", "spec", "devices", "requests", "*", "exactly", "derivedAttributes"],
    &["spec", "spec", "devices", "requests", "*", "firstAvailable", "*", "derivedAttributes"],
];
const DEVICES: &[&[&str]] = &[
    // DRAListTypeAttributes
    &["spec", "devices", "*", "attributes", "*", "ints"],
    &["spec", "devices", "*", "attributes", "*", "bools"],
    &["spec", "devices", "*", "attributes", "*", "strings"],
    &["spec", "devices", "*", "attributes", "*", "versions"],
    // DRADeviceCompatibilityGroups, DRANodeAllocatableResources, DRAPartitionableDevicesType, DRAOptionalNodeOperations
    &["spec", "devices", "*", "consumesCounters", "*", "compatibilityGroups"],
    &["spec", "devices", "*", "nodeAllocatableResources"],
    &["spec", "partitionTypeAttribute"],
    &["spec", "skipNodeOperations"],
];

/// Where a kind's pod spec stands, and which other fields are behind gates.
fn places(resource: &Resource) -> (&'static [&'static str], &'static [&'static [&'static str]]) {
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => (&["spec"], &[]),
        ("", "podtemplates") => (&["template", "spec"], &[]),
        ("" | "apps", "replicationcontrollers" | "replicasets" | "deployments" | "daemonsets" | "statefulsets") => {
            (&["spec", "template", "spec"], &[])
        }
        // WorkloadWithJob
        ("batch", "jobs") => (&["spec", "template", "spec"], &[&["spec", "scheduling"]]),
        ("batch", "cronjobs") => (&["spec", "jobTemplate", "spec", "template", "spec"], &[&["spec", "jobTemplate", "spec", "scheduling"]]),
        // CoordinatedLeaderElection
        ("coordination.k8s.io", "leases") => (&[], &[&["spec", "strategy"], &["spec", "preferredHolder"]]),
        ("discovery.k8s.io", "endpointslices") => (&[], &[&["endpoints", "*", "deprecatedTopology"]]),
        ("resource.k8s.io", "resourceclaims") => (&[], CLAIM),
        ("resource.k8s.io", "resourceclaimtemplates") => (&[], CLAIM_TEMPLATE),
        ("resource.k8s.io", "resourceslices") => (&[], DEVICES),
        // CSIVolumeHealth
        ("storage.k8s.io", "csinodes") => (&[], &[&["status", "storageHealth"]]),
        ("", "nodes") => (&[], &[&["spec", "configSource"], &["spec", "podPreemptionPolicy"]]),
        _ => (&[], &[]),
    }
}

pub fn drop(resource: &Resource, object: &mut Tree) {
    let (pod, others) = places(resource);
    if let Some(spec) = object.at_mut(pod).filter(|_| !pod.is_empty()) {
        OF_PODS.iter().for_each(|path| remove(spec, path));
    }
    others.iter().for_each(|path| remove(object, path));
}

fn remove(tree: &mut Tree, path: &[&str]) {
    match path {
        [] => {}
        [last] => drop_field(tree, last),
        ["*", rest @ ..] => match tree {
            Tree::Object(values) => values.iter_mut().for_each(|(_, value)| remove(value, rest)),
            items => items.as_array_mut().into_iter().flatten().for_each(|item| remove(item, rest)),
        },
        [first, rest @ ..] => tree.get_mut(first).into_iter().for_each(|value| remove(value, rest)),
    }
}

fn drop_field(tree: &mut Tree, key: &str) {
    if let Some(object) = tree.as_object_mut() {
        object.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_behind_a_gate_goes() {
        let mut spec =
            Tree::from_json(br#"{"containers":[{"lifecycle":{"stopSignal":"SIGINT","preStop":{}}}],"schedulingGroup":{}}"#).unwrap();
        OF_PODS.iter().for_each(|path| remove(&mut spec, path));
        assert_eq!(spec, Tree::from_json(br#"{"containers":[{"lifecycle":{"preStop":{}}}]}"#).unwrap());
    }
}
