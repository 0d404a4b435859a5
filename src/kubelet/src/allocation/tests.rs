use std::sync::mpsc;

use serde_json::{Value, json};

use super::*;

const NODE: Capacity = Capacity { cpu_milli: 2000, memory_bytes: 1 << 30, storage_bytes: 1 << 30, pods: 10 };

struct Bench {
    allocations: Allocations,
    events: mpsc::Receiver<String>,
    directory: tempfile::TempDir,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory)
}

fn open(directory: tempfile::TempDir) -> Bench {
    let (send, events) = mpsc::channel();
    let tell = move |pod: &Pod, _: bool, reason: &'static str, _: String| {
        let _ = send.send(format!("{} {reason}", uid(pod)));
    };
    Bench { allocations: Allocations::new(directory.path().to_owned(), Box::new(tell), NODE), events, directory }
}

fn pod(uid: &str, generation: i64, cpu: &str) -> Arc<Pod> {
    let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
    let pod: Value = json!({"metadata": {"uid": uid, "name": uid, "generation": generation}, "spec": {"containers": containers}});
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn cpu(pod: &Pod) -> String {
    let resources = pod.spec.as_ref().and_then(|s| s.containers[0].resources.clone()).expect("resources");
    resources.requests.expect("requests")["cpu"].0.clone()
}

impl Bench {
    fn conditions(&self, uid: &str) -> Vec<String> {
        let view = self.allocations.view(uid).expect("an entry");
        let shown = |c: PodCondition| format!("{} {} {}", c.type_, c.reason.unwrap_or_default(), c.observed_generation.unwrap_or(0));
        view.conditions.into_iter().map(shown).collect()
    }

    fn told(&self) -> Vec<String> {
        self.events.try_iter().collect()
    }
}

#[test]
fn a_pod_that_does_not_fit_is_turned_away() {
    let b = bench();
    assert!(b.allocations.admit(&pod("a", 1, "1500m"), false).is_ok());
    let refused = b.allocations.admit(&pod("b", 1, "600m"), false).expect_err("no room");
    assert_eq!((refused.reason.as_str(), refused.message.as_str()), ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000"));
    assert!(b.allocations.admit(&pod("c", 1, "600m"), true).is_ok(), "it was here before");
}

#[test]
fn a_resize_that_fits_is_allocated_at_once_and_one_that_does_not_waits_for_room() {
    let b = bench();
    for name in ["a", "b"] {
        b.allocations.admit(&pod(name, 1, "500m"), false).expect("room");
    }
    assert_eq!(cpu(&b.allocations.consider(&pod("a", 2, "1"))), "1");
    assert_eq!(b.conditions("a"), ["PodResizeInProgress  2"]);
    assert_eq!(cpu(&b.allocations.consider(&pod("b", 2, "1500m"))), "500m");
    assert_eq!(b.conditions("b"), ["PodResizePending Deferred 2"]);
    assert_eq!(b.told(), ["a ResizeStarted", "b ResizeDeferred"]);
    // Seen again, it is no news.
    b.allocations.consider(&pod("b", 2, "1500m"));
    assert!(b.told().is_empty());
    // What A gives back counts only once it is out of the kernel.
    let sizes = Sizes::of(&pod("a", 2, "1"));
    b.allocations.container_written("a", &sizes, "c", Part::Cpu);
    assert_eq!(b.allocations.settle("a", false), Some(2));
    b.allocations.consider(&pod("a", 3, "500m"));
    assert_eq!(b.conditions("b"), ["PodResizePending Deferred 2"]);
    b.allocations.container_written("a", &Sizes::of(&pod("a", 3, "500m")), "c", Part::Cpu);
    assert_eq!(b.conditions("b"), ["PodResizeInProgress  2"]);
    assert_eq!(cpu(&b.allocations.allocated(&pod("b", 2, "1500m"))), "1500m");
}

#[test]
fn a_pod_that_ends_makes_room_for_the_most_urgent() {
    let b = bench();
    b.allocations.admit(&pod("gone", 1, "1"), false).expect("room");
    let with_priority = |uid: &str, generation: i64, cpu: &str, priority: i32| {
        let mut pod = Pod::clone(&pod(uid, generation, cpu));
        pod.spec.get_or_insert_default().priority = Some(priority);
        Arc::new(pod)
    };
    for name in ["low", "high"] {
        b.allocations.admit(&pod(name, 1, "500m"), false).expect("room");
    }
    b.allocations.consider(&with_priority("low", 2, "1400m", 1));
    b.allocations.consider(&with_priority("high", 2, "1400m", 2));
    b.allocations.remove("gone");
    assert_eq!(b.conditions("high"), ["PodResizeInProgress  2"]);
    assert_eq!(b.conditions("low"), ["PodResizePending Deferred 2"]);
    // Taken back, it waits no more.
    b.allocations.consider(&with_priority("low", 3, "500m", 1));
    assert!(b.conditions("low").is_empty());
}

#[test]
fn a_restart_knows_what_was_allocated_and_what_was_done() {
    let b = bench();
    b.allocations.admit(&pod("a", 1, "500m"), false).expect("room");
    b.allocations.consider(&pod("a", 2, "1"));
    let b = open(b.directory);
    // Meanwhile it was resized again, beyond what there is.
    b.allocations.recover(&[pod("a", 3, "3")]);
    assert_eq!(cpu(&b.allocations.consider(&pod("a", 3, "3"))), "1");
    let view = b.allocations.view("a").expect("an entry");
    assert!(!view.allocated.agree_on(&view.actuated, "c"), "the first resize has not been actuated");
    assert_eq!(b.conditions("a"), ["PodResizePending Deferred 3"]);
}

#[test]
fn a_failure_is_told_once_and_keeps_the_generation_of_its_resize() {
    let b = bench();
    b.allocations.admit(&pod("a", 1, "500m"), false).expect("room");
    b.allocations.consider(&pod("a", 2, "1"));
    assert_eq!(b.allocations.failed("a", "no"), Some(2));
    assert_eq!(b.allocations.failed("a", "no"), None);
    assert_eq!(b.conditions("a"), ["PodResizeInProgress Error 2"]);
    b.allocations.settle("a", true);
    assert_eq!(b.conditions("a"), ["PodResizeInProgress Error 2"]);
}

#[test]
fn other_words_for_the_same_are_no_resize() {
    let b = bench();
    b.allocations.admit(&pod("a", 1, "1"), false).expect("room");
    b.allocations.consider(&pod("a", 2, "1000m"));
    assert!(b.conditions("a").is_empty() && b.told().is_empty());
}
