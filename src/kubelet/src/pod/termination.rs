//! The last words of a container: from its termination log, or from the end of its log.
//!
//! Models pkg/kubelet/kuberuntime/kuberuntime_container.go getTerminationMessage, v1.37.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::logs;

const FILE_BYTES_MAX: u64 = 4096;
const LOG_LINES_MAX: usize = 80;
const LOG_BYTES_MAX: usize = 2048;
/// Of all containers of a pod together.
const POD_BYTES_MAX: usize = 12 * 1024;

/// The message, cut to what one of `containers` containers may have.
pub fn message(file: &Path, log: &Path, fallback_to_logs: bool, exit_code: i32, containers: usize) -> Option<String> {
    let mut text = read(file).unwrap_or_default();
    if text.is_empty() && fallback_to_logs && exit_code != 0 {
        text = logs::tail_text(log, LOG_LINES_MAX, LOG_BYTES_MAX).unwrap_or_default();
    }
    let limit = (POD_BYTES_MAX / containers.max(1)).min(FILE_BYTES_MAX as usize);
    while text.len() > limit {
        text.pop();
    }
    (!text.is_empty()).then_some(text)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    // As upstream's ReadAtMost: the end of what was written.
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(FILE_BYTES_MAX)))?;
    let mut data = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut data)?;
    Ok(String::from_utf8_lossy(&data).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_before_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, log) = (dir.path().join("t"), dir.path().join("0.log"));
        std::fs::write(&log, "2026-01-01T00:00:00Z stdout F hello\n2026-01-01T00:00:00Z stderr P wor\n2026-01-01T00:00:00Z stderr F ld\n").expect("a log");
        assert_eq!(message(&file, &log, true, 1, 1).as_deref(), Some("hello\nworld\n"));
        assert_eq!(message(&file, &log, true, 0, 1), None);
        assert_eq!(message(&file, &log, false, 1, 1), None);
        std::fs::write(&file, "x".repeat(5000)).expect("a file");
        assert_eq!(message(&file, &log, true, 1, 1).map(|m| m.len()), Some(4096));
        assert_eq!(message(&file, &log, true, 1, 6).map(|m| m.len()), Some(2048));
    }
}
