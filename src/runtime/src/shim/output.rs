//! A container's output: into the log, and to whoever is attached.
//!
//! A client gets a pipe. One that does not read makes its stream wait, up to a limit of time; then it is cut off.

use std::os::fd::OwnedFd;

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};

use super::log::Splitter;
use super::{Shim, Token};
use crate::protocol::{AttachReply, Failure, Step as _};
use crate::sys;

const STREAMS: [&str; 2] = ["stdout", "stderr"];
const CLIENTS_MAX: usize = 32;
/// How long one slow reader may hold up a container's output.
const STALL_NANOS_MAX: u64 = 10_000_000_000;
/// A process that shares the stream outlives its container and writes without end: its output has an end all the same.
const DRAIN_BYTES_MAX: usize = 16 << 20;

pub(super) struct Output {
    /// Pipe or terminal, non-blocking.
    pub fd: OwnedFd,
    splitter: Splitter,
    clients: Vec<Client>,
    next_client: u16,
    /// Since when a client is full and nothing is read.
    stalled_since: Option<u64>,
    ended: bool,
}

struct Client {
    serial: u16,
    fd: OwnedFd,
    /// At most one read's worth, because nothing is read while it is not empty.
    pending: Vec<u8>,
}

enum Taken {
    Some(usize),
    Nothing,
    End,
}

impl Output {
    pub(super) fn new(fd: OwnedFd) -> Output {
        Output { fd, splitter: Splitter::default(), clients: Vec::new(), next_client: 0, stalled_since: None, ended: false }
    }

    fn take(&self, scratch: &mut [u8]) -> Taken {
        loop {
            match rustix::io::read(&self.fd, &mut *scratch) {
                Ok(0) => return Taken::End,
                Ok(count) => return Taken::Some(count),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Taken::Nothing,
                // A terminal that nobody holds open any more answers EIO.
                Err(_) => return Taken::End,
            }
        }
    }

    /// To every client; true when one of them is full now.
    fn pass_on(&mut self, data: &[u8]) -> bool {
        let mut full = false;
        self.clients.retain_mut(|client| {
            if !client.pending.is_empty() {
                client.pending.extend_from_slice(data);
                full = true;
                return true;
            }
            match write_some(&client.fd, data) {
                Some(count) => {
                    client.pending.extend_from_slice(&data[count..]);
                    full |= !client.pending.is_empty();
                    true
                }
                None => false,
            }
        });
        full
    }
}

/// How much of it went; `None` when the reader is gone.
fn write_some(fd: &OwnedFd, data: &[u8]) -> Option<usize> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::write(fd, &data[done..]) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => break,
            Err(_) => return None,
        }
    }
    Some(done)
}

impl Shim {
    /// One read's worth, when there is something to read.
    pub(super) fn copy_output(&mut self, container: u32, stream: u8) {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.copy_once(container, stream, &mut scratch);
        self.scratch = scratch;
    }

    fn copy_once(&mut self, container: u32, stream: u8, scratch: &mut [u8]) -> bool {
        let Some(at) = self.containers.iter().position(|c| c.serial == container) else { return false };
        let owner = &mut self.containers[at];
        let Some(output) = &mut owner.outputs[stream as usize] else { return false };
        let name = STREAMS[stream as usize];
        let mut entries = Vec::new();
        match output.take(scratch) {
            Taken::Nothing => return false,
            Taken::End => {
                output.splitter.finish(name, sys::nanos_now(), &mut entries);
                owner.log.write(&entries);
                self.end_output(at, stream);
                return false;
            }
            Taken::Some(count) => {
                output.splitter.feed(name, sys::nanos_now(), &scratch[..count], &mut entries);
                owner.log.write(&entries);
                let was_full = output.stalled_since.is_some();
                if output.pass_on(&scratch[..count]) && !was_full {
                    output.stalled_since = Some(sys::nanos_now());
                    let data = Token::Output(container, stream).data();
                    let _ended = epoll::modify(&self.epoll, &output.fd, data, EventFlags::empty());
                    for client in output.clients.iter().filter(|client| !client.pending.is_empty()) {
                        let data = Token::Client(container, stream, client.serial).data();
                        let _gone = epoll::modify(&self.epoll, &client.fd, data, EventFlags::OUT);
                    }
                }
            }
        }
        true
    }

    /// No more will come. Clients keep what is still under way to them.
    fn end_output(&mut self, at: usize, stream: u8) {
        let container = &mut self.containers[at];
        let slot = &mut container.outputs[stream as usize];
        if let Some(output) = slot {
            if !output.ended {
                let _closed_anyway = epoll::delete(&self.epoll, &output.fd);
                output.ended = true;
            }
            output.clients.retain(|client| !client.pending.is_empty());
            if output.clients.is_empty() {
                *slot = None;
            }
        }
    }

