//! A schema as expressions see it.
//!
//! Models apiextensions-apiserver/pkg/apiserver/schema/cel/model/schemas.go and k8s.io/apiserver/pkg/cel/common/schemas.go.
use cel::{Declared, ListKind, ObjectType};

use super::structural::{Additional, Structural, Values};

/// The largest request that sizes are derived from.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// `metadata.name` of any resource.
const NAME_MAX: u64 = 253;

static NO_VALUES: Values = Values::NONE;

fn values(schema: &Structural) -> &Values {
    schema.values.as_deref().unwrap_or(&NO_VALUES)
}

fn at_least_zero(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(0)
}

/// Lengths count characters, which take up to four bytes; the product wraps around where upstream's does.
fn in_bytes(characters: u64) -> u64 {
    characters.wrapping_mul(4)
}

/// The declaration of data of this schema, whose object types are named from `name` on; `None` where expressions cannot look.
/// The root of a resource, also of an embedded one, has its kind and names whatever the schema says.
pub fn declare(schema: &Structural, is_root: bool, name: &str) -> Option<Declared> {
    let limits = values(schema);
    if schema.int_or_string {
        let most = limits.max_length.map_or(REQUEST_BYTES_MAX - 2, |max| in_bytes(at_least_zero(max)));
        return Some(Declared::int_or_string().with_max_elements(most).with_nullable(schema.nullable));
    }
    let declared = match &*schema.kind {
        "array" => {
            let items = schema.items.as_ref()?;
            let element = declare(items, items.embedded, &format!("{name}.@idx"))?;
            let by_size = (REQUEST_BYTES_MAX - 2) / (element.min_serialized_bytes + 1);
            let kind = match &*schema.list_type {
                "set" => ListKind::Set,
                "map" => ListKind::Map(schema.list_map_keys.clone()),
                _ => ListKind::Atomic,
            };
            Declared::list(element).with_max_elements(limits.max_items.map_or(by_size, at_least_zero)).with_list_kind(kind)
        }
        "object" => match &schema.additional {
            Some(Additional::Schema(further)) if !is_root => {
                let value = declare(further, further.embedded, &format!("{name}.@elem"))?;
                let by_size = (REQUEST_BYTES_MAX - 2) / (value.min_serialized_bytes + 6);
                Declared::map(value).with_max_elements(limits.max_properties.map_or(by_size, at_least_zero))
            }
            _ => object(schema, is_root, name),
        },
        "string" => string(limits),
        "boolean" => Declared::bool(),
        "number" => Declared::double(),
        "integer" => Declared::int(),
        _ => return None,
    };
    Some(declared.with_nullable(schema.nullable))
}

fn string(limits: &Values) -> Declared {
    let most = limits.max_length.map(at_least_zero);
    match &*limits.format {
        "byte" => Declared::bytes().with_max_elements(most.unwrap_or(REQUEST_BYTES_MAX - 2)),
        "duration" => Declared::duration().with_max_elements(32),
        "date" => Declared::date().with_max_elements(12),
        "datetime" => Declared::timestamp().with_max_elements(32).with_min_serialized_bytes(21),
        _ => {
            let longest = || limits.enumeration.iter().filter_map(|value| value.as_str()).map(|text| text.len() as u64).max();
            let by_enumeration = if limits.enumeration.is_empty() { REQUEST_BYTES_MAX - 2 } else { longest().unwrap_or(0) };
            Declared::string().with_max_elements(most.map_or(by_enumeration, in_bytes))
        }
    }
}

fn object(schema: &Structural, is_root: bool, name: &str) -> Declared {
    let limits = values(schema);
    let mut fields: Vec<(Box<str>, Declared, bool)> = Vec::new();
    let mut bytes = 2;
    for (key, property) in &schema.properties {
        if is_root && matches!(&**key, "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let inner = format!("{name}.{}", cel::escape(key).unwrap_or_default());
        let Some(of) = declare(property, property.embedded, &inner) else { continue };
        let required = limits.required.contains(key);
        if required && property.default.is_none() {
            bytes += key.len() as u64 + of.min_serialized_bytes + 4;
        }
        fields.push((key.clone(), of, required));
    }
    if is_root {
        let text = || Declared::string().with_max_elements(REQUEST_BYTES_MAX - 2);
        let metadata = schema.properties.get("metadata");
        let capped = |key: &str, most: u64| {
            let own = metadata.and_then(|metadata| metadata.property(key)).and_then(|name| values(name).max_length);
            Declared::string().with_max_elements(own.map_or(most, |own| at_least_zero(own).min(most)) * 4)
        };
        let names =
            [("name".into(), capped("name", NAME_MAX), false), ("generateName".into(), capped("generateName", NAME_MAX - 1), false)];
        fields.push(("metadata".into(), Declared::object(ObjectType::new(format!("{name}.metadata"), names)), false));
        for key in ["apiVersion", "kind"] {
            if limits.required.iter().any(|required| &**required == key) {
                bytes += key.len() as u64 + 2 + 4;
            }
            fields.push((key.into(), text(), false));
        }
    }
    Declared::object(ObjectType::new(name, fields)).with_min_serialized_bytes(bytes)
}
