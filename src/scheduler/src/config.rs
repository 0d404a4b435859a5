//! KubeSchedulerConfiguration, version kubescheduler.config.k8s.io/v1.
//!
//! Models pkg/scheduler/apis/config (v1/defaults.go, v1/default_plugins.go, validation), v1.37. What has no meaning inside one process
//! (client connection, leader election, health ports) is read and left aside.
mod args;
mod plugins;
#[cfg(test)]
mod tests;
mod types;
mod validation;

use std::sync::Arc;
use std::time::Duration;

use self::args::PluginArgs;
use self::plugins::{Enabled, expand, merge};
use self::types::{Document, ProfileDocument};
pub use self::types::{ExtenderConfig, ExtenderTls};
use crate::dra::ExtendedResources;
use crate::plugins::{
    Filter, ImageLocality, NodeName, NodePorts, NodeResourcesBalancedAllocation, NodeResourcesFit, NodeUnschedulable, NodeVolumeLimits,
    Score, TaintToleration, VolumeBinding, VolumeRestrictions, VolumeZone,
};
use crate::profile::Profile;
use crate::queue::Backoff;

pub const DEFAULT_NAME: &str = "default-scheduler";
pub const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("parse the scheduler's configuration: {0}")]
    Syntax(String),
    #[error("the scheduler's configuration must be of kind KubeSchedulerConfiguration, {API_VERSION}, and is {kind}, {api_version}")]
    Kind { kind: String, api_version: String },
    #[error("{0}")]
    Invalid(String),
}

/// A configuration that has been checked, defaults filled in.
pub struct SchedulerConfig {
    profiles: Vec<ProfileConfig>,
    pub backoff: Backoff,
    pub extenders: Vec<ExtenderConfig>,
}

struct ProfileConfig {
    name: String,
    percentage: i32,
    enabled: Enabled,
    args: PluginArgs,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self::of(Document::default()).expect("the defaults are valid")
    }
}

impl SchedulerConfig {
    /// Parses YAML or JSON; unknown fields are refused.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let parsed = api::codec::parse_yaml(text.as_bytes()).map_err(|e| ConfigError::Syntax(e.to_string()))?;
        let document: Document = parsed.tree.to_typed().map_err(|e| ConfigError::Syntax(e.to_string()))?;
        if document.kind != "KubeSchedulerConfiguration" || document.api_version != API_VERSION {
            return Err(ConfigError::Kind { kind: document.kind, api_version: document.api_version });
        }
        Self::of(document)
    }

    fn of(mut document: Document) -> Result<Self, ConfigError> {
        if document.profiles.is_empty() {
            document.profiles.push(ProfileDocument::default());
        }
        if let [only] = document.profiles.as_mut_slice() {
            only.scheduler_name.get_or_insert_with(|| DEFAULT_NAME.to_owned());
        }
        let args = document.profiles.iter().map(PluginArgs::of).collect::<Result<Vec<_>, _>>().map_err(ConfigError::Syntax)?;
        validation::validate(&document, &args).map_err(ConfigError::Invalid)?;
        let global = document.percentage_of_nodes_to_score.unwrap_or_default();
        let mut profiles = Vec::new();
        for (profile, args) in document.profiles.into_iter().zip(args) {
            let name = profile.scheduler_name.unwrap_or_default();
            let enabled = expand(&merge(profile.plugins.unwrap_or_default()))
                .map_err(|e| ConfigError::Invalid(format!("initializing profiles: creating profile for scheduler name {name}: {e}")))?;
            let percentage = profile.percentage_of_nodes_to_score.unwrap_or(global);
            profiles.push(ProfileConfig { name, percentage, enabled, args });
        }
        let seconds = |given: Option<i64>, default| Duration::from_secs(given.and_then(|s| u64::try_from(s).ok()).unwrap_or(default));
        let backoff =
            Backoff { initial: seconds(document.pod_initial_backoff_seconds, 1), max: seconds(document.pod_max_backoff_seconds, 10) };
        Ok(Self { profiles, backoff, extenders: document.extenders })
    }

    /// Resources that no plugin checks, because an extender does.
    fn ignored_by_extenders(&self) -> impl Iterator<Item = String> + '_ {
        let managed = self.extenders.iter().flat_map(|e| &e.managed_resources);
        managed.filter(|r| r.ignored_by_scheduler).map(|r| r.name.clone())
    }

    /// The profiles with their plugins; `devices` says which extended resources device classes offer.
    pub fn profiles(&self, devices: &Arc<ExtendedResources>) -> Vec<Profile> {
        let ignored: Vec<String> = self.ignored_by_extenders().collect();
        let make = |p: &ProfileConfig| {
            let point = |names: &[(String, i64)], name: &str| names.iter().any(|(n, _)| n == name);
            let fit = || {
                let mut fit = p.args.fit(devices.clone());
                fit.ignored_resources.extend(ignored.clone());
                fit
            };
            let filters = p.enabled.filter.iter().filter_map(|(name, _)| filter(name, &p.args, &fit)).collect();
            let scores = p.enabled.score.iter().filter_map(|(name, weight)| Some((score(name, &p.args, &fit)?, *weight))).collect();
            Profile {
                scheduler_name: p.name.clone(),
                filters,
                scores,
                gates: point(&p.enabled.pre_enqueue, "SchedulingGates"),
                preemption: point(&p.enabled.post_filter, "DefaultPreemption").then_some(p.args.preemption),
                binds_volumes: point(&p.enabled.pre_bind, "VolumeBinding").then_some(p.args.bind_timeout),
                binds_devices: point(&p.enabled.pre_bind, "DynamicResources"),
                percentage: p.percentage,
            }
        };
        self.profiles.iter().map(make).collect()
    }
}

