//! The expressions of a rule, each with what nft(8) calls it.
use super::batch::{Batch, FAMILY_IPV4, Verdict};

/// The n-th four-byte register (NFT_REG32_00 + n).
pub(crate) const fn reg(n: u32) -> u32 {
    8 + n
}

/// NFT_REG_VERDICT
const VERDICT: u32 = 0;

/// Writes one rule, expression after expression.
pub(crate) struct Rule<'a>(&'a mut Batch);

impl<'a> Rule<'a> {
    pub(super) fn new(batch: &'a mut Batch) -> Self {
        Rule(batch)
    }

    /// NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Batch)) {
        self.0.nest(1, |b| {
            b.text(1, name);
            b.nest(2, data);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, to: u32) {
        self.expression("payload", |b| {
            b.u32(1, to);
            b.u32(2, base);
            b.u32(3, offset);
            b.u32(4, length);
        });
    }

    /// `ip saddr`
    pub(crate) fn source(&mut self, to: u32) {
        self.payload(1, 12, 4, to);
    }

    /// `ip daddr`
    pub(crate) fn destination(&mut self, to: u32) {
        self.payload(1, 16, 4, to);
    }

    /// `th dport`
    pub(crate) fn destination_port(&mut self, to: u32) {
        self.payload(2, 2, 2, to);
    }

    fn meta(&mut self, key: u32, to: u32) {
        self.expression("meta", |b| {
            b.u32(1, to);
            b.u32(2, key);
        });
    }

    /// `meta l4proto`
    pub(crate) fn protocol(&mut self, to: u32) {
        self.meta(16, to);
    }

    /// `meta mark`
    pub(crate) fn mark(&mut self, to: u32) {
        self.meta(3, to);
    }

    /// `meta mark set`
    pub(crate) fn set_mark(&mut self, from: u32) {
        self.expression("meta", |b| {
            b.u32(2, 3);
            b.u32(3, from);
        });
    }

    /// `ct mark`
    pub(crate) fn ct_mark(&mut self, to: u32) {
        self.ct(3, to);
    }

    /// `ct mark set`
    pub(crate) fn set_ct_mark(&mut self, from: u32) {
        self.expression("ct", |b| {
            b.u32(2, 3);
            b.u32(4, from);
        });
    }

    fn ct(&mut self, key: u32, to: u32) {
        self.expression("ct", |b| {
            b.u32(1, to);
            b.u32(2, key);
        });
    }

    /// `ct state new`
    pub(crate) fn if_new_connection(&mut self) {
        const STATE: u32 = 0;
        // NF_CT_STATE_BIT(IP_CT_NEW)
        const NEW: u32 = 8;
        self.ct(STATE, reg(0));
        self.bitwise(reg(0), &NEW.to_ne_bytes(), &[0; 4]);
        self.compare(reg(0), Comparison::Differs, &[0; 4]);
    }

    fn bitwise(&mut self, register: u32, mask: &[u8], xor: &[u8]) {
        let length = u32::try_from(mask.len()).expect("a few bytes");
        self.expression("bitwise", |b| {
            b.u32(1, register);
            b.u32(2, register);
            b.u32(3, length);
            b.nest(4, |b| b.bytes(1, mask));
            b.nest(5, |b| b.bytes(1, xor));
        });
    }

    fn compare(&mut self, register: u32, how: Comparison, value: &[u8]) {
        self.expression("cmp", |b| {
            b.u32(1, register);
            b.u32(2, how as u32);
            b.nest(3, |b| b.bytes(1, value));
        });
    }

    /// Goes on if `register` differs from zero.
    pub(crate) fn if_not_zero(&mut self, register: u32) {
        self.compare(register, Comparison::Differs, &[0; 4]);
    }

    fn in_network(&mut self, how: Comparison, network: ipnet::Ipv4Net) {
        if network.prefix_len() < 32 {
            self.bitwise(reg(0), &network.netmask().octets(), &[0; 4]);
        }
        self.compare(reg(0), how, &network.network().octets());
    }

    /// `ip saddr NETWORK`
    pub(crate) fn if_source_in(&mut self, network: ipnet::Ipv4Net) {
        self.source(reg(0));
        self.in_network(Comparison::Equals, network);
    }

    /// `ip saddr != NETWORK`
    pub(crate) fn if_source_not_in(&mut self, network: ipnet::Ipv4Net) {
        self.source(reg(0));
        self.in_network(Comparison::Differs, network);
    }

    /// `ip daddr NETWORK`
    pub(crate) fn if_destination_in(&mut self, network: ipnet::Ipv4Net) {
        self.destination(reg(0));
        self.in_network(Comparison::Equals, network);
    }

    /// `ip daddr != NETWORK`
    pub(crate) fn if_destination_not_in(&mut self, network: ipnet::Ipv4Net) {
        self.destination(reg(0));
        self.in_network(Comparison::Differs, network);
    }

    fn if_local(&mut self, which: u32) {
        const RESULT_ADDRESS_TYPE: u32 = 3;
        // RTN_LOCAL
        const LOCAL: u32 = 2;
        self.expression("fib", |b| {
            b.u32(1, reg(0));
            b.u32(2, RESULT_ADDRESS_TYPE);
            b.u32(3, which);
        });
        self.compare(reg(0), Comparison::Equals, &LOCAL.to_ne_bytes());
    }

    /// `fib saddr type local`
    pub(crate) fn if_source_is_local(&mut self) {
        self.if_local(1);
    }

    /// `fib daddr type local`
    pub(crate) fn if_destination_is_local(&mut self) {
        self.if_local(2);
    }

    /// `meta mark & BIT != 0`
    pub(crate) fn if_mark_has(&mut self, bit: u32) {
        self.mark(reg(0));
        self.bitwise(reg(0), &bit.to_ne_bytes(), &[0; 4]);
        self.if_not_zero(reg(0));
    }

    /// `meta mark set meta mark | BIT`
    pub(crate) fn add_to_mark(&mut self, bit: u32) {
        self.mark(reg(0));
        self.bitwise(reg(0), &(!bit).to_ne_bytes(), &bit.to_ne_bytes());
        self.set_mark(reg(0));
    }

    /// `meta mark set meta mark & ~BIT`
    pub(crate) fn take_from_mark(&mut self, bit: u32) {
        self.mark(reg(0));
        self.bitwise(reg(0), &(!bit).to_ne_bytes(), &[0; 4]);
        self.set_mark(reg(0));
    }

    /// `numgen random mod MODULUS [offset OFFSET]`
    pub(crate) fn random(&mut self, to: u32, modulus: u32, offset: u32) {
        self.expression("numgen", |b| {
            b.u32(1, to);
            b.u32(2, modulus);
            b.u32(3, 1);
            if offset > 0 {
                b.u32(4, offset);
            }
        });
    }

    fn lookup(&mut self, set: &str, key: u32, to: Option<u32>, absent: bool) {
        self.expression("lookup", |b| {
            b.text(1, set);
            b.u32(2, key);
            if let Some(to) = to {
                b.u32(3, to);
            }
            if absent {
                b.u32(5, 1);
            }
        });
    }

    /// `@SET`: goes on if the key is in the set.
    pub(crate) fn if_in(&mut self, set: &str, key: u32) {
        self.lookup(set, key, None, false);
    }

    /// `map @MAP`: loads the value of the key, or breaks off.
    pub(crate) fn map(&mut self, map: &str, key: u32, to: u32) {
        self.lookup(map, key, Some(to), false);
    }

    /// `vmap @MAP`: does what the map says, or goes on.
    pub(crate) fn verdict_map(&mut self, map: &str, key: u32) {
        self.lookup(map, key, Some(VERDICT), false);
    }

    /// `update @MAP { KEY timeout T : DATA }`
    pub(crate) fn update(&mut self, map: &str, key: u32, data: u32, timeout_ms: u64) {
        self.dynamic(map, 1, key, data, timeout_ms);
    }

    /// `delete @MAP { KEY : DATA }`; the data register must be named, and is not looked at.
    pub(crate) fn delete(&mut self, map: &str, key: u32, data: u32) {
        self.dynamic(map, 2, key, data, 0);
    }

    fn dynamic(&mut self, map: &str, operation: u32, key: u32, data: u32, timeout_ms: u64) {
        self.expression("dynset", |b| {
            b.text(1, map);
            b.u32(3, operation);
            b.u32(4, key);
            b.u32(5, data);
            if timeout_ms > 0 {
                b.u64(6, timeout_ms);
            }
        });
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict<'_>) {
        self.expression("immediate", |b| {
            b.u32(1, VERDICT);
            b.nest(2, |b| b.verdict(verdict));
        });
    }

    /// `udp dport PORT`
    pub(crate) fn if_udp_port(&mut self, port: u16) {
        const UDP: u8 = 17;
        self.protocol(reg(0));
        self.compare(reg(0), Comparison::Equals, &[UDP]);
        self.destination_port(reg(0));
        self.compare(reg(0), Comparison::Equals, &port.to_be_bytes());
    }

    /// `notrack`
    pub(crate) fn notrack(&mut self) {
        // The only expression without NFTA_EXPR_DATA.
        self.0.nest(1, |b| b.text(1, "notrack"));
    }

    /// `dnat ip to ADDRESS . PORT`
    pub(crate) fn dnat(&mut self, address: u32, port: u32) {
        // NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED
        const ADDRESS_AND_PORT: u32 = 3;
        self.expression("nat", |b| {
            b.u32(1, 1);
            b.u32(2, u32::from(FAMILY_IPV4));
            b.u32(3, address);
            b.u32(5, port);
            b.u32(7, ADDRESS_AND_PORT);
        });
    }

    /// `snat to ADDRESS fully-random`
    pub(crate) fn snat(&mut self, address: std::net::Ipv4Addr) {
        // NF_NAT_RANGE_PROTO_RANDOM_FULLY; that an address is given goes without saying.
        const FULLY_RANDOM: u32 = 0x10;
        self.expression("immediate", |b| {
            b.u32(1, reg(0));
            b.nest(2, |b| b.bytes(1, &address.octets()));
        });
        self.expression("nat", |b| {
            b.u32(1, 0);
            b.u32(2, u32::from(FAMILY_IPV4));
            b.u32(3, reg(0));
            b.u32(7, FULLY_RANDOM);
        });
    }

    /// `masquerade fully-random`
    pub(crate) fn masquerade(&mut self) {
        // NF_NAT_RANGE_PROTO_RANDOM_FULLY
        self.expression("masq", |b| b.u32(1, 0x10));
    }

    /// `reject`: ICMP port unreachable, which a TCP client reports as "connection refused".
    pub(crate) fn reject(&mut self) {
        self.expression("reject", |b| {
            b.u32(1, 0);
            b.bytes(2, &[3]);
        });
    }
}

/// NFT_CMP_*
#[derive(Clone, Copy)]
enum Comparison {
    Equals = 0,
    Differs = 1,
}
