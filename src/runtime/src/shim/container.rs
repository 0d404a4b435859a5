//! Containers and execs: from a plan to a process, from its end to a record on disk.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};
use rustix::fs::{Mode, OFlags};

use super::log::Log;
use super::namespaces::make_cgroup;
use super::output::Output;
use super::{Shim, Token};
use crate::cgroup::Access;
use crate::paths::write_record;
use crate::plan::{ContainerPlan, from_file, to_file};
use crate::protocol::{ContainerReport, ExecReply, ExitRecord, Failure, News, StartedReply, Step as _};
use crate::start::{Launched, Mounts, Prepared, Terminal, launch};
use crate::sys;
use crate::sys::process::{Reaped, pidfd_signal};

pub(super) struct Container {
    pub serial: u32,
    pub id: String,
    pid: i32,
    pidfd: OwnedFd,
    started_at: u64,
    pub exit: Option<ExitRecord>,
    /// Where attached clients write; closed for good after the first of them when `stdin_once`.
    pub stdin: Option<OwnedFd>,
    pub stdin_once: bool,
    /// The terminal's master; its output end is in `outputs`.
    pub terminal: Option<OwnedFd>,
    devpts: OwnedFd,
    pub outputs: [Option<Output>; 2],
    pub log: Log,
    cgroup: String,
    oom_kills_before: u64,
    /// It has a PID namespace of its own, so that nothing of it survives its first process.
    own_pids: bool,
    /// It lives in the PID namespace of another container.
    joined_pids: bool,
}

pub(super) struct Exec {
    id: u64,
    pid: i32,
    pidfd: OwnedFd,
    connection: u32,
    started_at: u64,
}

/// The kernel takes a moment to let go of a v1 group whose last process was just reaped; what remains is removed with the
/// container.
const CGROUP_PATIENCE: Duration = Duration::from_millis(5);

