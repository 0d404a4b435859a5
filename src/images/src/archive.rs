//! Images from archives: OCI image layouts and what `docker save` writes, plain, gzip or zstd.
//!
//! The archive is read once from front to back. Every file goes into a file without a name and is known by its digest;
//! which of them are manifests, configurations and layers is decided at the end.
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};

use serde::Deserialize;

use crate::digest::Hasher;
use crate::error::chain;
use crate::index::Record;
use crate::manifest::{Configuration, Descriptor, Document, Index, MANIFEST_SIZE_MAX};
use crate::pull::nameless;
use crate::{Digest, Image, Images, PullError, Reference, StoreError};

const ENTRIES_MAX: usize = 20_000;

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("read archive: {0}")]
    Read(String),
    #[error("not an image archive: neither index.json nor manifest.json in it")]
    NotAnImage,
    #[error("not an image archive: not a tar file, plain or packed with gzip or zstd")]
    NotAnArchive,
    #[error("archive names {0}, which it does not hold")]
    Missing(String),
    #[error("archive: bad image name {name:?}: {source}")]
    Name { name: String, source: crate::ParseReferenceError },
    #[error(transparent)]
    Image(#[from] PullError),
}

impl From<StoreError> for ImportError {
    fn from(e: StoreError) -> Self {
        Self::Image(e.into())
    }
}

/// The files of the archive.
struct Files {
    by_name: HashMap<String, Digest>,
    by_digest: HashMap<Digest, (File, u64)>,
    /// `docker save` of old stores a repeated layer as a symbolic link.
    links: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Images {
    /// Imports every image in the archive. `name` is given to an image that the archive leaves unnamed.
    pub fn import(&self, archive: impl Read, name: Option<&Reference>) -> Result<Vec<Image>, ImportError> {
        let files = Files::read(archive, self)?;
        if files.by_name.contains_key("index.json") {
            return self.import_layout(&files, name);
        }
        if files.by_name.contains_key("manifest.json") {
            return self.import_docker(&files, name);
        }
        Err(ImportError::NotAnImage)
    }

    fn import_layout(&self, files: &Files, name: Option<&Reference>) -> Result<Vec<Image>, ImportError> {
        let malformed = |e: serde_json::Error| PullError::Malformed { what: "index.json".into(), detail: e.to_string() };
        let index: Index = serde_json::from_slice(&files.small_by_name("index.json")?).map_err(malformed)?;
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            let annotation = |key: &str| descriptor.annotations.get(key).cloned();
            // containerd's full name; the plain OCI annotation may be a tag alone, which is no name.
            let given = annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name").filter(|n| n.contains(['/', ':'])));
            let given = given.map(|n| n.parse::<Reference>().map_err(|source| ImportError::Name { name: n, source })).transpose()?;
            let reference = given.or_else(|| name.cloned());
            images.push(self.import_manifest(files, descriptor, reference.as_ref())?);
        }
        if images.is_empty() { Err(ImportError::NotAnImage) } else { Ok(images) }
    }

    fn import_manifest(&self, files: &Files, descriptor: &Descriptor, reference: Option<&Reference>) -> Result<Image, ImportError> {
        let shown = reference.map_or_else(|| descriptor.digest.to_string(), ToString::to_string);
        let manifest = match Document::parse(&files.small(&descriptor.digest)?, &descriptor.media_type)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => match Document::parse(&files.small(&index.choose(&shown)?.digest)?, "")? {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => return Err(ImportError::NotAnImage),
            },
        };
        let mut names = Vec::new();
        if let Some(reference) = reference {
            names.push(reference.to_string());
            names.push(reference.with_digest(&descriptor.digest));
        }
        let layers: Vec<_> = manifest.layers.iter().map(|l| l.digest.clone()).collect();
        self.finish_import(files, &manifest.config.digest, &layers, names, &shown)
    }

    fn import_docker(&self, files: &Files, name: Option<&Reference>) -> Result<Vec<Image>, ImportError> {
        let malformed = |e: serde_json::Error| PullError::Malformed { what: "manifest.json".into(), detail: e.to_string() };
        let list: Vec<DockerImage> = serde_json::from_slice(&files.small_by_name("manifest.json")?).map_err(malformed)?;
        let mut images = Vec::new();
        for image in list {
            let mut names = Vec::new();
            for tag in image.repo_tags.unwrap_or_default() {
                let reference: Reference = tag.parse().map_err(|source| ImportError::Name { name: tag.clone(), source })?;
                names.push(reference.to_string());
            }
            if names.is_empty() {
                names.extend(name.map(ToString::to_string));
            }
            let config = files.digest_of(&image.config)?;
            let layers = image.layers.iter().map(|l| files.digest_of(l)).collect::<Result<Vec<_>, _>>()?;
            let shown = names.first().cloned().unwrap_or_else(|| config.to_string());
            images.push(self.finish_import(files, &config, &layers, names, &shown)?);
        }
        if images.is_empty() { Err(ImportError::NotAnImage) } else { Ok(images) }
    }

    fn finish_import(&self, files: &Files, config: &Digest, blobs: &[Digest], references: Vec<String>, shown: &str) -> Result<Image, ImportError> {
        if let Some(record) = self.complete_record(config)? {
            return Ok(self.add(Record { references, ..record })?);
        }
        let configuration = Configuration::parse(&files.small(config)?)?;
        configuration.check_platform(shown)?;
        let diff_ids = configuration.rootfs.diff_ids.clone();
        if diff_ids.len() != blobs.len() {
            let detail = format!("{} layers but {} diff_ids", blobs.len(), diff_ids.len());
            return Err(PullError::Malformed { what: "image configuration".into(), detail }.into());
        }
        let mut size_bytes = 0;
        for (blob, diff_id) in blobs.iter().zip(&diff_ids) {
            let (file, size) = files.by_digest.get(blob).ok_or_else(|| ImportError::Missing(blob.to_string()))?;
            size_bytes += size;
            let mut file = file.try_clone().map_err(|e| ImportError::Read(e.to_string()))?;
            file.rewind().map_err(|e| ImportError::Read(e.to_string()))?;
            self.layers().unpack(file, diff_id)?;
        }
        let layers = diff_ids.iter().rev().map(|d| d.hex().to_owned()).collect();
        Ok(self.add(Record { id: config.clone(), references, size_bytes, config: configuration.image_config(), layers })?)
    }
}

