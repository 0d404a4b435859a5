//! One run: the controller that is treated badly, and the look at what is left.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::UserInfo;
use client::k8s_openapi::jiff::{SignedDuration, Timestamp};
use client::{ApiResource, Client, Clock, Event, HandlerGuard, Informer, Named, PartialObject, SharedInformers};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::perturb::{Counted, Gate, Gated, How, Plan};
use super::same::picture;
use super::scenario::{Scenario, Step, Until};
use crate::local;
use crate::world::World;

/// Longest time to get to a state; what is disturbed may have to wait for a back-off.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a view is stale.
const STALE: Duration = Duration::from_millis(300);
/// A controller that has asked for nothing for so long has nothing to do.
const QUIET: Duration = Duration::from_millis(150);

/// How a run ended.
pub struct Outcome {
    pub calls: usize,
    /// Of the collections that the controller makes objects in.
    pub picture: String,
}

/// What was ever there, by uid: a call that was cut off may have been done all the same, so calls do not tell.
type Seen = Arc<Mutex<BTreeMap<String, String>>>;

/// Takes note of what comes into a collection from now on.
async fn see(world: &World, path: &'static str, seen: &Seen) -> (Informer<PartialObject>, HandlerGuard) {
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let (group, version, rest) = if parts[0] == "api" { ("", parts[1], &parts[2..]) } else { (parts[1], parts[2], &parts[3..]) };
    let (namespace, plural) = if let ["namespaces", namespace, plural] = rest { (*namespace, *plural) } else { ("", rest[0]) };
    let text = str::to_owned;
    let resource = ApiResource { group: text(group), version: text(version), kind: String::new(), plural: text(plural), namespaced: !namespace.is_empty() };
    let informer = Informer::<PartialObject>::builder_at(&world.admin, resource).namespace(namespace).start();
    informer.synced().await;
    let known: Vec<_> = informer.list().iter().map(|o| o.uid().to_owned()).collect();
    let seen = seen.clone();
    let guard = informer.on_event(move |event| {
        if let Event::Added(object) = event
            && !known.contains(&object.metadata.uid.clone().unwrap_or_default())
        {
            seen.lock().unwrap().insert(object.uid().to_owned(), format!("{plural}/{}", object.name()));
        }
    });
    (informer, guard)
}

/// One run, in which one kind's watch is disturbed if that is how; or what went wrong.
pub async fn run(make: fn() -> Scenario, how: How, at: usize, kind: &'static str) -> Result<Outcome, String> {
    let scenario = Arc::new(make());
    let clock = if scenario.is_ahead { Clock::fixed(Timestamp::now() + SignedDuration::from_hours(1)) } else { Clock::system() };
    let world = Arc::new(World::lenient(clock).await);
    let plan = Plan::new(how, at, kind);
    let result = run_in(&world, scenario, &plan).await;
    // It would go on beside all that come after it.
    world.server.shut_down().await;
    result
}

async fn run_in(world: &Arc<World>, scenario: Arc<Scenario>, plan: &Arc<Plan>) -> Result<Outcome, String> {
    let seen = Seen::default();
    let mut watches = Vec::new();
    for path in scenario.makes {
        watches.push(see(world, path, &seen).await);
    }
    let mut beside = JoinSet::new();
    let pods = world.clone();
    beside.spawn(async move { pods.run_pods().await });
    for name in scenario.others {
        let manager = local::client(&world.server, UserInfo::new("manager", &["system:masters"]));
        let context = world.context(SharedInformers::new(&manager), |_, inner| Client::from_service(inner));
        beside.spawn(controllers::only(name, context).expect("a known controller"));
    }
    let mut own = Vec::new();
    for act in &scenario.before {
        own.extend(act.run(world, &plan.shown).await.map_err(|error| format!("before: {error}"))?);
    }
    let (disturbed, given, disturbing) = (world.clone(), scenario.clone(), plan.clone());
    beside.spawn(async move { disturb(&disturbed, &given, &disturbing).await });

    for (number, step) in scenario.steps.iter().enumerate() {
        for act in &step.acts {
            own.extend(act.run(world, &plan.shown).await.map_err(|error| format!("step {number}: {error}"))?);
        }
        reach(world, number, step).await?;
    }
    // Nothing more comes, and what was reached stays.
    settle(plan).await?;
    if let Some(last) = scenario.steps.last() {
        reach(world, scenario.steps.len() - 1, last).await?;
    }
    let created: Vec<_> = seen.lock().unwrap().iter().filter(|(uid, _)| !own.contains(uid)).map(|(_, name)| name.clone()).collect();
    // A child that was taken away had to be made again.
    let most = scenario.creates + usize::from(plan.how == How::Missed && scenario.missed.is_some());
    if created.len() < scenario.creates || created.len() > most {
        return Err(format!("created {created:?}, which should be {} in all", scenario.creates));
    }
    no_orphans(world, scenario.makes).await?;
    let picture = picture(world, scenario.makes).await;
    beside.shutdown().await;
    Ok(Outcome { calls: plan.calls.load(Ordering::SeqCst), picture })
}

