//! Custom objects that a webhook converts.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::tree::Tree;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::https::Https;
use super::{Fixture, fixture};

const V1: &str = "/apis/example.com/v1/namespaces/default/hosts";
const V2: &str = "/apis/example.com/v2/namespaces/default/hosts";

/// `spec.address` of v1 is `spec.host` and `spec.port` of v2. An object called `bad` fails, and one called `thief` comes back under another name.
fn convert(mut object: Tree, to: &str) -> Result<Tree, String> {
    match object.str_at(&["metadata", "name"]) {
        "bad" => return Err("the object is bad".to_owned()),
        "thief" => object.set(&["metadata", "name"], "other"),
        _ => {}
    }
    object.set(&["apiVersion"], to);
    if to.ends_with("/v2") {
        let address = object.str_at(&["spec", "address"]).to_owned();
        let (host, port) = address.split_once(':').unwrap_or((&address, ""));
        object.set(&["spec", "host"], host);
        object.set(&["spec", "port"], port);
    } else {
        let address = format!("{}:{}", object.str_at(&["spec", "host"]), object.str_at(&["spec", "port"]));
        object.set(&["spec", "address"], address);
    }
    Ok(object)
}

async fn answer(request: Request<Incoming>, asked: Arc<AtomicUsize>) -> Response<Body> {
    let review = Tree::from_json(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let desired = review.str_at(&["request", "desiredAPIVersion"]).to_owned();
    let objects = review.array_at(&["request", "objects"]).to_vec();
    asked.fetch_add(objects.len(), Ordering::Relaxed);
    let mut answer = Tree::object();
    answer.set(&["apiVersion"], review.str_at(&["apiVersion"]));
    answer.set(&["kind"], "ConversionReview");
    answer.set(&["response", "uid"], review.str_at(&["request", "uid"]));
    match objects.into_iter().map(|object| convert(object, &desired)).collect::<Result<Vec<_>, _>>() {
        Ok(converted) => {
            answer.set(&["response", "convertedObjects"], Tree::Array(converted));
            answer.set(&["response", "result", "status"], "Success");
        }
        Err(why) => {
            answer.set(&["response", "result", "status"], "Failed");
            answer.set(&["response", "result", "message"], why);
        }
    }
    Response::new(answer.to_json().into())
}

fn definition(webhook: &Https) -> String {
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let properties: Vec<String> = fields.iter().map(|f| format!(r#""{f}":{{"type":"string"}}"#)).collect();
        let selectable: Vec<String> = fields.iter().map(|f| format!(r#"{{"jsonPath":".spec.{f}"}}"#)).collect();
        format!(
            r#"{{"name":"{name}","served":true,"storage":{storage},"selectableFields":[{}],
            "schema":{{"openAPIV3Schema":{{"type":"object","properties":{{"spec":{{"type":"object","properties":{{{}}}}}}}}}}}}}"#,
            selectable.join(","),
            properties.join(",")
        )
    };
    format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"hosts.example.com"}},"spec":{{"group":"example.com",
        "scope":"Namespaced","names":{{"plural":"hosts","kind":"Host"}},"versions":[{},{}],"conversion":{{"strategy":"Webhook","webhook":{{
        "conversionReviewVersions":["v1"],"clientConfig":{{"url":"https://localhost:{}/convert","caBundle":"{}"}}}}}}}}}}"#,
        version("v1", true, &["address"]),
        version("v2", false, &["host", "port"]),
        webhook.port,
        webhook.bundle
    )
}

