//! rk: a complete Kubernetes in one binary.
//!
//! The role is chosen before any thread exists: the shim behind a pod and the unpacker of layers are this program under
//! another name, and neither may ever run beside other threads. Everything else is a subcommand.
mod agent;
mod applier;
mod check;
mod cli;
mod config_file;
mod exit;
mod host;
mod image;
mod kube_args;
mod kubeconfig;
mod local_storage;
mod lock;
mod logging;
mod node;
mod node_dialer;
mod options;
mod server;
mod shim_image;
mod system;
mod token;
mod uninstall;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    match std::path::Path::new(&name).file_name().and_then(|n| n.to_str()) {
        Some("rk-shim") => runtime::shim::main(),
        Some(images::unpack::ARGV0) => images::unpack::main(),
        _ => cli::main(),
    }
}
