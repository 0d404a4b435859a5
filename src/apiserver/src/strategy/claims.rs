//! Who may say what in the status of a claim to devices: binding it is the scheduler's, the state of a device its driver's.
//!
//! Models pkg/registry/resource/utils.go AuthorizedForAdminStatus, AuthorizedForBinding and AuthorizedForDeviceStatus, which ask for
//! permission on subresources that nobody serves (DRAResourceClaimGranularStatusAuthorization, KEP-4817).
use std::collections::{BTreeMap, BTreeSet};

use api::field_error::FieldError;
use api::tree::Tree;

use super::devices::refuse_unlabelled;
use crate::auth::{Attributes, Authorizer, UserInfo};
use crate::impersonation::{NODE_NAME, account_of};
use crate::pipeline::forbidden;

/// `asked` is the request for the status; `label` reads one of the claim's namespace.
pub fn may_set_status(
    authorizer: &dyn Authorizer,
    asked: &Attributes,
    label: impl FnOnce(&str) -> Option<String>,
    new: &Tree,
    old: &Tree,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    errors.extend(newly_administers(new, old).and_then(|path| refuse_unlabelled(path, label)));
    errors.extend(may_bind(authorizer, asked, new, old));
    // What drivers told goes with the allocation, whoever takes that back.
    if allocation(new).is_some() {
        errors.extend(may_tell_of_devices(authorizer, asked, new, old));
    }
    errors
}

fn allocation(claim: &Tree) -> Option<&Tree> {
    claim.at(&["status", "allocation"]).filter(|allocation| !allocation.is_null())
}

/// The first device that the claim shares with its users and did not before.
fn newly_administers(new: &Tree, old: &Tree) -> Option<String> {
    let shared = |claim: &Tree| {
        let results = claim.array_at(&["status", "allocation", "devices", "results"]);
        results.iter().position(|result| result.get("adminAccess").and_then(Tree::as_bool) == Some(true))
    };
    let i = shared(new).filter(|_| shared(old).is_none())?;
    Some(format!("status.allocation.devices.results[{i}].adminAccess"))
}

/// Why a request is refused, as its answer would say it.
fn refusal(authorizer: &dyn Authorizer, attributes: &Attributes) -> Option<String> {
    let decision = authorizer.authorize(attributes);
    (!decision.allowed()).then(|| forbidden(attributes, &decision.reason).message)
}

fn may_bind(authorizer: &dyn Authorizer, asked: &Attributes, new: &Tree, old: &Tree) -> Option<FieldError> {
    let users = |claim: &Tree| claim.array_at(&["status", "reservedFor"]).to_vec();
    if allocation(new) == allocation(old) && users(new) == users(old) {
        return None;
    }
    let wanted = Attributes { subresource: "binding", namespace: "", name: "", ..asked.clone() };
    let why = refusal(authorizer, &wanted)?;
    let detail = format!(
        "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{}\" permission: {why}",
        asked.verb
    );
    Some(FieldError::forbidden("status.allocation", detail))
}

fn may_tell_of_devices(authorizer: &dyn Authorizer, asked: &Attributes, new: &Tree, old: &Tree) -> Vec<FieldError> {
    let drivers = changed_drivers(new, old);
    let mut verbs = vec![format!("arbitrary-node:{}", asked.verb)];
    if allocated_node(new).is_some_and(|node| is_account_of(asked.user, node)) {
        verbs.insert(0, format!("associated-node:{}", asked.verb));
    }
    let ask = |driver: &str| {
        let refusals = verbs.iter().map(|verb| refusal(authorizer, &Attributes { verb, subresource: "driver", name: driver, ..asked.clone() }));
        // The first refusal is told, unless one of the verbs is allowed.
        let why = refusals.collect::<Option<Vec<_>>>()?.swap_remove(0);
        let detail =
            format!("changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {why}", verbs.join(" "));
        Some(FieldError::forbidden("status.devices", detail))
    };
    drivers.into_iter().filter_map(ask).collect()
}

/// Drivers of devices whose state comes, goes or changes.
fn changed_drivers<'a>(new: &'a Tree, old: &'a Tree) -> BTreeSet<&'a str> {
    let key = |device: &'a Tree| ["driver", "pool", "device", "shareID"].map(|field| device.str_at(&[field]));
    let devices = |claim: &'a Tree| claim.array_at(&["status", "devices"]).iter();
    let mut before: BTreeMap<_, _> = devices(old).map(|device| (key(device), device)).collect();
    let mut changed: BTreeSet<&str> =
        devices(new).filter(|device| before.remove(&key(device)) != Some(*device)).map(|device| device.str_at(&["driver"])).collect();
    changed.extend(before.into_keys().map(|[driver, ..]| driver));
    changed
}

