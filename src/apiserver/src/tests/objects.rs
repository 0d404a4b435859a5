//! create, get, update, patch, delete.
use super::*;

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let f = fixture().await;
    let created = f.post(MAPS, &config_map("a", "1")).await.ok();
    assert_eq!(created.str_at(&["metadata", "namespace"]), "default");
    assert!(!created.str_at(&["metadata", "uid"]).is_empty());
    let read = f.get(&format!("{MAPS}/a")).await.ok();
    assert_eq!(read, created, "what a write answers is what a read shows");

    let mut changed = read.clone();
    changed.set(&["data", "k"], "2");
    let updated = f.put(&format!("{MAPS}/a"), &String::from_utf8(changed.to_json()).unwrap()).await.ok();
    assert_ne!(updated.str_at(&["metadata", "resourceVersion"]), read.str_at(&["metadata", "resourceVersion"]));
    let same = f.put(&format!("{MAPS}/a"), &String::from_utf8(updated.to_json()).unwrap()).await.ok();
    assert_eq!(same, updated, "an update that changes nothing writes nothing");

    f.put(&format!("{MAPS}/a"), &String::from_utf8(changed.to_json()).unwrap()).await.failed(
        409,
        "Conflict",
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again",
    );
    f.post(MAPS, &config_map("a", "1")).await.failed(409, "AlreadyExists", "configmaps \"a\" already exists");
    let deleted = f.delete(&format!("{MAPS}/a")).await.ok();
    assert_eq!((deleted.str_at(&["status"]), deleted.str_at(&["details", "kind"])), ("Success", "configmaps"));
    let gone = f.get(&format!("{MAPS}/a")).await.failed(404, "NotFound", "configmaps \"a\" not found");
    assert_eq!(gone.str_at(&["details", "name"]), "a");
}

