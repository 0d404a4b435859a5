//! The confined child that turns one layer (a tar stream) into a folder for overlayfs.
//!
//! It is started with the compressed layer on standard input and the empty target folder as working directory, locks
//! itself into that folder (chroot), gives up every capability but those that file ownership and device nodes need, and
//! only then reads the first byte. So a link that points out of the layer, an absolute path or `..` lead nowhere, and a
//! fault in a decompressor cannot reach the host. What it cannot do itself (the opaque mark needs CAP_SYS_ADMIN) it
//! reports to its parent. Whiteouts: OCI image specification, "layer.md"; overlayfs wants a character device 0:0 for
//! a deleted name and `trusted.overlay.opaque=y` on a folder that hides what lies below.
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};
use tar::EntryType;

use crate::digest::HashingReader;
use crate::Digest;

/// The name under which the `rk` binary plays this role.
pub const ARGV0: &str = "rk-unpack";
/// Bounds of one layer: bytes when unpacked, entries, length of a path.
const LAYER_SIZE_MAX: u64 = 64 << 30;
const ENTRIES_MAX: u64 = 2_000_000;
const PATH_MAX: usize = 4096;

/// What the child tells its parent on standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Digest of the uncompressed stream, to be compared with the image's `diff_ids`.
    pub diff_id: Digest,
    pub size_bytes: u64,
    /// Folders to be marked opaque.
    pub opaque: Vec<PathBuf>,
}

/// Entry point of the child process: confines itself, unpacks, reports. Exit code 1 and one line on standard error on
/// failure.
pub fn main() -> ExitCode {
    match confine().map_err(|e| format!("confine: {e}")).and_then(|()| unpack(io::stdin().lock()).map_err(|e| e.to_string())) {
        Ok(report) => {
            let text = serde_json::to_vec(&report).expect("a report is plain data");
            if io::stdout().write_all(&text).is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn confine() -> io::Result<()> {
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::empty());
    let keep = CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::FSETID | CapabilitySet::MKNOD | CapabilitySet::SETFCAP;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() })?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Unpacks the stream into the current root.
fn unpack(input: impl Read) -> io::Result<Report> {
    let mut input = BufReader::with_capacity(1 << 17, input);
    let plain = decompress(&mut input)?;
    let mut hashing = HashingReader::new(plain, LAYER_SIZE_MAX);
    let mut layer = Layer::default();
    {
        let mut archive = tar::Archive::new(&mut hashing);
        let mut entries = 0;
        for entry in archive.entries()? {
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(io::Error::other(format!("more than {ENTRIES_MAX} entries")));
            }
            layer.entry(entry?)?;
        }
    }
    layer.finish_directories()?;
    let (diff_id, size_bytes) = hashing.finish()?;
    Ok(Report { diff_id, size_bytes, opaque: layer.opaque })
}

/// The kind of compression is told by content: media types lie, magic numbers do not.
fn decompress<'a, R: Read + 'a>(input: &'a mut BufReader<R>) -> io::Result<Box<dyn Read + 'a>> {
    use std::io::BufRead;
    let head = input.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(input)?));
    }
    Ok(Box::new(input))
}

#[derive(Default)]
struct Layer {
    opaque: Vec<PathBuf>,
    /// Times of folders, set last because filling a folder changes them.
    directories: HashMap<PathBuf, u64>,
}

impl Layer {
    fn entry<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> io::Result<()> {
        let raw = entry.path_bytes().into_owned();
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", String::from_utf8_lossy(&raw).chars().take(200).collect::<String>()));
        let path = clean(&raw).map_err(named)?;
        self.make(&path, &mut entry).map_err(named)
    }

