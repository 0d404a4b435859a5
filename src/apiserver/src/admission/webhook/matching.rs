//! Whether a webhook is asked about a request, and as what.
//!
//! Models pkg/admission/plugin/webhook/generic/webhook.go ShouldCallHook and pkg/admission/plugin/webhook/predicates.
use std::borrow::Cow;

use api::meta;
use api::registry::{GroupVersionKind, Registry, Resource, ResourceRef};
use api::schema::Name;
use api::selector::LabelSelector;
use api::tree::Tree;

use super::hook::{Hook, Rule};
use crate::admission::{Operation, Request};
use crate::cache::{self, Cache};
use crate::convert;
use crate::status::Status;
use crate::subresource::scale;

/// The form in which a webhook sees a request.
pub struct Invocation {
    pub group: Name,
    pub version: Name,
    pub plural: Name,
    pub kind: GroupVersionKind,
    /// The resource that the objects are converted to, where that is not the request's own.
    pub converted: Option<ResourceRef>,
    /// The resource of the request, from which is converted.
    of: ResourceRef,
}

impl Invocation {
    /// An object of the request, as the webhook sees it.
    pub async fn shown(&self, cache: &Cache, object: &Tree) -> Result<Tree, Status> {
        if object.is_null() {
            return Ok(Tree::Null);
        }
        if self.kind.kind == "Scale" {
            return Ok(scale::scale_of(&self.of, object));
        }
        let mut object = object.clone();
        match &self.converted {
            Some(other) => object = converted(cache, &self.of, other, object).await?,
            None => meta::set_type(&mut object, &self.kind.api_version(), &self.kind.kind),
        }
        Ok(object)
    }

    /// What `shown` means for the object that it was made from.
    pub async fn taken(&self, cache: &Cache, shown: Tree, object: &Tree) -> Result<Tree, Status> {
        if self.kind.kind == "Scale" {
            return scale::scaled(&self.of, object, &shown, meta::name(object));
        }
        match &self.converted {
            Some(other) => converted(cache, other, &self.of, shown).await,
            None => Ok(shown),
        }
    }
}

/// An object of one version in another.
async fn converted(cache: &Cache, from: &Resource, to: &Resource, mut object: Tree) -> Result<Tree, Status> {
    if to.custom.is_some() {
        return convert::to_version(cache, to, object).await.map_err(|status| Status::internal(status.message));
    }
    convert::to_stored(from, &mut object);
    convert::from_stored(to, &mut object);
    Ok(object)
}

/// Configurations of admission are nobody's to refuse: who did could not be removed. Reviews have no effect to guard.
pub fn is_exempt(request: &Request) -> bool {
    match &*request.resource.group {
        "admissionregistration.k8s.io" => matches!(
            &*request.resource.kind,
            "ValidatingWebhookConfiguration"
                | "MutatingWebhookConfiguration"
                | "ValidatingAdmissionPolicy"
                | "ValidatingAdmissionPolicyBinding"
                | "MutatingAdmissionPolicy"
                | "MutatingAdmissionPolicyBinding"
        ),
        "authentication.k8s.io" | "authorization.k8s.io" => true,
        _ => false,
    }
}

pub fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// A namespace is in itself.
pub fn namespace(request: &Request) -> &str {
    if !is_namespace(&request.resource) {
        return &request.namespace;
    }
    if request.name.is_empty() { meta::name(&request.object) } else { &request.name }
}

fn is_namespace(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "namespaces"
}

/// How `hook` is to be asked, if it is.
pub fn invocation(cache: &Cache, hook: &Hook, request: &Request) -> Result<Option<Invocation>, Status> {
    let in_namespace = matches_namespace(cache, hook, request);
    if in_namespace == Ok(false) {
        return Ok(None);
    }
    let object = hook.objects.as_ref().map(|selector| matches_object(selector, request));
    if object == Ok(false) {
        return Ok(None);
    }
    let Some(invocation) = by_rules(cache, hook, request) else { return Ok(None) };
    in_namespace?;
    object.map_err(Status::internal)?;
    Ok(Some(invocation))
}

