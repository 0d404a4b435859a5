//! The log file: one event a line, a new file when one is full, old ones removed by number and age.
//!
//! Models upstream's use of gopkg.in/natefinch/lumberjack: `audit.log` becomes `audit-2026-01-02T03-04-05.678.log`.
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;

const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// When a file is full, and which old ones are kept; 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    pub size_bytes_max: u64,
    pub backups_max: usize,
    pub age_max: Duration,
}

pub struct Log {
    path: PathBuf,
    rotation: Rotation,
    open: Mutex<Open>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl Log {
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Self { path: path.to_owned(), rotation, open: Mutex::new(open(path)?) })
    }

    /// Adds a line, in one write: lines of several requests never mix.
    pub fn write(&self, line: &[u8], now: Timestamp) -> io::Result<()> {
        let mut open = self.open.lock().expect("no panic under the lock");
        let limit = self.rotation.size_bytes_max;
        if limit > 0 && open.bytes > 0 && open.bytes + line.len() as u64 > limit {
            std::fs::rename(&self.path, self.backup(now))?;
            *open = self::open(&self.path)?;
            self.remove_old(now);
        }
        open.file.write_all(line)?;
        open.bytes += line.len() as u64;
        Ok(())
    }

    fn stem_and_extension(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let extension = text(self.path.extension());
        (text(self.path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
    }

    fn backup(&self, now: Timestamp) -> PathBuf {
        let (stem, extension) = self.stem_and_extension();
        self.path.with_file_name(format!("{stem}-{}{extension}", now.strftime(STAMP)))
    }

    /// Only files whose name says that they were made here.
    fn remove_old(&self, now: Timestamp) {
        let (stem, extension) = self.stem_and_extension();
        let Some(entries) = self.path.parent().and_then(|folder| std::fs::read_dir(folder).ok()) else { return };
        let made_at = |name: &str| {
            let stamp = name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
            jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", stamp).ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp())
        };
        let mut backups: Vec<(Timestamp, PathBuf)> =
            entries.flatten().filter_map(|entry| Some((made_at(&entry.file_name().to_string_lossy())?, entry.path()))).collect();
        backups.sort_by(|a, b| b.cmp(a));
        let Rotation { backups_max, age_max, .. } = self.rotation;
        for (i, (at, path)) in backups.into_iter().enumerate() {
            let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
            let is_old = (backups_max > 0 && i >= backups_max) || (!age_max.is_zero() && age > age_max);
            if is_old && let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an old audit log cannot be removed");
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Open> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_turned_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/audit.log");
        let rotation = Rotation { size_bytes_max: 20, backups_max: 2, age_max: Duration::from_secs(3600) };
        let log = Log::open(&path, rotation).unwrap();
        std::fs::write(path.with_file_name("audit-other.log"), "").unwrap();
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        let names = || {
            let mut names: Vec<String> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        for second in 0..4 {
            log.write(b"fifteen bytes.\n", at(second)).unwrap();
        }
        assert_eq!(names(), ["audit-2023-11-14T22-13-22.000.log", "audit-2023-11-14T22-13-23.000.log", "audit-other.log", "audit.log"]);
        log.write(b"fifteen bytes.\n", at(9000)).unwrap();
        assert_eq!(names(), ["audit-2023-11-15T00-43-20.000.log", "audit-other.log", "audit.log"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"fifteen bytes.\n");
    }
}
