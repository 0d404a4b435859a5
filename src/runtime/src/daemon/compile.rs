//! Specs to plans: all checks that need no system call, and all decisions a shim shall not make.

use std::ffi::CString;
use std::path::{Component, Path};

use super::{Config, Error};
use crate::plan::{ContainerPlan, MountPlan, MountSource, RootPlan, SandboxPlan};
use crate::seccomp;
use crate::spec::{Capabilities, ContainerSpec, Mount, MountKind, Propagation, Rlimit, Rootfs, SandboxSpec, Seccomp};
use crate::sys::nanos_now;

const SHM_BYTES: u64 = 64 << 20;
/// What Go programs, databases and the like expect; k3s' unit gives the same.
const NOFILE: u64 = 1_048_576;
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// containerd's list (pkg/oci, defaultUnixSpec) and what runc has added since.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn invalid(field: &'static str, reason: impl Into<String>) -> Error {
    Error::Invalid { field, reason: reason.into() }
}

fn c_string(field: &'static str, text: impl Into<Vec<u8>>) -> Result<CString, Error> {
    CString::new(text).map_err(|_| invalid(field, "contains a NUL byte"))
}

fn c_path(field: &'static str, path: &Path) -> Result<CString, Error> {
    use std::os::unix::ffi::OsStrExt as _;
    c_string(field, path.as_os_str().as_bytes())
}

/// Ids are names of files, directories and cgroups.
pub(super) fn check_id(field: &'static str, id: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if id.is_empty() || id.len() > 128 || !id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !id.chars().all(fine) {
        return Err(invalid(field, format!("{id:?} is not 1 to 128 of [A-Za-z0-9_.-] after a letter or digit")));
    }
    Ok(())
}

/// Relative, without `.` and `..`.
pub(super) fn check_cgroup(path: &str) -> Result<(), Error> {
    let fine = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && part.len() < 256 && !part.contains(|c: char| c.is_control())
    };
    if path.split('/').all(fine) { Ok(()) } else { Err(invalid("cgroup_parent", format!("{path:?} is not a clean relative path"))) }
}

pub(super) fn sandbox(spec: &SandboxSpec, config: &Config) -> Result<SandboxPlan, Error> {
    check_id("id", &spec.id)?;
    check_cgroup(&spec.cgroup_parent)?;
    if spec.hostname.len() > 64 || (spec.hostname.is_empty() && !spec.host_network) {
        return Err(invalid("hostname", "must have 1 to 64 bytes"));
    }
    let mut sysctls = Vec::with_capacity(spec.sysctls.len());
    for (name, value) in &spec.sysctls {
        sysctls.push((sysctl(name, spec)?, value.clone()));
    }
    Ok(SandboxPlan {
        id: spec.id.clone(),
        hostname: spec.hostname.clone(),
        host_network: spec.host_network,
        host_pid: spec.host_pid,
        host_ipc: spec.host_ipc,
        share_pid: spec.share_pid,
        sysctls,
        cgroup: format!("{}/{}", config.cgroup_root, spec.cgroup_parent),
        shim_cgroup: format!("{}/shims", config.cgroup_root),
        resources: spec.resources.clone(),
        shm_size_bytes: spec.shm_size_bytes.unwrap_or(SHM_BYTES),
        log_dir: spec.log_dir.as_ref().map(|path| utf8("log_dir", path)).transpose()?,
        labels: spec.labels.clone().into_iter().collect(),
        created_at: nanos_now(),
    })
}

/// The path below /proc/sys of a sysctl that a namespace of the pod owns.
fn sysctl(name: &str, spec: &SandboxSpec) -> Result<CString, Error> {
    let refuse = |why: &str| Err(invalid("sysctls", format!("{name:?} {why}")));
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if !name.chars().all(fine) {
        return refuse("is not a sysctl's name");
    }
    // As sysctl(8): the first separator decides which of both separates.
    let slashed = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let path = if slashed { name.to_owned() } else { name.replace('.', "\0").replace('/', ".").replace('\0', "/") };
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return refuse("is not a sysctl's name");
    }
    let ipc = ["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"].iter().any(|start| path.starts_with(start));
    if path.starts_with("net/") && spec.host_network {
        return refuse("needs a network of its own");
    }
    if ipc && spec.host_ipc {
        return refuse("needs an IPC namespace of its own");
    }
    if !path.starts_with("net/") && !ipc {
        return refuse("is not namespaced");
    }
    c_string("sysctls", path)
}

