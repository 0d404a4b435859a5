//! The namespaces that a pod's containers share, held as descriptors: no pause process.
//!
//! A helper child is born in new network, IPC and UTS namespaces, sets host name and sysctls there, and waits until the
//! shim has opened them. The network namespace is bound into the run directory too, so that rk can use it and tear it down
//! without the shim.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::Shim;
use crate::cgroup::{Cgroups, Entrance};
use crate::plan::SandboxPlan;
use crate::protocol::{Failure, Step as _};
use crate::sys::mount::{
    NODEV, NOEXEC, NOSUID, RDONLY, attach_at, clone_tree, make_private, new_filesystem, pivot_into_cwd,
};
use crate::sys::process::{self, Cloned, clone3, pidfd_signal, reap, setns};
use crate::sys;

pub(super) struct Namespaces {
    pub net: Option<OwnedFd>,
    pub ipc: Option<OwnedFd>,
    pub uts: Option<OwnedFd>,
    /// With a shared PID namespace: it, and its PID 1.
    pub pid: Option<(OwnedFd, OwnedFd)>,
    /// The pod has a /dev/shm of its own.
    pub shm: bool,
}

/// containerd's defaults: any port, and ping, without privileges. Kernels without one of them go without.
const OPEN_SYSCTLS: [(&CStr, &str); 2] =
    [(c"net/ipv4/ip_unprivileged_port_start", "0"), (c"net/ipv4/ping_group_range", "0 2147483647")];

impl Shim {
    pub(super) fn make_namespaces(&mut self) -> Result<(), Failure> {
        let plan = &self.plan;
        let shm = !plan.host_ipc;
        if shm {
            let size = CString::new(plan.shm_size_bytes.to_string()).expect("digits have no NUL");
            let options = [(c"size", size.as_c_str()), (c"mode", c"1777")];
            let tmpfs = new_filesystem(c"tmpfs", &options, NOSUID | NODEV | NOEXEC).step("make /dev/shm")?;
            attach_at(&tmpfs, &c_path(&self.paths.shm())?).step("mount /dev/shm")?;
        }
        let mut namespaces = Namespaces { net: None, ipc: None, uts: None, pid: None, shm };
        let mut flags = 0;
        if !plan.host_network {
            flags |= libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
        }
        if !plan.host_ipc {
            flags |= libc::CLONE_NEWIPC;
        }
        if flags != 0 {
            self.with_helper(flags as u64, &mut namespaces)?;
        }
        if let Some(net) = &namespaces.net {
            let tree = clone_tree(net, c"", false).step("pin the network namespace")?;
            attach_at(&tree, &c_path(&self.paths.netns())?).step("pin the network namespace")?;
        }
        if plan.share_pid && !plan.host_pid {
            namespaces.pid = Some(self.make_pid_one(&namespaces)?);
        }
        self.namespaces = Some(namespaces);
        Ok(())
    }

    fn with_helper(&self, flags: u64, into: &mut Namespaces) -> Result<(), Failure> {
        let (told, tell) = sys::pipe().step("make a pipe")?;
        // SAFETY: the shim has one thread; the child makes system calls only and ends in _exit.
        match unsafe { clone3(flags, None) }.step("make namespaces")? {
            Cloned::Child => {
                let failed = prepare_inside(&self.plan, &self.proc);
                let _parent_gone = rustix::io::write(&tell, &failed.to_ne_bytes());
                loop {
                    let _interrupted = rustix::thread::nanosleep(&rustix::time::Timespec { tv_sec: 3600, tv_nsec: 0 });
                }
            }
            Cloned::Parent { pid, pidfd } => {
                drop(tell);
                let result = self.open_namespaces(&told, pid, flags, into);
                let _gone = pidfd_signal(&pidfd, libc::SIGKILL);
                let _reaped = reap(&pidfd);
                result
            }
        }
    }

