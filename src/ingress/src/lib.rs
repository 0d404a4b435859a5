//! The ingress controller: an HTTP proxy that follows Ingress objects. Runs as an ordinary pod.
//!
//! [`run`] watches Ingresses, Services, EndpointSlices and TLS secrets, keeps one immutable [`routes::Routes`] table that is
//! replaced as a whole, and answers HTTP and HTTPS from it. Requests go to pod addresses directly.
//! Invariants: routes are typed data, nothing is ever a template; a request is never sent to an address that no
//! EndpointSlice names; what a client sends in `X-Forwarded-*` is not believed.
//! Boundary: no annotation changes how a request is handled; only the `networking.k8s.io/v1` fields do.
mod backend;
mod config;
mod listener;
mod proxy;
mod routes;
mod sources;
mod status;
mod tls;

pub use config::{IngressConfig, RunError};
pub use listener::run;
