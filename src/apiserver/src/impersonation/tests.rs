//! Who may act as whom, by lists of what is allowed.
use super::*;
use crate::auth::{Decision, UserRules};

/// Allows what stands in the list: `VERB RESOURCE[/SUB][ NAMESPACE/]NAME`.
struct Only(&'static [&'static str]);

impl Authorizer for Only {
    fn authorize(&self, a: &Attributes) -> Decision {
        let sub = if a.subresource.is_empty() { String::new() } else { format!("/{}", a.subresource) };
        let place = if a.namespace.is_empty() { String::new() } else { format!("{}:", a.namespace) };
        let asked = format!("{} {}{sub} {place}{}", a.verb, a.resource, a.name);
        if self.0.contains(&asked.trim_end()) { Decision::allow("") } else { Decision::no_opinion("") }
    }
    fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
        UserRules::default()
    }
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}

async fn check(allowed: &'static [&'static str], requestor: &UserInfo, list: &[(&'static str, &str)]) -> Result<Impersonated, String> {
    let mut headers = headers(list);
    let wanted = wanted(&mut headers).map_err(|status| status.message)?.unwrap();
    assert!(headers.is_empty(), "nobody further down learns of it");
    let request = Attributes {
        user: requestor,
        verb: "list",
        api_group: "",
        api_version: "v1",
        resource: "pods",
        subresource: "",
        namespace: "default",
        name: "",
        resource_request: true,
        path: "",
        fields: &ALL_FIELDS,
        labels: &ALL_LABELS,
    };
    authorize(&Only(allowed), &request, wanted).await.map_err(|status| status.message)
}

#[tokio::test]
async fn the_old_verb_allows_each_part_by_itself() {
    let sre = UserInfo::new("sre", &[]);
    let wanted = [(USER, "jane"), (UID, "7"), (GROUP, "dev"), (GROUP, "ops"), ("impersonate-extra-example.com%2fscope", "view")];
    let all = &[
        "impersonate users jane",
        "impersonate uids 7",
        "impersonate groups dev",
        "impersonate groups ops",
        "impersonate userextras/example.com/scope view",
    ];
    let found = check(all, &sre, &wanted).await.unwrap();
    assert_eq!(found.constraint, "");
    assert_eq!((found.user.name.as_str(), found.user.uid.as_str()), ("jane", "7"));
    assert_eq!(found.user.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(found.user.extra["example.com/scope"], ["view"]);
    for lacking in [
        &["impersonate uids 7", "impersonate groups dev", "impersonate groups ops", "impersonate userextras/example.com/scope view"][..],
        &["impersonate users jane", "impersonate groups dev", "impersonate groups ops", "impersonate userextras/example.com/scope view"],
        &["impersonate users jane", "impersonate uids 7", "impersonate groups dev", "impersonate userextras/example.com/scope view"],
        &["impersonate users jane", "impersonate uids 7", "impersonate groups dev", "impersonate groups ops"],
    ] {
        let error = check(lacking, &sre, &wanted).await.unwrap_err();
        assert!(
            error.contains(
                "User \"sre\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" in the namespace \"default\""
            ),
            "{error}"
        );
    }
}

#[tokio::test]
async fn constrained_modes_are_bound_to_what_is_done() {
    let sre = UserInfo::new("sre", &[]);
    let jane = [(USER, "jane"), (GROUP, "dev")];
    let allowed = &["impersonate-on:user-info:list pods default:", "impersonate:user-info users jane", "impersonate:user-info groups dev"];
    let found = check(allowed, &sre, &jane).await.unwrap();
    assert_eq!(
        (found.constraint.as_str(), &found.user.groups[..]),
        ("impersonate:user-info", &["dev".to_owned(), "system:authenticated".to_owned()][..])
    );
    let elsewhere = &["impersonate-on:user-info:get pods default:", "impersonate:user-info users jane", "impersonate:user-info groups dev"];
    assert!(check(elsewhere, &sre, &jane).await.is_err());
    let masters =
        &["impersonate-on:user-info:list pods default:", "impersonate:user-info users jane", "impersonate:user-info groups system:masters"];
    let error = check(masters, &sre, &[(USER, "jane"), (GROUP, "system:masters")]).await.unwrap_err();
    assert!(error.ends_with("impersonating the system:masters group is not allowed"), "{error}");
    let many = &["impersonate-on:user-info:list pods default:", "impersonate:user-info users jane", "impersonate:user-info groups *"];
    assert!(check(many, &sre, &[(USER, "jane"), (GROUP, "a"), (GROUP, "b"), (GROUP, "c"), (GROUP, "d")]).await.is_ok());
    let extra =
        &["impersonate-on:user-info:list pods default:", "impersonate:user-info users jane", "impersonate:user-info userextras/scope a"];
    let error = check(extra, &sre, &[(USER, "jane"), ("impersonate-extra-scope", "a")]).await.unwrap_err();
    assert!(error.contains("impersonating an invalid key in extra is not allowed"), "{error}");
}

#[tokio::test]
async fn accounts_and_nodes_have_modes_of_their_own() {
    let sre = UserInfo::new("sre", &[]);
    let account = [(USER, "system:serviceaccount:ns:sa")];
    let found =
        check(&["impersonate-on:serviceaccount:list pods default:", "impersonate:serviceaccount serviceaccounts ns:sa"], &sre, &account)
            .await
            .unwrap();
    assert_eq!(found.user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    assert!(check(&["impersonate serviceaccounts ns:sa"], &sre, &account).await.is_ok());
    assert!(
        check(&["impersonate-on:user-info:list pods default:", "impersonate:user-info serviceaccounts ns:sa"], &sre, &account)
            .await
            .is_err()
    );

    let node = [(USER, "system:node:n1")];
    let found =
        check(&["impersonate-on:arbitrary-node:list pods default:", "impersonate:arbitrary-node nodes n1"], &sre, &node).await.unwrap();
    assert_eq!(
        (found.constraint.as_str(), &found.user.groups[..]),
        ("impersonate:arbitrary-node", &["system:nodes".to_owned(), "system:authenticated".to_owned()][..])
    );
    let rights = &["impersonate-on:associated-node:list pods default:", "impersonate:associated-node nodes *"];
    let mut agent = UserInfo::new("system:serviceaccount:ns:agent", &[]);
    assert!(check(rights, &agent, &node).await.is_err(), "bound to no node");
    agent.extra.insert(NODE_NAME.into(), vec!["n2".into()]);
    assert!(check(rights, &agent, &node).await.is_err(), "bound to another");
    agent.extra.insert(NODE_NAME.into(), vec!["n1".into()]);
    assert_eq!(check(rights, &agent, &node).await.unwrap().constraint, "impersonate:associated-node");
    let person = UserInfo { name: "agent".into(), ..agent.clone() };
    assert!(check(rights, &person, &node).await.is_err(), "no account");
}

#[test]
fn somebody_must_be_named() {
    assert_eq!(wanted(&mut HeaderMap::new()).unwrap(), None);
    let refused = wanted(&mut headers(&[(GROUP, "dev")])).unwrap_err();
    let expected = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"dev\"}, Extra:map[string][]string(nil)} without impersonating a user name";
    assert_eq!((refused.code, refused.message.as_str()), (400, expected));
}
