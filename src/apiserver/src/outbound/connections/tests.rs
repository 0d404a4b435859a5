use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::Incoming;
use tokio::task::JoinSet;

use super::*;
use crate::tests::https::certified;

/// A server on this machine with a certificate for it.
pub struct Server {
    pub port: u16,
    /// PEM.
    pub authority: String,
    /// Connections that were ever made.
    pub made: Arc<AtomicUsize>,
    pub open: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

struct Opened(Arc<AtomicUsize>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    pub async fn start<A: Future<Output = Result<http::Response<Full<Bytes>>, Infallible>> + Send>(
        answer: impl Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::listen(0, answer).await
    }

    async fn listen<A: Future<Output = Result<http::Response<Full<Bytes>>, Infallible>> + Send>(
        port: u16,
        answer: impl Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        let (authority, acceptor) = certified("127.0.0.1");
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (made, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (made_here, open_here) = (made.clone(), open.clone());
        let task = tokio::spawn(async move {
            // They end with the server.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, made, open) = (acceptor.clone(), answer.clone(), made_here.clone(), open_here.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    made.fetch_add(1, Ordering::SeqCst);
                    open.fetch_add(1, Ordering::SeqCst);
                    let _opened = Opened(open);
                    let service = hyper::service::service_fn(answer);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, authority, made, open, task }
    }

    async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.open_are(0).await;
    }

    /// Waits until so many connections are open.
    pub async fn open_are(&self, count: usize) {
        let all = async {
            while self.open.load(Ordering::SeqCst) != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.unwrap_or_else(|_| panic!("{:?} connections are open, not {count}", self.open));
    }

    fn to(&self) -> To<'static> {
        To::Address(SocketAddr::from(([127, 0, 0, 1], self.port)))
    }

    fn tls(&self) -> Arc<ClientConfig> {
        super::super::trusting(self.authority.as_bytes(), None).unwrap()
    }
}

fn asking(path: &str) -> Request<Full<Bytes>> {
    Request::post(path).header("host", "h").body(Full::new(Bytes::from_static(b"?"))).unwrap()
}

async fn ask(connections: &Connections, to: To<'_>, tls: &Arc<ClientConfig>, path: &str) -> Result<Bytes, String> {
    connections.call(to, Trust { name: "127.0.0.1", tls }, asking(path), 10).await.map(|(_, body)| body)
}

async fn answer(request: Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let body: &'static [u8] = match request.uri().path() {
        "/long" => b"more than ten bytes",
        "/never" => std::future::pending().await,
        _ => b"!",
    };
    let closes = request.uri().path() == "/last";
    let response = http::Response::builder().header("connection", if closes { "close" } else { "keep-alive" });
    Ok(response.body(Full::new(Bytes::from_static(body))).unwrap())
}

#[tokio::test]
async fn a_connection_serves_one_call_after_the_other() {
    let server = Server::start(answer).await;
    let (connections, tls) = (Connections::default(), server.tls());
    for _ in 0..5 {
        assert_eq!(ask(&connections, server.to(), &tls, "/").await.unwrap(), "!");
    }
    assert_eq!((server.made.load(Ordering::SeqCst), connections.len()), (1, 1));
    // By name, too: it is not looked up while there is one.
    assert_eq!(ask(&connections, To::Host("no.such.host.invalid", server.port), &tls, "/").await.unwrap(), "!");
    // Calls at once have one each, and as many are kept as may be.
    let calls = (0..2 * IDLE_MAX).map(|_| ask(&connections, server.to(), &tls, "/"));
    assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    assert!(connections.len() <= IDLE_MAX && server.made.load(Ordering::SeqCst) <= 2 * IDLE_MAX);
    server.open_are(connections.len()).await;
    drop(connections);
    server.open_are(0).await;
}

#[tokio::test]
async fn what_was_not_read_to_its_end_is_not_used_again() {
    let server = Server::start(answer).await;
    let (connections, tls) = (Connections::default(), server.tls());
    let error = ask(&connections, server.to(), &tls, "/long").await.unwrap_err();
    assert_eq!(error, "unexpected error when reading response body: length limit exceeded");
    let never = tokio::time::timeout(Duration::from_millis(50), ask(&connections, server.to(), &tls, "/never")).await;
    assert!(never.is_err());
    assert_eq!(ask(&connections, server.to(), &tls, "/last").await.unwrap(), "!");
    server.open_are(0).await;
    assert_eq!(ask(&connections, server.to(), &tls, "/").await.unwrap(), "!");
    assert_eq!(server.made.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_server_that_comes_back_is_asked_over_a_new_connection() {
    let server = Server::start(answer).await;
    let (connections, tls) = (Connections::default(), server.tls());
    assert_eq!(ask(&connections, server.to(), &tls, "/").await.unwrap(), "!");
    let (to, port) = (server.to(), server.port);
    server.stop().await;
    // Nobody is there; what was kept is of no use.
    let error = ask(&connections, to, &tls, "/").await.unwrap_err();
    assert!(error.ends_with("connect: connection refused"), "{error}");
    let other = Server::listen(port, answer).await;
    // And it is another one, which the authority of the first did not certify.
    let error = ask(&connections, to, &tls, "/").await.unwrap_err();
    assert!(error.starts_with("tls: "), "{error}");
    assert_eq!(ask(&connections, to, &other.tls(), "/").await.unwrap(), "!");
    // An address is asked over connections to it.
    let elsewhere = ask(&connections, To::Address(SocketAddr::from(([127, 0, 0, 1], 1))), &tls, "/").await.unwrap_err();
    assert!(elsewhere.ends_with("connect: connection refused"), "{elsewhere}");
    assert_eq!(connections.len(), 1);
}

#[tokio::test]
async fn what_nobody_uses_is_closed() {
    let server = Server::start(answer).await;
    let (connections, tls) = (Connections::default(), server.tls());
    assert_eq!(ask(&connections, server.to(), &tls, "/").await.unwrap(), "!");
    tokio::time::pause();
    tokio::time::sleep(IDLE_TIME - Duration::from_secs(1)).await;
    assert_eq!(connections.len(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(connections.len(), 0);
    tokio::time::resume();
    server.open_are(0).await;
    assert!(!connections.lock().is_watched);
    assert_eq!(ask(&connections, server.to(), &tls, "/").await.unwrap(), "!");
}
