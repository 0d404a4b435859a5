//! One object of a mirror.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

/// How an object is kept.
pub(super) enum Kept<K> {
    /// Its text is held nowhere in this process.
    Decoded(Arc<K>),
    /// The server's own bytes, and beside them the object for as long as it is in use.
    Shared { text: Bytes, decoded: Option<Arc<K>>, used: AtomicBool },
}

/// What a look at an object gives; a text is decoded where no lock is held.
pub(super) enum Found<K> {
    Decoded(Arc<K>),
    Text(Bytes),
}

impl<K> Kept<K> {
    pub fn shared(text: Bytes) -> Self {
        Self::Shared { text, decoded: None, used: AtomicBool::new(false) }
    }

    /// The object, and that somebody wanted it.
    pub fn find(&self) -> Found<K> {
        if let Self::Shared { used, .. } = self {
            used.store(true, Ordering::Relaxed);
        }
        self.peek()
    }

    pub fn peek(&self) -> Found<K> {
        match self {
            Self::Decoded(object) | Self::Shared { decoded: Some(object), .. } => Found::Decoded(object.clone()),
            Self::Shared { text, .. } => Found::Text(text.clone()),
        }
    }

    pub fn text(&self) -> Option<Bytes> {
        match self {
            Self::Decoded(_) => None,
            Self::Shared { text, .. } => Some(text.clone()),
        }
    }

    /// Whether it is this text.
    pub fn is(&self, other: &Bytes) -> bool {
        matches!(self, Self::Shared { text, .. } if text == other)
    }

    /// Whether it takes room that its text does not.
    pub fn is_decoded_as_well(&self) -> bool {
        matches!(self, Self::Shared { decoded: Some(_), .. })
    }
}