fn by_rules(cache: &Cache, hook: &Hook, request: &Request) -> Option<Invocation> {
    let own = &request.resource;
    if hook.rules.iter().any(|rule| matches(rule, own, request)) {
        return Some(Invocation {
            group: own.group.clone(),
            version: own.version.clone(),
            plural: own.plural.clone(),
            kind: kind(own, request)?,
            converted: None,
            of: own.clone(),
        });
    }
    if !hook.matches_equivalents {
        return None;
    }
    let equivalents = equivalents(cache, own);
    // Earlier rules come first.
    hook.rules.iter().find_map(|rule| {
        let other = equivalents.iter().find(|other| matches(rule, other, request))?;
        let kind = kind(other, request)?;
        // Only the object itself has another form in another version.
        let converted = matches!(request.subresource, "" | "status").then(|| other.clone());
        Some(Invocation {
            group: other.group.clone(),
            version: other.version.clone(),
            plural: other.plural.clone(),
            kind,
            converted,
            of: own.clone(),
        })
    })
}

/// The other resources that show the same objects.
fn equivalents(cache: &Cache, own: &ResourceRef) -> Vec<ResourceRef> {
    match own {
        ResourceRef::BuiltIn(own) => {
            let stored = cache::stored_as(own);
            let is_other = |other: &&'static Resource| !std::ptr::eq(*other, *own) && std::ptr::eq(cache::stored_as(other), stored);
            Registry::get().served().filter(is_other).map(ResourceRef::from).collect()
        }
        ResourceRef::Custom(own) => {
            let is_other = |other: &&ResourceRef| other.group == own.group && other.plural == own.plural && other.version != own.version;
            cache.kinds().custom().iter().filter(is_other).cloned().collect()
        }
    }
}

fn kind(resource: &Resource, request: &Request) -> Option<GroupVersionKind> {
    match request.subresource {
        "" => Some(resource.gvk()),
        name => resource.subresource(name).map(|sub| sub.kind.clone()),
    }
}

fn matches(rule: &Rule, resource: &Resource, request: &Request) -> bool {
    let has = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
    let is_cluster = is_namespace(resource) || request.namespace.is_empty();
    let scope = match rule.scope.as_str() {
        "*" => true,
        "Namespaced" => !is_cluster,
        "Cluster" => is_cluster,
        _ => false,
    };
    scope
        && has(&rule.operations, operation(request.operation))
        && has(&rule.groups, &resource.group)
        && has(&rule.versions, &resource.version)
        && rule.resources.iter().any(|wanted| {
            let (name, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
            (name == "*" || name == resource.plural) && (sub == "*" || sub == request.subresource)
        })
}

/// Only requests in a namespace, and namespaces, are chosen by it.
fn matches_namespace(cache: &Cache, hook: &Hook, request: &Request) -> Result<bool, Status> {
    let name = namespace(request);
    if name.is_empty() && request.resource.plural != "namespaces" {
        return Ok(true);
    }
    let selector = hook.namespaces.as_ref().map_err(Status::internal)?;
    if selector.is_empty() && !selector.matches_nothing() {
        return Ok(true);
    }
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    let object = if is_namespace(&request.resource) && request.subresource.is_empty() && writes {
        // What is stored has not the labels that it is to have.
        Cow::Borrowed(&request.object)
    } else {
        let found = cache.get("", "namespaces", "", name).ok_or_else(|| Status::not_found("", "namespaces", name))?;
        Cow::Owned(found.tree())
    };
    Ok(selector.matches_tree(object.at(&["metadata", "labels"])))
}

fn matches_object(selector: &LabelSelector, request: &Request) -> bool {
    if selector.is_empty() && !selector.matches_nothing() {
        return true;
    }
    let one = |object: &Tree| !object.is_null() && selector.matches_tree(object.at(&["metadata", "labels"]));
    one(&request.object) || request.old.as_deref().is_some_and(one)
}
