//! Who owns what after a write, and what an apply leaves of an object. Models structured-merge-diff/v6/merge/update.go.
use std::borrow::Cow;

use super::check::Problems;
use super::compare::{Comparison, compare};
use super::conflict::Conflict;
use super::managers::{Entry, Id, Managers};
use super::set::{Pattern, Set};
use super::types::Type;
use super::{fields, merge, reconcile, remove, value};
use crate::tree::Tree;

/// The versions of a kind.
pub trait Versions {
    /// The type of objects of that version; `None`: nobody knows it.
    fn type_of(&self, api_version: &str) -> Option<Type<'_>>;

    /// An object of the request's version of which nothing was said, as it is written down.
    fn empty(&self) -> Tree;

    /// The object in another version; `None`: nobody knows the version. Somebody outside may have to be asked, and that can fail.
    fn convert(&self, object: &Tree, api_version: &str) -> Result<Option<Tree>, String>;
}

/// What a write cannot set, whatever it says: nobody comes to own it.
#[derive(Clone, Debug)]
pub enum Filter {
    /// These paths and what stands below.
    Without(Set),
    /// All but these.
    Only(&'static [Pattern]),
}

impl Filter {
    fn of(&self, set: Set) -> Set {
        match self {
            Filter::Without(paths) if !paths.meets_below(&set) => set,
            Filter::Without(paths) => set.recursive_difference(paths),
            Filter::Only(patterns) => set.included(patterns),
        }
    }
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    Conflicts(Vec<Conflict>),
    /// The text is upstream's.
    Error(String),
}

pub(super) struct Updater<'u> {
    pub versions: &'u dyn Versions,
    pub api_version: &'u str,
    pub filter: Option<&'u Filter>,
}

/// `None`: the version is known no more.
type ByVersion<'v> = Vec<(Box<str>, Option<Comparison>)>;

