//! port-forward: for each connection of the client a pair of SPDY streams, one for data and one for errors.
//!
//! Models k8s.io/kubelet/pkg/cri/streaming/portforward/httpstream.go, v1.37.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use runtime::Runtime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tracing::debug;

use super::spdy::{Session, Stream, headers};

const PIECE: usize = 32 * 1024;
/// Half a pair that waits longer than this is given up.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);
const PAIRS_MAX: usize = 1024;

#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
    since: Option<tokio::time::Instant>,
}

/// Serves one client until it ends its connection.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static, runtime: Runtime, sandbox: String, pod: String) {
    let mut session = Session::new(io);
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = session.accept() => stream,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Some(stream) = stream else { break };
        let Some(port) = headers::get(&stream.headers, "port").and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0) else {
            stream.writer.reset().await;
            continue;
        };
        // Clients older than 1.3 gave no id: one pair at a time, named by its port.
        let id = headers::get(&stream.headers, "requestID").map_or_else(|| format!("port {port}"), str::to_owned);
        let now = tokio::time::Instant::now();
        pairs.retain(|_, pair| pair.since.is_none_or(|at| now - at < PAIR_TIMEOUT));
        if pairs.len() >= PAIRS_MAX {
            stream.writer.reset().await;
            continue;
        }
        let pair = pairs.entry(id.clone()).or_default();
        pair.since.get_or_insert(now);
        match headers::get(&stream.headers, "streamType") {
            Some("data") => pair.data = Some(stream),
            Some("error") => pair.error = Some(stream),
            other => debug!(?other, "unknown stream type"),
        }
        if pair.data.is_some() && pair.error.is_some()
            && let Some(Pair { data: Some(data), error: Some(error), .. }) = pairs.remove(&id)
        {
            connections.spawn(connect(runtime.clone(), sandbox.clone(), pod.clone(), port, data, error));
        }
    }
    connections.shutdown().await;
    drop(pairs);
    session.finish().await;
}

async fn connect(runtime: Runtime, sandbox: String, pod: String, port: u16, mut data: Stream, error: Stream) {
    let socket = match runtime.dial(&sandbox, port).await {
        Ok(socket) => socket,
        Err(failure) => {
            let text = format!("error forwarding port {port} to pod {pod}, uid : {}", crate::images::chain(&failure));
            let _ = error.writer.write(Bytes::from(text)).await;
            error.writer.close().await;
            data.writer.close().await;
            return;
        }
    };
    let _ = socket.set_nodelay(true);
    let (mut read, mut write) = socket.into_split();
    let writer = data.writer.clone();
    let mut towards_client = tokio::spawn(async move {
        loop {
            let mut buffer = Vec::with_capacity(PIECE);
            match read.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    if writer.write(Bytes::from(buffer)).await.is_err() {
                        break;
                    }
                }
            }
        }
        writer.close().await;
    });
    let towards_pod = async {
        while let Some(piece) = data.incoming.recv().await {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    };
    tokio::pin!(towards_pod);
    // The pod's end of the connection decides; the client's may be half closed for long.
    tokio::select! {
        _ = &mut towards_client => {}
        () = &mut towards_pod => { let _ = (&mut towards_client).await; }
    }
    error.writer.close().await;
}
