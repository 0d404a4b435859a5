//! The wanted state of the table, and what a change of it means for the kernel. Pure.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddrV4;
use std::sync::Arc;

use super::chains::{Chain, Group};
use super::elements::{Element, Key, Set, Value, allowed_source};
use super::frontends::{Backend, Frontend, Policy, WhenEmpty};
use super::placement::{Place, SECOND_LIST, place};
use super::table::Networks;
use crate::types::{Protocol, ServiceId};

/// Who wants a frontend. Where several want the same, the first in this order has it; host ports come first, because their pod
/// was scheduled here for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    HostPorts(String),
    Service(ServiceId),
}

/// What one frontend has in the kernel.
#[derive(Debug)]
struct Installed {
    backend: Arc<Backend>,
    /// Places of the backend's two lists of endpoints.
    endpoints: Vec<Place>,
    local: Vec<Place>,
}

/// The differences to send.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// New chains, each after those that it needs.
    pub chains: Vec<Chain>,
    /// For each element what the kernel has and what it shall have.
    elements: BTreeMap<(Set, Key), (Option<Value>, Option<Value>)>,
    /// UDP frontends that lost endpoints or got their first: connections tracked for them may be wrong.
    pub stale: BTreeSet<Frontend>,
}

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.elements.iter().all(|(_, (old, new))| old == new)
    }

    fn remove(&mut self, element: Element) {
        let entry = self.elements.entry((element.set, element.key)).or_insert((Some(element.value), None));
        entry.1 = None;
    }

    fn add(&mut self, element: Element) {
        let entry = self.elements.entry((element.set, element.key)).or_insert((None, None));
        entry.1 = Some(element.value);
    }

    /// Elements to delete and then to add, each in the order of the sets.
    pub(crate) fn elements(&self) -> (Vec<Element>, Vec<Element>) {
        let changed = || self.elements.iter().filter(|(_, (old, new))| old != new);
        let element = |(set, key): &(Set, Key), value: &Option<Value>| value.map(|value| Element { set: *set, key: *key, value });
        let old = changed().filter_map(|(at, (old, _))| element(at, old));
        let new = changed().filter_map(|(at, (_, new))| element(at, new));
        (old.collect(), new.collect())
    }
}

#[derive(Debug)]
pub(crate) struct Ruleset {
    networks: Networks,
    /// Who wants what.
    claims: HashMap<Frontend, BTreeMap<Owner, Arc<Backend>>>,
    frontends: HashMap<Owner, Vec<Frontend>>,
    installed: HashMap<Frontend, Installed>,
    /// How many frontends want an element of a shared set.
    shared: HashMap<(Set, Key), usize>,
    chains: BTreeSet<Chain>,
}

impl Ruleset {
    pub(crate) fn new(networks: Networks) -> Ruleset {
        Ruleset {
            networks,
            claims: HashMap::new(),
            frontends: HashMap::new(),
            installed: HashMap::new(),
            shared: HashMap::new(),
            chains: BTreeSet::new(),
        }
    }

    pub(crate) fn services(&self) -> Vec<ServiceId> {
        let ids = self.frontends.keys().filter_map(|owner| match owner {
            Owner::Service(id) => Some(id.clone()),
            Owner::HostPorts(_) => None,
        });
        ids.collect()
    }

    /// Makes `wanted` all that the owner wants.
    pub(crate) fn set(&mut self, owner: Owner, wanted: Vec<(Frontend, Arc<Backend>)>, delta: &mut Delta) {
        let before = self.frontends.remove(&owner).unwrap_or_default();
        for frontend in &before {
            if !wanted.iter().any(|(kept, _)| kept == frontend) {
                let claims = self.claims.entry(*frontend).or_default();
                claims.remove(&owner);
                self.settle(*frontend, delta);
            }
        }
        if !wanted.is_empty() {
            let now = wanted.iter().map(|(frontend, _)| *frontend).collect();
            self.frontends.insert(owner.clone(), now);
        }
        for (frontend, backend) in wanted {
            let claims = self.claims.entry(frontend).or_default();
            claims.insert(owner.clone(), backend);
            self.settle(frontend, delta);
        }
    }

