//! Services and host ports as rules of the kernel: the table `rk-proxy`.
//!
//! The shape is flat. Global maps lead from an address and port to a chain, and from there, by a random index, to an endpoint; there
//! is one chain for each *number* of endpoints and none for a Service, because what the kernel does on a change grows with the
//! number of chains squared. So a change of a Service is a handful of set elements.
//!
//! [`Ruleset`](ruleset::Ruleset) is the wanted state and pure; one thread owns the table and sends the differences, all or
//! nothing; it never reads rules back.
mod chains;
mod conntrack;
mod elements;
mod frontends;
mod placement;
mod ruleset;
mod table;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use table::remove as remove_table;
pub(crate) use writer::start;
pub use writer::{Change, ServiceWriter};
