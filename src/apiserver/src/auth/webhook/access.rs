//! An authorizer that is another server's.
//!
//! Models k8s.io/apiserver/plugin/pkg/authorizer/webhook/webhook.go and its metrics.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use api::selector::Operator;
use api::tree::{Object, Tree};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::kept::{self, Kept};
use super::kubeconfig::{Endpoint, KubeconfigError};
use crate::auth::config::WebhookConfiguration;
use crate::auth::{Attributes, Decision, Verdict};

const ANSWERS_MAX: usize = 8192;
/// Of what requesters choose; longer questions are not kept.
const KEPT_BYTES_MAX: usize = 10_000;

pub struct AccessWebhook {
    config: WebhookConfiguration,
    endpoint: Endpoint,
    answers: Kept<Decision>,
}

impl AccessWebhook {
    pub fn new(config: WebhookConfiguration) -> Result<Self, KubeconfigError> {
        let endpoint = Endpoint::load(&config.kubeconfig)?;
        Ok(Self { config, endpoint, answers: Kept::new(ANSWERS_MAX) })
    }

    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let conditions = &self.config.conditions;
        if !conditions.is_empty() {
            match conditions.hold(&spec(attributes, true)) {
                Ok(true) => {}
                Ok(false) => return Decision::no_opinion(""),
                Err(error) => return self.failed(error),
            }
        }
        let mut spec = spec(attributes, false);
        let key = kept::key(&spec.to_json());
        if let Some(decision) = self.answers.get(&key) {
            return decision;
        }
        let version = format!("authorization.k8s.io/{}", self.config.version);
        if self.config.version == "v1beta1"
            && let Some(groups) = spec.remove(&["groups"])
        {
            spec.set(&["group"], groups);
        }
        let name = &self.config.name;
        let result = Mutex::new("error");
        let each = |outcome: Result<(), &super::CallError>, took: Duration| {
            let outcome = match outcome {
                Ok(()) => "success",
                Err(error) if error.timed_out => "timeout",
                Err(_) => "error",
            };
            *result.lock().expect("no panic under the lock") = outcome;
            METRICS.asked(name, outcome, took);
        };
        let status = match self.endpoint.review("SubjectAccessReview", &version, &spec, self.config.timeout, each).await {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(%error, webhook = name, "failed to make webhook authorizer request");
                if !self.config.denies_on_failure {
                    METRICS.failed_open(name, *result.lock().expect("no panic under the lock"));
                }
                return self.failed(error.text);
            }
        };
        let decision = decision(&status);
        if controlled_bytes(attributes) < KEPT_BYTES_MAX {
            let allowed = status.get("allowed").and_then(Tree::as_bool) == Some(true);
            self.answers.put(key, decision.clone(), if allowed { self.config.allowed_ttl } else { self.config.refused_ttl });
        }
        decision
    }

    /// For callers that cannot wait: the thread does, and others take over what it would have done.
    pub fn authorize_blocking(&self, attributes: &Attributes<'_>) -> Decision {
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| handle.block_on(self.authorize(attributes)))
            }
            _ => self.failed("a webhook can only be asked where others can go on meanwhile".into()),
        }
    }

    fn failed(&self, error: String) -> Decision {
        let verdict = if self.config.denies_on_failure { Verdict::Deny } else { Verdict::NoOpinion };
        Decision { verdict, reason: String::new(), evaluation_error: error.clone(), failure: error }
    }
}

fn decision(status: &Tree) -> Decision {
    let is = |field: &str| status.get(field).and_then(Tree::as_bool) == Some(true);
    let reason = status.str_at(&["reason"]);
    match (is("denied"), is("allowed")) {
        (true, true) => {
            let error = "webhook subject access review returned both allow and deny response".to_owned();
            Decision { evaluation_error: error.clone(), failure: error, ..Decision::deny(reason) }
        }
        (true, false) => Decision::deny(reason),
        (false, true) => Decision::allow(reason),
        (false, false) => Decision::no_opinion(reason),
    }
}

fn controlled_bytes(a: &Attributes) -> usize {
    [a.namespace, a.verb, a.api_group, a.api_version, a.resource, a.subresource, a.name, a.path].iter().map(|text| text.len()).sum()
}

