//! Clusters of machines on one host, for tests: network namespaces joined by a bridge, each with an rk of its own.
//!
//! A [`Lab`] is a *hub* (a network namespace that holds the bridge and answers for the outside world) and *machines*
//! (namespaces for network, mounts, host name, IPC, processes and cgroups, with folders of their own where rk keeps state).
//! Nothing is put into the host's network, and nothing is mounted where the host can see it.
//!
//! Everything that a lab starts is in its cgroups, so a lab whose owner crashed can be ended by name: [`Lab::up`] and
//! [`Lab::down`] do it first. Invariant: no product crate is used, only the binary, as a user would.
mod cgroup;
mod hub;
mod lab;
mod link;
mod machine;
mod mirror;
mod plan;
mod rk;
mod shell;
mod state;

pub use lab::Lab;
pub use link::Link;
pub use plan::{MachinePlan, Plan, Role};
pub use state::{HUB, State};
