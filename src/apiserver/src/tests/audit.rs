//! What a request leaves in the audit log.
use super::*;
use crate::admission::Plugins;
use crate::audit::{Audit, Options, Rotation};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  verbs: [list]
- level: Metadata
  resources: [{group: '', resources: [secrets]}]
- level: RequestResponse
  omitStages: [RequestReceived]
";

/// A server that records as `policy` says, and reads what it recorded.
struct Recorded {
    fixture: Fixture,
    log: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Recorded {
    async fn new(policy: &str, admission: impl FnOnce(&Cache) -> Arc<dyn crate::Admission>) -> Self {
        let f = fixture().await;
        let folder = tempfile::tempdir().unwrap();
        let (path, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
        std::fs::write(&path, policy).unwrap();
        let audit = Audit::load(&Options { policy: path, log: Some(log.clone()), rotation: Rotation::default(), webhook: None }).unwrap();
        let admission = admission(&f.server.0.parts.cache);
        let parts = Parts { audit: Some(Arc::new(audit)), admission, ..f.server.0.parts.clone() };
        let server = ApiServer::new(Config::default(), parts);
        let client = server.local(UserInfo::new("admin", &["system:masters"]));
        Self { fixture: Fixture { client, server, ..f }, log, _folder: folder }
    }

    fn events(&self) -> Vec<Tree> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines().map(|line| Tree::from_json(line.as_bytes()).unwrap()).collect()
    }

    /// The annotations of the last event, without those of authorization.
    fn annotations(&self) -> Vec<String> {
        let event = self.events().pop().unwrap();
        let all = event.get("annotations").and_then(Tree::as_object).into_iter().flat_map(|o| o.iter());
        let own = all.filter(|(key, _)| !key.starts_with("authorization.k8s.io/"));
        own.map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect()
    }
}

const EVERYTHING: &str = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: LEVEL}]}";

async fn admitted(level: &str) -> Recorded {
    Recorded::new(&EVERYTHING.replace("LEVEL", level), |cache| Arc::new(Plugins::new(cache, Arc::new(Authorization::new(cache))))).await
}

#[tokio::test]
async fn pod_security_tells_what_it_enforced_and_what_it_found() {
    let recorded = admitted("Metadata").await;
    let f = &recorded.fixture;
    f.post("/api/v1/namespaces", r#"{"metadata":{"name":"n","labels":{"pod-security.kubernetes.io/enforce":"baseline",
        "pod-security.kubernetes.io/audit":"restricted","pod-security.kubernetes.io/audit-version":"v1.30"}}}"#)
        .await
        .ok();
    assert_eq!(recorded.annotations(), [""; 0]);
    f.post("/api/v1/namespaces/n/serviceaccounts", r#"{"metadata":{"name":"default"}}"#).await.ok();
    let good = r#"{"allowPrivilegeEscalation":false,"runAsNonRoot":true,"capabilities":{"drop":["ALL"]},"seccompProfile":{"type":"RuntimeDefault"}}"#;
    for (security, code, found) in [
        (good, 201, vec!["enforce-policy=baseline:latest"]),
        (
            &good.replace("true", "false"),
            201,
            vec!["audit-violations=would violate PodSecurity \"restricted:v1.30\": runAsNonRoot != true", "enforce-policy=baseline:latest"],
        ),
        (
            r#"{"privileged":true}"#,
            403,
            vec!["audit-violations=would violate PodSecurity \"restricted:v1.30\": privileged", "enforce-policy=baseline:latest"],
        ),
    ] {
        let pod = format!(r#"{{"metadata":{{"generateName":"p-"}},"spec":{{"containers":[{{"name":"c","image":"i","securityContext":{security}}}]}}}}"#);
        assert_eq!(f.post("/api/v1/namespaces/n/pods", &pod).await.code, code);
        let annotations = recorded.annotations();
        assert_eq!(annotations.len(), found.len(), "{annotations:?}");
        for (annotation, found) in annotations.iter().zip(found) {
            assert!(annotation.starts_with(&format!("pod-security.kubernetes.io/{found}")), "{annotation}");
        }
    }
}

#[tokio::test]
async fn policies_tell_what_failed_and_what_they_were_told_to_say() {
    let recorded = admitted("Metadata").await;
    let f = &recorded.fixture;
    let api = "/apis/admissionregistration.k8s.io/v1";
    let policy = r#"{"metadata":{"name":"p.example.com"},"spec":{"matchConstraints":{"resourceRules":[{"operations":["CREATE"],"apiGroups":[""],
        "apiVersions":["v1"],"resources":["configmaps"]}]},
        "validations":[{"expression":"true"},{"expression":"object.data.k != '1'","message":"k is 1"}],
        "auditAnnotations":[{"key":"k","valueExpression":"'k is ' + object.data.k"},{"key":"none","valueExpression":"null"}]}}"#;
    f.post(&format!("{api}/validatingadmissionpolicies"), policy).await.ok();
    let binding = r#"{"metadata":{"name":"b"},"spec":{"policyName":"p.example.com","validationActions":["Audit"]}}"#;
    f.post(&format!("{api}/validatingadmissionpolicybindings"), binding).await.ok();
    f.post(MAPS, &config_map("a", "2")).await.ok();
    assert_eq!(recorded.annotations(), ["p.example.com/k=k is 2"]);
    f.post(MAPS, &config_map("b", "1")).await.ok();
    let failure = r#"[{"message":"k is 1","policy":"p.example.com","binding":"b","expressionIndex":1,"validationActions":["Audit"]}]"#;
    assert_eq!(recorded.annotations(), ["p.example.com/k=k is 1", &format!("validation.policy.admission.k8s.io/validation_failure={failure}")]);
}

