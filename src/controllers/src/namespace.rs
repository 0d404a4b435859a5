//! Empties a namespace that is being deleted, says what is left, and lets it go.
//!
//! Models pkg/controller/namespace/{namespace_controller.go, deletion/namespaced_resources_deleter.go, deletion/status_condition_utils.go},
//! v1.37. Pods go before everything else (KEP-5080). Left out: the five seconds' wait before the first look, which is for several API servers.
//! Different: what waits for finalizers is looked at soon, and then more and more rarely, up to upstream's eight seconds.
//! Reads Namespace, Pod; of a terminating namespace whatever it holds, from the server. Writes Namespace/status and /finalize, deletes.
//! Wakes on namespaces, but not for what it wrote itself, and on the end of the last pod in them.
mod conditions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Namespace, Pod};
use client::{
    Client, Clock, Controller, DeleteOptions, Event, Informer, ListOptions, Named, Next, ObjectKey, PartialObject, Propagation,
};

use jiff::Timestamp;

use self::conditions::Findings;
use crate::context::ControllerContext;
use crate::discovery::{Served, discover};
use crate::failure::{During, Failure, unless_gone};

const NAME: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
/// How long objects with finalizers are given, as upstream's finalizerEstimateSeconds.
const FINALIZER_SECONDS: i64 = 15;
/// Between the first looks at what is left.
const SOON: Duration = Duration::from_millis(250);

