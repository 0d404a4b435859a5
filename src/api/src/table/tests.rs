use super::*;
use crate::registry::Registry;

const NOW: &str = "2026-01-01T01:00:00Z";

fn cells(group: &str, version: &str, plural: &str, json: &str) -> String {
    let resource = Registry::get().resource(group, version, plural).expect("known");
    let cells = row(resource, json.as_bytes(), NOW.parse().unwrap()).unwrap().cells;
    let whole = Tree::from_json(json.as_bytes()).unwrap();
    assert_eq!(cells, super::cells(resource, &whole, NOW.parse().unwrap()), "a printer reads what is not wanted");
    assert_eq!(cells.len(), columns(resource).len());
    let shown = cells.iter().map(|cell| match cell {
        Tree::String(text) => text.to_string(),
        other => String::from_utf8(other.to_json()).unwrap(),
    });
    shown.collect::<Vec<_>>().join(" | ")
}

#[test]
fn every_table_has_a_cell_for_each_column() {
    for resource in Registry::get().served().filter(|r| r.has_verb("list")) {
        let cells = row(resource, b"{}", NOW.parse().unwrap()).unwrap().cells;
        assert_eq!(cells.len(), columns(resource).len(), "{}", resource.group_resource());
    }
}

#[test]
fn durations_read_as_upstreams() {
    for (seconds, shown) in [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_400, "3h10m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (176_400, "2d1h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (63_158_400, "2y1d"),
        (252_288_000, "8y"),
    ] {
        assert_eq!(human_duration(jiff::SignedDuration::from_secs(seconds)), shown, "{seconds}");
    }
}

#[track_caller]
fn pod(spec: &str, status: &str, shown: &str) {
    let json = format!(r#"{{"metadata":{{"name":"p","creationTimestamp":"2026-01-01T00:55:00Z"}},"spec":{spec},"status":{status}}}"#);
    assert_eq!(cells("", "v1", "pods", &json), shown);
}

#[test]
fn a_pods_status_says_what_holds_it_up() {
    let spec = r#"{"containers":[{"name":"a"}],"nodeName":"n"}"#;
    let init = r#"{"containers":[{"name":"a"}],"initContainers":[{"name":"i"},{"name":"s","restartPolicy":"Always"}]}"#;
    pod(
        spec,
        r#"{"phase":"Running","podIPs":[{"ip":"10.42.0.5"}],"containerStatuses":[{"name":"a","ready":true,"restartCount":2,"state":{"running":{}},
            "lastState":{"terminated":{"finishedAt":"2026-01-01T00:58:00Z"}}}]}"#,
        "p | 1/1 | Running | 2 (2m ago) | 5m | 10.42.0.5 | n | <none> | <none>",
    );
    pod(
        spec,
        r#"{"phase":"Pending","containerStatuses":[{"name":"a","state":{"waiting":{"reason":"ImagePullBackOff"}}}]}"#,
        "p | 0/1 | ImagePullBackOff | 0 | 5m | <none> | n | <none> | <none>",
    );
    pod(
        init,
        r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"running":{}}}],
            "containerStatuses":[{"name":"a","state":{"waiting":{"reason":"PodInitializing"}}}]}"#,
        "p | 0/2 | Init:0/2 | 0 | 5m | <none> | <none> | <none> | <none>",
    );
    pod(
        init,
        r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","restartCount":1,"state":{"terminated":{"exitCode":3}}}]}"#,
        "p | 0/2 | Init:ExitCode:3 | 1 | 5m | <none> | <none> | <none> | <none>",
    );
    pod(
        init,
        r#"{"phase":"Running","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":0}}},{"name":"s","started":true,"ready":true,
            "state":{"running":{}}}],"containerStatuses":[{"name":"a","ready":true,"state":{"running":{}}}]}"#,
        "p | 2/2 | Running | 0 | 5m | <none> | <none> | <none> | <none>",
    );
    pod(
        spec,
        r#"{"phase":"Failed","containerStatuses":[{"name":"a","state":{"terminated":{"exitCode":1,"reason":"Error"}}}]}"#,
        "p | 0/1 | Error | 0 | 5m | <none> | n | <none> | <none>",
    );
    let deleting = r#"{"metadata":{"name":"p","deletionTimestamp":"2026-01-01T00:59:00Z"},"status":{"phase":"Running"}}"#;
    assert_eq!(cells("", "v1", "pods", deleting), "p | 0/0 | Terminating | 0 | <unknown> | <none> | <none> | <none> | <none>");
}

