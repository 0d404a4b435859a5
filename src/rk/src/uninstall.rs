//! `rk uninstall`: everything that rk made on this machine goes, nobody else's is touched.
//!
//! Every step is tried; what failed is told at the end.
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::options::{KUBECONFIG, RUN_DIR, UninstallOptions};
use crate::{agent, local_storage, lock, logging};

const BINARY: &str = "/usr/local/bin/rk";
const UNITS: [&str; 2] = ["rk.service", "rk-agent.service"];
const UNIT_FOLDER: &str = "/etc/systemd/system";
pub const BRIDGE: &str = "rk0";

pub fn main(options: &UninstallOptions) -> anyhow::Result<()> {
    logging::start(false);
    let mut failures = Vec::new();
    let mut step = |what: &str, result: anyhow::Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    let data_dir = &options.data_dir;
    check_folder(data_dir)?;
    let node = agent::joined_as(data_dir);
    for unit in UNITS {
        if Path::new(UNIT_FOLDER).join(unit).exists() {
            step("stop the service", systemctl(&["disable", "--now", unit]));
        }
    }
    step("stop rk", lock::stop_server(Path::new(RUN_DIR)).map(drop));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start threads")?;
    step("remove containers", runtime.block_on(remove_containers(data_dir)));
    step("remove the pod network", runtime.block_on(remove_network(data_dir)));
    // Before the logs: it tells whether another kubelet is on this machine.
    step("remove files", remove_link(Path::new("/var/lib/kubelet"), data_dir));
    step("remove logs", remove_logs());
    match unmount_below(&data_dir.join("kubelet")) {
        Ok(()) => step("remove files", remove_data(data_dir, options.keep_volumes)),
        Err(error) => step("unmount volumes, without which no files are removed", Err(error)),
    }
    step("remove files", remove(Path::new(RUN_DIR)));
    for unit in UNITS {
        step("remove files", remove(&Path::new(UNIT_FOLDER).join(unit)));
    }
    for file in [KUBECONFIG, BINARY, "/var/log/rk.log", "/var/log/rk-agent.log"] {
        step("remove files", remove(Path::new(file)));
    }
    // The administrator's own configuration keeps the folder.
    let _ = fs::remove_dir("/etc/rk");
    if failures.is_empty() {
        let storage = local_storage::folder(data_dir);
        if storage.exists() {
            println!("local volumes are left in {}", storage.display());
        }
        match node {
            Some(node) => println!("rk is removed; the cluster forgets this node by `kubectl delete node {node}`"),
            None => println!("rk is removed"),
        }
        return Ok(());
    }
    bail!("some of it is left:\n  {}", failures.join("\n  "))
}

/// A folder that cannot be rk's is not removed, whatever the flag says.
fn check_folder(folder: &Path) -> anyhow::Result<()> {
    if !folder.is_absolute() || folder.components().count() < 3 {
        bail!(crate::cli::UsageError(format!("--data-dir {} is no folder of rk's own", folder.display())));
    }
    if folder.exists() && !folder.join("server").is_dir() && !folder.join("images").is_dir() {
        bail!(crate::cli::UsageError(format!("{} does not hold a cluster's state; name the right folder with --data-dir", folder.display())));
    }
    Ok(())
}

/// What the pods of one cluster leave on a node that goes over to another; images stay.
pub async fn remove_node(data_dir: &Path) -> anyhow::Result<()> {
    remove_containers(data_dir).await.context("remove containers")?;
    remove_network(data_dir).await.context("remove the pod network")?;
    unmount_below(&data_dir.join("kubelet")).context("unmount volumes")?;
    remove_link(Path::new("/var/lib/kubelet"), data_dir)?;
    remove_logs().context("remove logs")?;
    ["kubelet", "network", "runtime"].iter().try_for_each(|folder| remove(&data_dir.join(folder)))
}

/// Whatever is still mounted there is other people's data: a folder is emptied only after this.
fn unmount_below(folder: &Path) -> anyhow::Result<()> {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the table of mounts")?;
    for at in mounts_below(&table, &folder).into_iter().rev() {
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW)
            .with_context(|| format!("unmount {}", at.display()))?;
    }
    Ok(())
}

/// In the order in which they were made.
fn mounts_below(table: &str, folder: &Path) -> Vec<std::path::PathBuf> {
    let at = |line: &str| line.split(' ').nth(4).map(|path| std::path::PathBuf::from(path.replace("\\040", " ")));
    table.lines().filter_map(at).filter(|path| path.starts_with(folder) && path != folder).collect()
}

/// All of the folder, or all but what pods have written to local volumes.
fn remove_data(data_dir: &Path, keep_volumes: bool) -> anyhow::Result<()> {
    if !keep_volumes {
        return remove(data_dir);
    }
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        if entry.file_name() != local_storage::FOLDER {
            remove(&entry.path())?;
        }
    }
    // Only where empty.
    let _ = fs::remove_dir(local_storage::folder(data_dir));
    let _ = fs::remove_dir(data_dir);
    Ok(())
}

async fn remove_network(data_dir: &Path) -> anyhow::Result<()> {
    let bridge = network::IfName::new(BRIDGE).expect("a literal interface name");
    Ok(network::teardown(&bridge, &data_dir.join("network")).await?)
}

async fn remove_containers(data_dir: &Path) -> anyhow::Result<()> {
    let config = runtime::Config {
        state_dir: data_dir.join("runtime"),
        run_dir: Path::new(RUN_DIR).join("runtime"),
        shim: crate::shim_image::program(),
        cgroup_root: "rk".to_owned(),
    };
    let runtime = runtime::Runtime::open(config).await.context("open the container runtime")?;
    let torn = runtime.teardown_all().await;
    torn.map_err(|errors| anyhow::anyhow!(errors.into_iter().map(|e| format!("{:#}", anyhow::Error::from(e))).collect::<Vec<_>>().join("; ")))
}

/// Our pods' logs below /var/log/pods, and the links to them; folders of other kubelets stay.
fn remove_logs() -> anyhow::Result<()> {
    for (folder, ours) in [("/var/log/containers", true), ("/var/log/pods", false)] {
        let folder = Path::new(folder);
        if ours {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with("/var/log/pods")) {
                    fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
                }
            }
        } else {
            remove_pod_logs(folder)?;
        }
        let _ = fs::remove_dir(folder); // only where empty
    }
    Ok(())
}

fn remove_pod_logs(folder: &Path) -> anyhow::Result<()> {
    let other_kubelet = Path::new("/var/lib/kubelet").exists();
    if other_kubelet {
        tracing::warn!("another kubelet has been on this machine; logs of pods are left in /var/log/pods");
        return Ok(());
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        remove(&entry.path())?;
    }
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    removed.with_context(|| format!("remove {}", path.display()))
}

/// The usual name of the kubelet's folder, if it is ours.
fn remove_link(link: &Path, data_dir: &Path) -> anyhow::Result<()> {
    match fs::read_link(link) {
        Ok(to) if to.starts_with(data_dir) => remove(link),
        _ => Ok(()),
    }
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let status = std::process::Command::new("systemctl").args(arguments).status().context("start systemctl")?;
    if status.success() { Ok(()) } else { bail!("systemctl {}: {status}", arguments.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_below_is_unmounted() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /d/kubelet rw - tmpfs t rw\n3 1 0:6 / /d/kubelet/pods/a\\040b rw - nfs n rw\n\
                     4 1 0:7 / /d/kubelet-not rw - nfs n rw\n";
        assert_eq!(mounts_below(table, Path::new("/d/kubelet")), [Path::new("/d/kubelet/pods/a b")]);
    }
}
