//! The fuzz targets, in cargo-fuzz's layout but with the stable compiler: coverage comes from LLVM's pass, libFuzzer from its crate (built by the C++
//! compiler). No sanitizer of addresses, which only a nightly compiler has: the code under test has no `unsafe`.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What cargo-fuzz passes without a sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// The fuzzer's own memory, tables of facts, and 512 MB for one input.
const MEGABYTES_MAX: u32 = 1024;
/// Inputs that take longer break the target, those that take more than one second are kept as slow.
const SECONDS_MAX: u32 = 5;
/// As the server's threads have it.
const STACK_BYTES: u32 = 2 << 20;
const INPUT_BYTES_MAX: u32 = 4096;
/// What is kept in the repository is small.
const KEPT_BYTES_MAX: u32 = 768;
/// Targets whose documents have the fields of built-in kinds.
const OF_FIELDS: [&str; 3] = ["apply", "object", "patch"];

pub fn run(target: Option<&str>, seconds: u32, keep: bool) -> Result<()> {
    let folder = crate::root().join("fuzz");
    let known = targets(&folder)?;
    let Some(target) = target else {
        known.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    let chosen: Vec<&String> = known.iter().filter(|name| target == "all" || *name == target).collect();
    ensure!(!chosen.is_empty(), "there is no fuzz target {target}");
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), |shared| PathBuf::from(shared).join("fuzz"));
    let mut build = crate::cargo();
    build.args(["build", "--release", "--locked", "--target", TRIPLE, "--manifest-path"]).arg(folder.join("Cargo.toml"));
    build.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &built);
    for name in &chosen {
        build.args(["--bin", name]);
    }
    crate::run(&mut build)?;
    let mut failed = Vec::new();
    for name in chosen {
        let program = built.join(TRIPLE).join("release").join(name);
        if let Err(error) = fuzz(&folder, &program, name, seconds, keep) {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn targets(folder: &Path) -> Result<BTreeSet<String>> {
    let file_name = |file: PathBuf| file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok(files(&folder.join("fuzz_targets"))?.into_iter().filter_map(file_name).collect())
}

fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()?)
}

/// Runs one target on what is kept and on what was found before, and goes on where something breaks it; with `keep` what is new goes into the
/// kept corpus afterwards.
fn fuzz(folder: &Path, program: &Path, name: &str, seconds: u32, keep: bool) -> Result<()> {
    let (kept, found, artifacts) = (folder.join("corpus").join(name), folder.join("target/found").join(name), folder.join("artifacts").join(name));
    for needed in [&kept, &found, &artifacts] {
        std::fs::create_dir_all(needed).with_context(|| format!("make {}", needed.display()))?;
    }
    let before = files(&artifacts)?;
    let limits = [format!("-rss_limit_mb={MEGABYTES_MAX}"), format!("-timeout={SECONDS_MAX}"), format!("-artifact_prefix={}/", artifacts.display())];
    let fuzzer = || {
        let mut fuzzer = crate::command("prlimit");
        fuzzer.arg(format!("--stack={STACK_BYTES}")).arg(program).args(&limits);
        fuzzer
    };
    let mut run = fuzzer();
    run.args(["-fork=1", "-ignore_crashes=1", "-report_slow_units=1", "-print_final_stats=1"]);
    run.args([format!("-max_total_time={seconds}"), format!("-max_len={INPUT_BYTES_MAX}")]);
    let words = dictionary(folder, name)?;
    if !words.is_empty() {
        let file = folder.join(format!("target/{name}.dictionary"));
        std::fs::write(&file, words).with_context(|| format!("write {}", file.display()))?;
        run.arg(format!("-dict={}", file.display()));
    }
    crate::run(run.args([&found, &kept]))?;
    if keep {
        crate::run(fuzzer().args(["-set_cover_merge=1", "-use_counters=0"]).arg(format!("-max_len={KEPT_BYTES_MAX}")).args([&kept, &found]))?;
    }
    let broken: Vec<String> = files(&artifacts)?.difference(&before).map(|file| file.display().to_string()).collect();
    ensure!(broken.is_empty(), "{}", broken.join(" "));
    Ok(())
}

/// The words that inputs are made of.
fn dictionary(folder: &Path, name: &str) -> Result<String> {
    let own = folder.join("dictionaries").join(name);
    let mut words = if own.exists() { std::fs::read_to_string(&own).with_context(|| format!("read {}", own.display()))? } else { String::new() };
    if OF_FIELDS.contains(&name) {
        let facts = crate::root().join("src/api/facts/types.tsv");
        let facts = std::fs::read_to_string(&facts).with_context(|| format!("read {}", facts.display()))?;
        let names: BTreeSet<&str> = facts.lines().filter_map(|line| line.strip_prefix("field\t")?.split('\t').next()).collect();
        words.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| format!("\"\\\"{name}\\\":\"\n")));
    }
    Ok(words)
}
