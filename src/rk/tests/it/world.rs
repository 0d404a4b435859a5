//! An API server of its own, what stands in for scheduler and kubelets, and what controllers are given.
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::admission::{AdmitAll, Plugins};
use apiserver::auth::{
    Attributes, Authenticated, Authenticator, Authorization, Authorizer, Credential, Decision, Tokens, UserRules,
};
use apiserver::{ApiServer, Cache, Local, NodeDialer, NodeStream, Parts, UserInfo};
use client::{Client, Clock, SharedInformers};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use store::Store;

pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// A node whose kubelet does nothing; none has this name at first.
pub const SILENT: &str = "silent";

struct Nobody;

impl Authenticator for Nobody {
    fn authenticate<'a>(&'a self, _: Credential<'a>) -> BoxFuture<'a, Result<Option<Authenticated>, String>> {
        Box::pin(async { Ok(None) })
    }
}

struct Everything;

impl Authorizer for Everything {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::allow("")
    }
    fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
        UserRules::default()
    }
}

struct NoNodes;

impl NodeDialer for NoNodes {
    fn dial<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn NodeStream>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

/// An API server, and the keys it has.
pub struct Served {
    pub server: ApiServer,
    pki: Arc<pki::Cluster>,
    tokens: Arc<pki::ServiceAccountSigner>,
}

impl Served {
    /// Whatever is asked is allowed, and admitted as it is.
    pub async fn lenient(store: Arc<dyn Store>, folder: &Path) -> ApiServer {
        Self::over(store, folder, |_| (Arc::new(AdmitAll), Arc::new(Everything))).await.server
    }

    /// Keys are made in `folder`, or found there.
    async fn over(store: Arc<dyn Store>, folder: &Path, rules: impl FnOnce(&Cache) -> Rules) -> Self {
        let cache = Cache::start(&store).await.unwrap();
        let issuer = "https://kubernetes.default.svc";
        let pki = Arc::new(pki::Cluster::load_or_create(&folder.join("tls"), issuer, std::time::SystemTime::now()).unwrap());
        let tokens = Arc::new(pki::ServiceAccountSigner::load_or_create(&folder.join("key"), issuer).unwrap());
        let (admission, authorizer) = rules(&cache);
        let parts = Parts {
            store,
            cache,
            authenticator: Arc::new(Nobody),
            authorizer,
            admission,
            tokens: Arc::new(Tokens::new(tokens.clone(), "https://localhost/jwks")),
            nodes: Arc::new(NoNodes),
            extensions: Vec::new(),
            audit: None,
        };
        let server = ApiServer::new(apiserver::Config::default(), parts);
        server.start().await.unwrap();
        Self { server, pki, tokens }
    }
}

type Rules = (Arc<dyn apiserver::admission::Admission>, Arc<dyn Authorizer>);

pub struct World {
    pub server: ApiServer,
    pub admin: Client,
    /// Of the controllers; the API server has the machine's.
    pub clock: Clock,
    /// Of which the oldest are removed.
    finished_pods_max: usize,
    pki: Arc<pki::Cluster>,
    tokens: Arc<pki::ServiceAccountSigner>,
    /// Where the store is; removed at the end.
    _folder: tempfile::TempDir,
}

impl World {
    /// Whatever is asked is allowed, and admitted as it is.
    pub async fn lenient(clock: Clock) -> Self {
        let world = Self::new(clock, |_| (Arc::new(AdmitAll), Arc::new(Everything))).await;
        Self { finished_pods_max: 1, ..world }
    }

    /// With admission and authorization as in a cluster.
    pub async fn strict(clock: Clock) -> Self {
        let parts = |cache: &Cache| {
            let authorization = Arc::new(Authorization::new(cache));
            (Arc::new(Plugins::new(cache, authorization.clone())) as _, authorization as _)
        };
        Self::new(clock, parts).await
    }

    async fn new(clock: Clock, rules: impl FnOnce(&Cache) -> Rules) -> Self {
        // In memory, where there is room: what is tested here is not the disk.
        let shm = PathBuf::from("/dev/shm");
        let folder = tempfile::tempdir_in(if shm.is_dir() { shm } else { std::env::temp_dir() }).unwrap();
        let store: Arc<dyn Store> = Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
        let Served { server, pki, tokens } = Served::over(store, folder.path(), rules).await;
        let admin = Client::from_service(server.local(UserInfo::new("admin", &["system:masters"])));
        let world = Self { server, admin, clock, finished_pods_max: 100, pki, tokens, _folder: folder };
        for node in NODES {
            let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            world.post("/api/v1/nodes", json!({"metadata": {"name": node}, "status": status})).await;
        }
        world
    }

