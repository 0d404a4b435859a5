//! Keeps Services and IPAddresses two sides of one thing: every ClusterIP has its object, and no object is without its Service.
//!
//! Models pkg/registry/core/service/ipallocator/controller/repairip.go. Upstream looks at everything every three minutes; here a change of a
//! Service or an address is what is looked at, once at the start and once it has settled.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use api::meta;
use api::registry::Registry;
use api::tree::Tree;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::addresses::{self, GROUP, Owner, PLURAL};
use super::ranges::{self, Range};
use super::service;
use crate::bootstrap::own_target;
use crate::cache::Change;
use crate::server::ApiServer;

const CONTROLLER: &str = "ipallocator-repair-controller";
/// The longest that a request may take: until then an address may be ahead of its Service.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// Until a request that failed has given back what it took.
const SETTLES: Duration = Duration::from_secs(5);

/// What to do about a Service's address or an address' Service.
#[derive(Debug, PartialEq)]
enum Action {
    Create(Ipv4Addr),
    Recreate(Ipv4Addr),
    Remove(Ipv4Addr),
    /// Tell people: reason, action, text.
    Event(&'static str, &'static str, String),
    /// Look again after so long.
    Later(Duration),
}

/// What a Service's addresses need. `address`: the object of that name; `others`: the ClusterIPs of another Service, if it exists.
fn plan_service<'t>(
    owner: &Owner,
    ips: &[String],
    ranges: &[Range],
    address: impl Fn(Ipv4Addr) -> Option<&'t Tree>,
    others: impl Fn(&Owner) -> Option<Vec<String>>,
) -> Vec<Action> {
    const ALLOCATION: &str = "ClusterIPAllocation";
    let mut actions = Vec::new();
    for ip in ips.iter().filter_map(|text| text.parse::<Ipv4Addr>().ok()) {
        let (namespace, name) = (&owner.namespace, &owner.name);
        let wrong = || {
            let text = format!("the ClusterIP [IPv4]: {ip} for Service {namespace}/{name} has a wrong reference; repairing");
            [Action::Event("ClusterIPNotAllocated", ALLOCATION, text), Action::Recreate(ip)]
        };
        if !ranges.iter().any(|range| range.contains(ip)) {
            let text = format!("Cluster IP [IPv4]: {ip} is not within any configured Service CIDR; please recreate service");
            actions.push(Action::Event("ClusterIPOutOfRange", ALLOCATION, text));
            continue;
        }
        let Some(object) = address(ip) else {
            let text = format!("Cluster IP [IPv4]: {ip} is not allocated; repairing");
            actions.extend([Action::Event("ClusterIPNotAllocated", ALLOCATION, text), Action::Create(ip)]);
            continue;
        };
        match addresses::owner_of(object) {
            None => actions.extend(wrong()),
            Some(other) if other != *owner => match others(&other) {
                None => actions.extend(wrong()),
                Some(ips) if ips.contains(&ip.to_string()) => {
                    let text = format!("Cluster IP [IPv4]:{ip} was assigned to multiple services; please recreate service");
                    actions.push(Action::Event("ClusterIPAlreadyAllocated", ALLOCATION, text));
                }
                Some(_) => {}
            },
            Some(_) if !has_labels(object) => actions.push(Action::Recreate(ip)),
            Some(_) => {}
        }
    }
    actions
}

fn label<'t>(object: &'t Tree, name: &str) -> &'t str {
    object.str_at(&["metadata", "labels", name])
}

fn has_labels(object: &Tree) -> bool {
    label(object, addresses::FAMILY) == "IPv4" && label(object, addresses::MANAGED_BY) == addresses::MANAGER
}

