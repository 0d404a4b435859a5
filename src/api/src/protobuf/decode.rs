//! From the wire to a [`Tree`], which then goes the way of every decoded JSON document.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::wire::{Reader, Value, WireError};
use super::{DEPTH_MAX, JSON_SCHEMA, MAGIC, is_named_list};
use crate::registry::{Registry, api_version, split_api_version};
use crate::schema::{Field, Node, Schema, Struct, time};
use crate::tree::{Object, Tree};

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("the content encoding {0:?} is not supported")]
    ContentEncoding(String),
    #[error("messages are nested too deeply")]
    TooDeep,
    #[error(transparent)]
    Bounds(crate::ParseError),
    #[error("field {field}: {detail}")]
    Value { field: String, detail: &'static str },
    #[error("field {field}: {source}")]
    Json { field: String, source: crate::ParseError },
}

/// Decodes a document; `default` is the (group, version, kind) that an empty TypeMeta stands for.
pub fn decode(document: &[u8], default: (&str, &str, &str)) -> Result<Tree, DecodeError> {
    let message = document.strip_prefix(MAGIC).ok_or(DecodeError::NoMagic)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &message[..0]);
    let mut reader = Reader(message);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Value::Bytes(meta)) => {
                let mut reader = Reader(meta);
                while let Some((number, value)) = reader.next()? {
                    match (number, value) {
                        (1, Value::Bytes(text)) => version = utf8(text, "apiVersion")?,
                        (2, Value::Bytes(text)) => kind = utf8(text, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Value::Bytes(bytes)) => raw = bytes,
            (3, Value::Bytes(encoding)) if !encoding.is_empty() => return Err(DecodeError::ContentEncoding(utf8(encoding, "contentEncoding")?)),
            _ => {}
        }
    }
    if kind.is_empty() {
        kind = default.2.to_owned();
    }
    if version.is_empty() {
        version = api_version(default.0, default.1);
    }
    let (group, short) = split_api_version(&version);
    let registry = Registry::get();
    // The options of every group are one type.
    let schema = registry.kind_schema(group, short, &kind).or_else(|| registry.kind_schema("", "v1", &kind).filter(|_| kind.ends_with("Options")));
    let Some(schema) = schema else { return Err(DecodeError::UnknownKind { api_version: version, kind }) };
    let Node::Object(structure) = &schema.node else { return Err(DecodeError::UnknownKind { api_version: version, kind }) };
    let mut object = message_of(structure, raw, 0)?;
    object.insert("apiVersion", version);
    object.insert("kind", kind);
    let tree = Tree::Object(object);
    crate::codec::check_bounds(&tree).map_err(DecodeError::Bounds)?;
    Ok(tree)
}

fn utf8(bytes: &[u8], field: &str) -> Result<String, DecodeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Value { field: field.to_owned(), detail: "invalid UTF-8" })
}

/// What was read of a message so far.
struct Message<'s> {
    object: Object,
    /// The entries of maps, by the field's name, in the order in which they came: strangers may send many, in whatever order.
    maps: Vec<(&'s str, Vec<(String, Tree)>)>,
}

fn message_of(structure: &Struct, bytes: &[u8], depth: usize) -> Result<Object, DecodeError> {
    if depth > DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    let mut message = Message { object: Object::new(), maps: Vec::new() };
    embedded(structure, &structure.by_number, 0, bytes, depth, &mut message)?;
    let Message { mut object, maps } = message;
    for (name, entries) in maps {
        object.insert(name, entries.into_iter().collect::<Object>());
    }
    // A value with omitempty that is zero on the wire is absent in JSON.
    object.retain(|name, value| {
        let is_kept = |field: &Field| field.pointer || !field.omit_empty || matches!(field.schema.node, Node::IntOrString);
        !is_zero(value) || structure.field(name).is_none_or(is_kept)
    });
    Ok(object)
}

/// Zero as Go's omitempty sees it: an empty struct is not.
fn is_zero(tree: &Tree) -> bool {
    match tree {
        Tree::Null | Tree::Bool(false) | Tree::Integer(0) => true,
        Tree::Float(f) => *f == 0.0,
        Tree::String(s) => s.is_empty(),
        Tree::Array(a) => a.is_empty(),
        Tree::Bool(true) | Tree::Integer(_) | Tree::Object(_) => false,
    }
}

/// Reads one message, or one embedded in it: `fields` are places in the struct, by number; `step` numbers of each are behind us.
fn embedded<'s>(structure: &'s Struct, fields: &[u16], step: usize, bytes: &[u8], depth: usize, message: &mut Message<'s>) -> Result<(), DecodeError> {
    let mut reader = Reader(bytes);
    let field_at = |place: &u16| &structure.fields[usize::from(*place)];
    while let Some((number, value)) = reader.next()? {
        let rest = &fields[fields.partition_point(|place| field_at(place).numbers.at(step) < number)..];
        let here = &rest[..rest.partition_point(|place| field_at(place).numbers.at(step) == number)];
        let Some(first) = here.first().map(field_at) else { continue }; // a newer client's field
        if first.numbers.is_last(step) {
            set(first, value, depth, message)?;
            continue;
        }
        let Value::Bytes(bytes) = value else { return Err(wrong(first, "wrong wireType for an embedded message")) };
        embedded(structure, here, step + 1, bytes, depth, message)?;
    }
    Ok(())
}

