//! The tasks of one worker, and what the worker is told when one of them dies.
//!
//! A task reports by an event. One that panics never does, so that the worker would wait for ever: what it owes is left here
//! when it begins.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};
use tracing::warn;

use crate::pod::event::Event;

#[derive(Default)]
pub struct Tasks {
    running: JoinSet<()>,
    owed: HashMap<Id, Event>,
}

impl Tasks {
    /// A task that nobody waits for.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(work);
    }

    /// A task that reports; `owed` is what it is taken to have said if it dies.
    pub fn spawn_owing(&mut self, owed: Event, work: impl Future<Output = ()> + Send + 'static) {
        let id = self.running.spawn(work).id();
        self.owed.insert(id, owed);
    }

    /// The end of the next task: with what it owed, if it died.
    pub async fn ended(&mut self) -> Option<Event> {
        match self.running.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => {
                self.owed.remove(&id);
                None
            }
            Some(Err(error)) => {
                let owed = self.owed.remove(&error.id());
                warn!(%error, "a task of the pod has died");
                owed
            }
        }
    }

    pub async fn all_ended(&mut self) {
        while self.running.join_next().await.is_some() {}
        self.owed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_task_that_dies_leaves_its_debt() {
        let mut tasks = Tasks::default();
        let owed = || Event::StartDied { name: "c".into(), attempt: 3 };
        tasks.spawn_owing(owed(), async {});
        assert!(tasks.ended().await.is_none());
        tasks.spawn_owing(owed(), async { panic!("on purpose") });
        assert!(matches!(tasks.ended().await, Some(Event::StartDied { attempt: 3, .. })));
        tasks.spawn(async { panic!("on purpose") });
        assert!(tasks.ended().await.is_none());
        assert!(tasks.owed.is_empty());
    }
}
