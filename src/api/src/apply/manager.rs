//! Tracks managers through every write, and applies.
//!
//! Models apimachinery/pkg/util/managedfields/internal/{fieldmanager,managedfieldsupdater,stripmeta,skipnonapplied,structuredmerge,versioncheck}.go.
use std::sync::OnceLock;

use super::conflict::Conflict;
use super::managers::{Entry, Id, Managers, Operation};
use super::set::Set;
use super::update::{Failure, Filter, Updater, Versions};
use super::{check, last_applied};
use crate::meta;
use crate::registry::split_api_version;
use crate::tree::Tree;

const MANAGED: [&str; 2] = ["metadata", "managedFields"];
const BEFORE_FIRST: &str = "before-first-apply";

/// What a write is, apart from the objects.
pub struct Write<'w> {
    pub versions: &'w dyn Versions,
    /// Of the request.
    pub api_version: &'w str,
    pub kind: &'w str,
    pub subresource: &'w str,
    pub filter: Option<&'w Filter>,
    /// RFC 3339 in whole seconds.
    pub now: &'w str,
}

/// Why nothing was applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    BadRequest(String),
    /// Upstream names no reason for these.
    Failed(String),
    Conflicts(Vec<Conflict>),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Conflicts(conflicts) => Refused::Conflicts(conflicts),
            Failure::Error(text) => Refused::Failed(text),
        }
    }
}

/// Paths that are nobody's.
fn nobodys() -> &'static Set {
    static SET: OnceLock<Set> = OnceLock::new();
    SET.get_or_init(|| {
        let mut set = Set::default();
        for path in [&["f:apiVersion"][..], &["f:kind"], &["f:metadata"]] {
            set.insert(path.iter().copied());
        }
        for field in [
            "f:name",
            "f:namespace",
            "f:creationTimestamp",
            "f:selfLink",
            "f:uid",
            "f:clusterName",
            "f:generation",
            "f:managedFields",
            "f:resourceVersion",
        ] {
            set.insert(["f:metadata", field]);
        }
        set
    })
}

/// An explicit wish to start anew: an empty list, or one of one empty entry.
fn is_reset(list: &Tree) -> bool {
    match list.as_array() {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(|entry| entry.is_empty()),
        _ => false,
    }
}

fn set_or_remove(object: &mut Tree, managers: Managers) {
    match managers.into_tree() {
        Some(list) => object.set(&MANAGED, list),
        None => drop(object.remove(&MANAGED)),
    }
}

/// Whether `list` (of somebody who may not know what it is about) can stand in an object.
pub fn check_list(list: Option<&Tree>) -> Result<(), String> {
    list.map_or(Ok(()), |list| Managers::from_client(list).map(drop))
}