#[tokio::test]
async fn webhooks_that_could_not_be_asked_are_noted_with_their_place() {
    let recorded = admitted("Metadata").await;
    let f = &recorded.fixture;
    let api = "/apis/admissionregistration.k8s.io/v1";
    let hook = |name: &str| {
        format!(
            r#"{{"name":"{name}.example.com","clientConfig":{{"url":"https://127.0.0.1:1/"}},"failurePolicy":"Ignore","sideEffects":"None",
            "admissionReviewVersions":["v1"],"rules":[{{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["configmaps"]}}]}}"#
        )
    };
    let both = format!(r#"{{"metadata":{{"name":"c"}},"webhooks":[{},{}]}}"#, hook("a").replace("configmaps", "secrets"), hook("b"));
    f.post(&format!("{api}/mutatingwebhookconfigurations"), &both).await.ok();
    f.post(&format!("{api}/validatingwebhookconfigurations"), &both).await.ok();
    f.post(MAPS, &config_map("a", "1")).await.ok();
    let expected = [
        "failed-open.mutation.webhook.admission.k8s.io/round_0_index_1=b.example.com",
        "failed-open.validating.webhook.admission.k8s.io/round_0_index_0=b.example.com",
        r#"mutation.webhook.admission.k8s.io/round_0_index_1={"configuration":"c","webhook":"b.example.com","mutated":false}"#,
    ];
    assert_eq!(recorded.annotations(), expected);
}

#[tokio::test]
async fn events_tell_who_did_what_and_what_came_of_it() {
    let recorded = Recorded::new(POLICY, |_| Arc::new(AdmitAll)).await;
    let f = &recorded.fixture;

    f.post(MAPS, &config_map("a", "1")).await.ok();
    f.get(MAPS).await.ok();
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf"), ("impersonate-user", "jane"), ("accept-encoding", "gzip")];
    assert_eq!(f.send_with("GET", &format!("{MAPS}/b"), &protobuf, "").await.code, 404);
    f.post("/api/v1/namespaces/default/secrets", r#"{"metadata":{"name":"s"},"stringData":{"k":"hidden"}}"#).await.ok();
    let mut watch = f.watch(&format!("{MAPS}?watch=1&resourceVersion=0")).await;
    watch.event().await;
    drop(watch);

    assert!(!std::fs::read_to_string(&recorded.log).unwrap().contains("hidden"));
    let events = recorded.events();
    let shown: Vec<String> = events
        .iter()
        .map(|e| {
            let code = e.at(&["responseStatus", "code"]).and_then(Tree::as_i64).unwrap_or(0);
            format!("{} {} {} {code}", e.str_at(&["stage"]), e.str_at(&["verb"]), e.str_at(&["objectRef", "name"]))
        })
        .collect();
    let expected = [
        "ResponseComplete create a 201",
        "ResponseComplete get b 404",
        "RequestReceived create  0",
        "ResponseComplete create s 201",
        "ResponseStarted watch  200",
        "ResponseComplete watch  200",
    ];
    assert_eq!(shown, expected);
    assert_eq!(events[0].str_at(&["requestObject", "data", "k"]), "1");
    assert_eq!(events[0].str_at(&["responseObject", "kind"]), "ConfigMap");
    assert_eq!(events[0].str_at(&["annotations", "authorization.k8s.io/decision"]), "allow");
    assert_eq!((events[1].str_at(&["user", "username"]), events[1].str_at(&["impersonatedUser", "username"])), ("admin", "jane"));
    assert_eq!((events[1].str_at(&["responseStatus", "reason"]), events[1].str_at(&["responseObject", "kind"])), ("NotFound", "Status"));
    assert_eq!(events[3].get("requestObject"), None);
}
