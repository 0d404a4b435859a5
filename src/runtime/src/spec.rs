//! What a caller says about a sandbox, a container and an exec. Plain data, no I/O.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A pod: namespaces, a cgroup and a shim, in which containers are started.
#[derive(Debug, Clone, Default)]
pub struct SandboxSpec {
    /// Unique on the node; 1 to 128 characters of `[A-Za-z0-9_.-]`, starting with a letter or digit.
    pub id: String,
    /// Host name inside; not set when the pod uses the host's network (it then shares the host's name too).
    pub hostname: String,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// All containers share one PID namespace, whose PID 1 is a reaper of ours.
    pub share_pid: bool,
    /// Namespaced sysctls in dotted or slashed form.
    pub sysctls: BTreeMap<String, String>,
    /// Below the runtime's cgroup root, e.g. `kubepods/burstable/pod<uid>`.
    pub cgroup_parent: String,
    /// Limits of the whole pod.
    pub resources: Resources,
    /// Size of the `/dev/shm` that the containers share; 64 MiB when `None`.
    pub shm_size_bytes: Option<u64>,
    /// Made (0755) when absent; relative log paths of containers start here.
    pub log_dir: Option<PathBuf>,
    /// Given back by `list`.
    pub labels: BTreeMap<String, String>,
}

/// One container.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Unique on the node, same alphabet as a sandbox's id.
    pub id: String,
    pub name: String,
    pub rootfs: Rootfs,
    /// Program and arguments; a program without `/` is searched in the `PATH` of `env`, inside the root.
    pub argv: Vec<String>,
    /// `NAME=value`. `PATH` and `HOME` are added when absent.
    pub env: Vec<String>,
    /// `/` when empty; made when absent, as container runtimes do.
    pub cwd: String,
    pub user: User,
    pub mounts: Vec<Mount>,
    pub capabilities: Capabilities,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// All capabilities and devices, nothing masked, writable sysfs and cgroups, no filter.
    pub privileged: bool,
    pub read_only_root: bool,
    /// `None`: the customary list. `Some(vec![])`: none (`procMount: Unmasked`).
    pub masked_paths: Option<Vec<String>>,
    /// `None`: the customary list.
    pub readonly_paths: Option<Vec<String>>,
    pub resources: Resources,
    pub oom_score_adj: i32,
    /// `nofile` is 1048576 (or what the host permits) unless named here.
    pub rlimits: Vec<Rlimit>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    /// CRI log file. Relative paths start at the sandbox's `log_dir`; `None` discards output.
    pub log_path: Option<PathBuf>,
    /// A running container of the same sandbox whose PID namespace this one joins.
    pub pids_of: Option<String>,
    /// Given back by `list`.
    pub labels: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// A container with the customary defaults: default capabilities, RuntimeDefault seccomp, masked paths, user 0.
    pub fn new(id: impl Into<String>, rootfs: Rootfs, argv: Vec<String>) -> Self {
        let id = id.into();
        ContainerSpec {
            name: id.clone(),
            id,
            rootfs,
            argv,
            env: Vec::new(),
            cwd: String::new(),
            user: User::default(),
            mounts: Vec::new(),
            capabilities: Capabilities::default(),
            no_new_privileges: false,
            seccomp: Seccomp::RuntimeDefault,
            privileged: false,
            read_only_root: false,
            masked_paths: None,
            readonly_paths: None,
            resources: Resources::default(),
            oom_score_adj: 0,
            rlimits: Vec::new(),
            tty: false,
            stdin: false,
            stdin_once: false,
            log_path: None,
            pids_of: None,
            labels: BTreeMap::new(),
        }
    }
}

/// Where `/` comes from.
#[derive(Debug, Clone)]
pub enum Rootfs {
    /// `lower` top first, as `images` gives it. Mounted detached: the host's mount table never shows it.
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// An ordinary directory, bound.
    Directory(PathBuf),
}

/// Numbers only; names are looked up by whoever reads the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub supplementary: Vec<u32>,
}

#[derive(Debug, Clone)]
pub struct Mount {
    pub kind: MountKind,
    /// On the host; not used by `Tmpfs`.
    pub source: PathBuf,
    /// Absolute, in the container.
    pub destination: PathBuf,
    pub read_only: bool,
    /// Mounts below the source become read-only too.
    pub recursive_read_only: bool,
    pub propagation: Propagation,
    /// Resolved beneath `source` without ever leaving it; made as a directory when absent.
    pub sub_path: Option<PathBuf>,
}

