//! `rk check`: what a cluster needs of the machine, each with the way to get it.
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use network::{Backend, Probed};

use crate::exit::Exit;

struct Finding {
    what: String,
    /// Nothing where all is well.
    fault: Option<String>,
    /// A cluster runs without it, with less.
    optional: bool,
}

impl Finding {
    fn is_missing(&self) -> bool {
        self.fault.is_some() && !self.optional
    }
}

pub fn main() -> ExitCode {
    let findings = findings(Some(Backend::default()), None);
    for finding in &findings {
        match &finding.fault {
            None => println!("ok       {}", finding.what),
            Some(fault) if finding.optional => println!("warning  {}: {fault}", finding.what),
            Some(fault) => println!("missing  {}: {fault}", finding.what),
        }
    }
    if findings.iter().any(Finding::is_missing) { Exit::Unavailable.into() } else { Exit::Success.into() }
}

/// All without which no node can run here, each with the way to get it. `backend`: how it is to reach the others, where that is known.
pub fn missing(backend: Option<Backend>) -> Vec<String> {
    // Of an agent that has yet to be told, what every backend needs.
    let missing = findings(backend, Some(backend.unwrap_or(Backend::HostGw))).into_iter().filter(Finding::is_missing);
    missing.map(|f| format!("{}: {}", f.what, f.fault.unwrap_or_default())).collect()
}

fn findings(backend: Option<Backend>, haste: Option<Backend>) -> Vec<Finding> {
    let mut list = Vec::new();
    let mut add = |what: &str, optional, fault: Option<String>| list.push(Finding { what: what.to_owned(), fault, optional });
    add("root", false, (!rustix::process::geteuid().is_root()).then(|| "run rk as root (sudo rk ...)".to_owned()));
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    add("Linux 5.15 or newer", false, kernel_fault(&release));
    add("overlay file system", false, overlay_fault());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    for controller in ["memory", "cpu", "pids"] {
        let fix = format!("no hierarchy has it; on a Raspberry Pi add cgroup_memory=1 cgroup_enable={controller} to /boot/firmware/cmdline.txt and restart");
        add(&format!("cgroup controller {controller}"), false, (!has_controller(&mounts, &controllers, controller)).then_some(fix));
    }
    for (what, file, option) in [
        ("network namespaces", "/proc/self/ns/net", "CONFIG_NET_NS"),
        ("pid namespaces", "/proc/self/ns/pid", "CONFIG_PID_NS"),
        ("cgroup namespaces", "/proc/self/ns/cgroup", "CONFIG_CGROUPS"),
        ("seccomp filters", "/proc/sys/kernel/seccomp/actions_avail", "CONFIG_SECCOMP_FILTER"),
    ] {
        add(what, false, fs::metadata(file).is_err().then(|| format!("this kernel was built without {option}")));
    }
    match network::probe(haste) {
        Ok(probed) => {
            for probed in probed {
                add(probed.feature, is_optional(&probed, backend), probed.fault.as_ref().map(|fault| network_fix(&probed, fault)));
            }
        }
        Err(error) => add("the pod network", false, Some(error.to_string())),
    }
    let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 6443));
    let busy = port.err().filter(|e| e.kind() == std::io::ErrorKind::AddrInUse);
    add("port 6443", true, busy.map(|_| "in use (by a running rk server?); choose another with --https-listen-port".to_owned()));
    list
}

/// Asked of the kernel itself, which loads the module if there is one.
fn overlay_fault() -> Option<String> {
    match rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(rustix::io::Errno::NODEV) => Some("load it: modprobe overlay (kernel option CONFIG_OVERLAY_FS)".to_owned()),
        // Whatever else is wrong is said by what is checked beside it.
        _ => None,
    }
}

fn has_controller(mountinfo: &str, v2_controllers: &str, controller: &str) -> bool {
    let v2 = mountinfo.contains(" - cgroup2 ") && v2_controllers.split_whitespace().any(|c| c == controller);
    let of_v1 = |line: &str| line.split_once(" - cgroup ").is_some_and(|(_, tail)| tail.split([' ', ',']).any(|o| o == controller));
    v2 || mountinfo.lines().any(of_v1)
}

/// Links that another backend uses are no loss.
fn is_optional(probed: &Probed, backend: Option<Backend>) -> bool {
    let own = match probed.module {
        "vxlan" => Backend::Vxlan,
        "wireguard" => Backend::Wireguard,
        _ => return probed.optional,
    };
    backend != Some(own)
}

fn network_fix(probed: &Probed, fault: &str) -> String {
    match (probed.module, probed.option) {
        ("", _) => fault.to_owned(),
        (module, option) => {
            let other = if probed.optional { ", or choose another --network-backend" } else { "" };
            format!("{fault}; load it: modprobe {module} (kernel option {option}){other}")
        }
    }
}

fn kernel_fault(release: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    (found < (5, 15)).then(|| format!("this is {release}; install a newer kernel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_in_either_version() {
        let v1 = "36 31 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n";
        assert!(has_controller(v1, "", "cpu") && !has_controller(v1, "", "memory") && !has_controller(v1, "memory", "memory"));
        let v2 = "41 31 0:37 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(has_controller(v2, "cpu memory\n", "memory") && !has_controller(v2, "cpu\n", "memory"));
    }

    #[test]
    fn what_is_missing_comes_with_its_fix_and_only_the_own_backend_counts() {
        let probed = |module, option, optional| Probed { feature: "it", module, option, optional, fault: Some("Operation not supported".to_owned()) };
        let veth = probed("veth", "CONFIG_VETH", false);
        assert_eq!(network_fix(&veth, "no"), "no; load it: modprobe veth (kernel option CONFIG_VETH)");
        let vxlan = probed("vxlan", "CONFIG_VXLAN", true);
        assert!(network_fix(&vxlan, "no").ends_with("or choose another --network-backend"));
        assert!(!is_optional(&veth, None) && !is_optional(&vxlan, Some(Backend::Vxlan)));
        assert!(is_optional(&vxlan, Some(Backend::HostGw)) && is_optional(&vxlan, None));
    }

    #[test]
    fn an_old_kernel_is_named() {
        assert!(kernel_fault("5.10.0-21-amd64").unwrap().contains("5.10.0-21-amd64"));
        assert_eq!(kernel_fault("6.1.0"), None);
        assert_eq!(kernel_fault("5.15.167.4-microsoft"), None);
    }
}
