use super::*;

/// Applies the defaults of `kind` to `input` (YAML as people write it) and compares all of it.
#[track_caller]
fn check(group: &str, version: &str, kind: &str, input: &str, expected: &str) {
    let read = |text: &str| -> Tree { serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}")) };
    let mut object = read(input);
    apply_kind(group, version, kind, &mut object);
    let show = |t: &Tree| serde_json::to_string_pretty(t).unwrap();
    assert_eq!(show(&object), show(&read(expected)));
    let once = object.clone();
    apply_kind(group, version, kind, &mut object);
    assert_eq!(object, once, "defaults are stable");
}

#[test]
fn a_pod_gets_all_of_its_defaults() {
    check(
        "",
        "v1",
        "Pod",
        r#"
spec:
  serviceAccount: sa
  hostNetwork: true
  containers:
  - name: a
    image: registry:5000/app
    ports: [{containerPort: 80}]
    env: [{name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    resources: {limits: {cpu: 0.5, memory: 1024Mi}, requests: {cpu: 100m}}
    readinessProbe: {httpGet: {port: 80}}
  - {name: b, image: "app:1.0"}
  volumes:
  - name: v
  - {name: c, configMap: {name: c}}
  - {name: h, hostPath: {path: /x}}
  - {name: p, projected: {sources: [{serviceAccountToken: {path: t}}, {downwardAPI: {items: [{path: x, resourceFieldRef: {resource: limits.cpu}}]}}]}}
"#,
        r#"
spec:
  serviceAccount: sa
  serviceAccountName: sa
  hostNetwork: true
  dnsPolicy: ClusterFirst
  restartPolicy: Always
  securityContext: {}
  terminationGracePeriodSeconds: 30
  schedulerName: default-scheduler
  enableServiceLinks: true
  containers:
  - name: a
    image: registry:5000/app
    imagePullPolicy: Always
    terminationMessagePath: /dev/termination-log
    terminationMessagePolicy: File
    ports: [{containerPort: 80, hostPort: 80, protocol: TCP}]
    env: [{name: N, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}]
    resources: {limits: {cpu: 500m, memory: 1Gi}, requests: {cpu: 100m, memory: 1Gi}}
    readinessProbe: {httpGet: {port: 80, path: /, scheme: HTTP}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3}
  - {name: b, image: "app:1.0", imagePullPolicy: IfNotPresent, terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File, resources: {}}
  volumes:
  - {name: v, emptyDir: {}}
  - {name: c, configMap: {name: c, defaultMode: 420}}
  - {name: h, hostPath: {path: /x, type: ""}}
  - {name: p, projected: {defaultMode: 420, sources: [{serviceAccountToken: {path: t, expirationSeconds: 3600}}, {downwardAPI: {items: [{path: x, resourceFieldRef: {resource: limits.cpu, divisor: "0"}}]}}]}}
"#,
    );
}

#[test]
fn a_deployment_rolls_by_a_quarter_and_its_template_is_no_pod() {
    check(
        "apps",
        "v1",
        "Deployment",
        "{spec: {selector: {}, template: {spec: {containers: [{name: a, image: a, resources: {limits: {cpu: 1}}}]}}}}",
        r#"
spec:
  selector: {}
  replicas: 1
  revisionHistoryLimit: 10
  progressDeadlineSeconds: 600
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}}
  template:
    metadata: {}
    spec:
      dnsPolicy: ClusterFirst
      restartPolicy: Always
      securityContext: {}
      terminationGracePeriodSeconds: 30
      schedulerName: default-scheduler
      containers: [{name: a, image: a, imagePullPolicy: Always, terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File, resources: {limits: {cpu: "1"}}}]
"#,
    );
}

#[test]
fn services_depend_on_their_type() {
    check(
        "",
        "v1",
        "Service",
        "{spec: {ports: [{port: 80}], sessionAffinity: ClientIP}}",
        "{spec: {type: ClusterIP, internalTrafficPolicy: Cluster, ports: [{port: 80, protocol: TCP, targetPort: 80}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}}, status: {loadBalancer: {}}}",
    );
    check(
        "",
        "v1",
        "Service",
        "{spec: {type: LoadBalancer, ports: [{port: 80, targetPort: http, protocol: UDP}]}, status: {loadBalancer: {ingress: [{ip: 1.2.3.4}]}}}",
        "{spec: {type: LoadBalancer, allocateLoadBalancerNodePorts: true, externalTrafficPolicy: Cluster, internalTrafficPolicy: Cluster, ports: [{port: 80, protocol: UDP, targetPort: http}], sessionAffinity: None}, status: {loadBalancer: {ingress: [{ip: 1.2.3.4, ipMode: VIP}]}}}",
    );
    check("", "v1", "Service", "{spec: {type: ExternalName}}", "{spec: {type: ExternalName, sessionAffinity: None}, status: {loadBalancer: {}}}");
}

#[test]
fn small_kinds_get_theirs() {
    check("", "v1", "Secret", "{data: {}}", "{data: {}, type: Opaque}");
    check("", "v1", "Namespace", "{metadata: {name: a}}", "{metadata: {name: a, labels: {kubernetes.io/metadata.name: a}}, status: {phase: Active}}");
    check("rbac.authorization.k8s.io", "v1", "RoleBinding", "{roleRef: {kind: Role}, subjects: [{kind: User}, {kind: ServiceAccount}]}", "{roleRef: {kind: Role, apiGroup: rbac.authorization.k8s.io}, subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io}, {kind: ServiceAccount}]}");
    check("networking.k8s.io", "v1", "NetworkPolicy", "{spec: {egress: [{ports: [{port: 53}]}]}}", "{spec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 53, protocol: TCP}]}]}}");
    check("", "v1", "LimitRange", "{spec: {limits: [{type: Container, max: {cpu: 2}, min: {cpu: 100m}}]}}", r#"{spec: {limits: [{type: Container, max: {cpu: "2"}, min: {cpu: 100m}, default: {cpu: "2"}, defaultRequest: {cpu: "2"}}]}}"#);
    check("storage.k8s.io", "v1", "StorageClass", "{provisioner: x}", "{provisioner: x, reclaimPolicy: Delete, volumeBindingMode: Immediate}");
}

#[test]
fn pod_level_requests_follow_the_containers_or_the_limits() {
    let mut pod = Tree::from_json(br#"{"spec":{"resources":{"limits":{"cpu":"2","memory":"1Gi"}},"containers":[{"resources":{"requests":{"cpu":"1"}}},{"resources":{"requests":{"cpu":"500m"}}}]}}"#).unwrap();
    apply_kind("", "v1", "Pod", &mut pod);
    assert_eq!(String::from_utf8(pod.at(&["spec", "resources", "requests"]).unwrap().to_json()).unwrap(), r#"{"cpu":"1500m","memory":"1Gi"}"#);
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, expected) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("localhost:5000/a", "Always"),
        ("localhost:5000/a:2", "IfNotPresent"),
        ("a@sha256:0123", "IfNotPresent"),
        ("a:latest@sha256:0123", "Always"),
        ("Upper", "IfNotPresent"),
        ("", "IfNotPresent"),
    ] {
        assert_eq!(pod::pull_policy(image), expected, "{image}");
    }
}
