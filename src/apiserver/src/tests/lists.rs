//! list and watch.
use super::*;

fn names(list: &Tree) -> Vec<&str> {
    list.array_at(&["items"]).iter().map(|i| i.str_at(&["metadata", "name"])).collect()
}

async fn three(f: &Fixture) {
    for (name, value) in [("a", "1"), ("b", "2"), ("c", "1")] {
        f.post(MAPS, &config_map(name, value)).await.ok();
    }
}

#[tokio::test]
async fn lists_select_by_label_and_field() {
    let f = fixture().await;
    three(&f).await;
    let all = f.get(MAPS).await.ok();
    assert_eq!((all.str_at(&["kind"]), names(&all)), ("ConfigMapList", vec!["a", "b", "c"]));
    assert_eq!(names(&f.get(&format!("{MAPS}?labelSelector=v%3D1")).await.ok()), ["a", "c"]);
    assert_eq!(names(&f.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.ok()), ["b"]);
    assert_eq!(names(&f.get("/api/v1/configmaps?labelSelector=v+in+(2)").await.ok()), ["b"]);
    f.get(&format!("{MAPS}?fieldSelector=data.k%3Db")).await.failed(
        400,
        "BadRequest",
        "\"data.k\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
    );
    assert_eq!(f.get(&format!("{MAPS}?labelSelector=%3D%3D")).await.code, 400);
}

