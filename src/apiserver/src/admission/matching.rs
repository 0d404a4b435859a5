//! Whether a webhook or policy is asked about a request, and as what.
//!
//! Models pkg/admission/plugin/webhook/generic/webhook.go ShouldCallHook, pkg/admission/plugin/webhook/predicates and
//! pkg/admission/plugin/policy/matching.
use std::borrow::Cow;
use std::sync::OnceLock;

use api::meta;
use api::registry::{GroupVersionKind, Registry, Resource, ResourceRef};
use api::schema::Name;
use api::selector::LabelSelector;
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::{self, Cache};
use crate::convert;
use crate::status::Status;
use crate::subresource::scale;

/// Which requests are meant: of a webhook, a policy, or a policy's binding.
pub struct Criteria {
    pub rules: Vec<Rule>,
    /// What the rules do not mean after all.
    pub excluded: Vec<Rule>,
    /// Without any rule: all requests, or none.
    pub means_all_without_rules: bool,
    /// `Err`: why every request fails that it could match.
    pub namespaces: Result<LabelSelector, String>,
    pub objects: Result<LabelSelector, String>,
    pub matches_equivalents: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub operations: Vec<String>,
    pub groups: Vec<String>,
    pub versions: Vec<String>,
    pub resources: Vec<String>,
    /// Empty: any.
    pub names: Vec<String>,
    /// `*`, `Namespaced` or `Cluster`.
    pub scope: String,
}

impl Criteria {
    /// Of a webhook.
    pub fn of_webhook(hook: &Tree) -> Self {
        Self { means_all_without_rules: false, ..Self::read(hook, "rules") }
    }

    /// Of MatchResources; absent ones mean everything.
    pub fn of_resources(resources: Option<&Tree>) -> Self {
        match resources.filter(|resources| !resources.is_null()) {
            Some(resources) => Self::read(resources, "resourceRules"),
            None => Self {
                rules: Vec::new(),
                excluded: Vec::new(),
                means_all_without_rules: true,
                namespaces: Ok(LabelSelector::everything()),
                objects: Ok(LabelSelector::everything()),
                matches_equivalents: false,
            },
        }
    }

    fn read(from: &Tree, rules: &str) -> Self {
        let selector = |key: &str| LabelSelector::from_tree(from.get(key)).map_err(|error| error.to_string());
        let all = |key: &str| from.array_at(&[key]).iter().map(Rule::read).collect();
        Self {
            rules: all(rules),
            excluded: all("excludeResourceRules"),
            means_all_without_rules: true,
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            matches_equivalents: from.str_at(&["matchPolicy"]) != "Exact",
        }
    }
}

impl Rule {
    fn read(rule: &Tree) -> Self {
        let texts = |key: &str| rule.array_at(&[key]).iter().filter_map(Tree::as_str).map(ToOwned::to_owned).collect();
        let scope = rule.str_at(&["scope"]);
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: if scope.is_empty() { "*".to_owned() } else { scope.to_owned() },
        }
    }
}

