//! The cloned child's way to execve. System calls only: no allocation, no lock, no panic, no print.
//!
//! The order matters; why each step stands where it stands is said at the step.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::report::{Report, Step};
use super::target::{ensure, ensure_real_directory};
use super::{Mounts, Prepared};
use crate::sys::mount::{
    NODEV, NOEXEC, NOSUID, PROC_MAGIC, RDONLY, attach, attach_at, clone_tree, is_directory, is_filesystem, make_private,
    new_filesystem, pivot_into_cwd, resolve_strict, set_attributes,
};
use crate::sys::process;

/// The error pipe's number from the moment all other descriptors are closed.
const ERROR_PIPE: i32 = 3;

struct Stop {
    step: Step,
    index: u32,
    errno: i32,
}

trait At<T> {
    fn at(self, step: Step) -> Result<T, Stop>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Stop>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Stop> {
        self.at_index(step, 0)
    }
    fn at_index(self, step: Step, index: usize) -> Result<T, Stop> {
        self.map_err(|error| Stop { step, index: index as u32, errno: error.into().raw_os_error().unwrap_or(libc::EIO) })
    }
}

pub(super) fn run(
    prepared: &Prepared<'_>,
    programs: &[CString],
    argv: &[*const c_char],
    env: &[*const c_char],
    error_pipe: i32,
) -> ! {
    let stop = match set_up(prepared) {
        Err(stop) => stop,
        Ok(()) => {
            let moved = process::duplicate_onto(error_pipe, ERROR_PIPE, true);
            let stop = match moved.at(Step::CloseDescriptors).and_then(|()| become_program(prepared)) {
                Err(stop) => stop,
                Ok(()) => execute(programs, argv, env),
            };
            Report::send(stop.step, stop.index, stop.errno, ERROR_PIPE);
            process::exit_now(127);
        }
    };
    Report::send(stop.step, stop.index, stop.errno, error_pipe);
    process::exit_now(127)
}

/// All that needs descriptors of the host.
fn set_up(prepared: &Prepared<'_>) -> Result<(), Stop> {
    // Not dumpable: whoever shares our namespaces must not reach the shim's image or memory through /proc before execve.
    process::prctl(libc::PR_SET_DUMPABLE, 0).at(Step::Signals)?;
    process::reset_signals().at(Step::Signals)?;
    // v1: no handshake is needed, since "0" means the writer.
    for procs in &prepared.entrance.procs {
        rustix::io::write(procs, b"0").at(Step::EnterCgroup)?;
    }
    // After entering, or the namespace's root is the shim's group.
    if prepared.new_cgroup_namespace {
        process::unshare(libc::CLONE_NEWCGROUP).at(Step::CgroupNamespace)?;
    }
    // Through the host's procfs: in the container somebody could have put another file there.
    set_oom_score(prepared)?;
    for (namespace, kind) in &prepared.join {
        process::setns(*namespace, *kind).at(Step::JoinNamespace)?;
    }
    rustix::process::setsid().at(Step::Session)?;
    process::new_session_keyring();
    if prepared.terminal {
        rustix::process::ioctl_tiocsctty(prepared.stdio[0]).at(Step::ControllingTerminal)?;
    }
    if let Some(mounts) = &prepared.mounts {
        mount_all(prepared, mounts)?;
    }
    for limit in &prepared.plan.rlimits {
        set_limit(limit.resource, limit.soft, limit.hard).at(Step::Limit)?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for (number, fd) in prepared.stdio.iter().enumerate() {
        process::duplicate_onto(fd.as_raw_fd(), number as i32, false).at(Step::Stdio)?;
    }
    Ok(())
}

fn set_oom_score(prepared: &Prepared<'_>) -> Result<(), Stop> {
    let mut text = [0u8; 8];
    let score = decimal(prepared.plan.oom_score_adj.clamp(-1000, 1000), &mut text);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(prepared.proc, c"self/oom_score_adj", flags, Mode::empty()).at(Step::OomScore)?;
    match rustix::io::write(&file, score) {
        // Lowering needs CAP_SYS_RESOURCE, which a nested host lacks: then the inherited score stays.
        Ok(_) | Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error).at(Step::OomScore),
    }
}

/// Beyond the hard limit of a host that does not let us raise it, that limit is what there is.
fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    match process::set_rlimit(resource, soft, hard) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let hard = process::hard_rlimit(resource)?.min(hard);
            process::set_rlimit(resource, soft.min(hard), hard)
        }
        result => result,
    }
}

