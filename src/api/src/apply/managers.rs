//! Who set which fields: `metadata.managedFields`, read and written.
//!
//! Models apimachinery/pkg/util/managedfields/internal/{managedfields,capmanagers,buildmanagerinfo}.go.
use std::cmp::Ordering;
use std::collections::HashMap;

use super::set::Set;
use crate::tree::{Key, Object, Tree};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One manager's fields in one version.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: Id,
    /// In which the paths are.
    pub api_version: Box<str>,
    /// RFC 3339 in whole seconds; empty where nobody said.
    pub time: Box<str>,
    pub fields: Set,
}

/// What tells managers apart. For those that apply, the version does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub manager: Box<str>,
    pub operation: Operation,
    /// Empty for those that apply.
    pub api_version: Box<str>,
    pub subresource: Box<str>,
}

impl Id {
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        Id {
            manager: if manager.is_empty() { "unknown" } else { manager }.into(),
            operation,
            api_version: if operation == Operation::Apply { "" } else { api_version }.into(),
            subresource: subresource.into(),
        }
    }

    /// As conflicts name it. Models conflict.go printManager.
    pub fn display(&self) -> String {
        let mut text = crate::codec::quote(&self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", crate::codec::quote(&self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(pub(super) Vec<Entry>);

/// As upstream; the oldest of more are put together.
const UPDATERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";

impl Managers {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get_mut(&mut self, id: &Id) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.id == *id)
    }

    pub(super) fn take(&mut self, id: &Id) -> Option<Entry> {
        let at = self.0.iter().position(|entry| entry.id == *id)?;
        Some(self.0.swap_remove(at))
    }

    /// Reads what this server wrote.
    pub fn from_stored(list: Tree) -> Managers {
        let Tree::Array(items) = list else { return Managers::default() };
        Managers::collect(items.into_iter().filter_map(|mut item| {
            let fields = item.remove(&["fieldsV1"]).unwrap_or_default();
            let fields = Set::from_stored(fields);
            entry(&item, 0, fields).ok()
        }))
    }

    /// Reads what a client wrote; all or nothing.
    pub fn from_client(list: &Tree) -> Result<Managers, String> {
        let mut entries = Vec::new();
        for (i, item) in list.as_array().unwrap_or_default().iter().enumerate() {
            let head = entry(item, i, Set::default())?;
            let fields = Set::from_client(item.get("fieldsV1").unwrap_or(&Tree::Null));
            let fields = fields.map_err(|why| format!("error decoding versioned set from {}: error decoding set: {why}", head.id.display()))?;
            entries.push(Entry { fields, ..head });
        }
        Ok(Managers::collect(entries))
    }

    /// Of two entries of one manager the later counts.
    fn collect(entries: impl IntoIterator<Item = Entry>) -> Managers {
        let (mut managers, mut places) = (Managers::default(), HashMap::new());
        for entry in entries {
            match places.get(&entry.id) {
                Some(&place) => managers.0[place] = entry,
                None => {
                    places.insert(entry.id.clone(), managers.0.len());
                    managers.0.push(entry);
                }
            }
        }
        managers
    }

    /// `metadata.managedFields`; `None`: there are none.
    pub fn into_tree(mut self) -> Option<Tree> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by(order);
        Some(Tree::Array(self.0.into_iter().map(written).collect()))
    }

    /// Puts the oldest updates of each version together until there are no more than upstream keeps.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<usize> = (0..self.0.len()).filter(|&i| self.0[i].id.operation == Operation::Update).collect();
        if updaters.len() <= UPDATERS_MAX {
            return;
        }
        updaters.sort_by(|&a, &b| {
            let (a, b) = (&self.0[a], &self.0[b]);
            a.time.cmp(&b.time).then_with(|| a.id.cmp(&b.id))
        });
        let is_bucket = |entry: &Entry| entry.id == Id::new(ANCIENT, Operation::Update, &entry.id.api_version, "");
        let buckets: HashMap<Box<str>, usize> =
            self.0.iter().enumerate().filter(|(_, entry)| is_bucket(entry)).map(|(i, entry)| (entry.id.api_version.clone(), i)).collect();
        let mut entries: Vec<Option<Entry>> = std::mem::take(&mut self.0).into_iter().map(Some).collect();
        let mut oldest: HashMap<Box<str>, Oldest> = HashMap::new();
        let mut count = updaters.len();
        for i in updaters {
            if count <= UPDATERS_MAX {
                break;
            }
            let Some(version) = entries[i].as_ref().map(|entry| entry.id.api_version.clone()) else { continue };
            let bucket = Id::new(ANCIENT, Operation::Update, &version, "");
            let Some(group) = oldest.get_mut(&version) else {
                let bucket = buckets.get(&version).copied();
                oldest.insert(version, Oldest { first: i, bucket, sets: Vec::new() });
                continue;
            };
            let into = *group.bucket.get_or_insert(group.first);
            if let Some(first) = entries[into].as_mut() {
                first.id = bucket;
            }
            count -= 1;
            let Some(merged) = entries[i].take() else { continue };
            if i == into {
                // As upstream: what was put together before goes, where it is not itself the oldest.
                (group.bucket, group.sets) = (None, Vec::new());
            } else if let Some(into) = entries[into].as_mut() {
                // The later time of the two.
                into.time = merged.time;
                group.sets.push(merged.fields);
            }
        }
        for group in oldest.into_values() {
            if let Some(into) = group.bucket.and_then(|bucket| entries[bucket].as_mut()) {
                let own = std::mem::take(&mut into.fields);
                into.fields = together(group.sets.into_iter().chain([own]).collect());
            }
        }
        self.0 = entries.into_iter().flatten().collect();
    }
}

