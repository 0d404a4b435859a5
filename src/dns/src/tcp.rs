//! TCP: messages with their length before them (RFC 7766).
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::catalog::Catalog;
use crate::reply::{Responder, Step, Transport};

const CONNECTIONS_MAX: usize = 512;
const QUESTION_BYTES_MAX: u16 = 4096;
/// Between two questions, and for each read and write.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) async fn serve<C: Catalog>(listener: TcpListener, responder: Arc<Responder<C>>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = connections.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the client is gone already; connections that end make room.
            tokio::task::yield_now().await;
            continue;
        };
        let responder = responder.clone();
        tokio::spawn(async move {
            // A client that goes away in the middle is nobody's error.
            let _ = answer(stream, &responder).await;
            drop(permit);
        });
    }
}

async fn answer<C: Catalog>(mut stream: TcpStream, responder: &Responder<C>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut question = Vec::new();
    loop {
        let Ok(length) = timeout(IDLE, stream.read_u16()).await else {
            return Ok(());
        };
        let length = length?;
        if length > QUESTION_BYTES_MAX {
            return Ok(());
        }
        question.resize(usize::from(length), 0);
        timeout(IDLE, stream.read_exact(&mut question)).await??;
        let wire = match responder.handle(&question, Transport::Tcp) {
            Step::Reply(wire) => wire,
            Step::Ask(pending) => responder.complete(*pending).await,
            Step::Ignore => return Ok(()),
        };
        let length = u16::try_from(wire.len()).expect("encoded with that limit");
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&wire);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
