//! Bringing an image from its registry: manifest, configuration, then the missing layers side by side.
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use futures::{TryStreamExt, stream};
use http_body_util::BodyExt;

use crate::digest::Hasher;
use crate::error::chain;
use crate::index::Record;
use crate::manifest::{Configuration, Descriptor, Document, MANIFEST_SIZE_MAX};
use crate::registry::{STALL_TIMEOUT, Source};
use crate::{Credentials, Digest, Image, Images, PullError, Reference, StoreError};

/// Layers fetched and unpacked at the same time, for one image.
const PARALLEL_LAYERS: usize = 3;
/// A layer's compressed bytes.
const BLOB_SIZE_MAX: u64 = 32 << 30;

/// How far a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Downloading { digest: Digest, done_bytes: u64, total_bytes: u64 },
    Unpacking { digest: Digest },
    Done { digest: Digest },
}

/// One pull of a layer at a time: a second image that wants it waits and finds it there.
static BUSY: LazyLock<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>> = LazyLock::new(Mutex::default);

impl Images {
    /// Pulls `reference`; layers that are here already are not fetched again.
    pub async fn pull(&self, reference: &Reference, credentials: Option<&Credentials>, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<Image, PullError> {
        let found = self.registry().find(reference, credentials).await?;
        let source = found.source;
        let manifest_digest = found.digest;
        let manifest = match Document::parse(&found.bytes, &found.media_type)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => {
                let chosen = index.choose(&reference.to_string())?.digest.clone();
                let found = self.registry().manifest(&source, reference, chosen.as_str()).await?;
                match Document::parse(&found.bytes, &found.media_type)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => return Err(PullError::Malformed { what: "manifest".into(), detail: "an index inside an index".into() }),
                }
            }
        };
        let mut names = vec![reference.with_digest(&manifest_digest)];
        if reference.tag().is_some() && reference.digest().is_none() {
            names.push(reference.to_string());
        }
        if let Some(record) = self.complete_record(&manifest.config.digest)? {
            return Ok(self.add(Record { references: names, ..record })?);
        }
        let configuration = self.small_blob(&source, reference, &manifest.config).await?;
        let configuration = Configuration::parse(&configuration)?;
        configuration.check_platform(&reference.to_string())?;
        let diff_ids = configuration.rootfs.diff_ids.clone();
        if diff_ids.len() != manifest.layers.len() {
            let detail = format!("{} layers but {} diff_ids", manifest.layers.len(), diff_ids.len());
            return Err(PullError::Malformed { what: "image configuration".into(), detail });
        }
        let size_bytes = manifest.layers.iter().map(|l| l.size).sum::<u64>() + manifest.config.size;
        stream::iter(manifest.layers.iter().zip(&diff_ids).map(Ok))
            .try_for_each_concurrent(PARALLEL_LAYERS, |(layer, diff_id)| self.layer(&source, reference, layer, diff_id, progress))
            .await?;
        let layers = diff_ids.iter().rev().map(|d| d.hex().to_owned()).collect();
        Ok(self.add(Record { id: manifest.config.digest, references: names, size_bytes, config: configuration.image_config(), layers })?)
    }

    async fn small_blob(&self, source: &Source, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        if descriptor.size > MANIFEST_SIZE_MAX {
            return Err(PullError::TooLarge { what: "image configuration".into(), limit: MANIFEST_SIZE_MAX });
        }
        let mut body = self.registry().blob(source, reference, &descriptor.digest).await?;
        let mut bytes = Vec::with_capacity(descriptor.size as usize);
        while let Some(data) = next_data(&mut body, reference).await? {
            if (bytes.len() + data.len()) as u64 > descriptor.size {
                return Err(PullError::TooLarge { what: "image configuration".into(), limit: descriptor.size });
            }
            bytes.extend_from_slice(&data);
        }
        let got = Digest::of(&bytes);
        if got == descriptor.digest { Ok(bytes) } else { Err(PullError::Digest { expected: descriptor.digest.clone(), got }) }
    }

    async fn layer(&self, source: &Source, reference: &Reference, layer: &Descriptor, diff_id: &Digest, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<(), PullError> {
        let busy = BUSY.lock().expect("no panic under this lock").entry(diff_id.clone()).or_default().clone();
        let guard = busy.lock().await;
        let result = self.layer_alone(source, reference, layer, diff_id, progress).await;
        drop(guard);
        let mut all = BUSY.lock().expect("no panic under this lock");
        if Arc::strong_count(&busy) == 2 {
            all.remove(diff_id);
        }
        result
    }

    async fn layer_alone(&self, source: &Source, reference: &Reference, layer: &Descriptor, diff_id: &Digest, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<(), PullError> {
        let digest = layer.digest.clone();
        if !self.layers().has(diff_id) {
            if layer.size > BLOB_SIZE_MAX {
                return Err(PullError::TooLarge { what: format!("layer {digest}"), limit: BLOB_SIZE_MAX });
            }
            let blob = self.download(source, reference, layer, progress).await?;
            progress(Progress::Unpacking { digest: digest.clone() });
            let (layers, diff_id) = (self.layers().clone(), diff_id.clone());
            tokio::task::spawn_blocking(move || layers.unpack(blob, &diff_id)).await.expect("unpacking does not panic")?;
        }
        progress(Progress::Done { digest });
        Ok(())
    }

    /// The blob in a file without a name: it is needed once, and an interrupted pull leaves nothing.
    async fn download(&self, source: &Source, reference: &Reference, layer: &Descriptor, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<File, PullError> {
        let root = self.blobs_root();
        let io = |action| StoreError::io(action, &root);
        let mut file = nameless(&root)?;
        let mut hasher = Hasher::new();
        let mut done = 0u64;
        let mut body = self.registry().blob(source, reference, &layer.digest).await?;
        while let Some(data) = next_data(&mut body, reference).await? {
            done += data.len() as u64;
            if done > layer.size {
                return Err(PullError::TooLarge { what: format!("layer {}", layer.digest), limit: layer.size });
            }
            hasher.update(&data);
            file.write_all(&data).map_err(io("write to"))?;
            progress(Progress::Downloading { digest: layer.digest.clone(), done_bytes: done, total_bytes: layer.size });
        }
        let got = hasher.finish();
        if got != layer.digest {
            return Err(PullError::Digest { expected: layer.digest.clone(), got });
        }
        use std::io::Seek;
        file.rewind().map_err(io("rewind a file in"))?;
        Ok(file)
    }
}

/// A file in `directory` that vanishes with its last descriptor.
pub(crate) fn nameless(directory: &std::path::Path) -> Result<File, StoreError> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600)).map_err(|e| StoreError::io("make a file in", directory)(e.into()))?;
    Ok(File::from(file))
}

async fn next_data(body: &mut hyper::body::Incoming, reference: &Reference) -> Result<Option<hyper::body::Bytes>, PullError> {
    let lost = |detail: String| PullError::Unreachable { host: reference.registry().to_owned(), detail };
    loop {
        match tokio::time::timeout(STALL_TIMEOUT, body.frame()).await.map_err(|_| lost("the transfer stalled".into()))? {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame.map_err(|e| lost(chain(&e)))?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
