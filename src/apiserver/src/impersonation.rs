//! Acting as somebody else: `Impersonate-User` and its companions, and who may.
//!
//! Models k8s.io/apiserver/pkg/endpoints/filters/impersonation (constrained impersonation, KEP-5284: on by default in v1.37). Every mode that fits the
//! wanted user is tried: those that are bound to what is being done (`impersonate-on:MODE:VERB` on the request itself, and `impersonate:MODE` on the
//! user), then the old verb `impersonate`, which allows everything. The first mode's refusal is what a client reads. Nothing is cached: each question is
//! answered from memory, or by a webhook that has its own cache.
use std::collections::BTreeMap;

use api::field_error::{Path, aggregate};
use api::names;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, Authorizer, UserInfo, service_account};
use crate::pipeline::forbidden;
use crate::request::decode;
use crate::status::Status;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// Extra of whoever is bound to a node: its name.
pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// From so many on, all groups or extras are asked about at once first.
const MANY: usize = 4;

/// As whom a request goes on.
#[derive(Debug, PartialEq)]
pub struct Impersonated {
    pub user: UserInfo,
    /// The verb that allowed it, for the audit log; empty: the old one.
    pub constraint: String,
}

/// Whom the headers want, which are taken off the request.
pub fn wanted(headers: &mut HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let mut user = UserInfo { name: first(USER), uid: first(UID), ..UserInfo::default() };
    user.groups = headers.get_all(GROUP).iter().map(text).collect();
    for (header, value) in headers.iter() {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            user.extra.entry(decode(key)).or_default().push(text(value));
        }
    }
    if user.name.is_empty() {
        if user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty() {
            return Ok(None);
        }
        return Err(Status::bad_request(format!("requested {} without impersonating a user name", go_syntax(&user))));
    }
    let known = |name: &HeaderName| [USER, UID, GROUP].contains(&name.as_str()) || name.as_str().starts_with(EXTRA);
    let names: Vec<HeaderName> = headers.keys().filter(|name| known(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(Some(user))
}

/// As Go prints the value with `%#v`.
fn go_syntax(user: &UserInfo) -> String {
    let texts = |all: &[String]| all.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
    let list = |all: &[String]| if all.is_empty() { "[]string(nil)".to_owned() } else { format!("[]string{{{}}}", texts(all)) };
    let extra: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key:?}:[]string{{{}}}", texts(values))).collect();
    let extra = if extra.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", extra.join(", ")) };
    format!("&user.DefaultInfo{{Name:\"\", UID:{:?}, Groups:{}, Extra:map[string][]string{extra}}}", user.uid, list(&user.groups))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
}

impl Mode {
    const ALL: [Self; 4] = [Self::AssociatedNode, Self::ArbitraryNode, Self::ServiceAccount, Self::UserInfo];

    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
        }
    }

    fn fits(self, wanted: &UserInfo, requestor: &UserInfo) -> bool {
        let has_name_only = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node_of(&wanted.name), account_of(&wanted.name));
        match self {
            Mode::AssociatedNode => {
                let [own] = requestor.extra.get(NODE_NAME).map_or(&[][..], Vec::as_slice) else { return false };
                has_name_only && account_of(&requestor.name).is_some() && node == Some(own)
            }
            Mode::ArbitraryNode => has_name_only && node.is_some(),
            Mode::ServiceAccount => has_name_only && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
        }
    }
}

fn node_of(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:").filter(|node| names::dns1123_subdomain(node).is_empty())
}

/// Namespace and name of the ServiceAccount with this user name.
pub fn account_of(name: &str) -> Option<(&str, &str)> {
    let (namespace, account) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let is_good = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(account).is_empty();
    is_good.then_some((namespace, account))
}

/// Whether `request.user` may do what it asks for as `wanted`.
pub async fn authorize(authorizer: &dyn Authorizer, request: &Attributes<'_>, wanted: UserInfo) -> Result<Impersonated, Status> {
    let mut first = None;
    for mode in Mode::ALL.into_iter().filter(|mode| mode.fits(&wanted, request.user)) {
        match constrained(authorizer, request, &wanted, mode).await {
            Ok(impersonated) => return Ok(impersonated),
            Err(refused) => first = first.or(Some(refused)),
        }
    }
    let asker = Asker { authorizer, requestor: request.user, verb: "impersonate", mode: None };
    match asker.check(&wanted).await {
        Ok(user) => Ok(Impersonated { user, constraint: String::new() }),
        Err(refused) => Err(first.unwrap_or(refused)),
    }
}

