use super::*;

#[test]
fn keyed_values_need_the_whole_key() {
    let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
    assert_eq!(keyed(text, "oom_kill"), Some(3));
    assert_eq!(keyed(text, "oom"), None);
}

/// Another thread is in the middle of making the parent: it exists in every hierarchy, and nothing is in it yet. On hosts without v1
/// all that is to be seen is that both are made.
#[test]
fn a_group_below_a_parent_that_is_still_empty_takes_processes() {
    let cgroups = Cgroups::detect().expect("this host has cgroups");
    let base = format!("rk-test-half-made-{}", std::process::id());
    for hierarchy in &cgroups.hierarchies {
        fs::create_dir(hierarchy.mount.join(&base)).expect("the test runs as root");
    }
    let group = format!("{base}/pod");
    let made = cgroups.create(&group);
    let texts: Vec<String> = ["cpuset.cpus", "cpuset.mems"]
        .into_iter()
        .filter_map(|file| cgroups.v1("cpuset").map(|h| fs::read_to_string(h.mount.join(&group).join(file)).unwrap_or_default()))
        .collect();
    let there = cgroups.hierarchies.iter().all(|h| h.mount.join(&group).is_dir());
    cgroups.remove(&base, Duration::from_secs(10)).expect("nothing lives in it");
    made.expect("the group is made");
    assert!(there);
    assert!(texts.iter().all(|text| !text.trim().is_empty()), "an empty cpuset refuses every process: {texts:?}");
}
