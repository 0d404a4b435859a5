//! Events of a watch: each a WatchEvent message behind its length in four bytes, big end first, without an envelope of its own;
//! the object inside is a document (k8s.io/apimachinery/pkg/runtime/serializer/protobuf, NewRawSerializer and LengthDelimitedFramer).
use super::wire::{Writer, framed_length};

/// Writes one event about the object that `document` holds.
pub fn watch_event(out: &mut Vec<u8>, kind: &str, document: &[u8]) {
    let raw = framed_length(1, document.len());
    let length = framed_length(1, kind.len()) + framed_length(2, raw);
    out.extend_from_slice(&u32::try_from(length).expect("objects are bounded").to_be_bytes());
    let mut writer = Writer(out);
    writer.bytes(1, kind.as_bytes());
    writer.frame(2, raw);
    writer.bytes(1, document);
}
