//! The shim as a small program of its own, embedded in rk and run from a sealed memfd: see `runtime::shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::shim::main()
}
