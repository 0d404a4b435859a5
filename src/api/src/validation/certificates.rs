//! CertificateSigningRequests. What is in the request and in the certificate is for the API server to read.
//!
//! Models pkg/apis/certificates/validation/validation.go.
use super::check::*;
use super::signer::signer_name;
use crate::field_error::{FieldError, Path};
use crate::tree::Tree;

const LEGACY: &str = "kubernetes.io/legacy-unknown";

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Which subresource an update came by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Main,
    Status,
    Approval,
}

pub(super) fn create(errors: &mut Errors, new: &Tree) {
    request(errors, new, None);
}

pub(super) fn update(errors: &mut Errors, new: &Tree, old: &Tree, by: By) {
    request(errors, new, Some(old));
    let path = Path::new("status");
    let path = path.child("conditions");
    let of = |tree: &Tree, kind: &str| conditions(tree).iter().filter(|c| text(c, "type") == kind).cloned().collect::<Vec<_>>();
    for kind in ["Approved", "Denied", "Failed"] {
        if of(new, kind).len() < of(old, kind).len() {
            errors.push(FieldError::forbidden(&path, format!("updates may not remove a condition of type \"{kind}\"")));
        }
    }
    if by != By::Approval {
        for kind in ["Approved", "Denied"] {
            let (new, old) = (of(new, kind), of(old, kind));
            if new.len() > old.len() {
                errors.push(FieldError::forbidden(&path, format!("updates may not add a condition of type \"{kind}\"")));
            } else if new.len() == old.len() && new != old {
                errors.push(FieldError::forbidden(&path, format!("updates may not modify a condition of type \"{kind}\"")));
            }
        }
    }
    let (before, after) = (old.str_at(&["status", "certificate"]), new.str_at(&["status", "certificate"]));
    if before != after {
        let path = Path::new("status");
        let path = path.child("certificate");
        if by != By::Status {
            errors.push(FieldError::forbidden(path, "updates may not set certificate content"));
        } else if !before.is_empty() {
            errors.push(FieldError::forbidden(path, "updates may not modify existing certificate content"));
        }
    }
}

fn conditions(tree: &Tree) -> &[Tree] {
    list(at(tree, "status"), "conditions")
}

