//! Sandboxes and containers: namespaces, cgroups, seccomp, mounts, consoles, logs, exec.
//!
//! [`Runtime`] is the asynchronous side that rk holds. It compiles a [`ContainerSpec`] to a flat plan on disk and gives
//! orders to one shim per sandbox; the shim ([`shim::main`]) is a process of its own, single-threaded, which outlives rk,
//! is the parent of every container and alone starts processes in them.
//!
//! Invariants: nothing is cloned from a threaded process; a path inside a root filesystem or volume is used through a
//! descriptor, never by name; an exec runs with the plan its container was started with; all that a sandbox makes on the
//! host is gone after `remove_sandbox`. No Kubernetes type is known here.
//!
//! Without the feature `daemon` the crate is what the shim needs: no tokio, no tracing, no JSON.

// The shim uses less of the parts that both sides share.
#![cfg_attr(not(feature = "daemon"), allow(dead_code))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("rk runs on 64-bit Linux only");

mod capability;
mod cgroup;
#[cfg(feature = "daemon")]
pub mod heap;
mod paths;
mod plan;
mod protocol;
#[cfg(feature = "daemon")]
mod seccomp;
pub mod shim;
mod spec;
mod start;
mod sys;
mod wire;

#[cfg(feature = "daemon")]
mod daemon;

pub use spec::{
    BpfInstruction, Capabilities, ContainerSpec, ContainerState, ContainerStatus, Event, ExecSpec, Exit, Mount,
    MountKind, Propagation, Resources, Rlimit, Rootfs, SandboxSpec, SandboxState, SandboxStatus, Seccomp, Signal,
    Started, Stats, TerminalSize, User,
};

#[cfg(feature = "daemon")]
pub use daemon::{
    AttachSession, Config, Error, ExecOutput, ExecProcess, ExecSession, Runtime, SandboxHandle, ShimProgram, StartError,
    Stream,
};
