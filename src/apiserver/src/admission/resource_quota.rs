//! Refuses what would exceed a ResourceQuota of the namespace, and charges what does not to its status.
//!
//! Models k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go, v1.37. The last of the chain, since it writes. Requests of one
//! namespace that wait at the same time are charged together ([`Charges`]), by one conditional write per quota; a lost race is computed again,
//! so two requests never get the same remainder. What is charged for a write that fails afterwards comes back with the quota
//! controller's next count. Left out: `limitedResources` of an admission configuration, which rk has none of.
mod charges;

use api::quantity::Quantity;
use api::quota::{self, Amounts};
use api::tree::Tree;
use futures::future::BoxFuture;

pub use self::charges::Charges;
use super::{Operation, Request};
use crate::server::ApiServer;
use crate::status::Status;

/// Refuses the request or charges it, and gives it back. Boxed, since a charge is itself an update that is admitted.
pub fn charge(server: &ApiServer, request: Request) -> BoxFuture<'_, Result<Request, Status>> {
    Box::pin(check_and_charge(server, request))
}

async fn check_and_charge(server: &ApiServer, request: Request) -> Result<Request, Status> {
    let (group, plural) = (&*request.resource.group, &*request.resource.plural);
    let changes = matches!(request.operation, Operation::Create | Operation::Update);
    if request.namespace.is_empty() || !changes || quota::is_ignored(group, plural) {
        return Ok(request);
    }
    let has_quotas = !server.0.parts.cache.list("", "resourcequotas", Some(&request.namespace)).is_empty();
    if !has_quotas || !quota::is_charged(group, plural, request.subresource, &request.object, request.old.as_deref()) {
        return Ok(request);
    }
    server.0.charges.charge(server, request).await
}

/// What is used with this request; `None` where the quota is not about it or nothing more is used. Refuses what exceeds it.
fn added(request: &Request, quota: &Tree) -> Result<Option<Amounts>, Status> {
    let (group, plural, object) = (&*request.resource.group, &*request.resource.plural, &request.object);
    let hard = quota::amounts(quota.at(&["status", "hard"]));
    let used = quota::amounts(quota.at(&["status", "used"]));
    let names: Vec<&str> = hard.keys().map(String::as_str).filter(|name| quota::measures(group, plural, name)).collect();
    if names.is_empty() || !quota::is_in_scope(group, plural, quota, object) {
        return Ok(None);
    }
    let quota_name = api::meta::name(quota);
    if let Some(why) = quota::lacks(group, plural, &names, object) {
        return Err(request.forbidden(format!("failed quota: {quota_name}: {why}")));
    }
    if names.iter().any(|name| !used.contains_key(*name)) {
        let names = names.join(",");
        return Err(request.forbidden(format!("status unknown for quota: {quota_name}, resources: {names}")));
    }
    let now = jiff::Timestamp::now();
    let usage = quota::usage(group, plural, object, now);
    let negative: Vec<&str> = usage.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        return Err(request.forbidden(format!("quota usage is negative for resource(s): {}", negative.join(","))));
    }
    // An object that was in the scope before is charged for its growth only.
    let before = request.old.as_deref().filter(|old| quota::is_in_scope(group, plural, quota, old));
    let before = before.map(|old| quota::usage(group, plural, old, now)).unwrap_or_default();
    let mut more = quota::growth(&usage, &before);
    more.retain(|name, _| hard.contains_key(name));
    if more.is_empty() {
        return Ok(None);
    }
    let mut total = used.clone();
    quota::add(&mut total, &more);
    let exceeded: Vec<&str> = more.keys().map(String::as_str).filter(|name| total[*name] > hard[*name]).collect();
    if !exceeded.is_empty() {
        let show = |amounts: &Amounts| {
            let shown = exceeded.iter().map(|name| format!("{name}={}", amounts.get(*name).unwrap_or(&Quantity::ZERO)));
            shown.collect::<Vec<_>>().join(",")
        };
        let (more, used, hard) = (show(&more), show(&used), show(&hard));
        let why = format!("exceeded quota: {quota_name}, requested: {more}, used: {used}, limited: {hard}");
        return Err(request.forbidden(why));
    }
    Ok(Some(total))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::registry::Registry;

    use super::*;
    use crate::auth::UserInfo;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(pod: &str, old: Option<&str>, quota: &str, expect: Result<Option<&str>, &str>) {
        let request = Request {
            user: std::sync::Arc::new(UserInfo::new("u", &[])),
            operation: if old.is_some() { Operation::Update } else { Operation::Create },
            resource: Registry::get().resource("", "v1", "pods").unwrap().into(),
            subresource: "",
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            object: tree(pod),
            old: old.map(|o| Arc::new(tree(o))),
            dry_run: false,
            warnings: Vec::new(),
        };
        let result = added(&request, &tree(quota)).map(|used| used.map(|u| String::from_utf8(quota::to_tree(&u).to_json()).unwrap()));
        let result = result.map_err(|status| status.message);
        assert_eq!(result.as_ref().map(Option::as_deref).map_err(String::as_str), expect);
    }

    const POD: &str = r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"500m"}}}]}}"#;

    #[test]
    fn what_fits_is_added_and_what_does_not_is_refused() {
        let quota = |used: &str| format!(r#"{{"metadata":{{"name":"q"}},"status":{{"hard":{{"pods":"2","cpu":"1"}},"used":{used}}}}}"#);
        check(POD, None, &quota(r#"{"pods":"1","cpu":"250m"}"#), Ok(Some(r#"{"cpu":"750m","pods":"2"}"#)));
        let exceeded =
            "pods \"p\" is forbidden: exceeded quota: q, requested: cpu=500m,pods=1, used: cpu=750m,pods=2, limited: cpu=1,pods=2";
        check(POD, None, &quota(r#"{"pods":"2","cpu":"750m"}"#), Err(exceeded));
        check(POD, None, &quota(r#"{"pods":"1"}"#), Err("pods \"p\" is forbidden: status unknown for quota: q, resources: cpu,pods"));
        let silent = r#"{"spec":{"containers":[{"name":"c"}]}}"#;
        let text = "pods \"p\" is forbidden: failed quota: q: must specify cpu for: c";
        check(silent, None, &quota(r#"{"pods":"1","cpu":"0"}"#), Err(text));
        check(POD, None, r#"{"metadata":{"name":"q"}}"#, Ok(None));
    }

    #[test]
    fn a_pod_that_enters_a_scope_is_charged_in_full() {
        let quota = r#"{"metadata":{"name":"q"},"spec":{"scopes":["Terminating"]},"status":{"hard":{"pods":"1"},"used":{"pods":"0"}}}"#;
        let with_deadline = POD.replace(r#"{"spec":{"#, r#"{"spec":{"activeDeadlineSeconds":9,"#);
        check(&with_deadline, Some(POD), quota, Ok(Some(r#"{"pods":"1"}"#)));
        check(&with_deadline, Some(&with_deadline), quota, Ok(None));
        check(POD, None, quota, Ok(None));
    }
}
