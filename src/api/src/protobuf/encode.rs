//! From a [`Tree`] to the wire, as Go's generated code writes it.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};

use super::wire::Writer;
use super::{DEPTH_MAX, MAGIC, Path, numbered};
use crate::registry::{Registry, split_api_version};
use crate::schema::{Field, Node, Schema, Struct};
use crate::tree::Tree;

#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("field {0} does not fit its schema")]
    Value(String),
    #[error("values are nested too deeply")]
    TooDeep,
}

/// Encodes an object whose tree names its kind.
pub fn encode(object: &Tree) -> Result<Vec<u8>, EncodeError> {
    let (version, kind) = (object.str_at(&["apiVersion"]), object.str_at(&["kind"]));
    let (group, short) = split_api_version(version);
    let unknown = || EncodeError::UnknownKind { api_version: version.to_owned(), kind: kind.to_owned() };
    let schema = Registry::get().kind_schema(group, short, kind).ok_or_else(unknown)?;
    let Node::Object(structure) = &schema.node else { return Err(unknown()) };
    let mut meta = Writer::default();
    meta.bytes(1, version.as_bytes());
    meta.bytes(2, kind.as_bytes());
    let mut envelope = Writer(MAGIC.to_vec());
    envelope.bytes(1, &meta.0);
    envelope.bytes(2, &message_of(structure, object, 0)?);
    envelope.bytes(3, b"");
    envelope.bytes(4, b"");
    Ok(envelope.0)
}

fn message_of(structure: &Struct, object: &Tree, depth: usize) -> Result<Vec<u8>, EncodeError> {
    if depth > DEPTH_MAX {
        return Err(EncodeError::TooDeep);
    }
    let mut fields = numbered(structure);
    fields.sort_by_key(|(path, _)| path.numbers);
    let mut writer = Writer::default();
    embedded(&fields, 0, object, depth, &mut writer)?;
    Ok(writer.0)
}

fn embedded(fields: &[(Path, &Field)], step: usize, object: &Tree, depth: usize, writer: &mut Writer) -> Result<(), EncodeError> {
    let mut rest = fields;
    while let Some((path, field)) = rest.first() {
        if path.is_last(step) {
            rest = &rest[1..];
            write_field(path.at(step), field, object.get(&field.name).unwrap_or(&Tree::Null), depth, writer)?;
            continue;
        }
        let number = path.at(step);
        let (inner, after) = rest.split_at(rest.iter().take_while(|(p, _)| p.at(step) == number).count());
        rest = after;
        let mut message = Writer::default();
        embedded(inner, step + 1, object, depth, &mut message)?;
        writer.bytes(number, &message.0);
    }
    Ok(())
}

fn write_field(number: u32, field: &Field, value: &Tree, depth: usize, writer: &mut Writer) -> Result<(), EncodeError> {
    let misfit = || EncodeError::Value(field.name.to_string());
    match (&field.schema.node, value) {
        (Node::List(items), Tree::Array(list)) => list.iter().try_for_each(|item| write(number, field, items, item, depth, writer)),
        (Node::Map(values), Tree::Object(map)) => map.iter().try_for_each(|(key, value)| {
            let mut entry = Writer::default();
            entry.bytes(1, key.as_bytes());
            match (&values.node, value) {
                (Node::List(items), Tree::Array(list)) => {
                    let mut inner = Writer::default();
                    list.iter().try_for_each(|item| write(1, field, items, item, depth, &mut inner))?;
                    entry.bytes(2, &inner.0);
                }
                _ => write(2, field, values, value, depth, &mut entry)?,
            }
            writer.bytes(number, &entry.0);
            Ok(())
        }),
        (Node::List(_) | Node::Map(_), Tree::Null) => Ok(()),
        (Node::List(_) | Node::Map(_), _) => Err(misfit()),
        // An absent pointer is not written; an absent value is its zero.
        (_, Tree::Null) if field.pointer => Ok(()),
        (Node::Bytes, Tree::Null) => Ok(()),
        (_, Tree::Null) => write_zero(number, &field.schema, depth, writer),
        (_, value) => write(number, field, &field.schema, value, depth, writer),
    }
}

