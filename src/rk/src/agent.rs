//! `rk agent`: a node of a cluster whose server runs elsewhere.
//!
//! A machine joins once, with a token (`agent/join.rs`), and keeps what it learnt below DATA_DIR/agent (`agent/state.rs`): the
//! cluster's authority, its own key and certificate, the known servers, and the facts about the cluster. From these it starts
//! whether a server is there or not; containers run on either way. Everything else of it is a node as the server has one
//! (`node.rs`), whose API client dials a live server, and whose kubelet is reached through the tunnels that the agent keeps open.
mod join;
mod renewal;
mod settings;
mod state;
mod upkeep;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, bail};
use client::Client;
use pki::Identity;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tunnel::{Dialer, Servers, Uplinks};

use self::settings::Wanted;
use self::state::{Member, State};
use crate::cli::UsageError;
use crate::node::{self, NodeClients, NodeSettings};
use crate::options::{AgentCommand, AgentOptions, RUN_DIR};
use crate::{host, lock, logging, workload};

/// What streams and calls under way get when the agent stops.
const DRAIN: Duration = Duration::from_secs(5);

pub fn main(options: AgentOptions, command: Option<AgentCommand>) -> anyhow::Result<()> {
    let started = Instant::now();
    let (options, is_join, leave) = match command {
        Some(AgentCommand::Join(join)) => (join.options, true, join.leave_old_cluster),
        None => (options, false, false),
    };
    logging::start(options.debug);
    pki::install_ring();
    let wanted = Wanted::new(options)?;
    if is_join && wanted.invitation.is_none() {
        bail!(UsageError("rk agent join takes --server and --token; `rk token` on the server prints the whole command".into()));
    }
    if !rustix::process::geteuid().is_root() {
        bail!("rk agent must run as root: sudo rk agent");
    }
    let _lock = lock::acquire(Path::new(RUN_DIR))?;
    host::raise_limits();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(2 << 20)
        .enable_all()
        .build()
        .context("start threads")?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = run(wanted, is_join, leave, started) => result,
            () = workload::terminated() => { info!("stopping; containers run on"); Ok(()) }
        }
    });
    runtime.shutdown_timeout(DRAIN);
    result
}

async fn run(wanted: Wanted, is_join: bool, leave: bool, started: Instant) -> anyhow::Result<()> {
    host::require_machine(None).await?;
    let state = Arc::new(State::new(&wanted.data_dir));
    let member = enter(&state, &wanted, is_join, leave).await?;
    host::require_machine(Some(member.facts.network_backend)).await?;
    let servers = Arc::new(Servers::new(member.servers.clone()));
    let identity = Identity::new(&member.leaf).context("load the node's certificate")?;
    let tls = pki::client_config(&member.authority, Some(identity.clone())).context("prepare TLS")?;
    let dialer = Dialer::new(servers, tls);
    let client = Client::over(dialer.clone(), None)?;
    let settings = node_settings(&wanted, &member)?;

    let shutdown = CancellationToken::new();
    let mut parts: JoinSet<anyhow::Result<&'static str>> = JoinSet::new();
    let clients = NodeClients { kubelet: client.clone().named("kubelet"), proxy: client.clone().named("kube-proxy") };
    let kubelet = node::start(&mut parts, &settings, &member.facts, clients, shutdown.clone()).await?;
    let uplinks = Uplinks::new(
        dialer.clone(),
        Arc::new(move |pipe| {
            let kubelet = kubelet.clone();
            Box::pin(async move { kubelet.serve_connection(pipe).await })
        }),
    );
    let stop = shutdown.clone();
    parts.spawn(async move {
        Ok({
            uplinks.run(stop).await;
            "tunnels"
        })
    });
    parts.spawn(renewal::run(state.clone(), member.clone(), identity, dialer.clone(), client.clone()));
    parts.spawn(upkeep::follow_servers(state.clone(), dialer, client.clone(), member.told.clone()));
    parts.spawn(upkeep::follow_facts(state, client, member.facts.clone()));
    info!(node = settings.name, ready_ms = started.elapsed().as_millis() as u64, version = crate::cli::KUBERNETES_VERSION, "rk agent runs");
    match parts.join_next().await {
        Some(Ok(Ok(part))) => Err(anyhow!("the {part} ended")),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(anyhow!("a part died: {error}")),
        None => Err(anyhow!("nothing is left to run")),
    }
}

/// The name of this machine's node, where it has joined a cluster.
pub fn joined_as(data_dir: &Path) -> Option<String> {
    State::new(data_dir).load().ok()?.map(|member| member.node_name)
}

/// What this machine is a member of, joining first where it must.
async fn enter(state: &State, wanted: &Wanted, is_join: bool, leave: bool) -> anyhow::Result<Member> {
    let mut known = state.load()?;
    if let (Some(member), Some((_, token))) = (&known, &wanted.invitation)
        && token.authority(&member.authority).is_err()
    {
        if !leave {
            bail!(
                "this machine belongs to another cluster than the token's (its server was {}); to leave that one, containers and all, add --leave-old-cluster",
                member.told.first().map_or_else(|| "unknown".to_owned(), ToString::to_string)
            );
        }
        state.leave(&wanted.data_dir).await?;
        known = None;
    }
    let name_changed = known.as_ref().is_some_and(|m| wanted.node_name.as_ref().is_some_and(|name| *name != m.node_name));
    if name_changed && wanted.invitation.is_none() {
        bail!(
            "this machine joined as {:?}; to change its name, join again with --node-name, --server and --token",
            known.map(|m| m.node_name).unwrap_or_default()
        );
    }
    let now = SystemTime::now();
    let ended = known.as_ref().is_some_and(|m| m.leaf.validity().is_none_or(|v| v.not_after <= now));
    let must_join = ended || name_changed || (is_join && join::is_refused(known.as_ref(), wanted).await?);
    match (known, &wanted.invitation) {
        (Some(member), _) if !must_join => {
            let member = member.with(wanted);
            state.save(&member)?;
            Ok(member)
        }
        (Some(_), None) => bail!(
            "this node's certificate ended while it was away; join again: `rk token` on the server prints the command"
        ),
        (None, None) => bail!(UsageError(
            "this machine has joined no cluster: `rk token` on the server prints the command that does, `rk agent join --server https://HOST:6443 --token TOKEN`".into()
        )),
        (known, Some((servers, token))) => join::join(state, wanted, known, servers, token).await,
    }
}

fn node_settings(wanted: &Wanted, member: &Member) -> anyhow::Result<NodeSettings> {
    let ip = member.settings.node_ip.map_or_else(host::node_address, Ok)?;
    let facts = &member.facts;
    if facts.cluster_cidr.contains(&ip) || facts.service_cidr.contains(&ip) {
        bail!(
            "the node's own address {ip} lies in the cluster's networks {} and {}; choose another with --node-ip",
            facts.cluster_cidr,
            facts.service_cidr
        );
    }
    Ok(NodeSettings {
        name: member.node_name.clone(),
        ip,
        labels: node::labels(&member.settings.labels)?,
        taints: member.settings.taints.iter().map(|t| node::taint(t)).collect::<Result<_, _>>()?,
        data_dir: wanted.data_dir.clone(),
        resolv_conf: member.settings.resolv_conf.clone(),
        private_registry: member.settings.private_registry.clone(),
    })
}
