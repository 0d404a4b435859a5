//! What is measured of issuers. Models k8s.io/apiserver/plugin/pkg/authenticator/token/oidc/metrics.go.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use crate::follow::{hash, seconds_now};

const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// By issuer: as many as the configuration names.
#[derive(Default)]
pub struct Metrics(Mutex<BTreeMap<String, Issuer>>);

#[derive(Default)]
struct Issuer {
    failure: Latency,
    success: Latency,
    fetch_failure: Option<f64>,
    fetch_success: Option<f64>,
    key_set: String,
}

#[derive(Default)]
struct Latency {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    fn with(&self, issuer: &str, change: impl FnOnce(&mut Issuer)) {
        change(self.0.lock().expect("no panic under the lock").entry(issuer.to_owned()).or_default());
    }

    pub fn judged(&self, issuer: &str, is_good: bool, took: Duration) {
        self.with(issuer, |of| {
            let latency = if is_good { &mut of.success } else { &mut of.failure };
            let seconds = took.as_secs_f64();
            for (bucket, limit) in latency.buckets.iter_mut().zip(BUCKETS) {
                *bucket += u64::from(seconds <= limit);
            }
            latency.count += 1;
            latency.seconds += seconds;
        });
    }

    /// `keys`: the document; `None`: it could not be had.
    pub fn fetched(&self, issuer: &str, keys: Option<&[u8]>) {
        self.with(issuer, |of| match keys {
            Some(keys) => (of.fetch_success, of.key_set) = (Some(seconds_now()), hash(keys)),
            None => of.fetch_failure = Some(seconds_now()),
        });
    }

    /// Forgets issuers that are gone.
    pub fn keep(&self, is_known: impl Fn(&str) -> bool) {
        self.0.lock().expect("no panic under the lock").retain(|issuer, _| is_known(issuer));
    }

    pub fn page(&self) -> String {
        let state = self.0.lock().expect("no panic under the lock");
        let mut out = String::new();
        let name = "apiserver_authentication_jwt_authenticator_latency_seconds";
        let _ = writeln!(out, "# HELP {name} Latency of jwt authentication operations in seconds.\n# TYPE {name} histogram");
        for (issuer, of) in state.iter() {
            for (result, latency) in [("failure", &of.failure), ("success", &of.success)].into_iter().filter(|(_, l)| l.count > 0) {
                let labels = format!("jwt_issuer_hash=\"{}\",result=\"{result}\"", hash(issuer.as_bytes()));
                for (bucket, limit) in latency.buckets.iter().zip(BUCKETS) {
                    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{limit}\"}} {bucket}");
                }
                let (count, seconds) = (latency.count, latency.seconds);
                let _ = writeln!(
                    out,
                    "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {count}"
                );
            }
        }
        let name = "apiserver_authentication_jwt_authenticator_jwks_fetch_last_timestamp_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} Timestamp of the last successful or failed JWKS fetch split by result, api server identity and jwt issuer for the JWT authenticator.\n# TYPE {name} gauge"
        );
        for (issuer, of) in state.iter() {
            for (result, at) in [("failure", of.fetch_failure), ("success", of.fetch_success)] {
                let Some(at) = at else { continue };
                let _ = writeln!(
                    out,
                    "{name}{{apiserver_id_hash=\"\",jwt_issuer_hash=\"{}\",result=\"{result}\"}} {at}",
                    hash(issuer.as_bytes())
                );
            }
        }
        let name = "apiserver_authentication_jwt_authenticator_jwks_fetch_last_key_set_info";
        let _ = writeln!(
            out,
            "# HELP {name} Information about the last JWKS fetched by the JWT authenticator with hash as label, split by api server identity and jwt issuer.\n# TYPE {name} gauge"
        );
        for (issuer, of) in state.iter().filter(|(_, of)| !of.key_set.is_empty()) {
            let _ =
                writeln!(out, "{name}{{apiserver_id_hash=\"\",hash=\"{}\",jwt_issuer_hash=\"{}\"}} 1", of.key_set, hash(issuer.as_bytes()));
        }
        out
    }
}
