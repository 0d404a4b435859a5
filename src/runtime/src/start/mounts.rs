//! Everything that can be mounted before the container exists, made by the shim as detached mounts: none of it shows in
//! the host's mount table, and the child only has to attach it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::FsOpenFlags;

use super::devices;
use crate::cgroup::Cgroups;
use crate::plan::{ContainerPlan, MountPlan, MountSource, RootPlan};
use crate::protocol::{Failure, Step as _};
use crate::sys::cwd;
use crate::sys::mount::{
    NODEV, NOEXEC, NOSUID, RDONLY, clone_tree, finish, is_directory, new_filesystem, resolve_beneath, set_attributes,
};

/// A detached mount and what it goes onto.
pub(super) struct Volume {
    pub tree: OwnedFd,
    pub directory: bool,
}

/// What /sys/fs/cgroup will show.
pub(super) struct CgroupView {
    /// v1: a tmpfs with one directory for each of `groups`. v2: nothing, the only group goes onto the place itself.
    pub frame: Option<OwnedFd>,
    pub groups: Vec<(CString, OwnedFd)>,
}

pub(crate) struct Mounts {
    pub(super) root: OwnedFd,
    /// Any directory of the host; the root is attached on it in the child's own namespace only.
    pub(super) attach_at: CString,
    pub(super) dev: OwnedFd,
    pub(super) devpts: OwnedFd,
    pub(super) shm: Option<OwnedFd>,
    /// Bound onto /dev/console.
    pub(super) console: bool,
    pub(super) cgroup: CgroupView,
    pub(super) volumes: Vec<Volume>,
    /// Empty and read-only, for all masked directories.
    pub(super) mask: OwnedFd,
    /// A rw sysfs and so on.
    pub(super) privileged: bool,
}

