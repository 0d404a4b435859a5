//! exec and attach: connects a process' streams to a client's, over either protocol.
//!
//! Models k8s.io/kubelet/pkg/cri/streaming/remotecommand, v1.37.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use runtime::{AttachSession, ExecSession, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::spdy::{Session, StreamWriter, headers};
use super::websocket::{self, Channels, Incoming};

const QUEUE: usize = 16;
/// One piece of output.
const PIECE: usize = 32 * 1024;
/// How long a SPDY client may take to open the streams it asked for (upstream: DefaultStreamCreationTimeout).
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to answer a close.
const PARTING: Duration = Duration::from_secs(5);

/// What the client asked for in the query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// The client, whatever its protocol.
pub struct Client {
    /// Ends with the client's input.
    stdin: mpsc::Receiver<Bytes>,
    resize: mpsc::Receiver<TerminalSize>,
    output: mpsc::Sender<(Output, Bytes)>,
    status: tokio::sync::oneshot::Sender<Value>,
    /// Ends when everything is sent, or the client is gone.
    driver: tokio::task::JoinHandle<()>,
    /// Closed when the client is gone.
    alive: mpsc::Sender<()>,
}

pub fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

pub fn exit_code(code: i32) -> Value {
    if code == 0 {
        return success();
    }
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}

pub fn internal_error(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {message}"),
        "details": {"causes": [{"message": message}]}})
}

/// Before v4 the error channel carried words for people.
fn as_text(status: &Value) -> Option<String> {
    (status["status"] != "Success").then(|| status["message"].as_str().unwrap_or_default().to_owned())
}

fn parse_size(data: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let part = |name: &str| value.get(name).and_then(Value::as_u64).and_then(|v| u16::try_from(v).ok());
    Some(TerminalSize { rows: part("Height")?, columns: part("Width")? })
}

/// The client of a WebSocket whose handshake is done.
pub async fn websocket_client<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: S, channels: Channels, wanted: Wanted) -> Client {
    let mut socket = websocket::server(io).await;
    let (stdin_in, stdin) = mpsc::channel(QUEUE);
    let (resize_in, resize) = mpsc::channel(QUEUE);
    let (output, mut outgoing) = mpsc::channel::<(Output, Bytes)>(QUEUE);
    let (status, verdict) = tokio::sync::oneshot::channel::<Value>();
    let (alive, mut life) = mpsc::channel::<()>(1);
    let driver = tokio::spawn(async move {
        // An empty message tells the client that the connection stands.
        let first = if wanted.stdout { 1 } else if wanted.stderr { 2 } else { 3 };
        if socket.send(channels.encode(first, &[])).await.is_err() {
            return;
        }
        let mut stdin_in = wanted.stdin.then_some(stdin_in);
        let mut pending: Option<Bytes> = None;
        let mut output_open = true;
        loop {
            // While the process does not read its input, no more of it is taken from the connection.
            let sender = stdin_in.clone().filter(|_| pending.is_some());
            let permit = async {
                match sender {
                    Some(sender) => sender.reserve_owned().await.ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                permit = permit => match permit {
                    Some(permit) => if let Some(data) = pending.take() { permit.send(data); },
                    None => { pending = None; stdin_in = None; }
                },
                out = outgoing.recv(), if output_open => match out {
                    Some((stream, data)) => {
                        let channel = if stream == Output::Stdout { 1 } else { 2 };
                        if socket.send(channels.encode(channel, &data)).await.is_err() { return; }
                    }
                    None => output_open = false,
                },
                message = socket.next(), if pending.is_none() => match message {
                    Some(Ok(Message::Close(_))) | None => return,
                    Some(Ok(message)) => match channels.decode(&message) {
                        Some(Incoming::Data { channel: 0, data }) if stdin_in.is_some() && !data.is_empty() => pending = Some(data),
                        Some(Incoming::Data { channel: 4, data }) => if let Some(size) = parse_size(&data) { let _ = resize_in.try_send(size); },
                        Some(Incoming::Closed { channel: 0 }) => stdin_in = None,
                        _ => {}
                    },
                    Some(Err(error)) => { debug!(%error, "websocket"); return; }
                },
                // Everything that the process wrote has been sent.
                _ = life.recv(), if !output_open => break,
            }
        }
        if let Ok(status) = verdict.await {
            let text = if channels.status { Some(status.to_string()) } else { as_text(&status) };
            if let Some(text) = text {
                let _ = socket.send(channels.encode(3, text.as_bytes())).await;
            }
        }
        part(socket).await;
    });
    Client { stdin, resize, output, status, driver, alive }
}

/// Says goodbye, and waits for the client's: a connection that is dropped before takes with it what is still on its way, for a stream
/// of a tunnel is then reset.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    // Clients take a close without a code for a fault.
    if socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await.is_err() {
        return;
    }
    let _bounded = tokio::time::timeout(PARTING, async { while let Some(Ok(_)) = socket.next().await {} }).await;
    let _gone = socket.get_mut().shutdown().await;
}

