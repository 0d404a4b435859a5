//! Which logs have grown since they were last looked at.
//!
//! The kernel marks each log at its first write and then says no more (IN_ONESHOT), so that a container that logs a lot costs
//! as little as one that does not log at all. Nothing waits for the marks: they are read when the node's lease is renewed.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// One container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub container: String,
    pub path: PathBuf,
}

pub struct Growth {
    /// `None` where the kernel gave no descriptor: then every log counts as grown.
    marks: Option<OwnedFd>,
    logs: Mutex<Logs>,
}

#[derive(Default)]
struct Logs {
    marked: HashMap<i32, Log>,
    /// Without a mark in the kernel: looked at each time.
    others: Vec<Log>,
}

impl Default for Growth {
    fn default() -> Self {
        Self { marks: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok(), logs: Mutex::default() }
    }
}

impl Growth {
    /// `log` counts as grown from its next write on.
    pub fn watch(&self, log: Log) {
        // Held over the call, so that a mark is known here before it is read.
        let mut logs = self.logs.lock().expect("no holder panics");
        let mark = self.marks.as_ref().and_then(|marks| inotify::add_watch(marks, &log.path, WatchFlags::MODIFY | WatchFlags::ONESHOT).ok());
        match mark {
            Some(mark) => {
                logs.marked.insert(mark, log);
            }
            None => logs.others.push(log),
        }
    }

    pub fn forget(&self, container: &str) {
        let mut logs = self.logs.lock().expect("no holder panics");
        logs.others.retain(|l| l.container != container);
        let gone: Vec<i32> = logs.marked.iter().filter(|(_, l)| l.container == container).map(|(mark, _)| *mark).collect();
        for mark in gone {
            logs.marked.remove(&mark);
            if let Some(marks) = &self.marks {
                // It may have fired meanwhile, which removes it too.
                let _ = inotify::remove_watch(marks, mark);
            }
        }
    }

    /// The logs that have grown; each is to be watched anew.
    pub fn grown(&self) -> Vec<Log> {
        let mut logs = self.logs.lock().expect("no holder panics");
        let mut out = std::mem::take(&mut logs.others);
        let Some(marks) = &self.marks else { return out };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(marks, &mut buffer);
        // Ends with EAGAIN when there is no more.
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                out.extend(logs.marked.drain().map(|(_, log)| log));
            }
            out.extend(logs.marked.remove(&event.wd()));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_logs_that_were_written_to_are_named_and_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = |name: &str| Log { container: name.into(), path: dir.path().join(name) };
        let growth = Growth::default();
        for name in ["a", "b"] {
            std::fs::write(log(name).path, "x").expect("a log");
            growth.watch(log(name));
        }
        assert!(growth.grown().is_empty());
        let mut file = std::fs::OpenOptions::new().append(true).open(log("a").path).expect("a log");
        for _ in 0..3 {
            file.write_all(b"more").expect("written");
        }
        assert_eq!(growth.grown(), [log("a")]);
        file.write_all(b"more").expect("written");
        assert!(growth.grown().is_empty(), "not watched anew");
        growth.watch(log("a"));
        file.write_all(b"more").expect("written");
        assert_eq!(growth.grown(), [log("a")]);
        growth.watch(log("a"));
        growth.forget("a");
        file.write_all(b"more").expect("written");
        assert!(growth.grown().is_empty());
        growth.watch(log("absent"));
        assert_eq!(growth.grown(), [log("absent")]);
    }
}
