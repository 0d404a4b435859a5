//! Counters, in the text format of Prometheus.
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub udp_requests: Counter,
    pub tcp_requests: Counter,
    pub malformed: Counter,
    pub answered: Counter,
    pub no_such_name: Counter,
    pub server_failures: Counter,
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    pub upstream_failures: Counter,
    pub overload: Counter,
}

impl Metrics {
    pub(crate) fn text(&self) -> String {
        let all = [
            ("requests_total{proto=\"udp\"}", &self.udp_requests),
            ("requests_total{proto=\"tcp\"}", &self.tcp_requests),
            ("requests_malformed_total", &self.malformed),
            ("responses_total{rcode=\"NOERROR\"}", &self.answered),
            ("responses_total{rcode=\"NXDOMAIN\"}", &self.no_such_name),
            ("responses_total{rcode=\"SERVFAIL\"}", &self.server_failures),
            ("cache_hits_total", &self.cache_hits),
            ("cache_misses_total", &self.cache_misses),
            ("forward_failures_total", &self.upstream_failures),
            ("forward_rejected_total", &self.overload),
        ];
        let mut text = String::new();
        let mut last = "";
        for (name, counter) in all {
            let family = name.split('{').next().unwrap_or(name);
            if family != last {
                let _ = writeln!(text, "# TYPE rk_dns_{family} counter");
                last = family;
            }
            let _ = writeln!(text, "rk_dns_{name} {}", counter.get());
        }
        text
    }
}
