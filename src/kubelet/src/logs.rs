//! Containers' log files: where they are, how they are read and followed, and when they are rotated.
//!
//! Models pkg/kubelet/kuberuntime/logs/logs.go and pkg/kubelet/logs/container_log_manager.go, v1.37. A line is
//! `<RFC3339Nano> stdout|stderr F|P <text>`; `P` is a part of a line that goes on in the next one.

pub mod follow;
pub mod growth;
pub mod rotate;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

const BLOCK: u64 = 16 * 1024;

/// One parsed line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub at: &'a [u8],
    pub stderr: bool,
    pub partial: bool,
    pub text: &'a [u8],
}

/// `line` without its newline; `None` when it is not a CRI line.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let at = parts.next()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = parts.next()?.first() == Some(&b'P');
    Some(Line { at, stderr, partial, text: parts.next().unwrap_or_default() })
}

impl Line<'_> {
    pub fn time(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.at).ok()?.parse().ok()
    }
}

/// Where the last `lines` lines begin.
pub fn tail_offset(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut block = vec![0; BLOCK as usize];
    let (mut at, mut found) = (end, 0);
    while at > 0 {
        let from = at.saturating_sub(BLOCK);
        let part = &mut block[..(at - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(part)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let position = from + index as u64 + 1;
            // The newline that ends the file begins no line.
            if position == end {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(position);
            }
        }
        at = from;
    }
    Ok(0)
}

/// The text of the last lines, cut to `bytes`.
pub fn tail_text(path: &Path, lines: usize, bytes: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let offset = tail_offset(&mut file, lines)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut data = Vec::new();
    file.take(1 << 20).read_to_end(&mut data)?;
    let mut out = Vec::new();
    for line in data.split(|b| *b == b'\n').filter_map(parse) {
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
    }
    let from = out.len().saturating_sub(bytes);
    Ok(String::from_utf8_lossy(&out[from..]).into_owned())
}

/// `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`, which log collectors read.
fn link_path(log_dir: &Path, pod: &Pod, container: &str, id: &str) -> PathBuf {
    let meta = &pod.metadata;
    let name = format!("{}_{}_{container}", meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
    // A file name has at most 255 bytes (upstream: legacyLogSymlink).
    let name: String = name.chars().take(250usize.saturating_sub(id.len() + 5)).collect();
    log_dir.join("containers").join(format!("{name}-{id}.log"))
}

pub fn link(log_dir: &Path, pod: &Pod, container: &str, id: &str, log: &Path) -> io::Result<()> {
    let link = link_path(log_dir, pod, container, id);
    fs::create_dir_all(log_dir.join("containers"))?;
    match symlink(log, &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub fn unlink(log_dir: &Path, pod: &Pod, container: &str, id: &str) {
    let _ = fs::remove_file(link_path(log_dir, pod, container, id));
}

/// The log of an ended instance, its rotated predecessors and its link.
pub fn remove(log_dir: &Path, pod: &Pod, container: &str, id: &str, log: &Path) {
    unlink(log_dir, pod, container, id);
    for old in rotate::rotated(log) {
        let _ = fs::remove_file(old);
    }
    let _ = fs::remove_file(log);
}

/// Links whose log is gone.
pub fn remove_dangling_links(log_dir: &Path) {
    for entry in fs::read_dir(log_dir.join("containers")).into_iter().flatten().flatten() {
        let path = entry.path();
        if fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_symlink()) && fs::metadata(&path).is_err() {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_parse_and_what_is_no_line_is_refused() {
        let line = parse(b"2026-01-01T00:00:00.5Z stderr P a b").expect("a line");
        assert_eq!((line.stderr, line.partial, line.text), (true, true, b"a b".as_slice()));
        assert!(line.time().is_some());
        assert_eq!(parse(b"2026-01-01T00:00:00Z stdout F ").map(|l| l.text.len()), Some(0));
        for bad in [b"".as_slice(), b"x", b"t other F x", b"t stdout"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn a_tail_begins_at_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, &text).expect("a log");
        let mut file = File::open(&path).expect("a log");
        for (lines, expected) in [(1, "line 4999\n"), (2, "line 4998\nline 4999\n"), (0, "")] {
            let at = tail_offset(&mut file, lines).expect("an offset") as usize;
            assert_eq!(&text[at..], expected);
        }
        assert_eq!(tail_offset(&mut file, 5000).expect("an offset"), 0);
        assert_eq!(tail_offset(&mut file, 50_000).expect("an offset"), 0);
        let at = tail_offset(&mut file, 3000).expect("an offset") as usize;
        assert!(text[at..].starts_with("line 2000\n"));
    }
}
