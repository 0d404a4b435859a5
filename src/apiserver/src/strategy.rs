//! What one kind does differently from another.
//!
//! Models the strategies of pkg/registry/*/*/strategy.go. Everything here is pure; kinds with more than a line have a file.
mod certificates;
mod claims;
mod daemonset;
mod devices;
mod disabled;
mod job;
mod namespace;
mod node;
mod pod;
mod resets;
mod simple;
mod tls_secret;
mod trust;
mod volumes;
mod warnings;

use api::crd;
use api::field_error::FieldError;
use api::meta;
use api::registry::Resource;
use api::tree::Tree;
use store::Durability;

use crate::auth::{Attributes, Authorizer, UserInfo};
use crate::rest::storage::{Part, now};

pub use devices::may_administer;
pub use namespace::is_namespace;
pub use resets::resets;

/// What happens to an object's dependents when its deleter does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    Delete,
    Orphan,
    /// Has no finalizers of the garbage collector (Events).
    Unsupported,
}

fn id(resource: &Resource) -> (&str, &str) {
    (&resource.group, &resource.plural)
}

/// The group of the type that upstream validates objects as: events of either group are those of the core.
pub fn inner_group(resource: &Resource) -> &str {
    if id(resource) == ("events.k8s.io", "events") { "" } else { &resource.group }
}

/// Leases and Events may lose their last seconds in a crash.
pub fn durability(resource: &Resource) -> Durability {
    match id(resource) {
        ("coordination.k8s.io", "leases") | ("" | "events.k8s.io", "events") => Durability::Relaxed,
        _ => Durability::Synced,
    }
}

pub fn allows_create_on_update(resource: &Resource) -> bool {
    matches!(
        id(resource),
        ("coordination.k8s.io", "leases")
            | ("", "endpoints" | "limitranges" | "services" | "podtemplates")
            | ("" | "events.k8s.io", "events")
            | ("rbac.authorization.k8s.io", _)
            | ("node.k8s.io", "runtimeclasses")
    )
}

pub fn allows_unconditional_update(resource: &Resource) -> bool {
    !matches!(
        id(resource),
        ("coordination.k8s.io", "leases")
            | ("policy", "poddisruptionbudgets")
            | ("storage.k8s.io", "csinodes" | "volumeattachments")
            | ("admissionregistration.k8s.io", _)
            | ("apiregistration.k8s.io", _)
            | (crd::GROUP, _)
            | ("storagemigration.k8s.io", _)
            | ("certificates.k8s.io", "clustertrustbundles" | "podcertificaterequests")
            | ("resource.k8s.io", "devicetaintrules")
    ) && resource.custom.is_none()
}

/// Whether delete answers the object instead of a Status.
pub fn returns_deleted(resource: &Resource) -> bool {
    match &*resource.group {
        "" => matches!(
            &*resource.plural,
            "pods" | "podtemplates" | "persistentvolumes" | "persistentvolumeclaims" | "resourcequotas" | "serviceaccounts" | "services"
        ),
        "storage.k8s.io" => resource.plural != "csistoragecapacities",
        "resource.k8s.io" => resource.plural != "devicetaintrules",
        _ => false,
    }
}

pub fn dependents(resource: &Resource) -> Dependents {
    match id(resource) {
        ("batch", "jobs") | ("", "replicationcontrollers") => Dependents::Orphan,
        ("" | "events.k8s.io", "events") => Dependents::Unsupported,
        _ => Dependents::Delete,
    }
}

/// The grace period of a deletion; `None` where the kind knows none.
pub fn grace_seconds(resource: &Resource, object: &Tree, asked: Option<i64>) -> Option<i64> {
    (id(resource) == ("", "pods")).then(|| pod::grace_seconds(object, asked))
}

/// Finalizers outside of metadata.
pub fn has_own_finalizers(resource: &Resource, object: &Tree) -> bool {
    is_namespace(resource) && namespace::has_finalizers(object)
}

/// What a new object derives from its name and uid, once both are there.
pub fn name_chosen(resource: &Resource, object: &mut Tree) {
    match id(resource) {
        ("", "namespaces") => namespace::label(object),
        ("batch", "jobs") => job::select_own_pods(object),
        _ => {}
    }
}

/// After a new object was found to be valid. Models Canonicalize.
pub fn canonicalize(resource: &Resource, object: &mut Tree) {
    if id(resource) == ("batch", "jobs") {
        job::label_like_pods(object);
    }
}

