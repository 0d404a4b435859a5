//! What claims and offers of devices derive from themselves.
//!
//! Models pkg/registry/resource/{devicetaintrule,resourceclaim}/strategy.go, pkg/registry/resource/utils.go `AuthorizedForAdmin` and the
//! default of a taint in pkg/apis/resource/v1/defaults.go.
use api::field_error::FieldError;
use api::tree::Tree;

const ADMIN_ACCESS: &str = "resource.kubernetes.io/admin-access";

/// Notes when taints came, where their writer does not say.
pub(super) fn stamp_taints(kind: &str, object: &mut Tree, now: &str) {
    let stamp = |taint: &mut Tree| {
        if taint.as_object().is_some() && taint.get("timeAdded").is_none_or(Tree::is_null) {
            taint.set(&["timeAdded"], now);
        }
    };
    match kind {
        "devicetaintrules" => {
            object.at_mut(&["spec", "taint"]).into_iter().for_each(stamp);
        }
        "resourceslices" => {
            let devices = object.at_mut(&["spec", "devices"]).and_then(Tree::as_array_mut);
            let taints = devices.into_iter().flatten().filter_map(|device| device.get_mut("taints")?.as_array_mut());
            taints.flatten().for_each(stamp);
        }
        _ => {}
    }
}

/// Another effect is a new taint, unless its writer says otherwise.
pub(super) fn restamp_rule(new: &mut Tree, old: &Tree, now: &str) {
    let (effect, time) = (&["spec", "taint", "effect"], &["spec", "taint", "timeAdded"]);
    if new.at(effect) != old.at(effect) && new.at(time) == old.at(time) {
        new.set(time, now);
    }
}

/// What drivers told of devices that were just taken back.
pub(super) fn drop_stale_statuses(new: &mut Tree, old: &Tree) {
    let id = |device: &Tree| ["driver", "pool", "device", "shareID"].map(|key| device.str_at(&[key]).to_owned());
    let allocated = |claim: &Tree| claim.array_at(&["status", "allocation", "devices", "results"]).iter().map(id).collect::<Vec<_>>();
    let kept = allocated(new);
    let gone: Vec<_> = allocated(old).into_iter().filter(|device| !kept.contains(device)).collect();
    let Some(devices) = new.at_mut(&["status", "devices"]).and_then(Tree::as_array_mut) else { return };
    devices.retain(|device| !gone.contains(&id(device)));
    if devices.is_empty() {
        new.remove(&["status", "devices"]);
    }
}

/// Devices that others use are for claims in namespaces that an administrator labels; `label` reads one of the claim's namespace.
pub fn may_administer(kind: &str, object: &Tree, label: impl FnOnce(&str) -> Option<String>) -> Option<FieldError> {
    let requests = match kind {
        "ResourceClaim" => object.array_at(&["spec", "devices", "requests"]),
        "ResourceClaimTemplate" => object.array_at(&["spec", "spec", "devices", "requests"]),
        _ => return None,
    };
    let i = requests.iter().position(|request| request.at(&["exactly", "adminAccess"]).and_then(Tree::as_bool) == Some(true))?;
    refuse_unlabelled(format!("spec.devices.requests[{i}].adminAccess"), label)
}

/// The refusal for a field at `path`, unless the namespace is labelled.
pub(super) fn refuse_unlabelled(path: String, label: impl FnOnce(&str) -> Option<String>) -> Option<FieldError> {
    let detail = format!("admin access to devices requires the `{ADMIN_ACCESS}: true` label on the containing namespace");
    (label(ADMIN_ACCESS).as_deref() != Some("true")).then(|| FieldError::forbidden(path, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn taints_know_when_they_came() {
        let mut rule = tree(r#"{"spec":{"taint":{"effect":"NoSchedule"}}}"#);
        stamp_taints("devicetaintrules", &mut rule, "T1");
        let old = rule.clone();
        rule.set(&["spec", "taint", "effect"], "NoExecute");
        restamp_rule(&mut rule, &old, "T2");
        assert_eq!((old.str_at(&["spec", "taint", "timeAdded"]), rule.str_at(&["spec", "taint", "timeAdded"])), ("T1", "T2"));
    }

    #[test]
    fn a_device_that_was_taken_back_has_no_status() {
        let claim = |results: &str| {
            let json = r#"{"status":{"allocation":{"devices":{"results":RESULTS}},"devices":[{"driver":"d","pool":"p","device":"1"}]}}"#;
            tree(&json.replace("RESULTS", results))
        };
        let (mut new, old) = (claim("[]"), claim(r#"[{"driver":"d","pool":"p","device":"1"}]"#));
        drop_stale_statuses(&mut new, &old);
        assert_eq!(new.at(&["status", "devices"]), None);
    }

    #[test]
    fn devices_in_use_are_for_namespaces_with_a_label() {
        let claim = tree(r#"{"spec":{"devices":{"requests":[{},{"exactly":{"adminAccess":true}}]}}}"#);
        assert_eq!(may_administer("ResourceClaim", &claim, |key| (key == ADMIN_ACCESS).then(|| "true".to_owned())), None);
        let refused = may_administer("ResourceClaim", &claim, |_| None).unwrap();
        assert_eq!(refused.path, "spec.devices.requests[1].adminAccess");
    }
}
