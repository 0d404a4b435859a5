//! Decides what becomes of an event: written, counted up, combined with others, or dropped.
//!
//! What is remembered is found by a hash of what identifies it, and of an event's name only the moment: the texts are many times as long. It is
//! forgotten when it changes nothing any more, so that a burst of events leaves nothing behind that outlives them.
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;

use super::{Moment, event_name};

/// Sources and objects remembered, as upstream's LRU caches; the oldest goes first.
const REMEMBERED: usize = 4096;
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// So many different messages of one reason before they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// After so long without a change the API server has forgotten an event, as its `--event-ttl` is.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How often what is over is looked for.
pub(super) const SWEEP: SignedDuration = SignedDuration::from_mins(10);
const COMBINED: &str = "(combined from similar events): ";

pub(super) enum Verdict {
    Drop,
    /// `update`: the event of this name exists, raise its count.
    Write { event: Event, update: bool },
}

#[derive(Default)]
pub(super) struct Correlator {
    hasher: RandomState,
    swept: Timestamp,
    buckets: Cache<Bucket>,
    similar: Cache<Similar>,
    seen: Cache<Seen>,
}

/// What is remembered for a while.
trait Remembered {
    /// It says no more than its absence would.
    fn is_over(&self, now: Timestamp) -> bool;
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Bucket {
    fn tokens(&self, now: Timestamp) -> f64 {
        let passed = now.duration_since(self.at).as_secs_f64().max(0.0);
        (self.tokens + passed * REFILL_PER_SECOND).min(BURST)
    }
}

impl Remembered for Bucket {
    fn is_over(&self, now: Timestamp) -> bool {
        self.tokens(now) >= BURST
    }
}

struct Similar {
    /// Hashes of them.
    messages: Vec<u64>,
    at: Timestamp,
}

impl Remembered for Similar {
    fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) > SIMILAR_WINDOW
    }
}

#[derive(Clone, Copy)]
struct Seen {
    count: i32,
    /// Of the first one.
    moment: Moment,
    /// Of the last one, in seconds.
    at_second: i64,
}

impl Remembered for Seen {
    fn is_over(&self, now: Timestamp) -> bool {
        now.as_second().saturating_sub(self.at_second) > EVENT_LIFE.as_secs()
    }
}

impl Correlator {
    /// `moment`: the one in the event's name.
    pub fn correlate(&mut self, event: Event, moment: Moment, now: Timestamp) -> Verdict {
        if now.duration_since(self.swept) > SWEEP {
            self.sweep(now);
        }
        let (mut event, cache_key) = self.aggregate(event, now);
        let seen = self.seen.get(cache_key).copied().filter(|seen| seen.count > 0);
        let update = seen.is_some();
        if let Some(seen) = seen {
            event.metadata.name = Some(event_name(&event.involved_object, seen.moment));
            event.first_timestamp = Some(seen.moment.time());
            event.count = Some(seen.count.saturating_add(1));
        }
        let moment = seen.map_or(moment, |seen| seen.moment);
        self.seen.put(cache_key, Seen { count: event.count.unwrap_or(0), moment, at_second: now.as_second() });
        match self.takes_token(&event, now) {
            true => Verdict::Write { event, update },
            false => Verdict::Drop,
        }
    }

    /// Forgets what is over.
    pub fn sweep(&mut self, now: Timestamp) {
        self.swept = now;
        self.buckets.sweep(now);
        self.similar.sweep(now);
        self.seen.sweep(now);
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.len() + self.similar.len() + self.seen.len() == 0
    }

    fn aggregate(&mut self, mut event: Event, now: Timestamp) -> (Event, u64) {
        let group = [&event.type_, &event.reason, &event.reporting_component, &event.reporting_instance].map(text);
        let group_key = self.hasher.hash_one((spam_key(&event), group));
        let full_key = self.hasher.hash_one((group_key, text(&event.involved_object.field_path), text(&event.message)));
        let message = self.hasher.hash_one(text(&event.message));
        let fresh = || Similar { messages: Vec::with_capacity(1), at: now };
        let mut similar = self.similar.take(group_key).unwrap_or_else(fresh);
        if similar.is_over(now) {
            similar = fresh();
        }
        if !similar.messages.contains(&message) {
            similar.messages.push(message);
        }
        similar.at = now;
        let combine = similar.messages.len() >= SIMILAR_MAX;
        if combine {
            // Which message goes does not matter; their number stays at its bound.
            similar.messages.remove(0);
        }
        self.similar.put(group_key, similar);
        if !combine {
            return (event, full_key);
        }
        event.message = Some(format!("{COMBINED}{}", text(&event.message)));
        (event, group_key)
    }

