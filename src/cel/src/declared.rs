//! What the caller's data is: upstream's `DeclType`.
use std::sync::Arc;

use crate::Type;

/// What a place of the data is: its type for the checker, how its JSON is read, how large it may be.
///
/// Models k8s.io/apiserver/pkg/cel/types.go DeclType.
#[derive(Clone, Debug)]
pub struct Declared {
    pub shape: Shape,
    /// The most items, properties, characters or bytes; `None` where nobody counts: the estimate then takes 0, as upstream does.
    pub max_elements: Option<u64>,
    /// Whether `null` is a value too; where it is not, reading one is an error. Fields that are null are absent either way.
    pub nullable: bool,
    /// The fewest bytes that a value takes as JSON.
    pub min_serialized_bytes: u64,
}

/// How JSON is read as a value.
#[derive(Clone, Debug)]
pub enum Shape {
    /// As it comes: whole numbers are `int`, objects are maps. Checked at run time only.
    Dyn,
    /// A string or a whole number: `dyn` for the checker.
    IntOrString,
    Null,
    Bool,
    Int,
    Uint,
    /// `number`: whole numbers too are `double`.
    Double,
    String,
    /// A string in base64.
    Bytes,
    /// A string as Go writes durations.
    Duration,
    /// A string as RFC 3339 writes times.
    Timestamp,
    /// A string that is a date: midnight, UTC.
    Date,
    List {
        element: Arc<Declared>,
        kind: ListKind,
    },
    /// An object with any keys.
    Map {
        value: Arc<Declared>,
    },
    Object(Arc<ObjectType>),
    /// A value that may be absent: `oldSelf` where it is optional. Read by the caller with [`crate::Value::optional`].
    Optional(Arc<Declared>),
    /// No JSON: what only functions make or read (`authorizer`, quantities), or [`crate::Lazy`] objects.
    Other(Type),
}

impl Shape {
    /// What messages call the data that is read as it.
    pub(crate) fn wanted(&self) -> &'static str {
        match self {
            Shape::Bool => "bool",
            Shape::Int | Shape::Uint => "int",
            Shape::Double => "float",
            Shape::Null => "null",
            _ => "string",
        }
    }
}

/// How lists compare and add: `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    /// The keys' names in JSON.
    Map(Vec<Box<str>>),
}

/// An object type with its fields.
#[derive(Clone, Debug)]
pub struct ObjectType {
    /// Unique in an environment: `Object`, `self.spec` ... A type's nested types come with it.
    pub name: Arc<str>,
    fields: Vec<Field>,
}

/// A field of an object type.
#[derive(Clone, Debug)]
pub struct Field {
    /// As expressions write it: [`escape`] of `json`.
    pub name: Box<str>,
    pub json: Box<str>,
    pub of: Declared,
    pub required: bool,
}

impl ObjectType {
    /// Fields whose JSON names cannot be written in an expression are left out, as upstream does.
    pub fn new(name: impl Into<Arc<str>>, fields: impl IntoIterator<Item = (Box<str>, Declared, bool)>) -> Self {
        let field = |(json, of, required): (Box<str>, Declared, bool)| Some(Field { name: escape(&json)?.into(), json, of, required });
        Self::with_fields(name, fields.into_iter().filter_map(field))
    }

    /// With fields whose names are given as expressions write them.
    pub fn with_fields(name: impl Into<Arc<str>>, fields: impl IntoIterator<Item = Field>) -> Self {
        let mut fields: Vec<Field> = fields.into_iter().collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Self { name: name.into(), fields }
    }

