//! Streams a container's log to a client, on request until the container ends; woken by inotify, never by a timer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{parse, tail_offset};

/// A line longer than this is not one that our shim wrote.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Sent at once.
const CHUNK: usize = 32 * 1024;
/// Read before the loop looks at anything else.
const READ_MAX: usize = 256 * 1024;

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub follow: bool,
    pub tail: Option<usize>,
    pub limit_bytes: Option<u64>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    /// Only this stream.
    pub stderr: Option<bool>,
}

/// Turns log lines into what the client gets. Pure.
#[derive(Debug)]
pub struct Printer {
    options: Options,
    left: Option<u64>,
    /// Inside a line that comes in parts.
    within: bool,
    since_reached: bool,
}

impl Printer {
    pub fn new(options: Options) -> Self {
        Self { left: options.limit_bytes, since_reached: options.since.is_none(), options, within: false }
    }

    pub fn exhausted(&self) -> bool {
        self.left == Some(0)
    }

    /// Appends what `line` (without newline) prints as.
    pub fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(line) else { return };
        if self.options.stderr.is_some_and(|wanted| wanted != line.stderr) {
            return;
        }
        if !self.since_reached {
            if line.time().zip(self.options.since).is_some_and(|(at, since)| at < since) {
                return;
            }
            self.since_reached = true;
        }
        let from = out.len();
        if self.options.timestamps && !self.within {
            out.extend_from_slice(line.at);
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.within = line.partial;
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            out.truncate(from.saturating_add(allowed));
            *left -= (out.len() - from) as u64;
        }
    }
}

/// Sends the log until its end, or until `ended` and then its end. A closed receiver ends it too.
pub async fn stream(path: PathBuf, options: Options, ended: CancellationToken, out: mpsc::Sender<Bytes>) -> io::Result<()> {
    let follow = options.follow;
    let watch = if follow { Some(Watch::new(path.parent().unwrap_or(Path::new("/")))?) } else { None };
    let mut file = match File::open(&path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound && follow => None,
        Err(error) => return Err(error),
    };
    if let Some(file) = &mut file {
        let from = options.tail.map_or(Ok(0), |lines| tail_offset(file, lines))?;
        file.seek(SeekFrom::Start(from))?;
    }
    let mut reader = file.map(|f| BufReader::with_capacity(CHUNK, f));
    let mut printer = Printer::new(options);
    let mut partial = Vec::new();
    loop {
        // Asked before reading: what is written after the answer is read in the next round.
        let last = ended.is_cancelled();
        if reader.is_none() {
            reader = File::open(&path).ok().map(|f| BufReader::with_capacity(CHUNK, f));
        }
        let mut more = false;
        if let Some(reader) = &mut reader {
            let mut chunk = Vec::new();
            more = read(reader, &mut partial, &mut printer, &mut chunk)?;
            if !chunk.is_empty() && out.send(Bytes::from(chunk)).await.is_err() {
                return Ok(());
            }
        }
        if printer.exhausted() {
            return Ok(());
        }
        if more {
            continue;
        }
        if let Some(current) = &reader
            && replaced(current.get_ref(), &path)
        {
            reader = None;
            continue;
        }
        let Some(watch) = watch.as_ref().filter(|_| !last) else { return Ok(()) };
        tokio::select! {
            changed = watch.changed() => changed?,
            () = ended.cancelled() => {}
            () = out.closed() => return Ok(()),
        }
    }
}

/// Whether the file at `path` is another one by now: the log was rotated.
fn replaced(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) != (there.dev(), there.ino()),
        _ => false,
    }
}

/// Reads complete lines; returns whether there may be more at once.
fn read(reader: &mut BufReader<File>, partial: &mut Vec<u8>, printer: &mut Printer, out: &mut Vec<u8>) -> io::Result<bool> {
    let mut total = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let (taken, complete) = match buffer.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        if partial.len() + taken <= LINE_BYTES_MAX {
            partial.extend_from_slice(&buffer[..taken]);
        }
        reader.consume(taken);
        total += taken;
        if complete {
            printer.print(partial.strip_suffix(b"\n").unwrap_or(partial), out);
            partial.clear();
        }
        if out.len() >= CHUNK || total >= READ_MAX || printer.exhausted() {
            return Ok(true);
        }
    }
}

/// Changes in one directory.
struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    fn new(directory: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&fd, directory, flags)?;
        // Deprecated for descriptors that may close behind its back; an OwnedFd cannot, and this crate has no unsafe code.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    async fn changed(&self) -> io::Result<()> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        loop {
            let mut guard = self.fd.readable().await?;
            let drained = guard.try_io(|fd| {
                let mut reader = inotify::Reader::new(fd.get_ref(), &mut buffer);
                let mut any = false;
                loop {
                    match reader.next() {
                        Ok(_) => any = true,
                        Err(rustix::io::Errno::AGAIN) if any => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            });
            match drained {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn print(options: Options, lines: &[&str]) -> String {
        let mut printer = Printer::new(options);
        let mut out = Vec::new();
        for line in lines {
            printer.print(line.as_bytes(), &mut out);
        }
        String::from_utf8(out).expect("text")
    }

    const LINES: &[&str] = &["2026-01-01T00:00:01Z stdout F one", "2026-01-01T00:00:02Z stderr P tw", "2026-01-01T00:00:02Z stderr F o", "broken"];

    #[test]
    fn options_choose_what_is_printed() {
        assert_eq!(print(Options::default(), LINES), "one\ntwo\n");
        assert_eq!(print(Options { timestamps: true, ..Options::default() }, LINES), "2026-01-01T00:00:01Z one\n2026-01-01T00:00:02Z two\n");
        assert_eq!(print(Options { limit_bytes: Some(5), ..Options::default() }, LINES), "one\nt");
        assert_eq!(print(Options { since: "2026-01-01T00:00:02Z".parse().ok(), ..Options::default() }, LINES), "two\n");
        assert_eq!(print(Options { stderr: Some(false), ..Options::default() }, LINES), "one\n");
    }

    #[tokio::test]
    async fn following_survives_a_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:01Z stdout F one\n").expect("a log");
        let (sender, mut receiver) = mpsc::channel(16);
        let ended = CancellationToken::new();
        let task = tokio::spawn(stream(path.clone(), Options { follow: true, ..Options::default() }, ended.clone(), sender));
        assert_eq!(receiver.recv().await.expect("a chunk"), "one\n");
        let append = |text: &str| {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).expect("a log");
            file.write_all(text.as_bytes()).expect("written");
        };
        append("2026-01-01T00:00:02Z stdout F two\n");
        assert_eq!(receiver.recv().await.expect("a chunk"), "two\n");
        std::fs::rename(&path, dir.path().join("0.log.old")).expect("rotated");
        append("2026-01-01T00:00:03Z stdout F three\n");
        assert_eq!(receiver.recv().await.expect("a chunk"), "three\n");
        ended.cancel();
        assert!(receiver.recv().await.is_none());
        task.await.expect("joined").expect("no error");
    }
}
