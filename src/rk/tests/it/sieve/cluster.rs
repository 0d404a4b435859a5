//! Controllers of namespaces, nodes, owners, quotas, roles and of what is stored.
use client::{Named, ObjectKey};
use serde_json::{Value, json};

use super::scenario::{Act, Scenario, Until, count, delete, gone, looks, merge, post, read, step};
use crate::world::SILENT;

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NODES: &str = "/api/v1/nodes";
const NAMESPACES: &str = "/api/v1/namespaces";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "a"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": spec})
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

pub fn namespace() -> Scenario {
    let inside = |path| post(path, named("x"));
    Scenario {
        controller: "namespace-controller",
        seen: &["pods", "namespaces"],
        steps: vec![
            step(
                [
                    post(NAMESPACES, named("going")),
                    inside("/api/v1/namespaces/going/configmaps"),
                    inside("/api/v1/namespaces/going/serviceaccounts"),
                    post("/api/v1/namespaces/going/pods", pod("x", json!({}))),
                ],
                [looks("/api/v1/namespaces/going/pods/x", json!({"status": {"phase": "Running"}}))],
            ),
            step([delete("/api/v1/namespaces/going")], [gone("/api/v1/namespaces/going")]),
        ],
        ..Scenario::default()
    }
}

fn dependent(owner: &'static str, name: &str) -> Act {
    Act::Owned(MAPS, owner, named(name))
}

fn leave(path: &'static str, how: &str) -> Act {
    Act::Delete(path, json!({"propagationPolicy": how}))
}

pub fn garbage() -> Scenario {
    let [owner, a, b] =
        ["/api/v1/namespaces/default/configmaps/owner", "/api/v1/namespaces/default/configmaps/a", "/api/v1/namespaces/default/configmaps/b"];
    let family = || [post(MAPS, named("owner")), dependent(owner, "a"), dependent(a, "b")];
    Scenario {
        controller: "garbage-collector-controller",
        seen: &["configmaps"],
        makes: &[MAPS],
        steps: vec![
            step(family(), [looks(b, json!({"kind": "ConfigMap"}))]),
            step([leave(owner, "Background")], [gone(a), gone(b)]),
            step(family(), [looks(b, json!({"kind": "ConfigMap"}))]),
            step([leave(owner, "Foreground")], [gone(owner), gone(a), gone(b)]),
            step(family(), [looks(b, json!({"kind": "ConfigMap"}))]),
            // They stay, the second with its owner.
            step(
                [leave(owner, "Orphan")],
                [gone(owner), looks(a, json!({"kind": "ConfigMap", "metadata": {"ownerReferences": null}})), looks(b, json!({"metadata": {"ownerReferences": [{"name": "a"}]}}))],
            ),
        ],
        ..Scenario::default()
    }
}

pub fn quota() -> Scenario {
    const QUOTA: &str = "/api/v1/namespaces/default/resourcequotas/x";
    let quota = json!({"metadata": {"name": "x"}, "spec": {"hard": {"pods": "5", "count/configmaps": "5"}}});
    let used = |pods: &str| looks(QUOTA, json!({"status": {"hard": {"pods": "5"}, "used": {"pods": pods, "count/configmaps": "1"}}}));
    Scenario {
        controller: "resourcequota-controller",
        seen: &["pods", "resourcequotas"],
        steps: vec![
            step(
                [
                    post(MAPS, named("x")),
                    post(PODS, pod("a", json!({}))),
                    post(PODS, pod("b", json!({}))),
                    post("/api/v1/namespaces/default/resourcequotas", quota),
                ],
                [used("2")],
            ),
            step([delete("/api/v1/namespaces/default/pods/a")], [used("1")]),
            step([merge(QUOTA, json!({"spec": {"hard": {"count/configmaps": null}}}))], [looks(QUOTA, json!({"status": {"hard": {"pods": "5", "count/configmaps": null}}}))]),
        ],
        ..Scenario::default()
    }
}

/// One finished pod may stay.
pub fn pod_gc() -> Scenario {
    let run = |name: &str| post(PODS, pod(name, json!({"restartPolicy": "Never"})));
    Scenario {
        controller: "pod-garbage-collector-controller",
        seen: &["pods"],
        steps: vec![step([run("a"), run("b"), run("c")], [count(PODS, 1), looks("/api/v1/namespaces/default/pods/c", json!({"status": {"phase": "Succeeded"}}))])],
        ..Scenario::default()
    }
}

/// A pod that is deleted stays for as long as its node does not tell that it has ended, and nobody that it never will.
pub fn out_of_service() -> Scenario {
    const NODE: &str = "/api/v1/nodes/silent";
    const POD: &str = "/api/v1/namespaces/default/pods/x";
    let mut node = node(SILENT);
    node["status"]["conditions"][0]["status"] = json!("Unknown");
    let taint = json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
    Scenario {
        controller: "pod-garbage-collector-controller",
        seen: &["nodes", "pods"],
        steps: vec![
            step(
                [post(NODES, node), post(PODS, pod("x", json!({"nodeName": SILENT}))), Act::Delete(POD, json!({"gracePeriodSeconds": 600}))],
                [looks(POD, json!({"metadata": {"deletionGracePeriodSeconds": 600}}))],
            ),
            step([merge(NODE, json!({"spec": {"taints": taint}}))], [gone(POD)]),
        ],
        ..Scenario::default()
    }
}

