//! An etcd of a test's own: on a free loopback port, its files in a folder that goes with it.
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use store::etcd::{self, EtcdStore, Options};

/// `RK_TEST_ETCD`, the one that the conformance tests build, or the one of the system.
fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("RK_TEST_ETCD") {
        return Some(path.into());
    }
    let cache = std::env::var_os("RK_CACHE").map(PathBuf::from).or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache/rk")));
    let built = cache.map(|cache| cache.join("conformance/bin/etcd"));
    built.into_iter().chain(["/usr/bin/etcd".into(), "/usr/local/bin/etcd".into()]).find(|path| path.exists())
}

pub struct Etcd {
    pub folder: tempfile::TempDir,
    program: PathBuf,
    ports: [u16; 2],
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Etcd {
    /// `None`, and a line that nothing captures, where there is no etcd.
    pub fn new(test: &str) -> Option<Self> {
        let Some(program) = program() else {
            use std::io::Write as _;
            let line = format!("skipped: {test}: no etcd (package etcd-server, or RK_TEST_ETCD)\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        };
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        Some(Self { folder: tempfile::tempdir().unwrap(), program, ports, arguments: Vec::new(), child: None })
    }

    /// Running, for who needs nothing else.
    pub fn started(test: &str) -> Option<Self> {
        let mut etcd = Self::new(test)?;
        etcd.start();
        Some(etcd)
    }

    pub fn with_arguments(mut self, arguments: Vec<String>) -> Self {
        self.arguments = arguments;
        self
    }

    fn scheme(&self) -> &'static str {
        if self.arguments.iter().any(|argument| argument == "--cert-file") { "https" } else { "http" }
    }

    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.ports[0])
    }

    pub fn start(&mut self) {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.ports[1]));
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let child = Command::new(&self.program)
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap", "--log-level", "warn"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// As a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn forget_everything(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        self.start();
    }

    pub fn options(&self) -> Options {
        Options { endpoints: vec![self.endpoint()], prefix: "/test".into(), ..Options::default() }
    }

    pub async fn open(&self) -> EtcdStore {
        etcd::open(self.options()).await.unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for what must become true.
pub async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
