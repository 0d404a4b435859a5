//! What requests there were, how long they took and how large they were.
//!
//! Models k8s.io/apiserver/pkg/endpoints/metrics/metrics.go and pkg/endpoints/handlers/metrics.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use api::registry::{Resource, ResourceRef};
use api::schema::Name;
use http::StatusCode;

use super::text::{self, Histogram};
use crate::cache::Cache;
use crate::request::{Query, RequestInfo};

const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
const OBJECTIVES: &[f64] = &[
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
const ANSWERS: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// From 50 kB on in steps of 100 kB.
const BODIES: &[f64] = &[
    50e3, 150e3, 250e3, 350e3, 450e3, 550e3, 650e3, 750e3, 850e3, 950e3, 1050e3, 1150e3, 1250e3, 1350e3, 1450e3, 1550e3, 1650e3, 1750e3,
    1850e3, 1950e3, 2050e3, 2150e3, 2250e3, 2350e3, 2450e3, 2550e3, 2650e3, 2750e3, 2850e3, 2950e3, 3050e3,
];

/// Names from the registry, never from a path, so that their number is bounded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    verb: &'static str,
    group: Name,
    version: Name,
    resource: Name,
    subresource: &'static str,
    scope: &'static str,
    is_dry: bool,
}

/// All requests of the same labels.
struct Series {
    codes: Vec<(u16, u64)>,
    durations: Histogram,
    objectives: Histogram,
    answers: Histogram,
    /// Of a version that is going away.
    is_deprecated: bool,
}

/// One request that is over.
pub struct Finished {
    pub code: StatusCode,
    pub took: Duration,
    /// So much of it went by in queues and with webhooks.
    pub elsewhere: Duration,
    pub request_bytes: Option<u64>,
    pub answer_bytes: Option<u64>,
    pub is_long: bool,
}

#[derive(Default)]
pub struct Requests {
    series: BTreeMap<Labels, Series>,
    bodies: BTreeMap<(Name, Name, &'static str), Histogram>,
    long: BTreeMap<Labels, i64>,
}

fn verb(info: &RequestInfo) -> &'static str {
    if matches!(&*info.subresource, "log" | "exec" | "attach" | "portforward" | "proxy") {
        return "CONNECT";
    }
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

pub fn resource_of(info: &RequestInfo, cache: &Cache) -> Option<ResourceRef> {
    info.is_resource.then(|| cache.resource(&info.group, &info.version, &info.resource)).flatten()
}

impl Labels {
    pub fn new(info: &RequestInfo, query: &Query, resource: Option<&Resource>) -> Self {
        let Some(resource) = resource else {
            return Self { verb: verb(info), group: "".into(), version: "".into(), resource: "".into(), subresource: "", scope: "", is_dry: false };
        };
        Self {
            verb: verb(info),
            group: resource.group.clone(),
            version: resource.version.clone(),
            resource: resource.plural.clone(),
            subresource: resource.subresource(&info.subresource).map_or("", |s| s.name),
            scope: scope(info),
            is_dry: !matches!(info.verb, "get" | "list" | "watch") && query.nonempty("dryRun").is_some(),
        }
    }

    /// In upstream's alphabetical order, but for the code and whether it was a dry run, which not all families have.
    fn text(&self) -> String {
        let Self { verb, group, version, resource, subresource, scope, is_dry: _ } = self;
        format!(
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }

    fn dry_run(&self) -> &'static str {
        if self.is_dry { "All" } else { "" }
    }
}

pub fn scope(info: &RequestInfo) -> &'static str {
    match (info.name.is_empty() && info.verb != "create", info.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    }
}

/// Models the APILifecycleDeprecated of upstream's types, and `deprecated` of custom kinds.
fn is_deprecated(resource: &Resource) -> bool {
    let is_old = resource.group.is_empty() && matches!(&*resource.plural, "endpoints" | "componentstatuses");
    is_old || resource.custom.as_ref().is_some_and(|custom| custom.warning.is_some())
}

