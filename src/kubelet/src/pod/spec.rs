//! Turns a container of the API into what the runtime starts.
//!
//! Models pkg/kubelet/kubelet_pods.go GenerateRunContainerOptions and pkg/kubelet/kuberuntime generateContainerConfig, v1.37.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use images::{Image, Snapshot};
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerSpec, Mount, Propagation, Resources, Rootfs};

use crate::config::KubeletConfig;
use crate::expand::expand;
use crate::fields::NodeFacts;
use crate::volumes::Mounted;
use crate::{env, files, resources, security};

pub const LABEL_POD: &str = "io.kubernetes.pod.name";
pub const LABEL_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const LABEL_UID: &str = "io.kubernetes.pod.uid";
pub const LABEL_CONTAINER: &str = "io.kubernetes.container.name";
pub const LABEL_ATTEMPT: &str = "io.kubernetes.container.restartCount";
pub const LABEL_IMAGE: &str = "rk.io/image";
pub const LABEL_IMAGE_ID: &str = "rk.io/image-id";
pub const LABEL_STOP_SIGNAL: &str = "rk.io/stop-signal";

/// Why a container cannot be described; shown as CreateContainerConfigError.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error(transparent)]
    Env(#[from] env::EnvError),
    #[error(transparent)]
    Security(#[from] security::SecurityError),
    #[error("no command specified")]
    NoCommand,
    #[error("volume {0:?} is mounted but not in the pod")]
    NoVolume(String),
    #[error("{0} (container {1}) uses subPathExpr with a variable that is not defined")]
    SubPathExpr(String, String),
    #[error("invalid subPath {0:?}")]
    SubPath(String),
    #[error("mount of {0:?}: bidirectional propagation needs a privileged container")]
    Propagation(String),
    #[error("{what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, #[source] source: io::Error },
}

impl SpecError {
    /// The waiting reason that the status shows.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::NoCommand => "CreateContainerError",
            _ => "CreateContainerConfigError",
        }
    }
}

/// The files of one pod on disk.
#[derive(Debug, Clone)]
pub struct PodPaths {
    pub root: PathBuf,
    pub logs: PathBuf,
}

impl PodPaths {
    pub fn new(config: &KubeletConfig, pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let uid = meta.uid.as_deref().unwrap_or_default();
        let logs = format!("{}_{}_{uid}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        Self { root: config.root_dir.join("pods").join(uid), logs: config.log_dir.join("pods").join(logs) }
    }

    pub fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.logs.join(container).join(format!("{attempt}.log"))
    }

    pub fn termination(&self, container: &str, attempt: u32) -> PathBuf {
        self.root.join("containers").join(container).join(format!("{attempt}.termination"))
    }
}

pub struct Request<'a> {
    pub config: &'a KubeletConfig,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    pub id: &'a str,
    pub image: &'a Image,
    pub snapshot: Snapshot,
    pub mounted: &'a Mounted,
    pub sources: &'a env::Sources,
    pub facts: &'a NodeFacts,
    pub memory_capacity_bytes: u64,
}

