//! What work queues tell of themselves, under upstream's names.
//!
//! Models k8s.io/component-base/metrics/prometheus/workqueue/metrics.go, v1.37. A queue counts under its own lock; a page asks those that are
//! alive, so a controller that was started anew begins at zero, as a restarted process does.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, Weak};
use std::time::Duration;

/// Upper bounds in seconds, and as Go prints them.
const BUCKETS: [(f64, &str); 12] = [
    (1e-8, "1e-08"),
    (1e-7, "1e-07"),
    (1e-6, "1e-06"),
    (1e-5, "9.999999999999999e-06"),
    (1e-4, "9.999999999999999e-05"),
    (1e-3, "0.001"),
    (1e-2, "0.01"),
    (1e-1, "0.1"),
    (1.0, "1"),
    (10.0, "10"),
    (100.0, "100"),
    (1000.0, "1000"),
];

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// Below each bound, not summed up.
    counts: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Histogram {
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(at) = BUCKETS.iter().position(|(bound, _)| seconds <= *bound) {
            self.counts[at] += 1;
        }
        self.count += 1;
        self.seconds += seconds;
    }

    fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
        self.seconds += other.seconds;
    }

    fn write(&self, out: &mut String, metric: &str, name: &str) {
        let mut sum = 0;
        for ((_, bound), count) in BUCKETS.iter().zip(self.counts) {
            sum += count;
            let _ = writeln!(out, "{metric}_bucket{{name=\"{name}\",le=\"{bound}\"}} {sum}");
        }
        let _ = writeln!(out, "{metric}_bucket{{name=\"{name}\",le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(out, "{metric}_sum{{name=\"{name}\"}} {}", self.seconds);
        let _ = writeln!(out, "{metric}_count{{name=\"{name}\"}} {}", self.count);
    }
}

/// One queue at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    pub adds: u64,
    pub retries: u64,
    /// How long items waited for a worker, and workers had them.
    pub waited: Histogram,
    pub worked: Histogram,
    /// Filled in when somebody asks.
    pub depth: u64,
    pub unfinished: Duration,
    pub longest: Duration,
}

impl Numbers {
    fn merge(&mut self, other: &Self) {
        self.adds += other.adds;
        self.retries += other.retries;
        self.waited.merge(&other.waited);
        self.worked.merge(&other.worked);
        self.depth += other.depth;
        self.unfinished += other.unfinished;
        self.longest = self.longest.max(other.longest);
    }
}

pub(super) trait Source: Send + Sync {
    fn numbers(&self) -> Numbers;
}

static QUEUES: Mutex<Vec<(&'static str, Weak<dyn Source>)>> = Mutex::new(Vec::new());
const POISON: &str = "nothing panics while it holds the list";

pub(super) fn register(name: &'static str, queue: Weak<dyn Source>) {
    let mut queues = QUEUES.lock().expect(POISON);
    queues.retain(|(_, queue)| queue.strong_count() > 0);
    queues.push((name, queue));
}

/// The queues of this process, in the Prometheus text format.
pub fn page() -> String {
    let sources: Vec<_> = QUEUES.lock().expect(POISON).iter().filter_map(|(name, queue)| Some((*name, queue.upgrade()?))).collect();
    let mut all: BTreeMap<&str, Numbers> = BTreeMap::new();
    for (name, source) in sources {
        all.entry(name).or_default().merge(&source.numbers());
    }
    let mut out = String::with_capacity(all.len() * 3000);
    let mut plain = |metric: &str, kind: &str, help: &str, value: &dyn Fn(&Numbers) -> String| {
        let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
        for (name, numbers) in &all {
            let _ = writeln!(out, "{metric}{{name=\"{name}\"}} {}", value(numbers));
        }
    };
    plain("workqueue_adds_total", "counter", "Total number of adds handled by workqueue", &|n| n.adds.to_string());
    plain("workqueue_depth", "gauge", "Current depth of workqueue", &|n| n.depth.to_string());
    plain(
        "workqueue_longest_running_processor_seconds",
        "gauge",
        "How many seconds has the longest running processor for workqueue been running.",
        &|n| n.longest.as_secs_f64().to_string(),
    );
    plain("workqueue_retries_total", "counter", "Total number of retries handled by workqueue", &|n| n.retries.to_string());
    plain(
        "workqueue_unfinished_work_seconds",
        "gauge",
        "How many seconds of work has done that is in progress and hasn't been observed by work_duration.",
        &|n| n.unfinished.as_secs_f64().to_string(),
    );
    let mut histogram = |metric: &str, help: &str, value: &dyn Fn(&Numbers) -> Histogram| {
        let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} histogram");
        for (name, numbers) in &all {
            value(numbers).write(&mut out, metric, name);
        }
    };
    let waited = "How long in seconds an item stays in workqueue before being requested.";
    histogram("workqueue_queue_duration_seconds", waited, &|n| n.waited.clone());
    let worked = "How long in seconds processing an item from workqueue takes.";
    histogram("workqueue_work_duration_seconds", worked, &|n| n.worked.clone());
    out
}
