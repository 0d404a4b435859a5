//! The way to the pods of other nodes.
//!
//! [`plan`] decides, and is pure: from the peers to what the kernel shall hold, and from what it holds to the steps in their
//! order. Every change of the peers reads what is there first, so a start after a crash, a change by somebody else and an ordinary
//! update are one path, and nothing is kept in memory that could be wrong. Until the peers are known, what an earlier run left
//! serves on.
//!
//! Host routes go with the link they use and neighbours with a link that is switched off; [`watch`] hears of both and has it
//! all put in order again.
mod backend;
mod kernel;
mod key;
mod offload;
mod plan;
#[cfg(test)]
mod tests;
mod vxlan;
mod watch;
mod wireguard;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use self::backend::{Backend, UnknownBackend};
pub use self::key::{InvalidKey, PublicKey};
use self::plan::{Entry, Local, Place, Step};
pub use self::plan::{Peer, Reason, Unreachable};
use crate::bridge::gone_is_fine;
use crate::error::{MeshError, StepError};
use crate::netlink::Error;
use crate::node::on_own_thread;
use crate::routes::{Request, Routes};
use crate::types::NodeConfig;

/// The name under which a node publishes its [`PublicKey`] to the others.
pub const PUBLIC_KEY_ANNOTATION: &str = "rk.io/wireguard-public-key";

/// Requests in one datagram: their acknowledgements must fit the receive buffer.
const REQUESTS_AT_ONCE: usize = 64;

/// The node's links and routes to its peers. Cheap to clone.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    local: Local,
    state_dir: PathBuf,
    /// The node's own source address towards pods.
    gateway: Ipv4Addr,
    mtu: u32,
    state: Mutex<State>,
}

struct State {
    routes: Routes,
    /// `None`: not told yet.
    peers: Option<Vec<Peer>>,
}

impl Mesh {
    /// Makes the backend's link, or takes over what is there, and removes those of other backends. Blocks.
    pub(crate) fn setup(config: &NodeConfig, mtu: u32) -> Result<Mesh, StepError> {
        let mut routes = Routes::open_filtering().map_err(|e| StepError::new("open a netlink socket")(e.into()))?;
        for (backend, link) in [(Backend::Vxlan, vxlan::LINK), (Backend::Wireguard, wireguard::LINK)] {
            if backend != config.backend {
                delete_link(&mut routes, backend, link)?;
            }
        }
        let local =
            Local { backend: config.backend, node_ip: config.node_ip, pod_cidr: config.pod_cidr, cluster_cidr: config.cluster_cidr };
        let inner = Arc::new(Inner {
            local,
            state_dir: config.state_dir.clone(),
            gateway: config.gateway(),
            mtu,
            state: Mutex::new(State { routes, peers: None }),
        });
        inner.link(&mut inner.lock().routes)?;
        watch::start(&inner)?;
        Ok(Mesh { inner })
    }

    /// Makes `peers` all the nodes there are besides this one. Returns when the kernel has it, with those that cannot be reached;
    /// the others can. After an error some routes may be missing or stale: call again.
    pub async fn set_peers(&self, peers: Vec<Peer>) -> Result<Vec<Unreachable>, MeshError> {
        let inner = self.inner.clone();
        on_own_thread("rk-net-mesh", move || {
            let mut state = inner.lock();
            state.peers = Some(peers);
            inner.synchronize(&mut state)
        })
        .await
    }

    pub fn backend(&self) -> Backend {
        self.inner.local.backend
    }

    /// What other nodes must know of this one: its WireGuard key, where that is the backend. Blocks for a moment.
    pub fn public_key(&self) -> Result<Option<PublicKey>, StepError> {
        if self.backend() != Backend::Wireguard {
            return Ok(None);
        }
        let link = self.inner.link(&mut self.inner.lock().routes)?;
        let read = wireguard::read(link.unwrap_or_default());
        read.map(|(key, _)| Some(key)).map_err(|e| StepError::new(format!("read the key of link {}", wireguard::LINK))(e.into()))
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the mesh panics")
    }

    /// The backend's own link, made anew if somebody took it away.
    fn link(&self, routes: &mut Routes) -> Result<Option<u32>, StepError> {
        match self.local.backend {
            Backend::Vxlan => vxlan::ensure(routes, &self.local, self.mtu).map(Some),
            Backend::HostGw => Ok(None),
            Backend::Wireguard => wireguard::ensure(routes, &self.state_dir, self.mtu).map(Some),
        }
    }

    /// After something happened to the node's links: all in place again, once the peers are known.
    fn repair(&self) {
        let mut state = self.lock();
        if state.peers.is_none() {
            return;
        }
        if let Err(e) = self.synchronize(&mut state) {
            tracing::warn!(error = %e, "the pod network may be out of order");
        }
    }

