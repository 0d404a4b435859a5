//! Turns the name of a PriorityClass into the number that the scheduler uses.
//!
//! Models plugin/pkg/admission/priority/admission.go.
use api::tree::Tree;

use super::{Operation, Request};
use crate::cache::Cache;
use crate::status::Status;

const GROUP: &str = "scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

pub fn admit(cache: &Cache, request: &mut Request) -> Result<(), Status> {
    if !request.is("", "pods") {
        return Ok(());
    }
    match request.operation {
        Operation::Create => admit_pod(cache, request),
        Operation::Update => {
            let given = |tree: &Tree| tree.at(&["spec", "priority"]).and_then(Tree::as_i64);
            if let (None, Some(old)) = (given(&request.object), request.old.as_deref().and_then(given)) {
                request.object.set(&["spec", "priority"], old);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn admit_pod(cache: &Cache, request: &mut Request) -> Result<(), Status> {
    let class = match request.object.str_at(&["spec", "priorityClassName"]) {
        "" => default_class(cache),
        name => match cache.get(GROUP, "priorityclasses", "", name) {
            Some(class) => Some(class.tree()),
            None => return Err(request.forbidden(format!("no PriorityClass with name {name} was found"))),
        },
    };
    let (name, priority, policy) = match &class {
        Some(class) => {
            let policy = match class.str_at(&["preemptionPolicy"]) {
                "" => PREEMPT,
                policy => policy,
            };
            (api::meta::name(class).to_owned(), class.get("value").and_then(Tree::as_i64).unwrap_or(0), policy.to_owned())
        }
        None => (String::new(), 0, PREEMPT.to_owned()),
    };
    if let Some(given) = request.object.at(&["spec", "priority"]).and_then(Tree::as_i64)
        && given != priority
    {
        return Err(request.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        )));
    }
    let given = request.object.str_at(&["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        return Err(request.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    if !name.is_empty() {
        request.object.set(&["spec", "priorityClassName"], name);
    }
    request.object.set(&["spec", "priority"], priority);
    request.object.set(&["spec", "preemptionPolicy"], policy);
    Ok(())
}

/// Of several defaults (two could be made at once) the one with the lowest value.
fn default_class(cache: &Cache) -> Option<Tree> {
    let classes = cache.list(GROUP, "priorityclasses", None);
    let defaults = classes.iter().map(|class| class.tree()).filter(is_default);
    defaults.min_by_key(|class| class.get("value").and_then(Tree::as_i64).unwrap_or(0))
}

fn is_default(class: &Tree) -> bool {
    class.get("globalDefault").and_then(Tree::as_bool).unwrap_or(false)
}

pub fn validate(cache: &Cache, request: &Request) -> Result<(), Status> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if !request.is(GROUP, "priorityclasses") || !writes || !is_default(&request.object) {
        return Ok(());
    }
    match default_class(cache) {
        Some(other) if api::meta::name(&other) != api::meta::name(&request.object) => Err(request.forbidden(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            api::meta::name(&other)
        ))),
        _ => Ok(()),
    }
}