/// The client of a SPDY connection: it opens one stream for each thing it wants.
pub async fn spdy_client<S: AsyncRead + AsyncWrite + Send + 'static>(io: S, wanted: Wanted, status_object: bool) -> io::Result<Client> {
    let mut session = Session::new(io);
    let (stdin_in, stdin) = mpsc::channel(QUEUE);
    let (resize_in, resize) = mpsc::channel(QUEUE);
    let (output, mut outgoing) = mpsc::channel::<(Output, Bytes)>(QUEUE);
    let (status, verdict) = tokio::sync::oneshot::channel::<Value>();
    let (alive, mut life) = mpsc::channel::<()>(1);
    let expected = 1 + [wanted.stdin, wanted.stdout, wanted.stderr && !wanted.tty, wanted.tty].iter().filter(|w| **w).count();
    let (mut error, mut stdout, mut stderr) = (None::<StreamWriter>, None::<StreamWriter>, None::<StreamWriter>);
    let deadline = tokio::time::Instant::now() + STREAMS_TIMEOUT;
    let (mut stdin_stream, mut resize_stream) = (None, None);
    for _ in 0..expected {
        let stream = tokio::time::timeout_at(deadline, session.accept()).await.map_err(|_| io::ErrorKind::TimedOut)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match headers::get(&stream.headers, "streamType") {
            Some("error") => error = Some(stream.writer),
            Some("stdin") => stdin_stream = Some(stream),
            Some("stdout") => stdout = Some(stream.writer),
            Some("stderr") => stderr = Some(stream.writer),
            Some("resize") => resize_stream = Some(stream),
            other => debug!(?other, "unknown stream type"),
        }
    }
    let driver = tokio::spawn(async move {
        let mut inputs = tokio::task::JoinSet::new();
        if let Some(mut stream) = stdin_stream {
            inputs.spawn(async move {
                while let Some(data) = stream.incoming.recv().await {
                    if stdin_in.send(data).await.is_err() {
                        break;
                    }
                }
            });
        } else {
            drop(stdin_in);
        }
        if let Some(mut stream) = resize_stream {
            inputs.spawn(async move {
                let mut buffer = Vec::new();
                while let Some(data) = stream.incoming.recv().await {
                    buffer.extend_from_slice(&data);
                    // Objects follow each other, a newline behind each.
                    while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                        let line: Vec<u8> = buffer.drain(..=end).collect();
                        if let Some(size) = parse_size(&line) {
                            let _ = resize_in.send(size).await;
                        }
                    }
                    buffer.truncate(4096);
                }
            });
        }
        loop {
            tokio::select! {
                biased;
                out = outgoing.recv() => match out {
                    Some((Output::Stdout, data)) => if let Some(w) = &stdout { if w.write(data).await.is_err() { return; } },
                    Some((Output::Stderr, data)) => if let Some(w) = &stderr { if w.write(data).await.is_err() { return; } },
                    None => break,
                },
                // Nothing more is expected of the client; its end is the connection's.
                gone = session.accept() => if gone.is_none() { return; },
            }
        }
        let _ = life.recv().await;
        if let (Some(writer), Ok(status)) = (&error, verdict.await) {
            let text = if status_object { Some(status.to_string()) } else { as_text(&status) };
            if let Some(text) = text {
                let _ = writer.write(Bytes::from(text)).await;
            }
        }
        for writer in [&error, &stdout, &stderr].into_iter().flatten() {
            writer.close().await;
        }
        inputs.shutdown().await;
        drop((error, stdout, stderr));
        session.finish().await;
    });
    Ok(Client { stdin, resize, output, status, driver, alive })
}

