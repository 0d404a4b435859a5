//! PEM as Go's encoding/pem reads it: blocks are looked for, and what is none is passed over.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub label: String,
    pub has_headers: bool,
    pub bytes: Vec<u8>,
}

/// The blocks of `text`, in their order.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(label) = line.trim_end().strip_prefix(BEGIN).and_then(|l| l.strip_suffix(DASHES)) else { continue };
        // A block that turns out to be none hides no other behind it.
        let ahead = lines.clone();
        if let Some((block, rest)) = block(label, ahead) {
            found.push(block);
            lines = rest;
        }
    }
    found
}

fn block<'t>(label: &str, mut lines: std::str::Lines<'t>) -> Option<(Block, std::str::Lines<'t>)> {
    let mut base64 = String::new();
    let mut has_headers = false;
    loop {
        let line = lines.next()?.trim();
        if let Some(end) = line.strip_prefix(END) {
            if end.strip_suffix(DASHES)? != label {
                return None;
            }
            break;
        }
        if base64.is_empty() && line.contains(':') {
            has_headers = true;
        } else {
            base64.extend(line.split_ascii_whitespace());
        }
    }
    let bytes = STANDARD.decode(base64).ok()?;
    Some((Block { label: label.to_owned(), has_headers, bytes }, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let text = "hello\n-----BEGIN A-----\nAAEC\nAwQ=\n-----END A-----\nfoo\n-----BEGIN A-----\n?\n-----END A-----\n\
                    -----BEGIN B-----\nKey: value\n\nAA==\n-----END B-----";
        let found: Vec<_> = blocks(text).into_iter().map(|b| (b.label, b.has_headers, b.bytes)).collect();
        assert_eq!(found, [("A".to_owned(), false, vec![0, 1, 2, 3, 4]), ("B".to_owned(), true, vec![0])]);
        assert!(blocks("-----BEGIN A-----\nAA==\n-----END B-----").is_empty());
        assert!(blocks("").is_empty());
    }
}
