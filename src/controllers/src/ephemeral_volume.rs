//! Makes the claims of ephemeral volumes: one for each, owned by its pod.
//!
//! Models pkg/controller/volume/ephemeral/controller.go, v1.37.
//! Reads Pod, PersistentVolumeClaim. Writes PersistentVolumeClaim. Wakes on pods, and on claims of theirs that go.
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, Controller, Event, EventRecorder, EventType, Informer, Named, Next, ObjectKey, controller_of};

use crate::context::ControllerContext;
use crate::failure::{During, Failure};
use crate::ownership::{controller_reference, is_controlled_by};

const NAME: &str = "ephemeral-volume-controller";

struct Context {
    client: Client,
    recorder: EventRecorder,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client(NAME);
    let recorder = cx.recorder(&client, "ephemeral_volume");
    let cx = Arc::new(Context { recorder, client, pods: cx.informers.get(), claims: cx.informers.get() });
    let (pods, claims) = (cx.pods.clone(), cx.claims.clone());
    Controller::new(NAME, cx)
        .watches(&pods, |_, event| {
            let pod = event.object();
            let has_any = ephemeral(pod).next().is_some();
            (has_any && matches!(event, Event::Added(_))).then(|| pod.key()).into_iter().collect()
        })
        .watches(&claims, |_, event| {
            let claim = event.object();
            let owner = controller_of(&claim.metadata).filter(|o| o.kind == "Pod" && matches!(event, Event::Deleted(_)));
            owner.map(|o| ObjectKey::new(claim.namespace(), o.name.clone())).into_iter().collect()
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| v.ephemeral.is_some())
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(pod) = cx.pods.get(key).filter(|p| !p.is_deleting()) else { return Ok(Next::Wait) };
    for volume in ephemeral(&pod) {
        if let Err(failure) = ensure(cx, &pod, volume).await {
            let why = failure.api().map_or_else(|| failure.to_string(), |api| format!("create PVC {}-{}: {api}", pod.name(), volume.name));
            let text = format!("ephemeral volume {}: {why}", volume.name);
            cx.recorder.record(&*pod, EventType::Warning, "FailedBinding", text);
            return Err(failure);
        }
    }
    Ok(Next::Wait)
}

async fn ensure(cx: &Context, pod: &Pod, volume: &Volume) -> Result<(), Failure> {
    let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) else { return Ok(()) };
    let key = ObjectKey::new(pod.namespace(), format!("{}-{}", pod.name(), volume.name));
    if let Some(claim) = cx.claims.get(&key) {
        return match is_controlled_by(&*claim, pod) {
            true => Ok(()),
            false => Err(Failure::Stale(format!("PVC {key} was not created for pod {} (pod is not owner)", pod.key()))),
        };
    }
    let meta = template.metadata.clone().unwrap_or_default();
    let claim = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            owner_references: Some(vec![controller_reference(pod)]),
            annotations: meta.annotations,
            labels: meta.labels,
            ..Default::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    };
    cx.client.create(&claim).await.map(|_| ()).during(|| format!("create PersistentVolumeClaim {key}"))
}
