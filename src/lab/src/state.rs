//! What is known of a lab between two commands: `/run/rk-lab/NAME/lab.json`.
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::plan::Role;

/// The name of the namespace that holds the bridge.
pub const HUB: &str = "hub";

/// Gone after a reboot, as the labs are.
const ROOT: &str = "/run/rk-lab";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub name: String,
    /// The third byte of the lab's addresses.
    pub network: u8,
    /// Where the machines' folders are.
    pub data: PathBuf,
    pub hub: Option<Process>,
    pub machines: Vec<Machine>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub name: String,
    pub role: Role,
    pub address: Ipv4Addr,
    pub init: Option<Process>,
    /// What `start` runs.
    pub command: Vec<String>,
}

/// A process whose namespaces are entered; the namespace tells it from a later one of the same number.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    net: PathBuf,
}

impl Process {
    pub fn new(pid: u32) -> Result<Self> {
        Ok(Self { pid, net: namespace(pid)? })
    }

    /// The process id, if it is still the same process.
    pub fn alive(&self) -> Result<u32> {
        if namespace(self.pid).is_ok_and(|net| net == self.net) { Ok(self.pid) } else { bail!("process {} has ended", self.pid) }
    }
}

fn namespace(pid: u32) -> Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).with_context(|| format!("look at process {pid}"))
}

impl State {
    /// The lab's own address, that of the hub.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, self.network, 1)
    }

    pub fn folder(&self) -> PathBuf {
        folder(&self.name)
    }

    /// The administrator's kubeconfig, with an address that the hub reaches.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig.yaml")
    }

    pub fn machine(&self, name: &str) -> Result<&Machine> {
        let names = || self.machines.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
        self.machines.iter().find(|m| m.name == name).with_context(|| format!("lab {} has no machine {name}, but {}", self.name, names()))
    }

    pub fn save(&self) -> Result<()> {
        let path = self.folder().join("lab.json");
        let draft = path.with_extension("draft");
        fs::create_dir_all(self.folder()).with_context(|| format!("create {}", self.folder().display()))?;
        fs::write(&draft, serde_json::to_vec_pretty(self)?).with_context(|| format!("write {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("write {}", path.display()))
    }

    pub fn load(name: &str) -> Result<Self> {
        let path = folder(name).join("lab.json");
        let text = fs::read(&path).with_context(|| format!("no lab {name}: read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
    }

    /// All labs that have a state, in the order of their names.
    pub fn all() -> Vec<Self> {
        let names = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        let mut labs: Vec<_> = names.filter_map(|name| Self::load(&name).ok()).collect();
        labs.sort_by(|a, b| a.name.cmp(&b.name));
        labs
    }
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

/// Folders of machines: on a disk, because container images go there, and where overlays can be made.
pub fn data(name: &str) -> PathBuf {
    std::env::var_os("RK_LAB_DIR").map_or_else(|| PathBuf::from("/var/tmp/rk-lab"), PathBuf::from).join(name)
}

/// Held while the lab `name` is made or removed; ends with the process.
pub fn lock(name: &str) -> Result<File> {
    fs::create_dir_all(ROOT).with_context(|| format!("create {ROOT} (labs need root)"))?;
    let path = Path::new(ROOT).join(format!(".{name}.lock"));
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// The lowest network that no lab has.
pub fn free_network(taken: &[u8]) -> Result<u8> {
    (0..=255).find(|n| !taken.contains(n)).context("all 256 networks of labs are taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_labs_never_share_a_network() {
        assert_eq!(free_network(&[]).ok(), Some(0));
        assert_eq!(free_network(&[0, 2, 1, 4]).ok(), Some(3));
        assert!(free_network(&(0..=255).collect::<Vec<_>>()).is_err());
    }
}
