use super::*;
use crate::codec::parse_json;
use crate::registry::Registry;

fn decoded(group: &str, version: &str, kind: &str, json: &str) -> Result<Decoded, DecodeError> {
    let schema = Registry::get().kind_schema(group, version, kind).expect("a known kind");
    decode(schema, parse_json(json.as_bytes()).unwrap().tree)
}

#[track_caller]
fn reads(kind: (&str, &str, &str), json: &str, expected: &str) {
    let decoded = decoded(kind.0, kind.1, kind.2, json).unwrap();
    assert_eq!(String::from_utf8(decoded.tree.to_json()).unwrap(), expected);
}

#[track_caller]
fn refuses(kind: (&str, &str, &str), json: &str, message: &str) {
    assert_eq!(decoded(kind.0, kind.1, kind.2, json).unwrap_err().to_string(), message);
}

const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const POD: (&str, &str, &str) = ("", "v1", "Pod");

#[test]
fn every_kind_compiles() {
    fn visit(schema: &Schema, depth: usize) {
        if depth == 0 {
            return;
        }
        schema.fields().iter().for_each(|f| visit(&f.schema, depth - 1));
        schema.items().into_iter().chain(schema.values()).for_each(|s| visit(s, depth - 1));
    }
    let registry = Registry::get();
    for (group, version, kind) in registry.kinds() {
        visit(registry.kind_schema(group, version, kind).expect("listed"), 12);
    }
}

#[test]
fn fields_are_found_by_name_whatever_their_case_order() {
    for (group, version, kind) in Registry::get().kinds() {
        let schema = Registry::get().kind_schema(group, version, kind).expect("listed");
        assert!(schema.fields().windows(2).all(|w| w[0].name < w[1].name), "{kind}");
    }
}