    fn takes_token(&mut self, event: &Event, now: Timestamp) -> bool {
        let key = self.hasher.hash_one(spam_key(event));
        let known = self.buckets.take(key);
        let mut tokens = known.map_or(BURST, |bucket| bucket.tokens(now));
        let allowed = tokens >= 1.0;
        if allowed {
            tokens -= 1.0;
        }
        self.buckets.put(key, Bucket { tokens, at: now });
        allowed
    }
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// Source and object.
fn spam_key(event: &Event) -> [&str; 7] {
    let (source, about) = (event.source.as_ref(), &event.involved_object);
    let [component, host] = [source.map(|s| text(&s.component)), source.map(|s| text(&s.host))].map(Option::unwrap_or_default);
    let [kind, namespace, name, uid, version] = [&about.kind, &about.namespace, &about.name, &about.uid, &about.api_version].map(text);
    [component, host, kind, namespace, name, uid, version]
}

/// A map that forgets its oldest half when it is full.
struct Cache<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V: Remembered> Cache<V> {
    fn get(&self, key: u64) -> Option<&V> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    fn take(&mut self, key: u64) -> Option<V> {
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }

    fn put(&mut self, key: u64, value: V) {
        if self.young.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    fn sweep(&mut self, now: Timestamp) {
        for half in [&mut self.young, &mut self.old] {
            half.retain(|_, value| !value.is_over(now));
            half.shrink_to_fit();
        }
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        Event {
            reason: Some("Failed".to_owned()),
            message: Some(message.to_owned()),
            count: Some(1),
            ..Default::default()
        }
    }

    impl Correlator {
        /// An event that comes at this moment, under the name that it has then.
        fn correlate_at(&mut self, mut event: Event, nanosecond: i64, now: Timestamp) -> Verdict {
            event.metadata.name = Some(event_name(&event.involved_object, Moment(nanosecond)));
            self.correlate(event, Moment(nanosecond), now)
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
        let mut about_a_pod = event("a");
        about_a_pod.involved_object.name = Some("pod".to_owned());
        let (first, update) = write(correlator.correlate_at(about_a_pod.clone(), 5_000_000_007, now));
        assert_eq!((first.count, update, first.metadata.name.as_deref()), (Some(1), false, Some("pod.12a05f207")));
        let (second, update) = write(correlator.correlate_at(about_a_pod, 9_000_000_000, now));
        assert_eq!((second.count, update, second.metadata.name), (Some(2), true, first.metadata.name));
        // Should the server have forgotten it, it is written anew, as old as it is.
        assert_eq!(second.first_timestamp.unwrap().0, Timestamp::from_second(5).unwrap());
    }

    #[test]
    fn the_tenth_similar_event_is_combined() {
        let (mut correlator, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        for n in 0..9 {
            let (event, _) = write(correlator.correlate_at(event(&n.to_string()), 1, now));
            assert!(!event.message.unwrap().starts_with(COMBINED));
        }
        let (tenth, update) = write(correlator.correlate_at(event("9"), 1, now));
        assert_eq!((tenth.message.as_deref(), update), (Some("(combined from similar events): 9"), false));
        let (eleventh, update) = write(correlator.correlate_at(event("10"), 1, now));
        assert_eq!((eleventh.count, update), (Some(2), true));
    }

    #[test]
    fn a_flood_is_cut_after_the_burst_and_refilled_slowly() {
        let (mut correlator, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        let written = (0..40).filter(|_| matches!(correlator.correlate_at(event("a"), 1, now), Verdict::Write { .. })).count();
        assert_eq!(written, 25);
        let later = now + SignedDuration::from_secs(301);
        assert!(matches!(correlator.correlate_at(event("a"), 1, later), Verdict::Write { .. }));
        assert!(matches!(correlator.correlate_at(event("a"), 1, later), Verdict::Drop));
    }

    #[test]
    fn what_is_remembered_of_an_event_for_an_hour_is_a_few_numbers() {
        assert!(size_of::<(u64, Seen)>() <= 32);
    }

    #[test]
    fn what_changes_nothing_any_more_is_forgotten() {
        let (mut correlator, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        let mut all: Vec<Event> = (0..100).map(|i| event(&i.to_string())).collect();
        for (i, event) in all.iter_mut().enumerate() {
            event.involved_object.name = Some(i.to_string());
            assert!(matches!(correlator.correlate_at(event.clone(), 1, now), Verdict::Write { update: false, .. }));
        }
        let counts = |c: &Correlator| (c.buckets.len(), c.similar.len(), c.seen.len());
        assert_eq!(counts(&correlator), (100, 100, 100));
        correlator.sweep(now + SignedDuration::from_mins(4));
        assert_eq!(counts(&correlator), (100, 100, 100), "four minutes are no token");
        correlator.sweep(now + SignedDuration::from_mins(11));
        assert_eq!(counts(&correlator), (0, 0, 100), "their events are there");
        let again = correlator.correlate_at(all[0].clone(), 1, now + SignedDuration::from_mins(30));
        assert!(matches!(again, Verdict::Write { update: true, .. }));
        correlator.sweep(now + SignedDuration::from_mins(61));
        assert_eq!(counts(&correlator), (0, 0, 1), "it was written half an hour ago");
        correlator.sweep(now + SignedDuration::from_hours(2));
        assert!(correlator.is_empty());
    }
}
