//! Managers of a workload as managers of its scale, and back. Models apimachinery/pkg/util/managedfields/scalehandler.go.
use super::managers::{Entry, Id, Managers, Operation};
use super::set::Set;
use crate::tree::{Key, Tree};

const SCALE: &str = "autoscaling/v1";

/// Where a version of the workload keeps its replicas. Outer `None`: nobody knows the version; inner: it has no scale.
pub type Paths<'p> = &'p dyn Fn(&str) -> Option<Option<Vec<Box<str>>>>;

fn keys(path: &[Box<str>]) -> Vec<Key> {
    path.iter().map(|name| super::element::field(name)).collect()
}

fn holds(entry: &Entry, path: &[Box<str>]) -> bool {
    entry.fields.has(keys(path).iter().map(|key| &**key))
}

fn one(path: &[Box<str>]) -> Set {
    Set::of_fields(&path.iter().map(|name| &**name).collect::<Vec<_>>())
}

/// `metadata.managedFields` of the scale: who owns the replicas.
pub fn to_scale(workload: Option<&Tree>, paths: Paths<'_>) -> Option<Tree> {
    let managers = Managers::from_stored(workload?.clone());
    let of_scale = managers.0.into_iter().filter(|entry| paths(&entry.api_version).flatten().is_some_and(|path| holds(entry, &path)));
    let entries = of_scale.map(|entry| Entry { api_version: SCALE.into(), fields: Set::of_fields(&["spec", "replicas"]), ..entry });
    Managers(entries.collect()).into_tree()
}

/// `metadata.managedFields` of the workload (in `api_version`), whose scale has these managers now.
pub fn to_workload(workload: Option<&Tree>, scale: Option<&Tree>, api_version: &str, paths: Paths<'_>) -> Option<Tree> {
    let before = workload.map(|list| Managers::from_stored(list.clone())).unwrap_or_default();
    let mut of_scale = scale.map(|list| Managers::from_stored(list.clone())).unwrap_or_default();
    let mut after = Managers::default();
    for entry in before.0 {
        let Some(path) = paths(&entry.api_version) else { continue };
        let Some(path) = path.filter(|path| holds(&entry, path)) else {
            after.0.push(entry);
            continue;
        };
        let id = Id { api_version: if entry.id.operation == Operation::Apply { "" } else { SCALE }.into(), ..entry.id.clone() };
        if of_scale.take(&id).is_some() {
            after.0.push(entry);
            continue;
        }
        // Somebody scaled: the replicas are no longer this one's.
        let fields = entry.fields.difference(&one(&path));
        if !fields.is_empty() {
            after.0.push(Entry { fields, ..entry });
        }
    }
    let Some(path) = paths(api_version).flatten() else { return after.into_tree() };
    for entry in of_scale.0.into_iter().filter(|entry| entry.fields.has(["f:spec", "f:replicas"])) {
        let id = Id { api_version: if entry.id.operation == Operation::Apply { "" } else { api_version }.into(), ..entry.id };
        match after.get_mut(&id) {
            Some(found) => found.fields = found.fields.union(&one(&path)),
            // Without a time, as upstream.
            None => after.0.push(Entry { id, api_version: api_version.into(), time: "".into(), fields: one(&path) }),
        }
    }
    after.into_tree()
}
