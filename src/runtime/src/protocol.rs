//! What rk and a shim say to each other over the control socket.
//!
//! A message is a header of 16 bytes (payload length, kind, number of descriptors, request id), the payload, and the
//! descriptors as SCM_RIGHTS with its first byte. rk sends [`Order`]s; the shim answers each with `Done` or `Failed` under
//! the order's id, and tells [`News`] under id 0.

use std::ffi::CString;

use crate::wire::{Malformed, Wire, wire_enum, wire_struct};

pub(crate) const HEADER_BYTES: usize = 16;
/// argv and environment of an exec are the largest thing said; the kernel's own limit for both is 6 MiB at most by default.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 8 << 20;
pub(crate) const FDS_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Order = 1,
    Done = 2,
    Failed = 3,
    News = 4,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub length: u32,
    pub kind: Kind,
    pub fds: u8,
    pub id: u64,
}

impl Header {
    pub(crate) fn parse(raw: &[u8; HEADER_BYTES]) -> Result<Header, Malformed> {
        let mut input = &raw[..];
        let length = u32::take(&mut input)?;
        let kind = match u8::take(&mut input)? {
            1 => Kind::Order,
            2 => Kind::Done,
            3 => Kind::Failed,
            4 => Kind::News,
            _ => return Err(Malformed),
        };
        let fds = u8::take(&mut input)?;
        let _reserved = u16::take(&mut input)?;
        let id = u64::take(&mut input)?;
        if length as usize > PAYLOAD_BYTES_MAX || fds as usize > FDS_MAX {
            return Err(Malformed);
        }
        Ok(Header { length, kind, fds, id })
    }
}

/// Header and payload, ready to send.
pub(crate) fn frame<T: Wire>(kind: Kind, id: u64, fds: usize, payload: &T) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    payload.put(&mut out);
    let length = (out.len() - HEADER_BYTES) as u32;
    out[0..4].copy_from_slice(&length.to_le_bytes());
    out[4] = kind as u8;
    out[5] = fds as u8;
    out[8..16].copy_from_slice(&id.to_le_bytes());
    out
}

#[derive(Debug)]
pub(crate) enum Order {
    /// Make the namespaces. Once, first.
    Create {},
    /// Start the container whose plan lies in the state directory. Answer: [`StartedReply`].
    Start { container: String },
    Signal { container: String, signal: i32 },
    /// SIGKILL to all of it.
    Kill { container: String },
    /// Without a terminal the three stdio descriptors come along. Answer: [`ExecReply`], with a terminal its master.
    Exec { container: String, argv: Vec<CString>, env: Vec<CString>, tty: bool, rows: u16, columns: u16 },
    KillExec { exec: u64 },
    /// Answer: [`AttachReply`] and the descriptors it names, in its order.
    Attach { container: String },
    /// A TCP socket born in the pod's network namespace.
    Socket { ipv6: bool },
    ReopenLog { container: String },
    /// Forget a container that has exited.
    Remove { container: String },
    /// Answer: `Vec<ContainerReport>`.
    List {},
    /// Kill every container; exits are told as they come.
    KillAll {},
    /// Exit. Only when nothing runs.
    Shutdown {},
}
wire_enum!(Order {
    1 => Create {},
    2 => Start { container },
    3 => Signal { container, signal },
    4 => Kill { container },
    5 => Exec { container, argv, env, tty, rows, columns },
    6 => KillExec { exec },
    7 => Attach { container },
    8 => Socket { ipv6 },
    9 => ReopenLog { container },
    10 => Remove { container },
    11 => List {},
    12 => KillAll {},
    13 => Shutdown {},
});

#[derive(Debug)]
pub(crate) struct StartedReply {
    pub pid: i32,
    pub started_at: u64,
}
wire_struct!(StartedReply { pid, started_at });

#[derive(Debug)]
pub(crate) struct ExecReply {
    pub exec: u64,
}
wire_struct!(ExecReply { exec });

#[derive(Debug)]
pub(crate) struct AttachReply {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The terminal's master comes too, for its size.
    pub tty: bool,
}
wire_struct!(AttachReply { stdin, stdout, stderr, tty });

#[derive(Debug)]
pub(crate) struct ContainerReport {
    pub container: String,
    pub pid: i32,
    pub started_at: u64,
    pub exit: Option<ExitRecord>,
}
wire_struct!(ContainerReport { container, pid, started_at, exit });

/// How a process ended; the form on disk too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExitRecord {
    pub code: i32,
    /// 0: it returned by itself.
    pub signal: i32,
    pub oom_killed: bool,
    pub started_at: u64,
    pub finished_at: u64,
}
wire_struct!(ExitRecord { code, signal, oom_killed, started_at, finished_at });

#[derive(Debug)]
pub(crate) enum News {
    ContainerExited { container: String, exit: ExitRecord },
    ExecExited { exec: u64, exit: ExitRecord },
}
wire_enum!(News { 1 => ContainerExited { container, exit }, 2 => ExecExited { exec, exit } });

/// An order that was not carried out.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What was tried, e.g. `mount /data`.
    pub step: String,
    pub errno: i32,
    /// The whole sentence, for people.
    pub message: String,
}
wire_struct!(Failure { step, errno, message });

impl Failure {
    pub(crate) fn new(step: impl Into<String>, error: &std::io::Error) -> Failure {
        let step = step.into();
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let message = format!("{step}: {}", crate::sys::errno_text(errno));
        Failure { step, errno, message }
    }

    pub(crate) fn errno(step: impl Into<String>, errno: i32) -> Failure {
        Failure::new(step, &std::io::Error::from_raw_os_error(errno))
    }
}

/// `result.step("mount proc")?`: names what was tried.
pub(crate) trait Step<T> {
    fn step(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, &error.into()))
    }
}
