mod devices;
mod long;

use super::*;
use crate::defaults;

/// Reads `yaml` and fills in what every object has, and its defaults.
fn object(group: &str, kind: &str, namespaced: bool, yaml: &str) -> Tree {
    let mut object: Tree = serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    if object.at(&["metadata", "name"]).is_none() {
        object.set(&["metadata", "name"], "x");
    }
    if namespaced && object.at(&["metadata", "namespace"]).is_none() {
        object.set(&["metadata", "namespace"], "ns");
    }
    let version = if group == "autoscaling" { "v2" } else { "v1" };
    defaults::apply_kind(group, version, kind, &mut object);
    object
}

#[track_caller]
fn compare(errors: Vec<FieldError>, expected: &[&str], what: &str) {
    // Only the first line of a report is stable.
    let texts: Vec<String> = errors.iter().map(|e| e.to_string().lines().next().unwrap_or("").to_owned()).collect();
    assert_eq!(texts, expected, "{what}");
}

#[track_caller]
fn check(group: &str, kind: &str, namespaced: bool, yaml: &str, expected: &[&str]) {
    let new = object(group, kind, namespaced, yaml);
    compare(validate_kind(group, kind, namespaced, &new, None), expected, yaml);
}

#[track_caller]
fn check_update(group: &str, kind: &str, namespaced: bool, old: &str, new: &str, expected: &[&str]) {
    let prepare = |yaml| {
        let mut object = object(group, kind, namespaced, yaml);
        object.set(&["metadata", "resourceVersion"], "1");
        object
    };
    let (old, new) = (prepare(old), prepare(new));
    compare(validate_kind(group, kind, namespaced, &new, Some(&old)), expected, &String::from_utf8_lossy(&new.to_json()));
}

/// A pod whose only container, and whose spec, have these fields besides.
fn pod(container: &str, spec: &str) -> String {
    let join = |a: &str, b: &str| if b.is_empty() { a.to_owned() } else { format!("{a}, {b}") };
    let base = if container.contains("image:") { "name: a" } else { "name: a, image: a" };
    let container = join(base, container);
    format!("{{spec: {{{}}}}}", join(&format!("containers: [{{{container}}}]"), spec))
}

