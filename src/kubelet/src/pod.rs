//! One pod: its records, what to do next, how it is reported, and the worker that owns it.
//!
//! [`record`] is the state, [`plan`] decides from it, [`status`] prints it; [`worker`] runs the effects.

pub mod admission;
pub mod backoff;
pub mod event;
pub mod hooks;
pub mod plan;
pub mod record;
pub mod resize;
pub mod spec;
pub mod start;
pub mod status;
pub mod stop;
pub mod termination;
pub mod worker;