#[test]
fn an_object_is_left_as_gos_struct_would_print_it() {
    reads(
        DEPLOYMENT,
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","labels":{}},"spec":{"paused":false,"replicas":0,"selector":null,
            "template":{"spec":{"hostNetwork":false,"containers":[{"name":"c","resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}},"args":[]}]}}}}"#,
        concat!(
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"replicas":0,"selector":null,"strategy":{},"#,
            r#""template":{"metadata":{},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"500m","memory":"1Gi"}}}]}}},"status":{}}"#
        ),
    );
    reads(("", "v1", "ConfigMap"), r#"{"data":{"a":null,"b":"x"}}"#, r#"{"data":{"a":"","b":"x"},"metadata":{}}"#);
    reads(("rbac.authorization.k8s.io", "v1", "Role"), r#"{"metadata":{"name":"r"}}"#, r#"{"metadata":{"name":"r"},"rules":null}"#);
    reads(
        POD,
        r#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05.678+01:00"}}"#,
        r#"{"metadata":{"creationTimestamp":"2026-01-02T02:04:05Z"},"spec":{"containers":null},"status":{}}"#,
    );
}

#[test]
fn unknown_fields_are_dropped_and_named() {
    let decoded = decoded("", "v1", "Pod", r#"{"foo":1,"spec":{"containers":[{"name":"a","imagee":"x"}],"bar":null}}"#).unwrap();
    assert_eq!(decoded.unknown, [r#"unknown field "foo""#, r#"unknown field "spec.bar""#, r#"unknown field "spec.containers[0].imagee""#]);
    assert_eq!(decoded.tree.get("foo"), None);
}

#[test]
fn wrong_types_are_refused_in_gos_words() {
    refuses(
        DEPLOYMENT,
        r#"{"spec":{"replicas":"3"}}"#,
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refuses(
        DEPLOYMENT,
        r#"{"spec":{"replicas":99999999999}}"#,
        "json: cannot unmarshal number 99999999999 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refuses(
        POD,
        r#"{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}"#,
        "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
    );
    refuses(
        POD,
        r#"{"spec":{"containers":{}}}"#,
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    refuses(
        POD,
        r#"{"metadata":{"labels":{"a":1}}}"#,
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    );
    refuses(
        POD,
        r#"{"spec":{"volumes":[{"emptyDir":"x"}]}}"#,
        "json: cannot unmarshal string into Go struct field Volume.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource",
    );
    refuses(POD, r#"[]"#, "json: cannot unmarshal array into Go value of type v1.Pod");
    refuses(
        POD,
        r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":true}}}]}}"#,
        "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
    );
    refuses(
        POD,
        r#"{"metadata":{"creationTimestamp":5}}"#,
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
    );
    refuses(
        DEPLOYMENT,
        r#"{"spec":{"replicas":1.0}}"#,
        "json: cannot unmarshal number 1.0 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refuses(
        POD,
        r#"{"spec":{"containers":["a"]}}"#,
        "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
    );
    refuses(
        POD,
        r#"{"spec":{"containers":[{"command":[1]}]}}"#,
        "json: cannot unmarshal number into Go struct field Container.spec.containers.command of type string",
    );
    refuses(
        ("", "v1", "Secret"),
        r#"{"data":5}"#,
        "json: cannot unmarshal number into Go struct field Secret.data of type map[string][]uint8",
    );
    refuses(("", "v1", "Secret"), r#"{"data":{"a":"x!"}}"#, "illegal base64 data at input byte 1");
    refuses(("", "v1", "Secret"), r#"{"data":{"a":"abc"}}"#, "illegal base64 data at input byte 0");
}

#[test]
fn times_are_refused_in_gos_words() {
    let layout = "2006-01-02T15:04:05Z07:00";
    for (text, message) in [
        ("yesterday", format!(r#" as "{layout}": cannot parse "yesterday" as "2006""#)),
        ("2026-13-01T00:00:00Z", ": month out of range".into()),
        ("2026-02-30T00:00:00Z", ": day out of range".into()),
        ("2026-02-03", format!(r#" as "{layout}": cannot parse "" as "T""#)),
        ("2026-02-03T00:00:00+0100", format!(r#" as "{layout}": cannot parse "+0100" as "Z07:00""#)),
        ("2026-02-03T00:00:00Zx", r#": extra text: "x""#.into()),
    ] {
        let json = format!(r#"{{"metadata":{{"creationTimestamp":"{text}"}}}}"#);
        refuses(POD, &json, &format!(r#"parsing time "{text}"{message}"#));
    }
    refuses(
        ("coordination.k8s.io", "v1", "Lease"),
        r#"{"spec":{"renewTime":"2026-02-03T00:00:00Z"}}"#,
        r#"parsing time "2026-02-03T00:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
    );
}

#[test]
fn strict_errors_leave_out_what_lies_under_unknown_fields() {
    let parsed = parse_json(br#"{"spec":{"foo":1,"foo":2,"containers":[{"name":"a","name":"b","x":1}]},"bar":{"a":1,"a":1}}"#).unwrap();
    let schema = Registry::get().kind_schema("", "v1", "Pod").unwrap();
    let unknown = decode(schema, parsed.tree).unwrap().unknown;
    assert_eq!(
        crate::codec::strict_errors(parsed.duplicates, unknown),
        [
            r#"duplicate field "spec.containers[0].name""#,
            r#"unknown field "bar""#,
            r#"unknown field "spec.containers[0].x""#,
            r#"unknown field "spec.foo""#
        ]
    );
}

#[test]
fn merge_keys_and_list_types_come_from_the_struct_tags() {
    let pod = Registry::get().kind_schema("", "v1", "Pod").unwrap();
    let containers = pod.at(&["spec", "containers"]).unwrap();
    assert_eq!((containers.patch_merge_key(), containers.list_type()), (Some("name"), Some(ListType::Map)));
    assert!(containers.patch_strategy().merge && !containers.patch_strategy().retain_keys);
    assert!(pod.at(&["spec", "volumes"]).unwrap().patch_strategy().retain_keys);
    assert_eq!(pod.at(&["spec", "containers", "ports"]).unwrap().map_keys(), ["containerPort", "protocol"]);
    assert!(pod.at(&["spec", "nodeSelector"]).unwrap().is_atomic_map());
}

/// Upstream's own round-trip samples, every field of every kind filled: `K8S_TESTDATA=$(go list -m -f {{.Dir}} k8s.io/api)/testdata/HEAD`.
#[test]
fn upstreams_samples_come_back_as_they_are() {
    let Some(folder) = std::env::var_os("K8S_TESTDATA") else { return };
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let sample = parse_json(&std::fs::read(&entry).unwrap()).unwrap().tree;
        let (group, version) = crate::registry::split_api_version(sample.str_at(&["apiVersion"]));
        // Discovery's own kinds and watch events are never decoded.
        let Some(schema) = Registry::get().kind_schema(group, version, sample.str_at(&["kind"])) else { continue };
        count += 1;
        match decode(schema, sample.clone()) {
            Err(error) => wrong.push(format!("{}: {error}", entry.display())),
            Ok(decoded) if !decoded.unknown.is_empty() => wrong.push(format!("{}: {:?}", entry.display(), decoded.unknown)),
            Ok(decoded) if decoded.tree != sample => {
                let mut differences = Vec::new();
                differ(&sample, &decoded.tree, String::new(), &mut differences);
                wrong.push(format!("{}: {differences:?}", entry.display()));
            }
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {count}\n{}", wrong.len(), wrong.join("\n"));
}

fn differ(a: &Tree, b: &Tree, path: String, out: &mut Vec<String>) {
    match (a, b) {
        (Tree::Object(x), Tree::Object(y)) => {
            for (key, value) in x.iter() {
                differ(value, y.get(key).unwrap_or(&Tree::Null), format!("{path}.{key}"), out);
            }
            y.keys().filter(|key| !x.contains_key(key)).for_each(|key| out.push(format!("{path}.{key} added")));
        }
        (Tree::Array(x), Tree::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).enumerate().for_each(|(i, (x, y))| differ(x, y, format!("{path}[{i}]"), out));
        }
        (a, b) if a != b => out.push(format!("{path}: {a:?} became {b:?}")),
        _ => {}
    }
}
