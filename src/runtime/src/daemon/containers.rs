//! Containers and execs, for callers.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::connection::{OrderError, Reply};
use super::sandbox::{Container, Sandbox};
use super::{AttachSession, Error, ExecOutput, ExecProcess, ExecSession, Runtime, StartError, Stream, blocking, compile, lock};
use crate::paths::write_record;
use crate::plan::to_file;
use crate::protocol::{AttachReply, ExecReply, Failure, Order, StartedReply};
use crate::spec::{ContainerSpec, ContainerState, ExecSpec, Exit, Resources, SandboxState, Signal, Started, Stats};
use crate::sys::{pipe, time};
use crate::wire::decode;

/// After a command has ended, something it left behind may hold its output open: then this is how long we listen.
const AFTER_EXIT: Duration = Duration::from_millis(500);

impl Runtime {
    /// Started means: its program has been executed. Errors speak as other runtimes do.
    pub async fn start_container(&self, sandbox_id: &str, spec: ContainerSpec) -> Result<Started, Error> {
        let sandbox = self.inner.sandbox(sandbox_id)?;
        if sandbox.state() != SandboxState::Ready {
            return Err(Error::Lost { id: sandbox_id.to_owned() });
        }
        let plan = compile::container(&spec, &sandbox.plan)?;
        let id = plan.id.clone();
        let exists = || Error::Exists { kind: "container", id: id.clone() };
        {
            let mut index = lock(&self.inner.containers);
            if index.contains_key(&id) || !sandbox.insert(&id, Container::new(&plan, &sandbox.plan, None)) {
                return Err(exists());
            }
            index.insert(id.clone(), sandbox.clone());
        }
        let raw = to_file(&plan);
        let (directory, file) = (sandbox.paths.container(&id), sandbox.paths.container_plan(&id));
        let written = blocking(move || {
            fs::DirBuilder::new().mode(0o700).create(directory)?;
            write_record(&file, &raw, false)
        });
        let result = match written.await {
            Ok(()) => self.order_start(&sandbox, &id).await,
            Err(source) => Err(Error::system("record the container", source)),
        };
        match result {
            Ok(started) => {
                sandbox.started(&id, started);
                Ok(started)
            }
            Err(error) => {
                // A shim that died in the middle may have started it: then the sandbox is lost and all of it is killed.
                let directory = sandbox.paths.container(&id);
                let _goes_with_the_sandbox = blocking(move || fs::remove_dir_all(directory)).await;
                sandbox.forget(&id);
                lock(&self.inner.containers).remove(&id);
                Err(error)
            }
        }
    }

    async fn order_start(&self, sandbox: &Sandbox, id: &str) -> Result<Started, Error> {
        let order = Order::Start { container: id.to_owned() };
        let reply = sandbox.connection()?.order(&order, Vec::new()).await.map_err(|error| start_error(sandbox, error))?;
        let reply: StartedReply = decode(&reply.payload).map_err(|malformed| Error::system("start", malformed))?;
        Ok(Started { pid: reply.pid, started_at: time(reply.started_at) })
    }

    /// To the first process of the container.
    pub async fn signal(&self, container_id: &str, signal: Signal) -> Result<(), Error> {
        let order = Order::Signal { container: container_id.to_owned(), signal: signal.number() };
        self.order_running(container_id, &order).await.map(drop)
    }