struct Context {
    client: Client,
    clock: Clock,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let cx = Arc::new(Context {
        client: cx.client(NAME),
        clock: cx.clock,
        namespaces: cx.informers.get(),
        pods: cx.informers.get(),
    });
    let (namespaces, pods) = (cx.namespaces.clone(), cx.pods.clone());
    Controller::new(NAME, cx)
        .workers(10)
        .watches(&namespaces, |_, event| {
            // Its conditions are ours, and change with every look at what is left.
            let is_ours = event.old().is_some_and(|old| old.is_deleting() && phase(old) == phase(event.object()));
            let wakes = event.object().is_deleting() && !is_ours && !matches!(event, Event::Deleted(_));
            wakes.then(|| event.object().key()).into_iter().collect()
        })
        .watches(&pods, |cx, event| {
            let key = ObjectKey::cluster(event.object().namespace());
            // Each look goes through all that is left.
            let is_last = matches!(event, Event::Deleted(_)) && !cx.pods.has_any_in(&key.name);
            let going = is_last && cx.namespaces.get(&key).is_some_and(|n| n.is_deleting());
            going.then_some(key).into_iter().collect()
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn phase(namespace: &Namespace) -> Option<&str> {
    namespace.status.as_ref()?.phase.as_deref()
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    if !cx.namespaces.get(key).is_some_and(|n| n.is_deleting()) {
        return Ok(Next::Wait);
    }
    let step = || format!("read namespace {}", key.name);
    let Some(mut namespace) = unless_gone(cx.client.get::<Namespace>(key).await).during(step)? else { return Ok(Next::Wait) };
    if !namespace.is_deleting() {
        return Ok(Next::Wait);
    }
    if phase(&namespace) != Some("Terminating") {
        namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        namespace = cx.client.update_status(&namespace).await.during(|| format!("mark namespace {} Terminating", key.name))?;
    }
    if is_finalized(&namespace) {
        return Ok(Next::Wait);
    }
    let (findings, wait) = empty(cx, &namespace).await?;
    let status = conditions::status(&namespace, &findings, cx.clock.time());
    if namespace.status.as_ref() != Some(&status) {
        namespace.status = Some(status);
        let step = || format!("update the status of namespace {}", key.name);
        match unless_gone(cx.client.update_status(&namespace).await).during(step)? {
            Some(updated) => namespace = updated,
            None => return Ok(Next::Wait),
        }
    }
    if let Some(failure) = findings.first_failure() {
        return Err(Failure::Stale(failure));
    }
    if wait > 0 {
        let longest = Duration::from_secs(wait.unsigned_abs() / 2 + 1);
        // The end of the last pod wakes us; of other objects nothing does.
        let waits_for_pods = findings.remaining.contains_key("pods.");
        return Ok(Next::After(if waits_for_pods { longest } else { patience(&namespace, cx.clock.now()).min(longest) }));
    }
    finalize(cx, namespace).await
}

/// As long as the namespace has been going already: soon at first, since most finalizers are gone within moments.
fn patience(namespace: &Namespace, now: Timestamp) -> Duration {
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |t| t.0);
    // A clock that was set back gives no reason for haste.
    Duration::try_from(now.duration_since(since)).map_or(Duration::MAX, |age| age.max(SOON))
}

fn is_finalized(namespace: &Namespace) -> bool {
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_none_or(|f| f.is_empty())
}

async fn finalize(cx: &Context, mut namespace: Namespace) -> Result<Next, Failure> {
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    let key = namespace.key();
    let result = cx.client.update_subresource::<Namespace, _, Namespace>(&key, "finalize", &namespace).await;
    unless_gone(result).during(|| format!("finalize namespace {}", key.name))?;
    Ok(Next::Wait)
}

/// Deletes all that the namespace holds, pods first. Returns what was found and for how many seconds to wait.
async fn empty(cx: &Context, namespace: &Namespace) -> Result<(Findings, i64), Failure> {
    let discovery = discover(&cx.client).await.during(|| "discover the resources of the server".to_owned())?;
    let mut findings = Findings { undiscovered: discovery.failures.iter().map(|(g, e)| format!("{g}: {e}")).collect(), ..Default::default() };
    let deletable = discovery.resources.iter().filter(|s| s.resource.namespaced && s.can("delete"));
    let (pods, others): (Vec<_>, Vec<_>) = deletable.partition(|s| s.resource.group.is_empty() && s.resource.plural == "pods");
    let mut wait = 0;
    for served in &pods {
        let grace = grace_seconds(&cx.pods, namespace.name());
        wait = wait.max(delete_all(cx, namespace.name(), served, grace, &mut findings).await);
    }
    // Pods may need what else is here until their end.
    if findings.remaining.is_empty() && findings.failures.is_empty() {
        for served in others {
            wait = wait.max(delete_all(cx, namespace.name(), served, 0, &mut findings).await);
        }
    }
    Ok((findings, wait))
}

/// The longest time that a pod here may still take to end.
fn grace_seconds(pods: &Informer<Pod>, namespace: &str) -> i64 {
    let grace = |pod: &Pod| match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        Some("Succeeded" | "Failed") => 0,
        _ => pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(0),
    };
    let mut longest = 0;
    pods.each_in(namespace, |pod| longest = longest.max(grace(pod)));
    longest
}

async fn delete_all(cx: &Context, namespace: &str, served: &Served, grace: i64, findings: &mut Findings) -> i64 {
    match try_delete_all(cx, namespace, served).await {
        Ok(remaining) if remaining.is_empty() => 0,
        Ok(remaining) => findings.note(served, &remaining, grace),
        Err(failure) => {
            findings.failures.push(failure);
            0
        }
    }
}

async fn try_delete_all(cx: &Context, namespace: &str, served: &Served) -> Result<Vec<PartialObject>, String> {
    let resource = &served.resource;
    let options = DeleteOptions::default().propagation(Propagation::Background);
    let list = || async {
        if !served.can("list") {
            return Ok(Vec::new());
        }
        let list = cx.client.list_at::<PartialObject>(resource, namespace, &ListOptions::default()).await;
        list.map(|l| l.items).map_err(|e| format!("list {}: {e}", resource.plural))
    };
    let before = list().await?;
    if before.is_empty() {
        return Ok(before);
    }
    if served.can("deletecollection") {
        let done = cx.client.delete_collection_at(resource, namespace, &options, &ListOptions::default()).await;
        done.map_err(|e| format!("delete all {}: {e}", resource.plural))?;
    } else {
        for object in before {
            let key = ObjectKey::new(namespace, object.name());
            unless_gone(cx.client.delete_at(resource, &key, &options).await).map_err(|e| format!("delete {} {key}: {e}", resource.plural))?;
        }
    }
    list().await
}

impl Findings {
    /// Returns for how many seconds to wait.
    fn note(&mut self, served: &Served, remaining: &[PartialObject], grace: i64) -> i64 {
        let (resource, count) = (&served.resource, remaining.len());
        self.remaining.insert(format!("{}.{}", resource.plural, resource.group), count);
        let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
        for finalizer in remaining.iter().flat_map(|o| o.metadata.finalizers.iter().flatten()) {
            *finalizers.entry(finalizer).or_default() += 1;
        }
        let held = !finalizers.is_empty();
        for (finalizer, count) in finalizers {
            *self.finalizers.entry(finalizer.to_owned()).or_default() += count;
        }
        match grace {
            0 if held => FINALIZER_SECONDS,
            0 => {
                let text = format!("unexpected items still remain in namespace: {count} of {}", resource.plural);
                self.failures.push(text);
                0
            }
            grace => grace,
        }
    }
}