    pub async fn call(&self, method: http::Method, path: &str, body: Value, media: &'static str) -> Result<Value, client::ApiError> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.admin.bytes(method, path, bytes, media, "application/json").await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    pub async fn post(&self, path: &str, object: Value) {
        self.call(http::Method::POST, path, object, "application/json").await.unwrap();
    }

    pub async fn create(&self, path: &str, name: &str, spec: Value) {
        let mut spec = spec;
        // A pod needs no grace where nothing runs.
        spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
        self.post(path, json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    pub async fn patch(&self, path: &str, name: &str, patch: Value) {
        self.call(http::Method::PATCH, &format!("{path}/{name}"), patch, "application/merge-patch+json").await.unwrap();
    }

    pub async fn get(&self, path: &str, name: &str) -> Value {
        self.admin.get_path(&format!("{path}/{name}")).await.unwrap_or_default()
    }

    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list: Value = self.admin.get_path(path).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Scheduler and kubelets, very quick ones: pods get a node, run, and end when they are told to.
    pub async fn run_pods(&self) {
        loop {
            for pod in self.list("/api/v1/pods").await {
                // Somebody else may have been quicker, and the next round sees it.
                let _ = self.advance(&pod).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn advance(&self, pod: &Value) -> Result<(), client::ApiError> {
        if pod["spec"]["nodeName"] == SILENT {
            return Ok(());
        }
        let name = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/pods/{}", name("namespace"), name("name"));
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            if phase == "Running" && pod["metadata"]["finalizers"].is_array() {
                // A Job's pod says how it ended before it goes.
                let status = json!({"status": {"phase": "Failed"}});
                self.call(http::Method::PATCH, &format!("{path}/status"), status, "application/merge-patch+json").await?;
            }
            let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}});
            return self.call(http::Method::DELETE, &path, options, "application/json").await.map(drop);
        }
        let node = pod.pointer(
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0",
        );
        if pod["spec"]["nodeName"].is_null() {
            let target = json!({"apiVersion": "v1", "kind": "Node", "name": node.and_then(Value::as_str).unwrap_or(NODES[0])});
            let binding = json!({"metadata": {"name": pod["metadata"]["name"]}, "target": target});
            return self.call(http::Method::POST, &format!("{path}/binding"), binding, "application/json").await.map(drop);
        }
        if matches!(phase, "Running" | "Succeeded" | "Failed") {
            return Ok(());
        }
        let phase = if pod["spec"]["restartPolicy"] == "Never" { "Succeeded" } else { "Running" };
        let ready = json!({"type": "Ready", "status": if phase == "Running" { "True" } else { "False" }, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        // Of its name, so that it is the same in each run.
        let [a, b] = name("name").bytes().fold(7u16, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())).to_be_bytes();
        let ip = format!("10.9.{a}.{b}");
        let status = json!({"status": {"phase": phase, "conditions": [ready], "podIP": ip, "podIPs": [{"ip": ip}]}});
        self.call(http::Method::PATCH, &format!("{path}/status"), status, "application/merge-patch+json").await.map(drop)
    }

    /// What controllers run on; `client` makes the client of a controller of that user.
    pub fn context(
        &self,
        informers: SharedInformers,
        client: impl Fn(&str, Local) -> Client + Send + Sync + 'static,
    ) -> controllers::ControllerContext {
        let server = self.server.clone();
        let client_for = move |name: &str| {
            let user = format!("system:serviceaccount:kube-system:{name}");
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
            client(name, server.local(UserInfo::new(user, &groups)))
        };
        controllers::ControllerContext {
            client_for: Arc::new(client_for),
            informers,
            clock: self.clock.clone(),
            config: Arc::new(controllers::Config {
                cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
                node_cidr_mask: 24,
                root_ca: self.pki.server_ca.certificate_pem().to_owned(),
                terminated_pods_max: self.finished_pods_max,
                server_node: "n1".into(),
                system_image: "image".into(),
                autoscaling: controllers::AutoscalingSettings { sync_period: Duration::from_millis(400), ..controllers::AutoscalingSettings::default() },
            }),
            pki: self.pki.clone(),
            tokens: self.tokens.clone(),
        }
    }
}
