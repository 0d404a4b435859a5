//! The cluster's DNS server: names of Services, their endpoints and pods; everything else goes to the node's servers.
//!
//! Follows the Kubernetes DNS-Based Service Discovery specification 1.1.0, and where that is silent, CoreDNS. An ordinary program in
//! a pod: it knows Services and EndpointSlices from informers, and writes nothing. Enter by [`run`].
//!
//! What a question means is pure ([`question`], [`zone`]); around it are a UDP and a TCP loop, a forwarder with a small
//! cache, and the HTTP endpoints for health, readiness and metrics. Everything that strangers can make grow is bounded.
mod config;
mod resolv;

mod catalog;
mod question;
mod zone;

mod cache;
mod forward;
mod reply;

mod http;
mod metrics;
mod server;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

pub use config::{DnsConfig, RunError};
pub use server::run;