    /// Brings a frontend in line with its first claim.
    fn settle(&mut self, frontend: Frontend, delta: &mut Delta) {
        let backend = match self.claims.get(&frontend) {
            Some(claims) => claims.values().next().cloned(),
            None => None,
        };
        if backend.is_none() {
            self.claims.remove(&frontend);
        }
        let before = self.installed.remove(&frontend);
        if let (Some(installed), Some(wanted)) = (&before, &backend) {
            if installed.backend == *wanted {
                let installed = before.expect("just seen");
                self.installed.insert(frontend, installed);
                return;
            }
        }
        let after = backend.map(|backend| {
            let places = |old: Option<&Vec<Place>>, wanted| place(old.map_or(&[], |o| o), wanted);
            Installed {
                endpoints: places(before.as_ref().map(|b| &b.endpoints), &backend.endpoints),
                local: places(before.as_ref().map(|b| &b.local), &backend.local),
                backend,
            }
        });
        if frontend.protocol() == Protocol::Udp && connections_may_be_stale(before.as_ref(), after.as_ref()) {
            delta.stale.insert(frontend);
        }

        let old = before.map_or(Vec::new(), |b| self.elements(frontend, &b));
        let new = match &after {
            Some(after) => self.elements(frontend, after),
            None => Vec::new(),
        };
        let values = |all: &[Element]| -> HashMap<(Set, Key), Value> { all.iter().map(|e| ((e.set, e.key), e.value)).collect() };
        let (had, has) = (values(&old), values(&new));
        let in_both = |e: &Element| {
            let at = &(e.set, e.key);
            had.get(at) == has.get(at)
        };
        for element in old.iter().filter(|e| !in_both(e)) {
            self.remove(*element, delta);
        }
        for element in new.iter().filter(|e| !in_both(e)) {
            if let Value::Goto(chain) = element.value {
                self.need(chain, delta);
            }
            self.add(*element, delta);
        }
        if let Some(after) = after {
            self.installed.insert(frontend, after);
        }
    }

    fn add(&mut self, element: Element, delta: &mut Delta) {
        if element.set.is_shared() {
            let count = self.shared.entry((element.set, element.key)).or_insert(0);
            *count += 1;
            if *count > 1 {
                return;
            }
        }
        delta.add(element);
    }

    fn remove(&mut self, element: Element, delta: &mut Delta) {
        if element.set.is_shared() {
            let at = (element.set, element.key);
            let count = self.shared.get_mut(&at).expect("counted when it was added");
            *count -= 1;
            if *count > 0 {
                return;
            }
            self.shared.remove(&at);
        }
        delta.remove(element);
    }

    fn need(&mut self, chain: Chain, delta: &mut Delta) {
        if self.chains.contains(&chain) {
            return;
        }
        for needed in chain.needs() {
            self.need(needed, delta);
        }
        self.chains.insert(chain);
        delta.chains.push(chain);
    }