async fn defined(asked: &Arc<AtomicUsize>) -> Fixture {
    let asked = asked.clone();
    let webhook = Https::start("localhost", move |request| answer(request, asked.clone())).await;
    let f = fixture().await;
    let created = f.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition(&webhook)).await;
    assert_eq!(created.code, 201, "{}", String::from_utf8_lossy(&created.bytes));
    for _ in 0..500 {
        if f.get(V2).await.code == 200 {
            return f;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the kind was never served");
}

fn host(version: &str, name: &str, spec: &str) -> String {
    format!(r#"{{"apiVersion":"example.com/{version}","kind":"Host","metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
}

fn names(list: &Tree) -> Vec<&str> {
    list.array_at(&["items"]).iter().map(|item| item.str_at(&["metadata", "name"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_reads_writes_lists_and_watches_the_same_objects() {
    let asked = Arc::default();
    let f = defined(&asked).await;
    let mut watch = f.watch(&format!("{V2}?watch=1&fieldSelector=spec.host%3Da")).await;
    f.post(V1, &host("v1", "one", r#"{"address":"a:80"}"#)).await.ok();
    f.post(V2, &host("v2", "two", r#"{"host":"b","port":"443"}"#)).await.ok();
    // What the version does not know is not in it.
    let spec = f.get(&format!("{V2}/one")).await.ok().get("spec").unwrap().to_json();
    assert_eq!(spec, br#"{"host":"a","port":"80"}"#);
    let stored = f.get(&format!("{V1}/two")).await.ok();
    assert_eq!((stored.str_at(&["apiVersion"]), stored.str_at(&["spec", "address"])), ("example.com/v1", "b:443"));
    assert_eq!(names(&f.get(&format!("{V2}?fieldSelector=spec.port%3D443")).await.ok()), ["two"]);
    assert_eq!(names(&f.get(&format!("{V1}?fieldSelector=spec.address%3Da:80")).await.ok()), ["one"]);
    assert_eq!(names(&f.get(&format!("{V2}?limit=1")).await.ok()), ["one"]);
    // Each state of an object is converted once for each version.
    let before = asked.load(Ordering::Relaxed);
    f.get(V2).await.ok();
    f.get(V2).await.ok();
    assert_eq!(asked.load(Ordering::Relaxed), before);
    f.send("PATCH", &format!("{V2}/one"), "application/merge-patch+json", r#"{"spec":{"host":"c"}}"#).await.ok();
    let patch = f.send("PATCH", &format!("{V2}/two"), "application/merge-patch+json", r#"{"spec":{"host":"a"}}"#).await.ok();
    assert_eq!(patch.str_at(&["spec", "port"]), "443");
    assert_eq!(f.get(&format!("{V1}/two")).await.ok().str_at(&["spec", "address"]), "a:443");
    f.delete(&format!("{V2}/two")).await.ok();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(watch.event().await);
    }
    assert_eq!(seen, ["ADDED one", "DELETED one", "ADDED two", "DELETED two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_conversion_is_told_and_nothing_is_stored() {
    let f = defined(&Arc::default()).await;
    let failed = "conversion webhook for example.com/v2, Kind=Host failed: the object is bad";
    f.post(V2, &host("v2", "bad", r#"{"host":"a"}"#)).await.failed(500, "", failed);
    assert_eq!(f.get(&format!("{V1}/bad")).await.code, 404);
    let stolen = "conversion webhook for example.com/v2, Kind=Host returned invalid object: must have the same name: thief != other";
    f.post(V2, &host("v2", "thief", r#"{"host":"a"}"#)).await.failed(500, "", stolen);
    // Stored as it is, and out of reach in the other version.
    f.post(V1, &host("v1", "bad", r#"{"address":"a:1"}"#)).await.ok();
    f.post(V1, &host("v1", "good", r#"{"address":"a:1"}"#)).await.ok();
    let failed = "conversion webhook for example.com/v1, Kind=Host failed: the object is bad";
    f.get(&format!("{V2}/bad")).await.failed(500, "", failed);
    f.get(V2).await.failed(500, "", failed);
    f.get(&format!("{V2}/good")).await.ok();
    assert_eq!(names(&f.get(V1).await.ok()), ["bad", "good"]);
    f.delete(&format!("{V1}/bad")).await.ok();
    assert_eq!(names(&f.get(V2).await.ok()), ["good"]);
}
