//! Who set which fields: `metadata.managedFields`, read and written.
//!
//! Models apimachinery/pkg/util/managedfields/internal/{managedfields,capmanagers,buildmanagerinfo}.go.
use std::cmp::Ordering;

use super::set::Set;
use crate::tree::{Object, Tree};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    pub fn get(&self, id: &Id) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.id == *id)
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
        let mut managers = Managers::default();
        for entry in entries {
            match managers.get_mut(&entry.id) {
                Some(found) => *found = entry,
                None => managers.0.push(entry),
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
        let mut count = updaters.len();
        let mut first: Vec<Id> = Vec::new();
        for id in updaters.into_iter().map(|i| self.0[i].id.clone()).collect::<Vec<_>>() {
            if count <= UPDATERS_MAX {
                break;
            }
            let Some(known) = first.iter().find(|known| known.api_version == id.api_version).cloned() else {
                first.push(id);
                continue;
            };
            let bucket = Id::new(ANCIENT, Operation::Update, &id.api_version, "");
            if self.get(&bucket).is_none() {
                let Some(entry) = self.take(&known) else { continue };
                self.0.push(Entry { id: bucket.clone(), ..entry });
            }
            let Some(merged) = self.take(&id) else { continue };
            if let Some(into) = self.get_mut(&bucket) {
                into.fields = merged.fields.union(&into.fields);
                // The later time of the two.
                into.time = merged.time;
            }
            count -= 1;
        }
    }
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
    let mut fields: Vec<(Box<str>, Tree)> = Vec::with_capacity(7);
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
