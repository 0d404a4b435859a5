//! Pod Security Standards, by labels of the namespace: enforced on pods, warned about on pods and what makes pods.
//!
//! Models k8s.io/pod-security-admission/admission. Left out: exemptions, the checks as older versions had them (a version label is printed, the
//! newest checks apply).
mod baseline;
mod namespaces;
mod restricted;

use api::tree::Tree;

use super::{Operation, Request};
use crate::audit::notes;
use crate::cache::{Cache, Cached};
use crate::metrics::{Evaluation, Times};
use crate::status::Status;

const LABEL: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// One way in which a pod breaks a level: `reason (detail)`.
struct Violation {
    reason: String,
    detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

#[derive(PartialEq, Eq)]
struct Policy {
    level: Level,
    version: String,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.level.name(), self.version)
    }
}

/// What the namespace asks for in `mode`; an unreadable level is the strictest, as upstream has it.
fn policy<'n>(label: impl Fn(&str) -> Option<&'n str>, mode: &str) -> Policy {
    let label = |suffix: &str| label(&format!("{LABEL}{mode}{suffix}")).unwrap_or("");
    let level = match label("") {
        "" => Level::Privileged,
        text => Level::parse(text).unwrap_or(Level::Restricted),
    };
    let version = match label("-version") {
        "" => "latest",
        version => version,
    };
    Policy { level, version: version.to_owned() }
}

impl Policy {
    /// As upstream's metrics name it, so that labels of namespaces make no new names without end.
    fn version_name(&self) -> &str {
        let minor = self.version.strip_prefix("v1.").and_then(|minor| minor.parse::<u8>().ok());
        if self.version == "latest" || minor.is_some_and(|minor| minor <= 37) { &self.version } else { "future" }
    }

    fn evaluated(&self, times: &Times, is_allowed: bool, mode: &'static str, request: &Request, is_pod: bool) {
        times.pods.evaluated(Evaluation {
            is_allowed,
            level: self.level.name(),
            version: self.version_name().to_owned(),
            mode,
            operation: if request.operation == Operation::Create { "create" } else { "update" },
            resource: if is_pod { "pod" } else { "controller" },
            subresource: request.subresource,
        });
    }
}

pub fn check(cache: &Cache, times: &Times, request: &mut Request) -> Result<(), Status> {
    if request.is("", "namespaces") {
        return namespaces::check(cache, request);
    }
    let Some((pod, is_pod)) = pod_of(request) else { return Ok(()) };
    let Some(namespace) = cache.get("", "namespaces", "", &request.namespace) else { return Ok(()) };
    let [enforce, audit, warn] = ["enforce", "audit", "warn"].map(|mode| policy(|key| namespace.label(key), mode));
    note(&namespace, is_pod.then_some(&enforce), &audit, &warn, pod);
    if is_pod {
        let broken = violations(enforce.level, pod);
        enforce.evaluated(times, broken.is_none(), "enforce", request, is_pod);
        if let Some(text) = broken {
            return Err(request.forbidden(format!("violates PodSecurity \"{enforce}\": {text}")));
        }
    }
    if let Some(text) = violations(warn.level, pod) {
        warn.evaluated(times, false, "warn", request, is_pod);
        request.warnings.push(format!("would violate PodSecurity \"{warn}\": {text}"));
    }
    Ok(())
}

/// Annotates the audit event; nothing where nobody asks for anything.
fn note(namespace: &Cached, enforce: Option<&Policy>, audit: &Policy, warn: &Policy, pod: &Tree) {
    if !notes::is_recorded() {
        return;
    }
    let errors = namespaces::errors(&namespace.tree());
    let is_asked = |policy: &Policy| policy.level != Level::Privileged;
    if errors.is_empty() && !enforce.is_some_and(is_asked) && !is_asked(audit) && !is_asked(warn) {
        return;
    }
    let annotate = |name: &str, value: String| notes::annotate(format!("{LABEL}{name}"), value);
    if !errors.is_empty() {
        annotate("error", format!("Failed to parse policy: {}", api::field_error::aggregate(&errors)));
    }
    if let Some(enforce) = enforce {
        annotate("enforce-policy", enforce.to_string());
    }
    if let Some(text) = violations(audit.level, pod) {
        annotate("audit-violations", format!("would violate PodSecurity \"{audit}\": {text}"));
    }
}

