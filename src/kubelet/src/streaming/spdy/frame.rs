//! Frames from bytes and back. Pure; the input is whatever a client sends.

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub const FLAG_FIN: u8 = 0x01;
const VERSION: u16 = 3;
/// Clients send at most some tens of KiB at once.
pub const LENGTH_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream { id: u32, fin: bool, headers: Bytes },
    SynReply { id: u32, fin: bool, headers: Bytes },
    RstStream { id: u32, status: u32 },
    Settings,
    Ping { id: u32 },
    GoAway,
    Headers { id: u32, fin: bool, headers: Bytes },
    WindowUpdate,
    Data { id: u32, fin: bool, data: Bytes },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("spdy: version {0} is not supported")]
    Version(u16),
    #[error("spdy: control frame of unknown type {0}")]
    Type(u16),
    #[error("spdy: frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("spdy: frame of type {0} is too short")]
    TooShort(u16),
    #[error("spdy: stream id 0")]
    ZeroStream,
}

/// Takes one frame off the front; `Ok(None)` when more bytes are needed.
pub fn decode(input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    if input.len() < 8 {
        return Ok(None);
    }
    let word = u32::from_be_bytes([input[0], input[1], input[2], input[3]]);
    let flags = input[4];
    let length = usize::from(input[5]) << 16 | usize::from(input[6]) << 8 | usize::from(input[7]);
    if length > LENGTH_MAX {
        return Err(FrameError::TooLong(length));
    }
    if input.len() < 8 + length {
        return Ok(None);
    }
    input.advance(8);
    let mut body = input.split_to(length).freeze();
    let fin = flags & FLAG_FIN != 0;
    if word & 0x8000_0000 == 0 {
        if word == 0 {
            return Err(FrameError::ZeroStream);
        }
        return Ok(Some(Frame::Data { id: word, fin, data: body }));
    }
    let (version, kind) = ((word >> 16 & 0x7fff) as u16, (word & 0xffff) as u16);
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let needs = |bytes: usize, body: &Bytes| if body.len() < bytes { Err(FrameError::TooShort(kind)) } else { Ok(()) };
    let frame = match kind {
        1 => {
            needs(10, &body)?;
            let id = stream_id(&mut body)?;
            body.advance(6);
            Frame::SynStream { id, fin, headers: body }
        }
        2 => {
            needs(4, &body)?;
            let id = stream_id(&mut body)?;
            Frame::SynReply { id, fin, headers: body }
        }
        3 => {
            needs(8, &body)?;
            let id = stream_id(&mut body)?;
            Frame::RstStream { id, status: body.get_u32() }
        }
        4 => Frame::Settings,
        6 => {
            needs(4, &body)?;
            Frame::Ping { id: body.get_u32() }
        }
        7 => Frame::GoAway,
        8 => {
            needs(4, &body)?;
            let id = stream_id(&mut body)?;
            Frame::Headers { id, fin, headers: body }
        }
        9 => Frame::WindowUpdate,
        other => return Err(FrameError::Type(other)),
    };
    Ok(Some(frame))
}

fn stream_id(body: &mut Bytes) -> Result<u32, FrameError> {
    match body.get_u32() & 0x7fff_ffff {
        0 => Err(FrameError::ZeroStream),
        id => Ok(id),
    }
}

pub fn encode(frame: &Frame, out: &mut BytesMut) {
    let control = |out: &mut BytesMut, kind: u16, fin: bool, length: usize| {
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        out.put_u8(u8::from(fin) * FLAG_FIN);
        out.put_uint(length as u64, 3);
    };
    match frame {
        Frame::SynStream { id, fin, headers } => {
            control(out, 1, *fin, 10 + headers.len());
            out.put_u32(*id);
            out.put_u32(0);
            out.put_u16(0);
            out.put_slice(headers);
        }
        Frame::SynReply { id, fin, headers } => {
            control(out, 2, *fin, 4 + headers.len());
            out.put_u32(*id);
            out.put_slice(headers);
        }
        Frame::RstStream { id, status } => {
            control(out, 3, false, 8);
            out.put_u32(*id);
            out.put_u32(*status);
        }
        Frame::Settings => {
            control(out, 4, false, 4);
            out.put_u32(0);
        }
        Frame::Ping { id } => {
            control(out, 6, false, 4);
            out.put_u32(*id);
        }
        Frame::GoAway => {
            control(out, 7, false, 8);
            out.put_u64(0);
        }
        Frame::Headers { id, fin, headers } => {
            control(out, 8, *fin, 4 + headers.len());
            out.put_u32(*id);
            out.put_slice(headers);
        }
        Frame::WindowUpdate => {
            control(out, 9, false, 8);
            out.put_u64(0);
        }
        Frame::Data { id, fin, data } => {
            out.put_u32(*id);
            out.put_u8(u8::from(*fin) * FLAG_FIN);
            out.put_uint(data.len() as u64, 3);
            out.put_slice(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_way_out_and_back_in_any_pieces() {
        let frames = [
            Frame::SynStream { id: 1, fin: false, headers: Bytes::from_static(b"h") },
            Frame::SynReply { id: 1, fin: true, headers: Bytes::new() },
            Frame::RstStream { id: 3, status: 5 },
            Frame::Settings,
            Frame::Ping { id: 7 },
            Frame::GoAway,
            Frame::Headers { id: 5, fin: false, headers: Bytes::from_static(b"xy") },
            Frame::WindowUpdate,
            Frame::Data { id: 9, fin: true, data: Bytes::from_static(b"data") },
        ];
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encode(frame, &mut bytes);
        }
        let mut input = BytesMut::new();
        let mut got = Vec::new();
        for byte in bytes {
            input.put_u8(byte);
            while let Some(frame) = decode(&mut input).expect("frames") {
                got.push(frame);
            }
        }
        assert_eq!(got, frames);
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |bytes: &[u8]| decode(&mut BytesMut::from(bytes));
        assert_eq!(check(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(check(&[0x80, 3, 0, 99, 0, 0, 0, 0]), Err(FrameError::Type(99)));
        assert_eq!(check(&[0x80, 3, 0, 1, 0, 0, 0, 1, 0]), Err(FrameError::TooShort(1)));
        assert_eq!(check(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]), Err(FrameError::TooLong(0xff_ffff)));
        assert_eq!(check(&[0, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::ZeroStream));
    }

    #[test]
    fn no_input_makes_it_panic() {
        let mut seed = 0x2545_f491u32;
        for _ in 0..20_000 {
            let mut bytes = BytesMut::new();
            for _ in 0..24 {
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                bytes.put_u8(seed as u8);
            }
            bytes[5] = 0;
            bytes[6] = 0;
            let _ = decode(&mut bytes);
        }
    }
}