impl Write<'_> {
    fn updater(&self) -> Updater<'_> {
        Updater { versions: self.versions, api_version: self.api_version, filter: self.filter }
    }

    fn stored(live: &Tree) -> Managers {
        live.at(&MANAGED).map(|list| Managers::from_stored(list.clone())).unwrap_or_default()
    }

    /// The managers before the write: as the request says, if it may and makes sense, else as they are. Takes them out of `new`.
    fn before(&self, live: &Tree, new: &mut Tree) -> Managers {
        let given = new.remove(&MANAGED);
        match given {
            Some(list) if live.at(&MANAGED) == Some(&list) => Managers::from_stored(list),
            Some(list) if self.subresource.is_empty() => match is_reset(&list) {
                true => Managers::default(),
                false => Managers::from_client(&list).ok().filter(|managers| !managers.is_empty()).unwrap_or_else(|| Self::stored(live)),
            },
            _ => Self::stored(live),
        }
    }

    /// Notes in `new` what `manager` changed; without `live` it is a new object. Never fails: where the objects cannot be compared, the managers
    /// stay as they were.
    pub fn track(&self, manager: &str, live: Option<&Tree>, new: &mut Tree) {
        let empty = live.is_none().then(|| self.versions.empty());
        let Some(live) = live.or(empty.as_ref()) else { return };
        let mut managers = self.before(live, new);
        if managers.is_empty() && !meta::uid(live).is_empty() {
            return;
        }
        match self.update(manager, live, new, &mut managers) {
            Ok(()) => set_or_remove(new, managers),
            Err(_) => {
                if let Some(list) = live.at(&MANAGED) {
                    new.set(&MANAGED, list.clone());
                }
            }
        }
    }

    fn update(&self, manager: &str, live: &Tree, new: &Tree, managers: &mut Managers) -> Result<(), Failure> {
        let changed = self.updater().update(live, new, managers)?.difference(nobodys());
        if !changed.is_empty() {
            let id = Id::new(manager, Operation::Update, self.api_version, self.subresource);
            match managers.get_mut(&id) {
                Some(entry) => {
                    if !entry.fields.contains_all(&changed) {
                        entry.fields = entry.fields.union(&changed);
                    }
                    entry.time = self.now.into();
                }
                None => managers.0.push(Entry { id, api_version: self.api_version.into(), time: self.now.into(), fields: changed }),
            }
        }
        managers.cap();
        Ok(())
    }

    fn gvk(&self, api_version: &str, kind: &str) -> String {
        let (group, version) = split_api_version(api_version);
        format!("{group}/{version}, Kind={kind}")
    }

    /// What upstream's messages call an object.
    pub fn called(&self, object: &Tree) -> String {
        format!("{}/{}; {}", meta::namespace(object), meta::name(object), self.gvk(meta::api_version(object), meta::kind(object)))
    }

    /// The object after `config` was applied to it; without `live` it is a new one.
    pub fn apply(&self, manager: &str, live: Option<&Tree>, config: &Tree, force: bool) -> Result<Tree, Refused> {
        if meta::api_version(config) != self.api_version || meta::kind(config) != self.kind {
            return Err(Refused::BadRequest(format!("invalid object type: {}", self.gvk(meta::api_version(config), meta::kind(config)))));
        }
        let mut bare = live.cloned().unwrap_or_else(|| self.versions.empty());
        bare.remove(&MANAGED);
        let mut managers = live.map(Self::stored).unwrap_or_default();
        if managers.is_empty() && live.is_some() {
            let tracked = self.update(BEFORE_FIRST, &self.versions.empty(), &bare, &mut managers);
            tracked.map_err(|failure| match failure {
                Failure::Error(text) => Refused::Failed(format!("failed to create manager for existing fields: {text}")),
                failure => failure.into(),
            })?;
        }
        if config.at(&MANAGED).and_then(Tree::as_array).is_some() {
            return Err(Refused::BadRequest("metadata.managedFields must be nil".into()));
        }
        let ty = self.versions.type_of(self.api_version);
        let ty = ty.ok_or_else(|| Refused::Failed(format!("no corresponding type for {}", self.gvk(self.api_version, self.kind))))?;
        check::check(ty, config)
            .map_err(|problems| Refused::Failed(format!("failed to create typed patch object ({}): {problems}", self.called(config))))?;
        let before = (manager == last_applied::MANAGER).then(|| managers.clone());
        let (mut object, managers) = match (self.merged(manager, &bare, config, managers, force), before) {
            (Err(Refused::Conflicts(conflicts)), Some(managers)) => {
                let allowed = last_applied::allowed(ty, self.api_version, &bare).unwrap_or_default();
                let left: Vec<Conflict> = conflicts.into_iter().filter(|conflict| !allowed.has(conflict.keys())).collect();
                if !left.is_empty() {
                    return Err(Refused::Conflicts(left));
                }
                self.merged(manager, &bare, config, managers, true)?
            }
            (other, _) => other?,
        };
        if manager == last_applied::MANAGER {
            last_applied::renew(&mut object, config);
        }
        set_or_remove(&mut object, managers);
        Ok(object)
    }

    fn merged(&self, manager: &str, live: &Tree, config: &Tree, mut managers: Managers, force: bool) -> Result<(Tree, Managers), Refused> {
        let id = Id::new(manager, Operation::Apply, self.api_version, self.subresource);
        let new = self.updater().apply(live, config, &mut managers, &id, force)?;
        if let Some(mut entry) = managers.take(&id) {
            entry.fields = entry.fields.difference(nobodys());
            if new.is_some() {
                entry.time = self.now.into();
            }
            if !entry.fields.is_empty() {
                managers.0.push(entry);
            }
        }
        Ok((new.unwrap_or_else(|| live.clone()), managers))
    }
}

/// Gives entries their old time back where an update changed nothing but times: what a strategy, defaults or admission took back was no change.
/// Models k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager/equality.go.
pub fn restore_times(new: &mut Tree, old: &Tree) {
    if times_alone(new, old)
        && let Some(list) = old.at(&MANAGED)
    {
        new.set(&MANAGED, list.clone());
    }
}

fn times_alone(new: &Tree, old: &Tree) -> bool {
    let (new_list, old_list) = (new.array_at(&MANAGED), old.array_at(&MANAGED));
    let same_but_time = |(a, b): (&Tree, &Tree)| same_but(a, b, "time");
    let is_same_list = new_list.len() == old_list.len() && new_list.iter().zip(old_list).all(same_but_time);
    if new_list.is_empty() || !is_same_list || new_list == old_list || !same_but(new, old, "metadata") {
        return false;
    }
    match (new.get("metadata"), old.get("metadata")) {
        (Some(new), Some(old)) => same_but(new, old, "managedFields"),
        _ => false,
    }
}

/// Whether two objects are equal but for one field.
fn same_but(a: &Tree, b: &Tree, name: &str) -> bool {
    match (a, b) {
        (Tree::Object(a), Tree::Object(b)) => a.zip(b).all(|(key, x, y)| **key == *name || x == y),
        _ => false,
    }
}
