//! Tests of several crates together, in one process.
mod crash;
#[path = "../../../store/tests/it/etcd.rs"]
#[allow(dead_code, reason = "the store's own tests use all of it")]
mod etcd;
mod faults;
#[path = "../../src/server/local.rs"]
mod local;
mod registers;
mod sieve;
mod world;
