//! Lists: of the caller's data, of the program's text, or made.
use std::collections::HashSet;
use std::rc::Rc;

use crate::constant::Constant;
use crate::evaluate::EvaluationError;
use crate::json::Json;
use crate::map::Key;
use crate::value::Value;
use crate::{Declared, ListKind};

#[derive(Clone)]
pub enum List<'a> {
    /// `typed` says that the data has a declaration of its own.
    #[non_exhaustive]
    Json {
        json: &'a dyn Json,
        element: &'a Declared,
        kind: &'a ListKind,
        typed: bool,
    },
    #[non_exhaustive]
    Constant(&'a [Constant]),
    Made(Rc<Vec<Value<'a>>>),
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json { json, .. } => json.len(),
            List::Constant(items) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            List::Json { json, element, .. } => json.item(index).map(|item| Value::read(item, element)),
            List::Constant(items) => items.get(index).map(Constant::value),
            List::Made(items) => items.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value<'a>> + '_ {
        (0..self.len()).map(move |i| self.get(i).unwrap_or(Value::Null))
    }

    pub(crate) fn contains(&self, value: &Value<'a>) -> Result<bool, EvaluationError> {
        let mut failed = None;
        for item in self.iter() {
            match item.equals(value) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(false), Err)
    }

    pub(crate) fn equals(&self, other: &List<'a>) -> Result<bool, EvaluationError> {
        if self.len() != other.len() {
            return Ok(false);
        }
        match self {
            List::Json { kind: ListKind::Set, .. } => {
                let key = |item: Value<'a>| Key::of(&item);
                let (Some(mine), Some(theirs)) =
                    (self.iter().map(key).collect::<Option<HashSet<_>>>(), other.iter().map(key).collect::<Option<HashSet<_>>>())
                else {
                    return self.equals_in_order(other);
                };
                Ok(mine == theirs)
            }
            List::Json { kind: ListKind::Map(keys), .. } => {
                for theirs in other.iter() {
                    let mut found = false;
                    for mine in self.iter() {
                        if same_keys(&mine, &theirs, keys)? {
                            found = true;
                            if !mine.equals(&theirs)? {
                                return Ok(false);
                            }
                            break;
                        }
                    }
                    if !found {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => self.equals_in_order(other),
        }
    }

    fn equals_in_order(&self, other: &List<'a>) -> Result<bool, EvaluationError> {
        for (a, b) in self.iter().zip(other.iter()) {
            if !a.equals(&b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `a + b`: a set's elements stand once, a map list's elements of `b` replace those of `a` with the same keys.
    pub(crate) fn plus(&self, other: &List<'a>) -> Result<List<'a>, EvaluationError> {
        let mut items: Vec<Value<'a>> = self.iter().collect();
        match self {
            List::Json { kind: ListKind::Set, .. } => {
                let mut seen: HashSet<Key> = items.iter().filter_map(Key::of).collect();
                for item in other.iter() {
                    if Key::of(&item).is_none_or(|key| seen.insert(key)) {
                        items.push(item);
                    }
                }
            }
            List::Json { kind: ListKind::Map(keys), .. } => {
                for theirs in other.iter() {
                    let mut place = None;
                    for (i, mine) in items.iter().enumerate() {
                        if same_keys(mine, &theirs, keys)? {
                            place = Some(i);
                            break;
                        }
                    }
                    match place {
                        Some(i) => items[i] = theirs,
                        None => items.push(theirs),
                    }
                }
            }
            _ => items.extend(other.iter()),
        }
        Ok(List::Made(Rc::new(items)))
    }
}

/// Whether two elements of a map list have the same keys.
fn same_keys<'a>(a: &Value<'a>, b: &Value<'a>, keys: &[Box<str>]) -> Result<bool, EvaluationError> {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return Ok(false) };
    for key in keys {
        let key = crate::escape(key).unwrap_or_else(|| key.to_string());
        match (a.field(&key), b.field(&key)) {
            (Some(a), Some(b)) if a.equals(&b)? => {}
            (None, None) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
