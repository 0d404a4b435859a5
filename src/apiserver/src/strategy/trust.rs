//! ClusterTrustBundles and PodCertificateRequests: what is inside of their certificates, and who may issue them.
//!
//! Models the parts of pkg/apis/certificates/validation/validation.go that read X.509, and
//! pkg/registry/certificates/podcertificaterequest/strategy.go. Left out: keys on the curve P-521, whose signatures `ring` cannot
//! verify; a request with such a key is refused in words that say so.
use std::collections::BTreeMap;
use std::time::Duration;

use api::field_error::{BadValue, ErrorType, FieldError};
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::auth::{Authorizer, UserInfo, may_use_signer};
use crate::pem;

const BUNDLE: &str = "spec.trustBundle";
const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
const STUB: &str = "spec.stubPKCS10Request";
const STUB_BYTES_MAX: usize = 10 * 1024;
const CHAIN: &str = "status.certificateChain";
const CHAIN_BYTES_MAX: usize = 100 * 1024;
const CERTIFICATE: &str = "CERTIFICATE";
/// How far the clocks of a signer and of this server may be apart.
const SKEW: Duration = Duration::from_secs(300);
const LIFETIME_MIN_SECONDS: i64 = 3600;
/// A certificate is renewed no earlier after its start, and no later before its end.
const REFRESH_MARGIN_SECONDS: i64 = 600;

fn omitted(path: &str, detail: impl Into<String>) -> FieldError {
    FieldError { kind: ErrorType::Invalid, ..FieldError::forbidden(path, detail) }
}

