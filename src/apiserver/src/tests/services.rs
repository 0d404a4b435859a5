//! Addresses and ports of Services.
use super::*;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
}

#[tokio::test]
async fn the_service_kubernetes_and_the_first_namespaces_exist() {
    let f = fixture().await;
    let service = f.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(service.str_at(&["spec", "clusterIP"]), "10.43.0.1");
    f.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.ok();
    f.get("/api/v1/namespaces/kube-node-lease").await.ok();
    f.server.start().await.unwrap();
}

#[tokio::test]
async fn addresses_are_given_once_and_come_back() {
    let f = fixture().await;
    let ports = r#"{"ports":[{"port":80}]}"#;
    let made = f.post(SERVICES, &service("a", ports)).await.ok();
    let ip = made.str_at(&["spec", "clusterIP"]).to_owned();
    assert!(ip.starts_with("10.43."), "{ip}");
    assert_eq!(made.array_at(&["spec", "clusterIPs"]), [Tree::from(ip.as_str())]);
    assert_eq!((made.str_at(&["spec", "ipFamilyPolicy"]), made.str_at(&["spec", "type"])), ("SingleStack", "ClusterIP"));
    let taken = service("b", &format!(r#"{{"clusterIP":"{ip}","ports":[{{"port":80}}]}}"#));
    let refused = f.post(SERVICES, &taken).await;
    assert_eq!(refused.code, 422);
    assert!(String::from_utf8_lossy(&refused.bytes).contains("provided IP is already allocated"));
    f.delete(&format!("{SERVICES}/a")).await.ok();
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{ip}");
    f.get(&address).await.failed(404, "NotFound", &format!("ipaddresses.networking.k8s.io \"{ip}\" not found"));
    f.post(SERVICES, &taken).await.ok();
    let object = f.get(&address).await.ok();
    assert_eq!(object.at(&["spec", "parentRef"]).unwrap().to_json(), br#"{"name":"b","namespace":"default","resource":"services"}"#);
    assert_eq!(object.str_at(&["metadata", "labels", "ipaddress.kubernetes.io/managed-by"]), "ipallocator.k8s.io");
    let outside = f.post(SERVICES, &service("c", r#"{"clusterIP":"1.2.3.4","ports":[{"port":80}]}"#)).await;
    assert!(String::from_utf8_lossy(&outside.bytes).contains("failed to allocate IP 1.2.3.4: the provided network does not match the current range"));
    let headless = f.post(SERVICES, &service("h", r#"{"clusterIP":"None","ports":[{"port":80}]}"#)).await.ok();
    assert_eq!(headless.str_at(&["spec", "clusterIP"]), "None");
}

#[tokio::test]
async fn concurrent_services_never_share() {
    let f = fixture().await;
    let bodies: Vec<String> = (0..50).map(|i| service(&format!("s{i}"), r#"{"type":"NodePort","ports":[{"port":80}]}"#)).collect();
    let made = futures::future::join_all(bodies.iter().map(|body| f.post(SERVICES, body))).await;
    let mut ips = std::collections::HashSet::new();
    let mut ports = std::collections::HashSet::new();
    for answer in made {
        let service = answer.ok();
        ips.insert(service.str_at(&["spec", "clusterIP"]).to_owned());
        ports.insert(service.array_at(&["spec", "ports"])[0].get("nodePort").and_then(Tree::as_i64).unwrap());
    }
    assert_eq!((ips.len(), ports.len()), (50, 50));
    assert!(ports.iter().all(|p| (30000..=32767).contains(p)));
}

#[tokio::test]
async fn node_ports_follow_the_type() {
    let f = fixture().await;
    let made = f.post(SERVICES, &service("a", r#"{"type":"NodePort","ports":[{"port":80,"nodePort":30080}]}"#)).await.ok();
    let again = service("b", r#"{"type":"NodePort","ports":[{"port":80,"nodePort":30080}]}"#);
    let refused = f.post(SERVICES, &again).await;
    assert!(String::from_utf8_lossy(&refused.bytes).contains("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"));
    // An update without the allocated fields keeps them.
    let kept = f.put(&format!("{SERVICES}/a"), &service("a", r#"{"type":"NodePort","ports":[{"port":80}],"selector":{"a":"b"}}"#)).await.ok();
    assert_eq!(kept.array_at(&["spec", "ports"])[0].get("nodePort"), Some(&Tree::Integer(30080)));
    assert_eq!(kept.str_at(&["spec", "clusterIP"]), made.str_at(&["spec", "clusterIP"]));
    let merge = "application/merge-patch+json";
    let plain = f.send("PATCH", &format!("{SERVICES}/a"), merge, r#"{"spec":{"type":"ClusterIP"}}"#).await.ok();
    assert_eq!(plain.array_at(&["spec", "ports"])[0].get("nodePort"), None);
    f.post(SERVICES, &again).await.ok();
}

#[tokio::test]
async fn an_address_is_as_its_service() {
    let f = fixture().await;
    let addresses = || async { f.get("/apis/networking.k8s.io/v1/ipaddresses").await.ok().array_at(&["items"]).len() };
    assert_eq!(addresses().await, 1);
    // A refused Service leaves none behind.
    assert_eq!(f.post(SERVICES, &service("a", r#"{"ports":[{"port":0}]}"#)).await.code, 422);
    f.post(&format!("{SERVICES}?dryRun=All"), &service("a", r#"{"ports":[{"port":80}]}"#)).await.ok();
    let made = f.post(SERVICES, &service("a", r#"{"ports":[{"port":80}]}"#)).await.ok();
    assert_eq!(f.post(SERVICES, &service("a", r#"{"ports":[{"port":80}]}"#)).await.code, 409);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(addresses().await, 2);
    f.get(&format!("/apis/networking.k8s.io/v1/ipaddresses/{}", made.str_at(&["spec", "clusterIP"]))).await.ok();
    let merge = "application/merge-patch+json";
    let external = r#"{"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":null,"clusterIPs":null}}"#;
    f.send("PATCH", &format!("{SERVICES}/a"), merge, external).await.ok();
    assert_eq!(addresses().await, 1);
    f.send("PATCH", &format!("{SERVICES}/a"), merge, r#"{"spec":{"type":"ClusterIP"}}"#).await.ok();
    assert_eq!(addresses().await, 2);
    f.delete(&format!("{SERVICES}/a")).await.ok();
    assert_eq!(addresses().await, 1);
}

#[tokio::test]
async fn services_get_addresses_of_every_range_that_is_ready() {
    let f = fixture().await;
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let range = |cidrs: &str| format!(r#"{{"metadata":{{"name":"more"}},"spec":{{"cidrs":{cidrs}}}}}"#);
    let refused = |answer: Answer| String::from_utf8_lossy(&answer.bytes).into_owned();
    assert!(refused(f.post(RANGES, &range("[]")).await).contains("spec.cidrs: Required value: at least one CIDR required"));
    assert!(refused(f.post(RANGES, &range(r#"["10.5.0.0/24","10.6.0.0/24"]"#)).await).contains("may specify no more than one IP for each IP family"));
    f.post(RANGES, &range(r#"["192.168.77.0/24"]"#)).await.ok();
    let wanted = service("x", r#"{"clusterIP":"192.168.77.9","ports":[{"port":80}]}"#);
    assert!(refused(f.post(SERVICES, &wanted).await).contains("the provided network does not match the current range"));
    let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True","reason":"","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#;
    f.send("PATCH", &format!("{RANGES}/more/status"), "application/merge-patch+json", ready).await.ok();
    f.post(SERVICES, &wanted).await.ok();
    let moved = f.send("PATCH", &format!("{RANGES}/more"), "application/merge-patch+json", r#"{"spec":{"cidrs":["10.9.0.0/24"]}}"#).await;
    assert!(refused(moved).contains("field is immutable"));
}

#[tokio::test]
async fn a_headless_service_without_selector_may_have_endpoints_of_both_families() {
    let f = fixture().await;
    let spec = |more: &str| format!(r#"{{"clusterIP":"None","ports":[{{"port":80}}]{more}}}"#);
    let made = f.post(SERVICES, &service("a", &spec(""))).await.ok();
    assert_eq!(made.str_at(&["spec", "ipFamilyPolicy"]), "RequireDualStack");
    assert_eq!(made.array_at(&["spec", "ipFamilies"]), [Tree::from("IPv4"), Tree::from("IPv6")]);
    let again = f.put(&format!("{SERVICES}/a"), &service("a", &spec(r#","selector":{"a":"b"},"ipFamilyPolicy":"SingleStack""#))).await.ok();
    assert_eq!(again.array_at(&["spec", "ipFamilies"]), [Tree::from("IPv4")]);
}

#[tokio::test]
async fn what_is_wrong_with_addresses_is_said_before_any_is_given() {
    let f = fixture().await;
    let failed = async |spec: &str| f.post(SERVICES, &service("a", spec)).await.tree().str_at(&["message"]).to_owned();
    let wrong = r#"Service "a" is invalid: spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#;
    assert_eq!(failed(r#"{"clusterIP":"x","ports":[{"port":0}]}"#).await, wrong);
    let alone = r#"Service "a" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.9"]: must be empty when `clusterIP` is not specified"#;
    assert_eq!(failed(r#"{"clusterIPs":["10.43.0.9"],"ports":[{"port":0}]}"#).await, alone);
    // The address of a Service is for good.
    f.post(SERVICES, &service("b", r#"{"ports":[{"port":80}]}"#)).await.ok();
    let moved = f.send("PATCH", &format!("{SERVICES}/b"), "application/merge-patch+json", r#"{"spec":{"clusterIP":"10.43.0.9"}}"#).await;
    let message = moved.tree().str_at(&["message"]).to_owned();
    assert_eq!(message, r#"Service "b" is invalid: spec.clusterIPs[0]: Invalid value: ["10.43.0.9"]: may not change once set"#);
}

#[tokio::test]
async fn a_health_check_port_that_is_taken_is_no_fault_of_the_field() {
    let f = fixture().await;
    let balanced = |name: &str, port: u16| {
        let spec = format!(r#"{{"type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":{port},"ports":[{{"port":80}}]}}"#);
        service(name, &spec)
    };
    f.post(SERVICES, &balanced("a", 30444)).await.ok();
    let taken = "Internal error occurred: failed to allocate requested HealthCheck NodePort 30444: provided port is already allocated";
    f.post(SERVICES, &balanced("b", 30444)).await.failed(500, "InternalError", taken);
    let outside = "Internal error occurred: failed to allocate requested HealthCheck NodePort 5: provided port is not in the valid range. The range of valid ports is 30000-32767";
    f.post(SERVICES, &balanced("b", 5)).await.failed(500, "InternalError", outside);
}

#[tokio::test]
async fn ports_of_one_number_share_a_node_port_from_the_start() {
    let f = fixture().await;
    let made = f.post(SERVICES, &service("a", r#"{"type":"NodePort","ports":[{"name":"t","port":53},{"name":"u","port":53,"protocol":"UDP"}]}"#)).await.ok();
    let numbers: Vec<_> = made.array_at(&["spec", "ports"]).iter().map(|port| port.get("nodePort").and_then(Tree::as_i64)).collect();
    assert!(numbers[0].is_some() && numbers[0] == numbers[1], "{numbers:?}");
    let clash = r#"{"type":"NodePort","ports":[{"name":"a","port":1,"nodePort":30100},{"name":"b","port":2,"nodePort":30100}]}"#;
    let refused = f.post(SERVICES, &service("b", clash)).await;
    let wrong = r#"Service "b" is invalid: spec.ports[1].nodePort: Invalid value: 30100: provided port is already allocated"#;
    assert_eq!(refused.tree().str_at(&["message"]), wrong);
    let external = f.post(SERVICES, &service("e", r#"{"type":"ExternalName","externalName":"a.example","internalTrafficPolicy":"Cluster"}"#)).await.ok();
    assert_eq!(external.at(&["spec", "internalTrafficPolicy"]), None);
}
