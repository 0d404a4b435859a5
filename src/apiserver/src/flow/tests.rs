use http::{Method, Uri};

use super::*;
use crate::tests::fixture;

fn flow(total: usize) -> FlowControl {
    let flow = FlowControl(Arc::new(Inner {
        started: Instant::now(),
        total,
        request_timeout: Duration::from_millis(800),
        setup: ArcSwap::from_pointee(Setup { schemas: Vec::new(), levels: BTreeMap::new() }),
        adjusted: AtomicU64::new(0),
        changed: Notify::new(),
    }));
    flow
}

struct Asked {
    user: UserInfo,
    info: RequestInfo,
    query: Query,
}

fn asked(user: &str, groups: &[&str], path: &'static str) -> Asked {
    let uri = Uri::from_static(path);
    let query = Query::parse(&uri);
    Asked { user: UserInfo::new(user, groups), info: RequestInfo::new(&Method::GET, &uri, &query), query }
}

async fn level_of(f: &crate::tests::Fixture, asked: &Asked) -> String {
    let flow = &f.server.0.flow;
    let (_, seat) = flow.enter(&asked.user, &asked.info, &asked.query, &f.server.0.parts.cache, || 0, &Load::default()).await.ok().unwrap();
    format!("{} {}", seat.schema, seat.level.name)
}

#[tokio::test]
async fn requests_go_to_the_levels_that_upstream_has_them_in() {
    let f = fixture().await;
    for (user, groups, path, expected) in [
        ("admin", &["system:masters"][..], "/api/v1/pods", "exempt exempt"),
        ("x", &["system:unauthenticated"][..], "/healthz", "probes exempt"),
        ("system:node:n", &["system:nodes"][..], "/api/v1/nodes/n", "system-node-high node-high"),
        ("system:node:n", &["system:nodes"][..], "/api/v1/pods", "system-nodes system"),
        ("system:kube-scheduler", &["system:authenticated"][..], "/api/v1/pods", "kube-scheduler workload-high"),
        ("system:serviceaccount:kube-system:x", &["system:serviceaccounts", "system:authenticated"][..], "/api/v1/pods", "kube-system-service-accounts workload-high"),
        ("system:serviceaccount:n:x", &["system:serviceaccounts", "system:authenticated"][..], "/api/v1/pods", "service-accounts workload-low"),
        ("jane", &["system:authenticated"][..], "/api/v1/pods", "global-default global-default"),
        ("nobody", &[][..], "/api/v1/pods", "catch-all catch-all"),
    ] {
        assert_eq!(level_of(&f, &asked(user, groups, path)).await, expected, "{user} {path}");
    }
    let mut text = String::new();
    f.server.0.flow.render(&mut text);
    assert!(text.contains("apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"probes\",priority_level=\"exempt\"} 1"));
    assert!(text.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245"));
}

#[tokio::test]
async fn who_waits_too_long_is_turned_away_and_who_leaves_makes_room() {
    let f = fixture().await;
    let flow = flow(1);
    flow.configure(&f.server.0.parts.cache);
    let setup = flow.0.setup.load_full();
    for (_, level) in setup.levels.values() {
        level.lock().set.limit = 1;
    }
    // Not until this test is over.
    flow.0.adjusted.store(u64::MAX / 2, Ordering::Relaxed);
    let cache = &f.server.0.parts.cache;
    let jane = asked("jane", &["system:authenticated"], "/api/v1/pods?fieldSelector=metadata.name%3Dx");
    let load = Load::default();
    let enter = || flow.enter(&jane.user, &jane.info, &jane.query, cache, || 0, &load);
    let (class, seat) = enter().await.ok().unwrap();
    assert!(!class.schema_uid.is_empty());
    let refused = enter().await.err().unwrap();
    assert_eq!((refused.status(), &refused.headers()["retry-after"]), (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap()));
    assert!(refused.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    {
        let gone = enter();
        tokio::pin!(gone);
        assert!(futures::poll!(gone.as_mut()).is_pending());
    }
    let level = setup.levels["global-default"].1.clone();
    let counted = || {
        let state = level.lock();
        (state.set.waiting, state.set.executing)
    };
    assert_eq!(counted(), (0, 1));
    let next = enter();
    tokio::pin!(next);
    assert!(futures::poll!(next.as_mut()).is_pending());
    // The one that runs, and the one that waits in its queue.
    let listed = || {
        let table = flow.dump_requests(true);
        let row = |line: &str| line.split(',').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        table.lines().skip(1).map(row).collect::<Vec<_>>()
    };
    let rows = listed();
    assert_eq!(rows.iter().map(|row| [&row[0], &row[3], &row[4], &row[10]].map(String::as_str)).collect::<Vec<_>>(), [
        ["global-default", "-1", "jane", "jane"],
        ["global-default", "0", "jane", "jane"],
    ]);
    let levels = flow.dump_levels();
    let cells: Vec<&str> = levels.lines().find(|line| line.starts_with("global-default")).unwrap().split(',').map(str::trim).collect();
    assert_eq!(cells[1..], ["1", "false", "false", "1", "1", "1", "0", "1", "1"]);
    drop(seat);
    assert!(next.await.is_ok());
    assert_eq!((counted(), listed().len()), ((0, 0), 0));
}

#[tokio::test]
async fn the_objects_are_kept_and_a_schema_without_level_says_so() {
    let f = fixture().await;
    const PATH: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let until = async |path: String, is_it: &dyn Fn(u16, &Tree) -> bool| {
        for _ in 0..200 {
            let answer = f.get(&path).await;
            if is_it(answer.code, &Tree::from_json(&answer.bytes).unwrap_or_default()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{path} never became as wanted");
    };
    until(format!("{PATH}/flowschemas/service-accounts"), &|code, _| code == 200).await;
    f.delete(&format!("{PATH}/flowschemas/catch-all")).await.ok();
    until(format!("{PATH}/flowschemas/catch-all"), &|code, _| code == 200).await;
    let own = r#"{"metadata":{"name":"own"},"spec":{"priorityLevelConfiguration":{"name":"none"},"matchingPrecedence":500,"rules":[]}}"#;
    f.post(&format!("{PATH}/flowschemas"), own).await.ok();
    let dangling = |status: &'static str| move |_: u16, tree: &Tree| tree.array_at(&["status", "conditions"]).iter().any(|c| c.str_at(&["status"]) == status);
    until(format!("{PATH}/flowschemas/own"), &dangling("True")).await;
    until(format!("{PATH}/flowschemas/exempt"), &dangling("False")).await;
}
