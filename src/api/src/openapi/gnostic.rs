//! The v2 document in gnostic's protobuf form, `openapi.v2.Document`; kubectl asks for it first.
//!
//! Only what our documents contain is written. Field numbers: github.com/google/gnostic-models openapiv2/OpenAPIv2.proto.
//! An `Any` holds YAML text (field 2); JSON is YAML, so values are printed as JSON.
use crate::tree::Tree;

pub(super) struct Document {
    head: Vec<u8>,
    paths: Vec<u8>,
    definitions: Vec<u8>,
}

impl Document {
    pub(super) fn new(title: &str, version: &str) -> Document {
        let mut head = Vec::new();
        text(&mut head, 1, "2.0");
        let mut info = Vec::new();
        text(&mut info, 1, title);
        text(&mut info, 2, version);
        bytes(&mut head, 2, &info);
        Document { head, paths: Vec::new(), definitions: Vec::new() }
    }

    pub(super) fn path(&mut self, name: &str, item: &Tree) {
        named(&mut self.paths, 2, name, &path_item(item));
    }

    pub(super) fn definition(&mut self, name: &str, value: &Tree) {
        named(&mut self.definitions, 1, name, &schema(value));
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = self.head;
        bytes(&mut out, 8, &self.paths);
        bytes(&mut out, 9, &self.definitions);
        out
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn text(out: &mut Vec<u8>, number: u64, value: &str) {
    if !value.is_empty() {
        bytes(out, number, value.as_bytes());
    }
}

fn flag(out: &mut Vec<u8>, number: u64, value: bool) {
    if value {
        varint(out, number << 3);
        out.push(1);
    }
}

/// Every `Named...` message: name = 1, value = 2.
fn named(out: &mut Vec<u8>, number: u64, name: &str, value: &[u8]) {
    let mut entry = Vec::new();
    text(&mut entry, 1, name);
    bytes(&mut entry, 2, value);
    bytes(out, number, &entry);
}

fn any(value: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, 2, &value.to_json());
    out
}

fn texts(out: &mut Vec<u8>, number: u64, list: &[Tree]) {
    list.iter().filter_map(Tree::as_str).for_each(|word| text(out, number, word));
}

fn vendor_extensions(out: &mut Vec<u8>, number: u64, value: &Tree) {
    let entries = value.as_object().into_iter().flat_map(|o| o.iter());
    entries.filter(|(key, _)| key.starts_with("x-")).for_each(|(key, value)| named(out, number, key, &any(value)));
}

fn path_item(item: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    let methods = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    for (method, number) in methods {
        if let Some(value) = item.get(method) {
            bytes(&mut out, number, &operation(value));
        }
    }
    item.array_at(&["parameters"]).iter().for_each(|p| bytes(&mut out, 9, &parameter(p)));
    out
}

fn operation(value: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    texts(&mut out, 1, value.array_at(&["tags"]));
    text(&mut out, 3, value.str_at(&["description"]));
    text(&mut out, 5, value.str_at(&["operationId"]));
    texts(&mut out, 6, value.array_at(&["produces"]));
    texts(&mut out, 7, value.array_at(&["consumes"]));
    value.array_at(&["parameters"]).iter().for_each(|p| bytes(&mut out, 8, &parameter(p)));
    let mut responses = Vec::new();
    for (code, answer) in value.get("responses").and_then(Tree::as_object).into_iter().flat_map(|o| o.iter()) {
        let mut response = Vec::new();
        text(&mut response, 1, answer.str_at(&["description"]));
        if let Some(body) = answer.get("schema") {
            let mut item = Vec::new();
            bytes(&mut item, 1, &schema(body));
            bytes(&mut response, 2, &item);
        }
        let mut choice = Vec::new();
        bytes(&mut choice, 1, &response);
        named(&mut responses, 1, code, &choice);
    }
    bytes(&mut out, 9, &responses);
    texts(&mut out, 10, value.array_at(&["schemes"]));
    vendor_extensions(&mut out, 13, value);
    out
}

/// A ParametersItem.
fn parameter(value: &Tree) -> Vec<u8> {
    let mut inner = Vec::new();
    let required = value.get("required") == Some(&Tree::Bool(true));
    let place = value.str_at(&["in"]);
    let mut choice = Vec::new();
    if place == "body" {
        text(&mut inner, 2, value.str_at(&["name"]));
        text(&mut inner, 3, place);
        flag(&mut inner, 4, required);
        bytes(&mut inner, 5, &schema(value.get("schema").unwrap_or(&Tree::Null)));
        bytes(&mut choice, 1, &inner);
    } else {
        // Query and path parameters agree in the first four numbers, not in the rest.
        let (number, kind, unique) = if place == "path" { (4, 5, 19) } else { (3, 6, 20) };
        flag(&mut inner, 1, required);
        text(&mut inner, 2, place);
        text(&mut inner, 4, value.str_at(&["name"]));
        text(&mut inner, kind, value.str_at(&["type"]));
        flag(&mut inner, unique, value.get("uniqueItems") == Some(&Tree::Bool(true)));
        let mut non_body = Vec::new();
        bytes(&mut non_body, number, &inner);
        bytes(&mut choice, 2, &non_body);
    }
    let mut out = Vec::new();
    bytes(&mut out, 1, &choice);
    out
}

fn schema(value: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, value.str_at(&["$ref"]));
    text(&mut out, 2, value.str_at(&["format"]));
    text(&mut out, 4, value.str_at(&["description"]));
    if let Some(default) = value.get("default") {
        bytes(&mut out, 5, &any(default));
    }
    texts(&mut out, 19, value.array_at(&["required"]));
    value.array_at(&["enum"]).iter().for_each(|v| bytes(&mut out, 20, &any(v)));
    if let Some(values) = value.get("additionalProperties") {
        let mut item = Vec::new();
        bytes(&mut item, 1, &schema(values));
        bytes(&mut out, 21, &item);
    }
    let kind = value.str_at(&["type"]);
    if !kind.is_empty() {
        let mut item = Vec::new();
        text(&mut item, 1, kind);
        bytes(&mut out, 22, &item);
    }
    if let Some(items) = value.get("items") {
        let mut item = Vec::new();
        bytes(&mut item, 1, &schema(items));
        bytes(&mut out, 23, &item);
    }
    if let Some(properties) = value.get("properties").and_then(Tree::as_object) {
        let mut all = Vec::new();
        properties.iter().for_each(|(name, property)| named(&mut all, 1, name, &schema(property)));
        bytes(&mut out, 25, &all);
    }
    vendor_extensions(&mut out, 31, value);
    out
}
