//! What priority and fairness says on `/metrics`.
//!
//! Models k8s.io/apiserver/pkg/util/flowcontrol/metrics.
use std::collections::BTreeMap;

use super::{FlowControl, Refusal};
use crate::metrics::{Histogram, head, sample};

pub const DURATIONS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
pub const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

/// Name, type and what it says, in the order of the page.
const FAMILIES: [(&str, &str, &str); 17] = [
    ("nominal_limit_seats", "gauge", "Nominal number of execution seats configured for each priority level"),
    ("lower_limit_seats", "gauge", "Configured lower bound on number of execution seats available to each priority level"),
    ("upper_limit_seats", "gauge", "Configured upper bound on number of execution seats available to each priority level"),
    ("current_limit_seats", "gauge", "current derived number of execution seats available to each priority level"),
    ("current_executing_seats", "gauge", "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem"),
    ("current_inqueue_seats", "gauge", "Number of seats currently pending in queues of the API Priority and Fairness subsystem"),
    ("current_inqueue_requests", "gauge", "Number of requests currently pending in queues of the API Priority and Fairness subsystem"),
    ("demand_seats_high_watermark", "gauge", "High watermark, over last adjustment period, of demand_seats"),
    ("demand_seats_average", "gauge", "Time-weighted average, over last adjustment period, of demand_seats"),
    ("demand_seats_stdev", "gauge", "Time-weighted standard deviation, over last adjustment period, of demand_seats"),
    ("demand_seats_smoothed", "gauge", "Smoothed seat demands"),
    ("current_executing_requests", "gauge", "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem"),
    ("dispatched_requests_total", "counter", "Number of requests executed by API Priority and Fairness subsystem"),
    ("rejected_requests_total", "counter", "Number of requests rejected by API Priority and Fairness subsystem"),
    ("request_wait_duration_seconds", "histogram", "Length of time a request spent waiting in its queue"),
    ("request_execution_seconds", "histogram", "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem"),
    ("work_estimated_seats", "histogram", "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness"),
];

fn full(name: &str) -> String {
    format!("apiserver_flowcontrol_{name}")
}

impl FlowControl {
    /// In the Prometheus text format, under upstream's names.
    pub fn render(&self, out: &mut String) {
        let setup = self.0.setup.load();
        let mut samples: BTreeMap<&str, String> = BTreeMap::new();
        let mut add = |name: &'static str, labels: &str, value: f64| sample(samples.entry(name).or_default(), &full(name), labels, value);
        for (_, level) in setup.levels.values() {
            let labels = format!("priority_level=\"{}\"", level.name);
            let state = level.lock();
            for (name, value) in [
                ("nominal_limit_seats", state.seats.nominal),
                ("lower_limit_seats", state.seats.least),
                ("upper_limit_seats", state.seats.most),
                ("current_limit_seats", state.set.limit),
                ("current_executing_seats", state.set.seats_in_use),
                ("current_inqueue_seats", state.set.seats_waiting),
                ("current_inqueue_requests", state.set.waiting),
            ] {
                add(name, &labels, value as f64);
            }
            for (name, value) in [
                ("demand_seats_high_watermark", state.demand.most_before),
                ("demand_seats_average", state.demand.average),
                ("demand_seats_stdev", state.demand.deviation),
                ("demand_seats_smoothed", state.demand.smoothed),
            ] {
                add(name, &labels, value);
            }
        }
        for (_, level) in setup.levels.values() {
            for (schema, counts) in level.counts.lock().expect("no panic under the lock").iter() {
                let labels = format!("flow_schema=\"{schema}\",priority_level=\"{}\"", level.name);
                add("current_executing_requests", &labels, counts.executing as f64);
                add("dispatched_requests_total", &labels, counts.dispatched as f64);
                for why in [Refusal::ConcurrencyLimit, Refusal::QueueFull, Refusal::TimeOut] {
                    let count = counts.rejected[why as usize];
                    if count > 0 {
                        add("rejected_requests_total", &format!("{labels},reason=\"{}\"", why.name()), count as f64);
                    }
                }
            }
        }
        for (_, level) in setup.levels.values() {
            for (schema, counts) in level.counts.lock().expect("no panic under the lock").iter() {
                let labels = format!("flow_schema=\"{schema}\",priority_level=\"{}\"", level.name);
                let mut write = |name: &'static str, labels: &str, histogram: &Histogram| {
                    if !histogram.is_empty() {
                        histogram.write(samples.entry(name).or_default(), &full(name), labels);
                    }
                };
                write("request_wait_duration_seconds", &format!("execute=\"true\",{labels}"), &counts.waits);
                for (kind, durations) in ["watch", "regular"].into_iter().zip(&counts.executions) {
                    write("request_execution_seconds", &format!("{labels},type=\"{kind}\""), durations);
                }
                write("work_estimated_seats", &labels, &counts.seats);
            }
        }
        for (name, kind, help) in FAMILIES {
            if let Some(samples) = samples.get(name) {
                head(out, &full(name), kind, help);
                out.push_str(samples);
            }
        }
    }
}
