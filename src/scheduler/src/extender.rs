//! Webhooks that take part in decisions: filter, prioritize, preempt, bind.
//!
//! Models pkg/scheduler/extender.go and k8s.io/kube-scheduler/extender/v1, v1.37. The fields have Go's names on the wire, and are read in
//! any case, as Go reads them.
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::{ApiError, Client, Endpoint};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::config::{ExtenderConfig, ExtenderTls, duration};
use crate::preemption::Candidate;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Extenders give at most ten points, plugins a hundred.
const SCALE: i64 = crate::plugins::SCORE_MAX / 10;

#[derive(Debug, thiserror::Error)]
pub enum ExtenderError {
    #[error("failed {verb} with extender at URL {url}")]
    Call {
        verb: String,
        url: String,
        #[source]
        source: ApiError,
    },
    #[error("failed {verb} with extender at URL {url}: context deadline exceeded")]
    Timeout { verb: String, url: String },
    /// Its own words.
    #[error("{0}")]
    Said(String),
    #[error("extender {url:?} claims a filtered node {node:?} which is not found in the input node list")]
    UnknownNode { url: String, node: String },
    #[error("extender: {url} claims to preempt pod (UID: {uid}) on node: {node}, but the pod is not found on that node")]
    UnknownVictim { url: String, uid: String, node: String },
    #[error("expected at least one victim pod on node {0:?}")]
    NoVictim(String),
}

