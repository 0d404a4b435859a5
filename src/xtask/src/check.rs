//! What must hold before a change goes in, beside the tests.
use anyhow::{Result, ensure};

use crate::{cargo, edges};

pub fn run() -> Result<()> {
    crate::run(cargo().args(["fmt", "--all", "--check"]))?;
    let wrong = edges::wrong(&crate::metadata()?);
    ensure!(wrong.is_empty(), "edges that the design does not have: {}", wrong.join(", "));
    crate::run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}