impl<'u> Updater<'u> {
    fn ty(&self) -> Result<Type<'u>, Failure> {
        self.versions.type_of(self.api_version).ok_or_else(|| Failure::Error(format!("no corresponding type for {}", self.api_version)))
    }

    fn compared(&self, ty: Type<'_>, old: &Tree, new: &Tree) -> Result<Comparison, Failure> {
        let found = compare(ty, old, new).map_err(|problems| failed("failed to compare objects", &problems))?;
        Ok(match self.filter {
            Some(filter) => Comparison {
                removed: filter.of(found.removed),
                modified: filter.of(found.modified),
                added: filter.of(found.added),
            },
            None => found,
        })
    }

    /// The object in a version that is not the request's.
    fn converted<'t>(&self, object: &'t Tree, api_version: &str) -> Result<Option<Cow<'t, Tree>>, Failure> {
        if object.str_at(&["apiVersion"]) == api_version {
            return Ok(Some(Cow::Borrowed(object)));
        }
        let converted = self.versions.convert(object, api_version);
        converted.map(|tree| tree.map(Cow::Owned)).map_err(|why| Failure::Error(format!("failed to convert object to {api_version}: {why}")))
    }

    fn compared_in(&self, api_version: &str, old: &Tree, new: &Tree) -> Result<Option<Comparison>, Failure> {
        let Some(ty) = self.versions.type_of(api_version) else { return Ok(None) };
        let (Some(old), Some(new)) = (self.converted(old, api_version)?, self.converted(new, api_version)?) else { return Ok(None) };
        self.compared(ty, &old, &new).map(Some)
    }

    /// Drops entries of unknown versions, and reads the others under the schema of today.
    fn reconcile(&self, managers: &mut Managers) {
        managers.0.retain_mut(|entry| {
            let Some(ty) = self.versions.type_of(&entry.api_version) else { return false };
            if let Some(set) = reconcile::reconciled(ty, &entry.fields) {
                entry.fields = set;
            }
            true
        });
    }

    /// Takes what changed from all managers but `applier`; without `force` only if nobody minds. The answer is the change itself.
    fn take_over(&self, old: &Tree, new: &Tree, managers: &mut Managers, applier: Option<&Id>, force: bool) -> Result<Comparison, Failure> {
        let own = self.compared(self.ty()?, old, new)?;
        let changed = own.changed();
        let mut others: ByVersion<'_> = Vec::new();
        let mut conflicts = Vec::new();
        for entry in managers.0.iter().filter(|entry| applier != Some(&entry.id) && *entry.api_version != *self.api_version) {
            if !others.iter().any(|(version, _)| *version == entry.api_version) {
                others.push((entry.api_version.clone(), self.compared_in(&entry.api_version, old, new)?));
            }
        }
        let of_version = |version: &str| -> Option<(Cow<'_, Set>, &Set)> {
            if version == self.api_version {
                return Some((Cow::Borrowed(&changed), &own.removed));
            }
            let comparison = others.iter().find(|(v, _)| **v == *version)?.1.as_ref()?;
            Some((Cow::Owned(comparison.changed()), &comparison.removed))
        };
        if !force {
            for entry in managers.0.iter().filter(|entry| applier != Some(&entry.id)) {
                let Some((changed, _)) = of_version(&entry.api_version) else { continue };
                entry.fields.intersection(&changed).each_path(&mut |path| conflicts.push(Conflict::new(&entry.id, path)));
            }
            if !conflicts.is_empty() {
                conflicts.sort_by(|a, b| a.id.cmp(&b.id)); // stable: the paths of a manager keep their order
                return Err(Failure::Conflicts(conflicts));
            }
        }
        managers.0.retain_mut(|entry| {
            if applier != Some(&entry.id) {
                let Some((changed, removed)) = of_version(&entry.api_version) else { return false };
                if entry.fields.meets(&changed) {
                    entry.fields = entry.fields.difference(&changed);
                }
                if entry.fields.meets(removed) {
                    entry.fields = entry.fields.difference(removed);
                }
            }
            !entry.fields.is_empty()
        });
        Ok(own)
    }

    /// After a write that was no apply: what it changed, and now owns.
    pub fn update(&self, old: &Tree, new: &Tree, managers: &mut Managers) -> Result<Set, Failure> {
        self.reconcile(managers);
        let found = self.take_over(old, new, managers, None, true)?;
        Ok(found.changed())
    }

    /// The object after `config` was applied to it; `None`: as it was. `managers` is changed in any case.
    pub fn apply(&self, live: &Tree, config: &Tree, managers: &mut Managers, applier: &Id, force: bool) -> Result<Option<Tree>, Failure> {
        self.reconcile(managers);
        let ty = self.ty()?;
        let merged = merge::merge(ty, live, config).map_err(|problems| failed("failed to merge config", &problems))?;
        let set = fields::paths(ty, config).map_err(|problems| failed("failed to get field set", &problems))?;
        let set = match self.filter {
            Some(filter) => filter.of(set),
            None => set,
        };
        let last = managers.take(applier);
        let time = last.as_ref().map(|entry| entry.time.clone()).unwrap_or_default();
        // Who applies all that he applied before takes nothing away, and most do.
        let goes = last.filter(|last| *last.api_version != *self.api_version || !set.contains_all(&last.fields));
        managers.0.push(Entry { id: applier.clone(), api_version: self.api_version.into(), time, fields: set });
        let new = self.prune(merged, managers, goes)?;
        self.take_over(live, &new, managers, Some(applier), force)?;
        Ok((!value::equal(live, &new)).then_some(new))
    }

    /// Takes out what the applier had applied before, applies no more, and nobody else owns.
    fn prune(&self, merged: Tree, managers: &Managers, last: Option<Entry>) -> Result<Tree, Failure> {
        let Some(last) = last.filter(|last| !last.fields.is_empty()) else { return Ok(merged) };
        let version = &*last.api_version;
        let (Some(ty), Some(converted)) = (self.versions.type_of(version), self.converted(&merged, version)?) else { return Ok(merged) };
        let last_named = last.fields.with_named_fields(ty);
        let pruned = remove::remove(ty, &converted, &last_named);
        let pruned = self.add_back_owned(&converted, pruned, version, managers)?;
        let Some(pruned) = self.converted(&pruned, version)? else { return Ok(merged) };
        // What the applier did not own is none of its business.
        let all = |tree: &Tree| {
            let set = fields::paths(ty, tree).map_err(|problems| failed("failed to prune fields: failed to create field set", &problems))?;
            Ok::<_, Failure>(set.with_named_fields(ty))
        };
        let goes = all(&converted)?.difference(&all(&pruned)?).intersection(&last_named);
        let left = remove::remove(ty, &converted, &goes);
        let back = self.converted(&left, self.api_version)?.map(Cow::into_owned);
        back.ok_or_else(|| Failure::Error(format!("failed to prune fields: no version {}", self.api_version)))
    }

    /// Puts back what others, or the new configuration, own.
    fn add_back_owned(&self, merged: &Tree, pruned: Tree, first: &str, managers: &Managers) -> Result<Tree, Failure> {
        // The version of the last apply first: what conversion needs must be there again.
        let mut versions: Vec<&str> = vec![first];
        managers.0.iter().for_each(|entry| {
            if !versions.contains(&&*entry.api_version) {
                versions.push(&entry.api_version);
            }
        });
        let mut pruned = pruned;
        for version in versions {
            let mut of_version = managers.0.iter().filter(|entry| *entry.api_version == *version).peekable();
            if of_version.peek().is_none() {
                continue;
            }
            let owned = of_version.fold(Set::default(), |set, entry| set.union(&entry.fields));
            let (Some(ty), Some(merged), Some(kept)) =
                (self.versions.type_of(version), self.converted(merged, version)?, self.converted(&pruned, version)?)
            else {
                continue;
            };
            let all = |tree: &Tree| {
                let set = fields::paths(ty, tree).map_err(|problems| failed("failed to prune fields: failed add back owned items", &problems))?;
                Ok::<_, Failure>(set.with_named_fields(ty))
            };
            let goes = all(&merged)?.difference(&all(&kept)?.union(&owned.with_named_fields(ty)));
            pruned = remove::remove(ty, &merged, &goes);
        }
        Ok(pruned)
    }
}

fn failed(what: &str, problems: &Problems) -> Failure {
    Failure::Error(format!("{what}: {problems}"))
}
