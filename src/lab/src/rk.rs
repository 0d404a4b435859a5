//! The rk process of a machine: started, killed, waited for; all by rk's and kubectl's own commands.
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine::{detach, enter, folder, inside};
use crate::plan::Role;
use crate::shell::{output, wait};
use crate::state::{HUB, Machine, State};

/// Time for a server to answer, and for a node to be Ready, on a host that builds and tests at the same time.
const PATIENCE: Duration = Duration::from_secs(180);

/// Says its number, then becomes rk.
const START: &str = "echo $$ > /run/lab/rk.pid; exec \"$@\"";
const KILL: &str = "read -r pid < /run/lab/rk.pid && kill -9 \"$pid\" && while kill -0 \"$pid\" 2>/dev/null; do sleep 0.02; done";

/// Puts the binary on the machine's path.
pub fn install(state: &State, name: &str, binary: &Path) -> Result<()> {
    let binary = binary.to_string_lossy();
    inside(state, name, ["sh", "-c", "mkdir -p /run/lab/bin && ln -sf \"$0\" /run/lab/bin/rk", &binary]).map(drop)
}

/// Writes a file below the machine's /etc/rk.
pub fn configure(state: &State, name: &str, file: &str, text: &str) -> Result<()> {
    inside(state, name, ["sh", "-c", "mkdir -p /etc/rk && printf %s \"$1\" > \"/etc/rk/$0\"", file, text]).map(drop)
}

pub fn server_command(machine: &Machine, more: &[String]) -> Vec<String> {
    let address = machine.address.to_string();
    let words = ["rk", "server", "--node-name", &machine.name, "--node-ip", &address];
    words.into_iter().map(str::to_owned).chain(more.iter().cloned()).collect()
}

pub fn agent_command(machine: &Machine, server: &Machine, token: &str) -> Vec<String> {
    let (url, address) = (format!("https://{}:6443", server.address), machine.address.to_string());
    let words = ["rk", "agent", "join", "--server", &url, "--token", token, "--node-name", &machine.name, "--node-ip", &address];
    words.map(str::to_owned).to_vec()
}

/// The last word of the command that joins.
pub fn token(state: &State, server: &str) -> Result<String> {
    let command = inside(state, server, ["rk", "token", "create"])?;
    Ok(command.split_whitespace().next_back().unwrap_or_default().to_owned())
}

pub fn start(state: &State, machine: &Machine) -> Result<()> {
    ensure!(!machine.command.is_empty(), "machine {} is idle: it has no rk to start", machine.name);
    let words = ["setsid", "sh", "-c", START, "sh"].into_iter().chain(machine.command.iter().map(String::as_str));
    let mut command = enter(state, &machine.name, words)?;
    command.stdin(Stdio::null());
    detach(command, &folder(state, &machine.name).join("rk.log")).map(drop)
}

/// As a crash: only the rk process, not what it started.
pub fn kill(state: &State, name: &str) -> Result<()> {
    inside(state, name, ["sh", "-c", KILL]).with_context(|| format!("kill rk on {name}")).map(drop)
}

/// Waits until the server answers and leaves a kubeconfig that the hub can use.
pub fn wait_for_server(state: &State, server: &Machine) -> Result<()> {
    let log = folder(state, &server.name).join("rk.log");
    wait(&format!("the server {}", server.name), PATIENCE, || {
        let config = inside(state, &server.name, ["cat", "/etc/rk/kubeconfig.yaml"])?;
        std::fs::write(state.kubeconfig(), with_address(&config, &server.address.to_string())).context("write a kubeconfig")?;
        output(&mut enter(state, HUB, ["kubectl", "get", "--raw", "/readyz"])?)
    })
    .with_context(|| format!("its log is {}", log.display()))
    .map(drop)
}

/// The same kubeconfig with the server's address in the place of the host that it names.
fn with_address(kubeconfig: &str, address: &str) -> String {
    let line = |line: &str| match line.split_once("server: https://").and_then(|(head, rest)| Some((head, rest.rsplit_once(':')?.1))) {
        Some((head, port)) => format!("{head}server: https://{address}:{port}\n"),
        None => format!("{line}\n"),
    };
    kubeconfig.lines().map(line).collect()
}

pub fn wait_for_nodes(state: &State) -> Result<()> {
    for machine in state.machines.iter().filter(|m| m.role != Role::Idle) {
        let node = format!("node/{}", machine.name);
        wait(&format!("node {}", machine.name), PATIENCE, || {
            output(&mut enter(state, HUB, ["kubectl", "wait", "--for=condition=Ready", &node, "--timeout=60s"])?)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_gets_the_address_of_the_server() {
        let text = "clusters:\n- cluster:\n    server: https://127.0.0.1:6443\n";
        assert_eq!(with_address(text, "10.99.0.10"), "clusters:\n- cluster:\n    server: https://10.99.0.10:6443\n");
    }
}