    /// All that one frontend puts into the sets. Each element comes once.
    fn elements(&self, frontend: Frontend, installed: &Installed) -> Vec<Element> {
        let backend = &installed.backend;
        let key = Key::frontend(frontend);
        let group = match frontend {
            Frontend::Address { .. } => Group::Address,
            Frontend::Port { .. } => Group::Port,
        };
        let mut all = Vec::new();
        let mut put = |set, key, value| all.push(Element { set, key, value });
        if let (Frontend::Address { ip, .. }, true) = (frontend, backend.cluster_ip) {
            put(Set::ClusterIps, Key::address(ip), Value::None);
        }
        let count = |places: &[Place]| u32::try_from(places.len()).expect("fewer than 2^31");
        let (everywhere, local) = (count(&installed.endpoints), count(&installed.local));
        if everywhere == 0 {
            let set = match group {
                Group::Address => Set::NoEndpointIps,
                Group::Port => Set::NoEndpointPorts,
            };
            let value = match backend.when_empty {
                WhenEmpty::Reject => Value::Reject,
                WhenEmpty::Drop => Value::Drop,
            };
            put(set, key, value);
            return all;
        }
        let affinity = backend.affinity_seconds;
        let chain = match backend.policy {
            Policy::Everywhere => Chain::Spread { group, count: everywhere, affinity },
            Policy::Direct => Chain::Direct { group, count: everywhere, affinity },
            Policy::LocalForOutside => Chain::Local { group, local, all: everywhere, affinity },
        };
        let (verdicts, endpoints, slots, slot_endpoints) = match group {
            Group::Address => (Set::ServiceIps, Set::Endpoints, Set::Slots, Set::SlotEndpoints),
            Group::Port => (Set::NodePorts, Set::PortEndpoints, Set::PortSlots, Set::PortSlotEndpoints),
        };
        put(verdicts, key, Value::Goto(chain));
        for (places, offset) in [(&installed.endpoints, 0), (&installed.local, SECOND_LIST)] {
            for (index, place) in (offset..).zip(places) {
                let endpoint = Value::Endpoint(place.endpoint);
                if affinity.is_some() {
                    let slot = offset | place.slot;
                    put(slots, key.number(index), Value::Slot(slot));
                    put(slot_endpoints, key.number(slot), endpoint);
                } else {
                    put(endpoints, key.number(index), endpoint);
                }
            }
        }
        let ours = |place: &&Place| self.networks.pod_cidr.contains(place.endpoint.ip());
        let pods: BTreeSet<_> = installed.endpoints.iter().chain(&installed.local).filter(ours).map(|place| *place.endpoint.ip()).collect();
        for pod in pods {
            put(Set::Hairpin, Key::address_twice(pod), Value::None);
        }
        if !backend.sources.is_empty() {
            put(Set::FirewallIps, key, Value::None);
            // Overlapping ranges cannot be in one interval set, and say nothing new.
            let ranges = ipnet::Ipv4Net::aggregate(&backend.sources.to_vec());
            for range in ranges {
                let element = allowed_source(frontend, range);
                put(element.set, element.key, element.value);
            }
        }
        all
    }

    /// Everything, for a full load.
    pub(crate) fn all_elements(&self) -> Vec<Element> {
        let mut all: Vec<Element> = Vec::new();
        for (frontend, installed) in &self.installed {
            let own = self.elements(*frontend, installed);
            all.extend(own.into_iter().filter(|e| !e.set.is_shared()));
        }
        let shared = self.shared.keys().map(|(set, key)| Element { set: *set, key: *key, value: Value::None });
        all.extend(shared);
        all.sort_unstable_by_key(|e| (e.set, e.key));
        all
    }

    /// Forgets chains that nothing leads to, and returns the others, each after those that it needs.
    pub(crate) fn all_chains(&mut self) -> Vec<Chain> {
        self.chains.clear();
        let mut delta = Delta::default();
        for element in self.all_elements() {
            if let Value::Goto(chain) = element.value {
                self.need(chain, &mut delta);
            }
        }
        delta.chains
    }

    pub(crate) fn chain_count(&self) -> usize {
        self.chains.len()
    }

    /// Whether a connection to `frontend` may go to `endpoint`; `None` when there is no such frontend.
    pub(crate) fn allows(&self, frontend: Frontend, endpoint: SocketAddrV4) -> Option<bool> {
        let installed = self.installed.get(&frontend)?;
        Some(installed.backend.has(&endpoint))
    }

    pub(crate) fn udp_frontends(&self) -> BTreeSet<Frontend> {
        let udp = |f: &&Frontend| f.protocol() == Protocol::Udp;
        self.installed.keys().filter(udp).copied().collect()
    }
}

fn connections_may_be_stale(before: Option<&Installed>, after: Option<&Installed>) -> bool {
    let has_endpoints = |i: Option<&Installed>| i.is_some_and(|i| !i.endpoints.is_empty());
    let lost = |places: &[Place]| places.iter().any(|p| !after.is_some_and(|a| a.backend.has(&p.endpoint)));
    // What came in before the first endpoint is tracked as not translated, and would stay so as long as the client keeps on.
    let first = !has_endpoints(before) && has_endpoints(after);
    first || before.is_some_and(|b| lost(&b.endpoints) || lost(&b.local))
}
