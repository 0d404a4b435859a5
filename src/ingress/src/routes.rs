//! From Ingress objects to a table that answers "where does this request go". Pure.
//!
//! Matching is the API's (networking.k8s.io/v1 Ingress): the exact host before a wildcard of one label; an exact path
//! before prefixes; the longest prefix, by path elements; the older Ingress first where two say the same.
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use client::{Named, ObjectKey};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};

use crate::backend::Backend;

#[derive(Debug, Default)]
pub struct Routes {
    hosts: HashMap<String, Host>,
    /// By the part behind `*`: `.example.org`.
    wildcards: HashMap<String, Host>,
    any_host: Host,
    default: Option<Arc<Backend>>,
}

#[derive(Debug, Default)]
struct Host {
    exact: HashMap<String, Arc<Backend>>,
    /// Longest first.
    prefixes: Vec<(String, Arc<Backend>)>,
}

impl Host {
    fn find(&self, path: &str) -> Option<&Arc<Backend>> {
        self.exact.get(path).or_else(|| self.prefixes.iter().find(|(prefix, _)| is_prefix(prefix, path)).map(|(_, b)| b))
    }
}

/// By whole elements: `/foo` is a prefix of `/foo/bar` and `/foo/`, not of `/foobar`. `prefix` has no trailing slash.
fn is_prefix(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Routes {
    /// `host` is the request's, with or without a port.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Backend>> {
        let host = host.rsplit_once(':').map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let wildcard = host.find('.').and_then(|dot| self.wildcards.get(&host[dot..]));
        let candidates = [self.hosts.get(&host), wildcard, Some(&self.any_host)];
        candidates.into_iter().flatten().find_map(|h| h.find(path)).or(self.default.as_ref())
    }
}

/// Whether an Ingress is ours to serve.
pub fn is_served(ingress: &Ingress, class: &str) -> bool {
    let named = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref());
    let annotated = ingress.annotation("kubernetes.io/ingress.class");
    named.or(annotated).is_none_or(|c| c == class)
}

/// Builds the table. Backends of `previous` are kept where nothing changed, so that connections to them are.
pub fn build<'a>(
    ingresses: &[Arc<Ingress>],
    service: impl Fn(&ObjectKey) -> Option<Arc<Service>>,
    slices: impl Fn(&ObjectKey) -> Vec<Arc<EndpointSlice>>,
    previous: &'a HashMap<BackendKey, Arc<Backend>>,
) -> (Routes, HashMap<BackendKey, Arc<Backend>>) {
    let mut ordered: Vec<_> = ingresses.iter().collect();
    ordered.sort_by_key(|i| (i.metadata.creation_timestamp.as_ref().map(|t| t.0), i.key()));
    let mut routes = Routes::default();
    let mut backends: HashMap<BackendKey, Arc<Backend>> = HashMap::new();
    for ingress in ordered {
        let Some(spec) = &ingress.spec else { continue };
        let mut backend = |b: &IngressBackend| -> Option<Arc<Backend>> {
            let key = BackendKey::new(ingress.namespace(), b)?;
            let made = backends.entry(key.clone()).or_insert_with(|| {
                let addresses = addresses(&key, &service, &slices);
                match previous.get(&key) {
                    Some(old) if old.addresses == addresses => old.clone(),
                    _ => Arc::new(Backend::new(addresses)),
                }
            });
            Some(made.clone())
        };
        if let Some(default) = &spec.default_backend {
            let made = backend(default);
            routes.default = routes.default.take().or(made);
        }
        for rule in spec.rules.iter().flatten() {
            let name = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            let host = match name.strip_prefix('*') {
                _ if name.is_empty() => &mut routes.any_host,
                Some(suffix) => routes.wildcards.entry(suffix.to_owned()).or_default(),
                None => routes.hosts.entry(name).or_default(),
            };
            for path in rule.http.iter().flat_map(|h| &h.paths) {
                let Some(made) = backend(&path.backend) else { continue };
                let text = path.path.as_deref().unwrap_or("/");
                if path.path_type == "Exact" {
                    host.exact.entry(text.to_owned()).or_insert(made);
                } else {
                    // ImplementationSpecific is Prefix here, as most controllers have it.
                    let prefix = text.trim_end_matches('/').to_owned();
                    if !host.prefixes.iter().any(|(p, _)| *p == prefix) {
                        host.prefixes.push((prefix, made));
                    }
                }
            }
        }
    }
    for host in routes.hosts.values_mut().chain(routes.wildcards.values_mut()).chain([&mut routes.any_host]) {
        host.prefixes.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
    }
    (routes, backends)
}

