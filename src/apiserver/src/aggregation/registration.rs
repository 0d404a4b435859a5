//! APIServices of what this server answers itself: built-in group versions, those of CustomResourceDefinitions, and resource metrics.
//!
//! Models kube-aggregator/pkg/controllers/autoregister and pkg/controlplane/controller/crdregistration. Built-in ones are brought up to date
//! once, at the start, and left to the administrator from then on; those of definitions come and go with them. `metrics.k8s.io` differs:
//! whoever installs a metrics server replaces the APIService, and when that goes, rk answers again.
//! Wakes on changes of APIServices and definitions.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use api::crd;
use api::meta;
use api::registry::Registry;
use api::tree::Tree;

use super::{GROUP, PLURAL, name_of, priority};
use crate::bootstrap::own_target;
use crate::resource_metrics;
use crate::rest::options::DeleteOptions;
use crate::rest::storage::Part;
use crate::server::ApiServer;
use crate::status::Status;

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const RETRY: Duration = Duration::from_secs(1);
/// Definitions come by the hundred; what they bring is served without waiting for this.
const TOGETHER: Duration = Duration::from_millis(50);

/// How an APIService is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// Once after the start.
    OnStart,
    Always,
    /// There is one; what it says is nobody's business.
    Exists,
}

#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    care: Care,
    spec: Tree,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Create(String),
    SetSpec(String),
    /// Only the object with this uid.
    Delete(String, String),
}

pub async fn run(server: ApiServer) {
    let cache = &server.0.parts.cache;
    let (Some(mut services), Some(mut definitions)) = (cache.changes(GROUP, PLURAL), cache.changes(crd::GROUP, crd::PLURAL)) else { return };
    let mut is_start = true;
    loop {
        services.borrow_and_update();
        definitions.borrow_and_update();
        let is_done = match settle(&server, is_start).await {
            Ok(()) => true,
            Err(status) => {
                tracing::warn!("APIServices could not be brought up to date, tried again soon: {}", status.message);
                false
            }
        };
        is_start &= !is_done;
        tokio::select! {
            changed = services.changed() => if changed.is_err() { return },
            changed = definitions.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !is_done => {}
            () = server.0.shutdown.cancelled() => return,
        }
        tokio::time::sleep(TOGETHER).await;
    }
}

async fn settle(server: &ApiServer, is_start: bool) -> Result<(), Status> {
    let cache = &server.0.parts.cache;
    let kinds = cache.kinds();
    let custom = kinds.custom().iter().map(|resource| (&*resource.group, &*resource.version)).collect();
    let wanted = wanted(custom, server.0.config.serves_metrics);
    let current: BTreeMap<String, Tree> = cache.list(GROUP, PLURAL, None).iter().map(|s| (s.name().to_owned(), s.tree())).collect();
    for step in plan(&wanted, &current, is_start) {
        match execute(server, &wanted, step).await {
            // Changed meanwhile: that wakes us.
            Err(status) if matches!(status.reason, "Conflict" | "NotFound" | "AlreadyExists") => {}
            result => result?,
        }
    }
    Ok(())
}

async fn execute(server: &ApiServer, wanted: &BTreeMap<String, Wanted>, step: Step) -> Result<(), Status> {
    let target = |name: &str| own_target(server, GROUP, "v1", PLURAL, "", name);
    match step {
        Step::Create(name) => {
            let wanted = &wanted[&name];
            let mut object = Tree::object();
            meta::set_type(&mut object, "apiregistration.k8s.io/v1", "APIService");
            meta::set_name(&mut object, &name);
            match wanted.care {
                Care::OnStart => meta::set_label(&mut object, MANAGED, "onstart"),
                Care::Always => meta::set_label(&mut object, MANAGED, "true"),
                Care::Exists => {}
            }
            object.set(&["spec"], wanted.spec.clone());
            target(&name).create(object, false, &mut Vec::new()).await.map(drop)
        }
        Step::SetSpec(name) => {
            let spec = &wanted[&name].spec;
            let change = |old: &Tree| {
                let mut new = old.clone();
                if !old.is_null() {
                    new.set(&["spec"], spec.clone());
                }
                Ok(new)
            };
            target(&name).update(Part::Main, true, false, &mut Vec::new(), &change).await.map(drop)
        }
        Step::Delete(name, uid) => {
            let options = DeleteOptions { precondition_uid: Some(uid), ..DeleteOptions::default() };
            target(&name).delete(&options, &mut Vec::new()).await.map(drop)
        }
    }
}

fn spec(group: &str, version: &str, (group_priority, version_priority): (i64, i64)) -> Tree {
    let mut spec = Tree::object();
    if !group.is_empty() {
        spec.set(&["group"], group);
    }
    spec.set(&["version"], version);
    spec.set(&["groupPriorityMinimum"], group_priority);
    spec.set(&["versionPriority"], version_priority);
    spec
}