impl Shim {
    pub(super) fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers.iter_mut().find(|c| c.id == id).ok_or_else(|| Failure::errno("find the container", libc::ENOENT))
    }

    pub(super) fn container_of(&mut self, serial: u32) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.serial == serial)
    }

    fn load_plan(&self, id: &str) -> Result<ContainerPlan, Failure> {
        let raw = std::fs::read(self.paths.container_plan(id)).step("read the plan")?;
        from_file(&raw).step("read the plan")
    }

    pub(super) fn start(&mut self, id: &str) -> Result<StartedReply, Failure> {
        if self.containers.iter().any(|c| c.id == id) {
            return Err(Failure::errno("start", libc::EEXIST));
        }
        let plan = self.load_plan(id)?;
        let cgroup = format!("{}/{id}", self.plan.cgroup);
        let result = self.start_in(plan, &cgroup);
        if result.is_err() {
            let _left_for_the_sandbox = self.cgroups.remove(&cgroup, Duration::from_millis(50));
        }
        result
    }

    fn start_in(&mut self, plan: ContainerPlan, cgroup: &str) -> Result<StartedReply, Failure> {
        let entrance = make_cgroup(&self.cgroups, cgroup).step("make the cgroup")?;
        self.cgroups.apply(cgroup, &plan.resources).step("limit resources")?;
        self.cgroups.kill_together(cgroup);
        let access = if plan.privileged { Access::Everything } else { Access::Default };
        self.cgroups.limit_devices(cgroup, access).step("limit devices")?;
        let namespaces = self.namespaces.as_ref().ok_or_else(|| Failure::errno("find the namespaces", libc::ENOENT))?;
        let shm = if namespaces.shm { self.paths.shm() } else { PathBuf::from("/dev/shm") };
        let shm = shm.exists().then_some(shm.as_path());
        let mounts = Mounts::prepare(&plan, &self.cgroups, cgroup, &self.paths.root(), shm)?;
        let devpts = mounts.devpts().step("keep the devpts")?;
        let log = Log::open(self.log_path(&plan)).step("open the log")?;
        let streams = Streams::open(&plan, &devpts).step("make stdio")?;

        let mut clone_flags = libc::CLONE_NEWNS as u64;
        let target = plan.pids_of.0.as_ref().map(|id| self.pids_of(id)).transpose()?;
        let shared_pids = target.as_ref().or(namespaces.pid.as_ref().map(|(namespace, _)| namespace));
        let own_pids = shared_pids.is_none() && !self.plan.host_pid;
        if own_pids {
            clone_flags |= libc::CLONE_NEWPID as u64;
        }
        if self.cgroups.is_pure_v2() {
            clone_flags |= libc::CLONE_NEWCGROUP as u64;
        }
        let join = [&namespaces.net, &namespaces.ipc, &namespaces.uts].into_iter().flatten().map(|n| (n, 0)).collect();
        let prepared = Prepared {
            argv: &plan.argv,
            env: plan.env.clone(),
            clone_flags,
            join,
            entrance: &entrance,
            new_cgroup_namespace: !self.cgroups.is_pure_v2(),
            proc: &self.proc,
            mounts: Some(mounts),
            stdio: [&streams.inner[0], &streams.inner[1], &streams.inner[2]],
            terminal: plan.tty,
            capability_limit: self.capability_limit,
            plan: &plan,
        };
        let oom_kills_before = self.cgroups.oom_kills(cgroup);
        let Launched { pid, pidfd } = self.in_pid_namespace(shared_pids, || launch(&prepared))?;
        drop(prepared);
        let started_at = sys::nanos_now();

        let serial = self.next_serial();
        let Streams { stdin, terminal, outputs, inner } = streams;
        drop(inner);
        let mut container = Container {
            serial,
            id: plan.id,
            pid,
            pidfd,
            started_at,
            exit: None,
            stdin,
            stdin_once: plan.stdin_once,
            terminal,
            devpts,
            outputs: outputs.map(|fd| fd.map(Output::new)),
            log,
            cgroup: cgroup.to_owned(),
            oom_kills_before,
            own_pids,
            joined_pids: target.is_some(),
        };
        for (stream, output) in container.outputs.iter_mut().enumerate() {
            if let Some(output) = output {
                let data = Token::Output(serial, stream as u8).data();
                let _log_is_empty_then = epoll::add(&self.epoll, &output.fd, data, EventFlags::IN);
            }
        }
        self.containers.push(container);
        Ok(StartedReply { pid, started_at })
    }

    /// The process whose PID namespace is that of the container.
    fn pids_of(&self, id: &str) -> Result<OwnedFd, Failure> {
        let running = self.containers.iter().find(|c| c.id == id && c.exit.is_none());
        let container = running.ok_or_else(|| Failure::errno("find the container whose processes are to be shared", libc::ESRCH))?;
        sys::duplicate(&container.pidfd).step("find the process")
    }

    fn log_path(&self, plan: &ContainerPlan) -> Option<PathBuf> {
        let path = PathBuf::from(plan.log_path.as_ref()?);
        match (&self.plan.log_dir, path.is_absolute()) {
            (Some(directory), false) => Some(PathBuf::from(directory).join(path)),
            _ => Some(path),
        }
    }

    /// The container's stored plan, with another program.
    pub(super) fn exec(
        &mut self,
        id: &str,
        argv: &[std::ffi::CString],
        env: Vec<std::ffi::CString>,
        terminal_size: Option<(u16, u16)>,
        stdio: Vec<OwnedFd>,
        connection: u32,
    ) -> Result<(ExecReply, Option<OwnedFd>), Failure> {
        let mut plan = self.load_plan(id)?;
        let container = self.container(id)?;
        if container.exit.is_some() {
            return Err(Failure::errno("container not running", libc::ESRCH));
        }
        let (cgroup, pidfd) = (container.cgroup.clone(), sys::duplicate(&container.pidfd).step("find the process")?);
        let by_process = container.own_pids || container.joined_pids;
        let (stdio, master) = match terminal_size {
            Some((rows, columns)) => {
                let Terminal { master, slave } = Terminal::open(&container.devpts, plan.uid).step("open a terminal")?;
                if rows != 0 && columns != 0 {
                    sys::set_window_size(&master, rows, columns).step("size the terminal")?;
                }
                let copy = || sys::duplicate(&slave).step("open a terminal");
                (vec![copy()?, copy()?, slave], Some(master))
            }
            None => (stdio, None),
        };
        let [input, output, errors] = <[OwnedFd; 3]>::try_from(stdio)
            .map_err(|_| Failure::errno("take stdio: three descriptors belong to an exec", libc::EINVAL))?;
        give_to_user(&[&input, &output, &errors], plan.uid);
        let mut environment = std::mem::take(&mut plan.env);
        environment.extend(env);
        let entrance = self.cgroups.open(&cgroup).step("find the cgroup")?;
        let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP;
        let prepared = Prepared {
            argv,
            env: environment,
            clone_flags: 0,
            join: vec![(&pidfd, kinds)],
            entrance: &entrance,
            new_cgroup_namespace: false,
            proc: &self.proc,
            mounts: None,
            stdio: [&input, &output, &errors],
            terminal: master.is_some(),
            capability_limit: self.capability_limit,
            plan: &plan,
        };
        let shared = self.namespaces.as_ref().and_then(|n| n.pid.as_ref()).map(|(namespace, _)| namespace);
        let namespace = if by_process { Some(&pidfd) } else { shared };
        let Launched { pid, pidfd: exec_pidfd } = self.in_pid_namespace(namespace, || launch(&prepared))?;
        let exec = Exec {
            id: u64::from(self.next_serial()),
            pid,
            pidfd: exec_pidfd,
            connection,
            started_at: sys::nanos_now(),
        };
        let reply = ExecReply { exec: exec.id };
        self.execs.push(exec);
        Ok((reply, master))
    }

    pub(super) fn kill_exec(&mut self, id: u64) -> Result<(), Failure> {
        match self.execs.iter().find(|exec| exec.id == id) {
            Some(exec) => pidfd_signal(&exec.pidfd, libc::SIGKILL).step("kill"),
            // It has ended meanwhile.
            None => Ok(()),
        }
    }

    pub(super) fn signal(&mut self, id: &str, signal: i32) -> Result<(), Failure> {
        let container = self.container(id)?;
        if container.exit.is_some() {
            return Err(Failure::errno("container not running", libc::ESRCH));
        }
        pidfd_signal(&container.pidfd, signal).step("signal")
    }

    pub(super) fn kill(&mut self, id: &str) -> Result<(), Failure> {
        let container = self.container(id)?;
        if container.exit.is_some() {
            return Ok(());
        }
        // With a PID namespace of its own this is already all of it.
        let _ended_meanwhile = pidfd_signal(&container.pidfd, libc::SIGKILL);
        if container.own_pids {
            return Ok(());
        }
        let cgroup = container.cgroup.clone();
        self.cgroups.kill(&cgroup).step("kill the cgroup")
    }

    pub(super) fn kill_all(&mut self) -> Result<(), Failure> {
        for id in self.containers.iter().map(|c| c.id.clone()).collect::<Vec<_>>() {
            self.kill(&id)?;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &str) -> Result<(), Failure> {
        // One that is not known has nothing to be forgotten.
        let Ok(container) = self.container(id) else { return Ok(()) };
        if container.exit.is_none() {
            return Err(Failure::errno("remove a running container", libc::EBUSY));
        }
        let (serial, cgroup) = (container.serial, container.cgroup.clone());
        self.containers.retain(|c| c.serial != serial);
        let _daemon_tries_again = self.cgroups.remove(&cgroup, Duration::from_millis(20));
        Ok(())
    }

    pub(super) fn reports(&self) -> Vec<ContainerReport> {
        self.containers
            .iter()
            .map(|c| ContainerReport { container: c.id.clone(), pid: c.pid, started_at: c.started_at, exit: c.exit })
            .collect()
    }

    pub(super) fn stop_pid_one(&self) {
        if let Some((_, init)) = self.namespaces.as_ref().and_then(|n| n.pid.as_ref()) {
            let _gone = pidfd_signal(init, libc::SIGKILL);
        }
    }

    /// A child was reaped: a container's first process, an exec, or an orphan that nobody waits for.
    pub(super) fn child_ended(&mut self, ended: Reaped) {
        let finished_at = sys::nanos_now();
        let exit = ExitRecord {
            code: ended.code,
            signal: ended.signal,
            oom_killed: false,
            started_at: 0,
            finished_at,
        };
        if let Some(at) = self.execs.iter().position(|exec| exec.pid == ended.pid) {
            let exec = self.execs.swap_remove(at);
            let exit = ExitRecord { started_at: exec.started_at, ..exit };
            self.tell(exec.connection, &News::ExecExited { exec: exec.id, exit });
            return;
        }
        let alive = |c: &&Container| c.pid == ended.pid && c.exit.is_none();
        let Some(container) = self.containers.iter().find(alive) else { return };
        let (serial, id, cgroup) = (container.serial, container.id.clone(), container.cgroup.clone());
        let (started_at, before, own_pids) = (container.started_at, container.oom_kills_before, container.own_pids);
        if !own_pids {
            let _nothing_left = self.cgroups.kill(&cgroup);
        }
        let oom_killed = self.cgroups.oom_kills(&cgroup) > before;
        self.drain_outputs(serial);
        let _removed_later = self.cgroups.remove(&cgroup, CGROUP_PATIENCE);
        let exit = ExitRecord { started_at, oom_killed, ..exit };
        if let Err(error) = write_record(&self.paths.exit(&id), &to_file(&exit), true) {
            eprintln!("record the exit of {id}: {error}");
        }
        if let Some(container) = self.container_of(serial) {
            container.exit = Some(exit);
            container.stdin = None;
            container.terminal = None;
        }
        self.tell_all(&News::ContainerExited { container: id, exit });
    }
}

