//! Follows the objects over all crashes, each time from the version that it saw last.
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::ledger::Ledger;
use super::line::{Line, Lost, MAPS, version};

const PAUSE: Duration = Duration::from_millis(10);
/// So often one looks whether it is over.
const LOOK_UP: Duration = Duration::from_millis(200);
/// At the end, what is still under way comes within that time.
const LAST: Duration = Duration::from_secs(30);

pub struct Watcher {
    line: Line,
    ledger: Arc<Ledger>,
    began: u64,
    version: u64,
    /// What is there, by name, at which version.
    present: HashMap<String, u64>,
    pub seen: HashMap<u64, String>,
    /// From and to, where it was told that it came too late.
    pub gaps: Vec<(u64, u64)>,
    pub resumed: usize,
}

impl Watcher {
    pub async fn begin(socket: &Path, ledger: Arc<Ledger>) -> Self {
        let (line, present, seen) = (Line::new(socket), HashMap::new(), HashMap::new());
        let mut watcher = Self { line, ledger, began: 0, version: 0, present, seen, gaps: Vec::new(), resumed: 0 };
        watcher.list().await.expect("the server is there");
        watcher.began = watcher.version;
        watcher.gaps.clear();
        watcher
    }

    async fn list(&mut self) -> Result<(), Lost> {
        let (code, list) = self.line.ask(Method::GET, MAPS, &Value::Null).await?;
        assert_eq!(code, 200, "{list}");
        self.gaps.push((self.version, version(&list)));
        self.version = version(&list);
        let items = list["items"].as_array().expect("a list").iter();
        self.present = items.map(|item| (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), version(item))).collect();
        Ok(())
    }

    pub async fn run(mut self, stop: Arc<AtomicBool>) -> Self {
        let mut stopped = None;
        loop {
            if stop.load(Ordering::Relaxed) {
                let stopped = *stopped.get_or_insert_with(Instant::now);
                if self.version >= self.ledger.highest() || stopped.elapsed() > LAST {
                    return self;
                }
            }
            let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={}", self.version);
            match self.line.send(Method::GET, &path, &Value::Null).await {
                Ok(response) if response.status() == 200 => {
                    self.resumed += 1;
                    self.follow(response.into_body(), &stop).await;
                }
                Ok(response) if response.status() == 410 => self.relist().await,
                Ok(response) => self.ledger.fault(format!("a watch from {}: {}", self.version, response.status())),
                Err(_) => {}
            }
            // Whatever is left on that line is of a watch that has ended.
            self.line = Line::new(&self.line.socket);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn relist(&mut self) {
        // On the old line there may still be something of the watch.
        self.line = Line::new(&self.line.socket);
        // A server that dies meanwhile is asked again.
        let _ = self.list().await;
    }

    async fn follow(&mut self, mut body: Incoming, stop: &AtomicBool) {
        let (mut pending, began) = (Vec::new(), Instant::now());
        loop {
            // What was acknowledged last comes to the one who waits for it, however slow the server is.
            let is_over = || stop.load(Ordering::Relaxed) && (self.version >= self.ledger.highest() || began.elapsed() > LAST);
            let frame = match tokio::time::timeout(LOOK_UP, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(_) => return,
                Err(_) if is_over() => return,
                Err(_) => continue,
            };
            let Ok(data) = frame.into_data() else { return };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("a line is an event");
                if event["type"] == "ERROR" {
                    if event["object"]["code"] == 410 {
                        self.relist().await;
                    } else {
                        self.ledger.fault(format!("a watch from {}: {event}", self.version));
                    }
                    return;
                }
                self.take(&event);
            }
        }
    }

    fn take(&mut self, event: &Value) {
        let (kind, object) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
        let at = version(object);
        if at < self.version || (at == self.version && kind != "BOOKMARK") {
            self.ledger.fault(format!("{kind} of version {at} came after {}", self.version));
        }
        self.version = at;
        let Some(name) = object["metadata"]["name"].as_str().filter(|_| kind != "BOOKMARK") else { return };
        let is_there = self.present.contains_key(name);
        if is_there != (kind != "ADDED") {
            self.ledger.fault(format!("{kind} of {name} at {at}, and it was {}there", if is_there { "" } else { "not " }));
        }
        match kind {
            "DELETED" => drop(self.present.remove(name)),
            _ => drop(self.present.insert(name.to_owned(), at)),
        }
        let n = object["data"]["n"].as_str().and_then(|text| text.parse().ok());
        self.ledger.told(at, (name.to_owned(), n.filter(|_| kind != "DELETED")));
        self.seen.insert(at, name.to_owned());
    }

    /// Everything that was acknowledged while it watched was told.
    pub fn check(&self, highest: u64) {
        if self.version < highest {
            self.ledger.fault(format!("a watch ended at {}, before the last write at {highest} came", self.version));
        }
        let in_gap = |version: u64| self.gaps.iter().any(|(after, until)| *after < version && version <= *until);
        for (version, name) in self.ledger.acknowledged(self.began, self.version) {
            if !self.seen.contains_key(&version) && !in_gap(version) {
                self.ledger.fault(format!("{name} at {version} was acknowledged and not told"));
            }
        }
    }
}
