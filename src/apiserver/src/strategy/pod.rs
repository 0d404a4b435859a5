//! Pods. Models pkg/registry/core/pod/strategy.go and pkg/apis/core/v1/helper/qos.
use api::quantity::Quantity;
use api::tree::Tree;
use api::validation::{APP_ARMOR, APP_ARMOR_WARNING, app_armor_profile};

pub fn prepare_create(object: &mut Tree) {
    let class = qos_class(object);
    object.set(&["status"], Tree::object());
    object.set(&["status", "phase"], "Pending");
    object.set(&["status", "qosClass"], class);
    apply_scheduling_gates(object);
    let grace = ["spec", "terminationGracePeriodSeconds"];
    if object.at(&grace).and_then(Tree::as_i64).is_some_and(|seconds| seconds < 0) {
        object.set(&grace, 1);
    }
}

/// A pod behind gates says so from its first moment.
fn apply_scheduling_gates(object: &mut Tree) {
    if object.array_at(&["spec", "schedulingGates"]).is_empty() {
        return;
    }
    let mut condition = Tree::object();
    condition.set(&["type"], "PodScheduled");
    condition.set(&["status"], "False");
    condition.set(&["reason"], "SchedulingGated");
    condition.set(&["message"], "Scheduling is blocked due to non-empty scheduling gates");
    condition.set(&["lastProbeTime"], Tree::Null);
    condition.set(&["lastTransitionTime"], crate::rest::storage::now());
    object.set(&["status", "conditions"], Tree::Array(vec![condition]));
}

/// Annotations about AppArmor become the fields that came after them. Models applyAppArmorVersionSkew.
pub fn adopt_app_armor(pod: &mut Tree) -> Vec<String> {
    if pod.str_at(&["spec", "os", "name"]) == "windows" {
        return Vec::new();
    }
    let of_pod = pod.at(&["spec", "securityContext", "appArmorProfile"]).filter(|profile| !profile.is_null()).cloned();
    let annotations: Vec<(String, String)> = pod
        .at(&["metadata", "annotations"])
        .and_then(Tree::as_object)
        .into_iter()
        .flat_map(|all| all.iter())
        .filter_map(|(key, value)| Some((key.strip_prefix(APP_ARMOR)?.to_owned(), value.as_str()?.to_owned())))
        .collect();
    let mut warnings = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod.at_mut(&["spec", list]).and_then(Tree::as_array_mut).into_iter().flatten() {
            let name = container.str_at(&["name"]).to_owned();
            let Some((_, annotation)) = annotations.iter().find(|(of, _)| *of == name) else { continue };
            if container.at(&["securityContext", "appArmorProfile"]).is_some_and(|profile| !profile.is_null()) {
                continue;
            }
            match app_armor_profile(annotation) {
                Some(profile) if Some(&profile) == of_pod.as_ref() => continue,
                Some(profile) => container.set(&["securityContext", "appArmorProfile"], profile),
                None => {}
            }
            warnings.push(format!("metadata.annotations[{APP_ARMOR}{name}]: {APP_ARMOR_WARNING}"));
        }
    }
    warnings
}

/// How long a deleted pod may take. Models podStrategy.CheckGracefulDelete.
pub fn grace_seconds(pod: &Tree, asked: Option<i64>) -> i64 {
    if pod.str_at(&["spec", "nodeName"]).is_empty() || matches!(pod.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
        return 0;
    }
    let wanted = pod.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Tree::as_i64);
    match asked.or(wanted).unwrap_or(0) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

/// Models GetPodQOS: cpu and memory of containers and init containers, and of the pod itself where it has any.
pub fn qos_class(pod: &Tree) -> &'static str {
    const COMPUTE: [&str; 2] = ["cpu", "memory"];
    let amount = |resources: &Tree, kind: &str, name: &str| -> Option<Quantity> {
        let value = match resources.at(&[kind, name])? {
            Tree::String(text) => Quantity::parse(text).ok()?,
            Tree::Integer(number) => Quantity::parse(&number.to_string()).ok()?,
            _ => return None,
        };
        (value > Quantity::parse("0").ok()?).then_some(value)
    };
    let empty = Tree::object();
    let pod_level = pod.at(&["spec", "resources"]).filter(|r| r.get("requests").is_some() || r.get("limits").is_some());
    let holders: Vec<&Tree> = match pod_level {
        Some(resources) => vec![resources],
        None => {
            let containers = pod.array_at(&["spec", "containers"]).iter().chain(pod.array_at(&["spec", "initContainers"]));
            containers.map(|c| c.get("resources").unwrap_or(&empty)).collect()
        }
    };
    let has_any = holders.iter().any(|r| COMPUTE.iter().any(|name| amount(r, "requests", name).is_some() || amount(r, "limits", name).is_some()));
    if !has_any {
        return "BestEffort";
    }
    let is_guaranteed = holders.iter().all(|resources| {
        COMPUTE.iter().all(|name| {
            let limit = amount(resources, "limits", name);
            let request = amount(resources, "requests", name).or_else(|| limit.clone());
            limit.is_some() && limit == request
        })
    });
    if is_guaranteed { "Guaranteed" } else { "Burstable" }
}

