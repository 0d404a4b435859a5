//! Runs the pods that are bound to this node, and tells the API server how they fare.
//!
//! Enter by [`Kubelet::new`], [`Kubelet::run`] (until shutdown) and [`Kubelet::serve_connection`] (logs, exec, attach,
//! port-forward, stats on a byte stream that the API server dialled).
//! One worker task per pod owns that pod's state; everything it learns arrives as one closed `Event`, and decisions are
//! pure functions beside it ([`pod::plan`], [`pod::status`], [`probe`], [`env`]).
//!
//! Invariants: nothing polls (timers are those the API asks for: probes, back-off, grace periods, leases); a restart of
//! this process restarts no container; a status never overwrites a newer one.
mod config;
mod kubelet;

mod allocation;
mod node;
mod pod;
mod probe;

mod env;
mod expand;
mod fields;
mod files;
mod resources;
mod security;

mod csi;
mod images;
mod volumes;

mod logs;
mod recorder;
mod server;
pub mod streaming;
mod time;

pub use config::KubeletConfig;
pub use csi::make_folders as make_driver_folders;
pub use kubelet::{Kubelet, RunError};
