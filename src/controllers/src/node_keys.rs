//! Which key a node's name belongs to: first come, first served, until the Node is deleted.
//!
//! Upstream signs every node name for every holder of a bootstrap token, so that a stolen token becomes any node. Here the first
//! approval of a name writes the key's fingerprint into ConfigMap `kube-system/NAME.node-key`; the API server refuses certificates
//! of that node with another key (`apiserver/src/auth/node_keys.rs`), and a later request for the name, but by the node itself, is
//! denied. Deleting the Node frees the name: this controller removes the record. A record whose Node never came is given up
//! after [`JOIN_WINDOW`].
//!
//! k3s has the same promise by a password that every agent keeps; a key's fingerprint needs no second secret.
//! Reads Node, ConfigMaps with the label. Deletes ConfigMaps. Wakes on records and on Nodes that go.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{ConfigMap, Node};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, Clock, Controller, DeleteOptions, Event, Informer, Named, Next, ObjectKey};
use jiff::{SignedDuration, Timestamp};

use crate::context::ControllerContext;
use crate::csr;
use crate::failure::{During, Failure, unless_gone};

/// The reason of the denial, for `rk agent join` to read.
pub(crate) const TAKEN: &str = "NodeNameTaken";

/// How long a name is held for a machine that has its certificate and has not registered its Node.
const JOIN_WINDOW: SignedDuration = SignedDuration::from_mins(10);

const NAMESPACE: &str = "kube-system";
const SUFFIX: &str = ".node-key";
const LABEL: &str = "rk.dev/node-key";
const POISON: &str = "nothing panics while it holds the map";

/// Who asks for a node's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The node, with the certificate it has.
    Itself,
    /// Somebody with a bootstrap token.
    Invited,
}

impl Asker {
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Itself => "selfnodeclient",
            Self::Invited => "nodeclient",
        }
    }

    pub fn message(self) -> &'static str {
        match self {
            Self::Itself => "Auto approving self kubelet client certificate after SubjectAccessReview.",
            Self::Invited => "Auto approving kubelet client certificate after SubjectAccessReview.",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Granted,
    /// With the denial's message.
    Taken(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    key: String,
    /// Good until the next renewal: the certificate that asked for this one is still in use.
    previous: Option<String>,
    since: Timestamp,
}

impl Record {
    fn read(map: &ConfigMap) -> Option<Self> {
        let entry = |name: &str| map.data.as_ref()?.get(name).cloned();
        Some(Self { key: entry("key")?, previous: entry("previous-key"), since: entry("since")?.parse().ok()? })
    }

    fn write(&self, node: &str, existing: Option<ConfigMap>) -> ConfigMap {
        let mut map = existing.unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(NAMESPACE.to_owned()),
                name: Some(format!("{node}{SUFFIX}")),
                labels: Some(BTreeMap::from([(LABEL.to_owned(), "true".to_owned())])),
                ..Default::default()
            },
            ..Default::default()
        });
        let entries = [("key", Some(self.key.clone())), ("previous-key", self.previous.clone()), ("since", Some(self.since.to_string()))];
        map.data = Some(entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect());
        map
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// The key has the name.
    Keep,
    /// The key gets the name.
    Write(Record),
    Refuse(String),
}

/// Decides who has the name from now on.
fn plan(node: &str, key: &str, asker: Asker, record: Option<&Record>, node_exists: bool, now: Timestamp) -> Plan {
    if record.is_some_and(|record| record.key == key) {
        return Plan::Keep;
    }
    match (asker, record) {
        // Its present key is not known here, and a record that lacks it would lock the node out in the middle of its renewal.
        (Asker::Itself, None) => Plan::Keep,
        (Asker::Itself, Some(record)) => {
            Plan::Write(Record { key: key.to_owned(), previous: Some(record.key.clone()), since: record.since })
        }
        (Asker::Invited, _) if node_exists => Plan::Refuse(format!(
            "node name taken: node {node:?} exists and belongs to another machine. If that machine is gone, run `kubectl delete node {node}` \
             and join again; otherwise choose another name"
        )),
        (Asker::Invited, Some(record)) if record.since.saturating_add(JOIN_WINDOW).is_ok_and(|end| now < end) => Plan::Refuse(format!(
            "node name taken: another machine is joining as {node:?}. If that is wrong, run `kubectl -n {NAMESPACE} delete configmap \
             {node}{SUFFIX}` and join again; otherwise choose another name"
        )),
        (Asker::Invited, _) => Plan::Write(Record { key: key.to_owned(), previous: None, since: now }),
    }
}

/// Gives the name of `node` to `key`, or says why not. Reads the server itself: what a cache does not know yet decides here.
pub(crate) async fn claim(client: &Client, node: &str, key: &str, asker: Asker, now: Timestamp) -> Result<Claim, Failure> {
    let node_exists = unless_gone(client.get::<Node>(&ObjectKey::cluster(node)).await).during(|| format!("look for node {node}"))?.is_some();
    let map_key = ObjectKey::new(NAMESPACE, format!("{node}{SUFFIX}"));
    let map = unless_gone(client.get::<ConfigMap>(&map_key).await).during(|| format!("read {map_key}"))?;
    let record = map.as_ref().and_then(Record::read);
    let record = match plan(node, key, asker, record.as_ref(), node_exists, now) {
        Plan::Keep => return Ok(Claim::Granted),
        Plan::Refuse(why) => return Ok(Claim::Taken(why)),
        Plan::Write(record) => record,
    };
    // Conditional both ways: of two who ask at once, one finds the other's record at the second try.
    let result = match map {
        Some(map) => client.update(&record.write(node, Some(map))).await,
        None => client.create(&record.write(node, None)).await,
    };
    match result {
        Err(error) if error.is_already_exists() || error.is_conflict() => Err(Failure::Stale(format!("the name {node} was given meanwhile"))),
        result => result.during(|| format!("write {map_key}")).map(|_| Claim::Granted),
    }
}

