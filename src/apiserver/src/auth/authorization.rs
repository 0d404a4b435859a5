//! May they: `system:masters` always, then the authorizers of the configuration in their order; the first that has an opinion decides.
//!
//! Models k8s.io/apiserver/pkg/authorization/{union,authorizerfactory} and pkg/kubeapiserver/authorizer/reload.go. Without a configuration these are
//! the node authorizer and RBAC.
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::config::{AuthorizationConfiguration, AuthorizerConfiguration};
use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use super::webhook::{AccessWebhook, KubeconfigError};
use super::{Attributes, Authorizer, Decision, PolicyRule, UserInfo, UserRules, Verdict};
use crate::cache::Cache;
use crate::follow::{Follow, Reload, ReloadCounts, Taker};

pub struct Authorization {
    node: NodeAuthorizer,
    rbac: Rbac,
    steps: ArcSwap<Vec<Step>>,
}

enum Step {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<AccessWebhook>),
}

fn steps(config: AuthorizationConfiguration) -> Result<Vec<Step>, KubeconfigError> {
    let step = |of| {
        Ok(match of {
            AuthorizerConfiguration::AlwaysAllow => Step::AlwaysAllow,
            AuthorizerConfiguration::AlwaysDeny => Step::AlwaysDeny,
            AuthorizerConfiguration::Node => Step::Node,
            AuthorizerConfiguration::Rbac => Step::Rbac,
            AuthorizerConfiguration::Webhook(config) => Step::Webhook(Box::new(AccessWebhook::new(*config)?)),
        })
    };
    config.authorizers.into_iter().map(step).collect()
}

impl Authorization {
    /// Listens to roles, bindings and pods in `cache`; make one and share it.
    pub fn new(cache: &Cache) -> Self {
        let steps = ArcSwap::from_pointee(vec![Step::Node, Step::Rbac]);
        Self { node: NodeAuthorizer::new(cache), rbac: Rbac::new(cache), steps }
    }

    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    /// Asks whom `config` names, from now on.
    pub fn configure(&self, config: AuthorizationConfiguration) -> Result<(), KubeconfigError> {
        self.steps.store(Arc::new(steps(config)?));
        Ok(())
    }

    /// Follows the file `path`, of which `text` holds now.
    pub async fn follow(&self, path: &Path, text: String, counts: &ReloadCounts, shutdown: CancellationToken) {
        let required = AuthorizationConfiguration::parse(&text).map_or_else(|_| BTreeSet::new(), |config| config.own_types());
        Follow::new(path, text).run(counts, shutdown, &Updates { authorization: self, required }).await;
    }

    /// What those say that need not wait; `None`: a webhook must be asked.
    fn step(&self, step: &Step, attributes: &Attributes) -> Option<Decision> {
        Some(match step {
            Step::AlwaysAllow => Decision::allow(""),
            Step::AlwaysDeny => Decision::no_opinion("Everything is forbidden."),
            Step::Node => self.node.authorize(attributes),
            Step::Rbac => self.rbac.authorize(attributes),
            Step::Webhook(_) => return None,
        })
    }
}

/// What a changed file does to the order.
struct Updates<'a> {
    authorization: &'a Authorization,
    /// The types of the first file that are no webhooks.
    required: BTreeSet<&'static str>,
}

impl Updates<'_> {
    fn taken(&self, text: &str) -> Reload {
        let config = match AuthorizationConfiguration::parse(text) {
            Ok(config) => config,
            Err(error) => return Reload::Refused(error.to_string()),
        };
        let has = config.own_types();
        let missing: Vec<&str> = self.required.difference(&has).copied().collect();
        if !missing.is_empty() {
            return Reload::Refused(format!("missing required types: [{}]", missing.join(" ")));
        }
        if let Some(kind) = has.difference(&self.required).find(|kind| matches!(**kind, "Node" | "RBAC")) {
            return Reload::Refused(format!("authorizer type {kind} is not allowed if it was not enabled at initial server startup"));
        }
        match self.authorization.configure(config) {
            Ok(()) => Reload::Done,
            Err(error) => Reload::Failed(error.to_string()),
        }
    }
}

impl Taker for Updates<'_> {
    fn take<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Reload> {
        Box::pin(std::future::ready(self.taken(text)))
    }
}

/// Those that have no opinion, so far.
#[derive(Default)]
struct Undecided {
    reasons: Vec<String>,
    errors: Vec<String>,
    failures: Vec<String>,
}

impl Undecided {
    /// The decision, if this is one.
    fn hear(&mut self, decision: Decision) -> Option<Decision> {
        if decision.verdict != Verdict::NoOpinion {
            return Some(decision);
        }
        let lists = [&mut self.reasons, &mut self.errors, &mut self.failures];
        for (list, text) in lists.into_iter().zip([decision.reason, decision.evaluation_error, decision.failure]) {
            list.extend(Some(text).filter(|text| !text.is_empty()));
        }
        None
    }

    fn end(self) -> Decision {
        let aggregate = |list: &[String]| if list.is_empty() { String::new() } else { crate::status::aggregate(list) };
        Decision { evaluation_error: aggregate(&self.errors), failure: aggregate(&self.failures), ..Decision::no_opinion(self.reasons.join("\n")) }
    }
}

impl Authorizer for Authorization {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group("system:masters") {
            return Decision::allow("");
        }
        let mut undecided = Undecided::default();
        for step in self.steps.load().iter() {
            let decision = match step {
                Step::Webhook(webhook) => webhook.authorize_blocking(attributes),
                step => self.step(step, attributes).expect("only webhooks must be waited for"),
            };
            if let Some(decided) = undecided.hear(decision) {
                return decided;
            }
        }
        undecided.end()
    }

    fn decide<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let steps = self.steps.load();
        if attributes.user.in_group("system:masters") || !steps.iter().any(|step| matches!(step, Step::Webhook(_))) {
            return Box::pin(std::future::ready(self.authorize(attributes)));
        }
        let steps = arc_swap::Guard::into_inner(steps);
        Box::pin(async move {
            let mut undecided = Undecided::default();
            for step in steps.iter() {
                let decision = match step {
                    Step::Webhook(webhook) => webhook.authorize(attributes).await,
                    step => self.step(step, attributes).expect("only webhooks must be waited for"),
                };
                if let Some(decided) = undecided.hear(decision) {
                    return decided;
                }
            }
            undecided.end()
        })
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut rules = UserRules::default();
        let mut errors = Vec::new();
        for step in self.steps.load().iter() {
            match step {
                Step::AlwaysAllow => rules.rules.extend(everything()),
                Step::AlwaysDeny => {}
                Step::Rbac => {
                    let found = self.rbac.rules_for(user, namespace);
                    rules.rules.extend(found.rules);
                    rules.incomplete |= found.incomplete;
                    errors.extend(Some(found.evaluation_error).filter(|error| !error.is_empty()));
                }
                Step::Node if super::node::name_of(user).is_some() => {
                    rules.incomplete = true;
                    errors.push("node authorizer does not support user rule resolution".to_owned());
                }
                Step::Node => {}
                Step::Webhook(_) => {
                    rules.incomplete = true;
                    errors.push("webhook authorizer does not support user rule resolution".to_owned());
                }
            }
        }
        rules.evaluation_error = errors.join(", ");
        rules
    }
}

/// What AlwaysAllow allows.
fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    let resources = PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() };
    [resources, PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() }]
}
