//! The filter that RuntimeDefault means, as a program for the kernel's classic BPF.
//!
//! The kernel walks a filter for every call number when it is installed, so the length of the way counts, not that of the
//! program: a binary tree over ranges of numbers installs in 0.1 ms, a list of comparisons in 0.9.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the seccomp table knows x86-64 (and i386) only");

mod table;

use std::sync::{Mutex, PoisonError};

use crate::spec::{BpfInstruction, Capabilities};

/// When a call is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Always,
    /// With one of these capabilities.
    With(u64),
    /// Of any family but those that reach hosts and kernel parts no container needs.
    Socket,
    /// The personalities that do not weaken the process.
    Personality,
    /// Not with new namespaces, without CAP_SYS_ADMIN.
    Clone,
    /// Its flags cannot be looked at; ENOSYS makes libraries use clone.
    Clone3,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Errno(u32),
    CheckSocket,
    CheckPersonality,
    CheckClone,
}

const SYS_ADMIN: u64 = 1 << 21;
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32, each with UNAME26, and the question what it is.
const PERSONALITIES: [u32; 5] = [0, 8, 0x20000, 0x20008, u32::MAX];
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;

const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_I386: u32 = 0x4000_0003;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// Sets of capabilities are few: those of a node's pods.
const CACHE_MAX: usize = 16;
static CACHE: Mutex<Vec<(u64, Vec<BpfInstruction>)>> = Mutex::new(Vec::new());

/// The program for a container with these capabilities.
pub(crate) fn runtime_default(capabilities: Capabilities) -> Vec<BpfInstruction> {
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, program)) = cache.iter().find(|(known, _)| *known == capabilities.0) {
        return program.clone();
    }
    let program = compile(capabilities.0);
    if cache.len() < CACHE_MAX {
        cache.push((capabilities.0, program.clone()));
    }
    program
}

fn verdict(rule: Rule, capabilities: u64) -> Verdict {
    let admin = capabilities & SYS_ADMIN != 0;
    match rule {
        Rule::Always => Verdict::Allow,
        Rule::With(any) if capabilities & any != 0 => Verdict::Allow,
        Rule::With(_) => Verdict::Errno(libc::EPERM as u32),
        Rule::Socket => Verdict::CheckSocket,
        Rule::Personality => Verdict::CheckPersonality,
        Rule::Clone | Rule::Clone3 if admin => Verdict::Allow,
        Rule::Clone => Verdict::CheckClone,
        Rule::Clone3 => Verdict::Errno(libc::ENOSYS as u32),
    }
}

/// First number of each range, and what happens in it. Covers all numbers.
fn ranges(capabilities: u64, number: impl Fn(&(&str, u32, u32, Rule)) -> u32) -> Vec<(u32, Verdict)> {
    let mut known: Vec<(u32, Verdict)> = table::CALLS
        .iter()
        .map(|call| (number(call), verdict(call.3, capabilities)))
        .filter(|(number, _)| *number != table::NONE)
        .collect();
    known.sort_by_key(|(number, _)| *number);
    let refused = Verdict::Errno(libc::EPERM as u32);
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut add = |start: u32, verdict: Verdict| {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((start, verdict));
        }
    };
    let mut next = 0;
    for (number, verdict) in known {
        if number > next {
            add(next, refused);
        }
        add(number, verdict);
        next = number + 1;
    }
    if next <= table::NEWEST {
        add(next, refused);
    }
    // x32 calls too: their numbers begin at 1 << 30.
    add(table::NEWEST + 1, Verdict::Errno(libc::ENOSYS as u32));
    ranges
}

fn compile(capabilities: u64) -> Vec<BpfInstruction> {
    let native = tree(&ranges(capabilities, |call| call.1));
    let i386 = tree(&ranges(capabilities, |call| call.2));
    let mut program = vec![
        load(4),
        equal(ARCH_X86_64, 0, 2),
        load(0),
        jump(1 + 1 + 1 + i386.len()),
        equal(ARCH_I386, 1, 0),
        ret(RET_KILL_PROCESS),
        load(0),
    ];
    // Native code comes last, reached by one far jump over the rest.
    program.extend(i386);
    program.extend(native);
    program
}

fn tree(ranges: &[(u32, Verdict)]) -> Vec<BpfInstruction> {
    if let [(_, verdict)] = ranges {
        return leaf(*verdict);
    }
    let middle = ranges.len() / 2;
    let (left, right) = (tree(&ranges[..middle]), tree(&ranges[middle..]));
    let mut code = match u8::try_from(left.len()) {
        Ok(skip) => vec![at_least(ranges[middle].0, skip, 0)],
        Err(_) => vec![at_least(ranges[middle].0, 0, 1), jump(left.len())],
    };
    code.extend(left);
    code.extend(right);
    code
}

fn leaf(verdict: Verdict) -> Vec<BpfInstruction> {
    let refuse = ret(RET_ERRNO | libc::EPERM as u32);
    let first_argument = load(16);
    match verdict {
        Verdict::Allow => vec![ret(RET_ALLOW)],
        Verdict::Errno(errno) => vec![ret(RET_ERRNO | errno)],
        Verdict::CheckSocket => {
            vec![first_argument, equal(AF_VSOCK, 2, 0), equal(AF_ALG, 1, 0), ret(RET_ALLOW), refuse]
        }
        Verdict::CheckClone => vec![first_argument, any_of(CLONE_NAMESPACES, 1, 0), ret(RET_ALLOW), refuse],
        Verdict::CheckPersonality => {
            let count = PERSONALITIES.len() as u8;
            let tests = PERSONALITIES.iter().zip(0u8..).map(|(value, at)| equal(*value, count - at, 0));
            [first_argument].into_iter().chain(tests).chain([refuse, ret(RET_ALLOW)]).collect()
        }
    }
}

/// A word of `struct seccomp_data`: 0 the number, 4 the architecture, 16 the lower half of the first argument.
const fn load(offset: u32) -> BpfInstruction {
    BpfInstruction { code: 0x20, jt: 0, jf: 0, k: offset }
}
const fn equal(value: u32, then: u8, otherwise: u8) -> BpfInstruction {
    BpfInstruction { code: 0x15, jt: then, jf: otherwise, k: value }
}
const fn at_least(value: u32, then: u8, otherwise: u8) -> BpfInstruction {
    BpfInstruction { code: 0x35, jt: then, jf: otherwise, k: value }
}
const fn any_of(mask: u32, then: u8, otherwise: u8) -> BpfInstruction {
    BpfInstruction { code: 0x45, jt: then, jf: otherwise, k: mask }
}
const fn jump(skip: usize) -> BpfInstruction {
    BpfInstruction { code: 0x05, jt: 0, jf: 0, k: skip as u32 }
}
const fn ret(value: u32) -> BpfInstruction {
    BpfInstruction { code: 0x06, jt: 0, jf: 0, k: value }
}

#[cfg(test)]
mod tests;
