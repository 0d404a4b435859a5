//! Warnings about what is legal but old, of kinds that have a few words to say.
//!
//! Models WarningsOnCreate and WarningsOnUpdate of pkg/registry/*/*/strategy.go, pkg/api/{persistentvolume,persistentvolumeclaim,storage,node}/
//! util.go, pkg/api/job/warnings.go and pkg/apis/admissionregistration/validation/warnings.go.
use api::meta;
use api::quantity;
use api::tree::Tree;
use api::validation::warnings::{address, claim_spec, node_label, node_term, range};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const CLASS_WARNING: &str = r#"deprecated since v1.8; use "storageClassName" attribute instead"#;

pub(super) fn csi_driver(object: &Tree, old: Option<&Tree>) -> Vec<String> {
    const TOKENS: [&str; 2] = ["spec", "tokenRequests"];
    let is_changed = old.is_none_or(|old| old.array_at(&TOKENS) != object.array_at(&TOKENS));
    let is_unset = object.at(&["spec", "serviceAccountTokenInSecrets"]).is_none_or(Tree::is_null);
    let warning = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";
    (is_changed && is_unset && !object.array_at(&TOKENS).is_empty()).then(|| warning.to_owned()).into_iter().collect()
}

pub(super) fn endpoint_slice(object: &Tree, is_new: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if is_new && object.str_at(&["addressType"]) == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let manager = object.str_at(&["metadata", "labels", "endpointslice.kubernetes.io/managed-by"]);
    if matches!(manager, "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io") {
        return warnings;
    }
    for (i, endpoint) in object.array_at(&["endpoints"]).iter().enumerate() {
        let addresses = endpoint.array_at(&["addresses"]).iter().enumerate();
        warnings.extend(addresses.filter_map(|(j, value)| address(&format!("endpoints[{i}].addresses[{j}]"), value.as_str()?)));
    }
    warnings
}

pub(super) fn node(object: &Tree) -> Vec<String> {
    let mut warnings = Vec::new();
    if object.at(&["spec", "configSource"]).is_some_and(|source| !source.is_null()) {
        warnings.push("spec.configSource: the feature is removed".to_owned());
    }
    if !object.str_at(&["spec", "externalID"]).is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    warnings
}