pub(super) fn container(spec: &ContainerSpec, sandbox: &SandboxPlan) -> Result<ContainerPlan, Error> {
    check_id("id", &spec.id)?;
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err(invalid("argv", "no command specified"));
    }
    let cwd = if spec.cwd.is_empty() { "/" } else { spec.cwd.as_str() };
    if !cwd.starts_with('/') {
        return Err(invalid("cwd", format!("{cwd:?} is not an absolute path")));
    }
    let cwd = format!("/{}", clean("cwd", Path::new(cwd))?);
    for id in [spec.user.uid, spec.user.gid].iter().chain(&spec.user.supplementary) {
        if *id > i32::MAX as u32 {
            return Err(invalid("user", format!("{id} is beyond 2147483647")));
        }
    }
    let capabilities = if spec.privileged { Capabilities::ALL } else { spec.capabilities };
    let filter = if spec.privileged { Vec::new() } else { filter(spec, capabilities)? };
    let list = |given: &Option<Vec<String>>, customary: &[&str], field| -> Result<Vec<CString>, Error> {
        match given {
            _ if spec.privileged => Ok(Vec::new()),
            None => customary.iter().map(|path| c_string(field, *path)).collect(),
            Some(paths) => paths.iter().map(|path| proc_or_sys(field, path)).collect(),
        }
    };
    let mut mounts = spec.mounts.iter().map(mount).collect::<Result<Vec<_>, _>>()?;
    // What lies deeper comes later, whoever named it first.
    mounts.sort_by_key(|mount| mount.destination.as_bytes().split(|byte| *byte == b'/').count());
    let mut rlimits = spec.rlimits.clone();
    if !rlimits.iter().any(|limit| limit.resource == libc::RLIMIT_NOFILE) {
        rlimits.push(Rlimit { resource: libc::RLIMIT_NOFILE, soft: NOFILE, hard: NOFILE });
    }
    Ok(ContainerPlan {
        id: spec.id.clone(),
        name: spec.name.clone(),
        labels: spec.labels.clone().into_iter().collect(),
        root: root(&spec.rootfs)?,
        mounts,
        argv: spec.argv.iter().map(|argument| c_string("argv", argument.as_str())).collect::<Result<_, _>>()?,
        env: environment(spec, sandbox)?,
        cwd: c_string("cwd", cwd)?,
        uid: spec.user.uid,
        gid: spec.user.gid,
        groups: spec.user.supplementary.clone(),
        capabilities: capabilities.0,
        no_new_privileges: spec.no_new_privileges,
        seccomp: filter,
        privileged: spec.privileged,
        read_only_root: spec.read_only_root,
        masked_paths: list(&spec.masked_paths, &MASKED, "masked_paths")?,
        readonly_paths: list(&spec.readonly_paths, &READ_ONLY, "readonly_paths")?,
        resources: spec.resources.clone(),
        oom_score_adj: spec.oom_score_adj,
        rlimits,
        tty: spec.tty,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        log_path: spec.log_path.as_ref().map(|path| utf8("log_path", path)).transpose()?,
        pids_of: crate::wire::Later(spec.pids_of.clone()),
    })
}

fn filter(spec: &ContainerSpec, capabilities: Capabilities) -> Result<Vec<crate::spec::BpfInstruction>, Error> {
    match &spec.seccomp {
        Seccomp::Unconfined => Ok(Vec::new()),
        Seccomp::RuntimeDefault => Ok(seccomp::runtime_default(capabilities)),
        // A profile that permits nothing must not become one that permits all.
        Seccomp::Profile(program) if program.is_empty() => Err(invalid("seccomp", "the profile is empty")),
        Seccomp::Profile(program) if program.len() > 4096 => Err(invalid("seccomp", "the profile has more than 4096 instructions")),
        Seccomp::Profile(program) => Ok(program.clone()),
    }
}

