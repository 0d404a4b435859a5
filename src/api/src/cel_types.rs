//! What expressions know of the objects of a kind.
//!
//! Models k8s.io/apiserver/pkg/cel/common/schemas.go SchemaDeclType, with the schemas of built-in kinds as upstream publishes them
//! (pkg/cel/openapi/resolver); those of custom kinds are [`crd::declare`]'s. What has no type in the language (quantities, free JSON) is left
//! out of its object, and lists and maps of such with it, as upstream does.
use cel::{Declared, ListKind, ObjectType};

use crate::crd;
use crate::registry::Resource;
use crate::schema::{Field, ListType, Node, Schema};

/// The largest request, which bounds whatever has no bound of its own.
const REQUEST_BYTES_MAX: u64 = 3 << 20;
const DATE_TIME_BYTES_MIN: u64 = 21;
const DATE_TIME_BYTES_MAX: u64 = 32;

/// The type of a resource's objects, called `name`; `None` where it has none.
pub fn of_resource(resource: &Resource, name: &str) -> Option<Declared> {
    match &resource.custom {
        Some(custom) => crd::declare(custom.structural(), true, name),
        None => of_schema(resource.schema()?, name),
    }
}

/// The type of a place in a built-in kind. `name`: of the type, if it is an object.
pub fn of_schema(schema: &Schema, name: &str) -> Option<Declared> {
    built_in(schema, name, &mut Vec::new())
}

fn built_in(schema: &Schema, name: &str, inside: &mut Vec<*const crate::schema::Struct>) -> Option<Declared> {
    Some(match &schema.node {
        Node::Object(of) => {
            // A type that contains itself ends there.
            let this: *const _ = &**of;
            if inside.contains(&this) {
                return Some(Declared::object(ObjectType::new(name, [])));
            }
            inside.push(this);
            let declared = object(name, of.fields.iter().map(|field| Place {
                json: &field.name,
                of: built_in(&field.schema, &child(name, &field.name), inside),
                required: field.required,
                has_default: has_default(field),
            }));
            inside.pop();
            declared
        }
        Node::Map(values) => map(built_in(values, &format!("{name}.@elem"), inside)?),
        Node::List(items) => {
            let kind = match schema.list_type() {
                Some(ListType::Set) => ListKind::Set,
                Some(ListType::Map) => ListKind::Map(schema.map_keys().iter().map(|key| Box::from(&**key)).collect()),
                _ => ListKind::Atomic,
            };
            list(built_in(items, &format!("{name}.@idx"), inside)?).with_list_kind(kind)
        }
        Node::String => string(schema.enumeration().iter().map(|value| value.len() as u64).max()),
        Node::Duration => string(None),
        Node::Bytes => Declared::bytes().with_max_elements(REQUEST_BYTES_MAX - 2),
        Node::Time | Node::MicroTime => Declared::timestamp().with_min_serialized_bytes(DATE_TIME_BYTES_MIN).with_max_elements(DATE_TIME_BYTES_MAX),
        Node::Integer { .. } => Declared::int(),
        Node::Number => Declared::double(),
        Node::Boolean => Declared::bool(),
        Node::IntOrString => Declared::int_or_string().with_max_elements(REQUEST_BYTES_MAX - 2),
        // Published as an object without fields, other than the rest of what may be anything.
        Node::Any if matches!(&*schema.go_type, "runtime.RawExtension" | "v1.FieldsV1") => Declared::object(ObjectType::new(name, [])),
        Node::Quantity | Node::Any => return None,
    })
}

fn has_default(field: &Field) -> bool {
    field.zero_default || field.schema.default().is_some()
}

struct Place<'a> {
    json: &'a str,
    of: Option<Declared>,
    required: bool,
    has_default: bool,
}

fn child(name: &str, field: &str) -> String {
    format!("{name}.{}", cel::escape(field).as_deref().unwrap_or(field))
}

fn object<'a>(name: &str, places: impl IntoIterator<Item = Place<'a>>) -> Declared {
    let mut least = 2;
    let fields: Vec<(Box<str>, Declared, bool)> = places
        .into_iter()
        .filter_map(|place| {
            let of = place.of?;
            if place.required && !place.has_default {
                least += place.json.len() as u64 + of.min_serialized_bytes + 4;
            }
            Some((place.json.into(), of, place.required))
        })
        .collect();
    Declared::object(ObjectType::new(name, fields)).with_min_serialized_bytes(least)
}

fn list(element: Declared) -> Declared {
    let most = (REQUEST_BYTES_MAX - 2) / (element.min_serialized_bytes + 1);
    Declared::list(element).with_max_elements(most)
}

fn map(value: Declared) -> Declared {
    // Two characters of key, its quotes, colon and comma.
    let most = (REQUEST_BYTES_MAX - 2) / (value.min_serialized_bytes + 6);
    Declared::map(value).with_max_elements(most)
}

/// `longest`: of the texts allowed, where they are listed.
fn string(longest: Option<u64>) -> Declared {
    Declared::string().with_max_elements(longest.unwrap_or(REQUEST_BYTES_MAX - 2))
}

#[cfg(test)]
mod tests {
    use cel::Shape;

    use super::*;
    use crate::registry::Registry;

    fn field<'a>(of: &'a Declared, path: &str) -> Option<&'a Declared> {
        path.split('.').try_fold(of, |of, name| match &of.shape {
            Shape::Object(of) => of.field(name).map(|field| &field.of),
            Shape::List { element, .. } if name == "[]" => Some(&**element),
            Shape::Map { value } if name == "*" => Some(&**value),
            _ => None,
        })
    }

    #[test]
    fn built_in_kinds_have_the_types_that_upstream_publishes() {
        let deployment = Registry::get().resource("apps", "v1", "deployments").unwrap();
        let of = of_resource(deployment, "Deployment").unwrap();
        let check = |path: &str, expected: &str| assert_eq!(field(&of, path).map(|of| of.of().to_string()).as_deref().unwrap_or("none"), expected, "{path}");
        check("spec.replicas", "int");
        check("metadata.labels", "map(string, string)");
        check("metadata.creationTimestamp", Declared::timestamp().of().to_string().as_str());
        check("spec.template.spec", "Deployment.spec.template.spec");
        check("spec.template.spec.containers", "list(Deployment.spec.template.spec.containers.@idx)");
        check("spec.strategy.rollingUpdate.maxSurge", "dyn");
        check("spec.template.spec.containers.[].resources.limits", "none");
        check("spec.template.spec.containers.[].resources", "Deployment.spec.template.spec.containers.@idx.resources");
        let definition = Registry::get().resource("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
        let of = of_resource(definition, "D").unwrap();
        let schema = field(&of, "spec.versions.[].schema.openAPIV3Schema").unwrap();
        assert!(field(schema, "not").is_some() && field(schema, "not.type").is_none());
    }
}
