use super::*;
use crate::registry::{Registry, split_api_version};
use crate::tree::Tree;

/// Encodes and decodes; the result must be what JSON says.
#[track_caller]
fn check(json: &str) {
    let tree = Tree::from_json(json.as_bytes()).unwrap();
    let bytes = encode(json.as_bytes()).unwrap();
    let (group, version) = split_api_version(tree.str_at(&["apiVersion"]));
    let schema = Registry::get().kind_schema(group, version, tree.str_at(&["kind"])).unwrap();
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
    check(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"e"},"data":{"t":"a\n\"b\"\t\\ \u00e9\ud83d\ude00\u001f/"},"binaryData":{}}"#);
    check(r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"e","managedFields":[{"fieldsV1":{"f:metadata":{"f:labels":{}}}}]}}"#);
}

#[test]
fn zeros_that_mean_something_stay() {
    check(r#"{"apiVersion":"v1","kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"a","singularName":"","namespaced":true,"kind":"A","verbs":["get","list"]}]}"#);
    check(r#"{"apiVersion":"v1","kind":"Service","spec":{"ports":[{"port":80,"targetPort":""}]}}"#);
    check(r#"{"apiVersion":"v1","kind":"Service","spec":{"ports":[{"port":80,"targetPort":0}]}}"#);
}

#[test]
fn a_message_longer_than_its_first_guess_is_moved() {
    let text = "x".repeat(70_000);
    check(&format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"e"}},"data":{{"a":"{text}","b":"{}"}}}}"#, &text[..200]));
}

#[test]
fn schemas_of_definitions_survive_in_all_their_forms() {
    check(r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","spec":{"group":"g","names":{"kind":"K","plural":"ks"},"scope":"Cluster","versions":[
        {"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","additionalProperties":true,"properties":{
        "a":{"type":"array","items":{"type":"string","default":"x","enum":["x",1,null]}},"b":{"additionalProperties":{"type":"integer","maximum":1.5}},
        "c":{"items":[{"type":"string"}],"additionalProperties":false,"dependencies":{"p":["q"],"r":{"type":"string"}}}}}}}]}}"#);
}

#[test]
fn metadata_alone_is_read_out_of_the_whole_object() {
    let form = Form::of("meta.k8s.io", "v1", "PartialObjectMetadata").unwrap();
    let json = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"}"}]},"status":{}}"#;
    let document = form.document("meta.k8s.io/v1", "PartialObjectMetadata", json).unwrap();
    let tree = decode(&document, ("", "", "")).unwrap();
    assert_eq!(tree.to_json(), br#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"p"}}"#);
}

#[test]
fn a_list_in_pieces_is_the_list() {
    let items = [r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"name":"b"},"data":{"k":"v"}}"#];
    let list = ListForm::of("", "v1", "ConfigMapList").unwrap();
    let form = Form::of("", "v1", "ConfigMap").unwrap();
    let messages = items.map(|item| {
        let mut message = Vec::new();
        form.message(item.as_bytes(), &mut message).unwrap();
        message
    });
    let framed = messages.iter().map(|m| list.framed(m.len())).sum();
    let mut document = list.begin(br#"{"metadata":{"resourceVersion":"7"}}"#, framed).unwrap();
    for message in &messages {
        list.frame(&mut document, message.len());
        document.extend_from_slice(message);
    }
    document.extend_from_slice(list.end());
    let whole = format!(r#"{{"apiVersion":"v1","kind":"ConfigMapList","metadata":{{"resourceVersion":"7"}},"items":[{}]}}"#, items.join(","));
    assert_eq!(document, encode(whole.as_bytes()).unwrap());
}

#[test]
fn an_event_stands_behind_its_length() {
    let mut out = Vec::new();
    watch_event(&mut out, "ADDED", b"k8s\0");
    assert_eq!(out, b"\0\0\0\x0f\x0a\x05ADDED\x12\x06\x0a\x04k8s\0");
}

#[test]
fn what_does_not_fit_is_an_error() {
    let fails = |json: &str| encode(json.as_bytes()).unwrap_err().to_string();
    assert_eq!(fails(r#"{"apiVersion":"v1","kind":"Pod","spec":{"hostNetwork":"yes"}}"#), "malformed JSON at byte 54");
    assert_eq!(fails(r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":"c"}}"#), "field containers does not fit its schema");
    assert_eq!(fails(r#"{"apiVersion":"v1","kind":"Secret","data":{"k":"%"}}"#), "field data does not fit its schema");
    assert_eq!(fails(r#"{"apiVersion":"v9","kind":"Pod"}"#), r#"no kind "Pod" is registered for version "v9""#);
    assert!(fails(r#"{"apiVersion":"v1","kind":"Pod","spec":{"#).starts_with("malformed JSON"));
    assert!(Form::of("meta.k8s.io", "v1", "Table").is_none());
}

#[test]
fn broken_bytes_are_errors() {
    assert!(decode(b"{}", ("", "", "")).is_err());
    assert!(decode(b"k8s\0\x12\xff", ("", "v1", "Pod")).is_err());
    assert!(decode(b"k8s\0", ("", "v1", "NoSuchKind")).is_err());
    let mut nested = Vec::new();
    for _ in 0..300 {
        let mut outer = Vec::new();
        wire::Writer(&mut outer).bytes(1, &nested);
        nested = outer;
    }
    let mut document = MAGIC.to_vec();
    wire::Writer(&mut document).bytes(2, &nested);
    // Deep, but within the schema nothing nests so far: the unknown rest is passed over, and the stack stays whole.
    let _ = decode(&document, ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
}

#[test]
fn a_long_map_may_come_in_any_order() {
    crate::pace::in_a_pass(|| {
        let mut map = Vec::new();
        for i in (0..100_000).rev() {
            let key = format!("k{i:06}");
            let entry = [&[10, key.len() as u8][..], key.as_bytes(), &[18, 0]].concat();
            map.extend([&[18, entry.len() as u8][..], &entry].concat());
        }
        let mut document = [&MAGIC[..], &[10, 15, 10, 2, b'v', b'1', 18, 9], b"ConfigMap", &[18]].concat();
        let mut length = map.len();
        while length >= 0x80 {
            document.push(length as u8 | 0x80);
            length >>= 7;
        }
        document.push(length as u8);
        document.extend(map);
        let tree = decode(&document, ("", "v1", "Pod")).unwrap();
        assert_eq!(tree.at(&["data"]).unwrap().as_object().unwrap().len(), 100_000);
    });
}
