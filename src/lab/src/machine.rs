//! One machine: namespaces, folders and cgroups of its own, held by an init that only waits.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cgroup::{self, Version};
use crate::shell::wait;
use crate::state::{HUB, Machine, Process, State};

/// How long the namespaces of a machine may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes itself to the files up to `--`, then becomes the rest.
const JOIN: &str = "while [ \"$1\" != -- ]; do echo $$ > \"$1\"; shift; done; shift; exec \"$@\"";

/// A command that starts in the given cgroups: `joined(files, ["unshare", ...])`.
pub fn joined<'a>(files: &[PathBuf], words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", JOIN, "sh"]).args(files).arg("--").args(words);
    // What the environment says of proxies holds for the host, whose network a lab does not reach.
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// Starts a command that outlives its starter (its first word is `setsid`); what it says goes to the end of `log`.
pub fn detach(mut command: Command, log: &Path) -> Result<u32> {
    let file = File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
    let errors = file.try_clone().context("share the log")?;
    let child = command.stdout(file).stderr(errors).spawn().context("start a shell")?;
    Ok(child.id())
}

pub fn folder(state: &State, name: &str) -> PathBuf {
    state.data.join(name)
}

/// Makes the namespaces of one machine; its links come later.
pub fn start(state: &State, name: &str) -> Result<Process> {
    let folder = folder(state, name);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    cgroup::create(&state.name, name)?;
    let (own, leaf) = cgroup::joins(&state.name, name)?;

    let script = folder.join("machine.sh");
    fs::write(&script, include_str!("scripts/machine.sh")).with_context(|| format!("write {}", script.display()))?;
    let mounts = folder.join("cgroups");
    let lines: String = cgroup::hierarchies()?.iter().map(|h| mount_line(&h.mount, &h.version)).collect();
    fs::write(&mounts, lines).with_context(|| format!("write {}", mounts.display()))?;
    let ready = folder.join("ready");
    let text = |path: &Path| path.to_string_lossy().into_owned();

    // Into the group, a namespace with that group as root, then (v2) down to the leaf.
    let leaf = leaf.iter().map(|p| text(p)).collect::<Vec<_>>();
    let mut words: Vec<&str> = vec!["setsid", "unshare", "--cgroup", "sh", "-c", JOIN, "sh"];
    words.extend(leaf.iter().map(String::as_str));
    words.extend(["--", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]);
    let (script, at, gateway) = (text(&script), text(&folder), state.gateway().to_string());
    words.extend([script.as_str(), &at, name, &gateway]);
    let mut command = joined(&own, words);
    command.stdin(File::open(&mounts).with_context(|| format!("open {}", mounts.display()))?);
    let log = folder.join("machine.log");
    let outer = detach(command, &log)?;

    wait(&format!("machine {name}"), PATIENCE, || {
        ensure!(ready.exists(), "its init says: {}", fs::read_to_string(&log).unwrap_or_default());
        Process::new(init_of(outer)?)
    })
}

fn mount_line(mount: &Path, version: &Version) -> String {
    match version {
        Version::V1 { options } => format!("{} cgroup {options}\n", mount.display()),
        Version::V2 => format!("{} cgroup2 -\n", mount.display()),
    }
}

/// The process below `unshare --fork`: the init as the host sees it.
fn init_of(outer: u32) -> Result<u32> {
    let mut pid = outer;
    loop {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let child: u32 = children.split_whitespace().next().and_then(|c| c.parse().ok()).context("no child yet")?;
        let outside = fs::read_link("/proc/self/ns/pid").context("look at the own namespace")?;
        if fs::read_link(format!("/proc/{child}/ns/pid")).context("look at the init's namespace")? != outside {
            return Ok(child);
        }
        pid = child;
    }
}

/// A command inside a machine, or in the hub's network: `enter(state, "agent-1", ["rk", "image", "list"])`.
pub fn enter<'a>(state: &State, name: &str, words: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    let (_, leaf) = cgroup::joins(&state.name, name)?;
    let path = std::env::var("PATH").unwrap_or_default();
    if name == HUB {
        let hub = state.hub.as_ref().context("the lab has no hub yet")?.alive()?.to_string();
        let mut command = joined(&leaf, ["nsenter", "--target", &hub, "--net", "--"]);
        command.args(words).env("KUBECONFIG", state.kubeconfig());
        return Ok(command);
    }
    let machine = state.machine(name)?;
    let init = alive(machine)?.to_string();
    let here = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
    // The working folder is that of the new mount namespace's root unless it is entered again.
    let inside = ["nsenter", "--target", &init, "--all", "--", "sh", "-c", "cd \"$0\" 2>/dev/null; exec \"$@\"", &here];
    let mut command = joined(&leaf, inside);
    command.args(words).env("PATH", format!("/run/lab/bin:{path}")).env("KUBECONFIG", "/etc/rk/kubeconfig.yaml");
    Ok(command)
}

pub fn alive(machine: &Machine) -> Result<u32> {
    machine.init.as_ref().with_context(|| format!("machine {} was not started", machine.name))?.alive()
}

/// Runs to the end inside a machine.
pub fn inside<'a>(state: &State, name: &str, words: impl IntoIterator<Item = &'a str>) -> Result<String> {
    crate::shell::output(enter(state, name, words)?.stdin(Stdio::null()))
}
