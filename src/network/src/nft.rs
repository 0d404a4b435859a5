//! A small nf_tables encoder: what the Service rules need, and no more.
//!
//! Primer. nf_tables is programmed by netlink messages of subsystem 10. Changes travel between NFNL_MSG_BATCH_BEGIN and
//! NFNL_MSG_BATCH_END **in one send()**, and the kernel takes all of them or none; packets see the old rules or the new ones,
//! nothing between. Integers in NFTA_* attributes are big-endian. An attribute holds at most 64 KiB, so long lists of elements are
//! cut into several messages of the same batch.
//!
//! A rule is a list of expressions working on registers: four bytes each, numbered from 8 (NFT_REG32_00); register 0 is the
//! verdict. `payload`, `meta`, `ct`, `fib` and `numgen` load, `bitwise` and `cmp` compute and break off, `lookup` asks a set or
//! map, `immediate` gives a verdict or constant, `nat`, `masq`, `reject` act. Data in registers are as on the wire, except mark, ct
//! state, numgen and fib type, which are host order. A key of several fields lies in consecutive registers, each field padded to
//! four bytes.
//!
//! Rule of the house: emit only what nft(8) could have written. A form that it cannot print makes `nft list ruleset` abort,
//! for everybody's tables.
mod batch;
mod expressions;
#[cfg(test)]
mod tests;

pub(crate) use batch::{Batch, Data, Element, Hook, SetSpec, Verdict, commit, table_exists};
pub(crate) use expressions::{Rule, reg};

/// Data types as nft(8) numbers them; the kernel stores them for printing only.
pub(crate) mod kind {
    pub(crate) const IPV4_ADDR: u32 = 7;
    pub(crate) const INET_PROTO: u32 = 12;
    pub(crate) const INET_SERVICE: u32 = 13;
    pub(crate) const MARK: u32 = 19;
    pub(crate) const VERDICT: u32 = 0xffff_ff00;
}

/// Flags of sets (NFT_SET_*).
pub(crate) mod set_flag {
    pub(crate) const INTERVAL: u32 = 0x4;
    pub(crate) const MAP: u32 = 0x8;
    pub(crate) const TIMEOUT: u32 = 0x10;
    pub(crate) const EVAL: u32 = 0x20;
    pub(crate) const CONCAT: u32 = 0x80;
}
