//! `cargo xtask lab`: clusters of machines by hand. What they are is told in `src/lab`.
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use lab::{Lab, Link, Plan, Role};

#[derive(Subcommand)]
pub enum Task {
    /// Make a lab; one of the same name is removed first
    Up(Up),
    /// Remove a lab, or what a crash left of it
    Down {
        #[command(flatten)]
        lab: Name,
    },
    /// Run a command on a machine, or in the network of the hub: `lab exec hub -- kubectl get nodes`
    Exec {
        #[command(flatten)]
        lab: Name,
        machine: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Change the link of a machine
    Link {
        #[command(flatten)]
        lab: Name,
        machine: String,
        #[command(subcommand)]
        change: Change,
    },
    /// Kill the rk process of a machine, as a crash would
    Kill {
        #[command(flatten)]
        lab: Name,
        machine: String,
    },
    /// Start the rk process of a machine again
    Start {
        #[command(flatten)]
        lab: Name,
        machine: String,
    },
    /// The labs and their machines
    List,
}

#[derive(Args)]
pub struct Name {
    /// Which lab
    #[arg(long = "name", default_value = "lab")]
    name: String,
}

#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    lab: Name,
    /// Machines with `rk server`, called server-1 ...
    #[arg(long, default_value_t = 1)]
    servers: usize,
    /// Machines with `rk agent`, called agent-1 ...
    #[arg(long, default_value_t = 2)]
    agents: usize,
    /// The rk that they run [default: RK_BINARY, or the last `cargo build -p rk`]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Registry that the hub stands in for by plain HTTP on one of its ports, HOST=PORT (repeatable)
    #[arg(long, value_name = "HOST=PORT", value_parser = mirror)]
    mirror: Vec<(String, u16)>,
    /// Further argument of `rk server` (repeatable)
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    server_argument: Vec<String>,
}

#[derive(Subcommand)]
pub enum Change {
    /// Let nothing pass
    Cut,
    /// Undo cut, delay and loss
    Restore,
    /// Hold each packet back
    Delay { milliseconds: u32 },
    /// Drop some packets
    Loss { percent: u8 },
    /// Give the machine another address
    Address { address: Ipv4Addr },
}

fn mirror(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.split_once('=').ok_or("want HOST=PORT")?;
    Ok((host.to_owned(), port.parse().map_err(|e| format!("port {port:?}: {e}"))?))
}

pub fn main(task: Task) -> ExitCode {
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Up(options) => up(options),
        Task::Down { lab } => Lab::down(&lab.name),
        Task::Exec { lab, machine, command } => {
            let mut command = Lab::open(&lab.name)?.command(&machine, command.iter().map(String::as_str))?;
            Err(command.exec()).context("start a shell")
        }
        Task::Link { lab, machine, change } => {
            let link = match change {
                Change::Cut => Link::Cut,
                Change::Restore => Link::Restore,
                Change::Delay { milliseconds } => Link::Delay { milliseconds },
                Change::Loss { percent } => Link::Loss { percent },
                Change::Address { address } => Link::Address { address },
            };
            Lab::open(&lab.name)?.link(&machine, link)
        }
        Task::Kill { lab, machine } => Lab::open(&lab.name)?.kill(&machine),
        Task::Start { lab, machine } => Lab::open(&lab.name)?.start(&machine),
        Task::List => {
            list();
            Ok(())
        }
    }
}

fn up(options: Up) -> Result<()> {
    let mut plan = Plan::new(&options.lab.name);
    let built = || -> Result<PathBuf> {
        let target = super::metadata()?["target_directory"].as_str().map(PathBuf::from).context("find the target folder")?;
        Ok(target.join("x86_64-unknown-linux-gnu/debug/rk"))
    };
    // A lab without machines is a hub: an empty network for whatever is started there.
    let binary = match options.binary.or_else(|| std::env::var_os("RK_BINARY").map(PathBuf::from)) {
        Some(path) => path,
        None => built()?,
    };
    let machines = options.servers + options.agents > 0;
    ensure!(
        !machines || binary.exists(),
        "{} does not exist: build it with `cargo build -p rk`, or name another with --binary",
        binary.display()
    );
    plan.binary = machines.then_some(binary);
    for number in 1..=options.servers {
        plan = plan.machine(&format!("server-{number}"), Role::Server);
    }
    for number in 1..=options.agents {
        plan = plan.machine(&format!("agent-{number}"), Role::Agent);
    }
    plan.mirrors = options.mirror;
    plan.server_arguments = options.server_argument;
    let lab = Lab::up(&plan)?;
    let name = &options.lab.name;
    println!("lab {name} is up; its kubeconfig, for the hub: {}", lab.state().kubeconfig().display());
    println!("  cargo xtask lab exec --name {name} hub -- kubectl get nodes");
    lab.keep();
    Ok(())
}

fn list() {
    for state in Lab::all() {
        println!("{}\t{}\t{}", state.name, state.gateway(), state.data.display());
        let lab = Lab::open(&state.name);
        for machine in &state.machines {
            let rk = if lab.as_ref().is_ok_and(|l| l.runs(&machine.name)) { "rk runs" } else { "no rk" };
            println!("  {}\t{}\t{rk}", machine.name, machine.address);
        }
    }
}