/// What an address needs; `age` is its own, `service` what it refers to.
fn plan_address(ip: Ipv4Addr, object: &Tree, age: Duration, service: Option<&Tree>) -> Vec<Action> {
    const ALLOCATION: &str = "IPAddressAllocation";
    if label(object, addresses::MANAGED_BY) != addresses::MANAGER {
        return Vec::new();
    }
    let gone = |reason, text| vec![Action::Event(reason, ALLOCATION, text), Action::Remove(ip)];
    let Some(owner) = addresses::owner_of(object) else {
        let parent = object.at(&["spec", "parentRef"]).map(Tree::to_json).unwrap_or_default();
        let parent = String::from_utf8_lossy(&parent).into_owned();
        return gone("IPAddressNotAllocated", format!("IPAddress {ip} appears to have been modified, not referencing a Service {parent}: cleaning up"));
    };
    let (namespace, name) = (&owner.namespace, &owner.name);
    let left = REQUEST_MAX.saturating_sub(age);
    let Some(service) = service else {
        if !left.is_zero() {
            return vec![Action::Later(left)];
        }
        return gone("IPAddressNotAllocated", format!("IPAddress: {ip} for Service {namespace}/{name} appears to have leaked: cleaning up"));
    };
    if service::cluster_ips(service).contains(&ip.to_string()) {
        return Vec::new();
    }
    if service.str_at(&["spec", "type"]) == "ExternalName" && !left.is_zero() {
        return vec![Action::Later(left)];
    }
    if age < SETTLES {
        return vec![Action::Later(SETTLES)];
    }
    gone("IPAddressWrongReference", format!("IPAddress: {ip} for Service {namespace}/{name} has a wrong reference; cleaning up"))
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The ServiceCIDR of the configuration, which comes back when it is deleted.
    DefaultRange,
    Service(Owner),
    Address(Ipv4Addr),
}

/// Looks at everything once.
pub async fn run_once(server: &ApiServer) {
    let cache = &server.0.parts.cache;
    for cached in cache.list("", "services", None) {
        look(server, &Key::Service(Owner { namespace: cached.namespace().to_owned(), name: cached.name().to_owned() })).await;
    }
    for cached in cache.list(GROUP, PLURAL, None) {
        if let Ok(ip) = cached.name().parse() {
            look(server, &Key::Address(ip)).await;
        }
    }
}

/// Follows the changes.
pub async fn run(server: ApiServer) {
    let (sender, mut changes) = mpsc::unbounded_channel::<(Key, Duration)>();
    follow(&server, "", "services", sender.clone());
    follow(&server, GROUP, PLURAL, sender.clone());
    follow(&server, GROUP, "servicecidrs", sender);
    let mut waiting: BTreeSet<(Instant, Key)> = BTreeSet::new();
    let mut times: BTreeMap<Key, Instant> = BTreeMap::new();
    loop {
        let next = waiting.first().map(|(at, _)| *at);
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let (key, wait) = tokio::select! {
            () = server.0.shutdown.cancelled() => return,
            change = changes.recv() => match change {
                Some(change) => change,
                None => return,
            },
            () = due => {
                let Some((_, key)) = waiting.pop_first() else { continue };
                times.remove(&key);
                match look(&server, &key).await {
                    Some(wait) => (key, wait),
                    None => continue,
                }
            }
        };
        // A key waits once; the later of two times counts, as by then all has settled.
        let at = Instant::now() + wait;
        let at = times.insert(key.clone(), at).map_or(at, |before| {
            waiting.remove(&(before, key.clone()));
            before.max(at)
        });
        times.insert(key.clone(), at);
        waiting.insert((at, key));
    }
}

fn follow(server: &ApiServer, group: &str, plural: &str, sender: mpsc::UnboundedSender<(Key, Duration)>) {
    let cache = &server.0.parts.cache;
    let Some(kind) = Registry::get().resource(group, "v1", plural).and_then(|resource| cache.kind(resource)) else { return };
    let (is_service, is_range) = (group.is_empty(), plural == "servicecidrs");
    cache.listen(
        kind,
        Box::new(move |change: &Change| {
            let (namespace, name) = (change.object.namespace(), change.object.name());
            if is_range {
                if name == ranges::DEFAULT {
                    let _ = sender.send((Key::DefaultRange, Duration::ZERO));
                }
                return;
            }
            let key = if is_service {
                Some(Key::Service(Owner { namespace: namespace.to_owned(), name: name.to_owned() }))
            } else {
                name.parse().ok().map(Key::Address)
            };
            // The receiver ends with the server.
            let _ = key.map(|key| sender.send((key, SETTLES)));
            if change.deleted && is_service {
                for ip in service::cluster_ips(&change.object.tree()).iter().filter_map(|ip| ip.parse().ok()) {
                    let _ = sender.send((Key::Address(ip), SETTLES));
                }
            }
            if change.deleted && !is_service && let Some(owner) = addresses::owner_of(&change.object.tree()) {
                let _ = sender.send((Key::Service(owner), SETTLES));
            }
        }),
    );
}

