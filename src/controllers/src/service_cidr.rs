//! Guards ServiceCIDRs: one from which addresses are in use goes only when another holds them.
//!
//! Models pkg/controller/servicecidrs/servicecidrs_controller.go, v1.37. Reads ServiceCIDR, IPAddress. Writes ServiceCIDR (finalizer, status).
//! Wakes on ServiceCIDRs, those that overlap one that comes or goes, and those that hold an address that comes or goes.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use client::{Client, Clock, Controller, EventRecorder, EventType, Informer, Named, Next, ObjectKey, Patch};
use ipnet::IpNet;
use serde_json::json;

use crate::context::ControllerContext;
use crate::failure::{During, Failure, unless_gone};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// Until every API server has heard that no more addresses may be given.
const DELETION_GRACE: Duration = Duration::from_secs(10);

struct Context {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

pub(crate) async fn run(cx: ControllerContext) {
    let client = cx.client("service-cidrs-controller");
    let (ranges, addresses): (Informer<ServiceCIDR>, Informer<IPAddress>) = (cx.informers.get(), cx.informers.get());
    let recorder = cx.recorder(&client, "service-cidr-controller");
    let context = Arc::new(Context { client, clock: cx.clock.clone(), recorder, ranges: ranges.clone(), addresses: addresses.clone() });
    Controller::new("service-cidr-controller", context)
        .workers(1)
        .watches(&ranges, |cx, event| {
            let changed = event.object();
            let prefixes = prefixes(changed);
            let overlaps = |other: &ServiceCIDR| self::prefixes(other).iter().any(|a| prefixes.iter().any(|b| overlap(a, b)));
            let others = cx.ranges.list().into_iter().filter(|other| overlaps(other)).map(|other| other.key());
            std::iter::once(changed.key()).chain(others).collect()
        })
        .watches(&addresses, |cx, event| {
            let Some(ip) = address(event.object()) else { return Vec::new() };
            cx.ranges.list().into_iter().filter(|range| holds(range, ip)).map(|range| range.key()).collect()
        })
        .run(|cx, key| async move { reconcile(&cx, &key).await })
        .await;
}

/// What is to be done about one range.
#[derive(Debug, PartialEq)]
enum Plan {
    Protect,
    /// Addresses would be left without a range.
    Block,
    /// Nothing holds it up; wait for the grace period.
    WaitFor(Duration),
    LetGo,
}

fn plan(range: &ServiceCIDR, ranges: &[Arc<ServiceCIDR>], addresses: &[IpAddr], deleted_for: Option<Duration>) -> Plan {
    let Some(deleted_for) = deleted_for else { return Plan::Protect };
    if !may_go(range, ranges, addresses) {
        return Plan::Block;
    }
    match DELETION_GRACE.checked_sub(deleted_for).filter(|left| !left.is_zero()) {
        Some(left) => Plan::WaitFor(left),
        None => Plan::LetGo,
    }
}

/// Whether every address of the range is in another one, too.
fn may_go(range: &ServiceCIDR, ranges: &[Arc<ServiceCIDR>], addresses: &[IpAddr]) -> bool {
    let others = || ranges.iter().filter(|other| other.name() != range.name());
    let is_within_another = |own: &IpNet| others().any(|other| prefixes(other).iter().any(|p| p.contains(own)));
    let own = prefixes(range);
    if own.iter().all(is_within_another) {
        return true;
    }
    let is_last = |ip: &IpAddr| holds(range, *ip) && !others().any(|other| holds(other, *ip));
    !addresses.iter().any(is_last)
}

fn prefixes(range: &ServiceCIDR) -> Vec<IpNet> {
    range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()).filter_map(|cidr| cidr.parse().ok()).collect()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Network and broadcast address are never given.
fn holds(range: &ServiceCIDR, ip: IpAddr) -> bool {
    prefixes(range).iter().any(|p| p.contains(&ip) && p.network() != ip && (ip.is_ipv6() || p.broadcast() != ip))
}

/// The address of an object that API servers made for a Service.
fn address(object: &IPAddress) -> Option<IpAddr> {
    let manager = object.metadata.labels.as_ref()?.get(MANAGED_BY)?;
    (manager == MANAGER).then(|| object.name().parse().ok())?
}

async fn reconcile(cx: &Context, key: &ObjectKey) -> Result<Next, Failure> {
    let Some(range) = cx.ranges.get(key) else { return Ok(Next::Wait) };
    let now = cx.clock.now();
    let deleted_for = range.metadata.deletion_timestamp.as_ref().map(|at| Duration::try_from(now.duration_since(at.0)).unwrap_or_default());
    let addresses: Vec<IpAddr> = match deleted_for {
        Some(_) => cx.addresses.list().iter().filter_map(|object| address(object)).collect(),
        None => Vec::new(),
    };
    match plan(&range, &cx.ranges.list(), &addresses, deleted_for) {
        Plan::Protect => {
            protect(cx, &range).await?;
            if let Err(failure) = set_ready(cx, &range, "True", "", "Kubernetes Service CIDR is ready").await {
                let message = "The ServiceCIDR Status can not be set to Ready=True";
                cx.recorder.record(&*range, EventType::Warning, "KubernetesServiceCIDRError", message);
                return Err(failure);
            }
        }
        Plan::Block => {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            set_ready(cx, &range, "False", "Terminating", message).await?;
        }
        Plan::WaitFor(left) => return Ok(Next::After(left)),
        Plan::LetGo => let_go(cx, &range).await?,
    }
    Ok(Next::Wait)
}

fn is_protected(range: &ServiceCIDR) -> bool {
    range.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

async fn protect(cx: &Context, range: &ServiceCIDR) -> Result<(), Failure> {
    if is_protected(range) {
        return Ok(());
    }
    patch(cx, range, json!({"metadata": {"finalizers": [FINALIZER]}}), "protect").await
}

async fn let_go(cx: &Context, range: &ServiceCIDR) -> Result<(), Failure> {
    if !is_protected(range) {
        return Ok(());
    }
    patch(cx, range, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}}), "let go").await
}