fn write_zero(number: u32, schema: &Schema, depth: usize, writer: &mut Writer) -> Result<(), EncodeError> {
    match &schema.node {
        Node::String => writer.bytes(number, b""),
        Node::Integer { .. } | Node::Boolean => writer.varint(number, 0),
        Node::Number => writer.fixed64(number, 0),
        Node::Object(structure) => writer.bytes(number, &message_of(structure, &Tree::Null, depth + 1)?),
        Node::IntOrString => writer.bytes(number, &int_or_string(0, 0, "")),
        Node::Duration => writer.bytes(number, &[8, 0]),
        Node::Time | Node::MicroTime | Node::Any => writer.bytes(number, b""),
        Node::Quantity => writer.bytes(number, &[10, 1, b'0']),
        Node::Bytes | Node::List(_) | Node::Map(_) => {}
    }
    Ok(())
}

fn write(number: u32, field: &Field, schema: &Schema, value: &Tree, depth: usize, writer: &mut Writer) -> Result<(), EncodeError> {
    let misfit = || EncodeError::Value(field.name.to_string());
    match (&schema.node, value) {
        (Node::String, Tree::String(text)) => writer.bytes(number, text.as_bytes()),
        (Node::Bytes, Tree::String(text)) => writer.bytes(number, &STANDARD.decode(text.as_bytes()).map_err(|_| misfit())?),
        (Node::Boolean, Tree::Bool(b)) => writer.varint(number, u64::from(*b)),
        (Node::Integer { .. }, Tree::Integer(i)) => writer.varint(number, *i as u64),
        (Node::Number, Tree::Float(f)) => writer.fixed64(number, f.to_bits()),
        (Node::Number, Tree::Integer(i)) => writer.fixed64(number, (*i as f64).to_bits()),
        (Node::Object(structure), Tree::Object(_)) => writer.bytes(number, &message_of(structure, value, depth + 1)?),
        (Node::IntOrString, Tree::Integer(i)) => writer.bytes(number, &int_or_string(0, *i, "")),
        (Node::IntOrString, Tree::String(text)) => writer.bytes(number, &int_or_string(1, 0, text)),
        (Node::Quantity, Tree::String(text)) => {
            let mut message = Writer::default();
            message.bytes(1, text.as_bytes());
            writer.bytes(number, &message.0);
        }
        (Node::Quantity, Tree::Integer(i)) => {
            let mut message = Writer::default();
            message.bytes(1, i.to_string().as_bytes());
            writer.bytes(number, &message.0);
        }
        (Node::Time | Node::MicroTime, Tree::String(text)) => {
            let at: Timestamp = text.parse().map_err(|_| misfit())?;
            let mut message = Writer::default();
            message.varint(1, at.as_second() as u64);
            message.varint(2, at.subsec_nanosecond() as u64);
            writer.bytes(number, &message.0);
        }
        (Node::Duration, Tree::String(text)) => {
            let duration: SignedDuration = text.parse().map_err(|_| misfit())?;
            let mut message = Writer::default();
            message.varint(1, i64::try_from(duration.as_nanos()).map_err(|_| misfit())? as u64);
            writer.bytes(number, &message.0);
        }
        (Node::Any, value) => {
            let mut message = Writer::default();
            message.bytes(1, &value.to_json());
            writer.bytes(number, &message.0);
        }
        // A null inside a list or map is the zero of its type, as in Go.
        (_, Tree::Null) => write_zero(number, schema, depth, writer)?,
        _ => return Err(misfit()),
    }
    Ok(())
}

fn int_or_string(kind: u64, number: i64, text: &str) -> Vec<u8> {
    let mut message = Writer::default();
    message.varint(1, kind);
    message.varint(2, number as u64);
    message.bytes(3, text.as_bytes());
    message.0
}
