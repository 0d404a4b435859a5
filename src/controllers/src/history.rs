//! Earlier states of a workload, kept as ControllerRevisions.
//!
//! Models pkg/controller/history/controller_history.go, v1.37. A revision's data is a patch that gives the workload its
//! template of that time.
use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::ControllerRevision;
use client::k8s_openapi::api::core::v1::PodTemplateSpec;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use client::{Client, DeleteOptions, Informer, Kind, Named, controller_of};
use serde_json::{Value, json};

use crate::failure::{During, Failure, unless_gone};
use crate::ownership::controller_reference;
use crate::template::safe_encode;

const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// By which the pods of DaemonSets and StatefulSets, and a DaemonSet's revisions, are told apart.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
const OWNER_INDEX: &str = "revision-owner";
/// Leaves room for the hash in a name of 253 bytes.
const PREFIX_BYTES_MAX: usize = 223;
const CONFLICT_TRIES: usize = 4;

pub(crate) fn index_by_owner(revisions: &Informer<ControllerRevision>) {
    revisions.add_index(OWNER_INDEX, |revision: &ControllerRevision| {
        let owner = controller_of(&revision.metadata).map(|c| c.uid.as_str()).unwrap_or_default();
        vec![format!("{}/{owner}", revision.namespace())]
    });
}

/// The revisions that `owner` controls, and the orphans of its namespace, which it might adopt.
pub(crate) fn owned_and_orphans(
    revisions: &Informer<ControllerRevision>,
    owner: &impl Named,
) -> Vec<Arc<ControllerRevision>> {
    let mut found = revisions.by_index(OWNER_INDEX, &format!("{}/{}", owner.namespace(), owner.uid()));
    found.extend(revisions.by_index(OWNER_INDEX, &format!("{}/", owner.namespace())));
    found
}

pub(crate) fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// Oldest first.
pub(crate) fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by(|a, b| {
        let key = |r: &ControllerRevision| (number(r), r.metadata.creation_timestamp.clone(), r.metadata.name.clone());
        key(a).cmp(&key(b))
    });
}

/// The patch that replaces a workload's template by this one.
pub(crate) fn patch_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("a template is plain JSON");
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision remembers.
pub(crate) fn template_of(revision: &ControllerRevision) -> Result<PodTemplateSpec, Failure> {
    let mut template = revision.data.0.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(template) = template.as_object_mut() {
        template.remove("$patch");
    }
    serde_json::from_value(template)
        .map_err(|e| Failure::Unusable(format!("ControllerRevision {} holds no template: {e}", revision.key())))
}

/// Whether a revision remembers this template. Compared as templates, so that a field written as empty equals none.
pub(crate) fn remembers(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    revision.data.0 == patch_of(template) || template_of(revision).is_ok_and(|t| t == *template)
}

pub(crate) fn name(owner: &str, hash: &str) -> String {
    let mut end = owner.len().min(PREFIX_BYTES_MAX);
    while !owner.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &owner[..end])
}

/// FNV-1 over the data and the collision count, in the safe alphabet.
pub(crate) fn hash(data: &Value, collision_count: i32) -> String {
    let text = format!("{data}{collision_count}");
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte));
    safe_encode(hash)
}

/// A revision of `owner` as it now is, named by its hash.
pub(crate) fn new_revision<O: Kind>(
    owner: &O,
    template: &PodTemplateSpec,
    revision: i64,
    collision_count: i32,
) -> ControllerRevision {
    let data = patch_of(template);
    let hash = hash(&data, collision_count);
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name(owner.name(), &hash)),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..Default::default()
        },
        data: RawExtension(data),
        revision: Some(revision),
    }
}