    /// SIGKILL to everything in the container. Fine if it has exited.
    pub async fn kill(&self, container_id: &str) -> Result<(), Error> {
        match self.order_running(container_id, &Order::Kill { container: container_id.to_owned() }).await {
            Err(Error::NotRunning { .. }) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Resolves when it has exited (at once if it had). [`Error::Lost`] when nobody will ever know how.
    pub async fn wait(&self, container_id: &str) -> Result<Exit, Error> {
        let sandbox = self.inner.sandbox_of(container_id)?;
        let mut state = sandbox.watch(container_id).ok_or_else(|| Error::no_container(container_id))?;
        let ended = |state: &Option<ContainerState>| !matches!(state, None | Some(ContainerState::Running(_)));
        let state = state.wait_for(ended).await.map_err(|_| Error::no_container(container_id))?;
        match &*state {
            Some(ContainerState::Exited { exit, .. }) => Ok(exit.clone()),
            _ => Err(Error::Lost { id: sandbox.plan.id.clone() }),
        }
    }

    /// Kills it if it runs, and forgets it. Unknown ids are fine.
    pub async fn remove_container(&self, container_id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.inner.sandbox_of(container_id) else { return Ok(()) };
        if matches!(sandbox.container_state(container_id), None | Some(ContainerState::Running(_))) {
            match self.kill(container_id).await {
                Ok(()) | Err(Error::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
            let _lost_is_ended_too = self.wait(container_id).await;
        }
        match sandbox.order(&Order::Remove { container: container_id.to_owned() }).await {
            // Without a shim there is nothing in it to forget.
            Ok(_) | Err(Error::Lost { .. }) => {}
            Err(error) => return Err(error),
        }
        let (inner, of, id) = (self.inner.clone(), sandbox.clone(), container_id.to_owned());
        blocking(move || {
            inner.cgroups.remove(&format!("{}/{id}", of.plan.cgroup), Duration::from_secs(2))?;
            match fs::remove_dir_all(of.paths.container(&id)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            }
        })
        .await
        .map_err(|source| Error::system("remove the container", source))?;
        sandbox.forget(container_id);
        lock(&self.inner.containers).remove(container_id);
        Ok(())
    }

    pub async fn exec(&self, container_id: &str, spec: ExecSpec) -> Result<ExecSession, Error> {
        let sandbox = self.running(container_id)?;
        let text = |field, text: String| {
            std::ffi::CString::new(text).map_err(|_| Error::Invalid { field, reason: "contains a NUL byte".into() })
        };
        if spec.argv.first().is_none_or(String::is_empty) {
            return Err(Error::Invalid { field: "argv", reason: "no command specified".into() });
        }
        let argv = spec.argv.into_iter().map(|argument| text("argv", argument)).collect::<Result<_, _>>()?;
        let mut env = spec.env.into_iter().map(|entry| text("env", entry)).collect::<Result<Vec<_>, _>>()?;
        if spec.tty {
            env.push(c"TERM=xterm".to_owned());
        }
        let (rows, columns) = spec.size.map_or((0, 0), |size| (size.rows, size.columns));
        let order = Order::Exec { container: container_id.to_owned(), argv, env, tty: spec.tty, rows, columns };
        let (theirs, ours) = if spec.tty { (Vec::new(), None) } else { stdio(spec.stdin).map(|(t, o)| (t, Some(o)))? };
        let connection = sandbox.connection()?;
        let (mut reply, end) = connection.exec(&order, theirs).await.map_err(|error| start_error(&sandbox, error))?;
        let ExecReply { exec: id } = decode(&reply.payload).map_err(|malformed| Error::system("exec", malformed))?;
        let process = |terminal| ExecProcess { sandbox: sandbox.plan.id.as_str().into(), id, connection, end, terminal };
        let stream = |fd: OwnedFd| Stream::new(fd).map_err(|source| Error::system("open the streams of an exec", source));
        let Some([stdin, stdout, stderr]) = ours else {
            let master = reply.fds.pop().ok_or_else(|| Error::system("exec", io::ErrorKind::UnexpectedEof))?;
            let copy = || crate::sys::duplicate(&master).map_err(|source| Error::system("open the terminal", source));
            return Ok(ExecSession {
                stdin: if spec.stdin { Some(stream(copy()?)?) } else { None },
                stdout: Some(stream(copy()?)?),
                stderr: None,
                process: process(Some(Arc::new(master))),
            });
        };
        let open = |fd: Option<OwnedFd>| fd.map(stream).transpose();
        Ok(ExecSession { stdin: open(stdin)?, stdout: open(stdout)?, stderr: open(stderr)?, process: process(None) })
    }

    /// Runs to its end or is killed at `timeout` ([`Error::Timeout`]). Of each stream the first `limit_bytes` are kept; the
    /// rest is read and dropped.
    pub async fn exec_sync(
        &self,
        container_id: &str,
        argv: Vec<String>,
        timeout: Option<Duration>,
        limit_bytes: usize,
    ) -> Result<ExecOutput, Error> {
        let session = self.exec(container_id, ExecSpec { argv, ..ExecSpec::default() }).await?;
        let ExecSession { stdout, stderr, process, .. } = session;
        let run = collect(stdout, stderr, &process, limit_bytes);
        match timeout {
            None => run.await,
            Some(limit) => match tokio::time::timeout(limit, run).await {
                Ok(result) => result,
                Err(_elapsed) => {
                    process.kill().await?;
                    Err(Error::Timeout { seconds: limit.as_secs() })
                }
            },
        }
    }

    pub async fn attach(&self, container_id: &str) -> Result<AttachSession, Error> {
        self.running(container_id)?;
        let reply = self.order_running(container_id, &Order::Attach { container: container_id.to_owned() }).await?;
        let has: AttachReply = decode(&reply.payload).map_err(|malformed| Error::system("attach", malformed))?;
        let mut fds = reply.fds.into_iter();
        let mut next = |present: bool| -> Result<Option<OwnedFd>, Error> {
            match (present, present.then(|| fds.next()).flatten()) {
                (true, None) => Err(Error::system("attach", io::ErrorKind::UnexpectedEof)),
                (_, fd) => Ok(fd),
            }
        };
        let stream = |fd: Option<OwnedFd>| {
            fd.map(Stream::new).transpose().map_err(|source| Error::system("open the streams of a container", source))
        };
        Ok(AttachSession {
            stdin: stream(next(has.stdin)?)?,
            stdout: stream(next(has.stdout)?)?,
            stderr: stream(next(has.stderr)?)?,
            tty: has.tty,
            terminal: next(has.tty)?.map(Arc::new),
        })
    }

    /// After the log file was renamed: closes the old one, opens `log_path` anew.
    pub async fn reopen_log(&self, container_id: &str) -> Result<(), Error> {
        let sandbox = self.inner.sandbox_of(container_id)?;
        sandbox.order(&Order::ReopenLog { container: container_id.to_owned() }).await.map(drop)
    }

    pub async fn stats(&self, container_id: &str) -> Result<Stats, Error> {
        let path = self.cgroup_of_running(container_id)?;
        let inner = self.inner.clone();
        blocking(move || inner.cgroups.stats(&path)).await.map_err(|source| not_running(container_id, "read statistics", source))
    }

    pub async fn update_resources(&self, container_id: &str, resources: &Resources) -> Result<(), Error> {
        let path = self.cgroup_of_running(container_id)?;
        let (inner, resources) = (self.inner.clone(), resources.clone());
        blocking(move || inner.cgroups.apply(&path, &resources))
            .await
            .map_err(|source| not_running(container_id, "limit resources", source))
    }

    fn running(&self, container_id: &str) -> Result<Arc<Sandbox>, Error> {
        let sandbox = self.inner.sandbox_of(container_id)?;
        match sandbox.container_state(container_id) {
            Some(ContainerState::Running(_)) => Ok(sandbox),
            _ => Err(Error::NotRunning { id: container_id.to_owned() }),
        }
    }

    fn cgroup_of_running(&self, container_id: &str) -> Result<String, Error> {
        Ok(format!("{}/{container_id}", self.running(container_id)?.plan.cgroup))
    }

    async fn order_running(&self, container_id: &str, order: &Order) -> Result<Reply, Error> {
        let sandbox = self.inner.sandbox_of(container_id)?;
        match sandbox.order(order).await {
            Err(Error::System { step, source }) => Err(not_running(container_id, &step, source)),
            result => result,
        }
    }
}

/// ESRCH and a vanished cgroup both mean that it has ended meanwhile.
fn not_running(id: &str, step: &str, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ESRCH | libc::ENOENT | libc::ENODEV) => Error::NotRunning { id: id.to_owned() },
        _ => Error::system(step, source),
    }
}

fn start_error(sandbox: &Sandbox, error: OrderError) -> Error {
    match error {
        OrderError::Closed => Error::Lost { id: sandbox.plan.id.clone() },
        OrderError::Failed(failure @ Failure { .. }) => Error::Start(StartError::from(failure)),
    }
}

type Stdio = [Option<OwnedFd>; 3];

/// Pipes for an exec: the ends for its process, and ours.
fn stdio(stdin: bool) -> Result<(Vec<OwnedFd>, Stdio), Error> {
    let make = || -> io::Result<(Vec<OwnedFd>, Stdio)> {
        let (input, stdin) = if stdin {
            let (read, write) = pipe()?;
            (read, Some(write))
        } else {
            (OwnedFd::from(fs::File::open("/dev/null")?), None)
        };
        let (stdout, output) = pipe()?;
        let (stderr, errors) = pipe()?;
        Ok((vec![input, output, errors], [stdin, Some(stdout), Some(stderr)]))
    };
    make().map_err(|source| Error::system("make pipes", source))
}

async fn collect(
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    process: &ExecProcess,
    limit_bytes: usize,
) -> Result<ExecOutput, Error> {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let exit = {
        let reading = async {
            tokio::join!(keep(stdout, &mut out, limit_bytes), keep(stderr, &mut errors, limit_bytes));
        };
        tokio::pin!(reading);
        tokio::select! {
            () = &mut reading => process.wait().await?,
            exit = process.wait() => {
                let _held_open_by_others = tokio::time::timeout(AFTER_EXIT, reading).await;
                exit?
            }
        }
    };
    Ok(ExecOutput { exit, stdout: out, stderr: errors })
}

async fn keep(stream: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, limit_bytes: usize) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; 8192];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let room = limit_bytes.saturating_sub(into.len()).min(count);
        into.extend_from_slice(&chunk[..room]);
    }
}
