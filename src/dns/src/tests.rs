//! Questions to a server whose catalog is a page of YAML.
mod sockets;

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use expect_test::{Expect, expect};
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::catalog::{Catalog, service_name};
use crate::forward::Forwarder;
use crate::metrics::Metrics;
use crate::reply::{Responder, Step, Transport};
use crate::zone::Zone;

const SERVICES: &str = "
- {metadata: {name: web, namespace: default}, spec: {clusterIP: 10.43.0.80, clusterIPs: [10.43.0.80], ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}
- {metadata: {name: db, namespace: default}, spec: {clusterIP: None, clusterIPs: [None], ports: [{name: sql, port: 5432}]}}
- {metadata: {name: empty, namespace: default}, spec: {clusterIP: None, clusterIPs: [None], ports: [{name: sql, port: 5432}]}}
- {metadata: {name: six, namespace: default}, spec: {clusterIP: 'fd00::80', clusterIPs: ['fd00::80', 10.43.0.6], ports: [{port: 80}]}}
- {metadata: {name: away, namespace: default}, spec: {type: ExternalName, externalName: www.example.org}}
- {metadata: {name: alias, namespace: default}, spec: {type: ExternalName, externalName: web.default.svc.cluster.local}}
- {metadata: {name: circle, namespace: default}, spec: {type: ExternalName, externalName: circle.default.svc.cluster.local}}
- {metadata: {name: kube-dns, namespace: kube-system}, spec: {clusterIP: 10.43.0.10, clusterIPs: [10.43.0.10], ports: [{port: 53}]}}
";

const SLICES: &str = "
- metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}
  addressType: IPv4
  ports: [{name: sql, port: 5433, protocol: TCP}]
  endpoints:
  - {addresses: [10.42.0.5], hostname: db-0, conditions: {ready: true}}
  - {addresses: [10.42.0.6], conditions: {}}
  - {addresses: [10.42.0.7], conditions: {ready: false}}
- metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  ports: [{name: http, port: 8080, protocol: TCP}]
  endpoints: [{addresses: [10.42.0.9]}]
";

struct Page {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    complete: bool,
}

impl Catalog for Page {
    fn is_complete(&self) -> bool {
        self.complete
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let found =
            self.services.iter().find(|s| s.metadata.namespace.as_deref() == Some(namespace) && s.metadata.name.as_deref() == Some(name));
        found.cloned()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let wanted = |s: &&Arc<EndpointSlice>| s.metadata.namespace.as_deref() == Some(namespace) && service_name(s) == Some(service);
        self.slices.iter().filter(wanted).cloned().collect()
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.services.iter().any(|s| s.metadata.namespace.as_deref() == Some(namespace))
    }

    fn services_at(&self, address: IpAddr) -> Vec<Arc<Service>> {
        let text = address.to_string();
        let ips = |s: &Service| s.spec.as_ref().and_then(|s| s.cluster_ips.clone()).unwrap_or_default();
        self.services.iter().filter(|s| ips(s).contains(&text)).cloned().collect()
    }

    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let text = address.to_string();
        let has = |s: &&Arc<EndpointSlice>| s.endpoints.iter().flatten().any(|e| e.addresses.contains(&text));
        self.slices.iter().filter(has).cloned().collect()
    }
}

fn responder(complete: bool) -> Responder<Page> {
    let services: Vec<Service> = serde_saphyr::from_str(SERVICES).expect("Services");
    let slices: Vec<EndpointSlice> = serde_saphyr::from_str(SLICES).expect("slices");
    let metrics = Arc::new(Metrics::default());
    Responder {
        zone: Zone {
            domain: Name::from_str("cluster.local.").expect("a name"),
            catalog: Page {
                services: services.into_iter().map(Arc::new).collect(),
                slices: slices.into_iter().map(Arc::new).collect(),
                complete,
            },
        },
        forwarder: Arc::new(Forwarder::new(Vec::new(), |_| false, metrics.clone())),
        metrics,
        turn: AtomicUsize::new(0),
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).expect("a name"), kind));
    message
}

fn reply(responder: &Responder<Page>, wire: &[u8], transport: Transport) -> Option<Vec<u8>> {
    match responder.handle(wire, transport) {
        Step::Reply(wire) => Some(wire),
        Step::Ask(pending) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            Some(runtime.expect("a runtime").block_on(responder.complete(*pending)))
        }
        Step::Ignore => None,
    }
}

fn show(message: &Message) -> String {
    let mut lines = vec![message.metadata.response_code.to_string()];
    for (section, records) in [("", &message.answers), ("authority ", &message.authorities), ("additional ", &message.additionals)] {
        for r in records {
            lines.push(format!("{section}{} {} {} {}", r.name, r.ttl, r.record_type(), r.data));
        }
    }
    lines.join("\n")
}

