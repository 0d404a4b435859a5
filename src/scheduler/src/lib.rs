//! Gives each pod that has no node the best node there is.
//!
//! [`Scheduler::run`] is the only I/O: informers feed the pure parts, bindings go out side by side. A pod waits in the
//! [`queue`] until an event that could help it; [`schedule`] decides over a [`cache`] of slim projections with the
//! [`plugins`], which carry upstream's names, weights and reasons.
//! Invariant: one pod is decided at a time, and a decision counts at once (assumed), before its binding is written.
//! Models pkg/scheduler, v1.37. Left out so far: preemption, dynamic resources.
mod cache;
mod plugins;
mod pod;
mod queue;
mod schedule;
mod scheduler;
mod volumes;

pub use scheduler::Scheduler;
