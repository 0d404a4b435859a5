//! Values, as the evaluator has them: they borrow from the caller's data where they can.
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use crate::authorize::{Authorize, ResourceCheck};
use crate::evaluate::{EvaluationError, Lazy};
use crate::json::{Json, View};
use crate::list::List;
use crate::map::{Entries, Map};
use crate::quantity::Quantity;
use crate::special::Special;
use crate::time::Timestamp;
use crate::{Declared, ListKind, Shape, Type};

mod equal;
mod names;
mod plain;
pub(crate) use equal::same_json;
pub use plain::Plain;

/// A value. Cloning is cheap. Compare, index and print values by expressions; this type only lets them in and out.
#[derive(Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Octets<'a>),
    /// Nanoseconds, as Go counts them.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    /// Objects too: upstream has them as maps.
    Map(Map<'a>),
    Optional(Option<Rc<Value<'a>>>),
    Type(Type),
    /// Made on demand by the caller.
    Lazy(Rc<dyn Lazy<'a> + 'a>),
    Authorizer(&'a dyn Authorize),
    ResourceCheck(&'a dyn Authorize, Rc<ResourceCheck>),
    /// What only functions look into.
    Special(Rc<Special<'a>>),
    /// Data that is not what it was declared to be: an error to whoever reads it.
    Wrong(Rc<EvaluationError>),
}

/// A string of the caller's, or one that was made.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

#[derive(Clone)]
pub enum Octets<'a> {
    Borrowed(&'a [u8]),
    Shared(Rc<[u8]>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl Deref for Octets<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Octets::Borrowed(bytes) => bytes,
            Octets::Shared(bytes) => bytes,
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::String(Text::Shared(text.into()))
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Value::List(List::Made(Rc::new(items)))
    }
}

/// What data is read as where nothing is declared.
pub(crate) static ANY: Declared = Declared::any();
static WHOLE: ListKind = ListKind::Atomic;

impl<'a> Value<'a> {
    /// Reads a node as what it was declared to be; nothing is copied, and lists and objects are looked into on demand.
    /// A node that is not what it was declared to be is an error to the expression that reads it.
    /// Models k8s.io/apiserver/pkg/cel/common/valuesunstructured.go UnstructuredToVal.
    pub fn read(json: &'a dyn Json, declared: &'a Declared) -> Self {
        let view = json.view();
        match (&declared.shape, view) {
            (Shape::Dyn, view) => match view {
                View::Null => Value::Null,
                View::Bool(b) => Value::Bool(b),
                View::Int(i) => Value::Int(i),
                View::Double(d) => Value::Double(d),
                View::String(text) => Value::str(text),
                View::Array => Value::List(List::Json { json, element: &ANY, kind: &WHOLE, typed: false }),
                View::Object => Value::Map(Map::Json { json, value: &ANY, typed: false }),
            },
            (Shape::Null, View::Null) => Value::Null,
            (_, View::Null) if declared.nullable => Value::Null,
            (_, View::Null) => Value::wrong("invalid data, got null for schema with nullable=false"),
            (Shape::IntOrString, View::Int(i)) | (Shape::Int, View::Int(i)) => Value::Int(i),
            (Shape::IntOrString | Shape::String, View::String(text)) => Value::str(text),
            (Shape::IntOrString, _) => Value::wrong("invalid data, expected XIntOrString value to be either a string or integer"),
            (Shape::Uint, View::Int(i)) if i >= 0 => Value::Uint(i as u64),
            (Shape::Bool, View::Bool(b)) => Value::Bool(b),
            (Shape::Double, View::Int(i)) => Value::Double(i as f64),
            (Shape::Double, View::Double(d)) => Value::Double(d),
            (Shape::Bytes, View::String(text)) => match crate::functions::decode_base64(text) {
                Ok(bytes) => Value::Bytes(Octets::Shared(bytes.into())),
                Err(error) => Value::wrong(format!("Invalid byte formatted string {text}: {error}")),
            },
            (Shape::Duration, View::String(text)) => match crate::time::parse_declared_duration(text) {
                Some(nanos) => Value::Duration(nanos),
                None => Value::wrong(format!("Invalid duration {text}: unable to parse {text} as duration")),
            },
            (Shape::Timestamp, View::String(text)) => match crate::time::parse_declared_timestamp(text) {
                Some(at) => Value::Timestamp(at),
                None => Value::wrong(format!("Invalid date-time formatted string {text}")),
            },
            (Shape::Date, View::String(text)) => match crate::time::parse_date(text) {
                Some(at) => Value::Timestamp(at),
                None => Value::wrong(format!("Invalid date formatted string {text}")),
            },
            (Shape::List { element, kind }, View::Array) => Value::List(List::Json { json, element, kind, typed: true }),
            (Shape::Map { value }, View::Object) => Value::Map(Map::Json { json, value, typed: true }),
            (Shape::Object(of), View::Object) => Value::Map(Map::Object { json, of }),
            (Shape::Object(_) | Shape::Map { .. }, _) => {
                Value::wrong("invalid data, expected a map for the provided schema with type=object")
            }
            (Shape::List { .. }, _) => Value::wrong("invalid data, expected an array for the provided schema with type=array"),
            (shape, view) => Value::wrong(format!("invalid data, expected {}, got {}", shape.wanted(), view.go_type())),
        }
    }

    fn wrong(message: impl Into<String>) -> Self {
        Value::Wrong(Rc::new(EvaluationError::new(message)))
    }

    /// The value, or the error that it stands for.
    pub(crate) fn sound(self) -> Result<Value<'a>, EvaluationError> {
        match self {
            Value::Wrong(error) => Err((*error).clone()),
            value => Ok(value),
        }
    }

    pub fn str(text: &'a str) -> Self {
        Value::String(Text::Borrowed(text))
    }

    /// An optional with a value, as `optional.of(value)` makes it; `None` is `optional.none()`.
    pub fn optional(value: Option<Value<'a>>) -> Self {
        Value::Optional(value.map(Rc::new))
    }

    /// A map that is made at once. Selecting a key that it does not have gives `otherwise`, if there is one; `in` tells the difference.
    pub fn map(entries: impl IntoIterator<Item = (Value<'a>, Value<'a>)>, otherwise: Option<Value<'a>>) -> Self {
        let mut made = Entries::default();
        entries.into_iter().for_each(|(key, value)| made.set(key, value));
        Value::Map(Map::made(match otherwise {
            Some(value) => made.with_otherwise(value),
            None => made,
        }))
    }

    /// As `quantity(...)` makes it; its type is `Type::Opaque("kubernetes.Quantity")`.
    pub fn quantity(of: Quantity) -> Self {
        Value::special(Special::Quantity(of))
    }

    /// As `semver(...)` makes it.
    ///
    /// # Errors
    /// In upstream's words, where the text is no semantic version.
    pub fn semver(text: &str) -> Result<Self, String> {
        crate::functions::parse_semver(text).map(|version| Value::special(Special::Semver(version)))
    }

    pub(crate) fn special(of: Special<'a>) -> Self {
        Value::Special(Rc::new(of))
    }

    pub(crate) fn as_special(&self) -> Option<&Special<'a>> {
        match self {
            Value::Special(of) => Some(of),
            _ => None,
        }
    }

    pub(crate) fn as_quantity(&self) -> Option<&Quantity> {
        match self.as_special() {
            Some(Special::Quantity(of)) => Some(of),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Elements, entries, characters or bytes; `None` for what has no size.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Value::String(text) => Some(if text.is_ascii() { text.len() } else { text.chars().count() } as u64),
            Value::Bytes(bytes) => Some(bytes.len() as u64),
            Value::List(list) => Some(list.len() as u64),
            Value::Map(Map::Struct(_)) => None,
            Value::Map(map) => Some(map.len() as u64),
            Value::Special(of) => of.size(),
            _ => None,
        }
    }

    /// What `type(value)` is.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(Map::Struct(made)) => Type::Object(made.name.clone()),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(_) => Type::Type(None),
            Value::Lazy(of) => Type::object(of.type_name()),
            Value::Authorizer(_) => Type::Opaque("kubernetes.authorization.Authorizer"),
            Value::ResourceCheck(..) => Type::Opaque("kubernetes.authorization.ResourceCheck"),
            Value::Special(of) => Type::Opaque(of.type_name()),
            Value::Wrong(_) => Type::Error,
        }
    }
}