pub(super) fn persistent_volume(object: &Tree) -> Vec<String> {
    let annotations = [(CLASS_ANNOTATION, CLASS_WARNING), ("volume.beta.kubernetes.io/mount-options", r#"deprecated since v1.31; use "mountOptions" attribute instead"#)];
    let given = meta::annotations(object);
    let mut warnings: Vec<String> =
        annotations.iter().filter(|(key, _)| given.contains_key(key)).map(|(key, why)| format!("metadata.annotations[{key}]: {why}")).collect();
    if object.str_at(&["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
        let why = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        warnings.push(format!("spec.persistentVolumeReclaimPolicy: {why}"));
    }
    for (i, term) in object.array_at(&["spec", "nodeAffinity", "required", "nodeSelectorTerms"]).iter().enumerate() {
        warnings.extend(node_term(term, &format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}]"), false));
    }
    let drivers = [
        ("cephfs", "cephfs", "v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "photonPersistentDisk", "v1.11, non-functional in v1.16+"),
        ("scaleIO", "scaleIO", "v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "v1.25, non-functional in v1.26+"),
        ("rbd", "rbd", "v1.28, non-functional in v1.31+"),
    ];
    let named = drivers.iter().filter(|(key, ..)| object.at(&["spec", key]).is_some_and(|source| !source.is_null()));
    warnings.extend(named.map(|(_, shown, since)| format!("spec.{shown}: deprecated in {since}")));
    warnings
}

pub(super) fn claim(object: &Tree) -> Vec<String> {
    let mut warnings = Vec::new();
    if meta::annotations(object).contains_key(CLASS_ANNOTATION) {
        warnings.push(format!("metadata.annotations[{CLASS_ANNOTATION}]: {CLASS_WARNING}"));
    }
    warnings.extend(claim_spec(object.get("spec").unwrap_or(&Tree::Null), "spec"));
    warnings
}

/// Of a StatefulSet beside its template: the claims that it makes, which an update names by another path, and its history.
pub(super) fn stateful_set(object: &Tree, is_new: bool) -> Vec<String> {
    let claims = object.array_at(&["spec", "volumeClaimTemplates"]).iter().enumerate();
    let path = |i: usize| format!("spec.volumeClaimTemplates[{i}]{}", if is_new { "" } else { ".Spec" });
    let is_endless = object.at(&["spec", "revisionHistoryLimit"]).and_then(Tree::as_i64).is_some_and(|limit| limit < 0);
    let history = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
    claims.flat_map(|(i, claim)| claim_spec(claim.get("spec").unwrap_or(&Tree::Null), &path(i))).chain(is_endless.then(|| history.to_owned())).collect()
}

/// Of Services and Ingresses: the addresses in `status.loadBalancer`.
pub(super) fn load_balancer(object: &Tree) -> Vec<String> {
    let points = object.array_at(&["status", "loadBalancer", "ingress"]).iter().enumerate();
    points.filter_map(|(i, point)| address(&format!("status.loadBalancer.ingress[{i}]"), point.str_at(&["ip"]))).collect()
}

pub(super) fn endpoints(object: &Tree) -> Vec<String> {
    if object.str_at(&["metadata", "labels", "endpoints.kubernetes.io/managed-by"]) == "endpoint-controller" {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    for (i, subset) in object.array_at(&["subsets"]).iter().enumerate() {
        for key in ["addresses", "notReadyAddresses"] {
            let addresses = subset.array_at(&[key]).iter().enumerate();
            warnings.extend(addresses.filter_map(|(j, one)| address(&format!("subsets[{i}].{key}[{j}].ip"), one.str_at(&["ip"]))));
        }
    }
    warnings
}

pub(super) fn network_policy(object: &Tree) -> Vec<String> {
    let mut warnings = Vec::new();
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in object.array_at(&["spec", direction]).iter().enumerate() {
            for (j, peer) in rule.array_at(&[side]).iter().enumerate() {
                let path = format!("spec.{direction}[{i}].{side}[{j}].ipBlock");
                warnings.extend(range(&format!("{path}.cidr"), peer.str_at(&["ipBlock", "cidr"])));
                for (k, except) in peer.array_at(&["ipBlock", "except"]).iter().enumerate() {
                    warnings.extend(range(&format!("{path}.except[{k}]"), except.as_str().unwrap_or("")));
                }
            }
        }
    }
    warnings
}

fn keys<'t>(object: &'t Tree, path: &[&str]) -> impl Iterator<Item = &'t str> {
    object.at(path).and_then(Tree::as_object).into_iter().flat_map(|entries| entries.iter().map(|(key, _)| key))
}

pub(super) fn runtime_class(object: &Tree) -> Vec<String> {
    keys(object, &["scheduling", "nodeSelector"]).filter_map(node_label).map(|text| format!("scheduling.nodeSelector: {text}")).collect()
}

pub(super) fn storage_class(object: &Tree) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, topology) in object.array_at(&["allowedTopologies"]).iter().enumerate() {
        let expressions = topology.array_at(&["matchLabelExpressions"]).iter().enumerate();
        let old = expressions.filter_map(|(j, one)| Some((j, node_label(one.str_at(&["key"]))?)));
        warnings.extend(old.map(|(j, text)| format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key: {text}")));
    }
    warnings
}

pub(super) fn storage_capacity(object: &Tree) -> Vec<String> {
    let labels = keys(object, &["nodeTopology", "matchLabels"]).filter_map(|key| Some(format!("nodeTopology.matchLabels.{key}: {}", node_label(key)?)));
    let mut selector = Tree::object();
    if let Some(expressions) = object.at(&["nodeTopology", "matchExpressions"]) {
        selector.set(&["matchExpressions"], expressions.clone());
    }
    node_term(&selector, "nodeTopology", false).into_iter().chain(labels).collect()
}

pub(super) fn service_account(object: &Tree, old: Option<&Tree>) -> Vec<String> {
    const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
    let has = |object: &Tree| meta::annotations(object).contains_key(ENFORCE);
    let warning = format!("metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets");
    (has(object) && !old.is_some_and(has)).then_some(warning).into_iter().collect()
}

/// Of a new quota that grants requests of more than it grants limits.
pub(super) fn resource_quota(object: &Tree) -> Vec<String> {
    let hard = |name: &str| quantity::from_tree(object.at(&["spec", "hard", name])?);
    let mut warnings = Vec::new();
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let (asked, limited) = (format!("requests.{resource}"), format!("limits.{resource}"));
        let bare = || hard(resource).filter(|_| matches!(resource, "cpu" | "memory")).map(|amount| (resource.to_owned(), amount));
        let request = hard(&asked).map(|amount| (asked, amount)).or_else(bare);
        if let (Some((name, request)), Some(limit)) = (request, hard(&limited))
            && request > limit {
                warnings.push(format!("ResourceQuota {name} ({request}) should be less than {limited} ({limit})"));
            }
    }
    warnings
}

/// Of rules that name what no webhook is asked about.
pub(super) fn webhook_rules(object: &Tree) -> Vec<String> {
    const EXCLUDED: [(&str, &str); 6] = [
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "localsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    ];
    let mut warnings = Vec::new();
    for (i, webhook) in object.array_at(&["webhooks"]).iter().enumerate() {
        for (j, rule) in webhook.array_at(&["rules"]).iter().enumerate() {
            let names = |key: &str| -> Vec<&str> { rule.array_at(&[key]).iter().filter_map(Tree::as_str).collect() };
            let (groups, resources) = (names("apiGroups"), names("resources"));
            if groups.contains(&"*") || resources.contains(&"*") {
                continue;
            }
            let named = EXCLUDED.iter().filter(|(group, resource)| groups.contains(group) && resources.contains(resource));
            warnings.extend(named.map(|(group, resource)| {
                format!("webhooks[{i}].rules[{j}]: {resource}.{group} is excluded from admission webhooks; this rule will have no effect")
            }));
        }
    }
    warnings
}

/// Of the `spec` of a Job at `path`.
pub(super) fn job_spec(spec: &Tree, path: &str) -> Vec<String> {
    const COMPLETIONS_MANY: i64 = 100_000;
    const PARALLELISM_MANY: i64 = 10_000;
    let number = |key: &str| spec.get(key).and_then(Tree::as_i64).unwrap_or(0);
    let is_large = spec.str_at(&["completionMode"]) == "Indexed" && number("completions") > COMPLETIONS_MANY && number("parallelism") > PARALLELISM_MANY;
    let warning = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
    let large = is_large.then(|| format!("{path}: {warning}"));
    let template = spec.get("template").unwrap_or(&Tree::Null);
    large.into_iter().chain(api::validation::pod_warnings(template, &format!("{path}.template"))).collect()
}

/// Of a CronJob; upstream looks at the schedule in every update.
pub(super) fn cron_job(object: &Tree, old: Option<&Tree>) -> Vec<String> {
    let is_changed = old.is_none_or(|old| meta::generation(old) != meta::generation(object));
    let spec = object.at(&["spec", "jobTemplate", "spec"]).unwrap_or(&Tree::Null);
    let mut warnings = if is_changed { job_spec(spec, "spec.jobTemplate.spec") } else { Vec::new() };
    if old.is_some() && object.str_at(&["spec", "schedule"]).contains("TZ") {
        let help = "see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
        warnings.push(format!("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, {help}"));
    }
    warnings
}
