//! Informers against a small API server in process.
use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::json;
use tokio::sync::mpsc;
use tower::service_fn;

use super::*;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Lists what `objects` says at `version`; each watch is handed to the test, which feeds it lines.
#[derive(Default)]
struct Fake {
    objects: Mutex<Vec<serde_json::Value>>,
    version: Mutex<u64>,
    lists: Mutex<Vec<String>>,
}

struct Watch {
    query: String,
    lines: mpsc::UnboundedSender<String>,
}

impl Watch {
    fn send(&self, kind: &str, object: serde_json::Value) {
        self.lines.send(json!({"type": kind, "object": object}).to_string() + "\n").unwrap();
    }
}

fn config_map(name: &str, version: u64) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "namespace": "default", "name": name, "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
        "managedFields": [{"manager": "x"}], "labels": {"color": if version % 2 == 0 { "even" } else { "odd" }},
    }})
}

fn serve(fake: Arc<Fake>) -> (Client, mpsc::UnboundedReceiver<Watch>) {
    let (watches, received) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        let (fake, watches) = (fake.clone(), watches.clone());
        async move { Ok::<_, Infallible>(answer(&fake, &watches, request.uri().query().unwrap_or_default())) }
    });
    (Client::from_service(service), received)
}

fn answer(fake: &Fake, watches: &mpsc::UnboundedSender<Watch>, query: &str) -> Answer {
    if query.contains("watch=true") {
        let (lines, mut received) = mpsc::unbounded_channel::<String>();
        watches.send(Watch { query: query.to_owned(), lines }).unwrap();
        let frames = futures::stream::poll_fn(move |cx| {
            received.poll_recv(cx).map(|line| line.map(|l| Ok(http_body::Frame::data(Bytes::from(l)))))
        });
        return Response::new(StreamBody::new(frames).boxed());
    }
    fake.lists.lock().unwrap().push(query.to_owned());
    // Pages of two.
    let start: usize = query.split("continue=").nth(1).map_or(0, |c| c.parse().unwrap());
    let all = fake.objects.lock().unwrap().clone();
    let items: Vec<_> = all.iter().skip(start).take(2).collect();
    let more = (start + 2 < all.len()).then(|| (start + 2).to_string());
    let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "items": items, "metadata": {
        "resourceVersion": fake.version.lock().unwrap().to_string(), "continue": more}});
    let mut response = Response::new(Full::new(Bytes::from(list.to_string())).boxed());
    *response.status_mut() = StatusCode::OK;
    response
}

fn fake(names: &[(&str, u64)], version: u64) -> Arc<Fake> {
    let fake = Fake::default();
    *fake.objects.lock().unwrap() = names.iter().map(|(n, v)| config_map(n, *v)).collect();
    *fake.version.lock().unwrap() = version;
    Arc::new(fake)
}

impl crate::HeldObjects for Fake {
    fn text(&self, _: &ApiResource, key: &ObjectKey, version: &str) -> Option<Bytes> {
        let objects = self.objects.lock().unwrap();
        let held = objects.iter().find(|o| o["metadata"]["name"] == *key.name && o["metadata"]["resourceVersion"] == version)?;
        Some(held.to_string().into())
    }
}

fn told(event: &Event<ConfigMap>) -> String {
    let kind = match event {
        Event::Added(_) => "added",
        Event::Updated { .. } => "updated",
        Event::Deleted(_) => "deleted",
    };
    format!("{kind} {}@{}", event.object().name(), event.object().resource_version())
}

