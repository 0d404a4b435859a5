//! One blocking netlink socket for all families used here: routes and links, nf_tables and conntrack, generic netlink.
//!
//! Primer (netlink(7), RFC 3549): a datagram holds one or more messages, each with a 16-byte header in host byte order (length,
//! type, flags, sequence number, port) and padded to 4 bytes. Attributes inside are length, type, value, again padded to 4;
//! nf_tables and conntrack write their integers big-endian, rtnetlink in host order. A message with NLM_F_ACK is answered by
//! NLMSG_ERROR, whose code is 0 or a negative errno; with NETLINK_EXT_ACK the kernel adds a sentence why (NLMSGERR_ATTR_MSG), with
//! NETLINK_CAP_ACK it does not echo the request. A dump ends with NLMSG_DONE.
//!
//! A socket belongs to the network namespace of the thread that opened it, whatever that thread enters later.
use std::fmt;
use std::io;

use rtnetlink::sys;
use rustix::net::RecvFlags;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

/// In an answer: the request was not echoed in full, and attributes follow.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

pub(crate) const HEADER_BYTES: usize = 16;
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    Route = 0,
    Netfilter = 12,
    Generic = 16,
}

/// Why a request did not work.
#[derive(Debug)]
pub(crate) enum Error {
    /// The socket itself failed.
    Socket(io::Error),
    /// The kernel refused one message.
    Refused {
        errno: i32,
        /// The refused message's sequence number.
        sequence: u32,
        /// The kernel's own explanation, where it gives one.
        reason: Option<String>,
    },
    /// The kernel's answer could not be read.
    Malformed(&'static str),
}

impl Error {
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            Error::Socket(e) => e.raw_os_error(),
            Error::Malformed(_) => None,
        }
    }

    pub(crate) fn is(&self, errno: rustix::io::Errno) -> bool {
        self.errno() == Some(errno.raw_os_error())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Socket(e) => write!(f, "netlink socket: {e}"),
            Error::Refused { errno, reason, .. } => {
                write!(f, "{}", io::Error::from_raw_os_error(*errno))?;
                match reason {
                    Some(reason) => write!(f, ": {reason}"),
                    None => Ok(()),
                }
            }
            Error::Malformed(what) => write!(f, "unreadable netlink answer: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Error::Socket(e)
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        let kind = match e.errno() {
            Some(errno) => io::Error::from_raw_os_error(errno).kind(),
            None => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, e.to_string())
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

impl Message<'_> {
    /// For NLMSG_ERROR and NLMSG_DONE: what the kernel says about the request.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        let Some(code) = read_u32(self.body, 0) else {
            // NLMSG_DONE without a code is a plain end.
            return match self.kind {
                NLMSG_DONE => Ok(()),
                _ => Err(Error::Malformed("error message without a code")),
            };
        };
        let code = code as i32;
        if code == 0 {
            return Ok(());
        }
        Err(Error::Refused { errno: code.wrapping_neg(), sequence: self.sequence, reason: self.reason() })
    }

    fn reason(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let echoed = match self.kind {
            NLMSG_DONE => 0,
            _ if self.flags & NLM_F_CAPPED != 0 => HEADER_BYTES,
            _ => read_u32(self.body, 4)? as usize,
        };
        let tail = self.body.get(4 + align(echoed)..)?;
        let text = Attributes::new(tail).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?.1;
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// The messages of one datagram. Stops at the first that does not fit.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let bytes = self.0;
        let length = read_u32(bytes, 0)? as usize;
        if length < HEADER_BYTES || length > bytes.len() {
            return None;
        }
        self.0 = bytes.get(align(length)..).unwrap_or(&[]);
        Some(Message {
            kind: read_u16(bytes, 4)?,
            flags: read_u16(bytes, 6)?,
            sequence: read_u32(bytes, 8)?,
            body: &bytes[HEADER_BYTES..length],
        })
    }
}

/// The attributes of a message or of a nested attribute: type without its flag bits, and value.
#[derive(Clone)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Attributes(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let length = read_u16(bytes, 0)? as usize;
        if length < 4 || length > bytes.len() {
            return None;
        }
        let kind = read_u16(bytes, 2)? & 0x3fff;
        self.0 = bytes.get(align(length)..).unwrap_or(&[]);
        Some((kind, &bytes[4..length]))
    }
}

