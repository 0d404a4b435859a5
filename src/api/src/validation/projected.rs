//! Sources of projected volumes that stand for certificates.
//!
//! Models pkg/apis/core/validation/validation.go `validateProjectionSources`.
use super::check::*;
use super::signer::{bundle_reference, signer_name, user_annotations};
use super::trust::seconds_max;
use super::volume::non_reserved_path;
use crate::field_error::{FieldError, Path};
use crate::tree::Tree;

/// Where the files of a `podCertificate` may go.
pub(super) const CERTIFICATE_PATHS: [&str; 3] = ["credentialBundlePath", "keyPath", "certificateChainPath"];
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const SECONDS_MIN: i64 = 3600;

pub(super) fn trust_bundle(errors: &mut Errors, bundle: &Tree, path: &Path) {
    match (set(bundle, "name"), set(bundle, "signerName")) {
        (Some(_), Some(_)) => errors.push(FieldError::invalid(path, bundle, "only one of name and signerName may be used")),
        (Some(_), None) => {
            let (name, name_path) = (text(bundle, "name"), path.child("name"));
            if name.is_empty() {
                errors.push(FieldError::required(name_path, "must be a valid object name"));
            }
            for why in bundle_reference(name) {
                errors.push(FieldError::invalid(name_path, name, format!("not a valid clustertrustbundlename: {why}")));
            }
            if let Some(selector) = set(bundle, "labelSelector") {
                errors.push(FieldError::invalid(path.child("labelSelector"), selector, "labelSelector must be unset if name is specified"));
            }
        }
        (None, Some(_)) => {
            let (signer, signer_path) = (text(bundle, "signerName"), path.child("signerName"));
            if signer.is_empty() {
                errors.push(FieldError::required(signer_path, "must be a valid signer name"));
            }
            signer_name(errors, signer, &signer_path);
            label_selector(errors, at(bundle, "labelSelector"), &path.child("labelSelector"));
        }
        (None, None) => errors.push(FieldError::required(path, "either name or signerName must be specified")),
    }
    require(errors, bundle, "path", path);
    non_reserved_path(errors, text(bundle, "path"), &path.child("path"));
}

pub(super) fn pod_certificate(errors: &mut Errors, certificate: &Tree, path: &Path) {
    let signer = text(certificate, "signerName");
    signer_name(errors, signer, &path.child("signerName"));
    user_annotations(errors, at(certificate, "userAnnotations"), &path.child("userAnnotations"));
    supported(errors, text(certificate, "keyType"), &KEY_TYPES, &path.child("keyType"));
    if let Some(seconds) = int(certificate, "maxExpirationSeconds") {
        let path = path.child("maxExpirationSeconds");
        if seconds < SECONDS_MIN {
            errors.push(FieldError::invalid(path, seconds, format!("if provided, maxExpirationSeconds must be >= {SECONDS_MIN}")));
        }
        let max = seconds_max(signer);
        if seconds > max {
            errors.push(FieldError::invalid(path, seconds, format!("if provided, maxExpirationSeconds must be <= {max}")));
        }
    }
    let targets = CERTIFICATE_PATHS.map(|key| (key, text(certificate, key)));
    for (key, target) in targets.iter().filter(|(_, target)| !target.is_empty()) {
        non_reserved_path(errors, target, &path.child(key));
    }
    if targets.iter().all(|(_, target)| target.is_empty()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: fn(&mut Errors, &Tree, &Path), json: &str, expected: &[&str]) {
        let mut errors = Errors::new();
        source(&mut errors, &Tree::from_json(json.as_bytes()).unwrap(), &Path::new("s"));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(texts.len() == expected.len() && texts.iter().zip(expected).all(|(t, e)| t.starts_with(e)), "{texts:?}");
    }

    #[test]
    fn a_bundle_is_chosen_by_name_or_by_signer() {
        check(trust_bundle, r#"{"name":"a","path":"p"}"#, &[]);
        check(trust_bundle, r#"{"name":"a.b:c:d","path":"p"}"#, &[]);
        check(trust_bundle, r#"{"signerName":"a.b/c","labelSelector":{},"path":"p"}"#, &[]);
        check(trust_bundle, r#"{"path":"p"}"#, &["s: Required value: either name or signerName must be specified"]);
        check(
            trust_bundle,
            r#"{"name":"A","labelSelector":{}}"#,
            &["s.name: Invalid value: \"A\": not a valid clustertrustbundlename: ", "s.labelSelector: Invalid", "s.path: Required value"],
        );
    }

    #[test]
    fn a_certificate_lives_from_an_hour_to_three_months() {
        let good = r#"{"signerName":"a.b/c","keyType":"ECDSAP256","maxExpirationSeconds":3600,"keyPath":"k"}"#;
        check(pod_certificate, good, &[]);
        check(
            pod_certificate,
            &good.replace("3600", "3599"),
            &["s.maxExpirationSeconds: Invalid value: 3599: if provided, maxExpirationSeconds must be >= 3600"],
        );
        check(
            pod_certificate,
            &good.replace("3600", "7862401"),
            &["s.maxExpirationSeconds: Invalid value: 7862401: if provided, maxExpirationSeconds must be <= 7862400"],
        );
        check(
            pod_certificate,
            &good.replace("keyPath", "other").replace("ECDSAP256", "X"),
            &["s.keyType: Unsupported value: \"X\"", "s: Required value: specify at least one of"],
        );
        check(pod_certificate, &good.replace("\"k\"", "\"../k\""), &["s.keyPath: Invalid value: \"../k\": must not contain '..'"]);
    }
}
