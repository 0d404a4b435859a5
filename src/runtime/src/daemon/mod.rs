//! The asynchronous side: what rk calls.

mod compile;
mod connection;
mod containers;
mod error;
mod recover;
mod sandbox;
mod session;
mod spawn;
mod teardown;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

pub use error::{Error, StartError};
pub use session::{AttachSession, ExecOutput, ExecProcess, ExecSession, Stream};

use self::sandbox::Sandbox;
use self::spawn::{Program, ShimProcess};
use crate::cgroup::Cgroups;
use crate::paths::{SandboxPaths, write_record};
use crate::plan::{SandboxPlan, to_file};
use crate::protocol::{ExitRecord, Order};
use crate::spec::{ContainerState, Event, Exit, Resources, SandboxSpec, SandboxState, SandboxStatus, Stats};
use crate::sys::time;

/// Where the runtime keeps its things. Each directory belongs to one runtime alone.
#[derive(Debug, Clone)]
pub struct Config {
    /// Plans and exit records; survives a reboot.
    pub state_dir: PathBuf,
    /// Sockets, pinned namespaces, shared memory; need not survive one. Made 0700.
    pub run_dir: PathBuf,
    pub shim: ShimProgram,
    /// Name of our cgroup below the root of each hierarchy: `rk`.
    pub cgroup_root: String,
}

/// The program that shims run.
#[derive(Debug, Clone)]
pub enum ShimProgram {
    /// An ELF image, written once into a sealed memfd that all shims share.
    Image(&'static [u8]),
    /// The running program, started with `rk-shim` as its argv\[0\]; its `main` must call `runtime::shim::main` then.
    SelfExe,
    /// A file, for tests.
    Path(PathBuf),
}

/// Cheap to clone; all clones are the same runtime. When the last one goes, containers run on.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    cgroups: Cgroups,
    program: Program,
    sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    /// Which sandbox a container is in.
    containers: Mutex<HashMap<String, Arc<Sandbox>>>,
    events: Mutex<Events>,
    _lock: OwnedFd,
}

/// Until somebody listens, what happens is kept: it is at most one event per container and sandbox on disk.
struct Events {
    listener: Option<mpsc::UnboundedSender<Event>>,
    kept: Vec<Event>,
}

