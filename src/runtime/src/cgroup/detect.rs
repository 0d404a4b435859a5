//! Which hierarchies the host has, from /proc/self/mountinfo.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Cgroups, Hierarchy};

impl Cgroups {
    pub(crate) fn detect() -> io::Result<Cgroups> {
        let mut found = parse(&fs::read_to_string("/proc/self/mountinfo")?);
        for hierarchy in found.hierarchies.iter_mut().filter(|h| h.v2) {
            let available = fs::read_to_string(hierarchy.mount.join("cgroup.controllers")).unwrap_or_default();
            hierarchy.controllers = available.split_whitespace().map(str::to_owned).collect();
        }
        if found.hierarchies.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup filesystem is mounted"));
        }
        Ok(found)
    }
}

/// Options of a v1 mount that are not controllers.
const OPTIONS: [&str; 8] =
    ["rw", "ro", "noprefix", "clone_children", "cpuset_v2_mode", "xattr", "none", "favordynmods"];

pub(super) fn parse(mountinfo: &str) -> Cgroups {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        // id parent major:minor root mount-point options [optional fields] - type source super-options
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let kind = right.next().unwrap_or_default();
        if kind != "cgroup" && kind != "cgroup2" {
            continue;
        }
        let super_options = right.nth(1).unwrap_or_default();
        let mut left = left.split(' ').skip(3);
        let (Some(_root), Some(mount)) = (left.next(), left.next()) else { continue };
        let v2 = kind == "cgroup2";
        let controllers: Vec<String> = if v2 {
            Vec::new()
        } else {
            super_options
                .split(',')
                .filter(|option| !OPTIONS.contains(option) && !option.starts_with("release_agent="))
                .map(str::to_owned)
                .collect()
        };
        // The first mount of a hierarchy counts; binds of parts of it elsewhere do not.
        if hierarchies.iter().any(|known| known.v2 == v2 && (v2 || known.controllers == controllers)) {
            continue;
        }
        hierarchies.push(Hierarchy { mount: PathBuf::from(unescape(mount)), controllers, v2 });
    }
    Cgroups { hierarchies }
}

/// mountinfo writes blanks as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_has_every_controller_and_the_empty_v2() {
        let cgroups = parse(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             36 31 0:32 /x /other rw,relatime - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(cgroups.hierarchies.len(), 4);
        assert_eq!(cgroups.v1("cpuacct").unwrap().mount, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(cgroups.v1("memory").unwrap().mount, PathBuf::from("/sys/fs/cgroup/memory"));
        assert!(cgroups.v1("name=systemd").is_some());
        assert!(cgroups.unified().is_some() && !cgroups.is_pure_v2());
    }
}
