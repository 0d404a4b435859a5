use serde_json::json;

use super::*;

fn resource() -> Arc<ApiResource> {
    Arc::new(ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        kind: "Thing".to_owned(),
        plural: "things".to_owned(),
        namespaced: true,
    })
}

/// An object with this name and uid; owners ending in `!` are blocked by it; `deleting` is the finalizer of its deletion.
fn object(name: &str, owners: &[&str], deleting: Option<&str>) -> PartialObject {
    let owners: Vec<_> = owners
        .iter()
        .map(|o| {
            let uid = o.trim_end_matches('!');
            json!({"apiVersion": "v1", "kind": "Thing", "name": uid, "uid": uid, "blockOwnerDeletion": uid != *o})
        })
        .collect();
    serde_json::from_value(json!({"metadata": {"namespace": "a", "name": name, "uid": name, "ownerReferences": owners,
        "deletionTimestamp": deleting.map(|_| "2026-01-01T00:00:00Z"), "finalizers": deleting.map(|f| vec![f])}}))
    .unwrap()
}

fn graph(objects: &[PartialObject]) -> Graph {
    let mut graph = Graph::default();
    for object in objects {
        graph.put(&resource(), object);
    }
    graph
}

fn texts(uids: Vec<Arc<str>>) -> Vec<String> {
    uids.iter().map(|uid| uid.to_string()).collect()
}

#[test]
fn an_object_is_looked_at_when_an_owner_is_missing_and_again_when_it_goes() {
    let mut graph = graph(&[]);
    assert_eq!(texts(graph.put(&resource(), &object("pod", &["rs"], None))), ["pod"]);
    assert!(graph.put(&resource(), &object("rs", &[], None)).is_empty());
    assert!(graph.put(&resource(), &object("pod", &["rs"], None)).is_empty());
    assert!(graph.look("pod").unwrap().2);
    assert_eq!(texts(graph.remove("rs")), ["pod"]);
    assert!(!graph.look("pod").unwrap().2);
}

#[test]
fn deletion_in_the_foreground_wakes_dependents_first_and_the_owner_after_each_end() {
    let mut graph = graph(&[object("rs", &[], None), object("p1", &["rs!"], None), object("p2", &["rs"], None)]);
    let mut woken = texts(graph.put(&resource(), &object("rs", &[], Some(FOREGROUND))));
    woken.sort();
    assert_eq!(woken, ["p1", "p2", "rs"]);
    assert!(graph.put(&resource(), &object("rs", &[], Some(FOREGROUND))).is_empty());
    assert!(graph.dependents("rs").any(|d| d.blocks("rs")));
    assert_eq!(texts(graph.remove("p1")), ["rs"]);
    assert!(!graph.dependents("rs").any(|d| d.blocks("rs")));
}

#[test]
fn an_owner_is_woken_when_a_reference_stops_blocking_it() {
    let mut graph = graph(&[object("rs", &[], Some(FOREGROUND)), object("p", &["rs!"], None)]);
    assert!(texts(graph.put(&resource(), &object("p", &["rs"], None))).contains(&"rs".to_owned()));
    let mut graph = super::tests::graph(&[object("rs", &[], Some(FOREGROUND)), object("p", &["rs!"], None)]);
    assert_eq!(texts(graph.put(&resource(), &object("p", &[], None))), ["rs"]);
}

#[test]
fn orphaning_wakes_the_owner_alone() {
    let mut graph = graph(&[object("rs", &[], None), object("p", &["rs"], None)]);
    assert_eq!(texts(graph.put(&resource(), &object("rs", &[], Some(ORPHAN)))), ["rs"]);
}

#[test]
fn an_owner_in_another_namespace_is_not_in_reach() {
    let mut far = object("rs", &[], None);
    far.metadata.namespace = Some("b".to_owned());
    let mut graph = graph(&[far]);
    assert_eq!(texts(graph.put(&resource(), &object("p", &["rs"], None))), ["p"]);
}

#[track_caller]
fn check(finalizer: Option<&str>, solid: &[&str], gone: &[&str], waiting: &[&str], dependents: bool, expect: Action) {
    let mut latest = object("x", &[solid, gone, waiting].concat(), None);
    latest.metadata.finalizers = finalizer.map(|f| vec![f.to_owned()]);
    let refs = |names: &[&str]| object("x", names, None).metadata.owner_references.unwrap();
    let owners = Owners { solid: refs(solid), gone: refs(gone), waiting: refs(waiting) };
    assert_eq!(plan(&latest, &owners, dependents, false), expect);
}

#[test]
fn one_solid_owner_keeps_an_object_and_without_any_it_goes() {
    use client::Propagation::*;
    let delete = |propagation| Action::Delete { propagation, unblock: false };
    check(None, &[], &[], &[], false, Action::Nothing);
    check(None, &["a"], &[], &[], false, Action::Nothing);
    check(None, &["a"], &["b"], &["c"], false, Action::Detach(vec!["b".to_owned(), "c".to_owned()]));
    check(None, &[], &["b"], &[], true, delete(Background));
    check(None, &[], &["b"], &["c"], true, delete(Foreground));
    check(None, &[], &[], &["c"], false, delete(Background));
    check(Some(ORPHAN), &[], &["b"], &[], false, delete(Orphan));
    check(Some(FOREGROUND), &[], &["b"], &[], false, delete(Foreground));
}

#[test]
fn dependents_that_have_gone_leave_no_room_behind() {
    let names: Vec<String> = (0..5000).map(|i| i.to_string()).collect();
    let mut graph = graph(&names.iter().map(|name| object(name, &["owner", &format!("own-{name}")], None)).collect::<Vec<_>>());
    for name in &names {
        graph.remove(name);
    }
    assert_eq!(graph.tables(), (0, 0));
}
