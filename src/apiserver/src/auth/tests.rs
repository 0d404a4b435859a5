//! Authentication, authorization and admission as a client meets them: a whole server, its real parts, no socket.
mod matrix;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use api::tree::Tree;
use axum::body::Body;
use futures::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt as _;
use pki::LeafRequest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use store::Store;
use tower::Service as _;

use super::*;
use crate::admission::Plugins;
use crate::{ApiServer, Cache, Config, NodeDialer, NodeStream, Parts};

struct NoNodes;

impl NodeDialer for NoNodes {
    fn dial<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn NodeStream>>> {
        Box::pin(async { Err(io::ErrorKind::NotConnected.into()) })
    }
}

struct Cluster {
    server: ApiServer,
    authentication: Arc<Authentication>,
    pki: pki::Cluster,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issuer = "https://kubernetes.default.svc.cluster.local";
        let pki = pki::Cluster::load_or_create(&folder.path().join("tls"), issuer, SystemTime::now()).unwrap();
        let store = store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let cache = Cache::start(&store).await.unwrap();
        let authentication = Arc::new(Authentication::new(cache.clone(), pki.tokens.verifier()));
        let authorization = Arc::new(Authorization::new(&cache));
        let parts = Parts {
            store,
            authenticator: authentication.clone(),
            admission: Arc::new(Plugins::new(&cache, authorization.clone())),
            authorizer: authorization,
            tokens: Arc::new(Tokens::new(pki.tokens.clone(), "https://192.0.2.1/openid/v1/jwks")),
            nodes: Arc::new(NoNodes),
            cache,
            extensions: Vec::new(),
            audit: None,
        };
        let server = ApiServer::new(Config::default(), parts);
        server.start().await.unwrap();
        let cluster = Self { server, authentication, pki, _folder: folder };
        let account = r#"{"metadata":{"name":"default"}}"#;
        cluster.admin("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
        cluster
    }

    async fn call(&self, user: &UserInfo, method: &str, path: &str, body: &str) -> (u16, Tree) {
        let request = Request::builder().method(method).uri(path).header("content-type", match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        });
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.server.local(user.clone()).call(request).await.unwrap();
        let code = response.status().as_u16();
        let warning = response.headers().get("warning").map(|w| w.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let mut tree = Tree::from_json(&bytes).unwrap_or_default();
        if let Some(warning) = warning {
            tree.set(&["warning"], warning);
        }
        (code, tree)
    }