/// An extender of the configuration could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("read {path} for the extender {url}")]
    Read {
        path: String,
        url: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Client(#[from] client::ConfigError),
}

pub struct Extender {
    client: Client,
    config: ExtenderConfig,
    timeout: Duration,
}

/// What a filter call left, and the reasons of the others.
#[derive(Debug, Default, PartialEq)]
pub struct Filtered {
    pub nodes: BTreeSet<String>,
    pub failed: BTreeMap<String, String>,
    pub unresolvable: BTreeMap<String, String>,
}

/// A field in any case.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    let found = fields.get(name).or_else(|| fields.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v));
    found.filter(|v| !v.is_null())
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let fields = value.and_then(Value::as_object).into_iter().flatten();
    fields.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

fn complaint(answer: &Value) -> Result<(), ExtenderError> {
    match field(answer, "Error").and_then(Value::as_str) {
        Some(error) if !error.is_empty() => Err(ExtenderError::Said(error.to_owned())),
        _ => Ok(()),
    }
}

impl Extender {
    /// Reads the certificates that the configuration names.
    pub fn new(config: ExtenderConfig) -> Result<Self, SetupError> {
        let url = &config.url_prefix;
        let tls = config.tls_config.clone().unwrap_or_default();
        let load = |data: &Option<k8s_openapi::ByteString>, path: &str| -> Result<Option<Vec<u8>>, SetupError> {
            match (data, path) {
                (Some(data), _) => Ok(Some(data.0.clone())),
                (None, "") => Ok(None),
                (None, path) => std::fs::read(Path::new(path)).map(Some).map_err(|source| SetupError::Read {
                    path: path.to_owned(),
                    url: url.clone(),
                    source,
                }),
            }
        };
        let ExtenderTls { insecure, server_name, cert_file, key_file, ca_file, cert_data, key_data, ca_data } = tls;
        let authority = load(&ca_data, &ca_file)?;
        let identity = load(&cert_data, &cert_file)?.zip(load(&key_data, &key_file)?);
        let endpoint = Endpoint {
            url: url.trim_end_matches('/').to_owned(),
            insecure: insecure || config.enable_https && authority.is_none(),
            authority,
            server_name: Some(server_name).filter(|n| !n.is_empty()),
            identity,
        };
        let timeout = duration(config.http_timeout.as_deref()).filter(|t| !t.is_zero()).unwrap_or(DEFAULT_TIMEOUT);
        Ok(Self { client: Client::for_endpoint(&endpoint)?, config, timeout })
    }

    pub fn name(&self) -> &str {
        &self.config.url_prefix
    }
    pub fn is_ignorable(&self) -> bool {
        self.config.ignorable
    }
    pub fn filters(&self) -> bool {
        !self.config.filter_verb.is_empty()
    }
    pub fn prioritizes(&self) -> bool {
        !self.config.prioritize_verb.is_empty()
    }
    pub fn preempts(&self) -> bool {
        !self.config.preempt_verb.is_empty()
    }
    pub fn binds(&self) -> bool {
        !self.config.bind_verb.is_empty()
    }

    /// Whether the pod asks for one of its resources, if it manages any.
    pub fn is_interested(&self, pod: &Pod) -> bool {
        let managed = &self.config.managed_resources;
        let spec = pod.spec.as_ref();
        let containers = spec.map(|s| s.containers.iter().chain(s.init_containers.iter().flatten())).into_iter().flatten();
        let mut lists = containers.filter_map(|c| c.resources.as_ref()).flat_map(|r| [&r.requests, &r.limits]).flatten();
        managed.is_empty() || lists.any(|list| managed.iter().any(|r| list.contains_key(&r.name)))
    }

    async fn call(&self, verb: &str, body: &Value) -> Result<Value, ExtenderError> {
        let (verb, url) = (verb.to_owned(), self.config.url_prefix.clone());
        let path = format!("/{verb}");
        match tokio::time::timeout(self.timeout, self.client.post(&path, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(ExtenderError::Call { verb, url, source }),
            Err(_) => Err(ExtenderError::Timeout { verb, url }),
        }
    }

    /// Names where it keeps nodes itself, whole nodes otherwise.
    fn arguments(&self, pod: &Pod, nodes: &[Arc<Node>]) -> Value {
        let names: Vec<_> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
        match self.config.node_cache_capable {
            true => json!({"Pod": pod, "Nodes": null, "NodeNames": names}),
            false => {
                json!({"Pod": pod, "Nodes": {"metadata": {}, "items": nodes.iter().map(|n| &**n).collect::<Vec<_>>()}, "NodeNames": null})
            }
        }
    }

    pub async fn filter(&self, pod: &Pod, nodes: &[Arc<Node>]) -> Result<Filtered, ExtenderError> {
        let answer = self.call(&self.config.filter_verb, &self.arguments(pod, nodes)).await?;
        complaint(&answer)?;
        let names = field(&answer, "NodeNames").and_then(Value::as_array).filter(|_| self.config.node_cache_capable);
        let items = field(&answer, "Nodes").and_then(|n| field(n, "items")).and_then(Value::as_array);
        let given: BTreeSet<_> = nodes.iter().filter_map(|n| n.metadata.name.clone()).collect();
        let nodes: BTreeSet<String> = match (names, items) {
            (Some(names), _) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            (None, Some(items)) => items.iter().filter_map(|n| n.pointer("/metadata/name")?.as_str()).map(str::to_owned).collect(),
            (None, None) => BTreeSet::new(),
        };
        if let Some(unknown) = nodes.iter().find(|n| !given.contains(*n)) {
            return Err(ExtenderError::UnknownNode { url: self.config.url_prefix.clone(), node: unknown.clone() });
        }
        let (failed, unresolvable) = (texts(field(&answer, "FailedNodes")), texts(field(&answer, "FailedAndUnresolvableNodes")));
        Ok(Filtered { nodes, failed, unresolvable })
    }

    /// Scores by node, weighted and scaled to those of plugins.
    pub async fn prioritize(&self, pod: &Pod, nodes: &[Arc<Node>]) -> Result<HashMap<String, i64>, ExtenderError> {
        let answer = self.call(&self.config.prioritize_verb, &self.arguments(pod, nodes)).await?;
        let list = answer.as_array().into_iter().flatten();
        let score = |entry: &Value| {
            let host = field(entry, "Host")?.as_str()?.to_owned();
            let score = field(entry, "Score").and_then(Value::as_i64).unwrap_or_default();
            Some((host, score.saturating_mul(self.config.weight).saturating_mul(SCALE)))
        };
        Ok(list.filter_map(score).collect())
    }

    /// The candidates that are left; `find` gives the whole pods that it may want to see.
    pub async fn preempt(
        &self,
        pod: &Pod,
        candidates: &[Arc<Candidate>],
        find: impl Fn(&client::ObjectKey) -> Option<Arc<Pod>>,
    ) -> Result<Vec<Arc<Candidate>>, ExtenderError> {
        let meta = |c: &Candidate| {
            let pods: Vec<_> = c.victims.iter().map(|p| json!({"UID": p.uid})).collect();
            json!({"Pods": pods, "NumPDBViolations": c.violations})
        };
        let whole = |c: &Candidate| {
            let pods: Vec<_> = c.victims.iter().filter_map(|p| find(&p.key)).collect();
            json!({"Pods": pods.iter().map(|p| &**p).collect::<Vec<_>>(), "NumPDBViolations": c.violations})
        };
        let by_node =
            |of: &dyn Fn(&Candidate) -> Value| candidates.iter().map(|c| (c.node.clone(), of(c))).collect::<serde_json::Map<_, _>>();
        let body = match self.config.node_cache_capable {
            true => json!({"Pod": pod, "NodeNameToVictims": null, "NodeNameToMetaVictims": by_node(&meta)}),
            false => json!({"Pod": pod, "NodeNameToVictims": by_node(&whole), "NodeNameToMetaVictims": null}),
        };
        let answer = self.call(&self.config.preempt_verb, &body).await?;
        let mut left = Vec::new();
        for (node, victims) in field(&answer, "NodeNameToMetaVictims").and_then(Value::as_object).into_iter().flatten() {
            let unknown =
                |uid: &str| ExtenderError::UnknownVictim { url: self.config.url_prefix.clone(), uid: uid.to_owned(), node: node.clone() };
            let candidate = candidates.iter().find(|c| c.node == *node).ok_or_else(|| unknown(""))?;
            let mut kept = Vec::new();
            for entry in field(victims, "Pods").and_then(Value::as_array).into_iter().flatten() {
                let uid = field(entry, "UID").and_then(Value::as_str).unwrap_or_default();
                kept.push(candidate.victims.iter().find(|p| p.uid == uid).ok_or_else(|| unknown(uid))?.clone());
            }
            if kept.is_empty() {
                if self.config.ignorable {
                    continue;
                }
                return Err(ExtenderError::NoVictim(node.clone()));
            }
            let violations = field(victims, "NumPDBViolations").and_then(Value::as_i64).unwrap_or_default();
            left.push(Arc::new(Candidate { node: node.clone(), victims: kept, violations }));
        }
        Ok(left)
    }

    pub async fn bind(&self, pod: &Pod, node: &str) -> Result<(), ExtenderError> {
        let meta = &pod.metadata;
        let body = json!({"PodName": meta.name, "PodNamespace": meta.namespace, "PodUID": meta.uid, "Node": node});
        complaint(&self.call(&self.config.bind_verb, &body).await?)
    }
}
