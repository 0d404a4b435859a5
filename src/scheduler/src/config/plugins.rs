//! Which plugins work at which extension point.
//!
//! Models v1/default_plugins.go `mergePlugins` and framework/runtime `expandMultiPointPlugins`, v1.37.
use std::collections::BTreeSet;

use super::types::{Plugin, PluginSet, Plugins};

const MULTI_POINT: &str = "multiPoint";

/// The default plugins with their weights.
const DEFAULTS: [(&str, Option<i64>); 19] = [
    ("SchedulingGates", None),
    ("PrioritySort", None),
    ("NodeName", None),
    ("NodeUnschedulable", None),
    ("TaintToleration", Some(3)),
    ("NodeAffinity", Some(2)),
    ("NodePorts", None),
    ("NodeResourcesFit", Some(1)),
    ("VolumeRestrictions", None),
    ("NodeVolumeLimits", None),
    ("VolumeBinding", None),
    ("VolumeZone", None),
    ("PodTopologySpread", Some(2)),
    ("InterPodAffinity", Some(2)),
    ("DynamicResources", Some(2)),
    ("DefaultPreemption", None),
    ("NodeResourcesBalancedAllocation", Some(1)),
    ("ImageLocality", Some(1)),
    ("DefaultBinder", None),
];

/// Extension points, with the plugins that have something to do there. A filter's look over the cluster (preFilter) goes with it, as do a
/// score's (preScore) and the reservation before a binding (reserve).
const POINTS: [(&str, &[&str]); 15] = [
    ("preEnqueue", &["SchedulingGates", "DynamicResources", "DefaultPreemption"]),
    ("queueSort", &["PrioritySort"]),
    ("preFilter", &FILTERS),
    ("filter", &FILTERS),
    ("postFilter", &["DynamicResources", "DefaultPreemption"]),
    ("preScore", &SCORES),
    ("score", &SCORES),
    ("reserve", &["VolumeBinding", "DynamicResources"]),
    ("permit", &[]),
    ("preBind", &["VolumeBinding", "DynamicResources"]),
    ("bind", &["DefaultBinder"]),
    ("postBind", &[]),
    ("placementGenerate", &[]),
    ("placementScore", &[]),
    ("podGroupPostFilter", &[]),
];
pub const FILTERS: [&str; 13] = [
    "NodeName",
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeBinding",
    "VolumeZone",
    "PodTopologySpread",
    "InterPodAffinity",
    "DynamicResources",
];
const SCORES: [&str; 9] = [
    "TaintToleration",
    "NodeAffinity",
    "NodeResourcesFit",
    "VolumeBinding",
    "PodTopologySpread",
    "InterPodAffinity",
    "DynamicResources",
    "NodeResourcesBalancedAllocation",
    "ImageLocality",
];

/// Plugins in their order, with weights.
#[derive(Debug, Default, PartialEq)]
pub struct Enabled {
    pub pre_enqueue: Vec<(String, i64)>,
    pub filter: Vec<(String, i64)>,
    pub post_filter: Vec<(String, i64)>,
    pub score: Vec<(String, i64)>,
    pub pre_bind: Vec<(String, i64)>,
}

/// The defaults with the user's changes.
pub fn merge(mut given: Plugins) -> Plugins {
    let enabled = DEFAULTS.iter().map(|(name, weight)| Plugin { name: (*name).to_owned(), weight: *weight }).collect();
    let defaults = PluginSet { enabled, disabled: Vec::new() };
    let custom = given.0.remove(MULTI_POINT).unwrap_or_default();
    let disabled: BTreeSet<&str> = custom.disabled.iter().map(|p| p.name.as_str()).collect();
    let mut replaced = BTreeSet::new();
    let mut merged = Vec::new();
    for default in defaults.enabled.into_iter().filter(|p| !disabled.contains("*") && !disabled.contains(p.name.as_str())) {
        // A default that is enabled again keeps its place.
        match custom.enabled.iter().position(|p| p.name == default.name) {
            Some(at) => {
                replaced.insert(at);
                merged.push(custom.enabled[at].clone());
            }
            None => merged.push(default),
        }
    }
    merged.extend(custom.enabled.iter().enumerate().filter(|(i, _)| !replaced.contains(i)).map(|(_, p)| p.clone()));
    given.0.insert(MULTI_POINT.to_owned(), PluginSet { enabled: merged, disabled: custom.disabled });
    given
}

pub fn expand(plugins: &Plugins) -> Result<Enabled, String> {
    let none = PluginSet::default();
    let set = |point: &str| plugins.0.get(point).unwrap_or(&none);
    if let Some(unknown) = plugins.0.keys().find(|k| *k != MULTI_POINT && !POINTS.iter().any(|(point, _)| point == k)) {
        return Err(format!("unknown extension point {unknown:?}"));
    }
    let is_known = |name: &str| DEFAULTS.iter().any(|(known, _)| *known == name);
    let all = plugins.0.values().flat_map(|set| &set.enabled);
    if let Some(unknown) = all.into_iter().find(|p| !is_known(&p.name)) {
        return Err(format!("plugin {:?} does not exist", unknown.name));
    }
    let of = |point: &str| -> Result<Vec<(String, i64)>, String> {
        let able = POINTS.iter().find(|(p, _)| *p == point).map_or(&[][..], |(_, able)| able);
        let PluginSet { enabled, disabled } = set(point);
        if let Some(wrong) = enabled.iter().find(|p| !able.contains(&p.name.as_str())) {
            return Err(format!("plugin {:?} does not extend {point} plugin", wrong.name));
        }
        let multi = &set(MULTI_POINT).enabled;
        let weight = |p: &Plugin| {
            let shared = multi.iter().find(|m| m.name == p.name).and_then(|m| m.weight);
            p.weight.filter(|w| *w != 0).or(shared.filter(|w| *w != 0)).unwrap_or(1)
        };
        let is_disabled = |name: &str| disabled.iter().any(|d| d.name == name || d.name == "*");
        let named = |name: &str| enabled.iter().any(|p| p.name == name);
        // First what is named here and everywhere, then what is named everywhere, then the rest.
        let shared = multi.iter().filter(|p| able.contains(&p.name.as_str()) && !is_disabled(&p.name));
        let (overriding, rest): (Vec<_>, Vec<_>) = enabled.iter().partition(|p| multi.iter().any(|m| m.name == p.name));
        let ordered = overriding.into_iter().chain(shared.filter(|p| !named(&p.name))).chain(rest);
        let mut seen = BTreeSet::new();
        let mut result = Vec::new();
        for plugin in ordered {
            if !seen.insert(plugin.name.as_str()) {
                return Err(format!("plugin {:?} already registered as {point}", plugin.name));
            }
            result.push((plugin.name.clone(), weight(plugin)));
        }
        Ok(result)
    };
    match of("queueSort")?.len() {
        0 => return Err("at least one queue sort plugin is needed".to_owned()),
        1 => {}
        _ => return Err("only one queue sort plugin required for profile".to_owned()),
    }
    if of("bind")?.is_empty() {
        return Err("at least one bind plugin is needed".to_owned());
    }
    for (point, _) in POINTS {
        of(point)?;
    }
    Ok(Enabled {
        pre_enqueue: of("preEnqueue")?,
        filter: of("filter")?,
        post_filter: of("postFilter")?,
        score: of("score")?,
        pre_bind: of("preBind")?,
    })
}
