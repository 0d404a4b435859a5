//! The name of a field.
//!
//! Most objects have the same few names, and a tree has more of them than values: those that the API itself knows are slices of its table,
//! made once, and only others take memory of their own.
use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;
use std::sync::LazyLock;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use crate::facts;
use crate::schema::Name;

/// A key of an [`super::Object`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Cow<'static, str>);

/// Names that no struct has, and that stand in very many objects.
const OTHERS: [&str; 5] = [".", "cpu", "memory", "ephemeral-storage", "kubernetes.io/hostname"];

/// All texts that are known, and where each stands.
struct Known {
    /// First the names, then the step that each is in managed fields, in the same order.
    texts: Vec<&'static str>,
    names: usize,
    /// One more than the index of a text, by its hash; 0: none. Twice as many as there are texts at least.
    slots: Box<[u16]>,
    shift: u32,
}

static KNOWN: LazyLock<Known> = LazyLock::new(Known::new);

impl Known {
    fn new() -> Self {
        let fields = facts::TYPES.lines().filter_map(|line| line.strip_prefix("field\t")?.split('\t').next());
        let mut names: Vec<&'static str> = fields.chain(OTHERS).collect();
        names.sort_unstable();
        names.dedup();
        let steps: String = names.iter().map(|name| format!("f:{name}")).collect();
        let mut rest: &'static str = steps.leak();
        let mut texts = names.clone();
        for name in &names {
            let (step, others) = rest.split_at(name.len() + 2);
            texts.push(step);
            rest = others;
        }
        let bits = (2 * texts.len()).next_power_of_two().ilog2();
        let mut known = Self { texts: Vec::new(), names: names.len(), slots: vec![0; 1 << bits].into(), shift: u64::BITS - bits };
        for (text, number) in texts.iter().zip(1..) {
            let free = known.places(text).find(|slot| known.slots[*slot] == 0).expect("half of the slots stay free");
            known.slots[free] = number;
        }
        known.texts = texts;
        known
    }

    /// Where the text can stand, in the order in which it is looked for.
    fn places(&self, text: &str) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        let first = (hash(text.as_bytes()) >> self.shift) as usize;
        (0..=mask).map(move |step| (first + step) & mask)
    }

    fn index(&self, text: &str) -> Option<usize> {
        let numbers = self.places(text).map(|slot| usize::from(self.slots[slot])).take_while(|number| *number > 0);
        numbers.map(|number| number - 1).find(|index| self.texts[*index] == text)
    }

    fn find(&self, text: &str) -> Option<&'static str> {
        self.index(text).map(|index| self.texts[index])
    }
}

/// Of both ends and the length: names differ there.
fn hash(text: &[u8]) -> u64 {
    let (first, last) = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (text.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
    };
    (first ^ last.rotate_left(29) ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Key {
    /// The name of a field of a schema: a text of the facts is taken as it is.
    pub fn of(name: &Name) -> Self {
        Self(name.clone())
    }

    /// The step to a field of this name, `f:NAME`.
    pub fn step(name: &str) -> Self {
        match KNOWN.index(name).filter(|index| *index < KNOWN.names) {
            Some(index) => Self(Cow::Borrowed(KNOWN.texts[KNOWN.names + index])),
            None => Self(Cow::Owned(["f:", name].concat())),
        }
    }

    /// A name that nobody knows beforehand: the key of a map, or of a set's item.
    pub fn owned(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(KNOWN.find(text).map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(KNOWN.find(&text).map_or(Cow::Owned(text), Cow::Borrowed))
    }
}

impl From<Box<str>> for Key {
    fn from(text: Box<str>) -> Self {
        String::from(text).into()
    }
}

impl From<Cow<'_, str>> for Key {
    fn from(text: Cow<'_, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0.into_owned()
    }
}

impl From<Key> for Box<str> {
    fn from(key: Key) -> Self {
        key.0.into()
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq<str> for Key {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
        Ok(text.into())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Key, E> {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_api_take_no_memory_of_their_own() {
        let is_shared = |text: &str| matches!(Key::from(text).0, Cow::Borrowed(_)) && matches!(Key::from(text.to_owned()).0, Cow::Borrowed(_));
        for text in ["metadata", "f:metadata", "creationTimestamp", "requiredDuringSchedulingIgnoredDuringExecution", "f:x-kubernetes-validations", "."] {
            assert!(is_shared(text), "{text}");
        }
        for text in ["", "f:", "metadat", "metadataa", "f:nobody", "k:{\"name\":\"a\"}", "example.com/label", "\u{e4}"] {
            assert!(!is_shared(text), "{text}");
        }
        for text in KNOWN.texts.iter().copied().chain(["", "x", "a label that is long"]) {
            assert_eq!(&*Key::from(text), text);
            assert_eq!(*Key::step(text), format!("f:{text}"));
        }
        assert!(matches!(Key::step("metadata").0, Cow::Borrowed("f:metadata")));
    }

    #[test]
    fn few_names_share_their_place() {
        let steps = |text: &&str| KNOWN.places(text).take_while(|slot| KNOWN.texts[usize::from(KNOWN.slots[*slot]) - 1] != *text).count();
        let all: usize = KNOWN.texts.iter().map(steps).sum();
        assert!(all < KNOWN.texts.len(), "{all} steps beyond the first for {} texts", KNOWN.texts.len());
    }

    #[test]
    fn a_key_is_found_by_its_text() {
        let set: std::collections::HashSet<Key> = ["name", "other/name"].map(Key::from).into();
        assert!(set.contains("name") && set.contains("other/name") && !set.contains("nam"));
    }
}
