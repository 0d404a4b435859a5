//! Connections of rk: framing, descriptors, bounded queues.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::epoll::{self, EventFlags};

use super::{Shim, Token};
use crate::protocol::{FDS_MAX, HEADER_BYTES, Header, Kind, News, Order, frame};
use crate::sys::{self, socket};
use crate::wire::{Wire, decode};

/// A reader that leaves this much lying is cut off; it finds everything on disk when it comes back.
const QUEUE_BYTES_MAX: usize = 1 << 20;
const CONNECTIONS_MAX: usize = 8;

pub(super) struct Connection {
    pub serial: u32,
    socket: OwnedFd,
    input: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    output: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    queued_bytes: usize,
}

impl Shim {
    pub(super) fn add_connection(&mut self, socket: OwnedFd) -> std::io::Result<()> {
        sys::set_nonblocking(&socket)?;
        let serial = self.next_serial();
        epoll::add(&self.epoll, &socket, Token::Connection(serial).data(), EventFlags::IN)?;
        self.connections.push(Connection {
            serial,
            socket,
            input: Vec::new(),
            fds: VecDeque::new(),
            output: VecDeque::new(),
            queued_bytes: 0,
        });
        Ok(())
    }

    /// Only root of our own user namespace: the socket lies in a 0700 directory, and is checked all the same.
    pub(super) fn accept(&mut self) {
        let Ok(socket) = rustix::net::accept_with(&self.listener, rustix::net::SocketFlags::CLOEXEC) else { return };
        let same_user = rustix::net::sockopt::socket_peercred(&socket)
            .is_ok_and(|peer| peer.uid == rustix::process::geteuid());
        if same_user && self.connections.len() < CONNECTIONS_MAX {
            let _dropped_on_error = self.add_connection(socket);
        }
    }

    fn connection(&mut self, serial: u32) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.serial == serial)
    }

    fn drop_connection(&mut self, serial: u32) {
        // Closing removes it from epoll: nobody else has a copy.
        self.connections.retain(|connection| connection.serial != serial);
    }

    /// Reads and carries out all orders that have arrived.
    pub(super) fn serve(&mut self, serial: u32) {
        loop {
            let mut scratch = std::mem::take(&mut self.scratch);
            let Some(connection) = self.connection(serial) else {
                self.scratch = scratch;
                return;
            };
            let mut fds = Vec::new();
            let received = socket::receive(connection.socket.as_fd(), &mut scratch, &mut fds);
            connection.fds.extend(fds);
            let open = match received {
                Ok(0) => false,
                Ok(count) => {
                    connection.input.extend_from_slice(&scratch[..count]);
                    true
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.scratch = scratch;
                    return;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => true,
                Err(_) => false,
            };
            self.scratch = scratch;
            if !self.carry_out_received(serial) || !open {
                self.drop_connection(serial);
                return;
            }
        }
    }

    /// False when the peer speaks nonsense.
    fn carry_out_received(&mut self, serial: u32) -> bool {
        loop {
            let Some(connection) = self.connection(serial) else { return true };
            let Some(raw) = connection.input.first_chunk::<HEADER_BYTES>() else { return true };
            let Ok(header) = Header::parse(raw) else { return false };
            let end = HEADER_BYTES + header.length as usize;
            if connection.input.len() < end {
                return true;
            }
            let order = decode::<Order>(&connection.input[HEADER_BYTES..end]);
            connection.input.drain(..end);
            if connection.input.is_empty() {
                connection.input = Vec::new();
            }
            let count = header.fds as usize;
            if connection.fds.len() < count || count > FDS_MAX || header.kind != Kind::Order {
                return false;
            }
            let fds: Vec<OwnedFd> = connection.fds.drain(..count).collect();
            let Ok(order) = order else { return false };
            let answer = self.carry_out(order, fds, serial);
            match answer {
                Ok(done) => {
                    let message = frame_raw(Kind::Done, header.id, &done.payload, done.fds.len());
                    self.send(serial, message, done.fds);
                }
                Err(failure) => self.send(serial, frame(Kind::Failed, header.id, 0, &failure), Vec::new()),
            }
        }
    }

    pub(super) fn tell_all(&mut self, news: &News) {
        for serial in self.connections.iter().map(|c| c.serial).collect::<Vec<_>>() {
            self.tell(serial, news);
        }
    }

    pub(super) fn tell(&mut self, serial: u32, news: &News) {
        self.send(serial, frame(Kind::News, 0, 0, news), Vec::new());
    }

    fn send(&mut self, serial: u32, message: Vec<u8>, fds: Vec<OwnedFd>) {
        let Some(connection) = self.connection(serial) else { return };
        connection.queued_bytes += message.len();
        connection.output.push_back((message, fds));
        if connection.queued_bytes > QUEUE_BYTES_MAX {
            self.drop_connection(serial);
            return;
        }
        self.flush_connection(serial);
    }

    pub(super) fn flush_connection(&mut self, serial: u32) {
        let Some(index) = self.connections.iter().position(|connection| connection.serial == serial) else { return };
        let connection = &mut self.connections[index];
        let mut broken = false;
        while let Some((message, fds)) = connection.output.front_mut() {
            let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
            match socket::send(connection.socket.as_fd(), message, &borrowed) {
                Ok(count) => {
                    connection.queued_bytes -= count;
                    fds.clear();
                    message.drain(..count);
                    if message.is_empty() {
                        connection.output.pop_front();
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken {
            self.drop_connection(serial);
            return;
        }
        let interest = if connection.output.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        let _gone = epoll::modify(&self.epoll, &connection.socket, Token::Connection(serial).data(), interest);
    }
}

fn frame_raw(kind: Kind, id: u64, payload: &[u8], fds: usize) -> Vec<u8> {
    struct Raw<'a>(&'a [u8]);
    impl Wire for Raw<'_> {
        fn put(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(self.0);
        }
        fn take(_input: &mut &[u8]) -> Result<Self, crate::wire::Malformed> {
            Err(crate::wire::Malformed)
        }
    }
    frame(kind, id, fds, &Raw(payload))
}
