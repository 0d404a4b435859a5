//! Kinds that are only ever created and answered, never stored: who am I, may I, is this token good.
//!
//! Models pkg/registry/authorization/* and pkg/registry/authentication/*.
mod selectors;

use api::field_error::FieldError;
use api::meta;
use api::registry::Resource;
use api::tree::{Object, Tree};
use axum::body::Body;
use http::{Request, Response, StatusCode};

use crate::auth::{Attributes, Credential, PolicyRule, UserInfo};
use crate::negotiate;
use crate::rest::model::Expected;
use crate::rest::options::WriteOptions;
use crate::rest::{Call, body, model, read};
use crate::status::Status;
use crate::subresource;

pub fn is_review(resource: &Resource) -> bool {
    matches!(&*resource.group, "authorization.k8s.io")
        || (resource.group == "authentication.k8s.io" && matches!(&*resource.plural, "tokenreviews" | "selfsubjectreviews"))
        || (resource.group.is_empty() && resource.plural == "bindings")
}

pub async fn handle(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    if call.info.verb != "create" {
        return Err(Status::method_not_allowed_here());
    }
    if call.resource.plural == "bindings" {
        return subresource::create_binding(call, request).await;
    }
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let media = negotiate::content_type(&call.headers).to_owned();
    let resource = call.resource.clone();
    let mut review = model::decode(Expected::of(&resource), &media, &bytes, options.field_validation, &mut call.warnings)?;
    let errors = validate(call, &review);
    if !errors.is_empty() {
        return Err(Status::invalid(&call.resource.group, &call.resource.kind, meta::name(&review), &errors));
    }
    let status = match &*call.resource.plural {
        "selfsubjectaccessreviews" => access(call, &review, &call.user).await,
        "subjectaccessreviews" | "localsubjectaccessreviews" => access(call, &review, &subject(&review)).await,
        "selfsubjectrulesreviews" => rules(call, &review),
        "tokenreviews" => token(call, &review).await,
        "selfsubjectreviews" => object([("userInfo", user_info(&call.user))]),
        _ => return Err(Status::method_not_allowed_here()),
    };
    review.set(&["status"], status);
    read::answer(call, StatusCode::CREATED, review.to_json().into())
}

fn object<const N: usize>(fields: [(&str, Tree); N]) -> Tree {
    Tree::Object(fields.into_iter().collect())
}

fn strings<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Tree {
    Tree::Array(items.into_iter().map(|s| Tree::from(s.as_ref())).collect())
}

