//! One sandbox as rk sees it: its shim, its connection, its containers' states.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::connection::{Connection, OrderError, Reply};
use super::spawn::ShimProcess;
use super::{Error, exit_of};
use crate::paths::SandboxPaths;
use crate::plan::{ContainerPlan, SandboxPlan};
use crate::protocol::{ExitRecord, Order};
use crate::spec::{ContainerState, ContainerStatus, SandboxState, SandboxStatus, Started};
use crate::sys::time;

pub(super) struct Sandbox {
    pub plan: SandboxPlan,
    pub paths: SandboxPaths,
    /// Held while the sandbox is stopped or removed: both are done once, by one.
    pub life_cycle: tokio::sync::Mutex<()>,
    data: Mutex<Data>,
}

struct Data {
    state: SandboxState,
    shim: Option<Arc<ShimProcess>>,
    connection: Option<Arc<Connection>>,
    containers: BTreeMap<String, Container>,
    supervisor: Option<AbortHandle>,
}

/// A container's record in memory. `None` as a state: it is being started.
pub(super) struct Container {
    name: String,
    labels: BTreeMap<String, String>,
    log_path: Option<PathBuf>,
    state: watch::Sender<Option<ContainerState>>,
}

impl Container {
    pub(super) fn new(plan: &ContainerPlan, sandbox: &SandboxPlan, state: Option<ContainerState>) -> Container {
        let log_path = plan.log_path.as_ref().map(|path| match &sandbox.log_dir {
            Some(directory) => PathBuf::from(directory).join(path),
            None => PathBuf::from(path),
        });
        Container {
            name: plan.name.clone(),
            labels: plan.labels.iter().cloned().collect(),
            log_path,
            state: watch::channel(state).0,
        }
    }
}

pub(super) fn exited(record: &ExitRecord) -> ContainerState {
    ContainerState::Exited { started_at: time(record.started_at), exit: exit_of(record) }
}

impl Sandbox {
    pub(super) fn new(plan: SandboxPlan, paths: SandboxPaths, state: SandboxState) -> Sandbox {
        let data = Data { state, shim: None, connection: None, containers: BTreeMap::new(), supervisor: None };
        Sandbox { plan, paths, life_cycle: tokio::sync::Mutex::new(()), data: Mutex::new(data) }
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        // Nothing panics while it is held; a poisoned lock still has whole data.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn netns_path(&self) -> Option<PathBuf> {
        (!self.plan.host_network).then(|| self.paths.netns())
    }

    pub(super) fn state(&self) -> SandboxState {
        self.data().state
    }

    pub(super) fn set_state(&self, state: SandboxState) {
        self.data().state = state;
    }

    pub(super) fn connect(&self, connection: Arc<Connection>) {
        self.data().connection = Some(connection);
    }

    pub(super) fn disconnect(&self) {
        self.data().connection = None;
    }

    pub(super) fn set_shim(&self, shim: Arc<ShimProcess>) {
        self.data().shim = Some(shim);
    }

    pub(super) fn take_shim(&self) -> Option<Arc<ShimProcess>> {
        self.data().shim.take()
    }

    pub(super) fn supervise(&self, task: AbortHandle) {
        if let Some(former) = self.data().supervisor.replace(task) {
            former.abort();
        }
    }

    /// Nothing of ours runs for it any more; the shim is not touched.
    pub(super) fn let_go(&self) {
        let mut data = self.data();
        if let Some(task) = data.supervisor.take() {
            task.abort();
        }
        data.connection = None;
    }

    pub(super) fn connection(&self) -> Result<Arc<Connection>, Error> {
        self.data().connection.clone().ok_or_else(|| Error::Lost { id: self.plan.id.clone() })
    }

    pub(super) async fn order(&self, order: &Order) -> Result<Reply, Error> {
        match self.connection()?.order(order, Vec::new()).await {
            Ok(reply) => Ok(reply),
            Err(OrderError::Closed) => Err(Error::Lost { id: self.plan.id.clone() }),
            Err(OrderError::Failed(failure)) => Err(Error::of(failure)),
        }
    }

    /// Makes room for a container. False when its id is taken.
    pub(super) fn insert(&self, id: &str, container: Container) -> bool {
        let mut data = self.data();
        if data.containers.contains_key(id) {
            return false;
        }
        data.containers.insert(id.to_owned(), container);
        true
    }

    pub(super) fn forget(&self, id: &str) {
        self.data().containers.remove(id);
    }

    /// It runs, unless its end was told already.
    pub(super) fn started(&self, id: &str, started: Started) {
        if let Some(container) = self.data().containers.get(id) {
            container.state.send_if_modified(|state| {
                let first = state.is_none();
                if first {
                    *state = Some(ContainerState::Running(started));
                }
                first
            });
        }
    }

    /// True when that is news.
    pub(super) fn ended(&self, id: &str, record: &ExitRecord) -> bool {
        let data = self.data();
        let Some(container) = data.containers.get(id) else { return false };
        container.state.send_if_modified(|state| {
            let news = !matches!(state, Some(ContainerState::Exited { .. }));
            if news {
                *state = Some(exited(record));
            }
            news
        })
    }

    /// Nobody will ever tell how the running ones ended.
    pub(super) fn lost(&self) {
        for container in self.data().containers.values() {
            container.state.send_if_modified(|state| match state {
                Some(ContainerState::Running(started)) => {
                    *state = Some(ContainerState::Unknown { started_at: Some(started.started_at) });
                    true
                }
                None => {
                    *state = Some(ContainerState::Unknown { started_at: None });
                    true
                }
                _ => false,
            });
        }
    }

    pub(super) fn watch(&self, id: &str) -> Option<watch::Receiver<Option<ContainerState>>> {
        self.data().containers.get(id).map(|container| container.state.subscribe())
    }

    pub(super) fn container_state(&self, id: &str) -> Option<ContainerState> {
        self.data().containers.get(id).and_then(|container| container.state.borrow().clone())
    }

    pub(super) fn container_ids(&self) -> Vec<String> {
        self.data().containers.keys().cloned().collect()
    }

    pub(super) fn status(&self) -> SandboxStatus {
        let data = self.data();
        let container = |(id, container): (&String, &Container)| {
            // One that is being started is not there yet.
            let state = container.state.borrow().clone()?;
            Some(ContainerStatus {
                id: id.clone(),
                name: container.name.clone(),
                labels: container.labels.clone(),
                log_path: container.log_path.clone(),
                state,
            })
        };
        SandboxStatus {
            id: self.plan.id.clone(),
            labels: self.plan.labels.iter().cloned().collect(),
            state: data.state,
            created_at: self.created_at(),
            netns_path: self.netns_path(),
            containers: data.containers.iter().filter_map(container).collect(),
        }
    }

    fn created_at(&self) -> SystemTime {
        time(self.plan.created_at)
    }
}