pub(crate) fn align(length: usize) -> usize {
    (length + 3) & !3
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) struct Socket {
    inner: sys::Socket,
    buffer: Vec<u8>,
    send_buffer_bytes: usize,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(family: Family) -> Result<Socket, Error> {
        let inner = sys::Socket::new(family as isize)?;
        inner.set_cap_ack(true)?;
        inner.set_ext_ack(true)?;
        Ok(Socket { inner, buffer: Vec::new(), send_buffer_bytes: 64 * 1024, sequence: 0 })
    }

    /// Opens a socket that the kernel tells of changes to what the multicast `groups` are about.
    pub(crate) fn listen(family: Family, groups: &[u32]) -> Result<Socket, Error> {
        let mut socket = Socket::open(family)?;
        socket.inner.bind_auto()?;
        for group in groups {
            socket.inner.add_membership(*group)?;
        }
        Ok(socket)
    }

    /// From now on the kernel filters dumps by what the request's header says, and refuses headers that say more than they may.
    pub(crate) fn filter_dumps(&self) -> Result<(), Error> {
        Ok(self.inner.set_netlink_get_strict_chk(true)?)
    }

    /// Numbers for the next `count` messages; the first is returned.
    pub(crate) fn sequences(&mut self, count: u32) -> u32 {
        // Zero is left to the kernel's own notifications.
        if self.sequence.checked_add(count).is_none() {
            self.sequence = 0;
        }
        let first = self.sequence + 1;
        self.sequence += count;
        first
    }

    /// Sends one datagram. All of it must fit the socket's send buffer, so that grows with it.
    pub(crate) fn send(&mut self, datagram: &[u8]) -> Result<(), Error> {
        let needed = datagram.len().saturating_add(4096);
        if needed > self.send_buffer_bytes {
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.inner, needed).map_err(io::Error::from)?;
            self.send_buffer_bytes = needed;
        }
        let kernel = sys::SocketAddr::new(0, 0);
        loop {
            match self.inner.send_to(datagram, &kernel, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits for one datagram and returns its messages.
    pub(crate) fn receive(&mut self) -> Result<Messages<'_>, Error> {
        self.receive_with(RecvFlags::empty())
    }

    /// The messages of one datagram that is there already; fails with EAGAIN where there is none.
    pub(crate) fn receive_waiting(&mut self) -> Result<Messages<'_>, Error> {
        self.receive_with(RecvFlags::DONTWAIT)
    }

    fn receive_with(&mut self, flags: RecvFlags) -> Result<Messages<'_>, Error> {
        let flags = i32::try_from(flags.bits()).expect("flags of recv(2) are an int");
        self.buffer.clear();
        self.buffer.reserve(RECEIVE_BUFFER_BYTES);
        loop {
            match self.inner.recv_from(&mut self.buffer, flags) {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Messages(&self.buffer))
    }

    /// Waits for the answers to `count` messages that all asked for one, and returns the refusals in their order.
    pub(crate) fn acknowledgements(&mut self, first: u32, count: u32) -> Result<Vec<Error>, Error> {
        let mut left = count;
        let mut refused = Vec::new();
        while left > 0 {
            for message in self.receive()? {
                let ours = message.sequence.wrapping_sub(first) < count;
                if message.kind == NLMSG_ERROR && ours {
                    left = left.saturating_sub(1);
                    if let Err(e) = message.verdict() {
                        refused.push(e);
                    }
                }
            }
        }
        Ok(refused)
    }

    /// Sends a request that asks for a dump or an acknowledgement, and hands each message before the end to `each`.
    pub(crate) fn transact(&mut self, request: &[u8], sequence: u32, mut each: impl FnMut(Message<'_>)) -> Result<(), Error> {
        self.send(request)?;
        loop {
            for message in self.receive()? {
                if message.sequence != sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => return message.verdict(),
                    _ => each(message),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_message(code: i32, flags: u16, tail: &[u8]) -> Vec<u8> {
        let mut body = code.to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER_BYTES]);
        body.extend_from_slice(tail);
        let mut all = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        all.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
        all.extend_from_slice(&flags.to_ne_bytes());
        all.extend_from_slice(&7u32.to_ne_bytes());
        all.extend_from_slice(&0u32.to_ne_bytes());
        all.extend_from_slice(&body);
        all
    }

    #[test]
    fn an_extended_acknowledgement_gives_the_kernels_own_words() {
        let mut tail = 12u16.to_ne_bytes().to_vec();
        tail.extend_from_slice(&NLMSGERR_ATTR_MSG.to_ne_bytes());
        tail.extend_from_slice(b"no such\0");
        let bytes = error_message(-2, NLM_F_CAPPED | NLM_F_ACK_TLVS, &tail);
        let message = Messages(&bytes).next().expect("one message");
        let error = message.verdict().expect_err("refused");
        assert_eq!(error.errno(), Some(2));
        assert_eq!(error.to_string(), "No such file or directory (os error 2): no such");
    }

    #[test]
    fn truncated_datagrams_and_attributes_end_the_iteration() {
        let bytes = error_message(-2, 0, &[]);
        for cut in 0..bytes.len() {
            assert_eq!(Messages(&bytes[..cut]).count(), 0, "cut at {cut}");
        }
        assert_eq!(Attributes::new(&[9, 0, 1, 0, 1]).count(), 0);
        assert_eq!(Attributes::new(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes::new(&[5, 0, 1, 0, 1]).count(), 1);
    }
}