impl Mount {
    /// A private, writable bind of all of `source`.
    pub fn bind(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        Mount {
            kind: MountKind::Bind,
            source: source.into(),
            destination: destination.into(),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
            sub_path: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    Bind,
    Tmpfs { size_bytes: Option<u64>, mode: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    /// For privileged containers only; the caller has checked that.
    Bidirectional,
}

/// The capabilities a container has, beside which it can never get others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Default for Capabilities {
    /// What Docker and containerd give.
    fn default() -> Self {
        Capabilities(Self::DEFAULT)
    }
}

#[derive(Debug, Clone, Default)]
pub enum Seccomp {
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A ready classic BPF program. An empty one is refused.
    Profile(Vec<BpfInstruction>),
}

/// One `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct BpfInstruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// `None` leaves a limit as it is (for a new cgroup: unlimited).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_shares: Option<u64>,
    /// Negative: no limit.
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    /// Negative: no limit.
    pub memory_limit_bytes: Option<i64>,
    /// Negative or zero: no limit.
    pub pids_limit: Option<i64>,
    /// e.g. `0-1`; the parent's when `None`.
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
}

/// `resource` is the kernel's number (`libc::RLIMIT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// A further process in a running container: same user, groups, capabilities, filter and limits as its first.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    pub argv: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    /// Where a terminal begins.
    pub size: Option<TerminalSize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// A signal number, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub(crate) i32);

impl Signal {
    pub const TERM: Signal = Signal(libc::SIGTERM);
    pub const KILL: Signal = Signal(libc::SIGKILL);
    pub const HUP: Signal = Signal(libc::SIGHUP);

    /// `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3`, as an image's `StopSignal` spells it.
    pub fn parse(text: &str) -> Option<Signal> {
        if let Ok(number) = text.parse::<i32>() {
            return (1..=64).contains(&number).then_some(Signal(number));
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(plus) = name.strip_prefix("RTMIN") {
            let offset = if plus.is_empty() { 0 } else { plus.strip_prefix('+')?.parse::<i32>().ok()? };
            return (0..=30).contains(&offset).then_some(Signal(34 + offset));
        }
        if let Some(minus) = name.strip_prefix("RTMAX") {
            let offset = if minus.is_empty() { 0 } else { minus.strip_prefix('-')?.parse::<i32>().ok()? };
            return (0..=30).contains(&offset).then_some(Signal(64 - offset));
        }
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| Signal(*number))
    }

    pub fn number(self) -> i32 {
        self.0
    }
}

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// A container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// On the host.
    pub pid: i32,
    pub started_at: SystemTime,
}

/// How a container's first process, or an exec, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// 128 plus the signal's number when a signal ended it, as shells have it.
    pub code: i32,
    pub signal: Option<i32>,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    pub finished_at: SystemTime,
}

/// What the runtime tells by itself. Delivered at least once: after `Runtime::open` every exit and loss that is still
/// on disk is told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    ContainerExited { sandbox: String, container: String, exit: Exit },
    /// The shim is gone, and everything in the sandbox has been killed. Only `remove_sandbox` is left to do.
    SandboxLost { id: String },
}

#[derive(Debug, Clone)]
pub struct SandboxStatus {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub state: SandboxState,
    pub created_at: SystemTime,
    /// `None` with the host's network.
    pub netns_path: Option<PathBuf>,
    pub containers: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    Ready,
    /// `stop_sandbox` was called: nothing runs, records remain.
    Stopped,
    /// The shim is gone.
    Lost,
}

#[derive(Debug, Clone)]
pub struct ContainerStatus {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub log_path: Option<PathBuf>,
    pub state: ContainerState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    Running(Started),
    Exited { started_at: SystemTime, exit: Exit },
    /// Its shim died first, so that nobody knows how it ended; it does not run.
    Unknown { started_at: Option<SystemTime> },
}

/// One reading of a cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_usage: Duration,
    pub memory_usage_bytes: u64,
    /// Usage without the page cache that can go at once; what evictions and `kubectl top` look at.
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub memory_limit_bytes: Option<u64>,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub pids: u64,
}
