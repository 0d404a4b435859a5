//! How many pods the owners of a budget's pods ask for. Models getExpectedScale and the finders of disruption.go.
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::Deployment;
use client::k8s_openapi::api::autoscaling::v1::Scale;
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, OwnerReference};
use client::{ApiResource, Informer, Kind, Named, ObjectKey, controller_of};

use super::Context;
use crate::failure::{During, Failure};

#[derive(Default)]
pub(super) struct Expected {
    pub pods: i32,
    /// Pods without an owner, which asks for no number of them.
    pub has_unmanaged: bool,
}

/// Who asks for pods, and for how many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub uid: String,
    pub replicas: i32,
}

pub(super) async fn expected(cx: &Context, pods: &[Arc<Pod>]) -> Result<Expected, Failure> {
    let (mut scales, mut seen) = (BTreeMap::new(), HashSet::new());
    let mut has_unmanaged = false;
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else {
            has_unmanaged = true;
            continue;
        };
        if !seen.insert(owner.uid.clone()) {
            continue;
        }
        let found = match of_known_kind(cx, pod.namespace(), owner) {
            Some(found) => Some(found),
            None => of_subresource(cx, pod.namespace(), owner).await?,
        };
        let found = found.ok_or_else(|| Failure::Stale(format!("found no controllers for pod {:?}", pod.name())))?;
        scales.insert(found.uid, found.replicas);
    }
    Ok(Expected { pods: scales.values().fold(0, |sum: i32, n| sum.saturating_add(*n)), has_unmanaged })
}

fn is_of(owner: &OwnerReference, kind: &str, groups: &[&str]) -> bool {
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    owner.kind == kind && groups.contains(&group)
}

fn resolve<K: Kind>(informer: &Informer<K>, namespace: &str, owner: &OwnerReference) -> Option<Arc<K>> {
    informer.get(&ObjectKey::new(namespace, owner.name.clone())).filter(|o| o.uid() == owner.uid)
}

/// The owner where the informers know it; of a Deployment's ReplicaSet that is the Deployment.
fn of_known_kind(cx: &Context, namespace: &str, owner: &OwnerReference) -> Option<Found> {
    let found = |uid: &str, replicas: Option<i32>| Some(Found { uid: uid.to_owned(), replicas: replicas.unwrap_or(1) });
    if is_of(owner, "ReplicationController", &[""]) {
        let rc = resolve(&cx.controllers, namespace, owner)?;
        return found(rc.uid(), rc.spec.as_ref().and_then(|s| s.replicas));
    }
    if is_of(owner, "StatefulSet", &["apps"]) {
        let set = resolve(&cx.stateful_sets, namespace, owner)?;
        return found(set.uid(), set.spec.replicas);
    }
    if !is_of(owner, "ReplicaSet", &["apps", "extensions"]) {
        return None;
    }
    let rs = resolve(&cx.replica_sets, namespace, owner)?;
    match controller_of(&rs.metadata).filter(|c| c.kind == "Deployment") {
        None => found(rs.uid(), rs.spec.replicas),
        Some(above) if !is_of(above, "Deployment", &["apps", "extensions"]) => None,
        Some(above) => {
            let deployment: Arc<Deployment> = resolve(&cx.deployments, namespace, above)?;
            found(deployment.uid(), deployment.spec.replicas)
        }
    }
}

/// Anything that has the subresource `scale`.
async fn of_subresource(cx: &Context, namespace: &str, owner: &OwnerReference) -> Result<Option<Found>, Failure> {
    let (group, version) = owner.api_version.rsplit_once('/').unwrap_or(("", &owner.api_version));
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let list: APIResourceList =
        cx.client.get_path(&root).await.during(|| format!("read what {} serves", owner.api_version))?;
    let Some(served) = list.resources.iter().find(|r| r.kind == owner.kind && !r.name.contains('/')) else {
        return Err(Failure::Unusable(format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version)));
    };
    let subresource = format!("{}/scale", served.name);
    if !list.resources.iter().any(|r| r.name == subresource && r.kind == "Scale") {
        let name = if group.is_empty() { served.name.clone() } else { format!("{}.{group}", served.name) };
        return Err(Failure::Unusable(format!("{name} does not implement the scale subresource")));
    }
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: owner.kind.clone(),
        plural: served.name.clone(),
        namespaced: served.namespaced,
    };
    let path = resource.object_path(&ObjectKey::new(namespace, owner.name.clone())) + "/scale";
    match cx.client.get_path::<Scale>(&path).await {
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error).during(|| format!("read {path}")),
        Ok(scale) => Ok((scale.uid() == owner.uid).then(|| Found {
            uid: owner.uid.clone(),
            replicas: scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0),
        })),
    }
}
