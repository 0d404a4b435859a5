//! Acting as somebody else: the `Impersonate-*` headers.
//!
//! Models k8s.io/apiserver/pkg/endpoints/filters/impersonation. Each part is asked for alone: the verb `impersonate` on
//! `users`, `groups`, `uids` and `userextras/KEY`.
use std::collections::BTreeMap;

use http::HeaderMap;

use super::authorization::forbidden;
use super::{Attributes, Authorizer, UserInfo};
use crate::status::Status;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user to go on as; `None` when the headers ask for nobody. The headers are taken out.
pub fn impersonate(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    headers: &mut HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let Some(asked) = asked(headers)? else { return Ok(None) };
    let extra_keys: Vec<String> = asked.extra.keys().cloned().collect();
    let mut target = asked;
    let account = target.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, name)) => {
            check(authorizer, user, "", "serviceaccounts", "", namespace, name)?;
            if target.groups.is_empty() {
                target.groups = super::service_account(namespace, name).groups;
            }
        }
        None => check(authorizer, user, "", "users", "", "", &target.name)?,
    }
    for group in &target.groups {
        // What follows from a ServiceAccount's name was not asked for.
        if account_groups(&target.name).contains(group) && headers.get(GROUP).is_none() {
            continue;
        }
        check(authorizer, user, "", "groups", "", "", group)?;
    }
    for key in extra_keys {
        for value in &target.extra[&key] {
            check(authorizer, user, "authentication.k8s.io", "userextras", &key, "", value)?;
        }
    }
    if !target.uid.is_empty() {
        check(authorizer, user, "authentication.k8s.io", "uids", "", "", &target.uid)?;
    }
    let known = ["system:authenticated", "system:unauthenticated"].iter().any(|group| target.in_group(group));
    if target.name == "system:anonymous" {
        if !known {
            target.groups.push("system:unauthenticated".into());
        }
    } else if !known {
        target.groups.push("system:authenticated".into());
    }
    let names: Vec<http::HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(Some(target))
}

fn account_groups(user: &str) -> Vec<String> {
    match user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => super::service_account(namespace, name).groups,
        None => Vec::new(),
    }
}

fn asked(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |value: &http::HeaderValue| {
        value.to_str().map(str::to_owned).map_err(|_| Status::bad_request("an impersonation header is not text"))
    };
    let one = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
    let (name, uid) = (one(USER)?, one(UID)?);
    let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.entry(unescape(key)).or_default().push(text(value)?);
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        let text = "requested impersonation headers without impersonating a user";
        return Err(Status::internal(text));
    }
    Ok(Some(UserInfo { name, uid, groups, extra }))
}

/// Percent-encoding: header names take no slashes.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

fn check(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    api_group: &str,
    resource: &str,
    subresource: &str,
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    let attributes = Attributes {
        user,
        verb: "impersonate",
        api_group,
        api_version: "v1",
        resource,
        subresource,
        namespace,
        name,
        resource_request: true,
        path: "",
    };
    let decision = authorizer.authorize(&attributes);
    if decision.allowed() { Ok(()) } else { Err(forbidden(&attributes, &decision.reason)) }
}
