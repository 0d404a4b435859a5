//! Names of all that lies in the state and run directories.
//!
//! ```text
//! <state>/<sandbox>/plan              SandboxPlan
//! <state>/<sandbox>/shim              pid and start time of the shim
//! <state>/<sandbox>/ready             its making was finished; without it the sandbox is torn down
//! <state>/<sandbox>/stopped           stop_sandbox was called
//! <state>/<sandbox>/c/<container>/plan    ContainerPlan
//! <state>/<sandbox>/c/<container>/exit    ExitRecord
//! <run>/<sandbox>/s                   control socket (0700 directory)
//! <run>/<sandbox>/netns               the network namespace, bound
//! <run>/<sandbox>/shm                 the shared tmpfs, mounted
//! <run>/<sandbox>/root                where a container's root is attached for a moment, in its own mount namespace
//! <run>/<sandbox>/stderr              the shim's last words
//! ```

use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub(crate) struct SandboxPaths {
    pub state: PathBuf,
    pub run: PathBuf,
}

impl SandboxPaths {
    pub(crate) fn new(state_dir: &Path, run_dir: &Path, id: &str) -> SandboxPaths {
        SandboxPaths { state: state_dir.join(id), run: run_dir.join(id) }
    }

    pub(crate) fn plan(&self) -> PathBuf {
        self.state.join("plan")
    }
    pub(crate) fn shim(&self) -> PathBuf {
        self.state.join("shim")
    }
    pub(crate) fn ready(&self) -> PathBuf {
        self.state.join("ready")
    }
    pub(crate) fn stopped(&self) -> PathBuf {
        self.state.join("stopped")
    }
    pub(crate) fn containers(&self) -> PathBuf {
        self.state.join("c")
    }
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.state.join("c").join(id)
    }
    pub(crate) fn container_plan(&self, id: &str) -> PathBuf {
        self.container(id).join("plan")
    }
    pub(crate) fn exit(&self, id: &str) -> PathBuf {
        self.container(id).join("exit")
    }
    pub(crate) fn netns(&self) -> PathBuf {
        self.run.join("netns")
    }
    pub(crate) fn shm(&self) -> PathBuf {
        self.run.join("shm")
    }
    pub(crate) fn root(&self) -> PathBuf {
        self.run.join("root")
    }
    pub(crate) fn stderr(&self) -> PathBuf {
        self.run.join("stderr")
    }
}

/// The control socket's name inside the run directory. Short, and used relative to a descriptor of that directory,
/// because a socket's address holds 108 bytes only.
pub(crate) const SOCKET: &str = "s";

/// A plan's or record's content, atomically: the file is there whole or not at all. `durable` waits for the disk.
pub(crate) fn write_record(path: &Path, content: &[u8], durable: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)?;
    file.write_all(content)?;
    if durable {
        file.sync_data()?;
    }
    std::fs::rename(&temporary, path)
}