pub fn node_ttl() -> Scenario {
    let told = |path| looks(path, json!({"metadata": {"annotations": {"node.alpha.kubernetes.io/ttl": "0"}}}));
    Scenario {
        controller: "ttl-controller",
        seen: &["nodes"],
        steps: vec![
            step([], [told("/api/v1/nodes/n1"), told("/api/v1/nodes/n2"), told("/api/v1/nodes/n3")]),
            step([post(NODES, node("n4"))], [told("/api/v1/nodes/n4")]),
        ],
        ..Scenario::default()
    }
}

/// Each of so many nodes has a range, no two the same, and none is left out.
fn three_ranges() -> Until {
    Until::Holds(|world| Box::pin(async move { have_ranges(&world.list(NODES).await, 3) }))
}

fn four_ranges() -> Until {
    Until::Holds(|world| Box::pin(async move { have_ranges(&world.list(NODES).await, 4) }))
}

fn have_ranges(nodes: &[Value], count: usize) -> bool {
    let mut given: Vec<_> = nodes.iter().filter_map(|node| node["spec"]["podCIDR"].as_str()).collect();
    given.sort_unstable();
    given.dedup();
    nodes.len() == count && given.len() == count && given.iter().enumerate().all(|(i, range)| *range == format!("10.42.{i}.0/24"))
}

pub fn node_ipam() -> Scenario {
    Scenario {
        controller: "node-ipam-controller",
        seen: &["nodes"],
        steps: vec![
            step([], [three_ranges()]),
            step([post(NODES, node("n4"))], [four_ranges()]),
            // A range that was freed is given again.
            step([delete("/api/v1/nodes/n2"), post(NODES, node("n5"))], [four_ranges()]),
        ],
        ..Scenario::default()
    }
}

pub fn node_lifecycle() -> Scenario {
    const N1: &str = "/api/v1/nodes/n1";
    let ready = |status: &str| merge("/api/v1/nodes/n1/status", json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}));
    let taint = |effect: &str| json!({"key": "node.kubernetes.io/not-ready", "effect": effect});
    let patient = json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]});
    let runs = |path| looks(path, json!({"status": {"phase": "Running"}}));
    let [goes, stays] = ["/api/v1/namespaces/default/pods/goes", "/api/v1/namespaces/default/pods/stays"];
    let is_unready = looks(stays, json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}}));
    Scenario {
        controller: "node-lifecycle-controller",
        seen: &["pods", "nodes"],
        steps: vec![
            step([post(PODS, pod("goes", json!({}))), post(PODS, pod("stays", patient))], [runs(goes), runs(stays)]),
            step([ready("False")], [looks(N1, json!({"spec": {"taints": [taint("NoSchedule"), taint("NoExecute")]}})), gone(goes), is_unready]),
            step([ready("True")], [looks(N1, json!({"spec": {"taints": null}}))]),
        ],
        ..Scenario::default()
    }
}

pub fn cluster_roles() -> Scenario {
    let [whole_path, part_path] = ["/apis/rbac.authorization.k8s.io/v1/clusterroles/whole", "/apis/rbac.authorization.k8s.io/v1/clusterroles/part"];
    let rule = |verb: &str| json!([{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]);
    let whole = json!({"metadata": {"name": "whole"}, "rules": [], "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "whole"}}]}});
    let part = json!({"metadata": {"name": "part", "labels": {"to": "whole"}}, "rules": rule("get")});
    Scenario {
        controller: "clusterrole-aggregation-controller",
        seen: &["clusterroles"],
        steps: vec![
            step([post(ROLES, whole), post(ROLES, part)], [looks(whole_path, json!({"rules": rule("get")}))]),
            step([merge(part_path, json!({"rules": rule("list")}))], [looks(whole_path, json!({"rules": rule("list")}))]),
            step([delete(part_path)], [looks(whole_path, json!({"rules": null}))]),
        ],
        ..Scenario::default()
    }
}

pub fn storage_migration() -> Scenario {
    const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
    const MIGRATION: &str = "/apis/storagemigration.k8s.io/v1/storageversionmigrations/x";
    let wanted = json!({"metadata": {"name": "x"}, "spec": {"resource": {"group": "", "resource": "secrets"}}});
    let secrets = "/api/v1/namespaces/default/secrets";
    let conditions = json!([{"type": "Succeeded", "status": "True"}, {"type": "Running", "status": "False"}]);
    Scenario {
        controller: "storage-version-migrator-controller",
        seen: &["storageversionmigrations"],
        steps: vec![step(
            [post(secrets, named("a")), post(secrets, named("b")), post(MIGRATIONS, wanted)],
            [looks(MIGRATION, json!({"status": {"conditions": conditions}}))],
        )],
        ..Scenario::default()
    }
}

pub fn validating_policy() -> Scenario {
    const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    const POLICY: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/x";
    let spec = |expression: &str| {
        let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]});
        json!({"validations": [{"expression": expression}], "matchConstraints": {"resourceRules": [rule]}})
    };
    let warns = |warning| looks(POLICY, json!({"status": {"typeChecking": {"expressionWarnings": warning}}}));
    let current = || {
        Until::Holds(|world| {
            Box::pin(async move {
                let policy = read(world, POLICY).await;
                policy["status"]["observedGeneration"] == policy["metadata"]["generation"]
            })
        })
    };
    Scenario {
        controller: "validatingadmissionpolicy-status-controller",
        seen: &["validatingadmissionpolicies"],
        steps: vec![
            step(
                [post(POLICIES, json!({"metadata": {"name": "x"}, "spec": spec("object.spec.replicas > '1'")}))],
                [warns(json!([{"fieldRef": "spec.validations[0].expression"}])), current()],
            ),
            step([merge(POLICY, json!({"spec": spec("object.spec.replicas > 1")}))], [warns(Value::Null), current()]),
        ],
        ..Scenario::default()
    }
}

