//! Container logs in the CRI format: `<RFC 3339 with nanoseconds> <stdout|stderr> <F|P> <text>`.
//!
//! Models containerd's internal/cri/io/logger.go: a line longer than 16 KiB is written in parts marked P, the last of them
//! F; text without a newline at the end of the stream stays a P.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Longest text of one entry.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

pub(super) struct Log {
    path: Option<PathBuf>,
    file: Option<OwnedFd>,
}

impl Log {
    pub(super) fn open(path: Option<PathBuf>) -> io::Result<Log> {
        let mut log = Log { path, file: None };
        log.reopen()?;
        Ok(log)
    }

    /// The file of that name, which rotation may have moved away. On an error the old one stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = Some(open_file(path)?);
        }
        Ok(())
    }

    /// What cannot be written is lost (a full disk must not stop the container).
    pub(super) fn write(&self, mut entries: &[u8]) {
        let Some(file) = &self.file else { return };
        while !entries.is_empty() {
            match rustix::io::write(file, entries) {
                Ok(count) => entries = &entries[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// The directory by descriptor, the file in it not through a link: nothing in an image or volume may choose what is
/// appended to.
fn open_file(path: &Path) -> io::Result<OwnedFd> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    // A FIFO there would hang a blocking open.
    let file = rustix::fs::openat(&directory, name, flags | OFlags::NONBLOCK, Mode::from_raw_mode(0o640))?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if !kind.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(file)
}

/// Cuts a stream into entries.
#[derive(Default)]
pub(super) struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Appends the entries that `data` completes to `out`.
    pub(super) fn feed(&mut self, stream: &str, nanos: u64, mut data: &[u8], out: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        let stamp = timestamp(nanos);
        while !data.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            let window = &data[..data.len().min(room + 1)];
            if let Some(newline) = window.iter().position(|byte| *byte == b'\n') {
                entry(&stamp, stream, b'F', &[&self.partial, &data[..newline]], out);
                self.partial.clear();
                data = &data[newline + 1..];
            } else if data.len() > room {
                entry(&stamp, stream, b'P', &[&self.partial, &data[..room]], out);
                self.partial.clear();
                data = &data[room..];
            } else {
                self.partial.extend_from_slice(data);
                return;
            }
        }
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, stream: &str, nanos: u64, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            entry(&timestamp(nanos), stream, b'P', &[&self.partial], out);
        }
        self.partial = Vec::new();
    }
}

fn entry(stamp: &[u8; 30], stream: &str, tag: u8, text: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(stamp);
    out.push(b' ');
    out.extend_from_slice(stream.as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ']);
    for part in text {
        out.extend_from_slice(part);
    }
    out.push(b'\n');
}

/// `2026-11-23T01:02:03.000000004Z`
fn timestamp(nanos: u64) -> [u8; 30] {
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut out = *b"0000-00-00T00:00:00.000000000Z";
    let mut put = |at: usize, digits: usize, mut value: u64| {
        for position in (at..at + digits).rev() {
            out[position] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3600);
    put(14, 2, of_day / 60 % 60);
    put(17, 2, of_day % 60);
    put(20, 9, fraction);
    out
}

/// Year, month and day of a day counted from 1970 (Howard Hinnant's `civil_from_days`, for dates after 1970).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]], finish: bool) -> Vec<String> {
        let (mut splitter, mut out) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.feed("stdout", 0, chunk, &mut out);
        }
        if finish {
            splitter.finish("stdout", 0, &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| line.strip_prefix("1970-01-01T00:00:00.000000000Z stdout ").unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(lines(&[b"one\ntw", b"o\n\nthree"], true), ["F one", "F two", "F ", "P three"]);
        assert!(lines(&[b"no newline yet"], false).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_at_sixteen_kibibytes() {
        let long = vec![b'x'; LINE_BYTES_MAX + 3];
        let got = lines(&[&long, b"\n"], true);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].len(), 2 + LINE_BYTES_MAX);
        assert_eq!((&got[0][..1], got[1].as_str()), ("P", "F xxx"));
        let exact = [vec![b'y'; LINE_BYTES_MAX], b"\n".to_vec()].concat();
        assert_eq!(lines(&[&exact], true).len(), 1, "exactly the limit is one full line");
    }

    #[test]
    fn dates_are_right_over_leap_years() {
        for (seconds, expected) in [
            (0u64, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_795_395_599, "2026-11-23T00:59:59.000000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000000Z"),
        ] {
            assert_eq!(std::str::from_utf8(&timestamp(seconds * 1_000_000_000)).unwrap(), expected);
        }
    }
}
