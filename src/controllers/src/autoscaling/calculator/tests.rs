//! Cases of pkg/controller/podautoscaler/replica_calculator_test.go.
use serde_json::json;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

/// What a pod is like: `ready`, `unready` (never was), `hot` (ready, but measured before), `pending`, `failed`, `deleted`.
#[derive(Clone, Copy)]
enum Is {
    Ready,
    Unready,
    Hot,
    Pending,
    Failed,
    Deleted,
}
use Is::{Deleted, Failed, Hot, Pending, Ready, Unready};

fn pod(n: usize, is: Is, request: Option<i64>, started: i64) -> Arc<Pod> {
    let requests = request.map_or(json!({}), |r| json!({"cpu": format!("{r}m"), "memory": r.to_string()}));
    let phase = match is {
        Pending => "Pending",
        Failed => "Failed",
        _ => "Running",
    };
    let status = if matches!(is, Unready) { "False" } else { "True" };
    let changed = match is {
        Hot => at(-5),
        Unready => at(started),
        _ => at(-120),
    };
    let mut pod = json!({"metadata": {"name": format!("p{n}")}, "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]},
        "status": {"phase": phase, "startTime": at(started).to_string(), "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": changed.to_string()}]}});
    if matches!(is, Deleted) {
        pod["metadata"]["deletionTimestamp"] = json!(at(0).to_string());
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

struct Case<'a> {
    current: i32,
    pods: &'a [Is],
    /// In thousandths, by pod; `None`: not measured.
    levels: &'a [Option<i64>],
    request: i64,
    resource: &'a str,
    started: i64,
    tolerances: Tolerances,
}

const CASE: Case<'static> = Case { current: 3, pods: &[Ready, Ready, Ready], levels: &[], request: 1000, resource: "cpu", started: -180, tolerances: Tolerances { down: 0.1, up: 0.1 } };

impl Case<'_> {
    fn ask<T>(&self, with: impl FnOnce(Ground<'_>, Samples) -> T) -> T {
        let pods: Vec<_> = self.pods.iter().enumerate().map(|(n, is)| pod(n, *is, Some(self.request), self.started)).collect();
        let samples = self.levels.iter().enumerate().filter_map(|(n, level)| {
            Some((format!("p{n}"), Sample { value: (*level)?, timestamp: at(0), window: Duration::from_secs(60) }))
        });
        let ground = Ground {
            current: self.current,
            tolerances: self.tolerances,
            pods: &pods,
            now: at(0),
            cpu_initialization: Duration::from_secs(120),
            initial_readiness_delay: Duration::from_secs(10),
        };
        with(ground, samples.collect())
    }

    /// Replicas, percent and usage per pod.
    #[track_caller]
    fn utilization(&self, target: i32, expect: Result<(i32, i32, i64), &str>) {
        let found = self.ask(|ground, samples| ground.by_utilization(samples, self.resource, "", target));
        let found = found.map(|a| (a.replicas, a.utilization.unwrap(), a.usage));
        assert_eq!(found, expect.map_err(str::to_owned));
    }

    #[track_caller]
    fn amount(&self, target: i64, expect: Result<(i32, i64), &str>) {
        let found = self.ask(|ground, samples| ground.by_amount(samples, self.resource, target)).map(|a| (a.replicas, a.usage));
        assert_eq!(found, expect.map_err(str::to_owned));
    }
}

fn all(levels: &[i64]) -> Vec<Option<i64>> {
    levels.iter().copied().map(Some).collect()
}

#[test]
fn every_error_has_its_words() {
    Case { current: 4, pods: &[], levels: &all(&[100]), ..CASE }.utilization(50, Err("no pods returned by selector while calculating replica count"));
    Case { current: 1, pods: &[Pending], levels: &all(&[1000]), ..CASE }.utilization(50, Err("did not receive metrics for targeted pods (pods might be unready)"));
    Case { request: 0, levels: &all(&[1, 2, 3]), ..CASE }.utilization(50, Err("no metrics returned matched known pods"));
    let without = [pod(0, Ready, None, -180)];
    assert_eq!(requests(&without, "", "cpu"), Err("missing request for cpu in container c of Pod p0".to_owned()));
    assert_eq!(requests(&without, "x", "cpu"), Err("container x not found in Pod p0".to_owned()));
}

#[test]
fn utilization_scales_by_its_distance_from_the_target() {
    Case { levels: &all(&[300, 500, 700]), ..CASE }.utilization(30, Ok((5, 50, 500)));
    Case { current: 5, pods: &[Ready; 5], levels: &all(&[100, 300, 500, 250, 250]), ..CASE }.utilization(50, Ok((3, 28, 280)));
    // Within the tolerance: both ways.
    Case { levels: &all(&[1010, 1030, 1020]), request: 900, ..CASE }.utilization(100, Ok((4, 113, 1020)));
    Case { levels: &all(&[1010, 1030, 1020]), request: 1000, ..CASE }.utilization(100, Ok((3, 102, 1020)));
    Case { tolerances: Tolerances { down: 0.1, up: 0.2 }, levels: &all(&[1010, 1030, 1020]), request: 900, ..CASE }.utilization(100, Ok((3, 113, 1020)));
}