struct Context {
    client: Client,
    clock: Clock,
    nodes: Informer<Node>,
    records: Informer<ConfigMap>,
    /// Nodes that were deleted, and when that was seen.
    deleted: Mutex<HashMap<String, Timestamp>>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let records = Informer::builder(cx.informers.client()).namespace(NAMESPACE).labels(format!("{LABEL}=true")).start();
    let context = Context {
        client: cx.client(csr::IDENTITY),
        clock: cx.clock,
        nodes: cx.informers.get(),
        records: records.clone(),
        deleted: Mutex::default(),
    };
    let nodes = context.nodes.clone();
    Controller::new("node-keys-controller", Arc::new(context))
        .watches(&nodes, |cx: &Context, event: &Event<Node>| {
            let name = event.object().name().to_owned();
            let mut deleted = cx.deleted.lock().expect(POISON);
            match event {
                Event::Deleted(_) => {
                    deleted.insert(name.clone(), cx.clock.now());
                    vec![record_key(&name)]
                }
                _ => {
                    deleted.remove(&name);
                    Vec::new()
                }
            }
        })
        .reconciles(&records)
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

fn record_key(node: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, format!("{node}{SUFFIX}"))
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(node) = key.name.strip_suffix(SUFFIX) else { return Ok(Next::Wait) };
    let Some(map) = cx.records.get(key) else {
        cx.deleted.lock().expect(POISON).remove(node);
        return Ok(Next::Wait);
    };
    if cx.nodes.get(&ObjectKey::cluster(node)).is_some() {
        return Ok(Next::Wait);
    }
    let deleted_at = cx.deleted.lock().expect(POISON).get(node).copied();
    let since = Record::read(&map).map(|record| record.since);
    let now = cx.clock.now();
    if let Some(wait) = held_for(since, deleted_at, now) {
        return Ok(Next::After(wait));
    }
    let options = DeleteOptions { uid: Some(map.uid().to_owned()), resource_version: Some(map.resource_version().to_owned()), ..Default::default() };
    unless_gone(cx.client.delete::<ConfigMap>(key, &options).await).during(|| format!("free the name of node {node}"))?;
    Ok(Next::Wait)
}

/// How long a record without a Node stays; `None`: no longer.
fn held_for(since: Option<Timestamp>, deleted_at: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let since = since?;
    if deleted_at.is_some_and(|deleted| since <= deleted) {
        return None;
    }
    let end = since.saturating_add(JOIN_WINDOW).unwrap_or(Timestamp::MAX);
    Duration::try_from(end.duration_since(now)).ok().filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn record(key: &str, previous: Option<&str>, since: i64) -> Record {
        Record { key: key.into(), previous: previous.map(Into::into), since: at(since) }
    }

    #[test]
    fn a_name_belongs_to_the_first_key_until_the_node_is_deleted() {
        use Asker::{Invited, Itself};
        let taken = |plan| matches!(plan, Plan::Refuse(why) if why.starts_with("node name taken: ") && why.contains("kubectl"));
        let held = record("old", None, 0);
        let of = |asker, record, exists, now| plan("a", "new", asker, record, exists, at(now));
        assert_eq!(of(Invited, None, false, 0), Plan::Write(record("new", None, 0)));
        assert!(taken(of(Invited, None, true, 0)), "a node of unknown key");
        assert!(taken(of(Invited, Some(&held), true, 100_000)));
        assert!(taken(of(Invited, Some(&held), false, 599)), "somebody is joining");
        assert_eq!(of(Invited, Some(&held), false, 600), Plan::Write(record("new", None, 600)));
        assert_eq!(of(Itself, Some(&held), true, 700), Plan::Write(record("new", Some("old"), 0)));
        assert_eq!(of(Itself, None, true, 0), Plan::Keep);
        // The same machine asks again: its answer was lost, or its certificate ran out.
        let renewed = record("new", Some("old"), 0);
        for asker in [Invited, Itself] {
            assert_eq!(of(asker, Some(&renewed), true, 0), Plan::Keep);
        }
        assert!(taken(plan("a", "old", Invited, Some(&renewed), true, at(0))), "a key that was given up");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for wanted in [record("k", None, 5), record("k", Some("p"), 5)] {
            let map = wanted.write("a", None);
            assert_eq!(map.name(), "a.node-key");
            assert_eq!(Record::read(&map), Some(wanted));
        }
        assert_eq!(Record::read(&ConfigMap::default()), None);
    }

    #[test]
    fn a_record_goes_with_its_node_but_not_with_the_node_before_it() {
        assert_eq!(held_for(Some(at(0)), None, at(100)), Some(Duration::from_secs(500)));
        assert_eq!(held_for(Some(at(0)), None, at(600)), None);
        assert_eq!(held_for(Some(at(0)), Some(at(10)), at(11)), None);
        assert_eq!(held_for(Some(at(20)), Some(at(10)), at(21)), Some(Duration::from_secs(599)));
        assert_eq!(held_for(None, None, at(0)), None);
    }
}