/// Puts one thing right; says when to look at it again.
async fn look(server: &ApiServer, key: &Key) -> Option<Duration> {
    let cache = &server.0.parts.cache;
    let service_at = |owner: &Owner| cache.get("", "services", &owner.namespace, &owner.name).map(|cached| cached.tree());
    let (regarding, actions, owner) = match key {
        Key::DefaultRange => {
            let done = crate::bootstrap::service_cidr(server).await;
            return done.err().map(|status| {
                tracing::warn!("the default ServiceCIDR is not there: {}", status.message);
                SETTLES
            });
        }
        Key::Service(owner) => {
            let service = service_at(owner)?;
            let ips = service::cluster_ips(&service);
            let found: BTreeMap<Ipv4Addr, Tree> = ips
                .iter()
                .filter_map(|ip| Some((ip.parse().ok()?, cache.get(GROUP, PLURAL, "", ip)?.tree())))
                .collect();
            let others = |owner: &Owner| service_at(owner).map(|service| service::cluster_ips(&service));
            let actions = plan_service(owner, &ips, &ranges::all(cache), |ip| found.get(&ip), others);
            (service, actions, owner.clone())
        }
        Key::Address(ip) => {
            let object = cache.get(GROUP, PLURAL, "", &ip.to_string())?.tree();
            let created = meta::creation_timestamp(&object).parse::<jiff::Timestamp>().ok();
            let age = created.and_then(|at| Duration::try_from(jiff::Timestamp::now().duration_since(at)).ok()).unwrap_or_default();
            let owner = addresses::owner_of(&object);
            let service = owner.as_ref().and_then(service_at);
            let actions = plan_address(*ip, &object, age, service.as_ref());
            (object, actions, owner.unwrap_or(Owner { namespace: String::new(), name: String::new() }))
        }
    };
    let mut again = None;
    for action in actions {
        match action {
            Action::Later(wait) => again = Some(wait),
            Action::Remove(ip) => addresses::remove(server, ip).await,
            Action::Event(reason, action, text) => {
                tracing::warn!(%reason, "{text}");
                record(server, &regarding, reason, action, &text).await;
            }
            Action::Create(ip) | Action::Recreate(ip) => {
                if matches!(action, Action::Recreate(_)) {
                    addresses::remove(server, ip).await;
                }
                if let Err(error) = addresses::create(server, ip, &owner).await {
                    tracing::warn!(%ip, %error, "a ClusterIP has no IPAddress yet");
                    again = Some(SETTLES);
                }
            }
        }
    }
    again
}

