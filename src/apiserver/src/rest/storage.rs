//! Create and update as every caller sees them: strategy, admission, validation, one conditional write.
//!
//! Models pkg/registry/generic/registry/store.go Create, Update and pkg/registry/rest/{create,update,meta}.go. Callers in this crate (bootstrap,
//! bindings, evictions) come in here, too, so nothing goes to the store around the rules.
mod part;
mod system_fields;
mod update;

use std::sync::Arc;

use api::meta;
use api::registry::{Resource, ResourceRef};
use api::tree::Tree;
use bytes::Bytes;
use store::{Expect, Operation, Revision, Write, WriteError, Written};

use crate::admission::{self, Request};
use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, UserInfo};
use crate::cache::{self, Cached, Unreadable};
use crate::server::ApiServer;
use crate::status::Status;
use crate::{alloc, convert, strategy};
pub use part::Part;
pub use system_fields::{generate_name, now, timestamp};
use system_fields::{MANAGED, fill_system_fields, wipe_system_fields};

/// What an operation works on, and for whom.
#[derive(Clone)]
pub struct Target {
    pub server: ApiServer,
    pub user: Arc<UserInfo>,
    pub resource: ResourceRef,
    pub namespace: String,
    pub name: String,
    /// The request's: `update`, `patch`, ...
    pub verb: &'static str,
    /// Who is noted as having set what a write changes; `None`: that is noted already.
    pub manager: Option<Arc<str>>,
}

/// An object after a write, in the version of the request.
pub struct Outcome {
    pub bytes: Bytes,
    pub created: bool,
}

/// How often a write that lost a race is tried again when the client gave no version.
const ATTEMPTS: usize = 100;
/// As upstream's RetryGenerateName.
const NAME_ATTEMPTS: usize = 8;

impl Target {
    pub fn key(&self, name: &str) -> Arc<str> {
        cache::key(&self.resource, &self.namespace, name)
    }

    /// There is no object; what stands in its place is named.
    pub fn not_found(&self) -> Status {
        let missing = || Status::not_found(&self.resource.group, &self.resource.plural, &self.name);
        self.unreadable().map_or_else(missing, |one| Status::unreadable(&one))
    }

    pub fn unreadable(&self) -> Option<Unreadable> {
        let cache = &self.server.0.parts.cache;
        cache.unreadable(cache.kind(&self.resource)?, &self.key(&self.name))
    }

    pub fn current(&self) -> Option<Arc<Cached>> {
        let cache = &self.server.0.parts.cache;
        let kind = cache.kind(&self.resource)?;
        cache.get_key(kind, &self.key(&self.name)).0
    }

    /// A stored object as this resource's version shows it.
    pub async fn tree(&self, cached: &Arc<Cached>) -> Result<Tree, Status> {
        let cached = convert::view(&self.server.0.parts.cache, &self.resource, cached.clone()).await?;
        let mut tree = cached.tree();
        convert::from_stored(&self.resource, &mut tree);
        Ok(tree)
    }

    pub fn modified(&self) -> Status {
        Status::modified(&self.resource.group, &self.resource.plural, &self.name)
    }

    pub(super) async fn write(&self, key: Arc<str>, operation: Operation, expect: Expect) -> Result<Written, WriteError> {
        let durability = strategy::durability(&self.resource);
        self.server.0.parts.store.write(Write { key, operation, expect, durability }).await
    }

    /// Whether bytes are stored as this resource shows them, but for their version.
    fn is_stored_as_shown(&self) -> bool {
        match self.resource.custom {
            Some(_) => self.resource.version == self.resource.storage_version,
            None => !convert::is_needed(&self.resource),
        }
    }

    /// The bytes that are stored: storage version, without what is spliced in or never kept (and the object has no longer).
    async fn stored_bytes(&self, object: &mut Tree) -> Result<Bytes, Status> {
        if let Some(meta) = object.get_mut("metadata").and_then(Tree::as_object_mut) {
            for field in ["resourceVersion", "selfLink"] {
                meta.remove(field);
            }
        }
        if self.is_stored_as_shown() {
            return Ok(object.to_json().into());
        }
        let mut stored = object.clone();
        if self.resource.custom.is_some() {
            stored = convert::custom_to_stored(&self.server.0.parts.cache, &self.resource, stored).await?;
        }
        convert::to_stored(&self.resource, &mut stored);
        Ok(stored.to_json().into())
    }

    fn is_stored_in_old_version(&self, cached: &Cached) -> bool {
        let has_webhook = self.resource.custom.as_ref().is_some_and(|custom| custom.conversion.is_some());
        let storage = || api::registry::api_version(&self.resource.group, &self.resource.storage_version);
        cached.is_stored_otherwise || (has_webhook && meta::api_version(&cached.tree()) != storage())
    }

