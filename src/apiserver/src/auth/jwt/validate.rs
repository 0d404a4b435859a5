//! Whether a configuration of issuers may hold, and its expressions, compiled.
//!
//! Models k8s.io/apiserver/pkg/apis/apiserver/validation/validation.go ValidateAuthenticationConfiguration, with its paths and texts.
use std::collections::BTreeSet;

use api::field_error::{FieldError, Path};
use api::tree::Tree;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::expressions::{About, Expression};
use crate::auth::config::{AuthenticationConfiguration, Issuer, JwtAuthenticator, Mapping};

const ISSUERS_MAX: usize = 64;

/// The compiled expressions of one issuer.
#[derive(Debug, Default)]
pub struct Compiled {
    pub username: Option<Expression>,
    pub groups: Option<Expression>,
    pub uid: Option<Expression>,
    /// By key.
    pub extra: Vec<(String, Expression)>,
    /// With their messages.
    pub claim_rules: Vec<(Expression, String)>,
    pub user_rules: Vec<(Expression, String)>,
}

/// The expressions of each issuer. `disallowed`: issuers of the cluster's own.
pub fn compile(config: &AuthenticationConfiguration, disallowed: &[String]) -> Result<Vec<Compiled>, Vec<FieldError>> {
    let root = Path::new("jwt");
    if config.jwt.len() > ISSUERS_MAX {
        return Err(vec![FieldError::too_many(root, config.jwt.len(), ISSUERS_MAX)]);
    }
    let (mut errors, mut all) = (Vec::new(), Vec::new());
    let (mut urls, mut discovery) = (BTreeSet::new(), BTreeSet::new());
    for (i, of) in config.jwt.iter().enumerate() {
        let path = root.index(i);
        all.push(authenticator(of, disallowed, &path, &mut errors));
        let issuer = path.child("issuer");
        if !urls.insert(&of.issuer.url) {
            errors.push(FieldError::duplicate(issuer.child("url"), &of.issuer.url));
        }
        if !of.issuer.discovery_url.is_empty() && !discovery.insert(&of.issuer.discovery_url) {
            errors.push(FieldError::duplicate(issuer.child("discoveryURL"), &of.issuer.discovery_url));
        }
    }
    if let Some(anonymous) = config.anonymous.as_ref().filter(|anonymous| !anonymous.enabled && !anonymous.paths.is_empty()) {
        let condition = |path: &String| Tree::Object([("path", Tree::from(path.as_str()))].into_iter().collect());
        let shown: Vec<Tree> = anonymous.paths.iter().map(condition).collect();
        errors.push(FieldError::invalid(
            "anonymous.conditions",
            &Tree::Array(shown),
            "enabled should be set to true when conditions are defined",
        ));
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

fn authenticator(of: &JwtAuthenticator, disallowed: &[String], path: &Path, errors: &mut Vec<FieldError>) -> Compiled {
    issuer(&of.issuer, disallowed, &path.child("issuer"), errors);
    let mut compiled = Compiled::default();
    claim_rules(of, &path.child("claimValidationRules"), &mut compiled, errors);
    mappings(of, &path.child("claimMappings"), &mut compiled, errors);
    let rules = path.child("userValidationRules");
    let mut seen = BTreeSet::new();
    for (i, rule) in of.user_rules.iter().enumerate() {
        let rule_path = rules.index(i);
        let at = rule_path.child("expression");
        if rule.expression.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if !seen.insert(&rule.expression) {
            errors.push(FieldError::duplicate(at, &rule.expression));
        } else {
            match Expression::compile(&rule.expression, About::User, true, &at) {
                Ok(expression) => compiled.user_rules.push((expression, rule.message.clone())),
                Err(error) => errors.push(error),
            }
        }
    }
    compiled
}

fn issuer(of: &Issuer, disallowed: &[String], path: &Path, errors: &mut Vec<FieldError>) {
    if of.url.is_empty() {
        errors.push(FieldError::required(path.child("url"), ""));
    } else {
        url(&of.url, disallowed, &path.child("url"), errors);
    }
    if !of.discovery_url.is_empty() {
        let at = path.child("discoveryURL");
        if !of.url.is_empty() && of.url.trim_end_matches('/') == of.discovery_url.trim_end_matches('/') {
            errors.push(FieldError::invalid(at, &of.discovery_url, "discoveryURL must be different from URL"));
        }
        url(&of.discovery_url, &[], &at, errors);
    }
    audiences(of, path, errors);
    let at = path.child("certificateAuthority");
    if !of.certificate_authority.is_empty() {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(of.certificate_authority.as_bytes()).collect();
        let why = match found {
            Ok(found) if found.is_empty() => Some("data does not contain any valid RSA or ECDSA certificates".to_owned()),
            Ok(_) => crate::outbound::trusting(of.certificate_authority.as_bytes(), None).err(),
            Err(error) => Some(error.to_string()),
        };
        errors.extend(why.map(|why| FieldError::invalid(at, "<omitted>", why)));
    }
    let at = path.child("egressSelectorType");
    match of.egress_selector.as_str() {
        "" => {}
        selector @ ("controlplane" | "cluster") => {
            let detail = format!("oidc: egress lookup required with egress selector type {selector:?}");
            errors.push(FieldError::invalid(at, selector, detail));
        }
        other => errors.push(FieldError::invalid(at, other, "egress selector must be either controlplane or cluster")),
    }
}

fn audiences(of: &Issuer, path: &Path, errors: &mut Vec<FieldError>) {
    let at = path.child("audiences");
    if of.audiences.is_empty() {
        return errors.push(FieldError::required(at, format!("at least one {at} is required")));
    }
    let mut seen = BTreeSet::new();
    for (i, audience) in of.audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(FieldError::required(at.index(i), ""));
        }
        if !seen.insert(audience) {
            errors.push(FieldError::duplicate(at.index(i), audience));
        }
    }
    let (policy, at) = (&of.audience_match_policy, path.child("audienceMatchPolicy"));
    if of.audiences.len() > 1 && policy != "MatchAny" {
        errors.push(FieldError::invalid(at, policy, "audienceMatchPolicy must be MatchAny for multiple audiences"));
    } else if !matches!(policy.as_str(), "" | "MatchAny") {
        errors.push(FieldError::invalid(at, policy, "audienceMatchPolicy must be empty or MatchAny for single audience"));
    }
}