fn mount_all(prepared: &Prepared<'_>, mounts: &Mounts) -> Result<(), Stop> {
    let plan = prepared.plan;
    let root = &mounts.root;
    make_private().at(Step::Private)?;
    attach_at(root, &mounts.attach_at).at(Step::Root)?;

    let safe = NOSUID | NODEV | NOEXEC;
    // Here and not before: procfs is of the PID namespace, sysfs of the network namespace, mqueue of the IPC namespace of
    // whoever makes it.
    let proc = new_filesystem(c"proc", &[], safe).at(Step::Proc)?;
    attach(&proc, ensure_real_directory(root, c"proc").at(Step::Proc)?).at(Step::Proc)?;
    attach(&mounts.dev, ensure_real_directory(root, c"dev").at(Step::Dev)?).at(Step::Dev)?;
    let place = |name: &CStr| resolve_strict(&mounts.dev, name, OFlags::NOFOLLOW);
    attach(&mounts.devpts, place(c"pts").at(Step::DevPts)?).at(Step::DevPts)?;
    if let Some(shm) = &mounts.shm {
        attach(shm, place(c"shm").at(Step::DevShm)?).at(Step::DevShm)?;
    }
    match new_filesystem(c"mqueue", &[], safe) {
        Ok(mqueue) => attach(&mqueue, place(c"mqueue").at(Step::DevMqueue)?).at(Step::DevMqueue)?,
        // A kernel without POSIX message queues.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => return Err(error).at(Step::DevMqueue),
    }
    if mounts.console {
        let slave = clone_tree(prepared.stdio[0], c"", false).at(Step::DevConsole)?;
        attach(&slave, place(c"console").at(Step::DevConsole)?).at(Step::DevConsole)?;
    }
    let sys = new_filesystem(c"sysfs", &[], safe).at(Step::Sys)?;
    attach(&sys, ensure_real_directory(root, c"sys").at(Step::Sys)?).at(Step::Sys)?;
    mount_cgroups(mounts, &sys).at(Step::Cgroup)?;
    if !mounts.privileged {
        set_attributes(&sys, RDONLY, 0, false).at(Step::Sys)?;
    }
    for (index, volume) in mounts.volumes.iter().enumerate() {
        let destination = plan.mounts[index].destination.as_c_str();
        let target = ensure(root, destination, volume.directory).at_index(Step::Volume, index)?;
        // Over procfs one could fake what the runtime and tools trust.
        if is_filesystem(&target, PROC_MAGIC).at_index(Step::Volume, index)? {
            return Err(io::Error::from_raw_os_error(libc::EPERM)).at_index(Step::Volume, index);
        }
        attach(&volume.tree, &target).at_index(Step::Volume, index)?;
    }
    hide(prepared, mounts, &proc, &sys)?;
    make_working_directory(root, &plan.cwd);
    if plan.read_only_root {
        set_attributes(root, RDONLY, 0, false).at(Step::ReadOnlyRoot)?;
    }
    rustix::process::fchdir(root).at(Step::Pivot)?;
    pivot_into_cwd().at(Step::Pivot)
}

fn mount_cgroups(mounts: &Mounts, sys: &OwnedFd) -> io::Result<()> {
    let place = match resolve_strict(sys, c"fs/cgroup", OFlags::DIRECTORY) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        result => result?,
    };
    let Some(frame) = &mounts.cgroup.frame else {
        return match mounts.cgroup.groups.first() {
            Some((_, group)) => attach(group, place),
            None => Ok(()),
        };
    };
    attach(frame, place)?;
    for (name, group) in &mounts.cgroup.groups {
        attach(group, resolve_strict(frame, name, OFlags::DIRECTORY)?)?;
    }
    Ok(())
}

/// Masked and read-only paths, each proven to be on the procfs or sysfs that we mounted: looked up beneath its descriptor,
/// through no link. What does not exist needs no hiding.
fn hide(prepared: &Prepared<'_>, mounts: &Mounts, proc: &OwnedFd, sys: &OwnedFd) -> Result<(), Stop> {
    let plan = prepared.plan;
    let find = |path: &CStr| -> io::Result<Option<OwnedFd>> {
        let bytes = path.to_bytes_with_nul();
        let (base, rest) = if bytes.starts_with(b"/proc/") {
            (proc, &bytes[6..])
        } else if bytes.starts_with(b"/sys/") {
            (sys, &bytes[5..])
        } else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let rest = CStr::from_bytes_with_nul(rest).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        match resolve_strict(base, rest, OFlags::NOFOLLOW) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
            result => result.map(Some),
        }
    };
    // The host's, reached before the old root goes; a container's own could be anything.
    let null = rustix::fs::open(c"/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .at(Step::Mask)?;
    let status = rustix::fs::fstat(&null).at(Step::Mask)?;
    let is_null = rustix::fs::FileType::from_raw_mode(status.st_mode).is_char_device()
        && status.st_rdev == rustix::fs::makedev(1, 3);
    if !is_null {
        return Err(io::Error::from_raw_os_error(libc::ENODEV)).at(Step::Mask);
    }
    let mut mask_used = false;
    for (index, path) in plan.masked_paths.iter().enumerate() {
        let Some(target) = find(path).at_index(Step::Mask, index)? else { continue };
        let directory = is_directory(&target).at_index(Step::Mask, index)?;
        if directory && !mask_used {
            attach(&mounts.mask, target).at_index(Step::Mask, index)?;
            mask_used = true;
            continue;
        }
        let cover = if directory { &mounts.mask } else { &null };
        let cover = clone_tree(cover, c"", false).at_index(Step::Mask, index)?;
        attach(cover, target).at_index(Step::Mask, index)?;
    }
    for (index, path) in plan.readonly_paths.iter().enumerate() {
        let Some(target) = find(path).at_index(Step::ReadOnlyPath, index)? else { continue };
        let tree = clone_tree(&target, c"", true).at_index(Step::ReadOnlyPath, index)?;
        set_attributes(&tree, RDONLY, 0, true).at_index(Step::ReadOnlyPath, index)?;
        attach(tree, target).at_index(Step::ReadOnlyPath, index)?;
    }
    Ok(())
}

