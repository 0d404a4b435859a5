//! Kubernetes' protobuf form, driven by the same schema as everything else.
//!
//! A document is the magic `k8s\0` and a `runtime.Unknown` message: `1` TypeMeta (`1` apiVersion, `2` kind), `2` the object's own
//! message, `3` content encoding, `4` content type (k8s.io/apimachinery/pkg/runtime/serializer/protobuf). apiVersion and kind
//! stand only there. Numbers come from the struct tags of upstream's Go types; the wire type in a tag is not to be believed
//! (`propagationPolicy` says varint and is a string), so the schema's node decides.
//!
//! Go writes every field that is a value, zero or not, and pointers only when set: a zero on the wire stands for "absent" where
//! the field is a value with omitempty, and for zero where it is a pointer (`replicas: 0`). So absent values need not be written,
//! and [`Form`] writes a message while it reads the object's JSON once, field by field as they stand, without a tree in between.
mod decode;
mod encode;
mod form;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub use decode::{DecodeError, decode};
pub use encode::EncodeError;
pub use form::{Form, ListForm, encode};
pub use watch::watch_event;

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every document begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// Messages inside messages.
const DEPTH_MAX: usize = 128;
/// Of the structs that are written as a schema, or as something simpler in its place.
const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The one list that is a message with the items as field 1, though no map's value: upstream marks its Go type as nullable.
fn is_named_list(list: &crate::schema::Schema) -> bool {
    list.go_type == "v1.Verbs"
}