#[track_caller]
fn check(name: &str, kind: RecordType, expected: Expect) {
    let wire = question(name, kind).to_vec().expect("encodes");
    let wire = reply(&responder(true), &wire, Transport::Tcp).expect("an answer");
    expected.assert_eq(&show(&Message::from_vec(&wire).expect("decodes")));
}

#[test]
fn a_service_has_the_address_of_its_cluster_ip() {
    check(
        "web.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        web.default.svc.cluster.local. 5 A 10.43.0.80"#]],
    );
    check(
        "WEB.Default.svc.CLUSTER.local.",
        RecordType::A,
        expect![[r#"
        No Error
        web.default.svc.cluster.local. 5 A 10.43.0.80"#]],
    );
    check(
        "web.default.svc.cluster.local.",
        RecordType::AAAA,
        expect![[r#"
        No Error
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "six.default.svc.cluster.local.",
        RecordType::AAAA,
        expect![[r#"
        No Error
        six.default.svc.cluster.local. 5 AAAA fd00::80"#]],
    );
    check(
        "six.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        six.default.svc.cluster.local. 5 A 10.43.0.6"#]],
    );
    check(
        "web.default.svc.cluster.local.",
        RecordType::MX,
        expect![[r#"
        No Error
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
}

#[test]
fn a_headless_service_has_the_addresses_of_its_ready_endpoints() {
    check(
        "db.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        db.default.svc.cluster.local. 5 A 10.42.0.5
        db.default.svc.cluster.local. 5 A 10.42.0.6"#]],
    );
    check(
        "empty.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "db-0.db.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        db-0.db.default.svc.cluster.local. 5 A 10.42.0.5"#]],
    );
    check(
        "10-42-0-6.db.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        10-42-0-6.db.default.svc.cluster.local. 5 A 10.42.0.6"#]],
    );
    check(
        "10-42-0-7.db.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        Non-Existent Domain
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
}

#[test]
fn named_ports_are_srv_records() {
    check(
        "_http._tcp.web.default.svc.cluster.local.",
        RecordType::SRV,
        expect![[r#"
        No Error
        _http._tcp.web.default.svc.cluster.local. 5 SRV 0 100 80 web.default.svc.cluster.local.
        additional web.default.svc.cluster.local. 5 A 10.43.0.80"#]],
    );
    check(
        "_dns._udp.web.default.svc.cluster.local.",
        RecordType::SRV,
        expect![[r#"
        No Error
        _dns._udp.web.default.svc.cluster.local. 5 SRV 0 100 53 web.default.svc.cluster.local.
        additional web.default.svc.cluster.local. 5 A 10.43.0.80"#]],
    );
    check(
        "_sql._tcp.db.default.svc.cluster.local.",
        RecordType::SRV,
        expect![[r#"
        No Error
        _sql._tcp.db.default.svc.cluster.local. 5 SRV 0 50 5433 db-0.db.default.svc.cluster.local.
        _sql._tcp.db.default.svc.cluster.local. 5 SRV 0 50 5433 10-42-0-6.db.default.svc.cluster.local.
        additional db-0.db.default.svc.cluster.local. 5 A 10.42.0.5
        additional 10-42-0-6.db.default.svc.cluster.local. 5 A 10.42.0.6"#]],
    );
    check(
        "_none._tcp.web.default.svc.cluster.local.",
        RecordType::SRV,
        expect![[r#"
        Non-Existent Domain
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "_http._tcp.web.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
}

#[test]
fn an_external_name_is_an_alias() {
    check(
        "away.default.svc.cluster.local.",
        RecordType::CNAME,
        expect![[r#"
        No Error
        away.default.svc.cluster.local. 5 CNAME www.example.org."#]],
    );
    check(
        "away.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        away.default.svc.cluster.local. 5 CNAME www.example.org."#]],
    );
    check(
        "alias.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        alias.default.svc.cluster.local. 5 CNAME web.default.svc.cluster.local.
        web.default.svc.cluster.local. 5 A 10.43.0.80"#]],
    );
    check(
        "circle.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        circle.default.svc.cluster.local. 5 CNAME circle.default.svc.cluster.local."#]],
    );
}

#[test]
fn addresses_have_names() {
    check(
        "80.0.43.10.in-addr.arpa.",
        RecordType::PTR,
        expect![[r#"
        No Error
        80.0.43.10.in-addr.arpa. 5 PTR web.default.svc.cluster.local."#]],
    );
    check(
        "5.0.42.10.in-addr.arpa.",
        RecordType::PTR,
        expect![[r#"
        No Error
        5.0.42.10.in-addr.arpa. 5 PTR db-0.db.default.svc.cluster.local."#]],
    );
    check(
        "6.0.42.10.in-addr.arpa.",
        RecordType::PTR,
        expect![[r#"
        No Error
        6.0.42.10.in-addr.arpa. 5 PTR 10-42-0-6.db.default.svc.cluster.local."#]],
    );
    check(
        "9.0.42.10.in-addr.arpa.",
        RecordType::PTR,
        expect![[r#"
        No Error
        9.0.42.10.in-addr.arpa. 5 PTR 10-42-0-9.web.default.svc.cluster.local."#]],
    );
    // Nobody here, and no server to ask.
    check("1.2.0.192.in-addr.arpa.", RecordType::PTR, expect!["Server Failure"]);
    let six = format!("0.8.0.0.{}0.0.d.f.ip6.arpa.", "0.".repeat(24));
    check(
        &six,
        RecordType::PTR,
        expect![[r#"
        No Error
        0.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 PTR six.default.svc.cluster.local."#]],
    );
}

#[test]
fn the_rest_of_the_domain() {
    check(
        "dns-version.cluster.local.",
        RecordType::TXT,
        expect![[r#"
        No Error
        dns-version.cluster.local. 5 TXT 1.1.0"#]],
    );
    check(
        "cluster.local.",
        RecordType::SOA,
        expect![[r#"
        No Error
        cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "cluster.local.",
        RecordType::NS,
        expect![[r#"
        No Error
        cluster.local. 5 NS ns.dns.cluster.local."#]],
    );
    check(
        "ns.dns.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        ns.dns.cluster.local. 5 A 10.43.0.10"#]],
    );
    check(
        "10-42-0-7.default.pod.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        10-42-0-7.default.pod.cluster.local. 5 A 10.42.0.7"#]],
    );
    check(
        "nonsense.default.pod.cluster.local.",
        RecordType::A,
        expect![[r#"
        Non-Existent Domain
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        No Error
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "missing.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        Non-Existent Domain
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "missing.default.svc.cluster.local.",
        RecordType::A,
        expect![[r#"
        Non-Existent Domain
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check(
        "example.org.cluster.local.",
        RecordType::A,
        expect![[r#"
        Non-Existent Domain
        authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"#]],
    );
    check("example.org.", RecordType::A, expect!["Server Failure"]);
}

#[test]
fn an_incomplete_catalog_never_says_no() {
    let wire = question("web.default.svc.cluster.local.", RecordType::A).to_vec().expect("encodes");
    let wire = reply(&responder(false), &wire, Transport::Udp).expect("an answer");
    let answer = Message::from_vec(&wire).expect("decodes");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn what_does_not_fit_a_datagram_is_cut_and_says_so() {
    let mut many = responder(true);
    let slice = Arc::make_mut(&mut many.zone.catalog.slices[0]);
    let one = slice.endpoints.as_ref().expect("endpoints")[1].clone();
    let all = (0..250).map(|n| {
        let mut endpoint = one.clone();
        endpoint.addresses = vec![format!("10.42.1.{n}")];
        endpoint
    });
    slice.endpoints = Some(all.collect());
    let ask = |edns: Option<u16>, transport| {
        let mut message = question("db.default.svc.cluster.local.", RecordType::A);
        if let Some(payload) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        let wire = reply(&many, &message.to_vec().expect("encodes"), transport).expect("an answer");
        let length = wire.len();
        (Message::from_vec(&wire).expect("decodes"), length)
    };
    let (small, length) = ask(None, Transport::Udp);
    assert!(small.metadata.truncation && length <= 512, "{length}");
    assert!(!small.answers.is_empty());
    let (larger, length) = ask(Some(4096), Transport::Udp);
    assert!(larger.metadata.truncation && length > 512 && length <= 1232, "{length}");
    let (whole, _) = ask(None, Transport::Tcp);
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 250);
    let (again, _) = ask(None, Transport::Tcp);
    assert_ne!(whole.answers[0], again.answers[0], "another address comes first");
}

#[test]
fn odd_messages_get_the_codes_that_rfcs_give_them() {
    let responder = responder(true);
    let code = |message: &Message| {
        let wire = reply(&responder, &message.to_vec().expect("encodes"), Transport::Udp).expect("an answer");
        Message::from_vec(&wire).expect("decodes").metadata.response_code
    };
    let plain = || question("web.default.svc.cluster.local.", RecordType::A);
    let mut notify = plain();
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify), ResponseCode::NotImp);
    let mut two = plain();
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut version = plain();
    let mut edns = Edns::new();
    edns.set_version(1);
    version.set_edns(edns);
    // BADVERS; TSIG gives the same number another name.
    assert_eq!(u16::from(code(&version)), 16);
    assert_eq!(code(&question("cluster.local.", RecordType::AXFR)), ResponseCode::Refused);

    let wire = plain().to_vec().expect("encodes");
    for cut in 0..wire.len() {
        let answer = reply(&responder, &wire[..cut], Transport::Udp);
        assert_eq!(answer.is_some(), cut >= 12, "cut at {cut}");
    }
    // An answer is not answered.
    let mut response = wire;
    response[2] |= 0x80;
    assert!(reply(&responder, &response, Transport::Udp).is_none());
}
