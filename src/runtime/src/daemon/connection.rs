//! A connection to one shim: orders out, answers and news in.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::protocol::{ExecReply, ExitRecord, Failure, HEADER_BYTES, Header, Kind, News, Order, frame};
use crate::sys::socket;
use crate::wire::decode;

/// Orders under way; further callers wait.
const QUEUE_MAX: usize = 64;

/// How an order ended.
pub(super) enum OrderError {
    /// The connection closed before the answer.
    Closed,
    Failed(Failure),
}

pub(super) struct Reply {
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// The end of an exec, once it has come.
pub(super) type ExecEnd = watch::Receiver<Option<ExitRecord>>;

struct Pending {
    answer: oneshot::Sender<Result<Reply, Failure>>,
    /// Registered by the reader itself when the answer comes, so that an end told right after it is not missed.
    exec: Option<watch::Sender<Option<ExitRecord>>>,
}

#[derive(Default)]
struct Waiting {
    orders: HashMap<u64, Pending>,
    execs: HashMap<u64, watch::Sender<Option<ExitRecord>>>,
    closed: bool,
}

pub(super) struct Connection {
    send: mpsc::Sender<(Vec<u8>, Vec<OwnedFd>)>,
    next: AtomicU64,
    waiting: Arc<Mutex<Waiting>>,
    closed: watch::Receiver<bool>,
    tasks: [AbortHandle; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    /// `on_exit` is called in the order of the news, on the reading task.
    pub(super) fn new(
        socket: std::os::unix::net::UnixStream,
        on_exit: impl Fn(String, ExitRecord) + Send + 'static,
    ) -> io::Result<Connection> {
        socket.set_nonblocking(true)?;
        let stream = Arc::new(UnixStream::from_std(socket)?);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (send, queue) = mpsc::channel(QUEUE_MAX);
        let (close, closed) = watch::channel(false);
        let writer = tokio::spawn(write_all(stream.clone(), queue));
        let reader = {
            let waiting = waiting.clone();
            tokio::spawn(async move {
                if let Err(error) = read_all(&stream, &waiting, on_exit).await {
                    tracing::debug!(%error, "connection to a shim broke");
                }
                // Whoever still waits learns of it by the closed channels.
                let mut waiting = lock(&waiting);
                waiting.closed = true;
                waiting.orders.clear();
                waiting.execs.clear();
                let _nobody_asks = close.send(true);
            })
        };
        Ok(Connection {
            send,
            next: AtomicU64::new(1),
            waiting,
            closed,
            tasks: [writer.abort_handle(), reader.abort_handle()],
        })
    }

    pub(super) async fn order(&self, order: &Order, fds: Vec<OwnedFd>) -> Result<Reply, OrderError> {
        self.submit(order, fds, None).await
    }

    pub(super) async fn exec(&self, order: &Order, fds: Vec<OwnedFd>) -> Result<(Reply, ExecEnd), OrderError> {
        let (tell, end) = watch::channel(None);
        Ok((self.submit(order, fds, Some(tell)).await?, end))
    }

    async fn submit(
        &self,
        order: &Order,
        fds: Vec<OwnedFd>,
        exec: Option<watch::Sender<Option<ExitRecord>>>,
    ) -> Result<Reply, OrderError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let message = frame(Kind::Order, id, fds.len(), order);
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.closed {
                return Err(OrderError::Closed);
            }
            waiting.orders.insert(id, Pending { answer, exec });
        }
        if self.send.send((message, fds)).await.is_err() {
            return Err(OrderError::Closed);
        }
        answered.await.map_err(|_| OrderError::Closed)?.map_err(OrderError::Failed)
    }

    /// Resolves when the other end is gone.
    pub(super) async fn closed(&self) {
        let mut closed = self.closed.clone();
        let _sender_gone_is_closed_too = closed.wait_for(|closed| *closed).await;
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// On a task of its own, so that a caller who gives up never leaves half a message behind.
async fn write_all(stream: Arc<UnixStream>, mut queue: mpsc::Receiver<(Vec<u8>, Vec<OwnedFd>)>) {
    while let Some((message, mut fds)) = queue.recv().await {
        let mut sent = 0;
        while sent < message.len() {
            let attempt = stream
                .async_io(Interest::WRITABLE, || {
                    let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                    socket::send(stream.as_fd(), &message[sent..], &borrowed)
                })
                .await;
            match attempt {
                Ok(count) => {
                    sent += count;
                    fds.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The reader sees the end too, and tells.
                Err(_) => return,
            }
        }
    }
}

async fn read_all(
    stream: &UnixStream,
    waiting: &Mutex<Waiting>,
    on_exit: impl Fn(String, ExitRecord),
) -> io::Result<()> {
    let mut input = Vec::new();
    let mut fds = Vec::new();
    let mut chunk = vec![0u8; 16 * 1024];
    loop {
        let received =
            stream.async_io(Interest::READABLE, || socket::receive(stream.as_fd(), &mut chunk, &mut fds)).await;
        match received {
            Ok(0) => return Ok(()),
            Ok(count) => input.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        while let Some(raw) = input.first_chunk::<HEADER_BYTES>() {
            let header = Header::parse(raw)?;
            let end = HEADER_BYTES + header.length as usize;
            if input.len() < end {
                break;
            }
            let payload = input[HEADER_BYTES..end].to_vec();
            input.drain(..end);
            let count = header.fds as usize;
            if fds.len() < count {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing"));
            }
            let passed: Vec<OwnedFd> = fds.drain(..count).collect();
            dispatch(header, payload, passed, waiting, &on_exit)?;
        }
    }
}

fn dispatch(
    header: Header,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
    waiting: &Mutex<Waiting>,
    on_exit: &impl Fn(String, ExitRecord),
) -> io::Result<()> {
    match header.kind {
        Kind::Order => return Err(io::Error::new(io::ErrorKind::InvalidData, "a shim gives no orders")),
        Kind::Done => {
            let mut waiting = lock(waiting);
            let Some(pending) = waiting.orders.remove(&header.id) else { return Ok(()) };
            if let Some(tell) = pending.exec {
                let reply: ExecReply = decode(&payload)?;
                waiting.execs.insert(reply.exec, tell);
            }
            let _caller_gave_up = pending.answer.send(Ok(Reply { payload, fds }));
        }
        Kind::Failed => {
            let failure: Failure = decode(&payload)?;
            if let Some(pending) = lock(waiting).orders.remove(&header.id) {
                let _caller_gave_up = pending.answer.send(Err(failure));
            }
        }
        Kind::News => match decode(&payload)? {
            News::ContainerExited { container, exit } => on_exit(container, exit),
            News::ExecExited { exec, exit } => {
                if let Some(tell) = lock(waiting).execs.remove(&exec) {
                    let _nobody_waits = tell.send(Some(exit));
                }
            }
        },
    }
    Ok(())
}
