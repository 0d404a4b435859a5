//! Discovery, health, reviews, and who may do what.
use super::*;

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let f = fixture().await;
    assert_eq!(f.get("/api").await.ok().array_at(&["versions"]), [Tree::from("v1")]);
    let core = f.get("/api/v1").await.ok();
    let pods = core.array_at(&["resources"]).iter().find(|r| r.str_at(&["name"]) == "pods").unwrap();
    assert_eq!((pods.str_at(&["kind"]), pods.array_at(&["shortNames"])[0].as_str()), ("Pod", Some("po")));
    assert!(core.array_at(&["resources"]).iter().any(|r| r.str_at(&["name"]) == "pods/exec"));
    assert_eq!(f.get("/apis/apps/").await.ok().str_at(&["preferredVersion", "groupVersion"]), "apps/v1");
    assert_eq!(f.get("/apis").await.ok().str_at(&["kind"]), "APIGroupList");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let all = f.send_with("GET", "/apis", &[("accept", accept)], "").await;
    assert_eq!(all.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let etag = all.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(all.ok().str_at(&["kind"]), "APIGroupDiscoveryList");
    assert_eq!(f.send_with("GET", "/apis", &[("accept", accept), ("if-none-match", &etag)], "").await.code, 304);
    for path in ["/apis/none/v1", "/api/v1/nonsense", "/nonsense", "/api/v1/namespaces/default/nodes"] {
        assert_eq!(f.get(path).await.code, 404, "{path}");
    }
    assert_eq!(f.put(PODS, "{}").await.code, 405);
}

#[tokio::test]
async fn fixed_paths_answer() {
    let f = fixture().await;
    assert_eq!(f.get("/version").await.ok().str_at(&["gitVersion"]), "v1.37.1+rk0");
    for (dump, head, line) in [
        ("dump_priority_levels", "PriorityLevelName, ActiveQueues, IsIdle, ", "workload-high,     0,            true,   false,       0,               0,"),
        ("dump_queues", "PriorityLevelName, Index,  PendingRequests, ", "workload-high,     0,      0,               0,"),
        ("dump_requests?includeRequestDetails=1", "PriorityLevelName, FlowSchemaName, QueueIndex, ", ""),
    ] {
        let text = String::from_utf8(f.get(&format!("/debug/api_priority_and_fairness/{dump}")).await.bytes.to_vec()).unwrap();
        assert!(text.starts_with(head) && text.contains(line), "{text}");
    }
    let status = f.get("/statusz").await;
    let text = String::from_utf8(status.bytes.to_vec()).unwrap();
    assert!(text.starts_with("\nkube-apiserver statusz\nWarning: ") && text.ends_with("/flagz /healthz /livez /metrics /readyz /statusz /version\n"), "{text}");
    let object = f.send_with("GET", "/flagz", &[("accept", "application/json;as=Flagz;v=v1beta1;g=config.k8s.io")], "").await.ok();
    assert_eq!((object.str_at(&["kind"]), object.str_at(&["metadata", "name"])), ("Flagz", "kube-apiserver"));
    assert_eq!(f.send_with("GET", "/statusz", &[("accept", "application/json")], "").await.code, 406);
    for path in ["/livez", "/readyz", "/healthz", "/readyz/ping"] {
        assert_eq!(f.get(path).await.bytes, "ok", "{path}");
    }
    let verbose = f.get("/readyz?verbose").await;
    assert!(String::from_utf8_lossy(&verbose.bytes).contains("[+]etcd ok\n"));
    f.server.add_health_check("broken", || Err("it is".into()));
    let broken = f.get("/readyz").await;
    assert_eq!(broken.code, 500);
    assert!(String::from_utf8_lossy(&broken.bytes).contains("[-]broken failed: reason withheld\n"));
    assert_eq!(f.get("/readyz?exclude=broken").await.bytes, "ok");
    let metrics = f.get("/metrics").await;
    assert!(String::from_utf8_lossy(&metrics.bytes).contains("apiserver_request_total{"));
    assert!(f.get("/openapi/v3").await.ok().get("paths").is_some());
}

#[tokio::test]
async fn who_may_not_is_told_what() {
    let f = fixture().await;
    let nobody = Fixture { client: f.server.local(UserInfo::new("nobody", &[])), server: f.server.clone(), _folder: tempfile::tempdir().unwrap() };
    nobody.get(PODS).await.failed(
        403,
        "Forbidden",
        "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
    );
    nobody.get("/apis/apps/v1/deployments/").await.failed(
        403,
        "Forbidden",
        "deployments.apps is forbidden: User \"nobody\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope",
    );
    nobody.get("/metrics").await.failed(403, "Forbidden", "forbidden: User \"nobody\" cannot get path \"/metrics\"");
}

#[tokio::test]
async fn reviews_answer_and_store_nothing() {
    let f = fixture().await;
    let me = f.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", "{}").await.ok();
    assert_eq!(me.str_at(&["status", "userInfo", "username"]), "admin");
    let may = r#"{"spec":{"resourceAttributes":{"verb":"list","resource":"pods"}}}"#;
    let may = f.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", may).await.ok();
    assert_eq!(may.at(&["status", "allowed"]), Some(&Tree::Bool(true)));
    let other = r#"{"spec":{"user":"nobody","resourceAttributes":{"verb":"list","resource":"pods"}}}"#;
    let other = f.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", other).await.ok();
    assert_eq!(other.at(&["status", "allowed"]), Some(&Tree::Bool(false)));
    let token = f.post("/apis/authentication.k8s.io/v1/tokenreviews", r#"{"spec":{"token":"good"}}"#).await.ok();
    assert_eq!(token.str_at(&["status", "user", "username"]), "jane");
    let impersonated =
        f.send_with("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &[("impersonate-user", "bob"), ("content-type", "application/json")], "{}");
    assert_eq!(impersonated.await.ok().str_at(&["status", "userInfo", "username"]), "bob");
}
