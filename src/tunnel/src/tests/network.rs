//! An agent and servers on the loopback, with certificates.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pki::{Authority, Identity, LeafRequest};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{ask, echo};
use crate::{DialError, Dialer, ServerAddress, Servers, Tunnels, Uplinks};

struct Pki {
    server_ca: Authority,
    client_ca: Authority,
}

impl Pki {
    fn new() -> Self {
        pki::install_ring();
        let [server_ca, client_ca] = ["server", "client"].map(|name| Authority::create(name, SystemTime::now()).expect("an authority"));
        Self { server_ca, client_ca }
    }

    fn client(&self) -> rustls::ClientConfig {
        let leaf = self.client_ca.issue(&LeafRequest::node("a"), SystemTime::now()).expect("a certificate");
        pki::client_config(self.server_ca.certificate_pem(), Some(Identity::new(&leaf).expect("an identity"))).expect("a configuration")
    }

    /// Serves tunnels on `address` until the token; all connections end with it.
    async fn serve(&self, address: SocketAddr, tunnels: Tunnels) -> (SocketAddr, CancellationToken) {
        let leaf = self.server_ca.issue(&LeafRequest::api_server("cluster.local", &[], &[]), SystemTime::now()).expect("a certificate");
        let config = pki::server_config(Identity::new(&leaf).expect("an identity"), Some(self.client_ca.certificate_pem()))
            .expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! { accepted = listener.accept() => accepted, () = stopped.cancelled() => return };
                let (tcp, _) = accepted.expect("accepted");
                let (acceptor, tunnels, stopped) = (acceptor.clone(), tunnels.clone(), stopped.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        let tunnels = tunnels.clone();
                        async move { Ok::<_, std::convert::Infallible>(tunnels.answer("a", request)) }
                    });
                    // A pipe in between, so that a stop cuts the connection under the tunnel.
                    let (mut near, far) = tokio::io::duplex(64 << 10);
                    let mut tls = tls;
                    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades());
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut tls, &mut near) => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        (address, stop)
    }
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn server(host: &str, port: u16) -> ServerAddress {
    ServerAddress { host: host.into(), port }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn an_agent_comes_back_after_its_server_was_away() {
    let pki = Pki::new();
    let before = Tunnels::default();
    let (address, stop) = pki.serve(any(), before.clone()).await;
    let servers = Arc::new(Servers::new(vec![server("127.0.0.1", address.port())]));
    let shutdown = CancellationToken::new();
    let agent = tokio::spawn(Uplinks::new(Dialer::new(servers, pki.client()), echo("a:")).run(shutdown.clone()));
    assert_eq!(ask(&before, "a", "1").await, "a:1");
    stop.cancel();
    eventually("the tunnel ends", || before.connected().is_empty()).await;
    let after = Tunnels::default();
    tokio::time::sleep(Duration::from_millis(500)).await;
    pki.serve(address, after.clone()).await;
    assert_eq!(ask(&after, "a", "2").await, "a:2");
    shutdown.cancel();
    agent.await.expect("the agent ends when it is told to");
}

#[tokio::test]
async fn a_server_with_two_addresses_gets_one_tunnel_and_two_servers_get_two() {
    let pki = Pki::new();
    let (one, other) = (Tunnels::default(), Tunnels::default());
    let (first, _stop) = pki.serve(any(), one.clone()).await;
    let (second, _other_stop) = pki.serve(any(), other.clone()).await;
    let list = vec![server("127.0.0.1", first.port()), server("localhost", first.port())];
    let servers = Arc::new(Servers::new(list.clone()));
    let shutdown = CancellationToken::new();
    tokio::spawn(Uplinks::new(Dialer::new(servers.clone(), pki.client()), echo("")).run(shutdown.clone()));
    assert_eq!(ask(&one, "a", "1").await, "1");
    let mut stream = one.dial("a").await.expect("a stream");
    servers.replace(list.into_iter().chain([server("127.0.0.1", second.port())]).collect());
    assert_eq!(ask(&other, "a", "2").await, "2");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"x").await.expect("the first tunnel was not replaced");
    assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut stream).await.expect("nor its stream"), b'x');
    shutdown.cancel();
}

#[tokio::test]
async fn the_dialer_takes_the_server_that_lives_and_remembers_it() {
    let pki = Pki::new();
    let gone = TcpListener::bind(any()).await.expect("a port").local_addr().expect("bound").port();
    let (address, _stop) = pki.serve(any(), Tunnels::default()).await;
    let servers = Arc::new(Servers::new(vec![server("127.0.0.1", gone), server("127.0.0.1", address.port())]));
    let dialer = Dialer::new(servers.clone(), pki.client());
    dialer.dial_any(&[b"http/1.1"]).await.expect("the second lives");
    assert_eq!(servers.order()[0].port, address.port());
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_said() {
    let pki = Pki::new();
    let (address, _stop) = pki.serve(any(), Tunnels::default()).await;
    let dial = |list: Vec<ServerAddress>, tls| async move {
        let dialer = Dialer::new(Arc::new(Servers::new(list)), tls);
        dialer.dial_any(&[b"http/1.1"]).await.map(drop).expect_err("refused")
    };
    let here = || vec![server("127.0.0.1", address.port())];
    assert!(matches!(dial(vec![], pki.client()).await, DialError::NoServer));
    assert!(matches!(dial(here(), Pki::new().client()).await, DialError::OtherCluster { .. }));
    let gone = TcpListener::bind(any()).await.expect("a port").local_addr().expect("bound").port();
    let error = dial(vec![server("127.0.0.1", gone)], pki.client()).await;
    assert!(matches!(error, DialError::Connect { .. }) && error.to_string().contains("cannot be reached: Connection refused"), "{error}");
    let early = SystemTime::now() + Duration::from_secs(86_400);
    let tomorrow = Authority::create("server", early).expect("an authority");
    let leaf = tomorrow.issue(&LeafRequest::api_server("cluster.local", &[], &[]), early).expect("a certificate");
    let config = pki::server_config(Identity::new(&leaf).expect("an identity"), None).expect("a configuration");
    let listener = TcpListener::bind(any()).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("accepted");
        drop(TlsAcceptor::from(Arc::new(config)).accept(tcp).await);
    });
    let trusting = pki::client_config(tomorrow.certificate_pem(), None).expect("a configuration");
    let error = dial(vec![server("127.0.0.1", port)], trusting).await;
    assert!(matches!(error, DialError::Clock { .. }), "{error}");
}
