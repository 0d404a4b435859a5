//! The hub: the bridge between the machines, in a network namespace that leads nowhere else.
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cgroup;
use crate::machine::{detach, joined};
use crate::shell::wait;
use crate::state::{HUB, Process, State};

/// With forwarding, addresses outside are refused at once (no route) instead of swallowed; each refusal is sent.
const SETUP: &str = "set -e
ip link set lo up
ip link add br0 type bridge
ip addr add \"$1/24\" dev br0
ip link set br0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
exec python3 -c \"$2\" \"$3\"";

pub fn start(state: &State) -> Result<Process> {
    let folder = state.data.join(HUB);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    cgroup::create(&state.name, HUB)?;
    let (_, leaf) = cgroup::joins(&state.name, HUB)?;
    let (ready, log) = (folder.join("ready"), folder.join("hub.log"));
    let gateway = state.gateway().to_string();
    let words = ["setsid", "unshare", "--net", "sh", "-c", SETUP, "sh", &gateway, include_str!("scripts/refuse.py")];
    let mut command = joined(&leaf, words);
    command.arg(&ready).stdin(Stdio::null());
    let pid = detach(command, &log)?;
    wait("the hub", Duration::from_secs(60), || {
        ensure!(ready.exists(), "it says: {}", fs::read_to_string(&log).unwrap_or_default());
        Process::new(pid)
    })
}