    fn open_namespaces(&self, told: &OwnedFd, pid: i32, flags: u64, into: &mut Namespaces) -> Result<(), Failure> {
        let mut raw = [0u8; 8];
        let count = rustix::io::read(told, &mut raw).step("wait for the namespaces")?;
        let failed = i64::from_ne_bytes(raw);
        if count != raw.len() {
            return Err(Failure::errno("prepare the namespaces", libc::EPROTO));
        }
        if failed != 0 {
            let (index, errno) = ((failed >> 32) as usize, failed as u32 as i32);
            let what = match self.plan.sysctls.get(index.wrapping_sub(1)) {
                Some((name, _)) => format!("set sysctl {}", name.to_string_lossy().replace('/', ".")),
                None => format!("set host name {:?}", self.plan.hostname),
            };
            return Err(Failure::errno(what, errno));
        }
        let open = |name: &str| -> Result<OwnedFd, Failure> {
            let path = format!("{pid}/ns/{name}");
            rustix::fs::openat(&self.proc, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .step("open the namespaces")
        };
        let has = |flag: i32| flags & flag as u64 != 0;
        into.net = has(libc::CLONE_NEWNET).then(|| open("net")).transpose()?;
        into.uts = has(libc::CLONE_NEWUTS).then(|| open("uts")).transpose()?;
        into.ipc = has(libc::CLONE_NEWIPC).then(|| open("ipc")).transpose()?;
        Ok(())
    }

    /// PID 1 of a shared PID namespace: adopts and reaps orphans, ignores signals, can see nothing.
    fn make_pid_one(&self, namespaces: &Namespaces) -> Result<(OwnedFd, OwnedFd), Failure> {
        let cgroup = format!("{}/init", self.plan.cgroup);
        let entrance = make_cgroup(&self.cgroups, &cgroup).step("make the cgroup of PID 1")?;
        let root = new_filesystem(c"tmpfs", &[(c"mode", c"555"), (c"size", c"0")], RDONLY | NOSUID | NODEV | NOEXEC)
            .step("make the root of PID 1")?;
        let place = c_path(&self.paths.root())?;
        let flags = (libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u64;
        let (told, tell) = sys::pipe().step("make a pipe")?;
        // SAFETY: as above.
        let cloned = unsafe { clone3(flags, entrance.unified.as_ref()) };
        match cloned.step("make the PID namespace")? {
            Cloned::Child => {
                let result = become_pid_one(namespaces, &entrance, &root, &place);
                let errno = result.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
                let _parent_gone = rustix::io::write(&tell, &errno.to_ne_bytes());
                if errno != 0 {
                    process::exit_now(1);
                }
                let _no_descriptor_needed = process::close_range_from(0);
                reap_forever()
            }
            Cloned::Parent { pid, pidfd } => {
                drop(tell);
                let mut raw = [0u8; 4];
                let count = rustix::io::read(&told, &mut raw).step("wait for PID 1")?;
                if count != 4 || raw != [0; 4] {
                    let _reaped = reap(&pidfd);
                    return Err(Failure::errno("start PID 1 of the pod", i32::from_ne_bytes(raw).max(1)));
                }
                let path = format!("{pid}/ns/pid");
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let namespace =
                    rustix::fs::openat(&self.proc, path.as_str(), flags, Mode::empty()).step("open the PID namespace")?;
                Ok((namespace, pidfd))
            }
        }
    }

    /// Runs `clone` with children born in the given PID namespace.
    pub(super) fn in_pid_namespace<T>(
        &self,
        namespace: Option<&OwnedFd>,
        clone: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(namespace) = namespace else { return clone() };
        setns(namespace, libc::CLONE_NEWPID).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => Failure::new("container not running", &error),
            _ => Failure::new("enter the PID namespace", &error),
        })?;
        let result = clone();
        if setns(&self.own_pid_namespace, libc::CLONE_NEWPID).is_err() {
            // Every later child would land in a container's namespace: better none at all.
            std::process::abort();
        }
        result
    }
}

/// A leaf below the pod's group, and the way into it.
pub(super) fn make_cgroup(cgroups: &Cgroups, path: &str) -> io::Result<Entrance> {
    cgroups.create(path)?;
    cgroups.open(path)
}

fn c_path(path: &Path) -> Result<CString, Failure> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure::errno("name of the run directory", libc::EINVAL))
}

/// In the helper: 0, or the number of the failed sysctl (0: the host name) in the upper and the errno in the lower half.
fn prepare_inside(plan: &SandboxPlan, proc: &OwnedFd) -> i64 {
    let failed = |index: usize, error: io::Error| (index as i64) << 32 | i64::from(error.raw_os_error().unwrap_or(libc::EIO));
    if !plan.host_network {
        let name = plan.hostname.as_bytes();
        // SAFETY: pointer and length of one slice.
        let result = unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.len()) };
        if let Err(error) = sys::check(result) {
            return failed(0, error);
        }
        for (name, value) in OPEN_SYSCTLS {
            let _older_kernel = write_sysctl(proc, name, value);
        }
    }
    for (index, (name, value)) in plan.sysctls.iter().enumerate() {
        if let Err(error) = write_sysctl(proc, name, value) {
            return failed(index + 1, error);
        }
    }
    0
}

fn write_sysctl(proc: &OwnedFd, name: &CStr, value: &str) -> io::Result<()> {
    let sys = rustix::fs::openat(proc, c"sys", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let how = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(&sys, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), how)?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

fn become_pid_one(namespaces: &Namespaces, entrance: &Entrance, root: &OwnedFd, place: &CStr) -> io::Result<()> {
    for procs in &entrance.procs {
        rustix::io::write(procs, b"0")?;
    }
    for namespace in [&namespaces.net, &namespaces.ipc, &namespaces.uts].into_iter().flatten() {
        setns(namespace, 0)?;
    }
    process::unshare(libc::CLONE_NEWCGROUP)?;
    make_private()?;
    attach_at(root, place)?;
    rustix::process::fchdir(root)?;
    pivot_into_cwd()?;
    rustix::process::setsid()?;
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    process::prctl(libc::PR_SET_NAME, c"init".as_ptr() as u64)?;
    process::set_capabilities(0)
}

/// Every signal stays blocked, as the shim has it; PID 1 of a namespace gets none it has no handler for anyway.
fn reap_forever() -> ! {
    let children = 1u64 << (libc::SIGCHLD - 1);
    loop {
        while process::reap_any().is_some() {}
        // SAFETY: waits for SIGCHLD of an 8 byte mask; null where nothing is wanted back.
        unsafe {
            let none = std::ptr::null::<u8>();
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const children, none, none, 8);
        }
    }
}
