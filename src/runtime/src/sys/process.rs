//! Processes: clone3, namespaces, signals, credentials, filters.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{check, owned};

/// `struct clone_args` of clone3(2), the version with `cgroup` (kernel 5.7).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

pub(crate) enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// A copy of this process, like fork, in the namespaces of `flags` and the (v2) cgroup of `cgroup`.
///
/// # Safety
/// The process must have one thread. The child should make system calls only, and must end in `execve` or `_exit`.
pub(crate) unsafe fn clone3(flags: u64, cgroup: Option<&OwnedFd>) -> io::Result<Cloned> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args is a valid clone_args, pidfd lives on this stack; without CLONE_VM and a stack the child goes on here,
    // on its own copy of all memory.
    let value = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if value == 0 {
        return Ok(Cloned::Child);
    }
    Ok(Cloned::Parent { pid: value as i32, pidfd: owned(pidfd.into())? })
}

pub(crate) fn setns(fd: impl AsFd, flags: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_fd().as_raw_fd(), flags) }).map(drop)
}

pub(crate) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: plain integers; CLONE_FILES, which could surprise owners of descriptors, is not used.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

pub(crate) fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let (fd, none) = (pidfd.as_fd().as_raw_fd(), std::ptr::null::<u8>());
    // SAFETY: plain integers and a null siginfo.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) }).map(drop)
}

pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers. A pidfd is close-on-exec from birth.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns; runs no destructors, which is wanted in a cloned child.
    unsafe { libc::_exit(code) }
}

/// How a child ended: its pid, code (as shells count), and signal or 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub pid: i32,
    pub code: i32,
    pub signal: i32,
}

fn waitid(kind: libc::idtype_t, id: u32, flags: i32) -> io::Result<Option<Reaped>> {
    // SAFETY: siginfo_t is plain data, zero is a valid value of it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: info is writable for the length of the call.
        let result = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | flags) };
        if result == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: waitid filled the child variant, or left zeros.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let signalled = info.si_code != libc::CLD_EXITED;
    Ok(Some(Reaped { pid, code: if signalled { 128 + status } else { status }, signal: if signalled { status } else { 0 } }))
}

/// Any child that has ended; `None` when none has, or there is none.
pub(crate) fn reap_any() -> Option<Reaped> {
    waitid(libc::P_ALL, 0, libc::WNOHANG).ok().flatten()
}

pub(crate) fn reap(pidfd: &OwnedFd) -> io::Result<Reaped> {
    waitid(libc::P_PIDFD, pidfd.as_raw_fd() as u32, 0)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))
}

#[cfg(feature = "daemon")]
pub(crate) fn try_reap(pidfd: &OwnedFd) -> Option<Reaped> {
    waitid(libc::P_PIDFD, pidfd.as_raw_fd() as u32, libc::WNOHANG).ok().flatten()
}

pub(crate) fn prctl(option: i32, value: u64) -> io::Result<libc::c_long> {
    // SAFETY: the options used take integers.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, value, 0, 0, 0) })
}

/// Default for every signal, none blocked: Rust ignores SIGPIPE, whoever started us may have ignored more, and what is
/// ignored or blocked survives execve.
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: kernel_sigaction of zeros is SIG_DFL without flags or mask; 8 is the size of the kernel's mask.
        // SIGKILL, SIGSTOP answer EINVAL.
        unsafe {
            let default = [0u64; 4];
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u8>(), 8);
        }
    }
    let none = 0u64;
    // SAFETY: an 8 byte mask, read only.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, std::ptr::null::<u8>(), 8)
    })
    .map(drop)
}

/// Only for a single-threaded process: these are the bare calls, without glibc's broadcast to all threads.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and count of one slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

pub(crate) fn set_gid(gid: u32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

pub(crate) fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Effective and permitted become `mask`; inheritable becomes empty.
pub(crate) fn set_capabilities(mask: u64) -> io::Result<()> {
    let header: [u32; 2] = [0x2008_0522, 0]; // _LINUX_CAPABILITY_VERSION_3, this thread
    let (low, high) = (mask as u32, (mask >> 32) as u32);
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: header and data have the layout of version 3.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// The permitted set of this process.
pub(crate) fn permitted_capabilities() -> io::Result<u64> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut data = [0u32; 6];
    // SAFETY: header and data have the layout of version 3.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
}

#[repr(C)]
struct FilterProgram {
    length: u16,
    filter: *const crate::spec::BpfInstruction,
}

/// The calling thread's system calls go through `filter` from now on.
pub(crate) fn install_filter(filter: &[crate::spec::BpfInstruction]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = FilterProgram { length, filter: filter.as_ptr() };
    // SAFETY: program points to `length` instructions; BpfInstruction has the layout of sock_filter (repr(C), 8 bytes).
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}

/// A session keyring of its own, so that the host's keys are not reachable. Not fatal: quota, or no such call.
pub(crate) fn new_session_keyring() {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING (1) with a null name makes an anonymous one.
    unsafe { libc::syscall(libc::SYS_keyctl, 1, std::ptr::null::<u8>()) };
}

/// # Safety
/// `argv` and `env` must be null-terminated arrays of NUL-terminated strings.
pub(crate) unsafe fn execve(
    program: &CStr,
    argv: *const *const libc::c_char,
    env: *const *const libc::c_char,
) -> i32 {
    // SAFETY: promised by the caller. Returns only on failure.
    unsafe { libc::syscall(libc::SYS_execve, program.as_ptr(), argv, env) };
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = [soft, hard];
    // SAFETY: rlimit64 is two u64.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), std::ptr::null::<u8>()) }).map(drop)
}

pub(crate) fn hard_rlimit(resource: u32) -> io::Result<u64> {
    let mut limit = [0u64; 2];
    // SAFETY: rlimit64 is two u64.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<u8>(), limit.as_mut_ptr()) })?;
    Ok(limit[1])
}

pub(crate) fn close_range_from(first: i32) -> io::Result<()> {
    // SAFETY: closes descriptors of a cloned child that is about to execve; nothing uses them again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// `dup2`; `close_on_exec` only for the error pipe.
pub(crate) fn duplicate_onto(from: i32, to: i32, close_on_exec: bool) -> io::Result<()> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    if from == to {
        // SAFETY: plain integers.
        return check(unsafe { libc::syscall(libc::SYS_fcntl, from, libc::F_SETFD, i32::from(close_on_exec)) }).map(drop);
    }
    // SAFETY: plain integers; `to` is a number whose former meaning the caller gives up.
    check(unsafe { libc::syscall(libc::SYS_dup3, from, to, flags) }).map(drop)
}
