//! One run: an API server, what stands in for scheduler and kubelets, the controller that is treated badly, and the look at what is left.
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::admission::AdmitAll;
use apiserver::auth::{Attributes, Authenticated, Authenticator, Authorizer, Credential, Decision, Tokens, UserRules};
use apiserver::{ApiServer, Cache, NodeDialer, NodeStream, Parts, UserInfo};
use client::k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use client::k8s_openapi::api::core::v1::Pod;
use client::{Client, Clock, Event, HandlerGuard, Informer, Kind, Named, SharedInformers};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::perturb::{Counted, Gate, Gated, How, Plan};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Longest time to get to a state; what is disturbed may have to wait for a back-off.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a view is stale.
const STALE: Duration = Duration::from_millis(300);

/// What a controller is given to do.
pub trait Scenario: Sized + 'static {
    /// The one that is disturbed.
    const CONTROLLER: &'static str;
    /// Those that run beside it in peace.
    const OTHERS: &'static [&'static str] = &[];
    /// Plural of the kind whose watch is disturbed.
    const CHILD: &'static str;
    /// Objects that it creates in all.
    const CREATES: usize;

    /// Does the step's change; false when there is no such step.
    fn act(world: &World, step: usize) -> impl Future<Output = bool> + Send;
    fn is_done(world: &World, step: usize) -> impl Future<Output = bool> + Send;
}

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