/// Whether a header in one of tar's forms starts here: all end in the checksum of their 512 bytes.
fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.get(..512) else { return false };
    if block.iter().all(|&byte| byte == 0) {
        return true; // the end mark of an empty archive
    }
    let digits = block[148..156].iter().copied().filter(u8::is_ascii_digit);
    let stated = digits.fold(0_u32, |sum, digit| sum.wrapping_mul(8).wrapping_add(u32::from(digit - b'0')));
    let counted = block.iter().enumerate().map(|(at, &byte)| u32::from(if (148..156).contains(&at) { b' ' } else { byte }));
    counted.sum::<u32>() == stated
}

impl Files {
    fn read(mut archive: impl Read, images: &Images) -> Result<Self, ImportError> {
        let broken = |e: io::Error| ImportError::Read(chain(&e));
        let mut head = Vec::new();
        archive.by_ref().take(512).read_to_end(&mut head).map_err(broken)?;
        let input = BufReader::with_capacity(1 << 17, io::Cursor::new(head.clone()).chain(archive));
        let plain: Box<dyn Read + '_> = if head.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::bufread::MultiGzDecoder::new(input))
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(broken)?)
        } else if head.is_empty() || is_tar(&head) {
            Box::new(input)
        } else {
            return Err(ImportError::NotAnArchive);
        };
        let mut files = Self { by_name: HashMap::new(), by_digest: HashMap::new(), links: HashMap::new() };
        let mut tar = tar::Archive::new(plain);
        for (count, entry) in tar.entries().map_err(broken)?.enumerate() {
            let mut entry = entry.map_err(broken)?;
            if count >= ENTRIES_MAX {
                return Err(ImportError::Read(format!("more than {ENTRIES_MAX} entries")));
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => files.add(path, &mut entry, images)?,
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
                    files.links.insert(path, target.trim_start_matches("../").to_owned());
                }
                _ => {}
            }
        }
        Ok(files)
    }

    fn add(&mut self, path: String, content: &mut impl Read, images: &Images) -> Result<(), ImportError> {
        let broken = |e: io::Error| ImportError::Read(chain(&e));
        let mut file = nameless(&images.blobs_root())?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 1 << 17];
        let mut size = 0;
        loop {
            let n = content.read(&mut buffer).map_err(broken)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(StoreError::io("write to", images.blobs_root()))?;
            size += n as u64;
        }
        let got = hasher.finish();
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            if hex != got.hex() {
                let expected = format!("sha256:{hex}").parse().map_err(|_| ImportError::Read(format!("bad name {path:?}")))?;
                return Err(PullError::Digest { expected, got }.into());
            }
        }
        self.by_name.insert(path, got.clone());
        self.by_digest.insert(got, (file, size));
        Ok(())
    }

    fn digest_of(&self, name: &str) -> Result<Digest, ImportError> {
        let name = self.links.get(name).map_or(name, String::as_str);
        self.by_name.get(name).cloned().ok_or_else(|| ImportError::Missing(name.to_owned()))
    }

    fn small_by_name(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        self.small(&self.digest_of(name)?)
    }

    fn small(&self, digest: &Digest) -> Result<Vec<u8>, ImportError> {
        let (file, size) = self.by_digest.get(digest).ok_or_else(|| ImportError::Missing(digest.to_string()))?;
        if *size > MANIFEST_SIZE_MAX {
            return Err(PullError::TooLarge { what: digest.to_string(), limit: MANIFEST_SIZE_MAX }.into());
        }
        let mut bytes = Vec::with_capacity(*size as usize);
        let mut file = file;
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|e| ImportError::Read(e.to_string()))?;
        Ok(bytes)
    }
}