#[derive(Debug, Clone)]
pub struct SandboxHandle {
    pub id: String,
    /// Pinned; stays until `stop_sandbox`. `None` with the host's network.
    pub netns_path: Option<PathBuf>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for sandbox in lock(&self.sandboxes).values() {
            sandbox.let_go();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocking work on a thread for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn exit_of(record: &ExitRecord) -> Exit {
    Exit {
        code: record.code,
        signal: (record.signal != 0).then_some(record.signal),
        oom_killed: record.oom_killed,
        finished_at: time(record.finished_at),
    }
}

impl Inner {
    fn tell(&self, event: Event) {
        let mut events = lock(&self.events);
        let unheard = match &events.listener {
            Some(listener) => listener.send(event).err().map(|unsent| unsent.0),
            None => Some(event),
        };
        events.kept.extend(unheard);
    }

    fn add(&self, sandbox: &Arc<Sandbox>) {
        lock(&self.sandboxes).insert(sandbox.plan.id.clone(), sandbox.clone());
    }

    fn index(&self, container: &str, sandbox: &Arc<Sandbox>) {
        lock(&self.containers).insert(container.to_owned(), sandbox.clone());
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        lock(&self.sandboxes).get(id).cloned().ok_or_else(|| Error::no_sandbox(id))
    }

    fn sandbox_of(&self, container: &str) -> Result<Arc<Sandbox>, Error> {
        lock(&self.containers).get(container).cloned().ok_or_else(|| Error::no_container(container))
    }

    /// The part of a stop that needs no shim: idempotent, and safe to do again after a crash.
    async fn finish_stop(self: &Arc<Self>, sandbox: &Arc<Sandbox>, shim: Option<Arc<ShimProcess>>) -> Result<(), Error> {
        sandbox.disconnect();
        let (inner, stopped) = (self.clone(), sandbox.clone());
        let errors = blocking(move || {
            if let Some(shim) = shim {
                shim.kill();
            }
            teardown::host_side(&stopped.paths, Some(&stopped.plan.cgroup), &inner.cgroups)
        })
        .await;
        sandbox.lost();
        teardown::first(errors)
    }
}

impl Runtime {
    /// Takes over what runs, tears down what was half made, kills what lost its shim. Needs a tokio runtime with I/O and
    /// time, and root.
    pub async fn open(config: Config) -> Result<Runtime, Error> {
        let (inner, found) = blocking(move || {
            compile::check_cgroup(&config.cgroup_root)?;
            for path in [&config.state_dir, &config.run_dir] {
                make_private_directory(path).map_err(|source| Error::system(format!("make {}", path.display()), source))?;
            }
            let held = spawn::lock(&config.state_dir.join("lock"))
                .map_err(|source| Error::system(format!("lock {}", config.state_dir.display()), source))?;
            let cgroups = Cgroups::detect().map_err(|source| Error::system("find the cgroup filesystems", source))?;
            let inner = Arc::new(Inner {
                program: Program::prepare(&config.shim)?,
                cgroups,
                config,
                sandboxes: Mutex::default(),
                containers: Mutex::default(),
                events: Mutex::new(Events { listener: None, kept: Vec::new() }),
                _lock: held,
            });
            let mut found = Vec::new();
            for id in directories(&inner.config.state_dir).map_err(|source| Error::system("read the state", source))? {
                match recover::look(&inner, &id) {
                    recover::Found::HalfMade(errors) => {
                        for error in errors {
                            tracing::warn!(sandbox = %id, %error, "teardown of a half-made sandbox");
                        }
                    }
                    recover::Found::Whole { sandbox, shim, plans } => found.push((sandbox, shim, plans)),
                }
            }
            // A run directory without a record: rk died between the two.
            for id in directories(&inner.config.run_dir).unwrap_or_default() {
                if !inner.config.state_dir.join(&id).exists() {
                    let paths = SandboxPaths::new(&inner.config.state_dir, &inner.config.run_dir, &id);
                    for error in teardown::host_side(&paths, None, &inner.cgroups) {
                        tracing::warn!(sandbox = %id, %error, "teardown of a leftover");
                    }
                }
            }
            Ok::<_, Error>((inner, found))
        })
        .await?;
        let mut taking = tokio::task::JoinSet::new();
        for (sandbox, shim, plans) in found {
            let inner = inner.clone();
            taking.spawn(async move { recover::take_over(&inner, sandbox, shim, plans).await });
        }
        taking.join_all().await;
        Ok(Runtime { inner })
    }

    /// Everything that happened: first the exits and losses that were found by `open` or came before this call, then all
    /// others. An exit may come before `start_container` has returned. One receiver at a time: a later call ends the
    /// earlier one. Holds at most one event per container and sandbox.
    pub fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        let (send, receive) = mpsc::unbounded_channel();
        let mut events = lock(&self.inner.events);
        for event in events.kept.drain(..) {
            let _we_hold_the_receiver = send.send(event);
        }
        events.listener = Some(send);
        receive
    }

    pub async fn list(&self) -> Vec<SandboxStatus> {
        let mut all: Vec<SandboxStatus> = lock(&self.inner.sandboxes).values().map(|sandbox| sandbox.status()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<SandboxHandle, Error> {
        let inner = &self.inner;
        let plan = compile::sandbox(&spec, &inner.config)?;
        let paths = SandboxPaths::new(&inner.config.state_dir, &inner.config.run_dir, &plan.id);
        let id = plan.id.clone();
        if lock(&inner.sandboxes).contains_key(&id) {
            return Err(Error::Exists { kind: "sandbox", id });
        }
        let made = {
            let (inner, plan, paths) = (inner.clone(), plan.clone(), paths.clone());
            blocking(move || make(&inner, &plan, &paths)).await
        };
        // Of the state directory itself the other maker is the owner.
        if let Err(Error::Exists { .. }) = made {
            return Err(Error::Exists { kind: "sandbox", id });
        }
        let sandbox = Arc::new(Sandbox::new(plan, paths, SandboxState::Ready));
        match self.finish_create(&sandbox, made).await {
            Ok(()) => Ok(SandboxHandle { id, netns_path: sandbox.netns_path() }),
            Err(error) => {
                let shim = sandbox.take_shim();
                if let Err(also) = inner.finish_stop(&sandbox, shim).await {
                    tracing::warn!(sandbox = %id, error = %also, "teardown of a failed sandbox");
                }
                let paths = sandbox.paths.clone();
                if let Err(also) = blocking(move || teardown::records(&paths)).await {
                    tracing::warn!(sandbox = %id, error = %also, "teardown of a failed sandbox");
                }
                Err(error)
            }
        }
    }

    async fn finish_create(
        &self,
        sandbox: &Arc<Sandbox>,
        made: Result<(ShimProcess, std::os::unix::net::UnixStream), Error>,
    ) -> Result<(), Error> {
        let (shim, socket) = made?;
        let shim = Arc::new(shim);
        sandbox.set_shim(shim.clone());
        sandbox.connect(Arc::new(recover::new_connection(&self.inner, sandbox, socket)?));
        if let Err(error) = sandbox.order(&Order::Create {}).await {
            let words = fs::read_to_string(sandbox.paths.stderr()).unwrap_or_default();
            return Err(match error {
                Error::Lost { .. } => Error::system(format!("start the shim: {}", words.trim()), io::ErrorKind::BrokenPipe),
                other => other,
            });
        }
        write_record(&sandbox.paths.ready(), b"", false).map_err(|source| Error::system("record the sandbox", source))?;
        self.inner.add(sandbox);
        self.inner.supervise(sandbox, shim);
        Ok(())
    }

    /// Kills all, takes namespaces, mounts and cgroups away; records stay, for `list`. Idempotent.
    pub async fn stop_sandbox(&self, sandbox_id: &str) -> Result<(), Error> {
        let sandbox = self.inner.sandbox(sandbox_id)?;
        let _one_at_a_time = sandbox.life_cycle.lock().await;
        if sandbox.state() == SandboxState::Lost {
            return Ok(());
        }
        write_record(&sandbox.paths.stopped(), b"", false).map_err(|source| Error::system("record the stop", source))?;
        sandbox.set_state(SandboxState::Stopped);
        let shim = sandbox.take_shim();
        if let Some(shim) = &shim {
            // What the shim does not manage is done without it.
            if sandbox.order(&Order::KillAll {}).await.is_ok() {
                let all = async {
                    for id in sandbox.container_ids() {
                        let _its_state_is_kept = self.wait(&id).await;
                    }
                };
                let _bounded = tokio::time::timeout(Duration::from_secs(10), all).await;
            }
            if sandbox.order(&Order::Shutdown {}).await.is_ok() {
                shim.ended(Duration::from_secs(2)).await;
            }
        }
        self.inner.finish_stop(&sandbox, shim).await
    }

    /// Stops it if it runs, and forgets it. Unknown ids are fine.
    pub async fn remove_sandbox(&self, sandbox_id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.inner.sandbox(sandbox_id) else { return Ok(()) };
        self.stop_sandbox(sandbox_id).await?;
        let _one_at_a_time = sandbox.life_cycle.lock().await;
        let (inner, doomed) = (self.inner.clone(), sandbox.clone());
        // A lost sandbox whose teardown had failed gets another chance before its last record goes.
        let errors = blocking(move || {
            let mut errors = teardown::host_side(&doomed.paths, Some(&doomed.plan.cgroup), &inner.cgroups);
            if errors.is_empty() {
                errors.extend(teardown::records(&doomed.paths).err().map(|e| Error::system("remove the records", e)));
            }
            errors
        })
        .await;
        teardown::first(errors)?;
        sandbox.let_go();
        lock(&self.inner.containers).retain(|_, of| !Arc::ptr_eq(of, &sandbox));
        lock(&self.inner.sandboxes).remove(sandbox_id);
        Ok(())
    }

    /// A connection to the pod's own loopback address: 127.0.0.1, then ::1.
    pub async fn dial(&self, sandbox_id: &str, port: u16) -> Result<tokio::net::TcpStream, Error> {
        let sandbox = self.inner.sandbox(sandbox_id)?;
        let mut refused = None;
        for ipv6 in [false, true] {
            let mut reply = sandbox.order(&Order::Socket { ipv6 }).await?;
            let Some(fd) = reply.fds.pop() else {
                return Err(Error::system("dial", io::ErrorKind::UnexpectedEof));
            };
            let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(fd));
            let address: std::net::IpAddr = if ipv6 {
                std::net::Ipv6Addr::LOCALHOST.into()
            } else {
                std::net::Ipv4Addr::LOCALHOST.into()
            };
            match socket.connect((address, port).into()).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|source| Error::system("dial", source))?;
                    return Ok(stream);
                }
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        let source = refused.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into());
        Err(Error::system(format!("dial port {port} of the pod"), source))
    }

