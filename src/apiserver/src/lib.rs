//! The Kubernetes API over HTTPS and in process.
//!
//! A request goes [`server`] (TLS, bounds) -> [`pipeline`] (who, may they, limits) -> [`rest`] (one generic handler for every kind; what a
//! kind does differently is its [`strategy`]) -> `store`; the store's synchronous hook feeds [`cache`], from which every read and watch is
//! answered. Bytes stay bytes: get, list and watch never parse JSON.
//! Invariants: only this crate sees `store`; every error that a client reads is made in [`status`]; a watch never skips, repeats or reorders.
pub mod admission;
mod aggregation;
pub mod alloc;
pub mod audit;
pub mod auth;
pub mod bootstrap;
mod bursts;
pub mod cache;
pub mod config;
mod convert;
mod custom;
mod discovery;
mod documents;
pub mod encryption;
mod extension;
mod endpoints;
mod fixed;
mod flow;
pub mod follow;
#[cfg(any(fuzzing, test))]
pub mod fuzzed;
mod health;
mod housekeeping;
mod impersonation;
mod kinds;
mod local;
mod metrics;
mod negotiate;
mod node;
mod outbound;
mod pem;
mod pipeline;
mod request;
mod resource_metrics;
mod rest;
mod review;
mod server;
pub mod status;
mod strategy;
mod subresource;
mod table;
mod watch;
mod zpages;

#[cfg(test)]
mod tests;

pub use admission::{Admission, AdmitAll, Operation};
pub use auth::{Attributes, Authenticator, Authorizer, Decision, TokenIssuer, UserInfo};
pub use cache::{Cache, Cached};
pub use config::{Config, FrontProxy, Parts};
pub use extension::Extension;
pub use local::Local;
pub use node::{NodeDialer, NodeStream};
pub use server::{ApiServer, Tls};
pub use status::Status;
