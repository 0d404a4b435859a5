//! From JSON to the wire in one pass: a message's fields come in the order of the document, which every decoder takes.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::wire::Writer;
use super::{DEPTH_MAX, JSON_SCHEMA, is_named_list};
use crate::scan::{Malformed, Scanner};
use crate::schema::{Field, Node, Schema, Struct, structure, time};

#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("field {0} does not fit its schema")]
    Value(String),
    #[error("values are nested too deeply")]
    TooDeep,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Writes the message of the object that `json` holds; members that the struct does not know are passed over.
pub fn message(structure: &Struct, json: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    Encoder { json: Scanner::new(json), out: Writer(out) }.message(structure, 0)
}

struct Encoder<'a, 'o> {
    json: Scanner<'a>,
    out: Writer<'o>,
}

fn misfit(field: &Field) -> EncodeError {
    EncodeError::Value(field.name.to_string())
}

impl Encoder<'_, '_> {
    fn message(&mut self, structure: &Struct, depth: usize) -> Result<(), EncodeError> {
        if depth > DEPTH_MAX {
            return Err(EncodeError::TooDeep);
        }
        self.json.expect(b'{')?;
        if self.json.eat(b'}') {
            return Ok(());
        }
        loop {
            let key = self.json.key()?;
            match structure.place(&key).map(|place| &structure.fields[place]).and_then(|f| Some((f, f.numbers.split()?))) {
                Some((field, (way, number))) => self.embedded(way, number, field, depth)?,
                None => _ = self.json.raw()?,
            }
            if !self.json.another(b'}')? {
                return Ok(());
            }
        }
    }

    /// Fields of an embedded message come one by one, each in a message of its own: decoders merge them.
    fn embedded(&mut self, way: &[u32], number: u32, field: &Field, depth: usize) -> Result<(), EncodeError> {
        if self.json.eat_null() {
            return Ok(());
        }
        let Some((first, way)) = way.split_first() else { return self.field(number, field, depth) };
        let open = self.out.open(*first);
        self.embedded(way, number, field, depth)?;
        self.out.close(open);
        Ok(())
    }

    fn field(&mut self, number: u32, field: &Field, depth: usize) -> Result<(), EncodeError> {
        match &field.schema.node {
            Node::List(items) if is_named_list(&field.schema) => {
                let open = self.out.open(number);
                self.list(1, field, items, depth)?;
                self.out.close(open);
                Ok(())
            }
            Node::List(items) => self.list(number, field, items, depth),
            Node::Map(values) => {
                self.json.expect(b'{').map_err(|_| misfit(field))?;
                if self.json.eat(b'}') {
                    return Ok(());
                }
                loop {
                    let entry = self.out.open(number);
                    let key = self.json.key()?;
                    self.out.bytes(1, &key);
                    self.map_value(field, values, depth)?;
                    self.out.close(entry);
                    if !self.json.another(b'}')? {
                        return Ok(());
                    }
                }
            }
            _ => self.value(number, field, &field.schema, depth),
        }
    }

    fn list(&mut self, number: u32, field: &Field, items: &Schema, depth: usize) -> Result<(), EncodeError> {
        self.json.expect(b'[').map_err(|_| misfit(field))?;
        if self.json.eat(b']') {
            return Ok(());
        }
        loop {
            // A null inside a list is the zero of its type, as in Go.
            if self.json.eat_null() {
                self.zero(number, &items.node);
            } else {
                self.value(number, field, items, depth)?;
            }
            if !self.json.another(b']')? {
                return Ok(());
            }
        }
    }

    /// A list as a map's value has a named type, too (`ExtraValue`).
    fn map_value(&mut self, field: &Field, values: &Schema, depth: usize) -> Result<(), EncodeError> {
        if self.json.eat_null() {
            return Ok(());
        }
        let Node::List(items) = &values.node else { return self.value(2, field, values, depth) };
        let open = self.out.open(2);
        self.list(1, field, items, depth)?;
        self.out.close(open);
        Ok(())
    }

    fn zero(&mut self, number: u32, node: &Node) {
        match node {
            Node::Integer { .. } | Node::Boolean => self.out.varint(number, 0),
            Node::Number => self.out.fixed64(number, 0),
            _ => self.out.bytes(number, b""),
        }
    }