/// As other runtimes do. When it cannot be made, chdir says so.
fn make_working_directory(root: &OwnedFd, cwd: &CStr) {
    let bytes = cwd.to_bytes_with_nul();
    if bytes.len() > 2
        && let Ok(relative) = CStr::from_bytes_with_nul(&bytes[1..])
    {
        let _chdir_will_tell = ensure(root, relative, true);
    }
}

/// All that no longer needs the host: user, capabilities, filter.
fn become_program(prepared: &Prepared<'_>) -> Result<(), Stop> {
    let plan = prepared.plan;
    // First no descriptor of the host, then a working directory: the other way round is CVE-2024-21626.
    process::close_range_from(ERROR_PIPE + 1).at(Step::CloseDescriptors)?;
    let entered = enter_working_directory(&plan.cwd);
    if let Err(error) = &entered
        && error.raw_os_error() != Some(libc::EACCES)
    {
        return entered.at(Step::WorkingDirectory);
    }
    let capabilities = plan.capabilities & prepared.capability_limit;
    for number in 0..64 {
        if capabilities >> number & 1 == 0 && prepared.capability_limit >> number & 1 == 1 {
            process::prctl(libc::PR_CAPBSET_DROP, number).at(Step::BoundingSet)?;
        }
    }
    // While CAP_SYS_ADMIN is still held: without no_new_privs the filter needs it.
    if !plan.no_new_privileges && !plan.seccomp.is_empty() {
        process::install_filter(&plan.seccomp).at(Step::Filter)?;
    }
    process::set_groups(&plan.groups).at(Step::Groups)?;
    process::prctl(libc::PR_SET_KEEPCAPS, 1).at(Step::Capabilities)?;
    process::set_gid(plan.gid).at(Step::Gid)?;
    process::set_uid(plan.uid).at(Step::Uid)?;
    process::prctl(libc::PR_SET_KEEPCAPS, 0).at(Step::Capabilities)?;
    process::set_capabilities(capabilities).at(Step::Capabilities)?;
    if entered.is_err() {
        // Root without CAP_DAC_OVERRIDE could not, the user may.
        enter_working_directory(&plan.cwd).at(Step::WorkingDirectory)?;
    }
    if plan.no_new_privileges {
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at(Step::NoNewPrivileges)?;
        if !plan.seccomp.is_empty() {
            process::install_filter(&plan.seccomp).at(Step::Filter)?;
        }
    }
    Ok(())
}

fn enter_working_directory(cwd: &CStr) -> io::Result<()> {
    rustix::process::chdir(cwd)?;
    let mut buffer = [0u8; 4096];
    // SAFETY: the kernel writes at most the given number of bytes.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    // A directory outside the root answers "(unreachable)".
    if length < 2 || buffer[0] != b'/' {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    Ok(())
}

/// Tries each place. Returns only when none would do: then the most telling errno, as execvp has it.
fn execute(programs: &[CString], argv: &[*const c_char], env: &[*const c_char]) -> Stop {
    let mut worst = libc::ENOENT;
    for program in programs {
        // SAFETY: argv and env are null-terminated arrays of the plan's strings, which live in our copy of the memory.
        let errno = unsafe { process::execve(program, argv.as_ptr(), env.as_ptr()) };
        match errno {
            libc::ENOENT | libc::ENOTDIR => {
                // The file is there: its interpreter is not.
                if rustix::fs::access(program.as_c_str(), rustix::fs::Access::EXISTS).is_ok() {
                    return Stop { step: Step::Interpreter, index: 0, errno };
                }
            }
            libc::EACCES => worst = libc::EACCES,
            other => return Stop { step: Step::Exec, index: 0, errno: other },
        }
    }
    Stop { step: Step::Exec, index: 0, errno: worst }
}

fn decimal(value: i32, buffer: &mut [u8; 8]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_without_allocating() {
        for value in [0, 7, -1, 1000, -1000, 985] {
            assert_eq!(decimal(value, &mut [0; 8]), value.to_string().as_bytes());
        }
    }
}
