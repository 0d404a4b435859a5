//! Answers in protobuf, decoded again.
use api::protobuf::decode;
use api::tree::Tree;

use super::*;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

impl Answer {
    #[track_caller]
    fn decoded(&self) -> Tree {
        // Legacy discovery names no version.
        decode(&self.bytes, ("", "v1", "")).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }
}

async fn get(f: &Fixture, path: &str, accept: &str) -> Answer {
    f.send_with("GET", path, &[("accept", accept)], "").await
}

#[tokio::test]
async fn objects_lists_and_statuses_are_what_json_says() {
    let f = fixture().await;
    for name in ["a", "b"] {
        f.post(MAPS, &config_map(name, name)).await.ok();
    }
    let one = get(&f, &format!("{MAPS}/a"), "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(one.headers["content-type"], PROTOBUF);
    assert_eq!(one.decoded(), f.get(&format!("{MAPS}/a")).await.ok());
    for path in [format!("{MAPS}?limit=1"), MAPS.to_owned(), format!("{MAPS}?labelSelector=none%3Dhere")] {
        // What the server writes by itself moves a list's revision.
        let (list, mut expected) = loop {
            let (list, expected) = (get(&f, &path, PROTOBUF).await.decoded(), f.get(&path).await.ok());
            if list.str_at(&["metadata", "resourceVersion"]) == expected.str_at(&["metadata", "resourceVersion"]) {
                break (list, expected);
            }
        };
        // The kind of items stands nowhere in protobuf; a list without items has none.
        for item in expected.get_mut("items").unwrap().as_array_mut().unwrap() {
            item.remove(&["apiVersion"]);
            item.remove(&["kind"]);
        }
        if expected.array_at(&["items"]).is_empty() {
            expected.remove(&["items"]);
        }
        assert_eq!(list, expected);
    }
    let missing = get(&f, &format!("{MAPS}/c"), PROTOBUF).await;
    assert_eq!((missing.code, missing.decoded().str_at(&["reason"])), (404, "NotFound"));
    let partial = get(&f, &format!("{MAPS}/a"), "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await.decoded();
    assert_eq!((partial.str_at(&["kind"]), partial.str_at(&["metadata", "name"]), partial.get("data")), ("PartialObjectMetadata", "a", None));
    let created = f.send_with("POST", MAPS, &[("accept", PROTOBUF), ("content-type", "application/json")], &config_map("c", "c")).await;
    assert_eq!((created.code, created.decoded().str_at(&["data", "k"])), (201, "c"));
    let deleted = f.send_with("DELETE", &format!("{MAPS}/c"), &[("accept", PROTOBUF)], "").await.decoded();
    assert_eq!((deleted.str_at(&["kind"]), deleted.str_at(&["status"])), ("Status", "Success"));
}

#[tokio::test]
async fn discovery_comes_in_protobuf() {
    let f = fixture().await;
    for path in ["/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"] {
        let (found, expected) = (get(&f, path, PROTOBUF).await.decoded(), f.get(path).await.ok());
        assert_eq!(found.str_at(&["kind"]), expected.str_at(&["kind"]));
        assert_eq!(found.array_at(&["resources"]).len(), expected.array_at(&["resources"]).len());
        assert_eq!(found.array_at(&["groups"]).len(), expected.array_at(&["groups"]).len());
    }
    let accept = "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = get(&f, "/apis", accept).await;
    assert_eq!(all.headers["content-type"], "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert!(all.decoded().array_at(&["items"]).len() > 10);
    // The beta form has gone; what comes next in the header is answered.
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    assert_eq!(get(&f, "/apis", accept).await.ok().str_at(&["kind"]), "APIGroupList");
}

/// The events of a watch that has ended.
fn events(mut frames: &[u8]) -> Vec<(String, Tree)> {
    let mut events = Vec::new();
    while let Some((length, rest)) = frames.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        frames = rest;
        let at = frame.windows(4).position(|w| w == b"k8s\0").unwrap();
        let kind = &frame[2..2 + usize::from(frame[1])];
        events.push((String::from_utf8(kind.to_vec()).unwrap(), decode(&frame[at..], ("", "", "")).unwrap()));
    }
    events
}

#[tokio::test]
async fn a_watch_is_a_stream_of_frames() {
    let f = fixture().await;
    let created = f.post(MAPS, &config_map("a", "1")).await.ok();
    let version = created.str_at(&["metadata", "resourceVersion"]);
    f.put(&format!("{MAPS}/a"), &config_map("a", "2")).await.ok();
    f.delete(&format!("{MAPS}/a")).await.ok();
    let path = format!("{MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=1&allowWatchBookmarks=true");
    let watched = get(&f, &path, "application/vnd.kubernetes.protobuf;stream=watch").await;
    assert_eq!(watched.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let events = events(&watched.bytes);
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds[..2], ["MODIFIED", "DELETED"]);
    assert_eq!(events[0].1.str_at(&["data", "k"]), "2");
    let old = get(&f, &format!("{MAPS}?watch=1&resourceVersion=99999&timeoutSeconds=1"), PROTOBUF).await;
    assert_eq!(self::events(&old.bytes)[0].1.str_at(&["kind"]), "Status");
    assert_eq!(get(&f, &path, "application/yaml").await.code, 406);
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_takes_it() {
    let f = fixture().await;
    for i in 0..3 {
        f.post(MAPS, &config_map(&format!("m{i}"), "v").replace("\"k\"", &format!("\"{}\"", "k".repeat(200)))).await.ok();
        f.post(MAPS, &format!(r#"{{"metadata":{{"name":"l{i}"}},"data":{{"k":"{}"}}}}"#, "long ".repeat(20_000))).await.ok();
    }
    // Of one revision: the server writes objects of its own meanwhile.
    let revision = f.get(MAPS).await.tree().str_at(&["metadata", "resourceVersion"]).to_owned();
    let maps = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    for accept in [PROTOBUF, "application/json"] {
        let plain = get(&f, &maps, accept).await;
        let packed = f.send_with("GET", &maps, &[("accept", accept), ("accept-encoding", "br, gzip")], "").await;
        assert_eq!((&packed.headers["content-encoding"], packed.bytes.len() < plain.bytes.len() / 10), (&"gzip".parse().unwrap(), true));
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&packed.bytes[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked, plain.bytes);
    }
}
