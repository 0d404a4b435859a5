//! A subscriber's own queue of events, coalesced per object.
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::{Event, HandlerGuard, Informer};
use crate::object::{Kind, ObjectKey};

pub struct Subscription<K: Kind> {
    pending: Arc<Pending<K>>,
    _guard: HandlerGuard,
    informer: Informer<K>,
}

struct Pending<K> {
    queue: Mutex<Queue<K>>,
    more: Notify,
}

struct Queue<K> {
    /// Keys with pending events, each once, in the order of their oldest event.
    order: VecDeque<ObjectKey>,
    events: HashMap<ObjectKey, VecDeque<Event<K>>>,
}

const POISON: &str = "nothing panics while it holds the queue";

impl<K: Kind> Subscription<K> {
    pub(super) fn new(informer: Informer<K>) -> Self {
        let pending = Arc::new(Pending {
            queue: Mutex::new(Queue { order: VecDeque::new(), events: HashMap::new() }),
            more: Notify::new(),
        });
        let sink = pending.clone();
        let guard = informer.on_event(move |event| {
            sink.queue.lock().expect(POISON).push(event.clone());
            sink.more.notify_one();
        });
        Self { pending, _guard: guard, informer }
    }

    /// The next event; waits for as long as there is none. Cancel-safe.
    pub async fn recv(&mut self) -> Event<K> {
        loop {
            if let Some(event) = self.try_recv() {
                return event;
            }
            self.pending.more.notified().await;
        }
    }

    pub fn try_recv(&mut self) -> Option<Event<K>> {
        self.pending.queue.lock().expect(POISON).pop()
    }

    pub fn informer(&self) -> &Informer<K> {
        &self.informer
    }
}

impl<K: Kind> Queue<K> {
    fn push(&mut self, event: Event<K>) {
        let key = ObjectKey::of(&**event.object());
        let pending = self.events.entry(key.clone()).or_default();
        if pending.is_empty() {
            self.order.push_back(key.clone());
        }
        match (pending.pop_back(), event) {
            (None, event) => pending.push_back(event),
            (Some(Event::Added(_)), Event::Updated { new, .. }) => pending.push_back(Event::Added(new)),
            (Some(Event::Updated { old, .. }), Event::Updated { new, .. }) => {
                pending.push_back(Event::Updated { old, new });
            }
            // The subscriber has not heard of it and need not.
            (Some(Event::Added(_)), Event::Deleted(_)) => {}
            (Some(Event::Updated { .. }), deleted @ Event::Deleted(_)) => pending.push_back(deleted),
            (Some(last), event) => {
                pending.push_back(last);
                pending.push_back(event);
            }
        }
        if pending.is_empty() {
            self.events.remove(&key);
            self.order.retain(|k| *k != key);
        }
    }

    fn pop(&mut self) -> Option<Event<K>> {
        let key = self.order.front()?.clone();
        let pending = self.events.get_mut(&key)?;
        let event = pending.pop_front();
        if pending.is_empty() {
            self.events.remove(&key);
            self.order.pop_front();
        }
        event
    }
}
