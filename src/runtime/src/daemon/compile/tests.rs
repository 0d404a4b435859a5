use super::*;

fn sandbox_spec() -> SandboxSpec {
    SandboxSpec { id: "pod".into(), hostname: "h".into(), cgroup_parent: "kubepods/pod".into(), ..SandboxSpec::default() }
}

#[test]
fn sysctls_must_belong_to_a_namespace_of_the_pod() {
    let path = |name: &str| sysctl(name, &sandbox_spec()).map(|path| path.into_string().unwrap()).map_err(|e| e.to_string());
    assert_eq!(path("net.core.somaxconn").unwrap(), "net/core/somaxconn");
    assert_eq!(path("net/ipv4/conf/eth0.100/forwarding").unwrap(), "net/ipv4/conf/eth0.100/forwarding");
    assert_eq!(path("net.ipv4.conf.eth0/100.forwarding").unwrap(), "net/ipv4/conf/eth0.100/forwarding");
    assert_eq!(path("kernel.shmmax").unwrap(), "kernel/shmmax");
    for bad in ["kernel.core_pattern", "net.core.x+kernel.core_pattern=|/x", "net.../kernel.core_pattern", "net", ""] {
        assert!(path(bad).is_err(), "{bad}");
    }
    let host = SandboxSpec { host_network: true, ..sandbox_spec() };
    assert!(sysctl("net.core.somaxconn", &host).is_err());
}

#[test]
fn ids_and_paths_never_lead_elsewhere() {
    for bad in ["", "../x", "a/b", ".hidden", "a\0b", &"x".repeat(129)] {
        assert!(check_id("id", bad).is_err(), "{bad:?}");
    }
    for bad in ["", "/a", "a/../b", "a//b", "."] {
        assert!(check_cgroup(bad).is_err(), "{bad:?}");
    }
    assert_eq!(clean("cwd", Path::new("/a/./b/../../../c")).unwrap(), "c");
    assert!(proc_or_sys("masked_paths", "/etc/shadow").is_err());
    assert!(proc_or_sys("masked_paths", "/proc/../etc").is_err());
    let escape = Mount { sub_path: Some("../x".into()), ..Mount::bind("/v", "/data") };
    assert!(mount(&escape).is_err());
    assert!(mount(&Mount::bind("/v", "/..")).is_err());
}
