//! The wire form of a watch: one JSON object per line, `{"type": "ADDED", "object": {..}}`.
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::decode;
use crate::direct::Answer;
use crate::error::ApiError;
use crate::object::PartialObject;

/// Longest line that is read; the server accepts no object of more than 3 MiB.
const LINE_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("the watch was refused")]
    Api(#[from] #[source] ApiError),
    #[error("the watch broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("a watch event has more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("a watch event cannot be read")]
    Decode(#[from] #[source] serde_json::Error),
    #[error("a watch event has the unknown type {0}")]
    UnknownType(String),
}

/// Splits a body into lines without copying what arrives in one piece more than once.
pub(crate) struct Lines {
    body: Answer,
    buffer: BytesMut,
    /// So many bytes of the buffer hold no line end.
    searched: usize,
}

impl Lines {
    pub fn new(body: Answer) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, WatchError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + end).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(WatchError::TooLong);
            }
            match self.body.frame().await {
                // A last line without its end is cut short: the event comes again after the resume.
                None => return Ok(None),
                Some(frame) => {
                    let frame = frame.map_err(|e| WatchError::Broken(e.into()))?;
                    if let Ok(data) = frame.into_data() {
                        // An idle watch keeps no large buffer.
                        if self.buffer.is_empty() {
                            self.buffer = BytesMut::new();
                        }
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// A line in its two parts.
struct Envelope<'a> {
    kind: &'a str,
    object: &'a str,
}

#[derive(Deserialize)]
struct Parsed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl<'a> From<Parsed<'a>> for Envelope<'a> {
    fn from(Parsed { kind, object }: Parsed<'a>) -> Self {
        Self { kind, object: object.get() }
    }
}

impl<'a> Envelope<'a> {
    /// The parts as every server writes them, without reading the object; it is read anyway.
    fn cut(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (kind, object) = line.strip_prefix("{\"type\":\"")?.split_once("\",\"object\":")?;
        if !kind.bytes().all(|b| b.is_ascii_uppercase()) {
            return None;
        }
        Some(Self { kind, object: object.strip_suffix('}')? })
    }
}

/// One decoded line.
pub(crate) enum Frame<K> {
    Put(K),
    Delete(K),
    /// Nothing happened up to this version.
    Bookmark(String),
    /// An object that the type cannot hold.
    Unreadable { name: String, version: String, error: serde_json::Error },
    Failure(Box<Status>),
}

impl<K: DeserializeOwned> Frame<K> {
    pub fn decode(line: &[u8]) -> Result<Self, WatchError> {
        let Envelope { kind, object } = match Envelope::cut(line) {
            Some(envelope) => envelope,
            None => serde_json::from_slice::<Parsed>(line)?.into(),
        };
        let without_managers = || decode::without_managers(object);
        Ok(match kind {
            "ADDED" | "MODIFIED" => decode::object(&without_managers()).map_or_else(|e| Self::unreadable(object, e), |o| Ok(Self::Put(o)))?,
            "DELETED" => decode::object(&without_managers()).map_or_else(|e| Self::unreadable(object, e), |o| Ok(Self::Delete(o)))?,
            "BOOKMARK" => {
                let bookmark: PartialObject = serde_json::from_str(object)?;
                Self::Bookmark(bookmark.metadata.resource_version.unwrap_or_default())
            }
            "ERROR" => Self::Failure(Box::new(serde_json::from_str(object)?)),
            other => return Err(WatchError::UnknownType(other.to_owned())),
        })
    }

    fn unreadable(object: &str, error: serde_json::Error) -> Result<Self, WatchError> {
        let PartialObject { metadata, .. } = serde_json::from_str(object)?;
        let name = format!("{}/{}", metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
        Ok(Self::Unreadable { name, version: metadata.resource_version.unwrap_or_default(), error })
    }
}
