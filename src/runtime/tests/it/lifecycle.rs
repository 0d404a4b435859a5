use runtime::{ContainerState, Event, Error, SandboxState, Signal};

use crate::lab::{run, within};

#[test]
fn a_container_runs_logs_and_exits() {
    run(async |lab| {
        let sandbox = lab.sandbox("a").await;
        assert!(sandbox.netns_path.as_ref().unwrap().exists());
        let spec = lab.shell("c", "echo out; echo err >&2; printf no-newline; exit 7");
        let started = lab.runtime.start_container(&sandbox.id, spec).await.unwrap();
        assert!(started.pid > 0);
        let exit = within(lab.runtime.wait(&lab.id("c"))).await.unwrap();
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
        let mut log = lab.log("a", "c");
        log.sort();
        assert_eq!(log, ["stderr F err", "stdout F out", "stdout P no-newline"]);
        match within(lab.events.recv()).await.unwrap() {
            Event::ContainerExited { sandbox, container, exit } => {
                assert_eq!((sandbox, container, exit.code), (lab.id("a"), lab.id("c"), 7));
            }
            other => panic!("{other:?}"),
        }
        let listed = lab.runtime.list().await;
        assert_eq!((listed.len(), listed[0].state, listed[0].containers.len()), (1, SandboxState::Ready, 1));
        assert_eq!(listed[0].labels["pod"], "a");
        assert!(matches!(listed[0].containers[0].state, ContainerState::Exited { .. }));
        lab.runtime.remove_container(&lab.id("c")).await.unwrap();
        assert!(lab.runtime.list().await[0].containers.is_empty());
        lab.runtime.remove_sandbox(&sandbox.id).await.unwrap();
        lab.runtime.remove_sandbox(&sandbox.id).await.unwrap();
        assert!(lab.runtime.list().await.is_empty());
    });
}

#[test]
fn signals_reach_the_first_process_and_kill_all() {
    run(async |lab| {
        lab.sandbox("a").await;
        let spec = lab.shell("c", "trap 'echo got it; exit 3' TERM; echo ready; while true; do sleep 0.05; done");
        lab.runtime.start_container(&lab.id("a"), spec).await.unwrap();
        within(async {
            while !lab.log("a", "c").contains(&"stdout F ready".to_owned()) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        lab.runtime.signal(&lab.id("c"), Signal::TERM).await.unwrap();
        assert_eq!(within(lab.runtime.wait(&lab.id("c"))).await.unwrap().code, 3);
        assert!(matches!(lab.runtime.signal(&lab.id("c"), Signal::TERM).await, Err(Error::NotRunning { .. })));

        let spec = lab.shell("k", "sleep 1000 & sleep 1000");
        lab.runtime.start_container(&lab.id("a"), spec).await.unwrap();
        lab.runtime.kill(&lab.id("k")).await.unwrap();
        let exit = within(lab.runtime.wait(&lab.id("k"))).await.unwrap();
        assert_eq!((exit.code, exit.signal), (137, Some(9)));
    });
}

#[test]
fn a_stopped_sandbox_keeps_its_records_only() {
    run(async |lab| {
        let sandbox = lab.sandbox("a").await;
        lab.runtime.start_container(&sandbox.id, lab.program("c", &["sleep", "1000"])).await.unwrap();
        within(lab.runtime.stop_sandbox(&sandbox.id)).await.unwrap();
        within(lab.runtime.stop_sandbox(&sandbox.id)).await.unwrap();
        assert!(!sandbox.netns_path.unwrap().exists());
        let listed = lab.runtime.list().await;
        assert_eq!(listed[0].state, SandboxState::Stopped);
        assert!(matches!(&listed[0].containers[0].state, ContainerState::Exited { exit, .. } if exit.code == 137));
        assert!(lab.runtime.start_container(&sandbox.id, lab.program("d", &["true"])).await.is_err());
    });
}

#[test]
fn a_pod_shares_network_name_and_memory_but_not_processes() {
    run(async |lab| {
        lab.sandbox_with("a", |spec| {
            spec.sysctls = [("net.core.somaxconn".to_owned(), "77".to_owned())].into();
        })
        .await;
        let script = "hostname; cat /proc/sys/net/core/somaxconn; echo $$; ls /sys/class/net; echo hi > /dev/shm/x; \
                      readlink /proc/self/ns/net";
        let (_, first) = lab.run_to_end("a", "one", lab.shell("one", script)).await;
        assert_eq!(first[..4], ["stdout F pod-host", "stdout F 77", "stdout F 1", "stdout F lo"]);
        let script = "cat /dev/shm/x; readlink /proc/self/ns/net; stat -f -c %b*%S /dev/shm";
        let (_, second) = lab.run_to_end("a", "two", lab.shell("two", script)).await;
        assert_eq!(second[0], "stdout F hi");
        assert_eq!(second[1], first[4], "one network namespace");
        assert_eq!(second[2], "stdout F 16384*4096", "64 MiB");
        let host = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_ne!(first[4], format!("stdout F {}", host.display()));
    });
}

#[test]
fn a_shared_pid_namespace_has_a_reaper_of_ours() {
    run(async |lab| {
        lab.sandbox_with("a", |spec| spec.share_pid = true).await;
        lab.runtime.start_container(&lab.id("a"), lab.program("s", &["sleep", "999"])).await.unwrap();
        let script = "ps -o pid,args | grep -c 'sleep 99[9]'; test $$ != 1 && cat /proc/1/comm; ls /proc/1/root || echo hidden";
        let (_, log) = lab.run_to_end("a", "c", lab.shell("c", script)).await;
        assert!(log.contains(&"stdout F 1".to_owned()), "{log:?}");
        assert!(log.contains(&"stdout F init".to_owned()), "{log:?}");
        assert!(log.contains(&"stdout F hidden".to_owned()), "{log:?}");
        lab.runtime.kill(&lab.id("s")).await.unwrap();
        assert_eq!(within(lab.runtime.wait(&lab.id("s"))).await.unwrap().signal, Some(9));
    });
}

#[test]
fn host_namespaces_are_the_hosts() {
    run(async |lab| {
        let handle = lab
            .sandbox_with("a", |spec| {
                (spec.host_network, spec.host_pid, spec.host_ipc) = (true, true, true);
                spec.hostname = String::new();
            })
            .await;
        assert!(handle.netns_path.is_none());
        let script = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done";
        let (_, log) = lab.run_to_end("a", "c", lab.shell("c", script)).await;
        for (line, name) in log.iter().zip(["net", "pid", "ipc", "uts"]) {
            let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert_eq!(*line, format!("stdout F {}", host.display()));
        }
    });
}
