//! Keeps the rules of ClusterRoles that are made of others.
//!
//! Models pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go, v1.37.
//! Reads ClusterRole. Writes ClusterRole. Wakes on ClusterRoles: each change may concern every aggregate.
use std::sync::Arc;

use client::k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use client::{Client, Controller, Event, Informer, Named, Next, ObjectKey};

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::ownership::selector_of;

const NAME: &str = "clusterrole-aggregation-controller";

struct Context {
    client: Client,
    roles: Informer<ClusterRole>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let cx = Arc::new(Context { client: cx.client(NAME), roles: cx.informers.get() });
    let roles = cx.roles.clone();
    Controller::new(NAME, cx)
        .watches(&roles, |cx, event: &Event<ClusterRole>| {
            let same = |old: &Arc<ClusterRole>| {
                let new = event.object();
                old.rules == new.rules && old.metadata.labels == new.metadata.labels && old.aggregation_rule == new.aggregation_rule
            };
            if event.old().is_some_and(same) {
                return Vec::new();
            }
            cx.roles.list().iter().filter(|r| r.aggregation_rule.is_some()).map(|r| r.key()).collect()
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(role) = cx.roles.get(key) else { return Ok(Next::Wait) };
    let Some(rules) = plan(&role, &cx.roles.list())? else { return Ok(Next::Wait) };
    let mut update = (*role).clone();
    update.rules = Some(rules);
    unless_gone(cx.client.update(&update).await).during(|| format!("aggregate ClusterRole {}", key.name))?;
    Ok(Next::Wait)
}

/// The rules of all selected roles, by name, each once; `None` where the role has them already.
fn plan(role: &ClusterRole, roles: &[Arc<ClusterRole>]) -> Result<Option<Vec<PolicyRule>>, Failure> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let selector = selector_of(selector)?;
        for other in roles.iter().filter(|r| r.name() != role.name() && selector.matches_map(r.metadata.labels.as_ref())) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    let same_set = |a: &[PolicyRule], b: &[PolicyRule]| a.len() == b.len() && a.iter().all(|rule| b.contains(rule));
    Ok((!same_set(role.rules.as_deref().unwrap_or_default(), &rules)).then_some(rules))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(name: &str, verb: &str, aggregates: bool) -> Arc<ClusterRole> {
        let selectors = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"to": if aggregates { "none" } else { "view" }}},
                "rules": [{"verbs": [verb]}], "aggregationRule": aggregates.then_some(selectors)}))
            .unwrap(),
        )
    }

    #[test]
    fn an_aggregate_has_each_rule_of_its_parts_once() {
        let roles = [role("a", "get", false), role("b", "list", false), role("c", "get", false), role("view", "none", true)];
        let rules = plan(&roles[3], &roles).unwrap().unwrap();
        assert_eq!(rules.iter().map(|r| r.verbs[0].as_str()).collect::<Vec<_>>(), ["get", "list"]);
        let mut done = (*roles[3]).clone();
        done.rules = Some(rules.into_iter().rev().collect());
        assert!(plan(&done, &roles).unwrap().is_none());
        assert!(plan(&roles[0], &roles).unwrap().is_none());
    }
}