/// What upstream stores and takes away wherever the object is read. Models the Decorator of pkg/registry/core/service/storage/storage.go.
pub fn decorate(resource: &Resource, object: &mut Tree) {
    if id(resource) == ("", "services") && object.str_at(&["spec", "type"]) == "ExternalName" {
        object.remove(&["spec", "internalTrafficPolicy"]);
    }
}

pub fn is_definition(resource: &Resource) -> bool {
    id(resource) == (crd::GROUP, crd::PLURAL)
}

pub fn mark_deleted(resource: &Resource, object: &mut Tree, now: &str) {
    if is_definition(resource) {
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        crd::set_condition(object, &crd::Condition::new("Terminating", "True", "InstanceDeletionPending", message), now);
    }
    if is_namespace(resource) {
        namespace::mark_deleted(object);
    }
}

/// An update that takes the last finalizer of an object under deletion removes it.
pub fn is_gone_after_update(resource: &Resource, new: &Tree, old: &Tree) -> bool {
    meta::deletion_timestamp(old).is_some()
        && meta::deletion_grace_period_seconds(old).unwrap_or(0) == 0
        && meta::finalizers(new).next().is_none()
        && !has_own_finalizers(resource, new)
}

/// Kinds whose metadata.generation counts changes of what is wanted.
fn tracks_generation(resource: &Resource) -> bool {
    if resource.custom.is_some() {
        return true;
    }
    match &*resource.group {
        "" => matches!(&*resource.plural, "pods" | "replicationcontrollers" | "podtemplates"),
        "apps" => resource.plural != "controllerrevisions",
        "networking.k8s.io" => !matches!(&*resource.plural, "ipaddresses" | "servicecidrs"),
        "autoscaling" | "batch" | "policy" | "flowcontrol.apiserver.k8s.io" | "admissionregistration.k8s.io" => true,
        "discovery.k8s.io" | "scheduling.k8s.io" | "apiextensions.k8s.io" => true,
        "resource.k8s.io" => matches!(&*resource.plural, "deviceclasses" | "resourceslices" | "devicetaintrules"),
        _ => false,
    }
}

fn has_status(resource: &Resource) -> bool {
    resource.subresource("status").is_some()
}

/// Before a new object is validated. Models PrepareForCreate.
pub fn prepare_create(resource: &Resource, object: &mut Tree, user: &UserInfo) {
    if resource.custom.is_some() {
        if has_status(resource) {
            object.remove(&["status"]);
            // What the schema says of a status nobody has written.
            api::defaults::apply(resource, object);
        }
        return meta::set_generation(object, 1);
    }
    let keeps_status = matches!(id(resource), ("", "nodes"));
    if has_status(resource) && !keeps_status {
        object.set(&["status"], empty_status(resource));
    }
    disabled::drop(resource, object);
    if tracks_generation(resource) {
        meta::set_generation(object, 1);
    }
    match id(resource) {
        ("", "pods") => pod::prepare_create(object),
        ("", "namespaces") => namespace::prepare_create(object),
        ("apps", "daemonsets") => daemonset::prepare_create(object),
        ("", "persistentvolumes" | "persistentvolumeclaims") => volumes::prepare_create(&resource.plural, object),
        ("", "services") => object.set(&["status", "loadBalancer"], Tree::object()),
        ("resource.k8s.io", kind) => devices::stamp_taints(kind, object, &now()),
        ("", "serviceaccounts") => simple::keep_names_of_secrets(object),
        ("", "limitranges") if meta::name(object).is_empty() && meta::generate_name(object).is_empty() => {
            meta::set_name(object, &uuid::Uuid::new_v4().to_string());
        }
        SIGNING_REQUEST => certificates::prepare_create(object, user),
        (crd::GROUP, crd::PLURAL) => store_versions(object),
        ("apiregistration.k8s.io", _) if object.at(&["spec", "service"]).is_none_or(Tree::is_null) => {
            crate::aggregation::availability::set_local(object);
        }
        _ => {}
    }
    // Status was made anew: what Go always writes comes back.
    api::defaults::apply(resource, object);
}

/// What the way through upstream's internal types makes of an object before its managers are noted: fields that stand for others become those.
/// Models the conversions of pkg/apis/core/v1 and pkg/apis/apps/v1.
pub fn convert(resource: &Resource, object: &mut Tree) {
    match id(resource) {
        ("", "secrets") => simple::merge_string_data(object),
        ("", "nodes") => node::agree_on_cidrs(object),
        ("apps", "daemonsets") => daemonset::convert(object),
        _ => {}
    }
}