/// Makes the container's small files, and says how to start it.
pub fn build(request: Request<'_>) -> Result<ContainerSpec, SpecError> {
    let Request { config, pod, container, image, .. } = &request;
    let snapshot = request.snapshot.clone();
    let identity = security::identity(pod, container, &image.config.user, &image.layers)?;
    let variables = env::make(pod, container, request.facts, request.sources)?;
    let lookup = |name: &str| variables.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let argv = command(container, image, &lookup);
    if argv.is_empty() {
        return Err(SpecError::NoCommand);
    }
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let hostname = if host_network { config.node_name.clone() } else { files::kernel_hostname(pod, &config.cluster_domain) };
    let environment = environment(image, &hostname, identity.home.as_deref(), &variables);
    let paths = PodPaths::new(config, pod);
    let mounts = mounts(&request, &paths, &lookup, host_network, &hostname)?;
    let log = paths.log(&container.name, request.attempt);
    make_dir(log.parent().unwrap_or(&paths.logs), 0o755)?;

    let privileged = security::privileged(container);
    let unmasked = container.security_context.as_ref().and_then(|s| s.proc_mount.as_deref()) == Some("Unmasked");
    let limits = resources::container_limits(pod, container);
    let meta = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut labels: BTreeMap<String, String> = [
        (LABEL_POD, text(&meta.name)),
        (LABEL_NAMESPACE, text(&meta.namespace)),
        (LABEL_UID, text(&meta.uid)),
        (LABEL_CONTAINER, container.name.clone()),
        (LABEL_ATTEMPT, request.attempt.to_string()),
        (LABEL_IMAGE, shown_image(container, image)),
        (LABEL_IMAGE_ID, image_id(image)),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect();
    if !image.config.stop_signal.is_empty() {
        labels.insert(LABEL_STOP_SIGNAL.into(), image.config.stop_signal.clone());
    }
    let cwd = container.working_dir.clone().filter(|w| !w.is_empty()).unwrap_or_else(|| image.config.working_dir.clone());
    let rootfs = Rootfs::Overlay { lower: snapshot.lower, upper: snapshot.upper, work: snapshot.work };
    let mut spec = ContainerSpec::new(request.id, rootfs, argv);
    spec.name = container.name.clone();
    spec.env = environment;
    spec.cwd = cwd;
    spec.user = identity.user;
    spec.mounts = mounts;
    spec.capabilities = security::capabilities(container)?;
    spec.no_new_privileges = security::no_new_privileges(container);
    spec.seccomp = security::seccomp(pod, container)?;
    spec.privileged = privileged;
    spec.read_only_root = container.security_context.as_ref().and_then(|s| s.read_only_root_filesystem) == Some(true);
    if unmasked {
        spec.masked_paths = Some(Vec::new());
        spec.readonly_paths = Some(Vec::new());
    }
    spec.resources = runtime_resources(&limits);
    spec.oom_score_adj = resources::oom_score_adj(pod, container, request.memory_capacity_bytes);
    spec.tty = container.tty == Some(true);
    spec.stdin = container.stdin == Some(true);
    spec.stdin_once = container.stdin_once == Some(true);
    spec.log_path = Some(log);
    spec.labels = labels;
    Ok(spec)
}

pub fn runtime_resources(limits: &resources::Limits) -> Resources {
    Resources {
        cpu_shares: Some(limits.cpu_shares),
        cpu_quota_us: limits.cpu_quota_microseconds.and_then(|q| i64::try_from(q).ok()),
        cpu_period_us: limits.cpu_quota_microseconds.map(|_| limits.cpu_period_microseconds),
        memory_limit_bytes: limits.memory_limit_bytes.and_then(|m| i64::try_from(m).ok()),
        ..Resources::default()
    }
}

/// As a status shows the image: its complete name with tag.
pub fn shown_image(container: &Container, image: &Image) -> String {
    image.tags.first().cloned().unwrap_or_else(|| container.image.clone().unwrap_or_default())
}

/// The repository's digest where one is known, else the image's own.
pub fn image_id(image: &Image) -> String {
    image.digests.first().cloned().unwrap_or_else(|| image.id.as_str().to_owned())
}

fn command(container: &Container, image: &Image, lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> { list.iter().flatten().map(|a| expand(a, lookup)).collect() };
    let own = expanded(&container.command);
    let args = expanded(&container.args);
    if !own.is_empty() {
        return own.into_iter().chain(args).collect();
    }
    let tail = if args.is_empty() { image.config.cmd.clone() } else { args };
    image.config.entrypoint.iter().cloned().chain(tail).collect()
}

fn environment(image: &Image, hostname: &str, home: Option<&str>, variables: &[(String, String)]) -> Vec<String> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match out.iter_mut().find(|(n, _)| n == name) {
        Some(found) => found.1 = value.to_owned(),
        None => out.push((name.to_owned(), value.to_owned())),
    };
    if let Some(home) = home {
        set("HOME", home);
    }
    for variable in &image.config.env {
        if let Some((name, value)) = variable.split_once('=') {
            set(name, value);
        }
    }
    set("HOSTNAME", hostname);
    for (name, value) in variables {
        set(name, value);
    }
    out.into_iter().map(|(n, v)| format!("{n}={v}")).collect()
}