#[test]
fn pods_that_are_not_ready_or_go_do_not_count() {
    // Hot: started lately, and measured over a time when it was not ready.
    Case { pods: &[Ready, Unready, Unready], levels: &all(&[100, 500, 700]), started: -60, ..CASE }.utilization(30, Ok((1, 10, 100)));
    Case { current: 3, pods: &[Hot, Ready, Ready], levels: &all(&[0, 500, 700]), started: -60, ..CASE }.utilization(30, Ok((4, 60, 600)));
    Case { current: 4, pods: &[Unready, Ready, Ready, Unready], levels: &all(&[400, 500, 700, 800]), started: -60, ..CASE }.utilization(30, Ok((4, 60, 600)));
    Case { current: 2, pods: &[Ready, Ready, Failed, Deleted], levels: &all(&[500, 700, 9000, 9000]), ..CASE }.utilization(50, Ok((3, 60, 600)));
    Case { current: 3, pods: &[Ready, Pending, Pending], levels: &[Some(950), None, None], ..CASE }.utilization(70, Ok((3, 95, 950)));
    // Memory knows no start.
    Case { pods: &[Unready; 3], levels: &all(&[300, 500, 700]), resource: "memory", request: 1, started: -60, ..CASE }.utilization(30, Ok((5, 50, 500)));
}

#[test]
fn what_is_missing_holds_back() {
    // On the way up it uses nothing, on the way down all.
    Case { current: 3, pods: &[Ready; 3], levels: &[Some(1000), Some(1000), None], ..CASE }.utilization(70, Ok((3, 100, 1000)));
    Case { current: 2, pods: &[Ready; 2], levels: &[Some(1000), None], ..CASE }.utilization(50, Ok((2, 100, 1000)));
    Case { current: 4, pods: &[Ready; 4], levels: &[Some(100), Some(100), Some(100), None], ..CASE }.utilization(50, Ok((3, 10, 100)));
    Case { current: 2, pods: &[Ready; 2], levels: &[Some(400), None], ..CASE }.utilization(100, Ok((2, 40, 400)));
    Case { current: 6, pods: &[Ready; 6], levels: &[Some(100), Some(100), Some(100), Some(100), Some(100), None], ..CASE }.utilization(200, Ok((2, 10, 100)));
}

#[test]
fn amounts_scale_by_their_mean() {
    fn plain<'a>(current: i32, pods: &'a [Is], levels: &'a [Option<i64>]) -> Case<'a> {
        Case { current, pods, levels, resource: "", ..CASE }
    }
    plain(3, &[Ready, Ready, Ready], &all(&[20_000, 10_000, 30_000])).amount(15_000, Ok((4, 20_000)));
    plain(5, &[Ready; 5], &all(&[12_000; 5])).amount(20_000, Ok((3, 12_000)));
    plain(3, &[Ready, Ready, Pending], &[Some(50_000), Some(15_000), None]).amount(15_000, Ok((5, 32_500)));
    plain(4, &[Ready; 4], &[Some(20_000), Some(19_000), None, Some(21_000)]).amount(15_000, Ok((4, 20_000)));
    plain(3, &[], &[]).amount(1, Err("no pods returned by selector while calculating replica count"));
}

#[test]
fn wholes_count_ready_pods_and_start_from_zero_alone() {
    let whole = |current, pods, usage, target| Case { current, pods, ..CASE }.ask(|ground, _| ground.by_whole(usage, target)).map(|a| (a.replicas, a.usage));
    assert_eq!(whole(3, &[Ready; 3], 20_000, 15_000), Ok((4, 20_000)));
    assert_eq!(whole(3, &[Ready, Ready, Unready], 20_000, 10_000), Ok((4, 20_000)));
    assert_eq!(whole(3, &[Ready; 3], 10_500, 10_000), Ok((3, 10_500)));
    assert_eq!(whole(0, &[], 30_000, 10_000), Ok((3, 30_000)));
    assert_eq!(whole(0, &[], 0, 10_000), Ok((0, 0)));
    assert_eq!(whole(3, &[Ready; 3], i64::MAX, 1), Ok((i32::MAX, i64::MAX)));
    assert_eq!(whole(1, &[], 2, 1), Err("unable to calculate ready pods: no pods returned by selector while calculating replica count".to_owned()));
}

#[test]
fn shares_are_of_the_replicas_that_there_are() {
    let share = |usage, target, replicas| {
        let a = by_share(usage, target, replicas, CASE.tolerances);
        (a.replicas, a.usage)
    };
    assert_eq!(share(8600, 2150, 3), (4, 2867));
    assert_eq!(share(8600, 2867, 3), (3, 2867));
    assert_eq!(share(6000, 1000, 10), (6, 600));
    assert_eq!(share(i64::MAX, 1, 3), (i32::MAX, i64::MAX));
}

#[test]
fn one_container_or_the_pod_itself_may_be_what_counts() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}}, {"name": "b", "resources": {"requests": {"cpu": "200m"}}}],
        "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}}, {"name": "i"}]}}))
    .unwrap();
    assert_eq!((request(&pod, "", "cpu"), request(&pod, "b", "cpu")), (Ok(350), Ok(200)));
    let mut level = pod;
    level.spec.as_mut().unwrap().resources = serde_json::from_value(json!({"requests": {"cpu": "1"}})).unwrap();
    assert_eq!((request(&level, "", "cpu"), request(&level, "b", "cpu")), (Ok(1000), Ok(200)));
    assert_eq!(request(&level, "", "memory"), Err("missing pod-level request for memory in Pod p".to_owned()));
}
