//! Tests on a real kernel: namespaces, cgroups and mounts with names of their own, all taken away again.
//!
//! They need root and busybox (Debian: busybox-static), and are skipped, loudly, without.

mod errors;
mod exec;
mod lab;
mod lifecycle;
mod limits;
mod recovery;
mod security;
mod streams;
