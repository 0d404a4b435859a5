//! Who names parameters must be allowed to read them: a policy shows what they say to whoever its messages reach.
//!
//! Models pkg/registry/admissionregistration/{validating,mutating}admissionpolicy{,binding}/authz.go.
use api::field_error::FieldError;
use api::registry::split_api_version;
use api::tree::Tree;

use crate::admission::{Operation, Request};
use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, Authorization, Authorizer};
use crate::cache::Cache;
use crate::status::Status;

const GROUP: &str = "admissionregistration.k8s.io";

pub fn check(cache: &Cache, authorization: &Authorization, request: &Request) -> Result<(), Status> {
    let is_write = matches!(request.operation, Operation::Create | Operation::Update) && request.subresource.is_empty();
    if request.resource.group != GROUP || !is_write || request.user.in_group("system:masters") {
        return Ok(());
    }
    let (field, refused) = match &*request.resource.plural {
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => ("spec.paramKind", policy(cache, authorization, request)),
        "validatingadmissionpolicybindings" => ("spec.paramRef", binding(cache, authorization, request, "validatingadmissionpolicies")),
        "mutatingadmissionpolicybindings" => ("spec.paramRef", binding(cache, authorization, request, "mutatingadmissionpolicies")),
        _ => return Ok(()),
    };
    let Some(why) = refused else { return Ok(()) };
    let resource = &request.resource;
    let error = FieldError::forbidden(field, why);
    Err(Status::invalid(&resource.group, &resource.kind, api::meta::name(&request.object), &[error]))
}

fn set<'t>(object: &'t Tree, path: &[&str]) -> Option<&'t Tree> {
    object.at(path).filter(|value| !value.is_null())
}

/// Group, version and resource of a parameter kind; what is not known is asked for as all.
fn resolved(cache: &Cache, kind: &Tree) -> (String, String, Option<String>) {
    let (group, version) = split_api_version(kind.str_at(&["apiVersion"]));
    let found = cache.kinds().by_kind(group, version, kind.str_at(&["kind"]));
    (group.to_owned(), version.to_owned(), found.map(|resource| resource.plural.to_string()))
}

/// As Go prints the user.
fn user(request: &Request) -> String {
    let extra: Vec<String> = request.user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    let user = &request.user;
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

fn policy(cache: &Cache, authorization: &Authorization, request: &Request) -> Option<String> {
    let kind = set(&request.object, &["spec", "paramKind"])?;
    if request.old.as_deref().and_then(|old| set(old, &["spec", "paramKind"])) == Some(kind) {
        return None;
    }
    let (group, version, resource) = resolved(cache, kind);
    let attributes = Attributes {
        user: &request.user,
        verb: "get",
        api_group: &group,
        api_version: &version,
        resource: resource.as_deref().unwrap_or("*"),
        subresource: "",
        namespace: "*",
        name: "*",
        resource_request: true,
        path: "",
        fields: &ALL_FIELDS,
        labels: &ALL_LABELS,
    };
    (!authorization.authorize(&attributes).allowed()).then(|| {
        let (kind, version) = (kind.str_at(&["kind"]), kind.str_at(&["apiVersion"]));
        let user = user(request);
        format!("user {user} must have \"get\" permission on all objects of the referenced paramKind (kind={kind}, apiVersion={version})")
    })
}

fn binding(cache: &Cache, authorization: &Authorization, request: &Request, policies: &str) -> Option<String> {
    let params = set(&request.object, &["spec", "paramRef"])?;
    let policy_name = request.object.str_at(&["spec", "policyName"]);
    let old = request.old.as_deref();
    let is_same = |old: &Tree| set(old, &["spec", "paramRef"]) == Some(params) && old.str_at(&["spec", "policyName"]) == policy_name;
    if old.is_some_and(is_same) {
        return None;
    }
    let policy = cache.get(GROUP, policies, "", policy_name).map(|policy| policy.tree());
    let kind = policy.as_ref().and_then(|policy| set(policy, &["spec", "paramKind"]));
    let known = kind.map(|kind| resolved(cache, kind));
    let (group, version, resource) = match &known {
        Some((group, version, resource)) => (&**group, &**version, resource.as_deref().unwrap_or("*")),
        None => ("*", "*", "*"),
    };
    let name = params.str_at(&["name"]);
    let verb = if name.is_empty() { "list" } else { "get" };
    let attributes = Attributes {
        user: &request.user,
        verb,
        api_group: group,
        api_version: version,
        resource,
        subresource: "",
        namespace: params.str_at(&["namespace"]),
        name,
        resource_request: true,
        path: "",
        fields: &ALL_FIELDS,
        labels: &ALL_LABELS,
    };
    if authorization.authorize(&attributes).allowed() {
        return None;
    }
    let user = user(request);
    let all = format!("to determine minimum required permissions and user {user} does not have \"{verb}\" permission for all groups, versions and resources");
    Some(match (&policy, &known) {
        (None, _) => format!("unable to get policy {policy_name} {all}"),
        (Some(_), Some((_, _, None))) => format!("unable to resolve paramKind {} {all}", printed(kind)),
        _ => format!("user {user} does not have \"{verb}\" permission on the object referenced by paramRef"),
    })
}

fn printed(kind: Option<&Tree>) -> String {
    let text = |key: &str| kind.map_or("", |kind| kind.str_at(&[key]));
    format!("&ParamKind{{APIVersion:{},Kind:{},}}", text("apiVersion"), text("kind"))
}
