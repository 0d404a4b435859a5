//! serviceaccounts/token: a token for a ServiceAccount. Models pkg/registry/core/serviceaccount/storage/token.go.
use api::field_error::FieldError;
use api::meta;
use api::tree::Tree;
use axum::body::Body;
use http::{Request, Response, StatusCode};

use crate::auth::{BoundObject, TokenSpec};
use crate::negotiate;
use crate::rest::model::Expected;
use crate::rest::options::WriteOptions;
use crate::rest::storage::now;
use crate::rest::{Call, body, model, read};
use crate::status::Status;

const TOKEN_REQUEST: Expected<'static> = Expected::built_in("authentication.k8s.io", "v1", "TokenRequest");
const DEFAULT_SECONDS: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;

pub async fn create(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let media = negotiate::content_type(&call.headers).to_owned();
    let mut token = model::decode(TOKEN_REQUEST, &media, &bytes, options.field_validation, &mut call.warnings)?;
    let name = meta::name(&token);
    if !name.is_empty() && name != call.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    let account = call.current()?.tree();
    if !meta::uid(&token).is_empty() && meta::uid(&token) != meta::uid(&account) {
        let why = format!("the UID in the token request ({}) does not match the UID of the service account ({})", meta::uid(&token), meta::uid(&account));
        return Err(Status::conflict("", "serviceaccounts", &call.info.name, &why));
    }
    let seconds = match token.at(&["spec", "expirationSeconds"]).and_then(Tree::as_i64) {
        None | Some(0) => DEFAULT_SECONDS,
        Some(seconds) => seconds,
    };
    let path = "spec.expirationSeconds";
    let error = if seconds < SECONDS_MIN {
        Some(FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes"))
    } else if seconds > SECONDS_MAX {
        Some(FieldError::invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
    } else {
        None
    };
    if let Some(error) = error {
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]));
    }
    let bound = bound_object(call, &token)?;
    let mut admitted = crate::admission::Request {
        user: call.user.clone(),
        operation: crate::admission::Operation::Create,
        resource: call.resource.clone(),
        subresource: "token",
        namespace: call.info.namespace.clone(),
        name: call.info.name.clone(),
        object: token.clone(),
        old: None,
        dry_run: false,
        warnings: Vec::new(),
    };
    call.server.0.parts.admission.admit(&mut admitted).await?; // a node asks for its own pods only
    let spec = TokenSpec {
        namespace: call.info.namespace.clone(),
        service_account: call.info.name.clone(),
        service_account_uid: meta::uid(&account).to_owned(),
        audiences: token.array_at(&["spec", "audiences"]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect(),
        expiration_seconds: seconds,
        bound,
    };
    let issued = call.server.0.parts.tokens.issue(spec).await?;
    meta::set_name(&mut token, &call.info.name);
    meta::set_namespace(&mut token, &call.info.namespace);
    meta::set_creation_timestamp(&mut token, &now());
    token.set(&["spec", "audiences"], Tree::Array(issued.audiences.into_iter().map(Tree::from).collect()));
    token.set(&["spec", "expirationSeconds"], seconds);
    token.set(&["status"], Tree::object());
    token.set(&["status", "token"], issued.token);
    token.set(&["status", "expirationTimestamp"], issued.expiration);
    read::answer(call, StatusCode::CREATED, token.to_json().into())
}

fn bound_object(call: &Call, token: &Tree) -> Result<Option<BoundObject>, Status> {
    let Some(reference) = token.at(&["spec", "boundObjectRef"]).filter(|r| r.as_object().is_some()) else { return Ok(None) };
    let kind = reference.str_at(&["kind"]).to_owned();
    let api_version = reference.str_at(&["apiVersion"]).to_owned();
    let name = reference.str_at(&["name"]).to_owned();
    let namespace = call.info.namespace.as_str();
    let (plural, namespace) = match (api_version.as_str(), kind.as_str()) {
        ("v1", "Pod") => ("pods", namespace),
        ("v1", "Secret") => ("secrets", namespace),
        ("v1", "Node") => ("nodes", ""),
        _ => return Err(Status::bad_request(format!("cannot bind token to object of type {api_version}, Kind={kind}"))),
    };
    let cache = &call.server.0.parts.cache;
    let found = cache.get("", plural, namespace, &name).ok_or_else(|| Status::not_found("", plural, &name))?.tree();
    let uid = meta::uid(&found).to_owned();
    let asked = reference.str_at(&["uid"]);
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", plural, &name, &why));
    }
    let mut node = None;
    if kind == "Pod" {
        if found.str_at(&["spec", "serviceAccountName"]) != call.info.name {
            let text = format!("cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.", call.info.name);
            return Err(Status::bad_request(text));
        }
        let on = found.str_at(&["spec", "nodeName"]);
        if !on.is_empty() {
            let uid = cache.get("", "nodes", "", on).map(|n| meta::uid(&n.tree()).to_owned()).unwrap_or_default();
            node = Some((on.to_owned(), uid));
        }
    }
    Ok(Some(BoundObject { kind, api_version, name, uid, node }))
}