#[track_caller]
fn check_pod(container: &str, spec: &str, expected: &[&str]) {
    check("", "Pod", true, &pod(container, spec), expected);
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

#[test]
fn metadata_is_checked_for_every_kind() {
    let check = |yaml: &str, expected: &[&str]| check("", "ConfigMap", true, yaml, expected);
    check("{}", &[]);
    check("{metadata: {name: A}}", &[&format!("metadata.name: Invalid value: \"A\": {SUBDOMAIN}")]);
    check("{metadata: {name: ''}}", &["metadata.name: Required value: name or generateName is required"]);
    check("{metadata: {namespace: a.b}}", &["metadata.namespace: Invalid value: \"a.b\": must not contain dots"]);
    check(
        "{metadata: {labels: {a b: c}, annotations: {'': x}}}",
        &[
            "metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "metadata.annotations: Invalid value: \"\": name part must be non-empty",
            "metadata.annotations: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
    check(
        "{metadata: {finalizers: [x]}}",
        &["metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified"],
    );
    check(
        "{metadata: {ownerReferences: [{apiVersion: v1, kind: A, name: b}]}}",
        &["metadata.ownerReferences[0].uid: Required value: must not be empty"],
    );
    super::tests::check("", "Node", false, "{metadata: {namespace: a}}", &["metadata.namespace: Forbidden: not allowed on this type"]);
}

#[test]
fn what_identifies_an_object_does_not_change() {
    check_update(
        "",
        "ConfigMap",
        true,
        "{metadata: {name: a, uid: u}}",
        "{metadata: {name: b, uid: v}}",
        &["metadata.name: Invalid value: \"b\": field is immutable", "metadata.uid: Invalid value: \"v\": field is immutable"],
    );
    check_update(
        "",
        "ConfigMap",
        true,
        "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [a/b]}}",
        "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [a/b, c/d]}}",
        &["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}"],
    );
}

#[test]
fn a_good_pod_passes() {
    check_pod("", "", &[]);
    check_pod(
        "ports: [{name: http, containerPort: 80}], env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['a']\"}}}], volumeMounts: [{name: v, mountPath: /v}], resources: {limits: {cpu: 1, memory: 1Gi}}, livenessProbe: {exec: {command: [x]}}, securityContext: {runAsUser: 1}",
        "volumes: [{name: v, configMap: {name: c}}], tolerations: [{operator: Exists}], topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}], initContainers: [{name: i, image: i, restartPolicy: Always}], nodeSelector: {a: b}",
        &[],
    );
}

#[test]
fn containers_are_checked() {
    check("", "Pod", true, "{spec: {containers: []}}", &["spec.containers: Required value"]);
    check("", "Pod", true, "{spec: {containers: [{name: A_, image: ''}]}}", &[&format!("spec.containers[0].name: Invalid value: \"A_\": {LABEL}"), "spec.containers[0].image: Required value"]);
    check("", "Pod", true, "{spec: {containers: [{name: a, image: a}, {name: a, image: ' b'}]}}", &["spec.containers[1].name: Duplicate value: \"a\"", "spec.containers[1].image: Invalid value: \" b\": must not have leading or trailing whitespace"]);
    check_pod("imagePullPolicy: Sometimes", "", &["spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\""]);
    check_pod(
        "ports: [{containerPort: 70000, protocol: ICMP}, {name: a--b}]",
        "",
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].ports[1].name: Invalid value: \"a--b\": must not contain consecutive hyphens",
            "spec.containers[0].ports[1].containerPort: Required value",
        ],
    );
    check_pod("env: [{name: A=B}, {value: x}]", "", &["spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='", "spec.containers[0].env[1].name: Required value"]);
    check_pod("env: [{name: A, value: x, valueFrom: {secretKeyRef: {name: s, key: k}}}]", "", &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"]);
    check_pod("env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.x}}}]", "", &["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x"]);
    check_pod("volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /a, subPath: ../x}]", "volumes: [{name: v}]", &["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique", "spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'"]);
    check_pod("volumeMounts: [{name: v, mountPath: /a}]", "", &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]);
    check_pod("readinessProbe: {}, livenessProbe: {tcpSocket: {port: 0}, successThreshold: 2}", "", &["spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive", "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1", "spec.containers[0].readinessProbe: Required value: must specify a handler type"]);
    check_pod("lifecycle: {preStop: {sleep: {seconds: 60}}}", "", &["spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than terminationGracePeriodSeconds (30)"]);
    check_pod("", "initContainers: [{name: a, image: i, livenessProbe: {exec: {command: [x]}}}]", &["spec.initContainers[0].name: Duplicate value: \"a\"", "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"]);
    check_pod("ports: [{containerPort: 1, hostPort: 5}, {containerPort: 2, hostPort: 5}]", "", &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\""]);
}