/// A status of which nothing is known, with the zeros that Go always writes.
fn empty_status(resource: &Resource) -> Tree {
    let api::schema::Node::Object(fields) = &resource.schema().expect("a built-in kind").node else { return Tree::object() };
    fields.field("status").map_or_else(Tree::object, |status| api::schema::zero(&status.schema))
}

/// What of `new` an update of `part` may change; the rest is as it was. Models PrepareForUpdate's resets.
pub fn restrict(resource: &Resource, part: Part, new: &mut Tree, old: &Tree) {
    match part {
        Part::Main => {
            if has_status(resource) {
                copy(new, old, &["status"]);
            }
            match id(resource) {
                SIGNING_REQUEST => copy(new, old, &["spec"]),
                _ => {}
            }
        }
        Part::Status if resource.custom.is_some() => {
            let mut kept = old.clone();
            copy(&mut kept, new, &["status"]);
            copy(&mut kept, new, &["metadata", "resourceVersion"]);
            *new = kept;
        }
        Part::Status => {
            let mut kept = old.clone();
            copy(&mut kept, new, &["status"]);
            let metadata: &[&str] = match resets::takes_metadata(resource) {
                true => &["resourceVersion"],
                false => &["labels", "annotations", "finalizers", "resourceVersion"],
            };
            for field in metadata {
                copy(&mut kept, new, &["metadata", field]);
            }
            if id(resource) == SIGNING_REQUEST {
                certificates::restrict_status(&mut kept, old);
            }
            if id(resource) == ("", "persistentvolumes") {
                volumes::stamp_phase(&mut kept, old);
            }
            *new = kept;
        }
        Part::Finalize => {
            let mut kept = old.clone();
            copy(&mut kept, new, &["spec", "finalizers"]);
            *new = kept;
        }
        Part::Approval => certificates::restrict_approval(new, old),
        Part::EphemeralContainers => {
            let mut kept = old.clone();
            copy(&mut kept, new, &["spec", "ephemeralContainers"]);
            *new = kept;
        }
        Part::Resize => *new = pod::resized(new, old),
        Part::Binding | Part::Scale | Part::Deletion | Part::Other(_) => {}
    }
}

/// Sets `path` of `to` as it is in `from`, absence included.
fn copy(to: &mut Tree, from: &Tree, path: &[&str]) {
    match from.at(path) {
        Some(value) => to.set(path, value.clone()),
        None => drop(to.remove(path)),
    }
}

/// Before an update is validated: counts generations and derives fields.
pub fn prepare_update(resource: &Resource, part: Part, new: &mut Tree, old: &Tree) {
    if id(resource) == ("", "nodes") && part == Part::Main {
        node::prepare_update(new, old);
        node::agree_on_cidrs(new);
    }
    if id(resource) == ("", "serviceaccounts") {
        simple::keep_names_of_secrets(new);
    }
    if is_definition(resource) && part == Part::Main {
        store_versions(new);
    }
    let counts_all = id(resource) == ("resource.k8s.io", "resourceslices");
    if part == Part::Main && !counts_all || id(resource) == ("storage.k8s.io", "csinodes") {
        disabled::drop(resource, new);
    }
    match (id(resource), part) {
        (("resource.k8s.io", kind), Part::Main) => {
            devices::stamp_taints(kind, new, &now());
            if kind == "devicetaintrules" {
                devices::restamp_rule(new, old, &now());
            }
        }
        // Who wanted them otherwise is noted all the same.
        (("", "namespaces"), Part::Main) => copy(new, old, &["spec", "finalizers"]),
        (("", "persistentvolumeclaims"), Part::Main) => volumes::agree_on_sources(new, Some(old)),
        (("resource.k8s.io", "resourceclaims"), Part::Status) => devices::drop_stale_statuses(new, old),
        _ => {}
    }
    if id(resource) == ("apps", "daemonsets") {
        daemonset::prepare_update(new, old, part == Part::Main);
    }
    // A binding fills in where a pod runs; that is no change of what is wanted.
    let counts = match id(resource) {
        ("scheduling.k8s.io", "priorityclasses") => false,
        ("storage.k8s.io", "csidrivers") => true,
        _ => tracks_generation(resource),
    };
    if !matches!(part, Part::Status | Part::Binding) && counts && wanted_differs(resource, new, old) {
        meta::set_generation(new, meta::generation(old) + 1);
    }
    // Of these, what is not kept counts as a change.
    if part == Part::Main && counts_all {
        disabled::drop(resource, new);
    }
}

