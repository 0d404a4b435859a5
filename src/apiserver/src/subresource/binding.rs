//! pods/binding (and the old kind Binding): gives a pod its node. Models pkg/registry/core/pod/storage/storage.go BindingREST.
use api::meta;
use api::registry::Registry;
use api::tree::Tree;
use axum::body::Body;
use http::{Request, Response, StatusCode};

use crate::admission::Operation;
use crate::negotiate;
use crate::rest::model::Expected;
use crate::rest::options::WriteOptions;
use crate::rest::storage::{Part, now};
use crate::rest::{Call, body, model};
use crate::status::{self, Status};

const BINDING: Expected<'static> = Expected::built_in("", "v1", "Binding");

pub async fn create(call: &mut Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = body::read(request.into_body(), call.server.0.config.body_bytes_max).await?;
    let media = negotiate::content_type(&call.headers).to_owned();
    let binding = model::decode(BINDING, &media, &bytes, options.field_validation, &mut call.warnings)?;
    let name = meta::name(&binding).to_owned();
    if !call.info.name.is_empty() && !name.is_empty() && name != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let mut target = call.target();
    target.resource = Registry::get().resource("", "v1", "pods").expect("the core group has pods").into();
    if target.name.is_empty() {
        target.name = name;
    }
    let errors = api::validation::validate_binding(&binding);
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", &target.name, &errors));
    }
    let binding = target.admit(Operation::Create, Part::Binding, binding, None, options.dry_run, &mut call.warnings).await?;
    let binding = target.admission_validate(Operation::Create, Part::Binding, binding, None, options.dry_run, &mut call.warnings).await?;
    target.update_stored(options.dry_run, &|pod| assign(pod, &binding)).await?;
    let mut success = status::success(None);
    success.set(&["code"], 201i64);
    Ok(negotiate::answer_tree(&call.accept, StatusCode::CREATED, &success))
}

/// Annotations that pods had before `initContainers`; what goes past the strategy is rid of them here.
const INIT_CONTAINER_ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// Puts the pod on its node, or says why it cannot be.
fn assign(pod: &mut Tree, binding: &Tree) -> Result<(), Status> {
    let name = meta::name(pod).to_owned();
    let refuse = |why: String| Err(Status::conflict("", "pods/binding", &name, &why));
    for (what, wanted, found) in [
        ("UID", meta::uid(binding), meta::uid(pod)),
        ("ResourceVersion", meta::resource_version(binding), meta::resource_version(pod)),
    ] {
        if !wanted.is_empty() && wanted != found {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            return Err(Status::conflict("", "pods", &name, &why));
        }
    }
    if meta::deletion_timestamp(pod).is_some() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let assigned = pod.str_at(&["spec", "nodeName"]);
    if !assigned.is_empty() {
        return refuse(format!("pod {name} is already assigned to node \"{assigned}\""));
    }
    if !pod.array_at(&["spec", "schedulingGates"]).is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod.set(&["spec", "nodeName"], binding.str_at(&["target", "name"]));
    // The promise is kept (ClearingNominatedNodeNameAfterBinding).
    pod.remove(&["status", "nominatedNodeName"]);
    for (key, value) in meta::annotations(binding).iter() {
        meta::set_annotation(pod, key, value.as_str().unwrap_or(""));
    }
    for key in INIT_CONTAINER_ANNOTATIONS {
        meta::remove_annotation(pod, key);
    }
    for (key, value) in meta::labels(binding).iter() {
        meta::set_label(pod, key, value.as_str().unwrap_or(""));
    }
    pod_is_scheduled(pod);
    Ok(())
}

/// Models pkg/api/v1/pod/util.go `UpdatePodCondition`: the time is that of the last change.
fn pod_is_scheduled(pod: &mut Tree) {
    let mut conditions: Vec<Tree> = pod.array_at(&["status", "conditions"]).to_vec();
    let old = conditions.iter().position(|c| c.str_at(&["type"]) == "PodScheduled");
    let since = old.map(|i| &conditions[i]).filter(|c| c.str_at(&["status"]) == "True").and_then(|c| c.get("lastTransitionTime").cloned());
    let mut condition = Tree::object();
    condition.set(&["type"], "PodScheduled");
    condition.set(&["status"], "True");
    condition.set(&["lastProbeTime"], Tree::Null);
    condition.set(&["lastTransitionTime"], since.unwrap_or_else(|| now().into()));
    match old {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
    pod.set(&["status", "conditions"], Tree::Array(conditions));
}
