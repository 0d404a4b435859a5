//! One SPDY connection, the server's end: accepts streams, reads and writes them.

use std::collections::HashMap;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tracing::debug;

use super::frame::{self, Frame};
use super::headers::{Decoder, Encoder, Headers};

/// Frames of one stream that wait for their reader; a full queue holds the connection back, as in moby/spdystream.
const STREAM_QUEUE: usize = 64;
const WRITE_QUEUE: usize = 64;
const STREAMS_MAX: usize = 1024;
/// Data goes out in pieces of this size.
const PIECE: usize = 32 * 1024;

/// A stream that the client has opened; it is accepted already.
#[derive(Debug)]
pub struct Stream {
    pub headers: Headers,
    /// Ends when the client half-closes or resets.
    pub incoming: mpsc::Receiver<Bytes>,
    pub writer: StreamWriter,
}

#[derive(Debug, Clone)]
pub struct StreamWriter {
    id: u32,
    out: mpsc::Sender<Frame>,
}

impl StreamWriter {
    pub async fn write(&self, data: Bytes) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE));
            self.send(Frame::Data { id: self.id, fin: false, data: piece }).await?;
        }
        Ok(())
    }

    /// No more data from this side.
    pub async fn close(&self) {
        let _ = self.send(Frame::Data { id: self.id, fin: true, data: Bytes::new() }).await;
    }

    pub async fn reset(&self) {
        // 5: CANCEL.
        let _ = self.send(Frame::RstStream { id: self.id, status: 5 }).await;
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        self.out.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The streams of a connection as the client opens them.
pub struct Session {
    accepted: mpsc::Receiver<Stream>,
    reader: tokio::task::JoinHandle<()>,
    writer: Option<tokio::task::JoinHandle<()>>,
}

impl Session {
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(io);
        let (out, frames) = mpsc::channel(WRITE_QUEUE);
        let (accept, accepted) = mpsc::channel(16);
        let writer = tokio::spawn(async move {
            if let Err(error) = write_all(write, frames).await {
                debug!(%error, "spdy writer");
            }
        });
        let reader = tokio::spawn(async move {
            if let Err(error) = read_all(read, &accept, &out).await {
                debug!(%error, "spdy reader");
            }
        });
        Self { accepted, reader, writer: Some(writer) }
    }

    /// `None` when the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    /// Sends what is still to be sent, and ends. All stream writers must be dropped by then.
    pub async fn finish(mut self) {
        self.reader.abort();
        let _ = (&mut self.reader).await;
        if let Some(writer) = self.writer.take() {
            let _ = writer.await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some(writer) = &self.writer {
            writer.abort();
        }
    }
}

async fn write_all(mut io: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::new();
    while let Some(mut next) = frames.recv().await {
        loop {
            // Replies carry no headers of ours; the block is compressed here, where the order is that of the wire.
            if let Frame::SynReply { headers, .. } = &mut next {
                *headers = encoder.encode(&Headers::new()).map_err(io::Error::other)?;
            }
            frame::encode(&next, &mut buffer);
            match frames.try_recv() {
                Ok(more) if buffer.len() < PIECE => next = more,
                Ok(more) => {
                    io.write_all_buf(&mut buffer).await?;
                    next = more;
                }
                Err(_) => break,
            }
        }
        io.write_all_buf(&mut buffer).await?;
        io.flush().await?;
    }
    io.shutdown().await
}

async fn read_all(mut io: impl AsyncRead + Unpin, accept: &mpsc::Sender<Stream>, out: &mpsc::Sender<Frame>) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut streams: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        while let Some(frame) = frame::decode(&mut buffer).map_err(io::Error::other)? {
            match frame {
                Frame::SynStream { id, fin, headers } => {
                    let headers = decoder.decode(&headers).map_err(io::Error::other)?;
                    streams.retain(|_, s| !s.is_closed());
                    if streams.len() >= STREAMS_MAX {
                        // 3: REFUSED_STREAM.
                        let _ = out.send(Frame::RstStream { id, status: 3 }).await;
                        continue;
                    }
                    let (sender, incoming) = mpsc::channel(STREAM_QUEUE);
                    if !fin {
                        streams.insert(id, sender);
                    }
                    let _ = out.send(Frame::SynReply { id, fin: false, headers: Bytes::new() }).await;
                    let stream = Stream { headers, incoming, writer: StreamWriter { id, out: out.clone() } };
                    if accept.send(stream).await.is_err() {
                        return Ok(());
                    }
                }
                Frame::Data { id, fin, data } => {
                    if let Some(stream) = streams.get(&id)
                        && !data.is_empty()
                        && stream.send(data).await.is_err()
                    {
                        streams.remove(&id);
                    }
                    if fin {
                        streams.remove(&id);
                    }
                }
                Frame::RstStream { id, .. } => {
                    streams.remove(&id);
                }
                Frame::Ping { id } => {
                    // Odd ids are the client's own and are answered.
                    if id % 2 == 1 {
                        let _ = out.send(Frame::Ping { id }).await;
                    }
                }
                Frame::Headers { headers, id, fin } => {
                    decoder.decode(&headers).map_err(io::Error::other)?;
                    if fin {
                        streams.remove(&id);
                    }
                }
                Frame::SynReply { headers, .. } => {
                    decoder.decode(&headers).map_err(io::Error::other)?;
                }
                Frame::GoAway => return Ok(()),
                Frame::Settings | Frame::WindowUpdate => {}
            }
        }
        if io.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_accepted_read_and_answered() {
        let (server, mut client) = tokio::io::duplex(1 << 16);
        let mut session = Session::new(server);
        let mut encoder = Encoder::default();
        let mut bytes = BytesMut::new();
        let headers = encoder.encode(&vec![("streamType".into(), "stdin".into())]).expect("compressed");
        frame::encode(&Frame::SynStream { id: 1, fin: false, headers }, &mut bytes);
        frame::encode(&Frame::Data { id: 1, fin: false, data: Bytes::from_static(b"hello") }, &mut bytes);
        frame::encode(&Frame::Data { id: 1, fin: true, data: Bytes::new() }, &mut bytes);
        client.write_all(&bytes).await.expect("written");
        let mut stream = session.accept().await.expect("a stream");
        assert_eq!(super::super::headers::get(&stream.headers, "streamtype"), Some("stdin"));
        assert_eq!(stream.incoming.recv().await.expect("data"), "hello");
        assert!(stream.incoming.recv().await.is_none());
        stream.writer.write(Bytes::from_static(b"world")).await.expect("written");
        stream.writer.close().await;
        drop(stream);
        session.finish().await;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("an answer");
        let mut answer = BytesMut::from(answer.as_slice());
        let mut frames = Vec::new();
        while let Some(frame) = frame::decode(&mut answer).expect("frames") {
            frames.push(frame);
        }
        assert!(matches!(frames[0], Frame::SynReply { id: 1, .. }));
        assert_eq!(frames[1], Frame::Data { id: 1, fin: false, data: Bytes::from_static(b"world") });
        assert_eq!(frames[2], Frame::Data { id: 1, fin: true, data: Bytes::new() });
    }
}
