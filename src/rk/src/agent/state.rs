//! What an agent keeps in DATA_DIR/agent: `server-ca.crt`, `client.key`, `client.crt` and `agent.json`.
//!
//! `agent.json` is written last: it says that the machine has joined.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pki::Leaf;
use serde::{Deserialize, Serialize};
use tunnel::ServerAddress;

use super::settings::{Kept, Wanted};
use crate::node::ClusterFacts;
use crate::uninstall;

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// A member of a cluster.
#[derive(Clone)]
pub struct Member {
    pub node_name: String,
    /// The servers' authority, PEM.
    pub authority: String,
    pub leaf: Leaf,
    /// Servers that the operator named, and all that are known.
    pub told: Vec<ServerAddress>,
    pub servers: Vec<ServerAddress>,
    pub facts: ClusterFacts,
    pub settings: Kept,
}

impl Member {
    /// With what the operator says at this start.
    pub fn with(mut self, wanted: &Wanted) -> Self {
        if !wanted.servers.is_empty() {
            self.told.clone_from(&wanted.servers);
            self.servers = wanted.servers.iter().chain(&self.servers).cloned().collect();
        }
        self.settings = wanted.kept(self.settings);
        self
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    node_name: String,
    told: Vec<String>,
    servers: Vec<String>,
    facts: ClusterFacts,
    #[serde(default)]
    settings: Kept,
}

pub struct State {
    folder: PathBuf,
}

impl State {
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("agent") }
    }

    pub fn key_path(&self) -> PathBuf {
        self.folder.join("client.key")
    }

    pub fn make_folder(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.with_context(|| format!("create {}", self.folder.display()))
    }

    /// `None`: this machine has not joined.
    pub fn load(&self) -> anyhow::Result<Option<Member>> {
        let path = self.folder.join("agent.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        let record: Record = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        let read = |name: &str| {
            let path = self.folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}; if it is lost, join again", path.display()))
        };
        let servers = |list: Vec<String>| list.iter().filter_map(|s| s.parse().ok()).collect();
        Ok(Some(Member {
            node_name: record.node_name,
            authority: read("server-ca.crt")?,
            leaf: Leaf { certificate_pem: read("client.crt")?, key_pem: read("client.key")? },
            told: servers(record.told),
            servers: servers(record.servers),
            facts: record.facts,
            settings: record.settings,
        }))
    }

    pub fn save(&self, member: &Member) -> anyhow::Result<()> {
        self.write("server-ca.crt", &member.authority, PUBLIC)?;
        self.save_certificate(&member.leaf.certificate_pem)?;
        let texts = |list: &[ServerAddress]| list.iter().map(ToString::to_string).collect();
        self.save_record(&Record {
            node_name: member.node_name.clone(),
            told: texts(&member.told),
            servers: texts(&member.servers),
            facts: member.facts.clone(),
            settings: member.settings.clone(),
        })
    }

    pub fn save_certificate(&self, pem: &str) -> anyhow::Result<()> {
        self.write("client.crt", pem, PUBLIC)
    }

    pub fn save_servers(&self, list: &[ServerAddress]) -> anyhow::Result<()> {
        self.change(|record| record.servers = list.iter().map(ToString::to_string).collect())
    }

    pub fn save_facts(&self, facts: &ClusterFacts) -> anyhow::Result<()> {
        self.change(|record| record.facts = facts.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Record)) -> anyhow::Result<()> {
        let path = self.folder.join("agent.json");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut record = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        change(&mut record);
        self.save_record(&record)
    }

    fn save_record(&self, record: &Record) -> anyhow::Result<()> {
        self.write("agent.json", &serde_json::to_string_pretty(record).context("write down what is known")?, SECRET)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        pki::write_atomically(&path, text.as_bytes(), mode).with_context(|| format!("write {}", path.display()))
    }

    /// Forgets the cluster and removes what it left on this machine: another's pods must not meet it.
    pub async fn leave(&self, data_dir: &Path) -> anyhow::Result<()> {
        tracing::info!("leaving the old cluster: its containers are stopped and removed");
        uninstall::remove_node(data_dir).await?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("remove {}", self.folder.display()))
    }
}