fn validate(call: &Call, review: &Tree) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let resource = review.at(&["spec", "resourceAttributes"]).filter(|r| !r.is_null());
    let path = review.at(&["spec", "nonResourceAttributes"]).filter(|r| !r.is_null());
    if call.resource.plural.ends_with("subjectaccessreviews") {
        errors.extend(resource.into_iter().flat_map(selectors::validate));
        match (resource, path) {
            (Some(attributes), Some(_)) => errors.push(FieldError::invalid(
                "spec.nonResourceAttributes",
                attributes,
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(FieldError::invalid(
                "spec.resourceAttributes",
                &Tree::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        let is_self = call.resource.plural.starts_with("self");
        if !is_self && review.str_at(&["spec", "user"]).is_empty() && review.array_at(&["spec", "groups"]).is_empty() {
            errors.push(FieldError::invalid("spec.user", "", "at least one of user or group must be specified"));
        }
        if call.resource.plural.starts_with("local") {
            let asked = review.str_at(&["spec", "resourceAttributes", "namespace"]);
            if asked != call.info.namespace {
                errors.push(FieldError::invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace"));
            }
        }
    }
    if call.resource.plural == "tokenreviews" && review.str_at(&["spec", "token"]).is_empty() {
        errors.push(FieldError::required("spec.token", ""));
    }
    errors
}

/// The user a SubjectAccessReview asks about.
fn subject(review: &Tree) -> UserInfo {
    let mut user = UserInfo::new(review.str_at(&["spec", "user"]), &[]);
    user.uid = review.str_at(&["spec", "uid"]).to_owned();
    user.groups = review.array_at(&["spec", "groups"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect();
    for (key, values) in review.at(&["spec", "extra"]).and_then(Tree::as_object).into_iter().flat_map(Object::iter) {
        let values = values.as_array().unwrap_or(&[]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect();
        user.extra.insert(key.to_lowercase(), values);
    }
    user
}

async fn access(call: &Call, review: &Tree, user: &UserInfo) -> Tree {
    let resource = review.at(&["spec", "resourceAttributes"]).filter(|r| !r.is_null());
    let of = |key: &str| resource.map_or("", |r| r.str_at(&[key]));
    let path = review.at(&["spec", "nonResourceAttributes"]);
    let asked = selectors::asked(resource);
    let attributes = Attributes {
        user,
        verb: if resource.is_some() { of("verb") } else { path.map_or("", |p| p.str_at(&["verb"])) },
        api_group: of("group"),
        api_version: if of("version").is_empty() { "*" } else { of("version") },
        resource: of("resource"),
        subresource: of("subresource"),
        namespace: of("namespace"),
        name: of("name"),
        resource_request: resource.is_some(),
        path: path.map_or("", |p| p.str_at(&["path"])),
        fields: &asked.fields,
        labels: &asked.labels,
    };
    let decision = call.server.0.parts.authorizer.decide(&attributes).await;
    let mut status = object([("allowed", decision.allowed().into())]);
    if decision.verdict == crate::auth::Verdict::Deny {
        status.set(&["denied"], true);
    }
    let errors: Vec<&str> = [decision.evaluation_error.as_str()].into_iter().chain(asked.errors).filter(|error| !error.is_empty()).collect();
    for (key, text) in [("reason", &decision.reason), ("evaluationError", &errors.join("; "))] {
        if !text.is_empty() {
            status.set(&[key], text.as_str());
        }
    }
    status
}

fn rules(call: &Call, review: &Tree) -> Tree {
    let namespace = review.str_at(&["spec", "namespace"]);
    let found = call.server.0.parts.authorizer.rules_for(&call.user, namespace);
    let resource_rule = |rule: &PolicyRule| {
        let mut tree = object([
            ("verbs", strings(&rule.verbs)),
            ("apiGroups", strings(&rule.api_groups)),
            ("resources", strings(&rule.resources)),
        ]);
        if !rule.resource_names.is_empty() {
            tree.set(&["resourceNames"], strings(&rule.resource_names));
        }
        tree
    };
    let path_rule = |rule: &PolicyRule| object([("verbs", strings(&rule.verbs)), ("nonResourceURLs", strings(&rule.non_resource_urls))]);
    let resources = found.rules.iter().filter(|r| !r.resources.is_empty()).map(resource_rule).collect();
    let paths = found.rules.iter().filter(|r| !r.non_resource_urls.is_empty()).map(path_rule).collect();
    let mut status = object([
        ("resourceRules", Tree::Array(resources)),
        ("nonResourceRules", Tree::Array(paths)),
        ("incomplete", found.incomplete.into()),
    ]);
    if !found.evaluation_error.is_empty() {
        status.set(&["evaluationError"], found.evaluation_error);
    }
    status
}

async fn token(call: &Call, review: &Tree) -> Tree {
    let audiences: Vec<String> = review.array_at(&["spec", "audiences"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect();
    let credential = Credential::Token { token: review.str_at(&["spec", "token"]), audiences: &audiences };
    match call.server.0.parts.authenticator.authenticate(credential).await {
        Ok(Some(found)) => {
            let mut status = object([("authenticated", true.into()), ("user", user_info(&found.user))]);
            if !found.audiences.is_empty() {
                status.set(&["audiences"], strings(&found.audiences));
            }
            status
        }
        Ok(None) => object([("user", Tree::object())]),
        Err(why) => object([("user", Tree::object()), ("error", why.into())]),
    }
}

fn user_info(user: &UserInfo) -> Tree {
    let mut tree = object([("username", user.name.as_str().into())]);
    if !user.uid.is_empty() {
        tree.set(&["uid"], user.uid.as_str());
    }
    if !user.groups.is_empty() {
        tree.set(&["groups"], strings(&user.groups));
    }
    if !user.extra.is_empty() {
        tree.set(&["extra"], user.extra.iter().map(|(k, v)| (k.as_str(), strings(v))).collect::<Object>());
    }
    tree
}
