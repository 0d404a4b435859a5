//! Counts what each ResourceQuota is about, and writes the count to its status.
//!
//! Models pkg/controller/resourcequota/{resource_quota_controller,resource_quota_monitor}.go and pkg/quota/v1/install/update_filter.go, v1.37.
//! Different: kinds beyond pods, services and claims are watched once a quota names them; what is counted is listed from the server; a
//! quota that the API server has charged is counted again a little later, where upstream counts all every five minutes: that gives
//! back what was charged for writes that failed. An object is stored a moment after it was charged, so a quota that was charged just now
//! is not counted down: it would let one more object pass than it allows.
//! Reads ResourceQuota, and any kind that one names. Writes ResourceQuota/status.
//! Wakes on quotas, and on what frees something: deletions, pods that end or change their scope, services that change their type.
mod watches;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::quantity::Quantity;
use api::quota::{self, Amounts};
use api::tree::Tree;
use client::k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use client::k8s_openapi::apimachinery::pkg::api::resource;
use client::{ApiResource, Client, Clock, Controller, Event, Informer, ListOptions, Named, Next, ObjectKey, WorkQueue};
use jiff::{SignedDuration, Timestamp};

use self::watches::Watches;
use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};
use crate::pods;

const NAME: &str = "resourcequota-controller";
/// When a quota is counted again after it was charged.
const RECOUNT: Duration = Duration::from_secs(10);
/// From the charge to the commit of the object that was charged, and more.
const IN_FLIGHT: Duration = Duration::from_secs(1);
/// What is freed within this time is counted once: a count goes through all objects of the namespace.
const BATCH: Duration = Duration::from_millis(200);
/// When a kind that nobody serves yet is looked for again.
const UNKNOWN_KIND: Duration = Duration::from_secs(30);

pub(crate) struct Context {
    client: Client,
    clock: Clock,
    quotas: Informer<ResourceQuota>,
    watches: Watches,
    /// Which version of each quota was seen when, by [`Clock::elapsed`].
    seen: Mutex<HashMap<ObjectKey, (String, Duration)>>,
}

impl Context {
    fn saw(&self, quota: &ResourceQuota) {
        let version = quota.metadata.resource_version.clone().unwrap_or_default();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(quota.key(), (version, self.clock.elapsed()));
    }

    /// Whether this version may have been written for an object that is not stored yet.
    fn is_fresh(&self, quota: &ResourceQuota) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        is_fresh(seen.get(&quota.key()), quota.metadata.resource_version.as_deref().unwrap_or_default(), self.clock.elapsed())
    }
}