/// What was wrong before the update is let through.
fn request(errors: &mut Errors, new: &Tree, old: Option<&Tree>) {
    let spec = Path::new("spec");
    let usages = strings(at(new, "spec"), "usages");
    let old_usages = old.map(|old| strings(at(old, "spec"), "usages")).unwrap_or_default();
    let path = spec.child("usages");
    if usages.is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    if old_usages.iter().all(|usage| USAGES.contains(usage)) {
        for (i, usage) in usages.iter().enumerate() {
            supported(errors, usage, &USAGES, &path.index(i));
        }
    }
    if !has_twice(&old_usages) {
        for (i, usage) in usages.iter().enumerate().zip(repeated(&usages)).filter(|(_, again)| *again).map(|(usage, _)| usage) {
            errors.push(FieldError::duplicate(path.index(i), *usage));
        }
    }
    let signer = new.str_at(&["spec", "signerName"]);
    let path = spec.child("signerName");
    if signer == LEGACY && old.is_none_or(|old| old.str_at(&["spec", "signerName"]) != LEGACY) {
        errors.push(FieldError::invalid(path, signer, "the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(errors, signer, &path);
    }
    if let Some(seconds) = int(at(new, "spec"), "expirationSeconds").filter(|seconds| *seconds < 600) {
        let path = spec.child("expirationSeconds");
        errors.push(FieldError::invalid(path, seconds, "may not specify a duration less than 600 seconds (10 minutes)"));
    }
    check_conditions(errors, conditions(new), old.map(conditions).unwrap_or_default());
}

fn has_twice(texts: &[&str]) -> bool {
    repeated(texts).contains(&true)
}

fn check_conditions(errors: &mut Errors, new: &[Tree], old: &[Tree]) {
    let path = Path::new("status");
    let path = path.child("conditions");
    let types = |conditions: &[Tree]| conditions.iter().map(|c| text(c, "type").to_owned()).collect::<Vec<_>>();
    let (kinds, old) = (types(new), types(old));
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    let again = repeated(&kinds);
    let had_twice = has_twice(&old);
    let mut before: Seen<&str> = Seen::new();
    let was_both = old.contains(&"Approved") && old.contains(&"Denied");
    for (i, condition) in new.iter().enumerate() {
        let (kind, path_of) = (text(condition, "type"), path.index(i));
        if kind.is_empty() && !old.contains(&"") {
            errors.push(FieldError::required(path_of.child("type"), ""));
        }
        let values: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        one_of(errors, text(condition, "status"), values, &path_of.child("status"));
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !was_both && !opposite.is_empty() && before.contains(&opposite) {
            errors.push(FieldError::invalid(&path, kind, "Approved and Denied conditions are mutually exclusive"));
        }
        if !had_twice && again[i] {
            errors.push(FieldError::duplicate(path_of.child("type"), kind));
        }
        before.push(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    const GOOD: &str = r#"{"spec":{"usages":["client auth"],"signerName":"example.com/a"}}"#;

    #[test]
    fn a_new_request_says_what_it_is_for_and_who_signs() {
        let created = |json: &str| {
            let mut errors = Errors::new();
            create(&mut errors, &object(json));
            texts(errors)
        };
        assert!(created(GOOD).is_empty());
        assert_eq!(created(r#"{"spec":{"signerName":"example.com/a"}}"#), ["spec.usages: Required value"]);
        let twice = r#"{"spec":{"usages":["any","any","x"],"signerName":"kubernetes.io/legacy-unknown","expirationSeconds":599}}"#;
        let errors = created(twice);
        assert!(errors[0].starts_with(r#"spec.usages[2]: Unsupported value: "x": supported values: "any", "cert sign""#), "{errors:?}");
        assert_eq!(errors[1], r#"spec.usages[1]: Duplicate value: "any""#);
        assert!(errors[2].contains("the legacy signerName is not allowed via this API version"), "{errors:?}");
        assert!(errors[3].contains("may not specify a duration less than 600 seconds"), "{errors:?}");
        for (signer, wrong) in [
            ("", "Required value"),
            ("a", "must be a fully qualified domain and path"),
            ("a/b", "at least two segments"),
            ("A.b/c", r#"validating label "A""#),
            ("a.b/C", r#"validating label "C""#),
        ] {
            let errors = created(&GOOD.replace("example.com/a", signer));
            assert!(errors.len() == 1 && errors[0].contains(wrong), "{signer}: {errors:?}");
        }
    }

    #[test]
    fn each_subresource_writes_its_own_part() {
        let with = |conditions: &str, certificate: &str| {
            let mut tree = object(GOOD);
            tree.set(&["status"], object(&format!(r#"{{"conditions":[{conditions}],"certificate":"{certificate}"}}"#)));
            tree
        };
        let approved = r#"{"type":"Approved","status":"True"}"#;
        let denied = r#"{"type":"Denied","status":"True"}"#;
        let updated = |new: &Tree, old: &Tree, by| {
            let mut errors = Errors::new();
            update(&mut errors, new, old, by);
            texts(errors)
        };
        let (fresh, ok, both) = (with("", ""), with(approved, ""), with(&format!("{approved},{denied}"), ""));
        assert!(updated(&ok, &fresh, By::Approval).is_empty());
        assert!(updated(&ok, &fresh, By::Status)[0].contains("may not add a condition of type \"Approved\""));
        assert!(updated(&fresh, &ok, By::Approval)[0].contains("may not remove a condition of type \"Approved\""));
        assert!(updated(&both, &ok, By::Approval)[0].contains("mutually exclusive"));
        assert!(updated(&with(r#"{"type":"Approved","status":"False"}"#, ""), &fresh, By::Approval)[0].contains("Unsupported value"));
        assert!(updated(&with("", "QQ=="), &fresh, By::Status).is_empty());
        assert!(updated(&with("", "QQ=="), &fresh, By::Approval)[0].contains("may not set certificate content"));
        assert!(updated(&with("", "Qg=="), &with("", "QQ=="), By::Status)[0].contains("may not modify existing certificate"));
    }
}