async fn constrained(authorizer: &dyn Authorizer, request: &Attributes<'_>, wanted: &UserInfo, mode: Mode) -> Result<Impersonated, Status> {
    let on = format!("impersonate-on:{}:{}", mode.name(), request.verb);
    // Of the account of a pod on the node, which may be any of those of its workload: what tells them apart is not asked about.
    let keys = request.user.extra.keys().cloned().collect();
    let extra = BTreeMap::from([("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)]);
    let of_any_node = UserInfo { extra, ..request.user.clone() };
    let requestor = if mode == Mode::AssociatedNode { &of_any_node } else { request.user };
    allowed(authorizer, &Attributes { user: requestor, verb: &on, ..request.clone() }).await?;
    let verb = format!("impersonate:{}", mode.name());
    let user = Asker { authorizer, requestor, verb: &verb, mode: Some(mode) }.check(wanted).await?;
    Ok(Impersonated { user, constraint: verb })
}

async fn allowed(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    let decision = authorizer.decide(attributes).await;
    if decision.allowed() {
        return Ok(());
    }
    let why = match (decision.failure.as_str(), decision.reason.as_str()) {
        ("", reason) => reason.to_owned(),
        (failure, "") => failure.to_owned(),
        (failure, reason) => format!("{failure}: {reason}"),
    };
    Err(forbidden(attributes, &why))
}

/// Asks about each part of a user.
struct Asker<'a> {
    authorizer: &'a dyn Authorizer,
    requestor: &'a UserInfo,
    verb: &'a str,
    /// `None`: the old verb.
    mode: Option<Mode>,
}

/// What a part is to the authorizer.
#[derive(Clone, Copy, Default)]
struct Part<'a> {
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

const AUTHENTICATION: &str = "authentication.k8s.io";

impl Asker<'_> {
    fn attributes<'p>(&'p self, part: Part<'p>) -> Attributes<'p> {
        Attributes {
            user: self.requestor,
            verb: self.verb,
            api_group: part.group,
            api_version: "v1",
            resource: part.resource,
            subresource: part.subresource,
            namespace: part.namespace,
            name: part.name,
            resource_request: true,
            path: "",
            fields: &ALL_FIELDS,
            labels: &ALL_LABELS,
        }
    }

    async fn may(&self, part: Part<'_>) -> Result<(), Status> {
        allowed(self.authorizer, &self.attributes(part)).await
    }

    fn refuse(&self, part: Part<'_>, why: &str) -> Status {
        forbidden(&self.attributes(part), why)
    }

    /// Of names and groups.
    fn group(&self) -> &'static str {
        if self.mode.is_some() { AUTHENTICATION } else { "" }
    }

    async fn check(&self, wanted: &UserInfo) -> Result<UserInfo, Status> {
        let mut user = wanted.clone();
        let mut part = Part { group: self.group(), resource: "users", name: &wanted.name, ..Part::default() };
        if let (Some(mode), Some(node)) = (self.mode, node_of(&wanted.name)) {
            let name = if mode == Mode::AssociatedNode { "*" } else { node };
            part = Part { resource: "nodes", name, ..part };
            user.groups = vec!["system:nodes".to_owned()];
        } else if let Some((namespace, name)) = account_of(&wanted.name) {
            part = Part { resource: "serviceaccounts", namespace, name, ..part };
            if wanted.groups.is_empty() {
                user.groups = service_account(namespace, name).groups;
            }
        }
        self.may(part).await?;
        if !wanted.uid.is_empty() {
            self.may(Part { group: AUTHENTICATION, resource: "uids", name: &wanted.uid, ..Part::default() }).await?;
        }
        self.check_groups(&wanted.groups).await?;
        self.check_extra(&wanted.extra).await?;
        let (anonymous, authenticated) = ("system:unauthenticated", "system:authenticated");
        if user.name == "system:anonymous" {
            ensure(&mut user.groups, anonymous);
        } else if !user.in_group(anonymous) {
            ensure(&mut user.groups, authenticated);
        }
        Ok(user)
    }

    async fn check_groups(&self, groups: &[String]) -> Result<(), Status> {
        let part = Part { group: self.group(), resource: "groups", ..Part::default() };
        if self.mode.is_some() {
            if groups.iter().any(String::is_empty) {
                return Err(self.refuse(part, "impersonating the empty string group is not allowed"));
            }
            let masters = "system:masters";
            if groups.iter().any(|group| group == masters) {
                return Err(self.refuse(Part { name: masters, ..part }, "impersonating the system:masters group is not allowed"));
            }
            if groups.len() >= MANY && self.may(Part { name: "*", ..part }).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.may(Part { name: group, ..part }).await?;
        }
        Ok(())
    }

    async fn check_extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        let part = Part { group: AUTHENTICATION, resource: "userextras", ..Part::default() };
        if self.mode.is_some() {
            extra_is_sound(extra).map_err(|why| self.refuse(part, &why))?;
            let is_large = extra.len() >= MANY || extra.values().map(Vec::len).sum::<usize>() >= MANY;
            if is_large && self.may(Part { subresource: "*", name: "*", ..part }).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.may(Part { subresource: key, name: value, ..part }).await?;
            }
        }
        Ok(())
    }
}

fn ensure(groups: &mut Vec<String>, group: &str) {
    if !groups.iter().any(|known| known == group) {
        groups.push(group.to_owned());
    }
}

fn extra_is_sound(extra: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".into());
        }
        let mut errors = Vec::new();
        api::validation::domain_prefixed_path(&mut errors, key, &Path::new("extra").child("key"));
        if !errors.is_empty() {
            return Err(format!("impersonating an invalid key in extra is not allowed: {}", aggregate(&errors)));
        }
        if *key != key.to_lowercase() {
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