    /// Of the whole pod.
    pub async fn sandbox_stats(&self, sandbox_id: &str) -> Result<Stats, Error> {
        let (inner, sandbox) = (self.inner.clone(), self.inner.sandbox(sandbox_id)?);
        blocking(move || inner.cgroups.stats(&sandbox.plan.cgroup)).await.map_err(|source| Error::system("read statistics", source))
    }

    /// Groups of containers that have ended go first: v1 lets no group have less cpu than one below it has, even an empty one.
    pub async fn update_sandbox_resources(&self, sandbox_id: &str, resources: &Resources) -> Result<(), Error> {
        let sandbox = self.inner.sandbox(sandbox_id)?;
        let ended = sandbox.status().containers.into_iter().filter(|c| !matches!(c.state, ContainerState::Running(_)));
        let groups: Vec<String> = ended.map(|c| format!("{}/{}", sandbox.plan.cgroup, c.id)).collect();
        let inner = self.inner.clone();
        blocking(move || {
            for group in groups {
                // What still lives in it (an exec on its way out) keeps it; then the limit says so.
                let _kept = inner.cgroups.remove(&group, Duration::from_millis(20));
            }
        })
        .await;
        self.apply(sandbox.plan.cgroup.clone(), resources).await
    }

    /// Makes or changes a cgroup above pods, e.g. `kubepods/burstable`.
    pub async fn set_cgroup(&self, path: &str, resources: &Resources) -> Result<(), Error> {
        compile::check_cgroup(path)?;
        let path = format!("{}/{path}", self.inner.config.cgroup_root);
        let (inner, made) = (self.inner.clone(), path.clone());
        blocking(move || inner.cgroups.create(&made)).await.map_err(|source| Error::system(format!("make the cgroup {path}"), source))?;
        self.apply(path, resources).await
    }

