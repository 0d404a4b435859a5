//! The part of a stored object that selectors read: its labels and selectable fields. Everything else is passed over, which costs a third of
//! reading it.
use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::tree::{Object, Tree};

/// Where a value stands, and so what of it is of use.
#[derive(Clone, Copy)]
enum Place {
    Top,
    Metadata,
    /// `spec` and the like: fields that are no objects.
    Part,
    Whole,
    Scalar,
}

impl Place {
    /// `None`: nothing of the field.
    fn field(self, name: &str) -> Option<Place> {
        match (self, name) {
            (Place::Top, "metadata") => Some(Place::Metadata),
            (Place::Top, "spec" | "status" | "involvedObject" | "source") => Some(Place::Part),
            (Place::Metadata, "labels") | (Place::Part, "podIPs") | (Place::Whole, _) => Some(Place::Whole),
            (Place::Metadata, "name" | "namespace") | (Place::Top | Place::Part, _) => Some(Place::Scalar),
            (Place::Metadata | Place::Scalar, _) => None,
        }
    }
}

/// What [`super::fields`] and label selectors read of an object of a built-in kind. Its syntax is checked all the same, but no escapes and
/// ranges of what is passed over: for what this process has printed itself.
pub fn skim(json: &[u8]) -> Result<Tree, serde_json::Error> {
    let text = std::str::from_utf8(json).map_err(serde::de::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let tree = Place::Top.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(tree)
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        match self {
            Place::Whole => Tree::deserialize(deserializer),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Place {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(b))
    }
    fn visit_i64<E>(self, i: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(i))
    }
    fn visit_u64<E>(self, u: u64) -> Result<Tree, E> {
        Ok(i64::try_from(u).map_or(Tree::Float(u as f64), Tree::Integer))
    }
    fn visit_f64<E>(self, f: f64) -> Result<Tree, E> {
        Ok(Tree::Float(f))
    }
    fn visit_str<E>(self, s: &str) -> Result<Tree, E> {
        Ok(Tree::String(s.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Tree::Null)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Object::new();
        while let Some(Name(name)) = map.next_key()? {
            match self.field(&name) {
                Some(place) => drop(fields.insert(&*name, map.next_value_seed(place)?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Tree::Object(fields))
    }
}

/// A field's name; one without escapes is not copied.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the name of a field")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::selector::fields;

    /// All that any built-in kind is selected by.
    const OBJECT: &str = r#"{"kind":"K","metadata":{"annotations":{"a":"b"},"labels":{"l":"v","\"q\"":"w"},"name":"n","namespace":"ns",
        "managedFields":[{"fieldsV1":{"f:spec":{}}}]},"reason":"r","type":"t","reportingComponent":"c","message":"m",
        "involvedObject":{"apiVersion":"v1","fieldPath":"f","kind":"Pod","name":"p","namespace":"ns","resourceVersion":"3","uid":"u"},
        "source":{"component":"s","host":"h"},"data":{"k":"v"},
        "spec":{"hostNetwork":true,"nodeName":"n1","restartPolicy":"Never","schedulerName":"s","serviceAccountName":"a","unschedulable":true,
            "clusterIP":"10.0.0.1","type":"ClusterIP","signerName":"x/y","podName":"p","driver":"d","containers":[{"name":"c"}]},
        "status":{"nominatedNodeName":"n2","phase":"Running","podIP":"1.2.3.4","podIPs":[{"ip":"1.2.3.4"},{"ip":"::1"}],"replicas":3,"succeeded":2,
            "conditions":[{"type":"Ready"}]}}"#;

    #[test]
    fn selectors_find_all_that_they_read() {
        let (whole, skimmed) = (Tree::from_json(OBJECT.as_bytes()).unwrap(), skim(OBJECT.as_bytes()).unwrap());
        for resource in Registry::get().all() {
            let read = |tree| fields(resource, tree).into_iter().map(|(name, value)| (name.to_string(), value)).collect::<Vec<_>>();
            assert_eq!(read(&skimmed), read(&whole), "{}", resource.plural);
        }
        assert_eq!(skimmed.at(&["metadata", "labels"]), whole.at(&["metadata", "labels"]));
        assert_eq!(skimmed.at(&["spec", "containers"]), Some(&Tree::Null));
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", r#"{"a":[1,}"#, r#"{"a":1}x"#] {
            assert!(skim(text.as_bytes()).is_err(), "{text}");
        }
    }
}
