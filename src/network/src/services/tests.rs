//! What changes of Services mean for the kernel, as nft(8) would write the elements.
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use expect_test::{Expect, expect};

use super::elements::{Element, Value};
use super::frontends::{of_host_ports, of_service};
use super::ruleset::{Delta, Owner, Ruleset};
use super::table::Networks;
use crate::types::{HostPort, PortRule, Protocol, ServiceRule};

fn ruleset() -> Ruleset {
    let net = |text: &str| text.parse().expect("a network");
    Ruleset::new(Networks {
        pod_cidr: net("10.42.0.0/24"),
        cluster_cidr: net("10.42.0.0/16"),
        service_cidr: net("10.43.0.0/16"),
        tunnel_port: None,
    })
}

/// A Service 10.43.0.80:80 with these endpoints, `NODE.HOST`; those of node 0 are local.
fn service(endpoints: &[(u8, u8)]) -> ServiceRule {
    let all = endpoints.iter().map(|(node, host)| SocketAddrV4::new(Ipv4Addr::new(10, 42, *node, *host), 8080));
    ServiceRule {
        cluster_ips: vec![Ipv4Addr::new(10, 43, 0, 80)],
        ports: vec![PortRule {
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            local_endpoints: all.clone().filter(|e| e.ip().octets()[2] == 0).collect(),
            endpoints: all.collect(),
        }],
        ..ServiceRule::default()
    }
}

fn show(sign: char, element: &Element) -> String {
    let key: Vec<String> = element
        .key
        .as_bytes()
        .chunks(4)
        .map(|field| match field {
            [6, 0, 0, 0] => "tcp".to_owned(),
            [17, 0, 0, 0] => "udp".to_owned(),
            [a @ (10 | 192 | 203), b, c, d] => format!("{a}.{b}.{c}.{d}"),
            [high, low, 0, 0] if *high != 0 || *low > 20 => u16::from_be_bytes([*high, *low]).to_string(),
            field => {
                let number = u32::from_ne_bytes(field.try_into().expect("four bytes"));
                match number & 0x8000_0000 {
                    0 => format!("#{}", number & 0xffff),
                    _ => format!("#local {}", number & 0xffff),
                }
            }
        })
        .collect();
    let value = match element.value {
        Value::None => String::new(),
        Value::Goto(chain) => format!(" : goto {chain}"),
        Value::Reject => " : reject".to_owned(),
        Value::Drop => " : drop".to_owned(),
        Value::Endpoint(endpoint) => format!(" : {endpoint}"),
        Value::Slot(_) => " : slot".to_owned(),
        Value::Until(_) => " ..".to_owned(),
    };
    format!("{sign} {} {}{value}", element.set.name(), key.join(" . "))
}

