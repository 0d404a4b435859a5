use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use runtime::{ContainerState, Error, Event, Runtime, SandboxSpec, SandboxState};

use crate::lab::{Lab, config, run, within};

/// A process that makes a sandbox with two containers and then waits to be killed: argv is the lab's name and directory.
pub fn daemon() -> ! {
    let arguments: Vec<String> = std::env::args().collect();
    let (name, directory) = (arguments[1].clone(), PathBuf::from(&arguments[2]));
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let runtime = Runtime::open(config(&name, &directory.join("other"))).await.expect("open");
        let spec = SandboxSpec {
            id: format!("{name}-d"),
            hostname: "h".into(),
            cgroup_parent: "kubepods/d".into(),
            log_dir: Some(directory.join("logs/d")),
            ..SandboxSpec::default()
        };
        runtime.create_sandbox(spec).await.expect("create");
        for (suffix, script) in [("long", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.01; done"), ("short", "sleep 1; exit 6")] {
            let layers = directory.join("layers").join(suffix);
            let (upper, work) = (layers.join("upper"), layers.join("work"));
            std::fs::create_dir_all(&upper).unwrap();
            std::fs::create_dir_all(&work).unwrap();
            let rootfs = runtime::Rootfs::Overlay { lower: vec![directory.join("lower")], upper, work };
            let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
            let mut spec = runtime::ContainerSpec::new(format!("{name}-{suffix}"), rootfs, argv);
            spec.log_path = Some(format!("{suffix}.log").into());
            runtime.start_container(&format!("{name}-d"), spec).await.expect("start");
        }
        println!("ready");
        std::future::pending::<()>().await;
    });
    unreachable!("it waits for ever")
}

