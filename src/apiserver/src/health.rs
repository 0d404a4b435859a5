//! `/livez`, `/readyz`, `/healthz`: every check by name.
//!
//! Models k8s.io/apiserver/pkg/server/healthz. Reasons stay out of the answer, they are logged.
use std::collections::BTreeMap;
use std::sync::{Mutex, RwLock};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};

use crate::{metrics, negotiate};
use crate::request::Query;
use crate::rest;
use crate::server::ApiServer;

/// The endpoints; each has its own results.
pub const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// Steps of the start that upstream's names exist for; all done once [`ApiServer::start`] is.
const START: [&str; 3] =
    ["poststarthook/bootstrap-controller", "poststarthook/rbac/bootstrap-roles", "poststarthook/start-system-namespaces-controller"];

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<(&'static str, Check)>>,
    shutting_down: AtomicBool,
    started: AtomicBool,
    results: Mutex<BTreeMap<(String, &'static str), Results>>,
}

/// What came of one check so far.
#[derive(Clone, Copy, Default)]
struct Results {
    is_good: bool,
    good: u64,
    bad: u64,
}

impl Health {
    pub fn add(&self, name: &'static str, check: Check) {
        self.checks.write().expect("no panic under the lock").push((name, check));
    }

    /// The server has made all that a cluster has.
    pub fn has_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    fn observe(&self, endpoint: &'static str, name: &str, is_good: bool) {
        let mut results = self.results.lock().expect("no panic under the lock");
        let known = results.entry((name.to_owned(), endpoint)).or_default();
        known.is_good = is_good;
        *(if is_good { &mut known.good } else { &mut known.bad }) += 1;
    }

    /// The checks as metrics. Models k8s.io/component-base/metrics/prometheus/slis.
    pub fn render(&self, out: &mut String) {
        let results = self.results.lock().expect("no panic under the lock").clone();
        let name = "kubernetes_healthcheck";
        metrics::head(out, name, "gauge", "This metric records the result of a single healthcheck.");
        for ((check, endpoint), results) in &results {
            metrics::sample(out, name, &format!("name=\"{check}\",type=\"{endpoint}\""), u8::from(results.is_good));
        }
        let name = "kubernetes_healthchecks_total";
        metrics::head(out, name, "counter", "This metric records the results of all healthcheck.");
        for ((check, endpoint), results) in &results {
            for (status, count) in [("error", results.bad), ("success", results.good)].into_iter().filter(|(_, count)| *count > 0) {
                metrics::sample(out, name, &format!("name=\"{check}\",status=\"{status}\",type=\"{endpoint}\""), count);
            }
        }
    }

    pub fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }
}

impl ApiServer {
    /// The names of the endpoint's checks.
    pub(crate) fn check_names(&self, endpoint: &str) -> Vec<String> {
        let checks = self.0.health.checks.read().expect("no panic under the lock");
        let own = ["ping", "log", "etcd"].into_iter().chain((endpoint == "readyz").then_some("shutdown")).chain(START);
        own.chain(checks.iter().map(|(name, _)| *name)).map(str::to_owned).collect()
    }

    /// Every check of the endpoint with its result.
    async fn run_checks(&self, endpoint: &'static str) -> Vec<(String, Result<(), String>)> {
        let mut results = vec![("ping".to_owned(), Ok(())), ("log".to_owned(), Ok(()))];
        let probe = tokio::time::timeout(Duration::from_secs(2), self.0.parts.store.get("/registry/health"));
        let store = match probe.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the store did not answer within 2 seconds".to_owned()),
        };
        results.push(("etcd".to_owned(), store));
        if endpoint == "readyz" {
            let down = self.0.health.shutting_down.load(Ordering::Relaxed);
            results.push(("shutdown".to_owned(), if down { Err("process is shutting down".to_owned()) } else { Ok(()) }));
        }
        let started = self.0.health.started.load(Ordering::Relaxed);
        for name in START {
            results.push((name.to_owned(), if started { Ok(()) } else { Err("not finished".to_owned()) }));
        }
        for (name, check) in self.0.health.checks.read().expect("no panic under the lock").iter() {
            results.push(((*name).to_owned(), check()));
        }
        results.iter().for_each(|(name, result)| self.0.health.observe(endpoint, name, result.is_ok()));
        results
    }

    pub(crate) async fn health(&self, endpoint: &'static str, query: &Query) -> Response<Body> {
        let excluded: Vec<&str> = query.all("exclude").collect();
        let results = self.run_checks(endpoint).await;
        let mut report = String::new();
        let mut failed = false;
        for (name, result) in &results {
            match result {
                _ if excluded.contains(&name.as_str()) => report.push_str(&format!("[+]{name} excluded: ok\n")),
                Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
                Err(why) => {
                    tracing::info!(check = %name, endpoint, %why, "health check failed");
                    failed = true;
                    report.push_str(&format!("[-]{name} failed: reason withheld\n"));
                }
            }
        }
        for name in &excluded {
            if !results.iter().any(|(known, _)| known == name) {
                report.push_str(&format!("warn: some health checks cannot be excluded: no matches for \"{name}\"\n"));
            }
        }
        if failed {
            return negotiate::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{endpoint} check failed\n"));
        }
        if query.get("verbose").is_some() {
            return negotiate::text(StatusCode::OK, format!("{report}{endpoint} check passed\n"));
        }
        negotiate::text(StatusCode::OK, "ok")
    }

    pub(crate) async fn health_check(&self, endpoint: &'static str, name: &str) -> Response<Body> {
        let found = self.run_checks(endpoint).await.into_iter().find(|(known, _)| known == name);
        match found {
            None => rest::page_not_found(),
            Some((_, Ok(()))) => negotiate::text(StatusCode::OK, "ok"),
            Some((_, Err(_))) => negotiate::text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: reason withheld\n"),
        }
    }
}