    /// By the name that expressions use; a reserved word may stand for its escaped form.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let find = |name: &str| self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok().map(|i| &self.fields[i]);
        find(name).or_else(|| if reserved(name) { find(&format!("__{name}__")) } else { None })
    }

    pub(crate) fn field_exactly(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok().map(|i| &self.fields[i])
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// The least bytes of kinds of JSON values; models pkg/cel/limits.go.
impl Declared {
    const fn scalar(shape: Shape, min_serialized_bytes: u64) -> Self {
        Self { shape, max_elements: None, nullable: false, min_serialized_bytes }
    }
    /// Any value, read as it comes.
    pub const fn any() -> Self {
        Self::scalar(Shape::Dyn, 1)
    }
    pub const fn int_or_string() -> Self {
        Self::scalar(Shape::IntOrString, 1)
    }
    pub const fn null() -> Self {
        Self::scalar(Shape::Null, 4)
    }
    pub const fn bool() -> Self {
        Self::scalar(Shape::Bool, 4)
    }
    pub const fn int() -> Self {
        Self::scalar(Shape::Int, 1)
    }
    pub const fn uint() -> Self {
        Self::scalar(Shape::Uint, 1)
    }
    pub const fn double() -> Self {
        Self::scalar(Shape::Double, 1)
    }
    pub const fn string() -> Self {
        Self::scalar(Shape::String, 2)
    }
    pub const fn bytes() -> Self {
        Self::scalar(Shape::Bytes, 2)
    }
    pub const fn duration() -> Self {
        Self::scalar(Shape::Duration, 3)
    }
    pub const fn timestamp() -> Self {
        Self::scalar(Shape::Timestamp, 12)
    }
    pub const fn date() -> Self {
        Self::scalar(Shape::Date, 12)
    }
    pub fn list(element: Declared) -> Self {
        Self::scalar(Shape::List { element: Arc::new(element), kind: ListKind::Atomic }, 2)
    }
    pub fn map(value: Declared) -> Self {
        Self::scalar(Shape::Map { value: Arc::new(value) }, 2)
    }
    pub fn object(of: impl Into<Arc<ObjectType>>) -> Self {
        Self::scalar(Shape::Object(of.into()), 2)
    }
    pub fn optional(of: Declared) -> Self {
        Self::scalar(Shape::Optional(Arc::new(of)), 1)
    }
    /// What no JSON holds.
    pub const fn other(of: Type) -> Self {
        Self::scalar(Shape::Other(of), 1)
    }
    /// `authorizer`.
    pub const fn authorizer() -> Self {
        Self::other(Type::Opaque("kubernetes.authorization.Authorizer"))
    }
    /// `authorizer.requestResource`.
    pub const fn resource_check() -> Self {
        Self::other(Type::Opaque("kubernetes.authorization.ResourceCheck"))
    }

    pub fn with_max_elements(mut self, most: u64) -> Self {
        self.max_elements = Some(most);
        self
    }

    pub fn with_nullable(mut self, nullable: bool) -> Self {
        self.nullable = nullable;
        self
    }

    pub fn with_min_serialized_bytes(mut self, least: u64) -> Self {
        self.min_serialized_bytes = least;
        self
    }

    pub fn with_list_kind(mut self, of: ListKind) -> Self {
        if let Shape::List { kind, .. } = &mut self.shape {
            *kind = of;
        }
        self
    }

    /// What the checker takes it for.
    pub fn of(&self) -> Type {
        match &self.shape {
            Shape::Dyn | Shape::IntOrString => Type::Dyn,
            Shape::Null => Type::Null,
            Shape::Bool => Type::Bool,
            Shape::Int => Type::Int,
            Shape::Uint => Type::Uint,
            Shape::Double => Type::Double,
            Shape::String => Type::String,
            Shape::Bytes => Type::Bytes,
            Shape::Duration => Type::Duration,
            Shape::Timestamp | Shape::Date => Type::Timestamp,
            Shape::List { element, .. } => Type::list(element.of()),
            Shape::Map { value } => Type::map(Type::String, value.of()),
            Shape::Object(of) => Type::Object(of.name.clone()),
            Shape::Optional(of) => Type::optional(of.of()),
            Shape::Other(of) => of.clone(),
        }
    }
}

/// Words that expressions cannot use as names.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub(crate) fn reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

const ESCAPES: [(&str, &str); 4] = [("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// How an expression writes a JSON name; `None` if it cannot. Models pkg/cel/escaping.go Escape.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | '.' | '/'));
    if !starts || !chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')) {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        match ESCAPES.iter().find(|(plain, _)| rest.starts_with(plain)) {
            Some((plain, escaped)) => {
                out.push_str(escaped);
                rest = &rest[plain.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    Some(out)
}

/// The JSON name behind an expression's; `None` if there is none. Models pkg/cel/escaping.go Unescape.
pub fn unescape(name: &str) -> Option<String> {
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = inner.filter(|word| RESERVED.contains(word)) {
        return Some(word.to_owned());
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("__") {
            let (plain, escaped) = ESCAPES.iter().find(|(_, escaped)| rest.starts_with(escaped))?;
            out.push_str(plain);
            rest = &rest[escaped.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    Some(out)
}
