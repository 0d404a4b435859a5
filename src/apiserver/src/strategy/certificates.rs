//! CertificateSigningRequests. Models pkg/registry/certificates/certificates/strategy.go.
use api::field_error::FieldError;
use api::tree::{Object, Tree};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::auth::UserInfo;
use crate::rest::storage::now;

/// The requestor is whoever asks, never what the body says.
pub fn prepare_create(object: &mut Tree, user: &UserInfo) {
    object.set(&["spec", "username"], user.name.as_str());
    object.set(&["spec", "groups"], Tree::Array(user.groups.iter().map(|g| g.as_str().into()).collect()));
    if user.uid.is_empty() {
        object.remove(&["spec", "uid"]);
    } else {
        object.set(&["spec", "uid"], user.uid.as_str());
    }
    object.remove(&["spec", "extra"]);
    if !user.extra.is_empty() {
        let extra = user.extra.iter().map(|(k, v)| (k.as_str(), Tree::Array(v.iter().map(|v| v.as_str().into()).collect())));
        object.set(&["spec", "extra"], extra.collect::<Object>());
    }
    object.set(&["status"], Tree::object());
}

/// The status subresource neither approves nor denies: such conditions stay as they are. One that is added or missing stays so, for the
/// validation to refuse. Models preserveConditionInstances.
pub fn restrict_status(new: &mut Tree, old: &Tree) {
    for kind in ["Approved", "Denied"] {
        let of_kind = |tree: &Tree| {
            let conditions = tree.array_at(&["status", "conditions"]).iter().enumerate();
            conditions.filter(|(_, c)| c.str_at(&["type"]) == kind).map(|(at, c)| (at, c.clone())).collect::<Vec<_>>()
        };
        let (before, after) = (of_kind(old), of_kind(new));
        let Some(conditions) = new.at_mut(&["status", "conditions"]).and_then(Tree::as_array_mut) else { continue };
        if before.len() == after.len() {
            for ((_, condition), (at, _)) in before.into_iter().zip(after) {
                conditions[at] = condition;
            }
        }
    }
    stamp_conditions(new, old);
}

/// The approval subresource writes conditions, and of metadata what everybody may.
pub fn restrict_approval(new: &mut Tree, old: &Tree) {
    stamp_conditions(new, old);
    let conditions = new.at(&["status", "conditions"]).cloned();
    super::copy(new, old, &["spec"]);
    super::copy(new, old, &["status"]);
    match conditions {
        Some(conditions) => new.set(&["status", "conditions"], conditions),
        None => drop(new.remove(&["status", "conditions"])),
    }
}

/// That the request can be read and was signed by its own key.
pub fn validate_request(object: &Tree) -> Vec<FieldError> {
    let request = object.str_at(&["spec", "request"]);
    let parsed = STANDARD.decode(request).map_err(|error| error.to_string());
    let parsed = parsed.and_then(|pem| pki::SigningRequest::parse(&pem).map_err(|error| error.to_string()));
    parsed.err().map(|why| FieldError::invalid("spec.request", request, why)).into_iter().collect()
}

/// That a new certificate is one: PEM blocks of certificates and nothing else. Models validateCertificate.
pub fn validate_certificate(new: &Tree, old: &Tree) -> Vec<FieldError> {
    let (before, after) = (old.str_at(&["status", "certificate"]), new.str_at(&["status", "certificate"]));
    if before == after || after.is_empty() {
        return Vec::new();
    }
    let wrong = |why: String| vec![FieldError::invalid("status.certificate", "<certificate data>", why)];
    let pem = STANDARD.decode(after).unwrap_or_default();
    let mut blocks = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(&pem) {
        let Ok(block) = block else { return wrong("must contain at least one CERTIFICATE PEM block".into()) };
        if block.label != "CERTIFICATE" {
            return wrong(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if let Err(error) = block.parse_x509() {
            return wrong(format!("x509: malformed certificate: {error}"));
        }
        blocks += 1;
    }
    if blocks == 0 { wrong("must contain at least one CERTIFICATE PEM block".into()) } else { Vec::new() }
}

/// Times that a client left out.
pub fn stamp_conditions(new: &mut Tree, old: &Tree) {
    let before: Vec<Tree> = old.array_at(&["status", "conditions"]).to_vec();
    let Some(conditions) = new.at_mut(&["status", "conditions"]).and_then(Tree::as_array_mut) else { return };
    for condition in conditions {
        let previous = before.iter().find(|c| c.str_at(&["type"]) == condition.str_at(&["type"]));
        if condition.get("lastUpdateTime").is_none_or(Tree::is_null) {
            condition.set(&["lastUpdateTime"], now());
        }
        if condition.get("lastTransitionTime").is_none_or(Tree::is_null) {
            let kept = previous.filter(|p| p.str_at(&["status"]) == condition.str_at(&["status"]));
            let at = kept.and_then(|p| p.get("lastTransitionTime").cloned()).unwrap_or_else(|| now().into());
            condition.set(&["lastTransitionTime"], at);
        }
    }
}