fn wrong(field: &Field, detail: &'static str) -> DecodeError {
    DecodeError::Value { field: field.name.to_string(), detail }
}

fn set<'s>(field: &'s Field, value: Value, depth: usize, message: &mut Message<'s>) -> Result<(), DecodeError> {
    let object = &mut message.object;
    match &field.schema.node {
        Node::List(items) if is_named_list(&field.schema) => {
            let Value::Bytes(bytes) = value else { return Err(wrong(field, "wrong wireType")) };
            object.insert(&*field.name, named_list(field, items, bytes, depth)?);
        }
        Node::List(items) => {
            let list = object.entry(&field.name, || Tree::Array(Vec::new()));
            let list = list.as_array_mut().expect("made as a list");
            match value {
                // Packed numbers; upstream writes none, but the format allows it.
                Value::Bytes(packed) if matches!(items.node, Node::Integer { .. } | Node::Boolean) => {
                    let mut reader = Reader(packed);
                    while !reader.0.is_empty() {
                        list.push(scalar(field, items, Value::Varint(reader.varint()?), depth)?);
                    }
                }
                value => list.push(scalar(field, items, value, depth)?),
            }
        }
        Node::Map(values) => {
            let Value::Bytes(entry) = value else { return Err(wrong(field, "wrong wireType for a map")) };
            let (mut key, mut found) = (String::new(), None);
            let mut reader = Reader(entry);
            while let Some((number, value)) = reader.next()? {
                match (number, value) {
                    (1, Value::Bytes(text)) => key = utf8(text, &field.name)?,
                    (2, value) => found = Some(map_value(field, values, value, depth)?),
                    _ => {}
                }
            }
            let entry = (key, found.unwrap_or_else(|| zero(values)));
            match message.maps.iter_mut().find(|(name, _)| *name == &*field.name) {
                Some((_, entries)) => entries.push(entry),
                None => message.maps.push((&field.name, vec![entry])),
            }
        }
        _ => {
            let decoded = scalar(field, &field.schema, value, depth)?;
            object.insert(&*field.name, decoded);
        }
    }
    Ok(())
}

/// A list as a map's value has a named type, too (`ExtraValue`).
fn map_value(field: &Field, schema: &Schema, value: Value, depth: usize) -> Result<Tree, DecodeError> {
    match (&schema.node, value) {
        (Node::List(items), Value::Bytes(bytes)) => named_list(field, items, bytes, depth),
        (_, value) => scalar(field, schema, value, depth),
    }
}

/// A list with a name of its own is a message with the items as field 1.
fn named_list(field: &Field, items: &Schema, bytes: &[u8], depth: usize) -> Result<Tree, DecodeError> {
    let mut list = Vec::new();
    let mut reader = Reader(bytes);
    while let Some((number, value)) = reader.next()? {
        if number == 1 {
            list.push(scalar(field, items, value, depth)?);
        }
    }
    Ok(Tree::Array(list))
}

fn zero(schema: &Schema) -> Tree {
    match &schema.node {
        Node::String | Node::Bytes => "".into(),
        Node::Integer { .. } => 0i64.into(),
        Node::Boolean => false.into(),
        Node::List(_) => Tree::Array(Vec::new()),
        Node::Quantity => "0".into(),
        Node::Object(_) | Node::Map(_) => Tree::object(),
        _ => Tree::Null,
    }
}

