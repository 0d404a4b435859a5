//! Follows a store through its hook and knows afterwards whether anything was told twice, wrongly, or not at all.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use store::{Event, EventKind, Range, Revision, Store, Written};

#[derive(Clone, Default)]
pub struct Checker(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    told: Vec<Event>,
    acknowledged: Vec<(Revision, String, Option<String>)>,
}

impl Checker {
    pub fn follow(store: &dyn Store) -> Self {
        let checker = Self::default();
        let state = checker.0.clone();
        store.subscribe(Box::new(move |events| state.lock().unwrap().told.extend(events.iter().cloned())));
        checker
    }

    /// `value`: `None` for a deletion.
    pub fn acknowledged(&self, key: &str, value: Option<&str>, written: &Written) {
        let mut state = self.0.lock().unwrap();
        let is_told = state.told.iter().rev().any(|event| event.revision == written.revision);
        assert!(is_told, "{key} at {} was acknowledged before it was told", written.revision);
        state.acknowledged.push((written.revision, key.to_owned(), value.map(str::to_owned)));
    }

    pub fn told(&self) -> usize {
        self.0.lock().unwrap().told.len()
    }

    /// The whole story against itself, against what was acknowledged, and against what is there now.
    pub async fn check(&self, store: &dyn Store) -> usize {
        let now = store.range(Range::prefix("/")).await.unwrap();
        let state = self.0.lock().unwrap();
        let mut present: HashMap<Arc<str>, &Event> = HashMap::new();
        let mut by_revision: HashMap<Revision, &Event> = HashMap::new();
        let mut last = Revision::default();
        for event in &state.told {
            assert!(event.revision > last, "{} was told after {last}", event.revision);
            last = event.revision;
            by_revision.insert(event.revision, event);
            let before = present.get(&event.key);
            let (told, known) = (event.previous.as_ref().map(|kv| kv.mod_revision), before.map(|event| event.revision));
            assert_eq!(told, known, "something between was not told: {event:?}");
            match event.kind {
                EventKind::Put { created } => {
                    assert_eq!(created, before.is_none(), "{event:?}");
                    present.insert(event.key.clone(), event);
                }
                EventKind::Delete => {
                    let before = present.remove(&event.key).unwrap_or_else(|| panic!("never there: {event:?}"));
                    assert_eq!(before.value, event.value);
                }
            }
        }
        for (revision, key, value) in &state.acknowledged {
            let event = by_revision.get(revision).unwrap_or_else(|| panic!("{key} at {revision} was acknowledged and is lost"));
            assert_eq!(event.key.as_ref(), key);
            match value {
                Some(value) => assert_eq!(event.value, value.as_bytes()),
                None => assert_eq!(event.kind, EventKind::Delete),
            }
        }
        assert_eq!(now.items.len(), present.len());
        for item in &now.items {
            let event = present.get(&item.key).unwrap_or_else(|| panic!("{} is there and was not told", item.key));
            assert_eq!((item.mod_revision, &item.value, item.create_revision), (event.revision, &event.value, event.create_revision));
        }
        state.acknowledged.len()
    }
}
