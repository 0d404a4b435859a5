//! Kubernetes' protobuf form, driven by the same schema as everything else.
//!
//! A document is the magic `k8s\0` and a `runtime.Unknown` message: `1` TypeMeta (`1` apiVersion, `2` kind), `2` the object's own
//! message, `3` content encoding, `4` content type (k8s.io/apimachinery/pkg/runtime/serializer/protobuf). apiVersion and kind
//! stand only there. Numbers come from the struct tags of upstream's Go types; the wire type in a tag is not to be believed
//! (`propagationPolicy` says varint and is a string), so the schema's node decides.
//!
//! Go writes every field that is a value, zero or not, and pointers only when set: a zero on the wire stands for "absent" where
//! the field is a value with omitempty, and for zero where it is a pointer (`replicas: 0`).
mod decode;
mod encode;
#[cfg(test)]
mod tests;
mod wire;

pub use decode::{DecodeError, decode};
pub use encode::{EncodeError, encode};

use crate::schema::{Field, Struct};

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every document begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// Messages inside messages.
const DEPTH_MAX: usize = 128;

/// The numbers on the way to a field: its own, behind those of the embedded messages that hold it. Upstream nests two at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Path {
    numbers: [u32; 4],
    length: usize,
}

impl Path {
    fn of(field: &Field) -> Option<Path> {
        // TypeMeta has numbers, but is part of the envelope and never of the message.
        if field.protobuf.is_empty() || field.embedded_in == "TypeMeta" {
            return None;
        }
        let mut path = Path { numbers: [0; 4], length: 0 };
        for step in field.protobuf.split('/') {
            let number = step.split(':').next()?.parse().ok()?;
            *path.numbers.get_mut(path.length)? = number;
            path.length += 1;
        }
        Some(path)
    }

    fn at(&self, depth: usize) -> u32 {
        self.numbers[depth]
    }

    fn is_last(&self, depth: usize) -> bool {
        self.length == depth + 1
    }
}

/// The fields of a struct that have a protobuf form, with their numbers.
fn numbered(structure: &Struct) -> Vec<(Path, &Field)> {
    structure.fields.iter().filter_map(|f| Some((Path::of(f)?, f))).collect()
}
