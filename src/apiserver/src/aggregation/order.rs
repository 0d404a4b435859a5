//! All groups that are served, here or elsewhere, in discovery's order.
//!
//! Models kube-aggregator/pkg/apis/apiregistration/v1/helper SortedByGroupAndVersion, and calculateAPIGroupsLocked of
//! apiserver/pkg/endpoints/discovery/aggregated/handler.go, which breaks ties in another way.
use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::registry::{Group, Registry};
use api::schema::Name;

use super::{Table, name_of, priority};
use crate::resource_metrics;
use crate::server::ApiServer;

/// What decides between groups of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// The names of their APIServices.
    ServiceName,
    GroupName,
}

/// A group; the first version is the preferred one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedGroup {
    pub name: Name,
    pub versions: Vec<Name>,
}

struct Version {
    name: Name,
    group_priority: i64,
    priority: i64,
}

/// Every group that this server has, and every one that an APIService with a Service names.
pub fn groups(server: &ApiServer, tie: Tie) -> Vec<ServedGroup> {
    let mut own = server.0.parts.cache.kinds().groups();
    let metrics = resource_metrics::resources(server, resource_metrics::GROUP, resource_metrics::VERSION);
    if !metrics.is_empty() && own.iter().all(|group| group.name != resource_metrics::GROUP) {
        let version = Name::from(resource_metrics::VERSION);
        own.push(Group { name: resource_metrics::GROUP.into(), versions: vec![version.clone()], preferred: version });
    }
    sorted(own, &server.0.aggregation.table(), tie)
}

fn sorted(own: Vec<Group>, table: &Table, tie: Tie) -> Vec<ServedGroup> {
    let mut all: BTreeMap<Name, Vec<Version>> = BTreeMap::new();
    for group in own {
        let versions = group.versions.iter().map(|version| {
            let (group_priority, priority) = match table.get(name_of(&group.name, version).as_str()) {
                Some(registered) => (registered.group_priority, registered.version_priority),
                None if is_built_in(&group.name, version) => priority::built_in(&group.name, version),
                None => priority::CUSTOM,
            };
            Version { name: version.clone(), group_priority, priority }
        });
        all.insert(group.name.clone(), versions.collect());
    }
    for registered in table.values().filter(|registered| registered.backend.is_some()) {
        let versions = all.entry(registered.group.to_string().into()).or_default();
        if !versions.iter().any(|version| *version.name == *registered.version) {
            versions.push(Version {
                name: registered.version.to_string().into(),
                group_priority: registered.group_priority,
                priority: registered.version_priority,
            });
        }
    }
    let mut groups: Vec<_> = all.into_iter().collect();
    for (_, versions) in &mut groups {
        versions.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| api::crd::by_stability(&a.name, &b.name)));
    }
    groups.sort_by_cached_key(|(name, versions)| {
        let highest = versions.iter().map(|version| version.group_priority).max().unwrap_or(0);
        let first = versions.iter().filter(|v| v.group_priority == highest).map(|v| name_of(name, &v.name)).min();
        let tie = match tie {
            Tie::ServiceName => first.unwrap_or_default(),
            Tie::GroupName => name.to_string(),
        };
        (Reverse(highest), tie)
    });
    let served = |(name, versions): (Name, Vec<Version>)| ServedGroup { name, versions: versions.into_iter().map(|v| v.name).collect() };
    groups.into_iter().map(served).collect()
}

/// Of this server itself, and not of a CustomResourceDefinition.
fn is_built_in(group: &str, version: &str) -> bool {
    group == resource_metrics::GROUP
        || Registry::get().groups().iter().any(|known| known.name == group && known.versions.iter().any(|v| v == version))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aggregation::Registered;

    #[test]
    fn priorities_come_before_names() {
        let group = |name: &'static str, versions: &[&'static str]| Group {
            name: name.into(),
            versions: versions.iter().map(|v| Name::from(*v)).collect(),
            preferred: versions[0].into(),
        };
        let own = vec![
            group("apiextensions.k8s.io", &["v1"]),
            group("autoscaling", &["v1", "v2"]),
            group("b.example", &["v1beta1"]),
            group("a.example", &["v2", "v1"]),
            group("apiregistration.k8s.io", &["v1"]),
        ];
        let registered = Registered { group: "b.example".into(), version: "v1".into(), group_priority: 1, version_priority: 1, is_marked_local: true, backend: None };
        let table: Table = [("v1beta1.b.example".into(), Arc::new(registered))].into();
        let print = |tie| {
            let all = sorted(own.clone(), &table, tie);
            all.iter().map(|g| format!("{} {}", g.name, g.versions.join(","))).collect::<Vec<_>>()
        };
        let expected =
            ["apiregistration.k8s.io v1", "autoscaling v2,v1", "apiextensions.k8s.io v1", "a.example v2,v1", "b.example v1beta1"];
        assert_eq!(print(Tie::ServiceName), expected);
        assert_eq!(print(Tie::GroupName), expected);
    }
}