pub struct World {
    server: ApiServer,
    admin: Client,
    pki: Arc<pki::Cluster>,
    tokens: Arc<pki::ServiceAccountSigner>,
    /// Where the store is; removed at the end.
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        // In memory, where there is room: what is tested here is not the disk.
        let shm = PathBuf::from("/dev/shm");
        let folder = tempfile::tempdir_in(if shm.is_dir() { shm } else { std::env::temp_dir() }).unwrap();
        let store: Arc<dyn Store> = Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
        let cache = Cache::start(&store).await.unwrap();
        let issuer = "https://kubernetes.default.svc";
        let pki = Arc::new(pki::Cluster::load_or_create(&folder.path().join("tls"), issuer, std::time::SystemTime::now()).unwrap());
        let tokens = Arc::new(pki::ServiceAccountSigner::load_or_create(&folder.path().join("key"), issuer).unwrap());
        let parts = Parts {
            store,
            cache,
            authenticator: Arc::new(Nobody),
            authorizer: Arc::new(Everything),
            admission: Arc::new(AdmitAll),
            tokens: Arc::new(Tokens::new(tokens.clone(), "https://localhost/jwks")),
            nodes: Arc::new(NoNodes),
            extensions: Vec::new(),
            audit: None,
        };
        let server = ApiServer::new(apiserver::Config::default(), parts);
        server.start().await.unwrap();
        let admin = Client::from_service(server.local(UserInfo::new("admin", &["system:masters"])));
        let world = Self { server, admin, pki, tokens, _folder: folder };
        for node in NODES {
            let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            world.post("/api/v1/nodes", json!({"metadata": {"name": node}, "status": status})).await;
        }
        world
    }

    async fn call(&self, method: http::Method, path: &str, body: Value, media: &'static str) -> Result<Value, client::ApiError> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.admin.bytes(method, path, bytes, media, "application/json").await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    async fn post(&self, path: &str, object: Value) {
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
    async fn run_pods(&self) {
        loop {
            for pod in self.list("/api/v1/namespaces/default/pods").await {
                // Somebody else may have been quicker, and the next round sees it.
                let _ = self.advance(&pod).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn advance(&self, pod: &Value) -> Result<(), client::ApiError> {
        let path = format!("/api/v1/namespaces/default/pods/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
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
        let status = json!({"status": {"phase": phase, "conditions": [ready]}});
        self.call(http::Method::PATCH, &format!("{path}/status"), status, "application/merge-patch+json").await.map(drop)
    }

    fn context(&self, plan: Option<&Arc<Plan>>, informers: SharedInformers) -> controllers::ControllerContext {
        let (server, plan) = (self.server.clone(), plan.cloned());
        let client_for = move |name: &str| {
            let inner = server.local(UserInfo::new(format!("system:serviceaccount:kube-system:{name}"), &["system:authenticated"]));
            match plan.clone() {
                Some(plan) => Client::from_service(Counted { inner, plan }),
                None => Client::from_service(inner),
            }
        };
        controllers::ControllerContext {
            client_for: Arc::new(client_for),
            informers,
            clock: Clock::system(),
            config: Arc::new(controllers::Config {
                cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
                node_cidr_mask: 24,
                root_ca: String::new(),
                terminated_pods_max: 100,
                server_node: "n1".into(),
                system_image: "image".into(),
                autoscaling: controllers::AutoscalingSettings::default(),
            }),
            pki: self.pki.clone(),
            tokens: self.tokens.clone(),
        }
    }
}

/// What was ever there, `KIND/UID`: a call that was cut off may have been done all the same, so calls do not tell.
type Seen = Arc<Mutex<BTreeSet<String>>>;

async fn see<K: Kind>(world: &World, seen: &Seen) -> (Informer<K>, HandlerGuard) {
    let informer = Informer::<K>::builder(&world.admin).start();
    let seen = seen.clone();
    let guard = informer.on_event(move |event| {
        if let Event::Added(object) = event {
            seen.lock().unwrap().insert(format!("{}/{}", K::KIND, object.uid()));
        }
    });
    informer.synced().await;
    (informer, guard)
}

/// One run; the number of calls that the controller made, or what went wrong.
pub async fn run<S: Scenario>(how: How, at: usize) -> Result<usize, String> {
    let world = Arc::new(World::new().await);
    let plan = Plan::new(how, at);
    let seen = Seen::default();
    let _revisions = see::<ControllerRevision>(&world, &seen).await;
    let _children = match S::CHILD {
        "pods" => (Some(see::<Pod>(&world, &seen).await), None),
        _ => (None, Some(see::<ReplicaSet>(&world, &seen).await)),
    };
    let mut beside = JoinSet::new();
    let pods = world.clone();
    beside.spawn(async move { pods.run_pods().await });
    for name in S::OTHERS {
        let manager = Client::from_service(world.server.local(UserInfo::new("manager", &["system:masters"])));
        beside.spawn(controllers::only(name, world.context(None, SharedInformers::new(&manager))).expect("a known controller"));
    }
    let (gate, gate_seen) = watch::channel(Gate::Open);
    let disturbed = world.clone();
    let disturbing = plan.clone();
    beside.spawn(async move { disturb::<S>(&disturbed, &disturbing, gate, gate_seen).await });

    let mut step = 0;
    while S::act(&world, step).await {
        reach::<S>(&world, step).await?;
        step += 1;
    }
    // Nothing more comes, and what was reached stays.
    tokio::time::sleep(Duration::from_millis(400)).await;
    reach::<S>(&world, step - 1).await?;
    let created = seen.lock().unwrap().clone();
    let count = created.len();
    // A child that was taken away had to be made again.
    let most = S::CREATES + usize::from(how == How::Missed);
    if count < S::CREATES || count > most {
        return Err(format!("created {created:?}, which should be {} in all", S::CREATES));
    }
    no_orphans(&world).await?;
    beside.shutdown().await;
    Ok(plan.calls.load(Ordering::SeqCst))
}

async fn reach<S: Scenario>(world: &World, step: usize) -> Result<(), String> {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !S::is_done(world, step).await {
        if tokio::time::Instant::now() > end {
            return Err(format!("step {step} is not done; there are {}", left(world).await));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Runs the controller, and does to it what the plan says.
async fn disturb<S: Scenario>(world: &World, plan: &Arc<Plan>, gate: watch::Sender<Gate>, seen: watch::Receiver<Gate>) {
    let start = || {
        let inner = world.server.local(UserInfo::new("manager", &["system:masters"]));
        let manager = Client::from_service(Gated { inner, plural: S::CHILD, gate: seen.clone() });
        let context = world.context(Some(plan), SharedInformers::new(&manager));
        let mut task = JoinSet::new();
        task.spawn(controllers::only(S::CONTROLLER, context).expect("a known controller"));
        task
    };
    let mut task = start();
    if plan.how != How::Nothing {
        plan.due.notified().await;
    }
    match plan.how {
        How::Nothing => {}
        How::CrashBefore | How::CrashAfter => {
            task.shutdown().await;
            task = start();
        }
        How::Stale => {
            gate.send_replace(Gate::Held);
            tokio::time::sleep(STALE).await;
            gate.send_replace(Gate::Open);
        }
        How::Missed => {
            gate.send_replace(Gate::Held);
            take_a_child::<S>(world).await;
            tokio::time::sleep(STALE / 3).await;
            gate.send_replace(Gate::Broken);
            tokio::time::sleep(STALE / 3).await;
            gate.send_replace(Gate::Open);
        }
    }
    while task.join_next().await.is_some() {}
}

/// Deletes a pod behind the controller's back.
async fn take_a_child<S: Scenario>(world: &World) {
    // A Deployment's child is a ReplicaSet, whose history nobody makes again: a pod of it is taken.
    let pods = world.list("/api/v1/namespaces/default/pods").await;
    let is_live = |pod: &&Value| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if let Some(pod) = pods.iter().find(is_live) {
        let path = format!("/api/v1/namespaces/default/pods/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
        let _ = world.call(http::Method::DELETE, &path, json!({"gracePeriodSeconds": 0}), "application/json").await;
    }
}

/// Every child has an owner that is there.
async fn no_orphans(world: &World) -> Result<(), String> {
    let paths = [
        "/api/v1/namespaces/default/pods",
        "/apis/apps/v1/namespaces/default/replicasets",
        "/apis/apps/v1/namespaces/default/controllerrevisions",
    ];
    let owners =
        ["deployments", "replicasets", "statefulsets", "daemonsets"].map(|plural| format!("/apis/apps/v1/namespaces/default/{plural}"));
    let mut uids = Vec::new();
    for path in owners.iter().map(String::as_str).chain(["/apis/batch/v1/namespaces/default/jobs"]) {
        uids.extend(world.list(path).await.iter().map(|owner| owner["metadata"]["uid"].clone()));
    }
    for path in paths {
        for child in world.list(path).await {
            let is_top = child["metadata"]["ownerReferences"].is_null() && path.ends_with("replicasets");
            if !is_top && !uids.contains(&child["metadata"]["ownerReferences"][0]["uid"]) {
                return Err(format!("{} is an orphan", child["metadata"]["name"]));
            }
        }
    }
    Ok(())
}

async fn left(world: &World) -> String {
    let mut out = Vec::new();
    for path in ["/api/v1/namespaces/default/pods", "/apis/apps/v1/namespaces/default/replicasets"] {
        for object in world.list(path).await {
            let (meta, status) = (&object["metadata"], &object["status"]);
            out.push(format!("{} {} deleting {} {}", meta["name"], status["phase"], meta["deletionTimestamp"], status["replicas"]));
        }
    }
    out.join("; ")
}