fn environment(spec: &ContainerSpec, sandbox: &SandboxPlan) -> Result<Vec<CString>, Error> {
    let has = |name: &str| spec.env.iter().any(|entry| entry.split('=').next() == Some(name));
    let mut env = Vec::with_capacity(spec.env.len() + 4);
    if !has("PATH") {
        env.push(DEFAULT_PATH.to_owned());
    }
    if !has("HOSTNAME") && !sandbox.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", sandbox.hostname));
    }
    if spec.tty && !has("TERM") {
        env.push("TERM=xterm".to_owned());
    }
    if !has("HOME") {
        env.push(if spec.user.uid == 0 { "HOME=/root" } else { "HOME=/" }.to_owned());
    }
    env.extend(spec.env.iter().cloned());
    env.into_iter().map(|entry| c_string("env", entry)).collect()
}

fn root(rootfs: &Rootfs) -> Result<RootPlan, Error> {
    match rootfs {
        Rootfs::Directory(path) => Ok(RootPlan::Directory { path: c_path("rootfs", path)? }),
        Rootfs::Overlay { lower, .. } if lower.is_empty() => Err(invalid("rootfs", "no lower layer")),
        Rootfs::Overlay { lower, upper, work } => Ok(RootPlan::Overlay {
            lower: lower.iter().map(|path| c_path("rootfs", path)).collect::<Result<_, _>>()?,
            upper: c_path("rootfs", upper)?,
            work: c_path("rootfs", work)?,
        }),
    }
}

fn mount(mount: &Mount) -> Result<MountPlan, Error> {
    if !mount.destination.is_absolute() {
        return Err(invalid("mounts", format!("destination {} is not absolute", mount.destination.display())));
    }
    let destination = clean("mounts", &mount.destination)?;
    if destination.is_empty() {
        return Err(invalid("mounts", "destination can't be '/'"));
    }
    let source = match mount.kind {
        MountKind::Bind => {
            if !mount.source.is_absolute() {
                return Err(invalid("mounts", format!("source {} is not absolute", mount.source.display())));
            }
            let sub_path = match &mount.sub_path {
                Some(sub_path) if sub_path.is_absolute() || sub_path.components().any(|c| c == Component::ParentDir) => {
                    return Err(invalid("mounts", format!("sub path {} leads out of its volume", sub_path.display())));
                }
                Some(sub_path) if !sub_path.as_os_str().is_empty() => Some(c_path("mounts", sub_path)?),
                _ => None,
            };
            MountSource::Bind { path: c_path("mounts", &mount.source)?, sub_path }
        }
        MountKind::Tmpfs { size_bytes, mode } => {
            let mut options = vec![(c"mode".to_owned(), c_string("mounts", format!("{mode:o}"))?)];
            if let Some(size) = size_bytes {
                options.push((c"size".to_owned(), c_string("mounts", size.to_string())?));
            }
            MountSource::Tmpfs { options }
        }
    };
    Ok(MountPlan {
        source,
        destination: c_string("mounts", destination)?,
        read_only: mount.read_only,
        recursive_read_only: mount.recursive_read_only,
        propagation: match mount.propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::HostToContainer => libc::MS_SLAVE,
            Propagation::Bidirectional => libc::MS_SHARED,
        },
    })
}

/// Relative and clean; `..` is resolved on paper, and never above the root (as Go's filepath.Clean).
fn clean(field: &'static str, path: &Path) -> Result<String, Error> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(|| invalid(field, "is not UTF-8"))?),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(parts.join("/"))
}

fn proc_or_sys(field: &'static str, path: &str) -> Result<CString, Error> {
    let below = path.strip_prefix("/proc/").or_else(|| path.strip_prefix("/sys/"));
    match below {
        Some(rest) if !rest.is_empty() && !rest.split('/').any(|part| matches!(part, "" | "." | "..")) => c_string(field, path),
        _ => Err(invalid(field, format!("{path:?} is not a clean path below /proc or /sys"))),
    }
}

fn utf8(field: &'static str, path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| invalid(field, "is not UTF-8"))
}

#[cfg(test)]
mod tests;