#[test]
fn services_and_workloads_read_as_upstreams() {
    let service = r#"{"metadata":{"name":"s"},"spec":{"type":"LoadBalancer","clusterIPs":["10.43.0.9"],"selector":{"b":"2","a":"1"},
        "ports":[{"port":80,"nodePort":30080,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]},"status":{}}"#;
    assert_eq!(
        cells("", "v1", "services", service),
        "s | LoadBalancer | 10.43.0.9 | <pending> | 80:30080/TCP,53/UDP | <unknown> | a=1,b=2"
    );
    let deployment = r#"{"metadata":{"name":"d"},"spec":{"replicas":3,"selector":{"matchLabels":{"a":"1"}},
        "template":{"spec":{"containers":[{"name":"x","image":"i:1"},{"name":"y","image":"j"}]}}},"status":{"readyReplicas":2,"updatedReplicas":3}}"#;
    assert_eq!(cells("apps", "v1", "deployments", deployment), "d | 2/3 | 3 | 0 | <unknown> | x,y | i:1,j | a=1");
    let event = r#"{"metadata":{"name":"e"},"type":"Normal","reason":"Started","message":" hi ","involvedObject":{"kind":"Pod","name":"p"},
        "lastTimestamp":"2026-01-01T00:59:30Z","firstTimestamp":"2026-01-01T00:59:00Z","source":{"component":"kubelet","host":"n"}}"#;
    assert_eq!(cells("", "v1", "events", event), "30s | Normal | Started | pod/p |  | kubelet, n | hi | 60s | 1 | e");
    let node = r#"{"metadata":{"name":"n","labels":{"node-role.kubernetes.io/control-plane":"true"}},"spec":{"unschedulable":true},"status":{
        "conditions":[{"type":"Ready","status":"True"}],"nodeInfo":{"kubeletVersion":"v1.37.1","kernelVersion":"6.18","architecture":"amd64"}}}"#;
    assert_eq!(
        cells("", "v1", "nodes", node),
        "n | Ready,SchedulingDisabled | control-plane | <unknown> | v1.37.1 | <none> | <none> | <unknown> | 6.18 (amd64) | <unknown>"
    );
}

#[test]
fn columns_of_custom_kinds_are_made_of_what_their_paths_lead_to() {
    let columns = [
        ("string", ".spec.image"), ("integer", ".spec.replicas"), ("date", ".metadata.creationTimestamp"), ("string", ".spec.ports[0].name"),
        ("string", r#".status.conditions[?(@.type==\"Ready\")].status"#), ("string", ".spec"), ("string", ".spec.image.more"), ("string", r".metadata.labels.a\\.b"),
    ];
    let columns = columns.map(|(kind, path)| format!(r#"{{"name":"c","type":"{kind}","jsonPath":"{path}"}}"#)).join(",");
    let definition = format!(
        r#"{{"metadata":{{"name":"foos.g.io"}},"spec":{{"group":"g.io","names":{{"plural":"foos","kind":"Foo"}},"versions":[{{"name":"v1","storage":true,
        "additionalPrinterColumns":[{columns}]}}]}}}}"#
    );
    let resource = crate::crd::Definition(&Tree::from_json(definition.as_bytes()).unwrap()).stored().unwrap();
    let json = br#"{"metadata":{"name":"a","labels":{"a.b":"c"},"creationTimestamp":"2026-01-01T00:55:00Z","managedFields":[{}]},"spec":{"image":"i","replicas":3,
        "ports":[{"name":"http"}]},"status":{"conditions":[{"type":"Other","status":"False"},{"type":"Ready","status":"True"}]}}"#;
    let shown = row(&resource, json, NOW.parse().unwrap()).unwrap();
    assert_eq!(shown.cells, super::cells(&resource, &Tree::from_json(json).unwrap(), NOW.parse().unwrap()));
    let text: Vec<String> = shown.cells.iter().map(|cell| String::from_utf8(cell.to_json()).unwrap()).collect();
    assert_eq!(
        text.join(" "),
        r#""a" "i" 3 "5m" "http" "True" "{\"image\":\"i\",\"ports\":[{\"name\":\"http\"}],\"replicas\":3}" null "c""#
    );
}
