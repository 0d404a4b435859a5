//! The command line: one subcommand for each role, and errors that teach.
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::exit::Exit;
use crate::options::{AgentRole, DnsOptions, ImageOptions, IngressOptions, RemoveVolumeOptions, ServerOptions, TokenOptions, UninstallOptions};
use crate::{agent, check, config_file, image, kube_args, local_storage, server, token, uninstall, workload};

/// Version of rk, and of the Kubernetes API that it serves.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));
pub const KUBERNETES_VERSION: &str = "v1.37.1+rk0";

#[derive(Parser)]
#[command(name = "rk", about = "Kubernetes in one binary", disable_version_flag = true, arg_required_else_help = true)]
#[command(after_help = "First steps:\n  rk check                               does this machine have what a cluster needs?\n  rk server                              start a cluster of one node\n  export KUBECONFIG=/etc/rk/kubeconfig.yaml\n  kubectl get nodes\n  rk token                               print the command that joins another machine\n  rk uninstall                           remove everything again")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a cluster: API server, scheduler, controllers, and a node
    Server(Box<ServerOptions>),
    /// Run a node of a cluster whose server is another machine
    #[command(args_conflicts_with_subcommands = true)]
    Agent(Box<AgentRole>),
    /// Say what this machine lacks for a cluster, and how to mend it
    Check,
    /// Print the command that joins another machine; make, list and delete such tokens
    Token(TokenOptions),
    /// Pull, import, list and remove images
    Image(ImageOptions),
    /// Stop the cluster and remove everything that rk made on this machine
    Uninstall(UninstallOptions),
    /// Print the version
    Version,
    /// Cluster DNS; runs in a pod
    #[command(hide = true)]
    Dns(DnsOptions),
    /// Ingress controller; runs in a pod
    #[command(hide = true)]
    Ingress(IngressOptions),
    /// Removes a local volume; runs in a pod
    #[command(hide = true)]
    RemoveVolume(RemoveVolumeOptions),
}

pub fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if let Some(first) = arguments.get_mut(1).filter(|first| *first == "--version" || *first == "-V") {
        *first = "version".into();
    }
    let arguments = match config_file::merge(Cli::command(), arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("rk: {error}");
            return Exit::Usage.into();
        }
    };
    let arguments = match kube_args::expand(&Cli::command(), arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("rk: {error}");
            return Exit::Usage.into();
        }
    };
    let parsed = Cli::command().try_get_matches_from(arguments);
    let (cli, flags) = match parsed.and_then(|m| Ok((Cli::from_arg_matches(&m)?, flags(&m)))) {
        Ok(parsed) => parsed,
        Err(error) => {
            let shown = error.print();
            let help = !error.use_stderr();
            return if help && shown.is_ok() { Exit::Success.into() } else { Exit::Usage.into() };
        }
    };
    let result = match cli.command {
        Command::Server(options) => server::main(*options, flags),
        Command::Agent(role) => agent::main(role.options, role.command),
        Command::Check => return check::main(),
        Command::Token(options) => token::main(options),
        Command::Image(options) => image::main(options),
        Command::Uninstall(options) => uninstall::main(&options),
        Command::Version => {
            println!("rk {VERSION}, Kubernetes {KUBERNETES_VERSION}");
            Ok(())
        }
        Command::Dns(options) => workload::dns(options),
        Command::Ingress(options) => workload::ingress(options),
        Command::RemoveVolume(options) => local_storage::remove(&options.folder, &options.name),
    };
    match result {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            eprintln!("rk: {error:#}");
            error.downcast_ref::<UsageError>().map_or(Exit::Failure, |_| Exit::Usage).into()
        }
    }
}

/// The flags of the subcommand, with their values.
fn flags(matches: &clap::ArgMatches) -> Vec<(String, String)> {
    let Some((name, matches)) = matches.subcommand() else { return Vec::new() };
    let command = Cli::command();
    let shown = |argument: &clap::Arg| {
        let values = matches.try_get_raw(argument.get_id().as_str()).ok().flatten()?;
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        Some((argument.get_long()?.to_owned(), values.join(",")))
    };
    command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments).filter_map(shown).collect()
}

/// A value that no parser of the command line could check alone.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_as_they_were_given_or_are_by_default() {
        let matches = Cli::command().try_get_matches_from(["rk", "server", "--node-name", "n", "--tls-san", "a", "--tls-san", "b"]).unwrap();
        let flags = flags(&matches);
        let value = |name: &str| flags.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!((value("node-name"), value("tls-san"), value("https-listen-port"), value("debug")), (Some("n"), Some("a,b"), Some("6443"), Some("false")));
        assert!(flags.iter().all(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')), "{flags:?}");
    }
}