#[tokio::test]
async fn bad_bodies_get_upstreams_answers() {
    let f = fixture().await;
    assert_eq!(f.send("POST", MAPS, "text/plain", "x").await.code, 415);
    assert_eq!(f.post(MAPS, "{").await.code, 400);
    f.post(MAPS, r#"{"kind":"ConfigMap","apiVersion":"apps/v1","metadata":{"name":"a"}}"#).await.failed(
        400,
        "BadRequest",
        "the API version in the data (apps/v1) does not match the expected API version (v1)",
    );
    f.post(MAPS, r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#).await.failed(
        400,
        "BadRequest",
        "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion",
    );
    f.post(MAPS, r#"{"metadata":{"name":"a","namespace":"other"}}"#).await.failed(
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    let unknown = r#"{"metadata":{"name":"a"},"datas":{}}"#;
    let warned = f.post(MAPS, unknown).await;
    assert_eq!(warned.headers.get("warning").unwrap(), "299 - \"unknown field \\\"datas\\\"\"");
    let refused = f.post(MAPS, r#"{"metadata":{"name":"A"},"datas":{}}"#).await;
    assert_eq!((refused.code, refused.headers.get("warning").unwrap()), (422, warned.headers.get("warning").unwrap()));
    f.post(&format!("{MAPS}?fieldValidation=Strict"), unknown).await.failed(
        400,
        "BadRequest",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"datas\"",
    );
    let large = format!(r#"{{"metadata":{{"name":"l"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    assert_eq!(f.post(MAPS, &large).await.code, 413);
    let yaml = f.send("POST", MAPS, "application/yaml", "metadata:\n  name: yaml\ndata:\n  k: v\n").await.ok();
    assert_eq!(yaml.str_at(&["data", "k"]), "v");
    f.post("/api/v1/namespaces/none/configmaps", &config_map("a", "1")).await.failed(404, "NotFound", "namespaces \"none\" not found");
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_leave_nothing() {
    let f = fixture().await;
    let made = f.post(MAPS, r#"{"metadata":{"generateName":"x-"}}"#).await.ok();
    let name = made.str_at(&["metadata", "name"]);
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
    f.post(&format!("{MAPS}?dryRun=All"), &config_map("dry", "1")).await.ok();
    assert_eq!(f.get(&format!("{MAPS}/dry")).await.code, 404);
    assert_eq!(f.post(&format!("{MAPS}?dryRun=Some"), &config_map("dry", "1")).await.code, 422);
}

#[tokio::test]
async fn all_three_patches_apply() {
    let f = fixture().await;
    f.post(MAPS, &config_map("a", "1")).await.ok();
    let path = format!("{MAPS}/a");
    let merged = f.send("PATCH", &path, "application/merge-patch+json", r#"{"data":{"k":null,"m":"1"}}"#).await.ok();
    assert_eq!((merged.at(&["data", "k"]), merged.str_at(&["data", "m"])), (None, "1"));
    let json = f.send("PATCH", &path, "application/json-patch+json", r#"[{"op":"add","path":"/data/j","value":"2"}]"#).await.ok();
    assert_eq!(json.str_at(&["data", "j"]), "2");
    let strategic = f.send("PATCH", &path, "application/strategic-merge-patch+json", r#"{"metadata":{"labels":{"l":"3"}}}"#).await.ok();
    assert_eq!(strategic.str_at(&["metadata", "labels", "l"]), "3");
    let stale = r#"{"metadata":{"resourceVersion":"1"},"data":{"z":"1"}}"#;
    assert_eq!(f.send("PATCH", &path, "application/merge-patch+json", stale).await.code, 409);
    assert_eq!(f.send("PATCH", &format!("{MAPS}/none"), "application/merge-patch+json", "{}").await.code, 404);
}

#[tokio::test]
async fn what_is_wrong_with_a_patch_is_said_in_upstreams_words() {
    let f = fixture().await;
    f.post(MAPS, &config_map("a", "1")).await.ok();
    let path = format!("{MAPS}/a");
    let patch = async |kind: &str, query: &str, body: &str| f.send("PATCH", &format!("{path}?{query}"), &format!("application/{kind}-patch+json"), body).await;
    let missing = patch("json", "", r#"[{"op":"remove","path":"/none"}]"#).await;
    missing.failed(422, "Invalid", "the server rejected our request due to an error in our request");
    let nameless = "the name of the object (a based on URL) was undeterminable: name must be provided";
    for (kind, body) in [("merge", r#"{"metadata":null}"#), ("json", r#"[{"op":"remove","path":"/metadata/name"}]"#), ("strategic-merge", r#"{"$patch":"delete"}"#)] {
        patch(kind, "", body).await.failed(400, "BadRequest", nameless);
    }
    patch("merge", "", "null").await.failed(400, "BadRequest", "Invalid JSON Patch");
    let list = patch("merge", "fieldValidation=Ignore", "[1]").await;
    assert_eq!(list.code, 422);
    assert!(list.tree().str_at(&["message"]).contains("couldn't get version/kind; json parse error: json: cannot unmarshal array"));
    patch("strategic-merge", "", r#"{"$patch":"fly"}"#).await.failed(500, "", "unknown patch type: fly in map: map[$patch:fly]");
    patch("strategic-merge", "", "null").await.ok();
    let both = patch("merge", "", r#"{"metadata":{"name":"b","namespace":"other"}}"#).await;
    both.failed(400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request");
    let warned = patch("merge", "fieldValidation=Warn", r#"{"metadata":{"name":"b"},"odd":1}"#).await;
    assert_eq!((warned.code, warned.headers.contains_key("warning")), (400, true));
}

#[tokio::test]
async fn managers_own_the_fields_that_others_stand_for() {
    let f = fixture().await;
    let secret = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"b":"plain"}}"#;
    let created = f.post("/api/v1/namespaces/default/secrets", secret).await.ok();
    let fields = created.array_at(&["metadata", "managedFields"])[0].get("fieldsV1").unwrap().to_json();
    assert_eq!(String::from_utf8(fields).unwrap(), r#"{"f:data":{".":{},"f:b":{}},"f:type":{}}"#);
}

#[tokio::test]
async fn racing_patches_all_count() {
    let f = fixture().await;
    f.post(MAPS, &config_map("a", "1")).await.ok();
    let path = format!("{MAPS}/a");
    let bodies: Vec<String> = (0..20).map(|i| format!(r#"{{"data":{{"k{i}":"x"}}}}"#)).collect();
    let patches = bodies.iter().map(|body| f.send("PATCH", &path, "application/merge-patch+json", body));
    for answer in futures::future::join_all(patches).await {
        answer.ok();
    }
    assert_eq!(f.get(&path).await.ok().get("data").unwrap().as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn status_and_spec_are_changed_apart() {
    let f = fixture().await;
    let deployment = r#"{"metadata":{"name":"d"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}},"status":{"replicas":9}}"#;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let made = f.post(path, deployment).await.ok();
    assert_eq!(made.at(&["status", "replicas"]), None);
    assert_eq!(made.at(&["metadata", "generation"]), Some(&Tree::Integer(1)));
    let merge = "application/merge-patch+json";
    let both = r#"{"spec":{"replicas":5},"status":{"observedGeneration":7}}"#;
    let status = f.send("PATCH", &format!("{path}/d/status"), merge, both).await.ok();
    assert_eq!(status.at(&["spec", "replicas"]), Some(&Tree::Integer(2)));
    assert_eq!(status.at(&["status", "observedGeneration"]), Some(&Tree::Integer(7)));
    assert_eq!(status.at(&["metadata", "generation"]), Some(&Tree::Integer(1)));
    let main = f.send("PATCH", &format!("{path}/d"), merge, r#"{"spec":{"replicas":5},"status":{"observedGeneration":8}}"#).await.ok();
    assert_eq!(main.at(&["status", "observedGeneration"]), Some(&Tree::Integer(7)));
    assert_eq!(main.at(&["metadata", "generation"]), Some(&Tree::Integer(2)));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let f = fixture().await;
    f.post(MAPS, r#"{"metadata":{"name":"a","finalizers":["example.com/x"]}}"#).await.ok();
    let path = format!("{MAPS}/a");
    let marked = f.delete(&path).await.ok();
    assert!(!marked.str_at(&["metadata", "deletionTimestamp"]).is_empty());
    f.post(MAPS, &config_map("a", "1")).await.failed(409, "AlreadyExists", "object is being deleted: configmaps \"a\" already exists");
    f.send("PATCH", &path, "application/merge-patch+json", r#"{"metadata":{"finalizers":null}}"#).await.ok();
    assert_eq!(f.get(&path).await.code, 404);
}

#[tokio::test]
async fn deletes_honour_preconditions_and_propagation() {
    let f = fixture().await;
    f.post(MAPS, &config_map("a", "1")).await.ok();
    let path = format!("{MAPS}/a");
    let wrong = r#"{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"nope"}}"#;
    assert_eq!(f.send("DELETE", &path, "application/json", wrong).await.code, 409);
    let foreground = f.send("DELETE", &path, "application/json", r#"{"propagationPolicy":"Foreground"}"#).await;
    assert_eq!(foreground.code, 202);
    assert_eq!(foreground.tree().array_at(&["metadata", "finalizers"]), [Tree::from("foregroundDeletion")]);
    assert_eq!(f.delete(&format!("{path}?propagationPolicy=Nonsense")).await.code, 422);
}

#[tokio::test]
async fn a_pod_on_a_node_gets_its_grace_and_one_without_goes_at_once() {
    let f = fixture().await;
    f.post(PODS, &pod("run", "n")).await.ok();
    let marked = f.delete(&format!("{PODS}/run")).await.ok();
    assert_eq!(marked.at(&["metadata", "deletionGracePeriodSeconds"]), Some(&Tree::Integer(30)));
    let shorter = f.delete(&format!("{PODS}/run?gracePeriodSeconds=5")).await.ok();
    assert_eq!(shorter.at(&["metadata", "deletionGracePeriodSeconds"]), Some(&Tree::Integer(5)));
    f.delete(&format!("{PODS}/run?gracePeriodSeconds=0")).await.ok();
    assert_eq!(f.get(&format!("{PODS}/run")).await.code, 404);
    let waiting = f.post(PODS, &pod("wait", "")).await.ok();
    assert_eq!((waiting.str_at(&["status", "phase"]), waiting.str_at(&["status", "qosClass"])), ("Pending", "BestEffort"));
    f.delete(&format!("{PODS}/wait")).await.ok();
    assert_eq!(f.get(&format!("{PODS}/wait")).await.code, 404);
}

#[tokio::test]
async fn a_namespace_goes_when_its_finalizer_does() {
    let f = fixture().await;
    let made = f.post("/api/v1/namespaces", r#"{"metadata":{"name":"n"}}"#).await.ok();
    assert_eq!(made.str_at(&["status", "phase"]), "Active");
    assert_eq!(made.array_at(&["spec", "finalizers"]), [Tree::from("kubernetes")]);
    assert_eq!(made.str_at(&["metadata", "labels", "kubernetes.io/metadata.name"]), "n");
    let marked = f.delete("/api/v1/namespaces/n").await.ok();
    assert_eq!(marked.str_at(&["status", "phase"]), "Terminating");
    let refused = f.post("/api/v1/namespaces/n/configmaps", &config_map("a", "1")).await.failed(
        403,
        "Forbidden",
        "configmaps \"a\" is forbidden: unable to create new content in namespace n because it is being terminated",
    );
    assert_eq!(refused.array_at(&["details", "causes"])[0].str_at(&["reason"]), "NamespaceTerminating");
    let mut finalized = f.get("/api/v1/namespaces/n").await.ok();
    finalized.set(&["spec", "finalizers"], Tree::Array(Vec::new()));
    f.put("/api/v1/namespaces/n/finalize", &String::from_utf8(finalized.to_json()).unwrap()).await.ok();
    assert_eq!(f.get("/api/v1/namespaces/n").await.code, 404);
}

#[tokio::test]
async fn an_update_of_a_lease_may_create_it() {
    let f = fixture().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
    let answer = f.put(path, r#"{"metadata":{"name":"n"},"spec":{"holderIdentity":"n"}}"#).await;
    assert_eq!(answer.code, 201);
    assert_eq!(f.put(&format!("{MAPS}/none"), &config_map("none", "1")).await.code, 404);
}

#[tokio::test]
async fn events_are_one_kind_under_two_groups() {
    let f = fixture().await;
    let core = r#"{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"},"reason":"R","message":"m","type":"Normal"}"#;
    f.post("/api/v1/namespaces/default/events", core).await.ok();
    let new = f.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.ok();
    assert_eq!((new.str_at(&["note"]), new.str_at(&["regarding", "name"])), ("m", "p"));
    assert_eq!(new.str_at(&["apiVersion"]), "events.k8s.io/v1");
}

/// Typed clients take no object without the counts that are no pointers in Go.
#[tokio::test]
async fn a_new_object_has_the_counts_of_its_status() {
    let f = fixture().await;
    let spec = r#"{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}"#;
    let set = f.post("/apis/apps/v1/namespaces/default/statefulsets", &format!(r#"{{"metadata":{{"name":"s"}},"spec":{spec}}}"#)).await.ok();
    assert_eq!(set.at(&["status", "replicas"]), Some(&Tree::Integer(0)));
    let template = r#"{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}"#;
    let job = f.post("/apis/batch/v1/namespaces/default/jobs", &format!(r#"{{"metadata":{{"name":"j"}},"spec":{{"template":{template}}}}}"#)).await.ok();
    assert_eq!(job.at(&["metadata", "labels"]), job.at(&["spec", "template", "metadata", "labels"]));
    assert_eq!(job.str_at(&["metadata", "labels", "job-name"]), "j");
}

#[tokio::test]
async fn a_limit_range_needs_no_name() {
    let f = fixture().await;
    let made = f.post("/api/v1/namespaces/default/limitranges", r#"{"spec":{"limits":[{"type":"Pod","max":{"cpu":"1"}}]}}"#).await.ok();
    assert_eq!(made.str_at(&["metadata", "name"]).len(), 36);
}

#[tokio::test]
async fn finalizers_that_a_namespace_keeps_are_noted_all_the_same() {
    let f = fixture().await;
    let finalizers = r#"{"spec":{"finalizers":["a"]}}"#;
    let kept = f.send("PATCH", "/api/v1/namespaces/default?fieldManager=m", "application/merge-patch+json", finalizers).await.ok();
    assert_eq!(kept.array_at(&["spec", "finalizers"]), [Tree::from("kubernetes")]);
    let mut managers = kept.array_at(&["metadata", "managedFields"]).iter().map(|entry| entry.str_at(&["manager"]));
    assert!(managers.any(|manager| manager == "m"));
}
