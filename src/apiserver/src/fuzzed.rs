//! What reads bytes of strangers, as targets of the fuzzer (`fuzz/`): whatever comes, each must return, soon and in little memory. The corpus that
//! the fuzzer left goes through the same functions in the ordinary tests. Built for these two only.
mod documents;
mod objects;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::LazyLock;

use api::Tree;
use api::selector::{FieldSelector, LabelSelector};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cel::{CostLimit, Declared, Environment, NoSizes, Value, Version};
use http::{Method, Uri};
use pki::SigningRequest;

pub use documents::{json, protobuf, yaml};
pub use objects::{apply, crd, object, patch};

use crate::audit::policy::Policy;
use crate::auth::config::{AuthenticationConfiguration, AuthorizationConfiguration};
use crate::auth::jwt::keys::KeySet;
use crate::auth::jwt::token::{Compact, untrusted_issuer};
use crate::auth::jwt::{claims, validate};
use crate::pipeline::go_duration;
use crate::request::{Query, RequestInfo};

/// What each takes stands in `fuzz/README.md`; the names are those of the folders of the corpus.
#[cfg(test)]
const TARGETS: [(&str, fn(&[u8])); 15] = [
    ("apply", apply),
    ("audit", audit),
    ("authentication", authentication),
    ("cel", cel),
    ("crd", crd),
    ("csr", csr),
    ("json", json),
    ("jwt", jwt),
    ("object", object),
    ("patch", patch),
    ("path", path),
    ("pattern", pattern),
    ("protobuf", protobuf),
    ("selector", selector),
    ("yaml", yaml),
];

/// A tenth of what the server allows one call, so that a drawn expression is slow only where its cost is counted wrong.
const COST_MAX: CostLimit = CostLimit(CostLimit::PER_CALL.0 / 10);

static OBJECT: LazyLock<Tree> = LazyLock::new(|| {
    let json = br#"{"s":"abc","i":3,"f":1.5,"b":true,"n":null,"l":[1,2,3],"m":{"k":"v","x y":"z"},"t":"2026-01-02T03:04:05Z","d":"1h","o":{"l":[{"a":"b"}]}}"#;
    Tree::from_json(json).expect("an object")
});
static ANY: Declared = Declared::any();
static ENVIRONMENT: LazyLock<Environment> =
    LazyLock::new(|| Environment::base(Version::CURRENT).with_variable("object", ANY.clone()).with_patch_types());

/// An issuer whose every claim goes through an expression.
static ISSUER: LazyLock<(AuthenticationConfiguration, Vec<validate::Compiled>)> = LazyLock::new(|| {
    let text = r#"{apiVersion: apiserver.config.k8s.io/v1, kind: AuthenticationConfiguration, jwt: [{
        issuer: {url: 'https://i.example', audiences: [a]},
        claimValidationRules: [{expression: 'claims.hd == "x"', message: 'no'}],
        claimMappings: {
            username: {expression: 'claims.sub + "x"'}, groups: {expression: claims.groups}, uid: {claim: sub},
            extra: [{key: a.example/b, valueExpression: 'claims.?x.orValue("y")'}]},
        userValidationRules: [{expression: '!user.username.startsWith("system:")'}]}]}"#;
    let configuration = AuthenticationConfiguration::parse(text).expect("a sound configuration");
    let compiled = validate::compile(&configuration, &[]).expect("of sound expressions");
    (configuration, compiled)
});

/// As much of `bytes` as is text.
fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to there"),
    }
}

/// An expression: parsed, checked, estimated, and evaluated over an object.
pub fn cel(bytes: &[u8]) {
    let program = match ENVIRONMENT.compile(text(bytes)) {
        Ok(program) => program,
        Err(issues) => {
            let _ = issues.to_string();
            return;
        }
    };
    program.estimate(&NoSizes);
    let variables = [("object", Value::read(&*OBJECT, &ANY))];
    if let Ok(value) = program.evaluate(&variables.as_slice(), COST_MAX).value {
        let _ = value.to_plain();
    }
}

/// A regular expression of RE2, and on the next line what it may match.
pub fn pattern(bytes: &[u8]) {
    let text = text(bytes);
    let (pattern, value) = text.split_once('\n').unwrap_or((text, "abc"));
    if let Ok(regex) = cel::pattern::compile(pattern) {
        regex.is_match(value);
    }
}

/// A label selector, else a field selector.
pub fn selector(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(labels) = LabelSelector::parse(text) {
        labels.matches(&|key: &str| (key == "a").then_some("b"));
        let printed = labels.to_string();
        let again = LabelSelector::parse(&printed).expect("what was printed can be read");
        assert_eq!(again.to_string(), printed);
    }
    if let Ok(fields) = FieldSelector::parse(text) {
        fields.matches(&|key: &str| (key == "metadata.name").then_some("b"));
    }
}

/// A bearer token, as it comes or as two lines, its header and its payload; the user that it would be; or a set of keys.
pub fn jwt(bytes: &[u8]) {
    let text = text(bytes);
    let joined = text.split_once('\n').map(|(header, payload)| format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload)));
    let token = joined.as_deref().unwrap_or(text);
    untrusted_issuer(token);
    if let Ok(token) = Compact::parse(token) {
        token.audiences();
        token.seconds("exp");
        KeySet::default().verifies(&token);
        let (configuration, compiled) = &*ISSUER;
        let _ = claims::user(&configuration.jwt[0], &compiled[0], &token.claims);
    }
    let _ = KeySet::parse(bytes);
}

/// A certificate signing request or a certificate, in PEM or, where it does not begin with a dash, in DER.
pub fn csr(bytes: &[u8]) {
    let pem = |label: &str| match bytes {
        [b'-', ..] => Cow::Borrowed(bytes),
        der => Cow::Owned(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der)).into_bytes()),
    };
    if let Ok(request) = SigningRequest::parse(&pem("CERTIFICATE REQUEST")) {
        request.key_fingerprint();
        let _ = pki::node_client(&request, &["client auth"]);
        let _ = pki::check_node_serving(&request, &["server auth"]);
    }
    pki::key_fingerprint(&pem("CERTIFICATE"));
}

/// An audit policy.
pub fn audit(bytes: &[u8]) {
    let _ = Policy::parse(text(bytes));
}

/// A configuration of authentication with the expressions in it, else one of authorization.
pub fn authentication(bytes: &[u8]) {
    match AuthenticationConfiguration::parse(text(bytes)) {
        Ok(configuration) => drop(validate::compile(&configuration, &[])),
        Err(_) => drop(AuthorizationConfiguration::parse(text(bytes))),
    }
}

/// The method and target of a request.
pub fn path(bytes: &[u8]) {
    let text = text(bytes);
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else { return };
    let query = Query::parse(&uri);
    RequestInfo::new(&method, &uri, &query);
    query.nonempty("timeout").and_then(go_duration);
}