/// Notes that objects may be stored in the version of today.
fn store_versions(definition: &mut Tree) {
    let stored = crd::stored_versions(definition);
    definition.set(&["status", "storedVersions"], stored);
}

/// Whether anything but metadata and status changed.
fn wanted_differs(resource: &Resource, new: &Tree, old: &Tree) -> bool {
    let is_built_in = resource.custom.is_none();
    // Of custom kinds without the subresource the status is a field like any other; else it is as it was.
    let is_wanted = |(key, _): &(&str, &Tree)| *key != "metadata" && !(is_built_in && *key == "status");
    let differs = match (new.as_object(), old.as_object()) {
        (Some(new), Some(old)) => new.iter().filter(is_wanted).ne(old.iter().filter(is_wanted)),
        _ => new != old,
    };
    let labels_count = resource.group == "discovery.k8s.io";
    // Models pkg/registry/apps/deployment/strategy.go.
    let annotations_count = id(resource) == ("apps", "deployments");
    differs
        || (labels_count && meta::labels(new) != meta::labels(old))
        || (annotations_count && meta::annotations(new) != meta::annotations(old))
}

const SIGNING_REQUEST: (&str, &str) = ("certificates.k8s.io", "certificatesigningrequests");
const TRUST_BUNDLE: (&str, &str) = ("certificates.k8s.io", "clustertrustbundles");
const RESOURCE_CLAIM: (&str, &str) = ("resource.k8s.io", "resourceclaims");
const POD_CERTIFICATE: (&str, &str) = ("certificates.k8s.io", "podcertificaterequests");

/// The kind that errors about an object name: a custom one is called what it calls itself.
pub fn kind_of<'t>(resource: &'t Resource, object: &'t Tree) -> &'t str {
    if resource.custom.is_some() { meta::kind(object) } else { &resource.kind }
}

/// Custom objects are not decoded into a type. Models customresource/validator.go ValidateTypeMeta.
fn wrong_kind(resource: &Resource, object: &Tree) -> Option<FieldError> {
    let kind = meta::kind(object);
    (resource.custom.is_some() && kind != &*resource.kind).then(|| FieldError::invalid("kind", kind, format!("must be {}", resource.kind)))
}

pub fn validate_create(resource: &Resource, object: &Tree) -> Vec<FieldError> {
    if let Some(error) = wrong_kind(resource, object) {
        return vec![error];
    }
    let mut errors = api::validation::validate(resource, object, None);
    match id(resource) {
        SIGNING_REQUEST => errors.extend(certificates::validate_request(object)),
        TRUST_BUNDLE => errors.extend(trust::validate_bundle(object, None)),
        POD_CERTIFICATE => errors.extend(trust::validate_request(object)),
        _ => {}
    }
    errors
}

/// What may be written by some only, though all may write the part. Models what strategies ask of an authorizer.
/// `asked` is the request; `label` reads one of its namespace.
pub fn authorize_update(
    authorizer: &dyn Authorizer,
    resource: &Resource,
    part: Part,
    asked: &Attributes,
    label: impl FnOnce(&str) -> Option<String>,
    new: &Tree,
    old: &Tree,
) -> Vec<FieldError> {
    match (id(resource), part) {
        (POD_CERTIFICATE, Part::Status) => trust::may_sign(authorizer, asked.user, new, old),
        (RESOURCE_CLAIM, Part::Status) => claims::may_set_status(authorizer, asked, label, new, old),
        _ => Vec::new(),
    }
}

pub fn validate_update(resource: &Resource, part: Part, new: &Tree, old: &Tree) -> Vec<FieldError> {
    if let Some(error) = wrong_kind(resource, new).filter(|_| part != Part::Deletion) {
        return vec![error];
    }
    match part {
        Part::Main | Part::Scale => {
            let mut errors = api::validation::validate(resource, new, Some(old));
            if id(resource) == TRUST_BUNDLE {
                errors.extend(trust::validate_bundle(new, Some(old)));
            }
            errors
        }
        Part::Status => {
            let mut errors = api::validation::validate_status(resource, new, old);
            match id(resource) {
                SIGNING_REQUEST => errors.extend(certificates::validate_certificate(new, old)),
                POD_CERTIFICATE if errors.is_empty() => errors.extend(trust::validate_issuance(new, old, jiff::Timestamp::now())),
                _ => {}
            }
            errors
        }
        Part::EphemeralContainers => api::validation::validate_ephemeral_containers(new, old),
        Part::Resize => api::validation::validate_resize(new, old),
        Part::Finalize => api::validation::validate_finalize(new, old),
        Part::Approval => api::validation::validate_approval(new, old),
        Part::Binding | Part::Deletion | Part::Other(_) => Vec::new(),
    }
}

