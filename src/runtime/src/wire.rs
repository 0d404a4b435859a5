//! The flat binary form in which plans lie on disk and orders travel to a shim: little-endian integers, `u32` counts
//! before sequences, no field names, no versions (a shim is always of the build that wrote its sandbox's plan: plans carry
//! the magic of their form, and a mismatch is an error).

use std::ffi::CString;

/// The bytes are not what was expected. Only a damaged file or another build can cause it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<Malformed> for std::io::Error {
    fn from(_: Malformed) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, "malformed record")
    }
}

pub(crate) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(input: &mut &[u8]) -> Result<Self, Malformed>;
}

pub(crate) fn encode<T: Wire>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    value.put(&mut out);
    out
}

/// The whole input, to the last byte.
pub(crate) fn decode<T: Wire>(mut input: &[u8]) -> Result<T, Malformed> {
    let value = T::take(&mut input)?;
    if input.is_empty() { Ok(value) } else { Err(Malformed) }
}

fn bytes<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = input.split_at_checked(count).ok_or(Malformed)?;
    *input = tail;
    Ok(head)
}

macro_rules! integers {
    ($($kind:ty),*) => { $(
        impl Wire for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
                let raw = bytes(input, size_of::<$kind>())?;
                Ok(<$kind>::from_le_bytes(raw.try_into().map_err(|_| Malformed)?))
            }
        }
    )* };
}
integers!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
}

impl Wire for () {
    fn put(&self, _out: &mut Vec<u8>) {}
    fn take(_input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(())
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        let count = u32::take(input)? as usize;
        String::from_utf8(bytes(input, count)?.to_vec()).map_err(|_| Malformed)
    }
}

impl Wire for CString {
    fn put(&self, out: &mut Vec<u8>) {
        (self.as_bytes().len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        let count = u32::take(input)? as usize;
        CString::new(bytes(input, count)?).map_err(|_| Malformed)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(if bool::take(input)? { Some(T::take(input)?) } else { None })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        for item in self {
            item.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        let count = u32::take(input)? as usize;
        // A count is only a claim: what is reserved stays within what the input could hold.
        let mut items = Vec::with_capacity(count.min(input.len()));
        for _ in 0..count {
            items.push(T::take(input)?);
        }
        Ok(items)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok((A::take(input)?, B::take(input)?))
    }
}

/// A last field that plans on disk of earlier versions do not have: a shim outlives the rk that started it, and is told to start
/// containers by the next one. New fields are appended, one behind the other, and never change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Later<T>(pub T);

impl<T: Wire + Default> Wire for Later<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        if input.is_empty() { Ok(Self::default()) } else { T::take(input).map(Later) }
    }
}

/// Writes the fields in the order given.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $( $crate::wire::Wire::put(&self.$field, out); )*
            }
            fn take(input: &mut &[u8]) -> Result<Self, $crate::wire::Malformed> {
                $( let $field = $crate::wire::Wire::take(input)?; )*
                Ok($name { $($field),* })
            }
        }
    };
}

/// One tag byte, then the fields of the variant.
macro_rules! wire_enum {
    ($name:ident { $($tag:literal => $variant:ident { $($field:ident),* $(,)? }),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $( $name::$variant { $($field),* } => {
                        out.push($tag);
                        $( $crate::wire::Wire::put($field, out); )*
                    } )*
                }
            }
            fn take(input: &mut &[u8]) -> Result<Self, $crate::wire::Malformed> {
                match <u8 as $crate::wire::Wire>::take(input)? {
                    $( $tag => {
                        $( let $field = $crate::wire::Wire::take(input)?; )*
                        Ok($name::$variant { $($field),* })
                    } )*
                    _ => Err($crate::wire::Malformed),
                }
            }
        }
    };
}
pub(crate) use {wire_enum, wire_struct};

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Shape {
        Point {},
        Line { length: u32, name: Option<String> },
    }
    wire_enum!(Shape { 1 => Point {}, 2 => Line { length, name } });

    #[test]
    fn a_later_field_may_be_absent() {
        assert_eq!(decode::<(u32, Later<Option<String>>)>(&encode(&7u32)), Ok((7, Later(None))));
        let value = (7u32, Later(Some("x".to_owned())));
        assert_eq!(decode(&encode(&value)), Ok(value));
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let shapes = vec![Shape::Point {}, Shape::Line { length: 7, name: Some("x".into()) }];
        let mut raw = encode(&shapes);
        assert_eq!(decode::<Vec<Shape>>(&raw), Ok(shapes));
        for cut in 0..raw.len() {
            assert!(decode::<Vec<Shape>>(&raw[..cut]).is_err());
        }
        raw.push(0);
        assert!(decode::<Vec<Shape>>(&raw).is_err());
        assert!(decode::<Vec<String>>(&[255, 255, 255, 255]).is_err());
        assert!(decode::<CString>(&[1, 0, 0, 0, 0]).is_err());
    }
}
