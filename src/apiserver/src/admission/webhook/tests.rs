use std::sync::atomic::{AtomicUsize, Ordering};

use api::registry::Registry;

use super::hook::ReviewVersion;
use super::*;
use crate::auth::UserInfo;
use crate::outbound::connections::tests;

fn tree(json: &str) -> Tree {
    Tree::from_json(json.as_bytes()).unwrap()
}

fn hooks(hook: &str) -> Vec<Arc<Hook>> {
    hook::compile(&tree(&format!(r#"{{"metadata":{{"name":"c"}},"webhooks":[{hook}]}}"#)))
}

fn request(plural: &str, operation: Operation, object: &str) -> Request {
    Request {
        user: std::sync::Arc::new(UserInfo::new("me", &["us"])),
        operation,
        resource: Registry::get().resource("", "v1", plural).unwrap().into(),
        subresource: "",
        namespace: "n".to_owned(),
        name: "x".to_owned(),
        object: tree(object),
        old: None,
        dry_run: false,
        warnings: Vec::new(),
    }
}

const HOOK: &str = r#"{"name":"a.b.c","sideEffects":"None","admissionReviewVersions":["v2","v1"],"namespaceSelector":{},"objectSelector":{},
    "clientConfig":{"service":{"name":"s","namespace":"m","port":8443,"path":"/p"}},"timeoutSeconds":3,
    "rules":[{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["pods","pods/status"],"scope":"Namespaced"}]}"#;

async fn cache() -> (crate::cache::Cache, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn store::Store> = Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
    (crate::cache::Cache::start(&store).await.unwrap(), folder)
}

#[tokio::test]
async fn rules_and_selectors_decide_who_is_asked() {
    let (cache, _folder) = cache().await;
    let asks = |hook: &str, request: &Request| matching::invocation(&cache, &hooks(hook)[0].criteria, request).unwrap().is_some();
    let pod = request("pods", Operation::Create, r#"{"metadata":{"name":"x","labels":{"a":"1"}}}"#);
    assert!(asks(HOOK, &pod));
    assert!(!asks(HOOK, &request("pods", Operation::Update, "{}")));
    assert!(!asks(HOOK, &request("secrets", Operation::Create, "{}")));
    assert!(asks(&HOOK.replace(r#""pods","#, r#""*","#), &request("secrets", Operation::Create, "{}")));
    assert!(asks(&HOOK.replace(r#""objectSelector":{}"#, r#""objectSelector":{"matchLabels":{"a":"1"}}"#), &pod));
    assert!(!asks(&HOOK.replace(r#""objectSelector":{}"#, r#""objectSelector":{"matchLabels":{"a":"2"}}"#), &pod));
    assert!(!asks(&HOOK.replace("Namespaced", "Cluster"), &pod));
    let mut status = request("pods", Operation::Create, "{}");
    status.subresource = "log";
    assert!(!asks(HOOK, &status));
    // A namespace that is not there is nobody's to choose.
    let hook = HOOK.replace(r#""namespaceSelector":{}"#, r#""namespaceSelector":{"matchLabels":{"a":"1"}}"#);
    let found = matching::invocation(&cache, &hooks(&hook)[0].criteria, &pod).map(|i| i.is_some());
    assert_eq!(found.unwrap_err().message, "namespaces \"n\" not found");
}

#[tokio::test]
async fn a_review_tells_all_and_its_answer_is_checked() {
    let (cache, _folder) = cache().await;
    let pod = request("pods", Operation::Create, r#"{"metadata":{"name":"x"}}"#);
    let hook = &hooks(HOOK)[0];
    assert_eq!((hook.to.origin.as_str(), hook.to.path.as_str(), hook.review_version), ("https://s.m.svc:8443", "/p", Some(ReviewVersion::V1)));
    let invocation = matching::invocation(&cache, &hook.criteria, &pod).unwrap().unwrap();
    let shown = invocation.shown(&cache, &pod.object).await.unwrap().into_owned();
    let review = review::write(ReviewVersion::V1, "u", &invocation, &pod, (shown, Tree::Null));
    let asked = review.get("request").unwrap();
    assert_eq!((asked.str_at(&["operation"]), asked.str_at(&["kind", "kind"]), asked.str_at(&["namespace"])), ("CREATE", "Pod", "n"));
    assert_eq!((asked.str_at(&["object", "kind"]), asked.str_at(&["userInfo", "username"])), ("Pod", "me"));
    let read = |is_mutating, response: &str| {
        let answer = format!(r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{response}}}"#);
        review::read("a.b.c", ReviewVersion::V1, "u", is_mutating, answer.as_bytes())
    };
    assert_eq!(
        read(false, r#"{"uid":"u","allowed":true,"warnings":["w"]}"#),
        Ok(Verdict::Allowed(Reply { patch: None, warnings: vec!["w".into()] }))
    );
    assert_eq!(read(false, r#"{"uid":"v","allowed":true}"#), Err("expected response.uid=\"u\", got \"v\"".into()));
    assert_eq!(read(false, "null"), Err("webhook response was absent".into()));
    assert!(
        read(false, r#"{"uid":"u","allowed":true,"patch":"W10=","patchType":"JSONPatch"}"#)
            .unwrap_err()
            .contains("may not return response.patch")
    );
    assert!(read(true, r#"{"uid":"u","allowed":true,"patch":"W10="}"#).unwrap_err().contains("but not response.patchType"));
    let denied = read(true, r#"{"uid":"u","allowed":false,"status":{"message":"no","code":403,"reason":"Forbidden"}}"#);
    let Ok(Verdict::Denied(refusal)) = denied else { panic!("{denied:?}") };
    let status = denial("a.b.c", refusal);
    assert_eq!(
        (status.code, status.reason, status.message.as_str()),
        (403, "Forbidden", "admission webhook \"a.b.c\" denied the request: no")
    );
    let silent = denial("a.b.c", Refusal::default());
    assert_eq!((silent.code, silent.message.as_str()), (400, "admission webhook \"a.b.c\" denied the request without explanation"));
}

#[tokio::test]
async fn a_patch_is_typed_pruned_and_defaulted() {
    let (cache, _folder) = cache().await;
    let mut pod = request("pods", Operation::Create, r#"{"metadata":{"name":"x"},"spec":{"containers":[{"name":"a","image":"b"}]}}"#);
    let hook = &hooks(HOOK)[0];
    let invocation = matching::invocation(&cache, &hook.criteria, &pod).unwrap().unwrap();
    let patch = tree(r#"[{"op":"add","path":"/spec/initContainers","value":[{"name":"i","image":"b","bogus":1}]}]"#);
    assert!(apply(&cache, hook, &invocation, &mut pod, &patch).await.unwrap());
    let added = &pod.object.array_at(&["spec", "initContainers"])[0];
    assert_eq!((added.str_at(&["terminationMessagePolicy"]), added.get("bogus")), ("File", None));
    assert!(apply(&cache, hook, &invocation, &mut pod, &tree(r#"[{"op":"add","path":"/spec","value":1}]"#)).await.is_err());
    pod.object = Tree::Null;
    let refused = apply(&cache, hook, &invocation, &mut pod, &patch).await.unwrap_err();
    assert!(refused.message.contains("which is not supported for this operation"), "{}", refused.message);
}

#[tokio::test]
async fn who_cannot_be_called_fails_the_request_or_is_ignored() {
    let (cache, _folder) = cache().await;
    let hook = hooks(HOOK);
    let error = outbound::post(&cache, &hook[0].to, hook[0].timeout, Vec::new()).await.unwrap_err();
    assert_eq!(error, "Post \"https://s.m.svc:8443/p?timeout=3s\": service \"s\" not found");
    let failed = || Outcome::Failed(format!("failed to call webhook: {error}"));
    let status = decided(&hook[0], failed()).err().unwrap();
    assert_eq!((status.code, status.reason), (500, "InternalError"));
    assert!(status.message.starts_with("Internal error occurred: failed calling webhook \"a.b.c\": failed to call webhook: Post "));
    let ignoring = hooks(&HOOK.replace(r#""name":"a.b.c","#, r#""name":"a.b.c","failurePolicy":"Ignore","#));
    assert!(decided(&ignoring[0], failed()).is_ok_and(|reply| reply.is_none()));
}

/// A webhook server on this machine; each path is an answer.
struct Server {
    port: u16,
    ca: String,
    /// Connections to it.
    made: Arc<AtomicUsize>,
    there: Option<tests::Server>,
}

impl Server {
    async fn start() -> Self {
        let there = tests::Server::start(answer).await;
        Self { port: there.port, ca: there.authority.clone(), made: there.made.clone(), there: Some(there) }
    }

    /// One that only looks like it.
    fn alias(&self, port: u16, ca: &str) -> Self {
        Self { port, ca: ca.to_owned(), made: self.made.clone(), there: None }
    }

    fn hook(&self, path: &str, more: &str) -> String {
        use base64::Engine as _;
        let bundle = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        format!(
            r#"{{"name":"{path}.b.c","sideEffects":"None","admissionReviewVersions":["v1"],"namespaceSelector":{{}},"objectSelector":{{}},"timeoutSeconds":1,
            "clientConfig":{{"url":"https://127.0.0.1:{}/{path}","caBundle":"{bundle}"}},{more}
            "rules":[{{"operations":["*"],"apiGroups":["*"],"apiVersions":["*"],"resources":["*"]}}]}}"#,
            self.port
        )
    }
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<http_body_util::Full<bytes::Bytes>>, std::convert::Infallible> {
    use base64::Engine as _;
    use http_body_util::BodyExt as _;
    let path = request.uri().path().to_owned();
    let asked = Tree::from_json(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let uid = asked.str_at(&["request", "uid"]).to_owned();
    let data = asked.at(&["request", "object", "data"]).cloned().unwrap_or_default();
    let patch = |key: &str| {
        let patch = format!(r#"[{{"op":"add","path":"/data/{key}","value":"yes"}}]"#);
        format!(r#""allowed":true,"patchType":"JSONPatch","patch":"{}""#, base64::engine::general_purpose::STANDARD.encode(patch))
    };
    let verdict = match path.as_str() {
        "/slow" => {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            String::new()
        }
        "/deny" => r#""allowed":false,"status":{"message":"not today","code":403}"#.to_owned(),
        "/broken" => return Ok(http::Response::builder().status(500).body("oh".into()).unwrap()),
        // The first asks for what only the second adds.
        "/first" if data.get("second").is_some() => patch("again"),
        "/first" => patch("first"),
        "/second" => patch("second"),
        _ => r#""allowed":true,"warnings":["mind the gap"]"#.to_owned(),
    };
    let body = format!(r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{{"uid":"{uid}",{verdict}}}}}"#);
    Ok(http::Response::new(body.into()))
}

fn table(plural: &str, hooks: &[String]) -> Compiled {
    [(plural.to_owned(), super::hook::compile(&tree(&format!(r#"{{"metadata":{{"name":"c"}},"webhooks":[{}]}}"#, hooks.join(",")))))].into()
}

async fn webhooks(mutating: &[String], validating: &[String]) -> (Webhooks, tempfile::TempDir) {
    let (cache, folder) = cache().await;
    let of = |hooks: &[String]| Table(Arc::new(Mutex::new(table("c", hooks))));
    (Webhooks { mutating: of(mutating), validating: of(validating), authorization: Arc::new(Authorization::new(&cache)), times: Arc::default(), cache }, folder)
}

#[tokio::test]
async fn webhooks_allow_deny_warn_and_fail_as_told() {
    let server = Server::start().await;
    let map = || request("configmaps", Operation::Create, r#"{"metadata":{"name":"x"},"data":{}}"#);
    let ask = async |hook: String| {
        let (webhooks, _folder) = webhooks(&[], &[hook]).await;
        let mut map = map();
        webhooks.validate(&mut map).await.map(|()| map.warnings)
    };
    assert_eq!(ask(server.hook("allow", "")).await, Ok(vec!["mind the gap".to_owned()]));
    let denied = ask(server.hook("deny", "")).await.unwrap_err();
    assert_eq!((denied.code, denied.message.as_str()), (403, "admission webhook \"deny.b.c\" denied the request: not today"));
    let slow = ask(server.hook("slow", "")).await.unwrap_err();
    assert!(slow.code == 500 && slow.message.ends_with("/slow?timeout=1s\": context deadline exceeded"), "{}", slow.message);
    assert_eq!(ask(server.hook("slow", r#""failurePolicy":"Ignore","#)).await, Ok(Vec::new()));
    let broken = ask(server.hook("broken", "")).await.unwrap_err();
    assert!(broken.message.contains("an error on the server (\"oh\") has prevented the request from succeeding"), "{}", broken.message);
    let stranger = server.alias(server.port, &Server::start().await.ca);
    let unknown = ask(stranger.hook("allow", "")).await.unwrap_err();
    assert!(unknown.message.contains("tls: "), "{}", unknown.message);
    // Nobody listens, and yet the server's own start goes on.
    let nowhere = server.alias(1, &server.ca);
    let error = ask(nowhere.hook("allow", "")).await.unwrap_err();
    assert!(error.message.ends_with("dial tcp 127.0.0.1:1: connect: connection refused"), "{}", error.message);
    let (closed, _folder) = webhooks(&[], &[nowhere.hook("allow", "")]).await;
    let own = std::sync::Arc::new(UserInfo::new("system:apiserver", &["system:masters"]));
    assert!(closed.validate(&mut Request { user: own, ..map() }).await.is_ok());
    let (webhooks, _folder) = webhooks(&[], &[server.hook("allow", "").replace("\"None\"", "\"Some\"")]).await;
    let refused = webhooks.validate(&mut Request { dry_run: true, ..map() }).await.unwrap_err();
    assert_eq!((refused.code, refused.message.as_str()), (400, "admission webhook \"allow.b.c\" does not support dry run"));
}

#[tokio::test]
async fn a_later_mutation_lets_an_earlier_webhook_look_again() {
    let server = Server::start().await;
    let run = async |policy: &str| {
        let first = server.hook("first", &format!(r#""reinvocationPolicy":"{policy}","#));
        let (webhooks, _folder) = webhooks(&[first, server.hook("second", "")], &[]).await;
        let mut map = request("configmaps", Operation::Create, r#"{"metadata":{"name":"x"},"data":{}}"#);
        let mut rounds = Reinvocation::default();
        webhooks.mutate(&mut map, &mut rounds).await.unwrap();
        if rounds.begin_again() {
            webhooks.mutate(&mut map, &mut rounds).await.unwrap();
        }
        let keys = map.object.get("data").and_then(Tree::as_object).unwrap().iter().map(|(k, _)| k.to_owned()).collect::<Vec<_>>();
        keys.join(",")
    };
    assert_eq!(run("Never").await, "first,second");
    assert_eq!(run("IfNeeded").await, "again,first,second");
}

#[tokio::test]
async fn conditions_say_who_is_asked_after_all() {
    let server = Server::start().await;
    let ask = async |condition: &str, more: &str| {
        let conditions = format!(r#"{more}"matchConditions":[{{"name":"c","expression":"{condition}"}}],"#);
        let (webhooks, _folder) = webhooks(&[], &[server.hook("deny", &conditions)]).await;
        let mut map = request("configmaps", Operation::Create, r#"{"metadata":{"name":"x"},"data":{"a":"1"}}"#);
        webhooks.validate(&mut map).await.map_err(|status| status.message)
    };
    assert_eq!(ask("object.data.a == '2'", "").await, Ok(()));
    let denied = "admission webhook \"deny.b.c\" denied the request: not today";
    assert_eq!(ask("object.data.a == '1' && request.userInfo.username == 'me'", "").await, Err(denied.to_owned()));
    let may = "authorizer.group('').resource('secrets').namespace('n').check('get').allowed()";
    assert_eq!(ask(may, "").await, Ok(()));
    let failed = ask("object.data.b == '1'", "").await.unwrap_err();
    let text = "configmaps \"x\" is forbidden: expression 'object.data.b == '1'' resulted in error: no such key: b";
    assert_eq!(failed, text);
    assert_eq!(ask("object.data.b == '1'", r#""failurePolicy":"Ignore","#).await, Ok(()));
}

#[tokio::test]
async fn calls_share_connections_until_the_configuration_changes() {
    let server = Server::start().await;
    let (webhooks, _folder) = webhooks(&[server.hook("second", "")], &[server.hook("allow", "")]).await;
    let ask = async || {
        let mut map = request("configmaps", Operation::Create, r#"{"metadata":{"name":"x"},"data":{}}"#);
        webhooks.mutate(&mut map, &mut Reinvocation::default()).await.unwrap();
        webhooks.validate(&mut map).await
    };
    for _ in 0..5 {
        ask().await.unwrap();
    }
    // One for each webhook.
    assert_eq!(server.made.load(Ordering::SeqCst), 2);
    let there = server.there.as_ref().unwrap();
    there.open_are(2).await;
    // Who is no longer trusted is not asked over what was made before.
    let set = |hook: String| *webhooks.validating.0.lock().unwrap() = table("c", &[hook]);
    set(server.alias(server.port, &Server::start().await.ca).hook("allow", ""));
    there.open_are(1).await;
    let error = ask().await.unwrap_err();
    assert!(error.message.contains("tls: "), "{}", error.message);
    set(server.hook("allow", ""));
    ask().await.unwrap();
    assert_eq!(server.made.load(Ordering::SeqCst), 3);
    let other = Server::start().await;
    set(other.hook("deny", ""));
    assert_eq!(ask().await.unwrap_err().code, 403);
    assert_eq!((server.made.load(Ordering::SeqCst), other.made.load(Ordering::SeqCst)), (3, 1));
}
