//! Orders, dispatched.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Shim;
use crate::protocol::{Failure, Order, Step as _};
use crate::sys::process::setns;
use crate::wire::{Wire, encode};

pub(super) struct Done {
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

fn done(value: &impl Wire, fds: Vec<OwnedFd>) -> Result<Done, Failure> {
    Ok(Done { payload: encode(value), fds })
}

impl Shim {
    pub(super) fn carry_out(&mut self, order: Order, fds: Vec<OwnedFd>, connection: u32) -> Result<Done, Failure> {
        match order {
            Order::Create {} => {
                if self.namespaces.is_none() {
                    self.make_namespaces()?;
                }
                done(&(), Vec::new())
            }
            Order::Start { container } => done(&self.start(&container)?, Vec::new()),
            Order::Signal { container, signal } => done(&self.signal(&container, signal)?, Vec::new()),
            Order::Kill { container } => done(&self.kill(&container)?, Vec::new()),
            Order::Exec { container, argv, env, tty, rows, columns } => {
                let size = tty.then_some((rows, columns));
                let (reply, master) = self.exec(&container, &argv, env, size, fds, connection)?;
                done(&reply, master.into_iter().collect())
            }
            Order::KillExec { exec } => done(&self.kill_exec(exec)?, Vec::new()),
            Order::Attach { container } => {
                let (reply, fds) = self.attach(&container)?;
                done(&reply, fds)
            }
            Order::Socket { ipv6 } => done(&(), vec![self.pod_socket(ipv6)?]),
            Order::ReopenLog { container } => done(&self.container(&container)?.log.reopen().step("open the log")?, Vec::new()),
            Order::Remove { container } => done(&self.remove(&container)?, Vec::new()),
            Order::List {} => done(&self.reports(), Vec::new()),
            Order::KillAll {} => done(&self.kill_all()?, Vec::new()),
            Order::Shutdown {} => {
                if self.reports().iter().any(|report| report.exit.is_none()) {
                    return Err(Failure::errno("shut down while containers run", libc::EBUSY));
                }
                self.stop_pid_one();
                self.shutdown = true;
                done(&(), Vec::new())
            }
        }
    }

    /// A socket belongs to the network namespace it was made in, wherever it is used later.
    fn pod_socket(&self, ipv6: bool) -> Result<OwnedFd, Failure> {
        let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let make = || rustix::net::socket_with(family, SocketType::STREAM, flags, None).step("make a socket");
        let Some(net) = self.namespaces.as_ref().and_then(|n| n.net.as_ref()) else { return make() };
        let home = rustix::fs::open(
            c"/proc/self/ns/net",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .step("remember the host's network")?;
        setns(net, libc::CLONE_NEWNET).step("enter the pod's network")?;
        let socket = make();
        if setns(&home, libc::CLONE_NEWNET).is_err() {
            // A shim in the pod's network would take later children there unasked.
            std::process::abort();
        }
        socket
    }
}
