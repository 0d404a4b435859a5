//! Which images this machine has: one small JSON file, replaced as a whole, guarded by a lock between processes.
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{Digest, ImageConfig, StoreError};

/// One image, by the digest of its configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: Digest,
    /// Tags and digests under which it is known, complete names.
    pub references: Vec<String>,
    /// What was downloaded or imported, compressed.
    pub size_bytes: u64,
    pub config: ImageConfig,
    /// Names of folders below `layers/`, the topmost first.
    pub layers: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub images: BTreeMap<Digest, Record>,
}

impl Contents {
    /// Gives `references` to the image `record.id`, taking them from whoever had them.
    pub fn put(&mut self, mut record: Record) {
        for other in self.images.values_mut() {
            other.references.retain(|r| !record.references.contains(r));
        }
        if let Some(old) = self.images.remove(&record.id) {
            let mut all = old.references;
            all.append(&mut record.references);
            record.references = all;
        }
        record.references.sort();
        record.references.dedup();
        self.images.insert(record.id.clone(), record);
    }

    pub fn find(&self, reference: &str) -> Option<&Record> {
        self.images.values().find(|r| r.references.iter().any(|x| x == reference))
    }
}

pub(crate) struct Index {
    path: PathBuf,
    lock: PathBuf,
}

impl Index {
    pub fn new(root: &Path) -> Self {
        Self { path: root.join("images.json"), lock: root.join("images.lock") }
    }

    pub fn read(&self) -> Result<Contents, StoreError> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| StoreError::Index { path: self.path.clone(), source }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Contents::default()),
            Err(e) => Err(StoreError::io("read", &self.path)(e)),
        }
    }

    /// Holds off every other writer, in this process and others, until dropped.
    pub fn lock(&self) -> Result<File, StoreError> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.lock).map_err(StoreError::io("open", &self.lock))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| StoreError::io("lock", &self.lock)(e.into()))?;
        Ok(file)
    }

    /// Changes the index under its lock; the new file is durable before this returns.
    pub fn update<T>(&self, change: impl FnOnce(&mut Contents) -> T) -> Result<T, StoreError> {
        let _lock = self.lock()?;
        let mut contents = self.read()?;
        let result = change(&mut contents);
        let next = self.path.with_extension("next");
        let bytes = serde_json::to_vec(&contents).expect("records are plain data");
        let mut file = File::create(&next).map_err(StoreError::io("create", &next))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(StoreError::io("write", &next))?;
        fs::rename(&next, &self.path).map_err(StoreError::io("replace", &self.path))?;
        Ok(result)
    }
}
