//! Rows of the kinds that run the cluster itself: access, certificates, storage, scheduling, admission, devices.
use jiff::{SignedDuration, Timestamp};

use super::access::{age, condition, condition_is_true, flag, is_deleting, is_set, join, labels, length, map, number, since, text, text_or, texts};
use super::format::human_duration;
use crate::meta;
use crate::selector::LabelSelector;
use crate::tree::Tree;

pub(super) fn role_binding(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let (mut users, mut groups, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
    for subject in object.array_at(&["subjects"]) {
        let name = subject.str_at(&["name"]);
        match subject.str_at(&["kind"]) {
            "ServiceAccount" => accounts.push(format!("{}/{name}", subject.str_at(&["namespace"]))),
            "User" => users.push(name.to_owned()),
            "Group" => groups.push(name.to_owned()),
            _ => {}
        }
    }
    let role = format!("{}/{}", object.str_at(&["roleRef", "kind"]), object.str_at(&["roleRef", "name"]));
    vec![role.into(), age(object, now), users.join(", ").into(), groups.join(", ").into(), accounts.join(", ").into()]
}

pub(super) fn signing_request(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let mut status = match () {
        () if condition(object, "Denied").is_some() => "Denied",
        () if condition(object, "Approved").is_some() => "Approved",
        () => "Pending",
    }
    .to_owned();
    if condition(object, "Failed").is_some() {
        status.push_str(",Failed");
    }
    if !object.str_at(&["status", "certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    let requested = object.at(&["spec", "expirationSeconds"]).and_then(Tree::as_i64);
    let requested = requested.map_or("<none>".into(), |seconds| human_duration(SignedDuration::from_secs(seconds)));
    vec![
        age(object, now),
        text_or(object, &["spec", "signerName"], "<none>"),
        text(object, &["spec", "username"]),
        requested.into(),
        status.into(),
    ]
}

pub(super) fn trust_bundle(object: &Tree, _: Timestamp) -> Vec<Tree> {
    vec![text_or(object, &["spec", "signerName"], "<none>")]
}

pub(super) fn pod_certificate_request(object: &Tree, _: Timestamp) -> Vec<Tree> {
    let known = |c: &&Tree| matches!(c.str_at(&["type"]), "Issued" | "Denied" | "Failed");
    let state = object.array_at(&["status", "conditions"]).iter().rfind(known).map_or("Pending", |c| c.str_at(&["type"]));
    vec![
        text(object, &["spec", "podName"]),
        text(object, &["spec", "serviceAccountName"]),
        text(object, &["spec", "nodeName"]),
        text(object, &["spec", "signerName"]),
        state.into(),
        labels(object, &["spec", "unverifiedUserAnnotations"]),
    ]
}

pub(super) fn lease(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![text(object, &["spec", "holderIdentity"]), age(object, now)]
}

pub(super) fn lease_candidate(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let spec = |field| text(object, &["spec", field]);
    vec![spec("leaseName"), spec("binaryVersion"), spec("emulationVersion"), age(object, now)]
}

pub(super) fn priority_class(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![
        number(object, &["value"]).into(),
        flag(object, &["globalDefault"], false).into(),
        age(object, now),
        text(object, &["preemptionPolicy"]),
    ]
}

pub(super) fn runtime_class(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![text(object, &["handler"]), age(object, now)]
}

pub(super) fn is_default_class(object: &Tree) -> bool {
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
        .iter()
        .any(|key| meta::annotation(object, key) == Some("true"))
}

pub(super) fn storage_class(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![
        text(object, &["provisioner"]),
        text_or(object, &["reclaimPolicy"], "Delete"),
        text_or(object, &["volumeBindingMode"], "Immediate"),
        flag(object, &["allowVolumeExpansion"], false).into(),
        age(object, now),
    ]
}

pub(super) fn csi_node(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![length(object, &["spec", "drivers"]).into(), age(object, now)]
}

pub(super) fn csi_driver(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let spec = |field, default| Tree::from(flag(object, &["spec", field], default));
    let tokens = object.at(&["spec", "tokenRequests"]).and_then(Tree::as_array);
    let tokens = tokens.map_or("<unset>".into(), |list| join(list.iter().map(|t| t.str_at(&["audience"])), ","));
    let modes = join(texts(object, &["spec", "volumeLifecycleModes"]), ",");
    vec![
        spec("attachRequired", true),
        spec("podInfoOnMount", false),
        spec("storageCapacity", false),
        tokens.into(),
        spec("requiresRepublish", false),
        if modes.is_empty() { "<none>".into() } else { modes.into() },
        age(object, now),
    ]
}

pub(super) fn volume_attachment(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![
        text(object, &["spec", "attacher"]),
        text(object, &["spec", "source", "persistentVolumeName"]),
        text(object, &["spec", "nodeName"]),
        flag(object, &["status", "attached"], false).into(),
        age(object, now),
    ]
}

pub(super) fn volume_attributes_class(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![text(object, &["driverName"]), age(object, now)]
}

pub(super) fn webhooks(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![length(object, &["webhooks"]).into(), age(object, now)]
}

pub(super) fn admission_policy(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let parameters = match object.at(&["spec", "paramKind"]).filter(|p| !p.is_null()) {
        Some(p) => format!("{}/{}", p.str_at(&["apiVersion"]), p.str_at(&["kind"])),
        None => "<unset>".into(),
    };
    // One of the two is there, as the kind has it.
    let rules = length(object, &["spec", "validations"]) + length(object, &["spec", "mutations"]);
    vec![rules.into(), parameters.into(), age(object, now)]
}

pub(super) fn admission_policy_binding(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let parameters = match object.at(&["spec", "paramRef"]).filter(|p| !p.is_null()) {
        None => "<unset>".into(),
        Some(p) => match (p.str_at(&["namespace"]), p.str_at(&["name"])) {
            (_, "") if is_set(p, &["selector"]) => LabelSelector::from_tree(p.get("selector")).map_or("<error>".into(), |s| s.to_string()),
            (_, "") => "<unset>".into(),
            // Whether the parameter lives in a namespace cannot be told from here.
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    };
    vec![text(object, &["spec", "policyName"]), parameters.into(), age(object, now)]
}

pub(super) fn flow_schema(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![
        text(object, &["spec", "priorityLevelConfiguration", "name"]),
        number(object, &["spec", "matchingPrecedence"]).into(),
        text_or(object, &["spec", "distinguisherMethod", "type"], "<none>"),
        age(object, now),
        condition(object, "Dangling").map_or("?".into(), |c| text(c, &["status"])),
    ]
}

pub(super) fn priority_level(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let limited = |path: &[&str]| match object.at(&[&["spec", "limited"], path].concat()) {
        Some(Tree::Integer(n)) => Tree::Integer(*n),
        _ => "<none>".into(),
    };
    vec![
        text(object, &["spec", "type"]),
        limited(&["nominalConcurrencyShares"]),
        limited(&["limitResponse", "queuing", "queues"]),
        limited(&["limitResponse", "queuing", "handSize"]),
        limited(&["limitResponse", "queuing", "queueLengthLimit"]),
        age(object, now),
    ]
}

pub(super) fn resource_claim(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let mut states = Vec::new();
    let allocated = is_set(object, &["status", "allocation"]);
    if is_deleting(object) {
        states.push("deleted");
    } else if !allocated {
        states.push("pending");
    }
    if allocated {
        states.push("allocated");
        if length(object, &["status", "reservedFor"]) > 0 {
            states.push("reserved");
        }
    }
    vec![states.join(",").into(), age(object, now)]
}

pub(super) fn resource_slice(object: &Tree, now: Timestamp) -> Vec<Tree> {
    vec![text(object, &["spec", "nodeName"]), text(object, &["spec", "driver"]), text(object, &["spec", "pool", "name"]), age(object, now)]
}

pub(super) fn device_taint_rule(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let added = ["spec", "taint", "timeAdded"];
    vec![
        text(object, &["spec", "taint", "key"]),
        text(object, &["spec", "taint", "value"]),
        text(object, &["spec", "taint", "effect"]),
        if is_set(object, &added) { since(object, &added, now).into() } else { "".into() },
        age(object, now),
    ]
}

pub(super) fn storage_version_migration(object: &Tree, _: Timestamp) -> Vec<Tree> {
    let resource = map(object, &["spec", "resource"]);
    let part = |key| resource.get(key).and_then(Tree::as_str).unwrap_or("");
    let shown = if part("group").is_empty() { part("resource").to_owned() } else { format!("{}.{}", part("resource"), part("group")) };
    let state = object
        .array_at(&["status", "conditions"])
        .iter()
        .rfind(|c| c.str_at(&["status"]) == "True" && matches!(c.str_at(&["type"]), "Running" | "Failed" | "Succeeded"));
    vec![shown.into(), state.map_or("Unknown".into(), |c| text(c, &["type"]))]
}

/// Models apiextensions-apiserver/pkg/registry/customresourcedefinition/tableconvertor.
pub(super) fn custom_resource_definition(object: &Tree, _: Timestamp) -> Vec<Tree> {
    let is = |version: &Tree, key: &str| version.get(key).and_then(Tree::as_bool).unwrap_or(false);
    let served = object.array_at(&["spec", "versions"]).iter().filter(|version| is(version, "served"));
    let label = |version: &Tree| format!("{}{}", version.str_at(&["name"]), if is(version, "storage") { "(storage)" } else { "" });
    let mut versions: Vec<String> = served.map(label).collect();
    versions.sort();
    vec![
        text(object, &["spec", "scope"]),
        versions.join(",").into(),
        text(object, &["metadata", "creationTimestamp"]),
        text(object, &["spec", "group"]),
        text(object, &["spec", "names", "kind"]),
        join(texts(object, &["spec", "names", "shortNames"]), ",").into(),
        condition_is_true(object, "Established").into(),
    ]
}

/// Models kube-aggregator/pkg/registry/apiservice/etcd/etcd.go ConvertToTable.
pub(super) fn api_service(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let service = object.at(&["spec", "service"]).filter(|service| !service.is_null());
    let service = service.map_or("Local".to_owned(), |s| format!("{}/{}", s.str_at(&["namespace"]), s.str_at(&["name"])));
    let available = object.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == "Available");
    let status = match available.map(|c| (c.str_at(&["status"]), c.str_at(&["reason"]))) {
        None => "Unknown".to_owned(),
        Some((status, reason)) if status != "True" && !reason.is_empty() => format!("{status} ({reason})"),
        Some((status, _)) => status.to_owned(),
    };
    vec![service.into(), status.into(), age(object, now)]
}
