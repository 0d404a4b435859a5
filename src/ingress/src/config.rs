//! What the controller is told at start.
use std::net::SocketAddr;

use client::ObjectKey;

#[derive(Clone, Debug)]
pub struct IngressConfig {
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Answers `/healthz` and `/readyz`.
    pub health: SocketAddr,
    /// The IngressClass that this controller serves; Ingresses without a class are served too.
    pub class: String,
    /// The Service whose load balancer addresses are written into the status of each Ingress.
    pub service: ObjectKey,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("listen on {address}")]
    Listen { address: SocketAddr, #[source] source: std::io::Error },
    #[error("make the default certificate")]
    Certificate(#[source] rcgen::Error),
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}
