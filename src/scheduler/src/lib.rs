//! Gives each pod that has no node the best node there is.
//!
//! [`Scheduler::run`] is the only I/O: informers feed the pure parts, bindings go out side by side. A pod waits in the [`queue`] until an
//! event that could help it; [`schedule`] decides over a [`cache`] of slim projections with the [`plugins`] of the pod's [`profile`], which
//! carry upstream's names, weights and reasons; [`preemption`] finds whom to remove for it, and [`nominator`] keeps the place.
//! Invariant: one pod is decided at a time, and a decision counts at once (assumed), before its binding is written.
//! Models pkg/scheduler, v1.37. Left out: gang scheduling (off by default there), NodeDeclaredFeatures (no kubelet here declares
//! any), and extended resources that device classes offer.
mod alike;
mod cache;
mod config;
mod dra;
mod events;
mod extender;
mod nominator;
mod owners;
mod plugins;
mod pod;
mod preemption;
mod profile;
mod queue;
mod resources;
mod schedule;
mod scheduler;
mod volumes;

pub use config::{ConfigError, SchedulerConfig};
pub use extender::SetupError;
pub use scheduler::{Pending, Scheduler};
