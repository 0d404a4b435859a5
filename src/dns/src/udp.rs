//! UDP: threads with a socket each on the same port; the kernel spreads the questions over them.
//!
//! Threads and not tasks: a blocking receive and send costs half of what an async one does.
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{AddressFamily, Shutdown, SocketType, sockopt};
use tokio::runtime::Handle;

use crate::catalog::Catalog;
use crate::reply::{Responder, Step, Transport};

/// Longer questions do not exist.
const QUESTION_BYTES_MAX: usize = 4096;
/// Bursts are longer than the default buffer.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// Ends the threads when dropped.
pub(crate) struct Threads {
    sockets: Vec<Arc<UdpSocket>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for socket in &self.sockets {
            // Wakes the receiver; "not connected" is the answer all the same.
            let _ = rustix::net::shutdown(socket.as_fd(), Shutdown::Read);
        }
    }
}

pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    // As much as the kernel's limit allows.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
    rustix::net::bind(&socket, &address)?;
    Ok(UdpSocket::from(socket))
}

/// Starts a thread for each socket.
pub(crate) fn start<C: Catalog>(sockets: Vec<UdpSocket>, responder: &Arc<Responder<C>>, runtime: &Handle) -> io::Result<Threads> {
    let sockets: Vec<Arc<UdpSocket>> = sockets.into_iter().map(Arc::new).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = Threads { sockets: sockets.clone(), stop: stop.clone() };
    for (number, socket) in sockets.into_iter().enumerate() {
        let (responder, stop, runtime) = (responder.clone(), stop.clone(), runtime.clone());
        std::thread::Builder::new()
            .name(format!("dns-udp-{number}"))
            .stack_size(512 * 1024)
            .spawn(move || answer(&socket, &responder, &stop, &runtime))?;
    }
    Ok(threads)
}

fn answer<C: Catalog>(socket: &Arc<UdpSocket>, responder: &Arc<Responder<C>>, stop: &AtomicBool, runtime: &Handle) {
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        let received = socket.recv_from(&mut buffer);
        if stop.load(Ordering::Acquire) {
            return;
        }
        // An error here is one that an earlier answer met on its way (ICMP).
        let Ok((length, client)) = received else {
            continue;
        };
        match responder.handle(&buffer[..length], Transport::Udp) {
            Step::Reply(wire) => send(socket, &wire, client),
            Step::Ask(pending) => {
                let (socket, responder) = (socket.clone(), responder.clone());
                runtime.spawn(async move {
                    let wire = responder.complete(*pending).await;
                    send(&socket, &wire, client);
                });
            }
            Step::Ignore => {}
        }
    }
}

fn send(socket: &UdpSocket, wire: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(wire, client) {
        tracing::debug!(%client, %error, "an answer was not sent");
    }
}