fn filter(name: &str, args: &PluginArgs, fit: &dyn Fn() -> NodeResourcesFit) -> Option<Arc<dyn Filter>> {
    Some(match name {
        "NodeName" => Arc::new(NodeName),
        "NodeUnschedulable" => Arc::new(NodeUnschedulable),
        "TaintToleration" => Arc::new(TaintToleration),
        "NodeAffinity" => Arc::new(args.node_affinity()),
        "NodePorts" => Arc::new(NodePorts),
        "NodeResourcesFit" => Arc::new(fit()),
        "VolumeRestrictions" => Arc::new(VolumeRestrictions),
        "NodeVolumeLimits" => Arc::new(NodeVolumeLimits),
        "VolumeBinding" => Arc::new(VolumeBinding { shape: args.volume_shape.clone() }),
        "VolumeZone" => Arc::new(VolumeZone),
        "PodTopologySpread" => Arc::new(args.topology_spread()),
        "InterPodAffinity" => Arc::new(args.inter_pod_affinity()),
        "DynamicResources" => Arc::new(crate::dra::DynamicResources),
        _ => return None,
    })
}

fn score(name: &str, args: &PluginArgs, fit: &dyn Fn() -> NodeResourcesFit) -> Option<Arc<dyn Score>> {
    Some(match name {
        "TaintToleration" => Arc::new(TaintToleration),
        "NodeAffinity" => Arc::new(args.node_affinity()),
        "NodeResourcesFit" => Arc::new(fit()),
        "VolumeBinding" => Arc::new(VolumeBinding { shape: args.volume_shape.clone() }),
        "PodTopologySpread" => Arc::new(args.topology_spread()),
        "InterPodAffinity" => Arc::new(args.inter_pod_affinity()),
        "NodeResourcesBalancedAllocation" => Arc::new(NodeResourcesBalancedAllocation { resources: args.balanced.clone() }),
        "ImageLocality" => Arc::new(ImageLocality),
        "DynamicResources" => Arc::new(crate::dra::DynamicResources),
        _ => return None,
    })
}

/// A duration as Go writes it, such as `1m30s`; `None` where it is none. Nothing at all is zero.
pub fn duration(text: Option<&str>) -> Option<Duration> {
    let mut rest = text.unwrap_or("0").trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit_at);
        let (factor, unit) =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)].into_iter().find_map(
                |(unit, factor)| (after.starts_with(unit) && !(unit == "m" && after.starts_with("ms"))).then_some((factor, unit)),
            )?;
        total += number.parse::<f64>().ok()? * factor;
        rest = &after[unit.len()..];
    }
    (total >= 0.0 && !text?.is_empty()).then(|| Duration::from_secs_f64(total))
}
