//! The answers for names of the cluster. Pure, over a [`Catalog`].
//!
//! Models kubernetes/dns docs/specification.md 1.1.0, and coredns plugin/kubernetes for what that leaves open: SRV records of a
//! Service's own name, endpoint names made of addresses, no data (and not "no such name") for a headless Service without
//! endpoints.
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::catalog::{Catalog, service_name};
use crate::question::{self, Asked};

/// Endpoints come and go; CoreDNS' default.
const TTL: u32 = 5;
/// "The DNS schema version", section 2.2 of the specification.
const VERSION: &str = "1.1.0";
/// Records of one answer; what would not fit 64 KiB is not built.
const RECORDS_MAX: usize = 2_000;

#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub code: Code,
    pub answers: Vec<Record>,
    pub additionals: Vec<Record>,
    pub authorities: Vec<Record>,
    /// The target of a CNAME outside the cluster, whose addresses are wanted as well.
    pub follow: Option<Name>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Code {
    #[default]
    Good,
    NoSuchName,
    /// The catalog is not complete yet, so a "no" would be a guess.
    NotReady,
}

impl Code {
    pub(crate) fn response_code(self) -> ResponseCode {
        match self {
            Code::Good => ResponseCode::NoError,
            Code::NoSuchName => ResponseCode::NXDomain,
            Code::NotReady => ResponseCode::ServFail,
        }
    }
}

/// The cluster's zone.
pub(crate) struct Zone<C> {
    pub domain: Name,
    pub catalog: C,
}

/// An address of an endpoint with its own name.
struct Endpoint<'a> {
    host: String,
    ip: IpAddr,
    slice: &'a EndpointSlice,
}

