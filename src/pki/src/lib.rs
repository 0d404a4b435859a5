//! The cluster's own identity: certificate authorities, certificates and their renewal, ServiceAccount tokens, join tokens.
//!
//! All keys are ECDSA P-256 (ring makes no RSA keys); tokens are ES256. Files are written atomically, private keys with
//! mode 0600. Everything takes the time as an argument. Enter by [`Cluster::load_or_create`].
//!
//! Knows Kubernetes' names in certificates and claims, no Kubernetes types.
mod authority;
mod cluster;
mod csr;
mod der;
mod files;
mod join_token;
mod leaf;
mod node_key;
mod tls;
mod token;

pub use authority::{Authority, AuthorityError};
pub use cluster::{Cluster, ClusterError, FRONT_PROXY};
pub use csr::{CsrError, SigningRequest, check_node_serving, key_fingerprint, node_client, sha256_hex};
pub use files::write_atomically;
pub use join_token::{BootstrapToken, JoinToken, JoinTokenError};
pub use leaf::{Leaf, LeafRequest, Usage, Validity};
pub use node_key::NodeKey;
pub use tls::{Identity, TlsError, client_config, install_ring, server_config, unproven_client_config};
pub use token::{BoundReference, Claims, KubernetesClaims, LegacyClaims, ServiceAccountSigner, ServiceAccountVerifier, TokenError, openid_configuration};
