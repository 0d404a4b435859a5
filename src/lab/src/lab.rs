//! A lab as a whole: made, opened, removed.
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};

use crate::link::{self, Link};
use crate::machine::{enter, inside};
use crate::plan::{Plan, Role, check_lab_name};
use crate::state::{self, Machine, State};
use crate::{cgroup, hub, machine, mirror, rk};

/// A lab; one that was made by [`Lab::up`] is removed with the value unless [`Lab::keep`] is called.
#[derive(Debug)]
pub struct Lab {
    state: State,
    keep: bool,
}

impl Lab {
    /// Makes a lab; what an earlier one of the same name left is removed first. Returns when every node is Ready.
    /// One that fails is removed again, unless RK_LAB_KEEP is set for looking at it.
    pub fn up(plan: &Plan) -> Result<Self> {
        plan.check()?;
        let lock = state::lock(&plan.name)?;
        remove(&plan.name)?;
        let all = state::lock("networks")?;
        let taken: Vec<u8> = State::all().iter().map(|s| s.network).collect();
        let network = state::free_network(&taken)?;
        let machines = plan.machines.iter().zip(10..).map(|(planned, host)| Machine {
            name: planned.name.clone(),
            role: planned.role,
            address: Ipv4Addr::new(10, 99, network, host),
            init: None,
            command: vec![],
        });
        let state = State { name: plan.name.clone(), network, data: state::data(&plan.name), hub: None, machines: machines.collect() };
        state.save()?;
        drop(all);
        // From here on a failure removes what was made, because the value is dropped.
        let mut lab = Self { state, keep: false };
        let made = lab.make(plan);
        if let Err(error) = made {
            lab.keep = true;
            let left = if std::env::var_os("RK_LAB_KEEP").is_some() { Ok(()) } else { remove(&plan.name) };
            return Err(match left {
                Ok(()) => error,
                Err(left) => error.context(format!("the lab could not be removed either: {left:#}")),
            });
        }
        drop(lock);
        Ok(lab)
    }

    fn make(&mut self, plan: &Plan) -> Result<()> {
        let state = &mut self.state;
        state.hub = Some(hub::start(state)?);
        state.save()?;
        for at in 0..state.machines.len() {
            let name = state.machines[at].name.clone();
            state.machines[at].init = Some(machine::start(state, &name)?);
            state.save()?;
            link::join(state, &state.machines[at])?;
            if let Some(binary) = &plan.binary {
                let binary = fs::canonicalize(binary).with_context(|| format!("find the binary {}", binary.display()))?;
                rk::install(state, &name, &binary)?;
            }
            if !plan.mirrors.is_empty() {
                rk::configure(state, &name, "registries.yaml", &mirror::registries(state.gateway(), &plan.mirrors))?;
            }
        }
        let Some(first) = state.machines.iter().position(|m| m.role == Role::Server) else { return Ok(()) };
        state.machines[first].command = rk::server_command(&state.machines[first], &plan.server_arguments);
        state.save()?;
        let server = state.machines[first].clone();
        rk::start(state, &server)?;
        rk::wait_for_server(state, &server)?;
        for at in (0..state.machines.len()).filter(|&at| plan.machines[at].role == Role::Agent) {
            let token = rk::token(state, &server.name)?;
            state.machines[at].command = rk::agent_command(&state.machines[at], &server, &token);
            state.save()?;
            rk::start(state, &state.machines[at])?;
        }
        rk::wait_for_nodes(state)
    }

    /// A lab that is up already; it stays when the value goes.
    pub fn open(name: &str) -> Result<Self> {
        check_lab_name(name)?;
        Ok(Self { state: State::load(name)?, keep: true })
    }

    /// Removes a lab by name, or what is left of it; one that does not exist is no error.
    pub fn down(name: &str) -> Result<()> {
        check_lab_name(name)?;
        let _lock = state::lock(name)?;
        remove(name)
    }

    /// Lets the lab stay when the value goes.
    pub fn keep(mut self) {
        self.keep = true;
    }

    pub fn all() -> Vec<State> {
        State::all()
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// A command inside a machine, or in the network of [`crate::HUB`]; its environment has a kubeconfig.
    pub fn command<'a>(&self, machine: &str, words: impl IntoIterator<Item = &'a str>) -> Result<Command> {
        enter(&self.state, machine, words)
    }

    /// Runs such a command to its end; its standard output.
    pub fn run<'a>(&self, machine: &str, words: impl IntoIterator<Item = &'a str>) -> Result<String> {
        crate::shell::output(&mut enter(&self.state, machine, words)?)
    }

    pub fn link(&self, machine: &str, change: Link) -> Result<()> {
        link::change(&self.state, self.state.machine(machine)?, change)
    }

    /// Kills the rk process of a machine, as a crash would.
    pub fn kill(&self, machine: &str) -> Result<()> {
        self.state.machine(machine)?;
        rk::kill(&self.state, machine)
    }

    /// Starts it again with the same arguments.
    pub fn start(&self, machine: &str) -> Result<()> {
        rk::start(&self.state, self.state.machine(machine)?)
    }

    /// Whether the machine's rk process runs.
    pub fn runs(&self, machine: &str) -> bool {
        inside(&self.state, machine, ["sh", "-c", "read -r pid < /run/lab/rk.pid && kill -0 \"$pid\""]).is_ok()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = Self::down(&self.state.name)
        {
            eprintln!("lab {} is not removed: {error:#}", self.state.name);
        }
    }
}

/// Everything by name alone: processes by their cgroups, then folders. Mounts and links go with the processes.
fn remove(name: &str) -> Result<()> {
    cgroup::remove(name)?;
    let known = State::load(name).map_or_else(|_| state::data(name), |s| s.data);
    for folder in [known, state::folder(name)] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
