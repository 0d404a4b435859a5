//! The asynchronous side: what rk calls.

mod error;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub use error::{Error, StartError};
pub use session::{AttachSession, ExecOutput, ExecProcess, ExecSession, Stream};

use crate::spec::*;

/// Where the runtime keeps its things.
#[derive(Debug, Clone)]
pub struct Config {
    /// Plans and exit records; survives a reboot.
    pub state_dir: PathBuf,
    /// Sockets, pinned namespaces, shared memory; must not survive one. Made 0700.
    pub run_dir: PathBuf,
    pub shim: ShimProgram,
    /// Name of our cgroup below the root of each hierarchy: `rk`.
    pub cgroup_root: String,
}

/// The program that shims run.
#[derive(Debug, Clone)]
pub enum ShimProgram {
    /// An ELF image, written once into a sealed memfd that all shims share.
    Image(&'static [u8]),
    /// The running program, started with `rk-shim` as its argv[0]; its `main` must call `runtime::shim::main` then.
    SelfExe,
    /// A file, for tests.
    Path(PathBuf),
}

/// Cheap to clone; all clones are the same runtime.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<()>,
}

#[derive(Debug, Clone)]
pub struct SandboxHandle {
    pub id: String,
    /// Pinned; stays until `stop_sandbox`. `None` with the host's network.
    pub netns_path: Option<PathBuf>,
}

#[allow(clippy::unused_async, unused_variables, missing_docs)]
impl Runtime {
    /// Takes over what runs, tears down what was half made, kills what lost its shim. Needs a tokio runtime.
    pub async fn open(config: Config) -> Result<Runtime, Error> { Err(Error::pending()) }
    /// Everything that happened, the exits and losses before `open` included. One receiver at a time: a second call ends the first.
    pub fn events(&self) -> mpsc::UnboundedReceiver<Event> { mpsc::unbounded_channel().1 }
    pub async fn list(&self) -> Vec<SandboxStatus> { Vec::new() }
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<SandboxHandle, Error> { Err(Error::pending()) }
    /// Started means: its program has been executed. Errors speak as other runtimes do.
    pub async fn start_container(&self, sandbox_id: &str, spec: ContainerSpec) -> Result<Started, Error> { Err(Error::pending()) }
    /// To the first process of the container.
    pub async fn signal(&self, container_id: &str, signal: Signal) -> Result<(), Error> { Err(Error::pending()) }
    /// SIGKILL to everything in the container.
    pub async fn kill(&self, container_id: &str) -> Result<(), Error> { Err(Error::pending()) }
    /// Resolves when it has exited (at once if it had).
    pub async fn wait(&self, container_id: &str) -> Result<Exit, Error> { Err(Error::pending()) }
    /// Kills it if it runs, and forgets it. Unknown ids are fine.
    pub async fn remove_container(&self, container_id: &str) -> Result<(), Error> { Err(Error::pending()) }
    /// Kills all, takes namespaces, mounts and cgroups away; records stay. Idempotent.
    pub async fn stop_sandbox(&self, sandbox_id: &str) -> Result<(), Error> { Err(Error::pending()) }
    /// Stops it if it runs, and forgets it. Unknown ids are fine.
    pub async fn remove_sandbox(&self, sandbox_id: &str) -> Result<(), Error> { Err(Error::pending()) }
    pub async fn exec(&self, container_id: &str, spec: ExecSpec) -> Result<ExecSession, Error> { Err(Error::pending()) }
    /// Runs to its end or is killed at `timeout` (`Error::Timeout`). Of each stream at most `limit_bytes` are kept; the rest is read and dropped.
    pub async fn exec_sync(&self, container_id: &str, argv: Vec<String>, timeout: Option<Duration>, limit_bytes: usize) -> Result<ExecOutput, Error> { Err(Error::pending()) }
    pub async fn attach(&self, container_id: &str) -> Result<AttachSession, Error> { Err(Error::pending()) }
    /// A connection to the pod's loopback address, 127.0.0.1 then ::1.
    pub async fn dial(&self, sandbox_id: &str, port: u16) -> Result<tokio::net::TcpStream, Error> { Err(Error::pending()) }
    /// After the log file was renamed: closes the old one, opens `log_path` anew.
    pub async fn reopen_log(&self, container_id: &str) -> Result<(), Error> { Err(Error::pending()) }
    pub async fn stats(&self, container_id: &str) -> Result<Stats, Error> { Err(Error::pending()) }
    /// Of the whole pod.
    pub async fn sandbox_stats(&self, sandbox_id: &str) -> Result<Stats, Error> { Err(Error::pending()) }
    pub async fn update_resources(&self, container_id: &str, resources: &Resources) -> Result<(), Error> { Err(Error::pending()) }
    pub async fn update_sandbox_resources(&self, sandbox_id: &str, resources: &Resources) -> Result<(), Error> { Err(Error::pending()) }
    /// Makes or changes a cgroup above pods, e.g. `kubepods/burstable`.
    pub async fn set_cgroup(&self, path: &str, resources: &Resources) -> Result<(), Error> { Err(Error::pending()) }
    /// Uninstall: every sandbox, every cgroup below our root, every directory. All steps are tried; all errors come back.
    pub async fn teardown_all(&self) -> Result<(), Vec<Error>> { Err(vec![Error::pending()]) }
}
