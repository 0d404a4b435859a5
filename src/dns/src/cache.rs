//! Answers of other servers, for as long as they allow, up to half a minute.
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use tokio::time::Instant;

/// Entries and bytes of one entry: some 16 MB in the worst case.
const ENTRIES_MAX: usize = 8_192;
const ENTRY_BYTES_MAX: usize = 2_048;
/// As in the configuration that clusters commonly give CoreDNS.
const TTL_MAX: u32 = 30;

/// A question, in lower case, with the flags that change its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub name: String,
    pub kind: u16,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

struct Entry {
    wire: Vec<u8>,
    stored: Instant,
    expires: Instant,
}

#[derive(Default)]
pub(crate) struct Cache {
    entries: HashMap<Key, Entry>,
    by_expiry: BTreeSet<(Instant, Key)>,
}

impl Cache {
    /// A stored answer, its times to live shortened by the time it has lain here.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<Message> {
        let entry = self.entries.get(key).filter(|e| e.expires > now)?;
        let age = u32::try_from((now - entry.stored).as_secs()).unwrap_or(u32::MAX);
        let mut message = Message::from_vec(&entry.wire).ok()?;
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    pub(crate) fn put(&mut self, key: Key, message: &Message, now: Instant) {
        let (Some(ttl), Ok(wire)) = (ttl(message), message.to_vec()) else {
            return;
        };
        if ttl == 0 || wire.len() > ENTRY_BYTES_MAX {
            return;
        }
        let expires = now + Duration::from_secs(u64::from(ttl));
        let entry = Entry { wire, stored: now, expires };
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            self.by_expiry.remove(&(old.expires, key.clone()));
        }
        self.by_expiry.insert((expires, key));
        // Those that would go first anyway, the expired among them.
        while self.entries.len() > ENTRIES_MAX {
            let Some((_, key)) = self.by_expiry.pop_first() else {
                break;
            };
            self.entries.remove(&key);
        }
    }
}

/// Seconds for which the answer holds: the least of its records; of a negative one what its SOA says (RFC 2308, section 5).
fn ttl(message: &Message) -> Option<u32> {
    if message.metadata.truncation {
        return None;
    }
    let least = |records: &[Record]| records.iter().map(|r| r.ttl).min();
    let negative = || {
        message.authorities.iter().find_map(|r| match &r.data {
            RData::SOA(soa) => Some(soa.minimum.min(r.ttl)),
            _ => None,
        })
    };
    let ttl = match message.metadata.response_code {
        ResponseCode::NoError if !message.answers.is_empty() => least(&message.answers),
        ResponseCode::NoError | ResponseCode::NXDomain => negative(),
        _ => None,
    };
    ttl.map(|ttl| ttl.min(TTL_MAX))
}
