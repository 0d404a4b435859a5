//! Who a container runs as, and what it may do.
//!
//! Models pkg/kubelet/kuberuntime/{security_context.go,security_context_others.go} and pkg/securitycontext, v1.37. Names of
//! users are looked up in the image's own files, opened beneath each layer without leaving it.

use std::io::Read;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};
use runtime::{Capabilities, Seccomp, User};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Of an image's passwd and group files this much is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecurityError {
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageRunsAsRoot { pod: String, container: String },
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    UserBreaksPolicy { pod: String, container: String },
    #[error("container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})")]
    NonNumericUser { user: String, pod: String, container: String },
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("{what} {id} is out of range")]
    IdOutOfRange { what: &'static str, id: i64 },
    #[error("unknown capability to add: {0:?}")]
    UnknownCapability(String),
    #[error("seccomp profile type {0:?} is not supported by this kubelet")]
    Seccomp(String),
}

/// One line of a passwd file.
struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// One line of a group file.
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// What the runtime is told of a container's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: User,
    /// The home directory that the image's passwd file gives to the user.
    pub home: Option<String>,
}

pub fn identity(pod: &Pod, container: &Container, image_user: &str, layers: &[PathBuf]) -> Result<Identity, SecurityError> {
    let pod_context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.as_ref();
    let run_as_user = own.and_then(|c| c.run_as_user).or(pod_context.and_then(|c| c.run_as_user));
    let run_as_group = own.and_then(|c| c.run_as_group).or(pod_context.and_then(|c| c.run_as_group));
    non_root(pod, container, own, pod_context, run_as_user, image_user)?;

    let needs_files = run_as_user.is_some() || !image_user.is_empty();
    let passwd = if needs_files { parse_passwd(&read(layers, "etc/passwd")) } else { Vec::new() };
    let groups = if needs_files { parse_group(&read(layers, "etc/group")) } else { Vec::new() };

    let (image_name, image_group) = image_user.split_once(':').map_or((image_user, None), |(u, g)| (u, Some(g)));
    let entry = match run_as_user {
        Some(uid) => {
            let uid = id("user", uid)?;
            passwd.iter().find(|p| p.uid == uid).map_or((uid, 0, None), |p| (uid, p.gid, Some(p)))
        }
        None if image_name.is_empty() => (0, 0, passwd.iter().find(|p| p.uid == 0)),
        None => match image_name.parse::<u32>() {
            Ok(uid) => passwd.iter().find(|p| p.uid == uid).map_or((uid, 0, None), |p| (uid, p.gid, Some(p))),
            Err(_) => {
                let found = passwd.iter().find(|p| p.name == image_name).ok_or_else(|| SecurityError::NoUser(image_name.into()))?;
                (found.uid, found.gid, Some(found))
            }
        },
    };
    let (uid, mut gid, known) = entry;
    if run_as_user.is_none()
        && let Some(group) = image_group.filter(|g| !g.is_empty())
    {
        gid = match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => groups.iter().find(|g| g.name == group).map(|g| g.gid).ok_or_else(|| SecurityError::NoGroup(group.into()))?,
        };
    }
    if let Some(group) = run_as_group {
        gid = id("group", group)?;
    }
    let mut supplementary = Vec::new();
    let mut add = |g: u32| {
        if !supplementary.contains(&g) {
            supplementary.push(g);
        }
    };
    for group in pod_context.and_then(|c| c.supplemental_groups.as_ref()).into_iter().flatten() {
        add(id("group", *group)?);
    }
    if let Some(group) = pod_context.and_then(|c| c.fs_group) {
        add(id("group", group)?);
    }
    // KEP-3619: with Strict only what the pod names; with Merge also what the image's group file says.
    if pod_context.and_then(|c| c.supplemental_groups_policy.as_deref()) != Some("Strict") {
        for group in groups.iter().filter(|g| known.is_some_and(|k| g.members.contains(&k.name))) {
            add(group.gid);
        }
    }
    Ok(Identity { user: User { uid, gid, supplementary }, home: known.map(|k| k.home.clone()).filter(|h| !h.is_empty()) })
}