    fn value(&mut self, number: u32, field: &Field, schema: &Schema, depth: usize) -> Result<(), EncodeError> {
        match &schema.node {
            Node::String => {
                let text = self.json.string().map_err(|_| misfit(field))?;
                self.out.bytes(number, &text);
            }
            Node::Object(structure) => {
                let open = self.out.open(number);
                self.message(structure, depth + 1)?;
                self.out.close(open);
            }
            Node::Boolean => {
                let is_true = match self.json.word()? {
                    "true" => true,
                    "false" => false,
                    _ => return Err(misfit(field)),
                };
                self.out.varint(number, u64::from(is_true));
            }
            Node::Integer { .. } => {
                let integer = self.integer(field)?;
                self.out.varint(number, integer as u64);
            }
            Node::Number => {
                let float: f64 = self.json.word()?.parse().map_err(|_| misfit(field))?;
                self.out.fixed64(number, float.to_bits());
            }
            Node::Bytes => {
                let text = self.json.string().map_err(|_| misfit(field))?;
                let open = self.out.open(number);
                STANDARD.decode_vec(&*text, self.out.0).map_err(|_| misfit(field))?;
                self.out.close(open);
            }
            Node::IntOrString => {
                let open = self.out.open(number);
                if self.json.peek() == Some(b'"') {
                    let text = self.json.string()?;
                    self.out.varint(1, 1);
                    self.out.bytes(3, &text);
                } else {
                    let integer = self.integer(field)?;
                    self.out.varint(1, 0);
                    self.out.varint(2, integer as u64);
                }
                self.out.close(open);
            }
            Node::Quantity => {
                let open = self.out.open(number);
                if self.json.peek() == Some(b'"') {
                    let text = self.json.string()?;
                    self.out.bytes(1, &text);
                } else {
                    let word = self.json.word()?;
                    self.out.bytes(1, word.as_bytes());
                }
                self.out.close(open);
            }
            Node::Time | Node::MicroTime => {
                let text = self.json.string().map_err(|_| misfit(field))?;
                let (seconds, nanoseconds) = moment(&text).ok_or_else(|| misfit(field))?;
                let open = self.out.open(number);
                self.out.varint(1, seconds as u64);
                self.out.varint(2, nanoseconds as u64);
                self.out.close(open);
            }
            Node::Duration => {
                let text = self.json.string().map_err(|_| misfit(field))?;
                let text = std::str::from_utf8(&text).map_err(|_| misfit(field))?;
                let nanoseconds = time::nanoseconds(text).map_err(|_| misfit(field))?;
                let open = self.out.open(number);
                self.out.varint(1, nanoseconds as u64);
                self.out.close(open);
            }
            Node::Any => self.any(number, field, schema, depth)?,
            Node::List(_) | Node::Map(_) => return Err(misfit(field)),
        }
        Ok(())
    }

    fn integer(&mut self, field: &Field) -> Result<i64, EncodeError> {
        self.json.word()?.parse().map_err(|_| misfit(field))
    }

    /// Free JSON, or a schema where something simpler may stand in its place.
    fn any(&mut self, number: u32, field: &Field, schema: &Schema, depth: usize) -> Result<(), EncodeError> {
        let is_schema = self.json.peek() == Some(b'{');
        let open = self.out.open(number);
        match schema.go_type.rsplit('.').next() {
            Some("JSONSchemaPropsOrBool") if is_schema => {
                self.out.varint(1, 1);
                self.schema(2, depth)?;
            }
            Some("JSONSchemaPropsOrBool") => {
                let word = self.json.word()?;
                self.out.varint(1, u64::from(word == "true"));
            }
            Some("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray") if is_schema => self.schema(1, depth)?,
            Some(or @ ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray")) => {
                self.json.expect(b'[').map_err(|_| misfit(field))?;
                let mut goes_on = !self.json.eat(b']');
                while goes_on {
                    if or == "JSONSchemaPropsOrArray" {
                        self.schema(2, depth)?;
                    } else {
                        let text = self.json.string().map_err(|_| misfit(field))?;
                        self.out.bytes(2, &text);
                    }
                    goes_on = self.json.another(b']')?;
                }
            }
            _ => {
                let raw = self.json.raw()?;
                self.out.bytes(1, raw);
            }
        }
        self.out.close(open);
        Ok(())
    }

    fn schema(&mut self, number: u32, depth: usize) -> Result<(), EncodeError> {
        let structure = structure(JSON_SCHEMA).expect("a struct of the facts");
        let open = self.out.open(number);
        self.message(structure, depth + 1)?;
        self.out.close(open);
        Ok(())
    }
}

/// Seconds since 1970 and nanoseconds of an RFC 3339 text.
fn moment(text: &[u8]) -> Option<(i64, i32)> {
    if let Some(seconds) = time::utc_seconds(text) {
        return Some((seconds, 0));
    }
    let at: Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    // Go counts nanoseconds upwards, before 1970 too.
    let nanoseconds = at.as_nanosecond();
    let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?;
    Some((seconds, i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_calendar_has_them() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2026-11-26T14:12:44Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2100-03-01T00:00:00Z"] {
            let at: Timestamp = text.parse().unwrap();
            assert_eq!(time::utc_seconds(text.as_bytes()), Some(at.as_second()), "{text}");
        }
        assert_eq!(moment(b"2026-01-02T03:04:05.123456Z"), Some((1_767_323_045, 123_456_000)));
        assert_eq!(moment(b"1969-12-31T23:59:59.500000Z"), Some((-1, 500_000_000)));
        assert_eq!(moment(b"yesterday"), None);
    }
}
