//! The claims that a pod needs.
use std::collections::BTreeMap;

use client::k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use client::k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{EventType, Named, Next, ObjectKey, Patch};

use super::{CLAIM_OF_POD, Context, claim_name, is_done, pod_claims};
use crate::failure::{During, Failure, unless_gone};
use crate::ownership::{controller_reference, is_controlled_by};
use crate::pods::node_name;

/// Names are at most 63 characters; five of them are random.
const BASE_MAX: usize = 57;

pub(super) async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(pod) = cx.pods.get(key).filter(|p| !p.is_deleting() && !is_done(p)) else { return Ok(Next::Wait) };
    let mut made = BTreeMap::new();
    for claim in pod_claims(&pod) {
        match ensure(cx, &pod, claim).await {
            Ok(None) => {}
            Ok(Some(name)) => drop(made.insert(claim.name.clone(), name)),
            Err(failure) => {
                let why = failure.api().map_or_else(|| failure.to_string(), ToString::to_string);
                let text = format!("PodResourceClaim {}: {why}", claim.name);
                cx.recorder.record(&*pod, EventType::Warning, "FailedResourceClaimCreation", text);
                return Err(failure);
            }
        }
    }
    if cx.pods.get(key).is_none() {
        cx.made.forget(&pod);
    }
    if !made.is_empty() {
        let statuses: Vec<_> = made.iter().map(|(name, claim)| serde_json::json!({"name": name, "resourceClaimName": claim})).collect();
        let patch = serde_json::json!({"metadata": {"uid": pod.uid()}, "status": {"resourceClaimStatuses": statuses}});
        let written = cx.client.patch_status::<Pod>(key, &Patch::Strategic(patch)).await;
        written.map(drop).during(|| format!("write the names of claims into the status of pod {key}"))?;
    }
    if !node_name(&pod).is_empty() {
        reserve(cx, &pod).await?;
    }
    Ok(Next::Wait)
}

/// The name of a claim that was made now.
async fn ensure(cx: &Context, pod: &Pod, wanted: &PodResourceClaim) -> Result<Option<String>, Failure> {
    let Some(template_name) = &wanted.resource_claim_template_name else { return Ok(None) };
    if let Some(name) = claim_name(pod, wanted)
        && (name.is_empty() || is_there(cx, pod, &name).await?)
    {
        cx.made.told(pod, &wanted.name);
        return Ok(None);
    }
    if let Some(name) = cx.made.get(pod, &wanted.name)
        && is_there(cx, pod, &name).await?
    {
        return Ok(Some(name));
    }
    // It may have been made, and its name not been written yet.
    let is_ours = |c: &ResourceClaim| is_controlled_by(c, pod) && c.annotation(CLAIM_OF_POD) == Some(&wanted.name);
    if let Some(found) = cx.claims.list_namespace(pod.namespace()).into_iter().find(|c| is_ours(c)) {
        return Ok(Some(found.name().to_owned()));
    }
    let template = cx.templates.get(&ObjectKey::new(pod.namespace(), template_name.clone()));
    let missing = || {
        let text = format!("resource claim template {template_name:?}: resourceclaimtemplate.resource.k8s.io {template_name:?} not found");
        Failure::Stale(text)
    };
    let template = template.ok_or_else(missing)?;
    let spec = template.spec.clone().unwrap_or_default();
    let meta = spec.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(CLAIM_OF_POD.to_owned(), wanted.name.clone());
    let claim = ResourceClaim {
        metadata: ObjectMeta {
            namespace: Some(pod.namespace().to_owned()),
            generate_name: Some(base_name(pod.name(), &wanted.name)),
            owner_references: Some(vec![controller_reference(pod)]),
            annotations: Some(annotations),
            labels: meta.labels,
            ..Default::default()
        },
        spec: spec.spec,
        status: None,
    };
    let made = cx.client.create(&claim).await.during(|| format!("create a ResourceClaim for pod {}", pod.key()))?;
    cx.made.add(pod, &wanted.name, made.name());
    Ok(Some(made.name().to_owned()))
}

/// Whether the pod has the claim of this name: as the cache has it, or, where that may be behind, the server.
async fn is_there(cx: &Context, pod: &Pod, name: &str) -> Result<bool, Failure> {
    let key = ObjectKey::new(pod.namespace(), name);
    if let Some(claim) = cx.claims.get(&key) {
        return Ok(is_controlled_by(&*claim, pod));
    }
    let found = unless_gone(cx.client.get::<ResourceClaim>(&key).await).during(|| format!("look for ResourceClaim {key}"))?;
    Ok(found.is_some_and(|claim| is_controlled_by(&claim, pod)))
}

/// Both names, shortened alike where they are too long together.
fn base_name(pod: &str, claim: &str) -> String {
    let full = format!("{pod}-{claim}-");
    match full.len() {
        length if length > BASE_MAX => format!("{}-{}", &pod[..pod.len() * BASE_MAX / length], &claim[..claim.len() * BASE_MAX / length]),
        _ => full,
    }
}

/// For a pod that was bound without a scheduler.
async fn reserve(cx: &Context, pod: &Pod) -> Result<(), Failure> {
    for wanted in pod_claims(pod) {
        let Some(name) = claim_name(pod, wanted).filter(|n| !n.is_empty()) else { continue };
        let Some(claim) = cx.claims.get(&ObjectKey::new(pod.namespace(), name)) else { continue };
        let Some(status) = claim.status.as_ref().filter(|s| s.allocation.is_some()) else { continue };
        let consumers = status.reserved_for.as_deref().unwrap_or_default();
        if consumers.iter().any(|c| c.uid == pod.uid()) || consumers.len() >= 256 {
            continue;
        }
        let mut update = (*claim).clone();
        update.status.get_or_insert_default().reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".to_owned(),
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
        });
        cx.client
            .update_status(&update)
            .await
            .map(drop)
            .during(|| format!("reserve ResourceClaim {} for pod {}", claim.key(), pod.key()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_shortened_alike() {
        assert_eq!(base_name("pod", "gpu"), "pod-gpu-");
        let name = base_name(&"p".repeat(100), &"c".repeat(50));
        assert_eq!(name, format!("{}-{}", "p".repeat(37), "c".repeat(18)));
    }
}
