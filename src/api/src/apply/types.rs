//! What the merge needs to know about a place of an object: one view of built-in and of custom schemas.
//!
//! Models structured-merge-diff/v6/schema and kube-openapi/pkg/schemaconv: a place can be a scalar, a list or a map, or several of them; lists and
//! maps are owned as a whole (atomic) or piece by piece. Nothing is compiled: a [`Type`] points into the schema that is there anyway.
use crate::crd::{Additional, Structural};
use crate::schema::{self, ListType, Name, Node, Schema};
use crate::tree::Tree;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const RAW_EXTENSION: &str = "RawExtension";
const FIELDS: &str = "FieldsV1";

/// The type of one place.
#[derive(Clone, Copy, Debug)]
pub enum Type<'s> {
    BuiltIn(&'s Schema),
    Custom {
        schema: &'s Structural,
        /// A schema around it keeps unknown fields.
        is_open: bool,
        is_root: bool,
    },
    Text,
    /// Whatever is there: maps piece by piece, lists as a whole.
    Deduced,
    /// Whatever is there, as a whole.
    Whole,
    /// No value may stand here.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

/// How the items of a list are told apart.
#[derive(Clone, Copy, Debug)]
pub enum Relation<'s> {
    Atomic,
    Set,
    Keyed(Keys<'s>),
}

#[derive(Clone, Copy, Debug)]
pub enum Keys<'s> {
    Names(&'s [Name]),
    Texts(&'s [Box<str>]),
    One(&'s str),
}

impl<'s> Keys<'s> {
    pub fn len(self) -> usize {
        match self {
            Keys::Names(names) => names.len(),
            Keys::Texts(texts) => texts.len(),
            Keys::One(_) => 1,
        }
    }

    pub fn iter(self) -> impl Iterator<Item = &'s str> {
        (0..self.len()).map(move |i| match self {
            Keys::Names(names) => &*names[i],
            Keys::Texts(texts) => &*texts[i],
            Keys::One(name) => name,
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct List<'s> {
    pub items: Type<'s>,
    pub relation: Relation<'s>,
}

#[derive(Clone, Copy, Debug)]
pub struct Map<'s> {
    owner: Type<'s>,
    pub is_atomic: bool,
}

/// A declared field.
#[derive(Clone, Debug)]
pub struct Field<'s> {
    pub ty: Type<'s>,
    pub default: Option<Tree>,
}

/// What a value of a type may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Atoms<'s> {
    pub scalar: Option<Scalar>,
    pub list: Option<List<'s>>,
    pub map: Option<Map<'s>>,
}

/// One of the three, as chosen by a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Map,
    Scalar,
    List,
}

impl<'s> Type<'s> {
    pub fn custom(schema: &'s Structural) -> Self {
        Type::Custom { schema, is_open: schema.preserve, is_root: true }
    }

    fn below(schema: &'s Structural, is_open: bool) -> Self {
        Type::Custom { schema, is_open: is_open || schema.preserve, is_root: false }
    }

    pub fn atoms(self) -> Atoms<'s> {
        match self {
            Type::BuiltIn(schema) => built_in(self, schema),
            Type::Custom { schema, .. } => custom(self, schema),
            Type::Text => Atoms { scalar: Some(Scalar::String), ..Atoms::default() },
            Type::Deduced => Atoms {
                scalar: Some(Scalar::Untyped),
                list: Some(List { items: Type::Whole, relation: Relation::Atomic }),
                map: Some(Map { owner: self, is_atomic: false }),
            },
            Type::Whole => Atoms {
                scalar: Some(Scalar::Untyped),
                list: Some(List { items: Type::Whole, relation: Relation::Atomic }),
                map: Some(Map { owner: self, is_atomic: true }),
            },
            Type::Nothing => Atoms::default(),
        }
    }

    pub fn map(self) -> Option<Map<'s>> {
        self.atoms().map
    }

    pub fn list(self) -> Option<List<'s>> {
        self.atoms().list
    }
}

