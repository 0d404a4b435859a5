//! The developers' commands; the one list of them. CI runs the same.
mod build;
mod check;
mod codegen;
mod edges;
mod etcd;
mod fuzz;
mod lab_commands;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

/// Developers' commands of rk.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Take the facts about the Kubernetes API from upstream again (needs Go and the module proxy)
    Codegen,
    /// Generate the client of etcd from its .proto files again (needs Go and the module proxy)
    Etcd,
    /// Formatting, lints, and who may use whom
    Check,
    /// The release binary with the shim inside; prints its path
    Build,
    /// Feed what reads foreign bytes with drawn ones (see fuzz/README.md); prints the targets where none is named
    Fuzz {
        /// One of them, or `all`
        target: Option<String>,
        /// How long each runs
        #[arg(long, default_value_t = 180)]
        seconds: u32,
        /// Take what was found into the kept corpus, as little of it as covers as much
        #[arg(long)]
        keep: bool,
    },
    /// Clusters of several machines in namespaces of this host, for tests and by hand
    #[command(subcommand)]
    Lab(lab_commands::Task),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Codegen => codegen::run(),
        Task::Etcd => etcd::run(),
        Task::Check => check::run(),
        Task::Build => build::run(),
        Task::Fuzz { target, seconds, keep } => fuzz::run(target.as_deref(), seconds, keep),
        Task::Lab(task) => return lab_commands::main(task),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: as cargo says it now, since checkouts may share a target folder, and with it this program.
fn root() -> PathBuf {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&folder).ancestors().nth(2).expect("this crate is at src/xtask").to_owned()
}

/// A command run at the root of the workspace.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

fn cargo() -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
}

fn run(command: &mut Command) -> Result<()> {
    let shown =
        format!("{} {}", command.get_program().display(), command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" "));
    let status = command.status().with_context(|| format!("start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed: {status}");
    Ok(())
}

/// What `cargo metadata` says of the workspace.
fn metadata() -> Result<serde_json::Value> {
    let output = cargo().args(["metadata", "--format-version=1", "--no-deps"]).output().context("start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}
