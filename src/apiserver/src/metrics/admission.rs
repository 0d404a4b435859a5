//! How long admission takes, plugin by plugin and webhook by webhook.
//!
//! Models k8s.io/apiserver/pkg/admission/metrics.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::pods::Evaluations;
use super::text::{self, Histogram};
use crate::admission::Operation;
use crate::status::Status;

const DURATIONS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_DURATIONS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

/// One question to admission.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    /// `admit` or `validate`.
    kind: &'static str,
    operation: &'static str,
    is_rejected: bool,
}

impl Step {
    fn labels(self) -> String {
        let Step { kind, operation, is_rejected } = self;
        format!("operation=\"{operation}\",rejected=\"{is_rejected}\",type=\"{kind}\"")
    }
}

#[derive(Default)]
struct State {
    steps: BTreeMap<Step, Histogram>,
    plugins: BTreeMap<(&'static str, Step), Histogram>,
    /// By webhook and HTTP code.
    webhooks: BTreeMap<(String, Step, u16), Histogram>,
}

#[derive(Default)]
pub struct Times {
    state: Mutex<State>,
    pub pods: Evaluations,
}

/// Times the plugins of one step; the step ends with it, and all are counted at once then.
pub struct Clock<'t> {
    times: &'t Times,
    step: Step,
    began: Instant,
    last: Instant,
    plugins: Vec<(&'static str, Step, Duration)>,
}

/// About as many plugins decide in a step.
const PLUGINS: usize = 16;

fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

impl Times {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    pub fn begin(&self, kind: &'static str, operation: Operation) -> Clock<'_> {
        let now = Instant::now();
        let step = Step { kind, operation: operation_name(operation), is_rejected: false };
        Clock { times: self, step, began: now, last: now, plugins: Vec::with_capacity(PLUGINS) }
    }

    /// A webhook was asked; `code`: of a refusal.
    pub fn webhook(&self, name: &str, is_mutating: bool, operation: Operation, code: Option<u16>, took: Duration) {
        let kind = if is_mutating { "admit" } else { "validating" };
        let step = Step { kind, operation: operation_name(operation), is_rejected: code.is_some() };
        let key = (name.to_owned(), step, code.unwrap_or(200).min(600));
        self.lock().webhooks.entry(key).or_insert_with(|| Histogram::new(WEBHOOK_DURATIONS)).observe(took.as_secs_f64());
    }

    /// Drops what was counted of webhooks that are gone.
    pub fn retain_webhooks(&self, is_there: impl Fn(&str) -> bool) {
        self.lock().webhooks.retain(|(name, _, _), _| is_there(name));
    }

    pub fn render(&self, out: &mut String) {
        let state = self.lock();
        let name = "apiserver_admission_step_admission_duration_seconds";
        text::head(out, name, "histogram", "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).");
        state.steps.iter().for_each(|(step, durations)| durations.write(out, name, &step.labels()));
        let name = "apiserver_admission_controller_admission_duration_seconds";
        text::head(out, name, "histogram", "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).");
        for ((plugin, step), durations) in &state.plugins {
            durations.write(out, name, &format!("name=\"{plugin}\",{}", step.labels()));
        }
        self.pods.render(out);
        if state.webhooks.is_empty() {
            return;
        }
        let name = "apiserver_admission_webhook_admission_duration_seconds";
        text::head(out, name, "histogram", "Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).");
        let mut merged: BTreeMap<(&str, Step), Histogram> = BTreeMap::new();
        for ((webhook, step, _), durations) in &state.webhooks {
            merged.entry((webhook.as_str(), *step)).or_insert_with(|| Histogram::new(WEBHOOK_DURATIONS)).add(durations);
        }
        for ((webhook, step), durations) in &merged {
            durations.write(out, name, &format!("name=\"{webhook}\",{}", step.labels()));
        }
        let name = "apiserver_admission_webhook_request_total";
        text::head(out, name, "counter", "Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.");
        for ((webhook, step, code), durations) in &state.webhooks {
            text::sample(out, name, &format!("code=\"{code}\",name=\"{webhook}\",{}", step.labels()), durations.count());
        }
    }
}

impl Clock<'_> {
    /// The plugin has decided.
    pub fn decided<T>(&mut self, plugin: &'static str, result: Result<T, Status>) -> Result<T, Status> {
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut self.last, now));
        let step = Step { is_rejected: result.is_err(), ..self.step };
        self.step.is_rejected |= result.is_err();
        self.plugins.push((plugin, step, took));
        result
    }

    /// What is no plugin has decided.
    pub fn other<T>(&mut self, result: Result<T, Status>) -> Result<T, Status> {
        self.step.is_rejected |= result.is_err();
        self.last = Instant::now();
        result
    }

    /// The plugin, which never refuses, has done its work.
    pub fn done(&mut self, plugin: &'static str) {
        let _always_admits = self.decided(plugin, Ok(()));
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        let mut state = self.times.lock();
        for (plugin, step, took) in self.plugins.drain(..) {
            state.plugins.entry((plugin, step)).or_insert_with(|| Histogram::new(DURATIONS)).observe(took.as_secs_f64());
        }
        state.steps.entry(self.step).or_insert_with(|| Histogram::new(DURATIONS)).observe(self.began.elapsed().as_secs_f64());
    }
}
