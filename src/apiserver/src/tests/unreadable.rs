//! What a foreign hand has written into the store, and is none of its objects.
use store::{Durability, Expect, Operation, Write};

use super::*;

const KEY: &str = "/registry/core/configmaps/default/b";
const UNSAFE: &str = "ignoreStoreReadErrorWithClusterBreakingPotential=true";

async fn write(f: &Fixture, operation: Operation) -> u64 {
    let write = Write { key: KEY.into(), operation, expect: Expect::Any, durability: Durability::Synced };
    f.server.0.parts.store.write(write).await.unwrap().revision.0
}

#[tokio::test]
async fn it_is_named_where_it_is_missing_and_can_only_be_deleted_as_such() {
    let f = fixture().await;
    for name in ["a", "b", "c"] {
        f.post(MAPS, &config_map(name, "1")).await.ok();
    }
    let version = f.get(MAPS).await.ok().str_at(&["metadata", "resourceVersion"]).to_owned();
    let mut watch = f.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    let revision = write(&f, Operation::Put("k8s\0\n\x0f".into())).await;

    let why = format!(
        "StorageError: corrupt object, Code: 7, Key: {KEY}, ResourceVersion: 0, AdditionalErrorMsg: object not decodable \
         revision={revision}: it is stored as protobuf, and rk stores JSON"
    );
    let one = format!("Internal error occurred: {why}");
    f.get(&format!("{MAPS}/b")).await.failed(500, "InternalError", &one);
    f.put(&format!("{MAPS}/b"), &config_map("b", "2")).await.failed(500, "InternalError", &one);
    f.delete(&format!("{MAPS}/b")).await.failed(500, "InternalError", &one);
    let apply = f.send("PATCH", &format!("{MAPS}/b?fieldManager=m"), "application/apply-patch+yaml", &config_map("b", "2")).await;
    apply.failed(500, "InternalError", &one);
    f.post(MAPS, &config_map("b", "2")).await.failed(409, "AlreadyExists", "configmaps \"b\" already exists");
    let all = format!("failed to read one or more configmaps from the storage: {why}");
    let list = f.get("/api/v1/configmaps").await.failed(500, "StorageReadError", &all);
    assert_eq!(list.array_at(&["details", "causes"])[0].str_at(&["field"]), KEY);
    assert_eq!(f.delete(MAPS).await.code, 500);
    // Elsewhere nothing is known of it.
    f.get(&format!("{MAPS}/a")).await.ok();
    f.get("/api/v1/namespaces/kube-system/configmaps").await.ok();

    assert_eq!(f.delete(&format!("{MAPS}?{UNSAFE}")).await.code, 422);
    assert_eq!(f.delete(&format!("{MAPS}/b?{UNSAFE}&gracePeriodSeconds=0")).await.code, 422);
    let readable = f.delete(&format!("{MAPS}/a?{UNSAFE}")).await;
    assert_eq!(readable.code, 409, "{}", String::from_utf8_lossy(&readable.bytes));
    f.delete(&format!("{MAPS}/b?{UNSAFE}&dryRun=All")).await.ok();
    f.get(&format!("{MAPS}/b")).await.failed(500, "InternalError", &one);
    assert_eq!(f.delete(&format!("{MAPS}/b?{UNSAFE}")).await.ok().str_at(&["details", "name"]), "b");
    f.get(&format!("{MAPS}/b")).await.failed(404, "NotFound", "configmaps \"b\" not found");
    assert_eq!(f.get(MAPS).await.ok().array_at(&["items"]).len(), 2);
    // Who watches kept the object, and is told of its end.
    assert_eq!(watch.event().await, "DELETED b");
}

#[tokio::test]
async fn who_watches_is_told_once_it_can_be_read_again() {
    let f = fixture().await;
    f.post(MAPS, &config_map("b", "1")).await.ok();
    let version = f.get(MAPS).await.ok().str_at(&["metadata", "resourceVersion"]).to_owned();
    let mut watch = f.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    write(&f, Operation::Put("{".into())).await;
    write(&f, Operation::Put("[]".into())).await;
    let good = config_map("b", "2").replace("\"labels\"", "\"namespace\":\"default\",\"labels\"");
    write(&f, Operation::Put(good.into())).await;
    assert_eq!(watch.event().await, "MODIFIED b");
    assert_eq!(f.get(&format!("{MAPS}/b")).await.ok().str_at(&["data", "k"]), "2");
    write(&f, Operation::Delete).await;
    assert_eq!(watch.event().await, "DELETED b");
}
