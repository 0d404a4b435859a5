//! Server-side apply, and who is noted for what.
use api::tree::Tree;

use super::{Answer, Fixture, fixture};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

fn config_map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {data}\n")
}

async fn apply(f: &Fixture, query: &str, body: &str) -> Answer {
    f.send("PATCH", &format!("{MAPS}/a?{query}"), APPLY, body).await
}

/// `manager/subresource operation fields` of each entry.
fn managed(object: &Tree) -> Vec<String> {
    let entries = object.array_at(&["metadata", "managedFields"]).iter();
    entries
        .map(|entry| {
            let fields = String::from_utf8(entry.get("fieldsV1").expect("fields").to_json()).expect("UTF-8");
            let [manager, subresource, operation] = ["manager", "subresource", "operation"].map(|key| entry.str_at(&[key]));
            format!("{manager}/{subresource} {operation} {fields}")
        })
        .collect()
}

#[tokio::test]
async fn applying_creates_changes_and_gives_up() {
    let f = fixture().await;
    let created = apply(&f, "fieldManager=m", &config_map("{k: '1', l: '2'}")).await;
    assert_eq!(created.code, 201);
    let created = created.tree();
    assert_eq!(managed(&created), [r#"m/ Apply {"f:data":{"f:k":{},"f:l":{}}}"#]);
    let again = apply(&f, "fieldManager=m", &config_map("{k: '1', l: '2'}")).await;
    assert_eq!((again.code, &again.tree()), (200, &created), "nothing changed, nothing is written");
    let less = apply(&f, "fieldManager=m", &config_map("{k: '3'}")).await.ok();
    assert_eq!(less.get("data").unwrap().to_json(), br#"{"k":"3"}"#);
    let dry = apply(&f, "fieldManager=m&dryRun=All", &config_map("{k: '4'}")).await.ok();
    assert_eq!(dry.str_at(&["data", "k"]), "4");
    assert_eq!(f.get(&format!("{MAPS}/a")).await.ok().str_at(&["data", "k"]), "3");
}

#[tokio::test]
async fn what_others_own_is_a_conflict_until_it_is_forced() {
    let f = fixture().await;
    apply(&f, "fieldManager=m", &config_map("{k: '1'}")).await.ok();
    let refused = apply(&f, "fieldManager=n", &config_map("{k: '2'}")).await;
    let status = refused.failed(409, "Conflict", "Apply failed with 1 conflict: conflict with \"m\": .data.k");
    let cause = br#"[{"field":".data.k","message":"conflict with \"m\"","reason":"FieldManagerConflict"}]"#;
    assert_eq!(status.at(&["details", "causes"]).unwrap().to_json(), cause);
    let forced = apply(&f, "fieldManager=n&force=true", &config_map("{k: '2'}")).await.ok();
    assert_eq!(managed(&forced), [r#"n/ Apply {"f:data":{"f:k":{}}}"#]);
}

#[tokio::test]
async fn options_and_documents_are_checked() {
    let f = fixture().await;
    let nobody = apply(&f, "", &config_map("{}")).await;
    nobody.failed(422, "Invalid", "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch");
    let forced = f.send("PATCH", &format!("{MAPS}/a?force=true"), "application/merge-patch+json", "{}").await;
    forced.failed(422, "Invalid", "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch");
    let other = apply(&f, "fieldManager=m", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n").await;
    other.failed(400, "BadRequest", "invalid object type: /v1, Kind=Secret");
    let unknown = apply(&f, "fieldManager=m", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nnope: 1\n").await;
    let text = "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .nope: field not declared in schema";
    unknown.failed(500, "", text);
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: '1'}\ndata: {a: '2'}\n";
    assert_eq!(apply(&f, "fieldManager=m&fieldValidation=Strict", twice).await.code, 400);
    let warned = apply(&f, "fieldManager=m", twice).await;
    assert!(warned.headers.contains_key("warning"));
    assert_eq!(warned.ok().str_at(&["data", "a"]), "2");
    let cbor = f.send("PATCH", &format!("{MAPS}/a?fieldManager=m"), "application/apply-patch+cbor", "").await;
    assert_eq!(cbor.code, 415);
    assert!(cbor.tree().str_at(&["message"]).ends_with("application/strategic-merge-patch+json, application/apply-patch+yaml"));
    let nameless = apply(&f, "fieldManager=m", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n").await;
    assert_eq!(nameless.code, 400);
}

#[tokio::test]
async fn every_write_notes_its_manager() {
    let f = fixture().await;
    let deployment = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},
        "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    let created = f.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), deployment).await.ok();
    assert!(managed(&created)[0].starts_with("maker/ Update {\"f:spec\":{\"f:progressDeadlineSeconds\":{}"), "{:?}", managed(&created));
    let path = format!("{DEPLOYMENTS}/d");
    let status = f.send("PATCH", &format!("{path}/status?fieldManager=c"), "application/merge-patch+json", r#"{"status":{"replicas":1}}"#).await.ok();
    assert!(managed(&status).contains(&r#"c/status Update {"f:status":{"f:replicas":{}}}"#.to_owned()), "{:?}", managed(&status));
    let patched = f.send("PATCH", &format!("{path}?fieldManager=p"), "application/strategic-merge-patch+json", r#"{"spec":{"replicas":3}}"#).await.ok();
    assert!(managed(&patched).contains(&r#"p/ Update {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{:?}", managed(&patched));
    let reset = f.send("PATCH", &path, "application/merge-patch+json", r#"{"metadata":{"managedFields":[]}}"#).await.ok();
    assert!(managed(&reset).is_empty());
}

#[tokio::test]
async fn whoever_scales_owns_the_replicas() {
    let f = fixture().await;
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 1\n  selector: {matchLabels: {a: b}}\n  \
        template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}\n";
    let path = format!("{DEPLOYMENTS}/d");
    f.send("PATCH", &format!("{path}?fieldManager=m"), APPLY, deployment).await.ok();
    let scale = "apiVersion: autoscaling/v1\nkind: Scale\nmetadata: {name: d}\nspec: {replicas: 2}\n";
    let refused = f.send("PATCH", &format!("{path}/scale?fieldManager=s"), APPLY, scale).await;
    refused.failed(409, "Conflict", "Apply failed with 1 conflict: conflict with \"m\": .spec.replicas");
    let scaled = f.send("PATCH", &format!("{path}/scale?fieldManager=s&force=true"), APPLY, scale).await.ok();
    assert_eq!(scaled.at(&["spec", "replicas"]).and_then(Tree::as_i64), Some(2));
    let found = managed(&f.get(&path).await.ok());
    assert!(found.contains(&r#"s/scale Apply {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{found:?}");
    assert!(!found.iter().any(|entry| entry.starts_with("m/") && entry.contains("f:replicas")), "{found:?}");
}
