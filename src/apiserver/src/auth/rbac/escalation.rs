//! Nobody grants what he does not have.
//!
//! Models pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased and
//! pkg/registry/rbac/validation/rule.go ConfirmNoEscalation. `escalate` on a role and `bind` on a role lift it.
use api::tree::Tree;

use super::{GROUP, rules};
use crate::auth::authentication::quoted;
use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, Authorization, Authorizer, PolicyRule, UserInfo};
use crate::status::Status;

/// A role or binding that `user` wants to write; `old` is what is stored.
pub struct Grant<'a> {
    pub user: &'a UserInfo,
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`.
    pub plural: &'a str,
    /// `""` for cluster-scoped kinds.
    pub namespace: &'a str,
    pub object: &'a Tree,
    pub old: Option<&'a Tree>,
}

pub fn check(authorization: &Authorization, grant: &Grant<'_>) -> Result<(), Status> {
    if grant.user.in_group("system:masters") {
        return Ok(());
    }
    match grant.plural {
        "roles" | "clusterroles" => check_role(authorization, grant),
        "rolebindings" | "clusterrolebindings" => check_binding(authorization, grant),
        _ => Ok(()),
    }
}

fn may(authorization: &Authorization, grant: &Grant<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = Attributes {
        user: grant.user,
        verb,
        api_group: GROUP,
        api_version: "*",
        resource,
        subresource: "",
        namespace: grant.namespace,
        name,
        resource_request: true,
        path: "",
        fields: &ALL_FIELDS,
        labels: &ALL_LABELS,
    };
    authorization.authorize(&attributes).allowed()
}

fn check_role(authorization: &Authorization, grant: &Grant<'_>) -> Result<(), Status> {
    let name = api::meta::name(grant.object);
    if may(authorization, grant, "escalate", grant.plural, name) {
        return Ok(());
    }
    let same = |field: &str| grant.old.is_some_and(|old| old.get(field) == grant.object.get(field));
    if same("rules") && same("aggregationRule") {
        return Ok(());
    }
    let forbidden = |why: &str| Status::forbidden(GROUP, grant.plural, name, why);
    if let Err(why) = confirm(authorization, grant, &rules::parse(grant.object.array_at(&["rules"]))) {
        return Err(forbidden(&why));
    }
    if grant.object.get("aggregationRule").is_some_and(|rule| !rule.is_null()) && !same("aggregationRule") {
        let all = vec!["*".to_owned()];
        let everything = [
            PolicyRule { verbs: all.clone(), api_groups: all.clone(), resources: all.clone(), ..PolicyRule::default() },
            PolicyRule { verbs: all.clone(), non_resource_urls: all, ..PolicyRule::default() },
        ];
        if let Err(why) = confirm(authorization, grant, &everything) {
            return Err(forbidden(&format!("must have cluster-admin privileges to use the aggregationRule: {why}")));
        }
    }
    Ok(())
}

fn check_binding(authorization: &Authorization, grant: &Grant<'_>) -> Result<(), Status> {
    let same = |field: &str| grant.old.is_some_and(|old| old.get(field) == grant.object.get(field));
    if same("roleRef") && same("subjects") {
        return Ok(());
    }
    let (kind, name) = (grant.object.str_at(&["roleRef", "kind"]), grant.object.str_at(&["roleRef", "name"]));
    let plural = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
    if may(authorization, grant, "bind", plural, name) {
        return Ok(());
    }
    let Some(rules) = authorization.rbac().rules_of(grant.namespace, kind, name) else {
        return Err(Status::not_found(GROUP, plural, name));
    };
    confirm(authorization, grant, &rules)
        .map_err(|why| Status::forbidden(GROUP, grant.plural, api::meta::name(grant.object), &why))
}

fn confirm(authorization: &Authorization, grant: &Grant<'_>, wanted: &[PolicyRule]) -> Result<(), String> {
    let held = authorization.rbac().rules_for(grant.user, grant.namespace);
    let missing = rules::uncovered(&held.rules, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut texts: Vec<String> = rules::compact(missing).iter().map(rules::describe).collect();
    texts.sort();
    texts.dedup();
    let (name, groups) = (&grant.user.name, quoted(&grant.user.groups));
    let mut text = format!(
        "user {name:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{}",
        texts.join("\n")
    );
    if !held.evaluation_error.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", held.evaluation_error));
    }
    Err(text)
}