impl Mounts {
    pub(crate) fn prepare(
        plan: &ContainerPlan,
        cgroups: &Cgroups,
        cgroup: &str,
        attach_at: &Path,
        shm: Option<&Path>,
    ) -> Result<Mounts, Failure> {
        let mut volumes = Vec::with_capacity(plan.mounts.len());
        for mount in &plan.mounts {
            let tree = volume(mount).step(&format!("mount /{}", mount.destination.to_string_lossy()))?;
            volumes.push(tree);
        }
        let devpts_options = [(c"newinstance", c""), (c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")];
        Ok(Mounts {
            root: root(&plan.root)?,
            attach_at: c_path(attach_at).step("name of the run directory")?,
            dev: devices::filled(plan.privileged, plan.tty).step("make /dev")?,
            devpts: new_filesystem(c"devpts", &devpts_options, NOSUID | NOEXEC).step("make /dev/pts")?,
            shm: shm.map(|path| c_path(path).and_then(|path| clone_tree(cwd(), &path, false))).transpose().step("find /dev/shm")?,
            console: plan.tty,
            cgroup: cgroup_view(cgroups, cgroup, plan.privileged).step("find the cgroup")?,
            volumes,
            mask: new_filesystem(c"tmpfs", &[(c"mode", c"755"), (c"size", c"0")], RDONLY | NOSUID | NODEV | NOEXEC)
                .step("make the mask")?,
            privileged: plan.privileged,
        })
    }

    /// The root of the container's devpts. It stays open in the shim: terminals of execs come from it.
    pub(crate) fn devpts(&self) -> io::Result<OwnedFd> {
        crate::sys::duplicate(&self.devpts)
    }
}

fn root(plan: &RootPlan) -> Result<OwnedFd, Failure> {
    match plan {
        RootPlan::Directory { path } => {
            let tree = clone_tree(cwd(), path, true).step(&format!("find the root {}", path.to_string_lossy()))?;
            set_attributes(&tree, 0, libc::MS_PRIVATE, true).step("make the root private")?;
            Ok(tree)
        }
        RootPlan::Overlay { lower, upper, work } => {
            // A layer that is absent would only be ENOENT without a name.
            for path in lower.iter().chain([upper, work]) {
                rustix::fs::stat(path.as_c_str()).step(&format!("find the layer {}", path.to_string_lossy()))?;
            }
            match overlay(lower, upper, work) {
                // `lowerdir+` is of 6.5.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => overlay_of_old(lower, upper, work),
                result => result,
            }
            .step("mount the overlay")
        }
    }
}

fn overlay(lower: &[CString], upper: &CString, work: &CString) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    // A value holds 255 bytes; a longer path goes in as a descriptor's.
    let mut open = Vec::new();
    let mut set = |key: &CStr, path: &CString| -> io::Result<()> {
        if path.as_bytes().len() < 256 {
            return Ok(rustix::mount::fsconfig_set_string(context, key, path.as_c_str())?);
        }
        let fd = rustix::fs::open(path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let short = format!("/proc/self/fd/{}", crate::sys::raw(&fd));
        open.push(fd);
        Ok(rustix::mount::fsconfig_set_string(context, key, short.as_str())?)
    };
    rustix::mount::fsconfig_set_string(context, c"source", c"overlay")?;
    for layer in lower {
        set(c"lowerdir+", layer)?;
    }
    set(c"upperdir", upper)?;
    set(c"workdir", work)?;
    rustix::mount::fsconfig_create(context)?;
    finish(context, 0)
}

/// Kernel 5.15 to 6.4: all lower layers in one string. fsconfig's strings are too short for it, so that old mount(2) puts
/// it on the upper directory for a moment.
fn overlay_of_old(lower: &[CString], upper: &CString, work: &CString) -> io::Result<OwnedFd> {
    let escaped = |path: &CString| path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
    let layers: Vec<String> = lower.iter().map(escaped).collect();
    let options =
        CString::new(format!("lowerdir={},upperdir={},workdir={}", layers.join(":"), escaped(upper), escaped(work)))?;
    if options.as_bytes().len() >= 4096 {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    rustix::mount::mount(c"overlay", upper.as_c_str(), c"overlay", rustix::mount::MountFlags::empty(), options.as_c_str())?;
    let tree = clone_tree(cwd(), upper, false);
    crate::sys::mount::detach(upper)?;
    let tree = tree?;
    set_attributes(&tree, 0, libc::MS_PRIVATE, true)?;
    Ok(tree)
}

fn volume(mount: &MountPlan) -> io::Result<Volume> {
    let tree = match &mount.source {
        MountSource::Bind { path, sub_path: None } => clone_tree(cwd(), path, true)?,
        MountSource::Bind { path, sub_path: Some(sub_path) } => {
            let base = rustix::fs::open(path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let place = match resolve_beneath(&base, sub_path, OFlags::empty()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => make_sub_path(base, sub_path)?,
                result => result?,
            };
            // What was checked is what is mounted.
            clone_tree(&place, c"", true)?
        }
        MountSource::Tmpfs { options } => {
            let options: Vec<(&CStr, &CStr)> = options.iter().map(|(k, v)| (k.as_c_str(), v.as_c_str())).collect();
            new_filesystem(c"tmpfs", &options, NOSUID | NODEV)?
        }
    };
    set_attributes(&tree, 0, mount.propagation, true)?;
    if mount.read_only || mount.recursive_read_only {
        set_attributes(&tree, RDONLY, 0, mount.recursive_read_only)?;
    }
    Ok(Volume { directory: is_directory(&tree)?, tree })
}

/// Directories with the volume's own mode, component by component.
/// Models pkg/volume/util/subpath/subpath_linux.go doSafeMakeDir.
fn make_sub_path(base: OwnedFd, sub_path: &CStr) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&base)?.st_mode & 0o7777);
    let mut here = base;
    for part in sub_path.to_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        let part = CString::new(part)?;
        match rustix::fs::mkdirat(&here, part.as_c_str(), mode) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Stays within what it descends from, so a link in an existing part must not climb.
        here = resolve_beneath(&here, &part, OFlags::DIRECTORY)?;
    }
    Ok(here)
}

fn cgroup_view(cgroups: &Cgroups, path: &str, writable: bool) -> io::Result<CgroupView> {
    let flags = NOSUID | NODEV | NOEXEC | if writable { 0 } else { RDONLY };
    let group = |mount: &Path| -> io::Result<OwnedFd> {
        let tree = clone_tree(cwd(), &c_path(&mount.join(path))?, false)?;
        set_attributes(&tree, flags, libc::MS_PRIVATE, false)?;
        Ok(tree)
    };
    if let (true, Some(unified)) = (cgroups.is_pure_v2(), cgroups.unified()) {
        return Ok(CgroupView { frame: None, groups: vec![(CString::default(), group(&unified.mount)?)] });
    }
    let frame = new_filesystem(c"tmpfs", &[(c"mode", c"755")], NOSUID | NODEV | NOEXEC)?;
    let mut groups = Vec::new();
    for hierarchy in cgroups.hierarchies.iter().filter(|h| !h.v2) {
        let Some(name) = hierarchy.mount.file_name() else { continue };
        let c_name = CString::new(name.as_bytes())?;
        rustix::fs::mkdirat(&frame, c_name.as_c_str(), Mode::from_raw_mode(0o555))?;
        if hierarchy.controllers.len() > 1 {
            for controller in hierarchy.controllers.iter().filter(|c| c.as_str() != name.to_string_lossy()) {
                rustix::fs::symlinkat(c_name.as_c_str(), &frame, controller.as_str())?;
            }
        }
        groups.push((c_name, group(&hierarchy.mount)?));
    }
    set_attributes(&frame, flags, 0, false)?;
    Ok(CgroupView { frame: Some(frame), groups })
}

pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
