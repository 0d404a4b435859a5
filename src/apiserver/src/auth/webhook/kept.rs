//! Answers that are good for a time, in a bounded number; the oldest make room.
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::time::Instant;

/// What was asked, hashed: no question, and no token, is kept.
pub type Key = [u8; 32];

pub fn key(question: &[u8]) -> Key {
    digest(&SHA256, question).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

pub struct Kept<V> {
    most: usize,
    state: Mutex<State<V>>,
}

struct State<V> {
    answers: HashMap<Key, (V, Instant)>,
    /// In the order in which they came; one that was given anew stands here twice.
    order: VecDeque<(Key, Instant)>,
}

impl<V: Clone> Kept<V> {
    pub fn new(most: usize) -> Self {
        Self { most, state: Mutex::new(State { answers: HashMap::new(), order: VecDeque::new() }) }
    }

    pub fn get(&self, key: &Key) -> Option<V> {
        let mut state = self.state.lock().expect("no panic under the lock");
        let (value, until) = state.answers.get(key)?;
        if *until > Instant::now() {
            return Some(value.clone());
        }
        state.answers.remove(key);
        None
    }

    pub fn put(&self, key: Key, value: V, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let until = Instant::now() + ttl;
        let mut state = self.state.lock().expect("no panic under the lock");
        state.answers.insert(key, (value, until));
        state.order.push_back((key, until));
        while state.order.len() > self.most {
            let Some((oldest, its)) = state.order.pop_front() else { return };
            if state.answers.get(&oldest).is_some_and(|(_, until)| *until == its) {
                state.answers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_end_and_the_oldest_make_room() {
        let kept = Kept::new(2);
        let (a, b, c) = (key(b"a"), key(b"b"), key(b"c"));
        kept.put(a, 1, Duration::from_secs(10));
        kept.put(b, 2, Duration::from_secs(20));
        kept.put(c, 3, Duration::ZERO);
        assert_eq!((kept.get(&a), kept.get(&b), kept.get(&c)), (Some(1), Some(2), None));
        kept.put(c, 3, Duration::from_secs(10));
        assert_eq!((kept.get(&a), kept.get(&b), kept.get(&c)), (None, Some(2), Some(3)));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!((kept.get(&b), kept.get(&c)), (Some(2), None));
    }
}
