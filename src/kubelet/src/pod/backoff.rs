//! The pause between attempts that fail: 10 s, doubled up to 300 s, forgotten after ten quiet minutes.
//!
//! Models k8s.io/client-go/util/flowcontrol/backoff.go, v1.37, with the kubelet's settings.

use std::time::Duration;

use jiff::Timestamp;

use crate::time;

pub const INITIAL: Duration = Duration::from_secs(10);
pub const MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    delay: Duration,
    updated: Option<Timestamp>,
}

impl Backoff {
    /// When an attempt is allowed whose predecessor failed at `failed`; `None`: now.
    pub fn wait_until(&self, failed: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let updated = self.updated?;
        if time::since(now, updated) > 2 * MAX {
            return None;
        }
        let ready = time::after(failed, self.delay);
        (ready > now).then_some(ready)
    }

    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// An attempt is made; the next one waits longer. `failed` is when the one before it ended.
    pub fn advance(&mut self, failed: Timestamp) {
        let expired = self.updated.is_none_or(|u| time::since(failed, u) > 2 * MAX);
        self.delay = if expired { INITIAL } else { (self.delay * 2).min(MAX) };
        self.updated = Some(failed);
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_next_ones_wait_twice_as_long() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait_until(at(100), at(100)), None);
        let mut end = 100;
        for delay in [10, 20, 40, 80, 160, 300, 300] {
            backoff.advance(at(end));
            end += 1;
            assert_eq!(backoff.wait_until(at(end), at(end)), Some(at(end + delay)));
            end += delay;
            assert_eq!(backoff.wait_until(at(end - delay), at(end)), None);
        }
    }

    #[test]
    fn ten_quiet_minutes_forget_the_past() {
        let mut backoff = Backoff::default();
        backoff.advance(at(0));
        backoff.advance(at(10));
        assert_eq!(backoff.wait_until(at(1000), at(1000)), None);
        backoff.advance(at(1000));
        assert_eq!(backoff.delay(), INITIAL);
    }
}
