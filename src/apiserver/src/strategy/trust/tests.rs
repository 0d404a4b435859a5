use super::*;

fn bundle(texts: &[&str]) -> Tree {
    let mut tree = Tree::object();
    tree.set(&["spec", "trustBundle"], texts.concat().as_str());
    tree
}

#[track_caller]
fn check(errors: &[FieldError], expected: &[&str]) {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(texts.len() == expected.len() && texts.iter().zip(expected).all(|(t, e)| t.contains(e)), "{texts:?}");
}

#[test]
fn a_bundle_holds_authorities_and_each_once() {
    let made = pki::Authority::create("one", std::time::SystemTime::now()).unwrap();
    let ca = made.certificate_pem();
    check(&validate_bundle(&bundle(&[ca]), None), &[]);
    check(&validate_bundle(&bundle(&["text\n", ca, "more\n", ca]), None), &["duplicate trust anchor (indices [0 1])"]);
    check(
        &validate_bundle(&bundle(&[]), None),
        &["spec.trustBundle: Invalid value: \"<value omitted>\": at least one trust anchor must be provided"],
    );
    let odd = "-----BEGIN OTHER-----\nAAAA\n-----END OTHER-----\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(&validate_bundle(&bundle(&[odd]), None), &["entry 0 has bad block type: OTHER", "entry 1 does not parse as X.509"]);
    check(&validate_bundle(&bundle(&[odd]), Some(&bundle(&[odd]))), &[]);
}

#[test]
fn a_chain_is_for_the_key_and_its_times_fit() {
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let (stub, chain) = issued();
    let time = |seconds: i64| Timestamp::from_second(now.as_second() - 60 + seconds).unwrap().to_string();
    let mut old = Tree::object();
    old.set(&["spec", "stubPKCS10Request"], STANDARD.encode(&stub));
    old.set(&["spec", "maxExpirationSeconds"], Tree::Integer(7200));
    check(&validate_request(&old), &[]);
    let with = |chain: &str, end: i64, refresh: i64| {
        let mut new = old.clone();
        let issued = Tree::from_json(br#"[{"type":"Issued","status":"True"}]"#).unwrap();
        new.set(&["status", "conditions"], issued);
        new.set(&["status", "certificateChain"], chain);
        new.set(&["status", "notBefore"], time(0));
        new.set(&["status", "notAfter"], time(end));
        new.set(&["status", "beginRefreshAt"], time(refresh));
        validate_issuance(&new, &old, now)
    };
    check(&with(&chain, 7200, 3600), &[]);
    check(&with(&chain, 7201, 3600), &["status.notAfter: Invalid value"]);
    check(&with(&chain, 7200, 10), &["must be at least 10 minutes after status.notBefore"]);
    check(&with(&chain, 7200, 7000), &["must be at least 10 minutes before status.notAfter"]);
    check(&with("", 7200, 3600), &["must contain at least one certificate"]);
    check(&with(&issued().1, 7200, 3600), &["leaf certificate was not issued to the requested public key"]);
}

/// A request as the kubelet makes it, and a certificate for it, of two hours from the first second of 2026.
fn issued() -> (Vec<u8>, String) {
    let authority = rcgen::CertificateParams::default();
    let authority = rcgen::Issuer::new(authority, rcgen::KeyPair::generate().unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = params.not_before + Duration::from_secs(7200);
    (request.der().to_vec(), params.signed_by(&key, &authority).unwrap().pem())
}
