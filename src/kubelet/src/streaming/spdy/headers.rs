//! Header blocks: names and values, compressed with a dictionary both ends know (SPDY/3, section 2.6.10).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// A header block is a few hundred bytes.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const PAIRS_MAX: u32 = 64;

pub type Headers = Vec<(String, String)>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("spdy: header block does not decompress")]
    Zlib,
    #[error("spdy: header block is too large")]
    TooLarge,
    #[error("spdy: header block is malformed")]
    Malformed,
}

/// The value of a header, by lower-case name.
pub fn get<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

/// The dictionary of SPDY/3.
fn dictionary() -> Vec<u8> {
    const NAMES: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow \
        authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 \
        content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since \
        last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer \
        transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public \
        set-cookie keep-alive origin";
    const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative \
Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not \
Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,\
text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut out = Vec::with_capacity(1423);
    for name in NAMES.split_whitespace() {
        let name = name.replace('_', " ");
        out.extend_from_slice(&(name.len() as u32).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(REST.as_bytes());
    out
}

/// One direction's decompressor; blocks must come in the order in which they were sent.
pub struct Decoder {
    zlib: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { zlib: Decompress::new(true) }
    }
}

impl Decoder {
    pub fn decode(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        let mut plain = Vec::with_capacity(1024);
        let mut input = block;
        loop {
            if plain.len() >= BLOCK_BYTES_MAX {
                return Err(HeaderError::TooLarge);
            }
            plain.reserve(1024);
            let (before_in, before_out) = (self.zlib.total_in(), plain.len());
            let result = self.zlib.decompress_vec(input, &mut plain, FlushDecompress::Sync);
            let used = usize::try_from(self.zlib.total_in() - before_in).unwrap_or(usize::MAX);
            input = input.get(used..).unwrap_or_default();
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&dictionary()).map_err(|_| HeaderError::Zlib)?;
                }
                Err(_) => return Err(HeaderError::Zlib),
                Ok(Status::StreamEnd) => break,
                Ok(_) if input.is_empty() && plain.len() < plain.capacity() => break,
                Ok(_) if used == 0 && plain.len() == before_out => break,
                Ok(_) => {}
            }
        }
        parse(Bytes::from(plain))
    }
}

fn parse(mut plain: Bytes) -> Result<Headers, HeaderError> {
    let number = |plain: &mut Bytes| if plain.len() < 4 { Err(HeaderError::Malformed) } else { Ok(plain.get_u32()) };
    let pairs = number(&mut plain)?;
    if pairs > PAIRS_MAX {
        return Err(HeaderError::TooLarge);
    }
    let mut out = Headers::new();
    for _ in 0..pairs {
        let mut text = || -> Result<String, HeaderError> {
            let length = number(&mut plain)? as usize;
            if plain.len() < length {
                return Err(HeaderError::Malformed);
            }
            String::from_utf8(plain.split_to(length).to_vec()).map_err(|_| HeaderError::Malformed)
        };
        out.push((text()?, text()?));
    }
    Ok(out)
}

/// One direction's compressor.
pub struct Encoder {
    zlib: Compress,
    primed: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { zlib: Compress::new(Compression::default(), true), primed: false }
    }
}

impl Encoder {
    pub fn encode(&mut self, headers: &Headers) -> Result<Bytes, HeaderError> {
        if !self.primed {
            self.zlib.set_dictionary(&dictionary()).map_err(|_| HeaderError::Zlib)?;
            self.primed = true;
        }
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let before = self.zlib.total_in();
        loop {
            let used = usize::try_from(self.zlib.total_in() - before).unwrap_or(usize::MAX);
            let room = out.capacity() - out.len();
            let had = out.len();
            self.zlib.compress_vec(plain.get(used..).unwrap_or_default(), &mut out, FlushCompress::Sync).map_err(|_| HeaderError::Zlib)?;
            let all = self.zlib.total_in() - before >= plain.len() as u64;
            if all && out.len() - had < room {
                return Ok(Bytes::from(out));
            }
            out.reserve(256);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adler32(data: &[u8]) -> u32 {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in data {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_that_of_the_protocol() {
        assert_eq!(dictionary().len(), 1423);
        // Every SPDY/3 connection begins with 78 xx e3 c6 a7 c2: the checksum of the dictionary.
        assert_eq!(adler32(&dictionary()), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_one_connection_share_their_context() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for n in 0..50 {
            let headers: Headers = vec![("streamtype".into(), "data".into()), ("port".into(), "80".into()), ("requestid".into(), n.to_string())];
            let block = encoder.encode(&headers).expect("compressed");
            assert_eq!(decoder.decode(&block).expect("decompressed"), headers);
        }
        let empty = encoder.encode(&Headers::new()).expect("compressed");
        assert_eq!(decoder.decode(&empty), Ok(Headers::new()));
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let block = encoder.encode(&vec![("a".into(), "x".repeat(1 << 20))]).expect("compressed");
        assert_eq!(decoder.decode(&block), Err(HeaderError::TooLarge));
        assert!(Decoder::default().decode(b"nonsense").is_err());
    }
}