/// `old` with the resources (and nothing else) of `new` and of its containers. Containers that were added, removed, renamed or
/// reordered are left for validation to refuse. Models dropNonResizeUpdates.
pub fn resized(new: &Tree, old: &Tree) -> Tree {
    let mut kept = old.clone();
    for field in ["labels", "annotations", "finalizers", "resourceVersion"] {
        super::copy(&mut kept, new, &["metadata", field]);
    }
    // Whoever knows nothing of resources of the pod itself does not take them away.
    if new.at(&["spec", "resources"]).is_some() {
        super::copy(&mut kept, new, &["spec", "resources"]);
    }
    for list in ["containers", "initContainers"] {
        let wanted = new.array_at(&["spec", list]);
        let names = |list: &[Tree]| -> Vec<String> { list.iter().map(|c| c.str_at(&["name"]).to_owned()).collect() };
        if names(wanted) != names(old.array_at(&["spec", list])) {
            return new.clone();
        }
        let Some(containers) = kept.at_mut(&["spec", list]).and_then(Tree::as_array_mut) else { continue };
        for (container, source) in containers.iter_mut().zip(wanted) {
            for field in ["resources", "resizePolicy"] {
                super::copy(container, source, &[field]);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qos_follows_requests_and_limits() {
        let check = |resources: &str, class: &str| {
            let pod = Tree::from_json(format!(r#"{{"spec":{{"containers":[{{"name":"a","resources":{resources}}}]}}}}"#).as_bytes()).unwrap();
            assert_eq!(qos_class(&pod), class, "{resources}");
        };
        check("{}", "BestEffort");
        check(r#"{"requests":{"cpu":"1"}}"#, "Burstable");
        check(r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#, "Guaranteed");
        check(r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1000m","memory":"1Gi"}}"#, "Guaranteed");
        check(r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"500m"}}"#, "Burstable");
        check(r#"{"requests":{"cpu":"0"}}"#, "BestEffort");
    }

    #[test]
    fn annotations_about_app_armor_become_fields() {
        let text = r#"{"metadata":{"annotations":{"container.apparmor.security.beta.kubernetes.io/a":"localhost/x","container.apparmor.security.beta.kubernetes.io/b":"unconfined"}},
            "spec":{"securityContext":{"appArmorProfile":{"type":"Unconfined"}},"containers":[{"name":"a"},{"name":"b"}]}}"#;
        let mut pod = Tree::from_json(text.as_bytes()).unwrap();
        let warnings = adopt_app_armor(&mut pod);
        assert_eq!(warnings, [format!("metadata.annotations[{APP_ARMOR}a]: {APP_ARMOR_WARNING}")]);
        let containers = String::from_utf8(pod.at(&["spec", "containers"]).unwrap().to_json()).unwrap();
        assert_eq!(containers, r#"[{"name":"a","securityContext":{"appArmorProfile":{"localhostProfile":"x","type":"Localhost"}}},{"name":"b"}]"#);
    }

    #[test]
    fn a_pod_without_node_or_at_its_end_needs_no_grace() {
        let pod = |json: &str| Tree::from_json(json.as_bytes()).unwrap();
        assert_eq!(grace_seconds(&pod(r#"{"spec":{"terminationGracePeriodSeconds":30}}"#), None), 0);
        assert_eq!(grace_seconds(&pod(r#"{"spec":{"nodeName":"n","terminationGracePeriodSeconds":30}}"#), None), 30);
        assert_eq!(grace_seconds(&pod(r#"{"spec":{"nodeName":"n","terminationGracePeriodSeconds":30}}"#), Some(5)), 5);
        assert_eq!(grace_seconds(&pod(r#"{"spec":{"nodeName":"n"},"status":{"phase":"Failed"}}"#), Some(5)), 0);
    }
}
