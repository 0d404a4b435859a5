//! The process that stands behind one sandbox, and outlives rk.
//!
//! One thread, one epoll: a signalfd for children that ended, the output pipes and terminals of containers, the control
//! socket and its connections. Starts are done in line; nothing else blocks. It reads plans from the state directory and
//! writes exits there before it tells them.
//!
//! Invariants: no second thread ever exists (children are cloned from this process); every descriptor is close-on-exec;
//! what a reader does not take is bounded, and ends with that reader cut off, not with the container blocked for good.

mod connection;
mod container;
mod log;
mod namespaces;
mod orders;
mod output;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};

use self::connection::Connection;
use self::container::{Container, Exec};
use self::namespaces::Namespaces;
use crate::cgroup::Cgroups;
use crate::paths::{SOCKET, SandboxPaths};
use crate::plan::{SandboxPlan, from_file};
use crate::sys::mount::new_filesystem;
use crate::sys::{self, process};

/// argv[0] of every shim.
pub const PROGRAM: &str = "rk-shim";

/// Runs the shim: argv is `rk-shim <state directory> <run directory>` (of this sandbox), descriptor 0 the first connection.
/// Must be called before any thread exists.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(state), Some(run), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("{PROGRAM} is started by rk, not by hand");
        return ExitCode::from(64);
    };
    match Shim::new(state, run).and_then(|mut shim| shim.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What an epoll event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Children,
    Listener,
    Connection(u32),
    /// Container and stream (0 stdout, 1 stderr).
    Output(u32, u8),
    /// Container, stream, attached client.
    Client(u32, u8, u16),
}

impl Token {
    fn data(self) -> EventData {
        let (kind, a, b, c) = match self {
            Token::Children => (0u64, 0, 0, 0),
            Token::Listener => (1, 0, 0, 0),
            Token::Connection(serial) => (2, serial, 0, 0),
            Token::Output(container, stream) => (3, container, stream, 0),
            Token::Client(container, stream, client) => (4, container, stream, client),
        };
        EventData::new_u64(kind << 56 | u64::from(b) << 48 | u64::from(c) << 32 | u64::from(a))
    }

    fn of(data: EventData) -> Option<Token> {
        let raw = data.u64();
        let (kind, b, c, a) = (raw >> 56, (raw >> 48) as u8, (raw >> 32) as u16, raw as u32);
        Some(match kind {
            0 => Token::Children,
            1 => Token::Listener,
            2 => Token::Connection(a),
            3 => Token::Output(a, b),
            4 => Token::Client(a, b, c),
            _ => return None,
        })
    }
}

struct Shim {
    paths: SandboxPaths,
    plan: SandboxPlan,
    cgroups: Cgroups,
    /// A procfs of the host's PID namespace, mounted nowhere.
    proc: OwnedFd,
    own_pid_namespace: OwnedFd,
    capability_limit: u64,
    namespaces: Option<Namespaces>,
    epoll: OwnedFd,
    children: OwnedFd,
    listener: OwnedFd,
    connections: Vec<Connection>,
    containers: Vec<Container>,
    execs: Vec<Exec>,
    serial: u32,
    scratch: Vec<u8>,
    shutdown: bool,
}

