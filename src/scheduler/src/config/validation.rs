//! What a configuration must not say, in upstream's words (apis/config/validation).
use std::collections::BTreeSet;

use api::field_error::{FieldError, aggregate};
use api::names;
use api::tree::Tree;

use super::args::{PluginArgs, ShapePoint};
use super::types::{Document, ExtenderConfig, PluginSet, ProfileDocument};
use crate::resources::is_extended;

const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

fn invalid(path: &str, value: impl Into<Tree>, detail: &str) -> FieldError {
    FieldError::invalid(path, &value.into(), detail)
}

/// All that is wrong, in one text.
pub fn validate(document: &Document, args: &[PluginArgs]) -> Result<(), String> {
    let mut errors = Vec::new();
    if document.parallelism.is_some_and(|p| p <= 0) {
        errors.push(invalid(
            "parallelism",
            i64::from(document.parallelism.unwrap_or_default()),
            "should be an integer value greater than zero",
        ));
    }
    let mut names = Vec::new();
    for (i, (profile, args)) in document.profiles.iter().zip(args).enumerate() {
        let path = format!("profiles[{i}]");
        profile_errors(profile, &path, &mut errors);
        args_errors(profile, args, &path, &mut errors);
        let name = profile.scheduler_name.as_deref().unwrap_or_default();
        if let Some(first) = names.iter().position(|n| *n == name) {
            errors.push(FieldError::duplicate(format!("{path}.schedulerName"), format!("profiles[{first}].schedulerName").as_str()));
        }
        names.push(name);
    }
    percentage(document.percentage_of_nodes_to_score, "percentageOfNodesToScore", &mut errors);
    let initial = document.pod_initial_backoff_seconds.unwrap_or(1);
    if initial <= 0 {
        errors.push(invalid("podInitialBackoffSeconds", initial, "must be greater than 0"));
    }
    let max = document.pod_max_backoff_seconds.unwrap_or(10);
    if max < initial {
        errors.push(invalid("podMaxBackoffSeconds", max, "must be greater than or equal to PodInitialBackoffSeconds"));
    }
    extender_errors(&document.extenders, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(aggregate(&errors)) }
}

fn percentage(given: Option<i32>, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(given) = given.filter(|p| !(0..=100).contains(p)) {
        errors.push(invalid(path, i64::from(given), "not in valid range [0-100]"));
    }
}

fn profile_errors(profile: &ProfileDocument, path: &str, errors: &mut Vec<FieldError>) {
    if profile.scheduler_name.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(format!("{path}.schedulerName"), ""));
    }
    percentage(profile.percentage_of_nodes_to_score, &format!("{path}.percentageOfNodesToScore"), errors);
    let removed = "was invalid in version \"kubescheduler.config.k8s.io/v1\" (KubeSchedulerConfiguration is version \"kubescheduler.config.k8s.io/v1\")";
    let sets = profile.plugins.iter().flat_map(|p| &p.0);
    for (point, PluginSet { enabled, .. }) in sets {
        for (i, plugin) in enabled.iter().enumerate().filter(|(_, p)| REMOVED.contains(&p.name.as_str())) {
            errors.push(invalid(&format!("{path}.plugins.{point}.enabled[{i}]"), plugin.name.as_str(), removed));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, config) in profile.plugin_config.iter().enumerate() {
        let path = format!("{path}.pluginConfig[{i}]");
        if !seen.insert(config.name.as_str()) {
            errors.push(FieldError::duplicate(path.clone(), config.name.as_str()));
        }
        if REMOVED.contains(&config.name.as_str()) {
            errors.push(invalid(&path, config.name.as_str(), removed));
        }
    }
}

