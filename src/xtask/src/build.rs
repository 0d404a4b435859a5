//! The release binary: first the shim, a small static program of its own, then rk with the shim inside.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cargo;

const TARGET: &str = "x86_64-unknown-linux-gnu";

pub fn run() -> Result<()> {
    let metadata = crate::metadata()?;
    let target = Path::new(metadata["target_directory"].as_str().context("cargo metadata names the target directory")?).join(TARGET);
    // Alone, so that no other crate switches on features of its few dependencies.
    crate::run(cargo().args(["build", "--profile=shim", "--package=shim", "--target", TARGET]))?;
    let shim = target.join("shim/rk-shim");
    assert_static(&shim)?;
    crate::run(cargo().args(["build", "--release", "--package=rk", "--target", TARGET]).env("RK_SHIM_IMAGE", &shim))?;
    let rk = target.join("release/rk");
    assert_static(&rk)?;
    println!("{}", rk.display());
    Ok(())
}

/// A program that asks for an interpreter is not static, whatever the flags were.
fn assert_static(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "{} is not a 64-bit little-endian ELF file", path.display());
    let word = |at: usize, size: usize| {
        let slice = bytes.get(at..at + size).with_context(|| format!("{} is cut short", path.display()))?;
        Ok::<usize, anyhow::Error>(slice.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    // Elf64_Ehdr: e_phoff at 32, e_phentsize at 54, e_phnum at 56. PT_INTERP is 3.
    let (offset, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
    for i in 0..count {
        ensure!(word(offset + i * size, 4)? != 3, "{} is linked dynamically", path.display());
    }
    eprintln!("{}: static, {:.1} MB", path.display(), bytes.len() as f64 / 1e6);
    Ok(())
}
