//! What a controller is given to do, as a list of steps: acts, and how the cluster looks once they have been answered.
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::perturb::Shown;
use crate::world::World;

/// Something that somebody does through the API.
pub enum Act {
    Post(&'static str, Value),
    /// An object owned by that at the second path.
    Owned(&'static str, &'static str, Value),
    /// A merge patch of the object (or its subresource) at the path.
    Merge(&'static str, Value),
    Delete(&'static str, Value),
    /// Deletes the object if the controller can know of it: that one is gone which it made and never saw nobody tells it, nor upstream's.
    Take(&'static str),
    /// The same with a pod that runs. For one that it never saw it would wait for five minutes (ExpectationsTimeout of
    /// pkg/controller/controller_utils.go).
    TakePod,
    /// The same with a pod that runs and may never have been seen.
    TakeUnseenPod,
    Do(for<'a> fn(&'a World) -> BoxFuture<'a, ()>),
}

/// How it looks.
pub enum Until {
    /// The answer to a read of the path has all of this in it.
    Looks(&'static str, Value),
    /// The array at this place of that answer has so many members.
    Size(&'static str, &'static str, usize),
    Gone(&'static str),
    Holds(for<'a> fn(&'a World) -> BoxFuture<'a, bool>),
}

pub struct Step {
    pub acts: Vec<Act>,
    pub until: Vec<Until>,
}

pub struct Scenario {
    /// The one that is disturbed.
    pub controller: &'static str,
    /// Those that run beside it in peace.
    pub others: &'static [&'static str],
    /// Plurals of the kinds whose watches are disturbed, one in each run.
    pub seen: &'static [&'static str],
    /// Collections that it makes objects in. They are the same at the end of each run, but for what is random.
    pub makes: &'static [&'static str],
    /// How many objects it makes there in all.
    pub creates: usize,
    /// Done while its watch is held back; what this takes away may be made once more.
    pub missed: Option<Act>,
    /// The controller's clock is an hour ahead of the API server's.
    pub is_ahead: bool,
    /// Done before the controller starts, so that it knows of it from the beginning.
    pub before: Vec<Act>,
    pub steps: Vec<Step>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { controller: "", others: &[], seen: &[], makes: &[], creates: 0, missed: None, is_ahead: false, before: Vec::new(), steps: Vec::new() }
    }
}

pub fn step(acts: impl Into<Vec<Act>>, until: impl Into<Vec<Until>>) -> Step {
    Step { acts: acts.into(), until: until.into() }
}

pub fn post(path: &'static str, object: Value) -> Act {
    Act::Post(path, object)
}

pub fn merge(path: &'static str, patch: Value) -> Act {
    Act::Merge(path, patch)
}

pub fn delete(path: &'static str) -> Act {
    Act::Delete(path, json!({"gracePeriodSeconds": 0}))
}

pub fn looks(path: &'static str, wanted: Value) -> Until {
    Until::Looks(path, wanted)
}

/// A collection has so many objects.
pub fn count(path: &'static str, count: usize) -> Until {
    Until::Size(path, "/items", count)
}

pub fn gone(path: &'static str) -> Until {
    Until::Gone(path)
}

impl Act {
    /// Tells the uid of what it has made.
    pub async fn run(&self, world: &World, shown: &Shown) -> Result<Option<String>, client::ApiError> {
        let made = match self {
            Self::Post(path, object) => world.call(http::Method::POST, path, object.clone(), "application/json").await?,
            Self::Owned(path, owner, object) => {
                let (found, mut object) = (read(world, owner).await, object.clone());
                let reference = json!({"apiVersion": found["apiVersion"], "kind": found["kind"], "name": found["metadata"]["name"],
                    "uid": found["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true});
                object["metadata"]["ownerReferences"] = json!([reference]);
                world.call(http::Method::POST, path, object, "application/json").await?
            }
            Self::Merge(path, patch) => {
                world.call(http::Method::PATCH, path, patch.clone(), "application/merge-patch+json").await?;
                return Ok(None);
            }
            Self::Delete(path, options) => {
                world.call(http::Method::DELETE, path, options.clone(), "application/json").await?;
                return Ok(None);
            }
            Self::Take(path) => {
                let uid = read(world, path).await["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                if shown.has(path.rsplit('/').nth(1).unwrap_or_default(), &uid) {
                    world.call(http::Method::DELETE, path, json!({"preconditions": {"uid": uid}}), "application/json").await?;
                }
                return Ok(None);
            }
            Self::TakePod => {
                take_a_pod(world, |uid| shown.has("pods", uid)).await;
                return Ok(None);
            }
            Self::TakeUnseenPod => {
                take_a_pod(world, |_| true).await;
                return Ok(None);
            }
            Self::Do(act) => {
                act(world).await;
                return Ok(None);
            }
        };
        Ok(made["metadata"]["uid"].as_str().map(str::to_owned))
    }
}

impl Until {
    pub async fn holds(&self, world: &World) -> bool {
        match self {
            Self::Looks(path, wanted) => has(&read(world, path).await, wanted),
            Self::Size(path, place, size) => read(world, path).await.pointer(place).and_then(Value::as_array).map_or(0, Vec::len) == *size,
            Self::Gone(path) => world.admin.get_path::<Value>(path).await.is_err_and(|error| error.is_not_found()),
            Self::Holds(holds) => holds(world).await,
        }
    }

    /// What it is about, and how that is now.
    pub async fn told(&self, world: &World) -> String {
        match self {
            Self::Looks(path, wanted) => format!("{path} has not {wanted}: {}", read(world, path).await),
            Self::Size(path, place, size) => format!("{path} has not {size} at {place}: {}", read(world, path).await),
            Self::Gone(path) => format!("{path} is there: {}", read(world, path).await),
            Self::Holds(_) => "what was to hold does not".to_owned(),
        }
    }
}

pub async fn read(world: &World, path: &str) -> Value {
    world.admin.get_path(path).await.unwrap_or_default()
}

/// Whether all of `wanted` is in `found`: fields of objects, members of lists in any order; nothing, null and empty are one.
pub fn has(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(key, value)| has(found.get(key).unwrap_or(&Value::Null), value)),
        (Value::Array(found), Value::Array(wanted)) if !wanted.is_empty() => wanted.iter().all(|w| found.iter().any(|f| has(f, w))),
        (found, Value::Null) => matches!(found, Value::Null) || found.as_array().is_some_and(Vec::is_empty) || found.as_object().is_some_and(serde_json::Map::is_empty),
        (found, wanted) => found == wanted,
    }
}

async fn take_a_pod(world: &World, may_be_taken: impl Fn(&str) -> bool) {
    let pods = world.list("/api/v1/namespaces/default/pods").await;
    let may_go = |pod: &&Value| {
        let is_live = !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        is_live && may_be_taken(pod["metadata"]["uid"].as_str().unwrap_or_default())
    };
    if let Some(pod) = pods.iter().find(may_go) {
        let path = format!("/api/v1/namespaces/default/pods/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
        // It may be gone by itself.
        let _ = world.call(http::Method::DELETE, &path, json!({"gracePeriodSeconds": 0}), "application/json").await;
    }
}
