//! Defaults of role bindings.
//!
//! Models pkg/apis/rbac/v1/defaults.go.
use super::{child_or_new, each, text, zero};
use crate::tree::Object;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn apply(kind: &str, object: &mut Object) {
    if !matches!(kind, "RoleBinding" | "ClusterRoleBinding") {
        return;
    }
    zero(child_or_new(object, "roleRef"), "apiGroup", GROUP);
    for subject in each(object, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            zero(subject, "apiGroup", GROUP);
        }
    }
}