/// The pod that the request is about, and whether it is one itself.
fn pod_of(request: &Request) -> Option<(&Tree, bool)> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return None;
    }
    let ephemeral = request.subresource == "ephemeralcontainers";
    if !request.subresource.is_empty() && !ephemeral {
        return None;
    }
    let template = |path: &[&str]| request.object.at(path).map(|pod| (pod, false));
    match (&*request.resource.group, &*request.resource.plural) {
        ("", "pods") => {
            // What was let in stays, unless it changes in what is checked.
            let unchanged = request.operation == Operation::Update
                && !ephemeral
                && request.old.as_deref().is_some_and(|old| is_same_security(old, &request.object));
            (!unchanged).then_some((&request.object, true))
        }
        ("", "podtemplates") => template(&["template"]),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => template(&["spec", "template"]),
        ("batch", "cronjobs") => template(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// Of a pod's spec only images, deadlines, tolerations and resources change in an update, and AppArmor annotations.
fn is_same_security(old: &Tree, new: &Tree) -> bool {
    let annotations = |pod: &Tree| {
        let entries = api::meta::annotations(pod).iter();
        entries.filter(|(key, _)| key.contains("apparmor.security")).map(|(k, v)| (k.to_owned(), v.clone())).collect::<Vec<_>>()
    };
    annotations(old) == annotations(new)
}

/// What the pod breaks, in upstream's words; `None` when nothing.
fn violations(level: Level, pod: &Tree) -> Option<String> {
    let texts = found(level, pod).into_iter().map(|Violation { reason, detail }| {
        if detail.is_empty() { reason } else { format!("{reason} ({detail})") }
    });
    Some(texts.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}

fn found(level: Level, pod: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    if level >= Level::Baseline {
        found.extend(baseline::check(pod, level == Level::Restricted));
    }
    if level >= Level::Restricted {
        found.extend(restricted::check(pod));
    }
    found
}

fn containers(pod: &Tree) -> impl Iterator<Item = &Tree> {
    // As upstream's visitContainers.
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| pod.array_at(&["spec", list]))
}

fn name(tree: &Tree) -> &str {
    tree.str_at(&["name"])
}

/// `"a", "b"`
fn quote<S: AsRef<str>>(items: &[S]) -> String {
    items.iter().map(|item| format!("{:?}", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
fn named(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quote(names))
}

/// `pod and container "a"`: who sets something.
fn setters(pod_sets: bool, names: &[&str]) -> String {
    match (pod_sets, names) {
        (true, []) => "pod".to_owned(),
        (true, names) => format!("pod and {}", named(names)),
        (false, names) => named(names),
    }
}

/// Explicit and missing settings of one field that pods and containers share.
struct Setting<'a> {
    pod_bad: bool,
    bad: Vec<&'a str>,
    /// Containers that leave it out where the pod does not set it well.
    missing: Vec<&'a str>,
}

fn setting<'a>(pod: &'a Tree, path: &[&str], good: impl Fn(&Tree) -> bool) -> Setting<'a> {
    let at = |tree: &'a Tree, first: &[&str]| {
        let way: Vec<&str> = first.iter().chain(path).copied().collect();
        tree.at(&way).filter(|value| !value.is_null())
    };
    let of_pod = at(pod, &["spec", "securityContext"]);
    let pod_good = of_pod.is_some_and(&good);
    let mut found = Setting { pod_bad: of_pod.is_some() && !pod_good, bad: Vec::new(), missing: Vec::new() };
    for container in containers(pod) {
        match at(container, &["securityContext"]) {
            Some(value) if !good(value) => found.bad.push(name(container)),
            None if !pod_good => found.missing.push(name(container)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