/// Applies changes in one batch, and shows what is sent.
#[track_caller]
fn check(rules: &mut Ruleset, changes: Vec<(&str, Option<ServiceRule>)>, expected: Expect) {
    let mut delta = Delta::default();
    for (id, rule) in changes {
        let wanted = rule.map_or(Vec::new(), |rule| of_service(&rule));
        rules.set(Owner::Service(id.into()), wanted, &mut delta);
    }
    let (old, new) = delta.elements();
    let mut lines: Vec<String> = delta.chains.iter().map(|c| format!("chain {c}")).collect();
    lines.extend(old.iter().map(|e| show('-', e)));
    lines.extend(new.iter().map(|e| show('+', e)));
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_change_of_endpoints_touches_few_elements() {
    let mut rules = ruleset();
    let set = |rules: &mut Ruleset, endpoints: &[(u8, u8)], expected| {
        check(rules, vec![("web", Some(service(endpoints)))], expected);
    };
    set(
        &mut rules,
        &[(0, 2), (1, 2), (2, 2)],
        expect![[r#"
        chain lb-3
        + service-ips 10.43.0.80 . tcp . 80 : goto lb-3
        + endpoints 10.43.0.80 . tcp . 80 . #0 : 10.42.0.2:8080
        + endpoints 10.43.0.80 . tcp . 80 . 256 : 10.42.1.2:8080
        + endpoints 10.43.0.80 . tcp . 80 . 512 : 10.42.2.2:8080
        + hairpin 10.42.0.2 . 10.42.0.2
        + cluster-ips 10.43.0.80"#]],
    );
    // Replaced in place: no verdict changes.
    set(
        &mut rules,
        &[(0, 2), (1, 3), (2, 2)],
        expect![[r#"
        - endpoints 10.43.0.80 . tcp . 80 . 256 : 10.42.1.2:8080
        + endpoints 10.43.0.80 . tcp . 80 . 256 : 10.42.1.3:8080"#]],
    );
    // The last one fills the hole.
    set(
        &mut rules,
        &[(1, 3), (2, 2)],
        expect![[r#"
        chain lb-2
        - service-ips 10.43.0.80 . tcp . 80 : goto lb-3
        - endpoints 10.43.0.80 . tcp . 80 . #0 : 10.42.0.2:8080
        - endpoints 10.43.0.80 . tcp . 80 . 512 : 10.42.2.2:8080
        - hairpin 10.42.0.2 . 10.42.0.2
        + service-ips 10.43.0.80 . tcp . 80 : goto lb-2
        + endpoints 10.43.0.80 . tcp . 80 . #0 : 10.42.2.2:8080"#]],
    );
    set(&mut rules, &[(1, 3), (2, 2)], expect![[""]]);
    set(
        &mut rules,
        &[],
        expect![[r#"
        - service-ips 10.43.0.80 . tcp . 80 : goto lb-2
        - endpoints 10.43.0.80 . tcp . 80 . #0 : 10.42.2.2:8080
        - endpoints 10.43.0.80 . tcp . 80 . 256 : 10.42.1.3:8080
        + no-endpoint-ips 10.43.0.80 . tcp . 80 : reject"#]],
    );
    check(
        &mut rules,
        vec![("web", None)],
        expect![[r#"
        - cluster-ips 10.43.0.80
        - no-endpoint-ips 10.43.0.80 . tcp . 80 : reject"#]],
    );
}

#[test]
fn two_services_that_want_the_same_address_do_not_disturb_each_other() {
    let mut rules = ruleset();
    let external = |endpoints: &[(u8, u8)]| ServiceRule {
        cluster_ips: vec![],
        external_ips: vec![Ipv4Addr::new(203, 0, 113, 5)],
        ..service(endpoints)
    };
    check(
        &mut rules,
        vec![("b", Some(external(&[(1, 2)])))],
        expect![[r#"
            chain lb-1
            + service-ips 203.0.113.5 . tcp . 80 : goto lb-1
            + endpoints 203.0.113.5 . tcp . 80 . #0 : 10.42.1.2:8080"#]],
    );
    check(
        &mut rules,
        vec![("a", Some(external(&[(1, 3)])))],
        expect![[r#"
            - endpoints 203.0.113.5 . tcp . 80 . #0 : 10.42.1.2:8080
            + endpoints 203.0.113.5 . tcp . 80 . #0 : 10.42.1.3:8080"#]],
    );
    check(&mut rules, vec![("b", None)], expect![[""]]);
    // Taken over within one batch, as when a Service is deleted and made again under another name.
    check(&mut rules, vec![("a", None), ("c", Some(external(&[(1, 3)])))], expect![[""]]);
}

#[test]
fn a_pod_behind_two_services_is_in_the_hairpin_set_until_both_are_gone() {
    let mut rules = ruleset();
    let mut other = service(&[(0, 2)]);
    other.cluster_ips = vec![Ipv4Addr::new(10, 43, 0, 81)];
    check(
        &mut rules,
        vec![("a", Some(service(&[(0, 2)]))), ("b", Some(other))],
        expect![[r#"
            chain lb-1
            + service-ips 10.43.0.80 . tcp . 80 : goto lb-1
            + service-ips 10.43.0.81 . tcp . 80 : goto lb-1
            + endpoints 10.43.0.80 . tcp . 80 . #0 : 10.42.0.2:8080
            + endpoints 10.43.0.81 . tcp . 80 . #0 : 10.42.0.2:8080
            + hairpin 10.42.0.2 . 10.42.0.2
            + cluster-ips 10.43.0.80
            + cluster-ips 10.43.0.81"#]],
    );
    check(
        &mut rules,
        vec![("a", None)],
        expect![[r#"
        - service-ips 10.43.0.80 . tcp . 80 : goto lb-1
        - endpoints 10.43.0.80 . tcp . 80 . #0 : 10.42.0.2:8080
        - cluster-ips 10.43.0.80"#]],
    );
    check(
        &mut rules,
        vec![("b", None)],
        expect![[r#"
        - service-ips 10.43.0.81 . tcp . 80 : goto lb-1
        - endpoints 10.43.0.81 . tcp . 80 . #0 : 10.42.0.2:8080
        - hairpin 10.42.0.2 . 10.42.0.2
        - cluster-ips 10.43.0.81"#]],
    );
}

#[test]
fn policies_and_affinity_choose_the_chain() {
    let mut rules = ruleset();
    let mut rule = service(&[(0, 2), (1, 2)]);
    rule.external_traffic_local = true;
    rule.internal_traffic_local = true;
    rule.ports[0].node_port = Some(30080);
    check(
        &mut rules,
        vec![("web", Some(rule.clone()))],
        expect![[r#"
        chain lb-1
        chain npd-2
        chain np-2
        chain npl-1-2
        + service-ips 10.43.0.80 . tcp . 80 : goto lb-1
        + service-nodeports tcp . 30080 : goto npl-1-2
        + endpoints 10.43.0.80 . tcp . 80 . #0 : 10.42.0.2:8080
        + np-endpoints tcp . 30080 . #0 : 10.42.0.2:8080
        + np-endpoints tcp . 30080 . #local 0 : 10.42.0.2:8080
        + np-endpoints tcp . 30080 . 256 : 10.42.1.2:8080
        + hairpin 10.42.0.2 . 10.42.0.2
        + cluster-ips 10.43.0.80"#]],
    );
    rule.internal_traffic_local = false;
    rule.affinity = Some(Duration::from_secs(60));
    check(
        &mut rules,
        vec![("web", Some(rule.clone()))],
        expect![[r#"
        chain lb-affinity-60
        chain lba-2-60
        chain np-affinity-60
        chain npda-2-60
        chain npa-2-60
        chain npla-1-2-60
        - service-ips 10.43.0.80 . tcp . 80 : goto lb-1
        - service-nodeports tcp . 30080 : goto npl-1-2
        - endpoints 10.43.0.80 . tcp . 80 . #0 : 10.42.0.2:8080
        - np-endpoints tcp . 30080 . #0 : 10.42.0.2:8080
        - np-endpoints tcp . 30080 . #local 0 : 10.42.0.2:8080
        - np-endpoints tcp . 30080 . 256 : 10.42.1.2:8080
        + service-ips 10.43.0.80 . tcp . 80 : goto lba-2-60
        + service-nodeports tcp . 30080 : goto npla-1-2-60
        + ep-slot 10.43.0.80 . tcp . 80 . #0 : slot
        + ep-slot 10.43.0.80 . tcp . 80 . 256 : slot
        + np-ep-slot tcp . 30080 . #0 : slot
        + np-ep-slot tcp . 30080 . #local 0 : slot
        + np-ep-slot tcp . 30080 . 256 : slot
        + slot-ep 10.43.0.80 . tcp . 80 . #3428 : 10.42.0.2:8080
        + slot-ep 10.43.0.80 . tcp . 80 . #45730 : 10.42.1.2:8080
        + np-slot-ep tcp . 30080 . #3428 : 10.42.0.2:8080
        + np-slot-ep tcp . 30080 . #local 3428 : 10.42.0.2:8080
        + np-slot-ep tcp . 30080 . #45730 : 10.42.1.2:8080"#]],
    );
    rule.ports[0].local_endpoints.clear();
    rule.internal_traffic_local = true;
    check(
        &mut rules,
        vec![("web", Some(rule))],
        expect![[r#"
        chain npla-0-2-60
        - service-ips 10.43.0.80 . tcp . 80 : goto lba-2-60
        - service-nodeports tcp . 30080 : goto npla-1-2-60
        - ep-slot 10.43.0.80 . tcp . 80 . #0 : slot
        - ep-slot 10.43.0.80 . tcp . 80 . 256 : slot
        - np-ep-slot tcp . 30080 . #local 0 : slot
        - slot-ep 10.43.0.80 . tcp . 80 . #3428 : 10.42.0.2:8080
        - slot-ep 10.43.0.80 . tcp . 80 . #45730 : 10.42.1.2:8080
        - np-slot-ep tcp . 30080 . #local 3428 : 10.42.0.2:8080
        + service-nodeports tcp . 30080 : goto npla-0-2-60
        + no-endpoint-ips 10.43.0.80 . tcp . 80 : drop"#]],
    );
}

#[test]
fn a_host_port_comes_before_a_node_port() {
    let mut rules = ruleset();
    let mut rule = service(&[(1, 2)]);
    rule.ports[0].node_port = Some(30080);
    let mut delta = Delta::default();
    rules.set(Owner::Service("web".into()), of_service(&rule), &mut delta);
    let ports = [HostPort { host_ip: None, host_port: 30080, protocol: Protocol::Tcp, pod_ip: Ipv4Addr::new(10, 42, 0, 9), pod_port: 80 }];
    let mut delta = Delta::default();
    let owner = Owner::HostPorts("sandbox".to_owned());
    rules.set(owner, of_host_ports(&ports), &mut delta);
    let (old, new) = delta.elements();
    let lines = |sign, all: &[Element]| -> Vec<String> { all.iter().map(|e| show(sign, e)).collect() };
    let all = [lines('-', &old), lines('+', &new)].concat().join("\n");
    expect![[r#"
        - service-nodeports tcp . 30080 : goto np-1
        - np-endpoints tcp . 30080 . #0 : 10.42.1.2:8080
        + service-nodeports tcp . 30080 : goto npd-1
        + np-endpoints tcp . 30080 . #0 : 10.42.0.9:80
        + hairpin 10.42.0.9 . 10.42.0.9"#]]
    .assert_eq(&all);
}

#[test]
fn a_full_load_has_the_same_elements_as_the_changes_before_it() {
    let mut rules = ruleset();
    let mut kernel: std::collections::BTreeMap<_, _> = std::collections::BTreeMap::new();
    // Pseudo-random changes; after each the elements sent so far must be those of a full load.
    let mut seed = 7u32;
    let mut next = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    for _ in 0..500 {
        let mut delta = Delta::default();
        for _ in 0..=next(3) {
            let id = format!("service-{}", next(4));
            let endpoints: Vec<(u8, u8)> = (0..next(6)).map(|_| (next(2) as u8, 2 + next(5) as u8)).collect();
            let mut rule = service(&endpoints);
            rule.cluster_ips = vec![Ipv4Addr::new(10, 43, 0, next(3) as u8)];
            rule.external_traffic_local = next(2) == 0;
            rule.ports[0].node_port = (next(2) == 0).then_some(30080);
            rule.affinity = (next(3) == 0).then_some(Duration::from_secs(60));
            let wanted = if next(4) == 0 { Vec::new() } else { of_service(&rule) };
            rules.set(Owner::Service(id.as_str().into()), wanted, &mut delta);
        }
        let (old, new) = delta.elements();
        for e in old {
            let was = kernel.remove(&(e.set, e.key));
            assert_eq!(was, Some(e.value), "{}", show('-', &e));
        }
        for e in new {
            let was = kernel.insert((e.set, e.key), e.value);
            assert_eq!(was, None, "{}", show('+', &e));
        }
        let all: Vec<_> = rules.all_elements().iter().map(|e| ((e.set, e.key), e.value)).collect();
        assert_eq!(kernel.clone().into_iter().collect::<Vec<_>>(), all);
    }
}
