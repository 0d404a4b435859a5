//! Events sent to another server, many at a time.
//!
//! Models k8s.io/apiserver/plugin/pkg/audit/{buffered,webhook} with upstream's defaults (mode `batch`). A request never waits: what finds the queue full, by
//! count or by bytes, is lost and counted. A batch that the server does not take is sent again, later and later, four times; others go on beside it.
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::webhook::{Endpoint, KubeconfigError};

/// kube-apiserver's flags `--audit-webhook-*`.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    pub kubeconfig: PathBuf,
    /// Events that wait.
    pub buffer_max: usize,
    /// Events of one batch.
    pub batch_max: usize,
    /// How long the first of a batch waits for others.
    pub wait_max: Duration,
    /// Batches in a second, and how many may follow each other at once.
    pub batches_per_second: f64,
    pub burst: u32,
    /// Before a batch is sent again.
    pub backoff: Duration,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            kubeconfig: PathBuf::new(),
            buffer_max: 10_000,
            batch_max: 400,
            wait_max: Duration::from_secs(30),
            batches_per_second: 10.0,
            burst: 15,
            backoff: Duration::from_secs(10),
        }
    }
}

/// Of all events that wait: they may hold requests and answers.
const QUEUED_BYTES_MAX: usize = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Batches under way.
const UNDER_WAY_MAX: usize = 16;
/// What is left at the end is sent within this.
const LAST_CALL: Duration = Duration::from_secs(5);

pub struct Webhook {
    options: WebhookOptions,
    endpoint: Endpoint,
    queue: mpsc::Sender<Bytes>,
    /// Taken by [`Webhook::run`].
    waiting: Mutex<mpsc::Receiver<Bytes>>,
    queued_bytes: AtomicUsize,
    sent: AtomicU64,
    /// Found no room.
    lost: AtomicU64,
    /// The server would not take them.
    failed: AtomicU64,
}

impl Webhook {
    pub fn load(options: WebhookOptions) -> Result<Self, KubeconfigError> {
        let endpoint = Endpoint::load(&options.kubeconfig)?;
        let (queue, waiting) = mpsc::channel(options.buffer_max.max(1));
        let zero = || AtomicU64::new(0);
        let waiting = Mutex::new(waiting);
        Ok(Self { options, endpoint, queue, waiting, queued_bytes: AtomicUsize::new(0), sent: zero(), lost: zero(), failed: zero() })
    }

    pub fn write(&self, event: Bytes) {
        let length = event.len();
        let has_room = self.queued_bytes.fetch_add(length, Ordering::Relaxed) + length <= QUEUED_BYTES_MAX;
        if !has_room || self.queue.try_send(event).is_err() {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            // One line for a flood of them.
            if self.lost.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
                tracing::error!("audit events are lost: the webhook's queue is full");
            }
        }
    }

    /// Sends until `shutdown`, and then what waits.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut waiting = self.waiting.lock().await;
        let turns = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let mut under_way = JoinSet::new();
        let mut pace = Pace::new(self.options.batches_per_second, self.options.burst);
        while let Some(batch) = self.batch(&mut waiting, &shutdown).await {
            if !shutdown.is_cancelled() {
                pace.turn().await;
            }
            let Ok(turn) = turns.clone().acquire_owned().await else { break };
            let this = self.clone();
            under_way.spawn(async move {
                this.send(batch).await;
                drop(turn);
            });
            while under_way.try_join_next().is_some() {}
        }
        let _ = tokio::time::timeout(LAST_CALL, under_way.join_all()).await; // what does not arrive by then is counted nowhere any more
    }

    /// `None`: it is over, and nothing waits.
    async fn batch(&self, waiting: &mut mpsc::Receiver<Bytes>, shutdown: &CancellationToken) -> Option<Vec<Bytes>> {
        let first = tokio::select! {
            biased;
            first = waiting.recv() => first?,
            () = shutdown.cancelled() => waiting.try_recv().ok()?,
        };
        let mut batch = vec![first];
        let end = Instant::now() + self.options.wait_max;
        while batch.len() < self.options.batch_max {
            let next = tokio::select! {
                biased;
                next = waiting.recv() => next,
                () = tokio::time::sleep_until(end) => None,
                () = shutdown.cancelled() => waiting.try_recv().ok(),
            };
            let Some(next) = next else { break };
            batch.push(next);
        }
        self.queued_bytes.fetch_sub(batch.iter().map(Bytes::len).sum(), Ordering::Relaxed);
        Some(batch)
    }

    async fn send(&self, batch: Vec<Bytes>) {
        let mut body = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
        body.extend(batch.join(&b","[..]));
        body.extend(b"]}");
        let count = batch.len() as u64;
        match self.endpoint.send(body, TIMEOUT, self.options.backoff, true, |_, _| {}).await {
            Ok(_) => drop(self.sent.fetch_add(count, Ordering::Relaxed)),
            Err(error) => {
                self.failed.fetch_add(count, Ordering::Relaxed);
                tracing::error!(%error, count, "audit events are lost: the webhook takes none");
            }
        }
    }

    pub fn page(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (sent, lost, failed) = (of(&self.sent), of(&self.lost), of(&self.failed));
        let mut out = String::new();
        let name = "apiserver_audit_error_total";
        let _ = writeln!(
            out,
            "# HELP {name} Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.\n# TYPE {name} counter"
        );
        let _ = writeln!(out, "{name}{{plugin=\"buffered\"}} {lost}\n{name}{{plugin=\"webhook\"}} {failed}");
        let _ = writeln!(
            out,
            "# HELP rk_audit_webhook_events_total Audit events that the webhook has taken.\n# TYPE rk_audit_webhook_events_total counter\nrk_audit_webhook_events_total {sent}"
        );
        out
    }
}