impl Requests {
    pub fn finished(&mut self, cache: &Cache, info: &RequestInfo, query: &Query, request: &Finished) {
        let resource = resource_of(info, cache);
        let labels = Labels::new(info, query, resource.as_deref());
        if let (Some(resource), Some(bytes)) = (&resource, request.request_bytes.filter(|_| !request.is_long)) {
            let verb = match info.verb {
                "create" | "update" | "patch" | "delete" => info.verb,
                "deletecollection" => "delete_collection",
                _ => "",
            };
            if !verb.is_empty() {
                let key = (resource.group.clone(), resource.plural.clone(), verb);
                self.bodies.entry(key).or_insert_with(|| Histogram::new(BODIES)).observe(bytes as f64);
            }
        }
        let is_read = matches!(labels.verb, "GET" | "LIST");
        let is_dry = labels.is_dry;
        let series = self.series.entry(labels).or_insert_with(|| Series {
            codes: Vec::new(),
            durations: Histogram::new(DURATIONS),
            objectives: Histogram::new(OBJECTIVES),
            answers: Histogram::new(if is_read { ANSWERS } else { &[] }),
            is_deprecated: resource.as_deref().is_some_and(is_deprecated),
        });
        let code = request.code.as_u16();
        match series.codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => series.codes.push((code, 1)),
        }
        if request.is_long {
            return;
        }
        series.durations.observe(request.took.as_secs_f64());
        if !is_dry {
            series.objectives.observe(request.took.saturating_sub(request.elsewhere).as_secs_f64());
        }
        if let Some(bytes) = request.answer_bytes.filter(|_| is_read) {
            series.answers.observe(bytes as f64);
        }
    }

    /// One more that goes on for long, or one less.
    pub fn long(&mut self, labels: &Labels, change: i64) {
        match self.long.get_mut(labels) {
            Some(count) => *count += change,
            None => {
                self.long.insert(labels.clone(), change);
            }
        }
    }

    /// Drops what is not served any more.
    pub fn retain(&mut self, is_served: impl Fn(&Name, &Name, &Name) -> bool, is_stored: impl Fn(&Name, &Name) -> bool) {
        let keeps = |labels: &Labels| labels.resource.is_empty() || is_served(&labels.group, &labels.version, &labels.resource);
        self.series.retain(|labels, _| keeps(labels));
        self.long.retain(|labels, count| *count > 0 || keeps(labels));
        self.bodies.retain(|(group, resource, _), _| is_stored(group, resource));
    }

    pub fn render(&self, out: &mut String) {
        text::head(
            out,
            "apiserver_request_total",
            "counter",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        );
        for (labels, series) in &self.series {
            let (dry_run, text) = (labels.dry_run(), labels.text());
            for (code, count) in &series.codes {
                let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",dry_run=\"{dry_run}\",{text}}} {count}");
            }
        }
        let name = "apiserver_request_duration_seconds";
        text::head(out, name, "histogram", "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.");
        for (labels, series) in self.series.iter().filter(|(_, series)| !series.durations.is_empty()) {
            series.durations.write(out, name, &format!("dry_run=\"{}\",{}", labels.dry_run(), labels.text()));
        }
        let name = "apiserver_request_sli_duration_seconds";
        text::head(out, name, "histogram", "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.");
        for (labels, series) in self.series.iter().filter(|(_, series)| !series.objectives.is_empty()) {
            series.objectives.write(out, name, &labels.text());
        }
        let name = "apiserver_response_sizes";
        text::head(out, name, "histogram", "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.");
        for (labels, series) in self.series.iter().filter(|(_, series)| !series.answers.is_empty()) {
            series.answers.write(out, name, &labels.text());
        }
        let name = "apiserver_request_body_size_bytes";
        text::head(out, name, "histogram", "Apiserver request body size in bytes broken out by resource and verb.");
        for ((group, resource, verb), sizes) in &self.bodies {
            sizes.write(out, name, &format!("group=\"{group}\",resource=\"{resource}\",verb=\"{verb}\""));
        }
        let name = "apiserver_longrunning_requests";
        text::head(out, name, "gauge", "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.");
        for (labels, count) in &self.long {
            text::sample(out, name, &labels.text(), count);
        }
        let name = "apiserver_requested_deprecated_apis";
        text::head(out, name, "gauge", "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.");
        let deprecated: BTreeSet<_> = self
            .series
            .iter()
            .filter(|(_, series)| series.is_deprecated)
            .map(|(labels, _)| (&labels.group, &labels.version, &labels.resource, labels.subresource))
            .collect();
        for (group, version, resource, subresource) in deprecated {
            let labels = format!("group=\"{group}\",removed_release=\"\",resource=\"{resource}\",subresource=\"{subresource}\",version=\"{version}\"");
            text::sample(out, name, &labels, 1);
        }
    }
}
