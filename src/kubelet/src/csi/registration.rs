//! Registers drivers whose registrar puts a socket into the registry's folder, and forgets them when it goes.
//!
//! Models pkg/kubelet/pluginmanager/{pluginwatcher,reconciler,operationexecutor}, v1.37: asked who it is, checked, published, told the outcome.
//! Woken by inotify; a socket that does not answer yet is tried again while it is there.
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use super::message::{self, Writer};
use super::node_info::{self, DriverNode};
use super::{Driver, POISON, rpc};
use crate::images::chain;
use crate::kubelet::Context;

const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Never ends. Fails where the folder cannot be watched.
pub async fn run(cx: Arc<Context>) -> std::io::Result<()> {
    let registry = cx.csi.registry();
    let marks = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let kinds = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::ONLYDIR;
    inotify::add_watch(&marks, &registry, kinds)?;
    // Deprecated for descriptors that may close behind its back; an OwnedFd cannot, and this crate has no unsafe code.
    #[allow(deprecated)]
    let marks = AsyncFd::new(marks)?;
    // By socket, the driver behind it.
    let mut registered: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut delay = RETRY;
    // A node of no drivers has a CSINode too: schedulers read limits from it.
    let mut is_published = false;
    loop {
        let sockets = sockets(&registry);
        let gone: Vec<PathBuf> = registered.keys().filter(|path| !sockets.contains(*path)).cloned().collect();
        for path in &gone {
            if let Some(name) = registered.remove(path) {
                info!(driver = name, "storage driver has left");
                cx.csi.known.lock().expect(POISON).remove(&name);
            }
        }
        is_published &= gone.is_empty();
        let mut failed = false;
        for path in sockets.iter().filter(|path| !registered.contains_key(*path)).cloned().collect::<Vec<_>>() {
            match register(&cx, &path).await {
                Ok(name) => {
                    info!(driver = name, socket = %path.display(), "storage driver is registered");
                    registered.insert(path, name);
                    is_published = true;
                }
                Err(error) => {
                    warn!(socket = %path.display(), error, "register a plugin");
                    failed = true;
                }
            }
        }
        if !is_published {
            match node_info::publish(&cx.client, &cx.config.node_name, &cx.csi.list()).await {
                Ok(()) => is_published = true,
                Err(error) => {
                    failed = true;
                    // At the first start there is no Node yet.
                    tracing::debug!(error = chain(&error), "publish the node's storage drivers");
                }
            }
        }
        delay = if failed { (delay * 2).min(RETRY_MAX) } else { RETRY };
        tokio::select! {
            changed = changed(&marks) => {
                changed?;
                delay = RETRY;
            }
            () = tokio::time::sleep(delay), if failed => {}
        }
    }
}

/// Waits for an event, and takes all that are there.
async fn changed(marks: &AsyncFd<std::os::fd::OwnedFd>) -> std::io::Result<()> {
    let mut guard = marks.readable().await?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(marks.get_ref(), &mut buffer);
    // Ends with EAGAIN when there is no more.
    while reader.next().is_ok() {}
    guard.clear_ready();
    Ok(())
}

/// Hidden ones are none of ours, as upstream has it.
fn sockets(registry: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(registry).into_iter().flatten().flatten();
    let is_socket = |entry: &std::fs::DirEntry| {
        entry.file_type().is_ok_and(|kind| kind.is_socket()) && !entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    entries.filter(is_socket).map(|entry| entry.path()).collect()
}

async fn register(cx: &Arc<Context>, socket: &Path) -> Result<String, String> {
    let answer = rpc::call(socket, "/pluginregistration.Registration/GetInfo", &[]).await.map_err(|e| e.to_string())?;
    let info = message::plugin_info(&answer).map_err(|e| e.to_string())?;
    let outcome = introduce(cx, &info).await;
    let told = match &outcome {
        Ok(()) => Writer::default().number(1, 1),
        Err(why) => Writer::default().text(2, why),
    };
    let told = rpc::call(socket, "/pluginregistration.Registration/NotifyRegistrationStatus", &told.done()).await;
    outcome?;
    told.map_err(|e| e.to_string())?;
    Ok(info.name)
}

async fn introduce(cx: &Arc<Context>, info: &message::PluginInfo) -> Result<(), String> {
    check(info)?;
    let endpoint = PathBuf::from(&info.endpoint);
    let ask = |method: &'static str| {
        let endpoint = endpoint.clone();
        async move { rpc::call(&endpoint, method, &[]).await.map_err(|e| e.to_string()) }
    };
    let node = message::node_info(&ask("/csi.v1.Node/NodeGetInfo").await?).map_err(|e| e.to_string())?;
    if node.node_id.is_empty() {
        return Err(format!("error adding CSI driver node info: driver {} said nothing about this node", info.name));
    }
    let capabilities = message::capabilities(&ask("/csi.v1.Node/NodeGetCapabilities").await?).map_err(|e| e.to_string())?;
    let volumes_max = i32::try_from(node.volumes_max).ok().filter(|max| *max > 0);
    let driver = Driver {
        name: info.name.clone(),
        endpoint: endpoint.clone(),
        node: DriverNode { id: node.node_id, volumes_max, topology: node.topology },
        capabilities,
    };
    // The names it says are taken over, the others' stay.
    let mut all = cx.csi.list();
    all.retain(|other| other.name != driver.name);
    all.push(driver.clone());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let published = node_info::publish(&cx.client, &cx.config.node_name, &all).await;
    published.map_err(|e| format!("error updating CSINode object with CSI driver node info: {}", chain(&e)))?;
    cx.csi.known.lock().expect(POISON).insert(driver.name.clone(), driver);
    Ok(())
}

/// Models csi_plugin.go ValidatePlugin.
fn check(info: &message::PluginInfo) -> Result<(), String> {
    if info.kind != "CSIPlugin" {
        return Err(format!("plugins of type {:?} are not supported by this kubelet", info.kind));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if info.name.is_empty() || info.name.len() > 63 || !info.name.chars().all(is_name) || info.name.starts_with('.') {
        return Err(format!("{:?} is no name of a driver", info.name));
    }
    let first = |version: &String| version.trim_start_matches('v').split('.').next().map(str::to_owned);
    if !info.versions.iter().any(|version| first(version).as_deref() == Some("1")) {
        return Err(format!("none of the CSI versions reported by this driver are supported: {}", info.versions.join(",")));
    }
    if !Path::new(&info.endpoint).is_absolute() {
        return Err(format!("endpoint {:?} is no absolute path", info.endpoint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drivers_of_the_first_version_with_a_decent_name_are_let_in() {
        let check = |kind: &str, name: &str, version: &str, endpoint: &str| {
            super::check(&message::PluginInfo {
                kind: kind.into(),
                name: name.into(),
                endpoint: endpoint.into(),
                versions: vec![version.into()],
            })
            .is_ok()
        };
        assert!(check("CSIPlugin", "hostpath.csi.k8s.io", "1.0.0", "/csi.sock") && check("CSIPlugin", "d", "v1.12", "/csi.sock"));
        for (kind, name, version, endpoint) in [
            ("DevicePlugin", "d", "1", "/s"),
            ("CSIPlugin", "../d", "1", "/s"),
            ("CSIPlugin", "", "1", "/s"),
            ("CSIPlugin", "d", "0.3", "/s"),
            ("CSIPlugin", "d", "1", "s"),
        ] {
            assert!(!check(kind, name, version, endpoint), "{kind} {name} {version} {endpoint}");
        }
    }
}
