//! Decides what becomes of an event: written, counted up, combined with others, or dropped.
use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;

/// Sources and objects remembered, as upstream's LRU caches; the oldest goes first.
const REMEMBERED: usize = 4096;
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// So many different messages of one reason before they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_mins(10);
const COMBINED: &str = "(combined from similar events): ";

pub(super) enum Verdict {
    Drop,
    /// `update`: the event of this name exists, raise its count.
    Write { event: Event, update: bool },
}

#[derive(Default)]
pub(super) struct Correlator {
    buckets: Cache<Bucket>,
    similar: Cache<Similar>,
    seen: Cache<Seen>,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Similar {
    messages: HashSet<String>,
    at: Timestamp,
}

#[derive(Clone)]
struct Seen {
    count: i32,
    first: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    name: Option<String>,
}

impl Correlator {
    pub fn correlate(&mut self, event: Event, now: Timestamp) -> Verdict {
        let (mut event, cache_key) = self.aggregate(event, now);
        let seen = self.seen.get(&cache_key).cloned();
        let update = seen.as_ref().is_some_and(|s| s.count > 0);
        if let Some(seen) = seen.filter(|s| s.count > 0) {
            event.metadata.name = seen.name;
            event.first_timestamp = seen.first;
            event.count = Some(seen.count.saturating_add(1));
        }
        self.remember(cache_key, &event);
        match self.takes_token(&event, now) {
            true => Verdict::Write { event, update },
            false => Verdict::Drop,
        }
    }

    fn remember(&mut self, cache_key: String, event: &Event) {
        let seen = Seen {
            count: event.count.unwrap_or(0),
            first: event.first_timestamp.clone(),
            name: event.metadata.name.clone(),
        };
        self.seen.put(cache_key, seen);
    }

    fn aggregate(&mut self, mut event: Event, now: Timestamp) -> (Event, String) {
        let group_key = format!(
            "{}|{}|{}|{}|{}",
            spam_key(&event),
            text(&event.type_),
            text(&event.reason),
            text(&event.reporting_component),
            text(&event.reporting_instance)
        );
        let full_key = format!("{group_key}|{}|{}", text(&event.involved_object.field_path), text(&event.message));
        let fresh = || Similar { messages: HashSet::new(), at: now };
        let mut similar = self.similar.take(&group_key).unwrap_or_else(fresh);
        if now.duration_since(similar.at) > SIMILAR_WINDOW {
            similar = fresh();
        }
        similar.messages.insert(text(&event.message).to_owned());
        similar.at = now;
        let combine = similar.messages.len() >= SIMILAR_MAX;
        if combine {
            // Which message goes does not matter; the set stays at its bound.
            if let Some(any) = similar.messages.iter().next().cloned() {
                similar.messages.remove(&any);
            }
        }
        self.similar.put(group_key.clone(), similar);
        if !combine {
            return (event, full_key);
        }
        event.message = Some(format!("{COMBINED}{}", text(&event.message)));
        (event, group_key)
    }

    fn takes_token(&mut self, event: &Event, now: Timestamp) -> bool {
        let key = spam_key(event);
        let mut bucket = self.buckets.take(&key).unwrap_or(Bucket { tokens: BURST, at: now });
        let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed * REFILL_PER_SECOND).min(BURST);
        bucket.at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        self.buckets.put(key, bucket);
        allowed
    }
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// Source and object.
fn spam_key(event: &Event) -> String {
    let (source, about) = (event.source.clone().unwrap_or_default(), &event.involved_object);
    [&source.component, &source.host, &about.kind, &about.namespace, &about.name, &about.uid, &about.api_version]
        .map(|part| text(part).to_owned())
        .join("|")
}

/// A map that forgets its oldest half when it is full.
struct Cache<V> {
    young: HashMap<String, V>,
    old: HashMap<String, V>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V> Cache<V> {
    fn get(&self, key: &str) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn take(&mut self, key: &str) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    fn put(&mut self, key: String, value: V) {
        if self.young.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        Event {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(format!("pod.{message}")),
                ..Default::default()
            },
            reason: Some("Failed".to_owned()),
            message: Some(message.to_owned()),
            count: Some(1),
            ..Default::default()
        }
    }

    fn write(verdict: Verdict) -> (Event, bool) {
        match verdict {
            Verdict::Write { event, update } => (event, update),
            Verdict::Drop => panic!("dropped"),
        }
    }

    #[test]
    fn an_equal_event_raises_the_count_of_the_first() {
        let (mut correlator, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        let (first, update) = write(correlator.correlate(event("a"), now));
        assert_eq!((first.count, update), (Some(1), false));
        let mut again = event("a");
        again.metadata.name = Some("other".to_owned());
        let (second, update) = write(correlator.correlate(again, now));
        assert_eq!((second.count, update, second.metadata.name), (Some(2), true, first.metadata.name));
    }

    #[test]
    fn the_tenth_similar_event_is_combined() {
        let (mut correlator, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        for n in 0..9 {
            let (event, _) = write(correlator.correlate(event(&n.to_string()), now));
            assert!(!event.message.unwrap().starts_with(COMBINED));
        }
        let (tenth, update) = write(correlator.correlate(event("9"), now));
        assert_eq!((tenth.message.as_deref(), update), (Some("(combined from similar events): 9"), false));
        let (eleventh, update) = write(correlator.correlate(event("10"), now));
        assert_eq!((eleventh.count, update), (Some(2), true));
    }

    #[test]
    fn a_flood_is_cut_after_the_burst_and_refilled_slowly() {
        let (mut correlator, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        let written = (0..40).filter(|_| matches!(correlator.correlate(event("a"), now), Verdict::Write { .. })).count();
        assert_eq!(written, 25);
        let later = now + SignedDuration::from_secs(301);
        assert!(matches!(correlator.correlate(event("a"), later), Verdict::Write { .. }));
        assert!(matches!(correlator.correlate(event("a"), later), Verdict::Drop));
    }
}
