//! What was acknowledged and what was told, of all clients; every contradiction is a fault.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

/// What a version is the version of: an object, and the number of the write; `None`: its end.
pub type What = (String, Option<u64>);

#[derive(Default)]
struct Book {
    faults: Vec<String>,
    versions: HashMap<u64, What>,
    acknowledged: BTreeMap<u64, String>,
    writes: u64,
}

#[derive(Default)]
pub struct Ledger(Mutex<Book>);

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    pub fn fault(&self, text: String) {
        self.book().faults.push(text);
    }

    /// A number for a write, and the highest version that was acknowledged before it.
    pub fn next(&self) -> (u64, u64) {
        let mut book = self.book();
        book.writes += 1;
        (book.writes, book.acknowledged.last_key_value().map_or(0, |(version, _)| *version))
    }

    pub fn highest(&self) -> u64 {
        self.book().acknowledged.last_key_value().map_or(0, |(version, _)| *version)
    }

    pub fn acknowledge(&self, name: &str, n: u64, version: u64, floor: u64) {
        self.told(version, (name.to_owned(), Some(n)));
        let mut book = self.book();
        if version <= floor {
            book.faults.push(format!("{name}: write {n} got version {version}, but {floor} was given before it was sent"));
        }
        if let Some(other) = book.acknowledged.insert(version, name.to_owned()) {
            book.faults.push(format!("version {version} was acknowledged to {other} and to {name}"));
        }
    }

    /// The same version is the same change, whoever says it.
    pub fn told(&self, version: u64, what: What) {
        let mut book = self.book();
        if let Some(other) = book.versions.insert(version, what.clone()).filter(|other| *other != what) {
            book.faults.push(format!("version {version} is of {what:?} and of {other:?}"));
        }
    }

    /// The versions that were acknowledged in between.
    pub fn acknowledged(&self, after: u64, until: u64) -> Vec<(u64, String)> {
        self.book().acknowledged.range(after + 1..=until).map(|(version, name)| (*version, name.clone())).collect()
    }

    /// How many writes were acknowledged; all of this must be without a fault.
    pub fn check(&self) -> usize {
        let book = self.book();
        let shown = &book.faults[..book.faults.len().min(10)];
        assert!(book.faults.is_empty(), "{} faults: {shown:#?}", book.faults.len());
        book.acknowledged.len()
    }
}

/// Choices that a seed repeats.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}
