//! The pod network and the Service rules on the real kernel, each test in network namespaces of its own.
//!
//! Needs root, `ip` and `nft`; without them every test says so and passes. What the kernel holds is checked with those two
//! programs, not with code of this crate.
mod lab;
mod machines;
mod mesh;
mod mesh_changes;
mod pods;
mod rules;
mod services;
mod udp;