/// Updates of one version, oldest first.
struct Oldest {
    first: usize,
    /// Where they are put together.
    bucket: Option<usize>,
    sets: Vec<Set>,
}

/// The union of many sets, two by two: each path is copied a few times, not once for each set.
fn together(mut sets: Vec<Set>) -> Set {
    while sets.len() > 1 {
        sets = sets.chunks(2).map(|pair| pair.iter().skip(1).fold(pair[0].clone(), |set, other| set.union(other))).collect();
    }
    sets.pop().unwrap_or_default()
}

fn entry(item: &Tree, i: usize, fields: Set) -> Result<Entry, String> {
    let operation = match item.str_at(&["operation"]) {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".into()),
    };
    let api_version = item.str_at(&["apiVersion"]);
    if api_version.is_empty() {
        return Err("apiVersion must not be empty".into());
    }
    match item.str_at(&["fieldsType"]) {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
        other => return Err(format!("invalid fieldsType {} in managed fields entry {i}", crate::codec::quote(other))),
    }
    let id = Id {
        manager: item.str_at(&["manager"]).into(),
        operation,
        api_version: if operation == Operation::Apply { "" } else { api_version }.into(),
        subresource: item.str_at(&["subresource"]).into(),
    };
    Ok(Entry { id, api_version: api_version.into(), time: item.str_at(&["time"]).into(), fields })
}

/// Models managedfields.go sortEncodedManagedFields.
fn order(a: &Entry, b: &Entry) -> Ordering {
    a.id.operation
        .cmp(&b.id.operation)
        .then_with(|| a.time.cmp(&b.time))
        .then_with(|| a.id.manager.cmp(&b.id.manager))
        .then_with(|| a.api_version.cmp(&b.api_version))
        .then_with(|| a.id.subresource.cmp(&b.id.subresource))
}

fn written(entry: Entry) -> Tree {
    let mut fields: Vec<(Key, Tree)> = Vec::with_capacity(7);
    fields.push(("apiVersion".into(), entry.api_version.into()));
    fields.push(("fieldsType".into(), "FieldsV1".into()));
    fields.push(("fieldsV1".into(), entry.fields.into_tree()));
    let texts = [
        ("manager", entry.id.manager),
        ("operation", entry.id.operation.as_str().into()),
        ("subresource", entry.id.subresource),
        ("time", entry.time),
    ];
    fields.extend(texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.into(), text.into())));
    Tree::Object(Object::from_sorted(fields))
}