    fn make<R: Read>(&mut self, path: &Path, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let header = entry.header();
        let kind = header.entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            make_parents(parent)?;
        }
        if let Some(name) = path.file_name().map(OsStr::as_bytes) {
            if name == b".wh..wh..opq" {
                self.opaque.push(path.parent().unwrap_or(Path::new("")).to_owned());
                return Ok(());
            }
            if let Some(hidden) = name.strip_prefix(b".wh.") {
                if hidden.is_empty() || hidden == b"." || hidden == b".." {
                    return Err(io::Error::other("malformed whiteout"));
                }
                let target = path.with_file_name(OsStr::from_bytes(hidden));
                remove_existing(&target, false)?;
                rfs::mknodat(CWD, &target, FileType::CharacterDevice, Mode::empty(), 0)?;
                return Ok(());
            }
        }
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let (uid, gid) = (id(header.uid()?)?, id(header.gid()?)?);
        let mtime = header.mtime().unwrap_or(0);
        if path.as_os_str().is_empty() {
            if kind.is_dir() {
                set_metadata(Path::new("."), mode, uid, gid)?;
                self.directories.insert(PathBuf::from("."), mtime);
            }
            return Ok(());
        }
        remove_existing(path, kind.is_dir())?;
        match kind {
            EntryType::Directory => {
                match rfs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                self.directories.insert(path.to_owned(), mtime);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rfs::openat(CWD, path, flags, Mode::from_raw_mode(0o600))?;
                io::copy(entry, &mut std::fs::File::from(file))?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("hard link without target"))?;
                let target = clean(&target)?;
                rfs::linkat(CWD, &target, CWD, path, AtFlags::empty())?;
                return Ok(()); // owner, mode and times are the target's
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("symbolic link without target"))?;
                if target.len() > PATH_MAX {
                    return Err(io::Error::other("symbolic link too long"));
                }
                rfs::symlinkat(target.as_ref(), CWD, path)?;
                rfs::chownat(CWD, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
                return set_times(path, mtime);
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let file_type = match kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rfs::makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
                rfs::mknodat(CWD, path, file_type, Mode::from_raw_mode(0o600), if kind == EntryType::Fifo { 0 } else { device })?;
            }
            other => return Err(io::Error::other(format!("entry of unknown type {:?}", other.as_byte() as char))),
        }
        set_metadata(path, mode, uid, gid)?;
        set_attributes(path, entry)?;
        if kind.is_dir() { Ok(()) } else { set_times(path, mtime) }
    }

    fn finish_directories(&self) -> io::Result<()> {
        for (path, mtime) in &self.directories {
            match set_times(path, *mtime) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {} // replaced by a later entry
                other => other?,
            }
        }
        Ok(())
    }
}

/// The path below the root: no leading slash, no `.`; `..` is refused.
fn clean(raw: &[u8]) -> io::Result<PathBuf> {
    if raw.len() > PATH_MAX || raw.contains(&0) {
        return Err(io::Error::other("malformed path"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(io::Error::other("path leads out of the layer")),
        }
    }
    Ok(path)
}

fn id(id: u64) -> io::Result<u32> {
    u32::try_from(id).ok().filter(|id| *id < 1 << 31).ok_or_else(|| io::Error::other(format!("owner {id} is out of range")))
}

fn make_parents(parent: &Path) -> io::Result<()> {
    let mut path = PathBuf::new();
    for component in parent.components() {
        path.push(component);
        match rfs::mkdirat(CWD, &path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Makes room for an entry: whatever stands there goes, but a folder stays for a folder.
fn remove_existing(path: &Path, for_directory: bool) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() && for_directory => Ok(()),
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn set_metadata(path: &Path, mode: Mode, uid: u32, gid: u32) -> io::Result<()> {
    // The owner first: chown clears set-user-id.
    rfs::chownat(CWD, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    rfs::chmodat(CWD, path, mode, AtFlags::empty())?;
    Ok(())
}

fn set_times(path: &Path, mtime: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    rfs::utimensat(CWD, path, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Extended attributes of PAX headers: file capabilities and the user's own. Others (trusted, overlay's, SELinux') are
/// the host's business and are passed over, as containerd's differ does without privilege.
fn set_attributes<R: Read>(path: &Path, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    let mut wanted = Vec::new();
    for extension in extensions {
        let extension = extension?;
        if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
            if name == b"security.capability" || name.starts_with(b"user.") {
                wanted.push((name.to_vec(), extension.value_bytes().to_vec()));
            }
        }
    }
    for (name, value) in wanted {
        match rfs::lsetxattr(path, OsStr::from_bytes(&name), &value, XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
