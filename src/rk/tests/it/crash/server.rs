//! What is killed: this test program again, as an API server on a socket, as a process of its own or as all that a guest runs.
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::UserInfo;
use hyper_util::rt::TokioIo;
use store::Store;
use store::etcd::{Holder, Options};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tower::Service as _;

use super::guest::{Guest, bridge};
use crate::world::Served;

pub const FOLDER: &str = "RK_CRASH_FOLDER";
/// Where to listen, in place of the socket in the folder.
pub const TCP: &str = "RK_CRASH_TCP";
const ETCD: &str = "RK_CRASH_ETCD";
const READY: &str = "@ready";

/// The child's part; does nothing when run as a test.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(&folder, std::env::var(ETCD).ok()));
}

async fn serve(folder: &Path, etcd: Option<String>) {
    let store: Arc<dyn Store> = match etcd {
        None => Arc::new(store::sqlite::open(&folder.join("db"), store::sqlite::Options::default()).unwrap()),
        Some(endpoint) => {
            let holder = Some(Holder { id: "crash".into(), name: "the killed server".into() });
            let options = Options { endpoints: vec![endpoint], prefix: "/crash".into(), holder, ..Options::default() };
            Arc::new(store::etcd::open(options).await.unwrap())
        }
    };
    let server = Served::lenient(store, folder).await;
    let api = server.local(UserInfo::new("admin", &["system:masters"]));
    if let Ok(address) = std::env::var(TCP) {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        println!("{READY}");
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            answer(api.clone(), stream);
        }
    }
    let socket = folder.join("socket");
    let _ = std::fs::remove_file(&socket); // of the one before
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    println!("{READY}");
    loop {
        answer(api.clone(), listener.accept().await.unwrap().0);
    }
}

fn answer(api: apiserver::Local, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let answer = hyper::service::service_fn(move |request| api.clone().call(request));
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
}

pub struct Server {
    child: Child,
    began: Instant,
    socket: PathBuf,
    /// Of a guest: its port here.
    port: Option<u16>,
    bridge: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(folder: &Path, etcd: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "crash::server::child", "--nocapture", "--test-threads=1"]).env(FOLDER, folder);
        if let Some(etcd) = etcd {
            command.env(ETCD, etcd);
        }
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        Self { child, began, socket: folder.join("socket"), port: None, bridge: None }
    }

    pub fn boot(guest: &Guest, folder: &Path) -> Self {
        let began = Instant::now();
        let (child, port) = guest.boot();
        Self { child, began, socket: folder.join("socket"), port: Some(port), bridge: None }
    }

    /// Waits until it answers, and says how long that took.
    pub async fn ready(&mut self) -> Duration {
        let output = BufReader::new(self.child.stdout.take().unwrap());
        // It prints nothing after that line, so nobody needs to read on.
        let waiting = tokio::task::spawn_blocking(|| output.lines().map_while(Result::ok).any(|line| line.trim_end().ends_with(READY)));
        assert!(waiting.await.unwrap(), "the server ended by itself");
        self.bridge = self.port.map(|port| bridge(self.socket.clone(), port));
        self.began.elapsed()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if let Some(bridge) = self.bridge.take() {
            bridge.abort();
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that fails leaves no server behind; one that was killed is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
