//! What the cache makes of events that the tests of the whole server never see.
use api::tree::Tree;
use bytes::Bytes;
use store::{Durability, EventKind, Expect, Operation, Revision, Write};

use super::*;

#[tokio::test]
async fn an_object_deleted_in_a_history_that_is_lost_is_shown_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(store::sqlite::open(&folder.path().join("db"), store::sqlite::Options::default()).unwrap());
    let cache = Cache::start(&store).await.unwrap();
    let resource = Registry::get().resource("", "v1", "configmaps").unwrap();
    let (id, key) = (cache.kind(resource).unwrap(), key(resource, "default", "a"));
    let json =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{"l":"v"},"name":"a","namespace":"default"},"data":{"k":"v"}}"#;
    let operation = Operation::Put(json.as_bytes().into());
    let write = Write { key: key.clone(), operation, expect: Expect::Absent, durability: Durability::Synced };
    let created = store.write(write).await.unwrap().revision;
    let mut cursor = cache.watch(id, created.0).unwrap();

    let revision = Revision(created.0 + 5);
    let event = |key: &Arc<str>| Event {
        kind: EventKind::Delete,
        key: key.clone(),
        value: Bytes::new(),
        create_revision: created,
        revision,
        previous: None,
    };
    // As etcd's store says it; of the second, nothing was ever known.
    cache.feed(&[event(&key), event(&"/registry/core/configmaps/default/b".into())]);

    assert!(cache.get_key(id, &key).0.is_none());
    let (changes, at) = cursor.read(10).unwrap();
    assert_eq!((changes.len(), at), (1, revision.0));
    let object = &changes[0].object;
    assert!(changes[0].deleted && object.label("l") == Some("v") && object.revision == revision.0);
    assert_eq!(object.tree().at(&["metadata", "resourceVersion"]).and_then(Tree::as_str), Some(&*revision.to_string()));
    assert_eq!(object.tree().at(&["data", "k"]).and_then(Tree::as_str), Some("v"));
}

#[test]
fn a_namespace_holds_no_object_of_one_whose_name_begins_alike() {
    let resource = Registry::get().resource("", "v1", "configmaps").unwrap();
    let names = [("a", "x"), ("a", "y"), ("a-b", "x"), ("a.b", "x"), ("a0", "x"), ("ab", "x"), ("b", "x")];
    let object = |(namespace, name)| {
        let key = key(resource, namespace, name);
        (key.clone(), Arc::new(Cached::stored(resource, key, br#"{"metadata":{}}"#, 1, stored::Source::Own).unwrap()))
    };
    let snapshot = Snapshot { objects: names.into_iter().map(object).collect(), revision: 1 };
    let under = |namespace: &str, after: Option<&str>| -> Vec<String> {
        let after = after.map(|name| key(resource, namespace, name));
        let found = snapshot.under(&format!("{}{namespace}/", prefix(resource)), after.as_deref());
        found.map(|(_, object)| format!("{}/{}", object.namespace(), object.name())).collect()
    };
    assert_eq!(under("a", None), ["a/x", "a/y"]);
    assert_eq!(under("a", Some("x")), ["a/y"]);
    assert_eq!(under("a", Some("xx")), ["a/y"]);
    assert!(under("a", Some("y")).is_empty() && under("a", Some("z")).is_empty() && under("aa", None).is_empty() && under("c", None).is_empty());
    assert_eq!(snapshot.under(&prefix(resource), None).count(), names.len());
}
