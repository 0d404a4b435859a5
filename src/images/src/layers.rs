//! Unpacked layers, one folder each under `layers/`, named by the digest of the uncompressed stream.
//!
//! A folder appears by rename when it is whole and on disk, so its existence is the proof of its content.
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};

use crate::unpack::Report;
use crate::{Digest, PullError, StoreError, unpack};

/// Where layers lie and which program unpacks them.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    directory: PathBuf,
    unpacker: PathBuf,
}

impl Layers {
    pub fn new(directory: PathBuf, unpacker: PathBuf) -> Self {
        Self { directory, unpacker }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn has(&self, diff_id: &Digest) -> bool {
        self.path(diff_id.hex()).is_dir()
    }

    /// Unpacks the layer in `blob` (whose own digest was checked) and verifies that it is `diff_id`.
    pub fn unpack(&self, blob: File, diff_id: &Digest) -> Result<(), PullError> {
        if self.has(diff_id) {
            return Ok(());
        }
        let partial = self.directory.join(format!(".partial-{}-{}", std::process::id(), &diff_id.hex()[..32]));
        remove_tree(&partial)?;
        fs::create_dir(&partial).map_err(StoreError::io("create", &partial))?;
        let result = self.unpack_into(blob, diff_id, &partial).and_then(|()| {
            let target = self.path(diff_id.hex());
            match fs::rename(&partial, &target) {
                Err(_) if target.is_dir() => Ok(()), // another process was first
                other => Ok(other.map_err(StoreError::io("rename", &partial))?),
            }
        });
        if partial.exists() {
            remove_tree(&partial)?;
        }
        result
    }

    fn unpack_into(&self, blob: File, diff_id: &Digest, partial: &Path) -> Result<(), PullError> {
        let corrupt = |detail: String| PullError::Layer { digest: diff_id.clone(), detail };
        let output = Command::new(&self.unpacker)
            .arg0(unpack::ARGV0)
            .current_dir(partial)
            .env_clear()
            .stdin(Stdio::from(blob))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .map_err(StoreError::io("start unpacker", &self.unpacker))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let detail = text.lines().last().map_or_else(|| output.status.to_string(), |l| l.chars().take(300).collect());
            return Err(corrupt(detail));
        }
        let report: Report = serde_json::from_slice(&output.stdout).map_err(|e| corrupt(e.to_string()))?;
        if report.diff_id != *diff_id {
            return Err(PullError::Digest { expected: diff_id.clone(), got: report.diff_id });
        }
        let root = rustix::fs::open(partial, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH, Mode::empty()).map_err(|e| StoreError::io("open", partial)(e.into()))?;
        for path in &report.opaque {
            let name = if path.as_os_str().is_empty() { Path::new(".") } else { path.as_path() };
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let directory = rustix::fs::openat2(&root, name, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
            let marked = directory.and_then(|d| rustix::fs::fsetxattr(&d, "trusted.overlay.opaque", b"y", XattrFlags::empty()));
            marked.map_err(|e| StoreError::io("mark opaque", partial.join(path))(e.into()))?;
        }
        // The rename must not become durable before the files are.
        let synced = rustix::fs::open(partial, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).and_then(rustix::fs::syncfs);
        Ok(synced.map_err(|e| StoreError::io("sync", partial)(e.into()))?)
    }

    /// Removes every layer that `keep` does not name, and what an interrupted run left.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.directory).map_err(StoreError::io("read", &self.directory))?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let own_partial = name.strip_prefix(".partial-").and_then(|r| r.split('-').next()?.parse::<u32>().ok());
            let stale = match own_partial {
                Some(pid) => !Path::new(&format!("/proc/{pid}")).exists(),
                None => !keep(&name),
            };
            if stale {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// `rm -rf`, content with nothing there. Never follows a link.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
