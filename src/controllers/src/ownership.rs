//! Who controls what: adoption of orphans that match a selector, release of what no longer matches.
//!
//! Models pkg/controller/controller_ref_manager.go, v1.37. Ownership is by uid. Before the first adoption the owner is read
//! from the server itself, since a cache may still show an owner that has been deleted and made again.
use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::LabelSelector;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, OwnerReference};
use client::{Client, Kind, Named, ObjectKey, Patch, controller_of};
use serde_json::json;

use crate::failure::{During, Failure};

/// The reference by which `owner` controls an object, as metav1.NewControllerRef.
pub(crate) fn controller_reference<O: Kind>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::API_VERSION.to_owned(),
        kind: O::KIND.to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) fn is_controlled_by<K: Named, O: Named>(object: &K, owner: &O) -> bool {
    controller_of(object.meta()).is_some_and(|c| c.uid == owner.uid())
}

/// The key of the `O` that controls `object`.
pub(crate) fn owner_key<K: Kind, O: Kind>(object: &K) -> Option<ObjectKey> {
    let owner = controller_of(object.meta())?;
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    (owner.kind == O::KIND && group == O::GROUP).then(|| ObjectKey::new(object.namespace(), owner.name.clone()))
}

pub(crate) fn selector_of(selector: &meta::LabelSelector) -> Result<LabelSelector, Failure> {
    LabelSelector::from_typed(Some(selector)).map_err(|e| Failure::Unusable(format!("invalid label selector: {e}")))
}

/// Whether a selector was given and takes these labels. An empty one takes nothing here: upstream's listers skip it too.
pub(crate) fn selects(selector: &meta::LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    LabelSelector::from_typed(Some(selector)).is_ok_and(|s| !s.is_empty() && s.matches_map(labels))
}

/// What is to be done about one candidate.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    Keep,
    Adopt,
    Release,
    Ignore,
}

