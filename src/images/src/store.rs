//! The folder of images: blobs on their way, unpacked layers, containers' folders, and the index over them.
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::index::{Contents, Index, Record};
use crate::layers::Layers;
use crate::registry::Registry;
use crate::{Digest, ImageConfig, Reference, Registries, StoreError};

/// Where images live and how they are brought.
#[derive(Clone, Debug)]
pub struct Config {
    pub root: PathBuf,
    pub registries: Registries,
    /// The program that plays [`crate::unpack`] when started under its name; usually the running binary.
    pub unpacker: PathBuf,
}

/// An image that is whole on this machine.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the configuration.
    pub id: Digest,
    /// Complete names with tags: `docker.io/library/busybox:latest`.
    pub tags: Vec<String>,
    /// Complete names with the manifest's digest.
    pub digests: Vec<String>,
    pub size_bytes: u64,
    pub config: ImageConfig,
    /// Unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
}

/// The images of this machine; a cheap handle.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    root: PathBuf,
    index: Index,
    layers: Layers,
    registry: Registry,
}

impl Images {
    pub fn open(config: Config) -> Result<Self, StoreError> {
        for name in ["blobs", "layers", "containers"] {
            let path = config.root.join(name);
            fs::create_dir_all(&path).map_err(StoreError::io("create", &path))?;
        }
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&config.root, fs::Permissions::from_mode(0o700)).map_err(StoreError::io("set mode of", &config.root))?;
        let layers = Layers::new(config.root.join("layers"), config.unpacker);
        let registry = Registry::new(config.registries);
        Ok(Self(Arc::new(Inner { index: Index::new(&config.root), root: config.root, layers, registry })))
    }

    /// Every image, by digest.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        Ok(self.0.index.read()?.images.into_values().map(|r| self.image(r)).collect())
    }

    /// The image that `name` means here: a name in any spelling, or an image's digest.
    pub fn resolve(&self, name: &str) -> Result<Option<Image>, StoreError> {
        let contents = self.0.index.read()?;
        Ok(find(&contents, name).cloned().map(|r| self.image(r)))
    }

    /// Takes the name away; the image itself goes with its last name. Layers in use by a container stay until the
    /// container is gone.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let found = self.0.index.update(|contents| {
            let id = find(contents, name).map(|r| r.id.clone())?;
            let record = contents.images.get_mut(&id).expect("just found");
            match name.parse::<Reference>() {
                Ok(reference) => record.references.retain(|r| *r != reference.to_string()),
                Err(_) => record.references.clear(),
            }
            // Digest names alone keep nothing alive: they came with a tag, or the image goes by id.
            let by_tag = record.references.iter().any(|r| !r.contains('@'));
            if !by_tag {
                contents.images.remove(&id);
            }
            Some(())
        })?;
        found.ok_or_else(|| StoreError::NotFound(name.to_owned()))?;
        self.collect_garbage()
    }

    /// Removes layers that neither an image nor a container needs, and blobs that an interrupted pull left.
    pub fn collect_garbage(&self) -> Result<(), StoreError> {
        let _lock = self.0.index.lock()?;
        let mut needed: HashSet<String> = self.0.index.read()?.images.into_values().flat_map(|r| r.layers).collect();
        for container in self.containers()? {
            let list = self.containers_root().join(container).join("layers");
            needed.extend(fs::read_to_string(list).unwrap_or_default().lines().map(str::to_owned));
        }
        self.0.layers.retain(|name| needed.contains(name))
    }

    pub(crate) fn add(&self, record: Record) -> Result<Image, StoreError> {
        self.0.index.update(|contents| {
            let id = record.id.clone();
            contents.put(record);
            self.image(contents.images[&id].clone())
        })
    }

    /// The record of an image whose layers are all still there.
    pub(crate) fn complete_record(&self, id: &Digest) -> Result<Option<Record>, StoreError> {
        let record = self.0.index.read()?.images.remove(id);
        Ok(record.filter(|r| r.layers.iter().all(|l| self.0.layers.path(l).is_dir())))
    }

    pub(crate) fn image(&self, record: Record) -> Image {
        let (digests, tags) = record.references.into_iter().partition(|r| r.contains('@'));
        let layers = record.layers.iter().map(|l| self.0.layers.path(l)).collect();
        Image { id: record.id, tags, digests, size_bytes: record.size_bytes, config: record.config, layers }
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.0.layers
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(crate) fn blobs_root(&self) -> PathBuf {
        self.0.root.join("blobs")
    }

    pub(crate) fn containers_root(&self) -> PathBuf {
        self.0.root.join("containers")
    }
}

fn find<'a>(contents: &'a Contents, name: &str) -> Option<&'a Record> {
    let by_id = name.parse::<Digest>().ok().or_else(|| format!("sha256:{name}").parse().ok());
    if let Some(record) = by_id.and_then(|id| contents.images.get(&id)) {
        return Some(record);
    }
    let reference: Reference = name.parse().ok()?;
    match reference.digest() {
        // A digest decides; a tag beside it is only a comment.
        Some(digest) => contents.find(&reference.with_digest(digest)),
        None => contents.find(&reference.to_string()),
    }
}
