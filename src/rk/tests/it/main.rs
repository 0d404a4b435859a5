//! Tests of several crates together, in one process.
mod faults;
mod sieve;
mod world;
