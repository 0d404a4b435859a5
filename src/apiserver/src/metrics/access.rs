//! Who was believed and what was allowed.
//!
//! Models k8s.io/apiserver/pkg/endpoints/filters/metrics.go, pkg/authentication/request/x509 and pkg/serviceaccount/metrics.go.
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::text::{self, Histogram};
use crate::auth::{Decision, UserInfo, Verdict};

const DURATIONS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
const LIFETIMES: &[f64] = &[
    0.0, 1800.0, 3600.0, 7200.0, 21600.0, 43200.0, 86400.0, 172_800.0, 345_600.0, 604_800.0, 2_592_000.0, 7_776_000.0, 15_552_000.0,
    31_104_000.0,
];
const USERS: [&str; 7] = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default", "email_id", "other"];
const AUTHENTICATIONS: [&str; 3] = ["success", "failure", "error"];
const AUTHORIZATIONS: [&str; 4] = ["allowed", "denied", "no-opinion", "error"];

/// Durations by what came of it; their counts are the attempts.
struct Results<const N: usize>(Mutex<[Histogram; N]>);

impl<const N: usize> Default for Results<N> {
    fn default() -> Self {
        Self(Mutex::new(std::array::from_fn(|_| Histogram::new(DURATIONS))))
    }
}

impl<const N: usize> Results<N> {
    fn observe(&self, result: usize, took: Duration) {
        self.0.lock().expect("no panic under the lock")[result].observe(took.as_secs_f64());
    }

    fn render(&self, out: &mut String, names: [&str; N], counter: (&str, &str), histogram: (&str, &str)) {
        let results = self.0.lock().expect("no panic under the lock");
        let seen = || names.iter().zip(results.iter()).filter(|(_, durations)| !durations.is_empty());
        text::head(out, counter.0, "counter", counter.1);
        seen().for_each(|(name, durations)| text::sample(out, counter.0, &format!("result=\"{name}\""), durations.count()));
        text::head(out, histogram.0, "histogram", histogram.1);
        seen().for_each(|(name, durations)| durations.write(out, histogram.0, &format!("result=\"{name}\"")));
    }
}

#[derive(Default)]
pub struct Access {
    authentications: Results<3>,
    authorizations: Results<4>,
    users: [AtomicU64; USERS.len()],
    valid_tokens: AtomicU64,
    legacy_tokens: AtomicU64,
    lifetimes: Mutex<Option<Histogram>>,
}

impl Access {
    /// A sender was asked who it is; `is_token`: it showed a bearer token.
    pub fn authenticated(&self, found: Option<&UserInfo>, is_token: bool, took: Duration) {
        let Some(user) = found else { return self.authentications.observe(usize::from(is_token) + 1, took) };
        self.authentications.observe(0, took);
        let compressed = match user.name.as_str() {
            name if name.contains('@') => 5,
            name => USERS[..5].iter().position(|known| *known == name).unwrap_or(6),
        };
        self.users[compressed].fetch_add(1, Ordering::Relaxed);
        if is_token && user.name.starts_with("system:serviceaccount:") {
            // Only bound tokens name themselves.
            let is_bound = user.extra.contains_key("authentication.kubernetes.io/credential-id");
            let counter = if is_bound { &self.valid_tokens } else { &self.legacy_tokens };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn authorized(&self, decision: &Decision, took: Duration) {
        let result = match decision.verdict {
            Verdict::Allow => 0,
            _ if !decision.failure.is_empty() => 3,
            Verdict::Deny => 1,
            Verdict::NoOpinion => 2,
        };
        self.authorizations.observe(result, took);
    }

    /// A request over a connection whose client showed a certificate that is good until `end`.
    pub fn certificate(&self, end: SystemTime) {
        let left = end.duration_since(SystemTime::now()).map_or_else(|past| -past.duration().as_secs_f64(), |left| left.as_secs_f64());
        self.lifetimes.lock().expect("no panic under the lock").get_or_insert_with(|| Histogram::new(LIFETIMES)).observe(left);
    }

    pub fn render(&self, out: &mut String) {
        self.authentications.render(
            out,
            AUTHENTICATIONS,
            ("authentication_attempts", "Counter of authenticated attempts."),
            ("authentication_duration_seconds", "Authentication duration in seconds broken out by result."),
        );
        self.authorizations.render(
            out,
            AUTHORIZATIONS,
            (
                "authorization_attempts_total",
                "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
            ),
            ("authorization_duration_seconds", "Authorization duration in seconds broken out by result."),
        );
        let name = "authenticated_user_requests";
        text::head(out, name, "counter", "Counter of authenticated requests broken out by username.");
        for (user, count) in USERS.into_iter().zip(&self.users) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                text::sample(out, name, &format!("username=\"{user}\""), count);
            }
        }
        let (valid, legacy) = (self.valid_tokens.load(Ordering::Relaxed), self.legacy_tokens.load(Ordering::Relaxed));
        text::single(out, "serviceaccount_valid_tokens_total", "counter", "Cumulative valid projected service account tokens used", valid);
        text::single(out, "serviceaccount_legacy_tokens_total", "counter", "Cumulative legacy service account tokens used", legacy);
        let name = "apiserver_client_certificate_expiration_seconds";
        text::head(out, name, "histogram", "Distribution of the remaining lifetime on the certificate used to authenticate a request.");
        let lifetimes = self.lifetimes.lock().expect("no panic under the lock").clone();
        lifetimes.unwrap_or_else(|| Histogram::new(LIFETIMES)).write(out, name, "");
    }
}
