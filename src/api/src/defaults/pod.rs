//! Defaults of pods and pod templates.
//!
//! Models pkg/apis/core/v1/defaults.go `SetDefaults_Pod`, `SetDefaults_PodSpec`, `SetDefaults_Container` and what they embed. What only a
//! Pod gets, and not the template of one: requests from limits, `enableServiceLinks`, host ports under `hostNetwork`.
use std::collections::BTreeMap;

use super::{absent, child, child_or_new, each, image, is_zero, quantity, requirements, resource_list, text, volume, zero};
use crate::quantity::Quantity;
use crate::tree::{Object, Tree};

pub(super) fn pod(pod: &mut Object) {
    let spec = child_or_new(pod, "spec");
    for list in ["containers", "initContainers"] {
        each(spec, list).for_each(requests_from_limits);
    }
    pod_level_resources(spec);
    absent(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork").and_then(Tree::as_bool) == Some(true) {
        for list in ["containers", "initContainers"] {
            for container in each(spec, list) {
                for port in each(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        zero(port, "hostPort", number);
                    }
                }
            }
        }
    }
    pod_spec(spec);
    if let Some(status) = child(pod, "status") {
        for list in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
            for container in each(status, list) {
                resource_list(container, "allocatedResources");
                requirements(container, "resources");
            }
        }
    }
}

/// The `template` of `spec`.
pub(super) fn template(spec: &mut Object) {
    let template = child_or_new(spec, "template");
    child_or_new(template, "metadata");
    pod_spec(child_or_new(template, "spec"));
}

pub(super) fn pod_spec(spec: &mut Object) {
    zero(spec, "dnsPolicy", "ClusterFirst");
    zero(spec, "restartPolicy", "Always");
    absent(spec, "securityContext", Tree::object());
    absent(spec, "terminationGracePeriodSeconds", 30);
    zero(spec, "schedulerName", "default-scheduler");
    // The deprecated alias is kept in step, the newer name wins.
    let account = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")].into_iter().find(|n| !n.is_empty()).map(str::to_owned);
    if let Some(account) = account {
        spec.insert("serviceAccountName", account.as_str());
        spec.insert("serviceAccount", account);
    }
    each(spec, "volumes").for_each(volume::pod_volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list).for_each(container);
    }
    resource_list(spec, "overhead");
    requirements(spec, "resources");
}

fn container(container: &mut Object) {
    if container.get("imagePullPolicy").is_none_or(is_zero) {
        let policy = image::pull_policy(text(container, "image"));
        container.insert("imagePullPolicy", policy);
    }
    zero(container, "terminationMessagePath", "/dev/termination-log");
    zero(container, "terminationMessagePolicy", "File");
    for port in each(container, "ports") {
        zero(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        let Some(source) = child(variable, "valueFrom") else { continue };
        if let Some(field) = child(source, "fieldRef") {
            zero(field, "apiVersion", "v1");
        }
        if let Some(field) = child(source, "resourceFieldRef") {
            volume::resource_field(field);
        }
        if let Some(file) = child(source, "fileKeyRef") {
            absent(file, "optional", false);
        }
    }
    child_or_new(container, "resources");
    requirements(container, "resources");
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, name) {
            zero(probe, "timeoutSeconds", 1);
            zero(probe, "periodSeconds", 10);
            zero(probe, "successThreshold", 1);
            zero(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = child(probe, "grpc") {
                absent(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            child(lifecycle, hook).into_iter().for_each(http_get);
        }
    }
}

fn http_get(handler: &mut Object) {
    if let Some(action) = child(handler, "httpGet") {
        zero(action, "path", "/");
        zero(action, "scheme", "HTTP");
    }
}

fn requests_from_limits(container: &mut Object) {
    let Some(resources) = child(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Tree::as_object).cloned() else { return };
    let requests = child_or_new(resources, "requests");
    for (name, amount) in limits {
        requests.entry(&name, || amount);
    }
}

type Amounts = BTreeMap<String, Quantity>;

fn amounts(object: &Object, list: &str) -> Amounts {
    let resources = object.get("resources").and_then(|r| r.get(list)).and_then(Tree::as_object);
    resources.into_iter().flat_map(|o| o.iter()).filter_map(|(k, v)| Some((k.to_owned(), crate::quantity::from_tree(v)?))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_insert(Quantity::ZERO) += *amount;
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let current = total.entry(name.clone()).or_insert(*amount);
        *current = (*current).max(*amount);
    }
}

/// What all containers together need: the sum of those that run at once, or what one init container needs beside earlier sidecars.
///
/// Models component-helpers/resource `AggregateContainerRequests` and `AggregateContainerLimits`.
fn aggregate(spec: &Object, list: &str) -> Amounts {
    let items = |key: &str| spec.get(key).and_then(Tree::as_array).unwrap_or(&[]).iter().filter_map(Tree::as_object);
    let (mut total, mut sidecars, mut init) = (Amounts::new(), Amounts::new(), Amounts::new());
    items("containers").for_each(|c| add(&mut total, &amounts(c, list)));
    for container in items("initContainers") {
        let mut needs = amounts(container, list);
        if text(container, "restartPolicy") == "Always" {
            add(&mut total, &needs);
            add(&mut sidecars, &needs);
            needs = sidecars.clone();
        } else {
            add(&mut needs, &sidecars);
        }
        raise(&mut init, &needs);
    }
    raise(&mut total, &init);
    total
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// Models `defaultHugePagePodLimits`, `defaultPodRequests` and `defaultPodLimits`.
fn pod_level_resources(spec: &mut Object) {
    if spec.get("resources").and_then(Tree::as_object).is_none() {
        return;
    }
    let (limits, requests) = (amounts(spec, "limits"), amounts(spec, "requests"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let mut new_limits = limits.clone();
    let container_limits = aggregate(spec, "limits");
    for (name, amount) in container_limits.iter().filter(|(n, _)| is_huge_page(n) && !requests.contains_key(*n)) {
        new_limits.entry(name.clone()).or_insert(*amount);
    }
    let mut new_requests = requests.clone();
    if !new_limits.is_empty() {
        for (name, amount) in aggregate(spec, "requests").iter().filter(|(n, _)| matches!(n.as_str(), "cpu" | "memory")) {
            new_requests.entry(name.clone()).or_insert(*amount);
        }
        for (name, amount) in new_limits.iter().filter(|(n, _)| is_pod_level(n)) {
            new_requests.entry(name.clone()).or_insert(*amount);
        }
    }
    let lists = [("limits", limits, new_limits), ("requests", requests, new_requests)];
    let resources = child_or_new(spec, "resources");
    for (list, old, new) in lists {
        let target = new.into_iter().filter(|(name, _)| !old.contains_key(name)).collect::<Vec<_>>();
        if target.is_empty() {
            continue;
        }
        let object = child_or_new(resources, list);
        for (name, amount) in target {
            object.insert(name, amount);
        }
    }
    for list in ["limits", "requests"] {
        if let Some(object) = child(resources, list) {
            let names: Vec<String> = object.keys().map(str::to_owned).collect();
            names.iter().for_each(|name| quantity(object, name));
        }
    }
}
