//! The arguments of plugins, with upstream's defaults.
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity as TypedAffinity, TopologySpreadConstraint};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::types::ProfileDocument;
use crate::dra::ExtendedResources;
use crate::plugins::{InterPodAffinity, NodeAffinity, NodeResourcesFit, PodTopologySpread, Strategy, topology_defaults};
use crate::pod::SpreadConstraint;
use crate::preemption::PreemptionArgs;

/// Scores of shapes are given up to ten.
const SHAPE_SCORE_MAX: i64 = 10;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceSpec {
    pub name: String,
    #[serde(default)]
    pub weight: i64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapePoint {
    pub utilization: i64,
    pub score: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ratio {
    pub shape: Vec<ShapePoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScoringStrategy {
    #[serde(rename = "type")]
    pub type_: String,
    pub resources: Vec<ResourceSpec>,
    pub requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FitArgs {
    pub ignored_resources: Vec<String>,
    pub ignored_resource_groups: Vec<String>,
    pub scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SpreadArgs {
    pub default_constraints: Vec<TopologySpreadConstraint>,
    pub defaulting_type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct BalancedArgs {
    resources: Vec<ResourceSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct VolumeArgs {
    bind_timeout_seconds: Option<i64>,
    shape: Vec<ShapePoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct AffinityArgs {
    added_affinity: Option<TypedAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PodAffinityArgs {
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DefaultPreemptionArgs {
    min_candidate_nodes_percentage: Option<i64>,
    min_candidate_nodes_absolute: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DeviceArgs {
    filter_timeout: Option<String>,
    binding_timeout: Option<String>,
}

/// What the plugins of one profile are told. Numbers that validation looks at are kept as given.
pub struct PluginArgs {
    pub fit: FitArgs,
    pub spread: SpreadArgs,
    pub balanced: Vec<(String, i64)>,
    pub volume_shape_given: Vec<ShapePoint>,
    pub volume_shape: Vec<(i64, i64)>,
    pub bind_timeout_seconds: i64,
    pub bind_timeout: Duration,
    added_affinity: TypedAffinity,
    pub hard_weight: i64,
    ignore_preferred: bool,
    pub candidates_percent: i64,
    pub candidates: i64,
    pub preemption: PreemptionArgs,
}

/// The arguments of one plugin; their kind and version need not be written.
fn read<T: DeserializeOwned + Default>(profile: &ProfileDocument, name: &str) -> Result<T, String> {
    let Some(config) = profile.plugin_config.iter().find(|c| c.name == name) else { return Ok(T::default()) };
    let mut args = config.args.clone();
    if let Value::Object(fields) = &mut args {
        if let Some(kind) = fields.remove("kind").filter(|kind| *kind != format!("{name}Args")) {
            return Err(format!("decoding args for plugin {name}: args for plugin {name} were not of type {name}Args, got {kind}"));
        }
        fields.remove("apiVersion");
    }
    match args {
        Value::Null => Ok(T::default()),
        args => serde_json::from_value(args).map_err(|e| format!("decoding args for plugin {name}: {e}")),
    }
}

fn weighted(given: &[ResourceSpec]) -> Vec<(String, i64)> {
    match given {
        [] => vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)],
        _ => given.iter().map(|r| (r.name.clone(), if r.weight == 0 { 1 } else { r.weight })).collect(),
    }
}

fn shape(points: &[ShapePoint]) -> Vec<(i64, i64)> {
    points.iter().map(|p| (p.utilization, p.score * (crate::plugins::SCORE_MAX / SHAPE_SCORE_MAX))).collect()
}

impl PluginArgs {
    pub fn of(profile: &ProfileDocument) -> Result<Self, String> {
        let volume: VolumeArgs = read(profile, "VolumeBinding")?;
        let balanced: BalancedArgs = read(profile, "NodeResourcesBalancedAllocation")?;
        let affinity: AffinityArgs = read(profile, "NodeAffinity")?;
        let pods: PodAffinityArgs = read(profile, "InterPodAffinity")?;
        let preemption: DefaultPreemptionArgs = read(profile, "DefaultPreemption")?;
        let _: DeviceArgs = read(profile, "DynamicResources")?;
        let emptier_first = vec![ShapePoint { utilization: 0, score: SHAPE_SCORE_MAX }, ShapePoint { utilization: 100, score: 0 }];
        let volume_shape_given = if volume.shape.is_empty() { emptier_first } else { volume.shape };
        let bind_timeout_seconds = volume.bind_timeout_seconds.unwrap_or(600);
        let candidates_percent = preemption.min_candidate_nodes_percentage.unwrap_or(10);
        let candidates = preemption.min_candidate_nodes_absolute.unwrap_or(100);
        let count = |n: i64| usize::try_from(n).unwrap_or_default();
        Ok(Self {
            fit: read(profile, "NodeResourcesFit")?,
            spread: read(profile, "PodTopologySpread")?,
            balanced: weighted(&balanced.resources),
            volume_shape: shape(&volume_shape_given),
            volume_shape_given,
            bind_timeout_seconds,
            bind_timeout: Duration::from_secs(u64::try_from(bind_timeout_seconds).unwrap_or_default()),
            added_affinity: affinity.added_affinity.unwrap_or_default(),
            hard_weight: pods.hard_pod_affinity_weight.unwrap_or(1),
            ignore_preferred: pods.ignore_preferred_terms_of_existing_pods,
            candidates_percent,
            candidates,
            preemption: PreemptionArgs { candidates_percent_min: count(candidates_percent), candidates_min: count(candidates) },
        })
    }

    pub fn fit(&self, devices: Arc<ExtendedResources>) -> NodeResourcesFit {
        let strategy = self.fit.scoring_strategy.as_ref();
        NodeResourcesFit {
            ignored_resources: self.fit.ignored_resources.clone(),
            ignored_groups: self.fit.ignored_resource_groups.clone(),
            resources: weighted(strategy.map(|s| s.resources.as_slice()).unwrap_or_default()),
            strategy: match strategy.map(|s| s.type_.as_str()) {
                Some("MostAllocated") => Strategy::MostAllocated,
                Some("RequestedToCapacityRatio") => {
                    let points = strategy.and_then(|s| s.requested_to_capacity_ratio.as_ref());
                    Strategy::RequestedToCapacityRatio(shape(points.map(|r| r.shape.as_slice()).unwrap_or_default()))
                }
                _ => Strategy::LeastAllocated,
            },
            devices,
        }
    }

    pub fn node_affinity(&self) -> NodeAffinity {
        NodeAffinity {
            added_required: self.added_affinity.required_during_scheduling_ignored_during_execution.clone(),
            added_preferred: self.added_affinity.preferred_during_scheduling_ignored_during_execution.clone().unwrap_or_default(),
        }
    }

    pub fn inter_pod_affinity(&self) -> InterPodAffinity {
        InterPodAffinity { hard_weight: self.hard_weight, ignore_preferred_of_placed: self.ignore_preferred }
    }

    pub fn topology_spread(&self) -> PodTopologySpread {
        if self.spread.defaulting_type != "List" {
            return PodTopologySpread { defaults: topology_defaults(), system_defaults: true };
        }
        let given = self.spread.default_constraints.iter().map(|c| SpreadConstraint {
            topology_key: c.topology_key.clone(),
            max_skew: c.max_skew,
            min_domains: c.min_domains.unwrap_or(1),
            hard: c.when_unsatisfiable == "DoNotSchedule",
            selector: api::selector::LabelSelector::nothing(),
            honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        });
        PodTopologySpread { defaults: given.collect(), system_defaults: false }
    }
}
