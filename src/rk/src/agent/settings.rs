//! What the operator says, checked. What is said once is kept: `rk agent` alone starts with it again.
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use pki::JoinToken;
use serde::{Deserialize, Serialize};
use tunnel::ServerAddress;

use crate::cli::UsageError;
use crate::options::{AgentOptions, REGISTRIES, RESOLV_CONF};
use crate::{host, node};


/// Options of this start; `None` and empty where nothing was said.
pub struct Wanted {
    pub data_dir: PathBuf,
    pub node_name: Option<String>,
    /// May have changed since the machine joined.
    pub servers: Vec<ServerAddress>,
    pub invitation: Option<(Vec<ServerAddress>, JoinToken)>,
    options: AgentOptions,
}

/// What is kept of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub node_ip: Option<Ipv4Addr>,
    pub labels: Vec<String>,
    pub taints: Vec<String>,
    pub resolv_conf: PathBuf,
    pub private_registry: PathBuf,
}

impl Default for Kept {
    fn default() -> Self {
        Self { node_ip: None, labels: Vec::new(), taints: Vec::new(), resolv_conf: RESOLV_CONF.into(), private_registry: REGISTRIES.into() }
    }
}

impl Wanted {
    pub fn new(options: AgentOptions) -> anyhow::Result<Self> {
        let usage = |text: String| anyhow::Error::from(UsageError(text));
        let servers: Vec<ServerAddress> = options
            .server
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, tunnel::AddressError>>()
            .map_err(|e| usage(format!("--server: {e}")))?;
        let text = match (&options.token, &options.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(std::fs::read_to_string(path).with_context(|| format!("read the token from {}", path.display()))?),
            (None, None) => None,
        };
        let token: Option<JoinToken> =
            text.map(|t| t.parse()).transpose().map_err(|e: pki::JoinTokenError| usage(format!("--token: {e}")))?;
        let invitation = match token {
            Some(_) if servers.is_empty() => {
                bail!(UsageError("--token needs --server https://HOST:6443, the address of the server that made it".into()))
            }
            Some(token) => Some((servers.clone(), token)),
            None => None,
        };
        let node_name = options.node.node_name.as_deref().map(|name| host::node_name(Some(name))).transpose()?;
        node::labels(&options.node.node_label)?;
        options.node.node_taint.iter().try_for_each(|t| node::taint(t).map(drop))?;
        Ok(Self { data_dir: options.data_dir.clone(), node_name, servers, invitation, options })
    }

    /// `old` with what was said now.
    pub fn kept(&self, old: Kept) -> Kept {
        let or = |new: &[String], old: Vec<String>| if new.is_empty() { old } else { new.to_vec() };
        Kept {
            node_ip: self.options.node.node_ip.or(old.node_ip),
            labels: or(&self.options.node.node_label, old.labels),
            taints: or(&self.options.node.node_taint, old.taints),
            resolv_conf: self.options.node.resolv_conf.clone().unwrap_or(old.resolv_conf),
            private_registry: self.options.node.private_registry.clone().unwrap_or(old.private_registry),
        }
    }
}
