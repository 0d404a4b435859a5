use super::*;

/// What the kernel does with a program, for the opcodes in use.
fn run(program: &[BpfInstruction], arch: u32, number: u32, argument: u32) -> u32 {
    let (mut accumulator, mut at) = (0u32, 0usize);
    loop {
        let i = program[at];
        at += 1;
        let test = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            0x20 => {
                accumulator = match i.k {
                    0 => number,
                    4 => arch,
                    16 => argument,
                    other => panic!("word {other}"),
                }
            }
            0x15 => at += test(accumulator == i.k),
            0x35 => at += test(accumulator >= i.k),
            0x45 => at += test(accumulator & i.k != 0),
            0x05 => at += i.k as usize,
            0x06 => return i.k,
            other => panic!("opcode {other:#x}"),
        }
    }
}

/// The table read directly, without ranges and trees.
fn expected(native: bool, number: u32, argument: u32, capabilities: u64) -> u32 {
    const EPERM: u32 = RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = RET_ERRNO | libc::ENOSYS as u32;
    let admin = capabilities & SYS_ADMIN != 0;
    let call = table::CALLS.iter().find(|call| (if native { call.1 } else { call.2 }) == number && number != table::NONE);
    let permitted = match call.map(|call| call.3) {
        None if number > table::NEWEST => return ENOSYS,
        None => false,
        Some(Rule::Always) => true,
        Some(Rule::With(any)) => capabilities & any != 0,
        Some(Rule::Socket) => argument != AF_ALG && argument != AF_VSOCK,
        Some(Rule::Personality) => PERSONALITIES.contains(&argument),
        Some(Rule::Clone) => admin || argument & CLONE_NAMESPACES == 0,
        Some(Rule::Clone3) if !admin => return ENOSYS,
        Some(Rule::Clone3) => true,
    };
    if permitted { RET_ALLOW } else { EPERM }
}

#[test]
fn the_program_says_what_the_table_says_for_every_number() {
    for capabilities in [0, Capabilities::default().0, Capabilities::ALL.0] {
        let program = compile(capabilities);
        assert!(program.len() < 1000, "{} instructions", program.len());
        let numbers = (0..700).chain([0x4000_0000, 0x4000_0001, u32::MAX]);
        for number in numbers {
            for argument in [0, 1, 8, AF_ALG, AF_VSOCK, 0x20008, 0x1000_0000, 0x11, u32::MAX] {
                for (arch, native) in [(ARCH_X86_64, true), (ARCH_I386, false)] {
                    let (got, want) = (run(&program, arch, number, argument), expected(native, number, argument, capabilities));
                    assert_eq!(got, want, "call {number}({argument:#x}) of {arch:#x}, capabilities {capabilities:#x}");
                }
            }
        }
        assert_eq!(run(&program, 0xc000_00b7, 0, 0), RET_KILL_PROCESS, "an architecture that cannot be");
    }
}

#[test]
fn known_calls_have_the_numbers_that_libc_knows() {
    let number = |name: &str| table::CALLS.iter().find(|call| call.0 == name).unwrap().1;
    for (name, libc) in [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("openat2", libc::SYS_openat2),
        ("clone3", libc::SYS_clone3),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("rseq", libc::SYS_rseq),
    ] {
        assert_eq!(number(name), libc as u32, "{name}");
    }
    assert!(table::CALLS.iter().all(|call| !call.0.starts_with("io_uring")));
}

#[test]
fn the_way_through_the_tree_is_short() {
    let program = compile(Capabilities::default().0);
    let depth = ranges(Capabilities::default().0, |call| call.1).len().ilog2() + 2;
    assert!(depth < 12, "{depth} comparisons, {} instructions", program.len());
}
