//! `AuthorizationConfiguration`: which authorizers are asked, in which order (KEP-3221).
//!
//! Models k8s.io/apiserver/pkg/apis/apiserver/v1/{types,defaults}.go, its validation/validation.go ValidateAuthorizationConfiguration, and
//! pkg/kubeapiserver/authorizer/config.go LoadAndValidateData. ABAC is no type here: its policies are files of another time.
use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use api::field_error::{FieldError, Path};
use api::names;
use api::tree::Tree;

use super::shape::Shape::{self, Flag, List, Object, Text, Time};
use super::shape::duration_nanos;
use super::{ConfigError, read};
use crate::auth::webhook::MatchConditions;

const KIND: &str = "AuthorizationConfiguration";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

const WEBHOOK: Shape = Object(&[
    ("authorizedTTL", Time),
    ("cacheAuthorizedRequests", Flag),
    ("unauthorizedTTL", Time),
    ("cacheUnauthorizedRequests", Flag),
    ("timeout", Time),
    ("subjectAccessReviewVersion", Text),
    ("matchConditionSubjectAccessReviewVersion", Text),
    ("failurePolicy", Text),
    ("connectionInfo", Object(&[("type", Text), ("kubeConfigFile", Text)])),
    ("matchConditions", List(&Object(&[("expression", Text)]))),
]);
const SHAPE: Shape = Object(&[
    ("apiVersion", Text),
    ("kind", Text),
    ("authorizers", List(&Object(&[("type", Text), ("name", Text), ("webhook", WEBHOOK)]))),
]);

#[derive(Debug, Default)]
pub struct AuthorizationConfiguration {
    pub authorizers: Vec<AuthorizerConfiguration>,
}

#[derive(Debug)]
pub enum AuthorizerConfiguration {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<WebhookConfiguration>),
}

#[derive(Debug)]
pub struct WebhookConfiguration {
    pub name: String,
    /// How long an answer is good for; none where answers are not kept.
    pub allowed_ttl: Duration,
    pub refused_ttl: Duration,
    pub timeout: Duration,
    /// `v1` or `v1beta1`.
    pub version: &'static str,
    /// Whether a webhook that fails refuses.
    pub denies_on_failure: bool,
    pub kubeconfig: PathBuf,
    pub conditions: MatchConditions,
}

impl AuthorizerConfiguration {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AlwaysAllow => "AlwaysAllow",
            Self::AlwaysDeny => "AlwaysDeny",
            Self::Node => "Node",
            Self::Rbac => "RBAC",
            Self::Webhook(_) => "Webhook",
        }
    }
}

impl AuthorizationConfiguration {
    /// What holds where nobody says otherwise.
    pub fn usual() -> Self {
        Self { authorizers: vec![AuthorizerConfiguration::Node, AuthorizerConfiguration::Rbac] }
    }

    /// The types that need no webhook: a changed file must have them too.
    pub fn own_types(&self) -> BTreeSet<&'static str> {
        self.authorizers.iter().map(AuthorizerConfiguration::kind).filter(|kind| *kind != "Webhook").collect()
    }

    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let tree = read(text, KIND, &VERSIONS, &SHAPE)?;
        let (mut errors, mut authorizers) = (Vec::new(), Vec::new());
        let root = Path::new("authorizers");
        let entries = tree.array_at(&["authorizers"]);
        if entries.is_empty() {
            errors.push(FieldError::required(root, "at least one authorization mode must be defined"));
        }
        let (mut types, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for (i, entry) in entries.iter().enumerate() {
            let path = root.index(i);
            let kind = entry.str_at(&["type"]);
            let at = path.child("type");
            if kind.is_empty() {
                errors.push(FieldError::required(at, ""));
                continue;
            }
            if !TYPES.contains(&kind) {
                errors.push(FieldError::not_supported(at, kind, &TYPES));
                continue;
            }
            if !types.insert(kind) && kind != "Webhook" {
                errors.push(FieldError::duplicate(at, kind));
                continue;
            }
            let named = entry.str_at(&["name"]);
            name(named, !seen.insert(named), &path.child("name"), &mut errors);
            authorizers.extend(authorizer(kind, named, entry, &path, &mut errors));
        }
        if !errors.is_empty() {
            return Err(ConfigError::Invalid(errors));
        }
        let misnamed = |(entry, of): (&Tree, &AuthorizerConfiguration)| {
            let (kind, named) = (of.kind(), entry.str_at(&["name"]));
            let expected = kind.to_lowercase();
            (kind != "Webhook" && named != expected).then(|| format!("expected name {expected} for authorizer {kind} instead of {named}"))
        };
        let misnamed: Vec<String> = entries.iter().zip(&authorizers).filter_map(misnamed).collect();
        if misnamed.is_empty() { Ok(Self { authorizers }) } else { Err(ConfigError::Unreadable(crate::status::aggregate(&misnamed))) }
    }
}

fn name(named: &str, is_known: bool, path: &Path, errors: &mut Vec<FieldError>) {
    if named.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if is_known {
        return errors.push(FieldError::duplicate(path, named));
    }
    let wrong = names::dns1123_subdomain(named);
    if !wrong.is_empty() {
        errors.push(FieldError::invalid(path, named, format!("authorizer name is invalid: {}", wrong.join(", "))));
    }
}

