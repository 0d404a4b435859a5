//! A machine's way to the others, and what can be done to it.
//!
//! Cuts and losses are rules of the `netdev` family on the hub's end, so that both sides see packets vanish while the link stays up.
//! Delays are a relay between link and bridge: kernels without sch_netem can do them too.
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine::{alive, detach, enter, inside};
use crate::shell::{output, wait};
use crate::state::{HUB, Machine, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing passes; the link seems up.
    Cut,
    /// As it was made, but for the address.
    Restore,
    /// Each packet takes this long, either way.
    Delay { milliseconds: u32 },
    /// This share of packets vanishes, either way.
    Loss { percent: u8 },
    /// The machine has another address.
    Address { address: Ipv4Addr },
}

/// The hub's end of a machine's link.
fn hub_end(machine: &str) -> String {
    format!("v-{machine}")
}

/// Joins a machine to the bridge.
pub fn join(state: &State, machine: &Machine) -> Result<()> {
    let (end, pid) = (hub_end(&machine.name), alive(machine)?.to_string());
    in_hub(state, &["ip", "link", "add", &end, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
    in_hub(state, &["ip", "link", "set", &end, "master", "br0", "up"])?;
    in_machine(state, machine, &["ip", "link", "set", "eth0", "up"])?;
    address(state, machine, machine.address)
}

pub fn change(state: &State, machine: &Machine, link: Link) -> Result<()> {
    match link {
        Link::Cut => drop_packets(state, machine, 100),
        Link::Loss { percent } => {
            ensure!(percent <= 100, "a loss is 0 to 100 percent");
            drop_packets(state, machine, percent)
        }
        Link::Delay { milliseconds } => delay(state, machine, milliseconds),
        Link::Address { address: to } => address(state, machine, to),
        Link::Restore => {
            restore_path(state, machine)?;
            drop_packets(state, machine, 0)
        }
    }
}

fn address(state: &State, machine: &Machine, address: Ipv4Addr) -> Result<()> {
    in_machine(state, machine, &["ip", "addr", "flush", "dev", "eth0"])?;
    in_machine(state, machine, &["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    in_machine(state, machine, &["ip", "route", "replace", "default", "via", &state.gateway().to_string()])?;
    Ok(())
}

fn drop_packets(state: &State, machine: &Machine, percent: u8) -> Result<()> {
    in_hub(state, &["nft", &rules(&machine.name, percent)]).map(drop)
}

/// One transaction: the table of this machine as it shall be.
fn rules(machine: &str, percent: u8) -> String {
    let end = hub_end(machine);
    let empty = format!("add table netdev {end}; delete table netdev {end};");
    if percent == 0 {
        return empty;
    }
    let which = if percent == 100 { String::new() } else { format!("numgen random mod 100 < {percent} ") };
    let chain = |name: &str| format!("chain {name} {{ type filter hook {name} device \"{end}\" priority 0; {which}drop; }};");
    format!("{empty} table netdev {end} {{ {} {} }}", chain("ingress"), chain("egress"))
}

/// link - relay - another pair of links - bridge
fn delay(state: &State, machine: &Machine, milliseconds: u32) -> Result<()> {
    restore_path(state, machine)?;
    let (end, near, far) = (hub_end(&machine.name), format!("d-{}", machine.name), format!("b-{}", machine.name));
    in_hub(state, &["ip", "link", "add", &near, "type", "veth", "peer", "name", &far])?;
    in_hub(state, &["ip", "link", "set", &far, "master", "br0", "up"])?;
    // The hub itself must not answer on links that only pass through.
    in_hub(state, &["ip", "link", "set", &near, "arp", "off", "up"])?;
    in_hub(state, &["ip", "link", "set", &end, "nomaster", "arp", "off"])?;
    let folder = state.data.join(HUB);
    let ready = folder.join(format!("{near}.ready"));
    let (wanted, ready_text) = (milliseconds.to_string(), ready.to_string_lossy().into_owned());
    let words = ["setsid", "python3", "-c", include_str!("scripts/relay.py"), &end, &near, &wanted, &ready_text];
    let mut command = enter(state, HUB, words)?;
    command.stdin(Stdio::null());
    let log = folder.join("relay.log");
    let pid = detach(command, &log)?;
    std::fs::write(relay_file(state, machine), pid.to_string()).context("remember the relay")?;
    wait("the relay", Duration::from_secs(20), || {
        ensure!(ready.exists(), "it says: {}", std::fs::read_to_string(&log).unwrap_or_default());
        Ok(())
    })?;
    std::fs::remove_file(&ready).context("forget that the relay is ready")
}

fn relay_file(state: &State, machine: &Machine) -> std::path::PathBuf {
    state.data.join(HUB).join(format!("{}.relay", machine.name))
}

/// The link is a port of the bridge again.
fn restore_path(state: &State, machine: &Machine) -> Result<()> {
    let file = relay_file(state, machine);
    if let Ok(pid) = std::fs::read_to_string(&file) {
        // It reads from links that vanish with it; one that ended already is what is wanted.
        std::process::Command::new("kill").args(["-9", &pid]).output().context("start kill")?;
        in_hub(state, &["ip", "link", "del", &format!("d-{}", machine.name)])?;
        std::fs::remove_file(&file).context("forget the relay")?;
    }
    in_hub(state, &["ip", "link", "set", &hub_end(&machine.name), "arp", "on", "master", "br0"]).map(drop)
}

fn in_hub(state: &State, words: &[&str]) -> Result<String> {
    output(&mut enter(state, HUB, words.iter().copied())?)
}

fn in_machine(state: &State, machine: &Machine, words: &[&str]) -> Result<String> {
    inside(state, &machine.name, words.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_without_losses_has_no_table() {
        assert_eq!(rules("a", 0), "add table netdev v-a; delete table netdev v-a;");
        assert!(rules("a", 30).contains("hook egress device \"v-a\" priority 0; numgen random mod 100 < 30 drop;"));
        assert!(rules("a", 100).contains("priority 0; drop;"));
    }
}
