use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::fake;

fn of<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn wanted(name: &str, mode: &str) -> Wanted {
    let volume = of(json!({"metadata": {"name": name}, "spec": {"accessModes": [mode], "csi": {"driver": "d", "volumeHandle": name}}}));
    Wanted { volume: Arc::new(volume), driver: "d".into(), handle: name.into(), pods: Vec::new() }
}

fn attachment(volume: &str, node: &str, attached: bool) -> Arc<VolumeAttachment> {
    let name = wanted(volume, "ReadWriteOnce").attachment_name(node);
    let spec = json!({"attacher": "d", "nodeName": node, "source": {"persistentVolumeName": volume}});
    Arc::new(of(json!({"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"attached": attached}})))
}

fn node(in_use: &[&str], ready: &str, taint: bool) -> Node {
    let names: Vec<_> = in_use.iter().map(|name| format!("kubernetes.io/csi/d^{name}")).collect();
    let taints = if taint { json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]) } else { json!([]) };
    let conditions = json!([{"type": "Ready", "status": ready}]);
    of(json!({"metadata": {"name": "n"}, "spec": {"taints": taints}, "status": {"volumesInUse": names, "conditions": conditions}}))
}

#[track_caller]
fn check(node: Option<&Node>, want: &[Wanted], here: &[Arc<VolumeAttachment>], there: &[Arc<VolumeAttachment>], waited: u64, expect: &str) {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let since = now - Duration::from_secs(waited);
    let view = plan::View {
        node,
        wanted: want,
        attached: here,
        elsewhere: &|volume| there.iter().filter(|a| a.spec.source.persistent_volume_name.as_deref() == Some(volume)).cloned().collect(),
        unwanted_since: &|_| since,
        handle_of: &|volume| Some(format!("kubernetes.io/csi/d^{volume}")),
        now,
    };
    let plan = plan::plan(&view);
    let volume = |a: &VolumeAttachment| a.spec.source.persistent_volume_name.clone().unwrap();
    let mut shown: Vec<String> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::Attach(i) => format!("attach {}", want[*i].volume.name()),
            Step::Refused(i, _) => format!("refused {}", want[*i].volume.name()),
            Step::Failed(i, why) => format!("failed {} ({why})", want[*i].volume.name()),
            Step::Detach(a) => format!("detach {}", volume(a)),
            Step::Keep(_) => "keep".to_owned(),
            Step::LookAgain(after) => format!("again {}", after.as_secs()),
        })
        .collect();
    shown.extend(plan.reported.iter().map(|name| format!("has {}", name.trim_start_matches("kubernetes.io/csi/d^"))));
    assert_eq!(shown.join(", "), expect);
}

#[test]
fn what_pods_need_is_attached_once() {
    let node = node(&[], "True", false);
    check(Some(&node), &[wanted("a", "ReadWriteOnce")], &[], &[], 0, "attach a");
    check(Some(&node), &[wanted("a", "ReadWriteOnce")], &[attachment("a", "n", false)], &[], 0, "keep");
    check(Some(&node), &[wanted("a", "ReadWriteOnce")], &[attachment("a", "n", true)], &[], 0, "keep, has a");
    check(Some(&node), &[wanted("a", "ReadWriteOnce")], &[], &[attachment("a", "m", true)], 0, "refused a");
    check(Some(&node), &[wanted("a", "ReadWriteMany")], &[], &[attachment("a", "m", true)], 0, "attach a");
}

#[test]
fn what_nobody_needs_is_detached_when_it_is_unmounted() {
    let here = [attachment("a", "n", true)];
    check(Some(&node(&[], "True", false)), &[], &here, &[], 0, "detach a");
    check(Some(&node(&["a"], "True", false)), &[], &here, &[], 60, "again 300, has a");
    // A living kubelet is waited for; a dead one only so long; a machine that is known to be off not at all.
    check(Some(&node(&["a"], "True", false)), &[], &here, &[], 400, "again 360, has a");
    check(Some(&node(&["a"], "Unknown", false)), &[], &here, &[], 60, "again 300, has a");
    check(Some(&node(&["a"], "Unknown", false)), &[], &here, &[], 400, "detach a");
    check(Some(&node(&["a"], "Unknown", true)), &[], &here, &[], 0, "detach a");
    check(None, &[], &here, &[], 0, "detach a");
}

#[test]
fn an_attachment_has_the_name_that_upstream_gives_it() {
    let name = wanted("handle", "ReadWriteOnce").attachment_name("node");
    // sha256 of handle, driver and node, one behind the other
    assert_eq!(name, "csi-e25e6561832d14cd5981473233a8b700af4ba1e592085079c911f6544dafdfbc");
}

async fn context(attachments: &[Value]) -> Context {
    let client = fake::client(&[("volumeattachments", attachments)]);
    let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
    let cx = Context {
        recorder: EventRecorder::new(&client, NAME, None, clock.clone()),
        clock,
        nodes: fake::informer(&client).await,
        pods: fake::informer(&client).await,
        claims: fake::informer(&client).await,
        volumes: fake::informer(&client).await,
        drivers: fake::informer(&client).await,
        attachments: fake::informer(&client).await,
        client,
        waiting: Mutex::default(),
        unwanted_since: Mutex::default(),
    };
    add_indices(&cx);
    cx
}

#[tokio::test]
async fn neither_nodes_nor_attachments_that_have_gone_are_remembered() {
    let there = json!({"metadata": {"name": "there", "uid": "1", "resourceVersion": "1"},
        "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    let cx = context(std::slice::from_ref(&there)).await;
    let known = || cx.unwanted_since.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    // Asked for by one who has looked it up before it went.
    cx.unwanted_since("gone");
    assert!(known().is_empty());
    cx.unwanted_since("there");
    assert_eq!(known(), ["there"]);
    // Who waits for a volume is told when it goes, and waits no longer.
    let waits = ObjectKey::cluster("waits");
    cx.waiting.lock().unwrap().insert(waits.clone());
    assert_eq!(on_attachment(&cx, &Event::Deleted(Arc::new(of(there)))), [ObjectKey::cluster("n"), waits.clone()]);
    assert!(known().is_empty());
    assert_eq!(reconcile(&cx, &waits).await.unwrap(), Next::Wait);
    assert!(cx.waiting.lock().unwrap().is_empty());
}
