//! What may stand in the file, and what is said of what may not.
use super::*;

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
const GOOD: &str = "  claimMappings: {username: {claim: sub, prefix: ''}}\n";

fn errors(text: &str) -> String {
    match AuthenticationConfiguration::parse(text) {
        Err(error) => error.to_string(),
        Ok(config) => check(&config, &["https://cluster".into()]).err().map_or_else(String::new, |error| error.to_string()),
    }
}

#[track_caller]
fn entry(text: &str, expected: &str) {
    assert_eq!(errors(&format!("{HEAD}jwt:\n- {}\n", text.trim())), expected, "{text}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    for (text, expected) in [
        ("", "empty config data"),
        ("a: b", "Object 'Kind' is missing"),
        ("kind: AuthenticationConfiguration", "Object 'apiVersion' is missing"),
        (
            "apiVersion: v1\nkind: Pod",
            "no kind \"Pod\" is registered for version \"v1\": expected AuthenticationConfiguration of apiserver.config.k8s.io/v1",
        ),
    ] {
        assert_eq!(errors(text), expected);
    }
    let with = |rest: &str| errors(&format!("{HEAD}{rest}"));
    assert_eq!(with("jwt: []\nfoo: 1\n"), "strict decoding error: unknown field \"foo\"");
    assert_eq!(
        with("jwt:\n- issuer: {urll: x}\n  bar: 2\n"),
        "strict decoding error: unknown field \"jwt[0].bar\", unknown field \"jwt[0].issuer.urll\""
    );
    assert_eq!(with("jwt: 3\n"), "jwt: Invalid value: 3: must be a list");
    assert_eq!(with("jwt: []\n"), "");
    assert_eq!(with("anonymous: {enabled: true, conditions: [{path: /livez}]}\n"), "");
    assert_eq!(
        with("anonymous: {enabled: false, conditions: [{path: /livez}]}\n"),
        "anonymous.conditions: Invalid value: [{\"path\":\"/livez\"}]: enabled should be set to true when conditions are defined"
    );
}

#[test]
fn issuers_are_checked_as_upstream_checks_them() {
    let issuer = |issuer: &str, expected: &str| entry(&format!("issuer: {{{issuer}}}\n{GOOD}"), expected);
    issuer("url: 'https://a', audiences: [x]", "");
    issuer("audiences: [x]", "jwt[0].issuer.url: Required value");
    issuer("url: 'http://a', audiences: [x]", "jwt[0].issuer.url: Invalid value: \"http://a\": URL scheme must be https");
    issuer(
        "url: 'https://u:p@a', audiences: [x]",
        "jwt[0].issuer.url: Invalid value: \"https://u:p@a\": URL must not contain a username or password",
    );
    issuer("url: 'https://a?q=1', audiences: [x]", "jwt[0].issuer.url: Invalid value: \"https://a?q=1\": URL must not contain a query");
    issuer("url: 'https://a#f', audiences: [x]", "jwt[0].issuer.url: Invalid value: \"https://a#f\": URL must not contain a fragment");
    issuer(
        "url: 'https://cluster', audiences: [x]",
        "jwt[0].issuer.url: Invalid value: \"https://cluster\": URL must not overlap with disallowed issuers: [https://cluster]",
    );
    issuer(
        "url: 'https://a', discoveryURL: 'https://a/', audiences: [x]",
        "jwt[0].issuer.discoveryURL: Invalid value: \"https://a/\": discoveryURL must be different from URL",
    );
    issuer("url: 'https://a'", "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required");
    issuer("url: 'https://a', audiences: [x, x], audienceMatchPolicy: MatchAny", "jwt[0].issuer.audiences[1]: Duplicate value: \"x\"");
    issuer(
        "url: 'https://a', audiences: [x, z]",
        "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
    );
    issuer(
        "url: 'https://a', audiences: [x], audienceMatchPolicy: All",
        "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"All\": audienceMatchPolicy must be empty or MatchAny for single audience",
    );
    issuer(
        "url: 'https://a', audiences: [x], certificateAuthority: none",
        "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA certificates",
    );
    issuer(
        "url: 'https://a', audiences: [x], egressSelectorType: moon",
        "jwt[0].issuer.egressSelectorType: Invalid value: \"moon\": egress selector must be either controlplane or cluster",
    );
    let two = format!("issuer: {{url: 'https://a', audiences: [x]}}\n{GOOD}- issuer: {{url: 'https://a', audiences: [x]}}\n{GOOD}");
    entry(&two, "jwt[1].issuer.url: Duplicate value: \"https://a\"");
}