impl Value<'_> {
    /// What Go prints for its type.
    pub(crate) fn go_type(&self) -> &'static str {
        match self {
            Value::Null => "types.Null",
            Value::Bool(_) => "types.Bool",
            Value::Int(_) => "types.Int",
            Value::Uint(_) => "types.Uint",
            Value::Double(_) => "types.Double",
            Value::String(_) => "types.String",
            Value::Bytes(_) => "types.Bytes",
            Value::Duration(_) => "types.Duration",
            Value::Timestamp(_) => "types.Timestamp",
            Value::Optional(_) => "*types.Optional",
            Value::Type(_) => "*types.Type",
            Value::Special(of) => match &**of {
                Special::Quantity(_) => "cel.Quantity",
                Special::Ip(_) => "cel.IP",
                Special::Cidr { .. } => "cel.CIDR",
                Special::Url(_) => "cel.URL",
                Special::Semver(_) => "cel.Semver",
                Special::Format(_) => "cel.Format",
                _ => "library.authorizerVal",
            },
            _ => "*types.Err",
        }
    }
}

/// As Go's `%v` prints the value in messages.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Uint(u) => write!(f, "{u}"),
            Value::Double(d) => f.write_str(&crate::number::print_double(*d)),
            Value::String(text) => f.write_str(text),
            Value::Duration(nanos) => f.write_str(&crate::time::go_duration(*nanos)),
            Value::Timestamp(at) => f.write_str(&at.print()),
            Value::Type(of) => f.write_str(of.runtime_name()),
            other => f.write_str(other.type_of().runtime_name()),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::String(text) => write!(f, "{:?}", &**text),
            Value::List(list) => f.debug_list().entries(list.iter()).finish(),
            Value::Map(map) => f.debug_map().entries(map.entries()).finish(),
            Value::Optional(of) => f.debug_tuple("optional").field(of).finish(),
            other => write!(f, "{other}"),
        }
    }
}