    /// The container has ended: all that it wrote goes into the log before anyone is told.
    pub(super) fn drain_outputs(&mut self, container: u32) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for stream in [0, 1] {
            let mut left = DRAIN_BYTES_MAX;
            while left > 0 && self.copy_once(container, stream, &mut scratch) {
                left = left.saturating_sub(scratch.len());
            }
            let Some(at) = self.containers.iter().position(|c| c.serial == container) else { continue };
            let owner = &mut self.containers[at];
            if let Some(output) = &mut owner.outputs[stream as usize] {
                let mut entries = Vec::new();
                output.splitter.finish(STREAMS[stream as usize], sys::nanos_now(), &mut entries);
                owner.log.write(&entries);
                self.end_output(at, stream);
            }
        }
        self.scratch = scratch;
    }

    pub(super) fn flush_client(&mut self, container: u32, stream: u8, client: u16, flags: EventFlags) {
        let Some(at) = self.containers.iter().position(|c| c.serial == container) else { return };
        let Some(output) = &mut self.containers[at].outputs[stream as usize] else { return };
        let Some(index) = output.clients.iter().position(|c| c.serial == client) else { return };
        let reader = &mut output.clients[index];
        let gone = flags.contains(EventFlags::ERR);
        match if gone { None } else { write_some(&reader.fd, &reader.pending) } {
            None => {
                output.clients.swap_remove(index);
            }
            Some(count) => {
                reader.pending.drain(..count);
                if reader.pending.is_empty() {
                    let data = Token::Client(container, stream, client).data();
                    let _gone = epoll::modify(&self.epoll, &reader.fd, data, EventFlags::empty());
                }
            }
        }
        self.resume_output(at, stream);
    }

    /// Reads on when every client has taken what it was sent.
    fn resume_output(&mut self, at: usize, stream: u8) {
        let container = &mut self.containers[at];
        let serial = container.serial;
        let Some(output) = &mut container.outputs[stream as usize] else { return };
        if output.clients.iter().any(|client| !client.pending.is_empty()) {
            return;
        }
        if output.ended {
            container.outputs[stream as usize] = None;
        } else if output.stalled_since.take().is_some() {
            let data = Token::Output(serial, stream).data();
            let _ended = epoll::modify(&self.epoll, &output.fd, data, EventFlags::IN);
        }
    }

    /// When the first stalled client must go.
    pub(super) fn next_deadline(&self) -> Option<Timespec> {
        let since = self.containers.iter().flat_map(|c| &c.outputs).flatten().filter_map(|o| o.stalled_since).min()?;
        let left = (since + STALL_NANOS_MAX).saturating_sub(sys::nanos_now()) + 1_000_000;
        Some(Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as _ })
    }

    pub(super) fn cut_off_stalled(&mut self) {
        let now = sys::nanos_now();
        for at in 0..self.containers.len() {
            for stream in [0u8, 1] {
                let Some(output) = &mut self.containers[at].outputs[stream as usize] else { continue };
                if output.stalled_since.is_some_and(|since| now.saturating_sub(since) > STALL_NANOS_MAX) {
                    output.clients.retain(|client| client.pending.is_empty());
                    self.resume_output(at, stream);
                }
            }
        }
    }

    pub(super) fn attach(&mut self, id: &str) -> Result<(AttachReply, Vec<OwnedFd>), Failure> {
        let container = self.container(id)?;
        if container.exit.is_some() {
            return Err(Failure::errno("container not running", libc::ESRCH));
        }
        let serial = container.serial;
        let mut fds = Vec::with_capacity(4);
        let stdin = if container.stdin_once {
            container.stdin.take()
        } else {
            container.stdin.as_ref().map(sys::duplicate).transpose().step("attach to stdin")?
        };
        let has_stdin = stdin.is_some();
        fds.extend(stdin);
        let terminal = container.terminal.as_ref().map(sys::duplicate).transpose().step("attach to the terminal")?;
        let mut has = [false, false];
        for stream in [0u8, 1] {
            let at = self.containers.iter().position(|c| c.serial == serial);
            let Some(at) = at else { continue };
            let Some(output) = &mut self.containers[at].outputs[stream as usize] else { continue };
            if output.clients.len() >= CLIENTS_MAX {
                return Err(Failure::errno("attach: too many clients", libc::EBUSY));
            }
            let (read, write) = sys::pipe().step("make a pipe")?;
            sys::set_nonblocking(&write).step("make a pipe")?;
            let client = output.next_client;
            output.next_client = output.next_client.wrapping_add(1);
            // Of a reader that went away epoll tells without being asked.
            epoll::add(&self.epoll, &write, Token::Client(serial, stream, client).data(), EventFlags::empty())
                .step("watch a pipe")?;
            output.clients.push(Client { serial: client, fd: write, pending: Vec::new() });
            has[stream as usize] = true;
            fds.push(read);
        }
        let tty = terminal.is_some();
        fds.extend(terminal);
        Ok((AttachReply { stdin: has_stdin, stdout: has[0], stderr: has[1], tty }, fds))
    }
}
