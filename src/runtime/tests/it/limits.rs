use runtime::{Error, Resources};

use crate::lab::{run, within};

#[test]
fn a_container_out_of_memory_says_so() {
    run(async |lab| {
        lab.sandbox("a").await;
        let mut spec = lab.shell("c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived");
        spec.resources.memory_limit_bytes = Some(32 << 20);
        let (exit, log) = lab.run_to_end("a", "c", spec).await;
        assert!(exit.oom_killed, "{exit:?} {log:?}");
        assert!(!log.contains(&"stdout F survived".to_owned()));
        let (exit, _) = lab.run_to_end("a", "d", lab.program("d", &["false"])).await;
        assert!(!exit.oom_killed && exit.code == 1);
    });
}

#[test]
fn limits_are_in_force_and_can_be_changed() {
    run(async |lab| {
        lab.sandbox("a").await;
        let mut spec = lab.shell("c", "sleep 1000");
        spec.resources = Resources {
            memory_limit_bytes: Some(64 << 20),
            pids_limit: Some(20),
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            ..Resources::default()
        };
        let id = spec.id.clone();
        lab.runtime.start_container(&lab.id("a"), spec).await.unwrap();
        let stats = lab.runtime.stats(&id).await.unwrap();
        assert_eq!(stats.memory_limit_bytes, Some(64 << 20));
        assert!(stats.pids >= 1 && stats.memory_usage_bytes > 0, "{stats:?}");
        assert!(lab.runtime.sandbox_stats(&lab.id("a")).await.unwrap().pids >= stats.pids);
        for limit in [128i64 << 20, 48 << 20] {
            let change = Resources { memory_limit_bytes: Some(limit), cpu_quota_us: Some(25_000), ..Resources::default() };
            lab.runtime.update_resources(&id, &change).await.unwrap();
            assert_eq!(lab.runtime.stats(&id).await.unwrap().memory_limit_bytes, Some(limit as u64));
        }
        let forks = vec!["sh".into(), "-c".into(), "for i in $(seq 40); do sleep 5 & done; echo no".into()];
        let output = within(lab.runtime.exec_sync(&id, forks, None, 4096)).await.unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("can't fork"), "{output:?}");
        lab.runtime.kill(&id).await.unwrap();
        within(lab.runtime.wait(&id)).await.unwrap();
        assert!(matches!(lab.runtime.stats(&id).await, Err(Error::NotRunning { .. })));
        lab.runtime.set_cgroup("kubepods/burstable", &Resources { cpu_shares: Some(100), ..Resources::default() }).await.unwrap();
    });
}
