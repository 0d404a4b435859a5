//! Webhooks over TLS, that answer what a test wants.
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::*;
use crate::auth::config::AuthorizationConfiguration;
use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, Authorization, Authorizer, Decision, UserInfo, Verdict};
use crate::tests::https::Https;

pub(crate) struct Hook {
    folder: tempfile::TempDir,
    pub kubeconfig: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    asked: AtomicUsize,
    last: Mutex<Value>,
    /// Code and status.
    answers: Mutex<(u16, Value)>,
    bearer: Mutex<String>,
}

impl Hook {
    pub async fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let state = shared.clone();
        let https = Https::start("localhost", move |request| {
            let state = state.clone();
            async move {
                state.asked.fetch_add(1, Ordering::SeqCst);
                *state.bearer.lock().unwrap() =
                    request.headers().get("authorization").map_or(String::new(), |v| v.to_str().unwrap().to_owned());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let asked: Value = serde_json::from_slice(&body).unwrap();
                let (code, status) = state.answers.lock().unwrap().clone();
                let answer = json!({"kind": asked["kind"], "apiVersion": asked["apiVersion"], "status": status});
                *state.last.lock().unwrap() = asked;
                Response::builder().status(code).body(Body::from(answer.to_string())).unwrap()
            }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(folder.path().join("token"), "fresh\n").unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: h, user: u}}}}]\nclusters: [{{name: h, cluster: {{server: 'https://localhost:{}/review', certificate-authority-data: {}}}}}]\nusers: [{{name: u, user: {{tokenFile: token}}}}]\n",
            https.port, https.bundle
        );
        std::fs::write(&kubeconfig, text).unwrap();
        Self { folder, kubeconfig, shared }
    }

    pub fn answer(&self, code: u16, status: Value) {
        *self.shared.answers.lock().unwrap() = (code, status);
    }

    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    pub fn last(&self) -> Value {
        self.shared.last.lock().unwrap().clone()
    }

    fn text(&self, more: &str, after: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- type: Webhook\n  name: hook\n  webhook:\n    timeout: 3s\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n{more}{after}",
            self.kubeconfig.display()
        )
    }
}

const OWN: &str = "- {type: Node, name: node}\n- {type: RBAC, name: rbac}\n";

async fn authorization(text: &str) -> (tempfile::TempDir, Authorization) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn store::Store> = Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
    let cache = crate::Cache::start(&store).await.unwrap();
    let authorization = Authorization::new(&cache);
    authorization.configure(AuthorizationConfiguration::parse(text).unwrap()).unwrap();
    (folder, authorization)
}

