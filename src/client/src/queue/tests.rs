use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test(start_paused = true)]
async fn an_item_added_twice_comes_once() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.add("b");
    queue.add("a");
    assert_eq!(queue.get().await, Some("a"));
    assert_eq!(queue.get().await, Some("b"));
    assert!(tokio::time::timeout(ms(100), queue.get()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_item_added_while_worked_on_comes_again_after_done() {
    let queue = WorkQueue::new();
    queue.add("a");
    assert_eq!(queue.get().await, Some("a"));
    queue.add("a");
    assert!(tokio::time::timeout(ms(100), queue.get()).await.is_err());
    queue.done(&"a");
    assert_eq!(queue.get().await, Some("a"));
}

#[tokio::test(start_paused = true)]
async fn of_two_delays_the_shorter_holds_and_neither_comes_twice() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after("a", ms(500));
    queue.add_after("a", ms(200));
    queue.add_after("a", ms(900));
    assert_eq!(queue.get().await, Some("a"));
    assert_eq!(start.elapsed(), ms(200));
    queue.done(&"a");
    assert!(tokio::time::timeout(ms(2000), queue.get()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_shorter_delay_wakes_a_worker_that_sleeps_for_a_longer_one() {
    let queue = WorkQueue::new();
    queue.add_after("late", ms(5000));
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { queue.get().await }
    });
    tokio::time::sleep(ms(10)).await;
    queue.add_after("early", ms(20));
    let start = Instant::now();
    assert_eq!(worker.await.unwrap(), Some("early"));
    assert_eq!(start.elapsed(), ms(20));
}

#[tokio::test(start_paused = true)]
async fn failures_double_the_delay_until_forgotten() {
    let queue = WorkQueue::new();
    let mut last = Duration::ZERO;
    for _ in 0..6 {
        let start = Instant::now();
        queue.add_rate_limited("a");
        queue.get().await;
        queue.done(&"a");
        assert!(start.elapsed() > last, "{:?} after {last:?}", start.elapsed());
        last = start.elapsed();
    }
    assert!(last >= ms(160) && last < ms(180), "{last:?}");
    queue.forget(&"a");
    assert_eq!(queue.failures(&"a"), 0);
}

#[tokio::test(start_paused = true)]
async fn shut_down_ends_all_workers_after_what_is_ready() {
    let queue = WorkQueue::new();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                while let Some(item) = queue.get().await {
                    queue.done(&item);
                }
            })
        })
        .collect();
    queue.add("a");
    queue.add_after("never", ms(1000));
    queue.shut_down();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_tells_how_long_items_wait_and_are_worked_on() {
    let queue = WorkQueue::named("told");
    queue.add("a");
    queue.add("b");
    queue.add_after("c", ms(50_000));
    tokio::time::advance(ms(5)).await;
    assert_eq!(queue.get().await, Some("a"));
    tokio::time::advance(ms(500)).await;
    let page = metrics_page();
    let has = |line: &str| assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    has("workqueue_adds_total{name=\"told\"} 2");
    has("workqueue_depth{name=\"told\"} 1");
    has("workqueue_retries_total{name=\"told\"} 1");
    has("workqueue_unfinished_work_seconds{name=\"told\"} 0.5");
    has("workqueue_longest_running_processor_seconds{name=\"told\"} 0.5");
    has("workqueue_queue_duration_seconds_bucket{name=\"told\",le=\"0.001\"} 0");
    has("workqueue_queue_duration_seconds_bucket{name=\"told\",le=\"0.01\"} 1");
    has("workqueue_queue_duration_seconds_count{name=\"told\"} 1");
    queue.done(&"a");
    assert!(metrics_page().contains("workqueue_work_duration_seconds_sum{name=\"told\"} 0.5"));
    drop(queue);
    assert!(!metrics_page().contains("told"), "a queue that is gone tells nothing");
}

#[tokio::test(start_paused = true)]
async fn a_burst_leaves_no_room_behind() {
    let queue = WorkQueue::new();
    for i in 0..10_000 {
        queue.add(i);
        queue.add_after(-1 - i, ms(1));
        queue.add_rate_limited(i);
    }
    for _ in 0..20_000 {
        let item = queue.get().await.unwrap();
        queue.forget(&item);
        queue.done(&item);
    }
    while let Ok(item) = tokio::time::timeout(ms(100), queue.get()).await {
        queue.done(&item.unwrap());
    }
    let state = queue.shared.state.lock().unwrap();
    let rooms = [state.ready.capacity(), state.dirty.capacity(), state.due.capacity(), state.failures.capacity(), state.queued_at.capacity()];
    assert!(rooms.iter().all(|room| *room < 2000), "{rooms:?}");
}