/// Models Go's net/url Parse as far as the checks need it.
fn url(text: &str, disallowed: &[String], path: &Path, errors: &mut Vec<FieldError>) {
    let mut wrong = |detail: String| errors.push(FieldError::invalid(path, text, detail));
    if disallowed.iter().any(|known| known == text) {
        wrong(format!("URL must not overlap with disallowed issuers: [{}]", disallowed.join(" ")));
    }
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return wrong(format!("parse {text:?}: net/url: invalid control character in URL"));
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = rest.split('/').next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("https") {
        wrong("URL scheme must be https".into());
    } else if authority.rsplit('@').next().is_none_or(|host| host.is_empty() || host.parse::<http::uri::Authority>().is_err()) {
        wrong(format!("parse {text:?}: invalid host"));
    }
    if !scheme.is_empty() && authority.contains('@') {
        wrong("URL must not contain a username or password".into());
    }
    if !query.is_empty() {
        wrong("URL must not contain a query".into());
    }
    if !fragment.is_empty() {
        wrong("URL must not contain a fragment".into());
    }
}

fn claim_rules(of: &JwtAuthenticator, root: &Path, compiled: &mut Compiled, errors: &mut Vec<FieldError>) {
    let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
    for (i, rule) in of.claim_rules.iter().enumerate() {
        let path = root.index(i);
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => errors.push(FieldError::invalid(path, &rule.claim, "claim and expression can't both be set")),
            (true, true) => errors.push(FieldError::required(path, "claim or expression is required")),
            (false, true) => {
                if !rule.message.is_empty() {
                    errors.push(FieldError::invalid(path.child("message"), &rule.message, "may not be specified when claim is set"));
                }
                if !claims.insert(&rule.claim) {
                    errors.push(FieldError::duplicate(path.child("claim"), &rule.claim));
                }
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    let detail = "may not be specified when expression is set";
                    errors.push(FieldError::invalid(path.child("requiredValue"), &rule.required_value, detail));
                }
                let at = path.child("expression");
                if !expressions.insert(&rule.expression) {
                    errors.push(FieldError::duplicate(at, &rule.expression));
                    continue;
                }
                match Expression::compile(&rule.expression, About::Claims, true, &at) {
                    Ok(expression) => compiled.claim_rules.push((expression, rule.message.clone())),
                    Err(error) => errors.push(error),
                }
            }
        }
    }
}

