//! The structural schema of every kind, and the decoder that makes any document an object of its kind.
//!
//! A [`Schema`] says what values of one place look like. Named structs are compiled from `facts/types.tsv` when they are first
//! reached, once for all kinds that embed them, so an idle server holds only what it has used; all texts are slices of the table.
//!
//! The table's lines (tab-separated; an empty column says no):
//!
//! ```text
//! type   name  atomic
//! field  json-name  type  go-type  flags  embedded-in  protobuf  patch-strategy  patch-merge-key  list-type  map-keys  map-type  default  enum  more
//! ```
//!
//! A type is `string`, `bool`, `int32` ..., `bytes`, `any`, the name of a struct, `[]` or `{}` followed by the type of items or values. Flags: `p` pointer,
//! `o` omitempty, `z` omitzero, `r` required by OpenAPI, `d` the zero value stands as OpenAPI default, `l` the items (or values) of the list do so.
//! Protobuf is `number:wire`, with the way through embedded messages before it, joined by `/`.
mod decode;
mod mismatch;
mod numbers;
mod places;
#[cfg(test)]
mod tests;
pub(crate) mod time;
mod types;

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

pub use decode::{DecodeError, Decoded, decode, go_name, zero};
pub use mismatch::mismatch;
pub use numbers::Numbers;
use places::Places;

use crate::tree::Tree;

/// A text of the facts, or of a CustomResourceDefinition.
pub type Name = Cow<'static, str>;

/// What values of one place look like.
#[derive(Debug)]
pub struct Schema {
    pub node: Node,
    /// The Go type without pointers, as error messages name it: `v1.PodSpec`, `[]v1.Container`, `int32`.
    pub go_type: Name,
    /// Rare facts; `None` when there are none.
    extra: Option<Box<Extra>>,
}

#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub list_type: Option<ListType>,
    pub map_keys: Vec<Name>,
    /// `x-kubernetes-map-type` of the field, which counts more than that of its struct.
    pub atomic_map: Option<bool>,
    pub patch_strategy: PatchStrategy,
    pub patch_merge_key: Option<Name>,
    pub default: Option<Tree>,
    pub enumeration: Vec<Name>,
}

/// The shape of a value.
#[derive(Debug)]
pub enum Node {
    /// An object with named fields.
    Object(StructRef),
    /// An object with free keys.
    Map(Box<Schema>),
    List(Box<Schema>),
    String,
    /// Base64 in JSON.
    Bytes,
    Integer {
        bits: u8,
        signed: bool,
    },
    Number,
    Boolean,
    IntOrString,
    Quantity,
    /// RFC 3339 in whole seconds.
    Time,
    /// RFC 3339 with six digits after the point.
    MicroTime,
    /// Go's duration: `1m30s`.
    Duration,
    /// Anything at all, kept as it is (RawExtension, FieldsV1, a CRD's JSON).
    Any,
}

/// A [`Struct`], compiled when it is first looked at (structs may contain themselves).
#[derive(Clone)]
pub struct StructRef(Reference);

#[derive(Clone)]
enum Reference {
    /// One of the facts, by its place in the table.
    Facts(u16),
    /// One of a CustomResourceDefinition.
    Owned(Arc<Struct>),
}

impl Deref for StructRef {
    type Target = Struct;

    fn deref(&self) -> &Struct {
        match &self.0 {
            Reference::Facts(index) => types::by_index(*index),
            Reference::Owned(structure) => structure,
        }
    }
}

impl From<Struct> for StructRef {
    fn from(structure: Struct) -> Self {
        StructRef(Reference::Owned(Arc::new(structure)))
    }
}

impl fmt::Debug for StructRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A named struct of the API.
#[derive(Debug)]
pub struct Struct {
    /// OpenAPI's name: `io.k8s.api.core.v1.PodSpec`.
    pub name: Name,
    /// Server-side apply and strategic merge treat it as one value.
    pub atomic: bool,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// The places in `fields` of those that have a protobuf form, in the order of their numbers.
    pub by_number: Box<[u16]>,
    places: Places,
}