/// The form in which a request is seen.
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
    /// An object of the request, as it is seen; copied only where it looks different.
    pub async fn shown<'t>(&self, cache: &Cache, object: &'t Tree) -> Result<Cow<'t, Tree>, Status> {
        if object.is_null() {
            return Ok(Cow::Borrowed(object));
        }
        if self.kind.kind == "Scale" {
            return Ok(Cow::Owned(scale::scale_of(&self.of, object)));
        }
        if let Some(other) = &self.converted {
            return converted(cache, &self.of, other, object.clone()).await.map(Cow::Owned);
        }
        let api_version = self.kind.api_version();
        if object.str_at(&["apiVersion"]) == api_version && object.str_at(&["kind"]) == self.kind.kind {
            return Ok(Cow::Borrowed(object));
        }
        let mut object = object.clone();
        meta::set_type(&mut object, &api_version, &self.kind.kind);
        Ok(Cow::Owned(object))
    }

    /// The resource whose form the objects have.
    pub fn resource(&self) -> &ResourceRef {
        self.converted.as_ref().unwrap_or(&self.of)
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

/// What `authorizer.requestResource` asks about.
pub fn resource_check(request: &Request) -> cel::ResourceCheck {
    cel::ResourceCheck {
        group: request.resource.group.to_string(),
        resource: request.resource.plural.to_string(),
        subresource: request.subresource.to_owned(),
        namespace: namespace(request).to_owned(),
        name: request.name.clone(),
        ..cel::ResourceCheck::default()
    }
}

/// How what has these criteria is to be asked, if it is.
pub fn invocation(cache: &Cache, criteria: &Criteria, request: &Request) -> Result<Option<Invocation>, Status> {
    let in_namespace = matches_namespace(cache, criteria, request);
    if in_namespace == Ok(false) {
        return Ok(None);
    }
    let object = criteria.objects.as_ref().map(|selector| matches_object(selector, request));
    if object == Ok(false) || by_rules(cache, &criteria.excluded, criteria, request).is_some() {
        return Ok(None);
    }
    let invocation = match criteria.rules.is_empty() && criteria.means_all_without_rules {
        true => as_it_is(request),
        false => by_rules(cache, &criteria.rules, criteria, request),
    };
    let Some(invocation) = invocation else { return Ok(None) };
    in_namespace?;
    object.map_err(Status::internal)?;
    Ok(Some(invocation))
}

fn as_it_is(request: &Request) -> Option<Invocation> {
    let own = &request.resource;
    Some(Invocation {
        group: own.group.clone(),
        version: own.version.clone(),
        plural: own.plural.clone(),
        kind: kind(own, request)?,
        converted: None,
        of: own.clone(),
    })
}

fn by_rules(cache: &Cache, rules: &[Rule], criteria: &Criteria, request: &Request) -> Option<Invocation> {
    let own = &request.resource;
    if rules.iter().any(|rule| matches(rule, own, request)) {
        return as_it_is(request);
    }
    if rules.is_empty() || !criteria.matches_equivalents {
        return None;
    }
    let equivalents = equivalents(cache, own);
    // Earlier rules come first.
    rules.iter().find_map(|rule| {
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

/// The other resources that show the same objects. Every request asks for them that a configuration is not about, so they are not looked for among all
/// kinds.
fn equivalents(cache: &Cache, own: &ResourceRef) -> Vec<ResourceRef> {
    static BUILT_IN: OnceLock<Vec<(&Resource, &Resource)>> = OnceLock::new();
    match own {
        ResourceRef::BuiltIn(own) => {
            let shown_twice = BUILT_IN.get_or_init(|| {
                let all: Vec<(&Resource, &Resource)> = Registry::get().served().map(|resource| (resource, cache::stored_as(resource))).collect();
                let is_shared = |stored: &Resource| all.iter().filter(|(_, other)| std::ptr::eq(*other, stored)).count() > 1;
                all.iter().copied().filter(|(_, stored)| is_shared(stored)).collect()
            });
            let Some((_, stored)) = shown_twice.iter().find(|(resource, _)| std::ptr::eq(*resource, *own)) else { return Vec::new() };
            let others = shown_twice.iter().filter(|(other, of)| std::ptr::eq(*of, *stored) && !std::ptr::eq(*other, *own));
            others.map(|(other, _)| ResourceRef::from(*other)).collect()
        }
        ResourceRef::Custom(own) => {
            let kinds = cache.kinds();
            let versions = kinds.definition(&format!("{}.{}", own.plural, own.group)).map_or(&[][..], |defined| &defined.resources);
            let others = versions.iter().filter(|other| other.version != own.version);
            others.filter_map(|other| kinds.resource(&other.group, &other.version, &other.plural)).filter(|other| other.custom.is_some()).collect()
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
        && (rule.names.is_empty() || rule.names.contains(&request.name))
        && has(&rule.operations, operation(request.operation))
        && has(&rule.groups, &resource.group)
        && has(&rule.versions, &resource.version)
        && rule.resources.iter().any(|wanted| {
            let (name, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
            (name == "*" || name == resource.plural) && (sub == "*" || sub == request.subresource)
        })
}

/// Only requests in a namespace, and namespaces, are chosen by it.
fn matches_namespace(cache: &Cache, criteria: &Criteria, request: &Request) -> Result<bool, Status> {
    let name = namespace(request);
    if name.is_empty() && request.resource.plural != "namespaces" {
        return Ok(true);
    }
    let selector = criteria.namespaces.as_ref().map_err(Status::internal)?;
    if selector.is_empty() && !selector.matches_nothing() {
        return Ok(true);
    }
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if is_namespace(&request.resource) && request.subresource.is_empty() && writes {
        // What is stored has not the labels that it is to have.
        return Ok(selector.matches_tree(request.object.at(&["metadata", "labels"])));
    }
    let found = cache.get("", "namespaces", "", name).ok_or_else(|| Status::not_found("", "namespaces", name))?;
    Ok(selector.matches(&|key| found.label(key)))
}

fn matches_object(selector: &LabelSelector, request: &Request) -> bool {
    if selector.is_empty() && !selector.matches_nothing() {
        return true;
    }
    let one = |object: &Tree| !object.is_null() && selector.matches_tree(object.at(&["metadata", "labels"]));
    one(&request.object) || request.old.as_deref().is_some_and(one)
}