#[test]
fn resources_are_checked() {
    check_pod("resources: {limits: {cpu: 1}, requests: {cpu: 2}}", "", &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"]);
    check_pod("resources: {limits: {cpu: -1}}", "", &["spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0", "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]);
    check_pod("resources: {requests: {foo: 1}}", "", &["spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified", "spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource for containers"]);
    check_pod("resources: {requests: {a.com/b: 1}}", "", &["spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"]);
    check_pod("resources: {limits: {a.com/b: 500m}}", "", &["spec.containers[0].resources.limits[a.com/b]: Invalid value: \"500m\": must be an integer", "spec.containers[0].resources.requests[a.com/b]: Invalid value: \"500m\": must be an integer"]);
    check_pod("resources: {limits: {hugepages-2Mi: 2Mi}}", "", &["spec.containers[0].resources: Forbidden: HugePages require cpu or memory"]);
}

#[test]
fn the_pod_spec_is_checked() {
    check_pod("", "restartPolicy: Maybe", &["spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\""]);
    check_pod("", "dnsPolicy: None", &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]);
    check_pod("", "hostname: a.b, activeDeadlineSeconds: 0", &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive", "spec.hostname: Invalid value: \"a.b\": must not contain dots"]);
    check_pod("", "volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}, {name: v}]", &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"]);
    check_pod("", "volumes: [{name: v}, {name: v}, {name: p, persistentVolumeClaim: {}}, {name: s, secret: {secretName: s, defaultMode: 512, items: [{key: k, path: /a}]}}]", &["spec.volumes[1].name: Duplicate value: \"v\"", "spec.volumes[2].persistentVolumeClaim.claimName: Required value", "spec.volumes[3].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive", "spec.volumes[3].secret.items[0].path: Invalid value: \"/a\": must be a relative path"]);
    check_pod("", "tolerations: [{operator: Equal, effect: x, tolerationSeconds: 1}]", &["spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"", "spec.tolerations[0].effect: Invalid value: \"x\": effect must be 'NoExecute' when `tolerationSeconds` is set", "spec.tolerations[0].effect: Unsupported value: \"x\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""]);
    check_pod("", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}", &["spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"]);
    check_pod("", "affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, podAffinityTerm: {topologyKey: z}}]}}", &["spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100"]);
    check_pod("", "topologySpreadConstraints: [{maxSkew: 0, whenUnsatisfiable: x}]", &["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero", "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty", "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"x\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\""]);
    check_pod("", "securityContext: {runAsUser: -1, seccompProfile: {type: Localhost}, sysctls: [{name: A}]}", &["spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive", "spec.securityContext.sysctls[0].name: Invalid value: \"A\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$", "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"]);
    check_pod("", "hostAliases: [{ip: x, hostnames: [A]}]", &["spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", &format!("spec.hostAliases[0].hostnames[0]: Invalid value: \"A\": {SUBDOMAIN}")]);
    check_pod("", "ephemeralContainers: [{name: e, image: e}]", &["spec.ephemeralContainers: Forbidden: cannot be set on create"]);
    check_pod("", "resources: {requests: {cpu: 1}, limits: {cpu: 1}}", &[]);
}

#[test]
fn only_few_fields_of_a_pod_may_change() {
    let update = |container: &str, spec: &str, expected: &[&str]| check_update("", "Pod", true, &pod("", "nodeName: n, activeDeadlineSeconds: 5"), &pod(container, spec), expected);
    update("", "nodeName: n, activeDeadlineSeconds: 3, tolerations: [{key: a, operator: Exists}]", &[]);
    update("image: b", "nodeName: n, activeDeadlineSeconds: 5", &[]);
    update("", "nodeName: n, activeDeadlineSeconds: 6", &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"]);
    update("", "nodeName: n", &["spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"]);
    let forbidden = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    update("", "nodeName: m, activeDeadlineSeconds: 5", &[forbidden]);
    update("command: [x]", "nodeName: n, activeDeadlineSeconds: 5", &[forbidden]);
    check_update("", "Pod", true, &pod("", ""), "{spec: {containers: [{name: a, image: a}, {name: b, image: b}]}}", &["spec.containers: Forbidden: pod updates may not add or remove containers"]);
    check_update("", "Pod", true, &pod("", "tolerations: [{key: a, operator: Exists}]"), &pod("", ""), &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]);
    check_update("", "Pod", true, &pod("", "schedulingGates: [{name: a/b}], nodeSelector: {a: b}"), &pod("", "nodeSelector: {a: b, c: d}"), &[]);
    check_update("", "Pod", true, &pod("", "schedulingGates: [{name: a/b}], nodeSelector: {a: b}"), &pod("", "schedulingGates: [{name: a/b}], nodeSelector: {a: c}"), &["spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"]);
}

#[test]
fn a_forbidden_change_is_shown() {
    let prepare = |spec: &str| {
        let mut pod = object("", "Pod", true, &pod("", spec));
        pod.set(&["metadata", "resourceVersion"], "1");
        pod
    };
    let errors = validate_kind("", "Pod", true, &prepare("nodeName: b"), Some(&prepare("nodeName: a")));
    let text = errors[0].to_string();
    assert!(text.contains("- \tNodeName: \"a\",\n+ \tNodeName: \"b\",\n"), "{text}");
}

#[test]
fn subresources_of_pods_have_their_own_rules() {
    let prepare = |yaml: &str| {
        let mut pod = object("", "Pod", true, yaml);
        pod.set(&["metadata", "resourceVersion"], "1");
        pod
    };
    compare(validate_ephemeral_containers(&prepare(&pod("", "ephemeralContainers: [{name: e, image: e}]")), &prepare(&pod("", ""))), &[], "added");
    compare(validate_ephemeral_containers(&prepare(&pod("", "")), &prepare(&pod("", "ephemeralContainers: [{name: e, image: e}]"))), &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed"], "removed");
    compare(validate_binding(&Tree::from_json(br#"{"target":{"kind":"Pod"}}"#).unwrap()), &["target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"", "target.name: Required value"], "binding");
    let status = |restart: &str, state: &str| prepare(&format!("{{spec: {{restartPolicy: {restart}, containers: [{{name: a, image: a}}]}}, status: {{containerStatuses: [{{name: a, state: {state}}}]}}}}"));
    compare(validate_status_kind("", "Pod", &status("Never", "{running: {}}"), &status("Never", "{terminated: {exitCode: 1}}")), &["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"], "status");
    compare(validate_status_kind("", "Pod", &status("OnFailure", "{running: {}}"), &status("OnFailure", "{terminated: {exitCode: 1}}")), &[], "status");
}

#[test]
fn a_resize_changes_amounts_of_cpu_and_memory_only() {
    let prepare = |yaml: &str| {
        let mut pod = object("", "Pod", true, yaml);
        pod.set(&["metadata", "resourceVersion"], "1");
        pod
    };
    let resize = |old: &str, new: &str, expected: &[&str]| compare(validate_resize(&prepare(new), &prepare(old)), expected, new);
    let old = pod("resources: {requests: {cpu: 1}}", "");
    resize(&old, &pod("resources: {requests: {cpu: 2}}", ""), &[]);
    resize(&old, &pod("resources: {requests: {cpu: 2, memory: 1Gi}, limits: {memory: 2Gi}}", ""), &[]);
    resize(&old, &pod("", ""), &["spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing", "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]);
    resize(&old, &pod("resources: {requests: {cpu: 2}}, image: b", ""), &["spec: Forbidden: only cpu and memory resources are mutable"]);
    resize(&old, &pod("resources: {requests: {cpu: 2, ephemeral-storage: 1Gi}}", ""), &["spec: Forbidden: only cpu and memory resources are mutable"]);
    let two = |extra: &str| format!("{{spec: {{containers: [{{name: a, image: a, resources: {{requests: {{cpu: 1}}}}}}{extra}]}}}}");
    resize(&old, &two(", {name: b, image: b}"), &["spec.containers: Forbidden: containers may not be added or removed on resize"]);
    let init = |container: &str| format!("{{spec: {{initContainers: [{{name: i, image: i{container}}}], containers: [{{name: a, image: a, resources: {{requests: {{cpu: 1}}}}}}]}}}}");
    resize(&init(", resources: {requests: {cpu: 1}}"), &init(", resources: {requests: {cpu: 2}}"), &[]);
    resize(&init(""), &init(", resources: {requests: {cpu: 2}}, command: [x]"), &["spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable"]);
    let level = |resources: &str| pod("", &format!("resources: {resources}"));
    resize(&level("{requests: {cpu: 1}}"), &level("{requests: {cpu: 2, memory: 1Gi}}"), &[]);
    resize(&level("{requests: {cpu: 1, memory: 1Gi}}"), &level("{requests: {cpu: 2}}"), &["spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"]);
    let status = |state: &str| format!("{{spec: {{containers: [{{name: a, image: a, resources: {{requests: {{cpu: 1}}}}}}]}}, status: {{containerStatuses: [{{name: a, {state}}}]}}}}");
    resize(&status("state: {running: {}}"), &pod("resources: {requests: {cpu: 2}}", ""), &["spec: Forbidden: Pod running on node without support for resize"]);
    resize(&status("state: {running: {}}, resources: {}"), &pod("resources: {requests: {cpu: 2}}", ""), &[]);
}

#[test]
fn autoscalers_are_checked() {
    let check_spec = |spec: &str, expected: &[&str]| check("autoscaling", "HorizontalPodAutoscaler", true, &format!("{{spec: {{scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}, {spec}}}}}"), expected);
    let cpu = "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}";
    check_spec("maxReplicas: 3", &[]);
    check_spec(&format!("minReplicas: 2, maxReplicas: 3, metrics: [{cpu}], behavior: {{scaleDown: {{stabilizationWindowSeconds: 0, tolerance: 200m}}}}"), &[]);
    check_spec("minReplicas: 5, maxReplicas: 3", &["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"]);
    check_spec(&format!("minReplicas: 0, maxReplicas: 3, metrics: [{cpu}]"), &["spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas"]);
    check_spec("minReplicas: 0, maxReplicas: 3, metrics: [{type: External, external: {metric: {name: q}, target: {type: Value, value: 1}}}]", &[]);
    check_spec("maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 0}}}]", &["spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0"]);
    check_spec("maxReplicas: 3, metrics: [{type: Pods, resource: {name: cpu, target: {type: Value, averageValue: '-1'}}}]", &["spec.metrics[0].resource.target.averageValue: Invalid value: \"-1\": must be positive", "spec.metrics[0].pods: Required value: must populate information for the given metric source"]);
    check_spec("maxReplicas: 3, behavior: {scaleUp: {selectPolicy: Most, stabilizationWindowSeconds: 3601, policies: [{type: Pods, value: 0, periodSeconds: 1801}]}}", &["spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600", "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Most\": supported values: \"Disabled\", \"Max\", \"Min\"", "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero", "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"]);
    check("autoscaling", "HorizontalPodAutoscaler", true, "{spec: {maxReplicas: 0, scaleTargetRef: {kind: Deployment}}}", &["spec.maxReplicas: Required value", "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`", "spec.scaleTargetRef.name: Required value", "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group"]);
}

const TEMPLATE: &str = "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}";

#[test]
fn workloads_are_checked() {
    let deployment = |spec: &str, expected: &[&str]| check("apps", "Deployment", true, &format!("{{spec: {{{spec}}}}}"), expected);
    deployment(&format!("selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}"), &[]);
    deployment(&format!("replicas: -1, selector: {{matchLabels: {{a: c}}}}, {TEMPLATE}"), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0", "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"]);
    deployment(TEMPLATE, &["spec.selector: Required value", "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"]);
    deployment(&format!("selector: {{}}, {TEMPLATE}"), &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]);
    deployment(&format!("strategy: {{type: x}}, selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}"), &["spec.strategy: Unsupported value: {\"type\":\"x\"}: supported values: \"Recreate\", \"RollingUpdate\""]);
    deployment(&format!("strategy: {{rollingUpdate: {{maxSurge: 0, maxUnavailable: 0%}}}}, minReadySeconds: 600, selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}"), &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0", "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"]);
    deployment("selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}", &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]);
    let good = format!("{{spec: {{selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}}}}}");
    let other = good.replace("a: b", "a: c");
    check_update("apps", "Deployment", true, &good, &other, &["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"]);
    let set = |extra: &str| format!("{{spec: {{selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}{extra}}}}}");
    check("apps", "StatefulSet", true, &set(""), &[]);
    check("apps", "StatefulSet", true, "{spec: {selector: {matchLabels: {a: b}}, volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}], template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a, volumeMounts: [{name: d, mountPath: /d}]}]}}}}", &[]);
    check_update("apps", "StatefulSet", true, &set(""), &set(", serviceName: s"), &["spec.serviceName: Invalid value: \"s\": field is immutable"]);
    check_update("apps", "StatefulSet", true, &set(""), &set(", replicas: 5"), &[]);
    check("apps", "DaemonSet", true, &set(", updateStrategy: {rollingUpdate: {maxSurge: 1}}"), &["spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"]);
    check("", "ReplicationController", true, "{spec: {}}", &["spec.selector: Required value", "spec.template: Required value"]);
}

#[test]
fn jobs_are_checked() {
    let job = "{metadata: {uid: u}, spec: {selector: {matchLabels: {batch.kubernetes.io/controller-uid: u}}, template: {metadata: {labels: {batch.kubernetes.io/controller-uid: u, batch.kubernetes.io/job-name: x, controller-uid: u, job-name: x}}, spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}";
    check("batch", "Job", true, job, &[]);
    check("batch", "Job", true, &job.replace("restartPolicy: Never, ", ""), &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]);
    check_update("batch", "Job", true, job, &job.replace("image: a", "image: b"), &[JOB_TEMPLATE]);
    let cron = |spec: &str, expected: &[&str]| check("batch", "CronJob", true, &format!("{{spec: {{{spec}, jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: a, image: a}}]}}}}}}}}}}}}"), expected);
    cron("schedule: '*/5 1-3,7 * jan MON-FRI'", &[]);
    cron("schedule: '@hourly', timeZone: Europe/Berlin", &[]);
    cron("schedule: '* * * *'", &["spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]"]);
    cron("schedule: '61 * * * *'", &["spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61"]);
    cron("schedule: '@hourly', timeZone: Nowhere", &["spec.timeZone: Invalid value: \"Nowhere\": unknown time zone Nowhere"]);
}

const JOB_TEMPLATE: &str = "spec.template: Invalid value: {\"metadata\":{\"labels\":{\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"x\",\"controller-uid\":\"u\",\"job-name\":\"x\"}},\"spec\":{\"containers\":[{\"image\":\"b\",\"imagePullPolicy\":\"Always\",\"name\":\"a\",\"resources\":{},\"terminationMessagePath\":\"/dev/termination-log\",\"terminationMessagePolicy\":\"File\"}],\"dnsPolicy\":\"ClusterFirst\",\"restartPolicy\":\"Never\",\"schedulerName\":\"default-scheduler\",\"securityContext\":{},\"terminationGracePeriodSeconds\":30}}: field is immutable";

#[test]
fn services_are_checked() {
    let service = |spec: &str, expected: &[&str]| check("", "Service", true, &format!("{{spec: {{{spec}}}}}"), expected);
    service("ports: [{port: 80}]", &[]);
    service("clusterIP: None, clusterIPs: [None]", &[]);
    service("type: ExternalName, externalName: a.b.", &[]);
    service("selector: {a: b}", &["spec.ports: Required value"]);
    service("ports: [{port: 0, targetPort: A}, {port: 80, name: x}]", &["spec.ports[0].name: Required value", "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive", "spec.ports[0].targetPort: Invalid value: \"A\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)", "spec.ports[0].targetPort: Invalid value: \"A\": must contain at least one letter (a-z)"]);
    service("type: X, ports: [{port: 1}]", &["spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""]);
    service("ports: [{port: 1, nodePort: 30000}]", &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]);
    service("type: NodePort, ports: [{name: a, port: 1, nodePort: 30000}, {name: b, port: 2, nodePort: 30000}, {name: c, port: 1}]", &["spec.ports[1].nodePort: Duplicate value: 30000", "spec.ports[2]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":1,\"TargetPort\":0,\"NodePort\":0}"]);
    service("ports: [{port: 1}], externalIPs: [127.0.0.1, x]", &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)", "spec.externalIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
    service("clusterIP: 10.0.0.300, clusterIPs: [10.0.0.300], ports: [{port: 1}]", &["spec.clusterIPs[0]: Invalid value: \"10.0.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
    check_update("", "Service", true, "{spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ports: [{port: 1}]}}", "{spec: {clusterIP: 10.0.0.2, clusterIPs: [10.0.0.2], ports: [{port: 1}]}}", &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]);
    check("discovery.k8s.io", "EndpointSlice", true, "{addressType: IPv4, endpoints: [{addresses: [1.2.3.4]}, {addresses: ['::1']}, {}], ports: [{port: 1}, {port: 2}]}", &["ports[1].name: Duplicate value: \"\"", "endpoints[1].addresses: Invalid value: \"::1\": must be an IPv4 address", "endpoints[1].addresses[0]: Invalid value: \"::1\": may not be in the loopback range (127.0.0.0/8, ::1/128)", "endpoints[2].addresses: Required value"]);
    check("", "Endpoints", true, "{subsets: [{}]}", &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]);
}

#[test]
fn networking_is_checked() {
    let ingress = |spec: &str, expected: &[&str]| check("networking.k8s.io", "Ingress", true, &format!("{{spec: {{{spec}}}}}"), expected);
    ingress("rules: [{host: a.b, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]", &[]);
    ingress("ingressClassName: c", &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]);
    ingress("defaultBackend: {service: {name: s}}", &["spec.defaultBackend: Required value: port name or number is required"]);
    ingress("rules: [{host: 1.2.3.4, http: {paths: [{path: a//b, pathType: Exact, backend: {}}]}}]", &["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address", "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path", "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'", "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required"]);
    ingress("rules: [{http: {paths: [{path: /}]}}]", &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]);
    check("networking.k8s.io", "IngressClass", false, "{spec: {controller: x}}", &["spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")"]);
    check("networking.k8s.io", "NetworkPolicy", true, "{spec: {ingress: [{from: [{}, {ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}}", &["spec.ingress[0].from[0]: Required value: must specify a peer", "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"]);
}

#[test]
fn configuration_is_checked() {
    check("", "ConfigMap", true, "{data: {..: x, a: y}, binaryData: {a: eA==}}", &["data[..]: Invalid value: \"..\": must not be '..'", "data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]);
    check_update("", "ConfigMap", true, "{immutable: true, data: {a: b}}", "{immutable: true, data: {a: c}}", &["data: Forbidden: field is immutable when `immutable` is set"]);
    check("", "Secret", true, "{type: kubernetes.io/tls}", &["data[tls.crt]: Required value", "data[tls.key]: Required value"]);
    check_update("", "Secret", true, "{type: a}", "{type: b}", &["type: Invalid value: \"b\": field is immutable"]);
    check("", "Namespace", false, "{metadata: {name: a.b}}", &["metadata.name: Invalid value: \"a.b\": must not contain dots"]);
    check("", "LimitRange", true, "{spec: {limits: [{type: Container, min: {cpu: 2}, max: {cpu: 1}}]}}", &["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1", "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1", "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1"]);
    check("", "ResourceQuota", true, "{spec: {hard: {pods: 1.5, foo: 1, count/x.y: 2}, scopes: [BestEffort]}}", &["spec.hard[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified", "spec.hard[foo]: Invalid value: \"foo\": must be a standard resource for quota", "spec.hard[pods]: Invalid value: \"1500m\": must be an integer"]);
    check("", "Node", false, "{spec: {taints: [{key: a}], podCIDRs: [10.0.0.0/8]}}", &["metadata.taints[0].effect: Required value"]);
    check_update("", "Node", false, "{spec: {podCIDRs: [10.0.0.0/24], podCIDR: 10.0.0.0/24}}", "{spec: {}}", &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]);
}

#[test]
fn access_control_is_checked() {
    let group = "rbac.authorization.k8s.io";
    check(group, "Role", true, "{metadata: {name: 'a:b'}, rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]}", &[]);
    check(group, "Role", true, "{rules: [{nonResourceURLs: [/x]}, {}]}", &["rules[0].verbs: Required value", "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs", "rules[1].verbs: Required value", "rules[1].apiGroups: Required value: resource rules must supply at least one api group", "rules[1].resources: Required value: resource rules must supply at least one resource"]);
    check(group, "ClusterRoleBinding", false, "{roleRef: {kind: Role, name: r}, subjects: [{kind: ServiceAccount, name: s}, {kind: X, name: z}]}", &["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"", "subjects[0].namespace: Required value", "subjects[1].kind: Unsupported value: \"X\": supported values: \"ServiceAccount\", \"User\", \"Group\""]);
    check_update(group, "RoleBinding", true, "{roleRef: {kind: Role, name: r}}", "{roleRef: {kind: Role, name: s}}", &["roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"s\"}: field is immutable"]);
}

#[test]
fn storage_and_policies_are_checked() {
    check("", "PersistentVolumeClaim", true, "{spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}", &[]);
    check("", "PersistentVolumeClaim", true, "{spec: {accessModes: [x]}}", &["spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"", "spec.resources[storage]: Required value"]);
    check_update("", "PersistentVolumeClaim", true, "{spec: {accessModes: [ReadWriteOnce], volumeName: a, resources: {requests: {storage: 1Gi}}}}", "{spec: {accessModes: [ReadWriteOnce], volumeName: b, resources: {requests: {storage: 1Gi}}}}", &["spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"]);
    check("", "PersistentVolume", false, "{spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], local: {path: /x}}}", &["spec.nodeAffinity: Required value: Local volume requires node affinity"]);
    check("storage.k8s.io", "StorageClass", false, "{provisioner: ''}", &["provisioner: Required value"]);
    check_update("storage.k8s.io", "StorageClass", false, "{provisioner: a/b}", "{provisioner: a/c}", &["provisioner: Invalid value: null: field is immutable"]);
    check("policy", "PodDisruptionBudget", true, "{spec: {minAvailable: 101%}}", &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"]);
    check("scheduling.k8s.io", "PriorityClass", false, "{value: 1000000001}", &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]);
    check("coordination.k8s.io", "Lease", true, "{spec: {leaseDurationSeconds: 0}}", &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]);
    check("", "Event", true, "{involvedObject: {namespace: other}}", &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]);
}

#[test]
fn reviews_need_no_name() {
    let check = |kind: &str, yaml: &str, expected: &[&str]| check("authorization.k8s.io", kind, false, yaml, expected);
    check("SelfSubjectAccessReview", "{spec: {resourceAttributes: {verb: get}}}", &[]);
    check("SubjectAccessReview", "{spec: {}}", &["spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified", "spec.user: Invalid value: \"\": at least one of user or group must be specified"]);
    super::tests::check("authentication.k8s.io", "TokenRequest", true, "{spec: {expirationSeconds: 5}}", &["spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"]);
}

#[test]
fn what_was_found_beside_a_running_upstream_is_checked() {
    let quota = "{spec: {scopes: [BestEffort, BestEffort]}}";
    check_update("", "ResourceQuota", true, "{spec: {scopes: [BestEffort]}}", quota, &[]);
    let selected = "{spec: {hard: {cpu: 1, pods: 1}, scopeSelector: {matchExpressions: [{scopeName: BestEffort, operator: Exists}]}}}";
    let unfit = r#"spec.scopeSelector.matchExpressions: Invalid value: {"matchExpressions":[{"operator":"Exists","scopeName":"BestEffort"}]}: unsupported scope applied to resource"#;
    check("", "ResourceQuota", true, selected, &[unfit]);
    let range = "spec.podCIDRs[0]: Invalid value: \"a\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    check_update("", "Node", false, "{spec: {}}", "{spec: {podCIDR: a, podCIDRs: [a]}}", &[range]);
    let provider = "spec.providerID: Invalid value: null: field cannot be modified once set";
    check_update("", "Node", false, "{spec: {providerID: a}}", "{spec: {providerID: b}}", &[provider]);
    let owners = "{involvedObject: {namespace: ns}, metadata: {ownerReferences: [{apiVersion: v1, kind: A, name: a}]}}";
    check("", "Event", true, owners, &["metadata.ownerReferences[0].uid: Required value: must not be empty"]);
    // Other faults first, and then alone.
    let budget = "{metadata: {name: Bad_Name!}, spec: {unhealthyPodEvictionPolicy: a}}";
    let policy = r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "a": supported values: "AlwaysAllow", "IfHealthyBudget""#;
    check("policy", "PodDisruptionBudget", true, budget, &[policy]);
    let unowned = "{metadata: {name: Bad_Name!, ownerReferences: [{apiVersion: v1, kind: A, name: a}]}, spec: {}}";
    check("policy", "PodDisruptionBudget", true, unowned, &["metadata.ownerReferences[0].uid: Required value: must not be empty"]);
}

#[test]
fn an_empty_mode_of_a_mount_is_none_of_the_modes() {
    let mount = |mode: &str| format!("volumeMounts: [{{name: v, mountPath: /v, {mode}: ''}}]");
    let volume = "volumes: [{name: v, emptyDir: {}}]";
    let propagation = r#"spec.containers[0].volumeMounts.mountPropagation: Unsupported value: "": supported values: "Bidirectional", "HostToContainer", "None""#;
    check_pod(&mount("mountPropagation"), volume, &[propagation]);
    let recursive = r#"spec.containers[0].volumeMounts.recursiveReadOnly: Unsupported value: "": supported values: "Disabled", "Enabled", "IfPossible""#;
    check_pod(&mount("recursiveReadOnly"), volume, &[recursive]);
}

#[test]
fn devices_are_not_given_to_users_of_another_namespace() {
    let container = "volumeDevices: [{name: v, devicePath: /v}]";
    let spec = "hostUsers: false, volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]";
    check_pod(container, spec, &["spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"]);
}

#[test]
fn a_volume_within_an_attachment_is_checked() {
    let attachment = |volume: &str| format!("{{spec: {{attacher: a.b, nodeName: node, source: {{inlineVolumeSpec: {volume}}}}}}}");
    let path = "spec.source.inlineVolumeSpec";
    check("storage.k8s.io", "VolumeAttachment", false, &attachment("{accessModes: [ReadWriteOnce], csi: {driver: d, volumeHandle: h}}"), &[]);
    let expected = [
        format!("{path}.capacity: Forbidden: may not be specified in the context of inline volumes"),
        format!("{path}.csi: Required value: has to be specified in the context of inline volumes"),
        format!("{path}.accessModes: Required value"),
        format!("{path}: Required value: must specify a volume type"),
        format!("{path}.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes"),
    ];
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check("storage.k8s.io", "VolumeAttachment", false, &attachment("{capacity: {storage: 1}, volumeMode: Block}"), &expected);
}