#[tokio::test]
async fn pages_show_one_state_whatever_happens_between_them() {
    let f = fixture().await;
    three(&f).await;
    let first = f.get(&format!("{MAPS}?limit=1")).await.ok();
    assert_eq!(names(&first), ["a"]);
    assert_eq!(first.at(&["metadata", "remainingItemCount"]), Some(&Tree::Integer(2)));
    f.delete(&format!("{MAPS}/b")).await.ok();
    f.post(MAPS, &config_map("aa", "1")).await.ok();
    let token = first.str_at(&["metadata", "continue"]);
    let second = f.get(&format!("{MAPS}?limit=5&continue={token}")).await.ok();
    assert_eq!(names(&second), ["b", "c"]);
    assert_eq!(second.at(&["metadata", "continue"]), None);
    assert_eq!(second.str_at(&["metadata", "resourceVersion"]), first.str_at(&["metadata", "resourceVersion"]));
    assert_eq!(f.get(&format!("{MAPS}?continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn versions_are_honoured() {
    let f = fixture().await;
    three(&f).await;
    let version: u64 = f.get(MAPS).await.ok().str_at(&["metadata", "resourceVersion"]).parse().unwrap();
    f.delete(&format!("{MAPS}/a")).await.ok();
    let then = f.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await.ok();
    assert_eq!(names(&then), ["a", "b", "c"]);
    let later = f.get(&format!("{MAPS}?resourceVersion={version}")).await.ok();
    assert_eq!(names(&later), ["b", "c"]);
    let future = f.get(&format!("{MAPS}?resourceVersion=99999")).await;
    assert_eq!(future.code, 504);
    let future = future.tree();
    assert!(future.str_at(&["message"]).starts_with("Timeout: Too large resource version: 99999, current: "));
    assert_eq!(future.at(&["details", "retryAfterSeconds"]), Some(&Tree::Integer(1)));
    assert_eq!(f.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.code, 422);
}

#[tokio::test]
async fn a_watch_shows_every_change_in_order_and_translates_selections() {
    let f = fixture().await;
    let version = f.get(MAPS).await.ok().str_at(&["metadata", "resourceVersion"]).to_owned();
    let mut all = f.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    let mut ones = f.watch(&format!("{MAPS}?watch=1&resourceVersion={version}&labelSelector=v%3D1")).await;
    three(&f).await;
    f.put(&format!("{MAPS}/b"), &config_map("b", "1")).await.ok();
    f.put(&format!("{MAPS}/a"), &config_map("a", "2")).await.ok();
    f.delete(&format!("{MAPS}/c")).await.ok();
    for expected in ["ADDED a", "ADDED b", "ADDED c", "MODIFIED b", "MODIFIED a", "DELETED c"] {
        assert_eq!(all.event().await, expected);
    }
    for expected in ["ADDED a", "ADDED c", "ADDED b", "DELETED a", "DELETED c"] {
        assert_eq!(ones.event().await, expected);
    }
}

#[tokio::test]
async fn a_streamed_list_ends_with_its_bookmark() {
    let f = fixture().await;
    three(&f).await;
    let mut watch =
        f.watch(&format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")).await;
    for expected in ["ADDED a", "ADDED b", "ADDED c"] {
        assert_eq!(watch.event().await, expected);
    }
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark.str_at(&["type"]), "BOOKMARK");
    assert_eq!(bookmark.str_at(&["object", "metadata", "annotations", "k8s.io/initial-events-end"]), "true");
    f.post(MAPS, &config_map("d", "1")).await.ok();
    assert_eq!(watch.event().await, "ADDED d");
    assert_eq!(f.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.code, 422);
}

#[tokio::test]
async fn a_watch_from_before_the_start_is_told_so() {
    let f = fixture().await;
    three(&f).await;
    // A second server on the same store knows nothing of what was before it.
    let cache = Cache::start(&f.server.0.parts.store).await.unwrap();
    let server = ApiServer::new(Config::default(), Parts { cache, ..f.server.0.parts.clone() });
    let second = Fixture { client: server.local(UserInfo::new("admin", &["system:masters"])), server, _folder: tempfile::tempdir().unwrap() };
    assert_eq!(names(&second.get(MAPS).await.ok()), ["a", "b", "c"]);
    let mut watch = second.watch(&format!("{MAPS}?watch=1&resourceVersion=1")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((event.str_at(&["type"]), event.str_at(&["object", "reason"])), ("ERROR", "Expired"));
    assert_eq!(event.at(&["object", "code"]), Some(&Tree::Integer(410)));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let f = fixture().await;
    let mut watch = f.watch(&format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1&labelSelector=none%3Dhere")).await;
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let f = fixture().await;
    three(&f).await;
    f.delete(&format!("{MAPS}?labelSelector=v%3D1")).await.ok();
    assert_eq!(names(&f.get(MAPS).await.ok()), ["b"]);
}

#[tokio::test]
async fn lists_come_as_tables_and_as_metadata() {
    let f = fixture().await;
    three(&f).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = f.send_with("GET", MAPS, &[("accept", accept)], "").await.ok();
    assert_eq!((table.str_at(&["kind"]), table.array_at(&["rows"]).len()), ("Table", 3));
    assert_eq!(table.array_at(&["rows"])[0].str_at(&["object", "kind"]), "PartialObjectMetadata");
    let object = |table: &Tree| table.array_at(&["rows"])[1].get("object").cloned();
    assert_eq!(object(&table).unwrap().str_at(&["metadata", "name"]), "b");
    let with = async |query: &str| f.send_with("GET", &format!("{MAPS}{query}"), &[("accept", accept)], "").await.ok();
    assert_eq!(object(&with("?includeObject=None").await), Some(Tree::Null));
    assert_eq!(object(&with("?includeObject=Object").await).as_ref(), f.get(MAPS).await.ok().array_at(&["items"]).get(1));
    assert!(with("?labelSelector=none%3Dhere").await.array_at(&["rows"]).is_empty());
    let one = with("/b").await;
    assert_eq!(one.array_at(&["rows"])[0].get("object"), object(&table).as_ref());
    assert_eq!(one.at(&["metadata", "resourceVersion"]), object(&table).unwrap().at(&["metadata", "resourceVersion"]));
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = f.send_with("GET", MAPS, &[("accept", accept)], "").await.ok();
    assert_eq!((list.str_at(&["kind"]), list.array_at(&["items"])[0].get("data")), ("PartialObjectMetadataList", None));
    let wrong = f.send_with("GET", &format!("{MAPS}/b"), &[("accept", accept)], "").await;
    wrong.failed(406, "NotAcceptable", "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)");
    let wrong = f.send_with("GET", MAPS, &[("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")], "").await;
    wrong.failed(406, "NotAcceptable", "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)");
    let accept = "application/vnd.kubernetes.protobuf,application/json";
    assert_eq!(f.send_with("GET", MAPS, &[("accept", accept)], "").await.code, 200);
    // Table has no protobuf form.
    let accept = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(f.send_with("GET", MAPS, &[("accept", accept)], "").await.code, 406);
    assert_eq!(f.send_with("GET", MAPS, &[("accept", "application/cbor")], "").await.code, 406);
}

#[tokio::test]
async fn a_long_table_comes_in_pieces_and_compressed_for_those_who_take_it() {
    let f = fixture().await;
    let text = "x".repeat(1000);
    for i in 0..200 {
        let map = format!(r#"{{"metadata":{{"name":"m{i}","annotations":{{"a":"{text}"}}}}}}"#);
        f.post(MAPS, &map).await.ok();
    }
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let plain = f.send_with("GET", MAPS, &[accept], "").await;
    assert!(plain.headers.get("content-encoding").is_none());
    assert_eq!(plain.ok().array_at(&["rows"]).len(), 200);
    let packed = f.send_with("GET", MAPS, &[accept, ("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut table = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed.bytes), &mut table).unwrap();
    assert_eq!(Tree::from_json(&table).unwrap().array_at(&["rows"]).len(), 200);
    let few = f.send_with("GET", &format!("{MAPS}?limit=5"), &[accept, ("accept-encoding", "gzip")], "").await;
    assert!(few.headers.get("content-encoding").is_none());
    assert_eq!(few.ok().array_at(&["rows"]).len(), 5);
}
