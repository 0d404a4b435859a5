use super::*;
use crate::tree::Tree;

/// Encodes and decodes; the result must be what JSON says.
#[track_caller]
fn check(json: &str) {
    let tree = Tree::from_json(json.as_bytes()).unwrap();
    let bytes = encode(&tree).unwrap();
    let schema = crate::registry::Registry::get();
    let (group, version) = crate::registry::split_api_version(tree.str_at(&["apiVersion"]));
    let schema = schema.kind_schema(group, version, tree.str_at(&["kind"])).unwrap();
    let through = |tree: Tree| String::from_utf8(crate::schema::decode(schema, tree).unwrap().tree.to_json()).unwrap();
    assert_eq!(through(decode(&bytes, ("", "", "")).unwrap()), through(tree));
}

#[test]
fn objects_survive_the_way_through_protobuf() {
    check(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n","labels":{"a":"b"},"creationTimestamp":"2026-01-02T03:04:05Z"}}"#);
    check(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","generation":3},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"100m"}},
        "livenessProbe":{"httpGet":{"port":"http","path":"/"},"periodSeconds":1},"securityContext":{"runAsUser":0,"privileged":false}}],
        "terminationGracePeriodSeconds":0,"volumes":[{"name":"v","configMap":{"name":"m","defaultMode":420}},{"name":"e","emptyDir":{}}]}}"#);
    check(r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":0,"selector":{"matchLabels":{"a":"b"}},"template":{},
        "strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":0}}}}"#);
    check(r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"k":"AAEC","empty":""},"type":"Opaque"}"#);
    check(r#"{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0,"propagationPolicy":"Foreground","preconditions":{"uid":"u"}}"#);
    check(r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l"},"spec":{"renewTime":"2026-01-02T03:04:05.123456Z","leaseDurationSeconds":40}}"#);
    check(r#"{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"user":"u","extra":{"k":["a","b"]},"resourceAttributes":{"verb":"get"}}}"#);
    check(r#"{"apiVersion":"v1","kind":"PodList","metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#);
}

#[test]
fn broken_bytes_are_errors() {
    assert!(decode(b"{}", ("", "", "")).is_err());
    assert!(decode(b"k8s\0\x12\xff", ("", "v1", "Pod")).is_err());
    assert!(decode(b"k8s\0", ("", "v1", "NoSuchKind")).is_err());
    let mut nested = Vec::new();
    for _ in 0..300 {
        let mut writer = wire::Writer::default();
        writer.bytes(1, &nested);
        nested = writer.0;
    }
    let mut document = wire::Writer(MAGIC.to_vec());
    document.bytes(2, &nested);
    // Deep, but within the schema nothing nests so far: the unknown rest is passed over, and the stack stays whole.
    let _ = decode(&document.0, ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
}