fn id(what: &'static str, id: i64) -> Result<u32, SecurityError> {
    u32::try_from(id).ok().filter(|v| *v <= i32::MAX as u32).ok_or(SecurityError::IdOutOfRange { what, id })
}

fn non_root(
    pod: &Pod,
    container: &Container,
    own: Option<&SecurityContext>,
    pod_context: Option<&PodSecurityContext>,
    run_as_user: Option<i64>,
    image_user: &str,
) -> Result<(), SecurityError> {
    if own.and_then(|c| c.run_as_non_root).or(pod_context.and_then(|c| c.run_as_non_root)) != Some(true) {
        return Ok(());
    }
    let meta = &pod.metadata;
    let named = format!(
        "{}_{}({})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default()
    );
    let name = image_user.split(':').next().unwrap_or_default();
    match run_as_user {
        Some(0) => Err(SecurityError::UserBreaksPolicy { pod: named, container: container.name.clone() }),
        Some(_) => Ok(()),
        None => match name.parse::<u32>() {
            Ok(0) => Err(SecurityError::ImageRunsAsRoot { pod: named, container: container.name.clone() }),
            Ok(_) => Ok(()),
            Err(_) if name.is_empty() => Err(SecurityError::ImageRunsAsRoot { pod: named, container: container.name.clone() }),
            Err(_) => Err(SecurityError::NonNumericUser { user: name.into(), pod: named, container: container.name.clone() }),
        },
    }
}

/// The file as the topmost layer that has it shows it. Beneath the layer by descriptor: a symlink cannot leave it.
fn read(layers: &[PathBuf], path: &str) -> String {
    for layer in layers {
        match open_beneath(layer, path) {
            Ok(file) => {
                let mut text = Vec::new();
                return match std::fs::File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut text) {
                    Ok(_) => String::from_utf8_lossy(&text).into_owned(),
                    Err(_) => String::new(),
                };
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => return String::new(),
        }
    }
    String::new()
}

fn open_beneath(root: &Path, path: &str) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let root = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?;
    // A whiteout is a character device: the file is gone in this image.
    let stat = rustix::fs::fstat(&file)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(rustix::io::Errno::ISDIR);
    }
    Ok(file)
}

fn parse_passwd(text: &str) -> Vec<Passwd> {
    text.lines()
        .filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            Some(Passwd { name: (*f.first()?).into(), uid: f.get(2)?.parse().ok()?, gid: f.get(3)?.parse().ok()?, home: f.get(5).copied().unwrap_or_default().into() })
        })
        .collect()
}

fn parse_group(text: &str) -> Vec<Group> {
    text.lines()
        .filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            let members = f.get(3).copied().unwrap_or_default().split(',').filter(|m| !m.is_empty()).map(Into::into).collect();
            Some(Group { name: (*f.first()?).into(), gid: f.get(2)?.parse().ok()?, members })
        })
        .collect()
}

pub fn privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|c| c.privileged) == Some(true)
}

pub fn capabilities(container: &Container) -> Result<Capabilities, SecurityError> {
    if privileged(container) {
        return Ok(Capabilities::ALL);
    }
    let wanted = container.security_context.as_ref().and_then(|c| c.capabilities.as_ref());
    let mut set = Capabilities::default();
    let drop: Vec<&String> = wanted.and_then(|c| c.drop.as_ref()).into_iter().flatten().collect();
    let add: Vec<&String> = wanted.and_then(|c| c.add.as_ref()).into_iter().flatten().collect();
    if add.iter().any(|a| a.eq_ignore_ascii_case("all")) {
        set = Capabilities::ALL;
    }
    if drop.iter().any(|d| d.eq_ignore_ascii_case("all")) {
        set = Capabilities::NONE;
    }
    for name in add.iter().filter(|a| !a.eq_ignore_ascii_case("all")) {
        set = set.with(Capabilities::parse(name).ok_or_else(|| SecurityError::UnknownCapability((*name).clone()))?);
    }
    for name in drop.iter().filter(|d| !d.eq_ignore_ascii_case("all")) {
        // Dropping what does not exist harms nobody.
        if let Some(capability) = Capabilities::parse(name) {
            set = set.without(capability);
        }
    }
    Ok(set)
}

