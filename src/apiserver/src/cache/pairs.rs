//! Names and their values, in one piece of memory: what is looked at of every object in a list that selects stands in one place, and there
//! are few allocations for each of ten thousand objects.

/// Each text stands behind its length: one byte, or this one and four more.
const LONG: u8 = u8::MAX;

/// A few short texts by short names.
#[derive(Debug, Default)]
pub struct Pairs(Box<[u8]>);

impl Pairs {
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut rest = &*self.0;
        while let Some((found, after)) = take(rest) {
            let (value, after) = take(after)?;
            if found == name.as_bytes() {
                return std::str::from_utf8(value).ok();
            }
            rest = after;
        }
        None
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut out = Vec::new();
        for (name, value) in pairs {
            put(&mut out, name.as_ref());
            put(&mut out, value.as_ref());
        }
        Self(out.into())
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < LONG => out.push(length),
        _ => {
            out.push(LONG);
            out.extend_from_slice(&u32::try_from(text.len()).expect("objects are bounded").to_le_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    if *length < LONG {
        return rest.split_at_checked(usize::from(*length));
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_are_found_by_their_name() {
        let (long, longer) = ("x".repeat(255), "y\0é".repeat(1000));
        let all = [("a", ""), ("", "b"), (&*long, &*longer), ("c", "a"), ("d", &long[..254])];
        let pairs: Pairs = all.into_iter().collect();
        for (name, value) in all {
            assert_eq!(pairs.get(name), Some(value));
        }
        assert_eq!((pairs.get("b"), pairs.get("x"), Pairs::default().get("")), (None, None, None));
    }
}