impl<'s> Atoms<'s> {
    fn has(&self, shape: Shape) -> bool {
        match shape {
            Shape::Map => self.map.is_some(),
            Shape::Scalar => self.scalar.is_some(),
            Shape::List => self.list.is_some(),
        }
    }

    /// What the value decides, if it decides anything. Models typed/helpers.go deduceAtom.
    pub fn deduced(&self, value: Option<&Tree>) -> Option<Shape> {
        let shape = match value? {
            Tree::Null => return None,
            Tree::Array(_) => Shape::List,
            Tree::Object(_) => Shape::Map,
            _ => Shape::Scalar,
        };
        self.has(shape).then_some(shape)
    }

    /// The shape by which a value is treated; `None`: no value can stand here. Models handleAtom.
    pub fn shape(&self, value: Option<&Tree>) -> Option<Shape> {
        self.deduced(value).or_else(|| [Shape::Map, Shape::Scalar, Shape::List].into_iter().find(|shape| self.has(*shape)))
    }

    /// Whether two values leave the same choice.
    pub fn agree(&self, a: Option<&Tree>, b: Option<&Tree>) -> bool {
        let is_single = [Shape::Map, Shape::Scalar, Shape::List].into_iter().filter(|shape| self.has(*shape)).count() <= 1;
        is_single || self.deduced(a) == self.deduced(b)
    }
}

fn built_in<'s>(ty: Type<'s>, schema: &'s Schema) -> Atoms<'s> {
    let scalar = |scalar| Atoms { scalar: Some(scalar), ..Atoms::default() };
    match &schema.node {
        Node::Object(_) | Node::Map(_) => Atoms { map: Some(Map { owner: ty, is_atomic: schema.is_atomic_map() }), ..Atoms::default() },
        Node::List(items) => Atoms { list: Some(List { items: Type::BuiltIn(items), relation: relation(schema) }), ..Atoms::default() },
        Node::String | Node::Bytes | Node::Duration => scalar(Scalar::String),
        Node::Integer { .. } | Node::Number => scalar(Scalar::Numeric),
        Node::Boolean => scalar(Scalar::Boolean),
        Node::IntOrString | Node::Quantity | Node::Time | Node::MicroTime => scalar(Scalar::Untyped),
        Node::Any => match schema.go_type.rsplit('.').next() {
            Some(RAW_EXTENSION) => Type::Whole.atoms(),
            Some(FIELDS) => Atoms { map: Type::Deduced.map(), ..Atoms::default() },
            _ => Type::Deduced.atoms(),
        },
    }
}

fn relation(schema: &Schema) -> Relation<'_> {
    match schema.list_type() {
        Some(ListType::Atomic) => Relation::Atomic,
        Some(ListType::Set) => Relation::Set,
        Some(ListType::Map) => Relation::Keyed(Keys::Names(schema.map_keys())),
        None if schema.patch_strategy().merge => match schema.patch_merge_key() {
            Some(key) => Relation::Keyed(Keys::One(key)),
            None => Relation::Set,
        },
        None => Relation::Atomic,
    }
}

fn custom<'s>(ty: Type<'s>, schema: &'s Structural) -> Atoms<'s> {
    let is_open = matches!(ty, Type::Custom { is_open: true, .. });
    let map = Some(Map { owner: ty, is_atomic: &*schema.map_type == "atomic" });
    let list = Some(List {
        items: schema.items.as_deref().map_or(Type::Whole, |items| Type::below(items, is_open)),
        relation: match &*schema.list_type {
            "set" => Relation::Set,
            "map" => Relation::Keyed(Keys::Texts(&schema.list_map_keys)),
            _ => Relation::Atomic,
        },
    });
    let scalar = |scalar| Atoms { scalar: Some(scalar), ..Atoms::default() };
    match &*schema.kind {
        "object" => Atoms { map, ..Atoms::default() },
        "array" => Atoms { list, ..Atoms::default() },
        "integer" | "number" => scalar(Scalar::Numeric),
        "boolean" => scalar(Scalar::Boolean),
        // Also by a format that means nothing.
        "string" => match schema.values.as_ref().map_or("", |values| &*values.format_text) {
            "" | "byte" => scalar(Scalar::String),
            _ => scalar(Scalar::Untyped),
        },
        // The root is an object whatever its schema says.
        _ if matches!(ty, Type::Custom { is_root: true, .. }) => Atoms { map, ..Atoms::default() },
        _ => Atoms { scalar: Some(Scalar::Untyped), list, map },
    }
}

