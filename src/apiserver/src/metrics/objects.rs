//! What is stored, how it is listed, and what passes through the watch cache.
//!
//! Models k8s.io/apiserver/pkg/storage/metrics and pkg/storage/{cacher,etcd3}/metrics. Every list is answered from the watch cache.
use std::collections::BTreeMap;
use std::sync::Mutex;

use api::registry::Resource;
use api::schema::Name;

use super::text;
use crate::cache::{Cache, Figures};

/// Lists of one resource.
#[derive(Clone, Copy, Default)]
struct Listed {
    lists: u64,
    returned: u64,
}

#[derive(Default)]
pub struct Lists(Mutex<BTreeMap<(Name, Name), Listed>>);

impl Lists {
    /// A list shows so many objects.
    pub fn listed(&self, resource: &Resource, returned: usize) {
        let mut lists = self.0.lock().expect("no panic under the lock");
        let listed = lists.entry((resource.group.clone(), resource.plural.clone())).or_default();
        listed.lists += 1;
        listed.returned += returned as u64;
    }

    pub fn retain(&self, is_stored: impl Fn(&Name, &Name) -> bool) {
        self.0.lock().expect("no panic under the lock").retain(|(group, plural), _| is_stored(group, plural));
    }

    pub fn render(&self, out: &mut String) {
        let lists = self.0.lock().expect("no panic under the lock").clone();
        let families: [(_, _, &str, fn(&Listed) -> u64); 2] = [
            ("apiserver_storage_list_total", "Number of LIST requests served from storage", "index=\"\",", |l| l.lists),
            ("apiserver_storage_list_returned_objects_total", "Number of objects returned for a LIST request from storage", "", |l| l.returned),
        ];
        for (name, help, index, value) in families {
            text::head(out, name, "counter", help);
            for ((group, resource), listed) in &lists {
                text::sample(out, name, &format!("group=\"{group}\",{index}resource=\"{resource}\",storage=\"watchcache\""), value(listed));
            }
        }
    }
}

/// What the watch cache knows of itself.
pub fn render(cache: &Cache, out: &mut String) {
    let figures = cache.figures();
    let families: [(_, _, _, fn(&Figures) -> u64); 6] = [
        ("apiserver_resource_objects", "gauge", "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.", |f| f.objects),
        ("apiserver_storage_events_received_total", "counter", "Number of etcd events received split by kind.", |f| f.events),
        ("apiserver_watch_cache_events_received_total", "counter", "Counter of events received in watch cache broken by resource type.", |f| f.events),
        // One ring serves all watchers: what has come in is there for all of them.
        ("apiserver_watch_cache_events_dispatched_total", "counter", "Counter of events dispatched in watch cache broken by resource type.", |f| f.events),
        ("apiserver_watch_cache_resource_version", "gauge", "Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.", |f| f.revision % 1_000_000_000_000_000),
        ("watch_cache_capacity", "gauge", "Total capacity of watch cache broken by resource type.", |f| f.capacity),
    ];
    for (name, kind, help, value) in families {
        text::head(out, name, kind, help);
        for one in &figures {
            let labels = format!("group=\"{}\",resource=\"{}\"", one.resource.group, one.resource.plural);
            text::sample(out, name, &labels, value(one));
        }
    }
    let name = "aggregator_unavailable_apiservice";
    text::head(out, name, "gauge", "Gauge of APIServices which are marked as unavailable broken down by APIService name.");
    for object in cache.list("apiregistration.k8s.io", "apiservices", None) {
        let tree = object.tree();
        let is_down = |condition: &api::tree::Tree| condition.str_at(&["type"]) == "Available" && condition.str_at(&["status"]) == "False";
        let is_down = tree.array_at(&["status", "conditions"]).iter().any(is_down);
        text::sample(out, name, &format!("name=\"{}\"", object.name()), u8::from(is_down));
    }
}
