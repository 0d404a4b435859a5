//! Streams and processes that a caller holds.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Error;
use crate::spec::{Exit, TerminalSize};

/// One end of a pipe, socket or terminal; reads what the other end writes, or the reverse. A terminal that hung up reads
/// as end of file.
#[derive(Debug)]
pub struct Stream {
    fd: AsyncFd<OwnedFd>,
}

impl Stream {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Stream> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Stream { fd: AsyncFd::try_new(fd).map_err(io::Error::from)? })
    }

    pub(crate) fn get(&self) -> &OwnedFd {
        self.fd.get_ref()
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

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct ExecProcess {
    inner: (),
}

#[allow(clippy::unused_async, unused_variables, missing_docs)]
impl ExecProcess {
    pub async fn wait(&self) -> Result<Exit, Error> { Err(Error::pending()) }
    /// SIGKILL.
    pub async fn kill(&self) -> Result<(), Error> { Err(Error::pending()) }
    /// Nothing happens without a terminal.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> { Err(Error::pending()) }
}

/// A view of a running container's output from now on, and, if it was started with `stdin`, its input.
#[derive(Debug)]
pub struct AttachSession {
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub tty: bool,
}

#[allow(unused_variables, missing_docs)]
impl AttachSession {
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> { Err(Error::pending()) }
}

#[derive(Debug, Clone)]
pub struct ExecOutput {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}
