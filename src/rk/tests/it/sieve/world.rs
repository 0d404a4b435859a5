//! One run: the controller that is treated badly, and the look at what is left.
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::UserInfo;
use client::k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use client::k8s_openapi::api::core::v1::Pod;
use client::{Client, Event, HandlerGuard, Informer, Kind, Named, SharedInformers};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::perturb::{Counted, Gate, Gated, How, Plan};
use crate::world::World;

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
    let world = Arc::new(World::lenient().await);
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
        beside.spawn(controllers::only(name, world.context(SharedInformers::new(&manager), |_, inner| Client::from_service(inner))).expect("a known controller"));
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
        let plan = plan.clone();
        let context = world.context(SharedInformers::new(&manager), move |_, inner| Client::from_service(Counted { inner, plan: plan.clone() }));
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
