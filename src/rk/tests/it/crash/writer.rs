//! Creates, changes and deletes objects that only it knows, and holds the server to what it said of them.
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::ledger::{Chance, Ledger};
use super::line::{Line, Lost, MAPS, version};

const KEYS_MAX: usize = 40;

/// One object.
struct Key {
    name: String,
    /// The last write that was acknowledged, and its version; `None`: it is not there.
    at: Option<(u64, u64)>,
    /// Writes without an answer since then: any of them may have happened. `None` is a deletion.
    open: Vec<Option<u64>>,
}

impl Key {
    fn is_possible(&self, found: Option<u64>) -> bool {
        found == self.at.map(|(n, _)| n) || self.open.contains(&found)
    }
}

pub struct Writer {
    id: u64,
    line: Line,
    ledger: Arc<Ledger>,
    chance: Chance,
    keys: Vec<Key>,
    gone: Vec<String>,
    made: u64,
    interrupted: u64,
}

impl Writer {
    pub fn new(id: u64, seed: u64, socket: &Path, ledger: Arc<Ledger>) -> Self {
        let chance = Chance::new(seed.wrapping_add(id * 7919));
        Self { id, line: Line::new(socket), ledger, chance, keys: Vec::new(), gone: Vec::new(), made: 0, interrupted: 0 }
    }

    pub async fn run(mut self, every: Duration, stop: Arc<AtomicBool>) -> Self {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            self.step().await;
        }
        self
    }

    async fn step(&mut self) {
        let at = match self.keys.len() {
            0 => 0,
            len if len < KEYS_MAX && self.chance.below(3) == 0 => len,
            len => self.chance.below(len as u64) as usize,
        };
        if at == self.keys.len() {
            self.keys.push(Key { name: format!("w{}-{}", self.id, self.made), at: None, open: Vec::new() });
            self.made += 1;
        }
        if !self.keys[at].open.is_empty() {
            return self.settle(at).await;
        }
        let choice = self.chance.below(10);
        match self.keys[at].at {
            None => self.write(at, Method::POST).await,
            Some(_) if choice == 0 => self.delete(at).await,
            Some(_) if choice < 4 => self.write(at, Method::PATCH).await,
            Some(_) => self.write(at, Method::PUT).await,
        }
    }

    async fn write(&mut self, at: usize, method: Method) {
        let (n, floor) = self.ledger.next();
        let key = &mut self.keys[at];
        let padding = "x".repeat((n as usize * 37) % 900);
        let mut body = json!({"metadata": {"name": key.name}, "data": {"n": n.to_string(), "padding": padding}});
        let path = if method == Method::POST { MAPS.to_owned() } else { format!("{MAPS}/{}", key.name) };
        if let (&Method::PUT, Some((_, version))) = (&method, key.at) {
            body["metadata"]["resourceVersion"] = json!(version.to_string());
        }
        match self.line.ask(method.clone(), &path, &body).await {
            Ok((200 | 201, answer)) => {
                let version = version(&answer);
                key.at = Some((n, version));
                self.ledger.acknowledge(&key.name, n, version, floor);
            }
            Ok((code, answer)) => self.refused(at, Some(n), code, &format!("{method} {n}"), &answer),
            Err(Lost::Unsent) => {}
            Err(Lost::Open) => self.interrupt(at, Some(n)),
        }
    }

    async fn delete(&mut self, at: usize) {
        let path = format!("{MAPS}/{}", self.keys[at].name);
        match self.line.ask(Method::DELETE, &path, &Value::Null).await {
            Ok((200, _)) => self.forget(at),
            Ok((code, answer)) => self.refused(at, None, code, "DELETE", &answer),
            Err(Lost::Unsent) => {}
            Err(Lost::Open) => self.interrupt(at, None),
        }
    }

    fn interrupt(&mut self, at: usize, what: Option<u64>) {
        self.interrupted += 1;
        self.keys[at].open.push(what);
    }

    /// Nobody else writes these objects, so there is no reason but a store that is away.
    fn refused(&mut self, at: usize, what: Option<u64>, code: u16, verb: &str, answer: &Value) {
        match code {
            500 | 503 | 504 => self.interrupt(at, what),
            _ => self.ledger.fault(format!("{verb} of {}: {code} {}", self.keys[at].name, answer["message"])),
        }
    }

    fn forget(&mut self, at: usize) {
        self.gone.push(self.keys.swap_remove(at).name);
    }

    /// Reads what came of the writes without an answer.
    async fn settle(&mut self, at: usize) {
        let path = format!("{MAPS}/{}", self.keys[at].name);
        match self.line.ask(Method::GET, &path, &Value::Null).await {
            Ok((200, object)) => self.found(at, Some(&object)),
            Ok((404, _)) => self.found(at, None),
            Ok((code, answer)) => self.ledger.fault(format!("GET {path}: {code} {answer}")),
            Err(_) => {}
        }
    }

    fn found(&mut self, at: usize, object: Option<&Value>) {
        let key = &mut self.keys[at];
        let found = object.map(|object| (object["data"]["n"].as_str().unwrap_or_default().parse().unwrap_or(0), version(object)));
        if !key.is_possible(found.map(|(n, _)| n)) {
            self.ledger.fault(format!("{}: found {found:?}, acknowledged was {:?}, open {:?}", key.name, key.at, key.open));
        }
        if let (Some((n, version)), Some((acknowledged, at))) = (found, key.at)
            && (version < at || (n == acknowledged && version != at))
        {
            self.ledger.fault(format!("{}: write {n} found at version {version}, {acknowledged} was acknowledged at {at}", key.name));
        }
        key.open.clear();
        match found {
            Some(found) => key.at = Some(found),
            None => self.forget(at),
        }
    }

    /// Reads everything once more; how many writes got no answer.
    pub async fn check(mut self) -> u64 {
        let (code, list) = self.line.ask(Method::GET, MAPS, &Value::Null).await.expect("the server is there");
        assert_eq!(code, 200, "{list}");
        let items = list["items"].as_array().expect("a list");
        let find = |name: &str| items.iter().find(|item| item["metadata"]["name"] == *name);
        for at in (0..self.keys.len()).rev() {
            let object = find(&self.keys[at].name);
            self.found(at, object);
        }
        // What was found missing just now is among them, and is not there.
        for name in &self.gone {
            if find(name).is_some() {
                self.ledger.fault(format!("{name} was deleted, and is there"));
            }
        }
        self.interrupted
    }
}
