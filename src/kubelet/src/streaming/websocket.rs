//! WebSocket: channels in frames (`v5.channel.k8s.io` and its predecessors), and a tunnel of bytes.
//!
//! A primer: the first byte of each binary message is the channel (0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize); with
//! `base64.` protocols messages are text, the channel is an ASCII digit and the rest base64. In v5, channel 255 half-closes the
//! channel named by the next byte (KEP-4006). `SPDY/3.1+portforward.k8s.io` carries a SPDY connection in binary messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const CLOSE: u8 = 255;

/// How channels are written in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    pub base64: bool,
    /// The error channel carries a Status object; before v4 it carried text.
    pub status: bool,
    /// Channel 255 half-closes.
    pub closes: bool,
}

/// What a message of the client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Data { channel: u8, data: Bytes },
    Closed { channel: u8 },
}

/// The newest protocol that both sides know, by name.
pub fn choose<'a>(offered: impl Iterator<Item = &'a str> + Clone) -> Option<(&'a str, Channels)> {
    const KNOWN: [(&str, Channels); 5] = [
        ("v5.channel.k8s.io", Channels { base64: false, status: true, closes: true }),
        ("v4.channel.k8s.io", Channels { base64: false, status: true, closes: false }),
        ("v4.base64.channel.k8s.io", Channels { base64: true, status: true, closes: false }),
        ("channel.k8s.io", Channels { base64: false, status: false, closes: false }),
        ("base64.channel.k8s.io", Channels { base64: true, status: false, closes: false }),
    ];
    KNOWN.iter().find_map(|(name, channels)| offered.clone().find(|o| o == name).map(|o| (o, *channels)))
}

impl Channels {
    /// `None` for what carries nothing: empty messages, pings.
    pub fn decode(self, message: &Message) -> Option<Incoming> {
        let (channel, data) = match message {
            Message::Binary(bytes) if !self.base64 => (*bytes.first()?, bytes.slice(1..)),
            Message::Text(text) if self.base64 => {
                let bytes = text.as_bytes();
                let channel = bytes.first()?.checked_sub(b'0').filter(|c| *c <= 9)?;
                (channel, Bytes::from(STANDARD.decode(&bytes[1..]).ok()?))
            }
            // Some clients send text where binary was agreed.
            Message::Text(text) => (*text.as_bytes().first()?, Bytes::copy_from_slice(&text.as_bytes()[1..])),
            _ => return None,
        };
        if self.closes && channel == CLOSE {
            return Some(Incoming::Closed { channel: *data.first()? });
        }
        Some(Incoming::Data { channel, data })
    }

    pub fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", STANDARD.encode(data)));
        }
        let mut out = Vec::with_capacity(data.len() + 1);
        out.push(channel);
        out.extend_from_slice(data);
        Message::binary(out)
    }
}

/// The server's end of a connection whose handshake is done.
pub async fn server<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// `Sec-WebSocket-Accept` for a client's key (RFC 6455, section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key)
}

/// The bytes in a connection's binary messages, as one stream.
pub struct Tunnel<S> {
    socket: WebSocketStream<S>,
    rest: Bytes,
}

impl<S> Tunnel<S> {
    pub fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, rest: Bytes::new() }
    }
}

fn broken(error: tokio_tungstenite::tungstenite::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(data))) => self.rest = data,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(broken)?;
        Pin::new(&mut self.socket).start_send(Message::binary(data.to_vec())).map_err(broken)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_close(cx)).map_err(broken)?;
        // A connection that is only dropped takes with it what is still on its way.
        Pin::new(self.socket.get_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_protocol_is_chosen() {
        let chosen = |offered: &[&str]| choose(offered.iter().copied()).map(|(name, _)| name.to_owned());
        assert_eq!(chosen(&["v4.channel.k8s.io", "v5.channel.k8s.io"]).as_deref(), Some("v5.channel.k8s.io"));
        assert_eq!(chosen(&["base64.channel.k8s.io"]).as_deref(), Some("base64.channel.k8s.io"));
        assert_eq!(chosen(&["other"]), None);
    }

    #[test]
    fn messages_carry_a_channel_and_data() {
        let v5 = Channels { base64: false, status: true, closes: true };
        let data = |channel, data: &'static [u8]| Some(Incoming::Data { channel, data: Bytes::from_static(data) });
        assert_eq!(v5.decode(&Message::binary(vec![0, b'a'])), data(0, b"a"));
        assert_eq!(v5.decode(&Message::binary(vec![255, 0])), Some(Incoming::Closed { channel: 0 }));
        assert_eq!(v5.decode(&Message::binary(vec![255])), None);
        assert_eq!(v5.decode(&Message::binary(Vec::new())), None);
        let b64 = Channels { base64: true, status: true, closes: false };
        assert_eq!(b64.decode(&Message::text("0YQ==")), data(0, b"a"));
        assert_eq!(b64.decode(&Message::text("x")), None);
        assert_eq!(b64.encode(1, b"a"), Message::text("1YQ=="));
        assert_eq!(v5.encode(3, b"a"), Message::binary(vec![3, b'a']));
    }
}
