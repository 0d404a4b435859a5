//! CertificateSigningRequests. Models pkg/registry/certificates/certificates/strategy.go.
use api::tree::{Object, Tree};

use crate::auth::UserInfo;
use crate::rest::storage::now;

/// The requestor is whoever asks, never what the body says.
pub fn prepare_create(object: &mut Tree, user: &UserInfo) {
    object.set(&["spec", "username"], user.name.as_str());
    object.set(&["spec", "groups"], Tree::Array(user.groups.iter().map(|g| g.as_str().into()).collect()));
    if user.uid.is_empty() {
        object.remove(&["spec", "uid"]);
    } else {
        object.set(&["spec", "uid"], user.uid.as_str());
    }
    object.remove(&["spec", "extra"]);
    if !user.extra.is_empty() {
        let extra = user.extra.iter().map(|(k, v)| (k.as_str(), Tree::Array(v.iter().map(|v| v.as_str().into()).collect())));
        object.set(&["spec", "extra"], extra.collect::<Object>());
    }
    object.set(&["status"], Tree::object());
}

/// The status subresource neither approves nor denies.
pub fn restrict_status(new: &mut Tree, old: &Tree) {
    let is_verdict = |condition: &Tree| matches!(condition.str_at(&["type"]), "Approved" | "Denied");
    let mut conditions: Vec<Tree> = old.array_at(&["status", "conditions"]).iter().filter(|c| is_verdict(c)).cloned().collect();
    conditions.extend(new.array_at(&["status", "conditions"]).iter().filter(|c| !is_verdict(c)).cloned());
    if !conditions.is_empty() {
        new.set(&["status", "conditions"], Tree::Array(conditions));
    }
    stamp_conditions(new, old);
}

/// Times that a client left out.
pub fn stamp_conditions(new: &mut Tree, old: &Tree) {
    let before: Vec<Tree> = old.array_at(&["status", "conditions"]).to_vec();
    let Some(conditions) = new.at_mut(&["status", "conditions"]).and_then(Tree::as_array_mut) else { return };
    for condition in conditions {
        let previous = before.iter().find(|c| c.str_at(&["type"]) == condition.str_at(&["type"]));
        if condition.get("lastUpdateTime").is_none_or(Tree::is_null) {
            condition.set(&["lastUpdateTime"], now());
        }
        if condition.get("lastTransitionTime").is_none_or(Tree::is_null) {
            let kept = previous.filter(|p| p.str_at(&["status"]) == condition.str_at(&["status"]));
            let at = kept.and_then(|p| p.get("lastTransitionTime").cloned()).unwrap_or_else(|| now().into());
            condition.set(&["lastTransitionTime"], at);
        }
    }
}
