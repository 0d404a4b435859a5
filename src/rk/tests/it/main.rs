//! Tests of several crates together, in one process.
mod sieve;
