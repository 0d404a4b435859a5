//! How agents and servers reach each other: the agent dials, and both directions of calls go over what it dialled.
//!
//! An agent knows some [`Servers`]; its [`Dialer`] connects to a live one, for API calls (it is a connector of `client::Client`)
//! and for the tunnel. The tunnel is an HTTP/1.1 upgrade on [`PATH`]; after it the roles swap: the server is the HTTP/2 client,
//! and each of its streams is one byte pipe to the agent's kubelet. [`Tunnels`] is the server's side, [`Uplinks`] the agent's.
//!
//! Invariants: the agent opens no port; a stalled stream takes no other stream's window; every number of streams, every buffer
//! and every wait has a bound. No Kubernetes types: who may open the tunnel of which node is the caller's to decide.
mod dial;
mod handshake;
mod protocol;
mod registry;
mod resolve;
mod servers;
#[cfg(test)]
mod tests;
mod uplink;

pub use dial::{DialError, Dialer};
pub use handshake::OpenError;
pub use protocol::PATH;
pub use registry::{StreamError, Tunnels};
pub use servers::{AddressError, ServerAddress, Servers};
pub use uplink::{Handler, Pipe, Uplinks, serve};