fn args_errors(profile: &ProfileDocument, args: &PluginArgs, path: &str, errors: &mut Vec<FieldError>) {
    let at = |name: &str| {
        let i = profile.plugin_config.iter().position(|c| c.name == name).unwrap_or_default();
        format!("{path}.pluginConfig[{i}].args")
    };
    let preemption = at("DefaultPreemption");
    if !(0..=100).contains(&args.candidates_percent) {
        errors.push(invalid(&format!("{preemption}.minCandidateNodesPercentage"), args.candidates_percent, "not in valid range [0, 100]"));
    }
    if args.candidates < 0 {
        errors.push(invalid(&format!("{preemption}.minCandidateNodesAbsolute"), args.candidates, "not in valid range [0, inf)"));
    }
    if args.candidates == 0 && args.candidates_percent == 0 {
        let other = |name: &str| format!("cannot be zero at the same time as {name}");
        errors.push(invalid(&format!("{preemption}.minCandidateNodesPercentage"), 0, &other("minCandidateNodesAbsolute")));
        errors.push(invalid(&format!("{preemption}.minCandidateNodesAbsolute"), 0, &other("minCandidateNodesPercentage")));
    }
    if !(0..=100).contains(&args.hard_weight) {
        let path = format!("{}.hardPodAffinityWeight", at("InterPodAffinity"));
        errors.push(invalid(&path, args.hard_weight, "not in valid range [0, 100]"));
    }
    if args.bind_timeout_seconds < 0 {
        let detail = "invalid BindTimeoutSeconds, should not be a negative value";
        errors.push(invalid(&format!("{}.bindTimeoutSeconds", at("VolumeBinding")), args.bind_timeout_seconds, detail));
    }
    shape_errors(&args.volume_shape_given, &format!("{}.shape", at("VolumeBinding")), errors);
    weights(&args.balanced, &format!("{}.resources", at("NodeResourcesBalancedAllocation")), errors);
    fit_errors(args, &at("NodeResourcesFit"), errors);
    spread_errors(args, &at("PodTopologySpread"), errors);
}

fn weights(resources: &[(String, i64)], path: &str, errors: &mut Vec<FieldError>) {
    for (i, (name, weight)) in resources.iter().enumerate().filter(|(_, (_, w))| !(1..=100).contains(w)) {
        let detail = format!("resource weight of {name} not in valid range (0, 100]");
        errors.push(invalid(&format!("{path}[{i}].weight"), *weight, &detail));
    }
}

fn shape_errors(shape: &[ShapePoint], path: &str, errors: &mut Vec<FieldError>) {
    if shape.is_empty() {
        errors.push(FieldError::required(path.to_owned(), "at least one point must be specified"));
    }
    if let Some(i) = (1..shape.len()).find(|i| shape[i - 1].utilization >= shape[*i].utilization) {
        let path = format!("{path}[{i}].utilization");
        errors.push(invalid(&path, shape[i].utilization, "values must be sorted in increasing order"));
    }
    for (i, point) in shape.iter().enumerate() {
        if !(0..=100).contains(&point.utilization) {
            errors.push(invalid(&format!("{path}[{i}].utilization"), point.utilization, "not in valid range [0, 100]"));
        }
        if !(0..=10).contains(&point.score) {
            errors.push(invalid(&format!("{path}[{i}].score"), point.score, "not in valid range [0, 10]"));
        }
    }
}

fn fit_errors(args: &PluginArgs, path: &str, errors: &mut Vec<FieldError>) {
    for (i, name) in args.fit.ignored_resources.iter().enumerate() {
        let texts = names::qualified_name(name);
        errors.extend(texts.iter().map(|t| invalid(&format!("{path}.ignoredResources[{i}]"), name.as_str(), t)));
    }
    for (i, group) in args.fit.ignored_resource_groups.iter().enumerate().filter(|(_, g)| g.contains('/')) {
        let path = format!("{path}.ignoredResourceGroups[{i}]");
        errors.push(invalid(&path, group.as_str(), "resource group name can't contain '/'"));
    }
    let Some(strategy) = &args.fit.scoring_strategy else { return };
    let path = format!("{path}.scoringStrategy");
    let types = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
    if !types.contains(&strategy.type_.as_str()) {
        errors.push(FieldError::not_supported(format!("{path}.type"), strategy.type_.as_str(), &types));
    }
    let given: Vec<_> = strategy.resources.iter().map(|r| (r.name.clone(), if r.weight == 0 { 1 } else { r.weight })).collect();
    weights(&given, &format!("{path}.resources"), errors);
    let ratio_path = format!("{path}.requestedToCapacityRatio");
    match (&strategy.requested_to_capacity_ratio, strategy.type_ == "RequestedToCapacityRatio") {
        (Some(ratio), true) => shape_errors(&ratio.shape, &format!("{ratio_path}.shape"), errors),
        (None, true) => errors.push(FieldError::required(ratio_path, "must be specified when type is RequestedToCapacityRatio")),
        (Some(_), false) => errors.push(FieldError::forbidden(ratio_path, "must be nil when type is not RequestedToCapacityRatio")),
        (None, false) => {}
    }
}

