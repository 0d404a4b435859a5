//! How many requests run and wait at once.
//!
//! Models k8s.io/apiserver/pkg/server/filters/maxinflight.go: the most of the last second, by kind of request.
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use super::text;

/// The most of one second; which one stands in the upper half.
#[derive(Default)]
struct Peak {
    now: AtomicU32,
    most: AtomicU64,
}

impl Peak {
    fn enter(&self, second: u32) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        // A later second is larger whatever its count, so the larger one of both is always right.
        self.most.fetch_max((u64::from(second) << 32) | u64::from(now), Ordering::Relaxed);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    fn read(&self, second: u32) -> u32 {
        let now = self.now.load(Ordering::Relaxed);
        let most = self.most.load(Ordering::Relaxed);
        let is_recent = (most >> 32) as u32 + 1 >= second;
        if is_recent { now.max(most as u32) } else { now }
    }
}

/// By kind: those that only read, and those that change something.
pub struct Load {
    began: Instant,
    running: [Peak; 2],
    waiting: [Peak; 2],
}

impl Default for Load {
    fn default() -> Self {
        Self { began: Instant::now(), running: Default::default(), waiting: Default::default() }
    }
}

/// Counts while it lives.
pub struct Counted<'l>(&'l Peak);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Load {
    fn second(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    fn count<'l>(&self, peaks: &'l [Peak; 2], verb: &str) -> Counted<'l> {
        let reads = matches!(verb, "get" | "list" | "watch" | "head");
        let peak = &peaks[usize::from(!reads)];
        peak.enter(self.second());
        Counted(peak)
    }

    /// A request runs.
    pub fn runs(&self, verb: &str) -> Counted<'_> {
        self.count(&self.running, verb)
    }

    /// A request waits for its turn.
    pub fn waits(&self, verb: &str) -> Counted<'_> {
        self.count(&self.waiting, verb)
    }

    pub fn render(&self, out: &mut String) {
        let second = self.second();
        for (name, help, peaks) in [
            (
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
                &self.running,
            ),
            (
                "apiserver_current_inqueue_requests",
                "Maximal number of queued requests in this apiserver per request kind in last second.",
                &self.waiting,
            ),
        ] {
            text::head(out, name, "gauge", help);
            for (kind, peak) in ["readOnly", "mutating"].into_iter().zip(peaks) {
                text::sample(out, name, &format!("request_kind=\"{kind}\""), peak.read(second));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_a_second_is_shown_until_the_next_one_is_over() {
        let peak = Peak::default();
        peak.enter(3);
        peak.enter(3);
        peak.leave();
        assert_eq!((peak.read(3), peak.read(4), peak.read(5)), (2, 2, 1));
        peak.enter(5);
        peak.leave();
        peak.leave();
        assert_eq!((peak.read(5), peak.read(7)), (2, 0));
    }
}
