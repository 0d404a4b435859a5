//! The objects that every cluster has, and the condition of FlowSchemas whose level is missing.
//!
//! Models pkg/registry/flowcontrol/{ensurer,rest} and, of the condition, k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go. The mandatory
//! objects (`exempt`, `catch-all`) are always as they should be; the suggested ones as long as nobody has taken them over.
use std::sync::OnceLock;

use api::meta;
use api::tree::Tree;

use super::{CATCH_ALL, EXEMPT, GROUP, LEVELS, SCHEMAS};
use crate::bootstrap::own_target;
use crate::rest::options::DeleteOptions;
use crate::rest::storage::{Part, now};
use crate::server::ApiServer;
use crate::status::Status;

const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Those of the facts, levels before the schemas that name them.
fn all() -> &'static [Tree] {
    static ALL: OnceLock<Vec<Tree>> = OnceLock::new();
    ALL.get_or_init(|| {
        let list = Tree::from_json(api::facts::flow_control()).expect("codegen writes JSON");
        list.array_at(&["items"]).to_vec()
    })
}

/// The objects of a kind without which nothing works.
pub fn mandatory(kind: &str) -> impl Iterator<Item = Tree> + '_ {
    all().iter().filter(move |object| meta::kind(object) == kind && is_mandatory(object)).cloned()
}

fn is_mandatory(object: &Tree) -> bool {
    matches!(meta::name(object), EXEMPT | CATCH_ALL)
}

fn plural(kind: &str) -> &'static str {
    if kind == "FlowSchema" { SCHEMAS } else { LEVELS }
}

/// Whether its spec is ours to keep: the annotation says so, or, where there is none, nobody has changed it yet.
fn is_ours(object: &Tree) -> bool {
    match object.at(&["metadata", "annotations", AUTO_UPDATE]).and_then(Tree::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => meta::generation(object) == 1,
    }
}

/// The object as it should be; `None`: it is.
fn revised(current: &Tree, wanted: &Tree) -> Option<Tree> {
    let ours = is_mandatory(wanted) || is_ours(current);
    let mut new = current.clone();
    if ours {
        new.set(&["spec"], wanted.get("spec").cloned().unwrap_or_default());
    }
    new.set(&["metadata", "annotations", AUTO_UPDATE], if ours { "true" } else { "false" });
    (new != *current).then_some(new)
}

/// The FlowSchema with its condition as it should be; `None`: it is.
fn with_condition(schema: &Tree, level_exists: bool) -> Option<Tree> {
    let level = schema.str_at(&["spec", "priorityLevelConfiguration", "name"]);
    let start = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match level_exists {
        true => ("False", "Found", format!("{start} and it exists")),
        false => ("True", "NotFound", format!("{start} but there is no such object")),
    };
    let conditions = schema.array_at(&["status", "conditions"]);
    let is_it = |c: &&Tree| c.str_at(&["type"]) == "Dangling";
    if conditions.iter().find(is_it).is_some_and(|c| (c.str_at(&["status"]), c.str_at(&["reason"]), c.str_at(&["message"])) == (status, reason, message.as_str())) {
        return None;
    }
    let mut condition = Tree::object();
    for (field, text) in [("type", "Dangling"), ("status", status), ("reason", reason), ("message", message.as_str())] {
        condition.set(&[field], text);
    }
    condition.set(&["lastTransitionTime"], now());
    let mut kept: Vec<Tree> = conditions.iter().filter(|c| !is_it(c)).cloned().collect();
    kept.push(condition);
    let mut new = schema.clone();
    new.set(&["status", "conditions"], Tree::Array(kept));
    Some(new)
}

/// Makes the objects as they should be.
pub async fn ensure(server: &ApiServer) -> Result<(), Status> {
    for wanted in all() {
        let target = own_target(server, GROUP, "v1", plural(meta::kind(wanted)), "", meta::name(wanted));
        if target.current().is_none() {
            match target.create(wanted.clone(), false, &mut Vec::new()).await {
                Err(status) if status.reason != "AlreadyExists" => return Err(status),
                _ => continue,
            }
        }
        let change = |old: &Tree| Ok(if old.is_null() { Tree::Null } else { revised(old, wanted).unwrap_or_else(|| old.clone()) });
        target.update(Part::Main, true, false, &mut Vec::new(), &change).await?;
    }
    remove_unwanted(server).await
}

