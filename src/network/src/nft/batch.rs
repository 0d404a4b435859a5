//! Batches of messages: tables, chains, sets, elements, and the commit.
use super::expressions::Rule;
use super::set_flag;
use crate::netlink::{Error, HEADER_BYTES, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ERROR, Socket};

pub(crate) const FAMILY_IPV4: u8 = 2;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const GETTABLE: u16 = 1;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

/// Bytes of elements in one message; the attribute that holds them ends at 64 KiB.
const ELEMENT_BYTES_MAX: usize = 60_000;
const NLA_F_NESTED: u16 = 0x8000;

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a rule or a verdict map decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

/// The value of an element.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    None,
    Value(&'a [u8]),
    Verdict(Verdict<'a>),
}

/// An element to add; `end` closes the interval that `key` opens.
pub(crate) struct Element<'a> {
    pub key: &'a [u8],
    pub end: Option<&'a [u8]>,
    pub data: Data<'a>,
}

pub(crate) struct SetSpec<'a> {
    pub name: &'a str,
    pub flags: u32,
    /// Type, for printing, and length in bytes of each field of the key.
    pub key: &'a [(u32, u32)],
    /// The same for the value of a map; empty for a map of verdicts.
    pub value: &'a [(u32, u32)],
    /// Upper bound of the elements that packets add.
    pub size: u32,
    pub timeout_ms: u64,
}

pub(crate) struct Batch {
    bytes: Vec<u8>,
    next_sequence: u32,
    last_message: usize,
    next_set_id: u32,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        let mut batch = Batch { bytes: Vec::with_capacity(4096), next_sequence: 1, last_message: 0, next_set_id: 1 };
        batch.control(BATCH_BEGIN);
        batch
    }

    /// True when nothing but the opening was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.last_message == 0
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(super) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    fn control(&mut self, kind: u16) {
        let start = self.header(kind, 0);
        // struct nfgenmsg: family, version, resource id; here the subsystem.
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&SUBSYSTEM.to_be_bytes());
        self.close(start);
    }

    fn header(&mut self, kind: u16, flags: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.next_sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.next_sequence += 1;
        start
    }

    fn close(&mut self, start: usize) {
        let length = u32::try_from(self.bytes.len() - start).expect("a message below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Self)) {
        let start = self.header((SUBSYSTEM << 8) | kind, flags);
        self.last_message = start;
        self.bytes.extend_from_slice(&[FAMILY_IPV4, 0, 0, 0]);
        body(self);
        self.close(start);
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("an attribute below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A string with its terminating zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        let length = u16::try_from(value.len() + 5).expect("a name below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn nest(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        content(self);
        let length = u16::try_from(self.bytes.len() - start).expect("an attribute below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn verdict(&mut self, verdict: Verdict<'_>) {
        let (code, chain): (i32, _) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        };
        // NFTA_DATA_VERDICT { NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN }
        self.nest(2, |b| {
            b.u32(1, code as u32);
            if let Some(chain) = chain {
                b.text(2, chain);
            }
        });
    }

    pub(crate) fn add_table(&mut self, table: &str) {
        self.message(NEWTABLE, NLM_F_CREATE, |b| b.text(1, table));
    }

    /// Deletes the table if it exists. (NFT_MSG_DESTROYTABLE would do, from kernel 6.3 on.)
    pub(crate) fn remove_table(&mut self, table: &str) {
        self.add_table(table);
        self.message(DELTABLE, 0, |b| b.text(1, table));
    }

    pub(crate) fn add_chain(&mut self, table: &str, chain: &str) {
        self.message(NEWCHAIN, NLM_F_CREATE, |b| {
            b.text(1, table);
            b.text(3, chain);
        });
    }

    /// A chain that packets enter by `hook`; `kind` is "nat" or "filter". Its policy is accept.
    pub(crate) fn add_base_chain(&mut self, table: &str, chain: &str, kind: &str, hook: Hook, priority: i32) {
        const POLICY_ACCEPT: u32 = 1;
        self.message(NEWCHAIN, NLM_F_CREATE, |b| {
            b.text(1, table);
            b.text(3, chain);
            b.nest(4, |b| {
                b.u32(1, hook as u32);
                b.u32(2, priority as u32);
            });
            b.u32(5, POLICY_ACCEPT);
            b.text(7, kind);
        });
    }

    pub(crate) fn add_rule(&mut self, table: &str, chain: &str, rule: impl FnOnce(&mut Rule<'_>)) {
        self.message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |b| {
            b.text(1, table);
            b.text(2, chain);
            b.nest(4, |b| rule(&mut Rule::new(b)));
        });
    }

    pub(crate) fn add_set(&mut self, table: &str, spec: &SetSpec<'_>) {
        // Each field of a concatenation takes whole registers.
        let registers = |fields: &[(u32, u32)]| fields.iter().map(|f| f.1.next_multiple_of(4)).sum();
        let kinds = |fields: &[(u32, u32)]| fields.iter().fold(0, |all, f| (all << 6) | f.0);
        let concat = spec.key.len() > 1;
        let flags = spec.flags | if concat { set_flag::CONCAT } else { 0 };
        let id = self.next_set_id;
        self.next_set_id += 1;
        self.message(NEWSET, NLM_F_CREATE, |b| {
            b.text(1, table);
            b.text(2, spec.name);
            b.u32(3, flags);
            b.u32(4, kinds(spec.key));
            b.u32(5, registers(spec.key));
            if flags & set_flag::MAP != 0 {
                match spec.value {
                    [] => {
                        b.u32(6, super::kind::VERDICT);
                        b.u32(7, 0);
                    }
                    value => {
                        b.u32(6, kinds(value));
                        b.u32(7, registers(value));
                    }
                }
            }
            if spec.size > 0 || concat {
                // NFTA_SET_DESC { NFTA_SET_DESC_SIZE, NFTA_SET_DESC_CONCAT { NFTA_LIST_ELEM { NFTA_SET_FIELD_LEN } } }
                b.nest(9, |b| {
                    if spec.size > 0 {
                        b.u32(1, spec.size);
                    }
                    if concat {
                        b.nest(2, |b| {
                            for (_, length) in spec.key {
                                b.nest(1, |b| b.u32(1, *length));
                            }
                        });
                    }
                });
            }
            b.u32(10, id);
            if spec.timeout_ms > 0 {
                b.u64(11, spec.timeout_ms);
            }
        });
    }

    pub(crate) fn add_elements<'a>(&mut self, table: &str, set: &str, elements: impl Iterator<Item = Element<'a>>) {
        self.elements(NEWSETELEM, NLM_F_CREATE, table, set, elements);
    }

    /// The data of an element to delete are not looked at.
    pub(crate) fn remove_elements<'a>(&mut self, table: &str, set: &str, elements: impl Iterator<Item = Element<'a>>) {
        self.elements(DELSETELEM, 0, table, set, elements);
    }

    fn elements<'a>(&mut self, kind: u16, flags: u16, table: &str, set: &str, elements: impl Iterator<Item = Element<'a>>) {
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            self.message(kind, flags, |b| {
                b.text(1, table);
                b.text(2, set);
                b.nest(3, |b| {
                    let start = b.bytes.len();
                    while b.bytes.len() - start < ELEMENT_BYTES_MAX {
                        match elements.next() {
                            Some(element) => b.element(&element),
                            None => break,
                        }
                    }
                });
            });
        }
    }

    /// NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_KEY_END }
    fn element(&mut self, element: &Element<'_>) {
        self.nest(1, |b| {
            b.nest(1, |b| b.bytes(1, element.key));
            match element.data {
                Data::None => {}
                Data::Value(value) => b.nest(2, |b| b.bytes(1, value)),
                Data::Verdict(verdict) => b.nest(2, |b| b.verdict(verdict)),
            }
            if let Some(end) = element.end {
                b.nest(10, |b| b.bytes(1, end));
            }
        });
    }

    /// Asks for an acknowledgement of the last message, which stands for all, and closes the batch.
    fn finish(mut self) -> (Vec<u8>, u32) {
        let at = self.last_message;
        let flags = u16::from_ne_bytes([self.bytes[at + 6], self.bytes[at + 7]]) | NLM_F_ACK;
        self.bytes[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
        let sequence = &self.bytes[at + 8..at + 12];
        let last = u32::from_ne_bytes(sequence.try_into().expect("four bytes"));
        self.control(BATCH_END);
        (self.bytes, last)
    }
}

