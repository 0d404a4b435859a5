//! ClusterTrustBundles and PodCertificateRequests. What is inside of their certificates is for the API server to read.
//!
//! Models pkg/apis/certificates/validation/validation.go.
use super::check::*;
use super::meta::{self, NameRule};
use super::signer::{bundle_name, is_kubernetes, signer_name, user_annotations};
use crate::field_error::{ErrorType, FieldError, Path};
use crate::names;
use crate::tree::Tree;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");
const SECONDS_MIN: i64 = 3600;
const SECONDS_MAX: i64 = 91 * 24 * 3600;
const SECONDS_MAX_KUBERNETES: i64 = 24 * 3600;
const UID_MAX: usize = 128;
/// The types of condition that end a request; there is at most one of them.
const VERDICTS: [&str; 3] = ["Issued", "Denied", "Failed"];

/// How long a certificate of `signer` may be good.
pub(super) fn seconds_max(signer: &str) -> i64 {
    if is_kubernetes(signer) { SECONDS_MAX_KUBERNETES } else { SECONDS_MAX }
}

pub(super) fn new_bundle(errors: &mut Errors, new: &Tree) {
    let signer = new.str_at(&["spec", "signerName"]);
    meta::create_with(errors, new, false, &|name, is_prefix| bundle_name(signer, name, is_prefix));
    bundle_signer(errors, signer);
}

pub(super) fn bundle_update(errors: &mut Errors, new: &Tree, old: &Tree) {
    let signer = new.str_at(&["spec", "signerName"]);
    bundle_signer(errors, signer);
    immutable(errors, &signer.into(), &old.str_at(&["spec", "signerName"]).into(), &SPEC.child("signerName"));
}

fn bundle_signer(errors: &mut Errors, signer: &str) {
    if !signer.is_empty() {
        signer_name(errors, signer, &SPEC.child("signerName"));
    }
}

pub(super) fn new_request(errors: &mut Errors, new: &Tree) {
    let spec = at(new, "spec");
    let signer = text(spec, "signerName");
    signer_name(errors, signer, &SPEC.child("signerName"));
    user_annotations(errors, at(spec, "unverifiedUserAnnotations"), &SPEC.child("unverifiedUserAnnotations"));
    for (name, uid) in [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")] {
        invalid(errors, &SPEC.child(name), text(spec, name), NameRule::DnsSubdomain.check(text(spec, name), false));
        let (value, path) = (text(spec, uid), SPEC.child(uid));
        if value.is_empty() {
            errors.push(FieldError::invalid(path, value, "must not be empty"));
        }
        if value.len() > UID_MAX {
            errors.push(FieldError::too_long(path, UID_MAX));
        }
    }
    let path = SPEC.child("maxExpirationSeconds");
    let Some(seconds) = int(spec, "maxExpirationSeconds") else {
        errors.push(FieldError::required(path, "must be set"));
        return;
    };
    let max = seconds_max(signer);
    if !(SECONDS_MIN..=max).contains(&seconds) {
        errors.push(FieldError::invalid(path, seconds, format!("must be in the range [{SECONDS_MIN}, {max}]")));
    }
    if text(spec, "stubPKCS10Request").is_empty() {
        let detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        errors.push(FieldError { kind: ErrorType::Invalid, ..FieldError::forbidden(SPEC, detail) });
    }
}

pub(super) fn request_update(errors: &mut Errors, new: &Tree, old: &Tree) {
    immutable(errors, at(new, "spec"), at(old, "spec"), &SPEC);
}

/// The condition that ended a request.
pub(super) fn verdict(request: &Tree) -> Option<&str> {
    conditions(request).iter().filter(|c| text(c, "status") == "True").map(|c| text(c, "type")).find(|kind| VERDICTS.contains(kind))
}

fn conditions(request: &Tree) -> &[Tree] {
    list(at(request, "status"), "conditions")
}

