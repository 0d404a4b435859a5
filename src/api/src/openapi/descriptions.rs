//! The descriptions of kinds and fields, unpacked for the time in which one document is made.
use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));

pub(super) struct Descriptions {
    text: String,
    /// Where the lines of each definition stand.
    by_name: HashMap<String, Range<usize>>,
}

impl Descriptions {
    pub(super) fn unpack() -> Descriptions {
        let mut text = String::new();
        flate2::read::ZlibDecoder::new(PACKED).read_to_string(&mut text).expect("the build script packed it");
        let mut by_name = HashMap::new();
        let mut start = 0;
        while start < text.len() {
            let end = text[start..].find("\n=").map_or(text.len(), |at| start + at + 1);
            let name_end = text[start..].find('\n').map_or(end, |at| start + at);
            by_name.insert(text[start + 1..name_end].to_owned(), name_end + 1..end);
            start = end;
        }
        Descriptions { text, by_name }
    }

    /// Of a definition itself; `""` if it has none.
    pub(super) fn of(&self, definition: &str) -> String {
        self.lines(definition).next().map(unescape).unwrap_or_default()
    }

    /// Of all fields of a definition.
    pub(super) fn of_fields(&self, definition: &str) -> HashMap<&str, &str> {
        self.lines(definition).skip(1).filter_map(|line| line.split_once('\t')).collect()
    }

    fn lines(&self, definition: &str) -> impl Iterator<Item = &str> {
        let range = self.by_name.get(definition).cloned().unwrap_or(0..0);
        self.text[range].lines()
    }
}

pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(if chars.next() == Some('n') { '\n' } else { '\\' }),
            c => out.push(c),
        }
    }
    out
}
