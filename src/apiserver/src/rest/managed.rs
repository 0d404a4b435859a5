//! Who set which field: the server's part of `metadata.managedFields`.
//!
//! Models k8s.io/apiserver/pkg/endpoints/installer.go (the field managers of each resource) and handlers/create.go (their names).
use std::sync::OnceLock;

use api::apply::{Type, Versions, Write};
use api::meta;
use api::registry::{Registry, Resource, ResourceRef, split_api_version};
use api::schema;
use api::tree::Tree;

use super::storage::{Part, Target, now};
use crate::cache::{Cache, storage_group};
use crate::status::Status;
use crate::{convert, strategy};

/// As upstream's FieldManagerMaxLength.
pub const MANAGER_BYTES_MAX: usize = 128;
/// Who writes what the server itself does.
pub const SERVER: &str = "kube-apiserver";

/// The manager of requests that name none: the user agent up to its version.
pub fn by_user_agent(agent: &str) -> String {
    let mut manager = String::new();
    for c in agent.split('/').next().unwrap_or("").chars().filter(|c| is_printable(*c)) {
        if manager.len() + c.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        manager.push(c);
    }
    manager
}

/// As Go's unicode.IsPrint: spaces but the plain one, controls, and marks without a shape are none.
pub fn is_printable(c: char) -> bool {
    const SHAPELESS: [std::ops::RangeInclusive<char>; 7] = [
        '\u{ad}'..='\u{ad}',
        '\u{61c}'..='\u{61c}',
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{e000}'..='\u{f8ff}',
        '\u{feff}'..='\u{feff}',
    ];
    c == ' ' || !(c.is_control() || c.is_whitespace() || SHAPELESS.iter().any(|range| range.contains(&c)))
}

/// The versions of one kind.
pub struct KindVersions<'k> {
    cache: &'k Cache,
    resource: &'k Resource,
    /// The other versions of a custom kind, looked up when they are needed.
    others: OnceLock<Vec<ResourceRef>>,
}

impl<'k> KindVersions<'k> {
    pub fn new(cache: &'k Cache, resource: &'k Resource) -> Self {
        Self { cache, resource, others: OnceLock::new() }
    }

    fn is_own(&self, api_version: &str) -> bool {
        split_api_version(api_version) == (&*self.resource.group, &*self.resource.version)
    }

    /// The resource in another version.
    pub fn resource_of(&self, api_version: &str) -> Option<&Resource> {
        if self.is_own(api_version) {
            return Some(self.resource);
        }
        let (group, version) = split_api_version(api_version);
        let own = self.resource;
        if own.custom.is_some() {
            let of_kind = |r: &&ResourceRef| r.group == own.group && r.plural == own.plural;
            let others = self.others.get_or_init(|| self.cache.kinds().custom().iter().filter(of_kind).cloned().collect());
            return others.iter().find(|r| r.group == group && r.version == version).map(|r| &**r);
        }
        let found = Registry::get().resource(group, version, &own.plural)?;
        (found.kind == own.kind && storage_group(group, &own.plural) == storage_group(&own.group, &own.plural)).then_some(found)
    }
}

fn type_of(resource: &Resource) -> Option<Type<'_>> {
    match &resource.custom {
        Some(custom) => Some(Type::custom(custom.structural())),
        None => resource.schema().map(Type::BuiltIn),
    }
}

impl Versions for KindVersions<'_> {
    fn type_of(&self, api_version: &str) -> Option<Type<'_>> {
        type_of(self.resource_of(api_version)?)
    }

    fn empty(&self) -> Tree {
        empty(self.resource)
    }

    fn convert(&self, object: &Tree, api_version: &str) -> Result<Option<Tree>, String> {
        let (Some(from), Some(to)) = (self.resource_of(meta::api_version(object)), self.resource_of(api_version)) else { return Ok(None) };
        let tree = object.clone();
        if to.custom.is_some() {
            return wait_for(convert::to_version(self.cache, to, tree)).map(Some);
        }
        let mut tree = tree;
        convert::to_stored(from, &mut tree);
        convert::from_stored(to, &mut tree);
        Ok(Some(tree))
    }
}

/// Managers of several versions are compared in each, in the middle of a merge: the one place where a webhook may be waited for on a thread. One
/// conversion without webhook is done at once.
fn wait_for(conversion: impl Future<Output = Result<Tree, Status>>) -> Result<Tree, String> {
    let mut conversion = std::pin::pin!(conversion);
    let mut at_once = std::task::Context::from_waker(std::task::Waker::noop());
    let result = match conversion.as_mut().poll(&mut at_once) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => {
            let runtime = tokio::runtime::Handle::current();
            if runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread {
                return Err("a conversion by webhook needs a thread to wait on".into());
            }
            tokio::task::block_in_place(|| runtime.block_on(conversion))
        }
    };
    result.map_err(|status| status.message)
}

fn empty(resource: &Resource) -> Tree {
    let mut tree = resource.schema().map_or_else(Tree::object, schema::zero);
    meta::set_type(&mut tree, &resource.api_version(), &resource.kind);
    tree
}

/// Whether writes of this part are noted. What the server computes itself (deletion marks, bindings) has no manager; a scale has its own way.
fn is_tracked(part: Part) -> bool {
    matches!(part, Part::Main | Part::Status | Part::Finalize | Part::EphemeralContainers | Part::Resize | Part::Approval)
}

impl Target {
    /// What a write of this part is, with everything that its managers need to know.
    pub fn managed<T>(&self, part: Part, work: impl FnOnce(&Write<'_>) -> T) -> T {
        let versions = KindVersions::new(&self.server.0.parts.cache, &self.resource);
        let api_version = self.resource.api_version();
        let filter = strategy::resets(&self.resource, part);
        work(&Write {
            versions: &versions,
            api_version: &api_version,
            kind: &self.resource.kind,
            subresource: part.subresource(),
            filter: filter.as_ref(),
            now: &now(),
        })
    }

    /// Notes in `new` what changed.
    pub fn track(&self, part: Part, live: Option<&Tree>, new: &mut Tree) {
        if let Some(manager) = &self.manager
            && is_tracked(part)
        {
            self.managed(part, |write| write.track(manager, live, new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_the_user_agent_up_to_its_version() {
        assert_eq!(by_user_agent("kubectl/v1.37.1 (linux/amd64) kubernetes/abc"), "kubectl");
        assert_eq!(by_user_agent("Mozilla 5.0\t"), "Mozilla 5.0");
        assert_eq!(by_user_agent(&"ä".repeat(100)).len(), 128);
    }
}