/// Runs an exec to its end; a client that goes away ends it.
pub async fn exec(client: Client, session: ExecSession) {
    let Client { stdin, mut resize, output, status, mut driver, alive } = client;
    let ExecSession { stdin: process_stdin, stdout, stderr, process } = session;
    let input = tokio::spawn(feed(stdin, process_stdin));
    let out = drain(output, stdout, stderr);
    tokio::pin!(out);
    let resizer = process.clone();
    let outcome = tokio::select! {
        () = &mut out => Some(process.wait().await),
        () = async {
            while let Some(size) = resize.recv().await {
                let _ = resizer.resize(size);
            }
            std::future::pending::<()>().await;
        } => None,
        _ = &mut driver => {
            let _ = process.kill().await;
            None
        }
    };
    input.abort();
    let Some(outcome) = outcome else { return };
    let verdict = match outcome {
        Ok(exit) => exit_code(exit.code),
        Err(error) => internal_error(&error.to_string()),
    };
    let _ = status.send(verdict);
    drop(alive);
    let _ = driver.await;
}

/// Shows a running container to the client until either ends. The container runs on.
pub async fn attach(client: Client, session: AttachSession) {
    let Client { stdin, mut resize, output, status, mut driver, alive } = client;
    let mut session = session;
    let (process_stdin, stdout, stderr) = (session.stdin.take(), session.stdout.take(), session.stderr.take());
    let input = tokio::spawn(feed(stdin, process_stdin));
    let out = drain(output, stdout, stderr);
    tokio::pin!(out);
    let ended = tokio::select! {
        () = &mut out => true,
        () = async {
            while let Some(size) = resize.recv().await {
                let _ = session.resize(size);
            }
            std::future::pending::<()>().await;
        } => false,
        _ = &mut driver => false,
    };
    input.abort();
    if ended {
        let _ = status.send(success());
        drop(alive);
        let _ = driver.await;
    }
}

/// The client has no process to talk to.
pub async fn refuse(client: Client, message: &str) {
    let Client { output, status, driver, alive, .. } = client;
    drop(output);
    let _ = status.send(internal_error(message));
    drop(alive);
    let _ = driver.await;
}

async fn feed(mut from: mpsc::Receiver<Bytes>, to: Option<runtime::Stream>) {
    let Some(mut to) = to else { return };
    while let Some(data) = from.recv().await {
        if to.write_all(&data).await.is_err() {
            return;
        }
    }
    // Dropping the stream ends the process' input.
}

async fn drain(output: mpsc::Sender<(Output, Bytes)>, stdout: Option<runtime::Stream>, stderr: Option<runtime::Stream>) {
    let copy = |stream: Option<runtime::Stream>, kind: Output| {
        let output = output.clone();
        async move {
            let Some(mut stream) = stream else { return };
            loop {
                let mut buffer = Vec::with_capacity(PIECE);
                match stream.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        if output.send((kind, Bytes::from(buffer))).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    };
    tokio::join!(copy(stdout, Output::Stdout), copy(stderr, Output::Stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_told_as_upstream_tells_it() {
        assert_eq!(exit_code(0), success());
        let status = exit_code(3);
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(as_text(&exit_code(3)).as_deref(), Some("command terminated with non-zero exit code: exit status 3"));
        assert_eq!(as_text(&success()), None);
    }

    #[test]
    fn sizes_parse() {
        assert_eq!(parse_size(br#"{"Width":80,"Height":24}"#), Some(TerminalSize { rows: 24, columns: 80 }));
        assert_eq!(parse_size(b"{}"), None);
    }
}
