//! Which device nodes a container may use: a list on v1, a program of our own on v2.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{Cgroups, write_file};
use crate::sys::{check, owned};

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    character: bool,
    major: Option<u32>,
    minor: Option<u32>,
    mknod_only: bool,
}

/// What every container gets: the nodes we make, terminals, and the right to make any node (not to open it).
pub(crate) const DEFAULT: [Rule; 11] = [
    Rule { character: true, major: None, minor: None, mknod_only: true },
    Rule { character: false, major: None, minor: None, mknod_only: true },
    node(1, 3),
    node(1, 5),
    node(1, 7),
    node(1, 8),
    node(1, 9),
    node(5, 0),
    node(5, 1),
    node(5, 2),
    Rule { character: true, major: Some(136), minor: None, mknod_only: false },
];

const fn node(major: u32, minor: u32) -> Rule {
    Rule { character: true, major: Some(major), minor: Some(minor), mknod_only: false }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Default,
    /// Privileged.
    Everything,
}

impl Cgroups {
    /// Enforced from here on. Without it a group of v2 permits everything, and one of v1 what its parent does.
    pub(crate) fn limit_devices(&self, path: &str, access: Access) -> io::Result<()> {
        if access == Access::Everything {
            return Ok(());
        }
        if let Some(v1) = self.v1("devices") {
            let directory = v1.mount.join(path);
            write_file(&directory.join("devices.deny"), "a")?;
            for rule in DEFAULT {
                write_file(&directory.join("devices.allow"), &rule.v1_line())?;
            }
            return Ok(());
        }
        let Some(v2) = self.unified() else { return Ok(()) };
        let directory = std::fs::File::open(v2.mount.join(path))?;
        attach(&OwnedFd::from(directory), &program(&DEFAULT))
    }
}

impl Rule {
    fn v1_line(self) -> String {
        let part = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let kind = if self.character { 'c' } else { 'b' };
        let access = if self.mknod_only { "m" } else { "rwm" };
        format!("{kind} {}:{} {access}", part(self.major), part(self.minor))
    }
}

/// `struct bpf_insn`: opcode, registers, offset, immediate.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// r1 points to `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`; access_type is the access in the
/// upper half (1 mknod, 2 read, 4 write) and the type in the lower (1 block, 2 character). Returns 1 to permit.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61;
    const AND_IMMEDIATE: u8 = 0x54;
    const SHIFT_RIGHT: u8 = 0x74;
    const MOVE: u8 = 0xbc;
    const MOVE_IMMEDIATE: u8 = 0xb7;
    const JUMP_UNEQUAL: u8 = 0x55;
    const EXIT: u8 = 0x95;
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE, 3, 2, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16), // r3: access
        instruction(AND_IMMEDIATE, 2, 0, 0, 0xffff), // r2: type
        instruction(LOAD_WORD, 4, 1, 4, 0), // r4: major
        instruction(LOAD_WORD, 5, 1, 8, 0), // r5: minor
    ];
    for rule in rules {
        let mut tests = vec![(2u8, if rule.character { 2 } else { 1 })];
        tests.extend(rule.major.map(|major| (4, major as i32)));
        tests.extend(rule.minor.map(|minor| (5, minor as i32)));
        if rule.mknod_only {
            // Exactly mknod, with no right to open beside it.
            tests.push((3, 1));
        }
        let mut left = tests.len() as i16 + 2;
        for (register, value) in tests {
            left -= 1;
            code.push(instruction(JUMP_UNEQUAL, register, 0, left, value));
        }
        code.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, 1));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

/// First fields of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C, align(8))]
struct LoadAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C, align(8))]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const PROGRAM_LOAD: i32 = 5;
const PROGRAM_ATTACH: i32 = 8;
const CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Beside programs of the groups above (a service manager's), not instead of them.
const ALLOW_MULTI: u32 = 2;

fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let attr = LoadAttr {
        kind: CGROUP_DEVICE,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: attr and what it points to live through the call; the size is attr's own.
    owned(unsafe { libc::syscall(libc::SYS_bpf, PROGRAM_LOAD, &raw const attr, size_of::<LoadAttr>()) })
}

fn attach(group: &OwnedFd, code: &[Instruction]) -> io::Result<()> {
    let program = load(code)?;
    let attr = AttachAttr {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: as above. The group keeps the program; our descriptor may go.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROGRAM_ATTACH, &raw const attr, size_of::<AttachAttr>()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the few opcodes that `program` uses.
    fn permits(code: &[Instruction], access: u32, kind: u32, major: u32, minor: u32) -> bool {
        let mut r = [0u32; 6];
        let mut at = 0usize;
        loop {
            let i = code[at];
            let (d, s) = ((i.registers & 15) as usize, (i.registers >> 4) as usize);
            at += 1;
            match i.code {
                0x61 => r[d] = [access << 16 | kind, major, minor][(i.offset / 4) as usize],
                0x54 => r[d] &= i.immediate as u32,
                0x74 => r[d] >>= i.immediate,
                0xbc => r[d] = r[s],
                0xb7 => r[d] = i.immediate as u32,
                0x55 if r[d] != i.immediate as u32 => at += i.offset as usize,
                0x55 => {}
                0x95 => return r[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    #[test]
    fn only_listed_devices_open_and_any_node_may_be_made() {
        let code = program(&DEFAULT);
        assert!(permits(&code, 2 | 4, 2, 1, 3), "/dev/null");
        assert!(permits(&code, 2, 2, 136, 77), "a pseudo-terminal");
        assert!(permits(&code, 1, 1, 8, 0), "mknod of a disk");
        assert!(!permits(&code, 2, 1, 8, 0), "reading a disk");
        assert!(!permits(&code, 1 | 2, 2, 1, 1), "mknod and reading of /dev/mem");
        assert!(!permits(&code, 2, 2, 10, 200), "/dev/net/tun");
        assert!(!permits(&code, 2, 1, 1, 3), "a block device with null's number");
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        match load(&program(&DEFAULT)) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => eprintln!("SKIPPED: bpf(2) needs root"),
            Err(error) => panic!("{error}"),
        }
    }
}