fn is_fresh(seen: Option<&(String, Duration)>, version: &str, now: Duration) -> bool {
    seen.is_none_or(|(known, at)| known != version || now.saturating_sub(*at) < IN_FLIGHT)
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let quotas: Informer<ResourceQuota> = cx.informers.get();
    let (pods, services, claims) = (cx.informers.get::<Pod>(), cx.informers.get::<Service>(), cx.informers.get::<PersistentVolumeClaim>());
    let cx = Arc::new(Context { watches: Watches::new(client.clone()), client, clock: cx.clock, quotas: quotas.clone(), seen: Mutex::default() });
    let controller = Controller::new(NAME, cx.clone());
    cx.watches.wakes(controller.queue(), quotas.clone());
    controller
        .on(&quotas, on_quota)
        .on(&pods, on_pod)
        .on(&services, |cx, queue, event| {
            let kind = |s: &Service| s.spec.as_ref().and_then(|s| s.type_.clone()).filter(|t| t == "NodePort" || t == "LoadBalancer");
            let changed = event.old().is_some_and(|old| kind(old) != kind(event.object()));
            if changed || matches!(event, Event::Deleted(_)) {
                wake(&cx.quotas, queue, "", "services", event.object().namespace());
            }
        })
        .on(&claims, |cx, queue, event| {
            let of = |c: &PersistentVolumeClaim| {
                let status = c.status.clone().unwrap_or_default();
                let target = status.modify_volume_status.map(|s| s.target_volume_attributes_class_name);
                (status.allocated_resources, status.current_volume_attributes_class_name, target)
            };
            let changed = event.old().is_some_and(|old| of(old) != of(event.object()));
            if changed || matches!(event, Event::Deleted(_)) {
                wake(&cx.quotas, queue, "", "persistentvolumeclaims", event.object().namespace());
            }
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn on_quota(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<ResourceQuota>) {
    let quota = event.object();
    let used = |q: &ResourceQuota| q.status.as_ref().and_then(|s| s.used.clone());
    match event {
        Event::Deleted(_) => {
            cx.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&quota.key());
            return;
        }
        _ => cx.saw(quota),
    }
    match event {
        Event::Updated { old, new } if old.spec == new.spec && used(old) != used(new) => queue.add_after(quota.key(), RECOUNT),
        _ => queue.add(quota.key()),
    }
}

/// Wakes the quotas of the namespace that are about this kind.
fn wake(quotas: &Informer<ResourceQuota>, queue: &WorkQueue<ObjectKey>, group: &str, plural: &str, namespace: &str) {
    for quota in quotas.list_namespace(namespace) {
        let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
        if hard.is_some_and(|hard| hard.keys().any(|name| quota::measures(group, plural, name))) {
            queue.add_after(quota.key(), BATCH);
        }
    }
}

fn on_pod(cx: &Context, queue: &WorkQueue<ObjectKey>, event: &Event<Pod>) {
    let pod = event.object();
    let scope = |p: &Pod| p.spec.as_ref().and_then(|s| s.active_deadline_seconds).is_some();
    let resources = |p: &Pod| -> Vec<_> {
        let status = p.status.as_ref();
        let statuses = status.into_iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
        statuses.map(|c| (c.name.clone(), c.resources.clone())).collect()
    };
    let frees = match event {
        Event::Added(_) => false,
        Event::Deleted(_) => true,
        Event::Updated { old, new } => {
            pods::is_terminated(old) != pods::is_terminated(new) || scope(old) != scope(new) || resources(old) != resources(new)
        }
    };
    if frees {
        wake(&cx.quotas, queue, "", "pods", pod.namespace());
    }
    // A pod that is not gone when it should be does not count any more.
    if let Some(deleted) = &pod.metadata.deletion_timestamp
        && event.old().is_some_and(|old| !old.is_deleting())
    {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0) + 1;
        let end = deleted.0.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
        for quota in cx.quotas.list_namespace(pod.namespace()) {
            queue.add_after(quota.key(), pods::until(end, cx.clock.now()));
        }
    }
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    if cx.quotas.get(key).is_none() {
        return Ok(Next::Wait);
    }
    // From the server: what it has charged since must not be written over.
    let only = ListOptions::fields(format!("metadata.name={}", key.name));
    let list = cx.client.list::<ResourceQuota>(&key.namespace, &only).await.during(|| format!("read ResourceQuota {key}"))?;
    let Some(quota) = list.items.into_iter().next() else { return Ok(Next::Wait) };
    let tree = Tree::from_typed(&quota).map_err(|e| Failure::Unusable(format!("ResourceQuota {key}: {e}")))?;
    let hard = quota::amounts(tree.at(&["spec", "hard"]));
    let mut next = Next::Wait;
    let mut counted = Amounts::new();
    for resource in cx.watches.named_by(&hard).await.during(|| "discover the kinds that quotas name".to_owned())? {
        let Some(resource) = resource else {
            next = Next::After(UNKNOWN_KIND);
            continue;
        };
        cx.watches.watch(&resource);
        let list = cx.client.list_at::<Tree>(&resource, &key.namespace, &ListOptions::default()).await;
        let items = list.during(|| format!("list {} for ResourceQuota {key}", resource.plural))?.items;
        quota::add(&mut counted, &count(&resource, &tree, &hard, &items, cx.clock.now()));
    }
    let old = quota::amounts(tree.at(&["status", "used"]));
    let used = settle(&hard, &old, counted);
    if is_current(&quota, &tree, &hard, &used) {
        return Ok(next);
    }
    if counts_down(&old, &used) && cx.is_fresh(&quota) {
        return Ok(Next::After(IN_FLIGHT));
    }
    let mut update = quota.clone();
    let typed = |amounts: &Amounts| -> BTreeMap<_, _> {
        amounts.iter().map(|(name, amount)| (name.clone(), resource::Quantity(amount.to_string()))).collect()
    };
    let status = update.status.get_or_insert_default();
    (status.hard, status.used) = (Some(typed(&hard)), Some(typed(&used)));
    unless_gone(cx.client.update_status(&update).await).during(|| format!("update the status of ResourceQuota {key}"))?;
    Ok(next)
}

/// What these objects use of what the quota names; zero for each of its names where there are none.
fn count(resource: &ApiResource, tree: &Tree, hard: &Amounts, objects: &[Tree], now: Timestamp) -> Amounts {
    let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
    let names = hard.keys().filter(|name| quota::measures(group, plural, name));
    let mut total: Amounts = names.map(|name| (name.clone(), Quantity::ZERO)).collect();
    for object in objects.iter().filter(|o| quota::is_in_scope(group, plural, tree, o)) {
        let mut usage = quota::usage(group, plural, object, now);
        usage.retain(|name, _| total.contains_key(name));
        quota::add(&mut total, &usage);
    }
    total
}

/// Under the names of the quota: what was counted, or what was there before where nothing could be.
fn settle(hard: &Amounts, old: &Amounts, counted: Amounts) -> Amounts {
    let mut used = old.clone();
    used.extend(counted);
    used.retain(|name, _| hard.contains_key(name));
    used
}

fn counts_down(old: &Amounts, new: &Amounts) -> bool {
    new.iter().any(|(name, amount)| old.get(name).is_some_and(|before| amount < before))
}

fn is_current(quota: &ResourceQuota, tree: &Tree, hard: &Amounts, used: &Amounts) -> bool {
    let status = quota.status.as_ref();
    let complete = status.is_some_and(|s| s.hard.is_some() && s.used.is_some());
    complete && quota::amounts(tree.at(&["status", "hard"])) == *hard && quota::amounts(tree.at(&["status", "used"])) == *used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        Tree::from_json(json.as_bytes()).unwrap()
    }

    fn amounts(json: &str) -> Amounts {
        quota::amounts(Some(&tree(json)))
    }

    #[test]
    fn objects_in_scope_are_added_up_under_the_names_of_the_quota() {
        let pods = client::ApiResource::of::<Pod>();
        let pod = |class: &str, cpu: &str| {
            tree(&format!(
                r#"{{"spec":{{"containers":[{{"name":"c","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]}},"status":{{"qosClass":"{class}"}}}}"#
            ))
        };
        let all = [pod("Burstable", "100m"), pod("Burstable", "200m"), pod("BestEffort", "0")];
        let hard = amounts(r#"{"pods":"9","cpu":"9","memory":"1Gi","services":"1"}"#);
        let count = |quota: &str| count(&pods, &tree(quota), &hard, &all, Timestamp::UNIX_EPOCH);
        assert_eq!(count("{}"), amounts(r#"{"pods":"3","cpu":"300m","memory":"0"}"#));
        assert_eq!(count(r#"{"spec":{"scopes":["BestEffort"]}}"#), amounts(r#"{"pods":"1","cpu":"0","memory":"0"}"#));
    }

    #[test]
    fn a_quota_that_was_charged_just_now_is_not_counted_down() {
        let at = Duration::from_secs;
        let seen = ("7".to_owned(), at(100));
        assert!(is_fresh(None, "7", at(200)), "not heard of yet");
        assert!(is_fresh(Some(&seen), "8", at(200)), "charged again, and not heard of yet");
        assert!(is_fresh(Some(&seen), "7", at(100)));
        assert!(!is_fresh(Some(&seen), "7", at(101)));
        let (one, two) = (amounts(r#"{"a":"1","b":"2"}"#), amounts(r#"{"a":"2","b":"2"}"#));
        assert!(counts_down(&two, &one) && !counts_down(&one, &two) && !counts_down(&one, &one));
    }

    #[test]
    fn what_cannot_be_counted_keeps_its_number() {
        let used = settle(&amounts(r#"{"a":"1","b":"1"}"#), &amounts(r#"{"a":"5","b":"6","c":"7"}"#), amounts(r#"{"a":"2"}"#));
        assert_eq!(used, amounts(r#"{"a":"2","b":"6"}"#));
    }
}
