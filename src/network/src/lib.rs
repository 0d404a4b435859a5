//! The node's part of the pod network: links and addresses of pods, the way to other nodes, and one nf_tables table for Services.
//!
//! Knows addresses, ports and network namespaces, and nothing of Kubernetes' objects. Everything is done by netlink; no
//! program is ever started. Enter by [`Network::setup`], which adopts what an earlier run left behind; pods come and go by
//! [`Network::attach`] and [`Network::detach`]; other nodes by [`Mesh::set_peers`]; Services and host ports are written through
//! [`ServiceWriter`].
//!
//! Invariants: an address is on disk before anyone uses it; no link but `rk0`, `rk-vx`, `rk-wg` and the pods' own, and no table but
//! `rk-proxy`, is ever changed; `route_localnet` is never set (CVE-2020-8558).
mod types;

mod genetlink;
mod netlink;
mod routes;

mod addresses;
mod bridge;
mod node;
mod pod;

mod mesh;

mod nft;
mod services;

mod probe;

mod error;
pub use error::{AttachError, CommitError, DetachError, InvalidIfName, MeshError, SetupError, StepError, TeardownError};
pub use mesh::{Backend, InvalidKey, Mesh, PUBLIC_KEY_ANNOTATION, Peer, PublicKey, Reason, UnknownBackend, Unreachable};
pub use node::{Network, teardown};
pub use probe::{ProbeError, Probed, probe};
pub use services::{Change, ServiceWriter};
pub use types::{Attachment, HostPort, IfName, NodeConfig, PortRule, Protocol, ServiceId, ServiceRule, ServiceTable};