/// Each namespace gets one, also where somebody takes it away.
pub fn service_account() -> Scenario {
    let there = |path| looks(path, json!({"kind": "ServiceAccount"}));
    Scenario {
        controller: "serviceaccount-controller",
        seen: &["serviceaccounts", "namespaces"],
        makes: &["/api/v1/serviceaccounts"],
        // Four namespaces are there from the beginning.
        creates: 5,
        missed: Some(Act::Take("/api/v1/namespaces/default/serviceaccounts/default")),
        steps: vec![
            step([], [there("/api/v1/namespaces/default/serviceaccounts/default"), there("/api/v1/namespaces/kube-system/serviceaccounts/default"), count("/api/v1/serviceaccounts", 4)]),
            step([post(NAMESPACES, named("new"))], [there("/api/v1/namespaces/new/serviceaccounts/default"), there("/api/v1/namespaces/default/serviceaccounts/default")]),
        ],
        ..Scenario::default()
    }
}

pub fn resource_claim() -> Scenario {
    const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let request = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}});
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": request}});
    let wants = json!({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]});
    let told = |path| looks(path, json!({"status": {"phase": "Running", "resourceClaimStatuses": [{"name": "gpu"}]}}));
    Scenario {
        controller: "resourceclaim-controller",
        seen: &["resourceclaims", "pods", "resourceclaimtemplates"],
        makes: &[CLAIMS],
        creates: 2,
        // Also one that no watch has shown.
        missed: Some(Act::Do(|world| {
            Box::pin(async move {
                if let Some(claim) = world.list(CLAIMS).await.first() {
                    let path = format!("{CLAIMS}/{}", claim["metadata"]["name"].as_str().unwrap_or_default());
                    let _ = world.call(http::Method::DELETE, &path, Value::Null, "application/json").await;
                }
            })
        })),
        steps: vec![
            step(
                [post("/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates", template), post(PODS, pod("a", wants.clone()))],
                [told("/api/v1/namespaces/default/pods/a"), count(CLAIMS, 1)],
            ),
            step([post(PODS, pod("b", wants))], [told("/api/v1/namespaces/default/pods/b"), count(CLAIMS, 2)]),
        ],
        ..Scenario::default()
    }
}

pub fn device_taint() -> Scenario {
    const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    const POD: &str = "/api/v1/namespaces/default/pods/x";
    let request = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}});
    let claim = json!({"metadata": {"name": "c"}, "spec": request});
    let wants = json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]});
    // What the scheduler would write.
    let allocate = Act::Do(|world| {
        Box::pin(async move {
            let pod: client::k8s_openapi::api::core::v1::Pod = world.admin.get(&ObjectKey::new("default", "x")).await.unwrap();
            let devices = json!({"results": [{"request": "r", "driver": "d.io", "pool": "p", "device": "gpu-0"}]});
            let consumer = json!({"resource": "pods", "name": "x", "uid": pod.uid()});
            let status = json!({"status": {"allocation": {"devices": devices}, "reservedFor": [consumer]}});
            world.patch(CLAIMS, "c/status", status).await;
        })
    });
    let taint = json!({"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"});
    let rule = json!({"metadata": {"name": "x"}, "spec": {"deviceSelector": {"driver": "d.io"}, "taint": taint}});
    Scenario {
        controller: "device-taint-eviction-controller",
        seen: &["resourceclaims", "devicetaintrules", "pods"],
        steps: vec![
            step([post(CLAIMS, claim), post(PODS, pod("x", wants)), allocate], [looks(POD, json!({"status": {"phase": "Running"}}))]),
            step([post("/apis/resource.k8s.io/v1/devicetaintrules", rule)], [gone(POD)]),
        ],
        ..Scenario::default()
    }
}