/// A container's stdio, both sides.
struct Streams {
    /// The program's 0, 1, 2.
    inner: [OwnedFd; 3],
    stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// What the shim reads: stdout (or the terminal), stderr.
    outputs: [Option<OwnedFd>; 2],
}

impl Streams {
    fn open(plan: &ContainerPlan, devpts: &OwnedFd) -> std::io::Result<Streams> {
        if plan.tty {
            let Terminal { master, slave } = Terminal::open(devpts, plan.uid)?;
            return Ok(Streams {
                inner: [sys::duplicate(&slave)?, sys::duplicate(&slave)?, slave],
                stdin: if plan.stdin { Some(sys::duplicate(&master)?) } else { None },
                terminal: Some(sys::duplicate(&master)?),
                outputs: [Some(master), None],
            });
        }
        let (input, stdin) = if plan.stdin {
            let (read, write) = sys::pipe()?;
            (read, Some(write))
        } else {
            (rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
        };
        let (out_read, out_write) = sys::pipe()?;
        let (err_read, err_write) = sys::pipe()?;
        sys::set_nonblocking(&out_read)?;
        sys::set_nonblocking(&err_read)?;
        give_to_user(&[&input, &out_write, &err_write], plan.uid);
        Ok(Streams {
            inner: [input, out_write, err_write],
            stdin,
            terminal: None,
            outputs: [Some(out_read), Some(err_read)],
        })
    }
}

/// So that a user other than root may open /dev/stdout and the like. Pipes and sockets only: a device node is the host's.
fn give_to_user(fds: &[&OwnedFd], uid: u32) {
    for fd in fds {
        let is_pipe = rustix::fs::fstat(fd.as_fd())
            .is_ok_and(|status| rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Fifo);
        if is_pipe && uid != 0 {
            let _not_reopened_then = rustix::fs::fchown(fd.as_fd(), Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}
