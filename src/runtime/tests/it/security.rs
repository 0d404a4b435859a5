use runtime::{Capabilities, ContainerSpec, Mount, MountKind, Propagation, Seccomp, User};

use crate::lab::{Lab, run};

async fn output(lab: &Lab, suffix: &str, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> Vec<String> {
    let mut spec = lab.shell(suffix, script);
    change(&mut spec);
    let (_, log) = lab.run_to_end("a", suffix, spec).await;
    log.into_iter().map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned()).collect()
}

fn field<'a>(status: &'a [String], key: &str) -> &'a str {
    status.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t")).unwrap_or_else(|| panic!("{key} in {status:#?}"))
}

#[test]
fn ids_capabilities_and_filters_are_as_planned() {
    run(async |lab| {
        lab.sandbox("a").await;
        let status = output(lab, "root", "cat /proc/self/status", |_| {}).await;
        assert_eq!(field(&status, "CapEff"), "00000000a80425fb");
        assert_eq!(field(&status, "CapBnd"), "00000000a80425fb");
        assert_eq!(field(&status, "CapInh"), "0000000000000000");
        assert_eq!(field(&status, "CapAmb"), "0000000000000000");
        assert_eq!((field(&status, "Seccomp"), field(&status, "NoNewPrivs")), ("2", "0"));
        // Without a shell between, which has signals of its own mind.
        let (_, log) = lab.run_to_end("a", "direct", lab.program("direct", &["cat", "/proc/self/status"])).await;
        for key in ["SigIgn", "SigBlk"] {
            assert!(log.contains(&format!("stdout F {key}:\t0000000000000000")), "{log:#?}");
        }
        let status = output(lab, "user", "cat /proc/self/status; id", |spec| {
            spec.user = User { uid: 1000, gid: 2000, supplementary: vec![3000, 4000] };
            spec.no_new_privileges = true;
        })
        .await;
        assert_eq!((field(&status, "Uid"), field(&status, "Gid")), ("1000\t1000\t1000\t1000", "2000\t2000\t2000\t2000"));
        assert_eq!(field(&status, "Groups").trim(), "3000 4000");
        assert_eq!((field(&status, "CapEff"), field(&status, "CapPrm")), ("0000000000000000", "0000000000000000"));
        assert_eq!((field(&status, "Seccomp"), field(&status, "NoNewPrivs")), ("2", "1"));
        let status = output(lab, "none", "cat /proc/self/status", |spec| {
            spec.capabilities = Capabilities::NONE;
            spec.seccomp = Seccomp::Unconfined;
        })
        .await;
        assert_eq!((field(&status, "CapEff"), field(&status, "CapBnd")), ("0000000000000000", "0000000000000000"));
        assert_eq!(field(&status, "Seccomp"), "0");
        let status = output(lab, "priv", "cat /proc/self/status; touch /sys/fs/cgroup/pids/x; ls /dev | wc -l", |spec| {
            spec.privileged = true;
        })
        .await;
        assert_eq!(field(&status, "Seccomp"), "0");
        let host = std::fs::read_to_string("/proc/self/status").unwrap();
        let all = host.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
        assert_eq!(field(&status, "CapEff"), all);
    });
}

#[test]
fn the_filter_refuses_what_docker_refuses() {
    run(async |lab| {
        lab.sandbox("a").await;
        let script = "unshare -U true; unshare -m true; mount -t tmpfs x /tmp; echo done";
        let lines = output(lab, "c", script, |spec| spec.capabilities = Capabilities::default()).await;
        assert_eq!(lines.iter().filter(|line| line.contains("ermission") || line.contains("not permitted")).count(), 3, "{lines:?}");
    });
}

#[test]
fn devices_masks_and_read_only_places_hold() {
    run(async |lab| {
        lab.sandbox("a").await;
        let script = "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; \
            echo 1 > /proc/sys/kernel/printk || echo sys-ro; echo b > /proc/sysrq-trigger || echo sysrq-ro; \
            touch /sys/x || echo sysfs-ro; mkdir /sys/fs/cgroup/memory/x || echo cgroup-ro; \
            mknod /tmp/disk b 254 0; cat /tmp/disk || echo no-disk; \
            mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg || echo no-kmsg; \
            echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
            ls -1 /dev; ls /proc/self/fd | wc -l";
        let lines = output(lab, "c", script, |_| {}).await;
        for expected in ["sys-ro", "sysrq-ro", "sysfs-ro", "cgroup-ro", "no-disk", "no-kmsg"] {
            assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:#?}");
        }
        assert_eq!(lines.iter().filter(|line| *line == "0").count(), 2, "masked: {lines:#?}");
        let nodes = ["core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"];
        for node in nodes {
            assert!(lines.iter().any(|line| line == node), "{node}: {lines:#?}");
        }
        assert_eq!(lines.last().unwrap(), "4", "0, 1, 2 and the directory itself");
    });
}