fn authorizer(kind: &str, named: &str, entry: &Tree, path: &Path, errors: &mut Vec<FieldError>) -> Option<AuthorizerConfiguration> {
    let hook = entry.get("webhook").filter(|hook| !hook.is_null());
    if kind == "Webhook" {
        let Some(hook) = hook else {
            errors.push(FieldError::required(path.child("webhook"), "required when type=Webhook"));
            return None;
        };
        return webhook(named, hook, path, errors).map(|hook| AuthorizerConfiguration::Webhook(Box::new(hook)));
    }
    if hook.is_some() {
        errors.push(FieldError::invalid(path.child("webhook"), "non-null", "may only be specified when type=Webhook"));
    }
    Some(match kind {
        "AlwaysAllow" => AuthorizerConfiguration::AlwaysAllow,
        "AlwaysDeny" => AuthorizerConfiguration::AlwaysDeny,
        "Node" => AuthorizerConfiguration::Node,
        _ => AuthorizerConfiguration::Rbac,
    })
}

/// The paths are upstream's, which leave out `webhook`.
fn webhook(named: &str, hook: &Tree, path: &Path, errors: &mut Vec<FieldError>) -> Option<WebhookConfiguration> {
    let before = errors.len();
    let text = |field: &str| hook.str_at(&[field]);
    let nanos = |field: &str, default: i64| match hook.str_at(&[field]) {
        "" => default,
        text => duration_nanos(text).filter(|nanos| *nanos != 0).unwrap_or(default),
    };
    let timeout = nanos("timeout", 0);
    if timeout == 0 {
        errors.push(FieldError::required(path.child("timeout"), ""));
    } else if timeout < 0 || timeout as u128 > TIMEOUT_MAX.as_nanos() {
        errors.push(FieldError::invalid(path.child("timeout"), text("timeout"), "must be > 0s and <= 30s"));
    }
    let mut ttl = |field: &str, default: i64, cached: &str| {
        let nanos = nanos(field, default);
        if nanos < 0 {
            errors.push(FieldError::invalid(path.child(field), text(field), "must be > 0s"));
        }
        let is_kept = hook.get(cached).and_then(Tree::as_bool).unwrap_or(true);
        Duration::from_nanos(if is_kept { nanos.max(0) as u64 } else { 0 })
    };
    let allowed_ttl = ttl("authorizedTTL", 300_000_000_000, "cacheAuthorizedRequests");
    let refused_ttl = ttl("unauthorizedTTL", 30_000_000_000, "cacheUnauthorizedRequests");
    let mut version = "v1";
    match text("subjectAccessReviewVersion") {
        "v1" => {}
        "v1beta1" => version = "v1beta1",
        "" => errors.push(FieldError::required(path.child("subjectAccessReviewVersion"), "")),
        other => errors.push(FieldError::not_supported(path.child("subjectAccessReviewVersion"), other, &["v1", "v1beta1"])),
    }
    let conditions = hook.array_at(&["matchConditions"]);
    let at = path.child("matchConditionSubjectAccessReviewVersion");
    match text("matchConditionSubjectAccessReviewVersion") {
        "" if !conditions.is_empty() => errors.push(FieldError::required(at, "required if match conditions are specified")),
        "" | "v1" => {}
        other => errors.push(FieldError::not_supported(at, other, &["v1"])),
    }
    let at = path.child("failurePolicy");
    match text("failurePolicy") {
        "NoOpinion" | "Deny" => {}
        "" => errors.push(FieldError::required(at, "")),
        other => errors.push(FieldError::not_supported(at, other, &["NoOpinion", "Deny"])),
    }
    let kubeconfig = connection(hook, &path.child("connectionInfo"), errors);
    let conditions = MatchConditions::compile(conditions, &path.child("matchConditions"), errors);
    (errors.len() == before).then(|| WebhookConfiguration {
        name: named.to_owned(),
        allowed_ttl,
        refused_ttl,
        timeout: Duration::from_nanos(timeout.max(0) as u64),
        version,
        denies_on_failure: text("failurePolicy") == "Deny",
        kubeconfig,
        conditions,
    })
}

fn connection(hook: &Tree, path: &Path, errors: &mut Vec<FieldError>) -> PathBuf {
    let file = hook.str_at(&["connectionInfo", "kubeConfigFile"]);
    let at = path.child("kubeConfigFile");
    match hook.str_at(&["connectionInfo", "type"]) {
        "" => errors.push(FieldError::required(path.child("type"), "")),
        "KubeConfigFile" if file.is_empty() => errors.push(FieldError::required(at, "")),
        "KubeConfigFile" if !FilePath::new(file).is_absolute() => errors.push(FieldError::invalid(at, file, "must be an absolute path")),
        "KubeConfigFile" => match std::fs::metadata(file) {
            Ok(found) if found.is_file() => {}
            Ok(_) => errors.push(FieldError::invalid(at, file, "must be a regular file")),
            Err(error) => errors.push(FieldError::invalid(at, file, format!("error loading file: {error}"))),
        },
        "InClusterConfig" => {
            errors.push(FieldError::invalid(
                path.child("type"),
                "InClusterConfig",
                "the API server runs in no pod: only KubeConfigFile is supported",
            ));
        }
        other => errors.push(FieldError::not_supported(path.child("type"), other, &["InClusterConfig", "KubeConfigFile"])),
    }
    file.into()
}
