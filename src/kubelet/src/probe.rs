//! Probes: the count of successes and failures ([`state`]), one attempt ([`attempt`]), and the task that repeats it.
//!
//! Models pkg/kubelet/prober/{worker,prober}.go, v1.37. A probe's interval is a timer that the API asks for.

pub mod attempt;
mod grpc;
pub mod state;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::attempt::Target;
use self::state::{Counter, Outcome, Verdict};
use crate::pod::event::Event;
use crate::time;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// One probe of one running instance.
pub struct Probing {
    pub kind: ProbeKind,
    pub probe: Probe,
    pub target: Arc<Target>,
    pub started_at: Timestamp,
    /// What the container counts as before the first result.
    pub ready: bool,
    pub events: mpsc::Sender<Event>,
    pub end: CancellationToken,
}

/// A container that is not ready yet is also asked between its periods, which the API allows, so that a program that listens
/// some milliseconds after its start need not wait for a period. Pauses double from this one; such failures are not counted.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Repeats the probe until cancelled; tells the pod's worker each result.
pub async fn run(probing: Probing) {
    let Probing { kind, probe, target, started_at, ready, events, end } = probing;
    let period = seconds(probe.period_seconds, 10);
    let timeout = seconds(probe.timeout_seconds, 1);
    let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
    let mut counter = Counter::new(kind, probe.failure_threshold.unwrap_or(3), probe.success_threshold.unwrap_or(1), ready);
    let mut due = tokio::time::Instant::now() + time::until(time::now(), time::after(started_at, delay));
    let mut next = due;
    let mut hurry = (kind == ProbeKind::Readiness && !ready && probe.success_threshold.unwrap_or(1) <= 1).then_some(FIRST_PAUSE);
    loop {
        tokio::select! {
            biased;
            () = end.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        let begun = tokio::time::Instant::now();
        let outcome = tokio::select! {
            () = end.cancelled() => return,
            outcome = target.attempt(&probe, timeout) => outcome,
        };
        if matches!(outcome, Outcome::Success | Outcome::Warning(_)) {
            hurry = None;
        } else if let Some(pause) = hurry.filter(|_| next < due) {
            next = due.min(begun + pause);
            hurry = Some(pause * 2);
            continue;
        }
        let verdict = counter.count(&outcome);
        let message = match &outcome {
            Outcome::Success => None,
            Outcome::Warning(text) => Some((false, text.clone())),
            Outcome::Failure(text) => Some((true, format!("{} probe failed: {text}", kind.title()))),
            Outcome::Unknown(text) => Some((true, format!("{} probe errored and resulted in unknown state: {text}", kind.title()))),
        };
        if verdict.is_some() || message.is_some() {
            let event = Event::Probed { container: target.container.clone(), id: target.container_id.clone(), kind, verdict, message };
            if events.send(event).await.is_err() {
                return;
            }
        }
        // A startup probe is done once passed; a failed liveness or startup probe waits for its container's end.
        let done = match (kind, verdict) {
            (ProbeKind::Startup, Some(_)) | (ProbeKind::Liveness, Some(Verdict::Failing)) => true,
            _ => false,
        };
        if done {
            return;
        }
        due = (begun + period).max(tokio::time::Instant::now());
        next = hurry.map_or(due, |pause| due.min(begun + pause));
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
}
