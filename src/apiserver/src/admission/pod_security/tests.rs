use super::*;

fn check(level: Level, json: &str) -> String {
    violations(level, &Tree::from_json(json.as_bytes()).unwrap()).unwrap_or_default()
}

#[test]
fn a_plain_pod_breaks_restricted_in_upstreams_words() {
    let pod = r#"{"spec":{"containers":[{"name":"nginx"}]}}"#;
    assert_eq!(check(Level::Baseline, pod), "");
    assert_eq!(
        check(Level::Restricted, pod),
        "allowPrivilegeEscalation != false (container \"nginx\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"nginx\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"nginx\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"nginx\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn a_hardened_pod_breaks_nothing() {
    let pod = r#"{"spec":{"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},
        "volumes":[{"name":"v","emptyDir":{}}],
        "containers":[{"name":"a","securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]}}"#;
    assert_eq!(check(Level::Restricted, pod), "");
}

#[test]
fn baseline_names_what_escapes() {
    let pod = r#"{"spec":{"hostNetwork":true,"hostPID":true,"volumes":[{"name":"v","hostPath":{"path":"/"}}],
        "securityContext":{"seccompProfile":{"type":"Unconfined"},"sysctls":[{"name":"a.b","value":"1"}]},
        "containers":[{"name":"a","ports":[{"hostPort":80}],"securityContext":{"privileged":true,"capabilities":{"add":["SYS_ADMIN","KILL"]}}},
        {"name":"b","securityContext":{"privileged":true}}]}}"#;
    assert_eq!(
        check(Level::Baseline, pod),
        "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), \
         host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), \
         hostPort (container \"a\" uses hostPort 80), \
         privileged (containers \"a\", \"b\" must not set securityContext.privileged=true), \
         seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\"), forbidden sysctls (a.b)"
    );
    assert!(check(Level::Restricted, pod).contains("restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")"));
}