/// What an earlier version suggested, and this one does not.
async fn remove_unwanted(server: &ApiServer) -> Result<(), Status> {
    for plural in [SCHEMAS, LEVELS] {
        for cached in server.0.parts.cache.list(GROUP, plural, None) {
            let object = cached.tree();
            let is_wanted = all().iter().any(|w| self::plural(meta::kind(w)) == plural && meta::name(w) == cached.name());
            if !is_wanted && object.at(&["metadata", "annotations", AUTO_UPDATE]).and_then(Tree::as_str) == Some("true") {
                own_target(server, GROUP, "v1", plural, "", cached.name()).delete(&DeleteOptions::default(), &mut Vec::new()).await?;
            }
        }
    }
    Ok(())
}

async fn tell_dangling(server: &ApiServer) -> Result<(), Status> {
    let cache = &server.0.parts.cache;
    for cached in cache.list(GROUP, SCHEMAS, None) {
        let exists = |schema: &Tree| {
            let level = schema.str_at(&["spec", "priorityLevelConfiguration", "name"]);
            cache.get(GROUP, LEVELS, "", level).is_some() || matches!(level, EXEMPT | CATCH_ALL)
        };
        let tree = cached.tree();
        if with_condition(&tree, exists(&tree)).is_none() {
            continue;
        }
        let target = own_target(server, GROUP, "v1", SCHEMAS, "", cached.name());
        let change = |old: &Tree| Ok(if old.is_null() { Tree::Null } else { with_condition(old, exists(old)).unwrap_or_else(|| old.clone()) });
        match target.update(Part::Status, true, false, &mut Vec::new(), &change).await {
            Err(status) if status.reason != "NotFound" => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// Follows the objects.
pub async fn run(server: ApiServer) {
    loop {
        let flow = &server.0.flow;
        flow.configure(&server.0.parts.cache);
        for done in [ensure(&server).await, tell_dangling(&server).await] {
            if let Err(status) = done {
                tracing::warn!("priority and fairness: {}", status.message);
            }
        }
        tokio::select! {
            () = flow.0.changed.notified() => {}
            () = server.0.shutdown.cancelled() => return,
        }
        // One commit often changes several.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(annotation: &str, generation: i64, shares: i64) -> Tree {
        let text = format!(r#"{{"metadata":{{"name":"x","generation":{generation},"annotations":{annotation}}},"spec":{{"limited":{{"nominalConcurrencyShares":{shares}}}}}}}"#);
        Tree::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn suggested_objects_are_kept_until_somebody_takes_them_over() {
        let ours = r#"{"apf.kubernetes.io/autoupdate-spec":"true"}"#;
        let theirs = r#"{"apf.kubernetes.io/autoupdate-spec":"false"}"#;
        let wanted = object(ours, 1, 30);
        assert_eq!(revised(&object(ours, 5, 30), &wanted), None);
        assert_eq!(revised(&object(ours, 5, 7), &wanted), Some(object(ours, 5, 30)));
        assert_eq!(revised(&object(theirs, 5, 7), &wanted), None);
        assert_eq!(revised(&object("{}", 5, 7), &wanted), Some(object(theirs, 5, 7)));
        assert_eq!(revised(&object("{}", 1, 7), &wanted), Some(object(ours, 1, 30)));
        assert_eq!(mandatory("FlowSchema").count() + mandatory("PriorityLevelConfiguration").count(), 4);
    }

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let schema = Tree::from_json(br#"{"spec":{"priorityLevelConfiguration":{"name":"p"}}}"#).unwrap();
        let told = with_condition(&schema, false).unwrap();
        let condition = &told.array_at(&["status", "conditions"])[0];
        assert_eq!((condition.str_at(&["status"]), condition.str_at(&["reason"])), ("True", "NotFound"));
        let message = "This FlowSchema references the PriorityLevelConfiguration object named \"p\" but there is no such object";
        assert_eq!(condition.str_at(&["message"]), message);
        assert!(with_condition(&told, false).is_none() && with_condition(&told, true).is_some());
    }
}
