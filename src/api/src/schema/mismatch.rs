//! Why a document cannot fill a Go struct, in the words of upstream's converter of maps: what strategic merge patches make goes that way.
//!
//! Models apimachinery/pkg/runtime/converter.go fromUnstructured.
use super::{Node, Schema};
use crate::tree::Tree;

/// The first value that does not fit.
pub fn mismatch(schema: &Schema, tree: &Tree) -> Option<String> {
    if tree.is_null() {
        return None;
    }
    let kind = match tree {
        Tree::Object(_) => "map",
        Tree::Array(_) => "slice",
        Tree::String(_) => "string",
        Tree::Bool(_) => "bool",
        Tree::Integer(_) => "int64",
        Tree::Float(_) => "float64",
        Tree::Null => return None,
    };
    let unknown = |wanted: &str| Some(format!("unrecognized type: {wanted}"));
    match (&schema.node, tree) {
        (Node::Any, _) | (Node::String, Tree::String(_)) | (Node::Boolean, Tree::Bool(_)) => None,
        (Node::Number, Tree::Integer(_) | Tree::Float(_)) | (Node::Integer { .. }, Tree::Integer(_)) => None,
        (Node::Object(structure), Tree::Object(fields)) => {
            structure.fields.iter().find_map(|field| fields.get(&field.name).and_then(|value| mismatch(&field.schema, value)))
        }
        (Node::Object(_), _) => Some(format!("cannot restore struct from: {kind}")),
        (Node::Map(values), Tree::Object(fields)) => fields.iter().find_map(|(_, value)| mismatch(values, value)),
        (Node::Map(_), _) => Some(format!("cannot restore map from {kind}")),
        (Node::List(items), Tree::Array(list)) => list.iter().find_map(|item| mismatch(items, item)),
        (Node::List(_), _) => Some(format!("cannot restore slice from {kind}")),
        (Node::Bytes, Tree::String(_)) => super::decode(schema, tree.clone()).err().map(|why| format!("error decoding from json: {why}")),
        (Node::Bytes, _) => Some(format!("cannot restore slice from {kind}")),
        // Go turns numbers into texts, as characters: that much is convertible, and refused.
        (Node::String, Tree::Integer(_)) => Some(format!("cannot convert int64 to {}", schema.go_type)),
        (Node::String, _) => unknown("string"),
        (Node::Boolean, _) => unknown("bool"),
        (Node::Integer { .. }, Tree::Float(number)) if number.fract() == 0.0 => None,
        (Node::Integer { .. }, Tree::Float(_)) => Some(format!("cannot convert float64 to {}", schema.go_type)),
        (Node::Integer { bits, signed }, _) => unknown(&format!("{}int{bits}", if *signed { "" } else { "u" })),
        (Node::Number, _) => unknown("float64"),
        (Node::IntOrString | Node::Quantity | Node::Time | Node::MicroTime | Node::Duration, _) => {
            super::decode(schema, tree.clone()).err().map(|why| why.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_gos_kinds() {
        let schema = crate::Registry::get().kind_schema("", "v1", "Pod").unwrap();
        let asked = |json: &str| mismatch(schema, &Tree::from_json(json.as_bytes()).unwrap());
        assert_eq!(asked(r#"{"metadata":{"labels":{"a":5}}}"#).as_deref(), Some("cannot convert int64 to string"));
        assert_eq!(asked(r#"{"metadata":{"labels":"a"}}"#).as_deref(), Some("cannot restore map from string"));
        assert_eq!(asked(r#"{"spec":{"containers":{}}}"#).as_deref(), Some("cannot restore slice from map"));
        assert_eq!(asked(r#"{"spec":{"hostNetwork":"yes"}}"#).as_deref(), Some("unrecognized type: bool"));
        assert_eq!(asked(r#"{"spec":{"containers":[{"name":"a"}]}}"#), None);
    }
}
