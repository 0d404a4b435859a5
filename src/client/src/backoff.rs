//! Exponential back-off with jitter.
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A random number, good enough for jitter and name suffixes, not for secrets.
pub fn random() -> u64 {
    // Each RandomState has fresh keys, seeded from the operating system once per thread.
    RandomState::new().build_hasher().finish()
}

/// `base` lengthened by up to `factor` of itself.
pub fn jitter(base: Duration, factor: f64) -> Duration {
    let share = (random() >> 11) as f64 / (1u64 << 53) as f64;
    base.mul_f64(1.0 + share * factor)
}

/// Delays that double from `initial` to `max`, each with up to half of itself on top.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, failures: 0 }
    }

    pub fn next_delay(&mut self) -> Duration {
        let delay = self.initial.saturating_mul(2u32.saturating_pow(self.failures)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        jitter(delay, 0.5)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}
