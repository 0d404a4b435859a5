//! Streams and processes that a caller holds.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, ExecEnd, OrderError};
use super::{Error, exit_of};
use crate::protocol::Order;
use crate::spec::{Exit, TerminalSize};
use crate::sys;

/// One end of a pipe, socket or terminal; reads what the other end writes, or the reverse. A terminal that hung up reads
/// as end of file.
#[derive(Debug)]
pub struct Stream {
    fd: AsyncFd<OwnedFd>,
}

impl Stream {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Stream> {
        sys::set_nonblocking(&fd)?;
        // SAFETY: an OwnedFd stands for one and the same open descriptor as long as it lives.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(Stream { fd: registered.map_err(io::Error::from)? })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), buf.initialize_unfilled())?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // A pseudo-terminal whose last slave is closed answers EIO, not end of file.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), data)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Dropping the stream is what closes it.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An exec that runs. Drop `stdin` to end its input. With a terminal `stderr` is `None`.
#[derive(Debug)]
pub struct ExecSession {
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub process: ExecProcess,
}

/// The process of an exec. Cheap to clone; dropping it does not end the process.
#[derive(Clone)]
pub struct ExecProcess {
    pub(super) sandbox: Arc<str>,
    pub(super) id: u64,
    pub(super) connection: Arc<Connection>,
    pub(super) end: ExecEnd,
    pub(super) terminal: Option<Arc<OwnedFd>>,
}

impl std::fmt::Debug for ExecProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecProcess").field("sandbox", &self.sandbox).field("id", &self.id).finish_non_exhaustive()
    }
}

impl ExecProcess {
    /// Resolves when it has ended; its output may still have to be read.
    pub async fn wait(&self) -> Result<Exit, Error> {
        let lost = || Error::Lost { id: self.sandbox.to_string() };
        let mut end = self.end.clone();
        let record = *end.wait_for(Option::is_some).await.map_err(|_| lost())?;
        record.as_ref().map(exit_of).ok_or_else(lost)
    }

    /// SIGKILL. Fine if it has ended.
    pub async fn kill(&self) -> Result<(), Error> {
        match self.connection.order(&Order::KillExec { exec: self.id }, Vec::new()).await {
            Ok(_) => Ok(()),
            Err(OrderError::Closed) => Err(Error::Lost { id: self.sandbox.to_string() }),
            Err(OrderError::Failed(failure)) => Err(Error::of(failure)),
        }
    }

    /// Without a terminal nothing happens.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        resize(self.terminal.as_deref(), size)
    }
}

fn resize(terminal: Option<&OwnedFd>, size: TerminalSize) -> Result<(), Error> {
    match terminal {
        Some(terminal) => sys::set_window_size(terminal, size.rows, size.columns)
            .map_err(|source| Error::system("resize the terminal", source)),
        None => Ok(()),
    }
}

/// A container's output from now on and, if it was started with `stdin`, its input. With `stdin_once` dropping `stdin` ends
/// the container's input for good. A reader that takes nothing for ten seconds is cut off.
#[derive(Debug)]
pub struct AttachSession {
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub tty: bool,
    pub(super) terminal: Option<Arc<OwnedFd>>,
}

impl AttachSession {
    /// Without a terminal nothing happens.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        resize(self.terminal.as_deref(), size)
    }

    /// To resize after the streams have gone their ways.
    pub fn resizer(&self) -> impl Fn(TerminalSize) -> Result<(), Error> + Send + Sync + 'static {
        let terminal = self.terminal.clone();
        move |size| resize(terminal.as_deref(), size)
    }
}

#[derive(Debug, Clone)]
pub struct ExecOutput {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}