/// The `spec` of a SubjectAccessReview; `is_full`: with texts that are empty, as expressions see it.
fn spec(a: &Attributes, is_full: bool) -> Tree {
    let mut spec = Object::default();
    let texts = |all: &[String]| Tree::Array(all.iter().map(|text| text.as_str().into()).collect());
    let put = |to: &mut Object, field: &str, text: &str| {
        if is_full || !text.is_empty() {
            to.insert(field, text);
        }
    };
    if a.resource_request {
        let mut resource = Object::default();
        let fields = [
            ("namespace", a.namespace),
            ("verb", a.verb),
            ("group", a.api_group),
            ("version", a.api_version),
            ("resource", a.resource),
            ("subresource", a.subresource),
            ("name", a.name),
        ];
        fields.into_iter().for_each(|(field, text)| put(&mut resource, field, text));
        for (field, requirements) in [("fieldSelector", field_requirements(a)), ("labelSelector", label_requirements(a))] {
            if !requirements.is_empty() {
                resource.insert(field, Tree::Object([("requirements", Tree::Array(requirements))].into_iter().collect()));
            }
        }
        spec.insert("resourceAttributes", Tree::Object(resource));
    } else {
        let mut path = Object::default();
        put(&mut path, "path", a.path);
        put(&mut path, "verb", a.verb);
        spec.insert("nonResourceAttributes", Tree::Object(path));
    }
    put(&mut spec, "user", &a.user.name);
    if is_full || !a.user.groups.is_empty() {
        spec.insert("groups", texts(&a.user.groups));
    }
    if is_full || !a.user.extra.is_empty() {
        spec.insert("extra", Tree::Object(a.user.extra.iter().map(|(key, values)| (key.as_str(), texts(values))).collect()));
    }
    put(&mut spec, "uid", &a.user.uid);
    Tree::Object(spec)
}

fn requirement<'v>(key: &str, operator: &str, values: impl Iterator<Item = &'v str>) -> Tree {
    let values: Vec<Tree> = values.map(Tree::from).collect();
    let mut tree = Tree::Object([("key", Tree::from(key)), ("operator", operator.into())].into_iter().collect());
    if !values.is_empty() {
        tree.set(&["values"], Tree::Array(values));
    }
    tree
}

fn field_requirements(a: &Attributes) -> Vec<Tree> {
    let operator = |negated: bool| if negated { "NotIn" } else { "In" };
    a.fields.terms().iter().map(|term| requirement(&term.field, operator(term.negated), std::iter::once(&*term.value))).collect()
}

fn label_requirements(a: &Attributes) -> Vec<Tree> {
    let of = |requirement_: &api::selector::Requirement| {
        let operator = match requirement_.operator() {
            Operator::In | Operator::Equals | Operator::DoubleEquals => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // No review can say these; without them more is asked than is wanted.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        Some(requirement(requirement_.key(), operator, requirement_.values()))
    };
    a.labels.requirements().iter().filter_map(of).collect()
}

/// By webhook and result. Webhooks are those of configuration files, so there are few.
static METRICS: Metrics = Metrics(Mutex::new(BTreeMap::new()));

type Counts = BTreeMap<(String, &'static str), (u64, f64, u64)>;
struct Metrics(Mutex<Counts>);

impl Metrics {
    fn with(&self, name: &str, result: &'static str, change: impl FnOnce(&mut (u64, f64, u64))) {
        change(self.0.lock().expect("no panic under the lock").entry((name.to_owned(), result)).or_default());
    }

    fn asked(&self, name: &str, result: &'static str, took: Duration) {
        self.with(name, result, |(count, seconds, _)| (*count, *seconds) = (*count + 1, *seconds + took.as_secs_f64()));
    }

    fn failed_open(&self, name: &str, result: &'static str) {
        self.with(name, result, |(_, _, open)| *open += 1);
    }
}

/// What webhooks of authorization were asked.
pub fn metrics_page() -> String {
    let counts = METRICS.0.lock().expect("no panic under the lock");
    if counts.is_empty() {
        return String::new();
    }
    const PREFIX: &str = "apiserver_authorization_webhook";
    let mut out =
        format!("# HELP {PREFIX}_evaluations_total Round-trips to authorization webhooks.\n# TYPE {PREFIX}_evaluations_total counter\n");
    for ((name, result), (count, _, _)) in counts.iter() {
        let _ = writeln!(out, "{PREFIX}_evaluations_total{{name=\"{name}\",result=\"{result}\"}} {count}");
    }
    let _ = writeln!(out, "# HELP {PREFIX}_duration_seconds Request latency in seconds.\n# TYPE {PREFIX}_duration_seconds summary");
    for ((name, result), (count, seconds, _)) in counts.iter() {
        let labels = format!("name=\"{name}\",result=\"{result}\"");
        let _ = writeln!(out, "{PREFIX}_duration_seconds_sum{{{labels}}} {seconds}\n{PREFIX}_duration_seconds_count{{{labels}}} {count}");
    }
    let _ = writeln!(
        out,
        "# HELP {PREFIX}_evaluations_fail_open_total NoOpinion results due to webhook timeout or error.\n# TYPE {PREFIX}_evaluations_fail_open_total counter"
    );
    for ((name, result), (_, _, open)) in counts.iter().filter(|(_, (_, _, open))| *open > 0) {
        let _ = writeln!(out, "{PREFIX}_evaluations_fail_open_total{{name=\"{name}\",result=\"{result}\"}} {open}");
    }
    out
}