/// One named field of a struct.
#[derive(Debug)]
pub struct Field {
    pub name: Name,
    pub schema: Schema,
    /// Absent differs from zero.
    pub pointer: bool,
    /// The zero value is not written.
    pub omit_empty: bool,
    /// As `omit_empty`, for structs too.
    pub omit_zero: bool,
    /// OpenAPI lists it as required.
    pub required: bool,
    /// OpenAPI shows the zero value as default (no defaulting happens by it).
    pub zero_default: bool,
    /// The same for the items or values.
    pub zero_item_default: bool,
    /// The Go field of the embedded struct that holds it (`VolumeSource`), part of paths in type errors.
    pub embedded_in: Name,
    /// None where there is no protobuf form.
    pub numbers: Numbers,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// `patchStrategy` of strategic merge patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

impl Struct {
    fn new(name: Name, atomic: bool, fields: Vec<Field>) -> Self {
        let place = |i: usize| u16::try_from(i).expect("structs have a few dozen fields");
        let mut by_number: Vec<u16> = (0..fields.len()).filter(|i| !fields[*i].numbers.is_empty()).map(place).collect();
        by_number.sort_by_key(|i| fields[usize::from(*i)].numbers);
        let places = Places::of(&fields);
        Self { name, atomic, fields, by_number: by_number.into(), places }
    }

    /// Where in `fields` the one of that name stands.
    pub fn place(&self, name: &[u8]) -> Option<usize> {
        self.places.find(&self.fields, name)
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.place(name.as_bytes()).map(|place| &self.fields[place])
    }

    /// The name in Go, without package: `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

impl Schema {
    /// The named fields; none unless the value is an object with such.
    pub fn fields(&self) -> &[Field] {
        match &self.node {
            Node::Object(fields) => &fields.fields,
            _ => &[],
        }
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.node {
            Node::Object(fields) => fields.field(name),
            _ => None,
        }
    }

    /// The schema at `name`: of a field, or of a map's values.
    pub fn get(&self, name: &str) -> Option<&Schema> {
        match &self.node {
            Node::Object(fields) => fields.field(name).map(|f| &f.schema),
            Node::Map(values) => Some(values),
            _ => None,
        }
    }

    /// Follows names; lists are passed through to their items.
    pub fn at(&self, path: &[&str]) -> Option<&Schema> {
        path.iter().try_fold(self, |schema, name| match &schema.node {
            Node::List(items) => items.get(name),
            _ => schema.get(name),
        })
    }

    /// The schema of a list's items.
    pub fn items(&self) -> Option<&Schema> {
        match &self.node {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The schema of a map's values.
    pub fn values(&self) -> Option<&Schema> {
        match &self.node {
            Node::Map(values) => Some(values),
            _ => None,
        }
    }

    pub fn is_list(&self) -> bool {
        matches!(self.node, Node::List(_))
    }

    /// `None`: upstream says nothing, which means atomic.
    pub fn list_type(&self) -> Option<ListType> {
        self.extra.as_ref()?.list_type
    }

    pub fn map_keys(&self) -> &[Name] {
        self.extra.as_ref().map_or(&[], |e| &e.map_keys)
    }

    /// An object or map that is owned and replaced as a whole.
    pub fn is_atomic_map(&self) -> bool {
        let own = self.extra.as_ref().and_then(|extra| extra.atomic_map);
        own.unwrap_or_else(|| matches!(&self.node, Node::Object(fields) if fields.atomic))
    }

    pub fn patch_strategy(&self) -> PatchStrategy {
        self.extra.as_ref().map_or(PatchStrategy::default(), |e| e.patch_strategy)
    }

    pub fn patch_merge_key(&self) -> Option<&str> {
        self.extra.as_ref()?.patch_merge_key.as_deref()
    }

    /// A real default, one that a missing field takes; written by the schema, not by code.
    pub fn default(&self) -> Option<&Tree> {
        self.extra.as_ref()?.default.as_ref()
    }

    /// The values upstream's enum types allow; empty where any text is allowed.
    pub fn enumeration(&self) -> &[Name] {
        self.extra.as_ref().map_or(&[], |e| &e.enumeration)
    }
}

/// The schema of a named struct of the facts, as the registry names it.
pub(crate) fn of_type(name: &'static str) -> &'static Schema {
    types::schema(name)
}

/// The struct of that name; compiled when first asked for.
pub fn structure(name: &str) -> Option<&'static Struct> {
    types::structure(name)
}
