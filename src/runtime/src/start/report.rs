//! What a child says through the error pipe: which step failed, and with which errno. And what that means to people.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Prepared;
use crate::protocol::Failure;
use crate::sys::errno_text;

macro_rules! steps {
    ($($name:ident = $number:literal : $text:literal),* $(,)?) => {
        /// The child's steps, in their order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub(super) enum Step { $($name = $number),* }

        impl Step {
            fn of(number: u32) -> Option<Step> {
                match number { $($number => Some(Step::$name),)* _ => None }
            }
            fn text(self) -> &'static str {
                match self { $(Step::$name => $text),* }
            }
        }
    };
}
steps! {
    Signals = 1: "reset signals",
    EnterCgroup = 2: "enter the cgroup",
    CgroupNamespace = 3: "make the cgroup namespace",
    OomScore = 4: "set oom_score_adj",
    JoinNamespace = 5: "join the pod's namespaces",
    Session = 6: "start a session",
    ControllingTerminal = 7: "take the terminal",
    Private = 8: "make mounts private",
    Root = 9: "mount the root filesystem",
    Proc = 10: "mount /proc",
    Dev = 11: "mount /dev",
    DevPts = 12: "mount /dev/pts",
    DevShm = 13: "mount /dev/shm",
    DevMqueue = 14: "mount /dev/mqueue",
    DevConsole = 15: "mount /dev/console",
    Sys = 16: "mount /sys",
    Cgroup = 17: "mount /sys/fs/cgroup",
    Volume = 18: "mount",
    Mask = 19: "mask",
    ReadOnlyPath = 20: "make read-only",
    MakeWorkingDirectory = 21: "make the working directory",
    ReadOnlyRoot = 22: "make the root read-only",
    Pivot = 23: "change to the new root",
    Limit = 24: "set a resource limit",
    Stdio = 25: "set up stdio",
    CloseDescriptors = 26: "close descriptors",
    WorkingDirectory = 27: "chdir to cwd",
    BoundingSet = 28: "drop capabilities",
    Groups = 29: "set groups",
    Gid = 30: "set the group",
    Uid = 31: "set the user",
    Capabilities = 32: "set capabilities",
    NoNewPrivileges = 33: "set no_new_privs",
    Filter = 34: "install the seccomp filter",
    Exec = 35: "exec",
    Interpreter = 36: "exec (interpreter)",
}

/// Twelve bytes, written at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    step: u32,
    /// Of what, where a step does several.
    index: u32,
    errno: i32,
}

impl Report {
    pub(super) fn send(step: Step, index: u32, errno: i32, pipe: i32) {
        let mut raw = [0u8; 12];
        raw[0..4].copy_from_slice(&(step as u32).to_ne_bytes());
        raw[4..8].copy_from_slice(&index.to_ne_bytes());
        raw[8..12].copy_from_slice(&errno.to_ne_bytes());
        // SAFETY: a buffer of 12 bytes. If it cannot be written there is nobody to tell.
        unsafe { libc::write(pipe, raw.as_ptr().cast(), raw.len()) };
    }

    fn parse(raw: &[u8; 12]) -> Report {
        let word = |at: usize| [raw[at], raw[at + 1], raw[at + 2], raw[at + 3]];
        Report {
            step: u32::from_ne_bytes(word(0)),
            index: u32::from_ne_bytes(word(4)),
            errno: i32::from_ne_bytes(word(8)),
        }
    }

    /// The words that users of other runtimes know.
    pub(super) fn explain(self, prepared: &Prepared<'_>) -> Failure {
        let Some(step) = Step::of(self.step) else { return Failure::errno("start", self.errno) };
        let text = errno_text(self.errno);
        let index = self.index as usize;
        let plan = prepared.plan;
        let lossy = |c: &std::ffi::CString| c.to_string_lossy().into_owned();
        match step {
            Step::Exec | Step::Interpreter => {
                let program = prepared.argv.first().map(lossy).unwrap_or_default();
                let searched = !program.contains('/');
                let message = match self.errno {
                    libc::ENOENT | libc::ENOTDIR if step == Step::Exec && searched => {
                        format!("exec: {program:?}: executable file not found in $PATH")
                    }
                    libc::ENOENT | libc::ENOTDIR if step == Step::Exec => format!("exec: {program:?}: stat {program}: {text}"),
                    libc::EACCES | libc::EPERM => format!("exec: {program:?}: permission denied"),
                    libc::EISDIR => format!("exec: {program:?}: is a directory"),
                    // The file is there: what it names as its interpreter is not, or it is no program of this machine.
                    _ => format!("exec {program}: {text}"),
                };
                Failure { step: "exec".into(), errno: self.errno, message }
            }
            Step::Volume => {
                let name = plan.mounts.get(index).map(|mount| lossy(&mount.destination)).unwrap_or_default();
                Failure::errno(format!("mount /{name}"), self.errno)
            }
            Step::Mask | Step::ReadOnlyPath => {
                let list = if step == Step::Mask { &plan.masked_paths } else { &plan.readonly_paths };
                let name = list.get(index).map(lossy).unwrap_or_default();
                Failure::errno(format!("{} {name}", step.text()), self.errno)
            }
            Step::WorkingDirectory => {
                let cwd = lossy(&plan.cwd);
                let message = format!("chdir to cwd ({cwd:?}) set in config.json failed: {text}");
                Failure { step: step.text().into(), errno: self.errno, message }
            }
            Step::JoinNamespace if self.errno == libc::ESRCH => Failure::errno("container not running", self.errno),
            Step::Proc | Step::Dev | Step::Sys if matches!(self.errno, libc::ELOOP | libc::ENOTDIR) => {
                let message = format!("{}: it is not a real directory in the image", step.text());
                Failure { step: step.text().into(), errno: self.errno, message }
            }
            _ => Failure::errno(step.text(), self.errno),
        }
    }
}

/// `None` when the pipe closed without a word: the program runs.
pub(super) fn wait(pipe: &OwnedFd, seconds: i64) -> io::Result<Option<Report>> {
    let mut raw = [0u8; 12];
    let mut filled = 0;
    loop {
        let mut poll = [PollFd::new(pipe, PollFlags::IN)];
        let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
        match rustix::event::poll(&mut poll, Some(&limit)) {
            Ok(0) => return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match rustix::io::read(pipe.as_fd(), &mut raw[filled..])? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::Error::from_raw_os_error(libc::EPROTO)),
            count => filled += count,
        }
        if filled == raw.len() {
            return Ok(Some(Report::parse(&raw)));
        }
    }
}
