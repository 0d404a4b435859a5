//! The proxy of a node: keeps the kernel's rules in step with Services and EndpointSlices, and its routes with Nodes.
//!
//! Decides nothing about packets: [`rule::of_service`] turns a Service and its endpoints into a
//! [`network::ServiceRule`], and `network` writes that. Enter by [`Proxy::new`] and [`Proxy::run`].
//!
//! Left out: topology hints and trafficDistribution, IPv6, and the health checks of `healthCheckNodePort`.
mod endpoints;
mod nodes;
mod proxy;
mod rule;
#[cfg(test)]
mod tests;

pub use proxy::Proxy;
pub use rule::of_service;