impl Shim {
    fn new(state: OsString, run: OsString) -> io::Result<Shim> {
        let paths = SandboxPaths { state: PathBuf::from(state), run: PathBuf::from(run) };
        let first = take_stdin()?;
        // Already a leader when rk made it one; either way the session is ours.
        let _already = rustix::process::setsid();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        rustix::process::chdir("/")?;
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
        process::prctl(libc::PR_SET_DUMPABLE, 0)?;
        let plan: SandboxPlan = from_file(&std::fs::read(paths.plan())?)?;
        let cgroups = Cgroups::detect()?;
        cgroups.create(&plan.shim_cgroup)?;
        cgroups.enter(&plan.shim_cgroup)?;
        let proc = new_filesystem(c"proc", &[], 0)?;
        // Lowering it needs CAP_SYS_RESOURCE; a host that does not give it kills as it likes.
        let _not_permitted = std::fs::write("/proc/self/oom_score_adj", "-998");
        let children = signals()?;
        let listener = listen(&paths)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &children, Token::Children.data(), EventFlags::IN)?;
        epoll::add(&epoll, &listener, Token::Listener.data(), EventFlags::IN)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let own_pid_namespace = rustix::fs::openat(&proc, c"self/ns/pid", flags, Mode::empty())?;
        let mut shim = Shim {
            paths,
            plan,
            cgroups,
            proc,
            own_pid_namespace,
            capability_limit: process::permitted_capabilities()?,
            namespaces: None,
            epoll,
            children,
            listener,
            connections: Vec::new(),
            containers: Vec::new(),
            execs: Vec::new(),
            serial: 0,
            scratch: vec![0; 32 * 1024],
            shutdown: false,
        };
        shim.add_connection(first)?;
        Ok(shim)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(32);
        while !self.shutdown {
            // A shim that was never told to make its sandbox, and that nobody can tell any more, has no business here.
            if self.namespaces.is_none() && self.connections.is_empty() {
                return Ok(());
            }
            let limit = self.next_deadline();
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), limit.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (flags, data) = (event.flags, event.data);
                if let Some(token) = Token::of(data) {
                    self.handle(token, flags);
                }
            }
            self.cut_off_stalled();
        }
        Ok(())
    }

    fn handle(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Children => self.reap_children(),
            Token::Listener => {
                // What an earlier connection still has to say comes before the newcomer's questions.
                for serial in self.connections.iter().map(|c| c.serial).collect::<Vec<_>>() {
                    self.serve(serial);
                }
                self.accept();
            }
            Token::Connection(serial) => {
                if flags.contains(EventFlags::OUT) {
                    self.flush_connection(serial);
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.serve(serial);
                }
            }
            Token::Output(container, stream) => self.copy_output(container, stream),
            Token::Client(container, stream, client) => self.flush_client(container, stream, client, flags),
        }
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    fn reap_children(&mut self) {
        // One record is enough: SIGCHLDs merge, so everything that has ended is looked for.
        let mut record = [0u8; 128];
        while rustix::io::read(&self.children, &mut record).is_ok() {}
        while let Some(ended) = process::reap_any() {
            self.child_ended(ended);
        }
    }
}

/// Descriptor 0 is the connection to rk; afterwards 0 and 1 are /dev/null, so that no later descriptor gets their numbers.
fn take_stdin() -> io::Result<OwnedFd> {
    // SAFETY: descriptor 0 was given to us, nothing in this process owns it.
    let stdin = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
    let socket = sys::duplicate(stdin)?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for number in [0, 1] {
        process::duplicate_onto(sys::raw(&null), number, false)?;
    }
    Ok(socket)
}

/// Everything but SIGKILL and SIGSTOP is blocked: the shim ends when rk says so, or with the machine.
fn signals() -> io::Result<OwnedFd> {
    let all = u64::MAX;
    let children = 1u64 << (libc::SIGCHLD - 1);
    // SAFETY: masks of 8 bytes, as the kernel has them.
    unsafe {
        let none = std::ptr::null::<u8>();
        sys::check(libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, none, 8))?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let raw = sys::check(libc::syscall(libc::SYS_signalfd4, -1, &raw const children, 8, flags))? as i32;
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

fn listen(paths: &SandboxPaths) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&paths.run, flags, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", sys::raw(&directory)))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&listener, &address)?;
    rustix::fs::chmodat(directory.as_fd(), SOCKET, Mode::from_raw_mode(0o600), rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&listener, 16)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Children,
            Token::Listener,
            Token::Connection(u32::MAX),
            Token::Output(7, 1),
            Token::Client(u32::MAX, 1, u16::MAX),
        ] {
            assert_eq!(Token::of(token.data()), Some(token));
        }
    }
}