    async fn apply(&self, path: String, resources: &Resources) -> Result<(), Error> {
        let (inner, resources) = (self.inner.clone(), resources.clone());
        blocking(move || inner.cgroups.apply(&path, &resources)).await.map_err(|source| Error::system("limit resources", source))
    }

    /// Uninstall: every sandbox, every cgroup below our root, every directory. All steps are tried; all errors come back.
    /// The runtime is of no use afterwards.
    pub async fn teardown_all(&self) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        let ids: Vec<String> = lock(&self.inner.sandboxes).keys().cloned().collect();
        for id in ids {
            errors.extend(self.remove_sandbox(&id).await.err());
        }
        let inner = self.inner.clone();
        errors.extend(
            blocking(move || {
                let mut errors = Vec::new();
                let mut note = |step: String, result: io::Result<()>| {
                    if let Err(source) = result
                        && source.kind() != io::ErrorKind::NotFound
                    {
                        errors.push(Error::System { step, source });
                    }
                };
                let root = &inner.config.cgroup_root;
                note(format!("kill {root}/kubepods"), inner.cgroups.kill(root));
                note(format!("remove the cgroup {root}"), inner.cgroups.remove(root, Duration::from_secs(5)));
                for path in [&inner.config.run_dir, &inner.config.state_dir] {
                    note(format!("remove {}", path.display()), fs::remove_dir_all(path));
                }
                errors
            })
            .await,
        );
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Directories, cgroup, plan, shim: everything of a sandbox that needs no answer. Blocking.
fn make(
    inner: &Inner,
    plan: &SandboxPlan,
    paths: &SandboxPaths,
) -> Result<(ShimProcess, std::os::unix::net::UnixStream), Error> {
    match fs::DirBuilder::new().mode(0o700).create(&paths.state) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists { kind: "sandbox", id: plan.id.clone() });
        }
        result => result.map_err(|source| Error::system("make the sandbox's directory", source))?,
    }
    let directories = || -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(paths.containers())?;
        fs::DirBuilder::new().mode(0o700).create(&paths.run)?;
        fs::create_dir(paths.root())?;
        if !plan.host_network {
            fs::File::create(paths.netns())?;
        }
        if !plan.host_ipc {
            fs::create_dir(paths.shm())?;
        }
        if let Some(log_dir) = &plan.log_dir {
            fs::create_dir_all(log_dir)?;
        }
        write_record(&paths.plan(), &to_file(plan), false)
    };
    directories().map_err(|source| Error::system("make the sandbox's directory", source))?;
    inner.cgroups.create(&plan.cgroup).map_err(|source| Error::system("make the pod's cgroup", source))?;
    inner.cgroups.apply(&plan.cgroup, &plan.resources).map_err(|source| Error::system("limit the pod's resources", source))?;
    spawn::spawn(&inner.program, paths)
}

fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

fn directories(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}
