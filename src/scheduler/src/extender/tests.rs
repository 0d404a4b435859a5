//! Against a small HTTP server of its own.
use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::pod::PodInfo;

/// Answers each path with what `answers` says, in turn; keeps what it was asked.
async fn serve(answers: BTreeMap<&'static str, (u16, Value)>) -> (String, Arc<Mutex<Vec<(String, Value)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/scheduler/", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
            let (head_end, length) = loop {
                let n = stream.read(&mut chunk).await.unwrap();
                bytes.extend_from_slice(&chunk[..n]);
                if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
                    break (end + 4, length);
                }
                assert!(n > 0);
            };
            while bytes.len() < head_end + length {
                let n = stream.read(&mut chunk).await.unwrap();
                bytes.extend_from_slice(&chunk[..n]);
            }
            let path = String::from_utf8_lossy(&bytes).split(' ').nth(1).unwrap().to_owned();
            kept.lock().unwrap().push((path.clone(), serde_json::from_slice(&bytes[head_end..]).unwrap()));
            let (code, answer) = answers[path.as_str()].clone();
            let body = answer.to_string();
            let head = format!(
                "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    });
    (url, asked)
}

fn config(url: &str) -> ExtenderConfig {
    let config = json!({"urlPrefix": url, "filterVerb": "filter", "prioritizeVerb": "prioritize", "weight": 3, "preemptVerb": "preempt",
        "bindVerb": "bind", "nodeCacheCapable": true, "httpTimeout": "2s", "managedResources": [{"name": "example.com/foo"}]});
    serde_json::from_value(config).unwrap()
}

fn pod(name: &str, resource: &str) -> Pod {
    let limits = json!({"limits": {resource: "1"}});
    let spec = json!({"containers": [{"name": "c", "resources": limits}]});
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": spec})).unwrap()
}

fn node(name: &str) -> Arc<Node> {
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())
}

#[tokio::test]
async fn an_extender_filters_scores_and_binds() {
    let filtered = json!({"nodenames": ["b"], "failedNodes": {"a": "too hot"}, "FailedAndUnresolvableNodes": {"c": "on fire"}});
    let (url, asked) = serve(BTreeMap::from([
        ("/scheduler/filter", (200, filtered)),
        ("/scheduler/prioritize", (200, json!([{"Host": "b", "Score": 4}]))),
        ("/scheduler/bind", (200, json!({"Error": "not today"}))),
    ]))
    .await;
    let extender = Extender::new(config(&url)).unwrap();
    let (wanted, nodes) = (pod("p", "example.com/foo"), [node("a"), node("b"), node("c")]);
    assert!(extender.is_interested(&wanted) && !extender.is_interested(&pod("q", "example.com/bar")));
    let left = extender.filter(&wanted, &nodes).await.unwrap();
    assert_eq!(left.nodes, BTreeSet::from(["b".to_owned()]));
    assert_eq!((left.failed["a"].as_str(), left.unresolvable["c"].as_str()), ("too hot", "on fire"));
    assert_eq!(extender.prioritize(&wanted, &nodes).await.unwrap()["b"], 4 * 3 * 10);
    assert_eq!(extender.bind(&wanted, "b").await.unwrap_err().to_string(), "not today");
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0].1["NodeNames"], json!(["a", "b", "c"]));
    assert_eq!(asked[2], ("/scheduler/bind".into(), json!({"PodName": "p", "PodNamespace": "n", "PodUID": "p", "Node": "b"})));
}

#[tokio::test]
async fn an_extender_without_nodes_of_its_own_is_shown_them_whole() {
    let answer = json!({"Nodes": {"items": [{"metadata": {"name": "b"}}]}});
    let (url, asked) = serve(BTreeMap::from([("/scheduler/filter", (200, answer))])).await;
    let extender = Extender::new(ExtenderConfig { node_cache_capable: false, ..config(&url) }).unwrap();
    let left = extender.filter(&pod("p", "example.com/foo"), &[node("a"), node("b")]).await.unwrap();
    assert_eq!(left.nodes, BTreeSet::from(["b".to_owned()]));
    assert_eq!(asked.lock().unwrap()[0].1["Nodes"]["items"][0]["metadata"]["name"], "a");
}

#[tokio::test]
async fn an_extender_chooses_among_victims() {
    let answer = json!({"NodeNameToMetaVictims": {"b": {"Pods": [{"UID": "v2"}], "NumPDBViolations": 1}}});
    let (url, asked) = serve(BTreeMap::from([("/scheduler/preempt", (200, answer))])).await;
    let extender = Extender::new(config(&url)).unwrap();
    let victim = |name: &str| Arc::new(PodInfo::new(&pod(name, "x")));
    let candidates = [
        Arc::new(Candidate { node: "a".into(), victims: vec![victim("v1")], violations: 0 }),
        Arc::new(Candidate { node: "b".into(), victims: vec![victim("v2"), victim("v3")], violations: 0 }),
    ];
    let left = extender.preempt(&pod("p", "example.com/foo"), &candidates, |_| None).await.unwrap();
    assert_eq!((left.len(), left[0].node.as_str(), left[0].violations, left[0].victims[0].uid.as_str()), (1, "b", 1, "v2"));
    assert_eq!(asked.lock().unwrap()[0].1["NodeNameToMetaVictims"]["a"]["Pods"][0]["UID"], "v1");
}

#[tokio::test]
async fn what_goes_wrong_is_an_error() {
    let unknown = json!({"NodeNames": ["z"]});
    let (url, _) = serve(BTreeMap::from([("/scheduler/filter", (200, unknown)), ("/scheduler/prioritize", (500, json!({})))])).await;
    let extender = Extender::new(config(&url)).unwrap();
    let wanted = pod("p", "example.com/foo");
    assert!(matches!(extender.filter(&wanted, &[node("a")]).await, Err(ExtenderError::UnknownNode { .. })));
    assert!(matches!(extender.prioritize(&wanted, &[node("a")]).await, Err(ExtenderError::Call { .. })));
}
