//! Specs, compiled: what a shim works from. A plan lies in the state directory, unchanged for the life of what it
//! describes, so that an exec after any restart is the same exec.

use std::ffi::CString;

use crate::spec::{BpfInstruction, Resources, Rlimit};
use crate::wire::{Later, Malformed, Wire, wire_enum, wire_struct};

#[derive(Debug, Clone)]
pub(crate) struct SandboxPlan {
    pub id: String,
    pub hostname: String,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub share_pid: bool,
    /// Paths below /proc/sys, and values.
    pub sysctls: Vec<(CString, String)>,
    /// The pod's cgroup, relative to the root of each hierarchy.
    pub cgroup: String,
    /// Where shims themselves live.
    pub shim_cgroup: String,
    pub resources: Resources,
    pub shm_size_bytes: u64,
    pub log_dir: Option<String>,
    pub labels: Vec<(String, String)>,
    /// Nanoseconds since 1970.
    pub created_at: u64,
}
wire_struct!(SandboxPlan {
    id, hostname, host_network, host_pid, host_ipc, share_pid, sysctls, cgroup, shim_cgroup, resources, shm_size_bytes,
    log_dir, labels, created_at,
});

#[derive(Debug, Clone)]
pub(crate) struct ContainerPlan {
    pub id: String,
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub root: RootPlan,
    pub mounts: Vec<MountPlan>,
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: CString,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub capabilities: u64,
    pub no_new_privileges: bool,
    /// Empty: unconfined.
    pub seccomp: Vec<BpfInstruction>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub masked_paths: Vec<CString>,
    pub readonly_paths: Vec<CString>,
    pub resources: Resources,
    pub oom_score_adj: i32,
    pub rlimits: Vec<Rlimit>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub log_path: Option<String>,
    pub pids_of: Later<Option<String>>,
}
wire_struct!(ContainerPlan {
    id, name, labels, root, mounts, argv, env, cwd, uid, gid, groups, capabilities, no_new_privileges, seccomp, privileged,
    read_only_root, masked_paths, readonly_paths, resources, oom_score_adj, rlimits, tty, stdin, stdin_once, log_path,
    pids_of,
});

#[derive(Debug, Clone)]
pub(crate) enum RootPlan {
    Overlay { lower: Vec<CString>, upper: CString, work: CString },
    Directory { path: CString },
}
wire_enum!(RootPlan { 1 => Overlay { lower, upper, work }, 2 => Directory { path } });

#[derive(Debug, Clone)]
pub(crate) struct MountPlan {
    pub source: MountSource,
    /// Relative to the root, clean: no leading slash, no `.`, no `..`.
    pub destination: CString,
    pub read_only: bool,
    pub recursive_read_only: bool,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`.
    pub propagation: u64,
}
wire_struct!(MountPlan { source, destination, read_only, recursive_read_only, propagation });

#[derive(Debug, Clone)]
pub(crate) enum MountSource {
    Bind { path: CString, sub_path: Option<CString> },
    Tmpfs { options: Vec<(CString, CString)> },
}
wire_enum!(MountSource { 1 => Bind { path, sub_path }, 2 => Tmpfs { options } });

wire_struct!(Resources {
    cpu_shares, cpu_quota_us, cpu_period_us, memory_limit_bytes, pids_limit, cpuset_cpus, cpuset_mems,
});
wire_struct!(Rlimit { resource, soft, hard });
wire_struct!(BpfInstruction { code, jt, jf, k });

/// First bytes of every plan and record; the last digit changes with the form.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"rkplan01");

/// A file's content: the magic, then the value.
pub(crate) fn to_file<T: Wire>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    MAGIC.put(&mut out);
    value.put(&mut out);
    out
}

pub(crate) fn from_file<T: Wire>(raw: &[u8]) -> Result<T, Malformed> {
    let (magic, value) = crate::wire::decode::<(u64, Tail<T>)>(raw)?;
    if magic == MAGIC { Ok(value.0) } else { Err(Malformed) }
}

struct Tail<T>(T);

impl<T: Wire> Wire for Tail<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        let value = T::take(input)?;
        // What a later version added is for later versions.
        *input = &[];
        Ok(Tail(value))
    }
}
