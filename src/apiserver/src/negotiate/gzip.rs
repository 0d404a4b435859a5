//! Compression of answers, for clients that take it.
//!
//! Models k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go and, of watches, handlers/watch.go perFlushGzipWriter.
use std::io::Write as _;

use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compression, Crc};

/// Answers larger than this are compressed.
pub const BYTES_MIN: usize = 128 << 10;
/// A piece of a watch that is not worth an encoder, whose state is a quarter of a megabyte; it is wrapped as it is.
const STORED_BYTES_MAX: usize = 1024;

/// Level 1, as upstream.
fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::new(1))
}

pub fn whole(bytes: &[u8]) -> Bytes {
    let mut encoder = encoder();
    encoder.write_all(bytes).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail").into()
}

/// A piece of a stream as a member of its own, so that no state is held while a watch is idle.
///
/// An empty block that is not the last stands behind the data, as a flush writes it: with the last one, Go's reader would look for the next
/// member before it hands out what it has.
pub fn member(bytes: &[u8]) -> Bytes {
    if bytes.len() > STORED_BYTES_MAX {
        let mut encoder = encoder();
        encoder.write_all(bytes).and_then(|()| encoder.flush()).expect("writing to memory does not fail");
        return encoder.finish().expect("writing to memory does not fail").into();
    }
    let length = u16::try_from(bytes.len()).expect("checked above");
    let mut crc = Crc::new();
    crc.update(bytes);
    // RFC 1952: magic, deflate, no flags, no time, fastest, unknown system.
    let mut out = Vec::with_capacity(bytes.len() + 33);
    out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255]);
    // RFC 1951: blocks as they are, each with its length twice; the data, the flush, the end.
    out.push(0);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(&[0, 0, 0, 255, 255]);
    out.extend_from_slice(&[1, 0, 0, 255, 255]);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out.into()
}

/// Compresses pieces as they come; nothing but the encoder's window is held.
pub fn pieces(mut pieces: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let mut state = Some(encoder());
    std::iter::from_fn(move || {
        let mut encoder = state.take()?;
        for piece in pieces.by_ref() {
            encoder.write_all(&piece).expect("writing to memory does not fail");
            if !encoder.get_ref().is_empty() {
                let out = std::mem::take(encoder.get_mut());
                state = Some(encoder);
                return Some(out.into());
            }
        }
        Some(encoder.finish().expect("writing to memory does not fail").into())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn members_follow_each_other() {
        let long = "abc".repeat(1000);
        let stream = [member(b"short\n"), member(long.as_bytes()), member(b"")].concat();
        assert_eq!(unpacked(&stream), format!("short\n{long}").as_bytes());
        for piece in [&b"short\n"[..], long.as_bytes()] {
            assert!(member(piece).windows(5).any(|w| w == [0, 0, 0, 255, 255] || w[1..] == [0, 0, 255, 255]));
        }
    }

    #[test]
    fn pieces_are_one_stream() {
        let piece = Bytes::from(vec![b'x'; 100_000]);
        let stream: Vec<u8> = pieces(std::iter::repeat_n(piece, 9)).flatten().collect();
        assert_eq!(unpacked(&stream), vec![b'x'; 900_000]);
        assert!(stream.len() < 20_000);
    }
}