#[test]
fn a_read_only_root_is_read_only_and_volumes_are_not() {
    run(async |lab| {
        lab.sandbox("a").await;
        let volume = lab.directory.join("volume");
        std::fs::create_dir_all(volume.join("inside")).unwrap();
        std::fs::write(volume.join("file"), "content\n").unwrap();
        let script = "touch /x || echo root-ro; touch /data/new && echo data-rw; touch /ro/x || echo ro-ro; cat /etc/file; \
                      ls /sub/path; touch /var/run/tmpfs/x && stat -f -c %T /var/run/tmpfs; cat /proc/mounts";
        let change = |spec: &mut ContainerSpec| {
            spec.read_only_root = true;
            spec.mounts = vec![
                Mount::bind(&volume, "/data"),
                Mount { read_only: true, propagation: Propagation::HostToContainer, ..Mount::bind(&volume, "/ro") },
                Mount::bind(volume.join("file"), "/etc/file"),
                Mount { sub_path: Some("made/here".into()), ..Mount::bind(&volume, "/sub/path") },
                Mount { kind: MountKind::Tmpfs { size_bytes: Some(1 << 20), mode: 0o1777 }, ..Mount::bind("", "/var/run/tmpfs") },
            ];
        };
        let lines = output(lab, "c", script, change).await;
        for expected in ["root-ro", "data-rw", "ro-ro", "content", "tmpfs"] {
            assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:#?}");
        }
        assert!(volume.join("new").exists() && volume.join("made/here").is_dir());
        // The link in the image led to its own /run, not the host's.
        assert!(!std::path::Path::new("/run/tmpfs").exists());
        assert!(lines.iter().any(|line| line.contains(" /run/tmpfs tmpfs ")), "{lines:#?}");
    });
}

#[test]
fn links_of_images_and_volumes_lead_nowhere() {
    run(async |lab| {
        lab.sandbox("a").await;
        let volume = lab.directory.join("volume");
        std::fs::create_dir_all(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("escape")).unwrap();
        let mut spec = lab.program("s", &["true"]);
        spec.mounts = vec![Mount { sub_path: Some("escape".into()), ..Mount::bind(&volume, "/data") }];
        let error = lab.runtime.start_container(&lab.id("a"), spec).await.unwrap_err();
        assert!(error.to_string().starts_with("mount /data"), "{error}");
        // An image whose /proc is a link to a place of its own.
        for name in ["proc", "sys", "dev"] {
            let lower = lab.directory.join(format!("evil-{name}"));
            std::fs::create_dir_all(lower.join("bin")).unwrap();
            std::fs::copy(lab.directory.join("lower/bin/busybox"), lower.join("bin/sh")).unwrap();
            std::os::unix::fs::symlink("/tmp", lower.join(name)).unwrap();
            let mut spec = lab.shell(&format!("e{name}"), "true");
            let runtime::Rootfs::Overlay { lower: layers, .. } = &mut spec.rootfs else { unreachable!() };
            *layers = vec![lower];
            let error = lab.runtime.start_container(&lab.id("a"), spec).await.unwrap_err();
            assert_eq!(error.to_string(), format!("mount /{name}: it is not a real directory in the image"));
        }
        // A destination through a link to the host's /etc ends in the container's.
        let mut spec = lab.shell("l", "cat /proc/mounts");
        spec.mounts = vec![Mount::bind(&volume, "/link/../etc/volume")];
        let (_, log) = lab.run_to_end("a", "l", spec).await;
        assert!(log.iter().any(|line| line.contains(" /etc/volume ")), "{log:#?}");
        assert!(!std::path::Path::new("/etc/volume").exists());
    });
}

#[test]
fn surroundings_are_clean() {
    run(async |lab| {
        lab.sandbox("a").await;
        let lines = output(lab, "c", "env; pwd; umask; cat /proc/self/cgroup; echo o > /dev/stdout", |spec| {
            spec.env = vec!["A=1".into()];
            spec.cwd = "/made/up".into();
            spec.user.uid = 1234;
        })
        .await;
        for expected in ["A=1", "HOSTNAME=pod-host", "HOME=/", "/made/up", "0022", "o"] {
            assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:#?}");
        }
        assert!(lines.iter().any(|line| line.starts_with("PATH=/usr/local/sbin:")));
        assert!(lines.iter().filter(|line| line.contains(":memory:") || line.contains(":pids:")).all(|line| line.ends_with(":/")), "{lines:#?}");
    });
}
