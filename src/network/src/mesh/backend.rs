//! How packets for pods of other nodes travel; one choice for the whole cluster.
use std::fmt;
use std::str::FromStr;

use super::{vxlan, wireguard};

/// The value of `--network-backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Inside UDP packets (RFC 7348); works wherever the nodes reach each other.
    #[default]
    Vxlan,
    /// As they are, to the other node as the next hop; the nodes must share a link.
    HostGw,
    /// Encrypted, inside UDP packets, by the kernel's own WireGuard.
    Wireguard,
}

#[derive(Debug, thiserror::Error)]
#[error("unknown network backend {text:?}: vxlan, host-gw and wireguard are known")]
pub struct UnknownBackend {
    pub text: String,
}

impl Backend {
    pub const ALL: [Backend; 3] = [Backend::Vxlan, Backend::HostGw, Backend::Wireguard];

    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Vxlan => "vxlan",
            Backend::HostGw => "host-gw",
            Backend::Wireguard => "wireguard",
        }
    }

    /// The UDP port that nodes reach each other at.
    pub(crate) fn port(self) -> Option<u16> {
        match self {
            Backend::Vxlan => Some(vxlan::PORT),
            Backend::HostGw => None,
            Backend::Wireguard => Some(wireguard::PORT),
        }
    }

    /// What it puts around a packet, which has so much less room.
    pub fn overhead_bytes(self) -> u32 {
        match self {
            // IPv4 20, UDP 8, VXLAN 8, and the inner Ethernet header 14.
            Backend::Vxlan => 50,
            Backend::HostGw => 0,
            // As every WireGuard interface has it, which leaves room for an outer IPv6 header: 40, UDP 8, its own 32.
            Backend::Wireguard => 80,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        Backend::ALL.into_iter().find(|b| b.as_str() == text).ok_or_else(|| UnknownBackend { text: text.to_owned() })
    }
}