/// Hands a batch to the kernel. On an error nothing of it was done.
pub(crate) fn commit(socket: &mut Socket, batch: Batch) -> Result<(), Error> {
    if batch.is_empty() {
        return Ok(());
    }
    let (bytes, last) = batch.finish();
    debug_assert!(bytes.len() >= HEADER_BYTES);
    socket.send(&bytes)?;
    // Refusals come before the acknowledgement. A refused batch may be answered by refusals alone, so the first ends the wait.
    loop {
        for message in socket.receive()? {
            if message.kind == NLMSG_ERROR {
                message.verdict()?;
                if message.sequence == last {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether the table exists.
pub(crate) fn table_exists(socket: &mut Socket, table: &str) -> Result<bool, Error> {
    let mut request = Batch { bytes: Vec::new(), next_sequence: socket.sequences(1), last_message: 0, next_set_id: 1 };
    let sequence = request.next_sequence;
    request.message(GETTABLE, NLM_F_ACK, |b| b.text(1, table));
    socket.send(&request.bytes)?;
    let mut found = false;
    loop {
        for message in socket.receive()? {
            if message.sequence != sequence {
                continue;
            }
            if message.kind != NLMSG_ERROR {
                found = true;
                continue;
            }
            return match message.verdict() {
                Ok(()) => Ok(found),
                Err(e) if e.is(rustix::io::Errno::NOENT) => Ok(false),
                Err(e) => Err(e),
            };
        }
    }
}
