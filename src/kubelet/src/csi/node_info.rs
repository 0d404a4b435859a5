//! What the cluster knows of this node's drivers: its CSINode, an annotation with its ids, labels of its topology.
//!
//! Models pkg/volume/csi/nodeinfomanager/nodeinfomanager.go, v1.37.
use std::collections::BTreeMap;

use client::{ApiError, Client, ObjectKey, Patch};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::Driver;
use super::message::Map;

const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// Somebody else writes these objects too, rarely.
const TRIES: usize = 5;

/// How a driver calls this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverNode {
    pub id: String,
    pub volumes_max: Option<i32>,
    pub topology: Map,
}

/// Publishes all drivers that are registered; those that are not are taken out.
pub async fn publish(client: &Client, node_name: &str, drivers: &[Driver]) -> Result<(), ApiError> {
    let key = ObjectKey::cluster(node_name);
    let node: Node = client.get(&key).await?;
    if let Some(patch) = node_patch(&node, drivers) {
        client.patch::<Node>(&key, &Patch::Merge(patch)).await?;
    }
    let mut tries = TRIES;
    loop {
        let result = publish_csi_node(client, &key, &node, drivers).await;
        tries -= 1;
        match result {
            Err(error) if tries > 0 && (error.is_conflict() || error.is_already_exists()) => {}
            result => return result,
        }
    }
}

async fn publish_csi_node(client: &Client, key: &ObjectKey, node: &Node, drivers: &[Driver]) -> Result<(), ApiError> {
    match client.get::<CSINode>(key).await {
        Ok(found) => {
            let wanted = entries(drivers);
            if found.spec.drivers == wanted {
                return Ok(());
            }
            client.update(&CSINode { spec: CSINodeSpec { drivers: wanted }, ..found }).await.map(drop)
        }
        Err(error) if error.is_not_found() => {
            let owner = OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: key.name.clone(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            };
            let metadata = ObjectMeta { name: Some(key.name.clone()), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
            client.create(&CSINode { metadata, spec: CSINodeSpec { drivers: entries(drivers) }, status: None }).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

fn entries(drivers: &[Driver]) -> Vec<CSINodeDriver> {
    let entry = |driver: &Driver| CSINodeDriver {
        name: driver.name.clone(),
        node_id: driver.node.id.clone(),
        topology_keys: Some(driver.node.topology.keys().cloned().collect::<Vec<_>>()).filter(|keys| !keys.is_empty()),
        allocatable: driver.node.volumes_max.map(|count| VolumeNodeResources { count: Some(count) }),
    };
    drivers.iter().map(entry).collect()
}

/// Labels that are there are never taken away: volumes may depend on them.
fn node_patch(node: &Node, drivers: &[Driver]) -> Option<Value> {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let topology = drivers.iter().flat_map(|d| &d.node.topology);
    let missing: BTreeMap<_, _> = topology.filter(|(key, value)| labels.get(*key) != Some(value)).collect();
    let ids: Map = drivers.iter().map(|d| (d.name.clone(), d.node.id.clone())).collect();
    let told = node.metadata.annotations.as_ref().and_then(|a| a.get(NODE_IDS));
    let wanted = (!ids.is_empty()).then(|| serde_json::to_string(&ids).expect("strings are JSON"));
    let mut meta = serde_json::Map::new();
    if !missing.is_empty() {
        meta.insert("labels".into(), json!(missing));
    }
    if told != wanted.as_ref() {
        meta.insert("annotations".into(), json!({NODE_IDS: wanted}));
    }
    (!meta.is_empty()).then(|| json!({"metadata": meta}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_its_ids_and_its_topology() {
        let node = |meta: Value| -> Node { serde_json::from_value(json!({"metadata": meta})).unwrap() };
        let driver = Driver {
            name: "d".into(),
            endpoint: "/d.sock".into(),
            node: DriverNode { id: "n1".into(), volumes_max: Some(4), topology: Map::from([("zone".into(), "a".into())]) },
            capabilities: Default::default(),
        };
        let all = [driver];
        let patch = node_patch(&node(json!({})), &all).unwrap();
        assert_eq!(patch, json!({"metadata": {"labels": {"zone": "a"}, "annotations": {NODE_IDS: "{\"d\":\"n1\"}"}}}));
        let done = node(json!({"labels": {"zone": "a"}, "annotations": {NODE_IDS: "{\"d\":\"n1\"}"}}));
        assert_eq!(node_patch(&done, &all), None);
        assert_eq!(node_patch(&done, &[]), Some(json!({"metadata": {"annotations": {NODE_IDS: null}}})));
        let entry = &entries(&all)[0];
        assert_eq!((entry.topology_keys.as_deref(), entry.allocatable.as_ref().unwrap().count), (Some(&["zone".to_owned()][..]), Some(4)));
    }
}
