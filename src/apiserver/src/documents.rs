//! OpenAPI documents that were made of late, compressed: to make one takes longer than everything else that an answer takes together, and clients come in
//! crowds, each with an empty cache.
use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use flate2::read::GzDecoder;

use crate::negotiate::gzip;

/// Of all together. Those of the built-in kinds come to a third of it.
const BYTES_MAX: usize = 4 << 20;

/// A document as it is kept.
pub struct Kept {
    pub compressed: Bytes,
    /// Of the document itself.
    pub length: usize,
}

impl Kept {
    fn new(document: &[u8]) -> Self {
        Self { compressed: gzip::whole(document), length: document.len() }
    }

    pub fn document(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.length);
        GzDecoder::new(&*self.compressed).read_to_end(&mut out).expect("compressed here");
        out.into()
    }
}

struct Entry {
    /// Which document it is.
    name: String,
    /// What it was made of.
    state: String,
    kept: Arc<OnceLock<Kept>>,
}

/// The one asked for last stands last.
#[derive(Default)]
pub struct Recent(Mutex<VecDeque<Entry>>);

impl Recent {
    /// The document of this name and state, made by `made` unless it is at hand; who asks at the same time waits for the same one. One of another state
    /// goes.
    pub fn get(&self, name: &str, state: &str, made: impl FnOnce() -> Bytes) -> Arc<OnceLock<Kept>> {
        let kept = self.entry(name, state);
        if kept.get().is_none() {
            kept.get_or_init(|| Kept::new(&made()));
            self.bound();
        }
        kept
    }

    fn entry(&self, name: &str, state: &str) -> Arc<OnceLock<Kept>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().position(|entry| entry.name == name).and_then(|at| entries.remove(at));
        let entry = found.filter(|entry| entry.state == state);
        let entry = entry.unwrap_or_else(|| Entry { name: name.to_owned(), state: state.to_owned(), kept: Arc::default() });
        let kept = entry.kept.clone();
        entries.push_back(entry);
        kept
    }

    /// Lets go of what nobody has asked for longest, where there is too much.
    fn bound(&self) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |entry: &Entry| entry.kept.get().map_or(0, |kept| kept.compressed.len());
        let mut bytes: usize = entries.iter().map(size).sum();
        while bytes > BYTES_MAX
            && let Some(oldest) = entries.pop_front()
        {
            bytes -= size(&oldest);
        }
    }

    /// Lets go of documents of these names.
    pub fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| !is_gone(&entry.name));
    }

    #[cfg(test)]
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|entry| format!("{} {}", entry.name, entry.state)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Bytes {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn a_document_is_made_once_for_each_state() {
        let recent = Recent::default();
        let get = |name: &str, state: &str, text: &'static str| {
            let mut is_made = false;
            let kept = recent.get(name, state, || {
                is_made = true;
                Bytes::from_static(text.as_bytes())
            });
            (kept.get().unwrap().document(), is_made)
        };
        assert_eq!(get("a", "1", "x"), ("x".into(), true));
        assert_eq!(get("a", "1", "y"), ("x".into(), false));
        assert_eq!(get("b", "1", "z"), ("z".into(), true));
        assert_eq!(get("a", "2", "y"), ("y".into(), true));
        assert_eq!(recent.names(), ["b 1", "a 2"]);
        recent.forget(|name| name == "b");
        assert_eq!(recent.names(), ["a 2"]);
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let recent = Recent::default();
        let get = |name: &str| drop(recent.get(name, "", || noise(BYTES_MAX / 3)));
        ["a", "b", "a", "c"].into_iter().for_each(get);
        // Noise takes more room when it is compressed, so three thirds are too much.
        assert_eq!(recent.names(), ["a ", "c "]);
        recent.get("d", "", || noise(2 * BYTES_MAX));
        assert_eq!(recent.names(), [""; 0]);
    }
}