async fn patch(cx: &Context, range: &ServiceCIDR, patch: serde_json::Value, step: &str) -> Result<(), Failure> {
    let done = cx.client.patch::<ServiceCIDR>(&range.key(), &Patch::Strategic(patch)).await;
    unless_gone(done).map(|_| ()).during(|| format!("{step} ServiceCIDR {}", range.name()))
}

async fn set_ready(cx: &Context, range: &ServiceCIDR, status: &str, reason: &str, message: &str) -> Result<(), Failure> {
    let conditions = || range.status.iter().flat_map(|s| s.conditions.iter().flatten());
    if conditions().any(|c| c.type_ == "Ready" && c.status == status && c.reason == reason && c.message == message) {
        return Ok(());
    }
    let since = conditions().find(|c| c.type_ == "Ready" && c.status == status).map(|c| c.last_transition_time.clone());
    let ready = Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since.unwrap_or_else(|| cx.clock.time()),
        observed_generation: None,
    };
    let mut update = range.clone();
    let kept = conditions().filter(|c| c.type_ != "Ready").cloned();
    update.status.get_or_insert_default().conditions = Some(kept.chain([ready]).collect());
    unless_gone(cx.client.update_status(&update).await).map(|_| ()).during(|| format!("set the status of ServiceCIDR {}", range.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str, cidrs: &[&str]) -> Arc<ServiceCIDR> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}})).unwrap())
    }

    #[test]
    fn a_range_goes_when_no_address_needs_it() {
        let (a, wide, twin) = (range("a", &["10.1.0.0/24"]), range("wide", &["10.0.0.0/8"]), range("twin", &["10.1.0.0/24"]));
        let seconds = Duration::from_secs;
        let used: IpAddr = "10.1.0.5".parse().unwrap();
        assert_eq!(plan(&a, &[a.clone()], &[used], None), Plan::Protect);
        assert_eq!(plan(&a, &[a.clone()], &[used], Some(seconds(30))), Plan::Block);
        assert_eq!(plan(&a, &[a.clone()], &[], Some(seconds(3))), Plan::WaitFor(seconds(7)));
        assert_eq!(plan(&a, &[a.clone()], &["10.2.0.1".parse().unwrap()], Some(seconds(10))), Plan::LetGo);
        for other in [wide.clone(), twin] {
            assert_eq!(plan(&a, &[a.clone(), other], &[used], Some(seconds(10))), Plan::LetGo);
        }
        // The wide one's network is another address than the narrow one's.
        assert_eq!(plan(&wide, &[a, wide.clone()], &[used], Some(seconds(10))), Plan::LetGo);
    }

    #[test]
    fn only_addresses_of_services_count() {
        let object = |labels: serde_json::Value| -> IPAddress { serde_json::from_value(json!({"metadata": {"name": "10.0.0.7", "labels": labels}})).unwrap() };
        assert!(address(&object(json!({MANAGED_BY: MANAGER}))).is_some());
        assert!(address(&object(json!({}))).is_none());
    }
}
