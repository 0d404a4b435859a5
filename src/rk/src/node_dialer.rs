//! The API server's way to kubelets: to this process' own by a pair of pipes, to all others through the tunnels that they opened.
use std::io;
use std::sync::OnceLock;

use apiserver::{Extension, NodeDialer, NodeStream, Status, UserInfo};
use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use kubelet::Kubelet;
use tunnel::Tunnels;

/// Bytes on their way in one direction.
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Default)]
pub struct Nodes {
    local: OnceLock<(String, Kubelet)>,
    tunnels: Tunnels,
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
                return Ok(Box::new(self.tunnels.dial(node).await?) as Box<dyn NodeStream>);
            };
            let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
            let kubelet = kubelet.clone();
            tokio::spawn(async move { kubelet.serve_connection(theirs).await });
            Ok(Box::new(ours) as Box<dyn NodeStream>)
        })
    }
}

/// Where agents open their tunnels: each its own, and nobody else any.
impl Extension for Nodes {
    fn path(&self) -> &'static str {
        tunnel::PATH
    }

    fn answer(&self, user: &UserInfo, request: Request<Body>) -> Result<Response<Body>, Status> {
        let Some(node) = apiserver::auth::node_name(user) else {
            let why = format!("User \"{}\" is no node, and only a node opens a tunnel", user.name);
            return Err(Status::forbidden("", "", "", &why));
        };
        Ok(self.tunnels.answer(node, request).map(Body::new))
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_node_opens_its_own_tunnel_and_nobody_else_any() {
        let nodes = Nodes::default();
        let answer = |name: &str, groups: &[&str]| {
            let request = Request::get(tunnel::PATH).header("upgrade", "rk-tunnel/1").body(Body::empty()).unwrap();
            nodes.answer(&UserInfo::new(name, groups), request)
        };
        assert_eq!(answer("system:node:a", &["system:nodes"]).unwrap().status(), StatusCode::SWITCHING_PROTOCOLS);
        for (name, groups) in
            [("system:node:a", &["system:authenticated"][..]), ("system:admin", &["system:masters"]), ("system:anonymous", &[])]
        {
            let refused = answer(name, groups).unwrap_err();
            assert_eq!(
                (refused.code, refused.message),
                (403, format!("forbidden: User \"{name}\" is no node, and only a node opens a tunnel"))
            );
        }
        let error = nodes.dial("b").await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), "node \"b\" is not connected to this server");
    }
}