/// The APIServices that there are to be; `custom`: the group versions of definitions.
fn wanted(custom: BTreeSet<(&str, &str)>, serves_metrics: bool) -> BTreeMap<String, Wanted> {
    let mut wanted = BTreeMap::new();
    let mut want = |group: &str, version: &str, priorities, care| {
        wanted.insert(name_of(group, version), Wanted { care, spec: spec(group, version, priorities) });
    };
    for (group, version) in custom {
        want(group, version, priority::CUSTOM, Care::Always);
    }
    if serves_metrics {
        let (group, version) = (resource_metrics::GROUP, resource_metrics::VERSION);
        want(group, version, priority::built_in(group, version), Care::Exists);
    }
    // The group of the APIServices themselves has none, as upstream.
    for group in Registry::get().groups().iter().filter(|group| group.name != GROUP) {
        for version in &group.versions {
            want(&group.name, version, priority::built_in(&group.name, version), Care::OnStart);
        }
    }
    wanted
}

/// Models autoregister_controller.go checkAPIService, for all of them.
fn plan(wanted: &BTreeMap<String, Wanted>, current: &BTreeMap<String, Tree>, is_start: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, wanted) in wanted {
        let Some(current) = current.get(name) else {
            if is_start || wanted.care != Care::OnStart {
                steps.push(Step::Create(name.clone()));
            }
            continue;
        };
        let is_managed = match meta::label(current, MANAGED) {
            Some("onstart") => is_start,
            Some("true") => is_start || wanted.care == Care::Always,
            _ => false,
        };
        if wanted.care != Care::Exists && is_managed && current.get("spec") != Some(&wanted.spec) {
            steps.push(Step::SetSpec(name.clone()));
        }
    }
    for (name, current) in current.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
        let is_managed = match meta::label(current, MANAGED) {
            Some("onstart") => is_start,
            Some("true") => true,
            _ => false,
        };
        // Nobody answers it any more.
        let is_left_over = **name == name_of(resource_metrics::GROUP, resource_metrics::VERSION)
            && current.at(&["spec", "service"]).is_none_or(Tree::is_null);
        if is_managed || is_left_over {
            steps.push(Step::Delete(name.clone(), meta::uid(current).to_owned()));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).expect("a test's JSON")
    }

    fn current(name: &str, label: &str, spec: &Tree) -> BTreeMap<String, Tree> {
        let mut object = tree(&format!(r#"{{"metadata":{{"name":"{name}","uid":"u","labels":{{"{MANAGED}":"{label}"}}}}}}"#));
        object.set(&["spec"], spec.clone());
        [(name.to_owned(), object)].into()
    }

    #[test]
    fn built_in_services_are_made_once_and_those_of_definitions_are_kept() {
        let all = wanted([("a.b", "v1")].into(), true);
        assert_eq!(all["v1.a.b"], Wanted { care: Care::Always, spec: spec("a.b", "v1", (1000, 100)) });
        assert!(!all.contains_key("v1.apiregistration.k8s.io"));
        assert_eq!(all["v1."].spec, tree(r#"{"version":"v1","groupPriorityMinimum":18000,"versionPriority":1}"#));
        assert_eq!(plan(&all, &BTreeMap::new(), true).len(), all.len());
        let later = [Step::Create("v1.a.b".to_owned()), Step::Create("v1beta1.metrics.k8s.io".to_owned())];
        assert_eq!(plan(&all, &BTreeMap::new(), false), later);
    }

    #[test]
    fn what_an_administrator_says_stays_but_for_those_that_are_kept() {
        let other = spec("x", "v1", (1, 1));
        let one = |care| [("v1.x".to_owned(), Wanted { care, spec: spec("x", "v1", (2, 2)) })].into();
        let set = vec![Step::SetSpec("v1.x".to_owned())];
        assert_eq!(plan(&one(Care::Always), &current("v1.x", "true", &other), false), set);
        assert_eq!(plan(&one(Care::OnStart), &current("v1.x", "onstart", &other), true), set);
        assert_eq!(plan(&one(Care::OnStart), &current("v1.x", "onstart", &other), false), []);
        assert_eq!(plan(&one(Care::Always), &current("v1.x", "", &other), true), []);
        assert_eq!(plan(&one(Care::Exists), &current("v1.x", "", &other), true), []);
        let gone = vec![Step::Delete("v1.x".to_owned(), "u".to_owned())];
        assert_eq!(plan(&BTreeMap::new(), &current("v1.x", "true", &other), false), gone);
        assert_eq!(plan(&BTreeMap::new(), &current("v1.x", "onstart", &other), false), []);
    }
}
