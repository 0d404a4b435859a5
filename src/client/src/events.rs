//! Events (core/v1) about what a component did, aggregated so that a failing loop does not flood the cluster.
//!
//! Models client-go tools/record (event.go, events_cache.go), v1.37: at most 25 events at once and then one in five minutes
//! for a source and object; after ten similar ones in ten minutes they are combined; an equal event raises a count.
mod correlator;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::IgnoredAny;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use self::correlator::{Correlator, SWEEP, Verdict};
use crate::backoff::jitter;
use crate::client::Client;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::object::{ApiResource, Kind, ObjectKey, object_reference};
use crate::patch::Patch;

/// Events waiting to be written; more are dropped, as upstream does, with a line in the log.
const QUEUE: usize = 1000;
const TRIES: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

/// Writes events in the background. Cheap to clone; never waits and never fails.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<(Event, Moment)>,
    source: Arc<EventSource>,
    clock: Clock,
}

impl EventRecorder {
    /// `component` as in upstream's events (`deployment-controller`, `kubelet` ...); `host` is the node, where there is one.
    pub fn new(client: &Client, component: &str, host: Option<&str>, clock: Clock) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(client.clone(), clock.clone(), receiver));
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        Self { sender, source: Arc::new(source), clock }
    }

    /// Records an event about `object`.
    pub fn record<K: Kind>(&self, object: &K, kind: EventType, reason: &str, message: impl Into<String>) {
        self.record_on(object_reference(object), kind, reason, message);
    }

    /// Records an event about what `about` names, which may be a part of an object (`fieldPath`).
    pub fn record_on(&self, about: ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        self.record_annotated(about, kind, reason, message, None);
    }

    pub fn record_annotated(
        &self,
        about: ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
        annotations: Option<std::collections::BTreeMap<String, String>>,
    ) {
        let (now, moment) = (self.clock.time(), Moment::next(&self.clock));
        let namespace = about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(&about, moment)),
                namespace: Some(namespace),
                annotations,
                ..Default::default()
            },
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            source: Some((*self.source).clone()),
            involved_object: about,
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            type_: Some(format!("{kind:?}")),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Default::default()
        };
        if let Err(error) = self.sender.try_send((event, moment)) {
            debug!(%error, reason, "event dropped");
        }
    }
}

/// When an event came, in nanoseconds: no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Moment(i64);

impl Moment {
    /// Two events of one instant, as a coarse clock or one that stands still makes them, are two events all the same.
    fn next(clock: &Clock) -> Self {
        static LAST: AtomicI64 = AtomicI64::new(0);
        let now = i64::try_from(clock.now().as_nanosecond()).unwrap_or(i64::MAX);
        let after = |last: i64| now.max(last.saturating_add(1));
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last))).unwrap_or_else(|last| last);
        Self(after(last))
    }

    /// As an object tells it: in whole seconds.
    fn time(self) -> Time {
        Time(Timestamp::from_second(self.0.div_euclid(1_000_000_000)).expect("so many nanoseconds are a valid time"))
    }
}

/// The object's name and the moment, as upstream names events.
fn event_name(about: &ObjectReference, moment: Moment) -> String {
    format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), moment.0)
}

async fn write_all(client: Client, clock: Clock, mut receiver: mpsc::Receiver<(Event, Moment)>) {
    let mut correlator = Correlator::default();
    loop {
        let event = if correlator.is_empty() {
            receiver.recv().await
        } else {
            match tokio::time::timeout(SWEEP.unsigned_abs(), receiver.recv()).await {
                Ok(event) => event,
                Err(_) => {
                    correlator.sweep(clock.now());
                    continue;
                }
            }
        };
        let Some((event, moment)) = event else { return };
        match correlator.correlate(event, moment, clock.now()) {
            Verdict::Drop => {}
            // What the server makes of it is not read: the name is ours, and a repetition names no version.
            Verdict::Write { event, update } => write(&client, event, update).await,
        }
    }
}

async fn write(client: &Client, event: Event, mut update: bool) {
    for attempt in 1..=TRIES {
        let result = match update {
            true => client.patch_at::<IgnoredAny>(&ApiResource::of::<Event>(), &ObjectKey::of(&event), &repeated(&event)).await,
            false => client.create_unread(&event).await,
        };
        match result {
            Ok(_) => return,
            // The server forgets events after an hour.
            Err(error) if update && error.is_not_found() => {
                update = false;
            }
            Err(error @ ApiError::Transport { .. }) if attempt < TRIES => {
                debug!(error = &error as &dyn std::error::Error, "cannot write an event yet");
                tokio::time::sleep(jitter(Duration::from_secs(if attempt == 1 { 1 } else { 10 }), 0.5)).await;
            }
            Err(error) => {
                // Events about objects of a namespace that is going away are refused; that is no news.
                if !error.is_namespace_terminating() && !error.is_not_found() && !error.is_already_exists() {
                    warn!(reason = event.reason, error = &error as &dyn std::error::Error, "event not written");
                }
                return;
            }
        }
    }
}

fn repeated(event: &Event) -> Patch {
    Patch::Strategic(serde_json::json!({
        "count": event.count,
        "lastTimestamp": event.last_timestamp,
        "message": event.message,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_instant_have_names_of_their_own() {
        let clock = Clock::fixed(Timestamp::now());
        let about = ObjectReference { name: Some("x".to_owned()), ..ObjectReference::default() };
        let names: std::collections::HashSet<String> = (0..3).map(|_| event_name(&about, Moment::next(&clock))).collect();
        assert_eq!(names.len(), 3);
    }
}