async fn next(subscription: &mut Subscription<ConfigMap>) -> String {
    told(&tokio::time::timeout(Duration::from_secs(100), subscription.recv()).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_list_in_pages_is_followed_by_a_watch_from_its_version() {
    let fake = fake(&[("a", 1), ("b", 2), ("c", 3)], 7);
    let (client, mut watches) = serve(fake.clone());
    let informer = Informer::<ConfigMap>::builder(&client).fields("metadata.name!=x").start();
    informer.synced().await;
    assert_eq!(informer.len(), 3);
    assert!(informer.list().iter().all(|c| c.metadata.managed_fields.is_none()));
    assert_eq!(fake.lists.lock().unwrap().len(), 2);
    let watch = watches.recv().await.unwrap();
    assert!(watch.query.contains("resourceVersion=7&"), "{}", watch.query);
    assert!(watch.query.contains("fieldSelector=metadata.name%21%3Dx"), "{}", watch.query);
    assert!(watch.query.contains("allowWatchBookmarks=true"), "{}", watch.query);
}

#[tokio::test(start_paused = true)]
async fn a_closed_watch_resumes_after_the_last_bookmark_without_a_list() {
    let fake = fake(&[("a", 1)], 7);
    let (client, mut watches) = serve(fake.clone());
    let informer = Informer::<ConfigMap>::builder(&client).start();
    let mut subscription = informer.subscribe();
    let watch = watches.recv().await.unwrap();
    watch.send("MODIFIED", config_map("a", 8));
    watch.send("BOOKMARK", json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "42"}}));
    drop(watch);
    let watch = watches.recv().await.unwrap();
    assert!(watch.query.contains("resourceVersion=42&"), "{}", watch.query);
    assert_eq!(fake.lists.lock().unwrap().len(), 1);
    assert_eq!(next(&mut subscription).await, "added a@8");
}

