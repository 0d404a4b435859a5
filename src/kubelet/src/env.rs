//! A container's environment: services, `envFrom`, `env`, in upstream's order and with upstream's errors.
//!
//! Models pkg/kubelet/kubelet_pods.go makeEnvironmentVariables and pkg/kubelet/envvars, v1.37. Pure: what is referred to
//! was fetched before. Left out: `fileKeyRef` (beta upstream), which is refused by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};

use crate::expand::expand;
use crate::fields::{self, NodeFacts};

/// The ConfigMaps, Secrets and Services that a pod's environment may refer to. `None`: looked for, not there.
#[derive(Debug, Default)]
pub struct Sources {
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
    /// Those of the pod's namespace, and `kubernetes` of `default`.
    pub services: Vec<Arc<Service>>,
}

/// Names of the ConfigMaps and Secrets that the environment of `container` needs.
pub fn references(container: &Container) -> (Vec<&str>, Vec<&str>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.as_str()));
    }
    for from in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.as_str()));
    }
    (maps, secrets)
}

/// Why the environment cannot be made; shown as CreateContainerConfigError.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    NoConfigMapKey { key: String, namespace: String, name: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    NoSecretKey { key: String, namespace: String, name: String },
    #[error(transparent)]
    Field(#[from] fields::FieldError),
    #[error("environment variable {0}: fileKeyRef is not supported by this kubelet")]
    FileKey(String),
    #[error("environment variable {0}: the value is not UTF-8")]
    NotText(String),
}

/// The environment in the order in which it is given to the process.
pub fn make(pod: &Pod, container: &Container, facts: &NodeFacts, sources: &Sources) -> Result<Vec<(String, String)>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let services = service_variables(namespace, links, &sources.services);

    let mut result: BTreeMap<String, String> = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match config_map(sources, &reference.name) {
                Some(map) => result.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone()))),
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::NoConfigMap(reference.name.clone())),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match secret(sources, &reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let name = format!("{prefix}{key}");
                        let text = String::from_utf8(value.0.clone()).map_err(|_| EnvError::NotText(name.clone()))?;
                        result.insert(name, text);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::NoSecret(reference.name.clone())),
            }
        }
    }

    for variable in container.env.iter().flatten() {
        let value = {
            let lookup = |name: &str| result.get(name).or_else(|| services.get(name)).cloned();
            match value_of(pod, container, variable, namespace, facts, sources)? {
                Value::Literal(text) => Some(expand(&text, &lookup)),
                Value::Resolved(text) => Some(text),
                Value::Absent => None,
            }
        };
        if let Some(value) = value {
            result.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        result.entry(name).or_insert(value);
    }
    Ok(result.into_iter().collect())
}

enum Value {
    Literal(String),
    Resolved(String),
    /// Optional, and not there.
    Absent,
}

fn value_of(pod: &Pod, container: &Container, variable: &EnvVar, namespace: &str, facts: &NodeFacts, sources: &Sources) -> Result<Value, EnvError> {
    if let Some(text) = variable.value.as_ref().filter(|t| !t.is_empty()) {
        return Ok(Value::Literal(text.clone()));
    }
    let Some(from) = &variable.value_from else { return Ok(Value::Literal(String::new())) };
    if let Some(reference) = &from.field_ref {
        return Ok(Value::Resolved(fields::field(pod, &reference.field_path, facts)?));
    }
    if let Some(reference) = &from.resource_field_ref {
        return Ok(Value::Resolved(fields::resource(pod, Some(container), reference, facts)?));
    }
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional == Some(true);
        return match config_map(sources, &reference.name) {
            None if optional => Ok(Value::Absent),
            None => Err(EnvError::NoConfigMap(reference.name.clone())),
            Some(map) => match map.data.as_ref().and_then(|d| d.get(&reference.key)) {
                Some(text) => Ok(Value::Resolved(text.clone())),
                None if optional => Ok(Value::Absent),
                None => Err(EnvError::NoConfigMapKey { key: reference.key.clone(), namespace: namespace.into(), name: reference.name.clone() }),
            },
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional == Some(true);
        return match secret(sources, &reference.name) {
            None if optional => Ok(Value::Absent),
            None => Err(EnvError::NoSecret(reference.name.clone())),
            Some(secret) => match secret.data.as_ref().and_then(|d| d.get(&reference.key)) {
                Some(bytes) => String::from_utf8(bytes.0.clone()).map(Value::Resolved).map_err(|_| EnvError::NotText(variable.name.clone())),
                None if optional => Ok(Value::Absent),
                None => Err(EnvError::NoSecretKey { key: reference.key.clone(), namespace: namespace.into(), name: reference.name.clone() }),
            },
        };
    }
    Err(EnvError::FileKey(variable.name.clone()))
}