#[test]
fn mappings_and_rules_are_checked_as_upstream_checks_them() {
    let with = |rest: &str, expected: &str| entry(&format!("issuer: {{url: 'https://a', audiences: [x]}}\n  {rest}"), expected);
    let mapped = |mappings: &str, expected: &str| with(&format!("claimMappings: {{{mappings}}}"), expected);
    const AT: &str = "jwt[0].claimMappings";
    mapped("", &format!("{AT}.username: Required value: claim or expression is required"));
    mapped(
        "username: {claim: sub}",
        &format!(
            "{AT}.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"
        ),
    );
    mapped(
        "username: {claim: sub, expression: claims.sub}",
        &format!("{AT}.username: Invalid value: \"\": claim and expression can't both be set"),
    );
    mapped(
        "username: {expression: claims.sub, prefix: a}",
        &format!("{AT}.username.prefix: Invalid value: \"a\": may not be specified when expression is set"),
    );
    mapped(
        "username: {expression: user.username}",
        &format!(
            "{AT}.username.expression: Invalid value: \"user.username\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'user' (in container '')\n | user.username\n | ^"
        ),
    );
    const MAIL: &str = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
    mapped("username: {expression: claims.email}", &format!("{AT}.username.expression: Invalid value: \"claims.email\": {MAIL}"));
    mapped(
        "username: {expression: 'claims.?email.orValue(\"\")'}",
        &format!("{AT}.username.expression: Invalid value: \"claims.?email.orValue(\\\"\\\")\": {MAIL}"),
    );
    mapped("username: {expression: claims.email}, extra: [{key: a.b/c, valueExpression: 'string(claims.email_verified)'}]", "");
    let extra = |key: &str, expected: &str| {
        mapped(&format!("username: {{claim: a, prefix: ''}}, extra: [{{key: '{key}', valueExpression: claims.a}}]"), expected)
    };
    extra("a.b/c", "");
    extra("", &format!("{AT}.extra[0].key: Required value"));
    extra("abc", &format!("{AT}.extra[0].key: Invalid value: \"abc\": must be a domain-prefixed path (such as \"acme.io/foo\")"));
    extra("a.b/C", &format!("{AT}.extra[0].key: Invalid value: \"a.b/C\": must be lowercase"));
    extra(
        "x.k8s.io/c",
        &format!(
            "{AT}.extra[0].key: Invalid value: \"x.k8s.io/c\": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
        ),
    );
    let rule = |rule: &str, expected: &str| with(&format!("claimValidationRules: [{{{rule}}}]\n{GOOD}"), expected);
    const RULE: &str = "jwt[0].claimValidationRules[0]";
    rule("claim: a, requiredValue: b", "");
    rule("", &format!("{RULE}: Required value: claim or expression is required"));
    rule("claim: a, expression: 'true'", &format!("{RULE}: Invalid value: \"a\": claim and expression can't both be set"));
    rule("claim: a, message: m", &format!("{RULE}.message: Invalid value: \"m\": may not be specified when claim is set"));
    rule(
        "expression: 'true', requiredValue: m",
        &format!("{RULE}.requiredValue: Invalid value: \"m\": may not be specified when expression is set"),
    );
    rule("expression: claims.a", &format!("{RULE}.expression: Invalid value: \"claims.a\": must evaluate to bool"));
    let user = |rule: &str, expected: &str| with(&format!("userValidationRules: [{{{rule}}}]\n{GOOD}"), expected);
    user("expression: 'user.username != \"\"'", "");
    user("message: a", "jwt[0].userValidationRules[0].expression: Required value");
    user(
        "expression: user.nobody == 1",
        "jwt[0].userValidationRules[0].expression: Invalid value: \"user.nobody == 1\": compilation failed: ERROR: <input>:1:5: undefined field 'nobody'\n | user.nobody == 1\n | ....^",
    );
}