impl<'s> Map<'s> {
    pub fn field(&self, name: &str) -> Option<Field<'s>> {
        match self.owner {
            Type::BuiltIn(schema) => {
                let field = schema.field(name)?;
                let zero = || match &field.schema.node {
                    Node::String => Some(Tree::from("")),
                    Node::Integer { .. } | Node::Number => Some(Tree::Integer(0)),
                    Node::Boolean => Some(Tree::Bool(false)),
                    _ => None,
                };
                let default = field.schema.default().cloned().or_else(|| field.zero_default.then(zero).flatten());
                Some(Field { ty: Type::BuiltIn(&field.schema), default })
            }
            Type::Custom { schema, is_open, is_root } => {
                if is_root || schema.embedded {
                    let ty = match name {
                        "apiVersion" | "kind" => Some(Type::Text),
                        "metadata" => Some(Type::BuiltIn(schema::of_type(OBJECT_META))),
                        _ => None,
                    };
                    if let Some(ty) = ty {
                        return Some(Field { ty, default: None });
                    }
                }
                let property = schema.property(name)?;
                Some(Field { ty: Type::below(property, is_open), default: property.default.clone() })
            }
            _ => None,
        }
    }

    /// As `field`, without its default.
    pub fn field_type(&self, name: &str) -> Option<Type<'s>> {
        match self.owner {
            Type::BuiltIn(schema) => schema.field(name).map(|field| Type::BuiltIn(&field.schema)),
            Type::Custom { .. } => self.field(name).map(|field| field.ty),
            _ => None,
        }
    }

    /// The type of fields that are not declared.
    pub fn rest(&self) -> Type<'s> {
        match self.owner {
            Type::BuiltIn(schema) => match &schema.node {
                Node::Map(values) => Type::BuiltIn(values),
                Node::Object(fields) if fields.fields.is_empty() => Type::Deduced,
                _ => Type::Nothing,
            },
            Type::Custom { schema, is_open, is_root } => match &schema.additional {
                Some(Additional::Schema(further)) => Type::below(further, is_open),
                Some(Additional::Allowed(true)) => Type::Deduced,
                Some(Additional::Allowed(false)) => Type::Nothing,
                None if is_open || (schema.properties.is_empty() && !is_root && !schema.embedded) => Type::Deduced,
                None => Type::Nothing,
            },
            Type::Deduced => Type::Deduced,
            Type::Whole => Type::Whole,
            Type::Text | Type::Nothing => Type::Nothing,
        }
    }

    /// The type of the value at `name`.
    pub fn at(&self, name: &str) -> Type<'s> {
        self.field_type(name).unwrap_or_else(|| self.rest())
    }

    /// Nothing is declared, and everything may come.
    pub fn is_undeclared(&self) -> bool {
        let declares = match self.owner {
            Type::BuiltIn(schema) => !schema.fields().is_empty(),
            Type::Custom { schema, is_root, .. } => is_root || schema.embedded || !schema.properties.is_empty(),
            _ => false,
        };
        let takes_all = match self.rest() {
            Type::Deduced => true,
            rest @ Type::Custom { .. } => rest.atoms().scalar == Some(Scalar::Untyped),
            _ => false,
        };
        !declares && takes_all
    }
}