fn mounts(request: &Request<'_>, paths: &PodPaths, lookup: &dyn Fn(&str) -> Option<String>, host_network: bool, hostname: &str) -> Result<Vec<Mount>, SpecError> {
    let Request { config, pod, container, .. } = request;
    let mut out = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = request.mounted.get(&mount.name).ok_or_else(|| SpecError::NoVolume(mount.name.clone()))?;
        let destination = if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
        let mut bind = Mount::bind(&volume.path, destination);
        bind.read_only = mount.read_only == Some(true) || volume.read_only;
        bind.recursive_read_only = bind.read_only && matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
        bind.propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") if security::privileged(container) => Propagation::Bidirectional,
            Some("Bidirectional") => return Err(SpecError::Propagation(mount.name.clone())),
            _ => Propagation::Private,
        };
        let expression = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty());
        let sub = match expression {
            Some(expression) => {
                let text = expand(expression, lookup);
                if text.contains("$(") {
                    return Err(SpecError::SubPathExpr(mount.name.clone(), container.name.clone()));
                }
                Some(text)
            }
            None => mount.sub_path.clone(),
        };
        if let Some(sub) = sub.filter(|s| !s.is_empty()) {
            if sub.starts_with('/') || sub.split('/').any(|p| p == "..") {
                return Err(SpecError::SubPath(sub));
            }
            bind.sub_path = Some(sub.into());
        }
        out.push(bind);
    }
    let taken = |path: &str, out: &[Mount]| out.iter().any(|m| m.destination == Path::new(path));
    make_dir(&paths.root, 0o750)?;
    if !taken("/etc/hosts", &out) {
        let text = if host_network {
            files::host_network_hosts(pod, &fs::read_to_string("/etc/hosts").unwrap_or_default())
        } else {
            files::hosts(pod, &request.facts.pod_ips, &config.cluster_domain)
        };
        out.push(file(&paths.root.join("etc-hosts"), &text, "/etc/hosts")?);
    }
    if !taken("/etc/resolv.conf", &out) {
        let host = files::Resolv::parse(&fs::read_to_string(&config.host_resolv_conf).unwrap_or_default());
        let text = files::resolv_conf(pod, &host, &config.cluster_dns, &config.cluster_domain).print();
        out.push(file(&paths.root.join("resolv.conf"), &text, "/etc/resolv.conf")?);
    }
    if !taken("/etc/hostname", &out) {
        out.push(file(&paths.root.join("hostname"), &format!("{hostname}\n"), "/etc/hostname")?);
    }
    let message = container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log");
    if !taken(message, &out) {
        let source = paths.termination(&container.name, request.attempt);
        make_dir(source.parent().unwrap_or(&paths.root), 0o750)?;
        let failed = |source_error| SpecError::Io { what: "create", path: source.clone(), source: source_error };
        fs::write(&source, "").map_err(failed)?;
        // Any user of the container may write it (upstream: 0666).
        fs::set_permissions(&source, fs::Permissions::from_mode(0o666)).map_err(failed)?;
        out.push(Mount::bind(&source, message));
    }
    // Parents before what lies below them.
    out.sort_by_key(|m| m.destination.components().count());
    Ok(out)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), SpecError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| SpecError::Io { what: "create", path: path.to_owned(), source })
}

/// Written in place: the mounts of running containers show the change.
fn file(path: &Path, text: &str, destination: &str) -> Result<Mount, SpecError> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(Mount::bind(path, destination));
    }
    let failed = |source| SpecError::Io { what: "write", path: path.to_owned(), source };
    fs::write(path, text).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(failed)?;
    Ok(Mount::bind(path, destination))
}
