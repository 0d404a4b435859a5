//! The types that the checker knows.
use std::fmt;
use std::sync::Arc;

/// A type of the language.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Dyn,
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    /// Protobuf's `Any`: of any type, as `dyn`.
    Any,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// The type of a type; without one where it may be any.
    Type(Option<Arc<Type>>),
    /// A type parameter or a type still to be found, by number.
    Param(u32),
    /// An object type, by its name in the environment.
    Object(Arc<str>),
    /// A type that only functions look into: `kubernetes.Quantity`, `net.IP`.
    Opaque(&'static str),
}

impl Type {
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }

    pub fn object(name: &str) -> Type {
        Type::Object(name.into())
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Any)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Any | Type::Error)
    }

    /// Whether upstream keeps it as a struct without known fields, not as an opaque type; it shows in messages only.
    pub(crate) fn is_struct(&self) -> bool {
        match self {
            Type::Object(_) => true,
            Type::Opaque(name) => !name.starts_with("net."),
            _ => false,
        }
    }

    /// What `type(x)` compares and prints: `int`, `google.protobuf.Duration`.
    pub fn runtime_name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "error",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "google.protobuf.Duration",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Any => "google.protobuf.Any",
            Type::List(_) => "list",
            Type::Map(..) => "map",
            Type::Optional(_) => "optional_type",
            Type::Type(_) => "type",
            Type::Param(_) => "dyn",
            Type::Object(name) => name,
            Type::Opaque(name) => name,
        }
    }

    /// The type that a bare name stands for in an expression: `int`, `net.IP`.
    pub(crate) fn named(name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "string" => Type::String,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "type" => Type::Type(None),
            "optional_type" => Type::optional(Type::Dyn),
            "google.protobuf.Duration" => Type::Duration,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "net.IP" => Type::Opaque("net.IP"),
            "net.CIDR" => Type::Opaque("net.CIDR"),
            _ => return None,
        })
    }

    /// Reads the notation of the table of functions; `Param`s are numbered by `param`.
    pub(crate) fn parse(text: &'static str, param: u32) -> Type {
        let Some((name, inner)) = text.split_once('(') else {
            return match text {
                "dyn" => Type::Dyn,
                "null" => Type::Null,
                "bool" => Type::Bool,
                "int" => Type::Int,
                "uint" => Type::Uint,
                "double" => Type::Double,
                "string" => Type::String,
                "bytes" => Type::Bytes,
                "duration" => Type::Duration,
                "timestamp" => Type::Timestamp,
                _ if text.len() == 1 => Type::Param(param + u32::from(text.as_bytes()[0])),
                _ => Type::Opaque(text),
            };
        };
        let args = split(&inner[..inner.len() - 1]);
        let arg = |i: usize| Arc::new(Type::parse(args[i], param));
        match name {
            "list" => Type::List(arg(0)),
            "map" => Type::Map(arg(0), arg(1)),
            "optional_type" => Type::Optional(arg(0)),
            _ => Type::Type(Some(arg(0))),
        }
    }
}

/// `a, b(c, d)` at its outer commas.
pub(crate) fn split(list: &'static str) -> Vec<&'static str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    if !list[start..].trim().is_empty() {
        parts.push(list[start..].trim());
    }
    parts
}

/// As upstream's messages print types: `list(string)`, `map(string, dyn)`.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Error => f.write_str("!error!"),
            Type::Null => f.write_str("null"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Any => f.write_str("any"),
            Type::List(of) => write!(f, "list({of})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            Type::Type(Some(of)) => write!(f, "type({of})"),
            Type::Param(number) => write!(f, "_var{number}"),
            plain => f.write_str(plain.runtime_name()),
        }
    }
}
