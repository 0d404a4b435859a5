//! Log rotation: a file that has grown too large is renamed, the shim opens a new one, the oldest go.
//!
//! Models pkg/kubelet/logs/container_log_manager.go, v1.37. Left out: compression of rotated files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::time;

/// The rotated files of `log`, the oldest first.
pub fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(parent), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else { return Vec::new() };
    let prefix = format!("{name}.");
    let mut out: Vec<PathBuf> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)))
        .map(|e| e.path())
        .collect();
    out.sort();
    out
}

/// Renames `log` when it is larger than allowed; the caller then has the shim open it anew. Keeps `max_files` in all.
pub fn rotate(log: &Path, max_bytes: u64, max_files: u32) -> io::Result<bool> {
    let size = match fs::metadata(log) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if size < max_bytes {
        return Ok(false);
    }
    let old = rotated(log);
    let keep = (max_files.max(2) - 2) as usize;
    for path in old.iter().take(old.len().saturating_sub(keep)) {
        fs::remove_file(path)?;
    }
    let stamp = jiff::fmt::strtime::format("%Y%m%d-%H%M%S", time::now()).map_err(io::Error::other)?;
    let mut target = log.as_os_str().to_owned();
    target.push(format!(".{stamp}.{:09}", time::now().subsec_nanosecond()));
    fs::rename(log, target)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_files_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("0.log");
        for round in 0..8 {
            fs::write(&log, format!("{round}{}", "x".repeat(100))).expect("a log");
            assert!(!rotate(&log, 1000, 3).expect("small"));
            assert!(rotate(&log, 50, 3).expect("rotated"));
        }
        let kept = rotated(&log);
        assert_eq!(kept.len(), 2);
        assert!(fs::read_to_string(&kept[1]).expect("a log").starts_with('7'));
        assert!(!rotate(&log, 50, 3).expect("nothing there"));
    }
}
