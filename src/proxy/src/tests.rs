//! Services and slices as YAML, and what they mean on the node `here`.
use std::fmt::Write;
use std::sync::Arc;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::ServiceRule;

use crate::{nodes, of_service};

fn show(rule: &ServiceRule) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if value != "[]" && value != "false" && value != "None" {
            writeln!(text, "{name} {value}").expect("a string grows");
        }
    };
    line("cluster", format!("{:?}", rule.cluster_ips));
    line("external", format!("{:?}", rule.external_ips));
    line("balancer", format!("{:?}", rule.load_balancer_ips));
    line("sources", format!("{:?}", rule.load_balancer_source_ranges));
    line("affinity", format!("{:?}", rule.affinity));
    line("external-local", rule.external_traffic_local.to_string());
    line("internal-local", rule.internal_traffic_local.to_string());
    for port in &rule.ports {
        let node_port = port.node_port.map_or(String::new(), |n| format!(" node port {n}"));
        let all = format!("{:?}", port.endpoints);
        let local = format!("{:?}", port.local_endpoints);
        let name = format!("{:?} {}{node_port}:", port.protocol, port.port);
        line(&name, format!("{all} local {local}"));
    }
    text
}

#[track_caller]
fn check(spec: &str, slices: &[&str], expected: Expect) {
    let service: Service = serde_saphyr::from_str(&format!("metadata: {{name: web, namespace: default}}\n{spec}")).expect("a Service");
    let slices: Vec<Arc<EndpointSlice>> =
        slices.iter().map(|text| Arc::new(serde_saphyr::from_str(text).expect("an EndpointSlice"))).collect();
    let rule = of_service(&service, &slices, "here");
    expected.assert_eq(&rule.map_or("nothing".to_owned(), |rule| show(&rule)));
}

const SLICE: &str = "
addressType: IPv4
metadata: {name: web-1}
ports: [{name: http, port: 8080, protocol: TCP}, {name: metrics, port: 9090, protocol: TCP}]
endpoints:
- {addresses: [10.42.0.2], nodeName: here, conditions: {ready: true}}
- {addresses: [10.42.1.2], nodeName: there, conditions: {}}
- {addresses: [10.42.0.3], nodeName: here, conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.42.0.4], nodeName: here, conditions: {ready: false, serving: false, terminating: false}}
";