#[tokio::test(start_paused = true)]
async fn an_expired_version_lists_again_and_tells_only_the_difference() {
    let fake = fake(&[("same", 1), ("gone", 2)], 7);
    let (client, mut watches) = serve(fake.clone());
    let informer = Informer::<ConfigMap>::builder(&client).start();
    let mut subscription = informer.subscribe();
    let watch = watches.recv().await.unwrap();
    assert_eq!(next(&mut subscription).await, "added same@1");
    assert_eq!(next(&mut subscription).await, "added gone@2");
    *fake.objects.lock().unwrap() = vec![config_map("same", 1), config_map("new", 9)];
    *fake.version.lock().unwrap() = 10;
    watch.send("ERROR", json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version: 7 (9)", "reason": "Expired", "code": 410}));
    assert_eq!(next(&mut subscription).await, "deleted gone@2");
    assert_eq!(next(&mut subscription).await, "added new@9");
    assert!(watches.recv().await.unwrap().query.contains("resourceVersion=10&"));
    assert!(subscription.try_recv().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_version_tells_how_far_lists_events_and_bookmarks_have_come() {
    let fake = fake(&[("a", 1)], 7);
    let (client, mut watches) = serve(fake.clone());
    let informer = Informer::<ConfigMap>::builder(&client).start();
    assert_eq!(informer.version(), 0);
    informer.synced().await;
    assert_eq!(informer.version(), 7);
    let watch = watches.recv().await.unwrap();
    let frames = [("MODIFIED", config_map("a", 8)), ("DELETED", config_map("a", 9)), ("BOOKMARK", json!({"metadata": {"resourceVersion": "12"}}))];
    for ((kind, object), version) in frames.into_iter().zip([8, 9, 12]) {
        watch.send(kind, object);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(informer.version(), version);
    }
    *fake.version.lock().unwrap() = 20;
    watch.send("ERROR", json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410}));
    watches.recv().await.unwrap();
    assert_eq!(informer.version(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_gets_one_event_for_many_changes() {
    let (client, mut watches) = serve(fake(&[("a", 1)], 7));
    let informer = Informer::<ConfigMap>::builder(&client).start();
    let mut slow = informer.subscribe();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    informer.on_event(move |e| sink.lock().unwrap().push(told(e))).forever();
    let watch = watches.recv().await.unwrap();
    assert_eq!(next(&mut slow).await, "added a@1");
    for version in 8..=20 {
        watch.send("MODIFIED", config_map("a", version));
    }
    let mut again = config_map("a", 22);
    again["metadata"]["uid"] = "another".into();
    watch.send("DELETED", config_map("a", 21));
    watch.send("ADDED", again);
    watch.send("ADDED", config_map("short", 23));
    watch.send("DELETED", config_map("short", 24));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(next(&mut slow).await, "deleted a@21");
    assert_eq!(next(&mut slow).await, "added a@22");
    assert!(slow.try_recv().is_none());
    // A handler on the reflector's task hears of everything.
    assert_eq!(seen.lock().unwrap().len(), 1 + 13 + 2 + 2);
}

#[tokio::test(start_paused = true)]
async fn an_index_follows_its_objects() {
    let (client, mut watches) = serve(fake(&[("a", 1), ("b", 2)], 7));
    let informer = Informer::<ConfigMap>::builder(&client).start();
    informer.add_index("color", |c: &ConfigMap| c.label("color").map(str::to_owned).into_iter().collect());
    let watch = watches.recv().await.unwrap();
    assert_eq!(informer.by_index("color", "odd").len(), 1);
    watch.send("MODIFIED", config_map("b", 9));
    watch.send("DELETED", config_map("a", 11));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let odd: Vec<_> = informer.by_index("color", "odd").iter().map(|c| c.name().to_owned()).collect();
    assert_eq!(odd, ["b"]);
    assert!(informer.by_index("color", "even").is_empty());
    assert!(informer.get(&ObjectKey::new("default", "b")).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_guard_ends_its_handler_and_a_dropped_informer_its_watch() {
    let (client, mut watches) = serve(fake(&[("a", 1)], 7));
    let informer = Informer::<ConfigMap>::builder(&client).start();
    let count = Arc::new(Mutex::new(0));
    let sink = count.clone();
    let guard = informer.on_event(move |_| *sink.lock().unwrap() += 1);
    let watch = watches.recv().await.unwrap();
    drop(guard);
    watch.send("MODIFIED", config_map("a", 8));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*count.lock().unwrap(), 1);
    drop(informer);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(watch.lines.is_closed());
}

#[tokio::test(start_paused = true)]
async fn of_what_the_server_holds_little_stays_decoded_and_all_is_there() {
    let names: Vec<String> = (0..900).map(|i| format!("m{i:04}")).collect();
    let fake = fake(&names.iter().map(|n| (n.as_str(), 1)).collect::<Vec<_>>(), 7);
    let (client, mut watches) = serve(fake.clone());
    let informer = Informer::<ConfigMap>::builder(&client.sharing(fake.clone())).start();
    informer.add_index("color", |c: &ConfigMap| c.label("color").map(str::to_owned).into_iter().collect());
    let first = Arc::new(Mutex::new(Vec::new()));
    let sink = first.clone();
    informer.on_event(move |event| sink.lock().unwrap().push(Arc::downgrade(event.object()))).forever();
    let mut subscription = informer.subscribe();
    informer.synced().await;
    let decoded = || first.lock().unwrap().iter().filter(|object| object.strong_count() > 0).count();
    // The mirror's, and those of which the subscription has whole events.
    assert!((256..600).contains(&decoded()), "{}", decoded());

    assert_eq!((informer.len(), informer.list().len(), informer.by_index("color", "odd").len()), (900, 900, 900));
    let object = informer.get(&ObjectKey::new("default", "m0700")).unwrap();
    assert!(object.metadata.managed_fields.is_none() && object.resource_version() == "1");
    assert_eq!(informer.list_labelled("default", |labels| labels.get("color").is_some_and(|c| c == "even")).len(), 0);
    let mut visited = 0;
    informer.each_in("default", |_| visited += 1);
    assert_eq!(visited, 900);

    // An update, whose old state is decoded for it; the deletion of what was never read.
    let watch = watches.recv().await.unwrap();
    fake.objects.lock().unwrap()[3] = config_map("m0003", 8);
    watch.send("MODIFIED", config_map("m0003", 8));
    watch.send("DELETED", config_map("m0800", 9));
    watch.send("BOOKMARK", json!({"metadata": {"resourceVersion": "10"}}));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for name in &names {
        let version = if name == "m0003" { 8 } else { 1 };
        if name != "m0800" {
            assert_eq!(next(&mut subscription).await, format!("added {name}@{version}"));
        }
    }
    assert!(subscription.try_recv().is_none());
    assert_eq!((informer.by_index("color", "odd").len(), informer.by_index("color", "even").len()), (898, 1));
}