fn decide<K: Named, O: Named>(object: &K, owner: &O, matches: bool) -> Claim {
    match controller_of(object.meta()) {
        Some(controller) if controller.uid != owner.uid() => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner.is_deleting() => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner.is_deleting() || !matches || object.is_deleting() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Of the candidates those that `owner` controls, after adopting and releasing what has to be.
pub(crate) async fn claim<K: Kind, O: Kind>(
    client: &Client,
    owner: &O,
    selector: &LabelSelector,
    candidates: Vec<Arc<K>>,
) -> Result<Vec<Arc<K>>, Failure> {
    claim_with(client, owner, selector, candidates, &[]).await
}

/// As [`claim`]; what is adopted gets `finalizers`, and what is released loses them.
pub(crate) async fn claim_with<K: Kind, O: Kind>(
    client: &Client,
    owner: &O,
    selector: &LabelSelector,
    candidates: Vec<Arc<K>>,
    finalizers: &[&str],
) -> Result<Vec<Arc<K>>, Failure> {
    claim_if(client, owner, |o: &K| selector.matches_map(o.meta().labels.as_ref()), candidates, finalizers).await
}

/// As [`claim_with`], for owners that look at more than labels.
pub(crate) async fn claim_if<K: Kind, O: Kind>(
    client: &Client,
    owner: &O,
    matches: impl Fn(&K) -> bool,
    candidates: Vec<Arc<K>>,
    finalizers: &[&str],
) -> Result<Vec<Arc<K>>, Failure> {
    let mut claimed = Vec::with_capacity(candidates.len());
    let mut checked = false;
    let mut first_failure = None;
    for object in candidates {
        let result = match decide(&*object, owner, matches(&object)) {
            Claim::Keep => Ok(true),
            Claim::Ignore => Ok(false),
            Claim::Release => release(client, owner, &*object, finalizers).await.map(|()| false),
            Claim::Adopt => {
                if !checked {
                    recheck(client, owner).await?;
                    checked = true;
                }
                adopt(client, owner, &*object, finalizers).await
            }
        };
        match result {
            Ok(true) => claimed.push(object),
            Ok(false) => {}
            Err(failure) => first_failure = first_failure.or(Some(failure)),
        }
    }
    first_failure.map_or(Ok(claimed), Err)
}

/// The uncached read before an adoption.
async fn recheck<O: Kind>(client: &Client, owner: &O) -> Result<(), Failure> {
    let key = ObjectKey::of(owner);
    let fresh: O = client.get(&key).await.during(|| format!("check {} {key} before adopting", O::KIND))?;
    if fresh.uid() != owner.uid() {
        let (got, wanted) = (fresh.uid(), owner.uid());
        return Err(Failure::Stale(format!("original {} {key} is gone: got uid {got}, wanted {wanted}", O::KIND)));
    }
    match fresh.is_deleting() {
        true => Err(Failure::Stale(format!("{key} has just been deleted"))),
        false => Ok(()),
    }
}

async fn adopt<K: Kind, O: Kind>(client: &Client, owner: &O, object: &K, finalizers: &[&str]) -> Result<bool, Failure> {
    // The uid is a precondition: the patch of another object of the same name is refused.
    let mut patch = json!({"metadata": {"ownerReferences": [controller_reference(owner)], "uid": object.uid()}});
    if !finalizers.is_empty() {
        patch["metadata"]["finalizers"] = json!(finalizers);
    }
    let key = ObjectKey::of(object);
    match client.patch::<K>(&key, &Patch::Strategic(patch)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        result => result.map(|_| true).during(|| format!("adopt {} {key}", K::KIND)),
    }
}

async fn release<K: Kind, O: Kind>(client: &Client, owner: &O, object: &K, finalizers: &[&str]) -> Result<(), Failure> {
    let mut patch = json!({"metadata": {"uid": object.uid(),
        "ownerReferences": [{"$patch": "delete", "uid": owner.uid()}]}});
    if !finalizers.is_empty() {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    let key = ObjectKey::of(object);
    match client.patch::<K>(&key, &Patch::Strategic(patch)).await {
        // Invalid: the object has no such reference (any more), or is another one by now.
        Err(error) if error.is_not_found() || error.is_invalid() => Ok(()),
        result => result.map(|_| ()).during(|| format!("release {} {key}", K::KIND)),
    }
}

#[cfg(test)]
mod tests {
    use client::k8s_openapi::api::apps::v1::ReplicaSet;
    use client::k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn check(owner_deleting: bool, pod_owner: Option<&str>, pod_deleting: bool, matches: bool, expect: Claim) {
        let deleted = |yes: bool| yes.then(|| meta::Time(jiff::Timestamp::UNIX_EPOCH));
        let mut owner = ReplicaSet::default();
        owner.metadata.uid = Some("me".to_owned());
        owner.metadata.deletion_timestamp = deleted(owner_deleting);
        let mut pod = Pod::default();
        pod.metadata.deletion_timestamp = deleted(pod_deleting);
        pod.metadata.owner_references = pod_owner.map(|uid| {
            vec![OwnerReference { uid: uid.to_owned(), controller: Some(true), ..Default::default() }]
        });
        assert_eq!(decide(&pod, &owner, matches), expect);
    }

    #[test]
    fn claims_follow_the_table_of_the_controller_ref_manager() {
        check(false, Some("me"), false, true, Claim::Keep);
        check(true, Some("me"), false, true, Claim::Keep);
        check(false, Some("me"), false, false, Claim::Release);
        check(true, Some("me"), false, false, Claim::Ignore);
        check(false, Some("other"), false, true, Claim::Ignore);
        check(false, None, false, true, Claim::Adopt);
        check(false, None, true, true, Claim::Ignore);
        check(true, None, false, true, Claim::Ignore);
        check(false, None, false, false, Claim::Ignore);
    }
}