fn scalar(field: &Field, schema: &Schema, value: Value, depth: usize) -> Result<Tree, DecodeError> {
    Ok(match (&schema.node, value) {
        (Node::String, Value::Bytes(bytes)) => utf8(bytes, &field.name)?.into(),
        (Node::Bytes, Value::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Node::Boolean, Value::Varint(v)) => (v != 0).into(),
        (Node::Integer { signed: true, bits: 32 }, Value::Varint(v)) => i64::from(v as i32).into(),
        (Node::Integer { .. }, Value::Varint(v)) => (v as i64).into(),
        (Node::Number, Value::Fixed64(v)) => Tree::Float(f64::from_bits(v)),
        (Node::Object(structure), Value::Bytes(bytes)) => Tree::Object(message_of(structure, bytes, depth + 1)?),
        (Node::IntOrString, Value::Bytes(bytes)) => int_or_string(bytes, field)?,
        (Node::Quantity, Value::Bytes(bytes)) => first_string(bytes, field)?.map_or_else(|| "0".into(), Tree::from),
        (Node::Time, Value::Bytes(bytes)) => time(bytes, field, false)?,
        (Node::MicroTime, Value::Bytes(bytes)) => time(bytes, field, true)?,
        (Node::Duration, Value::Bytes(bytes)) => {
            let mut nanoseconds = 0;
            let mut reader = Reader(bytes);
            while let Some((number, value)) = reader.next()? {
                if let (1, Value::Varint(v)) = (number, value) {
                    nanoseconds = v as i64;
                }
            }
            time::print_duration(nanoseconds).into()
        }
        (Node::Any, Value::Bytes(bytes)) => match schema.go_type.rsplit('.').next() {
            Some("JSONSchemaPropsOrBool") => schema_or_bool(bytes, depth)?,
            Some("JSONSchemaPropsOrArray") => schema_or(bytes, depth, |item, depth| json_schema(item, depth))?,
            Some("JSONSchemaPropsOrStringArray") => schema_or(bytes, depth, |item, _| Ok(utf8(item, &field.name)?.into()))?,
            _ => any(bytes, field)?,
        },
        _ => return Err(wrong(field, "wrong wireType")),
    })
}

/// `{1: type, 2: intVal, 3: strVal}`, type 1 being the string.
fn int_or_string(bytes: &[u8], field: &Field) -> Result<Tree, DecodeError> {
    let (mut is_string, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader(bytes);
    while let Some((tag, value)) = reader.next()? {
        match (tag, value) {
            (1, Value::Varint(v)) => is_string = v == 1,
            (2, Value::Varint(v)) => number = i64::from(v as i32),
            (3, Value::Bytes(b)) => text = utf8(b, &field.name)?,
            _ => {}
        }
    }
    Ok(if is_string { text.into() } else { number.into() })
}

fn first_string(bytes: &[u8], field: &Field) -> Result<Option<String>, DecodeError> {
    let mut reader = Reader(bytes);
    let mut text = None;
    while let Some((number, value)) = reader.next()? {
        if let (1, Value::Bytes(b)) = (number, value) {
            text = Some(utf8(b, &field.name)?);
        }
    }
    Ok(text)
}

/// `{1: seconds, 2: nanos}`; the empty message is no time. Nanoseconds count for MicroTime alone.
fn time(bytes: &[u8], field: &Field, micro: bool) -> Result<Tree, DecodeError> {
    if bytes.is_empty() {
        return Ok(Tree::Null);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut reader = Reader(bytes);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Value::Varint(v)) => seconds = v as i64,
            (2, Value::Varint(v)) => nanos = v as i32,
            _ => {}
        }
    }
    let at = Timestamp::new(seconds, if micro { nanos } else { 0 }).map_err(|_| wrong(field, "time is out of range"))?;
    Ok(if micro { format!("{at:.6}").into() } else { format!("{at:.0}").into() })
}

fn json_schema(bytes: &[u8], depth: usize) -> Result<Tree, DecodeError> {
    let structure = crate::schema::structure(JSON_SCHEMA).expect("a struct of the facts");
    Ok(Tree::Object(message_of(structure, bytes, depth + 1)?))
}

/// `{1: allows, 2: schema}`
fn schema_or_bool(bytes: &[u8], depth: usize) -> Result<Tree, DecodeError> {
    let mut reader = Reader(bytes);
    let mut found = Tree::Bool(false);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Value::Varint(v)) if !matches!(found, Tree::Object(_)) => found = (v != 0).into(),
            (2, Value::Bytes(schema)) => found = json_schema(schema, depth)?,
            _ => {}
        }
    }
    Ok(found)
}

/// `{1: schema, 2: items}`
fn schema_or(bytes: &[u8], depth: usize, item: impl Fn(&[u8], usize) -> Result<Tree, DecodeError>) -> Result<Tree, DecodeError> {
    let mut reader = Reader(bytes);
    let (mut one, mut several) = (None, Vec::new());
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Value::Bytes(schema)) => one = Some(json_schema(schema, depth)?),
            (2, Value::Bytes(bytes)) => several.push(item(bytes, depth)?),
            _ => {}
        }
    }
    Ok(one.unwrap_or(Tree::Array(several)))
}

/// Field 1 holds JSON, or a document of its own.
fn any(bytes: &[u8], field: &Field) -> Result<Tree, DecodeError> {
    let mut reader = Reader(bytes);
    let mut raw: &[u8] = &[];
    while let Some((number, value)) = reader.next()? {
        if let (1, Value::Bytes(b)) = (number, value) {
            raw = b;
        }
    }
    if raw.is_empty() {
        return Ok(Tree::Null);
    }
    if raw.starts_with(MAGIC) {
        return decode(raw, ("", "", ""));
    }
    let parsed = crate::codec::parse_json(raw).map_err(|source| DecodeError::Json { field: field.name.to_string(), source })?;
    Ok(parsed.tree)
}
