//! Objects that an expression made are named after their place.
//!
//! Models k8s.io/apiserver/pkg/cel/mutation/dynamic/objects.go CheckTypeNamesMatchFieldPathNames.
use super::Value;
use crate::evaluate::EvaluationError;
use crate::map::Map;

/// Deeper values have no names to check: expressions cannot nest objects so deep.
const DEPTH_MAX: usize = 500;

impl Value<'_> {
    /// Whether the objects in an object that was made, or in the patches of a list, have the names that their places ask for:
    /// `Object.spec` at `spec` of an `Object`.
    pub fn check_object_names(&self) -> Result<(), EvaluationError> {
        let mut wrong = Vec::new();
        match self {
            Value::List(patches) => patches.iter().for_each(|patch| {
                if let Value::Map(Map::Struct(of)) = &patch {
                    let values = of.fields.iter().filter(|(name, _)| &**name == "value");
                    values.for_each(|(_, value)| value.check_from_root(&mut wrong));
                }
            }),
            other => other.check_from_root(&mut wrong),
        }
        if wrong.is_empty() { Ok(()) } else { Err(EvaluationError::new(wrong.join("\n"))) }
    }

    fn check_from_root(&self, wrong: &mut Vec<String>) {
        if let Value::Map(Map::Struct(of)) = self {
            self.check_below(&of.name, DEPTH_MAX, wrong);
        }
    }

    fn check_below(&self, place: &str, depth: usize, wrong: &mut Vec<String>) {
        let Some(depth) = depth.checked_sub(1) else { return };
        match self {
            Value::Map(Map::Struct(of)) => {
                if *of.name != *place {
                    let name = &of.name;
                    wrong.push(format!("unexpected type name {name:?}, expected {place:?}, which matches field name path from root Object type"));
                }
                of.fields.iter().for_each(|(field, value)| value.check_below(&format!("{place}.{field}"), depth, wrong));
            }
            Value::List(items) => items.iter().for_each(|item| item.check_below(place, depth, wrong)),
            Value::Map(map @ Map::Made(_)) => map.entries().for_each(|(_, value)| value.check_below(place, depth, wrong)),
            _ => {}
        }
    }
}
