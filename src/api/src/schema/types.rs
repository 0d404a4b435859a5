//! Compiles the structs of `facts/types.tsv`, each when it is first looked at.
use std::collections::HashMap;
use std::sync::OnceLock;

use super::{Extra, Field, ListType, Name, Node, Numbers, PatchStrategy, Reference, Schema, Struct, StructRef};
use crate::facts;
use crate::tree::Tree;

/// Where each struct's lines stand, and what has been compiled of them.
struct Index {
    by_name: HashMap<&'static str, u16>,
    entries: Vec<Entry>,
}

struct Entry {
    name: &'static str,
    atomic: bool,
    lines: &'static str,
    structure: OnceLock<Box<Struct>>,
    /// What a kind's registry line leads to.
    schema: OnceLock<Box<Schema>>,
}

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| Index::scan(facts::TYPES))
}

impl Index {
    fn scan(table: &'static str) -> Index {
        let mut index = Index { by_name: HashMap::new(), entries: Vec::new() };
        let mut rest = table;
        while let Some(header) = rest.strip_prefix("type\t") {
            let (header, fields) = header.split_once('\n').unwrap_or((header, ""));
            let end = if fields.starts_with("type\t") { 0 } else { fields.find("\ntype\t").map_or(fields.len(), |at| at + 1) };
            let (name, atomic) = header.split_once('\t').unwrap_or((header, ""));
            let number = u16::try_from(index.entries.len()).expect("the API has a few thousand structs");
            index.by_name.insert(name, number);
            index.entries.push(Entry {
                name,
                atomic: atomic == "atomic",
                lines: &fields[..end],
                structure: OnceLock::new(),
                schema: OnceLock::new(),
            });
            rest = &fields[end..];
        }
        index
    }
}

pub(super) fn by_index(number: u16) -> &'static Struct {
    let entry = &index().entries[usize::from(number)];
    entry.structure.get_or_init(|| Box::new(compile(entry)))
}

pub(super) fn structure(name: &str) -> Option<&'static Struct> {
    index().by_name.get(name).map(|&number| by_index(number))
}

