//! Which authorization configurations hold.
use super::*;

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
const HOOK: &str = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /dev/../etc/hostname}";

#[track_caller]
fn check(authorizers: &str, expected: &str) {
    let found = AuthorizationConfiguration::parse(&format!("{HEAD}authorizers: [{authorizers}]\n"));
    assert_eq!(found.err().map_or_else(String::new, |error| error.to_string()), expected, "{authorizers}");
}

#[test]
fn authorizers_are_checked_as_upstream_checks_them() {
    check("{type: Node, name: node}, {type: RBAC, name: rbac}", "");
    check("", "authorizers: Required value: at least one authorization mode must be defined");
    check("{name: a}", "authorizers[0].type: Required value");
    check(
        "{type: ABAC, name: abac}",
        "authorizers[0].type: Unsupported value: \"ABAC\": supported values: \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"",
    );
    check("{type: RBAC, name: rbac}, {type: RBAC, name: b}", "authorizers[1].type: Duplicate value: \"RBAC\"");
    check("{type: RBAC, name: other}", "expected name rbac for authorizer RBAC instead of other");
    check("{type: RBAC}", "authorizers[0].name: Required value");
    check(
        "{type: RBAC, name: rbac, webhook: {}}",
        "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
    );
    check("{type: Webhook, name: a}", "authorizers[0].webhook: Required value: required when type=Webhook");
    check("{type: RBAC, name: rbac, foo: 1}", "strict decoding error: unknown field \"authorizers[0].foo\"");
}

#[test]
fn webhooks_are_checked_as_upstream_checks_them() {
    let hook = |change: (&str, &str), more: &str, expected: &str| {
        check(&format!("{{type: Webhook, name: a, webhook: {{{}{more}}}}}", HOOK.replace(change.0, change.1)), expected);
    };
    hook(("", ""), "", "");
    hook(("timeout: 3s, ", ""), "", "authorizers[0].timeout: Required value");
    hook(("timeout: 3s", "timeout: 31s"), "", "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s");
    hook(
        ("timeout: 3s", "timeout: soon"),
        "",
        "authorizers[0].webhook.timeout: Invalid value: \"soon\": must be a duration, like 30s or 5m",
    );
    hook(("", ""), ", authorizedTTL: -1s", "authorizers[0].authorizedTTL: Invalid value: \"-1s\": must be > 0s");
    hook(
        ("Version: v1", "Version: v2"),
        "",
        "authorizers[0].subjectAccessReviewVersion: Unsupported value: \"v2\": supported values: \"v1\", \"v1beta1\"",
    );
    hook(("Deny", "Never"), "", "authorizers[0].failurePolicy: Unsupported value: \"Never\": supported values: \"NoOpinion\", \"Deny\"");
    hook(
        ("/dev/../etc/hostname", "relative"),
        "",
        "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"relative\": must be an absolute path",
    );
    hook(
        ("/dev/../etc/hostname", "/dev/null"),
        "",
        "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"/dev/null\": must be a regular file",
    );
    hook(
        ("", ""),
        ", matchConditions: [{expression: 'true'}]",
        "authorizers[0].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
    );
    let condition = |expression: &str, expected: &str| {
        hook(
            ("", ""),
            &format!(", matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{{expression: \"{expression}\"}}]"),
            expected,
        );
    };
    condition("request.user == 'a'", "");
    condition("", "authorizers[0].matchConditions[0].expression: Required value");
    condition(
        "request.user",
        "authorizers[0].matchConditions[0].expression: Invalid value: \"request.user\": must evaluate to bool but got string",
    );
    condition(
        "request.nobody == 1",
        "authorizers[0].matchConditions[0].expression: Invalid value: \"request.nobody == 1\": compilation failed: ERROR: <input>:1:8: undefined field 'nobody'\n | request.nobody == 1\n | .......^",
    );
}

#[test]
fn times_are_read_as_go_reads_them() {
    for (text, nanos) in [
        ("1h30m", Some(5_400_000_000_000)),
        ("-5s", Some(-5_000_000_000)),
        ("0", Some(0)),
        ("1.5s", Some(1_500_000_000)),
        ("100us", Some(100_000)),
    ] {
        assert_eq!(shape::duration_nanos(text), nanos, "{text}");
    }
    for bad in ["", "5", "s", "1d", "-", "1..5s", "9999999999h"] {
        assert_eq!(shape::duration_nanos(bad), None, "{bad}");
    }
}