/// Creates the revision, under another name and with a higher collision count where its name is taken by another state.
pub(crate) async fn create(
    client: &Client,
    owner_name: &str,
    mut revision: ControllerRevision,
    collision_count: &mut i32,
) -> Result<ControllerRevision, Failure> {
    loop {
        revision.metadata.name = Some(name(owner_name, &hash(&revision.data.0, *collision_count)));
        let key = revision.key();
        match client.create(&revision).await {
            Err(error) if error.is_already_exists() => {
                let found: ControllerRevision =
                    client.get(&key).await.during(|| format!("read ControllerRevision {key}"))?;
                if found.data.0 == revision.data.0 {
                    return Ok(found);
                }
                *collision_count += 1;
            }
            result => return result.during(|| format!("create ControllerRevision {key}")),
        }
    }
}

/// Gives a revision a new number, which is what a roll-back does.
pub(crate) async fn renumber(
    client: &Client,
    revision: &ControllerRevision,
    number: i64,
) -> Result<ControllerRevision, Failure> {
    let (mut update, key) = (revision.clone(), revision.key());
    for _ in 1..CONFLICT_TRIES {
        if update.revision == Some(number) {
            return Ok(update);
        }
        update.revision = Some(number);
        match client.update(&update).await {
            Err(error) if error.is_conflict() => {
                update = client.get(&key).await.during(|| format!("read ControllerRevision {key} again"))?;
            }
            result => return result.during(|| format!("renumber ControllerRevision {key}")),
        }
    }
    Err(Failure::Stale(format!("ControllerRevision {key} keeps changing")))
}

pub(crate) async fn delete(client: &Client, revision: &ControllerRevision) -> Result<(), Failure> {
    let key = revision.key();
    let result = client.delete::<ControllerRevision>(&key, &DeleteOptions::uid(revision.uid())).await;
    unless_gone(result).during(|| format!("delete ControllerRevision {key}")).map(drop)
}

/// Of the revisions, oldest first, those beyond `limit` that nothing uses any more.
pub(crate) fn surplus(
    revisions: &[Arc<ControllerRevision>],
    is_live: impl Fn(&ControllerRevision) -> bool,
    limit: usize,
) -> Vec<Arc<ControllerRevision>> {
    let idle: Vec<_> = revisions.iter().filter(|r| !is_live(r)).cloned().collect();
    let excess = idle.len().saturating_sub(limit);
    idle.into_iter().take(excess).collect()
}

#[cfg(test)]
mod tests {
    use client::k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}}))
            .unwrap()
    }

    fn owner() -> StatefulSet {
        serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "default", "uid": "u"},
            "spec": {"selector": {}, "template": {}}}))
        .unwrap()
    }

    #[test]
    fn a_revision_remembers_its_template_and_no_other() {
        let revision = new_revision(&owner(), &template("a"), 3, 0);
        assert!(remembers(&revision, &template("a")) && !remembers(&revision, &template("b")));
        assert_eq!(template_of(&revision).unwrap(), template("a"));
        assert_eq!(number(&revision), 3);
        assert_eq!(revision.data.0["spec"]["template"]["$patch"], "replace");
        assert_eq!(revision.name(), format!("db-{}", revision.label(HASH_LABEL).unwrap()));
    }

    #[test]
    fn hashes_differ_by_data_and_collisions_and_names_stay_short() {
        let data = |image| patch_of(&template(image));
        assert_ne!(hash(&data("a"), 0), hash(&data("b"), 0));
        assert_ne!(hash(&data("a"), 0), hash(&data("a"), 1));
        assert_eq!(name(&"x".repeat(250), "abc").len(), 227);
    }

    #[test]
    fn the_oldest_unused_revisions_beyond_the_limit_are_surplus() {
        let mut all: Vec<_> = [3, 1, 4, 2].map(|n| Arc::new(new_revision(&owner(), &template(&n.to_string()), n, 0))).to_vec();
        sort(&mut all);
        let of = |limit| surplus(&all, |r| number(r) == 1, limit).iter().map(|r| number(r)).collect::<Vec<_>>();
        assert_eq!(of(1), [2, 3]);
        assert_eq!(of(3), [] as [i64; 0]);
    }
}
