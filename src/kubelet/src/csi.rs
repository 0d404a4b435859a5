//! Volumes of drivers outside of the tree (CSI, the Container Storage Interface).
//!
//! Models pkg/kubelet/pluginmanager and pkg/volume/csi, v1.37. A driver's registrar puts a socket into `plugins_registry`
//! ([`registration`]); the node is published with the driver's id for it, its topology and its limit ([`node_info`]); a pod's volume is
//! staged once per node and published once per pod, and both are undone when the pod has ended ([`mount`]). What has to be undone is on
//! disk before it is done, so a restart forgets nothing. The protocol is a dozen unary gRPC calls ([`rpc`], [`message`]).
//! Left out: block devices, growth of a file system on the node, SELinux labels, publishing again by time (`requiresRepublish`: that
//! happens when the pod's other volumes are refreshed).
pub mod message;
pub mod mount;
pub mod node_info;
pub mod registration;
pub mod rpc;
mod source;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing::{info, warn};

/// Where every driver's manifest expects the kubelet's folder.
const USUAL_ROOT: &str = "/var/lib/kubelet";
const POISON: &str = "nothing panics while it holds the lock";

/// A driver that has registered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    pub name: String,
    /// The socket that its node service answers on.
    pub endpoint: PathBuf,
    pub node: node_info::DriverNode,
    pub capabilities: message::Capabilities,
}

/// All drivers of this node, and what they have mounted.
pub struct Drivers {
    /// The kubelet's folder under the name that drivers know it by.
    root: PathBuf,
    known: Mutex<BTreeMap<String, Driver>>,
    /// Pod and volume: published by this process, and not to be published again for each refresh.
    published: Mutex<BTreeSet<(String, String)>>,
    /// Pod and volume: what is on disk about it.
    records: Mutex<BTreeMap<(String, String), source::Record>>,
    /// By driver and volume: held while it is staged, published or taken away.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Drivers {
    pub fn new(root_dir: &Path) -> Self {
        let root: PathBuf = if is_link_to(Path::new(USUAL_ROOT), root_dir) { USUAL_ROOT.into() } else { root_dir.to_owned() };
        let records = Mutex::new(mount::read_records(&root));
        Self { root, known: Mutex::default(), published: Mutex::default(), records, locks: Mutex::default() }
    }

    /// The sockets of registrars.
    fn registry(&self) -> PathBuf {
        self.root.join("plugins_registry")
    }

    pub fn get(&self, name: &str) -> Option<Driver> {
        self.known.lock().expect(POISON).get(name).cloned()
    }

    fn list(&self) -> Vec<Driver> {
        self.known.lock().expect(POISON).values().cloned().collect()
    }

    async fn lock(&self, driver: &str, handle: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let key = format!("{driver}^{handle}");
        let lock = {
            let mut locks = self.locks.lock().expect(POISON);
            // Those that nobody holds or waits for.
            locks.retain(|name, lock| *name == key || Arc::strong_count(lock) > 1);
            locks.entry(key).or_default().clone()
        };
        lock.lock_owned().await
    }
}

fn is_link_to(link: &Path, target: &Path) -> bool {
    std::fs::read_link(link).is_ok_and(|to| to == target)
}

/// Makes the folders that drivers mount, and the usual name for the kubelet's, where no other kubelet has it.
pub fn make_folders(root_dir: &Path) -> std::io::Result<()> {
    for folder in ["plugins", "plugins_registry", "pods"] {
        std::fs::create_dir_all(root_dir.join(folder))?;
    }
    let usual = Path::new(USUAL_ROOT);
    if is_link_to(usual, root_dir) {
        return Ok(());
    }
    // A link that leads nowhere is what another data folder has left.
    if usual.is_symlink() && !usual.exists() {
        std::fs::remove_file(usual)?;
    }
    match std::os::unix::fs::symlink(root_dir, usual) {
        Ok(()) => info!(link = USUAL_ROOT, to = %root_dir.display(), "drivers find the kubelet's folder under its usual name"),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            warn!(path = USUAL_ROOT, own = %root_dir.display(), "another kubelet has the usual folder: storage drivers must be told this one's");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