#[test]
fn ports_are_matched_by_name_and_unready_endpoints_are_left_out() {
    check(
        "spec:
  clusterIP: 10.43.0.80
  clusterIPs: [10.43.0.80]
  ports: [{name: http, port: 80, targetPort: web}, {name: metrics, port: 9090}, {name: other, port: 1}]",
        &[SLICE],
        expect![[r#"
            cluster [10.43.0.80]
            Tcp 80: [10.42.0.2:8080, 10.42.1.2:8080] local [10.42.0.2:8080]
            Tcp 9090: [10.42.0.2:9090, 10.42.1.2:9090] local [10.42.0.2:9090]
            Tcp 1: [] local []
        "#]],
    );
}

#[test]
fn a_named_target_port_may_have_another_number_in_each_slice() {
    let second = "
addressType: IPv4
metadata: {name: web-2}
ports: [{name: http, port: 8181, protocol: TCP}]
endpoints: [{addresses: [10.42.2.2], nodeName: there}]";
    let six = "
addressType: IPv6
metadata: {name: web-3}
ports: [{name: http, port: 8181, protocol: TCP}]
endpoints: [{addresses: ['fd00::1'], nodeName: there}]";
    check(
        "spec: {clusterIP: 10.43.0.80, ports: [{name: http, port: 80}]}",
        &[SLICE, second, six],
        expect![[r#"
            cluster [10.43.0.80]
            Tcp 80: [10.42.0.2:8080, 10.42.1.2:8080, 10.42.2.2:8181] local [10.42.0.2:8080]
        "#]],
    );
}

#[test]
fn endpoints_that_go_away_serve_while_there_are_no_others() {
    let draining = "
addressType: IPv4
metadata: {name: web-1}
ports: [{port: 53, protocol: UDP}]
endpoints:
- {addresses: [10.42.0.3], nodeName: here, conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.42.0.4], nodeName: here, conditions: {ready: false, serving: false, terminating: true}}
- {addresses: [10.42.1.3], nodeName: there, conditions: {ready: false, serving: true, terminating: true}}";
    let spec = "spec: {clusterIP: 10.43.0.80, ports: [{port: 53, protocol: UDP}]}";
    check(
        spec,
        &[draining],
        expect![[r#"
            cluster [10.43.0.80]
            Udp 53: [10.42.0.3:53, 10.42.1.3:53] local [10.42.0.3:53]
        "#]],
    );
    let ready = "
addressType: IPv4
metadata: {name: web-2}
ports: [{port: 53, protocol: UDP}]
endpoints: [{addresses: [10.42.1.9], nodeName: there, conditions: {ready: true}}]";
    check(
        spec,
        &[draining, ready],
        expect![[r#"
            cluster [10.43.0.80]
            Udp 53: [10.42.1.9:53] local [10.42.0.3:53]
        "#]],
    );
}

#[test]
fn services_without_an_address_mean_nothing() {
    for spec in [
        "spec: {clusterIP: None, clusterIPs: [None], ports: [{port: 80}]}",
        "spec: {clusterIP: '', ports: [{port: 80}]}",
        "spec: {type: ExternalName, externalName: example.org, clusterIP: ''}",
        "spec: {clusterIP: 'fd00::1', clusterIPs: ['fd00::1'], ports: [{port: 80}]}",
        "{}",
    ] {
        let spec = if spec == "{}" { "status: {}" } else { spec };
        check(spec, &[SLICE], expect!["nothing"]);
    }
}

#[test]
fn what_is_open_to_the_outside_comes_with_its_policies() {
    check(
        "spec:
  type: LoadBalancer
  clusterIP: 10.43.0.80
  externalIPs: [203.0.113.5, 'fd00::9']
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  sessionAffinity: ClientIP
  loadBalancerSourceRanges: [' 192.0.2.0/24 ', 'fd00::/8']
  ports: [{name: http, port: 80, nodePort: 30080}]
status:
  loadBalancer:
    ingress: [{ip: 192.0.2.2}, {ip: 192.0.2.3, ipMode: VIP}, {ip: 192.0.2.4, ipMode: Proxy}, {hostname: lb.example.org}]",
        &[SLICE],
        expect![[r#"
            cluster [10.43.0.80]
            external [203.0.113.5]
            balancer [192.0.2.2, 192.0.2.3]
            sources [192.0.2.0/24]
            affinity Some(10800s)
            external-local true
            internal-local true
            Tcp 80 node port 30080: [10.42.0.2:8080, 10.42.1.2:8080] local [10.42.0.2:8080]
        "#]],
    );
    // The policy says nothing for a Service that nobody outside can reach.
    check(
        "spec:
  clusterIP: 10.43.0.80
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  ports: [{name: http, port: 80}]",
        &[],
        expect![[r#"
            cluster [10.43.0.80]
            affinity Some(60s)
            Tcp 80: [] local []
        "#]],
    );
}

#[track_caller]
fn check_peers(nodes: &str, expected: Expect) {
    let nodes: Vec<Arc<Node>> = serde_saphyr::from_multiple(nodes).expect("Nodes").into_iter().map(Arc::new).collect();
    let mut text = String::new();
    for peer in nodes::peers(&nodes, "here") {
        let key = peer.public_key.map_or(String::new(), |key| format!(" key {key}"));
        writeln!(text, "{} {} {}{key}", peer.name, peer.node_ip, peer.pod_cidr).expect("a string grows");
    }
    expected.assert_eq(&text);
}

#[test]
fn a_peer_is_any_other_node_with_an_address_and_a_pod_cidr() {
    check_peers(
        "
metadata: {name: here, creationTimestamp: 2026-01-01T00:00:00Z}
spec: {podCIDR: 10.42.0.0/24, podCIDRs: [10.42.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.168.77.1}]}
---
metadata: {name: a-later, creationTimestamp: 2026-01-03T00:00:00Z}
spec: {podCIDR: 10.42.2.0/24}
status: {addresses: [{type: Hostname, address: 10.1.1.1}, {type: InternalIP, address: 'fd00::3'}, {type: InternalIP, address: 192.168.77.3}]}
---
metadata: {name: z-earlier, creationTimestamp: 2026-01-02T00:00:00Z, annotations: {rk.io/wireguard-public-key: q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=}}
spec: {podCIDRs: ['fd01::/64', 10.42.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.168.77.2}]}
---
metadata: {name: no-cidr}
spec: {}
status: {addresses: [{type: InternalIP, address: 192.168.77.4}]}
---
metadata: {name: no-address}
spec: {podCIDR: 10.42.5.0/24}
",
        expect![[r#"
            z-earlier 192.168.77.2 10.42.1.0/24 key q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=
            a-later 192.168.77.3 10.42.2.0/24
        "#]],
    );
}
