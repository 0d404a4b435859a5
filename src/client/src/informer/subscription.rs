//! A subscriber's own queue of events, coalesced per object.
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Event, HandlerGuard, Informer};
use crate::object::{Kind, ObjectKey};

/// So many events wait with their objects; of further ones only the shared text is kept, where there is one.
const DECODED_MAX: usize = 128;

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
    events: HashMap<ObjectKey, VecDeque<Waiting<K>>>,
}

enum Waiting<K> {
    Event(Event<K>),
    /// An object that is new: decoded when the subscriber comes to it. After a list there are very many of them.
    Added(Bytes),
}

const POISON: &str = "nothing panics while it holds the queue";

impl<K: Kind> Subscription<K> {
    pub(super) fn new(informer: Informer<K>) -> Self {
        let pending = Arc::new(Pending {
            queue: Mutex::new(Queue { order: VecDeque::new(), events: HashMap::new() }),
            more: Notify::new(),
        });
        let (sink, mirror) = (pending.clone(), Arc::downgrade(&informer.inner.mirror));
        let guard = informer.on_event(move |event| {
            let mut queue = sink.queue.lock().expect(POISON);
            let key = ObjectKey::of(&**event.object());
            let is_many = queue.order.len() >= DECODED_MAX && matches!(event, Event::Added(_));
            let text = if is_many { mirror.upgrade().and_then(|mirror| mirror.text(&key)) } else { None };
            queue.push(key, text.map_or_else(|| Waiting::Event(event.clone()), Waiting::Added));
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
        loop {
            let waiting = self.pending.queue.lock().expect(POISON).pop()?;
            match waiting {
                Waiting::Event(event) => return Some(event),
                Waiting::Added(text) => {
                    // Decoded once before; what cannot be read would not be here.
                    if let Some(object) = self.informer.inner.mirror.read(&text) {
                        return Some(Event::Added(object));
                    }
                }
            }
        }
    }

    pub fn informer(&self) -> &Informer<K> {
        &self.informer
    }
}

impl<K: Kind> Queue<K> {
    fn push(&mut self, key: ObjectKey, waiting: Waiting<K>) {
        let pending = self.events.entry(key.clone()).or_default();
        if pending.is_empty() {
            self.order.push_back(key.clone());
        }
        match (pending.pop_back(), waiting) {
            (None, waiting) => pending.push_back(waiting),
            (Some(Waiting::Event(Event::Added(_)) | Waiting::Added(_)), Waiting::Event(Event::Updated { new, .. })) => {
                pending.push_back(Waiting::Event(Event::Added(new)));
            }
            (Some(Waiting::Event(Event::Updated { old, .. })), Waiting::Event(Event::Updated { new, .. })) => {
                pending.push_back(Waiting::Event(Event::Updated { old, new }));
            }
            // The subscriber has not heard of it and need not.
            (Some(Waiting::Event(Event::Added(_)) | Waiting::Added(_)), Waiting::Event(Event::Deleted(_))) => {}
            (Some(Waiting::Event(Event::Updated { .. })), deleted @ Waiting::Event(Event::Deleted(_))) => pending.push_back(deleted),
            (Some(last), waiting) => {
                pending.push_back(last);
                pending.push_back(waiting);
            }
        }
        if pending.is_empty() {
            self.events.remove(&key);
            self.order.retain(|k| *k != key);
        }
    }

    fn pop(&mut self) -> Option<Waiting<K>> {
        let key = self.order.front()?.clone();
        let pending = self.events.get_mut(&key)?;
        let waiting = pending.pop_front();
        if pending.is_empty() {
            self.events.remove(&key);
            self.order.pop_front();
        }
        // A burst leaves no room behind that nobody fills again.
        if self.order.is_empty() && self.events.capacity() > DECODED_MAX {
            (self.order, self.events) = Default::default();
        }
        waiting
    }
}
