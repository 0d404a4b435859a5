//! The one source of time, so that tests can stand still: of the day, which somebody may set, and of what has passed, which only grows.
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use tokio::time::Instant;

#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Mutex<Fixed>>>);

struct Fixed {
    now: Timestamp,
    elapsed: Duration,
}

const POISON: &str = "no holder of the clock panics";

impl Clock {
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that moves only when told to.
    pub fn fixed(at: Timestamp) -> Self {
        Self(Some(Arc::new(Mutex::new(Fixed { now: at, elapsed: Duration::ZERO }))))
    }

    /// The time of the day, as objects have it. It may jump either way.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(fixed) => fixed.lock().expect(POISON).now,
            None => Timestamp::now(),
        }
    }

    /// Time since some moment of this process, for whatever waits or grows old in it: a set clock does not move it.
    pub fn elapsed(&self) -> Duration {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        match &self.0 {
            Some(fixed) => fixed.lock().expect(POISON).elapsed,
            None => Instant::now().saturating_duration_since(*BEGAN),
        }
    }

    /// [`Self::elapsed`] as a time, to compare with others of its kind only.
    pub fn steady(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.elapsed()).unwrap_or(SignedDuration::MAX);
        Timestamp::UNIX_EPOCH.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    /// Lets time pass on a fixed clock; the system's is left alone.
    pub fn advance(&self, by: Duration) {
        if let Some(fixed) = &self.0 {
            let mut fixed = fixed.lock().expect(POISON);
            fixed.elapsed = fixed.elapsed.saturating_add(by);
            fixed.now = fixed.now.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX);
        }
    }

    /// Sets a fixed clock to another time of the day, though no time has passed; the system's is left alone.
    pub fn set(&self, to: Timestamp) {
        if let Some(fixed) = &self.0 {
            fixed.lock().expect(POISON).now = to;
        }
    }

    /// Now, in the whole seconds that `metav1.Time` keeps.
    pub fn time(&self) -> Time {
        Time(Timestamp::from_second(self.now().as_second()).expect("a second of a valid time is valid"))
    }

    pub fn micro_time(&self) -> MicroTime {
        MicroTime(Timestamp::from_microsecond(self.now().as_microsecond()).expect("a microsecond of a valid time is valid"))
    }
}
