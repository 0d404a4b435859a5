//! Only who may delete an object may hand it to an owner, and only who may finalize an owner may block its deletion.
//!
//! Models plugin/pkg/admission/gc/gc_admission.go (OwnerReferencesPermissionEnforcement).
use api::meta::{self, OwnerReference};
use api::registry::{Registry, Resource, split_api_version};
use api::tree::Tree;

use super::{Operation, Request};
use crate::auth::{ALL_FIELDS, ALL_LABELS, Attributes, Authorization, Authorizer, Decision};
use crate::cache::Cache;
use crate::status::Status;

pub fn validate(cache: &Cache, authorization: &Authorization, request: &Request) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) || !request.object.get("metadata").is_some() {
        return Ok(());
    }
    let none = Tree::Null;
    let old = request.old.as_deref().unwrap_or(&none);
    let references: Vec<OwnerReference<'_>> = meta::owner_references(&request.object).collect();
    let before: Vec<OwnerReference<'_>> = meta::owner_references(old).collect();
    if references == before {
        return Ok(());
    }
    // Who may create a thing may do more than delete it.
    if request.operation == Operation::Update {
        let decision = ask(cache, authorization, request, "delete", &request.resource.group, &request.resource.plural, "", &request.name);
        if !decision.allowed() {
            return Err(request.forbidden(format!("cannot set an ownerRef on a resource you can't delete: {}, <nil>", decision.reason)));
        }
    }
    let blocks = |reference: &&OwnerReference<'_>| reference.block_owner_deletion;
    let blocked: Vec<&str> = before.iter().filter(blocks).map(|reference| reference.uid).collect();
    for reference in references.iter().filter(blocks).filter(|reference| !blocked.contains(&reference.uid)) {
        check_blocking(cache, authorization, request, reference)?;
    }
    Ok(())
}

fn check_blocking(cache: &Cache, authorization: &Authorization, request: &Request, owner: &OwnerReference<'_>) -> Result<(), Status> {
    // Most who set it may finalize everything.
    if ask(cache, authorization, request, "update", "*", "*", "finalizers", "*").allowed() {
        return Ok(());
    }
    let (group, version) = split_api_version(owner.api_version);
    let Some(resource) = cache.kinds().by_kind(group, version, owner.kind) else {
        let (api_version, kind) = (owner.api_version, owner.kind);
        return Err(request.forbidden(format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} \
             Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
        )));
    };
    let decision = ask(cache, authorization, request, "update", group, &resource.plural, "finalizers", owner.name);
    if decision.allowed() {
        return Ok(());
    }
    Err(request.forbidden(format!(
        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {}, <nil>",
        decision.reason
    )))
}

fn is_cluster_scoped(cache: &Cache, group: &str, plural: &str) -> bool {
    let is_it = |r: &Resource| r.group == group && r.plural == plural && !r.namespaced;
    Registry::get().all().any(is_it) || cache.kinds().custom().iter().any(|r| is_it(r))
}

fn ask(
    cache: &Cache,
    authorization: &Authorization,
    request: &Request,
    verb: &str,
    api_group: &str,
    resource: &str,
    subresource: &str,
    name: &str,
) -> Decision {
    let namespace = if api_group == "*" || is_cluster_scoped(cache, api_group, resource) {
        ""
    } else {
        &request.namespace
    };
    authorization.authorize(&Attributes {
        user: &request.user,
        verb,
        api_group,
        api_version: "*",
        resource,
        subresource,
        namespace,
        name,
        resource_request: true,
        path: "",
        fields: &ALL_FIELDS,
        labels: &ALL_LABELS,
    })
}