fn reads<'a>(user: &'a UserInfo, name: &'a str) -> Attributes<'a> {
    Attributes {
        user,
        verb: "get",
        api_group: "",
        api_version: "v1",
        resource: "pods",
        subresource: "",
        namespace: "default",
        name,
        resource_request: true,
        path: "",
        fields: &ALL_FIELDS,
        labels: &ALL_LABELS,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_decides_in_its_turn_and_its_answers_are_kept() {
    let hook = Hook::start().await;
    hook.answer(200, json!({"allowed": true, "reason": "says so"}));
    let (_folder, authorization) = authorization(&hook.text("    failurePolicy: Deny\n", OWN)).await;
    let jane = UserInfo { uid: "7".into(), extra: [("a".to_owned(), vec!["b".to_owned()])].into(), ..UserInfo::new("jane", &["dev"]) };
    assert_eq!(authorization.decide(&reads(&jane, "p")).await, Decision::allow("says so"));
    let expected = json!({"resourceAttributes": {"namespace": "default", "verb": "get", "version": "v1", "resource": "pods", "name": "p"},
        "user": "jane", "groups": ["dev"], "extra": {"a": ["b"]}, "uid": "7"});
    assert_eq!((&hook.last()["spec"], &hook.last()["apiVersion"]), (&expected, &json!("authorization.k8s.io/v1")));
    assert_eq!(*hook.shared.bearer.lock().unwrap(), "Bearer fresh");
    hook.answer(200, json!({"allowed": false, "denied": true, "reason": "not you"}));
    assert!(authorization.decide(&reads(&jane, "p")).await.allowed(), "kept for five minutes");
    assert_eq!(hook.asked(), 1);
    assert_eq!(authorization.decide(&reads(&jane, "q")).await, Decision::deny("not you"));
    hook.answer(200, json!({"allowed": false}));
    assert_eq!(authorization.decide(&reads(&jane, "r")).await.verdict, Verdict::NoOpinion);
    // Those who cannot wait get the same.
    hook.answer(200, json!({"allowed": true}));
    assert!(authorization.authorize(&reads(&jane, "s")).allowed());
    let admin = UserInfo::new("admin", &["system:masters"]);
    let asked = hook.asked();
    assert!(authorization.decide(&reads(&admin, "p")).await.allowed());
    assert_eq!(hook.asked(), asked, "nobody is asked about the system's masters");
    assert!(authorization.rules_for(&jane, "default").incomplete);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_to_fields_and_labels_are_told_and_conditions_choose() {
    let hook = Hook::start().await;
    hook.answer(200, json!({"allowed": true}));
    let conditions = "    failurePolicy: NoOpinion\n    matchConditions:\n    - expression: has(request.resourceAttributes)\n    - expression: \"request.resourceAttributes.namespace == 'default'\"\n    - expression: \"!('system:serviceaccounts' in request.groups)\"\n    - expression: \"!has(request.resourceAttributes.fieldSelector) || request.resourceAttributes.fieldSelector.requirements.exists(r, r.key == 'spec.nodeName' && r.values == ['n'])\"\n";
    let (_folder, authorization) = authorization(&hook.text(conditions, OWN)).await;
    let jane = UserInfo::new("jane", &[]);
    let fields = api::selector::FieldSelector::parse("spec.nodeName=n,metadata.name!=x").unwrap();
    let labels = api::selector::LabelSelector::parse("a=b,c in (d,e),!f,g").unwrap();
    let list = Attributes { verb: "list", fields: &fields, labels: &labels, ..reads(&jane, "") };
    assert!(authorization.decide(&list).await.allowed());
    let resource = &hook.last()["spec"]["resourceAttributes"];
    assert_eq!(
        resource["fieldSelector"]["requirements"],
        json!([{"key": "metadata.name", "operator": "NotIn", "values": ["x"]}, {"key": "spec.nodeName", "operator": "In", "values": ["n"]}])
    );
    assert_eq!(resource["labelSelector"]["requirements"].as_array().unwrap().len(), 4);
    let asked = hook.asked();
    let others = api::selector::FieldSelector::parse("spec.nodeName=m").unwrap();
    for excluded in [
        Attributes { namespace: "kube-system", ..reads(&jane, "p") },
        Attributes { fields: &others, ..list.clone() },
        Attributes { resource_request: false, path: "/x", ..reads(&jane, "") },
    ] {
        assert_eq!(authorization.decide(&excluded).await.verdict, Verdict::NoOpinion);
    }
    assert_eq!(hook.asked(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_does_what_its_policy_says() {
    let hook = Hook::start().await;
    hook.answer(403, json!({}));
    let jane = UserInfo::new("jane", &[]);
    let (_folder, open) = authorization(&hook.text("    failurePolicy: NoOpinion\n", "- {type: AlwaysAllow, name: alwaysallow}\n")).await;
    assert!(open.decide(&reads(&jane, "p")).await.allowed(), "the next one is asked");
    let (_folder, closed) = authorization(&hook.text("    failurePolicy: Deny\n", "- {type: AlwaysAllow, name: alwaysallow}\n")).await;
    let refused = closed.decide(&reads(&jane, "p")).await;
    assert_eq!(refused.verdict, Verdict::Deny);
    assert!(!refused.failure.is_empty());
    // What may pass is tried again, and is no answer to keep.
    let asked = hook.asked();
    hook.answer(500, json!({}));
    let healed = async {
        while hook.asked() < asked + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        hook.answer(200, json!({"allowed": true}));
    };
    let question = reads(&jane, "q");
    let (decision, ()) = tokio::join!(closed.decide(&question), healed);
    assert!(decision.allowed());
    assert!(metrics_page().contains("apiserver_authorization_webhook_evaluations_total{name=\"hook\",result=\"error\"}"));
    hook.answer(200, json!({"allowed": true, "denied": true}));
    assert_eq!(closed.decide(&reads(&jane, "r")).await.verdict, Verdict::Deny);
}

#[tokio::test]
async fn a_changed_order_holds_at_once_and_a_bad_one_never() {
    let hook = Hook::start().await;
    hook.answer(200, json!({"allowed": true}));
    let text = hook.text("    failurePolicy: Deny\n    cacheAuthorizedRequests: false\n", OWN);
    let (folder, authorization) = authorization(&text).await;
    let path = folder.path().join("authorization.yaml");
    std::fs::write(&path, &text).unwrap();
    let (authorization, counts) = (Arc::new(authorization), Arc::new(crate::follow::ReloadCounts::new("authorization", &text)));
    let shutdown = tokio_util::sync::CancellationToken::new();
    let follower = tokio::spawn({
        let (authorization, counts, path, shutdown, text) =
            (authorization.clone(), counts.clone(), path.clone(), shutdown.clone(), text.clone());
        async move { authorization.follow(&path, text, &counts, shutdown).await }
    });
    let jane = UserInfo::new("jane", &[]);
    let until = async |expected: &str| {
        let waited = tokio::time::timeout(Duration::from_secs(90), async {
            while !counts.page().contains(expected) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{expected}: {}", counts.page()));
    };
    tokio::time::sleep(Duration::from_millis(50)).await; // the follower begins to watch
    for (i, bad) in
        [text.replace("- {type: RBAC, name: rbac}\n", ""), text.replace("Deny", "Perhaps"), "a: b".to_owned()].iter().enumerate()
    {
        std::fs::write(&path, bad).unwrap();
        until(&format!("status=\"failure\"}} {}\n", i + 1)).await;
        assert!(authorization.decide(&reads(&jane, "p")).await.allowed());
    }
    std::fs::write(&path, format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n{OWN}"))
        .unwrap();
    until("status=\"success\"} 1\n").await;
    assert_eq!(authorization.decide(&reads(&jane, "p")).await.verdict, Verdict::NoOpinion);
    shutdown.cancel();
    follower.await.unwrap();
    drop(hook.folder);
}

#[tokio::test]
async fn tokens_are_judged_for_their_audience_and_asked_about_once() {
    let hook = Hook::start().await;
    let own = ["https://cluster".to_owned()];
    let webhook = Arc::new(TokenWebhook::load(&hook.kubeconfig, "v1", Duration::from_secs(120)).unwrap());
    let jane = json!({"authenticated": true, "user": {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"k": ["v"]}}});
    hook.answer(200, jane.clone());
    let many = (0..50).map(|_| {
        let (webhook, own) = (webhook.clone(), own.clone());
        tokio::spawn(async move { webhook.authenticate("t", &[], &own).await })
    });
    for judged in futures::future::join_all(many).await {
        let found = judged.unwrap().unwrap().unwrap();
        assert_eq!((found.user.name.as_str(), &found.user.extra["k"][..], &found.audiences[..]), ("jane", &["v".to_owned()][..], &own[..]));
    }
    assert_eq!(hook.asked(), 1);
    assert_eq!(hook.last()["spec"], json!({"token": "t", "audiences": ["https://cluster"]}));
    // Good for the cluster is not good for another.
    let other = ["vault".to_owned()];
    assert_eq!(webhook.authenticate("t", &other, &own).await.unwrap().map(|found| found.user), None);
    let mut elsewhere = jane.clone();
    elsewhere["audiences"] = json!(["vault"]);
    hook.answer(200, elsewhere);
    assert!(webhook.authenticate("t2", &other, &own).await.unwrap().is_some());
    assert!(webhook.authenticate("t3", &[], &own).await.unwrap().is_none(), "replayed here, it opens nothing");
    hook.answer(200, json!({"authenticated": false}));
    assert!(webhook.authenticate("t4", &[], &own).await.unwrap().is_none());
    let asked = hook.asked();
    assert!(webhook.authenticate("t4", &[], &own).await.unwrap().is_none());
    assert_eq!(hook.asked(), asked, "who is not believed is kept too");
    hook.answer(200, json!({"authenticated": false, "error": "revoked"}));
    assert_eq!(webhook.authenticate("t5", &[], &own).await.map(|_| ()), Err("revoked".into()));
    hook.answer(200, jane);
    assert!(webhook.authenticate("t5", &[], &own).await.unwrap().is_some(), "errors are not kept");
    hook.answer(404, json!({}));
    assert!(webhook.authenticate("t6", &[], &own).await.is_err());
}

#[test]
fn kubeconfigs_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let check = |text: &str, expected: &str| {
        std::fs::write(&path, text).unwrap();
        let error = Endpoint::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("a: [", "kubeconfig ");
    check("kind: Config", "context \"\" does not exist");
    let with = |cluster: &str, user: &str| {
        format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: h, user: u}}}}]\nclusters: [{{name: h, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        )
    };
    check(&with("server: 'http://x'", ""), "is no https URL");
    check(&with("server: 'https://x', insecure-skip-tls-verify: true", ""), "not supported");
    check(&with("server: 'https://x'", "exec: {command: x}"), "users[].user.exec is not supported");
    check(&with("server: 'https://x'", "client-key-data: YQ=="), "go together");
    check(&with("server: 'https://x', certificate-authority: nowhere", ""), "read ");
}
