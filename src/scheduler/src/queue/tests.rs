use super::*;
use crate::config::SchedulerConfig;

fn pod(name: &str, priority: i32, gates: &[&str]) -> Arc<PodInfo> {
    let gates: Vec<_> = gates.iter().map(|g| serde_json::json!({"name": g})).collect();
    let spec = serde_json::json!({"containers": [], "priority": priority, "schedulingGates": gates});
    let object = serde_json::json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": spec});
    Arc::new(PodInfo::new(&serde_json::from_value(object).unwrap()))
}

fn queue() -> Queue {
    Queue::new(Arc::new(SchedulerConfig::default().profiles(&Default::default())), Backoff::default(), Box::new(|_| false))
}

fn by(queue: &Queue, name: &str) -> Rejectors {
    let filter = queue.profiles[0].filters.iter().position(|f| f.name() == name).unwrap();
    Rejectors { filters: BTreeSet::from([filter]), extender: false }
}

fn deleted(pod: &PodInfo) -> ClusterEvent<'_> {
    ClusterEvent::pod_deleted(pod)
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_waits_for_an_event_that_helps() {
    let mut queue = queue();
    queue.put(pod("low", 0, &[]), 0, Instant::now());
    queue.put(pod("high", 5, &[]), 0, Instant::now());
    assert_eq!(queue.pop().unwrap().0.key.name, "high");
    let (low, _) = queue.pop().unwrap();
    let rejectors = by(&queue, "NodeResourcesFit");
    queue.unschedulable(&low.key, rejectors, Instant::now());
    let other = pod("other", 0, &[]);
    queue.happened(&ClusterEvent::pod_added(&other), None, Instant::now());
    assert!(queue.pop().is_none());
    queue.happened(&deleted(&other), Some(&low.key), Instant::now());
    assert!(queue.pop().is_none());
    queue.happened(&deleted(&other), None, Instant::now());
    assert_eq!(queue.next_timer(), Some(Instant::now() + Duration::from_secs(1)));
    assert_eq!(queue.pop().unwrap().0.key.name, "low", "with nothing else to do the back-off is cut short");
}

#[tokio::test(start_paused = true)]
async fn a_back_off_doubles_and_gives_way_to_pods_that_wait_for_nothing() {
    let mut queue = queue();
    let p = pod("p", 0, &[]);
    queue.put(p.clone(), 0, Instant::now());
    for _ in 0..3 {
        queue.pop().unwrap();
        queue.unschedulable(&p.key, Rejectors::default(), Instant::now());
        queue.happened(&deleted(&p), None, Instant::now());
    }
    assert_eq!(queue.next_timer(), Some(Instant::now() + Duration::from_secs(4)));
    queue.put(pod("q", -1, &[]), 0, Instant::now());
    assert_eq!(queue.pop().unwrap().0.key.name, "q");
    tokio::time::advance(Duration::from_secs(4)).await;
    queue.timers(Instant::now());
    assert_eq!(queue.active.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_nothing_helps_is_tried_after_five_minutes() {
    let mut queue = queue();
    let p = pod("p", 0, &[]);
    queue.put(p.clone(), 0, Instant::now());
    queue.pop().unwrap();
    let rejectors = by(&queue, "NodeName");
    queue.unschedulable(&p.key, rejectors, Instant::now());
    assert_eq!(queue.next_timer(), Some(Instant::now() + UNSCHEDULABLE_MAX));
    tokio::time::advance(UNSCHEDULABLE_MAX).await;
    queue.timers(Instant::now());
    assert!(queue.pop().is_some());
}

#[tokio::test(start_paused = true)]
async fn gates_hold_a_pod_back_until_the_last_is_gone() {
    let mut queue = queue();
    queue.put(pod("p", 0, &["a", "b"]), 0, Instant::now());
    queue.put(pod("p", 0, &["a"]), 0, Instant::now());
    assert!(queue.pop().is_none());
    queue.put(pod("p", 0, &[]), 0, Instant::now());
    assert!(queue.pop().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_preemptor_is_not_tried_before_its_victims_have_been_told_and_misses_no_event() {
    let mut queue = queue();
    let p = pod("p", 5, &[]);
    queue.put(p.clone(), 0, Instant::now());
    queue.pop().unwrap();
    queue.preempts(&p.uid);
    let rejectors = by(&queue, "NodeResourcesFit");
    queue.unschedulable(&p.key, rejectors, Instant::now());
    queue.happened(&deleted(&pod("victim", 0, &[])), None, Instant::now());
    assert!(queue.pop().is_none());
    queue.preempted(&p.key, &p.uid, false, Instant::now());
    assert!(queue.pop().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failed_pod_waits_out_its_back_off() {
    let mut queue = queue();
    let p = pod("p", 0, &[]);
    queue.failed(p.clone(), 0, Instant::now());
    assert!(queue.pop().is_none());
    tokio::time::advance(Duration::from_secs(1)).await;
    queue.timers(Instant::now());
    assert!(queue.pop().is_some());
    queue.failed(p, 0, Instant::now());
    assert_eq!(queue.next_timer(), Some(Instant::now() + Duration::from_secs(2)));
}
