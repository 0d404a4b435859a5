//! `/metrics` in the Prometheus text format, under upstream's names.
//!
//! Models k8s.io/apiserver/pkg/endpoints/metrics. Labels come from the registry's names, never from a path, so their number is bounded.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::registry::Resource;
use api::schema::Name;
use http::StatusCode;

use crate::cache::Cache;
use crate::request::RequestInfo;

const BUCKETS: [f64; 14] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: Name,
    version: Name,
    resource: Name,
    subresource: &'static str,
    scope: &'static str,
}

#[derive(Clone, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

#[derive(Default)]
struct State {
    requests: BTreeMap<(Labels, u16), u64>,
    durations: BTreeMap<Labels, Durations>,
    watchers: BTreeMap<(Name, Name, Name), i64>,
}

/// What a part of the process adds.
pub type Page = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Default)]
pub struct Metrics {
    state: Mutex<State>,
    /// What others of this process tell on the same page.
    others: Mutex<Vec<Page>>,
}

/// Counts one watch while it lives.
pub struct Watcher {
    metrics: Arc<Metrics>,
    key: (Name, Name, Name),
}

impl Watcher {
    pub fn new(metrics: &Arc<Metrics>, resource: &Resource) -> Self {
        let key = (resource.group.clone(), resource.version.clone(), resource.kind.clone());
        *metrics.lock().watchers.entry(key.clone()).or_default() += 1;
        Self { metrics: metrics.clone(), key }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.metrics.lock();
        if let Some(count) = state.watchers.get_mut(&self.key) {
            *count -= 1;
        }
    }
}

fn verb(info: &RequestInfo) -> &'static str {
    match info.verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    }
}

fn labels(info: &RequestInfo, cache: &Cache) -> Labels {
    let resource = info.is_resource.then(|| cache.resource(&info.group, &info.version, &info.resource)).flatten();
    let Some(resource) = resource else {
        return Labels { verb: verb(info), group: "".into(), version: "".into(), resource: "".into(), subresource: "", scope: "" };
    };
    let subresource = resource.subresource(&info.subresource).map_or("", |s| s.name);
    let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    Labels {
        verb: verb(info),
        group: resource.group.clone(),
        version: resource.version.clone(),
        resource: resource.plural.clone(),
        subresource,
        scope,
    }
}

impl Labels {
    fn write(&self, out: &mut String) {
        let Labels { verb, group, version, resource, subresource, scope } = self;
        let _ = write!(
            out,
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        );
    }
}

impl Metrics {
    /// How many watch the resource.
    pub fn watching(&self, resource: &Resource) -> usize {
        let key = (resource.group.clone(), resource.version.clone(), resource.kind.clone());
        self.lock().watchers.get(&key).map_or(0, |count| usize::try_from(*count).unwrap_or(0))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    pub fn finished(&self, cache: &Cache, info: &RequestInfo, code: StatusCode, took: Duration, is_long: bool) {
        let labels = labels(info, cache);
        let mut state = self.lock();
        *state.requests.entry((labels.clone(), code.as_u16())).or_default() += 1;
        if is_long {
            return;
        }
        let seconds = took.as_secs_f64();
        let durations = state.durations.entry(labels).or_default();
        for (bucket, limit) in durations.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= limit);
        }
        durations.count += 1;
        durations.seconds += seconds;
    }

    /// Drops what was counted of custom kinds that are gone, so that kinds which come and go leave nothing behind.
    pub fn forget_gone(&self, cache: &Cache) {
        let kinds = cache.kinds();
        let is_served = |labels: &Labels| labels.resource.is_empty() || kinds.resource(&labels.group, &labels.version, &labels.resource).is_some();
        let mut state = self.lock();
        state.requests.retain(|(labels, _), _| is_served(labels));
        state.durations.retain(|labels, _| is_served(labels));
        state.watchers.retain(|(group, version, kind), count| *count > 0 || kinds.by_kind(group, version, kind).is_some());
    }

    pub fn also(&self, page: Page) {
        self.others.lock().expect("no panic under the lock").push(page);
    }

    pub fn render(&self, cache: &Cache) -> String {
        let state = self.lock();
        let mut out = String::with_capacity(16 << 10);
        out.push_str("# HELP apiserver_request_total Counter of apiserver requests broken out for each verb, group, version, resource, scope, component and HTTP response code.\n# TYPE apiserver_request_total counter\n");
        for ((labels, code), count) in &state.requests {
            let _ = write!(out, "apiserver_request_total{{code=\"{code}\",dry_run=\"\",");
            labels.write(&mut out);
            let _ = writeln!(out, "}} {count}");
        }
        out.push_str("# HELP apiserver_request_duration_seconds Response latency distribution in seconds for each verb, group, version, resource, subresource, scope and component.\n# TYPE apiserver_request_duration_seconds histogram\n");
        for (labels, durations) in &state.durations {
            let mut text = String::new();
            labels.write(&mut text);
            for (bucket, limit) in durations.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "apiserver_request_duration_seconds_bucket{{{text},le=\"{limit}\"}} {bucket}");
            }
            let _ = writeln!(out, "apiserver_request_duration_seconds_bucket{{{text},le=\"+Inf\"}} {}", durations.count);
            let _ = writeln!(out, "apiserver_request_duration_seconds_sum{{{text}}} {}", durations.seconds);
            let _ = writeln!(out, "apiserver_request_duration_seconds_count{{{text}}} {}", durations.count);
        }
        out.push_str("# HELP apiserver_registered_watchers Number of currently registered watchers for a given resources\n# TYPE apiserver_registered_watchers gauge\n");
        for ((group, version, kind), count) in &state.watchers {
            let _ = writeln!(out, "apiserver_registered_watchers{{group=\"{group}\",kind=\"{kind}\",version=\"{version}\"}} {count}");
        }
        drop(state);
        out.push_str("# HELP apiserver_storage_objects Number of stored objects at the time of last check split by kind.\n# TYPE apiserver_storage_objects gauge\n");
        for (resource, count) in cache.counts() {
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{}\"}} {count}", resource.group_resource());
        }
        let _ = writeln!(out, "# TYPE kubernetes_build_info gauge\nkubernetes_build_info{{git_version=\"{}\",major=\"1\",minor=\"37\"}} 1", crate::fixed::GIT_VERSION);
        let others = self.others.lock().expect("no panic under the lock").clone();
        others.iter().for_each(|page| out.push_str(&page()));
        out
    }
}
