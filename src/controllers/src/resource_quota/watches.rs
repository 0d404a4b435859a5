//! Which kinds quotas name, and metadata watches on those that have no watch yet.
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use api::quota::{self, Amounts};
use client::k8s_openapi::api::core::v1::ResourceQuota;
use client::{ApiError, ApiResource, Client, Event, HandlerGuard, Informer, Named, ObjectKey, PartialObject, WorkQueue};

use super::wake;
use crate::discovery::{Served, discover};

const POISON: &str = "nothing panics while it holds the map";
/// Kinds that quotas count under names other than `count/...`.
const NAMED: [&str; 7] =
    ["pods", "services", "persistentvolumeclaims", "configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// Those whose events the controller hears anyway.
const HEARD: [&str; 3] = ["pods", "services", "persistentvolumeclaims"];

pub(super) struct Watches {
    client: Client,
    /// By group and plural; as of the last discovery.
    served: Mutex<HashMap<(String, String), ApiResource>>,
    running: Mutex<HashMap<ApiResource, Watch>>,
    wakes: OnceLock<(WorkQueue<ObjectKey>, Informer<ResourceQuota>)>,
}

struct Watch {
    _informer: Informer<PartialObject>,
    _guard: HandlerGuard,
}

impl Watches {
    pub fn new(client: Client) -> Self {
        Self { client, served: Mutex::default(), running: Mutex::default(), wakes: OnceLock::new() }
    }

    /// Says whom a deletion wakes. Called once, before anything is watched.
    pub fn wakes(&self, queue: WorkQueue<ObjectKey>, quotas: Informer<ResourceQuota>) {
        let _ = self.wakes.set((queue, quotas));
    }

    /// The kinds that these names are about; `None` for each that is not served.
    pub async fn named_by(&self, hard: &Amounts) -> Result<Vec<Option<ApiResource>>, ApiError> {
        let mut wanted: Vec<(String, String)> = NAMED
            .iter()
            .filter(|plural| hard.keys().any(|name| quota::measures("", plural, name)))
            .map(|plural| (String::new(), (*plural).to_owned()))
            .collect();
        for counted in hard.keys().filter_map(|name| name.strip_prefix("count/")) {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            let kind = (group.to_owned(), plural.to_owned());
            if !wanted.contains(&kind) {
                wanted.push(kind);
            }
        }
        let is_unknown = |kind: &(String, String)| !self.served.lock().expect(POISON).contains_key(kind);
        if wanted.iter().any(is_unknown) {
            let can_count = |s: &Served| s.resource.namespaced && s.can("list") && s.can("watch");
            let found = discover(&self.client).await?.resources.into_iter().filter(can_count);
            let entries = found.map(|s| ((s.resource.group.clone(), s.resource.plural.clone()), s.resource));
            *self.served.lock().expect(POISON) = entries.collect();
        }
        let served = self.served.lock().expect(POISON);
        Ok(wanted.iter().map(|kind| served.get(kind).cloned()).collect())
    }

    /// Wakes quotas from now on when an object of this kind is deleted.
    pub fn watch(&self, resource: &ApiResource) {
        let Some((queue, quotas)) = self.wakes.get() else { return };
        if resource.group.is_empty() && HEARD.contains(&resource.plural.as_str()) {
            return;
        }
        let mut running = self.running.lock().expect(POISON);
        if running.contains_key(resource) {
            return;
        }
        let informer = Informer::<PartialObject>::builder_at(&self.client, resource.clone()).project(slim).start();
        let (queue, quotas, kind) = (queue.clone(), quotas.clone(), resource.clone());
        let guard = informer.on_event(move |event| {
            if let Event::Deleted(object) = event {
                wake(&quotas, &queue, &kind.group, &kind.plural, object.namespace());
            }
        });
        running.insert(resource.clone(), Watch { _informer: informer, _guard: guard });
    }
}

/// Keeps the object's identity.
fn slim(object: &mut PartialObject) {
    let meta = &mut object.metadata;
    (meta.labels, meta.annotations, meta.managed_fields, meta.owner_references) = (None, None, None, None);
}