/// A Service's port as an Ingress names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendKey {
    service: ObjectKey,
    port_name: String,
    port: i32,
}

impl BackendKey {
    fn new(namespace: &str, backend: &IngressBackend) -> Option<Self> {
        let service = backend.service.as_ref()?;
        let port = service.port.clone().unwrap_or_default();
        Some(Self {
            service: ObjectKey::new(namespace, service.name.as_str()),
            port_name: port.name.unwrap_or_default(),
            port: port.number.unwrap_or_default(),
        })
    }
}

/// Ready addresses behind the port, in a fixed order.
fn addresses(
    key: &BackendKey,
    service: &impl Fn(&ObjectKey) -> Option<Arc<Service>>,
    slices: &impl Fn(&ObjectKey) -> Vec<Arc<EndpointSlice>>,
) -> Vec<SocketAddr> {
    let Some(service) = service(&key.service) else { return Vec::new() };
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let wanted = ports.into_iter().find(|p| if key.port_name.is_empty() { p.port == key.port } else { p.name.as_deref() == Some(&key.port_name) });
    let Some(wanted) = wanted else { return Vec::new() };
    let name = wanted.name.as_deref().unwrap_or_default();
    let mut found: BTreeMap<SocketAddr, ()> = BTreeMap::new();
    for slice in slices(&key.service) {
        let port = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == name).and_then(|p| p.port);
        let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            let ip = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
            if let Some(ip) = ip.filter(|_| ready) {
                found.insert(SocketAddr::new(ip, port), ());
            }
        }
    }
    found.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(rules: serde_json::Value) -> Routes {
        let ingress: Ingress = serde_json::from_value(json!({"metadata": {"name": "i", "namespace": "n"}, "spec": rules})).unwrap();
        let service = |key: &ObjectKey| -> Option<Arc<Service>> {
            Some(Arc::new(serde_json::from_value(json!({"metadata": {"name": key.name, "namespace": "n"}, "spec": {"ports": [{"name": "web", "port": 80}]}})).unwrap()))
        };
        // Each Service has one endpoint whose last octet is the number in its name.
        let slices = |key: &ObjectKey| -> Vec<Arc<EndpointSlice>> {
            let ip = format!("10.0.0.{}", &key.name[1..]);
            vec![Arc::new(serde_json::from_value(json!({"addressType": "IPv4", "metadata": {}, "ports": [{"name": "web", "port": 8080}],
                "endpoints": [{"addresses": [ip]}, {"addresses": ["10.9.9.9"], "conditions": {"ready": false}}]})).unwrap())]
        };
        build(&[Arc::new(ingress)], service, slices, &HashMap::new()).0
    }

    #[track_caller]
    fn check(routes: &Routes, host: &str, path: &str, expected: &str) {
        let got = routes.find(host, path).map_or("none".into(), |b| b.addresses[0].to_string());
        assert_eq!(got, expected, "{host}{path}");
    }

    fn path(kind: &str, path: &str, service: &str) -> serde_json::Value {
        json!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}})
    }

    #[test]
    fn exact_wins_over_the_longest_prefix_by_elements() {
        let routes = table(json!({"rules": [{"host": "a.test", "http": {"paths": [
            path("Prefix", "/", "s1"), path("Prefix", "/foo/", "s2"), path("Prefix", "/foo/bar", "s3"), path("Exact", "/foo", "s4")]}}]}));
        check(&routes, "a.test", "/", "10.0.0.1:8080");
        check(&routes, "A.test:80", "/foo", "10.0.0.4:8080");
        check(&routes, "a.test", "/foo/", "10.0.0.2:8080");
        check(&routes, "a.test", "/foo/bar/x", "10.0.0.3:8080");
        check(&routes, "a.test", "/foo/barx", "10.0.0.2:8080");
        check(&routes, "a.test", "/foobar", "10.0.0.1:8080");
        check(&routes, "b.test", "/", "none");
    }

    #[test]
    fn a_wildcard_stands_for_one_label_and_comes_second() {
        let routes = table(json!({"defaultBackend": {"service": {"name": "s9", "port": {"name": "web"}}}, "rules": [
            {"host": "*.a.test", "http": {"paths": [path("Prefix", "/", "s1")]}},
            {"host": "x.a.test", "http": {"paths": [path("Prefix", "/only", "s2")]}}]}));
        check(&routes, "y.a.test", "/", "10.0.0.1:8080");
        check(&routes, "x.a.test", "/only", "10.0.0.2:8080");
        check(&routes, "x.a.test", "/other", "10.0.0.1:8080");
        check(&routes, "z.y.a.test", "/", "10.0.0.9:8080");
    }
}
