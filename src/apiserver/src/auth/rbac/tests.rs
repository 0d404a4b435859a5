use api::tree::Tree;

use super::policy::{Kind, Policy};
use super::rules;
use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, PolicyRule, UserInfo, bootstrap};

fn role(rules: &str) -> Tree {
    Tree::from_json(format!(r#"{{"rules":{rules}}}"#).as_bytes()).unwrap()
}

fn binding(subjects: &str, kind: &str, name: &str) -> Tree {
    let text = format!(r#"{{"subjects":{subjects},"roleRef":{{"kind":"{kind}","name":"{name}"}}}}"#);
    Tree::from_json(text.as_bytes()).unwrap()
}

/// `get pods/log in ns`, `get /livez`
fn ask(policy: &Policy, user: &UserInfo, question: &str) -> Result<String, Vec<String>> {
    let (question, namespace) = question.split_once(" in ").unwrap_or((question, ""));
    let (verb, what) = question.split_once(' ').unwrap();
    let path = what.starts_with('/');
    let (what, name) = what.split_once('=').unwrap_or((what, ""));
    let (resource, subresource) = if path { ("", "") } else { what.split_once('/').unwrap_or((what, "")) };
    let (resource, api_group) = resource.split_once('.').unwrap_or((resource, ""));
    let attributes = Attributes {
        user,
        verb,
        api_group,
        api_version: "v1",
        resource,
        subresource,
        namespace,
        name,
        resource_request: !path,
        path: if path { what } else { "" },
        fields: &ALL_FIELDS,
        labels: &ALL_LABELS,
    };
    let mut missing = Vec::new();
    let found = policy.visit(user, namespace, &mut missing, |rule, source| {
        rules::allows(rule, &attributes).then(|| source.describe())
    });
    found.ok_or(missing)
}

#[test]
fn bindings_give_rules_where_they_are_and_to_whom_they_name() {
    let mut policy = Policy::default();
    policy.set(Kind::ClusterRole, "", "reader", Some(&role(r#"[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods","*/scale"]}]"#)));
    policy.set(Kind::Role, "a", "one", Some(&role(r#"[{"verbs":["get"],"apiGroups":[""],"resources":["secrets"],"resourceNames":["x"]}]"#)));
    policy.set(Kind::RoleBinding, "a", "b1", Some(&binding(r#"[{"kind":"ServiceAccount","name":"sa"}]"#, "ClusterRole", "reader")));
    policy.set(Kind::RoleBinding, "a", "b2", Some(&binding(r#"[{"kind":"User","name":"jo"}]"#, "Role", "one")));
    policy.set(Kind::ClusterRoleBinding, "", "b3", Some(&binding(r#"[{"kind":"Group","name":"staff"}]"#, "ClusterRole", "reader")));
    policy.set(Kind::ClusterRoleBinding, "", "b4", Some(&binding(r#"[{"kind":"User","name":"lost"}]"#, "ClusterRole", "absent")));
    let account = UserInfo::new("system:serviceaccount:a:sa", &[]);
    assert_eq!(
        ask(&policy, &account, "get pods in a").unwrap(),
        r#"RoleBinding "b1/a" of ClusterRole "reader" to ServiceAccount "sa/a""#
    );
    assert!(ask(&policy, &account, "get pods in b").is_err());
    assert!(ask(&policy, &account, "get pods").is_err());
    assert!(ask(&policy, &account, "get pods/log in a").is_err());
    assert!(ask(&policy, &account, "get deployments/scale in a").is_ok());
    let jo = UserInfo::new("jo", &[]);
    assert!(ask(&policy, &jo, "get secrets=x in a").is_ok());
    assert!(ask(&policy, &jo, "get secrets=y in a").is_err() && ask(&policy, &jo, "list secrets in a").is_err());
    assert!(ask(&policy, &UserInfo::new("mo", &["staff"]), "list pods in anywhere").is_ok());
    let lost = ask(&policy, &UserInfo::new("lost", &[]), "get pods").unwrap_err();
    assert_eq!(lost, [r#"clusterrole.rbac.authorization.k8s.io "absent" not found"#]);
    policy.set(Kind::RoleBinding, "a", "b2", None);
    assert!(ask(&policy, &jo, "get secrets=x in a").is_err());
}

#[test]
fn a_resource_is_matched_as_it_is_written() {
    for (entry, resource, subresource, expected) in [
        ("*", "pods", "log", true),
        ("pods", "pods", "", true),
        ("pods", "pods", "log", false),
        ("pods/log", "pods", "log", true),
        ("*/log", "pods", "log", true),
        ("*/log", "pods", "", false),
        ("pods/log", "pods", "", false),
        // As some operators ask whether they may.
        ("pods/log", "pods/log", "", true),
        ("*/log", "pods/log", "", false),
    ] {
        assert_eq!(rules::covers_resource(entry, resource, subresource), expected, "{entry} of {resource} {subresource}");
    }
}

#[test]
fn the_bootstrap_policy_gives_the_public_and_the_components_what_upstream_gives() {
    let mut policy = Policy::default();
    for object in bootstrap::policy() {
        let kind = Kind::ALL.into_iter().find(|k| k.plural() == format!("{}s", api::meta::kind(object).to_lowercase()));
        policy.set(kind.unwrap(), api::meta::namespace(object), api::meta::name(object), Some(object));
    }
    let anonymous = UserInfo::anonymous();
    for path in ["/livez", "/readyz", "/healthz", "/version"] {
        assert!(ask(&policy, &anonymous, &format!("get {path}")).is_ok(), "{path}");
    }
    for question in ["get /api", "get /metrics", "list pods in default", "get /livez/etcd"] {
        assert!(ask(&policy, &anonymous, question).is_err(), "{question}");
    }
    let user = UserInfo::new("jo", &["system:authenticated"]);
    assert!(ask(&policy, &user, "get /openapi/v3").is_ok());
    assert!(ask(&policy, &user, "create selfsubjectaccessreviews.authorization.k8s.io").is_ok());
    let scheduler = UserInfo::new("system:kube-scheduler", &["system:authenticated"]);
    assert!(ask(&policy, &scheduler, "create pods/binding in a").is_ok());
    assert!(ask(&policy, &scheduler, "delete nodes").is_err());
    let admin = UserInfo::new("x", &["system:masters"]);
    assert!(ask(&policy, &admin, "delete nodes").is_ok() && ask(&policy, &admin, "get /metrics").is_ok());
}

#[test]
fn nobody_covers_more_than_he_has() {
    let parse = |text: &str| rules::parse(role(text).array_at(&["rules"]));
    let held = parse(
        r#"[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]},{"verbs":["*"],"apiGroups":["apps"],"resources":["*/scale"]},
            {"verbs":["get"],"nonResourceURLs":["/logs/*"]}]"#,
    );
    let missing = |text: &str| {
        let pieces = rules::compact(rules::uncovered(&held, &parse(text)));
        pieces.iter().map(rules::describe).collect::<Vec<_>>()
    };
    assert!(missing(r#"[{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}]"#).is_empty());
    assert!(missing(r#"[{"verbs":["patch"],"apiGroups":["apps"],"resources":["deployments/scale"]}]"#).is_empty());
    assert!(missing(r#"[{"verbs":["get"],"nonResourceURLs":["/logs/a"]}]"#).is_empty());
    assert_eq!(
        missing(r#"[{"verbs":["get","delete","create"],"apiGroups":[""],"resources":["pods"]},{"verbs":["get"],"nonResourceURLs":["/"]}]"#),
        [r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "create"]}"#, r#"{NonResourceURLs:["/"], Verbs:["get"]}"#]
    );
    assert_eq!(rules::uncovered(&[], &[PolicyRule::default()]), []);
}
