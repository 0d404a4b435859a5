//! Start-up: what is on disk, compared with what lives. One path for a first start, a restart and a reboot.
//!
//! The state directory says what was made, live pidfds say what runs. A sandbox without its `ready` mark was half made and
//! goes; one whose shim is gone is lost, and what still runs of it is killed; all others are taken over as they are.

use std::fs;
use std::sync::Arc;

use super::connection::Connection;
use super::sandbox::{Container, Sandbox, exited};
use super::spawn::{self, ShimProcess};
use super::{Error, Inner, exit_of, teardown};
use crate::paths::SandboxPaths;
use crate::plan::{ContainerPlan, SandboxPlan, from_file};
use crate::protocol::{ContainerReport, ExitRecord, Order};
use crate::spec::{ContainerState, Event, SandboxState, Started};
use crate::sys::time;
use crate::wire::decode;

/// What the disk says of one sandbox. Blocking.
pub(super) enum Found {
    /// Torn down: only its name is left to say.
    HalfMade(Vec<Error>),
    Whole { sandbox: Arc<Sandbox>, shim: Option<Arc<ShimProcess>>, plans: Vec<(ContainerPlan, Option<ExitRecord>)> },
}

pub(super) fn look(inner: &Inner, id: &str) -> Found {
    let paths = SandboxPaths::new(&inner.config.state_dir, &inner.config.run_dir, id);
    let plan: Option<SandboxPlan> = fs::read(paths.plan()).ok().and_then(|raw| from_file(&raw).ok());
    let shim = spawn::find(&paths);
    let (Some(plan), true) = (&plan, paths.ready().exists()) else {
        if let Some(shim) = shim {
            shim.kill();
        }
        let cgroup = plan.as_ref().map(|plan| plan.cgroup.as_str());
        let mut errors = teardown::host_side(&paths, cgroup, &inner.cgroups);
        errors.extend(teardown::records(&paths).err().map(|error| Error::system("remove the records", error)));
        return Found::HalfMade(errors);
    };
    let stopped = paths.stopped().exists();
    let mut plans = Vec::new();
    for entry in fs::read_dir(paths.containers()).into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().into_string() else { continue };
        let plan = fs::read(paths.container_plan(&id)).ok().and_then(|raw| from_file::<ContainerPlan>(&raw).ok());
        let exit = fs::read(paths.exit(&id)).ok().and_then(|raw| from_file::<ExitRecord>(&raw).ok());
        match plan {
            Some(plan) => plans.push((plan, exit)),
            // rk died while it wrote the plan; nothing was started.
            None => drop(fs::remove_dir_all(entry.path())),
        }
    }
    let state = if stopped { SandboxState::Stopped } else { SandboxState::Ready };
    let sandbox = Arc::new(Sandbox::new(plan.clone(), paths, state));
    Found::Whole { sandbox, shim: shim.map(Arc::new), plans }
}

/// Connects to the shim, or finds the sandbox lost.
pub(super) async fn take_over(
    inner: &Arc<Inner>,
    sandbox: Arc<Sandbox>,
    shim: Option<Arc<ShimProcess>>,
    plans: Vec<(ContainerPlan, Option<ExitRecord>)>,
) {
    let reports = match &shim {
        Some(_) if sandbox.state() == SandboxState::Ready => connect(inner, &sandbox).await.ok(),
        _ => None,
    };
    for (plan, record) in &plans {
        let report = reports.iter().flatten().find(|report| report.container == plan.id);
        let state = match (record, report) {
            (Some(record), _) => exited(record),
            (None, Some(ContainerReport { exit: Some(record), .. })) => exited(record),
            (None, Some(report)) => ContainerState::Running(Started { pid: report.pid, started_at: time(report.started_at) }),
            // Its shim lives and never started it.
            (None, None) if reports.is_some() => {
                drop(fs::remove_dir_all(sandbox.paths.container(&plan.id)));
                continue;
            }
            (None, None) => ContainerState::Unknown { started_at: None },
        };
        if let ContainerState::Exited { exit, .. } = &state {
            let (container, exit) = (plan.id.clone(), exit.clone());
            inner.tell(Event::ContainerExited { sandbox: sandbox.plan.id.clone(), container, exit });
        }
        sandbox.insert(&plan.id, Container::new(plan, &sandbox.plan, Some(state)));
        inner.index(&plan.id, &sandbox);
    }
    // An exit that was told between the answer and now came before its container was known: the disk has it.
    for (plan, _) in &plans {
        let raw = fs::read(sandbox.paths.exit(&plan.id));
        if let Some(record) = raw.ok().and_then(|raw| from_file::<ExitRecord>(&raw).ok()) {
            inner.container_exited(&sandbox, &plan.id, &record);
        }
    }
    inner.add(&sandbox);
    match (shim, reports) {
        (Some(shim), Some(_)) => {
            sandbox.set_shim(shim.clone());
            inner.supervise(&sandbox, shim);
        }
        (shim, _) => {
            if sandbox.state() == SandboxState::Ready {
                inner.lose(&sandbox, shim).await;
            } else {
                // Stopped, perhaps not to its end.
                inner.finish_stop(&sandbox, shim).await.unwrap_or_else(|error| tracing::warn!(%error, "finish a stop"));
            }
        }
    }
}

