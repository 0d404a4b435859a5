//! Updates: the stored object and what it is to be, compared and written under the condition that nobody was quicker.
//!
//! Models pkg/registry/generic/registry/store.go Update and pkg/registry/rest/update.go.
use std::sync::Arc;

use api::tree::Tree;
use api::{apply, meta};
use store::{Operation, WriteError};

use super::system_fields::{MANAGED, keep_system_fields};
use super::{ATTEMPTS, Outcome, Part, Target, shown, store_failed};
use crate::cache::Cached;
use crate::status::Status;
use crate::{admission, alloc, pipeline, strategy};

impl Target {
    /// Changes the stored object by `change`, which gets it as it is and says what it is to be; called again after a lost race.
    /// A resourceVersion in its answer is a condition; a uid, too. `recomputes`: the answer's version comes from what `change` was given (a
    /// patch), so a lost race is tried again all the same.
    pub async fn update(
        &self,
        part: Part,
        recomputes: bool,
        dry_run: bool,
        warnings: &mut Vec<String>,
        change: &(dyn Fn(&Tree) -> Result<Tree, Status> + Sync),
    ) -> Result<Outcome, Status> {
        for attempt in 1.. {
            let Some(cached) = self.current() else { return self.create_on_update(part, dry_run, warnings, change).await };
            let before = warnings.len();
            match self.update_once(&cached, part, dry_run, warnings, change).await {
                Ok(outcome) => return Ok(outcome),
                Err(Failed::Answer(status)) => return Err(status),
                Err(Failed::LostRace { conditional }) if (conditional && !recomputes) || attempt == ATTEMPTS => return Err(self.modified()),
                Err(Failed::LostRace { .. }) => warnings.truncate(before),
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn create_on_update(
        &self,
        part: Part,
        dry_run: bool,
        warnings: &mut Vec<String>,
        change: &(dyn Fn(&Tree) -> Result<Tree, Status> + Sync),
    ) -> Result<Outcome, Status> {
        if let Some(one) = self.unreadable() {
            return Err(Status::unreadable(&one));
        }
        // Whoever applies may create everything.
        if part != Part::Main || !(self.manager.is_none() || strategy::allows_create_on_update(&self.resource)) {
            return Err(self.not_found());
        }
        let mut object = change(&Tree::Null)?;
        if object.is_null() {
            return Err(self.not_found());
        }
        // A uid or version names an object that must exist.
        if !meta::uid(&object).is_empty() {
            let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: ", meta::uid(&object));
            return Err(Status::conflict(&self.resource.group, &self.resource.plural, &self.name, &why));
        }
        if !matches!(meta::resource_version(&object), "" | "0") {
            return Err(self.not_found());
        }
        self.authorize_create()?;
        meta::set_name(&mut object, &self.name);
        self.create(object, dry_run, warnings).await
    }

    /// A write that creates needs the verb `create` as well. Models endpoints/handlers/update.go withAuthorization.
    fn authorize_create(&self) -> Result<(), Status> {
        let attributes = self.attributes("create");
        let decision = self.server.0.parts.authorizer.authorize(&attributes);
        if decision.allowed() { Ok(()) } else { Err(pipeline::forbidden(&attributes, &decision.reason)) }
    }

    async fn update_once(
        &self,
        cached: &Arc<Cached>,
        part: Part,
        dry_run: bool,
        warnings: &mut Vec<String>,
        change: &(dyn Fn(&Tree) -> Result<Tree, Status> + Sync),
    ) -> Result<Outcome, Failed> {
        let resource = &*self.resource;
        let old = Arc::new(self.tree(cached).await?);
        let mut new = change(&old)?;
        let asked_version = meta::resource_version(&new).to_owned();
        let conditional = !matches!(asked_version.as_str(), "" | "0");
        self.check_update_identity(&mut new, &old)?;
        if conditional && asked_version != meta::resource_version(&old) {
            return Err(self.modified().into());
        }
        if !conditional && part == Part::Main && !strategy::allows_unconditional_update(resource) {
            let error = api::field_error::FieldError::invalid("metadata.resourceVersion", 0i64, "must be specified for an update");
            // Upstream names the resource here where it names kinds elsewhere.
            return Err(Status::invalid(&resource.group, &resource.plural, &self.name, &[error]).into());
        }
        let by_client = part != Part::Deletion;
        if by_client {
            keep_system_fields(&mut new, &old);
        }
        let managed = new.remove(&MANAGED);
        strategy::restrict(resource, part, &mut new, &old);
        match managed {
            Some(managed) => new.set(&MANAGED, managed),
            None => drop(new.remove(&MANAGED)),
        }
        api::defaults::apply(resource, &mut new);
        strategy::convert(resource, &mut new);
        self.track(part, Some(&*old), &mut new);
        let mut new = if by_client {
            self.admit(admission::Operation::Update, part, new, Some(old.clone()), dry_run, warnings).await?
        } else {
            new
        };
        if by_client {
            api::defaults::apply(resource, &mut new);
            strategy::prepare_update(resource, part, &mut new, &old);
        }
        let reserved = alloc::reserve_update(&self.server, resource, part, &mut new, &old, dry_run).await?;
        meta::set_resource_version(&mut new, meta::resource_version(&old));
        let mut errors = strategy::validate_update(resource, part, &new, &old);
        if errors.is_empty() {
            let label = |key: &str| self.label_of_namespace(key);
            errors = strategy::authorize_update(&*self.server.0.parts.authorizer, resource, part, &self.attributes(self.verb), label, &new, &old);
        }
        if !errors.is_empty() {
            return Err(Status::invalid(strategy::inner_group(resource), strategy::kind_of(resource, &new), meta::name(&new), &errors).into());
        }
        if by_client {
            match part {
                Part::Main => warnings.extend(strategy::warnings(resource, &new, Some(&old))),
                Part::Status => warnings.extend(strategy::status_warnings(resource, &new)),
                _ => {}
            }
            new = self.admission_validate(admission::Operation::Update, part, new, Some(old.clone()), dry_run, warnings).await?;
        }
        strategy::decorate(resource, &mut new);
        apply::restore_times(&mut new, &old);
        if strategy::is_gone_after_update(resource, &new, &old) {
            return self.delete_emptied(cached, &new, dry_run).await.map_err(|f| f.conditional(conditional));
        }
        // What is stored in an old version is stored anew, changed or not: that is how storage migrates.
        if dry_run || (new == *old && !self.is_stored_in_old_version(cached)) {
            return Ok(Outcome { bytes: new.to_json().into(), created: false });
        }
        match self.put(cached.key.clone(), new, cached.unchanged()).await? {
            Ok(bytes) => {
                reserved.keep(&self.server).await;
                Ok(Outcome { bytes, created: false })
            }
            Err(WriteError::Conflict { .. }) => Err(Failed::LostRace { conditional }),
            Err(error) => Err(store_failed(error).into()),
        }
    }

    fn check_update_identity(&self, new: &mut Tree, old: &Tree) -> Result<(), Status> {
        let (group, plural) = (&self.resource.group, &self.resource.plural);
        self.check_namespace(new)?;
        match meta::name(new) {
            "" => meta::set_name(new, &self.name),
            name if name != self.name => {
                let text = format!("the name of the object ({name}) does not match the name on the URL ({})", self.name);
                return Err(Status::bad_request(text));
            }
            _ => {}
        }
        let uid = meta::uid(new);
        if !uid.is_empty() && uid != meta::uid(old) {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(old));
            return Err(Status::conflict(group, plural, &self.name, &why));
        }
        Ok(())
    }

    /// The last finalizer of an object that is being deleted is gone: so is the object.
    async fn delete_emptied(&self, cached: &Cached, new: &Tree, dry_run: bool) -> Result<Outcome, Failed> {
        if dry_run {
            return Ok(Outcome { bytes: new.to_json().into(), created: false });
        }
        match self.write(cached.key.clone(), Operation::Delete, cached.unchanged()).await {
            Ok(written) => {
                alloc::release(&self.server, &self.resource, || cached.tree()).await;
                Ok(Outcome { bytes: shown(new.clone(), written.revision), created: false })
            }
            Err(WriteError::Conflict { .. }) => Err(Failed::LostRace { conditional: false }),
            Err(error) => Err(store_failed(error).into()),
        }
    }
}

enum Failed {
    Answer(Status),
    /// `conditional`: the client gave a version, so it must hear of it.
    LostRace { conditional: bool },
}

impl Failed {
    fn conditional(self, conditional: bool) -> Self {
        match self {
            Failed::LostRace { .. } => Failed::LostRace { conditional },
            other => other,
        }
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Failed::Answer(status)
    }
}