    #[track_caller]
    fn admin<'a>(&'a self, method: &'a str, path: &'a str, body: &'a str) -> impl Future<Output = Tree> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let (code, tree) = self.call(&UserInfo::new("root", &["system:masters"]), method, path, body).await;
            assert!(code < 300, "{caller}: {code} {}", String::from_utf8_lossy(&tree.to_json()));
            tree
        }
    }

    /// The message of a refusal with `code`.
    async fn refusal(&self, user: &UserInfo, code: u16, method: &str, path: &str, body: &str) -> String {
        let (found, tree) = self.call(user, method, path, body).await;
        let text = String::from_utf8_lossy(&tree.to_json()).into_owned();
        assert_eq!(found, code, "{text}");
        tree.str_at(&["message"]).to_owned()
    }

    async fn token(&self, token: &str) -> Result<Option<Authenticated>, String> {
        self.authentication.authenticate(Credential::Token { token, audiences: &[] }).await
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const POD: &str = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_name_users_and_groups() {
    let cluster = Cluster::new().await;
    let leaf = cluster.pki.client("node", &LeafRequest::node("a"), SystemTime::now()).unwrap();
    let chain = Chain::new(vec![CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap()]);
    let user = cluster.authentication.authenticate(Credential::Certificates(&chain)).await.unwrap().unwrap().user;
    assert_eq!((user.name.as_str(), &user.groups[..]), ("system:node:a", &["system:nodes".into(), "system:authenticated".into()][..]));
    assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_a_node_is_good_only_for_the_key_that_has_the_name() {
    let cluster = Cluster::new().await;
    let leaf = cluster.pki.client("node", &LeafRequest::node("a"), SystemTime::now()).unwrap();
    let chain = Chain::new(vec![CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap()]);
    let key = pki::key_fingerprint(chain.leaf().unwrap()).unwrap();
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    let record = |data: String| format!(r#"{{"metadata":{{"name":"a.node-key"}},"data":{{{data}}}}}"#);
    cluster.admin("POST", maps, &record(r#""key":"other""#.into())).await;
    let path = format!("{maps}/a.node-key");
    let refused = cluster.authentication.authenticate(Credential::Certificates(&chain)).await.unwrap_err();
    assert_eq!(refused, "the name of node \"a\" belongs to another key");
    for good in [format!(r#""key":"{key}""#), format!(r#""key":"other","previous-key":"{key}""#)] {
        cluster.admin("PUT", &path, &record(good)).await;
        assert!(cluster.authentication.authenticate(Credential::Certificates(&chain)).await.unwrap().is_some());
    }
    let open = cluster.authentication.end_of(&chain).expect("a node's connection can be ended");
    assert!(!open.is_cancelled());
    cluster.admin("PUT", &path, &record(String::new())).await;
    assert!(open.is_cancelled(), "what another key has open ends with the change");
    assert!(cluster.authentication.authenticate(Credential::Certificates(&chain)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_token_is_good_for_asking_and_little_else() {
    let cluster = Cluster::new().await;
    let secret = r#"{"metadata":{"name":"bootstrap-token-abcdef"},"type":"bootstrap.kubernetes.io/token","stringData":{"token-id":"abcdef",
        "token-secret":"0123456789abcdef","usage-bootstrap-authentication":"true","auth-extra-groups":"system:bootstrappers:rk:default-node-token"}}"#;
    cluster.admin("POST", "/api/v1/namespaces/kube-system/secrets", secret).await;
    let user = cluster.token("abcdef.0123456789abcdef").await.unwrap().unwrap().user;
    assert_eq!(user.name, "system:bootstrap:abcdef");
    assert!(cluster.token("abcdef.0123456789abcdeg").await.unwrap().is_none());
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    assert_eq!(cluster.call(&user, "GET", csrs, "").await.0, 200);
    assert_eq!(cluster.call(&user, "GET", "/api/v1/namespaces/kube-system/configmaps/rk-cluster", "").await.0, 404);
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    for (verb, path) in [("GET", secrets), ("GET", "/api/v1/nodes"), ("POST", "/api/v1/nodes"), ("GET", PODS), ("DELETE", csrs)] {
        assert_eq!(cluster.call(&user, verb, path, "{}").await.0, 403, "{verb} {path}");
    }
    cluster.admin("DELETE", &format!("{secrets}/bootstrap-token-abcdef"), "").await;
    assert!(cluster.token("abcdef.0123456789abcdef").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_token_lives_as_long_as_its_pod() {
    let cluster = Cluster::new().await;
    let pod = cluster.admin("POST", PODS, POD).await;
    let volume = &pod.array_at(&["spec", "volumes"])[0];
    assert!(volume.str_at(&["name"]).starts_with("kube-api-access-"));
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = r#"{"spec":{"expirationSeconds":3607,"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p"}}}"#;
    let token = cluster.admin("POST", path, request).await;
    let token = token.str_at(&["status", "token"]).to_owned();
    let found = cluster.token(&token).await.unwrap().unwrap();
    assert_eq!(found.user.name, "system:serviceaccount:default:default");
    assert!(found.user.in_group("system:serviceaccounts:default") && found.user.in_group("system:authenticated"));
    assert_eq!(found.user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    let elsewhere = ["vault".to_owned()];
    let wrong = Credential::Token { token: &token, audiences: &elsewhere };
    assert_eq!(
        cluster.authentication.authenticate(wrong).await.unwrap_err(),
        r#"token audiences ["https://kubernetes.default.svc.cluster.local"] is invalid for the target audiences ["vault"]"#
    );
    assert!(cluster.token("rubbish").await.unwrap().is_none());
    cluster.admin("DELETE", &format!("{PODS}/p"), r#"{"gracePeriodSeconds":0}"#).await;
    assert_eq!(cluster.token(&token).await.unwrap_err(), "service account token has been invalidated");
    let (code, _) = cluster.call(&UserInfo::new("root", &["system:masters"]), "POST", path, r#"{"spec":{"expirationSeconds":10}}"#).await;
    assert_eq!(code, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_what_follows_roles_and_bindings_at_once() {
    let cluster = Cluster::new().await;
    let jo = UserInfo::new("jo", &["dev"]);
    assert_eq!(
        cluster.refusal(&jo, 403, "GET", PODS, "").await,
        r#"pods is forbidden: User "jo" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    let binding = r#"{"metadata":{"name":"b"},"subjects":[{"kind":"Group","name":"dev","apiGroup":"rbac.authorization.k8s.io"}],
        "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}}"#;
    cluster.admin("POST", &format!("{RBAC}/namespaces/default/rolebindings"), binding).await;
    assert_eq!(cluster.call(&jo, "GET", PODS, "").await.0, 200);
    assert_eq!(cluster.call(&jo, "GET", "/api/v1/namespaces/kube-system/pods", "").await.0, 403);
    assert_eq!(cluster.call(&jo, "POST", PODS, POD).await.0, 403);
    cluster.admin("DELETE", &format!("{RBAC}/namespaces/default/rolebindings/b"), "").await;
    assert_eq!(cluster.call(&jo, "GET", PODS, "").await.0, 403);
    let anonymous = UserInfo::anonymous();
    assert_eq!(cluster.call(&anonymous, "GET", "/version", "").await.0, 200);
    assert_eq!(
        cluster.refusal(&anonymous, 403, "GET", "/metrics", "").await,
        r#"forbidden: User "system:anonymous" cannot get path "/metrics""#
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_grants_what_he_does_not_have() {
    let cluster = Cluster::new().await;
    let jo = UserInfo::new("jo", &[]);
    let writer = r#"{"metadata":{"name":"rbac"},"rules":[{"verbs":["create","update","get"],"apiGroups":["rbac.authorization.k8s.io"],"resources":["roles","rolebindings"]},
        {"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]}"#;
    cluster.admin("POST", &format!("{RBAC}/clusterroles"), writer).await;
    let binding = r#"{"metadata":{"name":"jo"},"subjects":[{"kind":"User","name":"jo","apiGroup":"rbac.authorization.k8s.io"}],
        "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"rbac"}}"#;
    cluster.admin("POST", &format!("{RBAC}/namespaces/default/rolebindings"), binding).await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let role = |name: &str, verb: &str| {
        format!(r#"{{"metadata":{{"name":"{name}"}},"rules":[{{"verbs":["{verb}"],"apiGroups":[""],"resources":["pods"]}}]}}"#)
    };
    assert_eq!(cluster.call(&jo, "POST", &roles, &role("mine", "get")).await.0, 201);
    assert_eq!(
        cluster.refusal(&jo, 403, "POST", &roles, &role("more", "delete")).await,
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jo\" (groups=[\"system:authenticated\"]) is attempting \
         to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    let steal = binding.replace(r#""name":"jo"},"subj"#, r#""name":"x"},"subj"#).replace(r#""name":"rbac"}"#, r#""name":"admin"}"#);
    let message = cluster.refusal(&jo, 403, "POST", &format!("{RBAC}/namespaces/default/rolebindings"), &steal).await;
    assert!(message.contains("is attempting to grant RBAC permissions not currently held"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reads_what_its_pods_name_and_writes_itself() {
    let cluster = Cluster::new().await;
    let node = UserInfo::new("system:node:a", &["system:nodes"]);
    for name in ["used", "other"] {
        let secret = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        cluster.admin("POST", "/api/v1/namespaces/default/secrets", &secret).await;
    }
    let secret = "/api/v1/namespaces/default/secrets/used";
    assert_eq!(
        cluster.refusal(&node, 403, "GET", secret, "").await,
        "secrets \"used\" is forbidden: User \"system:node:a\" cannot get resource \"secrets\" in API group \"\" in the \
         namespace \"default\": no relationship found between node 'a' and this object"
    );
    let pod = r#"{"metadata":{"name":"p"},"spec":{"nodeName":"a","containers":[{"name":"c","image":"i","envFrom":[{"secretRef":{"name":"used"}}]}]}}"#;
    cluster.admin("POST", PODS, pod).await;
    assert_eq!(cluster.call(&node, "GET", secret, "").await.0, 200);
    assert_eq!(cluster.call(&node, "GET", "/api/v1/namespaces/default/secrets/other", "").await.0, 403);
    assert_eq!(cluster.call(&UserInfo::new("system:node:b", &["system:nodes"]), "GET", secret, "").await.0, 403);
    let (code, made) = cluster.call(&node, "POST", "/api/v1/nodes", r#"{"metadata":{"name":"a"}}"#).await;
    assert_eq!(code, 201);
    assert_eq!(made.array_at(&["spec", "taints"])[0].str_at(&["key"]), "node.kubernetes.io/not-ready");
    assert_eq!(
        cluster.refusal(&node, 403, "POST", "/api/v1/nodes", r#"{"metadata":{"name":"b"}}"#).await,
        "nodes \"b\" is forbidden: node \"a\" is not allowed to modify node \"b\""
    );
    let label = r#"{"metadata":{"labels":{"node-restriction.kubernetes.io/x":"y"}}}"#;
    assert_eq!(
        cluster.refusal(&node, 403, "PATCH", "/api/v1/nodes/a", label).await,
        "nodes \"a\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x"
    );
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    assert_eq!(
        cluster.refusal(&node, 403, "POST", path, r#"{"spec":{}}"#).await,
        "serviceaccounts \"default\" is forbidden: node requested token not bound to a pod"
    );
    cluster.admin("DELETE", &format!("{PODS}/p"), r#"{"gracePeriodSeconds":0}"#).await;
    assert_eq!(cluster.call(&node, "GET", secret, "").await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_what_upstreams_plugins_give_them() {
    let cluster = Cluster::new().await;
    cluster.admin("PATCH", "/api/v1/namespaces/default/serviceaccounts/default", r#"{"imagePullSecrets":[{"name":"pull"}]}"#).await;
    let pod = cluster.admin("POST", PODS, POD).await;
    let spec = pod.get("spec").unwrap();
    assert_eq!((spec.str_at(&["serviceAccountName"]), spec.str_at(&["serviceAccount"])), ("default", "default"));
    assert_eq!(spec.array_at(&["imagePullSecrets"])[0].str_at(&["name"]), "pull");
    let mount = &spec.array_at(&["containers"])[0].array_at(&["volumeMounts"])[0];
    assert_eq!(mount.str_at(&["mountPath"]), "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(spec.array_at(&["tolerations"]).len(), 2);
    assert_eq!((spec.get("priority").and_then(Tree::as_i64), spec.str_at(&["preemptionPolicy"])), (Some(0), "PreemptLowerPriority"));
    let critical = POD.replace(r#""name":"p""#, r#""name":"q""#).replace(r#""spec":{"#, r#""spec":{"priorityClassName":"system-node-critical","#);
    let critical = cluster.admin("POST", PODS, &critical).await;
    assert_eq!(critical.at(&["spec", "priority"]).and_then(Tree::as_i64), Some(2_000_001_000));
    let root = UserInfo::new("root", &["system:masters"]);
    let none = POD.replace(r#""name":"p""#, r#""name":"r""#).replace(r#""spec":{"#, r#""spec":{"priorityClassName":"none","#);
    assert_eq!(
        cluster.refusal(&root, 403, "POST", PODS, &none).await,
        "pods \"r\" is forbidden: no PriorityClass with name none was found"
    );
    let account = POD.replace(r#""name":"p""#, r#""name":"s""#).replace(r#""spec":{"#, r#""spec":{"serviceAccountName":"no","#);
    assert_eq!(
        cluster.refusal(&root, 403, "POST", PODS, &account).await,
        "pods \"s\" is forbidden: error looking up service account default/no: serviceaccount \"no\" not found"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespaces_labels_bound_its_pods() {
    let cluster = Cluster::new().await;
    let labels = r#"{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"baseline","pod-security.kubernetes.io/warn":"restricted"}}}"#;
    cluster.admin("PATCH", "/api/v1/namespaces/default", labels).await;
    let pod = cluster.admin("POST", PODS, POD).await;
    assert!(pod.str_at(&["warning"]).contains("would violate PodSecurity \\\"restricted:latest\\\""), "{}", pod.str_at(&["warning"]));
    let host = POD.replace(r#""name":"p""#, r#""name":"h""#).replace(r#""spec":{"#, r#""spec":{"hostNetwork":true,"#);
    assert_eq!(
        cluster.refusal(&UserInfo::new("root", &["system:masters"]), 403, "POST", PODS, &host).await,
        "pods \"h\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregated_role_follows_what_it_selects() {
    let cluster = Cluster::new().await;
    let role = r#"{"metadata":{"name":"extra","labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}},
        "rules":[{"verbs":["get"],"apiGroups":["example.com"],"resources":["things"]}]}"#;
    cluster.admin("POST", &format!("{RBAC}/clusterroles"), role).await;
    let mut changes = cluster.server.0.parts.cache.changes("rbac.authorization.k8s.io", "clusterroles").unwrap();
    let arrives = async {
        loop {
            changes.borrow_and_update();
            let admin = cluster.admin("GET", &format!("{RBAC}/clusterroles/admin"), "").await;
            if String::from_utf8_lossy(&admin.to_json()).contains("example.com") {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), arrives).await.expect("admin has the rule of view");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_valid_before_its_overhead_is_refused() {
    let cluster = Cluster::new().await;
    let admin = UserInfo::new("admin", &["system:masters"]);
    let pod = |name: &str| {
        format!(r#"{{"metadata":{{"name":"o"}},"spec":{{"overhead":{{"memory":"1Mi"}},"containers":[{{"name":"{name}","image":"i"}}]}}}}"#)
    };
    assert_eq!(cluster.call(&admin, "POST", PODS, &pod("Wrong")).await.0, 422);
    let (code, status) = cluster.call(&admin, "POST", PODS, &pod("c")).await;
    let why = r#"pods "o" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"#;
    assert_eq!((code, status.str_at(&["message"])), (403, why));
    let class = r#"{"metadata":{"name":"heavy"},"handler":"h","overhead":{"podFixed":{"memory":"1Mi"}}}"#;
    cluster.admin("POST", "/apis/node.k8s.io/v1/runtimeclasses", class).await;
    cluster.admin("POST", PODS, &pod("c").replace(r#""spec":{"#, r#""spec":{"runtimeClassName":"heavy","#)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_class_of_volume_attributes_is_protected() {
    let cluster = Cluster::new().await;
    let class = r#"{"metadata":{"name":"gold"},"driverName":"d.example.com","parameters":{"a":"b"}}"#;
    let made = cluster.admin("POST", "/apis/storage.k8s.io/v1/volumeattributesclasses", class).await;
    assert_eq!(made.array_at(&["metadata", "finalizers"]), [Tree::from("kubernetes.io/vac-protection")]);
}
