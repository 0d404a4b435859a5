//! The committed tables under `facts/`, as bytes. Written by `cargo xtask codegen`, never by hand.

/// Every struct of the API and its fields; the format is described in [`crate::schema`].
pub(crate) static TYPES: &str = include_str!("../facts/types.tsv");
/// Groups, versions, kinds and resources; the format is described in [`crate::registry`].
pub(crate) static RESOURCES: &str = include_str!("../facts/resources.tsv");

/// Upstream's bootstrap RBAC policy: a `v1` `List` of ClusterRoles, ClusterRoleBindings, Roles and RoleBindings, as JSON.
pub fn bootstrap_policy() -> &'static [u8] {
    include_bytes!("../facts/bootstrap-policy.json")
}

/// The mandatory and suggested FlowSchemas and PriorityLevelConfigurations: a `v1` `List`, as JSON.
pub fn flow_control() -> &'static [u8] {
    include_bytes!("../facts/flow-control.json")
}

/// Feature gates: `(name, enabled by default, stage)`, the stage being `ALPHA`, `BETA`, `GA` (empty upstream) or `DEPRECATED`.
pub fn feature_gates() -> impl Iterator<Item = (&'static str, bool, &'static str)> {
    include_str!("../facts/feature-gates.tsv").lines().filter_map(|line| {
        let mut columns = line.split('\t');
        Some((columns.next()?, columns.next()? == "true", columns.next()?))
    })
}
