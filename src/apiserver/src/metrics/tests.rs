//! The page is one that Prometheus reads, and has what dashboards ask for.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Times;
use crate::admission::Operation;
use crate::status::Status;
use crate::tests::fixture;

/// The families of a page and their types; every sample must be of a family above it, and histograms must hold together.
fn families(page: &str) -> BTreeMap<String, String> {
    let mut families = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut series = BTreeSet::new();
    // The last bucket of each histogram.
    let mut buckets: BTreeMap<(String, String), f64> = BTreeMap::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(helped.insert(help.split(' ').next().unwrap().to_owned()), "explained twice: {line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "not explained: {line}");
            assert_eq!(families.insert(name.to_owned(), kind.to_owned()), None, "{line}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(series.insert(sample.to_owned()), "twice: {line}");
        let (name, labels) = sample.split_once('{').map_or((sample, ""), |(name, rest)| (name, rest.strip_suffix('}').unwrap()));
        let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end).filter(|base| families.contains_key(*base)));
        let kind = &families[base.unwrap_or(name)];
        assert_eq!(base.is_some(), kind == "histogram", "{line}");
        let Some(base) = base else { continue };
        if name.ends_with("_bucket") {
            let (labels, _limit) = labels.split_once("le=").unwrap();
            let last = buckets.entry((base.to_owned(), labels.trim_end_matches(',').to_owned())).or_default();
            assert!(value >= *last, "not cumulative: {line}");
            *last = value;
        } else if name.ends_with("_count") {
            assert_eq!(buckets[&(base.to_owned(), labels.to_owned())], value, "{line}");
        }
    }
    families
}

#[tokio::test]
async fn the_page_has_what_dashboards_ask_for() {
    let f = fixture().await;
    let object = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
    f.post("/api/v1/namespaces/default/configmaps?dryRun=All", object).await.ok();
    f.post("/api/v1/namespaces/default/configmaps", object).await.ok();
    f.get("/api/v1/namespaces/default/configmaps").await;
    f.get("/api/v1/namespaces/default/endpoints").await;
    f.get("/nothing").await;
    let page = String::from_utf8(f.get("/metrics").await.bytes.to_vec()).unwrap();
    let families = families(&page);
    for (name, kind) in [
        ("aggregator_unavailable_apiservice", "gauge"),
        ("apiserver_audit_event_total", "counter"),
        ("apiserver_client_certificate_expiration_seconds", "histogram"),
        ("apiserver_current_inflight_requests", "gauge"),
        ("apiserver_current_inqueue_requests", "gauge"),
        ("apiserver_flowcontrol_current_limit_seats", "gauge"),
        ("apiserver_longrunning_requests", "gauge"),
        ("apiserver_request_body_size_bytes", "histogram"),
        ("apiserver_request_duration_seconds", "histogram"),
        ("apiserver_request_sli_duration_seconds", "histogram"),
        ("apiserver_request_total", "counter"),
        ("apiserver_requested_deprecated_apis", "gauge"),
        ("apiserver_resource_objects", "gauge"),
        ("apiserver_response_sizes", "histogram"),
        ("apiserver_storage_list_total", "counter"),
        ("apiserver_tls_handshake_errors_total", "counter"),
        ("apiserver_watch_cache_events_received_total", "counter"),
        ("apiserver_watch_events_sizes", "histogram"),
        ("apiserver_watch_events_total", "counter"),
        ("authentication_attempts", "counter"),
        ("authorization_duration_seconds", "histogram"),
        ("kube_apiserver_clusterip_allocator_allocated_ips", "gauge"),
        ("kube_apiserver_nodeport_allocator_available_ports", "gauge"),
        ("kubernetes_build_info", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_start_time_seconds", "gauge"),
        ("watch_cache_capacity", "gauge"),
    ] {
        assert_eq!(families.get(name).map(String::as_str), Some(kind), "{name}");
    }
    for sample in [
        "apiserver_request_total{code=\"201\",dry_run=\"All\",component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 1\n",
        "apiserver_resource_objects{group=\"\",resource=\"configmaps\"} ",
        "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1\n",
        "apiserver_storage_list_returned_objects_total{group=\"\",resource=\"configmaps\",storage=\"watchcache\"} 1\n",
        "authorization_attempts_total{result=\"allowed\"} ",
        // The one that reads the page.
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n",
    ] {
        assert!(page.contains(sample), "{sample}");
    }
}

#[tokio::test]
async fn health_checks_are_counted_by_name() {
    let f = fixture().await;
    assert_eq!(f.get("/livez/poststarthook/rbac/bootstrap-roles").await.bytes, "ok");
    f.get("/readyz").await;
    let page = String::from_utf8(f.get("/metrics/slis").await.bytes.to_vec()).unwrap();
    let families = families(&page);
    assert_eq!(families.keys().collect::<Vec<_>>(), ["kubernetes_healthcheck", "kubernetes_healthchecks_total", "process_start_time_seconds"]);
    assert!(page.contains("kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1\n"));
    assert!(page.contains("kubernetes_healthchecks_total{name=\"shutdown\",status=\"success\",type=\"readyz\"} 1\n"));
}

#[test]
fn admission_is_timed_by_plugin_and_by_webhook() {
    let times = Times::default();
    let mut clock = times.begin("validate", Operation::Create);
    clock.done("LimitRanger");
    clock.decided("Priority", Err::<(), _>(Status::bad_request("no"))).unwrap_err();
    drop(clock);
    times.webhook("a.example", true, Operation::Create, None, Duration::from_millis(7));
    times.webhook("a.example", true, Operation::Create, Some(403), Duration::from_millis(7));
    let mut page = String::new();
    times.render(&mut page);
    assert_eq!(families(&page)["apiserver_admission_controller_admission_duration_seconds"], "histogram");
    for sample in [
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"true\",type=\"validate\"} 1\n",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"LimitRanger\",operation=\"CREATE\",rejected=\"false\",type=\"validate\"} 1\n",
        "apiserver_admission_webhook_request_total{code=\"403\",name=\"a.example\",operation=\"CREATE\",rejected=\"true\",type=\"admit\"} 1\n",
    ] {
        assert!(page.contains(sample), "{sample}");
    }
}