async fn reach(world: &World, number: usize, step: &Step) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let Some(open) = first_open(world, &step.until).await else { return Ok(()) };
        if Instant::now() > end {
            return Err(format!("step {number} is not done: {}", open.told(world).await));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn first_open<'a>(world: &World, all: &'a [Until]) -> Option<&'a Until> {
    for until in all {
        if !until.holds(world).await {
            return Some(until);
        }
    }
    None
}

/// Waits until the disturbance is over and the controller rests.
async fn settle(plan: &Plan) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let calls = plan.calls.load(Ordering::SeqCst);
        if plan.how != How::Nothing && calls >= plan.at {
            let _ = plan.over.subscribe().wait_for(|over| *over).await;
        }
        sleep(QUIET).await;
        if plan.calls.load(Ordering::SeqCst) == calls {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("it does not come to rest: {calls} calls"));
        }
    }
}

/// Runs the controller, and does to it what the plan says.
async fn disturb(world: &World, scenario: &Scenario, plan: &Arc<Plan>) {
    let (gate, seen) = watch::channel(Gate::Open);
    let start = || {
        let inner = world.server.local(UserInfo::new("manager", &["system:masters"]));
        let manager = Client::from_service(Gated { inner, gate: seen.clone(), plan: plan.clone() }).sharing(local::held(&world.server));
        let plan = plan.clone();
        let context = world.context(SharedInformers::new(&manager), move |_, inner| Client::from_service(Counted { inner, plan: plan.clone() }));
        let mut task = JoinSet::new();
        task.spawn(controllers::only(scenario.controller, context).expect("a known controller"));
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
            plan.held.notify_one();
            // A call that its controller gives up is made by nobody.
            let _ = timeout(PATIENCE / 10, plan.made.notified()).await;
            sleep(STALE).await;
            gate.send_replace(Gate::Open);
        }
        How::Missed => {
            gate.send_replace(Gate::Held);
            plan.held.notify_one();
            let _ = timeout(PATIENCE / 10, plan.made.notified()).await;
            if let Some(act) = &scenario.missed {
                // What it would take may not be there yet.
                let _ = act.run(world, &plan.shown).await;
            }
            sleep(STALE / 3).await;
            gate.send_replace(Gate::Broken);
            // One that came later would go on where it was, and nothing would have been missed.
            let _ = timeout(PATIENCE / 10, plan.refused.notified()).await;
            gate.send_replace(Gate::Open);
        }
    }
    plan.over.send_replace(true);
    while task.join_next().await.is_some() {}
}

/// Every child has an owner that is there.
async fn no_orphans(world: &World, collections: &[&str]) -> Result<(), String> {
    for path in collections {
        for child in world.list(path).await {
            let meta = &child["metadata"];
            for owner in meta["ownerReferences"].as_array().into_iter().flatten() {
                let text = |field: &str| owner[field].as_str().unwrap_or_default();
                let kind = text("kind").to_lowercase();
                let plural = if kind.ends_with('s') { kind } else { format!("{kind}s") };
                let root = if text("apiVersion").contains('/') { "/apis" } else { "/api" };
                let place = meta["namespace"].as_str().filter(|_| plural != "persistentvolumes").map(|n| format!("namespaces/{n}/")).unwrap_or_default();
                let found: Value = world.get(&format!("{root}/{}/{place}{plural}", text("apiVersion")), text("name")).await;
                if found["metadata"]["uid"] != owner["uid"] && meta["deletionTimestamp"].is_null() {
                    return Err(format!("{path}/{} is an orphan of {owner}", meta["name"]));
                }
            }
        }
    }
    Ok(())
}
