//! A runtime of its own for each test, with a root filesystem made of one static busybox.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime::{Config, ContainerSpec, Event, Exit, Rootfs, Runtime, SandboxHandle, SandboxSpec, ShimProgram};
use tokio::sync::mpsc::UnboundedReceiver;

/// This test binary is its own shim, and the daemon that is killed: before libtest's main, by argv[0].
#[used]
#[unsafe(link_section = ".init_array")]
static ROLES: extern "C" fn() = {
    extern "C" fn choose() {
        let role = std::env::args_os().next().unwrap_or_default();
        if role == "rk-shim" {
            let code = runtime::shim::main();
            std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
        }
        if role == "rk-test-daemon" {
            crate::recovery::daemon();
        }
    }
    choose
};

pub const BUSYBOX: [&str; 3] = ["/usr/bin/busybox", "/bin/busybox", "/root/.cache/rk/bb/x/bin/busybox"];

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    pub name: String,
    pub directory: PathBuf,
    pub runtime: Runtime,
    pub events: UnboundedReceiver<Event>,
}

/// The way to a busybox, or a loud no.
fn busybox() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return None;
    }
    let found = BUSYBOX.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        eprintln!("SKIPPED: needs a static busybox (apt-get install busybox-static)");
    }
    found
}

/// Runs `test` in a lab, then checks that nothing is left on the host.
pub fn run<F: AsyncFnOnce(&mut Lab)>(test: F) {
    let Some(busybox) = busybox() else { return };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("rk-it-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(&name);
    make_rootfs(&directory.join("lower"), busybox);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tokio.block_on(async {
            let runtime = Runtime::open(config(&name, &directory)).await.expect("open the runtime");
            let events = runtime.events();
            let mut lab = Lab { name: name.clone(), directory: directory.clone(), runtime, events };
            test(&mut lab).await;
            lab.runtime.teardown_all().await.expect("tear down");
        });
    }));
    if let Err(panic) = passed {
        // A failed test takes its things away too.
        tokio.block_on(async {
            if let Ok(runtime) = Runtime::open(config(&name, &directory)).await {
                let _reported_by_the_panic = runtime.teardown_all().await;
            }
        });
        std::panic::resume_unwind(panic);
    }
    drop(tokio);
    assert_nothing_left(&name);
    std::fs::remove_dir_all(&directory).expect("the lab's directory holds no mount and nothing busy");
}

pub fn config(name: &str, directory: &Path) -> Config {
    Config {
        state_dir: directory.join("state"),
        run_dir: directory.join("run"),
        shim: ShimProgram::SelfExe,
        cgroup_root: name.to_owned(),
    }
}

pub fn make_rootfs(root: &Path, busybox: &str) {
    for directory in ["bin", "etc", "tmp", "root", "home/user", "var"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::os::unix::fs::symlink("../run", root.join("var/run")).unwrap();
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in ["sh", "ls", "cat", "echo", "sleep", "id", "env", "pwd", "stat", "touch", "mount", "ps", "kill", "head",
        "tr", "grep", "mkdir", "mknod", "dd", "hostname", "true", "false", "stty", "tty", "wc", "nc", "ip", "sysctl", "chown", "ulimit", "seq", "readlink", "test", "ln", "rm", "unshare"]
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    std::fs::write(root.join("bin/not-executable"), "#!/bin/sh\n").unwrap();
    let script = root.join("bin/no-interpreter");
    std::fs::write(&script, "#!/bin/absent\n").unwrap();
    let garbage = root.join("bin/garbage");
    std::fs::write(&garbage, "\x01\x02garbage").unwrap();
    for file in [script, garbage] {
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// Mounts, cgroups and processes that carry the lab's name.
pub fn assert_nothing_left(name: &str) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(name)).collect();
    assert!(left.is_empty(), "mounts left: {left:#?}");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        assert!(!hierarchy.path().join(name).exists(), "cgroup left in {}", hierarchy.path().display());
    }
    let processes = Command::new("ps").args(["-eo", "pid,args"]).output().unwrap();
    let text = String::from_utf8_lossy(&processes.stdout).into_owned();
    let left: Vec<&str> = text.lines().filter(|line| line.contains(&format!("/{name}/"))).collect();
    assert!(left.is_empty(), "processes left: {left:#?}");
}

impl Lab {
    pub fn id(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    pub async fn sandbox(&self, suffix: &str) -> SandboxHandle {
        self.sandbox_with(suffix, |_| {}).await
    }

    pub async fn sandbox_with(&self, suffix: &str, change: impl FnOnce(&mut SandboxSpec)) -> SandboxHandle {
        let mut spec = SandboxSpec {
            id: self.id(suffix),
            hostname: "pod-host".into(),
            cgroup_parent: format!("kubepods/pod-{suffix}"),
            log_dir: Some(self.directory.join("logs").join(suffix)),
            labels: BTreeMap::from([("pod".to_owned(), suffix.to_owned())]),
            ..SandboxSpec::default()
        };
        change(&mut spec);
        self.runtime.create_sandbox(spec).await.expect("create a sandbox")
    }

    /// A shell script as a container.
    pub fn shell(&self, suffix: &str, script: &str) -> ContainerSpec {
        self.program(suffix, &["/bin/sh", "-c", script])
    }

    pub fn program(&self, suffix: &str, argv: &[&str]) -> ContainerSpec {
        let id = self.id(suffix);
        let layers = self.directory.join("layers").join(&id);
        let (upper, work) = (layers.join("upper"), layers.join("work"));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        let rootfs = Rootfs::Overlay { lower: vec![self.directory.join("lower")], upper, work };
        let mut spec = ContainerSpec::new(id, rootfs, argv.iter().map(|s| (*s).to_owned()).collect());
        spec.log_path = Some(format!("{suffix}.log").into());
        spec
    }

    /// What a container logged so far, without stamps: `stdout F text`.
    pub fn log(&self, sandbox: &str, suffix: &str) -> Vec<String> {
        let path = self.directory.join("logs").join(sandbox).join(format!("{suffix}.log"));
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// Starts it, waits for its end, and gives what it wrote.
    pub async fn run_to_end(&self, sandbox: &str, suffix: &str, spec: ContainerSpec) -> (Exit, Vec<String>) {
        let id = spec.id.clone();
        self.runtime.start_container(&self.id(sandbox), spec).await.expect("start");
        let exit = within(self.runtime.wait(&id)).await.expect("wait");
        (exit, self.log(sandbox, suffix))
    }
}

/// No test waits for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}
