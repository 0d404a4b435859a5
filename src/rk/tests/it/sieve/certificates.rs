//! Controllers of certificates, tokens, and of who trusts whom.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::scenario::{Act, Scenario, Until, count, delete, gone, looks, merge, post, read, step};
use crate::world::World;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const REQUEST: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/x";
const APPROVAL: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval";
const SYSTEM_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const SYSTEM_SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

/// Node `n9` asks for its client certificate.
fn request() -> Value {
    let folder = tempfile::tempdir().unwrap();
    let pem = pki::NodeKey::load_or_create(&folder.path().join("key")).unwrap().request("n9").unwrap();
    json!({"metadata": {"name": "x"}, "spec": {"request": STANDARD.encode(pem), "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "usages": ["digital signature", "client auth"]}})
}

/// The same as a pod's kubelet asks it.
pub fn pod_requests() -> Scenario {
    const POD_REQUESTS: &str = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests";
    const POD_REQUEST: &str = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests/x";
    let pem = STANDARD.decode(request()["spec"]["request"].as_str().unwrap()).unwrap();
    // What stands between the first and the last line.
    let stub: String = String::from_utf8(pem).unwrap().lines().filter(|line| !line.starts_with("-----")).collect();
    let spec = json!({"signerName": "example.com/signer", "podName": "x", "podUID": "1", "serviceAccountName": "x", "serviceAccountUID": "2",
        "nodeName": "n1", "nodeUID": "3", "maxExpirationSeconds": 3600, "stubPKCS10Request": stub});
    Scenario {
        controller: "podcertificaterequest-cleaner-controller",
        seen: &["podcertificaterequests"],
        is_ahead: true,
        steps: vec![step([post(POD_REQUESTS, json!({"metadata": {"name": "x"}, "spec": spec}))], [gone(POD_REQUEST)])],
        ..Scenario::default()
    }
}

fn verdict(kind: &str, at: &str) -> Act {
    let condition = json!({"type": kind, "status": "True", "reason": "R", "message": "m", "lastUpdateTime": at});
    merge(APPROVAL, json!({"status": {"conditions": [condition]}}))
}

pub fn approving() -> Scenario {
    let approved = looks(REQUEST, json!({"status": {"conditions": [{"type": "Approved", "reason": "AutoApproved"}]}}));
    Scenario {
        controller: "certificatesigningrequest-approving-controller",
        seen: &["certificatesigningrequests"],
        makes: &[SYSTEM_MAPS],
        // Which key the node's name belongs to.
        creates: 1,
        steps: vec![step([post(REQUESTS, request())], [approved])],
        ..Scenario::default()
    }
}

fn is_signed() -> Until {
    Until::Holds(|world| Box::pin(async move { read(world, REQUEST).await["status"]["certificate"].is_string() }))
}

pub fn signing() -> Scenario {
    Scenario {
        controller: "certificatesigningrequest-signing-controller",
        seen: &["certificatesigningrequests"],
        steps: vec![step([post(REQUESTS, request()), verdict("Approved", "2026-01-01T00:00:00Z")], [is_signed()])],
        ..Scenario::default()
    }
}

pub fn cleaning() -> Scenario {
    Scenario {
        controller: "certificatesigningrequest-cleaner-controller",
        seen: &["certificatesigningrequests"],
        steps: vec![step([post(REQUESTS, request()), verdict("Denied", "2024-01-01T00:00:00Z")], [gone(REQUEST)])],
        ..Scenario::default()
    }
}

/// The record of a node that was never there, or no longer is.
pub fn node_keys() -> Scenario {
    let record = json!({"metadata": {"name": "n9.node-key", "labels": {"rk.dev/node-key": "true"}}, "data": {"key": "k", "since": "2024-01-01T00:00:00Z"}});
    let node = json!({"metadata": {"name": "n9"}});
    Scenario {
        controller: "node-keys-controller",
        seen: &["configmaps", "nodes"],
        steps: vec![
            step([post("/api/v1/nodes", node), post(SYSTEM_MAPS, record)], [looks("/api/v1/namespaces/kube-system/configmaps/n9.node-key", json!({"kind": "ConfigMap"}))]),
            step([delete("/api/v1/nodes/n9")], [gone("/api/v1/namespaces/kube-system/configmaps/n9.node-key")]),
        ],
        ..Scenario::default()
    }
}

pub fn root_ca() -> Scenario {
    let there = |path| looks(path, json!({"kind": "ConfigMap"}));
    let [of_default, of_new] = ["/api/v1/namespaces/default/configmaps/kube-root-ca.crt", "/api/v1/namespaces/new/configmaps/kube-root-ca.crt"];
    Scenario {
        controller: "root-ca-certificate-publisher-controller",
        seen: &["configmaps", "namespaces"],
        makes: &["/api/v1/configmaps"],
        // Four namespaces are there from the beginning.
        creates: 5,
        missed: Some(Act::Take("/api/v1/namespaces/default/configmaps/kube-root-ca.crt")),
        steps: vec![
            step([], [there(of_default), there("/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt")]),
            step([post("/api/v1/namespaces", named("new"))], [there(of_default), there(of_new)]),
            step([merge(of_new, json!({"data": {"ca.crt": "other"}}))], [Until::Holds(|world| Box::pin(is_put_back(world)))]),
        ],
        ..Scenario::default()
    }
}

async fn is_put_back(world: &World) -> bool {
    let [one, other] = ["default", "new"].map(|namespace| format!("/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt"));
    let data = read(world, &one).await["data"].clone();
    data.is_object() && data == read(world, &other).await["data"]
}

pub fn trust_bundle() -> Scenario {
    const BUNDLES: &str = "/apis/certificates.k8s.io/v1/clustertrustbundles";
    // One of another time, with the same certificate.
    let old = Act::Do(|world| {
        Box::pin(async move {
            let mut bundle = world.list(BUNDLES).await.swap_remove(0);
            bundle["metadata"] = json!({"name": "kubernetes.io:kube-apiserver-serving:old"});
            world.post(BUNDLES, bundle).await;
        })
    });
    Scenario {
        controller: "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        seen: &["clustertrustbundles"],
        steps: vec![step([], [count(BUNDLES, 1)]), step([old], [count(BUNDLES, 1), gone("/apis/certificates.k8s.io/v1/clustertrustbundles/kubernetes.io:kube-apiserver-serving:old")])],
        ..Scenario::default()
    }
}

fn bootstrap_token(more: Value) -> Value {
    let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true"});
    data.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": data})
}

pub fn token_cleaner() -> Scenario {
    let secret = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";
    Scenario {
        controller: "token-cleaner-controller",
        seen: &["secrets"],
        steps: vec![step([post(SYSTEM_SECRETS, bootstrap_token(json!({"expiration": "2024-01-01T00:00:00Z"})))], [gone(secret)])],
        ..Scenario::default()
    }
}

pub fn bootstrap_signer() -> Scenario {
    const MAP: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let map = json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "content"}});
    let signed = || Until::Holds(|world| Box::pin(async move { read(world, MAP).await["data"]["jws-kubeconfig-abcdef"].is_string() }));
    let bare = looks(MAP, json!({"data": {"kubeconfig": "content", "jws-kubeconfig-abcdef": null}}));
    Scenario {
        controller: "bootstrap-signer-controller",
        seen: &["secrets", "configmaps"],
        steps: vec![
            step([post("/api/v1/namespaces/kube-public/configmaps", map), post(SYSTEM_SECRETS, bootstrap_token(json!({})))], [signed()]),
            step([merge(MAP, json!({"data": {"jws-kubeconfig-abcdef": null}}))], [signed()]),
            step([delete("/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef")], [bare]),
        ],
        ..Scenario::default()
    }
}

pub fn account_token() -> Scenario {
    const SECRET: &str = "/api/v1/namespaces/default/secrets/x";
    let annotations = json!({"kubernetes.io/service-account.name": "bot"});
    let secret = json!({"metadata": {"name": "x", "annotations": annotations}, "type": "kubernetes.io/service-account-token"});
    let filled = Until::Holds(|world| {
        Box::pin(async move {
            let data = read(world, SECRET).await["data"].clone();
            ["token", "ca.crt", "namespace"].iter().all(|key| data[key].is_string())
        })
    });
    Scenario {
        controller: "serviceaccount-token-controller",
        seen: &["secrets", "serviceaccounts"],
        steps: vec![
            step([post("/api/v1/namespaces/default/serviceaccounts", named("bot")), post("/api/v1/namespaces/default/secrets", secret)], [filled]),
            step([delete("/api/v1/namespaces/default/serviceaccounts/bot")], [gone(SECRET)]),
        ],
        ..Scenario::default()
    }
}