/// A new connection, in use from here on, and what the shim says of its containers.
pub(super) async fn connect(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<Vec<ContainerReport>, Error> {
    let socket = spawn::connect(&sandbox.paths).map_err(|source| Error::system("connect to the shim", source))?;
    let connection = new_connection(inner, sandbox, socket)?;
    sandbox.connect(Arc::new(connection));
    let reply = sandbox.order(&Order::List {}).await?;
    decode(&reply.payload).map_err(|malformed| Error::system("ask the shim", malformed))
}

pub(super) fn new_connection(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    socket: std::os::unix::net::UnixStream,
) -> Result<Connection, Error> {
    let (weak_inner, weak_sandbox) = (Arc::downgrade(inner), Arc::downgrade(sandbox));
    Connection::new(socket, move |container, record| {
        if let (Some(inner), Some(sandbox)) = (weak_inner.upgrade(), weak_sandbox.upgrade()) {
            inner.container_exited(&sandbox, &container, &record);
        }
    })
    .map_err(|source| Error::system("take the shim's connection", source))
}

impl Inner {
    /// Tells it once.
    pub(super) fn container_exited(&self, sandbox: &Sandbox, container: &str, record: &ExitRecord) {
        if sandbox.ended(container, record) {
            self.tell(Event::ContainerExited {
                sandbox: sandbox.plan.id.clone(),
                container: container.to_owned(),
                exit: exit_of(record),
            });
        }
    }

    /// Watches connection and shim; reconnects to a shim that dropped us, declares lost what has none.
    pub(super) fn supervise(self: &Arc<Self>, sandbox: &Arc<Sandbox>, shim: Arc<ShimProcess>) {
        let (weak, watched) = (Arc::downgrade(self), sandbox.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok(connection) = watched.connection() else { return };
                connection.closed().await;
                drop(connection);
                let ended = shim.ended(std::time::Duration::from_secs(1)).await;
                let Some(inner) = weak.upgrade() else { return };
                if watched.state() != SandboxState::Ready {
                    return;
                }
                if !ended && let Ok(reports) = connect(&inner, &watched).await {
                    for report in reports {
                        if let Some(record) = report.exit {
                            inner.container_exited(&watched, &report.container, &record);
                        }
                    }
                    continue;
                }
                tracing::warn!(sandbox = %watched.plan.id, "the shim is gone");
                inner.lose(&watched, Some(shim)).await;
                return;
            }
        });
        sandbox.supervise(task.abort_handle());
    }

    /// The shim is gone or useless: everything in the sandbox is killed and taken away.
    pub(super) async fn lose(self: &Arc<Self>, sandbox: &Arc<Sandbox>, shim: Option<Arc<ShimProcess>>) {
        sandbox.set_state(SandboxState::Lost);
        sandbox.disconnect();
        let (inner, doomed) = (self.clone(), sandbox.clone());
        let done = tokio::task::spawn_blocking(move || {
            if let Some(shim) = shim {
                shim.kill();
            }
            teardown::host_side(&doomed.paths, Some(&doomed.plan.cgroup), &inner.cgroups)
        });
        for error in done.await.unwrap_or_default() {
            tracing::warn!(sandbox = %sandbox.plan.id, %error, "teardown of a lost sandbox");
        }
        sandbox.lost();
        self.tell(Event::SandboxLost { id: sandbox.plan.id.clone() });
    }
}
