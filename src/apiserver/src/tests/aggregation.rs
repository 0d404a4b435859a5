//! Requests that are for another server, and what is said of it.
use std::time::Duration;

use api::tree::Tree;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use store::{Durability, Expect, Operation, Write};

use super::https::Https;
use super::{Fixture, fixture_with};
use crate::config::FrontProxy;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.far.example";
const LIST: &str = r#"{"kind":"APIResourceList","groupVersion":"far.example/v1","resources":[{"name":"stars","singularName":"star","namespaced":false,"kind":"Star","verbs":["get","list"]}]}"#;

async fn backend(request: Request<Incoming>) -> Response<Body> {
    let header = |name: &str| request.headers().get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",");
    match request.uri().path() {
        "/apis/far.example/v1" => Response::new(LIST.into()),
        "/apis/far.example/v1/away" => {
            Response::builder().status(302).header("location", "https://elsewhere.example/").body(Body::empty()).unwrap()
        }
        "/apis/far.example/v1/stars" => {
            let who = format!("{} {} {}", header("x-remote-user"), header("x-remote-group"), header("authorization"));
            Response::new(format!("{} {} {who}", request.method(), request.uri()).into())
        }
        _ => Response::builder().status(StatusCode::NOT_FOUND).body("404 page not found".into()).unwrap(),
    }
}

fn front_proxy() -> FrontProxy {
    let folder = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now();
    let cluster = pki::Cluster::load_or_create(folder.path(), "https://issuer", now).unwrap();
    let identity = pki::Identity::new(&cluster.front_proxy(now).unwrap()).unwrap();
    FrontProxy { ca: cluster.request_header_ca.certificate_pem().to_owned(), identity }
}

/// A Service with one endpoint on this machine, which validation would not let through.
async fn service(f: &Fixture, port: u16) {
    let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"far"},"spec":{"ports":[{"name":"https","port":443}]}}"#;
    f.post("/api/v1/namespaces/default/services", service).await.ok();
    let slice = format!(
        r#"{{"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","endpoints":[{{"addresses":["127.0.0.1"]}}],"kind":"EndpointSlice",
        "metadata":{{"labels":{{"kubernetes.io/service-name":"far"}},"name":"far","namespace":"default","uid":"u"}},
        "ports":[{{"name":"https","port":{port}}}]}}"#
    );
    let slice = Tree::from_json(slice.as_bytes()).unwrap().to_json();
    let write = Write {
        key: "/registry/discovery.k8s.io/endpointslices/default/far".into(),
        operation: Operation::Put(slice.into()),
        expect: Expect::Absent,
        durability: Durability::Relaxed,
    };
    f.server.0.parts.store.write(write).await.unwrap();
}

fn api_service(bundle: &str) -> String {
    format!(
        r#"{{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{{"name":"v1.far.example"}},"spec":{{"group":"far.example","version":"v1",
        "groupPriorityMinimum":2000,"versionPriority":10,"caBundle":"{bundle}","service":{{"namespace":"default","name":"far"}}}}}}"#
    )
}

fn available(object: &Tree) -> (String, String, String) {
    let condition = object.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == "Available");
    let text = |key: &str| condition.map_or_else(String::new, |c| c.str_at(&[key]).to_owned());
    (text("status"), text("reason"), text("message"))
}

async fn until(f: &Fixture, reason: &str) -> Tree {
    for _ in 0..500 {
        let object = f.get(SERVICE).await.tree();
        if available(&object).1 == reason {
            return object;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the reason was never {reason}: {:?}", available(&f.get(SERVICE).await.tree()));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_passed_on_once_the_other_server_answers() {
    let far = Https::start("far.default.svc", backend).await;
    let f = fixture_with(Some(front_proxy())).await;
    f.post(SERVICES, &api_service(&far.bundle)).await.ok();
    let object = until(&f, "ServiceNotFound").await;
    assert_eq!(available(&object).2, "service/far in \"default\" is not present");
    let refused = f.get("/apis/far.example/v1/stars").await;
    assert_eq!((refused.code, &refused.bytes[..]), (503, &b"service unavailable\n"[..]));
    service(&f, far.port).await;
    let object = until(&f, "Passed").await;
    assert_eq!(available(&object), ("True".into(), "Passed".into(), "all checks passed".into()));

    let headers = [("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("authorization", "Bearer secret")];
    let answer = f.send_with("GET", "/apis/far.example/v1/stars?a=b", &headers, "").await;
    assert_eq!(String::from_utf8_lossy(&answer.bytes), "GET /apis/far.example/v1/stars?a=b admin system:masters,system:authenticated ");
    let away = f.get("/apis/far.example/v1/away").await;
    assert_eq!((away.code, away.headers.get("location")), (502, None));

    let groups = f.get("/apis").await.ok();
    let names: Vec<&str> = groups.array_at(&["groups"]).iter().map(|g| g.str_at(&["name"])).collect();
    assert_eq!((names[0], names.iter().position(|n| *n == "far.example")), ("apiregistration.k8s.io", Some(names.len() - 2)));
    assert_eq!(f.get("/apis/far.example").await.ok().str_at(&["preferredVersion", "groupVersion"]), "far.example/v1");
    assert_eq!(f.get("/apis/far.example/v1").await.bytes, LIST);
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = f.send_with("GET", "/apis", &accept, "").await.ok();
    let group = all.array_at(&["items"]).iter().find(|g| g.str_at(&["metadata", "name"]) == "far.example").unwrap().clone();
    let version = &group.array_at(&["versions"])[0];
    assert_eq!((version.str_at(&["freshness"]), version.array_at(&["resources"])[0].str_at(&["responseKind", "kind"])), ("Current", "Star"));

    f.delete(SERVICE).await.ok();
    assert_eq!(f.get("/apis/far.example/v1/stars").await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_the_wrong_certificate_is_not_believed() {
    let far = Https::start("near.default.svc", backend).await;
    let f = fixture_with(Some(front_proxy())).await;
    service(&f, far.port).await;
    f.post(SERVICES, &api_service(&far.bundle)).await.ok();
    let object = until(&f, "FailedDiscoveryCheck").await;
    let expected = format!("failing or missing response from https://127.0.0.1:{0}/apis/far.example/v1: Get", far.port);
    assert!(available(&object).2.starts_with(&expected), "{:?}", available(&object));
    assert_eq!(f.get("/apis/far.example/v1/stars").await.code, 503);
    let insecure = r#"{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}"#;
    f.send("PATCH", SERVICE, "application/merge-patch+json", insecure).await.ok();
    until(&f, "Passed").await;
    assert_eq!(f.get("/apis/far.example/v1/stars").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_has_itself_is_registered() {
    let f = fixture_with(None).await;
    let metrics = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
    for _ in 0..500 {
        if f.get(metrics).await.code == 200 && f.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.").await.code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let local = f.get(metrics).await.ok();
    assert_eq!(available(&local), ("True".into(), "Local".into(), "Local APIServices are always available".into()));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = f.send_with("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps", &table, "").await.ok();
    assert_eq!(table.array_at(&["rows"])[0].array_at(&["cells"])[..3], ["v1.apps".into(), "Local".into(), "True".into()]);
}
