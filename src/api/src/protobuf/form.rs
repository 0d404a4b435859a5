//! Documents: the envelope around an object's message, and lists whose items are written one after the other.
use super::encode::{EncodeError, message};
use super::wire::{Writer, framed_length};
use super::MAGIC;
use crate::registry::{Registry, api_version, split_api_version};
use crate::scan::Scanner;
use crate::schema::{Node, Struct, structure};

/// A kind that has a protobuf form.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    structure: &'static Struct,
}

/// Contents of an envelope's last two fields, which Go always writes: no encoding, no type.
const NO_CONTENT_TYPE: &[u8] = b"\x1a\0\x22\0";

impl Form {
    /// `None` for kinds that are not built in, and for those that upstream gave no form (Table).
    pub fn of(group: &str, version: &str, kind: &str) -> Option<Form> {
        let schema = Registry::get().kind_schema(group, version, kind)?;
        let Node::Object(fields) = &schema.node else { return None };
        structure(&fields.name).map(|structure| Form { structure })
    }

    /// Writes the message of the object that `json` holds.
    pub fn message(self, json: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        message(self.structure, json, out)
    }

    /// The whole document.
    pub fn document(self, api_version: &str, kind: &str, json: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(json.len());
        begin(&mut out, api_version, kind);
        let mut writer = Writer(&mut out);
        let open = writer.open(2);
        message(self.structure, json, writer.0)?;
        writer.close(open);
        out.extend_from_slice(NO_CONTENT_TYPE);
        Ok(out)
    }
}

fn begin(out: &mut Vec<u8>, api_version: &str, kind: &str) {
    out.extend_from_slice(MAGIC);
    let mut writer = Writer(out);
    let open = writer.open(1);
    writer.bytes(1, api_version.as_bytes());
    writer.bytes(2, kind.as_bytes());
    writer.close(open);
}

/// Encodes an object that names its kind. Kinds that name no version are those of the core (APIVersions).
pub fn encode(json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let (mut version, mut kind) = (String::new(), String::new());
    let mut scanner = Scanner::new(json);
    scanner.expect(b'{')?;
    let mut goes_on = !scanner.eat(b'}');
    while goes_on && (version.is_empty() || kind.is_empty()) {
        let key = scanner.key()?;
        match &*key {
            b"apiVersion" => version = String::from_utf8_lossy(&scanner.string()?).into_owned(),
            b"kind" => kind = String::from_utf8_lossy(&scanner.string()?).into_owned(),
            _ => _ = scanner.raw()?,
        }
        goes_on = scanner.another(b'}')?;
    }
    let (group, short) = split_api_version(&version);
    let form = Form::of(group, if short.is_empty() { "v1" } else { short }, &kind);
    match form {
        Some(form) => form.document(&version, &kind, json),
        None => Err(EncodeError::UnknownKind { api_version: version, kind }),
    }
}

/// A kind of list, written piece by piece once the length of every item is known.
#[derive(Clone, Debug)]
pub struct ListForm {
    api_version: String,
    kind: String,
    structure: &'static Struct,
    items: u32,
}

impl ListForm {
    pub fn of(group: &str, version: &str, kind: &str) -> Option<ListForm> {
        let Form { structure } = Form::of(group, version, kind)?;
        let (_, items) = structure.field("items")?.numbers.split()?;
        Some(ListForm { api_version: api_version(group, version), kind: kind.to_owned(), structure, items })
    }

    /// What an item takes whose message has this length.
    pub fn framed(&self, length: usize) -> usize {
        framed_length(self.items, length)
    }

    /// The document up to its first item; `head` is the list as JSON without items, `framed` all that the items take.
    pub fn begin(&self, head: &[u8], framed: usize) -> Result<Vec<u8>, EncodeError> {
        let mut meta = Vec::new();
        message(self.structure, head, &mut meta)?;
        let mut out = Vec::new();
        begin(&mut out, &self.api_version, &self.kind);
        Writer(&mut out).frame(2, meta.len() + framed);
        out.extend_from_slice(&meta);
        Ok(out)
    }

    /// What stands before an item's message.
    pub fn frame(&self, out: &mut Vec<u8>, length: usize) {
        Writer(out).frame(self.items, length);
    }

    /// What stands behind the last item.
    pub fn end(&self) -> &'static [u8] {
        NO_CONTENT_TYPE
    }
}