fn config_map<'a>(sources: &'a Sources, name: &str) -> Option<&'a ConfigMap> {
    sources.config_maps.get(name)?.as_deref()
}

fn secret<'a>(sources: &'a Sources, name: &str) -> Option<&'a Secret> {
    sources.secrets.get(name)?.as_deref()
}

/// `{SVC}_SERVICE_HOST` and the older link variables, for the services that the pod may see.
fn service_variables(namespace: &str, links: bool, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let Some(name) = service.metadata.name.as_deref() else { continue };
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
        if ip.is_empty() || ip == "None" {
            continue;
        }
        if own == namespace && links {
            chosen.insert(name, service);
        } else if own == "default" && name == "kubernetes" {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut out = BTreeMap::new();
    for (name, service) in chosen {
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let prefix = variable_name(name);
        out.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_lowercase();
            let url = format!("{lower}://{host}:{}", port.port);
            if index == 0 {
                out.insert(format!("{prefix}_SERVICE_PORT"), port.port.to_string());
                out.insert(format!("{prefix}_PORT"), url.clone());
            }
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                out.insert(format!("{prefix}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string());
            }
            let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            out.insert(link.clone(), url);
            out.insert(format!("{link}_PROTO"), lower);
            out.insert(format!("{link}_PORT"), port.port.to_string());
            out.insert(format!("{link}_ADDR"), ip.to_owned());
        }
    }
    out
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn sources() -> Sources {
        let map = parse(serde_json::json!({"data": {"k": "v", "x": "$(A)"}}));
        let secret = parse(serde_json::json!({"data": {"password": "c2VjcmV0"}}));
        let service = |ns: &str, name: &str| {
            Arc::new(parse(serde_json::json!({"metadata": {"name": name, "namespace": ns},
                "spec": {"clusterIP": "10.43.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}})))
        };
        Sources {
            config_maps: [("cm".to_owned(), Some(Arc::new(map)))].into(),
            secrets: [("s".to_owned(), Some(Arc::new(secret)))].into(),
            services: vec![service("default", "kubernetes"), service("default", "web"), service("n", "my-svc")],
        }
    }

    fn run(container: serde_json::Value, links: bool) -> Result<BTreeMap<String, String>, String> {
        let pod = parse(serde_json::json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "enableServiceLinks": links}}));
        let container: Container = parse(container);
        make(&pod, &container, &NodeFacts::default(), &sources()).map(|v| v.into_iter().collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn later_variables_may_refer_to_earlier_ones() {
        let env = run(
            serde_json::json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}], "env": [
                {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)$(P_k)"}, {"name": "C", "value": "2"},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
                {"name": "H", "value": "$(KUBERNETES_SERVICE_HOST)"},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": true}}}]}),
            true,
        )
        .expect("an environment");
        assert_eq!(env["B"], "1$(C)v");
        assert_eq!(env["P_x"], "$(A)");
        assert_eq!(env["N"], "p");
        assert_eq!(env["S"], "secret");
        assert_eq!(env["H"], "10.43.0.1");
        assert!(!env.contains_key("O"));
        assert_eq!(env["MY_SVC_SERVICE_HOST"], "10.43.0.1");
        assert_eq!(env["MY_SVC_PORT_443_TCP_ADDR"], "10.43.0.1");
        assert_eq!(env["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert!(!env.contains_key("WEB_SERVICE_HOST"));
    }

    #[test]
    fn without_links_only_the_api_servers_service_is_seen() {
        let env = run(serde_json::json!({"name": "c"}), false).expect("an environment");
        assert!(env.contains_key("KUBERNETES_SERVICE_HOST"));
        assert!(!env.contains_key("MY_SVC_SERVICE_HOST"));
    }

    #[test]
    fn what_is_missing_is_named_as_upstream_names_it() {
        for (env, message) in [
            (serde_json::json!({"configMapKeyRef": {"name": "no", "key": "k"}}), "configmap \"no\" not found"),
            (serde_json::json!({"secretKeyRef": {"name": "no", "key": "k"}}), "secret \"no\" not found"),
            (serde_json::json!({"configMapKeyRef": {"name": "cm", "key": "no"}}), "couldn't find key no in ConfigMap n/cm"),
            (serde_json::json!({"secretKeyRef": {"name": "s", "key": "no"}}), "couldn't find key no in Secret n/s"),
        ] {
            let got = run(serde_json::json!({"name": "c", "env": [{"name": "X", "valueFrom": env}]}), true);
            assert_eq!(got.expect_err("an error"), message);
        }
    }
}
