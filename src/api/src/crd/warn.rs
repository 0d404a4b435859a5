//! What is taken, but does not do what its author may think.
//!
//! Models apiextensions-apiserver/pkg/registry/customresourcedefinition/strategy.go WarningsOnCreate and WarningsOnUpdate.
use super::format;
use crate::tree::Tree;

/// What the server says of a definition; nothing about what `old` had already.
pub fn definition_warnings(new: &Tree, old: Option<&Tree>) -> Vec<String> {
    let before = old.map(found).unwrap_or_default();
    found(new).into_iter().filter(|warning| !before.contains(warning)).collect()
}

fn found(definition: &Tree) -> Vec<String> {
    let (mut formats, mut sets) = (Vec::new(), Vec::new());
    for version in definition.array_at(&["spec", "versions"]) {
        if let Some(schema) = version.at(&["schema", "openAPIV3Schema"]) {
            visit(schema, &mut formats, &mut sets);
        }
    }
    for warnings in [&mut formats, &mut sets] {
        warnings.sort_unstable();
        warnings.dedup();
    }
    formats.append(&mut sets);
    formats
}

fn visit(schema: &Tree, formats: &mut Vec<String>, sets: &mut Vec<String>) {
    let format = schema.str_at(&["format"]);
    if !format.is_empty() && format::normalized(schema.str_at(&["type"]), format).is_empty() {
        formats.push(format!("unrecognized format {}", crate::field_error::quote(format)));
    }
    if schema.str_at(&["x-kubernetes-list-type"]) == "set"
        && let kind @ ("object" | "array") = schema.str_at(&["items", "type"])
    {
        let of = "is not supported by server-side apply or CEL validation rules";
        sets.push(format!("x-kubernetes-list-type: set for items of type \"{kind}\" {of}"));
    }
    let named = ["properties", "patternProperties", "definitions", "dependencies"].into_iter().filter_map(|key| schema.get(key)?.as_object());
    let alone = ["items", "not", "additionalProperties", "additionalItems"].into_iter().filter_map(|key| schema.get(key));
    let listed = ["allOf", "anyOf", "oneOf", "items"].into_iter().flat_map(|key| schema.array_at(&[key]));
    named.flat_map(|map| map.iter().map(|(_, inner)| inner)).chain(alone).chain(listed).for_each(|inner| visit(inner, formats, sets));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_mean_nothing_and_sets_of_objects_are_named_when_they_are_new() {
        let definition = |spec: &str| Tree::from_json(format!(r#"{{"spec":{{"versions":[{{"schema":{{"openAPIV3Schema":{spec}}}}}]}}}}"#).as_bytes()).unwrap();
        let old = definition(r#"{"type":"object","properties":{"a":{"type":"string","format":"int32"},"b":{"type":"integer","format":"int32"}}}"#);
        assert_eq!(definition_warnings(&old, None), ["unrecognized format \"int32\""]);
        assert!(definition_warnings(&old, Some(&old)).is_empty());
        let new = definition(r#"{"type":"object","format":"odd","properties":{"l":{"x-kubernetes-list-type":"set","items":{"type":"array"}}}}"#);
        let of_sets = "x-kubernetes-list-type: set for items of type \"array\" is not supported by server-side apply or CEL validation rules";
        assert_eq!(definition_warnings(&new, Some(&old)), ["unrecognized format \"odd\"", of_sets]);
    }
}
