//! Counts of what a watch shows, to wait for.
use client::{Event, Informer, Kind};

use crate::PATIENCE;

/// Counts what a watch shows of one kind in one namespace.
pub struct Count<K: Kind> {
    numbers: tokio::sync::watch::Receiver<Numbers>,
    _informer: Informer<K>,
}

/// How many objects there are, and how many of them are as they shall be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    pub all: usize,
    pub good: usize,
}

impl<K: Kind> Count<K> {
    pub async fn new(informer: Informer<K>, good: fn(&K) -> bool) -> Self {
        let (sender, numbers) = tokio::sync::watch::channel(Numbers::default());
        let guard = informer.on_event(move |event| {
            sender.send_modify(|n| {
                if let Some(old) = event.old() {
                    n.good -= usize::from(good(old));
                }
                match event {
                    Event::Added(o) => {
                        n.all += 1;
                        n.good += usize::from(good(o));
                    }
                    Event::Updated { new, .. } => n.good += usize::from(good(new)),
                    Event::Deleted(o) => {
                        n.all -= 1;
                        n.good -= usize::from(good(o));
                    }
                }
            });
        });
        guard.forever();
        informer.synced().await;
        Self { numbers, _informer: informer }
    }

    pub async fn reach(&self, what: &str, done: impl Fn(Numbers) -> bool) -> anyhow::Result<()> {
        let mut numbers = self.numbers.clone();
        let reached = tokio::time::timeout(PATIENCE, numbers.wait_for(|n| done(*n))).await;
        match reached {
            Ok(result) => result.map(drop).map_err(anyhow::Error::from),
            Err(_) => anyhow::bail!("{what}: only {:?}", *self.numbers.borrow()),
        }
    }
}
