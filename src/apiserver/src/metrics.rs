//! `/metrics` in the Prometheus text format, under upstream's names.
//!
//! Models k8s.io/apiserver/pkg/endpoints/metrics and its neighbours. Labels come from the registry's names, never from a path, so their number is
//! bounded.
mod access;
mod admission;
mod allocations;
mod load;
mod objects;
mod pods;
mod process;
mod requests;
#[cfg(test)]
mod tests;
mod text;
mod watches;

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api::registry::Resource;
use api::schema::Name;

use crate::cache::Cache;
use crate::fixed;
use crate::request::{Query, RequestInfo};
use crate::server::ApiServer;

use access::Access;
use allocations::Allocations;
use objects::Lists;
use requests::{Labels, Requests};
use watches::Watches;

pub use admission::{Clock, Times};
pub use pods::Evaluation;
pub use process::render_start;
pub use requests::Finished;
pub use load::Load;
pub use text::{Histogram, head, sample};
pub use watches::Watcher;

/// What a part of the process adds.
pub type Page = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Default)]
pub struct Metrics {
    requests: Mutex<Requests>,
    watches: Arc<Watches>,
    pub access: Access,
    pub load: Load,
    pub lists: Lists,
    pub allocations: Allocations,
    failed_handshakes: AtomicU64,
    /// What others of this process tell on the same page.
    others: Mutex<Vec<Page>>,
}

/// How long a body is that comes in pieces, before it is compressed.
#[derive(Clone, Copy)]
pub struct AnswerBytes(pub u64);

/// Counts one request that goes on for long, while it lives.
pub struct Long {
    metrics: Arc<Metrics>,
    labels: Labels,
}

impl Drop for Long {
    fn drop(&mut self) {
        self.metrics.lock().long(&self.labels, -1);
    }
}

tokio::task_local! {
    /// How long the request of this task has waited for others: in queues, for webhooks.
    static ELSEWHERE: Cell<Duration>;
}

/// Runs the work of a request, and says how long of that it waited for others.
pub async fn with_waits<T>(work: impl Future<Output = T>) -> (T, Duration) {
    ELSEWHERE.scope(Cell::default(), async { (work.await, ELSEWHERE.with(Cell::get)) }).await
}

/// The request of this task has waited for others.
pub fn waited(took: Duration) {
    // Work that no request waits for has nobody to tell.
    let _ = ELSEWHERE.try_with(|sum| sum.set(sum.get() + took));
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().expect("no panic under the lock")
    }

    /// How many watch the resource.
    pub fn watching(&self, resource: &Resource) -> usize {
        self.watches.watching(resource)
    }

    pub fn watcher(&self, resource: &Resource, info: &RequestInfo) -> Watcher {
        Watcher::new(&self.watches, resource, info)
    }

    pub fn long(self: &Arc<Self>, cache: &Cache, info: &RequestInfo, query: &Query) -> Long {
        let labels = Labels::new(info, query, requests::resource_of(info, cache).as_deref());
        self.lock().long(&labels, 1);
        Long { metrics: self.clone(), labels }
    }

    pub fn finished(&self, cache: &Cache, info: &RequestInfo, query: &Query, request: &Finished) {
        self.lock().finished(cache, info, query, request);
    }

    /// A client and the listener did not come to terms.
    pub fn handshake_failed(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops what was counted of custom kinds that are gone, so that kinds which come and go leave nothing behind.
    pub fn forget_gone(&self, cache: &Cache) {
        let kinds = cache.kinds();
        let figures = cache.figures();
        let stored: HashSet<(&Name, &Name)> = figures.iter().map(|one| (&one.resource.group, &one.resource.plural)).collect();
        let is_stored = |group: &Name, plural: &Name| stored.contains(&(group, plural));
        self.lock().retain(|group, version, plural| kinds.resource(group, version, plural).is_some(), is_stored);
        self.watches.retain(|group, version, plural| kinds.resource(group, version, plural).is_some());
        self.lists.retain(is_stored);
    }

    pub fn also(&self, page: Page) {
        self.others.lock().expect("no panic under the lock").push(page);
    }

    /// The page.
    pub fn render(&self, server: &ApiServer) -> String {
        let parts = &server.0.parts;
        let mut out = String::with_capacity(64 << 10);
        self.lock().render(&mut out);
        self.load.render(&mut out);
        self.watches.render(&mut out);
        self.access.render(&mut out);
        objects::render(&parts.cache, &mut out);
        self.lists.render(&mut out);
        self.allocations.render(server, &mut out);
        server.0.flow.render(&mut out);
        out.push_str(&parts.admission.page());
        let events = parts.audit.as_ref().map_or(0, |audit| audit.events());
        text::single(&mut out, "apiserver_audit_event_total", "counter", "Counter of audit events generated and sent to the audit backend.", events);
        let failed = self.failed_handshakes.load(Ordering::Relaxed);
        let help = "Number of requests dropped with 'TLS handshake error from' error";
        text::single(&mut out, "apiserver_tls_handshake_errors_total", "counter", help, failed);
        text::head(&mut out, "kubernetes_build_info", "gauge", "A metric with a constant '1' value labeled by what was built, and how.");
        text::sample(&mut out, "kubernetes_build_info", &fixed::build_labels(), 1);
        process::render(&mut out);
        let others = self.others.lock().expect("no panic under the lock").clone();
        others.iter().for_each(|page| out.push_str(&page()));
        out
    }
}
