//! The one source of wall-clock time, so that tests can stand still.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Mutex<Timestamp>>>);

impl Clock {
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that moves only when told to.
    pub fn fixed(at: Timestamp) -> Self {
        Self(Some(Arc::new(Mutex::new(at))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(fixed) => *fixed.lock().expect("no holder of the clock panics"),
            None => Timestamp::now(),
        }
    }

    /// Moves a fixed clock forward; the system's is left alone.
    pub fn advance(&self, by: Duration) {
        if let Some(fixed) = &self.0 {
            let mut at = fixed.lock().expect("no holder of the clock panics");
            *at = at.saturating_add(jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX)).unwrap_or(Timestamp::MAX);
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
