//! How many pods wait, and in which queue, for the metrics page.
//!
//! Models pkg/scheduler/metrics/metrics.go `pendingPods`, v1.37; queues of pod groups are left out.
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Upstream's names.
const QUEUES: [&str; 4] = ["active", "backoff", "unschedulable", "gated"];

/// As of the loop's last turn.
#[derive(Clone, Default)]
pub struct Pending(Arc<[AtomicUsize; QUEUES.len()]>);

impl Pending {
    pub(super) fn set(&self, numbers: [usize; QUEUES.len()]) {
        self.0.iter().zip(numbers).for_each(|(kept, number)| kept.store(number, Ordering::Relaxed));
    }

    /// Prometheus' text format.
    pub fn page(&self) -> String {
        let mut out = String::from(
            "# HELP scheduler_pending_pods [STABLE] Number of pending pods, by the queue type.\n# TYPE scheduler_pending_pods gauge\n",
        );
        for (queue, number) in QUEUES.iter().zip(&*self.0) {
            let _ = writeln!(out, "scheduler_pending_pods{{queue=\"{queue}\"}} {}", number.load(Ordering::Relaxed));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_its_line() {
        let pending = Pending::default();
        pending.set([4, 3, 2, 1]);
        let page = pending.page();
        for line in ["{queue=\"active\"} 4", "{queue=\"backoff\"} 3", "{queue=\"unschedulable\"} 2", "{queue=\"gated\"} 1"] {
            assert!(page.contains(&format!("scheduler_pending_pods{line}\n")), "{page}");
        }
    }
}
