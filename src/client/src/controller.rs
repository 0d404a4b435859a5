//! The frame of a controller: informers wake keys, workers reconcile them.
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::Resource;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::error::{Retry, RetryPolicy};
use crate::informer::{Event, HandlerGuard, Informer};
use crate::object::{Kind, Named, ObjectKey, controller_of};
use crate::queue::WorkQueue;

/// When a reconciled key is looked at again, if nothing wakes it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    Wait,
    After(Duration),
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics caught in all controllers of this process, for the metrics page.
pub fn panics_total() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// A controller over a context `C`: says what wakes it, then runs.
pub struct Controller<C> {
    name: &'static str,
    cx: Arc<C>,
    queue: WorkQueue<ObjectKey>,
    workers: usize,
    guards: Vec<HandlerGuard>,
    synced: Vec<BoxFuture<'static, ()>>,
}

impl<C: Send + Sync + 'static> Controller<C> {
    pub fn new(name: &'static str, cx: Arc<C>) -> Self {
        Self { name, cx, queue: WorkQueue::named(name), workers: 5, guards: Vec::new(), synced: Vec::new() }
    }

    /// Keys worked on at a time; five unless said otherwise.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// The queue, for what wakes keys outside informers.
    pub fn queue(&self) -> WorkQueue<ObjectKey> {
        self.queue.clone()
    }

    /// Calls `handler` for every event, on the informer's task: it must be quick.
    pub fn on<K: Kind>(
        mut self,
        informer: &Informer<K>,
        handler: impl Fn(&C, &WorkQueue<ObjectKey>, &Event<K>) + Send + Sync + 'static,
    ) -> Self {
        let (cx, queue) = (self.cx.clone(), self.queue.clone());
        self.guards.push(informer.on_event(move |event| handler(&cx, &queue, event)));
        let informer = informer.clone();
        self.synced.push(async move { informer.synced().await }.boxed());
        self
    }

    /// Wakes the keys that `map` gives for an event.
    pub fn watches<K: Kind>(
        self,
        informer: &Informer<K>,
        map: impl Fn(&C, &Event<K>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        self.on(informer, move |cx, queue, event| map(cx, event).into_iter().for_each(|key| queue.add(key)))
    }

    /// Wakes the object itself.
    pub fn reconciles<K: Kind>(self, informer: &Informer<K>) -> Self {
        self.on(informer, |_, queue, event| queue.add(ObjectKey::of(&**event.object())))
    }

    /// Wakes the owner of kind `Owner` that controls the object, before and after the event.
    pub fn owns<K: Kind, Owner: Kind>(self, informer: &Informer<K>) -> Self {
        self.watches(informer, |_, event| event.states().filter_map(|o| owner_key::<K, Owner>(o)).collect())
    }

    /// Waits for the informers, then works until shut down. Cancelling it ends all workers.
    pub async fn run<F, Fut, E>(self, reconcile: F)
    where
        F: Fn(Arc<C>, ObjectKey) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Next, E>> + Send + 'static,
        E: RetryPolicy + std::error::Error + Send + 'static,
    {
        futures::future::join_all(self.synced).await;
        debug!(controller = self.name, "caches are in sync");
        let reconcile = Arc::new(reconcile);
        let mut workers = JoinSet::new();
        for _ in 0..self.workers {
            let (cx, queue, reconcile) = (self.cx.clone(), self.queue.clone(), reconcile.clone());
            workers.spawn(work(self.name, cx, queue, reconcile));
        }
        while workers.join_next().await.is_some() {}
    }
}

/// The key of the `Owner` that controls `object`.
pub(crate) fn owner_key<K: Kind, Owner: Kind>(object: &K) -> Option<ObjectKey> {
    let owner = controller_of(object.meta())?;
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    (owner.kind == <Owner as Resource>::KIND && group == <Owner as Resource>::GROUP)
        .then(|| ObjectKey::new(object.namespace(), owner.name.clone()))
}

async fn work<C, F, Fut, E>(name: &'static str, cx: Arc<C>, queue: WorkQueue<ObjectKey>, reconcile: Arc<F>)
where
    F: Fn(Arc<C>, ObjectKey) -> Fut,
    Fut: Future<Output = Result<Next, E>>,
    E: RetryPolicy + std::error::Error + 'static,
{
    while let Some(key) = queue.get().await {
        // Reconciling reads fresh state each time, so what a panic leaves behind is not seen again.
        let call = AssertUnwindSafe(async { reconcile(cx.clone(), key.clone()).await });
        match call.catch_unwind().await {
            Ok(Ok(next)) => {
                queue.forget(&key);
                if let Next::After(delay) = next {
                    queue.add_after(key.clone(), delay);
                }
            }
            Ok(Err(failure)) => retry(name, &queue, &key, &failure),
            Err(panic) => {
                PANICS.fetch_add(1, Ordering::Relaxed);
                error!(controller = name, %key, panic = panic_text(&*panic), "reconcile panicked");
                queue.add_rate_limited(key.clone());
            }
        }
        queue.done(&key);
    }
}

fn retry<E: RetryPolicy + std::error::Error + 'static>(
    name: &'static str,
    queue: &WorkQueue<ObjectKey>,
    key: &ObjectKey,
    failure: &E,
) {
    let policy = failure.retry();
    // A conflict or a lost race heals itself within a try or two.
    if queue.failures(key) < 3 && policy != Retry::Never {
        debug!(controller = name, %key, error = failure as &dyn std::error::Error, ?policy, "reconcile failed");
    } else {
        warn!(controller = name, %key, error = failure as &dyn std::error::Error, ?policy, "reconcile failed");
    }
    match policy {
        Retry::Backoff => queue.add_rate_limited(key.clone()),
        Retry::After(delay) => queue.add_after(key.clone(), delay),
        Retry::OnChange | Retry::Never => queue.forget(key),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refused;

    impl RetryPolicy for Refused {
        fn retry(&self) -> Retry {
            Retry::Backoff
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_an_error_are_retried_and_success_is_not() {
        let controller = Controller::new("test", Arc::new(AtomicU64::new(0)));
        let queue = controller.queue();
        queue.add(ObjectKey::cluster("a"));
        let counter = controller.cx.clone();
        let before = panics_total();
        let run = controller.run(|calls: Arc<AtomicU64>, _key| async move {
            match calls.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("first"),
                1 => Err(Refused),
                _ => Ok(Next::Wait),
            }
        });
        let _ = tokio::time::timeout(Duration::from_secs(60), run).await;
        assert_eq!(counter.load(Ordering::SeqCst), 3);
        assert_eq!(panics_total(), before + 1);
    }
}
