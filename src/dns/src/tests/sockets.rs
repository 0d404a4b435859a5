//! The same over real sockets on loopback, with a server of our own to forward to.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::runtime::{Handle, Runtime};

use super::{Page, question, responder, show};
use crate::forward::Forwarder;
use crate::reply::Responder;
use crate::{http, tcp, udp};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A server that knows one address for every name. To names that begin with "big" it says by UDP that TCP is needed.
fn upstream(asked: Arc<AtomicUsize>) -> SocketAddr {
    let tcp = TcpListener::bind((LOOPBACK, 0)).expect("a free port");
    let address = tcp.local_addr().expect("bound");
    let udp = UdpSocket::bind(address).expect("the same port");
    let answer = |wire: &[u8], tcp: bool| {
        let asked = Message::from_vec(wire).expect("a question");
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        answer.add_queries(asked.queries.clone());
        let name = asked.queries[0].name().clone();
        if name.to_string().starts_with("big") && !tcp {
            answer.metadata.truncation = true;
        } else {
            let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 7)));
            answer.add_answer(Record::from_rdata(name, 20, data));
        }
        answer.to_vec().expect("encodes")
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            asked.fetch_add(1, Ordering::SeqCst);
            let mut forged = answer(&buffer[..length], false);
            forged[0] ^= 0xff;
            udp.send_to(&forged, client).expect("sent");
            udp.send_to(&answer(&buffer[..length], false), client).expect("sent");
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.expect("a connection");
            let wire = read_framed(&mut stream);
            write_framed(&mut stream, &answer(&wire, true));
        }
    });
    address
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut wire = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut wire).expect("a message");
    wire
}

fn write_framed(stream: &mut TcpStream, wire: &[u8]) {
    let length = u16::try_from(wire.len()).expect("short").to_be_bytes();
    stream.write_all(&[&length, wire].concat()).expect("written");
}

struct Server {
    udp: SocketAddr,
    tcp: SocketAddr,
    asked: Arc<AtomicUsize>,
    responder: Arc<Responder<Page>>,
    _threads: udp::Threads,
    _runtime: Runtime,
}

impl Server {
    fn start() -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let asked = Arc::new(AtomicUsize::new(0));
        let mut responder = responder(true);
        // Nobody answers at the first; the second is ours.
        let deaf = UdpSocket::bind((LOOPBACK, 0)).expect("a free port").local_addr().expect("bound");
        let servers = vec![deaf, upstream(asked.clone())];
        let forwarder = Forwarder::new(servers, |_| false, responder.metrics.clone());
        responder.forwarder = Arc::new(forwarder);
        let responder = Arc::new(responder);
        let socket = udp::bind((LOOPBACK, 0).into()).expect("a free port");
        let udp = socket.local_addr().expect("bound");
        let _entered = runtime.enter();
        let threads = udp::start(vec![socket], &responder, &Handle::current()).expect("started");
        let listener = TcpListener::bind((LOOPBACK, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("set");
        let tcp = listener.local_addr().expect("bound");
        let listener = tokio::net::TcpListener::from_std(listener).expect("registered");
        runtime.spawn(tcp::serve(listener, responder.clone()));
        drop(_entered);
        Server { udp, tcp, asked, responder, _threads: threads, _runtime: runtime }
    }

    fn by_udp(&self, name: &str) -> Message {
        let socket = UdpSocket::bind((LOOPBACK, 0)).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let wire = question(name, RecordType::A).to_vec().expect("encodes");
        socket.send_to(&wire, self.udp).expect("sent");
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).expect("an answer");
        Message::from_vec(&buffer[..length]).expect("decodes")
    }
}

#[test]
fn own_names_are_answered_by_udp_and_tcp() {
    let server = Server::start();
    let expected = "No Error\nweb.default.svc.cluster.local. 5 A 10.43.0.80";
    assert_eq!(show(&server.by_udp("web.default.svc.cluster.local.")), expected);
    let mut stream = TcpStream::connect(server.tcp).expect("connected");
    for _ in 0..3 {
        let wire = question("web.default.svc.cluster.local.", RecordType::A).to_vec().expect("encodes");
        write_framed(&mut stream, &wire);
        let answer = Message::from_vec(&read_framed(&mut stream)).expect("decodes");
        assert_eq!(show(&answer), expected);
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
    let text = server.responder.metrics.text();
    assert!(text.contains("rk_dns_requests_total{proto=\"tcp\"} 3"), "{text}");
}

#[test]
fn others_names_are_asked_for_once() {
    let server = Server::start();
    for _ in 0..3 {
        let answer = server.by_udp("www.example.org.");
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
        assert_eq!(answer.answers[0].data, RData::A(A(Ipv4Addr::new(192, 0, 2, 7))));
        assert!(answer.answers[0].ttl <= 20);
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    // Truncated by UDP, whole by TCP.
    let big = server.by_udp("big.example.org.");
    assert_eq!(big.answers.len(), 1);
    // An alias comes with its target's address.
    let alias = server.by_udp("away.default.svc.cluster.local.");
    assert_eq!(show(&alias), "No Error\naway.default.svc.cluster.local. 5 CNAME www.example.org.\nwww.example.org. 20 A 192.0.2.7");
}

#[test]
fn health_is_one_path() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind((LOOPBACK, 0))).expect("a free port");
    let address = listener.local_addr().expect("bound");
    runtime.spawn(http::serve(listener, "/health", Arc::new(|| (false, "not yet".to_owned()))));
    let ask = |line: &str| {
        let mut stream = TcpStream::connect(address).expect("connected");
        write!(stream, "{line} HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    };
    let answer = ask("GET /health?x=1");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nnot yet"), "{answer}");
    assert!(ask("GET /other").starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /health").starts_with("HTTP/1.1 405 "));
}
