//! The one thread that owns the table, and the handle to it.
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::conntrack;
use super::elements::{Element, Set};
use super::frontends::{of_host_ports, of_service};
use super::ruleset::{Delta, Owner, Ruleset};
use super::table::{self, NAME, Networks};
use crate::error::{CommitError, SetupError, StepError};
use crate::netlink::{Error, Family, Socket};
use crate::nft::{self, Batch};
use crate::types::{HostPort, NodeConfig, ServiceId, ServiceRule, ServiceTable};

/// One change of the rules.
#[derive(Debug)]
pub enum Change {
    Set(ServiceId, ServiceRule),
    Remove(ServiceId),
    /// All host ports of one sandbox; empty removes them.
    HostPorts(String, Vec<HostPort>),
    /// Every Service there is; those not named go.
    Replace(ServiceTable),
}

#[derive(Debug)]
struct Request {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), CommitError>>,
}

/// Requests waiting for the writer; beyond it callers wait.
const QUEUE: usize = 256;
/// Requests that become one transaction.
const REQUESTS_AT_ONCE: usize = 256;
/// A full load forgets chains that nothing leads to any more.
const CHAINS_MAX: usize = 2_048;
/// Between attempts to load the whole table when the kernel refuses it.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Hands changes to the one thread that owns the table. Cheap to clone; the thread ends when the last handle is gone.
#[derive(Clone, Debug)]
pub struct ServiceWriter {
    requests: mpsc::Sender<Request>,
}

impl ServiceWriter {
    /// Replaces all Services at once. The first call after a start also replaces what an earlier run left in the kernel,
    /// which serves until then.
    pub async fn replace(&self, table: ServiceTable) -> Result<(), CommitError> {
        self.apply(vec![Change::Replace(table)]).await
    }

    /// Makes all changes in one transaction and returns when the kernel uses them.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), CommitError> {
        let (done, answer) = oneshot::channel();
        let stopped = || CommitError { message: "the writer has stopped".to_owned() };
        let request = Request { changes, done };
        self.requests.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    pub async fn set_service(&self, id: ServiceId, rule: ServiceRule) -> Result<(), CommitError> {
        self.apply(vec![Change::Set(id, rule)]).await
    }

    pub async fn remove_service(&self, id: ServiceId) -> Result<(), CommitError> {
        self.apply(vec![Change::Remove(id)]).await
    }
}

/// What the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    /// The rules of an earlier run. They serve until all Services are known, so that a restart breaks no connection.
    EarlierRuns,
    /// What the ruleset says.
    Ours,
    /// Something else: the last transaction was refused.
    Unknown,
}

struct Writer {
    networks: Networks,
    ruleset: Ruleset,
    table: Table,
    socket: Option<Socket>,
    retry_after: Duration,
}

/// Starts the writer. Without a table of an earlier run, an empty one is loaded before this returns.
pub(crate) async fn start(config: &NodeConfig) -> Result<ServiceWriter, SetupError> {
    let networks = Networks {
        pod_cidr: config.pod_cidr,
        cluster_cidr: config.cluster_cidr,
        service_cidr: config.service_cidr,
        tunnel_port: config.backend.port(),
    };
    let (requests, queue) = mpsc::channel(QUEUE);
    let (ready, started) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("rk-net-services".to_owned())
        .spawn(move || match Writer::open(networks) {
            Ok(writer) => {
                let _ = ready.send(Ok(()));
                writer.run(&runtime, queue);
            }
            Err(e) => {
                let _ = ready.send(Err(e));
            }
        })
        .map_err(StepError::new("start the thread that writes Service rules"))?;
    let opened = started.await;
    opened.expect("the thread answers before it ends")?;
    Ok(ServiceWriter { requests })
}

impl Writer {
    fn open(networks: Networks) -> Result<Writer, CommitError> {
        let mut writer =
            Writer { networks, ruleset: Ruleset::new(networks), table: Table::Unknown, socket: None, retry_after: RETRY_FIRST };
        let exists = writer.on_socket(|socket| nft::table_exists(socket, NAME));
        if exists.map_err(refused)? {
            writer.table = Table::EarlierRuns;
        } else {
            writer.load().map_err(refused)?;
        }
        Ok(writer)
    }

    fn run(mut self, runtime: &Handle, mut queue: mpsc::Receiver<Request>) {
        // Those who asked before the first full list of Services.
        let mut waiting = Vec::new();
        loop {
            let retry = (self.table == Table::Unknown).then_some(self.retry_after);
            let first = runtime.block_on(async {
                match retry {
                    Some(after) => tokio::time::timeout(after, queue.recv()).await,
                    None => Ok(queue.recv().await),
                }
            });
            let mut requests = Vec::new();
            match first {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => return,
                Err(_) => {}
            }
            while requests.len() < REQUESTS_AT_ONCE {
                match queue.try_recv() {
                    Ok(request) => requests.push(request),
                    Err(_) => break,
                }
            }
            self.serve(requests, &mut waiting);
        }
    }