/// So many in a second, and some at once.
struct Pace {
    per_second: f64,
    burst: f64,
    tokens: f64,
    since: Instant,
}

impl Pace {
    fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second: per_second.max(0.01), burst: f64::from(burst.max(1)), tokens: f64::from(burst.max(1)), since: Instant::now() }
    }

    async fn turn(&mut self) {
        let now = Instant::now();
        self.tokens = (self.tokens + now.duration_since(self.since).as_secs_f64() * self.per_second).min(self.burst);
        self.since = now;
        if self.tokens < 1.0 {
            tokio::time::sleep(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second)).await;
            self.since = Instant::now();
            self.tokens = 1.0;
        }
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::webhook::tests::Hook;
    use serde_json::json;

    fn options(hook: &Hook) -> WebhookOptions {
        WebhookOptions {
            kubeconfig: hook.kubeconfig.clone(),
            wait_max: Duration::from_millis(50),
            backoff: Duration::from_millis(20),
            ..WebhookOptions::default()
        }
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn events_go_in_batches_again_when_they_must_and_the_last_ones_at_the_end() {
        let hook = Hook::start().await;
        hook.answer(503, json!({}));
        let webhook = Arc::new(Webhook::load(WebhookOptions { batch_max: 3, ..options(&hook) }).unwrap());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(webhook.clone().run(shutdown.clone()));
        for i in 0..4 {
            webhook.write(format!("{{\"i\":{i}}}").into());
        }
        until("attempts", || hook.asked() >= 3).await;
        hook.answer(200, json!({}));
        until("all are taken", || webhook.page().contains("events_total 4\n")).await;
        assert_eq!((&hook.last()["kind"], &hook.last()["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
        webhook.write("{\"i\":4}".into());
        shutdown.cancel();
        task.await.unwrap();
        assert!(webhook.page().contains("events_total 5\n"), "{}", webhook.page());
        assert_eq!(webhook.queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_nobody_waits() {
        let hook = Hook::start().await;
        let webhook = Webhook::load(WebhookOptions { buffer_max: 2, ..options(&hook) }).unwrap();
        for _ in 0..5 {
            webhook.write("{}".into());
        }
        assert!(webhook.page().contains("apiserver_audit_error_total{plugin=\"buffered\"} 3\n"), "{}", webhook.page());
        let large = Webhook::load(options(&hook)).unwrap();
        large.write(vec![0; QUEUED_BYTES_MAX].into());
        large.write("{}".into());
        assert!(large.page().contains("{plugin=\"buffered\"} 1\n"));
    }
}
