//! From the bytes of a question to the bytes of its answer.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use tokio::sync::OwnedSemaphorePermit;

use crate::catalog::Catalog;
use crate::forward::{Flags, Forwarder};
use crate::metrics::Metrics;
use crate::zone::Zone;

/// What passes every link unfragmented (DNS flag day 2020), and what is said so to others.
pub(crate) const UDP_BYTES_MAX: u16 = 1232;
/// What a client that says nothing can take (RFC 1035, 4.2.1).
const UDP_BYTES_MIN: u16 = 512;
const HEADER_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What becomes of a question.
pub(crate) enum Step {
    Reply(Vec<u8>),
    /// Another server must be asked.
    Ask(Box<Pending>),
    /// Not a question; an answer could start an endless exchange.
    Ignore,
}

/// An answer that waits for another server.
pub(crate) struct Pending {
    reply: Message,
    query: Query,
    flags: Flags,
    limit: u16,
    /// The addresses of an alias's target, which go behind the alias.
    follow: bool,
    _permit: OwnedSemaphorePermit,
}

/// All that answering takes; shared by all threads.
pub(crate) struct Responder<C> {
    pub zone: Zone<C>,
    pub forwarder: Arc<Forwarder>,
    pub metrics: Arc<Metrics>,
    pub turn: AtomicUsize,
}

impl<C: Catalog> Responder<C> {
    pub(crate) fn handle(&self, wire: &[u8], transport: Transport) -> Step {
        match transport {
            Transport::Udp => self.metrics.udp_requests.add(),
            Transport::Tcp => self.metrics.tcp_requests.add(),
        }
        // Only questions are answered: bit QR.
        if wire.len() < HEADER_BYTES || wire[2] & 0x80 != 0 {
            self.metrics.malformed.add();
            return Step::Ignore;
        }
        let Ok(asked) = Message::from_vec(wire) else {
            self.metrics.malformed.add();
            let id = u16::from_be_bytes([wire[0], wire[1]]);
            let failed = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            return Step::Reply(self.encode(&failed, UDP_BYTES_MIN));
        };
        let limit = match (transport, &asked.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_BYTES_MIN, UDP_BYTES_MAX),
            (Transport::Udp, None) => UDP_BYTES_MIN,
        };
        let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
        reply.metadata = Metadata::response_from_request(&asked.metadata);
        reply.metadata.recursion_available = true;
        reply.add_queries(asked.queries.iter().cloned());
        if let Some(edns) = &asked.edns {
            let mut own = Edns::new();
            own.set_max_payload(UDP_BYTES_MAX).set_dnssec_ok(edns.flags().dnssec_ok);
            reply.set_edns(own);
        }
        if let Some(code) = refusal(&asked) {
            reply.metadata.response_code = code;
            return Step::Reply(self.encode(&reply, limit));
        }
        self.answer(&asked, reply, limit)
    }

    fn answer(&self, asked: &Message, mut reply: Message, limit: u16) -> Step {
        let query = asked.queries[0].clone();
        let flags = Flags {
            recursion_desired: asked.metadata.recursion_desired,
            dnssec_ok: asked.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok),
            checking_disabled: asked.metadata.checking_disabled,
        };
        let Some(answer) = self.zone.answer(query.name(), query.query_type()) else {
            return self.ask(reply, query, flags, limit, false);
        };
        reply.metadata.authoritative = true;
        reply.metadata.response_code = answer.code.response_code();
        reply.answers = answer.answers;
        reply.authorities = answer.authorities;
        reply.additionals = answer.additionals;
        self.rotate(&mut reply.answers);
        match answer.follow {
            Some(target) => {
                let query = target_query(target, query.query_type());
                self.ask(reply, query, flags, limit, true)
            }
            None => Step::Reply(self.encode(&reply, limit)),
        }
    }

    fn ask(&self, mut reply: Message, query: Query, flags: Flags, limit: u16, follow: bool) -> Step {
        if let Some(found) = self.forwarder.cached(&query, flags) {
            merge(&mut reply, found, follow);
            return Step::Reply(self.encode(&reply, limit));
        }
        let Some(permit) = self.forwarder.permit() else {
            reply.metadata.response_code = ResponseCode::ServFail;
            return Step::Reply(self.encode(&reply, limit));
        };
        Step::Ask(Box::new(Pending { reply, query, flags, limit, follow, _permit: permit }))
    }

    /// Completes an answer by asking another server.
    pub(crate) async fn complete(&self, pending: Pending) -> Vec<u8> {
        let Pending { mut reply, query, flags, limit, follow, _permit } = pending;
        let found = self.forwarder.ask(&query, flags).await;
        merge(&mut reply, found, follow);
        self.encode(&reply, limit)
    }

    /// Clients tend to take the first address: it is another one each time.
    fn rotate(&self, answers: &mut [Record]) {
        let addresses = |r: &Record| matches!(r.record_type(), RecordType::A | RecordType::AAAA);
        if answers.len() > 1 && answers.iter().all(addresses) {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            answers.rotate_left(turn % answers.len());
        }
    }

    /// Encodes at most `limit` bytes; records that do not fit are left out, and the answer says so (bit TC).
    fn encode(&self, message: &Message, limit: u16) -> Vec<u8> {
        match message.metadata.response_code {
            ResponseCode::NoError => self.metrics.answered.add(),
            ResponseCode::NXDomain => self.metrics.no_such_name.add(),
            _ => self.metrics.server_failures.add(),
        }
        let mut wire = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut wire);
        encoder.set_max_size(limit);
        match message.emit(&mut encoder) {
            Ok(()) => wire,
            Err(error) => {
                tracing::warn!(%error, "an answer cannot be encoded");
                let metadata = &message.metadata;
                let failed = Message::error_msg(metadata.id, metadata.op_code, ResponseCode::ServFail);
                failed.to_vec().unwrap_or_default()
            }
        }
    }
}

/// Why a well-formed question is not answered.
fn refusal(asked: &Message) -> Option<ResponseCode> {
    if asked.metadata.op_code != OpCode::Query {
        return Some(ResponseCode::NotImp);
    }
    if asked.edns.as_ref().is_some_and(|e| e.version() != 0) {
        return Some(ResponseCode::BADVERS);
    }
    let [query] = &asked.queries[..] else {
        return Some(ResponseCode::FormErr);
    };
    if query.query_class() != DNSClass::IN {
        return Some(ResponseCode::Refused);
    }
    match query.query_type() {
        RecordType::AXFR | RecordType::IXFR => Some(ResponseCode::Refused),
        _ => None,
    }
}

fn target_query(target: Name, kind: RecordType) -> Query {
    Query::query(target, kind)
}

fn merge(reply: &mut Message, found: Message, follow: bool) {
    if follow {
        // The alias itself is known; whether its target can be reached is the client's to find out.
        reply.answers.extend(found.answers);
        return;
    }
    debug_assert_ne!(reply.metadata.message_type, MessageType::Query);
    reply.metadata.response_code = found.metadata.response_code;
    reply.metadata.authentic_data = found.metadata.authentic_data;
    reply.answers = found.answers;
    reply.authorities = found.authorities;
    reply.additionals = found.additionals;
}