pub(super) fn request_status(errors: &mut Errors, new: &Tree, old: &Tree) {
    if !errors.is_empty() {
        return;
    }
    let all = STATUS.child("conditions");
    let mut known = 0;
    for (i, condition) in conditions(new).iter().enumerate() {
        // Upstream's path has the index as a name.
        let index = format!("[{i}]");
        let path = all.child(&index);
        let kind = text(condition, "type");
        if !VERDICTS.contains(&kind) {
            errors.push(FieldError::not_supported(path.child("type"), kind, &VERDICTS));
            continue;
        }
        known += 1;
        if known > 1 {
            let detail = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(FieldError::invalid(path.child("type"), kind, detail));
        }
        supported(errors, text(condition, "status"), &["True"], &path.child("status"));
    }
    check_conditions(errors, conditions(new), &all);
    if !errors.is_empty() {
        return;
    }
    let mut unequal = |new: &Tree, old: &Tree, detail: &str| {
        if !same(new, old) {
            errors.push(FieldError { kind: ErrorType::Invalid, ..FieldError::forbidden(STATUS, detail) });
        }
    };
    let status = at(new, "status");
    match (verdict(old), verdict(new)) {
        (Some(_), _) => unequal(status, at(old, "status"), "immutable after PodCertificateRequest is issued, denied, or failed"),
        (None, Some("Denied" | "Failed")) => {
            let mut wanted = Tree::object();
            wanted.set(&["conditions"], at(status, "conditions").clone());
            unequal(status, &wanted, "non-condition status fields must be empty when denying or failing the PodCertificateRequest");
        }
        // The certificates are read where they can be.
        (None, Some(_)) => {}
        (None, None) => {
            unequal(status, at(old, "status"), "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"");
        }
    }
}

/// Models apimachinery/pkg/apis/meta/v1/validation ValidateConditions.
fn check_conditions(errors: &mut Errors, conditions: &[Tree], all: &Path) {
    let again = repeated(conditions.iter().map(|item| text(item, "type")));
    for (i, condition) in conditions.iter().enumerate() {
        let path = all.index(i);
        let kind = text(condition, "type");
        if again[i] {
            errors.push(FieldError::duplicate(path, kind));
        }
        match kind {
            "" => errors.push(FieldError::required(path.child("type"), "is required")),
            _ => label_name(errors, kind, &path.child("type")),
        }
        one_of(errors, text(condition, "status"), &["False", "True", "Unknown"], &path.child("status"));
        if let Some(generation) = int(condition, "observedGeneration").filter(|g| *g < 0) {
            errors.push(FieldError::invalid(path.child("observedGeneration"), generation, "must be greater than or equal to zero"));
        }
        if set(condition, "lastTransitionTime").is_none() {
            errors.push(FieldError::required(path.child("lastTransitionTime"), ""));
        }
        let (reason, reason_path) = (text(condition, "reason"), path.child("reason"));
        match reason {
            "" => errors.push(FieldError::required(reason_path, "")),
            _ => {
                invalid(errors, &reason_path, reason, names::condition_reason(reason));
                if reason.len() > 1024 {
                    errors.push(FieldError::too_long(reason_path, 1024));
                }
            }
        }
        if text(condition, "message").len() > 32 * 1024 {
            errors.push(FieldError::too_long(path.child("message"), 32 * 1024));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    fn texts(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    const SPEC_GOOD: &str = r#"{"signerName":"a.b/c","podName":"p","podUID":"1","serviceAccountName":"s","serviceAccountUID":"2",
        "nodeName":"n","nodeUID":"3","maxExpirationSeconds":3600,"stubPKCS10Request":"AAAA"}"#;

    #[test]
    fn a_request_names_everything_it_is_for() {
        let check = |spec: &str| {
            let mut errors = Errors::new();
            new_request(&mut errors, &object(&format!(r#"{{"spec":{spec}}}"#)));
            texts(&errors)
        };
        assert!(check(SPEC_GOOD).is_empty());
        assert_eq!(
            check(&SPEC_GOOD.replace("3600", "3599")),
            ["spec.maxExpirationSeconds: Invalid value: 3599: must be in the range [3600, 7862400]"]
        );
        assert_eq!(
            check(&SPEC_GOOD.replace("3600", "86401").replace("a.b/c", "kubernetes.io/x")),
            ["spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]"]
        );
        assert_eq!(
            check(&SPEC_GOOD.replace("AAAA", "")),
            ["spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"]
        );
        assert_eq!(check(&SPEC_GOOD.replace(r#""podUID":"1","#, "")), ["spec.podUID: Invalid value: \"\": must not be empty"]);
    }

    #[test]
    fn a_verdict_is_the_last_word() {
        let with = |kind: &str, status: &str, more: &str| {
            object(&format!(
                r#"{{"status":{{"conditions":[{{"type":"{kind}","status":"{status}","reason":"R","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}}]{more}}}}}"#
            ))
        };
        let check = |new: &Tree, old: &Tree| {
            let mut errors = Errors::new();
            request_status(&mut errors, new, old);
            texts(&errors)
        };
        let fresh = object("{}");
        let denied = with("Denied", "True", "");
        assert!(check(&denied, &fresh).is_empty());
        assert!(
            check(&with("Denied", "True", r#","certificateChain":"x""#), &fresh)[0].contains("non-condition status fields must be empty")
        );
        assert!(check(&with("Failed", "True", ""), &denied)[0].contains("immutable after PodCertificateRequest is"));
        assert!(check(&with("Denied", "False", ""), &fresh)[0].starts_with("status.conditions.[0].status: Unsupported value: \"False\""));
        assert!(check(&with("Other", "True", ""), &fresh)[0].contains(r#"supported values: "Issued", "Denied", "Failed""#));
        assert!(check(&object(r#"{"status":{"certificateChain":"x"}}"#), &fresh)[0].contains("unless transitioning to"));
    }
}
