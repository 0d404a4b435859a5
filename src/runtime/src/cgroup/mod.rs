//! Control groups, v1, v2 and both at once.
//!
//! A [`Cgroups`] is what the host has mounted. Paths are relative to the root of every hierarchy (`rk/kubepods/pod1`); a
//! group is made in all of them, so that each process of ours is found in each, as its tools expect. Both rk and the shim
//! use this: it holds no state.

mod detect;
mod devices;
mod limits;
mod stats;

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

pub(crate) use devices::Access;

/// One mounted hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    pub mount: PathBuf,
    /// `memory`, `name=systemd`; for v2 what can be enabled.
    pub controllers: Vec<String>,
    pub v2: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    pub hierarchies: Vec<Hierarchy>,
}

/// The open descriptors with which a child enters a group.
pub(crate) struct Entrance {
    /// `cgroup.procs` of every v1 hierarchy, for writing "0".
    pub procs: Vec<OwnedFd>,
    /// The v2 directory, for clone3.
    pub unified: Option<OwnedFd>,
}

impl Cgroups {
    /// The v1 hierarchy of a controller.
    pub(crate) fn v1(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| !h.v2 && h.controllers.iter().any(|c| c == controller))
    }

    pub(crate) fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.v2)
    }

    /// All controllers in v2, none in v1.
    pub(crate) fn is_pure_v2(&self) -> bool {
        self.hierarchies.iter().all(|h| h.v2)
    }

    /// Makes a group and its parents, everywhere. What exists is left as it is. `leaf`: processes will live in it, so that
    /// its own children get no controllers (v2 forbids both at once).
    pub(crate) fn create(&self, path: &str) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let mut directory = hierarchy.mount.clone();
            for part in path.split('/') {
                if hierarchy.v2 {
                    enable_controllers(&directory, &hierarchy.controllers);
                }
                directory.push(part);
                match fs::create_dir(&directory) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                if !hierarchy.v2 && hierarchy.controllers.iter().any(|c| c == "cpuset") {
                    inherit_cpuset(&directory)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn open(&self, path: &str) -> io::Result<Entrance> {
        let mut entrance = Entrance { procs: Vec::with_capacity(12), unified: None };
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.mount.join(path);
            if hierarchy.v2 {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                entrance.unified = Some(rustix::fs::open(&directory, flags, Mode::empty())?);
            } else {
                let file = directory.join("cgroup.procs");
                entrance.procs.push(rustix::fs::open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?);
            }
        }
        Ok(entrance)
    }

    /// Moves the calling process.
    pub(crate) fn enter(&self, path: &str) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            write_file(&hierarchy.mount.join(path).join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// SIGKILL to every process at or below `path`. With a v2 hierarchy in one write, else frozen first, so that nothing
    /// forks away meanwhile.
    pub(crate) fn kill(&self, path: &str) -> io::Result<()> {
        if let Some(unified) = self.unified() {
            match write_file(&unified.mount.join(path).join("cgroup.kill"), "1") {
                // cgroup.kill is of 5.14; before it, or without the group here, by hand.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        let Some(any) = self.v1("freezer").or_else(|| self.unified()).or_else(|| self.hierarchies.first()) else {
            return Ok(());
        };
        let directory = any.mount.join(path);
        if !directory.exists() {
            return Ok(());
        }
        let state = if any.v2 { ("cgroup.freeze", "1", "0") } else { ("freezer.state", "FROZEN", "THAWED") };
        let _not_frozen = write_file(&directory.join(state.0), state.1);
        for _ in 0..100 {
            let mut pids = Vec::new();
            collect_pids(&directory, &mut pids);
            for pid in &pids {
                // SAFETY: a pid read from a cgroup that is ours alone, frozen or about to die.
                unsafe { libc::kill(*pid, libc::SIGKILL) };
            }
            // A frozen process takes its signal only when thawed (v1).
            let _gone = write_file(&directory.join(state.0), state.2);
            if pids.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Processes at or below `path`, on the hierarchy that is surest to know.
    pub(crate) fn pids(&self, path: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some(any) = self.v1("pids").or_else(|| self.unified()).or_else(|| self.hierarchies.first()) {
            collect_pids(&any.mount.join(path), &mut pids);
        }
        pids
    }

    /// Removes a group and all below it. EBUSY (a process is still on its way out) is tried again for `patience`.
    pub(crate) fn remove(&self, path: &str, patience: Duration) -> io::Result<()> {
        let mut worst = Ok(());
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.mount.join(path);
            let mut waited = Duration::ZERO;
            let mut pause = Duration::from_millis(1);
            loop {
                match remove_tree(&directory) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) && waited < patience => {
                        std::thread::sleep(pause);
                        waited += pause;
                        pause = (pause * 2).min(Duration::from_millis(50));
                    }
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        worst = Err(error);
                        break;
                    }
                    _ => break,
                }
            }
        }
        worst
    }

    /// How often the kernel killed for want of memory in this group.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let (hierarchy, file) = match self.v1("memory") {
            Some(v1) => (v1, "memory.oom_control"),
            None => match self.unified() {
                Some(v2) => (v2, "memory.events"),
                None => return 0,
            },
        };
        let text = fs::read_to_string(hierarchy.mount.join(path).join(file)).unwrap_or_default();
        keyed(&text, "oom_kill").unwrap_or(0)
    }
}

/// `key value` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

pub(crate) fn write_file(path: &Path, content: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(content.as_bytes())
}

/// One at a time, because one that is not to be had must not keep the others away. What is missing shows when a limit asks
/// for it.
fn enable_controllers(directory: &Path, controllers: &[String]) {
    let file = directory.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    for controller in controllers {
        if !enabled.split_whitespace().any(|c| c == controller) {
            let _missing = write_file(&file, &format!("+{controller}"));
        }
    }
}

/// A v1 cpuset is born empty and then refuses every process. One that exists can still be empty: another thread has made it, and has
/// not come to this yet; a child would inherit nothing for good.
fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        if fs::read_to_string(&own)?.trim_end().is_empty() {
            write_file(&own, fs::read_to_string(parent.join(file))?.trim_end())?;
        }
    }
    Ok(())
}

fn collect_pids(directory: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in children(directory) {
        collect_pids(&child, pids);
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for child in children(directory) {
        remove_tree(&child)?;
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests;