pub(super) fn schema(name: &'static str) -> &'static Schema {
    let index = index();
    let number = *index.by_name.get(name).expect("codegen writes a type line for every kind");
    index.entries[usize::from(number)].schema.get_or_init(|| Box::new(Schema { node: node(name), go_type: go_name(name), extra: None }))
}

fn compile(entry: &'static Entry) -> Struct {
    // Codegen sorts the fields by name, as `Struct::field` wants them.
    let fields = entry.lines.lines().map(field).collect();
    Struct::new(entry.name.into(), entry.atomic, fields)
}

fn field(line: &'static str) -> Field {
    let mut columns = line.split('\t');
    let mut next = || columns.next().unwrap_or_default();
    let tag = next();
    debug_assert_eq!(tag, "field");
    let (name, kind, go, flags) = (next(), next(), next(), next());
    let (embedded_in, protobuf) = (next(), next());
    let (patch_strategy, merge_key, list_type, map_keys, map_type) = (next(), next(), next(), next(), next());
    let (default, enumeration) = (next(), next());
    let extra = Extra {
        list_type: match list_type {
            "map" => Some(ListType::Map),
            "set" => Some(ListType::Set),
            "atomic" => Some(ListType::Atomic),
            _ => None,
        },
        map_keys: words(map_keys),
        atomic_map: match map_type {
            "atomic" => Some(true),
            "granular" => Some(false),
            _ => None,
        },
        patch_strategy: strategy(patch_strategy),
        patch_merge_key: (!merge_key.is_empty()).then_some(merge_key.into()),
        default: (!default.is_empty()).then(|| Tree::from_json(default.as_bytes()).expect("codegen writes defaults as JSON")),
        // The empty text can be one of the values, then the first.
        enumeration: if enumeration.is_empty() { Vec::new() } else { enumeration.split(',').map(Name::from).collect() },
    };
    let plain = list_type.is_empty()
        && map_type.is_empty()
        && patch_strategy.is_empty()
        && merge_key.is_empty()
        && default.is_empty()
        && enumeration.is_empty();
    let go_type = if go.is_empty() { derived_go_type(kind) } else { go.into() };
    Field {
        name: name.into(),
        schema: Schema { node: typed_node(kind, &go_type), go_type, extra: (!plain).then(|| Box::new(extra)) },
        pointer: flags.contains('p'),
        omit_empty: flags.contains('o'),
        omit_zero: flags.contains('z'),
        required: flags.contains('r'),
        zero_default: flags.contains('d'),
        zero_item_default: flags.contains('l'),
        embedded_in: embedded_in.into(),
        // TypeMeta has numbers, but is part of the envelope and never of the message.
        numbers: if embedded_in == "TypeMeta" { Numbers::default() } else { Numbers::parse(protobuf) },
    }
}

fn words(column: &'static str) -> Vec<Name> {
    column.split(',').filter(|w| !w.is_empty()).map(Name::from).collect()
}

fn strategy(column: &str) -> PatchStrategy {
    let has = |word| column.split(',').any(|w| w == word);
    PatchStrategy { merge: has("merge"), replace: has("replace"), retain_keys: has("retainKeys") }
}

fn node(kind: &'static str) -> Node {
    typed_node(kind, "")
}

/// `go_type` names the items of lists and maps where it says more than `kind` does.
fn typed_node(kind: &'static str, go_type: &str) -> Node {
    if let Some(items) = kind.strip_prefix("[]") {
        return Node::List(Box::new(element(items, go_type.strip_prefix("[]"))));
    }
    if let Some(values) = kind.strip_prefix("{}") {
        let go = go_type.strip_prefix("map[").and_then(|rest| rest.split_once(']')).map(|(_, value)| value);
        return Node::Map(Box::new(element(values, go)));
    }
    match kind {
        "string" => Node::String,
        "bool" => Node::Boolean,
        "bytes" => Node::Bytes,
        "int32" => Node::Integer { bits: 32, signed: true },
        "int64" | "int" => Node::Integer { bits: 64, signed: true },
        "uint8" => Node::Integer { bits: 8, signed: false },
        "uint16" => Node::Integer { bits: 16, signed: false },
        "uint32" => Node::Integer { bits: 32, signed: false },
        "uint64" => Node::Integer { bits: 64, signed: false },
        "float64" | "float32" => Node::Number,
        "any"
        | "io.k8s.apimachinery.pkg.runtime.RawExtension"
        | "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSON"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSONSchemaPropsOrArray"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSONSchemaPropsOrBool"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSONSchemaPropsOrStringArray" => Node::Any,
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Node::Quantity,
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Node::IntOrString,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Node::Time,
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Node::MicroTime,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Duration" => Node::Duration,
        name => match index().by_name.get(name) {
            Some(&number) => Node::Object(StructRef(Reference::Facts(number))),
            None => unreachable!("codegen wrote a type it has no line for: {name}"),
        },
    }
}

fn element(kind: &'static str, go: Option<&str>) -> Schema {
    let go_type = match go {
        Some(go) if !kind.contains('.') && go != kind => Name::Owned(go.trim_start_matches('*').to_owned()),
        _ => derived_go_type(kind),
    };
    Schema { node: typed_node(kind, &go_type), go_type, extra: None }
}

/// `io.k8s.api.core.v1.Container` -> `v1.Container`.
fn go_name(name: &'static str) -> Name {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let start = dots.nth(1).map_or(0, |at| at + 1);
    name[start..].into()
}

fn derived_go_type(kind: &'static str) -> Name {
    if let Some(items) = kind.strip_prefix("[]") {
        return format!("[]{}", derived_go_type(items)).into();
    }
    if let Some(values) = kind.strip_prefix("{}") {
        return format!("map[string]{}", derived_go_type(values)).into();
    }
    match kind {
        "bytes" => "[]uint8".into(),
        "any" => "interface {}".into(),
        kind => go_name(kind),
    }
}
