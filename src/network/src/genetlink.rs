//! Generic netlink: one family by name, requests, and a small writer of attributes.
//!
//! Primer. Families have names and get their numbers when they are registered, so the first question goes to the controller (number
//! 16). A message is `struct genlmsghdr` (command, version, two zero bytes) and attributes in host byte order; those that hold
//! others carry NLA_F_NESTED.
use rustix::io::Errno;

use crate::netlink::{Attributes, Error, Family, HEADER_BYTES, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Socket, read_u16};

const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const GENL_HEADER_BYTES: usize = 4;
const NLA_F_NESTED: u16 = 0x8000;

/// Attributes under way.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("an attribute below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Writer)) {
        let mut nested = Writer::default();
        inner(&mut nested);
        self.bytes(kind | NLA_F_NESTED, &nested.0);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }
}

/// A socket to one family.
pub(crate) struct Generic {
    socket: Socket,
    family: u16,
    version: u8,
}

impl Generic {
    /// `None`: this kernel has no such family.
    pub(crate) fn open(name: &str, version: u8) -> Result<Option<Generic>, Error> {
        let mut controller = Generic { socket: Socket::open(Family::Generic)?, family: CONTROLLER, version: 1 };
        let mut id = None;
        let asked = controller.ask(
            CTRL_CMD_GETFAMILY,
            NLM_F_ACK,
            |w| w.text(CTRL_ATTR_FAMILY_NAME, name),
            |attributes| {
                let found = attributes.into_iter().find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
                id = id.or(found.and_then(|(_, value)| read_u16(value, 0)));
            },
        );
        match asked {
            Err(e) if e.is(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => {
                let family = id.ok_or(Error::Malformed("a family without a number"))?;
                Ok(Some(Generic { socket: controller.socket, family, version }))
            }
        }
    }

    /// Has the kernel do something, and waits until it has.
    pub(crate) fn execute(&mut self, command: u8, write: impl FnOnce(&mut Writer)) -> Result<(), Error> {
        self.ask(command, NLM_F_ACK, write, |_| {})
    }

    /// Asks for one thing and hands the attributes of the answer to `each`.
    pub(crate) fn ask_one(&mut self, command: u8, write: impl FnOnce(&mut Writer), each: impl FnMut(Attributes<'_>)) -> Result<(), Error> {
        self.ask(command, NLM_F_ACK, write, each)
    }

    /// Asks for a dump and hands the attributes of each message to `each`.
    pub(crate) fn dump(&mut self, command: u8, write: impl FnOnce(&mut Writer), each: impl FnMut(Attributes<'_>)) -> Result<(), Error> {
        self.ask(command, NLM_F_DUMP, write, each)
    }

    fn ask(&mut self, command: u8, flags: u16, write: impl FnOnce(&mut Writer), mut each: impl FnMut(Attributes<'_>)) -> Result<(), Error> {
        let sequence = self.socket.sequences(1);
        let mut writer = Writer::default();
        write(&mut writer);
        let request = message(self.family, flags, sequence, command, self.version, &writer.into_bytes());
        // An acknowledged request ends by NLMSG_ERROR with code 0, a dump by NLMSG_DONE.
        let mut answer = |m: Message<'_>| {
            if let Some(attributes) = m.body.get(GENL_HEADER_BYTES..) {
                each(Attributes::new(attributes));
            }
        };
        self.socket.transact(&request, sequence, &mut answer)
    }
}

fn message(family: u16, flags: u16, sequence: u32, command: u8, version: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + GENL_HEADER_BYTES + attributes.len()).expect("a message below 4 GiB");
    let mut all = length.to_ne_bytes().to_vec();
    all.extend_from_slice(&family.to_ne_bytes());
    all.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    all.extend_from_slice(&sequence.to_ne_bytes());
    all.extend_from_slice(&0u32.to_ne_bytes());
    all.extend_from_slice(&[command, version, 0, 0]);
    all.extend_from_slice(attributes);
    all
}
