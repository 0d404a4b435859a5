//! The API server's way to this process' own kubelet: a pair of pipes, no socket.
use std::io;
use std::sync::OnceLock;

use apiserver::{NodeDialer, NodeStream};
use futures::future::BoxFuture;
use kubelet::Kubelet;

/// Bytes on their way in one direction.
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Default)]
pub struct Nodes {
    local: OnceLock<(String, Kubelet)>,
}

impl Nodes {
    pub fn set_local(&self, node_name: String, kubelet: Kubelet) {
        // A process has one kubelet; a second call would be a fault of ours and changes nothing.
        let _ = self.local.set((node_name, kubelet));
    }
}

impl NodeDialer for Nodes {
    fn dial<'a>(&'a self, node: &'a str) -> BoxFuture<'a, io::Result<Box<dyn NodeStream>>> {
        Box::pin(async move {
            let Some((_, kubelet)) = self.local.get().filter(|(name, _)| name == node) else {
                return Err(io::Error::new(io::ErrorKind::NotConnected, format!("node {node:?} is not connected to this server")));
            };
            let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
            let kubelet = kubelet.clone();
            tokio::spawn(async move { kubelet.serve_connection(theirs).await });
            Ok(Box::new(ours) as Box<dyn NodeStream>)
        })
    }
}
