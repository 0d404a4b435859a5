//! Runs programs, with what they said in the error.
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a program to its end; its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("start `{shown}`"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("`{shown}` failed ({}): {}", done.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What matters of it: the part after the long way into cgroups and namespaces, without scripts.
fn show(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(|w| w.to_string_lossy()).collect();
    let start = words.iter().position(|w| w == "--").map_or(0, |at| at + 1);
    words[start..].iter().filter(|w| !w.contains('\n')).cloned().collect::<Vec<_>>().join(" ")
}

/// Asks every 20 ms until `check` has an answer; after `limit`, the last error.
pub fn wait<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(answer) => return Ok(answer),
            Err(error) if start.elapsed() > limit => return Err(error.context(format!("{what} did not come in {} s", limit.as_secs()))),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}