pub fn seccomp(pod: &Pod, container: &Container) -> Result<Seccomp, SecurityError> {
    if privileged(container) {
        return Ok(Seccomp::Unconfined);
    }
    let profile: Option<&SeccompProfile> = container
        .security_context
        .as_ref()
        .and_then(|c| c.seccomp_profile.as_ref())
        .or_else(|| pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.seccomp_profile.as_ref()));
    match profile.map(|p| p.type_.as_str()) {
        // As upstream without SeccompDefault: unconfined unless asked.
        None | Some("Unconfined") => Ok(Seccomp::Unconfined),
        Some("RuntimeDefault") => Ok(Seccomp::RuntimeDefault),
        Some(other) => Err(SecurityError::Seccomp(other.into())),
    }
}

pub fn no_new_privileges(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|c| c.allow_privilege_escalation) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("etc")).expect("etc");
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/false\n").expect("passwd");
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nweb:x:102:\nextra:x:200:web,other\n").expect("group");
        dir
    }

    #[track_caller]
    fn check(pod_context: serde_json::Value, own: serde_json::Value, image_user: &str, expected: Result<(u32, u32, &[u32]), &str>) {
        let dir = image();
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "securityContext": pod_context}}))
        .expect("a pod");
        let container: Container = serde_json::from_value(serde_json::json!({"name": "c", "securityContext": own})).expect("a container");
        match (identity(&pod, &container, image_user, &[dir.path().into()]), expected) {
            (Ok(got), Ok((uid, gid, groups))) => assert_eq!((got.user.uid, got.user.gid, got.user.supplementary.as_slice()), (uid, gid, groups)),
            (Err(got), Err(text)) => assert!(got.to_string().contains(text), "{got}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
    }

    #[test]
    fn users_come_from_the_pod_then_from_the_image() {
        use serde_json::json;
        check(json!({}), json!({}), "", Ok((0, 0, &[])));
        check(json!({}), json!({}), "web", Ok((101, 102, &[200])));
        check(json!({}), json!({}), "web:extra", Ok((101, 200, &[200])));
        check(json!({}), json!({}), "1000:2000", Ok((1000, 2000, &[])));
        check(json!({"runAsUser": 5}), json!({"runAsUser": 101}), "", Ok((101, 102, &[200])));
        check(json!({"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "supplementalGroups": [8]}), json!({}), "web", Ok((5, 6, &[8, 7])));
        check(json!({"supplementalGroupsPolicy": "Strict"}), json!({}), "web", Ok((101, 102, &[])));
        check(json!({}), json!({}), "none", Err("unable to find user none"));
        check(json!({"runAsUser": 4294967296i64}), json!({}), "", Err("out of range"));
    }

    #[test]
    fn non_root_is_checked_before_anything_runs() {
        use serde_json::json;
        let policy = json!({"runAsNonRoot": true});
        check(policy.clone(), json!({}), "", Err("container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"));
        check(policy.clone(), json!({}), "web", Err("non-numeric user (web)"));
        check(policy.clone(), json!({"runAsUser": 0}), "", Err("breaks non-root policy"));
        check(policy, json!({}), "101", Ok((101, 102, &[200])));
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let of = |c: serde_json::Value| {
            let container: Container = serde_json::from_value(serde_json::json!({"name": "c", "securityContext": {"capabilities": c}})).expect("a container");
            capabilities(&container)
        };
        let one = |n| Capabilities::parse(n).expect("a capability");
        assert_eq!(of(serde_json::json!({"drop": ["ALL"], "add": ["NET_ADMIN"]})), Ok(one("NET_ADMIN")));
        assert_eq!(of(serde_json::json!({"drop": ["CHOWN"]})), Ok(Capabilities::default().without(one("CHOWN"))));
        assert!(of(serde_json::json!({"add": ["NOPE"]})).is_err());
    }
}
