//! What an agent keeps up to date for its next start, and for a server that goes away: the list of servers, and the cluster's facts.
use std::sync::Arc;

use client::{Client, Informer};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tracing::{info, warn};
use tunnel::{Dialer, ServerAddress};

use super::join;
use super::state::State;
use crate::node::{CONFIG_MAP, ClusterFacts, NAMESPACE};

/// Follows the endpoints of the Service `kubernetes`. `told` are the servers that the operator named: they stay, whatever it says.
pub async fn follow_servers(state: Arc<State>, dialer: Dialer, client: Client, told: Vec<ServerAddress>) -> anyhow::Result<&'static str> {
    let slices = Informer::<EndpointSlice>::builder(&client).namespace("default").fields("metadata.name=kubernetes".to_owned()).start();
    let mut changes = slices.subscribe();
    loop {
        changes.recv().await;
        let live = slices.list().iter().flat_map(|slice| addresses(slice)).collect::<Vec<_>>();
        if live.is_empty() {
            continue; // a server that is just starting; what is known stays
        }
        let list: Vec<ServerAddress> = told.iter().cloned().chain(live).collect();
        if dialer.servers().replace(list) {
            let list = dialer.servers().list();
            info!(servers = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), "known servers");
            state.save_servers(&list)?;
        }
    }
}

fn addresses(slice: &EndpointSlice) -> Vec<ServerAddress> {
    let ports: Vec<u16> = slice.ports.iter().flatten().filter_map(|p| p.port.and_then(|n| u16::try_from(n).ok())).collect();
    let hosts = slice.endpoints.iter().flatten().flat_map(|e| &e.addresses);
    hosts.flat_map(|host| ports.iter().map(|port| ServerAddress { host: host.clone(), port: *port })).collect()
}

/// Facts are taken up at the next start: networks do not change under running pods.
pub async fn follow_facts(state: Arc<State>, client: Client, mut known: ClusterFacts) -> anyhow::Result<&'static str> {
    let maps = Informer::<ConfigMap>::builder(&client).namespace(NAMESPACE).fields(format!("metadata.name={CONFIG_MAP}")).start();
    let mut changes = maps.subscribe();
    loop {
        let change = changes.recv().await;
        match join::parse(change.object()) {
            Ok(facts) if facts != known => {
                warn!("the cluster's settings have changed; `rk agent` takes them up when it is restarted");
                state.save_facts(&facts)?;
                known = facts;
            }
            Ok(_) => {}
            Err(error) => warn!(error = format!("{error:#}"), "the cluster's settings cannot be read"),
        }
    }
}
