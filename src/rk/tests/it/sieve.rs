//! Controllers under the three perturbations of Sieve (Sun et al., OSDI 2022), at every API call that each makes.
//!
//! *Crash in the middle*: the controller is dropped before, or right after, its n-th call, and started anew. *Stale view*: from its n-th
//! call on it does not see what becomes of one kind, for a while. *Missed event*: something happens while nobody watches, and the
//! watch comes back by a new list. Each time the final state is the same, nothing is created twice, and nothing is left over. Each run has an
//! API server of its own, on a store in memory-backed files; a loop stands in for scheduler and kubelets. `RK_TEST_ALL=1` takes every
//! call, else some are drawn, always the same; `RK_TEST_SEED` (a number) draws others.
mod certificates;
mod cluster;
mod network;
mod perturb;
mod run;
mod same;
mod scenario;
mod storage;
mod workloads;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures::StreamExt;

use self::perturb::How;
use self::run::run;
use self::same::difference;
use self::scenario::Scenario;

/// How many of a scenario's runs are drawn.
const DRAWN: usize = 6;
/// Runs under way at once: each has a server of its own.
const AT_ONCE: usize = 8;

/// A call at which something happens, and to which kind's watch where it is one.
type Point = (How, usize, &'static str);

fn points(scenario: &Scenario, calls: usize) -> Vec<Point> {
    let mut all = Vec::new();
    for at in 1..=calls {
        // A crash concerns no kind.
        all.extend([How::CrashBefore, How::CrashAfter].map(|how| (how, at, scenario.seen[0])));
        all.extend(scenario.seen.iter().flat_map(|kind| [How::Stale, How::Missed].map(|how| (how, at, *kind))));
    }
    if std::env::var_os("RK_TEST_ALL").is_none() {
        let seed: u64 = std::env::var("RK_TEST_SEED").map_or(0, |seed| seed.parse().expect("RK_TEST_SEED is a number"));
        all.sort_by_cached_key(|(how, at, kind)| {
            let mut hasher = DefaultHasher::new();
            (seed, scenario.controller, format!("{how:?}"), at, kind).hash(&mut hasher);
            hasher.finish()
        });
        all.truncate(DRAWN);
    }
    all
}

/// Runs undisturbed to count the calls, then once for each point.
async fn check(make: fn() -> Scenario) {
    let scenario = make();
    let name = scenario.controller;
    let whole = run(make, How::Nothing, 0, scenario.seen[0]).await.unwrap_or_else(|why| panic!("{name} undisturbed: {why}"));
    assert!(whole.calls > 0, "{name} asks for nothing");
    let points = points(&scenario, whole.calls);
    let count = points.len();
    let runs = points.into_iter().map(|(how, at, kind)| async move { (how, at, kind, tokio::spawn(run(make, how, at, kind)).await) });
    let mut queue = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    let mut failures = Vec::new();
    while let Some((how, at, kind, result)) = queue.next().await {
        let why = match result {
            // Something was taken away, and what came in its place need not be as it was.
            Ok(Ok(_)) if how == How::Missed && scenario.missed.is_some() => continue,
            Ok(Ok(run)) if run.picture == whole.picture => continue,
            Ok(Ok(run)) => format!("the end is another one:\n{}", difference(&whole.picture, &run.picture)),
            Ok(Err(why)) => why,
            Err(died) => died.to_string(),
        };
        failures.push(format!("{how:?} of {kind} at call {at} of {}: {why}", whole.calls));
    }
    println!("{name}: {} calls, {count} runs", whole.calls);
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// A test of each scenario, which stands crashes, stale views and missed events; and one that there are scenarios of every controller.
macro_rules! stand {
    ($($module:ident: $($scenario:ident),*;)*) => {
        $(mod $module {
            $(#[test]
            fn $scenario() {
                super::super::block_on(super::super::check(super::super::$module::$scenario));
            })*
        })*

        #[test]
        fn no_controller_is_spared() {
            let tested: Vec<&str> = vec![$($(super::$module::$scenario().controller),*),*];
            // This one writes Events only.
            let others = controllers::names().filter(|name| *name != "persistentvolume-expander-controller");
            let spared: Vec<_> = others.filter(|name| !tested.contains(name)).collect();
            assert!(spared.is_empty(), "{spared:?}");
        }
    };
}

mod stands {
    stand! {
        workloads: replica_set, adoption, replication, deployment, recreation, stateful_set, daemon_set, job, indexed_job, cron_job, cron_job_under_way,
            ttl_after_finished, autoscaler, disruption;
        cluster: namespace, garbage, quota, pod_gc, out_of_service, node_ttl, node_ipam, node_lifecycle, cluster_roles, storage_migration, validating_policy,
            service_account, resource_claim, device_taint;
        network: endpoints, headless, endpoint_slices, mirrored_slices, balancer, service_range;
        storage: binding, rivals, protection, class_protection, ephemeral, local_storage, attachment;
        certificates: approving, signing, cleaning, pod_requests, node_keys, root_ca, trust_bundle, token_cleaner, bootstrap_signer, account_token;
    }
}
