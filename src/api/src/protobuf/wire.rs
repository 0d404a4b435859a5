//! The wire format: tags, varints, length-delimited pieces (protobuf.dev/programming-guides/encoding).

/// One field as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: illegal tag {0}")]
    Tag(u64),
}

/// Reads a message field by field.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0).ok_or(WireError::Tag(tag))?;
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes"))),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Overflow)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes"))),
            other => return Err(WireError::WireType(other)),
        };
        Ok(Some((number, value)))
    }

    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(WireError::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Overflow)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Writes messages, one inside the other, into one buffer.
pub struct Writer<'o>(pub &'o mut Vec<u8>);

/// Where a message began whose length is not known yet.
#[must_use]
pub struct Open(usize);

impl Writer<'_> {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn varint(&mut self, number: u32, value: u64) {
        self.raw_varint(u64::from(number) << 3);
        self.raw_varint(value);
    }

    pub fn fixed64(&mut self, number: u32, value: u64) {
        self.raw_varint(u64::from(number) << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// The tag and the length of what is written next.
    #[inline]
    pub fn frame(&mut self, number: u32, length: usize) {
        if number < 0x10 && length < 0x80 {
            self.0.extend_from_slice(&[(number << 3 | 2) as u8, length as u8]);
            return;
        }
        self.raw_varint(u64::from(number) << 3 | 2);
        self.raw_varint(length as u64);
    }

    #[inline]
    pub fn bytes(&mut self, number: u32, value: &[u8]) {
        self.frame(number, value.len());
        self.0.extend_from_slice(value);
    }

    /// Begins a message; one byte is kept for its length, which most need.
    pub fn open(&mut self, number: u32) -> Open {
        self.frame(number, 0);
        Open(self.0.len())
    }

    pub fn close(&mut self, Open(start): Open) {
        let end = self.0.len();
        let length = end - start;
        if length < 0x80 {
            self.0[start - 1] = length as u8;
            return;
        }
        let more = varint_length(length) - 1;
        self.0.resize(end + more, 0);
        self.0.copy_within(start..end, start + more);
        let mut rest = length;
        for byte in &mut self.0[start - 1..start + more] {
            *byte = (rest & 0x7f) as u8 | if rest >= 0x80 { 0x80 } else { 0 };
            rest >>= 7;
        }
    }
}

/// How many bytes a varint takes.
pub fn varint_length(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// What [`Writer::frame`] writes, and what follows it.
pub fn framed_length(number: u32, length: usize) -> usize {
    varint_length((number as usize) << 3) + varint_length(length) + length
}
