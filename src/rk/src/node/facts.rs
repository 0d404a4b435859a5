//! What is the same on every node of a cluster. The server writes it into the ConfigMap `kube-system/rk-cluster`, agents read it
//! there and keep a copy, so that they start while no server is there.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::Context;
use ipnet::Ipv4Net;
use network::Backend;
use serde::{Deserialize, Serialize};

pub const NAMESPACE: &str = "kube-system";
pub const CONFIG_MAP: &str = "rk-cluster";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: Ipv4Net,
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Ipv4Net,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    #[serde(default, with = "as_text")]
    pub network_backend: Backend,
}

/// The backend by its name.
mod as_text {
    use network::Backend;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(backend: &Backend, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(backend.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Backend, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl ClusterFacts {
    /// As the data of the ConfigMap.
    pub fn to_data(&self) -> BTreeMap<String, String> {
        let tree = serde_json::to_value(self).expect("a plain struct has a JSON form");
        let fields = tree.as_object().into_iter().flatten();
        fields.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    }

    pub fn from_data(data: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let tree = serde_json::to_value(data).context("read the cluster's facts")?;
        serde_json::from_value(tree).with_context(|| format!("read the ConfigMap {NAMESPACE}/{CONFIG_MAP}"))
    }

    /// The ConfigMap, as a manifest.
    pub fn manifest(&self) -> String {
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE},
            "data": self.to_data(),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_they_were_written() {
        let facts = ClusterFacts {
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
            cluster_domain: "cluster.local".into(),
            network_backend: Backend::HostGw,
        };
        let data = facts.to_data();
        assert_eq!(data["clusterCIDR"], "10.42.0.0/16");
        assert_eq!(data["networkBackend"], "host-gw");
        assert_eq!(ClusterFacts::from_data(&data).unwrap(), facts);
        assert!(ClusterFacts::from_data(&BTreeMap::new()).is_err());
    }
}
