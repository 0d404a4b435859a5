//! `/livez`, `/readyz`, `/healthz`: every check by name.
//!
//! Models k8s.io/apiserver/pkg/server/healthz. Reasons stay out of the answer, they are logged.
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};

use crate::negotiate;
use crate::request::Query;
use crate::rest;
use crate::server::ApiServer;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<(&'static str, Check)>>,
    shutting_down: AtomicBool,
}

impl Health {
    pub fn add(&self, name: &'static str, check: Check) {
        self.checks.write().expect("no panic under the lock").push((name, check));
    }

    pub fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }
}

impl ApiServer {
    /// Every check of the endpoint with its result.
    async fn run_checks(&self, endpoint: &str) -> Vec<(String, Result<(), String>)> {
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
        for (name, check) in self.0.health.checks.read().expect("no panic under the lock").iter() {
            results.push(((*name).to_owned(), check()));
        }
        results
    }

    pub(crate) async fn health(&self, endpoint: &str, query: &Query) -> Response<Body> {
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

    pub(crate) async fn health_check(&self, endpoint: &str, name: &str) -> Response<Body> {
        let found = self.run_checks(endpoint).await.into_iter().find(|(known, _)| known == name);
        match found {
            None => rest::page_not_found(),
            Some((_, Ok(()))) => negotiate::text(StatusCode::OK, "ok"),
            Some((_, Err(_))) => negotiate::text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: reason withheld\n"),
        }
    }
}
