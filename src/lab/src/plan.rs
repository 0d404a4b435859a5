//! What a lab shall be, checked before anything is made.
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::state::HUB;

/// Longest name of a machine: its link is called `v-NAME`, and names of links have 15 bytes.
const NAME_MAX: usize = 13;
/// Addresses of machines start here, so that the hub and what tests add by hand have room below.
const MACHINES_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Runs `rk server`.
    Server,
    /// Runs `rk agent`, joined to the first server.
    Agent,
    /// Runs nothing of itself.
    Idle,
}

#[derive(Clone, Debug)]
pub struct MachinePlan {
    pub name: String,
    pub role: Role,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub machines: Vec<MachinePlan>,
    /// The rk that machines run; none is needed when all are idle.
    pub binary: Option<PathBuf>,
    /// Registries that the hub stands in for, by plain HTTP on these of its ports.
    pub mirrors: Vec<(String, u16)>,
    /// Further arguments of `rk server`.
    pub server_arguments: Vec<String>,
}

impl Plan {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), machines: vec![], binary: None, mirrors: vec![], server_arguments: vec![] }
    }

    pub fn machine(mut self, name: &str, role: Role) -> Self {
        self.machines.push(MachinePlan { name: name.into(), role });
        self
    }

    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_lab_name(&self.name)?;
        ensure!(self.machines.len() <= MACHINES_MAX, "a lab has at most {MACHINES_MAX} machines");
        let count = |role| self.machines.iter().filter(|m| m.role == role).count();
        ensure!(count(Role::Server) <= 1, "a lab has one server: rk has no clusters of several");
        ensure!(count(Role::Agent) == 0 || count(Role::Server) == 1, "agents need a server in their lab");
        ensure!(self.binary.is_some() || self.machines.iter().all(|m| m.role == Role::Idle), "servers and agents need an rk binary");
        for (at, machine) in self.machines.iter().enumerate() {
            let name = &machine.name;
            ensure!(
                well_formed(name, NAME_MAX) && name != HUB,
                "machine name {name:?}: want up to {NAME_MAX} of a-z, 0-9 and '-', and not {HUB:?}"
            );
            ensure!(!self.machines[..at].iter().any(|m| m.name == *name), "two machines are called {name}");
        }
        Ok(())
    }
}

pub(crate) fn check_lab_name(name: &str) -> Result<()> {
    ensure!(well_formed(name, 32), "lab name {name:?}: want up to 32 of a-z, 0-9 and '-'");
    Ok(())
}

fn well_formed(name: &str, longest: usize) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= longest && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|&b| edge(Some(&b)) || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_that_cannot_be_are_refused() {
        let refused = |plan: Plan| plan.check().expect_err("refused").to_string();
        assert!(refused(Plan::new("A b")).contains("lab name"));
        assert!(refused(Plan::new("a").machine("hub", Role::Idle)).contains("not \"hub\""));
        assert!(refused(Plan::new("a").machine("x", Role::Idle).machine("x", Role::Idle)).contains("two machines"));
        assert!(refused(Plan::new("a").machine("s", Role::Server)).contains("binary"));
        assert!(refused(Plan::new("a").machine("n", Role::Agent).binary("/rk")).contains("server"));
        assert!(Plan::new("a").machine("s", Role::Server).machine("n", Role::Agent).binary("/rk").check().is_ok());
    }
}