    fn synchronize(&self, state: &mut State) -> Result<Vec<Unreachable>, MeshError> {
        let State { routes, peers } = state;
        let link = self.link(routes).map_err(MeshError::of)?;
        let have = self.installed(routes, link).map_err(|e| MeshError::of(StepError::new("read the routes to other nodes")(e.into())))?;
        let mut steps = Vec::new();
        let (want, unreachable) = plan::wanted(&self.local, link, peers.as_deref().unwrap_or_default(), |node| {
            kernel::place(routes, node).unwrap_or_else(|e| {
                steps.push(StepError::new(format!("find the way to {node}"))(e.into()));
                Place::Nowhere
            })
        });
        let changes = plan::diff(&have, &want);
        if !changes.is_empty() {
            tracing::debug!(?changes, "changing the routes to other nodes");
        }
        self.apply(routes, link, &changes, &mut steps);
        match steps.is_empty() {
            true => Ok(unreachable),
            false => Err(MeshError { steps }),
        }
    }

    fn installed(&self, routes: &mut Routes, link: Option<u32>) -> Result<BTreeSet<Entry>, Error> {
        let mut all = kernel::installed(routes, link)?;
        if let (Backend::Wireguard, Some(link)) = (self.local.backend, link) {
            all.extend(wireguard::read(link)?.1);
        }
        Ok(all)
    }

    /// Takes all steps in their order, also past those that fail.
    fn apply(&self, routes: &mut Routes, link: Option<u32>, steps: &[Step], failed: &mut Vec<StepError>) {
        let is_tunnel = |step: &Step| matches!(step, Step::Put(Entry::Tunnel { .. }) | Step::Remove(Entry::Tunnel { .. }));
        for run in steps.chunk_by(|a, b| is_tunnel(a) == is_tunnel(b)) {
            if is_tunnel(&run[0]) {
                run.iter().for_each(|step| tunnel(link.unwrap_or_default(), step, failed));
                continue;
            }
            for part in run.chunks(REQUESTS_AT_ONCE) {
                self.send(routes, link, part, failed);
            }
        }
    }

    fn send(&self, routes: &mut Routes, link: Option<u32>, steps: &[Step], failed: &mut Vec<StepError>) {
        let request = |step: &Step| match step {
            Step::Put(entry) => kernel::put(entry, link, self.gateway),
            Step::Remove(entry) => kernel::remove(entry, link),
        };
        let (steps, requests): (Vec<&Step>, Vec<Request>) = steps.iter().filter_map(|step| Some((step, request(step)?))).unzip();
        if requests.is_empty() {
            return;
        }
        match routes.send(requests) {
            Ok(refused) => {
                for (at, e) in refused {
                    fail(steps[at.min(steps.len() - 1)], e, failed);
                }
            }
            Err(e) => failed.push(StepError::new("change the routes to other nodes")(e.into())),
        }
    }
}

fn tunnel(link: u32, step: &Step, failed: &mut Vec<StepError>) {
    let done = match *step {
        Step::Put(Entry::Tunnel { key, node, cidr }) => wireguard::put(link, key, node, cidr),
        Step::Remove(Entry::Tunnel { key, .. }) => wireguard::remove(link, key),
        Step::Put(_) | Step::Remove(_) => Ok(()),
    };
    if let Err(e) = done {
        fail(step, e, failed);
    }
}

fn fail(step: &Step, e: Error, failed: &mut Vec<StepError>) {
    let what = match step {
        Step::Remove(_) if kernel::is_gone(&e) => return,
        Step::Remove(entry) => format!("remove {entry:?}"),
        Step::Put(entry) => format!("make {entry:?}"),
    };
    failed.push(StepError::new(what)(e.into()));
}

fn delete_link(routes: &mut Routes, backend: Backend, name: &str) -> Result<(), StepError> {
    let step = || StepError::new(format!("delete link {name}"));
    // A name is no proof: another's link of this name and of another kind stays.
    match routes.link(name).map_err(|e| step()(e.into()))? {
        Some(link) if link.kind == backend.as_str() => {
            gone_is_fine(routes.run(vec![Request::delete_link(name)])).map_err(|e| step()(e.into()))
        }
        _ => Ok(()),
    }
}

/// Deletes links and routes to other nodes, and the key.
pub(crate) fn remove(state_dir: &Path, failed: &mut Vec<StepError>) {
    match Routes::open_filtering() {
        Ok(mut routes) => {
            for (backend, link) in [(Backend::Vxlan, vxlan::LINK), (Backend::Wireguard, wireguard::LINK)] {
                failed.extend(delete_link(&mut routes, backend, link).err());
            }
            failed.extend(remove_routes(&mut routes).err());
        }
        Err(e) => failed.push(StepError::new("open a netlink socket")(e.into())),
    }
    match fs::remove_file(state_dir.join(wireguard::KEY_FILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => failed.push(StepError::new("remove the WireGuard key")(e)),
        _ => {}
    }
}

fn remove_routes(routes: &mut Routes) -> Result<(), StepError> {
    let step = || StepError::new("delete the routes to other nodes");
    for entry in kernel::mesh_routes(routes).map_err(|e| step()(e.into()))? {
        let Some(request) = kernel::remove(&entry, None) else { continue };
        match routes.run(vec![request]) {
            Err(e) if !kernel::is_gone(&e) => return Err(step()(e.into())),
            _ => {}
        }
    }
    Ok(())
}
