//! Kinds that come and go with their definitions.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::tree::Tree;

use super::{Fixture, fixture};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/foos.example.com";
const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

fn definition(size: &str) -> String {
    format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"foos.example.com"}},"spec":{{"group":"example.com",
        "scope":"Namespaced","names":{{"plural":"foos","kind":"Foo","shortNames":["fo"]}},"versions":[
        {{"name":"v1","served":true,"storage":true,"subresources":{{"status":{{}}}},"selectableFields":[{{"jsonPath":".spec.color"}}],
          "schema":{{"openAPIV3Schema":{{"type":"object","properties":{{"spec":{{"type":"object","properties":{{"size":{size},"color":{{"type":"string"}}}}}},
          "status":{{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}}}}}},
        {{"name":"v2","served":true,"storage":false,"selectableFields":[{{"jsonPath":".spec.color"}}],
          "schema":{{"openAPIV3Schema":{{"type":"object","properties":{{"spec":{{"type":"object","properties":{{"color":{{"type":"string"}}}}}}}}}}}}}}]}}}}"#
    )
}

fn foo(name: &str, spec: &str) -> String {
    format!(r#"{{"apiVersion":"example.com/v1","kind":"Foo","metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
}

/// Asks until the answer is as wanted.
async fn until(f: &Fixture, path: &str, is_it: impl Fn(u16, &Tree) -> bool) -> Tree {
    for _ in 0..500 {
        let answer = f.get(path).await;
        let tree = Tree::from_json(&answer.bytes).unwrap_or_default();
        if is_it(answer.code, &tree) {
            return tree;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} never became as wanted");
}

async fn defined() -> Fixture {
    let f = fixture().await;
    f.server.start().await.unwrap();
    let created = f.post(DEFINITIONS, &definition(r#"{"type":"integer"}"#)).await;
    assert_eq!(created.code, 201, "{}", String::from_utf8_lossy(&created.bytes));
    until(&f, FOOS, |code, _| code == 200).await;
    f
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_is_served_like_any_other_and_goes_with_its_definition() {
    let f = defined().await;
    let mut watch = f.watch(&format!("{FOOS}?watch=1")).await;
    assert_eq!(f.post(FOOS, &foo("a", r#"{"size":1,"color":"red","odd":1}"#)).await.code, 201);
    let other = f.get("/apis/example.com/v2/namespaces/default/foos/a").await;
    let other = Tree::from_json(&other.bytes).unwrap();
    assert_eq!(other.at(&["spec"]).unwrap().to_json(), br#"{"color":"red"}"#);
    assert_eq!(other.str_at(&["apiVersion"]), "example.com/v2");
    let selected = |color: &str| format!("{FOOS}?fieldSelector=spec.color={color}");
    until(&f, &selected("red"), |_, list| list.array_at(&["items"]).len() == 1).await;
    until(&f, &selected("blue"), |_, list| list.array_at(&["items"]).is_empty()).await;
    assert_eq!(f.get(&format!("{FOOS}?fieldSelector=spec.size=1")).await.code, 400);
    let groups = Tree::from_json(&f.get("/apis").await.bytes).unwrap();
    let group = groups.array_at(&["groups"]).iter().find(|g| g.str_at(&["name"]) == "example.com").unwrap();
    assert_eq!(group.str_at(&["preferredVersion", "version"]), "v2");
    assert!(f.get("/openapi/v3/apis/example.com/v1").await.code == 200);

    assert_eq!(f.delete(DEFINITION).await.code, 200);
    until(&f, DEFINITION, |code, _| code == 404).await;
    assert_eq!(f.get(FOOS).await.code, 404);
    let groups = Tree::from_json(&f.get("/apis").await.bytes).unwrap();
    assert!(groups.array_at(&["groups"]).iter().all(|g| g.str_at(&["name"]) != "example.com"));
    assert_eq!((watch.event().await, watch.event().await), ("ADDED a".to_owned(), "DELETED a".to_owned()));
    assert!(watch.next().await.is_none());

    // It may come back, empty.
    assert_eq!(f.post(DEFINITIONS, &definition(r#"{"type":"string"}"#)).await.code, 201);
    let list = until(&f, FOOS, |code, _| code == 200).await;
    assert!(list.array_at(&["items"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_show_the_defaults_of_a_schema_that_came_later() {
    let f = defined().await;
    assert_eq!(f.post(FOOS, &foo("a", "{}")).await.code, 201);
    let document = async || String::from_utf8(f.get("/openapi/v3/apis/example.com/v1").await.bytes.to_vec()).unwrap();
    let before = document().await;
    assert_eq!(document().await, before);
    let patch = r#"[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/default","value":7}]"#;
    assert_eq!(f.send("PATCH", DEFINITION, "application/json-patch+json", patch).await.code, 200);
    until(&f, &format!("{FOOS}/a"), |_, foo| foo.at(&["spec", "size"]).and_then(Tree::as_i64) == Some(7)).await;
    let list = Tree::from_json(&f.get(FOOS).await.bytes).unwrap();
    assert_eq!(list.array_at(&["items"])[0].at(&["spec", "size"]).and_then(Tree::as_i64), Some(7));
    let after = document().await;
    assert!(!before.contains(r#""default":7"#) && after.contains(r#""default":7"#), "{before}{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_schema_is_refused_by_its_place() {
    let f = defined().await;
    let wrong = f.post(FOOS, &foo("a", r#"{"size":"x"}"#)).await;
    let status = Tree::from_json(&wrong.bytes).unwrap();
    assert_eq!(wrong.code, 422);
    assert_eq!(
        status.str_at(&["message"]),
        r#"Foo.example.com "a" is invalid: spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#
    );
    // What holds it is its controller's to name.
    let held = r#"{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"held","finalizers":["resources-finalizer.example.com"]}}"#;
    assert_eq!(f.post(FOOS, held).await.code, 201);
    let strict = f.post(&format!("{FOOS}?fieldValidation=Strict"), &foo("a", r#"{"odd":1}"#)).await;
    assert_eq!(strict.code, 400);
    assert!(String::from_utf8_lossy(&strict.bytes).contains(r#"strict decoding error: unknown field \"spec.odd\""#));
}

/// A definition is taken in before its change can be read; a reader that looks all the time must see the change all the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_definition_is_seen() {
    const CHANGES: usize = 200;
    let f = defined().await;
    let cache = f.server.0.parts.cache.clone();
    let resource = cache.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let mut cursor = cache.watch(cache.kind(&resource).unwrap(), cache.revision()).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let ends = done.clone();
    let reader = std::thread::spawn(move || {
        let mut seen = Vec::new();
        loop {
            let is_last = ends.load(Ordering::Acquire);
            let (changes, _) = cursor.read(8).unwrap();
            if changes.is_empty() && is_last {
                return seen;
            }
            seen.extend(changes.into_iter().map(|change| change.revision));
        }
    });
    let mut written = Vec::new();
    for i in 0..CHANGES {
        let patch = format!(r#"{{"metadata":{{"annotations":{{"n":"{i}"}}}}}}"#);
        let answer = f.send("PATCH", DEFINITION, "application/merge-patch+json", &patch).await;
        written.push(api::meta::resource_version(&answer.tree()).parse::<u64>().unwrap());
    }
    done.store(true, Ordering::Release);
    let seen = reader.join().unwrap();
    let missed: Vec<_> = written.iter().filter(|revision| !seen.contains(revision)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_object_is_of_its_kind_and_says_what_it_has() {
    let f = defined().await;
    f.post(FOOS, &foo("a", r#"{"color":"red"}"#)).await.ok();
    let kind = "Other.example.com \"a\" is invalid: kind: Invalid value: \"Other\": must be Foo";
    f.send("PATCH", &format!("{FOOS}/a"), "application/merge-patch+json", r#"{"kind":"Other"}"#).await.failed(422, "Invalid", kind);
    f.post(FOOS, &foo("a", "{}").replace("\"Foo\"", "\"Other\"")).await.failed(422, "Invalid", kind);
    let versionless = f.send("PUT", &format!("{FOOS}/a"), "application/json", &foo("a", "{}")).await;
    let text = "foos.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    versionless.failed(422, "Invalid", text);
    // What is applied was never decoded: a null is a value of the wrong type.
    let applied = f.send("PATCH", &format!("{FOOS}/b?fieldManager=m"), "application/apply-patch+yaml", &foo("b", r#"{"color":null}"#)).await;
    applied.failed(422, "Invalid", "Foo.example.com \"b\" is invalid: spec.color: Invalid value: \"null\": spec.color in body must be of type string: \"null\"");
    f.post(FOOS, &foo("b", r#"{"color":null}"#)).await.ok();
    f.get(&format!("{FOOS}/a/scale")).await.failed(404, "NotFound", "foos.example.com \"a\" not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_come_and_go_leave_nothing_behind() {
    const KINDS: usize = 100;
    let f = fixture().await;
    f.server.start().await.unwrap();
    let cache = &f.server.0.parts.cache;
    let (built_in, mut before) = (cache.counts(), None);
    let text = definition(r#"{"type":"integer"}"#);
    let name = |i: usize| (format!("foos{i}.g{}.example.com", i / 10), format!("/apis/g{}.example.com/v1/namespaces/default/foos{i}", i / 10));
    for _ in 0..3 {
        for i in 0..KINDS {
            let ours = text.replace("foos.example.com", &name(i).0).replace("\"foos\"", &format!("\"foos{i}\"")).replace("Foo", &format!("Foo{i}"));
            let ours = ours.replace("\"example.com\"", &format!("\"g{}.example.com\"", i / 10)).replace("\"shortNames\":[\"fo\"]", "\"shortNames\":[]");
            let created = f.post(DEFINITIONS, &ours).await;
            assert_eq!(created.code, 201, "{}", String::from_utf8_lossy(&created.bytes));
        }
        let mut watches = Vec::new();
        for i in 0..KINDS {
            let (_, path) = name(i);
            until(&f, &path, |code, _| code == 200).await;
            let object = foo("a", r#"{"size":1}"#).replace("example.com", &format!("g{}.example.com", i / 10)).replace("Foo", &format!("Foo{i}"));
            assert_eq!(f.post(&path, &object).await.code, 201);
            if i % 10 == 0 {
                watches.push(f.watch(&format!("{path}?watch=1")).await);
                assert_eq!(f.get(&format!("/openapi/v3/apis/g{}.example.com/v1", i / 10)).await.code, 200);
            }
        }
        for i in 0..KINDS {
            assert_eq!(f.delete(&format!("{DEFINITIONS}/{}", name(i).0)).await.code, 200);
        }
        for i in 0..KINDS {
            until(&f, &format!("{DEFINITIONS}/{}", name(i).0), |code, _| code == 404).await;
        }
        for mut watch in watches {
            while watch.next().await.is_some() {}
        }
        // As it is done after half a minute.
        assert!(!cache.forget_gone(Duration::ZERO));
        f.server.0.metrics.forget_gone(cache);
        // Some listeners come with the first request that needs them.
        assert_eq!(cache.counts(), *before.get_or_insert(cache.counts()));
        assert_eq!(cache.counts()[..3], built_in[..3]);
        // Their APIServices are taken away by another task.
        for i in 0..KINDS / 10 {
            until(&f, &format!("/apis/apiregistration.k8s.io/v1/apiservices/v1.g{i}.example.com"), |code, _| code == 404).await;
            until(&f, &format!("/apis/apiregistration.k8s.io/v1/apiservices/v2.g{i}.example.com"), |code, _| code == 404).await;
        }
        let page = f.get("/metrics").await;
        let page = String::from_utf8_lossy(&page.bytes);
        let left: Vec<_> = page.lines().filter(|line| line.contains(".example.com")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
