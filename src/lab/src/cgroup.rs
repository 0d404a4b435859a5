//! The cgroups of a lab: one below each hierarchy of the host, one below that for each machine.
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// One mounted hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    pub version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// With the mount options that name its controllers.
    V1 {
        options: String,
    },
    V2,
}

/// Where processes of a machine sit on v2: a group that passes controllers on holds no processes itself.
const V2_LEAF: &str = "processes";

pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let found = parse(&table);
    ensure!(!found.is_empty(), "no cgroup hierarchy is mounted below /sys/fs/cgroup");
    Ok(found)
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).filter(|m| m.starts_with("/sys/fs/cgroup")) else { continue };
        let mut right = right.split(' ');
        let version = match (right.next(), right.nth(1)) {
            (Some("cgroup2"), _) => Version::V2,
            (Some("cgroup"), Some(options)) => {
                let named = |o: &&str| !["rw", "ro", "xattr", "noprefix", "clone_children"].contains(o) && !o.starts_with("release_agent=");
                let options: Vec<_> = options.split(',').filter(named).collect();
                Version::V1 {
                    options: if options.iter().any(|o| o.starts_with("name=")) {
                        format!("none,{}", options.join(","))
                    } else {
                        options.join(",")
                    },
                }
            }
            _ => continue,
        };
        if !found.iter().any(|h| h.mount == Path::new(mount)) {
            found.push(Hierarchy { mount: mount.into(), version });
        }
    }
    found
}

fn group(lab: &str) -> String {
    format!("rk-lab-{lab}")
}

/// Makes the groups of `member` (a machine or the hub) in every hierarchy; the folders of its processes.
pub fn create(lab: &str, member: &str) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for hierarchy in hierarchies()? {
        let above = hierarchy.mount.join(group(lab));
        let own = above.join(member);
        for folder in [&above, &own] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
            // A v1 cpuset starts empty, and an empty one takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (from, to) = (folder.with_file_name(file), folder.join(file));
                if matches!(hierarchy.version, Version::V1 { .. }) && to.exists() {
                    let inherited = fs::read_to_string(&from).with_context(|| format!("read {}", from.display()))?;
                    fs::write(&to, inherited.trim()).with_context(|| format!("write {}", to.display()))?;
                }
            }
        }
        if hierarchy.version == Version::V2 {
            for folder in [&hierarchy.mount, &above] {
                delegate(folder)?;
            }
        }
        folders.push(own);
    }
    Ok(folders)
}

/// Passes every controller on to the groups below.
fn delegate(folder: &Path) -> Result<()> {
    let file = folder.join("cgroup.controllers");
    let controllers = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let wanted: Vec<_> = controllers.split_whitespace().map(|c| format!("+{c}")).collect();
    let to = folder.join("cgroup.subtree_control");
    if wanted.is_empty() { Ok(()) } else { fs::write(&to, wanted.join(" ")).with_context(|| format!("write {}", to.display())) }
}

/// The files that a process of `member` writes itself to, in the order of `/proc/self/mountinfo`: first to become
/// part of the group whose namespace it makes, then (v2) to leave it for a leaf.
pub fn joins(lab: &str, member: &str) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut own = Vec::new();
    let mut leaf = Vec::new();
    for hierarchy in hierarchies()? {
        let folder = hierarchy.mount.join(group(lab)).join(member);
        own.push(folder.join("cgroup.procs"));
        if hierarchy.version == Version::V2 {
            fs::create_dir_all(folder.join(V2_LEAF)).with_context(|| format!("create a group below {}", folder.display()))?;
            leaf.push(folder.join(V2_LEAF).join("cgroup.procs"));
        } else {
            leaf.push(folder.join("cgroup.procs"));
        }
    }
    Ok((own, leaf))
}

/// Kills all processes of the lab and removes its groups.
pub fn remove(lab: &str) -> Result<()> {
    let tops: Vec<PathBuf> = hierarchies()?.iter().map(|h| h.mount.join(group(lab))).filter(|p| p.exists()).collect();
    let start = Instant::now();
    loop {
        let mut pids = Vec::new();
        for top in &tops {
            processes(top, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        let left: Vec<_> = tops.iter().filter(|top| remove_tree(top).is_err()).collect();
        if pids.is_empty() && left.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "processes {pids:?} of lab {lab} do not end, or {left:?} cannot be removed");
        if !pids.is_empty() {
            // Those that ended meanwhile are no error: the loop looks again.
            std::process::Command::new("kill").arg("-9").args(pids.iter().map(u32::to_string)).output().context("start kill")?;
        }
        sleep(Duration::from_millis(20));
    }
}

fn processes(folder: &Path, pids: &mut Vec<u32>) {
    let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter_map(|l| l.parse::<u32>().ok()).filter(|&pid| pid != 0));
    // A group that vanishes while it is read has no processes either.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            processes(&entry.path(), pids);
        }
    }
}

fn remove_tree(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_a_hybrid_host() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        let v1 = |mount: &str, options: &str| Hierarchy { mount: mount.into(), version: Version::V1 { options: options.into() } };
        assert_eq!(
            parse(table),
            [
                v1("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
                v1("/sys/fs/cgroup/systemd", "none,name=systemd"),
                Hierarchy { mount: "/sys/fs/cgroup/unified".into(), version: Version::V2 }
            ]
        );
    }
}
