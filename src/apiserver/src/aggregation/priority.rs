//! In which order the groups and versions of this server stand among all others.
//!
//! Models pkg/controlplane/apiserver/aggregator.go and cmd/kube-apiserver/app/aggregator.go, v1.37.

/// Of the kinds of CustomResourceDefinitions: rather low, so that nobody pushes himself before what is built in.
pub const CUSTOM: (i64, i64) = (1000, 100);
/// Of what nobody has ranked.
const UNRANKED: (i64, i64) = (1000, 15);
/// Before all others.
const OWN: (i64, i64) = (20_001, 0);

const GROUPS: [(&str, i64); 24] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("storagemigration.k8s.io", 15_800),
    ("lifecycle.k8s.io", 15_700),
    // As its own manifest has it; rk answers it itself.
    ("metrics.k8s.io", 100),
];

/// The priorities of a group and of one of its versions.
pub fn built_in(group: &str, version: &str) -> (i64, i64) {
    if group == super::GROUP {
        return OWN;
    }
    let Some((_, of_group)) = GROUPS.iter().find(|(name, _)| *name == group) else { return UNRANKED };
    let of_version = match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("metrics.k8s.io", _) => 100,
        ("resource.k8s.io" | "flowcontrol.apiserver.k8s.io", "v1") => 21,
        ("resource.k8s.io", "v1beta2") => 15,
        (_, "v1") => 15,
        (_, version) if version.contains("beta") => 9,
        _ => 1,
    };
    (*of_group, of_version)
}