/// Upstream's warnings about what is legal but not wise. Models WarningsOnCreate and, where there is an old object, WarningsOnUpdate.
pub fn warnings(resource: &Resource, object: &Tree, old: Option<&Tree>) -> Vec<String> {
    if resource.custom.is_some() {
        return crd::finalizer_warnings(object);
    }
    let is_changed = match id(resource) {
        ("apps", "daemonsets") => old.is_none_or(|old| daemonset::generation(old) != daemonset::generation(object)),
        _ => old.is_none_or(|old| meta::generation(old) != meta::generation(object)),
    };
    match id(resource) {
        ("", "pods") if old.is_none() => return simple::with_name_warning("the Pod's hostname", object, api::validation::pod_warnings(object, "")),
        ("apps", "statefulsets") => {
            let template = if is_changed { simple::template_warnings(object, old.is_none()) } else { Vec::new() };
            return [template, warnings::stateful_set(object, old.is_none())].concat();
        }
        // In an update, upstream looks at the template that was.
        ("", "replicationcontrollers") if is_changed => return simple::template_warnings(old.unwrap_or(object), old.is_none()),
        ("batch", "jobs") if is_changed => {
            let warnings = warnings::job_spec(object.get("spec").unwrap_or(&Tree::Null), "spec");
            return if old.is_none() { simple::with_name_warning("Pod names and hostnames", object, warnings) } else { warnings };
        }
        ("batch", "cronjobs") => {
            let warnings = warnings::cron_job(object, old);
            return if old.is_none() { simple::with_name_warning("Pod names and hostnames", object, warnings) } else { warnings };
        }
        ("apps", _) if is_changed => return simple::template_warnings(object, old.is_none()),
        ("", "podtemplates") if is_changed => {
            let template = object.get("template").cloned().unwrap_or_default();
            return api::validation::pod_warnings(&template, "template");
        }
        _ => {}
    }
    match id(resource) {
        ("", "componentstatuses") => vec!["v1 ComponentStatus is deprecated in v1.19+".to_owned()],
        ("", "services") => simple::service_warnings(object),
        ("", "secrets") => tls_secret::warnings(object),
        (crd::GROUP, crd::PLURAL) => crd::definition_warnings(object, old),
        ("networking.k8s.io", "ingresses") if old.is_none() => simple::ingress_warnings(object),
        ("resource.k8s.io", "resourceslices") => simple::driver_warnings(object),
        ("storage.k8s.io", "csidrivers") => warnings::csi_driver(object, old),
        ("discovery.k8s.io", "endpointslices") => warnings::endpoint_slice(object, old.is_none()),
        ("", "nodes") => warnings::node(object),
        ("", "persistentvolumes") => warnings::persistent_volume(object),
        ("", "persistentvolumeclaims") => warnings::claim(object),
        ("", "endpoints") => warnings::endpoints(object),
        ("", "serviceaccounts") => warnings::service_account(object, old),
        ("", "resourcequotas") if old.is_none() => warnings::resource_quota(object),
        ("networking.k8s.io", "networkpolicies") => warnings::network_policy(object),
        ("node.k8s.io", "runtimeclasses") => warnings::runtime_class(object),
        ("storage.k8s.io", "storageclasses") => warnings::storage_class(object),
        ("storage.k8s.io", "csistoragecapacities") => warnings::storage_capacity(object),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations" | "mutatingwebhookconfigurations") => warnings::webhook_rules(object),
        _ => Vec::new(),
    }
}

/// The same of an update of the status.
pub fn status_warnings(resource: &Resource, object: &Tree) -> Vec<String> {
    match id(resource) {
        ("", "services") | ("networking.k8s.io", "ingresses") => warnings::load_balancer(object),
        _ => Vec::new(),
    }
}

/// Annotations of a new object that stand for fields become those; says which are better written otherwise.
pub fn adopt_annotations(resource: &Resource, object: &mut Tree) -> Vec<String> {
    match id(resource) {
        ("", "pods") => pod::adopt_app_armor(object),
        _ => Vec::new(),
    }
}
