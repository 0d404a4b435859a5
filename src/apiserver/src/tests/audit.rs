//! What a request leaves in the audit log.
use super::*;
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

#[tokio::test]
async fn events_tell_who_did_what_and_what_came_of_it() {
    let f = fixture().await;
    let folder = tempfile::tempdir().unwrap();
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let audit = Audit::load(&Options { policy, log: Some(log.clone()), rotation: Rotation::default(), webhook: None }).unwrap();
    let server = ApiServer::new(Config::default(), Parts { audit: Some(Arc::new(audit)), ..f.server.0.parts.clone() });
    let f = Fixture { client: server.local(UserInfo::new("admin", &["system:masters"])), server, ..f };

    f.post(MAPS, &config_map("a", "1")).await.ok();
    f.get(MAPS).await.ok();
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf"), ("impersonate-user", "jane"), ("accept-encoding", "gzip")];
    assert_eq!(f.send_with("GET", &format!("{MAPS}/b"), &protobuf, "").await.code, 404);
    f.post("/api/v1/namespaces/default/secrets", r#"{"metadata":{"name":"s"},"stringData":{"k":"hidden"}}"#).await.ok();
    let mut watch = f.watch(&format!("{MAPS}?watch=1&resourceVersion=0")).await;
    watch.event().await;
    drop(watch);

    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("hidden"));
    let events: Vec<Tree> = text.lines().map(|line| Tree::from_json(line.as_bytes()).unwrap()).collect();
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
