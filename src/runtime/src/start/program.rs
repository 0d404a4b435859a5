//! Where a program may lie, by execve's rules and those of a shell's PATH.

use std::ffi::CString;

/// A program with a slash is itself; others are looked for in each directory of PATH, inside the root, by the child. Without
/// PATH, or with an empty one, there is nothing to look in.
pub(super) fn candidates(argv: &[CString], env: &[CString]) -> Vec<CString> {
    let Some(program) = argv.first() else { return Vec::new() };
    let name = program.as_bytes();
    if name.contains(&b'/') {
        return vec![program.clone()];
    }
    if name.is_empty() {
        return Vec::new();
    }
    let path = env.iter().rev().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    path.unwrap_or_default()
        .split(|byte| *byte == b':')
        // A relative or empty directory means the working directory: nobody asks for that knowingly (as Go's LookPath).
        .filter(|directory| directory.first() == Some(&b'/'))
        .filter_map(|directory| CString::new([directory, b"/", name].concat()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(program: &str, env: &[&str], expected: &[&str]) {
        let text = |s: &&str| CString::new(*s).unwrap();
        let env: Vec<CString> = env.iter().map(text).collect();
        let expected: Vec<CString> = expected.iter().map(text).collect();
        assert_eq!(candidates(&[text(&program)], &env), expected);
    }

    #[test]
    fn only_bare_names_are_searched_and_only_in_absolute_directories() {
        check("sh", &["PATH=/bin:/usr/bin"], &["/bin/sh", "/usr/bin/sh"]);
        check("./sh", &["PATH=/bin"], &["./sh"]);
        check("sh", &[], &[]);
        check("sh", &["PATH=:.:/bin"], &["/bin/sh"]);
        check("", &["PATH=/bin"], &[]);
    }
}