async fn reopened(lab: &mut Lab) {
    // The old one goes first: a state directory belongs to one runtime.
    let other = config(&format!("{}-idle", lab.name), &lab.directory.join("idle"));
    let idle = Runtime::open(other).await.unwrap();
    drop(std::mem::replace(&mut lab.runtime, idle.clone()));
    // A process that another test starts just now has a copy of the lock until it executes its program.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    lab.runtime = loop {
        match Runtime::open(config(&lab.name, &lab.directory)).await {
            Ok(again) => break again,
            Err(runtime::Error::System { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock && end > std::time::Instant::now() => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(error) => panic!("open again: {error:?}"),
        }
    };
    lab.events = lab.runtime.events();
    idle.teardown_all().await.unwrap();
}

#[test]
fn a_new_runtime_takes_over_what_runs() {
    run(async |lab| {
        lab.sandbox("a").await;
        let started = lab.runtime.start_container(&lab.id("a"), lab.program("run", &["sleep", "1000"])).await.unwrap();
        lab.runtime.start_container(&lab.id("a"), lab.shell("end", "sleep 0.3; exit 4")).await.unwrap();
        reopened(lab).await;
        let listed = lab.runtime.list().await;
        assert_eq!((listed.len(), listed[0].state), (1, SandboxState::Ready));
        let state = |suffix: &str| {
            let id = lab.id(suffix);
            listed[0].containers.iter().find(|container| container.id == id).unwrap().state.clone()
        };
        assert_eq!(state("run"), ContainerState::Running(started));
        assert_eq!(within(lab.runtime.wait(&lab.id("end"))).await.unwrap().code, 4);
        assert!(matches!(within(lab.events.recv()).await, Some(Event::ContainerExited { exit, .. }) if exit.code == 4));
        let output = within(lab.runtime.exec_sync(&lab.id("run"), vec!["echo".into(), "still".into()], None, 100)).await.unwrap();
        assert_eq!(output.stdout, b"still\n");
        // Ended and told, then found again on disk and told again.
        reopened(lab).await;
        assert!(matches!(within(lab.events.recv()).await, Some(Event::ContainerExited { exit, .. }) if exit.code == 4));
        let error = Runtime::open(config(&lab.name, &lab.directory)).await.err().unwrap();
        assert!(error.to_string().starts_with("lock "), "two at once are refused: {error}");
    });
}

#[test]
fn killing_rk_harms_no_container_and_loses_no_line() {
    run(async |lab| {
        let mut child = Command::new("/proc/self/exe")
            .arg0("rk-test-daemon")
            .args([lab.name.as_str(), lab.directory.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        child.kill().unwrap();
        child.wait().unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let runtime = Runtime::open(config(&lab.name, &lab.directory.join("other"))).await.unwrap();
        let mut events = runtime.events();
        let id = lab.id("short");
        match within(events.recv()).await.unwrap() {
            Event::ContainerExited { container, exit, .. } => assert_eq!((container, exit.code), (id, 6)),
            other => panic!("{other:?}"),
        }
        let count = || lab.log("d", "long").len();
        let before = count();
        assert!(before > 50, "it went on writing: {before}");
        let output = within(runtime.exec_sync(&lab.id("long"), vec!["hostname".into()], None, 100)).await.unwrap();
        assert_eq!(output.stdout, b"h\n");
        within(runtime.remove_sandbox(&lab.id("d"))).await.unwrap();
        let log = lab.log("d", "long");
        assert!((0..log.len()).all(|n| log[n] == format!("stdout F {n}")), "{:?}", log.last());
        runtime.teardown_all().await.unwrap();
    });
}

fn shim_of(lab: &Lab, suffix: &str) -> i32 {
    let wanted = format!("/state/{}", lab.id(suffix));
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        if arguments.starts_with("rk-shim\0") && arguments.contains(&wanted) {
            found.push(pid);
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

#[test]
fn a_sandbox_without_its_shim_is_lost_and_killed() {
    run(async |lab| {
        lab.sandbox("a").await;
        let started = lab.runtime.start_container(&lab.id("a"), lab.program("c", &["sleep", "1000"])).await.unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(shim_of(lab, "a")).unwrap(), rustix::process::Signal::KILL).unwrap();
        assert_eq!(within(lab.events.recv()).await, Some(Event::SandboxLost { id: lab.id("a") }));
        // Whoever inherited it reaps it sooner or later: dead it is.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", started.pid)).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z") || stat.contains(") X"), "{stat}");
        let listed = lab.runtime.list().await;
        assert_eq!(listed[0].state, SandboxState::Lost);
        assert!(matches!(listed[0].containers[0].state, ContainerState::Unknown { .. }));
        assert!(matches!(lab.runtime.wait(&lab.id("c")).await, Err(Error::Lost { .. })));
        lab.runtime.remove_sandbox(&lab.id("a")).await.unwrap();

        // The same while nobody looks.
        lab.sandbox("b").await;
        lab.runtime.start_container(&lab.id("b"), lab.program("d", &["sleep", "1000"])).await.unwrap();
        let shim = shim_of(lab, "b");
        let other = config(&format!("{}-idle", lab.name), &lab.directory.join("idle"));
        let idle = Runtime::open(other).await.unwrap();
        drop(std::mem::replace(&mut lab.runtime, idle.clone()));
        rustix::process::kill_process(rustix::process::Pid::from_raw(shim).unwrap(), rustix::process::Signal::KILL).unwrap();
        lab.runtime = Runtime::open(config(&lab.name, &lab.directory)).await.unwrap();
        lab.events = lab.runtime.events();
        idle.teardown_all().await.unwrap();
        assert_eq!(within(lab.events.recv()).await, Some(Event::SandboxLost { id: lab.id("b") }));
    });
}

#[test]
fn what_was_half_made_is_torn_down() {
    run(async |lab| {
        lab.sandbox("a").await;
        lab.runtime.start_container(&lab.id("a"), lab.program("c", &["sleep", "1000"])).await.unwrap();
        std::fs::remove_file(lab.directory.join("state").join(lab.id("a")).join("ready")).unwrap();
        std::fs::create_dir_all(lab.directory.join("run/stray")).unwrap();
        reopened(lab).await;
        assert!(lab.runtime.list().await.is_empty());
        assert!(!lab.directory.join("run").join(lab.id("a")).exists());
        assert!(!lab.directory.join("run/stray").exists());
    });
}

#[test]
fn a_shim_does_not_grow_or_leak() {
    run(async |lab| {
        lab.sandbox("a").await;
        lab.runtime.start_container(&lab.id("a"), lab.program("c", &["sleep", "1000"])).await.unwrap();
        let shim = shim_of(lab, "a");
        let descriptors = || std::fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
        let mut before = 0;
        for turn in 0..30 {
            let suffix = format!("t{turn}");
            let (exit, _) = lab.run_to_end("a", &suffix, lab.program(&suffix, &["true"])).await;
            assert_eq!(exit.code, 0);
            lab.runtime.remove_container(&lab.id(&suffix)).await.unwrap();
            within(lab.runtime.exec_sync(&lab.id("c"), vec!["true".into()], None, 10)).await.unwrap();
            if turn == 5 || turn == 29 {
                // An order that comes after the news of the last end: by now the shim has let go of all that ended.
                lab.runtime.reopen_log(&lab.id("c")).await.unwrap();
            }
            if turn == 5 {
                before = descriptors();
            }
        }
        assert_eq!(descriptors(), before);
        let threads = std::fs::read_dir(format!("/proc/{shim}/task")).unwrap().count();
        assert_eq!(threads, 1);
    });
}
