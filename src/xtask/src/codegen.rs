//! Runs the Go program `facts`, which prints what upstream's types say; its tables are committed.
use anyhow::Result;

use crate::{command, root};

pub fn run() -> Result<()> {
    // The modules and their sums are pinned by go.mod and go.sum.
    let mut go = command("go");
    go.current_dir(root().join("src/xtask/facts")).env("GOFLAGS", "-mod=mod -buildvcs=false");
    crate::run(go.args(["run", "."]).arg(root().join("src/api/facts")))
}