fn mappings(of: &JwtAuthenticator, path: &Path, compiled: &mut Compiled, errors: &mut Vec<FieldError>) {
    compiled.username = mapping(&of.username, &path.child("username"), true, errors);
    compiled.groups = mapping(&of.groups, &path.child("groups"), false, errors);
    let uid = path.child("uid");
    if !of.uid.claim.is_empty() && !of.uid.expression.is_empty() {
        errors.push(FieldError::invalid(uid, "", "claim and expression can't both be set"));
    } else if !of.uid.expression.is_empty() {
        let found = Expression::compile(&of.uid.expression, About::Claims, false, &uid.child("expression"));
        compiled.uid = found.map_err(|error| errors.push(error)).ok();
    }
    let extra = path.child("extra");
    let mut seen = BTreeSet::new();
    for (i, (key, text)) in of.extra.iter().enumerate() {
        let path = extra.index(i);
        extra_key(key, &path.child("key"), errors);
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(path.child("key"), key));
            continue;
        }
        let at = path.child("valueExpression");
        if text.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        match Expression::compile(text, About::Claims, false, &at) {
            Ok(expression) => compiled.extra.push((key.clone(), expression)),
            Err(error) => errors.push(error),
        }
    }
    let rules = compiled.claim_rules.iter().map(|(expression, _)| expression);
    let all = compiled.username.iter().chain(compiled.extra.iter().map(|(_, expression)| expression)).chain(rules);
    let verifies = all.into_iter().any(|expression| expression.reads("email_verified"));
    if compiled.username.as_ref().is_some_and(|expression| expression.reads("email")) && !verifies {
        let detail = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or \
                      claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        errors.push(FieldError::invalid(path.child("username").child("expression"), &of.username.expression, detail));
    }
}

fn mapping(of: &Mapping, path: &Path, is_required: bool, errors: &mut Vec<FieldError>) -> Option<Expression> {
    match (of.claim.is_empty(), of.expression.is_empty()) {
        (false, false) => errors.push(FieldError::invalid(path, "", "claim and expression can't both be set")),
        (true, true) if is_required => errors.push(FieldError::required(path, "claim or expression is required")),
        (true, true) => {}
        (true, false) => {
            if let Some(prefix) = &of.prefix {
                errors.push(FieldError::invalid(path.child("prefix"), prefix, "may not be specified when expression is set"));
            }
            let found = Expression::compile(&of.expression, About::Claims, false, &path.child("expression"));
            return found.map_err(|error| errors.push(error)).ok();
        }
        (false, true) if of.prefix.is_none() => {
            let detail = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
            errors.push(FieldError::required(path.child("prefix"), detail));
        }
        (false, true) => {}
    }
    None
}

fn extra_key(key: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if key.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        api::validation::domain_prefixed_path(errors, key, path);
    }
    if key.chars().any(char::is_uppercase) {
        errors.push(FieldError::invalid(path, key, "must be lowercase"));
    }
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_under = |own: &str| domain == own || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with('.'));
    if is_under("kubernetes.io") || is_under("k8s.io") {
        let detail = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
        errors.push(FieldError::invalid(path, key, detail));
    }
}