    fn serve(&mut self, requests: Vec<Request>, waiting: &mut Vec<oneshot::Sender<Result<(), CommitError>>>) {
        let mut delta = Delta::default();
        let mut complete = false;
        for request in requests {
            let mut adds = false;
            for change in request.changes {
                complete |= matches!(change, Change::Replace(_));
                adds |= !matches!(&change, Change::HostPorts(_, ports) if ports.is_empty());
                self.change(change, &mut delta);
            }
            if adds || self.table != Table::EarlierRuns {
                waiting.push(request.done);
            } else {
                // What an earlier run left for this sandbox goes with the first full load; nobody needs to wait for that.
                let _ = request.done.send(Ok(()));
            }
        }
        let result = match self.table {
            Table::EarlierRuns if !complete => return,
            Table::Ours => self.update(&delta),
            Table::EarlierRuns | Table::Unknown => self.reload(),
        };
        if result.is_ok() {
            let stale = match self.table {
                _ if complete => self.ruleset.udp_frontends().union(&delta.stale).copied().collect(),
                _ => delta.stale,
            };
            self.forget_connections(&stale);
        }
        for done in waiting.drain(..) {
            let _ = done.send(result.clone());
        }
    }

    fn change(&mut self, change: Change, delta: &mut Delta) {
        match change {
            Change::Set(id, rule) => {
                let wanted = of_service(&rule);
                self.ruleset.set(Owner::Service(id), wanted, delta);
            }
            Change::Remove(id) => self.ruleset.set(Owner::Service(id), Vec::new(), delta),
            Change::HostPorts(sandbox, ports) => {
                let wanted = of_host_ports(&ports);
                self.ruleset.set(Owner::HostPorts(sandbox), wanted, delta);
            }
            Change::Replace(table) => {
                for id in self.ruleset.services() {
                    if !table.contains_key(&id) {
                        self.ruleset.set(Owner::Service(id), Vec::new(), delta);
                    }
                }
                for (id, rule) in table {
                    let wanted = of_service(&rule);
                    self.ruleset.set(Owner::Service(id), wanted, delta);
                }
            }
        }
    }

    /// Sends a difference; the whole table where that is refused.
    fn update(&mut self, delta: &Delta) -> Result<(), CommitError> {
        if delta.is_empty() {
            return Ok(());
        }
        if self.ruleset.chain_count() > CHAINS_MAX {
            return self.reload();
        }
        let batch = encode(delta, &self.networks);
        match self.on_socket(|socket| nft::commit(socket, batch)) {
            Ok(()) => Ok(()),
            Err(e) => {
                tracing::warn!(error = %e, "a change of the Service rules was refused; loading all of them");
                self.reload()
            }
        }
    }

    fn reload(&mut self) -> Result<(), CommitError> {
        match self.load() {
            Ok(()) => Ok(()),
            Err(e) => {
                self.table = match self.table {
                    Table::EarlierRuns => Table::EarlierRuns,
                    _ => Table::Unknown,
                };
                let next = self.retry_after;
                tracing::error!(error = %e, ?next, "the kernel refuses the Service rules");
                self.retry_after = (next * 2).min(RETRY_MAX);
                Err(refused(e))
            }
        }
    }

    /// Loads the whole table in one transaction, in place of the old one.
    fn load(&mut self) -> Result<(), Error> {
        let mut batch = Batch::new();
        table::write_fixed_part(&mut batch, &self.networks);
        for chain in self.ruleset.all_chains() {
            chain.write(&mut batch, &self.networks);
        }
        let elements = self.ruleset.all_elements();
        by_set(&elements, |set, part| {
            table::add(&mut batch, set, part.iter());
        });
        let bytes = batch.len_bytes();
        self.on_socket(|socket| nft::commit(socket, batch))?;
        tracing::debug!(elements = elements.len(), bytes, "loaded the Service rules");
        self.table = Table::Ours;
        self.retry_after = RETRY_FIRST;
        Ok(())
    }

    /// A refusal may be followed by more answers; so after an error the next batch begins on a new socket.
    fn on_socket<T>(&mut self, work: impl FnOnce(&mut Socket) -> Result<T, Error>) -> Result<T, Error> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open(Family::Netfilter)?,
        };
        let result = work(&mut socket)?;
        self.socket = Some(socket);
        Ok(result)
    }

    fn forget_connections(&self, stale: &std::collections::BTreeSet<super::frontends::Frontend>) {
        if stale.is_empty() {
            return;
        }
        let allows = |frontend, endpoint| self.ruleset.allows(frontend, endpoint).unwrap_or(false);
        match conntrack::forget(stale, allows) {
            Ok(0) => {}
            Ok(count) => {
                tracing::debug!(count, "forgot UDP connections to endpoints that are gone")
            }
            Err(e) => {
                tracing::warn!(error = %e, "UDP clients may go on to endpoints that are gone")
            }
        }
    }
}

fn refused(e: Error) -> CommitError {
    CommitError { message: e.to_string() }
}

fn encode(delta: &Delta, networks: &Networks) -> Batch {
    let mut batch = Batch::new();
    let (old, new) = delta.elements();
    by_set(&old, |set, part| {
        table::remove_all(&mut batch, set, part.iter());
    });
    for chain in &delta.chains {
        chain.write(&mut batch, networks);
    }
    by_set(&new, |set, part| table::add(&mut batch, set, part.iter()));
    batch
}

/// Hands out runs of elements of one set.
fn by_set(elements: &[Element], mut each: impl FnMut(Set, &[Element])) {
    for part in elements.chunk_by(|a, b| a.set == b.set) {
        each(part[0].set, part);
    }
}
