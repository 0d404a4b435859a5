//! `rk check`: what a cluster needs of the machine, each with the way to get it.
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use crate::exit::Exit;

struct Finding {
    what: &'static str,
    /// Nothing where all is well.
    fault: Option<String>,
    /// A cluster runs without it, with less.
    optional: bool,
}

pub fn main() -> ExitCode {
    let findings = findings();
    for finding in &findings {
        match &finding.fault {
            None => println!("ok       {}", finding.what),
            Some(fault) if finding.optional => println!("warning  {}: {fault}", finding.what),
            Some(fault) => println!("missing  {}: {fault}", finding.what),
        }
    }
    if missing(&findings).is_some() { Exit::Unavailable.into() } else { Exit::Success.into() }
}

/// The first thing without which no cluster can run here.
pub fn first_missing() -> Option<String> {
    missing(&findings()).map(|f| format!("{}: {}", f.what, f.fault.as_deref().unwrap_or_default()))
}

fn missing(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().find(|f| f.fault.is_some() && !f.optional)
}

fn findings() -> Vec<Finding> {
    let mut list = Vec::new();
    let mut add = |what, optional, fault: Option<String>| list.push(Finding { what, fault, optional });
    add("root", false, (!rustix::process::geteuid().is_root()).then(|| "run rk as root (sudo rk ...)".to_owned()));
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    add("Linux 5.15 or newer", false, kernel_fault(&release));
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| filesystems.lines().any(|l| l.split_whitespace().last() == Some(name));
    add("overlay file system", false, (!has("overlay")).then(|| "load it: modprobe overlay (kernel option CONFIG_OVERLAY_FS)".to_owned()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let v2 = mounts.contains(" - cgroup2 ");
    let v1 = |controller: &str| mounts.lines().any(|l| l.contains(" - cgroup ") && l.rsplit(',').any(|o| o == controller) || l.contains(&format!("/{controller} ")));
    for (what, controller) in [("cgroup controller memory", "memory"), ("cgroup controller cpu", "cpu"), ("cgroup controller pids", "pids")] {
        let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let there = v2 && controllers.split_whitespace().any(|c| c == controller) || v1(controller);
        let fix = format!("no hierarchy has it; on a Raspberry Pi add cgroup_memory=1 cgroup_enable={controller} to /boot/firmware/cmdline.txt and restart");
        add(what, false, (!there).then_some(fix));
    }
    for (what, file, module) in [
        ("network namespaces", "/proc/self/ns/net", "CONFIG_NET_NS"),
        ("pid namespaces", "/proc/self/ns/pid", "CONFIG_PID_NS"),
        ("cgroup namespaces", "/proc/self/ns/cgroup", "CONFIG_CGROUPS"),
        ("seccomp filters", "/proc/sys/kernel/seccomp/actions_avail", "CONFIG_SECCOMP_FILTER"),
    ] {
        add(what, false, fs::metadata(file).is_err().then(|| format!("this kernel was built without {module}")));
    }
    add("bridges, veth, VXLAN and nf_tables", false, network::probe().err().map(|e| format!("{e}; load the modules: modprobe -a bridge veth vxlan nf_tables nft_chain_nat nft_masq nft_fib_ipv4 nft_numgen")));
    let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 6443));
    let busy = port.err().filter(|e| e.kind() == std::io::ErrorKind::AddrInUse);
    add("port 6443", true, busy.map(|_| "in use (by a running rk server?); choose another with --https-listen-port".to_owned()));
    list
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
    fn an_old_kernel_is_named() {
        assert!(kernel_fault("5.10.0-21-amd64").unwrap().contains("5.10.0-21-amd64"));
        assert_eq!(kernel_fault("6.1.0"), None);
        assert_eq!(kernel_fault("5.15.167.4-microsoft"), None);
    }
}
