//! A configuration file that is read again when it changes.
//!
//! Models k8s.io/apiserver/pkg/util/filesystem WatchUntil and pkg/server/options/{authenticationconfig,authorizationconfig,encryptionconfig}/metrics: woken by inotify on
//! the file's folder (a file that is replaced, or a link that is turned, counts), and once a minute where a file system tells nothing.
use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// An editor writes in several steps; what is looked at in between would be half a file.
const SETTLE: Duration = Duration::from_millis(100);

/// What came of a changed file.
#[derive(Debug)]
pub enum Reload {
    Done,
    /// It will never be good: not tried again until it changes.
    Refused(String),
    /// It may yet be taken: an issuer does not answer.
    Failed(String),
}

/// Who takes a changed text over.
pub trait Taker: Sync {
    fn take<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Reload>;
}

/// How often a file was taken over or refused; a page of metrics.
pub struct ReloadCounts {
    /// `authentication`, `authorization` or `encryption`.
    what: &'static str,
    state: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    success: Count,
    failure: Count,
    hash: String,
}

#[derive(Default)]
struct Count {
    total: u64,
    last_seconds: f64,
}

/// As metrics tell texts apart without showing them.
pub fn hash(text: &[u8]) -> String {
    format!("sha256:{}", pki::sha256_hex(text))
}

pub fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

impl ReloadCounts {
    pub fn new(what: &'static str, text: &str) -> Self {
        Self { what, state: Mutex::new(Counts { hash: hash(text.as_bytes()), ..Counts::default() }) }
    }

    /// `Some`: this text is what holds now.
    fn count(&self, taken: Option<&str>) {
        let mut state = self.state.lock().expect("no panic under the lock");
        if let Some(text) = taken {
            state.hash = hash(text.as_bytes());
        }
        let count = if taken.is_some() { &mut state.success } else { &mut state.failure };
        count.total += 1;
        count.last_seconds = seconds_now();
    }

    pub fn page(&self) -> String {
        let state = self.state.lock().expect("no panic under the lock");
        let (what, mut out) = (self.what, String::new());
        let counts = [("failure", &state.failure), ("success", &state.success)];
        let name = format!("apiserver_{what}_config_controller_automatic_reloads_total");
        let _ = writeln!(
            out,
            "# HELP {name} Total number of automatic reloads of {what} configuration split by status and apiserver identity.\n# TYPE {name} counter"
        );
        for (status, count) in counts {
            let _ = writeln!(out, "{name}{{apiserver_id_hash=\"\",status=\"{status}\"}} {}", count.total);
        }
        let name = format!("apiserver_{what}_config_controller_automatic_reload_last_timestamp_seconds");
        let _ = writeln!(
            out,
            "# HELP {name} Timestamp of the last automatic reload of {what} configuration split by status and apiserver identity.\n# TYPE {name} gauge"
        );
        for (status, count) in counts.into_iter().filter(|(_, count)| count.total > 0) {
            let _ = writeln!(out, "{name}{{apiserver_id_hash=\"\",status=\"{status}\"}} {}", count.last_seconds);
        }
        let name = format!("apiserver_{what}_config_controller_last_config_info");
        let _ = writeln!(
            out,
            "# HELP {name} Information about the last applied {what} configuration with hash as label, split by apiserver identity.\n# TYPE {name} gauge"
        );
        let _ = writeln!(out, "{name}{{apiserver_id_hash=\"\",hash=\"{}\"}} 1", state.hash);
        out
    }
}

/// The file, and what is known of it.
pub struct Follow {
    path: PathBuf,
    /// The text that was last judged for good.
    seen: String,
}

impl Follow {
    /// `text` is what holds now.
    pub fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), seen: text }
    }

    /// Gives every new text to `taker` until `shutdown`.
    pub async fn run(mut self, counts: &ReloadCounts, shutdown: CancellationToken, taker: &dyn Taker) {
        let marks = match marks(&self.path) {
            Ok(marks) => Some(marks),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "changes of the configuration are noticed once a minute only");
                None
            }
        };
        loop {
            let changed = async {
                match &marks {
                    Some(marks) => changed(marks).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                () = self.look(counts, taker) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn look(&mut self, counts: &ReloadCounts, taker: &dyn Taker) {
        let (what, path) = (counts.what, self.path.display().to_string());
        let text = match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, path, what, "failed to read the config file");
                return counts.count(None);
            }
        };
        if text == self.seen {
            return;
        }
        match taker.take(&text).await {
            Reload::Done => {
                tracing::info!(path, what, "reloaded the config");
                counts.count(Some(&text));
                self.seen = text;
            }
            Reload::Refused(error) => {
                tracing::error!(error, path, what, "the config stays as it was: failed to load the new one");
                counts.count(None);
                self.seen = text;
            }
            Reload::Failed(error) => {
                tracing::error!(error, path, what, "the config stays as it was, and the new one is tried again");
                counts.count(None);
            }
        }
    }
}

fn marks(path: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let marks = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let kinds = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
    inotify::add_watch(&marks, folder, kinds)?;
    // Deprecated for descriptors that may close behind its back; an OwnedFd cannot, and this crate has no unsafe code.
    #[allow(deprecated)]
    AsyncFd::new(marks)
}

/// Waits for an event, and takes all that are there.
async fn changed(marks: &AsyncFd<OwnedFd>) {
    let Ok(mut guard) = marks.readable().await else { return std::future::pending().await };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(marks.get_ref(), &mut buffer);
    // Ends with EAGAIN when there is no more.
    while reader.next().is_ok() {}
    guard.clear_ready();
}
