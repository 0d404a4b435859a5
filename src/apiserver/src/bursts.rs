//! Says when so much has passed through the server that it may have left free memory behind.
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What makes a burst. A cluster in which nothing happens takes hours for it.
const BURST_BYTES: u64 = 8 << 20;
/// What a request takes beside what it says and what it is answered.
const REQUEST_BYTES: u64 = 8 << 10;

#[derive(Default)]
pub struct Bursts {
    passed: AtomicU64,
    burst: Notify,
}

impl Bursts {
    /// A request with so many bytes, its answer's among them.
    pub fn passed(&self, bytes: u64) {
        let bytes = bytes + REQUEST_BYTES;
        let before = self.passed.fetch_add(bytes, Ordering::Relaxed);
        if before / BURST_BYTES != (before + bytes) / BURST_BYTES {
            self.burst.notify_one();
        }
    }

    /// Returns when there was a burst since this was asked last. For one who asks.
    pub async fn burst(&self) {
        self.burst.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn many_requests_or_a_large_one_are_a_burst_that_is_told_once() {
        let bursts = Bursts::default();
        (0..1000).for_each(|_| bursts.passed(100));
        assert!(bursts.burst().now_or_never().is_none());
        (0..100).for_each(|_| bursts.passed(100));
        assert!(bursts.burst().now_or_never().is_some() && bursts.burst().now_or_never().is_none());
        bursts.passed(3 * BURST_BYTES);
        bursts.passed(BURST_BYTES);
        assert!(bursts.burst().now_or_never().is_some() && bursts.burst().now_or_never().is_none());
    }
}
