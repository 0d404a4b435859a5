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

/// One plain object of each kind, as people write them.
const OBJECTS: &[&str] = &[
    "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: ns}, spec: {containers: [{name: a, image: a, ports: [{containerPort: 80}], env: [{name: E, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}], livenessProbe: {grpc: {port: 1}}, lifecycle: {preStop: {httpGet: {port: 80}}}, resources: {limits: {cpu: 0.1}}}], volumes: [{name: v}, {name: d, downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}}, {name: e, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: ns}, spec: {type: NodePort, ports: [{port: 80}]}}",
    "{apiVersion: v1, kind: Namespace, metadata: {name: a}}",
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: ns}, data: {a: b}}",
    "{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: ns}, data: {a: eA==}}",
    "{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: ns}}",
    "{apiVersion: v1, kind: Node, metadata: {name: a}, status: {capacity: {cpu: 2}}}",
    "{apiVersion: v1, kind: Endpoints, metadata: {name: a, namespace: ns}, subsets: [{addresses: [{ip: 1.2.3.4}], ports: [{port: 1}]}]}",
    "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}",
    "{apiVersion: v1, kind: PersistentVolume, metadata: {name: a}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /x}}}",
    "{apiVersion: v1, kind: ReplicationController, metadata: {name: a, namespace: ns}, spec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}}",
    "{apiVersion: v1, kind: LimitRange, metadata: {name: a, namespace: ns}, spec: {limits: [{type: Container, max: {cpu: 1}}]}}",
    "{apiVersion: v1, kind: ResourceQuota, metadata: {name: a, namespace: ns}, spec: {hard: {pods: 10}}}",
    "{apiVersion: v1, kind: Event, metadata: {name: a, namespace: ns}, involvedObject: {namespace: ns}}",
    "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: ns}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}}",
    "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: a, namespace: ns}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}}",
    "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a, namespace: ns}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}}",
    "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a, namespace: ns}, spec: {selector: {matchLabels: {a: b}}, volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}], template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}}",
    "{apiVersion: batch/v1, kind: CronJob, metadata: {name: a, namespace: ns}, spec: {schedule: '@daily', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}}}",
    "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: ns}, spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}}",
    "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: ns}, spec: {ingress: [{ports: [{port: 1}]}]}}",
    "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, namespace: ns}, addressType: IPv4, endpoints: [{addresses: [1.2.3.4]}], ports: [{port: 1}]}",
    "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: 'a:b'}, roleRef: {kind: ClusterRole, name: r}, subjects: [{kind: User, name: u}]}",
    "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: a, namespace: ns}, spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: a}, behavior: {}}}",
    "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: a}, provisioner: a/b}",
    "{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: a}, spec: {}}",
    "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: a}, value: 1}",
    "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a, namespace: ns}, spec: {minAvailable: 1}}",
    "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a, namespace: ns}, spec: {holderIdentity: x}}",
    "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: a}, webhooks: [{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {service: {namespace: ns, name: s}}, rules: [{operations: ['*'], apiGroups: ['*'], apiVersions: ['*'], resources: ['*']}]}]}",
    "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: a}, spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}}",
];

#[test]
fn defaults_leave_what_decoding_would_leave_and_what_is_valid() {
    for yaml in OBJECTS {
        let object: Tree = serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        let (group, version) = crate::registry::split_api_version(object.str_at(&["apiVersion"]));
        let kind = object.str_at(&["kind"]).to_owned();
        let resource = crate::registry::Registry::get().by_kind(group, version, &kind).unwrap_or_else(|| panic!("{kind}"));
        let decode = |tree: Tree| crate::schema::decode(resource.schema().expect("built in"), tree).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let decoded = decode(object.clone());
        assert_eq!(decoded.unknown, Vec::<String>::new(), "{kind}");
        let mut defaulted = decoded.tree;
        apply(resource, &mut defaulted);
        let again = decode(defaulted.clone());
        assert_eq!(again.unknown, Vec::<String>::new(), "{kind}");
        let show = |t: &Tree| serde_json::to_string_pretty(t).unwrap();
        assert_eq!(show(&defaulted), show(&again.tree), "{kind}");
        let errors = crate::validation::validate(resource, &defaulted, None);
        assert!(errors.is_empty(), "{kind}: {errors:?}");
        let mut stored = defaulted.clone();
        stored.set(&["metadata", "resourceVersion"], "1");
        let errors = crate::validation::validate(resource, &stored, Some(&stored));
        assert!(errors.is_empty(), "{kind}: {errors:?}");
    }
}

#[test]
fn counts_that_go_always_writes_are_there() {
    let counts = |group: &str, kind: &str| {
        let mut object = Tree::from_json(br#"{"status":{"replicas":3}}"#).unwrap();
        apply_kind(group, "v1", kind, &mut object);
        ["replicas", "availableReplicas"].map(|count| object.at(&["status", count]).cloned())
    };
    assert_eq!(counts("apps", "StatefulSet"), [Some(Tree::Integer(3)), Some(Tree::Integer(0))]);
    assert_eq!(counts("", "ReplicationController"), [Some(Tree::Integer(3)), None]);
    assert_eq!(counts("apps", "Deployment"), [Some(Tree::Integer(3)), None]);
}

#[test]
fn a_stateful_set_replaces_one_pod_at_a_time() {
    let mut set = Tree::from_json(br#"{"spec":{}}"#).unwrap();
    apply_kind("apps", "v1", "StatefulSet", &mut set);
    assert_eq!(set.at(&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]), Some(&Tree::Integer(1)));
}