    fn request(&self, operation: admission::Operation, part: Part, object: Tree, old: Option<Arc<Tree>>, dry_run: bool) -> Request {
        Request {
            user: self.user.clone(),
            operation,
            resource: self.resource.clone(),
            subresource: part.subresource(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            object,
            old,
            dry_run,
            warnings: Vec::new(),
        }
    }

    /// The mutating half of admission.
    pub async fn admit(
        &self,
        operation: admission::Operation,
        part: Part,
        object: Tree,
        old: Option<Arc<Tree>>,
        dry_run: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Tree, Status> {
        let mut request = self.request(operation, part, object, old, dry_run);
        self.server.0.parts.admission.admit(&mut request).await?;
        warnings.append(&mut request.warnings);
        Ok(request.object)
    }

    /// The validating half; returns the object it was lent.
    pub async fn admission_validate(
        &self,
        operation: admission::Operation,
        part: Part,
        object: Tree,
        old: Option<Arc<Tree>>,
        dry_run: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Tree, Status> {
        let mut request = self.request(operation, part, object, old, dry_run);
        self.server.0.parts.admission.validate(&mut request).await?;
        warnings.append(&mut request.warnings);
        Ok(admission::resource_quota::charge(&self.server, request).await?.object)
    }

    /// Creates `object` (decoded, not yet defaulted).
    pub async fn create(&self, mut object: Tree, dry_run: bool, warnings: &mut Vec<String>) -> Result<Outcome, Status> {
        let resource = &*self.resource;
        self.check_identity(&mut object)?;
        self.check_namespace_exists()?;
        api::defaults::apply(resource, &mut object);
        wipe_system_fields(&mut object);
        strategy::convert(resource, &mut object);
        self.track(Part::Main, None, &mut object);
        let object = self.admit(admission::Operation::Create, Part::Main, object, None, dry_run, warnings).await?;
        let mut object = object;
        api::defaults::apply(resource, &mut object);

        strategy::prepare_create(resource, &mut object, &self.user);
        warnings.extend(strategy::adopt_annotations(resource, &mut object));
        let generated = meta::name(&object).is_empty() && !meta::generate_name(&object).is_empty();
        fill_system_fields(&mut object);
        for attempt in 1.. {
            // A name that is given is tried once.
            let mut object = if generated { object.clone() } else { std::mem::take(&mut object) };
            if generated {
                let name = generate_name(meta::generate_name(&object));
                meta::set_name(&mut object, &name);
            }
            strategy::name_chosen(resource, &mut object);
            let reserved = alloc::reserve_create(&self.server, resource, &mut object, dry_run).await?;
            let mut errors = strategy::validate_create(resource, &object);
            errors.extend(strategy::may_administer(&resource.kind, &object, |key| self.label_of_namespace(key)));
            if !errors.is_empty() {
                return Err(Status::invalid(strategy::inner_group(resource), strategy::kind_of(resource, &object), meta::name(&object), &errors));
            }
            if attempt == 1 {
                warnings.extend(strategy::warnings(resource, &object, None));
            }
            strategy::canonicalize(resource, &mut object);
            let mut object = self.admission_validate(admission::Operation::Create, Part::Main, object, None, dry_run, warnings).await?;
            strategy::decorate(resource, &mut object);
            let name = meta::name(&object).to_owned();
            let key = self.key(&name);
            if dry_run {
                let taken = self.existing(&name);
                if let Some(existing) = taken {
                    return Err(already_exists(resource, &name, &existing));
                }
                return Ok(Outcome { bytes: object.to_json().into(), created: true });
            }
            match self.put(key, object, Expect::Absent).await? {
                Ok(bytes) => {
                    reserved.keep(&self.server).await;
                    return Ok(Outcome { bytes, created: true });
                }
                Err(WriteError::Conflict { .. }) if generated && attempt < NAME_ATTEMPTS => {}
                Err(WriteError::Conflict { .. }) if generated => {
                    return Err(Status::generate_name_conflict(&resource.group, &resource.plural, &name));
                }
                Err(WriteError::Conflict { current }) => {
                    let existing = current.and_then(|kv| Tree::from_json(&kv.value).ok()).unwrap_or_default();
                    return Err(already_exists(resource, &name, &existing));
                }
                Err(error) => return Err(store_failed(error)),
            }
        }
        unreachable!("every attempt but the last but one returns")
    }

    /// Writes the object; the answer is what clients read. One that is too large is written without what is noted of its managers, which can be
    /// most of it; what somebody applied is not, as its next apply would need that.
    async fn put(&self, key: Arc<str>, mut object: Tree, expect: Expect) -> Result<Result<Bytes, WriteError>, Status> {
        let mut stored = self.stored_bytes(&mut object).await?;
        let mut result = self.write(key.clone(), Operation::Put(stored.clone()), expect.clone()).await;
        let is_too_large = matches!(result, Err(WriteError::TooLarge { .. })) && self.manager.is_some();
        if is_too_large && object.remove(&MANAGED).is_some() {
            stored = self.stored_bytes(&mut object).await?;
            result = self.write(key, Operation::Put(stored.clone()), expect).await;
        }
        Ok(result.map(|written| {
            let spliced = self.is_stored_as_shown().then(|| cache::with_version(&stored, written.revision.0)).flatten();
            spliced.unwrap_or_else(|| shown(object, written.revision))
        }))
    }

    /// Changes a built-in object as it is stored, past strategy, admission and validation: what upstream's registry does by
    /// `GuaranteedUpdate`, where the server itself knows what is to be written. `change` is called again after a lost race.
    pub async fn update_stored(&self, dry_run: bool, change: &(dyn Fn(&mut Tree) -> Result<(), Status> + Sync)) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            let cached = self.current().ok_or_else(|| self.not_found())?;
            let mut object = cached.tree();
            change(&mut object)?;
            if dry_run {
                return Ok(());
            }
            match self.put(cached.key.clone(), object, cached.unchanged()).await? {
                Ok(_) => return Ok(()),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(store_failed(error)),
            }
        }
        Err(self.modified())
    }

    fn existing(&self, name: &str) -> Option<Tree> {
        let target = Target { name: name.to_owned(), ..self.clone() };
        target.current().map(|cached| cached.tree())
    }

    /// The namespace of the body against that of the path.
    fn check_namespace(&self, object: &mut Tree) -> Result<(), Status> {
        if self.resource.namespaced {
            match meta::namespace(object) {
                "" => meta::set_namespace(object, &self.namespace),
                namespace if namespace != self.namespace => {
                    return Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
                }
                _ => {}
            }
        } else {
            object.remove(&["metadata", "namespace"]);
        }
        Ok(())
    }

    /// A label of the object's namespace.
    fn label_of_namespace(&self, key: &str) -> Option<String> {
        Some(self.server.0.parts.cache.get("", "namespaces", "", &self.namespace)?.label(key)?.to_owned())
    }

    /// Name and namespace of the body against those of the path.
    fn check_identity(&self, object: &mut Tree) -> Result<(), Status> {
        self.check_namespace(object)?;
        if !self.name.is_empty() && meta::name(object).is_empty() {
            meta::set_name(object, &self.name);
        }
        Ok(())
    }

    /// Models pkg/admission/plugin/namespace/lifecycle.
    fn check_namespace_exists(&self) -> Result<(), Status> {
        if !self.resource.namespaced {
            return Ok(());
        }
        let Some(namespace) = self.server.0.parts.cache.get("", "namespaces", "", &self.namespace) else {
            return Err(Status::not_found("", "namespaces", &self.namespace));
        };
        if namespace.field("status.phase") != "Terminating" {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {} because it is being terminated", self.namespace);
        let cause = format!("namespace {} is being terminated", self.namespace);
        let status = Status::forbidden(&self.resource.group, &self.resource.plural, &self.name, &why);
        Err(status.with_cause("NamespaceTerminating", cause, "metadata.namespace"))
    }

    /// What it is asked with whether the user may do `verb` with the object.
    pub fn attributes<'a>(&'a self, verb: &'a str) -> Attributes<'a> {
        Attributes {
            user: &self.user,
            verb,
            api_group: &self.resource.group,
            api_version: &self.resource.version,
            resource: &self.resource.plural,
            subresource: "",
            namespace: &self.namespace,
            name: &self.name,
            resource_request: true,
            path: "",
            fields: &ALL_FIELDS,
            labels: &ALL_LABELS,
        }
    }

    /// Removes exactly `cached`; false: somebody changed it meanwhile.
    pub async fn remove(&self, cached: &Cached) -> Result<Option<Revision>, Status> {
        match self.write(cached.key.clone(), Operation::Delete, cached.unchanged()).await {
            Ok(written) => {
                alloc::release(&self.server, &self.resource, || cached.tree()).await;
                Ok(Some(written.revision))
            }
            Err(WriteError::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_failed(error)),
        }
    }
}

pub fn store_failed(error: WriteError) -> Status {
    match error {
        WriteError::TooLarge { size_bytes, limit_bytes } => {
            Status::too_large(format!("object of {size_bytes} bytes is larger than the limit of {limit_bytes} bytes"))
        }
        error => Status::internal(error),
    }
}

fn already_exists(resource: &Resource, name: &str, existing: &Tree) -> Status {
    let mut status = Status::already_exists(&resource.group, &resource.plural, name);
    if meta::deletion_timestamp(existing).is_some() {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

/// The object under the revision of its write, as clients read it.
fn shown(mut object: Tree, revision: Revision) -> Bytes {
    meta::set_resource_version(&mut object, &revision.to_string());
    object.to_json().into()
}
