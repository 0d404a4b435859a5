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
    let change = |pod: &Tree| if pod.is_null() { Ok(Tree::Null) } else { bound(pod, &binding) };
    target.update(Part::Binding, true, options.dry_run, &mut call.warnings, &change).await?;
    let mut success = status::success(None);
    success.set(&["code"], 201i64);
    Ok(negotiate::answer_tree(&call.accept, StatusCode::CREATED, &success))
}

/// The pod on its node, or why it cannot be.
fn bound(pod: &Tree, binding: &Tree) -> Result<Tree, Status> {
    let name = meta::name(pod);
    let refuse = |why: String| Status::conflict("", "pods/binding", name, &why);
    let node = binding.str_at(&["target", "name"]);
    if meta::deletion_timestamp(pod).is_some() {
        return Err(refuse(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let assigned = pod.str_at(&["spec", "nodeName"]);
    if !assigned.is_empty() {
        return Err(refuse(format!("pod {name} is already assigned to node \"{assigned}\"")));
    }
    if !pod.array_at(&["spec", "schedulingGates"]).is_empty() {
        return Err(refuse(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut pod = pod.clone();
    pod.set(&["spec", "nodeName"], node);
    for (key, value) in meta::annotations(binding).iter() {
        meta::set_annotation(&mut pod, key, value.as_str().unwrap_or(""));
    }
    for (key, value) in meta::labels(binding).iter() {
        meta::set_label(&mut pod, key, value.as_str().unwrap_or(""));
    }
    let mut condition = Tree::object();
    condition.set(&["type"], "PodScheduled");
    condition.set(&["status"], "True");
    condition.set(&["lastProbeTime"], Tree::Null);
    condition.set(&["lastTransitionTime"], now());
    let mut conditions: Vec<Tree> = pod.array_at(&["status", "conditions"]).to_vec();
    conditions.retain(|c| c.str_at(&["type"]) != "PodScheduled");
    conditions.push(condition);
    pod.set(&["status", "conditions"], Tree::Array(conditions));
    // The promise is kept (ClearingNominatedNodeNameAfterBinding).
    pod.remove(&["status", "nominatedNodeName"]);
    if !meta::uid(binding).is_empty() {
        meta::set_uid(&mut pod, meta::uid(binding));
    }
    let version = meta::resource_version(binding);
    if !version.is_empty() {
        meta::set_resource_version(&mut pod, version);
    }
    Ok(pod)
}