/// The certificates of a bundle: authorities, each once, and nothing else.
pub fn validate_bundle(new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
    let text = new.str_at(&["spec", "trustBundle"]);
    // What was read once need not be readable for ever.
    if old.is_some_and(|old| old.str_at(&["spec", "trustBundle"]) == text) {
        return Vec::new();
    }
    if text.len() > BUNDLE_BYTES_MAX {
        return vec![FieldError::too_long(BUNDLE, BUNDLE_BYTES_MAX)];
    }
    let wrong = |detail: String| FieldError::invalid(BUNDLE, "<value omitted>", detail);
    let mut errors = Vec::new();
    let mut anchors: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (i, block) in pem::blocks(text).into_iter().enumerate() {
        match anchor_error(&block) {
            Some(why) => errors.push(wrong(format!("entry {i} {why}"))),
            None => anchors.entry(block.bytes).or_default().push(i),
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    if anchors.is_empty() {
        return vec![wrong("at least one trust anchor must be provided".into())];
    }
    let mut twice: Vec<Vec<usize>> = anchors.into_values().filter(|indices| indices.len() > 1).collect();
    twice.sort();
    let listed = |indices: Vec<usize>| indices.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    twice.into_iter().map(|indices| wrong(format!("duplicate trust anchor (indices [{}])", listed(indices)))).collect()
}

fn anchor_error(block: &pem::Block) -> Option<String> {
    if block.label != CERTIFICATE {
        return Some(format!("has bad block type: {}", block.label));
    }
    if block.has_headers {
        return Some("has PEM block headers".into());
    }
    let Some(certificate) = parse(&block.bytes) else { return Some("does not parse as X.509".into()) };
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => None,
        Ok(_) => Some("does not have the CA bit set".into()),
        Err(_) => Some("has invalid basic constraints".into()),
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    x509_parser::parse_x509_certificate(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// That the stub of a request is signed by its own key, and the key is of a kind that is issued for.
pub fn validate_request(new: &Tree) -> Vec<FieldError> {
    let stub = STANDARD.decode(new.str_at(&["spec", "stubPKCS10Request"])).unwrap_or_default();
    if stub.is_empty() {
        return Vec::new(); // said already
    }
    if stub.len() > STUB_BYTES_MAX {
        return vec![FieldError::too_long(STUB, STUB_BYTES_MAX)];
    }
    let Some(request) = parse_stub(&stub) else { return vec![omitted(STUB, "must be a valid PKCS#10 CSR")] };
    if let Some(error) = key_error(&request.certification_request_info.subject_pki) {
        return vec![error];
    }
    match request.verify_signature() {
        Ok(()) => Vec::new(),
        Err(_) => vec![omitted(STUB, "invalid signature")],
    }
}

fn parse_stub(der: &[u8]) -> Option<X509CertificationRequest<'_>> {
    X509CertificationRequest::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, request)| request)
}

fn key_error(key: &SubjectPublicKeyInfo<'_>) -> Option<FieldError> {
    const ED25519: &str = "1.3.101.112";
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const P521: &str = "1.3.132.0.35";
    if key.algorithm.algorithm.to_id_string() == ED25519 {
        return None;
    }
    match key.parsed() {
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string()).unwrap_or_default();
            let value = |name: &str| BadValue::from(format!("curve {name}"));
            match curve.as_str() {
                P256 | P384 => None,
                P521 => Some(FieldError::invalid(STUB, value("P-521"), "this server verifies keys on the curves P256 and P384 only")),
                other => Some(FieldError::invalid(STUB, value(other), "elliptic public keys must use curve P256, P384, or P521")),
            }
        }
        Ok(PublicKey::RSA(rsa)) => {
            let bits = rsa.key_size();
            let detail = "RSA keys must have modulus size 3072 or 4096";
            (bits != 3072 && bits != 4096).then(|| FieldError::invalid(STUB, format!("{bits}-bit modulus"), detail))
        }
        _ => Some(omitted(STUB, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")),
    }
}

/// What a signer says when it issues: a chain for the requested key, and times that fit it.
pub fn validate_issuance(new: &Tree, old: &Tree, now: Timestamp) -> Vec<FieldError> {
    let issued = |tree: &Tree| {
        let conditions = tree.array_at(&["status", "conditions"]).iter();
        conditions.into_iter().any(|c| c.str_at(&["type"]) == "Issued" && c.str_at(&["status"]) == "True")
    };
    if issued(old) || !issued(new) {
        return Vec::new();
    }
    chain_errors(new, old, now).err().unwrap_or_default()
}

fn chain_errors(new: &Tree, old: &Tree, now: Timestamp) -> Result<(), Vec<FieldError>> {
    let text = new.str_at(&["status", "certificateChain"]);
    if text.len() > CHAIN_BYTES_MAX {
        return Err(vec![FieldError::too_long(CHAIN, CHAIN_BYTES_MAX)]);
    }
    let wrong = |detail: &str| vec![FieldError::invalid(CHAIN, text, detail)];
    let blocks = pem::blocks(text);
    let Some((leaf, others)) = blocks.split_first() else {
        return Err(wrong("issued certificate chain must contain at least one certificate"));
    };
    let foreign = "issued certificate chain must consist entirely of CERTIFICATE PEM blocks";
    if leaf.label != CERTIFICATE {
        return Err(wrong(foreign));
    }
    let Some(leaf) = parse(&leaf.bytes) else { return Err(wrong("leaf certificate does not parse as valid X.509")) };
    let mut errors = name_errors(&leaf);
    let stub = STANDARD.decode(old.str_at(&["spec", "stubPKCS10Request"])).unwrap_or_default();
    let Some(request) = parse_stub(&stub) else { return Err(vec![omitted(STUB, "must be a valid PKCS#10 CSR")]) };
    if request.certification_request_info.subject_pki.raw != leaf.public_key().raw {
        errors.extend(wrong("leaf certificate was not issued to the requested public key"));
        return Err(errors);
    }
    times(new, &leaf, now, &mut errors)?;
    for block in others {
        if block.label != CERTIFICATE {
            errors.extend(wrong(foreign));
            break;
        }
        if parse(&block.bytes).is_none() {
            errors.extend(wrong("intermediate certificate does not parse as valid X.509"));
            break;
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn name_errors(leaf: &X509Certificate<'_>) -> Vec<FieldError> {
    use x509_parser::extensions::GeneralName;
    let mut errors = Vec::new();
    let names = leaf.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| names.value.general_names.iter()) {
        match name {
            GeneralName::DNSName(name) => {
                let mut wrong = |is: bool, detail: &str| {
                    if is {
                        errors.push(FieldError::invalid(CHAIN, *name, detail));
                    }
                };
                wrong(name.is_empty(), "leaf certificate should not contain empty DNSName");
                wrong(name.contains(".."), "leaf certificate's DNSName should not contain '..'");
                wrong(name.starts_with('.') || name.ends_with('.'), "leaf certificate's DNSName should not start or end with '.'");
            }
            GeneralName::RFC822Name(address) if !is_address(address) => {
                errors.push(FieldError::invalid(CHAIN, *address, "leaf certificate should not contain invalid EmailAddress"));
            }
            _ => {}
        }
    }
    errors
}

/// `local@domain`, both of something, without blanks.
fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !text.contains(char::is_whitespace))
}

fn times(new: &Tree, leaf: &X509Certificate<'_>, now: Timestamp, errors: &mut Vec<FieldError>) -> Result<(), Vec<FieldError>> {
    let within = "must be present and consistent with the issued certificate";
    let fields = [
        ("notBefore", within),
        ("notAfter", within),
        ("beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]"),
    ];
    let mut found = [Timestamp::UNIX_EPOCH; 3];
    for ((field, detail), time) in fields.into_iter().zip(&mut found) {
        match new.str_at(&["status", field]).parse() {
            Ok(parsed) => *time = parsed,
            Err(_) => errors.push(FieldError::required(format!("status.{field}"), detail)),
        }
    }
    if !errors.is_empty() {
        return Err(std::mem::take(errors));
    }
    let [not_before, not_after, begin_refresh] = found;
    let wrong = |field: &str, time: Timestamp, detail: &str| Err(vec![FieldError::invalid(format!("status.{field}"), printed(time), detail)]);
    let seconds = |time: x509_parser::time::ASN1Time| time.timestamp();
    let (from, to) = (seconds(leaf.validity().not_before), seconds(leaf.validity().not_after));
    if not_before.as_second() != from {
        return wrong("notBefore", not_before, "must be set to the NotBefore time encoded in the leaf certificate");
    }
    if now.duration_since(not_before).unsigned_abs() >= SKEW {
        return wrong("notBefore", not_before, "must be set to within 5 minutes of kube-apiserver's current time");
    }
    if not_after.as_second() != to {
        return wrong("notAfter", not_after, "must be set to the NotAfter time encoded in the leaf certificate");
    }
    let lifetime = |detail: String| Err(vec![FieldError::invalid(CHAIN, BadValue::Plain(go_duration(to - from).into()), detail)]);
    if to - from < LIFETIME_MIN_SECONDS {
        return lifetime("leaf certificate lifetime must be >= 1 hour".into());
    }
    let max = new.at(&["spec", "maxExpirationSeconds"]).and_then(Tree::as_i64).unwrap_or(0);
    if to - from > max {
        return lifetime(format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max})"));
    }
    if begin_refresh.as_second() < from + REFRESH_MARGIN_SECONDS {
        return wrong("beginRefreshAt", begin_refresh, "must be at least 10 minutes after status.notBefore");
    }
    if begin_refresh.as_second() > to - REFRESH_MARGIN_SECONDS {
        return wrong("beginRefreshAt", begin_refresh, "must be at least 10 minutes before status.notAfter");
    }
    Ok(())
}

/// As Go prints a `time.Time`.
fn printed(time: Timestamp) -> BadValue {
    BadValue::Plain(time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string().into())
}

/// As Go prints a `time.Duration` of whole seconds.
fn go_duration(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// Who changes the status of a request must be one who signs for its signer.
pub fn may_sign(authorizer: &dyn Authorizer, user: &UserInfo, new: &Tree, old: &Tree) -> Vec<FieldError> {
    let empty = Tree::object();
    let status = |tree: &Tree| tree.get("status").unwrap_or(&empty).clone();
    let signer = old.str_at(&["spec", "signerName"]);
    if status(new) == status(old) || may_use_signer(authorizer, user, "sign", signer) {
        return Vec::new();
    }
    let detail = format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", user.name);
    vec![FieldError::forbidden("spec.signerName", detail)]
}

#[cfg(test)]
mod tests;
