//! What the worker knows of a pod's containers. Plain data: no handles, no I/O.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

use super::backoff::Backoff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then runs beside the others.
    Sidecar,
    Main,
    /// Added while the pod runs, to look into it; starts once and counts for nothing.
    Ephemeral,
}

impl Kind {
    pub fn is_init(self) -> bool {
        matches!(self, Self::Init | Self::Sidecar)
    }
}

/// One instance of a container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub id: String,
    pub started_at: Timestamp,
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// The readiness probe's last word.
    pub ready: bool,
    /// A stop is under way.
    pub stopping: bool,
}

/// One instance that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Empty when the instance never came to be.
    pub id: String,
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub reason: String,
    pub message: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    Running(Running),
    Finished(Finished),
}

/// Why a container that should run does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub kind: Kind,
    /// How often it was started anew: the attempt number of the newest instance.
    pub attempt: u32,
    pub current: Option<Instance>,
    /// The instance before the current one.
    pub previous: Option<Finished>,
    pub waiting: Option<Waiting>,
    /// Stopped to start again with other resources, whatever its restart policy.
    pub renew: bool,
    /// A start task is under way; it reports back.
    pub starting: bool,
    /// After a start that failed for a reason that waiting may cure.
    pub retry_at: Option<Timestamp>,
    pub crash: Backoff,
    pub image_pull: Backoff,
    pub image_failed_at: Option<Timestamp>,
    /// As the status shows them.
    pub image: String,
    pub image_id: String,
}

impl Record {
    pub fn new(container: &Container, kind: Kind) -> Self {
        Self {
            name: container.name.clone(),
            kind,
            attempt: 0,
            current: None,
            previous: None,
            waiting: None,
            renew: false,
            starting: false,
            retry_at: None,
            crash: Backoff::default(),
            image_pull: Backoff::default(),
            image_failed_at: None,
            image: container.image.clone().unwrap_or_default(),
            image_id: String::new(),
        }
    }

    pub fn running(&self) -> Option<&Running> {
        match &self.current {
            Some(Instance::Running(running)) => Some(running),
            _ => None,
        }
    }

    pub fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.current {
            Some(Instance::Running(running)) => Some(running),
            _ => None,
        }
    }

    pub fn finished(&self) -> Option<&Finished> {
        match &self.current {
            Some(Instance::Finished(finished)) => Some(finished),
            _ => None,
        }
    }

    /// The number that the next instance gets.
    pub fn next_attempt(&self) -> u32 {
        if self.current.is_some() { self.attempt + 1 } else { self.attempt }
    }

    /// A new instance runs; the one before becomes history.
    pub fn started(&mut self, attempt: u32, running: Running) {
        self.supersede();
        self.attempt = attempt;
        self.current = Some(Instance::Running(running));
        self.waiting = None;
        self.renew = false;
        self.starting = false;
        self.retry_at = None;
    }

    /// The running instance has ended, or one that never ran is accounted as ended.
    pub fn ended(&mut self, finished: Finished) {
        if self.running().is_none() {
            self.supersede();
        }
        self.current = Some(Instance::Finished(finished));
        self.waiting = None;
        self.starting = false;
    }

    /// The ended instance becomes history before its successor exists: the record starts from the beginning.
    pub fn rewind(&mut self) {
        if self.finished().is_some() {
            self.supersede();
            self.attempt += 1;
        }
    }

    fn supersede(&mut self) {
        if let Some(Instance::Finished(finished)) = self.current.take() {
            self.previous = Some(finished);
        }
    }
}

/// Records for all containers of a pod: init containers in order, then main ones, then ephemeral ones.
pub fn records(pod: &Pod) -> Vec<Record> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|c| Record::new(c, init_kind(c)));
    let main = spec.containers.iter().map(|c| Record::new(c, Kind::Main));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| Record::new(&as_container(c), Kind::Ephemeral));
    init.chain(main).chain(ephemeral).collect()
}

/// An ephemeral container in the shape of the others, whose fields it shares.
fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        name: e.name,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        command: e.command,
        args: e.args,
        working_dir: e.working_dir,
        env: e.env,
        env_from: e.env_from,
        volume_mounts: e.volume_mounts,
        volume_devices: e.volume_devices,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        tty: e.tty,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        ..Container::default()
    }
}

pub fn init_kind(container: &Container) -> Kind {
    if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init }
}

/// The container of this name, of any kind.
pub fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<Cow<'a, Container>> {
    let own = spec.init_containers.iter().flatten().chain(&spec.containers).find(|c| c.name == name);
    let ephemeral = || spec.ephemeral_containers.iter().flatten().find(|c| c.name == name);
    own.map(Cow::Borrowed).or_else(|| ephemeral().map(|c| Cow::Owned(as_container(c))))
}
