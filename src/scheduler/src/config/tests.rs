use super::*;
use crate::preemption::PreemptionArgs;

fn parse(text: &str) -> Result<SchedulerConfig, String> {
    let head = format!("apiVersion: {API_VERSION}\nkind: KubeSchedulerConfiguration\n");
    SchedulerConfig::parse(&(head + text)).map_err(|e| e.to_string())
}

fn profiles(text: &str) -> Vec<Profile> {
    parse(text).unwrap_or_else(|e| panic!("{e}")).profiles(&Default::default())
}

fn scores(profile: &Profile) -> String {
    profile.scores.iter().map(|(s, w)| format!("{}={w}", s.name())).collect::<Vec<_>>().join(" ")
}

fn filters(profile: &Profile) -> Vec<&str> {
    profile.filters.iter().map(|f| f.name()).collect()
}

#[test]
fn the_defaults_are_upstreams() {
    let profiles = profiles("");
    let [only] = profiles.as_slice() else { panic!() };
    assert_eq!(only.scheduler_name, "default-scheduler");
    assert_eq!(filters(only), plugins::FILTERS);
    assert_eq!(
        scores(only),
        "TaintToleration=3 NodeAffinity=2 NodeResourcesFit=1 VolumeBinding=1 PodTopologySpread=2 InterPodAffinity=2 DynamicResources=2 \
         NodeResourcesBalancedAllocation=1 ImageLocality=1",
    );
    assert!(only.gates && only.binds_devices && only.preemption == Some(PreemptionArgs::default()));
    assert_eq!(only.binds_volumes, Some(Duration::from_secs(600)));
}

#[test]
fn plugins_are_switched_and_weighed_by_profile() {
    let profiles = profiles(
        "profiles:
- schedulerName: default-scheduler
- schedulerName: packing
  percentageOfNodesToScore: 30
  plugins:
    multiPoint:
      disabled: [{name: DefaultPreemption}, {name: ImageLocality}]
    score:
      disabled: [{name: PodTopologySpread}]
      enabled: [{name: NodeResourcesFit, weight: 7}]
    filter:
      disabled: [{name: NodePorts}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 2}]}
  - name: InterPodAffinity
    args: {apiVersion: kubescheduler.config.k8s.io/v1, kind: InterPodAffinityArgs, hardPodAffinityWeight: 10}",
    );
    let [plain, packing] = profiles.as_slice() else { panic!() };
    assert!(plain.preemption.is_some() && packing.preemption.is_none());
    assert_eq!((plain.percentage, packing.percentage), (0, 30));
    assert!(!filters(packing).contains(&"NodePorts") && filters(packing).contains(&"PodTopologySpread"));
    assert_eq!(
        scores(packing),
        "NodeResourcesFit=7 TaintToleration=3 NodeAffinity=2 VolumeBinding=1 InterPodAffinity=2 DynamicResources=2 \
         NodeResourcesBalancedAllocation=1",
    );
}

#[test]
fn all_can_be_switched_off_but_what_binds_and_sorts() {
    let all = "profiles:\n- plugins:\n    multiPoint: {disabled: [{name: '*'}]";
    assert_eq!(
        parse(&format!("{all}}}")).err().unwrap(),
        "initializing profiles: creating profile for scheduler name default-scheduler: at least one queue sort plugin is needed",
    );
    let some = profiles(&format!("{all}, enabled: [{{name: PrioritySort}}, {{name: DefaultBinder}}, {{name: NodeName}}]}}"));
    assert_eq!((filters(&some[0]), some[0].scores.len(), some[0].gates), (vec!["NodeName"], 0, false));
}

#[test]
fn what_is_wrong_is_named_as_upstream_names_it() {
    let wrong = |text: &str| parse(text).err().unwrap_or_default();
    assert_eq!(wrong("percentageOfNodesToScore: 101"), "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]");
    assert_eq!(wrong("podMaxBackoffSeconds: 0").lines().count(), 1);
    assert_eq!(
        wrong("profiles: [{schedulerName: a}, {schedulerName: a}]"),
        "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\""
    );
    assert!(wrong("profile: []").contains("unknown field `profile`"));
    assert!(
        wrong("profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]").contains("plugin \"NodeName\" does not extend score plugin")
    );
    assert!(wrong("profiles: [{plugins: {filter: {enabled: [{name: Mine}]}}}]").contains("plugin \"Mine\" does not exist"));
    assert!(
        wrong("profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {x: 1}}]}]").contains("decoding args for plugin NodeResourcesFit")
    );
    let extenders = "extenders: [{urlPrefix: 'http://a', prioritizeVerb: p}, {urlPrefix: 'http://b', bindVerb: b}, {urlPrefix: 'http://c', bindVerb: b}]";
    assert_eq!(
        wrong(extenders),
        "[extenders[0].weight: Invalid value: 0: must have a positive weight applied to it, extenders: Invalid value: \
         \"found 2 extenders implementing bind\": only one extender can implement bind]",
    );
    assert!(SchedulerConfig::parse("kind: Pod\napiVersion: v1").is_err());
}

#[test]
fn durations_are_read_as_go_writes_them() {
    let of = |text| duration(Some(text)).map(|d| d.as_millis());
    assert_eq!([of("5s"), of("1m30s"), of("250ms"), of("0"), of("5"), of("x")], [Some(5000), Some(90_000), Some(250), Some(0), None, None]);
}
