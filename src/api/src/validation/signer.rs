//! Names of signers, and what is named after them.
//!
//! Models pkg/apis/core/validation/names.go and `ValidateUserAnnotations` of validation.go.
use super::check::*;
use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree::Tree;

const DOMAIN_MAX: usize = 253;
/// `<domain>/<namespace>.<name>`.
const SIGNER_MAX: usize = DOMAIN_MAX + 63 + 253 + 2;
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// Whether a signer is one of Kubernetes' own.
pub(super) fn is_kubernetes(signer: &str) -> bool {
    let (domain, _) = signer.split_once('/').unwrap_or((signer, ""));
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// `domain/name`, as `example.com/signer`.
pub(super) fn signer_name(errors: &mut Errors, signer: &str, path: &Path) {
    if signer.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let segments: Vec<&str> = signer.split('/').collect();
    let [domain, name] = segments[..] else {
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, signer, form));
        return;
    };
    if domain.len() > DOMAIN_MAX {
        errors.push(FieldError::too_long(path, DOMAIN_MAX));
    }
    first_wrong(errors, domain, names::dns1123_label, path);
    if !domain.contains('.') {
        errors.push(FieldError::invalid(path, domain, "should be a domain with at least two segments separated by dots"));
    }
    first_wrong(errors, name, names::dns1123_subdomain, path);
    if signer.len() > SIGNER_MAX {
        errors.push(FieldError::too_long(path, SIGNER_MAX));
    }
}

/// Only the first label that is wrong: all would be told in the same words.
fn first_wrong(errors: &mut Errors, value: &str, check: fn(&str) -> Vec<String>, path: &Path) {
    let wrong = value.split('.').map(|label| (label, check(label))).find(|(_, texts)| !texts.is_empty());
    if let Some((label, texts)) = wrong {
        invalid(errors, path, value, texts.into_iter().map(|text| format!("validating label \"{label}\": {text}")).collect());
    }
}

/// What is wrong with the name of a ClusterTrustBundle of `signer`, which is empty for a bundle of nobody's.
pub(super) fn bundle_name(signer: &str, name: &str, is_prefix: bool) -> Vec<String> {
    let subdomain = |name: &str| match is_prefix {
        true => names::dns1123_subdomain(&names::mask_trailing_dash(name)),
        false => names::dns1123_subdomain(name),
    };
    if signer.is_empty() {
        return match name.contains(':') {
            true => vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()],
            false => subdomain(name),
        };
    }
    let prefix = signer.replace('/', ":") + ":";
    match name.strip_prefix(&prefix) {
        Some(rest) => subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

/// A reference to a ClusterTrustBundle by name: the signer, if there is one, is read from the name.
pub(super) fn bundle_reference(name: &str) -> Vec<String> {
    let signer = name.rfind(':').map(|at| name[..at].replace(':', "/")).unwrap_or_default();
    bundle_name(&signer, name, false)
}

/// What users tell signers, unverified.
pub(super) fn user_annotations(errors: &mut Errors, annotations: &Tree, path: &Path) {
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flat_map(|o| o.iter()) {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let key = key.to_lowercase();
        if key.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let texts = names::qualified_name(&key);
        if texts.is_empty() && !key.contains('/') {
            errors.push(FieldError::invalid(path, key, "must be a domain-prefixed key (such as \"acme.io/foo\")"));
        } else {
            invalid(errors, path, &key, texts);
        }
    }
    if bytes > ANNOTATION_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATION_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signer_is_a_domain_and_a_name() {
        for (signer, wrong) in [
            ("example.com/a", ""),
            ("", "Required value"),
            ("a", "must be a fully qualified domain and path"),
            ("a/b", "at least two segments"),
            ("A.b/c", r#"validating label "A""#),
            ("a.b/C", r#"validating label "C""#),
        ] {
            let mut errors = Errors::new();
            signer_name(&mut errors, signer, &Path::new("spec"));
            match wrong {
                "" => assert!(errors.is_empty(), "{errors:?}"),
                _ => assert!(errors.len() == 1 && errors[0].to_string().contains(wrong), "{signer}: {errors:?}"),
            }
        }
        assert!(is_kubernetes("kubernetes.io/x") && is_kubernetes("a.kubernetes.io/x") && !is_kubernetes("akubernetes.io/x"));
    }

    #[test]
    fn a_bundle_is_named_after_its_signer() {
        assert!(bundle_name("", "a.b", false).is_empty());
        assert!(bundle_name("", "a:b", false)[0].contains("must not have \":\""));
        assert!(bundle_name("test.test/one", "test.test:one:x", false).is_empty());
        assert!(bundle_name("test.test/one", "test.test:one:x-", true).is_empty());
        assert_eq!(
            bundle_name("test.test/one", "x", false),
            ["ClusterTrustBundle for signerName test.test/one must be named with prefix test.test:one:"]
        );
        assert!(bundle_reference("test.test:one:x").is_empty());
        assert!(bundle_reference("x").is_empty());
        assert_eq!(bundle_reference("test.test:one:X").len(), 1);
    }
}