/// The only node that the devices can be reached from.
fn allocated_node(claim: &Tree) -> Option<&str> {
    let [term] = claim.array_at(&["status", "allocation", "nodeSelector", "nodeSelectorTerms"]) else { return None };
    let ([], [field]) = (term.array_at(&["matchExpressions"]), term.array_at(&["matchFields"])) else { return None };
    let ("metadata.name", "In", [node]) = (field.str_at(&["key"]), field.str_at(&["operator"]), field.array_at(&["values"])) else {
        return None;
    };
    node.as_str()
}

/// A ServiceAccount whose token was made for a pod on the node.
fn is_account_of(user: &UserInfo, node: &str) -> bool {
    account_of(&user.name).is_some() && user.extra.get(NODE_NAME).is_some_and(|names| names.as_slice() == [node])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{ALL_FIELDS, ALL_LABELS, Decision, UserRules};

    /// Lets those through whose verb, subresource and name are listed.
    struct Only(&'static [(&'static str, &'static str, &'static str)]);

    impl Authorizer for Only {
        fn authorize(&self, a: &Attributes) -> Decision {
            if self.0.contains(&(a.verb, a.subresource, a.name)) { Decision::allow("") } else { Decision::no_opinion("") }
        }
        fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
            UserRules::default()
        }
    }

    fn claim(status: &str) -> Tree {
        Tree::from_json(format!(r#"{{"status":{status}}}"#).as_bytes()).unwrap()
    }

    fn errors(allowed: &'static [(&'static str, &'static str, &'static str)], user: &UserInfo, label: Option<&str>, new: &str, old: &str) -> Vec<String> {
        let asked = Attributes {
            user,
            verb: "update",
            api_group: "resource.k8s.io",
            api_version: "v1",
            resource: "resourceclaims",
            subresource: "status",
            namespace: "n",
            name: "c",
            resource_request: true,
            path: "",
            fields: &ALL_FIELDS,
            labels: &ALL_LABELS,
        };
        may_set_status(&Only(allowed), &asked, |_| label.map(str::to_owned), &claim(new), &claim(old)).iter().map(ToString::to_string).collect()
    }

    const ALLOCATED: &str = r#"{"allocation":{"nodeSelector":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["m"]}]}]}}}"#;

    fn with_device(state: &str) -> String {
        ALLOCATED.replace(r#"{"allocation""#, &format!(r#"{{"devices":[{{"driver":"d","pool":"p","device":"1","data":"{state}"}}],"allocation""#))
    }

    #[test]
    fn who_binds_a_claim_needs_permission_in_the_whole_cluster() {
        let scheduler = UserInfo::new("s", &[]);
        assert_eq!(errors(&[("update", "binding", "")], &scheduler, None, ALLOCATED, "{}"), [""; 0]);
        let refused = errors(&[], &scheduler, None, r#"{"reservedFor":[{"name":"p"}]}"#, "{}");
        assert_eq!(
            refused,
            ["status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", \
              verb=\"update\" permission: resourceclaims.resource.k8s.io is forbidden: User \"s\" cannot update resource \
              \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope"]
        );
        assert_eq!(errors(&[], &scheduler, None, r#"{"conditions":[]}"#, "{}"), [""; 0]);
    }

    #[test]
    fn a_driver_tells_of_its_own_devices_where_it_runs() {
        let mut driver = UserInfo::new("system:serviceaccount:n:d", &[]);
        let (new, old) = (with_device("b"), with_device("a"));
        let near = &[("associated-node:update", "driver", "d")];
        let away = errors(near, &driver, None, &new, &old);
        assert!(away[0].starts_with("status.devices: Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[arbitrary-node:update]\""), "{away:?}");
        driver.extra.insert(NODE_NAME.into(), vec!["m".into()]);
        assert_eq!(errors(near, &driver, None, &new, &old), [""; 0]);
        assert_eq!(errors(near, &driver, None, &new, &new), [""; 0]);
        assert_eq!(errors(near, &driver, None, ALLOCATED, &old), [""; 0]);
        assert_eq!(errors(&[("arbitrary-node:update", "driver", "other")], &driver, None, ALLOCATED, &old).len(), 1);
    }

    #[test]
    fn devices_that_others_use_are_for_labelled_namespaces() {
        let shared = r#"{"allocation":{"devices":{"results":[{"adminAccess":true}]}}}"#;
        let user = UserInfo::new("s", &[]);
        let binding = &[("update", "binding", "")];
        assert_eq!(errors(binding, &user, Some("true"), shared, "{}"), [""; 0]);
        assert!(errors(binding, &user, None, shared, "{}")[0].starts_with("status.allocation.devices.results[0].adminAccess: Forbidden: admin access"));
        assert_eq!(errors(binding, &user, None, shared, shared), [""; 0]);
    }
}