impl<C: Catalog> Zone<C> {
    /// Answers for names of the cluster and reverse names of its addresses; `None` for everybody else's.
    pub(crate) fn answer(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        if let Some(asked) = question::parse(name, &self.domain) {
            if !self.catalog.is_complete() {
                return Some(Answer { code: Code::NotReady, ..Answer::default() });
            }
            let mut answer = self.forward(&asked, name, kind);
            if answer.answers.is_empty() {
                let soa = Record::from_rdata(self.domain.clone(), TTL, RData::SOA(self.soa()));
                answer.authorities.push(soa);
            }
            return Some(answer);
        }
        let names = self.names_of(question::reverse(name)?);
        if names.is_empty() {
            return None;
        }
        let records = names.into_iter().map(|n| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(n))));
        Some(Answer {
            answers: match kind {
                RecordType::PTR | RecordType::ANY => records.collect(),
                _ => Vec::new(),
            },
            ..Answer::default()
        })
    }

    fn forward(&self, asked: &Asked, name: &Name, kind: RecordType) -> Answer {
        let record = |data| Record::from_rdata(name.clone(), TTL, data);
        let none = Answer::default;
        let missing = || Answer { code: Code::NoSuchName, ..Answer::default() };
        let only = |wanted, data| Answer {
            answers: match kind == wanted || kind == RecordType::ANY {
                true => vec![record(data)],
                false => Vec::new(),
            },
            ..Answer::default()
        };
        match asked {
            Asked::Domain if kind == RecordType::NS => only(kind, RData::NS(NS(self.server()))),
            Asked::Domain => only(RecordType::SOA, RData::SOA(self.soa())),
            Asked::Version => only(RecordType::TXT, RData::TXT(TXT::new(vec![VERSION.to_owned()]))),
            Asked::Between => none(),
            Asked::NameServer => self.addresses(name, kind, self.cluster_ips("kube-system", "kube-dns")),
            Asked::Namespace(namespace) if self.catalog.has_namespace(namespace) => none(),
            Asked::Pod(ip) => self.addresses(name, kind, vec![*ip]),
            Asked::Service { namespace, service } => match self.catalog.service(namespace, service) {
                Some(found) => self.service(&found, name, kind),
                None => missing(),
            },
            Asked::Endpoint { namespace, service, host } => {
                let slices = self.slices(namespace, service);
                let ips: Vec<IpAddr> = endpoints(&slices).filter(|e| e.host == *host).map(|e| e.ip).collect();
                match ips.is_empty() {
                    true => missing(),
                    false => self.addresses(name, kind, ips),
                }
            }
            Asked::Port { namespace, service, protocol, port } => {
                let found = self.catalog.service(namespace, service);
                let wanted = |p: Option<&str>, n: &str| n.eq_ignore_ascii_case(port) && p.unwrap_or("TCP").eq_ignore_ascii_case(protocol);
                let ports = found.map(|s| self.ports(&s, name, wanted)).unwrap_or_default();
                match ports.answers.is_empty() {
                    true => missing(),
                    false if matches!(kind, RecordType::SRV | RecordType::ANY) => ports,
                    false => none(),
                }
            }
            Asked::Namespace(_) | Asked::Nothing => missing(),
        }
    }

    fn service(&self, service: &Service, name: &Name, kind: RecordType) -> Answer {
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            return self.external(&spec, name, kind);
        }
        if kind == RecordType::SRV {
            return self.ports(service, name, |_, _| true);
        }
        let ips = match is_headless(&spec) {
            false => cluster_ips(&spec),
            true => {
                let (namespace, service) = key(service);
                let slices = self.slices(namespace, service);
                endpoints(&slices).map(|e| e.ip).collect()
            }
        };
        self.addresses(name, kind, ips)
    }

    fn external(&self, spec: &ServiceSpec, name: &Name, kind: RecordType) -> Answer {
        let target = spec.external_name.as_deref().unwrap_or_default();
        let Ok(mut target) = Name::from_ascii(target) else {
            tracing::debug!(%name, target, "external name is not a domain name");
            return Answer::default();
        };
        target.set_fqdn(true);
        let alias = Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target.clone())));
        let mut answer = Answer { answers: vec![alias], ..Answer::default() };
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return answer;
        }
        if self.domain.zone_of(&target) {
            // One step, so that two names that stand for each other end here.
            let service = match question::parse(&target, &self.domain) {
                Some(Asked::Service { namespace, service }) => self.catalog.service(&namespace, &service),
                _ => None,
            };
            let plain = |s: &Arc<Service>| {
                let spec = s.spec.as_ref();
                spec.is_some_and(|s| s.type_.as_deref() != Some("ExternalName"))
            };
            if let Some(service) = service.filter(plain) {
                answer.answers.extend(self.service(&service, &target, kind).answers);
            }
        } else {
            answer.follow = Some(target);
        }
        answer
    }

    fn addresses(&self, name: &Name, kind: RecordType, ips: Vec<IpAddr>) -> Answer {
        let records = ips.into_iter().filter_map(|ip| address_record(name, kind, ip));
        let mut answers: Vec<Record> = records.take(RECORDS_MAX).collect();
        answers.dedup();
        Answer { answers, ..Answer::default() }
    }

    /// SRV records of those ports for which `wanted(protocol, name)` says so.
    fn ports(&self, service: &Service, name: &Name, wanted: impl Fn(Option<&str>, &str) -> bool) -> Answer {
        let (namespace, service_key) = key(service);
        let spec = service.spec.clone().unwrap_or_default();
        // Without its own labels: this is what the records point to.
        let Some(base) = self.name(&[service_key, namespace, "svc"]) else {
            return Answer::default();
        };
        let mut targets: Vec<(u16, Name, Option<IpAddr>)> = Vec::new();
        if is_headless(&spec) {
            let slices = self.slices(namespace, service_key);
            for endpoint in endpoints(&slices) {
                let Ok(target) = base.prepend_label(endpoint.host.as_str()) else {
                    continue;
                };
                for port in endpoint.slice.ports.iter().flatten() {
                    let number = port.port.and_then(|p| u16::try_from(p).ok());
                    let named = port.name.as_deref().unwrap_or_default();
                    if let Some(number) = number.filter(|_| wanted(port.protocol.as_deref(), named)) {
                        targets.push((number, target.clone(), Some(endpoint.ip)));
                    }
                }
            }
        } else {
            for port in spec.ports.iter().flatten() {
                let named = port.name.as_deref().unwrap_or_default();
                if wanted(port.protocol.as_deref(), named) {
                    let number = u16::try_from(port.port).unwrap_or_default();
                    targets.push((number, base.clone(), None));
                }
            }
        }
        targets.truncate(RECORDS_MAX / 2);
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
        let mut answer = Answer::default();
        for (port, target, ip) in targets {
            let ips = match ip {
                Some(ip) => vec![ip],
                None => cluster_ips(&spec),
            };
            for ip in ips {
                for kind in [RecordType::A, RecordType::AAAA] {
                    let record = address_record(&target, kind, ip);
                    answer.additionals.extend(record.filter(|r| !answer.additionals.contains(r)));
                }
            }
            let data = RData::SRV(SRV::new(0, weight, port, target));
            answer.answers.push(Record::from_rdata(name.clone(), TTL, data));
        }
        answer
    }

    fn names_of(&self, ip: IpAddr) -> Vec<Name> {
        let services = self.catalog.services_at(ip);
        if !services.is_empty() {
            let name = |s: &Arc<Service>| {
                let (namespace, service) = key(s);
                self.name(&[service, namespace, "svc"])
            };
            return services.iter().filter_map(name).collect();
        }
        let slices = self.catalog.slices_at(ip);
        let mut names: Vec<Name> = endpoints(&slices)
            .filter(|e| e.ip == ip)
            .filter_map(|e| {
                let namespace = e.slice.metadata.namespace.as_deref()?;
                self.name(&[&e.host, service_name(e.slice)?, namespace, "svc"])
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn name(&self, labels: &[&str]) -> Option<Name> {
        let all = labels.iter().map(|l| l.as_bytes()).chain(self.domain.iter());
        Name::from_labels(all).ok()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.catalog.slices(namespace, service)
    }

    fn cluster_ips(&self, namespace: &str, service: &str) -> Vec<IpAddr> {
        let service = self.catalog.service(namespace, service);
        service.and_then(|s| s.spec.as_ref().map(cluster_ips)).unwrap_or_default()
    }

    fn server(&self) -> Name {
        self.name(&["ns", "dns"]).unwrap_or_else(Name::root)
    }

    fn soa(&self) -> SOA {
        let mailbox = self.name(&["hostmaster"]).unwrap_or_else(Name::root);
        SOA::new(self.server(), mailbox, 1, 7_200, 1_800, 86_400, TTL)
    }
}

fn address_record(name: &Name, kind: RecordType, ip: IpAddr) -> Option<Record> {
    let data = match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => RData::A(A(ip)),
        (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => RData::AAAA(AAAA(ip)),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

fn key(service: &Service) -> (&str, &str) {
    (service.metadata.namespace.as_deref().unwrap_or_default(), service.metadata.name.as_deref().unwrap_or_default())
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let all = spec.cluster_ips.iter().flatten();
    let all: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    match all.is_empty() {
        true => spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect(),
        false => all,
    }
}

/// The addresses that may be named: of ready endpoints, where "not said" is yes.
fn endpoints(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = Endpoint<'_>> {
    slices.iter().flat_map(|slice| {
        let ready = slice.endpoints.iter().flatten().filter(|e| {
            let conditions = e.conditions.as_ref();
            conditions.and_then(|c| c.ready).unwrap_or(true)
        });
        ready.flat_map(move |endpoint| {
            endpoint.addresses.iter().filter_map(move |address| {
                Some(Endpoint {
                    host: match endpoint.hostname.as_deref() {
                        Some(name) if !name.is_empty() => name.to_ascii_lowercase(),
                        _ => address.replace(['.', ':'], "-"),
                    },
                    ip: address.parse().ok()?,
                    slice,
                })
            })
        })
    })
}