async fn record(server: &ApiServer, regarding: &Tree, reason: &str, action: &str, note: &str) {
    let namespace = match meta::namespace(regarding) {
        "" => "default",
        namespace => namespace,
    };
    let now = jiff::Timestamp::now();
    let mut event = Tree::object();
    meta::set_type(&mut event, "events.k8s.io/v1", "Event");
    meta::set_name(&mut event, &format!("{}.{:x}", meta::name(regarding), now.as_nanosecond()));
    meta::set_namespace(&mut event, namespace);
    let texts = [
        ("eventTime", format!("{now:.6}")),
        ("reportingController", CONTROLLER.to_owned()),
        ("reportingInstance", CONTROLLER.to_owned()),
        ("type", "Warning".to_owned()),
        ("reason", reason.to_owned()),
        ("action", action.to_owned()),
        ("note", note.to_owned()),
    ];
    for (field, text) in texts {
        event.set(&[field], text);
    }
    for (field, value) in [
        ("apiVersion", meta::api_version(regarding)),
        ("kind", meta::kind(regarding)),
        ("namespace", meta::namespace(regarding)),
        ("name", meta::name(regarding)),
        ("uid", meta::uid(regarding)),
        ("resourceVersion", meta::resource_version(regarding)),
    ] {
        if !value.is_empty() {
            event.set(&["regarding", field], value);
        }
    }
    let target = own_target(server, "events.k8s.io", "v1", "events", namespace, "");
    if let Err(status) = target.create(event, false, &mut Vec::new()).await {
        tracing::warn!(reason, "an event could not be recorded: {}", status.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree::from_json(text.as_bytes()).unwrap()
    }

    fn address(labels: &str, parent: &str) -> Tree {
        tree(&format!(r#"{{"metadata":{{"name":"10.0.0.9","labels":{labels}}},"spec":{{"parentRef":{parent}}}}}"#))
    }

    const LABELS: &str = r#"{"ipaddress.kubernetes.io/ip-family":"IPv4","ipaddress.kubernetes.io/managed-by":"ipallocator.k8s.io"}"#;
    const OWN: &str = r#"{"resource":"services","namespace":"n","name":"s"}"#;
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn of_service(address: Option<&Tree>, other: Option<&str>) -> Vec<String> {
        let owner = Owner { namespace: "n".into(), name: "s".into() };
        let ranges = [Range { prefix: "10.0.0.0/24".parse().unwrap(), is_ready: true }];
        let others = |_: &Owner| other.map(|ip| vec![ip.to_owned()]);
        let actions = plan_service(&owner, &["10.0.0.9".into()], &ranges, |_| address, others);
        actions.into_iter().map(|action| if let Action::Event(reason, ..) = action { reason.to_owned() } else { format!("{action:?}") }).collect()
    }

    #[test]
    fn a_service_gets_the_object_of_its_address() {
        assert_eq!(of_service(None, None), ["ClusterIPNotAllocated", "Create(10.0.0.9)"]);
        assert!(of_service(Some(&address(LABELS, OWN)), None).is_empty());
        assert_eq!(of_service(Some(&address("{}", OWN)), None), ["Recreate(10.0.0.9)"]);
        let gateway = address(LABELS, r#"{"group":"gateway.networking.k8s.io","resource":"gateways","name":"g"}"#);
        assert_eq!(of_service(Some(&gateway), None), ["ClusterIPNotAllocated", "Recreate(10.0.0.9)"]);
        let other = address(LABELS, r#"{"resource":"services","namespace":"n","name":"t"}"#);
        assert_eq!(of_service(Some(&other), None), ["ClusterIPNotAllocated", "Recreate(10.0.0.9)"]);
        assert_eq!(of_service(Some(&other), Some("10.0.0.9")), ["ClusterIPAlreadyAllocated"]);
    }

    #[test]
    fn an_address_goes_when_no_service_comes() {
        let object = address(LABELS, OWN);
        let seconds = Duration::from_secs;
        let has = tree(r#"{"spec":{"clusterIP":"10.0.0.9","clusterIPs":["10.0.0.9"]}}"#);
        let has_not = tree(r#"{"spec":{"clusterIP":"10.0.0.8","clusterIPs":["10.0.0.8"]}}"#);
        assert_eq!(plan_address(IP, &object, seconds(10), None), [Action::Later(seconds(50))]);
        assert_eq!(plan_address(IP, &object, seconds(61), None)[1], Action::Remove(IP));
        assert!(plan_address(IP, &object, seconds(61), Some(&has)).is_empty());
        assert_eq!(plan_address(IP, &object, seconds(1), Some(&has_not)), [Action::Later(SETTLES)]);
        assert_eq!(plan_address(IP, &object, seconds(9), Some(&has_not))[1], Action::Remove(IP));
        assert_eq!(plan_address(IP, &address(LABELS, r#"{"resource":"pods","name":"p"}"#), seconds(1), None)[1], Action::Remove(IP));
        assert!(plan_address(IP, &address("{}", OWN), seconds(99), None).is_empty());
    }
}