fn spread_errors(args: &PluginArgs, path: &str, errors: &mut Vec<FieldError>) {
    let given = &args.spread.default_constraints;
    let type_path = format!("{path}.defaultingType");
    match args.spread.defaulting_type.as_str() {
        "" | "System" if !given.is_empty() => {
            errors.push(invalid(&type_path, "System", "when .defaultConstraints are not empty"));
        }
        "" | "System" | "List" => {}
        other => errors.push(FieldError::not_supported(type_path, other, &["System", "List"])),
    }
    for (i, constraint) in given.iter().enumerate() {
        let path = format!("{path}.defaultConstraints[{i}]");
        if constraint.max_skew <= 0 {
            errors.push(invalid(&format!("{path}.maxSkew"), i64::from(constraint.max_skew), "not in valid range (0, inf)"));
        }
        if constraint.topology_key.is_empty() {
            errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty"));
        }
        match constraint.when_unsatisfiable.as_str() {
            "" => errors.push(FieldError::required(format!("{path}.whenUnsatisfiable"), "can not be empty")),
            "DoNotSchedule" | "ScheduleAnyway" => {}
            other => {
                let path = format!("{path}.whenUnsatisfiable");
                errors.push(FieldError::not_supported(path, other, &["DoNotSchedule", "ScheduleAnyway"]));
            }
        }
        if constraint.label_selector.is_some() {
            let detail = "constraint must not define a selector, as they deduced for each pod";
            errors.push(FieldError::forbidden(format!("{path}.labelSelector"), detail));
        }
        let same = |c: &&k8s_openapi::api::core::v1::TopologySpreadConstraint| {
            c.topology_key == constraint.topology_key && c.when_unsatisfiable == constraint.when_unsatisfiable
        };
        if given[..i].iter().any(|c| same(&c)) {
            let value = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            errors.push(FieldError::duplicate(path, value.as_str()));
        }
    }
}

fn extender_errors(extenders: &[ExtenderConfig], errors: &mut Vec<FieldError>) {
    let mut managed = BTreeSet::new();
    for (i, extender) in extenders.iter().enumerate() {
        let path = format!("extenders[{i}]");
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            errors.push(invalid(&format!("{path}.weight"), extender.weight, "must have a positive weight applied to it"));
        }
        if super::duration(extender.http_timeout.as_deref()).is_none() {
            let given = extender.http_timeout.as_deref().unwrap_or_default();
            errors.push(invalid(&format!("{path}.httpTimeout"), given, "must be a duration such as 5s"));
        }
        for (j, resource) in extender.managed_resources.iter().enumerate() {
            let path = format!("{path}.managedResources[{j}].name");
            let name = resource.name.as_str();
            let texts = names::qualified_name(name);
            errors.extend(texts.iter().map(|t| invalid(&path, name, t)));
            if texts.is_empty() && !is_extended(name) {
                errors.push(invalid(&path, name, "is an invalid extended resource name"));
            }
            if !managed.insert(name) {
                errors.push(invalid(&path, name, "duplicate extender managed resource name"));
            }
        }
    }
    let binders = extenders.iter().filter(|e| !e.bind_verb.is_empty()).count();
    if binders > 1 {
        let value = format!("found {binders} extenders implementing bind");
        errors.push(invalid("extenders", value.as_str(), "only one extender can implement bind"));
    }
}
