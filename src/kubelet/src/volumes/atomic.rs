//! Replaces a directory's files all at once, as seen by those who have it open.
//!
//! Models pkg/volume/util/atomic_writer.go, v1.37. Layout: the files lie in a timestamped directory; `..data` is a symbolic
//! link to it, renamed over the old one in a single step; every name that users see is a link into `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::ownership::{self, Owner};
use super::payload::{File, Payload};
use crate::time;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Brings `directory` in line with `payload`; returns whether anything changed.
pub fn write(directory: &Path, payload: &Payload, owner: Owner) -> io::Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    let data = directory.join(DATA);
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && same(&directory.join(old), payload)
    {
        // A crash may have come between the switch and the links.
        link_names(directory, payload)?;
        return Ok(false);
    }
    let name = format!("..{}.{}", jiff::fmt::strtime::format("%Y_%m_%d_%H_%M_%S", time::now()).map_err(io::Error::other)?, time::now().subsec_nanosecond());
    let fresh = directory.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    if let Err(error) = fill(&fresh, payload).and_then(|()| ownership::apply(&fresh, owner, true)) {
        let _ = fs::remove_dir_all(&fresh);
        return Err(error);
    }
    let next = directory.join(DATA_NEXT);
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    link_names(directory, payload)?;
    unlink_stale(directory, payload)?;
    if let Some(old) = old.filter(|o| o.as_os_str() != name.as_str()) {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(true)
}

/// A path below the volume: relative, without `..`, not beginning with what the layout reserves.
fn check(path: &str) -> io::Result<()> {
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    let plain = !parts.is_empty() && parts.iter().all(|p| matches!(p, Component::Normal(_)));
    if plain && !path.starts_with("..") && path.len() < 4096 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?} in a volume")))
}

fn fill(root: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let target = root.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        out.write_all(&file.data)?;
        // After open: the umask must not take bits away.
        out.set_permissions(fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

fn same(root: &Path, payload: &Payload) -> bool {
    let mut found = BTreeMap::new();
    collect(root, root, &mut found).is_ok()
        && found.len() == payload.len()
        && payload.iter().all(|(path, file)| {
            found.get(path).is_some_and(|full: &PathBuf| fs::read(full).is_ok_and(|data| data == file.data) && mode_fits(full, file))
        })
}

/// Ownership may have added group bits to what was asked for.
fn mode_fits(path: &Path, file: &File) -> bool {
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & file.mode & 0o777 == file.mode & 0o777)
}

fn collect(root: &Path, at: &Path, out: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(root, &path, out)?;
        } else {
            let relative = path.strip_prefix(root).map_err(io::Error::other)?.to_string_lossy().into_owned();
            out.insert(relative, path);
        }
    }
    Ok(())
}

fn first_part(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    let names: BTreeSet<&str> = payload.keys().map(|p| first_part(p)).collect();
    for name in names {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    Ok(())
}

fn unlink_stale(directory: &Path, payload: &Payload) -> io::Result<()> {
    let names: BTreeSet<&str> = payload.keys().map(|p| first_part(p)).collect();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !names.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(p, d)| ((*p).to_owned(), File { data: d.as_bytes().to_vec(), mode: 0o644 })).collect()
    }

    fn listing(directory: &Path) -> Vec<String> {
        let mut out: Vec<String> = fs::read_dir(directory).expect("a directory").map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        out.sort();
        out
    }

    #[test]
    fn files_change_together_and_stale_names_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path();
        assert!(write(at, &payload(&[("a", "1"), ("sub/b", "2")]), Owner::default()).expect("written"));
        assert_eq!(fs::read_to_string(at.join("sub/b")).expect("b"), "2");
        assert_eq!(fs::read_link(at.join("a")).expect("a link"), Path::new("..data/a"));
        let first = fs::read_link(at.join(DATA)).expect("data");
        assert!(!write(at, &payload(&[("a", "1"), ("sub/b", "2")]), Owner::default()).expect("unchanged"));
        assert_eq!(fs::read_link(at.join(DATA)).expect("data"), first);
        assert!(write(at, &payload(&[("a", "3"), ("c", "4")]), Owner::default()).expect("changed"));
        assert_eq!(fs::read_to_string(at.join("a")).expect("a"), "3");
        let names = listing(at);
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(!names.contains(&"sub".to_owned()));
        assert!(!at.join(first).exists());
        assert!(write(at, &payload(&[]), Owner::default()).expect("emptied"));
    }

    #[test]
    fn paths_that_would_leave_the_volume_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["../x", "/x", "a/../../x", "..x", "", "."] {
            assert!(write(dir.path(), &payload(&[(path, "")]), Owner::default()).is_err(), "{path}");
        }
        assert!(listing(dir.path()).is_empty());
    }

    #[test]
    fn a_symbolic_link_in_a_name_is_never_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let other = tempfile::tempdir().expect("a directory");
        symlink(other.path(), dir.path().join("evil")).expect("a link");
        write(dir.path(), &payload(&[("evil/x", "1")]), Owner::default()).expect("written");
        assert!(listing(other.path()).is_empty());
    }
}
