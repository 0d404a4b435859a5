//! Makes the claims of devices that pods ask for by template, and takes back what finished pods had reserved.
//!
//! Models pkg/controller/resourceclaim/controller.go, v1.37. Left out: claims of pod groups (off by default).
//! Reads Pod, ResourceClaim, ResourceClaimTemplate. Writes ResourceClaim and its status, Pod/status.
//! Wakes on pods that use claims and on templates; on claims, and on their pods when these finish or go.
mod pods;
mod reserved;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use client::k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use client::k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use client::{Client, Controller, Event, EventRecorder, Informer, Kind, Named, Next, ObjectKey};
use tracing::Instrument;

use crate::context::ControllerContext;
use crate::pods::is_terminated;

const NAME: &str = "resource-claim-controller";
/// As upstream's `resource.kubernetes.io/pod-claim-name`: which entry of the pod a claim was made for.
const CLAIM_OF_POD: &str = "resource.kubernetes.io/pod-claim-name";
/// Pods by the template that they name.
const BY_TEMPLATE: &str = "resource-claim-template";

struct Context {
    client: Client,
    recorder: EventRecorder,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    made: Made,
}

/// Names of the claims that were made for a pod, by its uid and by its entries: until the pod's status has them and the watch shows it, nothing
/// else tells that they are there.
#[derive(Default)]
struct Made(Mutex<HashMap<String, BTreeMap<String, String>>>);

impl Made {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, BTreeMap<String, String>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, pod: &Pod, entry: &str, claim: &str) {
        self.with(|all| all.entry(pod.uid().to_owned()).or_default().insert(entry.to_owned(), claim.to_owned()));
    }

    fn get(&self, pod: &Pod, entry: &str) -> Option<String> {
        self.with(|all| all.get(pod.uid())?.get(entry).cloned())
    }

    fn forget(&self, pod: &Pod) {
        self.with(|all| all.remove(pod.uid()));
    }

    /// The pod's status tells now.
    fn told(&self, pod: &Pod, entry: &str) {
        self.with(|all| {
            if let Some(entries) = all.get_mut(pod.uid()) {
                entries.remove(entry);
                if entries.is_empty() {
                    all.remove(pod.uid());
                }
            }
        });
    }
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let recorder = cx.recorder(&client, "resource_claim");
    let (pods, claims, templates) = (cx.informers.get(), cx.informers.get(), cx.informers.get());
    let cx = Arc::new(Context { recorder, client, pods, claims, templates, made: Made::default() });
    cx.pods.add_index(BY_TEMPLATE, |pod| {
        let names = pod_claims(pod).filter_map(|c| c.resource_claim_template_name.as_ref());
        names.map(|name| format!("{}/{name}", pod.namespace())).collect()
    });
    tokio::join!(
        make(cx.clone()).instrument(tracing::info_span!("resource-claims-of-pods")),
        take_back(cx).instrument(tracing::info_span!("resource-claims")),
    );
}

/// Claims for pods.
async fn make(cx: Arc<Context>) {
    let (pods, claims, templates) = (cx.pods.clone(), cx.claims.clone(), cx.templates.clone());
    Controller::new(NAME, cx)
        .watches(&pods, |cx, event| {
            let pod = event.object();
            if matches!(event, Event::Deleted(_)) {
                cx.made.forget(pod);
            }
            let works = pod_claims(pod).next().is_some() && !matches!(event, Event::Deleted(_));
            works.then(|| pod.key()).into_iter().collect()
        })
        .watches(&claims, |_, event| match event {
            // One that was deleted is made again for as long as its pod needs it.
            Event::Deleted(claim) => owning_pod(&**claim).into_iter().collect(),
            _ => Vec::new(),
        })
        .watches(&templates, |cx, event| match event {
            Event::Added(template) => {
                let pods = cx.pods.by_index(BY_TEMPLATE, &template.key().to_string());
                pods.iter().map(|p| p.key()).collect()
            }
            _ => Vec::new(),
        })
        .run(|cx, key| async move { pods::reconcile(&cx, &key).await })
        .await;
}

/// Reservations of pods that need them no longer.
async fn take_back(cx: Arc<Context>) {
    let (pods, claims) = (cx.pods.clone(), cx.claims.clone());
    Controller::new("resource-claim-reservations", cx)
        .watches(&claims, |_, event| vec![event.object().key()])
        .watches(&pods, |_, event| {
            let pod = event.object();
            let is_over = matches!(event, Event::Deleted(_)) || is_done(pod);
            pod_claims(pod).filter(|_| is_over).filter_map(|c| claim_name(pod, c)).map(|n| ObjectKey::new(pod.namespace(), n)).collect()
        })
        .run(|cx, key| async move { reserved::reconcile(&cx, &key).await.map(|()| Next::Wait) })
        .await;
}

fn pod_claims(pod: &Pod) -> impl Iterator<Item = &PodResourceClaim> {
    pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten())
}

/// The claim's name, where it is known; empty where none is needed.
fn claim_name(pod: &Pod, claim: &PodResourceClaim) -> Option<String> {
    claim.resource_claim_name.clone().or_else(|| {
        let made = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_ref());
        let status = made.into_iter().flatten().find(|s| s.name == claim.name)?;
        Some(status.resource_claim_name.clone().unwrap_or_default())
    })
}

/// Finished, or gone before it had a node.
fn is_done(pod: &Pod) -> bool {
    is_terminated(pod) || pod.is_deleting() && crate::pods::node_name(pod).is_empty()
}

fn owning_pod<K: Kind>(object: &K) -> Option<ObjectKey> {
    let owner = client::controller_of(object.meta()).filter(|o| o.kind == "Pod" && o.api_version == "v1")?;
    Some(ObjectKey::new(object.namespace(), owner.name.clone()))
}
